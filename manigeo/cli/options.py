"""Options that several commands share."""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from manigeo.errors import shorten

if TYPE_CHECKING:
    from manigeo.runs import Found

F = TypeVar("F", bound=Callable[..., Any])


def pair(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """``key=value`` options as a dict; values are JSON where they can be read so (6, 0.5, true, [1, 2]), else text."""
    pairs = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"expected KEY=VALUE, got {text!r}", ctx, param)
        pairs[key] = _value(value)
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        json.dumps(settings, default=str)  # looks into everything
    except (OSError, ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} is not a TOML file: {error}", ctx, param) from error
    settings = {key.replace("-", "_"): value for key, value in settings.items()}
    known = {p.name for p in ctx.command.params}
    unknown = sorted(set(settings) - {name for name in known if name})
    if unknown:
        raise click.BadParameter(
            f"{path} sets {shorten(', '.join(unknown), 200)}, which this command does not have", ctx, param
        )
    parameters = {p.name: p for p in ctx.command.params if p.name}
    as_typed = {name: _as_typed(ctx, parameters[name], value) for name, value in settings.items()}
    ctx.default_map = {**(ctx.default_map or {}), **as_typed}


def _as_typed(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """A value of the file in the form in which it would be typed, so that it is checked as if it had been."""
    if isinstance(param, click.Option) and param.is_flag:
        if isinstance(value, bool):
            return value
        raise click.BadParameter(f"expected true or false, got {value!r}", ctx, param)
    if "\0" in str(value):
        raise click.BadParameter("a null character is in no name or number", ctx, param)
    if isinstance(value, dict) and param.multiple:  # a table stands for repeated KEY=VALUE options
        return [f"{key}={json.dumps(item, default=str)}" for key, item in value.items()]
    if isinstance(value, list):
        return [str(item) for item in value] if param.multiple else ",".join(map(str, value))
    return [str(value)] if param.multiple else str(value)


def typed(param: click.Parameter, value: Any) -> list[str]:
    """The words that give an option this value.

    >>> typed(click.Option(["--layers"], multiple=True), ["a", "b"]), typed(click.Option(["--x"], is_flag=True), False)
    (['--layers', 'a', '--layers', 'b'], [])
    """
    name = max(param.opts, key=len)
    if isinstance(value, bool) and isinstance(param, click.Option) and param.is_flag:
        return [name] if value else list(param.secondary_opts[:1])
    if isinstance(value, dict):  # a table stands for repeated KEY=VALUE options
        return [word for key, item in value.items() for word in (name, f"{key}={json.dumps(item)}")]
    if isinstance(value, (list, tuple)) and param.multiple:
        return [word for item in value for word in (name, str(item))]
    return [name, ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]


config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with this command's options; the command line wins.",
)


def results_option(default: str) -> Callable[..., Any]:
    return click.option(
        "--out",
        default=default,
        show_default=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="Results: .csv, .json or .parquet.",
    )


seed_option = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
force_option = click.option("--force", is_flag=True, help="Overwrite what exists.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps ...")


def _not_zero(ctx: click.Context, param: click.Parameter, value: int) -> int:
    if value == 0:
        raise click.BadParameter("expected the number of processes, or -1 for one a core; got 0", ctx, param)
    return value


def jobs_option(default: int = 1) -> Callable[[F], F]:
    return click.option(
        "--jobs", default=default, show_default=True, callback=_not_zero, help="Processes; -1 for one a core."
    )


cluster_option = click.option(
    "--cluster",
    metavar="local|ADDRESS",
    help="Work on a Dask cluster: one of --jobs workers started here, or that at tcp://host:8786 or of a scheduler file.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of a table.")


def several(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options that belong together, as one decorator."""

    def decorate(f: F) -> F:
        for option in reversed(options):
            f = option(f)
        return f

    return decorate


# What data, and which labels of it are permuted.
data_options = several(
    click.option("--data", help="glyphs, digits, idx:DIR, cifar10:DIR, cifar100:DIR, npz:PATH, folder:PATH, hf:PATH, "
                 "package.module:factory or file.py:factory."),
    click.option("--data-arg", "data_args", multiple=True, callback=pair, metavar="KEY=VALUE",
                 help="An option of the data set, e.g. per_class=80; may be repeated."),
    click.option("--permute", type=float, help="Fraction of the training labels to permute."),
    click.option("--convention", help="permutation (default), uniform or derangement."),
    click.option("--permute-seed", type=click.IntRange(min=0), help="Seed of the permutation (default 0)."),
)  # fmt: skip

# What network.
arch_options = several(
    click.option("--arch", help="mlp, cnn, vgg11, vgg16, resnet18, alexnet, densenet, package.module:factory or "
                 "file.py:factory."),
    click.option("--arch-arg", "arch_args", multiple=True, callback=pair, metavar="KEY=VALUE",
                 help="An option of the network, e.g. depth=6; may be repeated."),
)  # fmt: skip


def tell_left_out(*found: "Found") -> None:
    """What of the tables in and beside a folder does not belong to it, or cannot be read, and why: on stderr."""
    for path, why in dict(item for one in found for item in one.left_out.items()).items():
        click.echo(f"left out: {os.path.relpath(path)}: {why}", err=True)

"""Options that several commands share."""

import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from manigeo.cli.inputs_kept import CONFIG
from manigeo.cli.programs import repeated
from manigeo.errors import InputError, shorten
from manigeo.storage.ceilings import MOST_SETTINGS_BYTES, read_text
from manigeo.text.visible import visible

if TYPE_CHECKING:
    from manigeo.activations import Activations
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


def program_pair(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """The same, where a value may name a program."""
    found: dict[str, Any] = repeated(ctx, param, pair(ctx, param, values))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def names(what: str, example: str) -> Callable[[click.Context, click.Parameter, Any], tuple[Any, ...]]:
    """A callback: the names in a text, with commas between; of a repeated option those of each text."""

    def read(ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return tuple(read(ctx, param, text) for text in value)
        found = () if value is None else tuple(word.strip() for word in value.split(","))
        if not all(found):
            raise click.BadParameter(f"expected {what} with commas between, e.g. {example}; got {value!r}", ctx, param)
        return found

    return read


def whole_numbers(
    expected: str, least: int = 0, fewest: int = 1
) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...]]:
    """A callback: the ``fewest`` or more different numbers in a text, from ``least`` on, with commas between."""

    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
        try:
            found = tuple(int(word) for word in text.split(",")) if text else ()
        except ValueError:
            found = (least - 1,)
        if found and (min(found) < least or len(set(found)) < fewest):
            raise click.BadParameter(f"expected {expected}; got {text!r}", ctx, param)
        return found

    return read


def checkpoints_option(default: str, help_text: str) -> Callable[[F], F]:
    """Checkpoints of a run by name or epoch."""
    return click.option("--checkpoints", default=default, show_default=True, metavar="NAMES", help=help_text,
                        callback=names("names or epochs", "init,10,best"))  # fmt: skip


def note(said: str) -> None:
    """Something that the user should know, on stderr."""
    click.echo(f"note: {visible(said)}", err=True)


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        settings = tomllib.loads(read_text(path, MOST_SETTINGS_BYTES, pipe=True))
        json.dumps(settings, default=str)  # looks into everything
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    except (OSError, ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} is not a TOML file: {error}", ctx, param) from error
    ctx.meta.setdefault(CONFIG, []).append(path)
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


def given(command: click.Command, request: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The options of a command that were given, as typed, for another command that has them too."""
    of_command = {param.name: param for param in command.params}
    values = ((of_command[name], request[name]) for name in names)
    return [word for param, value in values if value not in (None, (), {}) for word in typed(param, value)]


config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with this command's options; the command line wins, and alone names programs.",
)


def results_option(default: str) -> Callable[..., Any]:
    return click.option(
        "--out",
        default=default,
        show_default=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="Results: .csv, .json or .parquet; - for CSV on stdout.",
    )


near_guessing_option = click.option(
    "--near-guessing", type=click.FloatRange(0, 1, max_open=True),
    help="Chance-normalised accuracy on permuted labels up to which an epoch is before memorization. Default: the run's "
    "own, or 0.08.",
)  # fmt: skip
seed_option = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
force_option = click.option("--force", is_flag=True, help="Overwrite what exists.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show the plan, and compute nothing.")
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps ...")


def _not_zero(ctx: click.Context, param: click.Parameter, value: int) -> int:
    if value == 0:
        raise click.BadParameter("expected the number of processes, or -1 for one per core; got 0", ctx, param)
    return value


def jobs_option(default: int = 1) -> Callable[[F], F]:
    return click.option(
        "--jobs", default=default, show_default=True, callback=_not_zero, help="Number of processes; -1: one per core."
    )


cluster_option = click.option(
    "--cluster",
    metavar="local|ADDRESS",
    callback=repeated,
    help="Work on a Dask cluster: one of --jobs workers started here, or that at tls://host:8786 or of a scheduler file.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of a table.")


def resuming() -> str:
    """Words for what is typed after an interrupt; ``--force``, if it was given, is named, which excludes ``--resume``."""
    instead = " in place of --force" * _is_forced(click.get_current_context(silent=True))
    return f"the same command with --resume{instead}"


def going_on() -> str:
    """Words at an interrupt of a command that goes on by itself, unless it is forced to begin anew; by its name, since a
    command that it carries out may have spoken before."""
    context = click.get_current_context()
    again = f"manigeo {context.info_name}, given again" + " without --force" * _is_forced(context)
    return f"{again}, goes on where it was interrupted"


def _is_forced(context: click.Context | None) -> bool:
    return context is not None and bool(context.params.get("force"))


def several(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options that belong together, as one decorator."""

    def decorate(f: F) -> F:
        for option in reversed(options):
            f = option(f)
        return f

    return decorate


# How a table is made: at once, or by processes that can be interrupted.
table_options = several(seed_option, json_option, force_option, config_option)


def work_options(resume_help: str, jobs: int = 1) -> Callable[[F], F]:
    return several(
        jobs_option(jobs), cluster_option, seed_option, json_option,
        click.option("--resume", is_flag=True, help=resume_help), dry_run_option, force_option, config_option,
    )  # fmt: skip


# What data, and which labels of it are permuted.
data_options = several(
    click.option("--data", callback=repeated, help="glyphs, digits, idx:DIR, cifar10:DIR, cifar100:DIR, npz:PATH, "
                 "folder:PATH, hf:PATH, text:PATH, sentences, package.module:factory or file.py:factory."),
    click.option("--data-arg", "data_args", multiple=True, callback=program_pair, metavar="KEY=VALUE",
                 help="An option of the data set, e.g. per_class=80; may be repeated."),
    click.option("--permute", type=float, help="Fraction of the training labels to permute."),
    click.option("--noise", "--convention", "convention", metavar="NAME|FILE", help="How labels are replaced: permutation "
                 "(default), uniform, derangement, pairs (each class as the next), or a .csv file with a matrix: row i "
                 "holds the probabilities of the labels that class i gets, in all examples unless --permute gives a share."),
    click.option("--permute-seed", type=click.IntRange(min=0), help="Seed of the permutation (default 0)."),
)  # fmt: skip

# What network.
arch_options = several(
    click.option("--arch", callback=repeated, help="mlp, resmlp, cnn, vgg11, vgg16, resnet18, alexnet, densenet, vit, gpt, "
                 "package.module:factory or file.py:factory."),
    click.option("--arch-arg", "arch_args", multiple=True, callback=pair, metavar="KEY=VALUE",
                 help="An option of the network, e.g. depth=6; may be repeated."),
)  # fmt: skip

drop_tied_option = click.option(
    "--drop-tied",
    is_flag=True,
    help="Without the channels that manigeo train --tied-dropout has tied to single examples.",
)

null_option = click.option(
    "--null",
    type=click.Choice(["shuffled", "gaussian"]),
    help="Measure a null model in place of the data: labels shuffled, or Gaussian clouds of the same means and covariances; "
    "the table then has its name, .shuffled.csv or .gaussian.csv.",
)

labels_option = click.option(
    "--labels", type=click.Path(path_type=Path, dir_okay=False), help="CSV with labels of your own, those of training, in "
    "place of --permute: a column index or file, and one train_label, label or class (numbers or names)."
)  # fmt: skip

kinds_option = click.option(
    "--kinds-from", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="CSV that marks training examples as memorized or typical (columns index and kind), as manigeo memorization "
    "--kinds writes it: these become kinds."
)  # fmt: skip

# How weights are read from a file.
file_options = several(
    click.option("--state-key", metavar="KEY", help="Key of the weights in the file, or start of their names, e.g. "
                 "ema.model. Default: state_dict, model_state_dict, model, net, module, or the file itself."),
    click.option("--ema", is_flag=True, help="Averaged weights: state_dict_ema, model_ema, ema_state_dict or ema."),
    click.option("--no-strict", is_flag=True, help="Load the weights that fit, and list those that do not."),
    click.option("--trust", is_flag=True, callback=repeated,
                 help="Allow pickle files, which can run code when loaded."),
)  # fmt: skip

# Which network, with which weights.
model_options = several(
    click.option("--model", type=click.Path(path_type=Path), help="A checkpoint of manigeo train or your own loop, or "
                 "another program's weights (.pt, .pth, .ckpt, .safetensors); with --trust also a pickled network or "
                 ".pt2, which need no --arch."),
    click.option("--weights", type=click.Choice(["checkpoint", "init"]), default="checkpoint", show_default=True,
                 help="init: the untrained network, from the seed of the training; without --model from --seed."),
    file_options,
)  # fmt: skip


def _types(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for of_text in names("classes", "Conv2d,Linear")(ctx, param, values) for name in of_text)


def _axes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    axes = pair(ctx, param, values)
    for name, axis in axes.items():
        if type(axis) is not int:
            raise click.BadParameter(
                f"expected NAME=AXIS with a whole number, e.g. lstm=1, got {name}={axis}", ctx, param
            )
    return axes


# Which layers, and what of each.
layer_options = several(
    click.option("--layers", multiple=True, metavar="GLOB", help="Layers to take, e.g. 'features.*'; may be repeated. "
                 "Default: the input, every module with parameters of its own, the output. Final states of a "
                 "recurrent module are lstm:h_l0, lstm:c_l1 ..."),
    click.option("--batch-axis", multiple=True, callback=_axes, metavar="NAME=AXIS", help="Axis of a layer's output along "
                 "which examples lie, where it cannot be seen: lstm=1, 'encoder.*=1'; may be repeated."),
    click.option("--layers-regex", multiple=True, metavar="REGEX", help="The same by regular expression, of the whole "
                 "name: 'features[.](0|3)'."),
    click.option("--types", multiple=True, metavar="CLASS,...", callback=_types,
                 help="Layers of these classes alone, e.g. Conv2d,Linear or '*Norm*'."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Layers to leave out."),
    click.option("--readout", help="Features of a layer with positions: flatten (default), mean (over space or tokens), "
                 "spatial-mean, spatial-max, class-token, token-mean or last-token (default of a text). A layer without "
                 "such positions is flattened."),
    click.option("--backend", default="hooks", show_default=True, type=click.Choice(["hooks", "fx"]),
                 help="fx: functions are layers too, such as residual sums and F.relu, where torch.fx can trace them."),
)  # fmt: skip
per_class_option = click.option(
    "--per-class", default=50, show_default=True, help="Largest number of examples per class and kind."
)

# files of arrays that other programs wrote, in place of ACTS
arrays_options = several(
    click.option(
        "--dataset",
        "datasets",
        multiple=True,
        metavar="NAME",
        help="Array of a file of another program, an area; may be repeated.  [default: all of .npz and .mat]",
    ),
    click.option(
        "--labels",
        metavar="NAME|FILE",
        help="Labels of such a file: an array or column of it, or a file (.npy, or text with one per line).  "
        "[default: what is called labels, label, y, class or condition]",
    ),
)


def activations_of(path: Path, datasets: Sequence[str], labels: str | None) -> "Activations | Path":
    """The activations in a file of arrays of another program, and what is said of them; else the path."""
    from manigeo.activations.foreign import is_foreign, read_arrays

    if is_foreign(path):
        acts = read_arrays(path, datasets, labels)
        for note in acts.notes:
            click.echo(f"{path}: {note}", err=True)
        return acts
    if datasets or labels:
        raise click.UsageError(
            f"{path} is an activation file, with layers and labels of its own: leave --dataset and --labels out"
        )
    return path


acts_argument = click.argument("acts", type=click.Path(path_type=Path))


def _run_folder(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """A folder, or folders; a file in its place is told what it is."""
    for path in value if isinstance(value, tuple) else (value,):
        if path.is_file():
            from manigeo.storage.recognition import RUN, mistaken

            raise click.BadParameter(mistaken(path, RUN), ctx, param)
        if not path.is_dir():
            raise click.BadParameter(
                f"{path} does not exist; expected the folder of a run, as manigeo train --out {path} makes one",
                ctx,
                param,
            )
    return value


run_argument = click.argument("run", type=click.Path(path_type=Path), callback=_run_folder)
runs_argument = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), callback=_run_folder)


def run_options_for(examples: int | None, told: str) -> Callable[[F], F]:
    """The trained network of a run, and what of it is looked at: so many examples of a kind unless asked otherwise."""
    return several(
        click.option("--at", default="last", show_default=True, metavar="NAME",
                     help="The trained network: a checkpoint by name or epoch (last, best, 40)."),
        click.option("--layers", multiple=True, metavar="NAME", help="Layers to look at; may be repeated. Default: all."),
        click.option("--group-by", default="module", show_default=True,
                     help="Unit that counts as a layer: module (with the normalisation that follows), kernel, block, stage, "
                     "or a regular expression, whose match names the layer."),
        click.option("--examples", "most", default=examples, type=click.IntRange(min=1), metavar="N",
                     help=f"At most N examples of a kind, drawn by --seed. Default: {told}."),
        click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1)),
        device_option,
        arch_options,
        drop_tied_option,
        file_options,
        data_options,
        labels_option,
        kinds_option,
    )  # fmt: skip


run_options = run_options_for(None, "all")


def tell_scores(acts: "Activations") -> None:
    """Print how the network scores on the examples of a file, and on stderr what is doubtful about it."""
    from manigeo.text.scores import describe_scores, doubts

    click.echo(describe_scores(acts.scores, acts.unscored))
    if acts.shard is None:  # a part of the classes says little; manigeo merge tells of the whole
        for said in doubts(acts.scores, acts.provenance, acts.n_seen_classes):
            click.echo(f"warning: {visible(said)}", err=True)


def tell_left_out(*found: "Found") -> None:
    """Tell on stderr what of the tables in and beside a folder does not belong to it, or cannot be read, and why."""
    for path, why in dict(item for one in found for item in one.left_out.items()).items():
        click.echo(f"left out: {visible(f'{os.path.relpath(path)}: {why}')}", err=True)

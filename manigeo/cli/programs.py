"""Programs that a file names: they run only where the command line repeats them.

A TOML file, of ``--config`` or of a sweep, may come from somebody else, as a checkpoint may. What it says of a network, a
data set or a transform may be a function that is to be called; ``trust`` lets pickles run what they name; and whoever
answers as a cluster can have this process run anything. All of these are for the user to say.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import click
from click.core import ParameterSource

from manigeo.errors import UsageError

_ROLES = {
    "--arch": "its network",
    "--data": "its data",
    "--data-arg": "its transform",
    "--cluster": "its cluster",
    "--allow": "a program to run",
}


def programs(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The options, of those that a command was given, that run something, and what each names.

    >>> list(programs({"arch": "os:system", "lr": 0.1, "trust": True}))
    [('--arch', 'os:system'), ('--trust', 'trust')]
    """
    if ":" in str(params.get("arch") or ""):
        yield "--arch", str(params["arch"])
    if ":" in str(params.get("data") or "") and _runs_code(str(params["data"])):
        yield "--data", str(params["data"])
    if ":" in str((params.get("data_args") or {}).get("transform") or ""):
        yield "--data-arg", f"transform={params['data_args']['transform']}"
    if params.get("trust"):
        yield "--trust", "trust"
    if params.get("cluster") not in (None, "local"):
        yield "--cluster", str(params["cluster"])
    for named in params.get("allow") or ():
        yield "--allow", named


def _runs_code(spec: str) -> bool:
    from manigeo_extract.data.datasets import runs_code

    return runs_code(spec)


def repeated(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """The value of an option, as a callback: refused where a --config file names a program that the line does not repeat."""
    if value and ctx.get_parameter_source(str(param.name)) is ParameterSource.DEFAULT_MAP:
        for option, named in programs({str(param.name): value}):
            what, again = _described(option, named)
            raise UsageError(f"the --config file {what}; if you trust it, repeat {again}")
    return value


def _described(option: str, named: str) -> tuple[str, str]:
    if option == "--trust":
        return "says trust, which lets pickle files run code", "--trust"
    return f"names {named!r} as {_ROLES[option]}", f"{option} {named}"


def check_allowed(source: str, option: str, named: str, allowed: tuple[str, ...]) -> None:
    """Refuse a program that a sweep names and the command line does not.

    Raises :class:`~manigeo.errors.UsageError` with what to repeat.
    """
    named = named.removeprefix("transform=") if option == "--data-arg" else named
    if named not in allowed:
        what, _ = _described(option, named)
        raise UsageError(f"{source} {what}; if you trust it, repeat it: --allow {named}")

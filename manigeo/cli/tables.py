"""Results tables that grow: written now and then, and when the user interrupts; and what is there already."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.results import Part

_SAVE_SECONDS = 30.0


def earlier_table(out: Path, resume: bool, force: bool) -> "pd.DataFrame | None":
    """Read what an interrupted run has left in ``out``, if it is to go on; asked before the work begins.

    Raises :class:`~manigeo.errors.UsageError` where ``out`` cannot be written, or holds what nobody asked to replace.
    """
    from manigeo.results import check_results_path, read_results

    if resume and force:
        raise UsageError("--resume goes on with a table and --force replaces it: give one of them")
    check_results_path(out, force or resume)
    return read_results(out) if resume and out.exists() else None


def tell(table: "pd.DataFrame", out: Path, report: "Callable[[pd.DataFrame], str]", as_json: bool) -> None:
    """The table on stdout, as JSON or as its report, and where it was written."""
    from manigeo.results import as_json as to_json

    click.echo(to_json(table) if as_json else report(table))
    click.echo(f"wrote {out}; next: manigeo plot {out}", err=as_json)


def collected(
    parts: Iterator["Part"],
    out: Path,
    earlier: "pd.DataFrame | None" = None,
    joined: "Callable[[list[pd.DataFrame]], pd.DataFrame] | None" = None,
) -> "pd.DataFrame":
    """All parts by their places below what was there, ``joined``, written to ``out``; so is what is finished when the user
    interrupts, or when a part fails after some time, and now and then for one who is killed."""
    import pandas as pd

    from manigeo.results import in_order, write_results

    done: list[Part] = []

    def written() -> pd.DataFrame:
        tables = [*([] if earlier is None else [earlier]), *in_order(done)]
        table = joined(tables) if joined else pd.concat(tables, ignore_index=True)
        write_results(table, out, force=True)
        return table

    began = saved = time.monotonic()
    try:
        for part in parts:
            done.append(part)
            if time.monotonic() - saved > _SAVE_SECONDS:
                written()
                saved = time.monotonic()
    except (KeyboardInterrupt, Exception) as error:
        if done and (isinstance(error, KeyboardInterrupt) or time.monotonic() - began > _SAVE_SECONDS):
            written()
            click.echo(f"what was finished is in {out}; the same command with --resume goes on", err=True)
        raise
    return written()

"""Results tables that grow: written now and then, and when the user interrupts; and what is there already."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_SAVE_SECONDS = 30.0


def earlier_table(out: Path, resume: bool, force: bool) -> "pd.DataFrame | None":
    """What an interrupted run has left in ``out``, if it is to go on; asked before the work begins.

    Raises :class:`~manigeo.errors.UsageError` where ``out`` cannot be written, or holds what nobody said to replace.
    """
    from manigeo.results import check_results_path, read_results

    if resume and force:
        raise UsageError("--resume goes on with a table and --force replaces it: give one of them")
    check_results_path(out, force or resume)
    return read_results(out) if resume and out.exists() else None


def collected(parts: Iterator["pd.DataFrame"], out: Path, earlier: "pd.DataFrame | None" = None) -> "pd.DataFrame":
    """All parts below what was there, written to ``out``; so is what is finished when the user interrupts, and now and
    then for one who is killed."""
    import pandas as pd

    from manigeo.results import write_results

    tables = [] if earlier is None else [earlier]
    saved = time.monotonic()
    try:
        for part in parts:
            tables.append(part)
            if time.monotonic() - saved > _SAVE_SECONDS:
                write_results(pd.concat(tables, ignore_index=True), out, force=True)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if tables:
            write_results(pd.concat(tables, ignore_index=True), out, force=True)
            click.echo(f"what was finished is in {out}; the same command with --resume goes on", err=True)
        raise
    table = pd.concat(tables, ignore_index=True)
    write_results(table, out, force=True)
    return table

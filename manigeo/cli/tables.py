"""Results tables that grow: written now and then, and when the user interrupts; and what is there already."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli.options import resuming
from manigeo.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.layerwise.plan import Plan
    from manigeo.results import Part

_SAVE_SECONDS = 30.0
STDOUT = Path("-")  # as --out: the table as CSV on stdout, and the readable one on stderr


def check_out(out: Path, force: bool) -> None:
    """Raise :class:`~manigeo.errors.UsageError` where no table can be written to ``out``; to stdout one always can."""
    from manigeo.results import check_results_path

    if out != STDOUT:
        check_results_path(out, force)


def save(table: "pd.DataFrame", out: Path, force: bool = True) -> None:
    """Write the table to ``out``; what goes to stdout is written once, by :func:`tell`."""
    from manigeo.results import write_results

    if out != STDOUT:
        write_results(table, out, force)


def check_csvs(places: "Mapping[str, Path | None]", force: bool, what: str) -> None:
    """Raise :class:`~manigeo.errors.UsageError` where the path of an option, for a table that is no results table, cannot be
    written, or is there without ``force``."""
    from manigeo.storage.files import check_target

    for option, path in places.items():
        if path is not None:
            check_target(path, force=force, suffixes=(".csv",), what=what, option=option)


def save_csvs(tables: "Mapping[Path, pd.DataFrame]") -> None:
    """Write tables that are no results, each whole or not at all."""
    from manigeo.storage.files import whole_file
    from manigeo.storage.spreadsheets import write_cells

    for path, table in tables.items():
        with whole_file(path) as partial:
            write_cells(table, partial)


def earlier_table(out: Path, resume: bool, force: bool) -> "pd.DataFrame | None":
    """Read what an interrupted run has left in ``out``, if it is to go on; asked before the work begins.

    Raises :class:`~manigeo.errors.UsageError` where ``out`` cannot be written, or holds what nobody asked to replace.
    """
    from manigeo.results import read_results

    if resume and force:
        raise UsageError("--resume goes on with a table and --force replaces it: give one of them")
    if resume and out == STDOUT:
        raise UsageError("--resume goes on with a table, and --out - leaves none: give a file")
    check_out(out, force or resume)
    return read_results(out) if resume and out.exists() else None


def tell(table: "pd.DataFrame", out: Path, report: "Callable[[pd.DataFrame], str]", as_json: bool) -> None:
    """The table on stdout, as JSON or as its report, where it was written, and how to draw it, if it can be drawn; with
    ``out`` ``-`` the table as CSV (or JSON) on stdout, and its report on stderr."""
    from manigeo.results import as_json as to_json
    from manigeo.storage.spreadsheets import write_cells
    from manigeo.text.visible import visible_names
    from manigeo.vocabulary import DRAWN

    if out == STDOUT:
        click.echo(to_json(table) if as_json else str(write_cells(table)), nl=as_json)
        click.echo(report(visible_names(table)), err=True)
        return
    click.echo(to_json(table) if as_json else report(visible_names(table)))
    drawn = bool(table.loc[table["value"].notna(), "metric"].isin(DRAWN).any())
    click.echo(f"wrote {out}" + f"; next: manigeo plot {out}" * drawn, err=as_json)


def collected(
    parts: Iterator["Part"],
    out: Path,
    earlier: "pd.DataFrame | None" = None,
    joined: "Callable[[list[pd.DataFrame]], pd.DataFrame] | None" = None,
) -> "pd.DataFrame":
    """All parts by their places below what was there, ``joined``, written to ``out``; so is what is finished when the user
    interrupts, or when a part fails after some time, and now and then for one who is killed."""
    import pandas as pd

    from manigeo.results import in_order

    done: list[Part] = []

    def written() -> pd.DataFrame:
        tables = [*([] if earlier is None else [earlier]), *in_order(done)]
        table = joined(tables) if joined else pd.concat(tables, ignore_index=True)
        save(table, out)
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
            if out != STDOUT:
                click.echo(f"what was finished is in {out}; {resuming()} goes on", err=True)
        raise
    return written()


def measured(
    plans: "Sequence[Plan]", out: Path, earlier: "pd.DataFrame | None", jobs: int, cluster: str | None
) -> "pd.DataFrame":
    """The table of all plans, written to ``out``; what an ``earlier`` table holds of them is not computed again.

    Raises :class:`~manigeo.errors.UsageError` for plans of the same activations, and for a table of others.
    """
    import pandas as pd

    from manigeo.execution.workers import open_workers
    from manigeo.layerwise.tables import plan_parts, remaining_tasks
    from manigeo.results import join_results

    by_file = {plan.fingerprint: plan for plan in plans}
    if len(by_file) < len(plans):
        raise UsageError("two of the files hold the same activations: name each checkpoint's once")
    tables = {} if earlier is None else dict(iter(earlier.groupby("fingerprint", sort=False)))
    if strange := set(tables) - set(by_file):
        raise UsageError(
            f"{out} holds {len(strange)} other activation files: name these too, give another --out, or --force"
        )
    found = {fingerprint: remaining_tasks(plan, tables.get(fingerprint)) for fingerprint, plan in by_file.items()}
    kept = [table for _, table in found.values() if table is not None]
    with open_workers(jobs, cluster, max(plan.task_bytes for plan in plans)) as workers:
        parts = (
            plan_parts(plan, n_jobs=workers, progress=True, todo=found[fingerprint][0])
            for fingerprint, plan in by_file.items()
        )
        return collected(
            one_after_another(parts), out, pd.concat(kept, ignore_index=True) if kept else None, join_results
        )


class Singles:
    """Numbers of the single examples of a survey, written kind by kind as they come, before the table of the kinds."""

    def __init__(self, path: Path, survey: Any, resume: bool, force: bool) -> None:
        from manigeo.per_example.table import check_examples_path, read_examples

        self.path, self.survey = check_examples_path(path, force or resume, "--per-example"), survey
        found = read_examples(path) if resume and path.exists() else None
        if found is not None and not survey.has_singles(found):
            raise UsageError(f"{path} is of another network or other settings: give another --per-example, or --force")
        self.of = {} if found is None else {str(kind): of for kind, of in found.groupby("kind", observed=True)}

    def taken(self, parts: "Iterator[Part]") -> "Iterator[Part]":
        """The parts, each with the rows of a kind alone, when the examples of this kind are written."""
        from manigeo.per_example.table import join_examples, write_examples

        for part in parts:
            rows, examples = part.table
            self.of[str(examples["kind"].iloc[0])] = examples
            kinds = dict.fromkeys([*self.survey.kinds, *self.of])  # those of an earlier command stay
            write_examples(join_examples([self.of[kind] for kind in kinds if kind in self.of]), self.path, force=True)
            yield part._replace(table=rows)


def surveyed_table(
    survey: Any, request: Any, task: "Callable[..., pd.DataFrame]", words: tuple[str, str, str],
    report: "Callable[[pd.DataFrame], str]", *, out: Path, jobs: int, cluster: str | None, as_json: bool, resume: bool,
    dry_run: bool, force: bool, per_example: Path | None = None,
) -> None:  # fmt: skip
    """Carry out what is still to do of a survey of a run, part by part, and print and write its table.

    A worker is given the ``request`` and a ``task`` of ``survey.todo``. ``words``: the plan, the name of the work and that
    of one part. With ``per_example`` a task returns the rows of a kind and those of its single examples, which go there.
    """
    from manigeo.execution.workers import open_workers, parts_of

    plan, name, part = words
    click.echo(plan, err=as_json or out == STDOUT)
    if dry_run:
        return
    earlier = earlier_table(out, resume, force)
    singles = Singles(per_example, survey, resume, force) if per_example else None
    if singles and earlier is not None:
        earlier = earlier[earlier["kind"].isin(singles.of)]  # the examples of the others are missing
    todo, earlier = survey.todo(earlier)
    with open_workers(jobs if request.run.device == "cpu" else 1, cluster) as workers:
        parts = parts_of(task, [(request, one) for one in todo], workers, name, part, progress=True)
        table = collected(singles.taken(parts) if singles else parts, out, earlier)
    tell(table, out, report, as_json)
    if singles:
        click.echo(f"wrote {per_example}; next: manigeo plot {per_example}", err=True)


def one_after_another(each: "Iterable[Iterator[Part]]") -> "Iterator[Part]":
    """The parts of all, those of one before those of the next."""
    first = 0
    for parts in each:
        last = first - 1
        for part in parts:
            last = max(last, first + part.number)
            yield part._replace(number=first + part.number)
        first = last + 1

"""``manigeo benchmark``: how often each method of localization finds layers that are known to have memorized."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.errors import ManigeoError

if TYPE_CHECKING:
    import pandas as pd


RESULTS = "localization_benchmark.csv"
SUMMARY = "localization_summary.csv"


@command("benchmark")
@click.option("--cases", "patterns", multiple=True, metavar="GLOB", help="Cases by their names, e.g. 'mlp-*'; may be "
              "repeated. Default: all.")  # fmt: skip
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=1), help="Networks per case.")
@click.option(
    "--out", default="benchmark", show_default=True, type=click.Path(path_type=Path, file_okay=False), help="Folder."
)
@click.option("--limit", default=float("inf"), type=click.FloatRange(min=0, min_open=True), metavar="MINUTES",
              help="Begin no cell after so many minutes. Default: none is held back.")  # fmt: skip
@click.option("--discard", is_flag=True, help="Remove checkpoints and activations of each cell once it is scored.")
@options.jobs_option(default=-1)
@options.cluster_option
@options.dry_run_option
@click.option("--force", is_flag=True, help="Do all of it again.")
@options.config_option
def benchmark_command(
    patterns: tuple[str, ...], seeds: int, out: Path, limit: float, discard: bool, jobs: int, cluster: str | None,
    dry_run: bool, force: bool,
) -> None:  # fmt: skip
    """Plant memorization in chosen layers of small networks, and score every method of localization.

    Each cell, a case at a seed, is one run in OUT/cells, trained and analysed on one core in about half a minute. What is
    done is not done again. OUT/localization_benchmark.csv holds one row per cell and method, OUT/localization_summary.csv
    one per case and method: shares over seeds with exact intervals.
    """
    from manigeo.cli.planting import SCORES, carry_out, cell_folder
    from manigeo.execution.workers import open_workers
    from manigeo_extract.planting.cases import select_cases

    until = time.time() + 60 * limit
    cases = select_cases(patterns)
    cells = [(cell_folder(out, case, seed), case, seed) for seed in range(seeds) for case in cases]
    todo = [cell for cell in cells if force or not (cell[0] / SCORES).is_file()]
    click.echo(f"{len(cells)} cells of {len(cases)} cases, {len(todo)} to do -> {out}")
    if dry_run:
        click.echo("\n".join(f"  {case.name}" for case in cases))
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        with open_workers(jobs, cluster) as workers:
            jobs_of = [(run.resolve(), case, seed, until, discard) for run, case, seed in todo]
            _told(workers.as_completed(carry_out, jobs_of), [run.name for run, _, _ in todo])
    except KeyboardInterrupt:
        click.echo(options.going_on(), err=True)
        raise
    finally:
        table = _written(out, [run for run, _, _ in cells])
    _finish(out, table, len(cells))


def _told(finished: Iterator[tuple[int, dict[str, Any]]], names: Sequence[str]) -> None:
    from manigeo.faces.progress import bar

    with bar(len(names), "benchmark", "cell") as told:
        for number, said in finished:
            told.update()
            if said["state"] == "failed":
                click.echo(f"{names[number]} failed: {said['why']}", err=True)


def _written(out: Path, runs: Sequence[Path]) -> "pd.DataFrame":
    """The scores of all cells that are done, in their order."""
    import pandas as pd

    from manigeo.cli.planting import SCORES
    from manigeo.storage.files import whole_file

    tables = [pd.read_csv(run / SCORES) for run in runs if (run / SCORES).is_file()]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    with whole_file(out / RESULTS) as partial:
        table.to_csv(partial, index=False)
    return table


def _finish(out: Path, table: "pd.DataFrame", n_cells: int) -> None:
    from manigeo.storage.files import whole_file
    from manigeo_extract.planting.scoring import describe_summary, summarize

    n_done = 0 if table.empty else len(table.drop_duplicates(["case", "seed"]))
    click.echo(f"{n_done} of {n_cells} cells are done: {out / RESULTS}")
    if n_done == 0:
        raise ManigeoError("no cell was done: give a larger --limit, or see log.txt of each in cells")
    with whole_file(out / SUMMARY) as partial:
        summarize(table, ("case", "method")).to_csv(partial, index=False)
    cells = table.drop_duplicates(["case", "seed"])
    short = cells[~cells["reached"].astype(bool) & cells["place"].ne("nowhere")]
    if len(short):
        counts = ", ".join(f"{case} ({n})" for case, n in short["case"].value_counts(sort=False).items())
        click.echo(f"not memorized, and left out of what follows: {counts}")
    click.echo("\n".join(describe_summary(summarize(table))))

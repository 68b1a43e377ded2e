"""``manigeo sweep``: many runs and their analyses, each cell of a grid in a folder of its own."""

import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.programs import repeated
from manigeo.errors import ManigeoError
from manigeo.execution.grids import Cell, cells_table, sweep_cells, sweep_results, sweep_text
from manigeo.execution.pipeline import UP_TO_DATE, Step
from manigeo.execution.workers import open_workers
from manigeo.storage.files import whole_file
from manigeo.storage.spreadsheets import write_cells

Notes = dict[str, dict[str, Any]]  # what became of each cell

_SAVE_SECONDS = 30.0
_MEASURED = 6  # networks that are timed for the plan


def _own_share(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    from manigeo_extract.recording.shards import parse_shard

    return parse_shard(text) if text else None


def _share(shard: tuple[int, int] | None) -> slice:
    """The cells of one share: neighbours in a grid, which take about as long, go to different ones."""
    return slice(None) if shard is None else slice(shard[0] - 1, None, shard[1])


@command("sweep")
@click.argument("source", metavar="SWEEP")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [default: the name of SWEEP]")
@click.option("--show", is_flag=True, help="Print SWEEP, a file or one that comes with manigeo, and do nothing.")
@options.jobs_option()
@options.cluster_option
@click.option(
    "--shard", callback=_own_share, metavar="I/N", help="Every N-th cell, from the I-th on, for N processes that share a "
    "folder; auto: as the Slurm array says. Without --shard the same command then writes the tables of all cells.",
)  # fmt: skip
@click.option(
    "--allow", multiple=True, callback=repeated, metavar="NAME", help="A program that SWEEP names as network, data or "
    "transform, or trust (in pickle files), which may then run; may be repeated.",
)  # fmt: skip
@options.dry_run_option
@click.option("--force", is_flag=True, help="Do all of it again.")
@options.config_option
def sweep_command(
    source: str, out: Path | None, show: bool, jobs: int, cluster: str | None, shard: tuple[int, int] | None,
    allow: tuple[str, ...], dry_run: bool, force: bool,
) -> None:  # fmt: skip
    """Train and analyze every cell of the grid in SWEEP, a TOML file or the name of a sweep that comes with manigeo.

    What is done is not done again, what was interrupted goes on, and where a cell fails the others are done. OUT/cells
    holds one run per cell, OUT/cells.csv one line per cell, OUT/results.csv all numbers.
    """
    from manigeo.cli.cells import carry_out, cell_state, cell_steps

    if show:
        click.echo(sweep_text(source), nl=False)
        return
    cells = sweep_cells(source)[_share(shard)]
    folder = out or Path(Path(source).stem)
    runs = {cell.name: folder / "cells" / cell.name for cell in cells}
    steps = {cell.name: cell_steps(source, runs[cell.name], cell, allow) for cell in cells}
    states = {name: "to do" if force else cell_state(run, steps[name]) for name, run in runs.items()}
    todo = [name for name in runs if states[name] != UP_TO_DATE]
    click.echo(_described(source, folder, states, [steps[name] for name in todo]))
    if dry_run:
        return
    folder.mkdir(parents=True, exist_ok=True)
    notes: Notes = {name: {"state": "done" if state == UP_TO_DATE else "not done"} for name, state in states.items()}
    try:
        with open_workers(jobs, cluster) as workers:
            finished = workers.as_completed(carry_out, [(runs[name], steps[name], force) for name in todo])
            _note(finished, todo, notes, lambda: _write_cells(folder, cells, notes, shard))
    except KeyboardInterrupt:
        click.echo(options.going_on(), err=True)
        raise
    finally:
        _write_cells(folder, cells, notes, shard)
    _finish(source, folder, cells, notes, shard, allow)


def _described(source: str, folder: Path, states: Mapping[str, str], todo: Sequence[Sequence[Step]]) -> str:
    """The cells and what is to do of each; then what that takes."""
    counts = {state: list(states.values()).count(state) for state in dict.fromkeys(states.values())}
    counted = ", ".join(f"{n} {state}" for state, n in counts.items())
    lines = [f"{source}: {len(states)} cells ({counted}) -> {folder}"]
    lines += [f"  {state:12} {name}" for name, state in states.items()]
    return "\n".join([*lines, *([_described_size(todo)] if todo else [])])


def _described_size(todo: Sequence[Sequence[Step]]) -> str:
    """Parameters, disk and time of training, from a few of the networks, spread over the cells."""
    from manigeo.cli.cells import names_programs
    from manigeo.text.cells import duration

    todo = [steps for steps in todo if not names_programs(steps[0])]  # a plan runs nothing that a file names
    if not todo:
        return "its size is not known: that of a network or data set of your own is not measured"
    some = todo[:: math.ceil(len(todo) / _MEASURED)]
    sizes = [size for steps in some if (size := _measured(steps[0])) is not None]
    if not sizes:
        return "its size is not known: none of the networks that were tried can be trained"
    parameters, seconds, n_bytes = (list(column) for column in zip(*sizes, strict=True))
    n, several = len(todo), "" if len(set(parameters)) == 1 else f"{min(parameters):,} to "
    return (
        f"{several}{max(parameters):,} parameters; training takes about {duration(n * sum(seconds) / len(sizes))} on one "
        f"core, and {n * sum(n_bytes) / len(sizes) / 1e6:,.0f} MB of checkpoints (measured on {len(sizes)} of {n} cells); "
        "analyses come on top"
    )


def _measured(training: Step) -> tuple[int, float, int] | None:
    """Measure a training; None for one that will fail, and be noted as that, when it is carried out."""
    from manigeo.cli.train import measured_training

    try:
        return measured_training(training.words[1:])
    except ManigeoError:
        return None


def _note(
    finished: Iterator[tuple[int, dict[str, Any]]], todo: Sequence[str], notes: Notes, save: Callable[[], None]
) -> None:
    """Note what became of each cell, saved now and then."""
    from manigeo.faces.progress import bar

    saved = time.monotonic()
    with bar(len(todo), "sweep", "cell") as told:
        for number, said in finished:
            name = todo[number]
            notes[name] = {"state": "failed" if said["error"] else "done"} | said
            told.update()
            if said["error"]:
                told.write(f"{name} failed: {said['error']}", file=sys.stderr)
            if time.monotonic() - saved > _SAVE_SECONDS:
                save()
                saved = time.monotonic()


def _write_cells(folder: Path, cells: Sequence[Cell], notes: Notes, shard: tuple[int, int] | None) -> None:
    with whole_file(_cells_path(folder, shard)) as partial:
        write_cells(cells_table(folder / "cells", cells, notes), partial)


def _cells_path(folder: Path, shard: tuple[int, int] | None) -> Path:
    return folder / ("cells.csv" if shard is None else f"cells.shard-{shard[0]}-of-{shard[1]}.csv")


def _finish(
    source: str, folder: Path, cells: Sequence[Cell], notes: Notes, shard: tuple[int, int] | None, allow: Sequence[str]
) -> None:
    from manigeo.results import write_results

    failed = [name for name, note in notes.items() if note["state"] == "failed"]
    n, lists = len(cells), _cells_path(folder, shard)
    if shard is None:
        write_results(sweep_results(folder / "cells", cells), folder / "results.csv", force=True)
        click.echo(f"{n - len(failed)} of {n} cells are done: {lists}, {folder / 'results.csv'}")
    else:
        click.echo(f"{n - len(failed)} of the {n} cells of this share are done: {lists}")
        words = [word for name in allow for word in ("--allow", name)]
        click.echo(
            f"next, when all shares are done: {shlex.join(['manigeo', 'sweep', source, '--out', str(folder), *words])}"
        )
    if failed:
        raise ManigeoError(
            f"{len(failed)} of {n} cells failed ({', '.join(failed[:3])}{', ...' * (len(failed) > 3)}): why is in "
            f"{lists} and in log.txt of each; the same command tries them again"
        )

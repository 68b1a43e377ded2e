"""A cell of the benchmark as one task of a worker: a network is planted and analysed, and every method scored."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from threadpoolctl import threadpool_limits

from manigeo.cli.steps import errors_to, run_command
from manigeo.errors import InputError, ManigeoError, one_line
from manigeo.kinds import memorized_kind
from manigeo.runs import RunFolder
from manigeo.storage.files import whole_file

if TYPE_CHECKING:
    import pandas as pd

    from manigeo_extract.planting.cases import Case

SCORES = "scores.csv"  # of a cell: the file appears when the cell is done
ANSWER = "(any method)"  # the row of whether anything was said at all, behind the gate
_EXAMPLES = ("--per-class", "20")
_FLIPS = ("--examples", "20", "--max-channels", "30")
_REWINDS = ("--pairs", "--noise-draws", "2", "--retrain", "100")


def cell_folder(out: Path, case: "Case", seed: int) -> Path:
    """Folder of the run of a cell.

    >>> from manigeo_extract.planting.cases import CASES
    >>> cell_folder(Path("benchmark"), CASES["mlp-first"], 3).as_posix()
    'benchmark/cells/mlp-first-3'
    """
    return out / "cells" / f"{case.name}-{seed}"


def carry_out(run: Path, case: "Case", seed: int, until: float, discard: bool) -> dict[str, Any]:
    """The task of a worker, unless the time ``until`` has come; a failure is what it returns, too.

    With ``discard`` checkpoints and activations are removed once the cell is scored.
    """
    import manigeo_extract.planting.growth as growth  # before threads are limited, since it brings libraries that have some

    began = time.time()
    if began > until:
        return {"state": "not begun", "seconds": 0.0}
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / SCORES).unlink(missing_ok=True)
        with threadpool_limits(1), errors_to(run / "log.txt"):
            accuracies = growth.plant(case, seed, run)
            trained = time.time() - began
            failed = dict(_analysed(run))
            table = _scored(run, case, seed, accuracies)
        table = table.assign(train_seconds=round(trained, 1), seconds=round(time.time() - began, 1))
        if discard:
            _discard(run)
        with whole_file(run / SCORES) as partial:
            table.to_csv(partial, index=False)
    except Exception as error:  # the other cells are done
        return {"state": "failed", "why": f"{type(error).__name__}: {one_line(error)}", "seconds": time.time() - began}
    return {"state": "done", "failed": failed, "seconds": time.time() - began}


def _analysed(run: Path) -> Iterator[tuple[str, str]]:
    """All analyses that localization reads; those that could not be made, and why."""
    run_folder = RunFolder(run)
    run_folder.analysis.mkdir(exist_ok=True)
    for words in analyses(run_folder):
        out = run_folder.analysis / _result(words)
        try:
            run_command([*words, "--out", str(out), "--force"], run / "log.txt")
        except (ManigeoError, click.ClickException) as error:
            yield out.name, error.format_message() if isinstance(error, click.ClickException) else str(error)


def analyses(run: RunFolder) -> list[list[str]]:
    """The commands of a cell, without their results: few draws and probes alone, since cells are many."""
    layers = run.description()["planted"]["all_layers"]
    reference = _reference(run)
    names = [name for name in (reference, "last") if name]
    stored = [str(run.analysis / f"{name}.h5") for name in names]
    one, blocks = ["--jobs", "1"], ["--group-by", "block"]
    globs = [word for layer in layers for word in ("--layers", layer)]
    kind = memorized_kind(set(run.metrics()["kind"])) or "permuted"
    memorized = ["--kinds", kind, *one]
    return [
        *(["extract", "--model", str(run.checkpoint(name)), *globs, *_EXAMPLES] for name in names),
        *(
            ["capacity", path, *memorized, "--draws", "50", "--errors", "manifolds", "--no-total-dimension"]
            for path in stored
        ),
        ["separability", *stored, *memorized, "--measures", "probe"],
        *([["rewind", str(run.path), "--each", *_REWINDS, *blocks, *one]] if reference else []),
        ["reinit", str(run.path), "--checkpoints", "init", "--draws", "0", "--no-zero", *blocks, *one],
        ["weights", str(run.path)],
        ["channels", str(run.path), "--kinds", kind, *_FLIPS, *blocks, *one],
    ]


def _reference(run: RunFolder) -> str | None:
    """Name of the checkpoint that memorization is compared with; None where a network memorizes from the first epoch on."""
    from manigeo.localization.reference import run_reference

    try:
        found = run_reference(run)
    except InputError:
        return None
    return found[0] if found else None


def _result(words: list[str]) -> str:
    if words[0] == "extract":
        return f"{Path(words[2]).stem}.h5"
    return f"{Path(words[1]).stem}.capacity.csv" if words[0] == "capacity" else f"{words[0]}.csv"


def _scored(run: Path, case: "Case", seed: int, accuracies: Mapping[str, Mapping[str, Any]]) -> "pd.DataFrame":
    """A row per method, and one for whether anything was said.

    Where nothing was learnt the gate closes every method's mouth; each is then asked all the same, for its own rate of false
    alarms.
    """
    import pandas as pd

    from manigeo.localization.reference import GATE, known_curves
    from manigeo.localization.statement import localization_table
    from manigeo.runs import run_tables
    from manigeo_extract.planting.scoring import Truth, score_methods

    planted = RunFolder(run).description()["planted"]
    truth = Truth(tuple(planted["all_layers"]), tuple(planted["layers"]))
    kind = memorized_kind(set(accuracies))
    gate = accuracies[kind]["accuracy"] if kind else float("nan")
    with contextlib.suppress(InputError):  # no method has anything to go by
        known = known_curves(RunFolder(run))
        curves = {} if known is None else {run.name: known}
        table = localization_table({run.name: run_tables(run).table}, {run.name: 1.0}, metrics=curves)
        with whole_file(run / "analysis" / "localize.csv") as partial:
            table.to_csv(partial, index=False)
        rows = score_methods(table, truth)
        answer = {"method": ANSWER, "located": float(gate >= GATE and any(row["located"] == 1 for row in rows))}
        return pd.DataFrame(
            [_about(case, seed) | {"gate": gate, "reached": gate >= GATE} | row for row in [answer, *rows]]
        )
    return pd.DataFrame(
        [_about(case, seed) | {"gate": gate, "reached": gate >= GATE, "method": ANSWER, "located": 0.0}]
    )


def _about(case: "Case", seed: int) -> dict[str, Any]:
    names = ("arch", "place", "others", "convention", "fraction", "clean_epochs")
    return {"case": case.name, "seed": seed} | {name: getattr(case, name) for name in names}


def _discard(run: Path) -> None:
    for path in [*(run / "checkpoints").glob("*.pt"), *(run / "analysis").glob("*.h5")]:
        path.unlink()

"""The results tables that belong to a run, wherever the commands have put them, and whether the run has memorized."""

import math
import os
from pathlib import Path

import pandas as pd

from manigeo.errors import InputError
from manigeo.results import as_table, read_results, with_settings

PathLike = str | os.PathLike[str]
_SUFFIXES = (".csv", ".json", ".parquet")
_NO_RESULTS = ("metrics.csv", "labels.csv", "run.json")  # what else lies in a run's folder


def result_files(run: PathLike) -> list[Path]:
    """Results tables in a run's folder, in its ``analysis``, and beside it.

    Files that are no results tables are passed over.
    """
    folder = Path(run).resolve()
    places = [folder / "analysis", folder, folder.parent]
    files = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    return [path for path in files if path.suffix in _SUFFIXES and path.name not in _NO_RESULTS and _is_results(path)]


def _is_results(path: Path) -> bool:
    try:
        read_results(path)
    except InputError:
        return False
    return True


def run_tables(run: PathLike) -> pd.DataFrame:
    """All rows of a run's results, each once; of tables beside its folder those that bear its name.

    Raises :class:`~manigeo.errors.InputError` where there are none.
    """
    folder = Path(run).resolve()
    tables = []
    for path in result_files(folder):
        table = read_results(path)
        tables.append(table[table["run"] == folder.name] if path.parent == folder.parent else table)
    joined = pd.concat(tables, ignore_index=True) if tables else as_table([])
    if joined.empty:
        raise InputError(
            f"{run} has no results: run manigeo capacity, separability, rewind or reinit on it, or manigeo analyze {run}"
        )
    return joined.drop_duplicates(ignore_index=True)


def memorized_accuracy(run: PathLike) -> float | None:
    """Training accuracy on permuted labels after the last epoch of a run; None where no labels were permuted.

    Raises :class:`~manigeo.errors.InputError` for a folder without the metrics of a run.
    """
    path = Path(run) / "metrics.csv"
    try:
        metrics = pd.read_csv(path)
        last = metrics[metrics["epoch"] == metrics["epoch"].max()].set_index("kind")["accuracy"]
        return float(last["permuted"]) if "permuted" in last else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a folder of manigeo train or of a recorder") from error


def gate_accuracy(recorded: float | None, table: pd.DataFrame) -> float | None:
    """Training accuracy on permuted labels at the end of a run: what was ``recorded``, or else of its results ``table``; NaN
    where neither says it, None where no labels were permuted."""
    if recorded is not None or "permuted" not in set(table["kind"]):
        return recorded
    try:
        return accuracy_in_tables(table)
    except InputError:
        return math.nan


def accuracy_in_tables(table: pd.DataFrame) -> float | None:
    """The same from the tables of manigeo rewind or reinit, which score the network as it was trained.

    Raises :class:`~manigeo.errors.InputError` where there is none of these.
    """
    rows = with_settings(table, "sweep")
    trained = rows[(rows["metric"] == "accuracy") & (rows["sweep"] == "none")]
    if trained.empty:
        raise InputError(
            "the tables do not say whether the network has memorized: give the run's folder, or a table of manigeo rewind"
        )
    permuted = trained[trained["kind"] == "permuted"]
    return None if permuted.empty else float(permuted["value"].iloc[0])

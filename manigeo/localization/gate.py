"""Gate of localization: how much of the permuted labels a network knows, from whatever recorded it."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from manigeo.errors import InputError
from manigeo.kinds import memorized_kind
from manigeo.results import in_roles, with_settings
from manigeo.runs import PathLike, RunFolder


def memorized_accuracy(run: PathLike) -> float | None:
    """Training accuracy on permuted labels after the last epoch of a run; None where no labels were permuted.

    Raises :class:`~manigeo.errors.InputError` for a folder without the metrics of a run.
    """
    metrics = in_roles(RunFolder(Path(run)).metrics())
    last = metrics[metrics["epoch"] == metrics["epoch"].max()].drop_duplicates("kind", keep="last").set_index("kind")
    return float(last["accuracy"]["permuted"]) if "permuted" in last.index else None


def gate_accuracy(recorded: float | None, table: pd.DataFrame, folders: Iterable[Path] = ()) -> float | None:
    """Training accuracy on permuted labels at the end of a run: what was ``recorded``, or else what the results ``table``
    tells, or the activations in ``folders`` that it is of; NaN where none holds it, None where no labels were permuted."""
    kind = memorized_kind(set(table["kind"]))
    if recorded is not None or kind is None:
        return recorded
    in_tables = accuracy_in_tables(table)
    return _accuracy_in_activations(table, kind, folders) if in_tables is None else in_tables


def accuracy_in_tables(table: pd.DataFrame) -> float | None:
    """The same from the tables of manigeo rewind or reinit, which score the network as it was trained; None where there is
    none of these."""
    rows = with_settings(in_roles(table), "sweep")
    trained = rows[(rows["metric"] == "accuracy") & (rows["sweep"] == "none") & (rows["kind"] == "permuted")]
    return None if trained.empty else float(trained["value"].iloc[0])


def _accuracy_in_activations(table: pd.DataFrame, kind: str, folders: Iterable[Path]) -> float:
    """The same from the activation file that the last numbers are of: it holds outputs and labels."""
    from manigeo.activations import open_activations  # brings h5py, which tables do without

    last = table[table["epoch"].eq(table["epoch"].max())] if table["epoch"].notna().any() else table
    for path in (path for folder in folders for path in sorted(folder.glob("*.h5"))):
        try:
            with open_activations(path) as acts:
                if acts.fingerprint in set(last["fingerprint"]) and kind in acts.scores:
                    return float(acts.scores[kind]["accuracy"])
        except (InputError, OSError):
            continue
    return math.nan

"""The memorization gate: a network that has not memorized its permuted labels has no place where it memorizes."""

import math
from dataclasses import dataclass

import pandas as pd

from manigeo.kinds import BY_MEMORY, in_order, memorized_kind
from manigeo.localization.gate import gate_accuracy
from manigeo.localization.reference import GATE
from manigeo.report.sources import DescribedRun
from manigeo.results import with_settings
from manigeo.runs import rows_of


@dataclass(frozen=True)
class Gate:
    """Gate of one run: the training accuracy on permuted labels at the last epoch (None where no labels were permuted,
    NaN where it is not known), the first epoch that passes (None where none does), and the accuracies of every kind at
    the epochs that tables are of.
    """

    run: str
    accuracy: float | None
    epoch: float
    first_passed: float | None
    kinds: tuple[str, ...]
    at: tuple[tuple[float, str, tuple[float | None, ...]], ...]
    threshold: float = GATE

    @property
    def known(self) -> bool:
        return self.accuracy is not None and not math.isnan(self.accuracy)

    @property
    def passed(self) -> bool:
        return self.accuracy is not None and self.accuracy >= self.threshold


def read_gate(run: DescribedRun, table: pd.DataFrame) -> Gate | None:
    """Read the gate of a run; None where nothing is known of it. ``table``: all results, for the checkpoints that they are
    of, and for the accuracy where the run has recorded none."""
    of_run = rows_of(table, run.folder)
    if run.metrics is None or run.metrics.empty:
        accuracy = gate_accuracy(None, of_run)
        return None if accuracy is None else Gate(run.name, accuracy, float(of_run["epoch"].max()), None, (), ())
    accuracies = run.metrics.drop_duplicates(["epoch", "kind"], keep="last").pivot(
        index="epoch", columns="kind", values="accuracy"
    )
    last = float(accuracies.index.max())
    kind = memorized_kind(set(accuracies))
    memorized = pd.Series(dtype=float) if kind is None else accuracies[kind].dropna()
    passing = memorized.index[memorized >= GATE]
    kinds = tuple(in_order(accuracies))
    named = _checkpoints(of_run)
    epochs = [epoch for epoch in accuracies.index if epoch in named or epoch == last]
    return Gate(
        run.name,
        gate_accuracy(None if memorized.empty else float(memorized.iloc[-1]), of_run),
        last,
        float(passing[0]) if len(passing) else None,
        kinds,
        tuple((epoch, named.get(epoch, ""), _at(accuracies.loc[epoch], kinds)) for epoch in epochs),
    )


def gates_of_answer(aggregates: pd.DataFrame) -> list[Gate]:
    """The gates that the table of manigeo localize has, for tables without the folder of a run."""
    rows = with_settings(aggregates, "analysis")
    rows = rows[(rows["analysis"] == "localize") & (rows["metric"] == "gate") & rows["flag"].ne("accuracy_unknown")]
    known = aggregates.loc[aggregates["kind"].isin(BY_MEMORY), "epoch"].max()
    return [
        Gate(str(run), None if flag == "nothing_permuted" else float(value), float(known), None, (), ())
        for run, value, flag in rows[["run", "value", "flag"]].itertuples(index=False)
    ]


def _at(accuracies: pd.Series, kinds: tuple[str, ...]) -> tuple[float | None, ...]:
    return tuple(None if pd.isna(accuracies[kind]) else float(accuracies[kind]) for kind in kinds)


def _checkpoints(of_run: pd.DataFrame) -> dict[float, str]:
    """Epoch -> names of the checkpoints of the run that numbers were computed at."""
    names = (
        of_run.dropna(subset="epoch")
        .drop_duplicates(["epoch", "checkpoint"])
        .groupby("epoch")["checkpoint"]
        .agg(", ".join)
    )
    return {float(epoch): name for epoch, name in names.items()}

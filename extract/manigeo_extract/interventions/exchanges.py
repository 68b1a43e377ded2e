"""Exchanges of layers: rewind, re-initialise, draw again or silence them, and see which a trained network needs.

Stephenson et al. (2021) rewind layers to an earlier epoch, Zhang, Bengio & Singer (2022) to their own initial values
(re-initialise) or to a fresh draw from the distribution of these (re-randomise). Nothing is trained afterwards; the four
kinds are scored, and the network is then as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from manigeo.errors import InputError, UsageError, check_choice
from manigeo.execution.resuming import remaining
from manigeo.manifolds import kind_examples, standard_error
from manigeo.results import as_table
from manigeo_extract.interventions.editing import (
    BATCH_NORM,
    Redraw,
    Tensors,
    draw_seed,
    merged,
    recalibrated,
    replaced,
    taken_from,
    zeroed,
)
from manigeo_extract.interventions.groups import Group, joined
from manigeo_extract.interventions.prefixes import Prefixes
from manigeo_extract.interventions.scoring import COMPARED, SCORES, Answers, Examiner, Row
from manigeo_extract.training.runs import Run, Snapshot

FRESH, ZERO = "fresh draw", "zero"
_CALIBRATION = 2048  # training examples that statistics are estimated anew from
_INTERVALS = ("accuracy", "accuracy_drop", "normalised_drop", "softmax_distance", "js")
_ENDS = {"_ci_low": 0.025, "_ci_high": 0.975}
_TASK = ("analysis", "sweep", "to", "to_epoch")  # settings that tell interventions on layers of one name apart
Layers = tuple[Group, ...]

# sweep -> the sets of layers that it exchanges, of all layers and of those chosen
SWEEPS: dict[str, Callable[[Sequence[Group], Sequence[Group]], list[Layers]]] = {
    "each": lambda groups, chosen: [(group,) for group in chosen or groups],
    "last": lambda groups, chosen: [tuple(groups[-k:]) for k in range(1, len(groups) + 1)],
    "prefix": lambda groups, chosen: [tuple(groups[:k]) for k in range(1, len(groups) + 1)],
}
# sweep -> the name of a set of its layers in the results table
_NAMES: dict[str, Callable[[Layers], str]] = {
    "each": lambda layers: layers[0].name,
    "last": lambda layers: f"(last {len(layers)})",
    "prefix": lambda layers: f"(first {len(layers)})",
    "set": lambda layers: "+".join(group.name for group in layers),
    "whole": lambda layers: "(all)",
}


@dataclass(frozen=True)
class Intervention:
    """Layers, and what they get: ``to`` is a snapshot, :data:`FRESH` or :data:`ZERO`.

    ``sweep`` is "each" layer alone, the "last" k, the first k ("prefix"), a "set" of one's own, or the "whole" network.

    Raises :class:`~manigeo.errors.UsageError` for another sweep, another ``to``, and no layers.
    """

    sweep: str
    layers: Layers
    to: Snapshot | str

    def __post_init__(self) -> None:
        check_choice("sweep", self.sweep, _NAMES)
        if not isinstance(self.to, Snapshot):
            check_choice("to (where it is not a snapshot of Run.snapshot)", self.to, (FRESH, ZERO))
        if not self.layers:
            raise UsageError("an intervention exchanges one layer or more, got none")

    @property
    def layer(self) -> str:
        """Name of the layers in the results table."""
        return _NAMES[self.sweep](self.layers)

    @property
    def depth(self) -> int:
        """Place of one layer, or the number of several."""
        return self.layers[0].order if self.sweep == "each" else len(self.layers)

    @property
    def settings(self) -> dict[str, Any]:
        to, epoch = (self.to.name, self.to.epoch) if isinstance(self.to, Snapshot) else (self.to, None)
        return {"sweep": self.sweep, "k": len(self.layers), "to": to, "to_epoch": epoch}


def sweep_layers(groups: Sequence[Group], sweep: str, chosen: Sequence[Group] = ()) -> list[Layers]:
    """The sets of layers of a sweep: each of ``chosen`` (all) alone; the last 1, 2, ... of all; the first 1, 2, ...

    Raises :class:`~manigeo.errors.UsageError` for a sweep that is none of :data:`SWEEPS`.
    """
    check_choice("sweep", sweep, SWEEPS)
    return SWEEPS[sweep](groups, chosen)


@dataclass(frozen=True)
class Laboratory:
    """A trained network and the examples it is looked at with.

    ``batch_norm`` tells what becomes of running statistics where layers are exchanged: "with-stats", they are exchanged
    too; "params", they stay; "recalibrate", those of the whole network are estimated anew from unpermuted training
    examples. With a ``threshold``, a layer whose chance-normalised drop is that or more is called critical.
    ``redraw`` draws layers again, ``n_draws`` times each.
    """

    run: Run
    examiner: Examiner
    analysis: str
    batch_norm: str = "with-stats"
    threshold: float | None = None
    redraw: Redraw | None = None
    n_draws: int = 5
    seed: int = 0
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_choice("batch_norm", self.batch_norm, BATCH_NORM)

    def todo(
        self,
        interventions: Sequence[Intervention],
        table: pd.DataFrame | None = None,
        more: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[list[Intervention | None], pd.DataFrame | None]:
        """The network as it was trained (None) and the interventions without those that are whole in an earlier
        ``table``, and the table without those that are not; ``more`` are settings that other rows of it may have.

        Raises :class:`~manigeo.errors.UsageError` for a table of other settings, :class:`~manigeo.errors.InputError` for
        one of another network.
        """
        if table is not None and set(table["fingerprint"]) - {self.run.place["fingerprint"]}:
            raise InputError(f"the table is not of the network in {self.run.directory}: give another --out, or --force")
        tasks = {self._task(at): at for at in (None, *interventions)}
        wanted = [self.common, *more]
        return remaining(
            table, tasks, wanted, lambda row, of: (row.layer, *(of.get(name) for name in _TASK)), self._is_whole
        )

    def _task(self, at: Intervention | None) -> tuple[Any, ...]:
        settings = self.common | _task_settings(at)
        return (_place(at)["layer"], *(settings[name] for name in _TASK))

    def _is_whole(self, at: Intervention | None, rows: Sequence[Any]) -> bool:
        found = {(row.kind, row.metric): row for row in rows}
        wanted = SCORES if at is None else (*COMPARED, *(["critical"] if self.threshold is not None else []))
        undrawn = [kind for kind in self.examiner.kinds if (row := found.get((kind, "accuracy"))) and row.n == 0]
        kinds = [kind for kind in self.examiner.kinds if kind not in undrawn]
        scored = [(kind, metric) for kind in kinds for metric in wanted]
        if not all(place in found for place in scored):
            return False
        drawn = at is not None and at.to == FRESH and self.n_draws > 1
        intervals = [place for place in scored if drawn and place[1] in _INTERVALS and not found[place].flag]
        return all((kind, f"{metric}{end}") in found for kind, metric in intervals for end in _ENDS)

    def table(self, at: Intervention | None) -> pd.DataFrame:
        """The rows of one intervention, or (None, layer ``(none)``) of the network as it was trained.

        The metrics are those of :meth:`~manigeo_extract.interventions.scoring.Examiner.compared`, of fresh draws means
        with 95 % intervals.
        """
        rows = list(self.examiner.rows_of(self._before)) if at is None else self._rows(at)
        common = {**self.run.place, **_place(at), "settings": self._settings(at)}
        return as_table([common | row for row in rows])

    @cached_property
    def _prefixes(self) -> Prefixes:
        return Prefixes(self.run.model, self.examiner)

    @cached_property
    def _before(self) -> Answers:
        return self._prefixes.answers()

    @cached_property
    def _states(self) -> _States:
        return _States(self.run.model)

    @property
    def common(self) -> dict[str, Any]:
        """The settings that all rows share."""
        names = ("analysis", "batch_norm", "threshold", "seed", *(["n_draws"] if self.redraw else []))
        return {name: getattr(self, name) for name in names} | dict(self.settings or {})

    def _settings(self, at: Intervention | None) -> str:
        return json.dumps(self.common | _task_settings(at), sort_keys=True)

    def _rows(self, at: Intervention) -> list[Row]:
        if at.to != FRESH:
            after = self._after(at.layers, self._states.tensors(at, self.batch_norm))
            return list(self.examiner.compared(self._before, after, self.threshold))
        assert self.redraw is not None
        draws = []
        for i in range(self.n_draws):
            try:
                tensors = merged([self.redraw.draw(group, draw_seed(self.seed, group.order, i)) for group in at.layers])
            except InputError as error:
                return _undrawn(self.examiner.kinds, str(error))
            kept = taken_from(tensors, joined("", 0, at.layers), self.batch_norm)
            draws.append(list(self.examiner.compared(self._before, self._after(at.layers, kept), self.threshold)))
        return _over_draws(draws, self.threshold)

    def _after(self, layers: Sequence[Group], tensors: Tensors) -> Answers:
        with replaced(self.run.model, tensors):
            if self.batch_norm != "recalibrate":
                return self._prefixes.answers(layers)
            with recalibrated(self.run.model, self._clean_batches):
                return self.examiner.answers(self.run.model)  # other statistics in every layer: no prefix is the same

    def _clean_batches(self) -> Iterator[Any]:
        rows = kind_examples(self.run.examples, "unpermuted")[0]
        rows = np.random.default_rng(self.seed).permutation(rows)[:_CALIBRATION]
        for batch in np.array_split(rows, max(1, len(rows) // self.examiner.batch_size)):
            yield self.run.data.inputs(batch).to(self.examiner.device)


def _task_settings(at: Intervention | None) -> dict[str, Any]:
    return {"sweep": "none", "k": 0, "to": None, "to_epoch": None} if at is None else at.settings


def _place(at: Intervention | None) -> dict[str, Any]:
    return {"layer": "(none)", "depth": 0} if at is None else {"layer": at.layer, "depth": at.depth}


class _States:
    """Tensors that a layer gets; of snapshots the last one read is kept."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._read: tuple[Snapshot | None, Tensors] = (None, {})

    def tensors(self, at: Intervention, batch_norm: str) -> dict[str, torch.Tensor]:
        if not isinstance(at.to, Snapshot):
            return merged([zeroed(self._model.state_dict(), group) for group in at.layers])
        if self._read[0] != at.to:
            self._read = at.to, at.to.state(self._model)
        if at.sweep == "whole":
            return dict(self._read[1])
        return taken_from(self._read[1], joined("", 0, at.layers), batch_norm)


def _over_draws(draws: Sequence[Sequence[Row]], threshold: float | None) -> list[Row]:
    """Means over draws with their standard errors and intervals (Student); the label follows from the mean drop."""
    rows: list[Row] = []
    for same in zip(*draws, strict=True):
        values = np.array([row["value"] for row in same], dtype=float)
        metric, mean = same[0]["metric"], float(values.mean())
        common = {"kind": same[0]["kind"], "n": len(values), "flag": same[0].get("flag", "")}
        if metric == "critical":  # the row before it is the drop
            rows.append(
                common | {"metric": metric, "value": float(rows[-1]["value"] >= (threshold or 0.0)), "stderr": np.nan}
            )
        else:
            rows.append(common | {"metric": metric, "value": mean, "stderr": standard_error(values)})
    return [row | {"value": np.nan} if row["flag"] else row for row in rows] + _intervals(rows)


def _intervals(rows: Sequence[Row]) -> list[Row]:
    return [
        row
        | {
            "metric": row["metric"] + name,
            "value": row["value"] + stats.t.ppf(q, row["n"] - 1) * row["stderr"],
            "stderr": np.nan,
        }
        for row in rows
        if row["metric"] in _INTERVALS and row["n"] > 1 and not row["flag"]
        for name, q in _ENDS.items()
    ]


def _undrawn(kinds: Sequence[str], message: str) -> list[Row]:
    return [
        {"kind": kind, "metric": "accuracy", "value": np.nan, "n": 0, "flag": f"not_drawn: {message}"} for kind in kinds
    ]

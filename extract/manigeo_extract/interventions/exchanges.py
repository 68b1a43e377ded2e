"""Exchanges of layers: rewind, re-initialise, draw again or silence them, and see which a trained network needs.

Stephenson et al. (2021) rewind layers to an earlier epoch, Zhang, Bengio & Singer (2022) to their own initial values
(re-initialise) or to a fresh draw from the distribution of these (re-randomise). Nothing is trained afterwards; the four
kinds are scored, and the network is then as it was.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from manigeo.errors import InputError, UsageError
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
from manigeo_extract.interventions.scoring import Answers, Examiner, Row
from manigeo_extract.training.runs import Run, Snapshot

SWEEPS = ("each", "last", "prefix")
FRESH, ZERO = "fresh draw", "zero"
_CALIBRATION = 2048  # training examples that statistics are estimated anew from
_INTERVALS = ("accuracy", "accuracy_drop", "normalised_drop", "softmax_distance", "js")


@dataclass(frozen=True)
class Intervention:
    """Layers, and what they get: ``to`` is a snapshot, :data:`FRESH` or :data:`ZERO`.

    ``sweep`` is "each" layer alone, the "last" k, the first k ("prefix"), a "set" of one's own, or the "whole" network.
    """

    sweep: str
    layers: tuple[Group, ...]
    to: Snapshot | str

    @property
    def layer(self) -> str:
        """Name of the layers in the results table."""
        k = len(self.layers)
        if self.sweep == "set":
            return "+".join(group.name for group in self.layers)
        several = {"last": f"(last {k})", "prefix": f"(first {k})", "whole": "(all)"}
        return several.get(self.sweep, self.layers[0].name)

    @property
    def depth(self) -> int:
        """Place of one layer, or the number of several."""
        return self.layers[0].order if self.sweep == "each" else len(self.layers)

    @property
    def settings(self) -> dict[str, Any]:
        to, epoch = (self.to.name, self.to.epoch) if isinstance(self.to, Snapshot) else (self.to, None)
        return {"sweep": self.sweep, "k": len(self.layers), "to": to, "to_epoch": epoch}


def sweep_layers(groups: Sequence[Group], sweep: str, chosen: Sequence[Group] = ()) -> list[tuple[Group, ...]]:
    """The sets of layers of a sweep: each of ``chosen`` (all) alone; the last 1, 2, ... of all; the first 1, 2, ...

    Raises :class:`~manigeo.errors.UsageError` for a sweep that is none of :data:`SWEEPS`.
    """
    n = len(groups)
    if sweep == "each":
        return [(group,) for group in chosen or groups]
    if sweep == "last":
        return [tuple(groups[n - k :]) for k in range(1, n + 1)]
    if sweep == "prefix":
        return [tuple(groups[:k]) for k in range(1, n + 1)]
    raise UsageError(f"no sweep {sweep!r}; there are: {', '.join(SWEEPS)}")


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
        if self.batch_norm not in BATCH_NORM:
            raise UsageError(f"no batch-norm policy {self.batch_norm!r}; there are: {', '.join(BATCH_NORM)}")

    def todo(
        self, interventions: Sequence[Intervention], done: Collection[tuple[str, str]] = ()
    ) -> list[Intervention | None]:
        """The network as it was trained (None) and the interventions, without the layers and settings that are ``done``."""
        return [at for at in (None, *interventions) if (_place(at)["layer"], self._settings(at)) not in done]

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

    def _settings(self, at: Intervention | None) -> str:
        own = {"sweep": "none", "k": 0, "to": None, "to_epoch": None} if at is None else at.settings
        common = {
            "analysis": self.analysis,
            "batch_norm": self.batch_norm,
            "threshold": self.threshold,
            "seed": self.seed,
        }
        drawn = {"n_draws": self.n_draws} if own["to"] == FRESH else {}
        return json.dumps(common | dict(self.settings or {}) | dict(own) | drawn, sort_keys=True)

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
    ends = (("_ci_low", 0.025), ("_ci_high", 0.975))
    return [
        row
        | {
            "metric": row["metric"] + name,
            "value": row["value"] + stats.t.ppf(q, row["n"] - 1) * row["stderr"],
            "stderr": np.nan,
        }
        for row in rows
        if row["metric"] in _INTERVALS and row["n"] > 1 and not row["flag"]
        for name, q in ends
    ]


def _undrawn(kinds: Sequence[str], message: str) -> list[Row]:
    return [
        {"kind": kind, "metric": "accuracy", "value": np.nan, "n": 0, "flag": f"not_drawn: {message}"} for kind in kinds
    ]

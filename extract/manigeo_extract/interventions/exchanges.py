r"""Exchanges of layers: rewind, re-initialise, draw again or silence them, and see which a trained network needs.

Stephenson et al. (2021) rewind layers to an earlier epoch, Zhang, Bengio & Singer (2022) to their own initial values
(re-initialise) or to a fresh draw from the distribution of these (re-randomise). The four kinds are scored, and the network
is then as it was. With an earlier epoch e and the end T of training, of single layers l also [own]:

=============  ====================================  ==================================================================
sweep          network                               what it says of l
=============  ====================================  ==================================================================
each           T, with l of e                        necessary: accuracy lost
each, into e   e, with l of T                        sufficient: accuracy gained
pair           T, with l and another layer of e      lost with both beyond the sum of what is lost with each
noise          T, with l moved at random, as far as  lost with any step of that length: the control of "each"
               from e to T
retrain        T, with l of e, which alone is then   accuracy that stays lost was held there; the control is l trained
               trained on unpermuted examples        likewise from where it is
=============  ====================================  ==================================================================

A layer that is in both networks the same, bit for bit, changes nothing in any of them: exactly 0, without an evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from torch import nn

from manigeo.errors import InputError, UsageError, check_choice
from manigeo.execution.resuming import remaining
from manigeo.manifolds import kind_examples, standard_error
from manigeo.results import as_table, row_settings
from manigeo_extract.interventions.editing import (
    BATCH_NORM,
    Redraw,
    Tensors,
    draw_seed,
    is_same,
    merged,
    perturbed,
    taken_from,
    zeroed,
)
from manigeo_extract.interventions.groups import Group, joined
from manigeo_extract.interventions.paired import interaction, mean_difference, regained_share
from manigeo_extract.interventions.retraining import DivergedError, Retraining, RetrainPlan, reset_copy
from manigeo_extract.interventions.scoring import COMPARED, SCORES, Answers, Examiner, Row
from manigeo_extract.interventions.subjects import Subject
from manigeo_extract.recording.layers import unwrap
from manigeo_extract.training.runs import Run, Snapshot

FRESH, ZERO = "fresh draw", "zero"
INTO_LAST, INTO_BEFORE = "into_last", "into_before"
MOST_PAIRED = 16  # layers whose pairs are all exchanged
_CALIBRATION = 2048  # training examples that statistics are estimated anew from
_NOISE = 1 << 22  # the stream of noise; below it those of fresh draws
_INTERVALS = ("accuracy", "accuracy_drop", "normalised_drop", "softmax_distance", "js")
_ENDS = {"_ci_low": 0.025, "_ci_high": 0.975}
_GAINED = (*SCORES, "accuracy_gain", "softmax_distance", "js")
_REGAINED = ("each", "last", "prefix", "set", "pair")
_MORE = {
    "pair": ("interaction",),
    "retrain": ("accuracy_control", "accuracy_drop_control", "accuracy_drop_beyond_control"),
}
# settings that tell interventions on layers of one name apart; "direction" is not in older tables
_TASK = {"analysis": None, "sweep": None, "to": None, "to_epoch": None, "direction": INTO_LAST}
Layers = tuple[Group, ...]

# sweep -> the sets of layers that it exchanges, of all layers and of those chosen
SWEEPS: dict[str, Callable[[Sequence[Group], Sequence[Group]], list[Layers]]] = {
    "each": lambda groups, chosen: [(group,) for group in chosen or groups],
    "last": lambda groups, chosen: [tuple(groups[-k:]) for k in range(1, len(groups) + 1)],
    "prefix": lambda groups, chosen: [tuple(groups[:k]) for k in range(1, len(groups) + 1)],
    "noise": lambda groups, chosen: [(group,) for group in chosen or groups],
    "retrain": lambda groups, chosen: [(group,) for group in chosen or groups],
    "pair": lambda groups, chosen: list(combinations(chosen or groups, 2)),
}
_SINGLE = ("each", "noise", "retrain")
# sweep -> the name of a set of its layers in the results table
_NAMES: dict[str, Callable[[Layers], str]] = {
    **dict.fromkeys(_SINGLE, lambda layers: layers[0].name),
    "last": lambda layers: f"(last {len(layers)})",
    "prefix": lambda layers: f"(first {len(layers)})",
    "set": lambda layers: "+".join(group.name for group in layers),
    "pair": lambda layers: "+".join(group.name for group in layers),
    "whole": lambda layers: "(all)",
}


@dataclass(frozen=True)
class Intervention:
    """Layers, and what they get: ``to`` is a snapshot, :data:`FRESH` or :data:`ZERO`.

    ``sweep`` is "each" layer alone, the "last" k, the first k ("prefix"), a "set" of one's own, the "whole" network, each
    "pair" of layers, "noise" as large as the movement of a layer since the snapshot, or a layer set back and trained again
    ("retrain"). ``direction`` is :data:`INTO_LAST` where the trained network gets the layers of the snapshot, and
    :data:`INTO_BEFORE` where the network of the snapshot gets those of the trained one.

    Raises :class:`~manigeo.errors.UsageError` for another sweep, ``to`` or direction, and for no layers.
    """

    sweep: str
    layers: Layers
    to: Snapshot | str
    direction: str = INTO_LAST

    def __post_init__(self) -> None:
        check_choice("sweep", self.sweep, _NAMES)
        check_choice("direction", self.direction, (INTO_LAST, INTO_BEFORE))
        if not isinstance(self.to, Snapshot):
            check_choice("to (where it is not a snapshot of Run.snapshot)", self.to, (FRESH, ZERO))
            if self.direction == INTO_BEFORE or self.sweep in ("noise", "retrain"):
                raise UsageError(f"{self.direction} {self.sweep} expects a snapshot of Run.snapshot, got {self.to!r}")
        if not self.layers:
            raise UsageError("an intervention exchanges one layer or more, got none")

    @property
    def layer(self) -> str:
        """Name of the layers in the results table."""
        return _NAMES[self.sweep](self.layers)

    @property
    def depth(self) -> int:
        """Place of one layer, or the number of several."""
        return self.layers[0].order if self.sweep in _SINGLE else len(self.layers)

    @property
    def settings(self) -> dict[str, Any]:
        to, epoch = (self.to.name, self.to.epoch) if isinstance(self.to, Snapshot) else (self.to, None)
        found: dict[str, Any] = {"sweep": self.sweep, "k": len(self.layers), "to": to, "to_epoch": epoch}
        if isinstance(self.to, Snapshot):
            found["direction"] = self.direction
        if self.sweep == "pair":
            found["layers"] = [group.name for group in self.layers]
        return found


def sweep_layers(groups: Sequence[Group], sweep: str, chosen: Sequence[Group] = ()) -> list[Layers]:
    """The sets of layers of a sweep: each of ``chosen`` (all) alone, all pairs of these, the last 1, 2, ... of all, or the
    first 1, 2, ... of all.

    Raises :class:`~manigeo.errors.UsageError` for a sweep that is none of :data:`SWEEPS`, and for pairs of more than
    :data:`MOST_PAIRED` layers.
    """
    check_choice("sweep", sweep, SWEEPS)
    if sweep == "pair" and len(chosen or groups) > MOST_PAIRED:
        raise UsageError(
            f"pairs are of up to {MOST_PAIRED} layers, got {len(chosen or groups)}: choose some (--layers), or larger ones "
            "(--group-by block)"
        )
    return SWEEPS[sweep](groups, chosen)


@dataclass(frozen=True)
class Laboratory:
    """A trained network and the examples it is looked at with.

    ``batch_norm`` tells what becomes of running statistics where layers are exchanged: "with-stats", they are exchanged
    too; "params", they stay; "recalibrate", those of the whole network are estimated anew from unpermuted training
    examples. With a ``threshold``, a layer whose chance-normalised drop is that or more is called critical.
    ``redraw`` draws layers again, ``n_draws`` times each, as often as noise is drawn; ``retrain`` is how a layer is trained
    after it was set back.
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
    retrain: RetrainPlan = field(default_factory=RetrainPlan)

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
        return remaining(table, tasks, wanted, lambda row, of: (row.layer, *_key(of)), self._is_whole)

    def _task(self, at: Intervention | None) -> tuple[Any, ...]:
        return (_place(at)["layer"], *_key(self.common | _task_settings(at)))

    def _is_whole(self, at: Intervention | None, rows: Sequence[Any]) -> bool:
        own = self._own_settings(at)
        if any(row_settings(text).get(name) != own[name] for text in {row.settings for row in rows} for name in own):
            return False  # other draws, or other steps
        found = {(row.kind, row.metric): row for row in rows}
        undrawn = [kind for kind in self.examiner.kinds if (row := found.get((kind, "accuracy"))) and row.n == 0]
        kinds = [kind for kind in self.examiner.kinds if kind not in undrawn]
        scored = [(kind, metric) for kind in kinds for metric in self._metrics(at, kind)]
        if not all(place in found for place in scored):
            return False
        intervals = [
            place for place in scored if self._is_drawn(at) and place[1] in _INTERVALS and not found[place].flag
        ]
        return all((kind, f"{metric}{end}") in found for kind, metric in intervals for end in _ENDS)

    def _metrics(self, at: Intervention | None, kind: str) -> tuple[str, ...]:
        """The metrics of a kind that an intervention gives."""
        if at is None:
            return SCORES
        if at.direction == INTO_BEFORE:
            return _GAINED
        critical = ("critical",) if self.threshold is not None else ()
        regains = self.analysis == "rewind" and kind == "test" and at.sweep in _REGAINED and isinstance(at.to, Snapshot)
        return (*COMPARED, *critical, *(["regained"] if regains else []), *_MORE.get(at.sweep, ()))

    def _is_drawn(self, at: Intervention | None) -> bool:
        return at is not None and self.n_draws > 1 and (at.to == FRESH or at.sweep == "noise")

    def table(self, at: Intervention | None) -> pd.DataFrame:
        """The rows of one intervention, or (None, layer ``(none)``) of the network as it was trained.

        The metrics are those of :meth:`~manigeo_extract.interventions.scoring.Examiner.compared`, of fresh draws and noise
        means with 95 % intervals; ``regained`` of test examples (:mod:`manigeo_extract.interventions.paired`) where layers
        are rewound; ``interaction`` of pairs. Into the network of the snapshot, ``accuracy_gain`` stands in place
        of drops. Of retrained layers, ``accuracy_control`` and ``accuracy_drop_control`` are those of the same layer
        trained likewise from where it is, and ``accuracy_drop_beyond_control`` is what is lost more, example by example.
        """
        rows = self.examiner.rows_of(self._trained.before) if at is None else self._rows(at)
        common = {**self.run.place, **_place(at), "settings": self._settings(at)}
        return as_table([common | row for row in rows])

    def n_networks(self, at: Intervention) -> int:
        """Number of networks that an intervention looks at."""
        return self.n_draws if self._is_drawn(at) else 2 if at.sweep == "retrain" else 1

    def cost(self, at: Intervention) -> float:
        """Cost of an intervention, about, in evaluations of a network: a step forward and back costs three times as much
        as its examples do forward."""
        steps = 3 * self.retrain.steps * self.retrain.batch_size / max(len(self.examiner.rows), 1)
        return self.n_networks(at) * (1 + (steps if at.sweep == "retrain" else 0))

    @cached_property
    def _trained(self) -> Subject:
        return Subject(self.run.model, self.examiner, self._clean_batches if self.batch_norm == "recalibrate" else None)

    @property
    def _state(self) -> Tensors:
        state: Tensors = unwrap(self.run.model).state_dict()
        return state

    @cached_property
    def _states(self) -> _States:
        return _States(self.run.model)

    @cached_property
    def _earlier(self) -> dict[Snapshot, Subject]:
        return {}

    def _subject(self, to: Snapshot) -> Subject:
        """The whole network of a snapshot; the last one asked for is kept."""
        if to not in self._earlier:
            self._earlier.clear()
            self._earlier[to] = self._trained.with_state(self._states.state(to))
        return self._earlier[to]

    @cached_property
    def _single_answers(self) -> dict[tuple[Snapshot | str, str], Answers]:
        return {}

    def _single(self, group: Group, to: Snapshot | str) -> Answers:
        """Answers of the trained network with one layer exchanged, computed once."""
        if (to, group.name) not in self._single_answers:
            at = Intervention("each", (group,), to)
            self._single_answers[to, group.name] = self._trained.after(at.layers, self._tensors(at))
        return self._single_answers[to, group.name]

    @property
    def common(self) -> dict[str, Any]:
        """The settings that all rows share."""
        names = ("analysis", "batch_norm", "threshold", "seed", *(["n_draws"] if self.redraw else []))
        return {name: getattr(self, name) for name in names} | dict(self.settings or {})

    def _settings(self, at: Intervention | None) -> str:
        return json.dumps(self.common | _task_settings(at) | self._own_settings(at), sort_keys=True)

    def _own_settings(self, at: Intervention | None) -> dict[str, Any]:
        """Settings of some interventions only, under which they are done anew if these are others."""
        if at is not None and at.sweep == "retrain":
            return {name: value for name, value in asdict(self.retrain).items() if name != "seed"}
        return {"n_draws": self.n_draws} if at is not None and at.sweep == "noise" else {}

    def _rows(self, at: Intervention) -> Iterable[Row]:
        if at.sweep == "retrain":
            return self._retrained(at)
        if at.to == FRESH or at.sweep == "noise":
            return self._drawn(at)
        if at.direction == INTO_BEFORE:
            return self._gained(at)
        after = self._trained.after(at.layers, self._tensors(at))
        return [*self.examiner.compared(self._trained.before, after, self.threshold), *self._paired(at, after)]

    def _tensors(self, at: Intervention) -> Tensors:
        """Tensors that the layers of the trained network are set to."""
        if not isinstance(at.to, Snapshot):
            return merged([zeroed(self._state, group) for group in at.layers])
        state = self._states.state(at.to)
        return state if at.sweep == "whole" else taken_from(state, joined("", 0, at.layers), self.batch_norm)

    def _gained(self, at: Intervention) -> Iterator[Row]:
        """Layers of the trained network in that of a snapshot."""
        assert isinstance(at.to, Snapshot)
        subject = self._subject(at.to)
        tensors = taken_from(self._state, joined("", 0, at.layers), self.batch_norm)
        for row in self.examiner.compared(subject.before, subject.after(at.layers, tensors)):
            if row["metric"] == "accuracy_drop":
                yield row | {"metric": "accuracy_gain", "value": 0.0 - row["value"]}
            elif row["metric"] in _GAINED:
                yield row

    def _paired(self, at: Intervention, after: Answers) -> Iterator[Row]:
        """Rows that take more networks than two: the share regained, and the interaction of a pair."""
        hits, trained = self.examiner.hits, self._trained.before
        for kind in self.examiner.kinds:
            common = {"kind": kind, "n": self.examiner.n(kind)}
            was, now = hits(trained, kind), hits(after, kind)
            for metric in self._metrics(at, kind):
                if metric == "regained":
                    assert isinstance(at.to, Snapshot)
                    whole = hits(self._subject(at.to).before, kind)
                    yield common | {"metric": metric, **regained_share(was, now, whole, self.seed)}
                if metric == "interaction":
                    one, other = (hits(self._single(group, at.to), kind) for group in at.layers)
                    yield common | {"metric": metric, **interaction(was, one, other, now)}

    def _drawn(self, at: Intervention) -> list[Row]:
        """Means over fresh draws, or over draws of noise."""
        draws = []
        for i in range(self.n_draws):
            try:
                tensors = merged([self._draw(at, group, i) for group in at.layers])
            except InputError as error:
                return _undrawn(self.examiner.kinds, str(error))
            after = self._trained.after(at.layers, tensors)
            draws.append(list(self.examiner.compared(self._trained.before, after, self.threshold)))
        return _over_draws(draws, self.threshold)

    def _draw(self, at: Intervention, group: Group, i: int) -> Tensors:
        if isinstance(at.to, Snapshot):
            seed = draw_seed(self.seed, _NOISE, group.order, i)
            return perturbed(self._state, self._states.state(at.to), group, seed)
        assert self.redraw is not None
        return taken_from(self.redraw.draw(group, draw_seed(self.seed, group.order, i)), group, self.batch_norm)

    # -------------------------------------------------------------------------------------------------------- retraining
    @cached_property
    def _retraining(self) -> Retraining:
        return Retraining(self.run, self.examiner, self.retrain, kind=self.run.trained_kinds[0])

    def _retrained(self, at: Intervention) -> Iterator[Row]:
        tensors = self._tensors(at)
        if is_same(self._state, tensors):
            yield from self._not_retrained(at, flag="not_retrained", beyond=0.0)
            return
        try:
            after, control = (self._after_retraining(at, state) for state in (tensors, self._state))
        except DivergedError:
            yield from self._not_retrained(at, flag="diverged", beyond=np.nan)
            return
        before = self._trained.before
        yield from self.examiner.compared(before, after, self.threshold)
        for kind in self.examiner.kinds:
            common = {"kind": kind, "n": self.examiner.n(kind)}
            was, now, likewise = (self.examiner.hits(answers, kind) for answers in (before, after, control))
            error = standard_error(likewise)
            yield common | {"metric": "accuracy_control", "value": float(likewise.mean()), "stderr": error}
            yield common | {"metric": "accuracy_drop_control", **mean_difference(was, likewise)}
            yield common | {"metric": "accuracy_drop_beyond_control", **mean_difference(likewise, now)}

    def _after_retraining(self, at: Intervention, tensors: Tensors) -> Answers:
        copied = reset_copy(
            self.run.model, at.layers, tensors, "params" if self.batch_norm == "params" else "with-stats"
        )
        for _ in self._retraining.through(copied, at.layers):
            pass
        return self.examiner.answers(copied)

    def _not_retrained(self, at: Intervention, flag: str, beyond: float) -> Iterator[Row]:
        for kind in self.examiner.kinds:
            common = {"kind": kind, "n": self.examiner.n(kind)}
            for metric in self._metrics(at, kind):
                if metric == "accuracy_drop_beyond_control" and beyond == 0:
                    yield common | {"metric": metric, "value": 0.0, "stderr": 0.0}
                else:
                    yield common | {"metric": metric, "value": np.nan, "flag": flag}

    def _clean_batches(self) -> Iterator[Any]:
        rows = kind_examples(self.run.examples, self.run.trained_kinds[0])[0]
        rows = np.random.default_rng(self.seed).permutation(rows)[:_CALIBRATION]
        for batch in np.array_split(rows, max(1, len(rows) // self.examiner.batch_size)):
            yield self.run.data.inputs(batch).to(self.examiner.device)


def _task_settings(at: Intervention | None) -> dict[str, Any]:
    return {"sweep": "none", "k": 0, "to": None, "to_epoch": None} if at is None else at.settings


def _place(at: Intervention | None) -> dict[str, Any]:
    return {"layer": "(none)", "depth": 0} if at is None else {"layer": at.layer, "depth": at.depth}


def _key(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(settings.get(name, default) for name, default in _TASK.items())


class _States:
    """Tensors of snapshots; of the last one they are kept."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._read: tuple[Snapshot | None, Tensors] = (None, {})

    def state(self, snapshot: Snapshot) -> Tensors:
        if self._read[0] != snapshot:
            self._read = snapshot, snapshot.state(self._model)
        return self._read[1]


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
            "value": row["value"] + stdtrit(row["n"] - 1, q) * row["stderr"],
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

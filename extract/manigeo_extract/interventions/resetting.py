r"""The last layers set back, as regularisation after training (Wang & Yang 2022, *With greater distance comes worse
performance*).

The last k layers get their initial values, those of a checkpoint, or fresh draws; either that is all, or they alone are
trained again for some steps, on the labels of training. Which k, source and number of steps is best is chosen on
validation data, and what was chosen is scored on the test data: the choice costs nothing of their honesty. The paper
leaves the protocol open; this one is our own.

Layers that are not set back stay bit for bit what they were (:mod:`manigeo_extract.interventions.retraining`). All of it
happens on a copy of the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from manigeo.errors import UsageError, check_ranges
from manigeo.faces.progress import track
from manigeo.kinds import VALIDATION
from manigeo.manifolds import standard_error
from manigeo_extract.interventions.editing import Redraw, Tensors, draw_seed, merged, taken_from
from manigeo_extract.interventions.exchanges import FRESH
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.retraining import Retraining, RetrainPlan, reset_copy
from manigeo_extract.interventions.scoring import Answers, Examiner, Row
from manigeo_extract.training.runs import Name, Run

POLICIES = ("with-stats", "params")


@dataclass(frozen=True)
class ResetPlan(RetrainPlan):
    """Settings of the last 1 .. ``last`` layers: what they are set to, and how these are trained again.

    ``sources``: "init", names or epochs of checkpoints, :data:`FRESH` (``n_draws`` of them, averaged). ``steps`` of SGD
    are looked at after each quarter; with 0 nothing is trained. ``batch_norm`` "with-stats" sets running statistics back
    with their layer, "params" leaves them.

    >>> ResetPlan(steps=200).marks, ResetPlan(steps=2).marks, ResetPlan(steps=0).marks
    ((0, 50, 100, 150, 200), (0, 1, 2), (0,))
    """

    last: int = 3
    sources: tuple[Name, ...] = ("init",)
    n_draws: int = 5
    batch_norm: str = "with-stats"

    pauses: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            ("last", self.last >= 1, "1 or more"),
            ("sources", len(self.sources) >= 1, "one or more"),
            ("n_draws", self.n_draws >= 1, "1 or more"),
            ("batch_norm", self.batch_norm in POLICIES, " or ".join(POLICIES)),
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network with its last ``k`` layers set ``to`` something and trained again for ``steps``.

    ``hits`` are, of every kind and example, the share of draws that answer it by its label; ``losses`` the mean loss of
    every draw, ``accuracies`` likewise.
    """

    k: int
    to: str | None
    epoch: int | None
    steps: int
    hits: Mapping[str, Float[np.ndarray, " n"]]
    losses: Mapping[str, Float[np.ndarray, " draws"]]
    accuracies: Mapping[str, Float[np.ndarray, " draws"]]

    @property
    def settings(self) -> dict[str, Any]:
        return {"sweep": "last", "k": self.k, "to": self.to, "to_epoch": self.epoch, "steps": self.steps}

    @property
    def layer(self) -> str:
        return f"(last {self.k})" if self.k else "(none)"


def final_layer_reset(
    run: Run,
    examiner: Examiner,
    groups: Sequence[Group],
    plan: ResetPlan,
    *,
    redraw: Redraw | None = None,
    progress: bool = False,
) -> Iterator[Row]:
    """Accuracy and loss on every kind with the last k of ``groups`` set back, from k = 0 (the network as it is) on, and
    of the best on validation data the ``accuracy_gain`` over k = 0, with its standard error over examples and draws.

    The settings of a row hold k, to, to_epoch, steps, and whether it is ``chosen``. Without validation examples nothing
    is, which the one row ``accuracy_gain`` shows by its flag, "no_validation". The network of the run is not touched.

    Raises :class:`~manigeo.errors.UsageError` for more layers than there are, and for fresh draws without ``redraw``;
    :class:`~manigeo.errors.ManigeoError` where retraining diverges; and what finding a checkpoint or drawing a layer
    raises.
    """
    if plan.last > len(groups):
        raise UsageError(f"last must be up to {len(groups)}, the number of layers, got {plan.last}")
    if FRESH in plan.sources and redraw is None:
        raise UsageError(f"sources must go without {FRESH!r}: nothing is known that draws layers of this network")
    with_steps = Retraining(run, examiner, plan) if plan.steps else None
    candidates = [_candidate(examiner, {"k": 0, "to": None, "epoch": None, "steps": 0}, [examiner.answers(run.model)])]
    sources = list(_sources(run, groups, plan, redraw))
    todo = [(k, source) for source in sources for k in range(1, plan.last + 1)]
    for k, source in track(todo, "reset", "network", progress):
        candidates += _with_last(k, source, run, examiner, groups, plan, with_steps)
    best = chosen(candidates)
    for candidate in candidates:
        settings = _settings(plan, candidate, candidate is best)
        place = {"layer": candidate.layer, "depth": candidate.k}
        yield from (place | row | {"settings": settings} for row in _scores(candidate))
    yield from _gains(plan, candidates[0], best)


def chosen(candidates: Sequence[Candidate]) -> Candidate | None:
    """The most accurate on validation data; of equals that of the smaller loss; None without such data."""
    if not all(VALIDATION in candidate.hits for candidate in candidates):
        return None

    def rank(candidate: Candidate) -> tuple[float, float]:
        return float(candidate.hits[VALIDATION].mean()), -float(candidate.losses[VALIDATION].mean())

    return max(candidates, key=rank)


# -------------------------------------------------------------------------------------------------------- the candidates
@dataclass(frozen=True)
class _Source:
    """Source that layers are set to: for every draw the tensors of all layers that may be."""

    to: str
    epoch: int | None
    draws: tuple[Mapping[str, Tensors], ...]


def _sources(run: Run, groups: Sequence[Group], plan: ResetPlan, redraw: Redraw | None) -> Iterator[_Source]:
    last = groups[len(groups) - plan.last :]
    for name in plan.sources:
        if name == FRESH:
            assert redraw is not None
            draws = (
                {g.name: redraw.draw(g, draw_seed(plan.seed, g.order, i)) for g in last} for i in range(plan.n_draws)
            )
            yield _Source(FRESH, None, tuple(draws))
        else:
            snapshot = run.snapshot(name)
            state = snapshot.state(run.model)
            yield _Source(snapshot.name, snapshot.epoch, ({g.name: taken_from(state, g) for g in last},))


def _with_last(
    k: int,
    source: _Source,
    run: Run,
    examiner: Examiner,
    groups: Sequence[Group],
    plan: ResetPlan,
    retrained: Retraining | None,
) -> list[Candidate]:
    """The last k layers set to a source: a candidate for every number of steps."""
    last = list(groups[len(groups) - k :])
    of_draws: list[list[Answers]] = []
    for tensors in source.draws:
        model = reset_copy(run.model, last, merged([tensors[group.name] for group in last]), plan.batch_norm)
        answers = [examiner.answers(model)]
        if retrained is not None:
            answers += [examiner.answers(model) for _ in retrained.through(model, last)]
        of_draws.append(answers)
    return [
        _candidate(examiner, {"k": k, "to": source.to, "epoch": source.epoch, "steps": steps}, list(same))
        for steps, same in zip(plan.marks, zip(*of_draws, strict=True), strict=True)
    ]


def _candidate(examiner: Examiner, what: dict[str, Any], draws: Sequence[Answers]) -> Candidate:
    hits = {kind: np.stack([examiner.hits(answers, kind) for answers in draws]) for kind in examiner.kinds}
    losses = {kind: np.array([examiner.loss(answers, kind) for answers in draws]) for kind in examiner.kinds}
    return Candidate(
        **what,
        hits={kind: of_draws.mean(axis=0) for kind, of_draws in hits.items()},
        losses=losses,
        accuracies={kind: of_draws.mean(axis=1) for kind, of_draws in hits.items()},
    )


# ------------------------------------------------------------------------------------------------------------- the rows
def _settings(plan: ResetPlan, candidate: Candidate, is_chosen: bool) -> dict[str, Any]:
    names = ("lr", "momentum", "weight_decay", "batch_size", "batch_norm", "seed")
    drawn = {"n_draws": plan.n_draws} if candidate.to == FRESH else {}
    return {name: getattr(plan, name) for name in names} | candidate.settings | drawn | {"chosen": is_chosen}


def _scores(candidate: Candidate) -> Iterator[Row]:
    """Standard errors over examples, of several draws over these."""
    for kind, hits in candidate.hits.items():
        accuracies, losses = candidate.accuracies[kind], candidate.losses[kind]
        several = len(accuracies) > 1
        common = {"kind": kind, "n": len(accuracies) if several else len(hits)}
        error = standard_error(accuracies if several else hits)
        yield common | {"metric": "accuracy", "value": float(accuracies.mean()), "stderr": error}
        yield common | {"metric": "loss", "value": float(losses.mean()), "stderr": standard_error(losses)}


def _gains(plan: ResetPlan, before: Candidate, best: Candidate | None) -> Iterator[Row]:
    if best is None:
        place = {"layer": before.layer, "depth": 0, "kind": "test", "settings": _settings(plan, before, False)}
        yield place | {"metric": "accuracy_gain", "value": math.nan, "flag": "no_validation"}
        return
    for kind, hits in best.hits.items():
        gains, of_draws = hits - before.hits[kind], best.accuracies[kind]
        over_draws = standard_error(of_draws) if len(of_draws) > 1 else 0.0
        yield {
            "layer": best.layer,
            "depth": best.k,
            "kind": kind,
            "metric": "accuracy_gain",
            "value": float(gains.mean()),
            "stderr": math.hypot(standard_error(gains), over_draws),
            "n": len(gains),
            "settings": _settings(plan, best, True),
        }

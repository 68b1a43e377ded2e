r"""The last layers set back, as regularisation after training (Wang & Yang 2022, *With greater distance comes worse
performance*).

The last k layers get their initial values, those of a checkpoint, or fresh draws; either that is all, or they alone are
trained again for some steps, on the labels of training. Which k, source and number of steps is best is chosen on
validation data, and what was chosen is scored on the test data: the choice costs nothing of their honesty. The paper
leaves the protocol open; this one is our own.

Layers that are not set back stay bit for bit what they were while the others are trained: their parameters are frozen, and
their batch norm keeps its statistics. Dropout is on, as in training. All of it happens on a copy of the network.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from manigeo.errors import ManigeoError, UsageError, check_ranges
from manigeo.kinds import VALIDATION
from manigeo.manifolds import standard_error
from manigeo_extract.batches import called
from manigeo_extract.interventions.editing import Redraw, Tensors, draw_seed, merged, taken_from
from manigeo_extract.interventions.exchanges import FRESH
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.scoring import Answers, Examiner, Row
from manigeo_extract.recording.layers import eagerly, first_tensor, unwrap
from manigeo_extract.training.evaluation import HasInputs, held
from manigeo_extract.training.runs import Name, Run

POLICIES = ("with-stats", "params")
_MARKS = 4  # times that retrained layers are scored on the way


@dataclass(frozen=True)
class ResetPlan:
    """Settings of the last 1 .. ``last`` layers: what they are set to, and how these are trained again.

    ``sources``: "init", names or epochs of checkpoints, :data:`FRESH` (``n_draws`` of them, averaged). ``steps`` of SGD
    are looked at after each quarter; with 0 nothing is trained. ``batch_norm`` "with-stats" sets running statistics back
    with their layer, "params" leaves them.
    """

    last: int = 3
    sources: tuple[Name, ...] = ("init",)
    steps: int = 200
    n_draws: int = 5
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 64
    batch_norm: str = "with-stats"
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            ("last", self.last >= 1, "1 or more"),
            ("sources", len(self.sources) >= 1, "one or more"),
            ("steps", self.steps >= 0, "0 or more"),
            ("n_draws", self.n_draws >= 1, "1 or more"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("batch_norm", self.batch_norm in POLICIES, " or ".join(POLICIES)),
        )

    @property
    def marks(self) -> tuple[int, ...]:
        """Numbers of steps after which the network is scored.

        >>> ResetPlan(steps=200).marks, ResetPlan(steps=2).marks, ResetPlan(steps=0).marks
        ((0, 50, 100, 150, 200), (0, 1, 2), (0,))
        """
        return tuple(dict.fromkeys(-(-self.steps * i // _MARKS) for i in range(_MARKS + 1)))


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
    for k, source in tqdm(todo, desc="reset", unit="network", disable=None if progress else True):
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


# ------------------------------------------------------------------------------------------------------------ retraining
def reset_copy(model: nn.Module, last: Sequence[Group], tensors: Tensors, batch_norm: str = "with-stats") -> nn.Module:
    """A copy of the network whose layers ``last`` have these tensors; only their parameters can be trained."""
    copied = copy.deepcopy(unwrap(model))
    copied.requires_grad_(False)
    copied.zero_grad(set_to_none=True)
    state = copied.state_dict()
    for group in last:
        for name, tensor in taken_from(tensors, group, batch_norm).items():
            state[name].copy_(tensor)
    for parameter in _parameters(copied, last):
        parameter.requires_grad_()
    return copied


def _parameters(model: nn.Module, groups: Sequence[Group]) -> list[nn.Parameter]:
    return [model.get_parameter(name) for group in groups for name in group.parameters]


def frozen_training(model: nn.Module, trained: Sequence[Group]) -> None:
    """Training mode, but for the batch norm of layers that are not ``trained``: its statistics are theirs."""
    own = {path for group in trained for path in group.modules}
    model.train()
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and path not in own:
            module.eval()


class Retraining:
    """The training examples, and steps of SGD on them: batches and dropout are the same for all candidates."""

    def __init__(self, run: Run, examiner: Examiner, plan: ResetPlan) -> None:
        rows = np.flatnonzero(run.examples["split"].to_numpy() == "train")
        labels = run.examples["train_label"].to_numpy(dtype=np.int64)[rows]
        self._plan, self._device = plan, examiner.device
        self._source: HasInputs = held(run.data, rows, examiner.device)
        self._y: Int[Tensor, " n"] = torch.as_tensor(labels, device=examiner.device)

    def through(self, model: nn.Module, trained: Sequence[Group]) -> Iterator[int]:
        """Trains the layers ``trained`` of ``model``; stops at each mark, but for the first, to be looked at."""
        plan, batches = self._plan, self._batches()
        optimizer = torch.optim.SGD(
            _parameters(model, trained), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
        )
        for start, mark in zip(plan.marks, plan.marks[1:], strict=False):
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                torch.manual_seed(draw_seed(plan.seed, 1 << 20, start))  # dropout
                frozen_training(model, trained)
                for step in range(start + 1, mark + 1):
                    self._step(model, optimizer, next(batches), step)
            optimizer.zero_grad()
            yield mark

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: np.ndarray, step: int) -> None:
        with eagerly(model):
            logits = first_tensor(called(model, self._source.inputs(batch).to(self._device)))
        assert logits is not None
        loss = F.cross_entropy(logits.float(), self._y[torch.as_tensor(batch, device=self._device)])
        if not math.isfinite(float(loss.detach())):
            raise ManigeoError(
                f"the loss of the retrained layers is not finite at step {step}; try a learning rate below {self._plan.lr:g}"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _batches(self) -> Iterator[np.ndarray]:
        """Equal batches of the examples in random order, epoch after epoch."""
        n_batches = math.ceil(len(self._y) / self._plan.batch_size)
        epoch = 0
        while True:
            epoch += 1
            order = np.random.default_rng(draw_seed(self._plan.seed, 1 << 21, epoch)).permutation(len(self._y))
            yield from np.array_split(order, n_batches)


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

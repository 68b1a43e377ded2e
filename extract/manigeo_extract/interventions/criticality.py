r"""Module criticality: how far a layer can go back to its start, and be shaken there, before the network forgets.

Chatterji, Neyshabur & Sedghi (2020), *The intriguing role of module criticality in the generalization of deep networks*,
ICLR. With the other layers as trained, the criticality of layer l is

.. math::
    \mu_l = \min_{0 \le \alpha \le 1,\; \sigma > 0} \frac{\alpha^2}{\sigma^2}\, |\theta_T - \theta_0|^2
    \quad \text{subject to} \quad \mathrm{E}_u\, L(\theta_0 + \alpha (\theta_T - \theta_0) + u) \le \bar L,
    \qquad u \sim N(0, \sigma^2 I).

It is 0 where the layer may as well have its initial values, and large where the way back is narrow. Three bounds are
known here, after which the metrics are named:

=========================  =====================================================================================
``criticality``            :math:`\bar L` = 1.01 times the trained loss, as in the authors' code
``criticality_error``      the error instead of the loss, at most the trained one + .01, as the paper states it
``criticality_absolute``   :math:`\bar L` = the trained loss + .1 [own]: 1 % of the loss of a network that knows all its
                           examples is next to nothing
=========================  =====================================================================================

The minimum is that over a grid. For every alpha, from 1 down, the largest sigma that holds is found by bisection, among
those that would beat the alphas before. That gives the minimum of the whole grid where a loss that exceeds the bound does
so at larger sigma too. So it is where the loss is convex in the layer (the last one): draws are the same at every point
and come in pairs u, -u, whose mean loss then grows with sigma. Elsewhere what is found holds, and may be above the minimum.
Losses and errors are not negative, so a point is given up as soon as their sum exceeds what it may be in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from manigeo.errors import UsageError, check_choice, check_ranges
from manigeo.faces.progress import bar
from manigeo.kinds import SCORED
from manigeo.manifolds import kind_examples, standard_error
from manigeo.randomness import stream
from manigeo_extract.batches import called
from manigeo_extract.interventions.editing import Tensors, replaced
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.scoring import Examiner, Row
from manigeo_extract.recording.layers import eagerly, evaluating, logits_of, unwrap, without_gradients
from manigeo_extract.resolve import near_names
from manigeo_extract.training.evaluation import HasInputs, held
from manigeo_extract.training.runs import Run

_EXAMPLES = 1 << 20  # the stream that examples are drawn from; below it those of the layers
_SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # in float32 the loss of an example that is known comes in steps of 6e-8, more than 1 % of it may be
    "loss": lambda logits, y: F.cross_entropy(logits.double(), y, reduction="sum"),
    "error": lambda logits, y: (logits.argmax(dim=1) != y).sum(),
}
_MEASURES = {"criticality": "loss", "criticality_absolute": "loss", "criticality_error": "error"}


# ---------------------------------------------------------------------------------------------------------- the plan
@dataclass(frozen=True)
class CriticalityPlan:
    r"""Settings of the search, and the bounds that it is under.

    ``factor``, ``delta`` and ``error`` make the bounds: times the trained loss, above the trained loss, above the trained
    error; None leaves one out. ``kinds`` are the examples on whose mean the bound is (None: those of training), at most
    ``most`` of them, drawn by ``seed``. ``origin`` is the snapshot that stands for :math:`\theta_0`.

    The grid: ``n_alphas`` from 0 to 1, and ``per_decade`` :math:`\sigma` a decade, from ``lowest`` times the rms of
    :math:`\theta_T` up to ``highest`` times that or the rms of :math:`\theta_T - \theta_0`, the larger. Neighbouring
    :math:`\sigma` are a factor :math:`10^{1/n}` apart, and so values of the criticality twice that in its logarithm.
    """

    factor: float | None = 1.01
    delta: float | None = 0.1
    error: float | None = 0.01
    kinds: tuple[str, ...] | None = None
    most: int | None = 2000
    origin: str | int = "init"
    n_draws: int = 10
    n_alphas: int = 11
    lowest: float = 1e-4
    highest: float = 10.0
    per_decade: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds or () if kind not in SCORED]:
            raise UsageError(f"no kind {unknown[0]!r}{near_names(unknown[0], SCORED)}")
        each_once = self.kinds is None or len(set(self.kinds)) == len(self.kinds) >= 1
        check_ranges(
            self,
            ("factor", self.factor is None or self.factor >= 1, "1 or more"),
            ("delta", self.delta is None or self.delta >= 0, "0 or more"),
            ("error", self.error is None or self.error >= 0, "0 or more"),
            ("kinds", each_once, "one or more, each once"),
            ("most", self.most is None or self.most >= 1, "1 or more"),
            ("n_draws", self.n_draws >= 2 and self.n_draws % 2 == 0, "an even number from 2 on: draws come in pairs"),
            ("n_alphas", self.n_alphas >= 2, "2 or more"),
            ("lowest", 0 < self.lowest < self.highest, "above 0 and below highest"),
            ("highest", math.isfinite(self.highest), "finite"),
            ("per_decade", self.per_decade >= 1, "1 or more"),
        )

    @property
    def alphas(self) -> Float[np.ndarray, " alphas"]:
        return np.linspace(0, 1, self.n_alphas)

    def sigmas(self, start: float, end: float) -> Float[np.ndarray, " sigmas"]:
        """Grid from ``lowest`` x ``start`` up to at least ``highest`` x ``end``, evenly in the logarithm."""
        decades = math.log10(self.highest * end / (self.lowest * start))
        steps = math.ceil(round(decades * self.per_decade, 9))
        return self.lowest * start * 10 ** (np.arange(steps + 1) / self.per_decade)

    @property
    def most_evaluations(self) -> int:
        """Number of times that the loss on all examples is computed at most, per layer: under every bound, for every
        alpha with the sigma of a bisection, with every draw. Where the layer has moved by no more than its own length.

        >>> CriticalityPlan(factor=1.01, delta=None, error=None).most_evaluations
        710
        """
        bounds = sum(value is not None for value in (self.factor, self.delta, self.error))
        bisection = math.ceil(math.log2(len(self.sigmas(1.0, 1.0)) + 1)) + 1
        return bounds * self.n_draws * (1 + (self.n_alphas - 1) * bisection)


# -------------------------------------------------------------------------------------------------------- the answers
@dataclass(frozen=True)
class Criticality:
    """The smallest criticality on the grid, where it is found, and the mean loss (or error) there with the standard error
    over pairs of draws. All NaN where no point of the grid holds; ``at_edge``: sigma is the largest that was tried, so
    the criticality may be smaller.
    """

    value: float
    alpha: float = math.nan
    sigma: float = math.nan
    level: float = math.nan
    level_stderr: float = math.nan
    at_edge: bool = False
    n_tried: int = 0

    @property
    def flag(self) -> str:
        return "infeasible" if math.isnan(self.value) else "at_edge" if self.at_edge else ""


def criticality_rows(
    run: Run, examiner: Examiner, groups: Sequence[Group], plan: CriticalityPlan, *, progress: bool = False
) -> Iterator[Row]:
    """Criticality of every layer of ``groups``, and of all of them: the sum.

    Of each layer the ``distance`` of its parameters from where they started, the criticality under every bound, and with
    it ``_alpha``, ``_sigma``, and ``_level``, the mean loss or error there. ``flag`` is "infeasible" where no point
    of the grid holds, and "at_edge" where the largest sigma does. Buffers stay as trained. The network is left as it was.

    ``examiner`` holds the device and the size of batches. Raises :class:`~manigeo.errors.UsageError` where the run has
    no examples of these kinds, and what :meth:`~manigeo_extract.training.runs.Run.snapshot` raises.
    """
    origin = run.snapshot(plan.origin).state(run.model)
    kinds = plan.kinds or run.trained_kinds
    learned = _learned(run, examiner, plan, kinds)
    bounds = learned.bounds(plan)
    settings = _settings(plan, learned, kinds)
    found: dict[str, list[Criticality]] = {metric: [] for metric in bounds}
    with bar(len(groups) * len(bounds), "criticality", "search", shown=progress) as told:
        for group in groups:
            segment = Segment(run.model, group, origin, plan.seed)
            place = {"layer": group.name, "depth": group.order, "kind": "+".join(kinds)}
            yield place | {"metric": "distance", "value": segment.distance, "n": segment.size, "settings": settings}
            for metric, bound in bounds.items():
                answer = module_criticality(segment, learned, bound, _MEASURES[metric], plan)
                found[metric].append(answer)
                told.update()
                own = settings | {"bound": bound / learned.n}
                yield from (place | row | {"settings": own} for row in _rows(metric, answer, plan))
    for metric, answers in found.items():
        place = {"layer": "(all)", "depth": len(groups), "kind": "+".join(kinds)}
        yield place | _total(metric, answers) | {"settings": settings | {"bound": bounds[metric] / learned.n}}


def module_criticality(
    segment: Segment, learned: Learned, bound: float, measure: str, plan: CriticalityPlan
) -> Criticality:
    """The smallest criticality on the grid at which the sum of ``measure`` ("loss", "error"), averaged over draws, is
    ``bound`` or less.
    """
    sigmas = plan.sigmas(*segment.scales)
    search = _Search(segment, learned, bound, measure, plan.n_draws)
    if not search.holds(0.0, float(sigmas[0])):  # if it does, no other point is below 0
        for alpha in plan.alphas[:0:-1].tolist():
            search.bisect(alpha, sigmas[alpha / sigmas < search.ratio])
    return search.answer(float(sigmas[-1]))


class _Search:
    """Search for points that hold, and the best of them: alpha / sigma, both, and the sums there of every draw."""

    def __init__(self, segment: Segment, learned: Learned, bound: float, measure: str, n_draws: int) -> None:
        self._segment, self._learned, self._measure = segment, learned, measure
        self._bound, self._n_draws = bound, n_draws
        self.ratio, self._point, self._totals = math.inf, (math.nan, math.nan), np.full(n_draws, math.nan)
        self._n_tried = 0

    def holds(self, alpha: float, sigma: float) -> bool:
        self._n_tried += 1
        totals = _totals(self._segment, self._learned, (alpha, sigma), self._bound, self._measure, self._n_draws)
        if totals is not None and alpha / sigma < self.ratio:
            self.ratio, self._point, self._totals = alpha / sigma, (alpha, sigma), totals
        return totals is not None

    def bisect(self, alpha: float, sigmas: Float[np.ndarray, " sigmas"]) -> None:
        """Look for the largest sigma that holds, if those below it do; at the smallest first, as often none does."""
        low, high = -1, len(sigmas)
        while high - low > 1:
            middle = (low + high) // 2 if low >= 0 else 0
            low, high = (middle, high) if self.holds(alpha, float(sigmas[middle])) else (low, middle)

    def answer(self, largest: float) -> Criticality:
        """``largest`` is the sigma at which the grid ends."""
        value = (self.ratio * self._segment.distance) ** 2 if math.isfinite(self.ratio) else math.nan
        means = self._totals.reshape(-1, 2).mean(axis=1) / self._learned.n
        level, error = float(means.mean()), float(standard_error(means))
        at_edge = self._point[1] == largest and value > 0
        return Criticality(value, *self._point, level, error, at_edge, self._n_tried)


def _totals(
    segment: Segment, learned: Learned, point: tuple[float, float], bound: float, measure: str, n_draws: int
) -> Float[np.ndarray, " draws"] | None:
    """The sums of every draw; None as soon as their mean is seen to be above the bound."""
    totals = np.zeros(n_draws)
    most = bound * n_draws * (1 + 1e-12)  # a sum of rounded terms
    for i in range(n_draws):
        with replaced(segment.model, segment.at(*point, draw=i)):
            for part in learned.sums(measure):
                totals[i] += part
                if not totals.sum() <= most:  # NaN exceeds everything
                    return None
    return totals


# ----------------------------------------------------------------------------------------------------- what is searched
@dataclass(frozen=True)
class Segment:
    """The parameters of a layer on the way from ``origin`` to where they are, and around it."""

    model: nn.Module
    group: Group
    origin: Tensors
    seed: int = 0
    trained: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        state = unwrap(self.model).state_dict()
        object.__setattr__(self, "trained", {name: state[name].clone() for name in self.group.parameters})

    @property
    def size(self) -> int:
        return sum(tensor.numel() for tensor in self.trained.values())

    @property
    def distance(self) -> float:
        r""":math:`|\theta_T - \theta_0|`."""
        return _norm([tensor - self._start(name) for name, tensor in self.trained.items()])

    @property
    def scales(self) -> tuple[float, float]:
        """The rms of the trained parameters, and that or the rms of the difference, the larger: where to look for sigma."""
        trained, moved = _norm(list(self.trained.values())), self.distance
        known = [norm / math.sqrt(self.size) for norm in (trained, moved) if norm > 0] or [1.0]
        return known[0], max(known)

    def at(self, alpha: float, sigma: float, draw: int) -> dict[str, Tensor]:
        """The parameters with noise; an odd draw is the even one before it with the other sign."""
        seed = np.random.SeedSequence(self.seed, spawn_key=(self.group.order, draw // 2)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed[0]))  # of the CPU: the same draws on every device
        sign = -1.0 if draw % 2 else 1.0
        return {
            name: torch.lerp(self._start(name), tensor, alpha)
            + sign * sigma * torch.randn(tensor.shape, generator=generator).to(tensor)
            for name, tensor in self.trained.items()
        }

    def _start(self, name: str) -> Tensor:
        return self.origin[name].to(self.trained[name])


@dataclass(frozen=True)
class Learned:
    """Examples that a network is scored on while it is changed: inputs, held on the device, and the labels ``y``."""

    model: nn.Module
    source: HasInputs
    y: Int[Tensor, " n"]
    batch_size: int = 256

    @property
    def n(self) -> int:
        return len(self.y)

    def sums(self, measure: str) -> Iterator[float]:
        """The sum of the losses, or of the errors, of every batch.

        Raises :class:`~manigeo.errors.UsageError` for a measure that is neither "loss" nor "error".
        """
        check_choice("measure", measure, _SUMS)
        summed = _SUMS[measure]
        root = unwrap(self.model)
        with evaluating(root), eagerly(root), without_gradients():
            for start in range(0, self.n, self.batch_size):
                at = np.arange(start, min(start + self.batch_size, self.n))
                logits = logits_of(called(root, self.source.inputs(at).to(self.y.device)))
                assert logits is not None
                y = self.y[start : start + self.batch_size]
                yield float(summed(logits, y))

    def bounds(self, plan: CriticalityPlan) -> dict[str, float]:
        """Bounds on the sum, by metric."""
        loss, error = sum(self.sums("loss")), sum(self.sums("error"))
        found = {
            "criticality": None if plan.factor is None else plan.factor * loss,
            "criticality_absolute": None if plan.delta is None else loss + plan.delta * self.n,
            "criticality_error": None if plan.error is None else error + plan.error * self.n,
        }
        return {metric: bound for metric, bound in found.items() if bound is not None}


def _learned(run: Run, examiner: Examiner, plan: CriticalityPlan, kinds: Sequence[str]) -> Learned:
    found = [kind_examples(run.examples, kind) for kind in kinds]
    rows, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if not len(rows):
        raise UsageError(f"the run has no {' or '.join(kinds)} examples; it has {', '.join(examiner.kinds)}")
    if plan.most is not None and plan.most < len(rows):
        chosen = np.sort(stream(plan.seed, _EXAMPLES).choice(len(rows), plan.most, replace=False))
        rows, labels = rows[chosen], labels[chosen]
    y = torch.as_tensor(labels, device=examiner.device)
    return Learned(run.model, held(run.data, rows, examiner.device), y, examiner.batch_size)


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


# ------------------------------------------------------------------------------------------------------------- the rows
def _settings(plan: CriticalityPlan, learned: Learned, kinds: Sequence[str]) -> dict[str, object]:
    names = ("factor", "delta", "error", "origin", "n_alphas", "lowest", "highest", "per_decade", "seed")
    own: Mapping[str, object] = {name: getattr(plan, name) for name in names}
    return {**own, "kinds": list(kinds), "n_examples": learned.n, "n_draws": plan.n_draws}


def _rows(metric: str, answer: Criticality, plan: CriticalityPlan) -> Iterator[Row]:
    level = {"value": answer.level, "stderr": answer.level_stderr, "n": plan.n_draws}
    values: dict[str, Row] = {
        "": {"value": answer.value},
        "_alpha": {"value": answer.alpha},
        "_sigma": {"value": answer.sigma},
        "_level": level,
    }
    yield from ({"metric": metric + ending, "flag": answer.flag} | row for ending, row in values.items())


def _total(metric: str, answers: list[Criticality]) -> Row:
    flags = {answer.flag for answer in answers}
    flag = next((flag for flag in ("infeasible", "at_edge") if flag in flags), "")
    return {"metric": metric, "value": math.fsum(a.value for a in answers), "n": len(answers), "flag": flag}

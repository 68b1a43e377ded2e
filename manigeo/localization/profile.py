r"""Memorization profiles over the layers, from evidence: onset, centre of mass, and whether methods agree.

The literature measures memorization in several ways and leaves open how a curve becomes a statement, so this is our own
definition. A method gives each layer :math:`l = 1 \dots L` an evidence :math:`e_l`. Where the evidence is *cumulative*
(geometry, separability: what has come apart stays apart in the layers above), a layer is credited with what it adds; where
it is *local* (what breaks when the layer alone is exchanged), with all of it:

.. math:: m_l = [e_l - e_{l-1}]_+ \ \text{(cumulative,}\ e_0 = 0\text{)}, \qquad m_l = [e_l]_+ \ \text{(local)}.

Noise about zero would be credited with its upper half, layer after layer, which draws the centre inward from the first and
the last layer. So a layer is credited only with what is there for certain (one-sided, at 5 % over all layers): of local
evidence with that of layers which are above zero; of cumulative evidence with the steps of a rising staircase, of which
those are taken away that could be noise (a reduced isotonic regression; layers that fall below an earlier step are left out
of it). With the shares :math:`s_l = m_l / \sum_k m_k` the *centre of mass* is :math:`\sum_l x_l s_l` for layers at the
positions :math:`x_l`; the *onset* and the *end* are the first layers up to which there is a fifth and four fifths of the
whole.

Intervals are Student's, over runs where there are several (their own errors are part of the spread between them), else over
the units of the one run (manifolds), else from the error that is known; draws of the multivariate t-distribution carry them
to shares and positions. Two p-values are given: of "no layer has evidence above zero" (the largest t, corrected for the
number of layers), and of "no layer differs", under which the layers of a unit can be exchanged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import special

ONSET, END = 0.2, 0.8  # shares of the profile
LEVEL = 0.95
_Span = tuple[int, int]  # layers from the first to before the second


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence of one method on the layers of one network: for each unit (manifold) that of every layer.

    ``units`` (units, layers); or, where there are no units, one row with its standard errors ``stderr`` (layers,).
    """

    units: Float[np.ndarray, "units layers"]
    stderr: Float[np.ndarray, " layers"] | None = None

    def mean(self) -> Float[np.ndarray, " layers"]:
        return self.units.mean(axis=0)

    def of(self, layers: Sequence[int]) -> "Evidence":
        """Select these layers alone."""
        return Evidence(self.units[:, layers], None if self.stderr is None else self.stderr[list(layers)])

    def exchanged(self, rng: np.random.Generator, n: int, cumulative: bool) -> Float[np.ndarray, "n layers"]:
        """Means of ``n`` sets of units in which the layers (what they add, if ``cumulative``) changed places at random."""
        each = _increments(self.units) if cumulative else self.units
        if self.stderr is not None:
            error = np.nan_to_num(self.stderr)
            drawn = rng.standard_normal((n, len(error))) * error
            return each.mean() + (_increments(drawn) if cumulative else drawn)
        return np.stack([rng.permuted(each, axis=1).mean(axis=0) for _ in range(n)])


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number with its interval, at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Localization:
    """Location of memorization by one method, for layers at ``positions`` (layers,), by default 0, 1, ...

    ``evidence`` and ``shares`` (layers,) with the ends of their intervals; ``named`` (layers,) marks the fewest layers that
    make up four fifths of the profile. ``p_present`` is the p-value of
    no layer having evidence above zero, ``p_differs`` of no layer differing. ``replicates`` (draws, layers) are the shares
    that the intervals come from.
    """

    evidence: Float[np.ndarray, " layers"]
    evidence_low: Float[np.ndarray, " layers"]
    evidence_high: Float[np.ndarray, " layers"]
    shares: Float[np.ndarray, " layers"]
    shares_low: Float[np.ndarray, " layers"]
    shares_high: Float[np.ndarray, " layers"]
    named: Bool[np.ndarray, " layers"]
    positions: Float[np.ndarray, " layers"]
    center_of_mass: Estimate
    onset: Estimate
    end: Estimate
    p_present: float
    p_differs: float
    n_runs: int
    n_units: int
    replicates: Float[np.ndarray, "draws layers"]

    @property
    def present(self) -> bool:
        """True where some layer's evidence is above zero, at 5 % corrected for the number of layers."""
        return self.p_present <= 1 - LEVEL

    @property
    def p_value(self) -> float:
        """The p-value of "nothing is located here": no evidence, or no layer that differs."""
        return max(self.p_present, self.p_differs)


def locate(
    runs: Sequence[Evidence],
    *,
    cumulative: bool,
    positions: Sequence[float] | None = None,
    n_resamples: int = 1000,
    seed: int | np.random.SeedSequence = 0,
) -> Localization:
    """Profile, onset and centre of mass from the evidence of one method on one network or several (seeds).

    Raises ``ValueError`` for no runs, runs of different layers, or entries that are not finite.

    >>> step = np.repeat([[0.0, 0.0, 1.0, 1.0]], 5, axis=0)
    >>> found = locate([Evidence(step)], cumulative=True)
    >>> found.onset.value, found.center_of_mass.value
    (2.0, 2.0)
    """
    _check(runs)
    rng = np.random.default_rng(seed)
    sample = _Sample.of(runs)
    at = np.arange(len(sample.mean), dtype=float) if positions is None else np.asarray(positions, dtype=float)
    half = sample.stderr * special.stdtrit(sample.dof, (1 + LEVEL) / 2)
    credit = _Staircase(sample) if cumulative else _Above(sample)
    shares = _shares(credit.of(sample.mean)[None], rng)[0]
    resampled = _shares(np.stack([credit.of(draw) for draw in sample.draws(rng, n_resamples)]), rng)
    low, high = _interval(resampled)
    return Localization(
        sample.mean, sample.mean - half, sample.mean + half,
        shares, np.minimum(low, shares), np.maximum(high, shares),
        named=_fewest(shares),
        positions=at,
        center_of_mass=_estimate(*(_center(s, at) for s in (shares, resampled))),
        onset=_estimate(*(_reached(s, ONSET, at) for s in (shares, resampled))),
        end=_estimate(*(_reached(s, END, at) for s in (shares, resampled))),
        p_present=sample.p_present(),
        p_differs=_p_differs(runs, cumulative, rng, n_resamples),
        n_runs=len(runs),
        n_units=sum(len(run.units) for run in runs),
        replicates=resampled,
    )  # fmt: skip


def agreement(one: Localization, other: Localization, layers: Int[np.ndarray, "pairs 2"]) -> Estimate:
    """Spearman's correlation of two profiles over the layers that both know: row i of ``layers`` pairs a layer of ``one``
    with one of ``other``. The interval is over resamples of both; NaN for fewer than three layers.

    >>> step = locate([Evidence(np.array([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]))], cumulative=False)
    >>> agreement(step, step, np.array([[0, 0], [1, 1], [2, 2]])).value
    1.0
    """
    if len(layers) < 3:
        return Estimate(np.nan, np.nan, np.nan)
    a, b = layers.T
    value = _spearman(one.shares[None, a], other.shares[None, b])[0]
    return _estimate(float(value), _spearman(one.replicates[:, a], other.replicates[:, b]))


def _check(runs: Sequence[Evidence]) -> None:
    if not runs or len({run.units.shape[1] for run in runs}) != 1:
        raise ValueError(f"expected runs of the same layers, got {[run.units.shape[1] for run in runs]}")
    if not all(np.isfinite(run.units).all() and len(run.units) for run in runs):
        raise ValueError("evidence must be finite; leave out layers and units without a value")


def _increments(curves: Float[np.ndarray, "*n layers"]) -> Float[np.ndarray, "*n layers"]:
    return np.diff(curves, axis=-1, prepend=0.0)


@dataclass(frozen=True, eq=False)
class _Sample:
    """Mean evidence (layers,), and what its errors are drawn from: deviations (k, layers) of k runs or units, whose random
    sums have the covariance of the mean, with ``dof`` degrees of freedom."""

    mean: Float[np.ndarray, " layers"]
    deviations: Float[np.ndarray, "k layers"]
    dof: float

    @classmethod
    def of(cls, runs: Sequence[Evidence]) -> "_Sample":
        if len(runs) == 1 and (error := runs[0].stderr) is not None:
            return cls(runs[0].mean(), np.diag(np.nan_to_num(error)), np.inf)
        rows = runs[0].units if len(runs) == 1 else np.stack([run.mean() for run in runs])
        mean, k = rows.mean(axis=0), len(rows)
        scale = math.sqrt(k * (k - 1)) if k > 1 else math.inf
        return cls(mean, (rows - mean) / scale, float(max(k - 1, 1)))

    @property
    def stderr(self) -> Float[np.ndarray, " layers"]:
        error: np.ndarray = np.sqrt((self.deviations**2).sum(axis=0))
        return error

    @property
    def certain(self) -> float:
        """Number of standard errors above zero from which on evidence is there for certain, in view of all layers."""
        return -float(special.stdtrit(self.dof, (1 - LEVEL) / len(self.mean)))

    def draws(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n layers"]:
        """Draws of the mean from the multivariate t-distribution."""
        normal = rng.standard_normal((n, len(self.deviations))) @ self.deviations
        if np.isinf(self.dof):
            return self.mean + normal
        widths = np.sqrt(rng.chisquare(self.dof, size=(n, 1)) / self.dof)
        drawn: np.ndarray = self.mean + normal / widths
        return drawn

    def p_values(self) -> Float[np.ndarray, " layers"]:
        """One-sided, of evidence that is zero or below; a layer without error is 0 or 1 for certain."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.mean == 0, -np.inf, self.mean / self.stderr)
        return np.asarray(special.stdtr(self.dof, -t))

    def p_present(self) -> float:
        """P-value of no layer being above zero: the smallest one, corrected for their number."""
        return float(min(1.0, self.p_values().min() * len(self.mean)))


class _Above:
    """Credit of local evidence: that of layers which are above zero for certain."""

    def __init__(self, sample: _Sample) -> None:
        self._least = sample.certain * sample.stderr

    def of(self, evidence: Float[np.ndarray, " layers"]) -> Float[np.ndarray, " layers"]:
        return np.where((evidence > 0) & (evidence >= self._least), evidence, 0.0)


class _Staircase:
    """Credit of cumulative evidence: the steps of a rising staircase, of those that are there for certain.

    It begins at zero with a step at every layer. As long as the least certain step is not certain it is taken away: a rise
    is pooled with the step before it, layers that fall below the step before them are left out.
    """

    def __init__(self, sample: _Sample) -> None:
        self._sums = np.pad(sample.deviations.cumsum(axis=1), ((0, 0), (1, 0)))
        self._certain = sample.certain
        self._least: dict[tuple[_Span, _Span], float] = {}

    def of(self, evidence: Float[np.ndarray, " layers"]) -> Float[np.ndarray, " layers"]:
        sums = [0.0, *evidence.cumsum().tolist()]
        steps: list[_Span] = [(i, i + 1) for i in range(len(evidence))]  # layers whose mean is the level of a step
        while True:
            levels = [0.0, *((sums[k] - sums[j]) / (k - j) for j, k in steps)]
            certainty = [self._certainty(high - low, *pair) for low, high, *pair in
                         zip(levels, levels[1:], [(0, 0), *steps], steps, strict=False)]  # fmt: skip
            if not steps or min(certainty) >= 1:
                break
            weakest = certainty.index(min(certainty))
            (_, end), rises = steps.pop(weakest), certainty[weakest] >= 0
            if rises and weakest:
                steps[weakest - 1] = (steps[weakest - 1][0], end)
        credited = np.zeros(len(evidence))
        credited[[start for start, _ in steps]] = np.diff(levels)
        return credited

    def _certainty(self, height: float, lower: _Span, upper: _Span) -> float:
        """Height of a step, in terms of the smallest that could not be noise."""
        least = self._least.get((lower, upper))
        if least is None:
            contrast = self._mean(upper) - self._mean(lower)
            least = self._least[lower, upper] = self._certain * math.sqrt(contrast @ contrast)
        return height / least if least > 0 else math.copysign(math.inf, height) if height else -1.0

    def _mean(self, span: _Span) -> Float[np.ndarray, " k"]:
        start, end = span
        mean: np.ndarray = (self._sums[:, end] - self._sums[:, start]) / max(end - start, 1)
        return mean


def _p_differs(runs: Sequence[Evidence], cumulative: bool, rng: np.random.Generator, n: int) -> float:
    """Probability that layers that changed places differ as much as these do; the observed order counts as once."""
    evidence = np.mean([run.mean() for run in runs], axis=0)
    observed = _spread(_increments(evidence) if cumulative else evidence)
    null = np.mean([run.exchanged(rng, n, cumulative) for run in runs], axis=0)
    return float((1 + np.count_nonzero(_spread(null) >= observed * (1 - 1e-12))) / (1 + n))


def _spread(curves: Float[np.ndarray, "*n layers"]) -> Float[np.ndarray, "*n"]:
    """Variance over the layers of what is above zero: a layer that is below has no evidence, however far below."""
    spread: np.ndarray = np.asarray(np.maximum(curves, 0.0).var(axis=-1))
    return spread


def _shares(profiles: Float[np.ndarray, "n layers"], rng: np.random.Generator) -> Float[np.ndarray, "n layers"]:
    """Shares of the whole; where there is nothing to share, any layer may have all of it."""
    n, layers = profiles.shape
    total = profiles.sum(axis=1, keepdims=True)
    anywhere = np.eye(layers)[rng.integers(layers, size=n)] if n > 1 else np.full((n, layers), 1 / layers)
    return np.divide(profiles, total, out=anywhere, where=total > 0)


def _fewest(shares: Float[np.ndarray, " layers"]) -> Bool[np.ndarray, " layers"]:
    """The largest shares that sum to four fifths; none where all are equal because there is nothing to share."""
    order = np.argsort(-shares, kind="stable")
    needed = np.searchsorted(shares[order].cumsum(), END - 1e-12) + 1
    chosen = np.zeros(len(shares), dtype=bool)
    chosen[order[:needed]] = True
    return chosen


def _center(shares: Float[np.ndarray, "*n layers"], at: Float[np.ndarray, " layers"]) -> Float[np.ndarray, "*n"]:
    return np.asarray(shares @ at)


def _reached(
    shares: Float[np.ndarray, "*n layers"], share: float, at: Float[np.ndarray, " layers"]
) -> Float[np.ndarray, "*n"]:
    """Position of the first layer up to which there is this share; sums of floating point numbers miss it by 1e-12 at
    most."""
    return np.asarray(at[(shares.cumsum(axis=-1) >= share - 1e-12).argmax(axis=-1)])


def _interval(replicates: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "2 ..."]:
    """Low and high end of the interval at :data:`LEVEL`, whatever the number of draws."""
    return np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0, method="weibull")


def _estimate(value: float | np.ndarray, replicates: Float[np.ndarray, " n"]) -> Estimate:
    defined = replicates[np.isfinite(replicates)]
    low, high = _interval(defined) if len(defined) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def _spearman(a: Float[np.ndarray, "n layers"], b: Float[np.ndarray, "n layers"]) -> Float[np.ndarray, " n"]:
    """Spearman's correlation, row by row; NaN where all layers of a row are equal."""
    x, y = (pd.DataFrame(values).rank(axis=1).to_numpy() - (values.shape[1] + 1) / 2 for values in (a, b))
    norms = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), norms, out=np.full(len(x), np.nan), where=norms > 0)

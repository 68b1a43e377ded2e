r"""Memorization profiles over the layers, from evidence: onset, centre of mass, and whether methods agree.

The literature measures memorization in several ways and leaves open how a curve becomes a statement, so this is our own
definition. A method gives each layer :math:`l = 1 \dots L` an evidence :math:`e_l`. Where the evidence is *cumulative*
(geometry, separability: what has come apart stays apart in the layers above), a layer is credited with what it adds; where
it is *local* (what breaks when the layer alone is exchanged), with all of it:

.. math:: m_l = [e_l - e_{l-1}]_+ \ \text{(cumulative,}\ e_0 = 0\text{)}, \qquad m_l = [e_l]_+ \ \text{(local)}

With the profile's shares :math:`s_l = m_l / \sum_k m_k`: the *centre of mass* :math:`\sum_l l\, s_l`, the *onset* and the
*end*, the first layers at which :math:`\sum_{k \le l} s_k` reaches a fifth and four fifths. Intervals come from resampling
runs, and within them the units (manifolds) or, where only an error is known, a normal of that error; the p-value belongs to
"no layer differs", under which the layers of a unit can be exchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

ONSET, END = 0.2, 0.8  # shares of the profile
LEVEL = 0.95


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

    def resampled(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n layers"]:
        """Means of ``n`` resamples of the units, or draws from the normal of their errors."""
        count, layers = self.units.shape
        if self.stderr is not None:
            return self.mean() + rng.standard_normal((n, layers)) * np.nan_to_num(self.stderr)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=n) / count
        resampled: np.ndarray = weights @ self.units
        return resampled

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
    """Location of memorization by one method: layers count from 0.

    ``evidence`` and ``shares`` (layers,) with the ends of their intervals; ``p_value`` of "no layer differs"; ``present``
    tells whether any layer's evidence is above zero beyond its interval, corrected for the number of layers.
    ``replicates`` (resamples, layers) are the shares that the intervals come from.
    """

    evidence: Float[np.ndarray, " layers"]
    evidence_low: Float[np.ndarray, " layers"]
    evidence_high: Float[np.ndarray, " layers"]
    shares: Float[np.ndarray, " layers"]
    shares_low: Float[np.ndarray, " layers"]
    shares_high: Float[np.ndarray, " layers"]
    center_of_mass: Estimate
    onset: Estimate
    end: Estimate
    p_value: float
    present: bool
    n_runs: int
    n_units: int
    replicates: Float[np.ndarray, "resamples layers"]


def profile(evidence: Float[np.ndarray, "*n layers"], cumulative: bool) -> Float[np.ndarray, "*n layers"]:
    """Credit each layer with what its evidence adds, see the equations above.

    >>> profile(np.array([0.0, 0.2, 0.1, 0.5]), cumulative=True).round(9).tolist()
    [0.0, 0.2, 0.0, 0.4]
    >>> profile(np.array([-0.1, 0.2]), cumulative=False).tolist()
    [0.0, 0.2]
    """
    credited: np.ndarray = np.maximum(_increments(evidence) if cumulative else evidence, 0.0)
    return credited


def locate(
    runs: Sequence[Evidence], *, cumulative: bool, n_resamples: int = 1000, seed: int | np.random.SeedSequence = 0
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
    evidence = np.mean([run.mean() for run in runs], axis=0)
    replicates = _replicates(runs, rng, n_resamples)
    shares, resampled = _shares(profile(evidence, cumulative)), _shares(profile(replicates, cumulative))
    low, high = _interval(replicates)
    share_low, share_high = _interval(resampled)
    n_layers = len(evidence)
    return Localization(
        evidence, low, high, shares, share_low, share_high,
        center_of_mass=_estimate(_center(shares), _center(resampled)),
        onset=_estimate(_reached(shares, ONSET), _reached(resampled, ONSET)),
        end=_estimate(_reached(shares, END), _reached(resampled, END)),
        p_value=_p_value(runs, evidence, cumulative, rng, n_resamples),
        present=bool((np.quantile(replicates, (1 - LEVEL) / n_layers, axis=0) > 0).any()),
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


def _replicates(runs: Sequence[Evidence], rng: np.random.Generator, n: int) -> Float[np.ndarray, "n layers"]:
    """Means over runs drawn with replacement, each of them resampled; a single run is drawn every time."""
    each = np.stack([run.resampled(rng, n) for run in runs])
    weights = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=n) / len(runs)
    return np.einsum("nr,rnl->nl", weights, each)


def _p_value(
    runs: Sequence[Evidence], evidence: Float[np.ndarray, " layers"], cumulative: bool, rng: np.random.Generator, n: int
) -> float:
    """Probability that layers that changed places differ as much as these do; the observed order counts as once."""
    observed = _spread(_increments(evidence) if cumulative else evidence)
    null = np.mean([run.exchanged(rng, n, cumulative) for run in runs], axis=0)
    return float((1 + np.count_nonzero(_spread(null) >= observed * (1 - 1e-12))) / (1 + n))


def _spread(curves: Float[np.ndarray, "*n layers"]) -> Float[np.ndarray, "*n"]:
    spread: np.ndarray = np.asarray(curves.var(axis=-1))
    return spread


def _shares(profiles: Float[np.ndarray, "*n layers"]) -> Float[np.ndarray, "*n layers"]:
    """Shares of the whole; of nothing, equal ones."""
    total = profiles.sum(axis=-1, keepdims=True)
    equal = np.full_like(profiles, 1 / profiles.shape[-1])
    return np.divide(profiles, total, out=equal, where=total > 0)


def _center(shares: Float[np.ndarray, "*n layers"]) -> Float[np.ndarray, "*n"]:
    return np.asarray(shares @ np.arange(shares.shape[-1]))


def _reached(shares: Float[np.ndarray, "*n layers"], share: float) -> Float[np.ndarray, "*n"]:
    """The first layer up to which there is this share; sums of floating point numbers miss it by 1e-12 at most."""
    return np.asarray((shares.cumsum(axis=-1) >= share - 1e-12).argmax(axis=-1), dtype=float)


def _interval(replicates: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "2 ..."]:
    """Low and high end of the interval at :data:`LEVEL`."""
    return np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def _estimate(value: float | np.ndarray, replicates: Float[np.ndarray, " n"]) -> Estimate:
    defined = replicates[np.isfinite(replicates)]
    low, high = _interval(defined) if len(defined) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def _spearman(a: Float[np.ndarray, "n layers"], b: Float[np.ndarray, "n layers"]) -> Float[np.ndarray, " n"]:
    """Spearman's correlation, row by row; NaN where all layers of a row are equal."""
    x, y = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (a, b))
    norms = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), norms, out=np.full(len(x), np.nan), where=norms > 0)

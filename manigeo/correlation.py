r"""Correlation of a measure with another over runs: three coefficients, their intervals, and the partial one.

Runs are few and their relation need not be a line, so Pearson's r stands beside the rank coefficients, Spearman's
:math:`\rho` and Kendall's :math:`\tau_b`, each with a percentile interval over runs drawn with replacement. Where a third
quantity z drives both (the width of a layer, of which every distance depends), the partial coefficient shows what is left,

.. math:: r_{xy \cdot z} = \frac{r_{xy} - r_{xz}\, r_{yz}}{\sqrt{(1 - r_{xz}^2)(1 - r_{yz}^2)}} ,

NaN where z is the same for all runs or explains either of them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

COEFFICIENTS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": lambda x, y: float(stats.pearsonr(x, y).statistic),
    "spearman": lambda x, y: float(stats.spearmanr(x, y).statistic),
    "kendall": lambda x, y: float(stats.kendalltau(x, y).statistic),
}
FEWEST = 4  # runs: three always lie near some line
_CONSTANT_RTOL = 1e-12  # explained by z up to rounding


@dataclass(frozen=True)
class Correlation:
    """A coefficient of ``n`` pairs with a 95 % percentile interval; ``flag`` tells why it is NaN."""

    value: float
    low: float
    high: float
    n: int
    flag: str


def correlate(
    x: Float[np.ndarray, " runs"],
    y: Float[np.ndarray, " runs"],
    coefficient: str = "spearman",
    *,
    given: Float[np.ndarray, " runs"] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Correlation:
    """The coefficient of two measures over runs, partial where a third is ``given``.

    Raises ``ValueError`` for an unknown coefficient, measures of different lengths, and NaN or infinite entries.

    >>> x = np.arange(10.0)
    >>> round(correlate(x, x**3).value, 9), round(correlate(x, -x, "kendall").value, 9)
    (1.0, -1.0)
    """
    columns = np.stack([x, y] if given is None else [x, y, given])
    if coefficient not in COEFFICIENTS:
        raise ValueError(f"coefficient must be one of {tuple(COEFFICIENTS)}, got {coefficient!r}")
    if not np.isfinite(columns).all():
        raise ValueError("measures must be finite; leave those runs out")
    n = columns.shape[1]
    if n < FEWEST:
        return Correlation(np.nan, np.nan, np.nan, n, f"fewer_than_{FEWEST}_runs")
    value = _coefficient(columns, coefficient)
    if np.isnan(value):
        return Correlation(value, np.nan, np.nan, n, "constant")
    taken = np.sort(np.random.default_rng(seed).integers(n, size=(n_resamples, n)))
    different, place = np.unique(taken, axis=0, return_inverse=True)  # of 4 runs there are 35, in any order
    drawn = np.array([_coefficient(columns[:, rows], coefficient) for rows in different])[place]
    low, high = np.nanquantile(drawn, [0.025, 0.975])  # resamples of one run alone have no coefficient
    return Correlation(value, float(low), float(high), n, "")


def _coefficient(columns: np.ndarray, name: str) -> float:
    f = COEFFICIENTS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)  # they give NaN, and we a flag
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        xy = f(columns[0], columns[1])
        if len(columns) == 2:
            return xy
        xz, yz = f(columns[0], columns[2]), f(columns[1], columns[2])
    left = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / np.sqrt(left) if left > _CONSTANT_RTOL else np.nan

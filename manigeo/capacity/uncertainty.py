r"""Aggregates over manifolds and their standard errors: over draws, over manifolds, and by the jackknife.

Capacity is averaged harmonically, the rest arithmetically. Manifolds that are seen around one mean, in one metric, are not
independent: the spread over manifolds by the square root of their number misses what they have in common. The jackknife
leaves out one group G after the other, of :math:`m` manifolds of P, with mean and metric made anew, where the value
:math:`f_\nu` of another manifold becomes :math:`f_\nu^{-G}`. The pseudo-value of the group,

.. math:: \tilde\theta_G = \frac1m \sum_{\mu \in G} f_\mu + \frac1m \sum_{\nu \notin G} (f_\nu - f_\nu^{-G}),

is its own part of the mean and what it does to the others; with h = P / m and the mean :math:`\hat\theta_J` of the
:math:`\tilde\theta_G`, weighted by 1/h,

.. math:: \mathrm{se}^2 = \frac1g \sum_G \frac{(\tilde\theta_G - \hat\theta_J)^2}{h - 1} .

Busing, Meijer & van der Leeden (1999), Statistics and Computing 9, 3, where :math:`\tilde\theta = h \hat\theta - (h - 1)
\hat\theta_{-G}`, which is the same. Own parts are of all draws, so that their error is part of the result. Differences are
of a few draws that are the same in both terms; what error is left of them would add to the square, and does not to the
product of pseudo-values by one and by the other half of these draws, which takes its place.

The jackknife is too large where manifolds act on each other in pairs (Efron & Stein 1981, Ann. Statist. 9, 586): in
``tests/bench/coverage.py``, by half for the radius where all manifolds share few axes.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

MEASURES = ("capacity", "radius", "dimension", "dimension_prx")


def aggregates(table: pd.DataFrame) -> dict[str, float]:
    """Capacity (harmonic mean), radius and dimensions (arithmetic means) over the rows, one per manifold."""
    means = {name: float(table[name].mean()) for name in MEASURES[1:]}
    return {"capacity": _reciprocal(_inverse(table).mean())} | means


def stderr_over_manifolds(table: pd.DataFrame) -> dict[str, float]:
    """Spread over manifolds by the square root of their number; capacity through 1/alpha (delta method). Two manifolds
    have no error that is known: their centres are mirror images."""
    if len(table) < 3:
        return dict.fromkeys(MEASURES, np.nan)
    errors = {name: float(table[name].sem()) for name in MEASURES[1:]}
    inverse = _inverse(table)
    return {"capacity": _error_of_reciprocal(inverse.mean(), inverse.sem())} | errors


def stderr_over_draws(table: pd.DataFrame) -> dict[str, float]:
    """Error of the Gaussian draws, which are independent for different manifolds: errors add in squares."""

    def of_mean(errors: pd.Series) -> float:
        return float(np.sqrt(np.square(errors).sum()) / len(errors)) if len(errors) else np.nan

    inverse = _inverse(table)
    errors = {name: of_mean(table[f"{name}_stderr"]) for name in MEASURES[1:]}
    return {"capacity": _error_of_reciprocal(inverse.mean(), of_mean(table["capacity_stderr"] * inverse**2))} | errors


def linear(table: pd.DataFrame) -> Float[np.ndarray, "manifolds measures"]:
    """The measures whose aggregates are means over manifolds: 1/alpha in the place of capacity."""
    return np.column_stack([_inverse(table), *(table[name].astype(float) for name in MEASURES[1:])])


def jackknife_stderr(
    values: Float[np.ndarray, "manifolds measures"],
    moved: Float[np.ndarray, "2 groups measures"],
    groups: Sequence[Sequence[int]],
) -> dict[str, float]:
    """Standard errors of the means of ``values``. Without a group those of the others are ``moved`` on average, by either
    half of the draws; capacity through 1/alpha. Zero where the halves agree on no error."""
    mean = values.mean(axis=0)
    h = len(values) / np.array([len(group) for group in groups])[:, None]
    own = np.stack([values[list(group)].mean(axis=0) for group in groups])
    pseudo = own - (h - 1) * moved
    first, second = pseudo - (pseudo / h).sum(axis=1, keepdims=True)
    squares = (first * second / (h - 1)).mean(axis=0)
    errors = dict(zip(MEASURES, np.sqrt(np.maximum(squares, 0.0)).tolist(), strict=True))
    return errors | {"capacity": _error_of_reciprocal(mean[0], errors["capacity"])}


def _inverse(table: pd.DataFrame) -> pd.Series:
    return 1.0 / table["capacity"].astype(float)


def _reciprocal(x: float) -> float:
    return float(1.0 / x) if x else np.inf


def _error_of_reciprocal(x: float, error: float) -> float:
    """Delta method: the error of 1/x is that of x over x squared."""
    return float(error / x**2) if x else np.nan

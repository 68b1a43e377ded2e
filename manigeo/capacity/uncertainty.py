r"""Aggregates over manifolds and their standard errors: over draws, over manifolds, and by the jackknife.

Capacity is averaged harmonically, the rest arithmetically. Manifolds that are seen around one mean, in one metric, are not
independent: the spread over manifolds by the square root of their number misses what they have in common. The jackknife
leaves out one group after the other, of :math:`m_j` manifolds of P, with mean and metric made anew,

.. math:: \tilde\theta_j = h_j \hat\theta - (h_j - 1)\, \hat\theta_{-j}, \quad h_j = P / m_j, \qquad
          \mathrm{se}^2 = \frac1g \sum_{j=1}^{g} \frac{(\tilde\theta_j - \hat\theta_J)^2}{h_j - 1}, \qquad
          \hat\theta_J = g\,\hat\theta - \sum_j (1 - 1/h_j)\, \hat\theta_{-j} .

Busing, Meijer & van der Leeden (1999), Statistics and Computing 9, 3.

Neither is right everywhere: of rectified features the spread over manifolds is a third too small; where radii differ much,
few manifolds compete for the same dimensions, and it is up to a third too large and the jackknife, in which the forms do not
answer, a quarter too small. The larger of the two is taken.
"""

from collections.abc import Mapping, Sequence

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


def with_other_draws(
    errors: Mapping[str, float], drawn: Mapping[str, float], others: Mapping[str, float]
) -> dict[str, float]:
    """Standard errors over manifolds as they would be with other draws: the error of those that were drawn is taken off, in
    squares, and that of the ``others`` put in its place; it is the least that remains.

    >>> with_other_draws({"radius": 0.5}, {"radius": 0.4}, {"radius": 0.4})
    {'radius': 0.5}
    """
    return {
        name: float(np.sqrt(np.maximum(error**2 - drawn[name] ** 2, 0.0) + others[name] ** 2))
        for name, error in errors.items()
    }


def jackknife_stderr(
    whole: Mapping[str, float], left_out: Sequence[Mapping[str, float]], sizes: Sequence[int]
) -> dict[str, float]:
    """Standard errors of aggregates from those without each group, of ``sizes`` manifolds; capacity through 1/alpha."""
    P, inverse = sum(sizes), 1 / whole["capacity"]
    estimates = _linear(whole), np.array([_linear(aggregate) for aggregate in left_out])
    errors = dict(zip(MEASURES, _delete_groups(*estimates, P / np.array(sizes)), strict=True))
    return errors | {"capacity": _error_of_reciprocal(inverse, errors["capacity"])}


def _linear(aggregate: Mapping[str, float]) -> Float[np.ndarray, " measures"]:
    """The aggregates that are means over manifolds: 1/alpha in the place of capacity."""
    return np.array([_reciprocal(aggregate["capacity"]), *(aggregate[name] for name in MEASURES[1:])])


def _delete_groups(
    whole: Float[np.ndarray, " measures"],
    left_out: Float[np.ndarray, "groups measures"],
    h: Float[np.ndarray, " groups"],
) -> Float[np.ndarray, " measures"]:
    """The equations of the module."""
    h = h[:, None]
    pseudo = h * whole - (h - 1) * left_out
    center = len(h) * whole - ((1 - 1 / h) * left_out).sum(axis=0)
    return np.sqrt((np.square(pseudo - center) / (h - 1)).mean(axis=0))


def _inverse(table: pd.DataFrame) -> pd.Series:
    return 1.0 / table["capacity"].astype(float)


def _reciprocal(x: float) -> float:
    return float(1.0 / x) if x else np.inf


def _error_of_reciprocal(x: float, error: float) -> float:
    """Delta method: the error of 1/x is that of x over x squared."""
    return float(error / x**2) if x else np.nan

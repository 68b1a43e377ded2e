r"""Measures of GLUE, from anchors drawn again and again: of all manifolds and of each (Chou et al. 2024).

"Geometry linked to untangling efficiency". A draw t has the anchors :math:`S`, a row for each of P manifolds (zero
where it has no mass). With their mean :math:`S_0` over draws, and :math:`S_1 = S - S_0`:

.. math::
    a = (St)^\top (SS^\top)^+ (St), \quad
    b = (S_1t)^\top (S_1S_1^\top)^+ (S_1t), \quad
    c = (S_1t)^\top (S_1S_1^\top + S_0S_0^\top)^+ (S_1t),

.. math:: D = \frac{\mathrm{E}b}{P}, \quad R = \sqrt{\frac{\mathrm{E}c}{\mathrm{E}(b - c)}}, \quad
          U = \frac{\mathrm{E}c}{\mathrm{E}a}, \qquad \alpha = \frac{U\,(1 + R^{-2})}{D} .
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from manigeo.capacity.centers import mean_off_diagonal
from manigeo.manifolds import standard_error

_PINV_RTOL = 1e-10  # of anchors with rms one; rounding leaves 1e-16 times their number


class Pairs(NamedTuple):
    r"""Quantities that pairs of manifolds share, (P, P) each.

    ``load``: mean of :math:`y_\mu m_\mu s_\mu \cdot y_\nu m_\nu s_\nu`, whose sum is :math:`P/\alpha`; positive where two
    manifolds hinder each other. ``center``: \|cos\| of the mean anchors; ``axis``: mean \|cos\| of the anchors around
    their means; ``center_axis``: of the mean anchor of the row and the other's around its mean.
    """

    load: np.ndarray
    center: np.ndarray
    axis: np.ndarray
    center_axis: np.ndarray


class MeanAnchors(NamedTuple):
    """S_0, the anchors' root mean squares (they set what counts as zero), and over how many draws."""

    mean: np.ndarray
    rms: np.ndarray
    n_draws: int


class Draws(NamedTuple):
    """Quantities of each draw, one row per draw: a, b, c; each manifold's share of the squared projection; whether it
    has mass; mean alignments, that of centres with this draw left out."""

    abc: np.ndarray
    load: np.ndarray
    anchored: np.ndarray
    alignment: np.ndarray


def measure_draw(
    anchors: MeanAnchors,
    S: Float[np.ndarray, "manifolds rank"],
    weights: Float[np.ndarray, " manifolds"],
    t: Float[np.ndarray, " rank"],
) -> tuple[Draws, Pairs]:
    """Measure a draw ``t`` with the anchors ``S``: its row, and its pairs.

    ``weights`` are the anchors' masses with the signs of the labels; weights @ S is the projection of t.
    """
    S0 = anchors.mean
    S1 = S - S0
    parts = weights[:, None] * S  # of the projection, one for each manifold
    pairs = Pairs(parts @ parts.T, _cosines(S0, S0), _cosines(S1, S1), _cosines(S0, S1))
    without = (anchors.n_draws * S0 - S) / (anchors.n_draws - 1)
    alignment = [mean_off_diagonal(C) for C in (_cosines(without, without), pairs.axis, pairs.center_axis)]
    rms = anchors.rms[:, None]
    abc = _abc(S / rms, S0 / rms, S1 / rms, t)
    return Draws(abc, parts @ t, weights != 0, np.array(alignment)), pairs


def _abc(
    S: Float[np.ndarray, "manifolds rank"],
    S0: Float[np.ndarray, "manifolds rank"],
    S1: Float[np.ndarray, "manifolds rank"],
    t: Float[np.ndarray, " rank"],
) -> Float[np.ndarray, " 3"]:
    G1 = S1 @ S1.T
    return np.array([_norm_by(S @ S.T, S @ t), _norm_by(G1, S1 @ t), _norm_by(G1 + S0 @ S0.T, S1 @ t)])


def _norm_by(G: Float[np.ndarray, "n n"], x: Float[np.ndarray, " n"]) -> float:
    """x' G^+ x, of eigenvalues above rounding; where all are, which a Cholesky factor shows, by solving."""
    there = G.diagonal() > 0  # a manifold without mass has a row of zeros
    G, x = G[np.ix_(there, there)], x[there]
    try:
        np.linalg.cholesky(G - _PINV_RTOL * np.eye(len(G)))
        return float(x @ np.linalg.solve(G, x))
    except np.linalg.LinAlgError:
        pass
    eigenvalues, U = np.linalg.eigh(G)
    keep = eigenvalues > _PINV_RTOL
    return float(np.square(U[:, keep].T @ x) @ (1 / eigenvalues[keep]))


def _cosines(A: Float[np.ndarray, "n rank"], B: Float[np.ndarray, "n rank"]) -> Float[np.ndarray, "n n"]:
    """|cos| between rows; zero where a row vanishes."""
    norms = np.outer(np.linalg.norm(A, axis=1), np.linalg.norm(B, axis=1))
    return np.abs(np.divide(A @ B.T, norms, out=np.zeros_like(norms), where=norms > 0))


def glue_measures(draws: Draws) -> dict[str, tuple[float, float]]:
    """Capacity, dimension, radius and utility of all draws, each with its error (jackknife)."""
    (a, b, c), P = draws.abc.T, draws.load.shape[1]
    return {
        "capacity": _estimate(lambda squared: P / squared, draws.load.sum(axis=1)),
        "dimension": _estimate(lambda b: b / P, b),
        "radius": _estimate(lambda c, rest: np.sqrt(c / rest), c, np.maximum(b - c, 0.0)),
        "utility": _estimate(lambda c, a: c / a, c, a),
    }


def _estimate(f: Callable[..., np.ndarray], *samples: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    """f of the samples' means, and its jackknife error: the spread of f over means that leave one draw out."""
    n, means = len(samples[0]), [x.mean() for x in samples]
    with np.errstate(all="ignore"):  # a mean of zero gives inf or NaN
        left_out = f(*((n * mean - x) / (n - 1) for mean, x in zip(means, samples, strict=True)))
        return float(f(*means)), float(np.sqrt((n - 1) * np.var(left_out)))


def alignments(draws: Draws, pairs: Pairs) -> dict[str, tuple[float, float]]:
    """Means of :class:`Pairs` over different manifolds, each with its error: of centres by the jackknife, since their mean
    is taken first; of the others by their spread over draws."""
    n, variance = len(draws.alignment), draws.alignment.var(axis=0)
    errors = np.sqrt(variance * [n - 1, 1 / (n - 1), 1 / (n - 1)])
    means = {"center": pairs.center, "axis": pairs.axis, "center_axis": pairs.center_axis}
    return {
        f"{name}_alignment": (mean_off_diagonal(mean), float(error))
        for (name, mean), error in zip(means.items(), errors, strict=True)
    }


def identity_residual(measures: dict[str, tuple[float, float]]) -> float:
    """Relative difference of :math:`U (1 + R^{-2}) / D` from the capacity."""
    capacity, dimension, radius, utility = (measures[m][0] for m in ("capacity", "dimension", "radius", "utility"))
    with np.errstate(all="ignore"):  # a radius of zero gives inf or NaN
        return float(abs(utility * (1 + np.float64(radius) ** -2) / dimension / capacity - 1))


def per_class(draws: Draws, anchors: MeanAnchors) -> pd.DataFrame:
    """Tabulate each manifold: its part of 1/capacity and its capacity with errors, share of draws with mass, radius."""
    inverse, inverse_stderr = draws.load.mean(axis=0), standard_error(draws.load)
    anchored = draws.anchored.mean(axis=0)
    with np.errstate(all="ignore"):  # a manifold that no draw needs has infinite capacity and no radius
        # from means over draws to means over draws with mass
        squared_norm, squared_center = anchors.rms**2 / anchored, np.square(anchors.mean).sum(axis=1) / anchored**2
        return pd.DataFrame(
            {
                "inverse_capacity": inverse,
                "inverse_capacity_stderr": inverse_stderr,
                "capacity": 1 / inverse,
                "capacity_stderr": inverse_stderr / inverse**2,
                "anchored": anchored,
                "radius": np.sqrt(np.maximum(squared_norm - squared_center, 0.0) / squared_center),
            }
        )

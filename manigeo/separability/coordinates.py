r"""Points of more features than there are points, in as many coordinates as points: everything here is of inner products.

.. math:: X X^\top = L L^\top

so that the rows of L have the inner products, and the distances, of the rows of X. Layers that stay in their file are read
a few manifolds at a time: once for means and deviations, then blocks of rows against all that follow them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cholesky, solve_triangular

_PANEL_BYTES = 192 << 20  # of rows that are held while the others pass by,
_ROWS_AT_ONCE = 150  # so many at a time
# Added to the diagonal, of its mean, as many times tenfold as it takes: centred points, and duplicates, have a singular
# Gram matrix, and float32 makes small eigenvalues negative.
_JITTER = 1e-7
CONSTANT_ULPS = 16  # a feature's deviation, in roundings of its mean, up to which it is constant


@dataclass(frozen=True)
class Moments:
    """Over all points: ``mean`` and ``deviation`` (features,), 0 for the ``n_constant`` that do not vary; ``sizes`` of the
    manifolds."""

    mean: Float[np.ndarray, " features"]
    deviation: Float[np.ndarray, " features"]
    n_constant: int
    sizes: tuple[int, ...]


def pooled_moments(manifolds: Sequence[np.ndarray]) -> Moments:
    """Pool the points of all manifolds, each read once: means and squares around the first manifold's, in float64."""
    origin = manifolds[0].mean(axis=0, dtype=np.float64)
    total, squares, sizes = np.zeros(len(origin)), np.zeros(len(origin)), []
    for X in manifolds:
        centered = X - origin.astype(X.dtype)
        total += centered.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", centered, centered, dtype=np.float64)
        sizes.append(len(X))
    shift = total / sum(sizes)
    deviation = np.sqrt(np.maximum(squares / sum(sizes) - shift**2, 0.0))
    mean = origin.astype(X.dtype) + shift
    deviation[deviation <= CONSTANT_ULPS * np.finfo(X.dtype).eps * np.abs(mean)] = 0.0
    return Moments(mean, deviation, int(np.count_nonzero(deviation == 0)), tuple(sizes))


def standardising(pooled: Moments) -> Float[np.ndarray, " features"]:
    """The factor of each feature after which points have length one in the mean; 0 where it is constant."""
    factor = np.divide(1.0, pooled.deviation, out=np.zeros_like(pooled.mean), where=pooled.deviation > 0)
    return factor / np.sqrt(max(len(factor) - pooled.n_constant, 1))


def pooled_grams(
    manifolds: Sequence[np.ndarray], pooled: Moments, factors: Sequence[np.ndarray | None]
) -> list[Float[np.ndarray, "points points"]]:
    """Inner products of all points around their mean, with features multiplied by each of the ``factors`` (None: as they
    are); float32.

    Rows are held in panels, and each panel meets itself and all rows that follow, some manifolds at a time.
    """
    starts = np.concatenate([[0], np.cumsum(pooled.sizes)])
    weights = [None if factor is None else np.square(factor).astype(np.float32) for factor in factors]
    grams = [np.empty((starts[-1], starts[-1]), dtype=np.float32) for _ in factors]
    for members in _groups(starts, 0, _PANEL_BYTES // (4 * len(pooled.mean))):
        held = _gathered(manifolds, members, pooled)
        rows = slice(starts[members[0]], starts[members[-1] + 1])
        for others in _groups(starts, members[0], _ROWS_AT_ONCE):
            inside = others[-1] <= members[-1]
            columns = slice(starts[others[0]], starts[others[-1] + 1])
            other = (
                held[columns.start - rows.start : columns.stop - rows.start]
                if inside
                else _gathered(manifolds, others, pooled)
            )
            for gram, weight in zip(grams, weights, strict=True):
                block = held @ (other if weight is None else other * weight).T
                gram[rows, columns], gram[columns, rows] = block, block.T
    return grams


def _groups(starts: np.ndarray, first: int, most: int) -> list[range]:
    """Consecutive manifolds from the ``first`` on, of ``most`` points together, or one."""
    groups: list[range] = []
    for mu in range(first, len(starts) - 1):
        if groups and starts[mu + 1] - starts[groups[-1].start] <= most:
            groups[-1] = range(groups[-1].start, mu + 1)
        else:
            groups.append(range(mu, mu + 1))
    return groups


def _gathered(manifolds: Sequence[np.ndarray], members: range, pooled: Moments) -> Float[np.ndarray, "points features"]:
    """Points of these manifolds around the mean, one below the other."""
    out = np.empty((sum(pooled.sizes[mu] for mu in members), len(pooled.mean)), dtype=np.float32)
    start = 0
    for mu in members:
        stop = start + pooled.sizes[mu]
        np.subtract(manifolds[mu], pooled.mean, out=out[start:stop], casting="same_kind")
        start = stop
    return out


def gram_factor(gram: Float[np.ndarray, "points points"]) -> Float[np.ndarray, "points points"]:
    """Points with these inner products, to float32's accuracy: the rows of a lower triangular matrix, of the Gram's type.

    >>> L = gram_factor(np.array([[4.0, 2.0], [2.0, 2.0]]))
    >>> (L @ L.T).round(5).tolist()
    [[4.0, 2.0], [2.0, 2.0]]
    """
    size = float(np.mean(np.diag(gram))) or 1.0
    jitter = _JITTER
    while True:
        shifted = gram.astype(np.float64)
        shifted[np.diag_indices(len(gram))] += jitter * size
        try:
            return cholesky(shifted, lower=True, overwrite_a=True, check_finite=False).astype(gram.dtype)
        except LinAlgError:
            jitter *= 10


def weights_in_features(
    manifolds: Sequence[np.ndarray],
    pooled: Moments,
    factor: Float[np.ndarray, "points points"],
    weights: Float[np.ndarray, "points outputs"],
) -> tuple[Float[np.ndarray, "features outputs"], Float[np.ndarray, " outputs"]]:
    r"""A linear function on standardised points in coordinates, as one of features: weights, and what to add.

    .. math:: L v = Z w, \quad w = Z^\top L^{-\top} v
    """
    scale = standardising(pooled).astype(np.float32)
    combination = solve_triangular(factor, weights, lower=True, trans=1, check_finite=False).astype(np.float32)
    out = np.zeros((len(scale), weights.shape[1]), dtype=np.float32)
    start = 0
    for mu, size in enumerate(pooled.sizes):
        points = _gathered(manifolds, range(mu, mu + 1), pooled)
        out += (points * scale).T @ combination[start : start + size]
        start += size
    out *= scale[:, None]
    return out, -(pooled.mean.astype(np.float32) @ out).astype(np.float64)

r"""The points of all manifolds in few coordinates: the principal directions of their numerical span, and what lies outside.

Directions in which there is nothing but rounding are no room for manifolds, however many features a layer has. A principal
direction of the pooled points Z, the mean of all removed, belongs to their span where

.. math:: \lambda_k > \max\Big(10^{-12} \lambda_1,\; \epsilon^2 \big(\max_i |x_i| + \max_j |x^j|\big)^2\Big),

:math:`\lambda_k` being the eigenvalues of :math:`Z^\top Z`. The first limit is that of sums in float64. The second bounds
the matrix of independent roundings of relative size :math:`\epsilon` by the largest row :math:`x_i` and the largest column
:math:`x^j` of the data as given (Bandeira & van Handel 2016, Ann. Probab. 44, 2479).

Of up to 512 features, or 1024 points, all directions of the span are kept, so that nothing depends on the number of
features that the span lies in. Of more points in more features the leading principal directions are found in the sketch of
:mod:`manigeo.capacity.pooled`. Where it shows no end of the span, Gram matrices are kept of the rest, and a spectrum: the
power law that continues the last of the leading variances and has the right sum,

.. math:: \tau_k = \tau_d\, (k/d)^{-\gamma}, \qquad \sum_{k>d} \tau_k = \text{variance outside the leading directions}.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.linalg import block_diag

from manigeo.capacity.pooled import ALL_DIRECTIONS, Moments, around_centers
from manigeo.capacity.roots import root_between
from manigeo.capacity.stacks import in_stacks
from manigeo.manifolds import Clouds

# On layers of 512 features, 256 leading directions moved capacities by 2 % (5 % with 100 manifolds), and with all of them
# a layer of 100 x 25 points takes a third of a second.
ALL_POINTS = 1024
LEADING_DIRECTIONS = 256
_HELD_BYTES = 256 << 20  # of points in float64; more of them are held in float32
_FEATURES_AT_ONCE = 4096
_SPAN_RTOL = 1e-12  # of the largest variance: 1e-16 of a sum, with room for thousands of terms
_SHOWN = 0.9  # a span that ends before so large a share of the sketch's rows is seen whole
_UNSEEN = 3  # times the points: so many directions stand for those of which the sketch shows no end


@dataclass(frozen=True)
class PooledPoints:
    """Points of each manifold around its centre, and the centre as one row more, the mean of all points removed and their
    mean squared length one: ``coordinates`` (points + 1, d) along the principal directions of their span, and the Gram
    matrix ``rest`` (points + 1, points + 1) of what lies outside these; ``tail`` is the spectrum of the rest, empty where
    the directions are all that is above rounding. ``center_gram`` (manifolds, manifolds) has the inner products of whole
    centres."""

    coordinates: Sequence[np.ndarray]
    rest: Sequence[np.ndarray]
    tail: Float[np.ndarray, " outside"]
    center_gram: Float[np.ndarray, "manifolds manifolds"]

    @cached_property
    def rows(self) -> Float[np.ndarray, "rows leading"]:
        """The coordinates of all manifolds, one after the other."""
        return np.concatenate(self.coordinates)

    @property
    def variances(self) -> Float[np.ndarray, " leading"]:
        """Sums of squares of the points' coordinates, the mean of all removed."""
        squared_centers = np.square([F[-1] for F in self.coordinates])
        more = np.array(self.sizes) - 1  # than the one that is among the rows
        return np.einsum("ij,ij->j", self.rows, self.rows) + more @ squared_centers

    @property
    def sizes(self) -> list[int]:
        """The number of points of each manifold."""
        return [len(F) - 1 for F in self.coordinates]

    @property
    def rank(self) -> int:
        """The number of dimensions that the points span, the mean of all removed."""
        n_points = sum(self.sizes)
        return max(1, min(self.coordinates[0].shape[1] + len(self.tail), n_points - 1))


def pooled_points(manifolds: Clouds, pooled: Moments) -> PooledPoints:
    """The manifolds in the directions of their span; one more pass over them, two where a sketch is needed."""
    variance = pooled.variance / sum(pooled.sizes) or 1.0
    center_gram = pooled.centers @ pooled.centers.T / variance
    if pooled.centers.shape[1] <= ALL_DIRECTIONS:
        coordinates, rounding = _by_features(manifolds, pooled, np.sqrt(variance))
    elif sum(pooled.sizes) <= ALL_POINTS:
        coordinates, rounding = _by_points(manifolds, pooled, np.sqrt(variance))
    else:
        return _by_sketch(manifolds, pooled, variance, center_gram)
    inside = [F[:-1] @ F[:-1].T for F in coordinates]
    rest = in_stacks(lambda gram, held: _outside(gram / variance, held, rounding), pooled.grams, inside)
    return PooledPoints(coordinates, rest, np.zeros(0), center_gram)


def _by_features(manifolds: Clouds, pooled: Moments, unit: float) -> tuple[list[np.ndarray], float]:
    """Coordinates from the scatter matrix of the features, and the rounding of the data."""
    rows = [np.vstack([Y, c]) / unit for Y, c in zip(around_centers(manifolds, pooled), pooled.centers, strict=True)]
    points = np.concatenate([F[:-1] + F[-1] for F in rows])
    rounding = _rounding([points], pooled, unit)
    variances, axes = np.linalg.eigh(points.T @ points)
    inside = variances > _limit(variances[-1], rounding)
    along = np.split(np.concatenate(rows) @ axes[:, inside], np.cumsum([len(F) for F in rows])[:-1])
    return along, rounding


def _by_points(manifolds: Clouds, pooled: Moments, unit: float) -> tuple[list[np.ndarray], float]:
    """Coordinates from the Gram matrix of the points around their centres and of the centres, and the rounding of the
    data. Points around the centre of a small manifold keep their digits."""
    P, N = pooled.centers.shape
    n, owner = sum(pooled.sizes), np.repeat(np.arange(P), pooled.sizes)
    rows = np.empty((n + P, N), dtype=np.float64 if 8 * (n + P) * N <= _HELD_BYTES else np.float32)
    around, centers = rows[:n], rows[n:]
    for mu, Y in enumerate(around_centers(manifolds, pooled)):
        around[owner == mu] = Y / unit
    centers[:] = pooled.centers / unit
    gram = _gram(rows)
    with_points = gram[:, :n] + gram[:, n + owner]  # inner products of all rows with the points from the mean of all
    variances, U = np.linalg.eigh(with_points[:n] + with_points[n + owner])
    rounding = _rounding((around[owner == mu] + c for mu, c in enumerate(centers)), pooled, unit)
    inside = variances > _limit(variances[-1], rounding)
    coordinates = with_points @ (U[:, inside] / np.sqrt(variances[inside]))
    return [np.vstack([coordinates[:n][owner == mu], coordinates[n + mu]]) for mu in range(P)], rounding


def _outside(gram: np.ndarray, inside: np.ndarray, rounding: float) -> Float[np.ndarray, "stack rows rows"]:
    """Inner products of manifolds' points around their centres beyond those ``inside`` their coordinates: those of manifolds
    much smaller than the distances between them, and nothing where they are not above rounding."""
    around = gram - inside
    largest, whole = (np.trace(K, axis1=1, axis2=2) for K in (around, gram))
    around[largest <= np.maximum(gram.shape[1] * rounding**2, _SPAN_RTOL * whole)] = 0.0
    return np.pad(around, ((0, 0), (0, 1), (0, 1)))


def _limit(largest: float, rounding: float) -> float:
    """The variance above which a direction counts; see the module."""
    return max(_SPAN_RTOL * largest, rounding**2, np.finfo(float).tiny)


def _rounding(points: Iterable[np.ndarray], pooled: Moments, unit: float) -> float:
    """A bound on the norm of the roundings of the data, in ``unit``: that of independent ones, by the largest row and column
    of the data as given. Columns that are constant have no roundings that differ."""
    mean = pooled.mean / unit
    row, columns, spread = 0.0, np.zeros(len(mean)), np.zeros(len(mean))
    for Z in points:  # (z + m)^2 = z^2 + 2 z m + m^2, for sums over rows and columns
        squares = np.einsum("ij,ij->j", Z, Z)
        spread += squares
        columns += squares + mean * (2 * Z.sum(axis=0) + len(Z) * mean)
        row = max(row, float((np.einsum("ij,ij->i", Z, Z) + 2 * Z @ mean).max() + mean @ mean))
    varying = spread > np.finfo(float).eps * columns
    return pooled.rounding * float(np.sqrt(row) + np.sqrt(columns[varying].max(initial=0.0)))


def _by_sketch(manifolds: Clouds, pooled: Moments, variance: float, center_gram: np.ndarray) -> PooledPoints:
    unit, n = np.sqrt(variance), sum(pooled.sizes)
    Q, rank = _leading_directions(manifolds, pooled)
    centers = pooled.centers @ Q / unit
    offsets = [(Y.astype(Q.dtype) @ Q).astype(np.float64) / unit for Y in around_centers(manifolds, pooled)]
    inside = np.concatenate([Y + center for Y, center in zip(offsets, centers, strict=True)])
    variances, axes = np.linalg.eigh(inside.T @ inside)
    centers, offsets = centers @ axes, [Y @ axes for Y in offsets]
    coordinates = [np.vstack([along, center]) for along, center in zip(offsets, centers, strict=True)]
    rest = [
        block_diag(gram / variance - along @ along.T, max(whole - center @ center, 0.0))
        for gram, along, whole, center in zip(pooled.grams, offsets, center_gram.diagonal(), centers, strict=True)
    ]
    outside = min(rank, len(pooled.mean), _UNSEEN * n) - Q.shape[1]
    return PooledPoints(coordinates, rest, _tail(variances, n, outside), center_gram)


def _leading_directions(manifolds: Clouds, pooled: Moments) -> tuple[Float[np.ndarray, "features leading"], int]:
    """The directions of most variance in the sketch, and the number of directions there are as far as it shows: all of them
    in float64 where their end is seen early; else the leading ones in float32, as accurate as they need be."""
    rows = _sketch_rows(pooled)
    variances, U = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    above = np.flatnonzero(variances > 1e-6 * variances[-1])[::-1]
    rank = len(pooled.mean)
    if len(above) < len(rows):  # they end, or float32 does
        exact, V = np.linalg.eigh(_gram(rows))
        inside = exact > _limit(exact[-1], _rounding_of_sketch(manifolds, pooled, rows))
        if inside.sum() < _SHOWN * len(rows):
            rank = int(inside.sum())
        if rank <= ALL_DIRECTIONS:
            Q = rows.T.astype(np.float64) @ (V[:, inside] / np.sqrt(exact[inside]))
            return np.linalg.qr(Q)[0], rank
    keep = above[:LEADING_DIRECTIONS]
    Q = rows.T @ (U[:, keep] / np.sqrt(variances[keep])).astype(np.float32)
    # orthonormal but for the rounding of small variances, which this takes away
    lengths, V = np.linalg.eigh((Q.T @ Q).astype(np.float64))
    return Q @ (V / np.sqrt(lengths)).astype(np.float32), rank


def _sketch_rows(pooled: Moments) -> Float[np.ndarray, "rows features"]:
    """The centres, each with the weight of its points, and the sums."""
    centers = (np.sqrt(np.array(pooled.sizes))[:, None] * pooled.centers).astype(np.float32)
    return np.concatenate([centers, pooled.sketch.reshape(-1, len(pooled.mean))])


def _gram(rows: np.ndarray) -> Float[np.ndarray, "rows rows"]:
    """Inner products in float64, a block of columns at a time."""
    gram = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], _FEATURES_AT_ONCE):
        block = rows[:, start : start + _FEATURES_AT_ONCE].astype(np.float64)
        gram += block @ block.T
    return gram


def _rounding_of_sketch(manifolds: Clouds, pooled: Moments, rows: np.ndarray) -> float:
    """Rounding of the data or that of rows in float32, whichever is larger."""
    squares = np.square(rows)
    own = np.finfo(np.float32).eps * (np.sqrt(squares.sum(axis=1).max()) + np.sqrt(squares.sum(axis=0).max()))
    points = (Y + c for Y, c in zip(around_centers(manifolds, pooled), pooled.centers, strict=True))
    return max(_rounding(points, pooled, 1.0), float(own))


def _tail(variances: Float[np.ndarray, " leading"], n: int, outside: int) -> Float[np.ndarray, " outside"]:
    """The power law of the module's equation over ``outside`` directions beyond those of these ``variances``, for ``n``
    points whose mean squared length is one; flat where even a flat one has too small a sum."""
    d, total, last = len(variances), n - float(variances.sum()), float(variances[0])
    if outside <= 0 or total <= 1e-9 * n:
        return np.zeros(0)
    k = np.arange(d + 1, d + outside + 1) / d
    steepest = 30.0

    def excess(gamma: float) -> float:
        return last * float(np.power(k, -gamma).sum()) - total

    if excess(0.0) <= 0:
        return np.full(outside, total / outside)
    gamma = steepest if excess(steepest) >= 0 else root_between(excess, 0.0, steepest)
    tail = last * np.power(k, -gamma)
    return tail * (total / tail.sum())

r"""The points of all manifolds in few coordinates: inner products in blocks, leading principal directions, and the rest.

Up to 512 features are kept as they are. Of more, the leading principal directions of the pooled points are found in a
sketch: the centres and random-sign sums of each manifold's points around its centre, rows whose covariance has that of
all points as its mean (Halko, Martinsson & Tropp 2011). Of the rest, Gram matrices are kept, and a spectrum: the
power law that continues the last of the leading variances and has the right sum,

.. math:: \tau_k = \tau_d\, (k/d)^{-\gamma}, \qquad \sum_{k>d} \tau_k = \text{variance outside the leading directions}.

A pass over the manifolds holds one of them in memory at a time, in float64.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

# All directions up to here; leading ones beyond. On layers of 512 features, 256 leading ones moved capacities by 2 %
# (5 % with 100 manifolds), and with all of them a layer of 100 x 25 points takes half a second instead of a quarter.
ALL_DIRECTIONS = 512
LEADING_DIRECTIONS = 256
_SKETCH_ROWS = 700
_SKETCH_BYTES = 128 << 20  # fewer rows for very wide layers
# The pooled points of unstructured data fill all features; a spectrum this flat bends no direction more than another.
_FLAT = 0.9


@dataclass(frozen=True)
class Moments:
    """One pass over the manifolds: what all analyses of their geometry start from.

    ``mean`` (features,) of all samples; ``centers`` (manifolds, features) with it removed; ``grams`` of each manifold's
    points around its own centre; ``mean_squares`` (manifolds,), the mean squared length of a manifold's points as given;
    ``sketch``: of each, a few random-sign sums (rows, features) of its points around its centre.
    """

    mean: Float[np.ndarray, " features"]
    centers: Float[np.ndarray, "manifolds features"]
    grams: Sequence[np.ndarray]
    mean_squares: Float[np.ndarray, " manifolds"]
    sketch: Sequence[np.ndarray]
    sizes: tuple[int, ...]

    @property
    def variance(self) -> float:
        """Summed squared length of all points, the mean of all removed."""
        around_centers = sum(float(np.trace(gram)) for gram in self.grams)
        return around_centers + float(np.square(self.centers).sum(axis=1) @ np.array(self.sizes))


@dataclass(frozen=True)
class PooledPoints:
    """Points of each manifold, the mean of all removed, scaled to mean squared length one: ``coordinates`` (points, d),
    and of what lies outside those directions the Gram matrix ``rest`` (points, points); ``tail`` is the spectrum of the
    rest, empty without one. ``center_gram`` (manifolds, manifolds) has the inner products of whole centres,
    of ``n_features``."""

    coordinates: Sequence[np.ndarray]
    rest: Sequence[np.ndarray]
    tail: Float[np.ndarray, " outside"]
    center_gram: Float[np.ndarray, "manifolds manifolds"]
    n_features: int


def moments(manifolds: Sequence[np.ndarray], rng: np.random.Generator) -> Moments:
    """First and second moments of every manifold, and a sketch of all, in one pass. Infinite and NaN entries stay so."""
    P, N = len(manifolds), manifolds[0].shape[1]
    per_manifold = _signed_sums(P, N)
    means, grams, mean_squares, sketch, sizes = np.empty((P, N)), [], np.empty(P), [], []
    for mu, X in enumerate(manifolds):
        points = X.astype(np.float64)
        means[mu] = points.mean(axis=0)
        points -= means[mu]
        grams.append(points @ points.T)
        mean_squares[mu] = np.trace(grams[-1]) / len(X) + means[mu] @ means[mu]
        signs = rng.choice([-1.0, 1.0], size=(min(per_manifold, len(X)), len(X)))
        sketch.append((signs @ points / np.sqrt(max(len(signs), 1))).astype(np.float32))
        sizes.append(len(X))
    mean = np.array(sizes) @ means / sum(sizes)
    return Moments(mean, means - mean, grams, mean_squares, sketch, tuple(sizes))


def _signed_sums(P: int, N: int) -> int:
    """How many a manifold, for the wanted number of rows in all, within the memory for them; none where all is kept."""
    if N <= ALL_DIRECTIONS:
        return 0
    return max(1, min(_SKETCH_ROWS, _SKETCH_BYTES // (4 * N)) // P)


def around_centers(manifolds: Sequence[np.ndarray], pooled: Moments) -> Iterator[np.ndarray]:
    """The points of each manifold around its own centre, in float64."""
    for X, center in zip(manifolds, pooled.centers, strict=True):
        yield X - (pooled.mean + center)


def is_flat(pooled: Moments) -> bool:
    r"""Whether centres, and points around them, each fill all features evenly, so that no direction is more shared.

    The effective number of dimensions :math:`\mathrm{E}[|x|^2]^2 / \mathrm{E}[(x \cdot x')^2]` of independent rows is the
    number of features when these are even. Layers without a sketch are too narrow to tell.
    """
    N = pooled.centers.shape[1]
    if N <= ALL_DIRECTIONS:
        return False
    # taking off their mean leaves every pair of P centres a cosine of -1/(P - 1)
    by_their_mean = 1 / max(len(pooled.centers) - 1, 1) ** 2
    return _overlap(pooled.centers) - by_their_mean < 1 / (_FLAT * N) and _overlap(
        np.stack([rows[0] for rows in pooled.sketch])
    ) < 1 / (_FLAT * N)


def _overlap(rows: np.ndarray) -> float:
    """One over the effective number of dimensions: mean squared inner product of pairs, relative to squared lengths."""
    gram = rows @ rows.T
    squares, n = float(np.diag(gram).mean()), len(rows)
    between = float(np.square(gram).sum()) - float(np.square(np.diag(gram)).sum())
    return between / (n * (n - 1)) / squares**2 if squares > 0 and n > 1 else 1.0


def pooled_points(manifolds: Sequence[np.ndarray], pooled: Moments) -> PooledPoints:
    """The manifolds in the leading principal directions of all their points; one more pass over them."""
    variance = pooled.variance / sum(pooled.sizes) or 1.0
    unit = np.sqrt(variance)
    center_gram = pooled.centers @ pooled.centers.T / variance
    if pooled.centers.shape[1] <= ALL_DIRECTIONS:
        coordinates = [(Y + c) / unit for Y, c in zip(around_centers(manifolds, pooled), pooled.centers, strict=True)]
        return PooledPoints(
            coordinates, [np.zeros_like(gram) for gram in pooled.grams], np.zeros(0), center_gram, len(pooled.mean)
        )
    Q = _leading_directions(pooled)
    centers = pooled.centers @ Q / unit
    offsets = [((Y / unit).astype(np.float32) @ Q).astype(np.float64) for Y in around_centers(manifolds, pooled)]
    rest = [
        gram / variance - along @ along.T + max(whole - center @ center, 0.0)
        for gram, along, whole, center in zip(pooled.grams, offsets, center_gram.diagonal(), centers, strict=True)
    ]
    coordinates = [along + center for along, center in zip(offsets, centers, strict=True)]
    return PooledPoints(coordinates, rest, _tail(coordinates, pooled), center_gram, len(pooled.mean))


def _leading_directions(pooled: Moments) -> Float[np.ndarray, "features leading"]:
    """Of the sketch and the centres, each centre with the weight of its points; in float32, as accurate as they need be."""
    weights = np.sqrt(np.array(pooled.sizes))[:, None]
    rows = np.concatenate([weights * pooled.centers, *pooled.sketch]).astype(np.float32)
    variance, U = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    keep = np.flatnonzero(variance > 1e-6 * variance[-1])[::-1][:LEADING_DIRECTIONS]
    Q = rows.T @ (U[:, keep] / np.sqrt(variance[keep])).astype(np.float32)
    return np.linalg.qr(Q)[0]


def _tail(coordinates: Sequence[np.ndarray], pooled: Moments) -> Float[np.ndarray, " outside"]:
    """The power law of the module's equation; flat where even a flat one has too small a sum."""
    inside = np.concatenate(coordinates)
    d, outside = inside.shape[1], pooled.centers.shape[1] - inside.shape[1]
    total = len(inside) - float(np.square(inside).sum())  # the mean squared length is one
    if total <= 1e-9 * len(inside):
        return np.zeros(0)
    last = np.linalg.eigvalsh(inside.T @ inside)[0]
    k = np.arange(d + 1, d + outside + 1) / d
    steepest = 30.0

    def excess(gamma: float) -> float:
        return last * float(np.power(k, -gamma).sum()) - total

    if excess(0.0) <= 0:
        return np.full(outside, total / outside)
    gamma = steepest if excess(steepest) >= 0 else brentq(excess, 0.0, steepest)
    tail = last * np.power(k, -gamma)
    return tail * (total / tail.sum())

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
from scipy.linalg import block_diag
from scipy.optimize import brentq

from manigeo.manifolds import binary_unit

# All directions up to here; leading ones beyond. On layers of 512 features, 256 leading ones moved capacities by 2 %
# (5 % with 100 manifolds), and with all of them a layer of 100 x 25 points takes half a second instead of a quarter.
ALL_DIRECTIONS = 512
LEADING_DIRECTIONS = 256
_SKETCH_ROWS = 700
_SKETCH_BYTES = 128 << 20  # fewer rows for very wide layers
# The pooled points of unstructured data fill all features; a spectrum this flat bends no direction more than another.
_FLAT = 0.9
_COARSE = 1e-6  # rounding that shows: float16's


@dataclass(frozen=True)
class Moments:
    """One pass over the manifolds: what all analyses of their geometry start from.

    ``mean`` (features,) of all samples; ``centers`` (manifolds, features) with it removed; ``grams`` of each manifold's
    points around its own centre; ``mean_squares`` (manifolds,), the mean squared length of a manifold's points as given;
    ``sketch`` (manifolds, rows, features), float32: a few random-sign sums of its points around its centre. All are in
    multiples of ``unit``, a power of two near the largest entry, so that squares neither overflow nor vanish.
    ``rounding`` is the relative one of the data's type.
    """

    mean: Float[np.ndarray, " features"]
    centers: Float[np.ndarray, "manifolds features"]
    grams: Sequence[np.ndarray]
    mean_squares: Float[np.ndarray, " manifolds"]
    sketch: Float[np.ndarray, "manifolds rows features"]
    sizes: tuple[int, ...]
    unit: float
    rounding: float

    @property
    def variance(self) -> float:
        """Summed squared length of all points, the mean of all removed."""
        around_centers = sum(float(np.trace(gram)) for gram in self.grams)
        return around_centers + float(np.square(self.centers).sum(axis=1) @ np.array(self.sizes))


@dataclass(frozen=True)
class PooledPoints:
    """Points of each manifold around its centre, and the centre as one row more, the mean of all points removed and their
    mean squared length one: ``coordinates`` (points + 1, d) in the leading directions, and the Gram matrix ``rest``
    (points + 1, points + 1) of what lies outside them; ``tail`` is the spectrum of the rest, empty without one.
    ``center_gram`` (manifolds, manifolds) has the inner products of whole centres, of ``n_features``."""

    coordinates: Sequence[np.ndarray]
    rest: Sequence[np.ndarray]
    tail: Float[np.ndarray, " outside"]
    center_gram: Float[np.ndarray, "manifolds manifolds"]
    n_features: int


def moments(manifolds: Sequence[np.ndarray], rng: np.random.Generator) -> Moments:
    """First and second moments of every manifold, and a sketch of all, in one pass. Infinite and NaN entries stay so."""
    P, N = len(manifolds), manifolds[0].shape[1]
    n_sums = _signed_sums(P, N)
    sketch = np.empty((P, n_sums, N), dtype=np.float32)
    means, grams, sizes, units = np.empty((P, N)), [], [], np.empty(P)
    for mu, X in enumerate(manifolds):
        units[mu] = binary_unit(X)
        points = np.divide(X, units[mu], dtype=np.float64)
        means[mu] = points.mean(axis=0)
        points -= means[mu]
        grams.append(points @ points.T)
        sketch[mu] = rng.choice([-1.0, 1.0], size=(n_sums, len(X))) @ points / np.sqrt(max(n_sums, 1))
        sizes.append(len(X))
    unit = units.max()
    scales = units / unit
    means *= scales[:, None]
    sketch *= scales[:, None, None].astype(np.float32)
    grams = [gram * s**2 for gram, s in zip(grams, scales, strict=True)]
    mean_squares = np.array([np.trace(gram) / len(gram) for gram in grams]) + np.square(means).sum(axis=1)
    mean = np.array(sizes) @ means / sum(sizes)
    means -= mean  # in place: of wide layers this is tens of megabytes
    rounding = float(np.finfo(X.dtype).eps) if X.dtype.kind == "f" else 0.0
    return Moments(mean, means, grams, mean_squares, sketch, tuple(sizes), float(unit), rounding)


def _signed_sums(P: int, N: int) -> int:
    """How many a manifold, for the wanted number of rows in all, within the memory for them; none where all is kept."""
    if N <= ALL_DIRECTIONS:
        return 0
    return max(1, min(_SKETCH_ROWS, _SKETCH_BYTES // (4 * N)) // P)


def around_centers(manifolds: Sequence[np.ndarray], pooled: Moments) -> Iterator[np.ndarray]:
    """The points of each manifold around its own centre, in float64 and in the units of the moments."""
    for X, center in zip(manifolds, pooled.centers, strict=True):
        points = np.divide(X, pooled.unit, dtype=np.float64)
        points -= pooled.mean + center
        yield points


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
    return _overlap(pooled.centers) - by_their_mean < 1 / (_FLAT * N) and _overlap(pooled.sketch[:, 0]) < 1 / (
        _FLAT * N
    )


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
        coordinates = [
            np.vstack([Y, c]) / unit for Y, c in zip(around_centers(manifolds, pooled), pooled.centers, strict=True)
        ]
        if pooled.rounding > _COARSE:
            coordinates = _above_rounding(coordinates, pooled.rounding)
        rest = [np.zeros((len(F), len(F))) for F in coordinates]
        return PooledPoints(coordinates, rest, np.zeros(0), center_gram, len(pooled.mean))
    Q = _leading_directions(pooled)
    centers = pooled.centers @ Q / unit
    offsets = [(Y.astype(np.float32) @ Q).astype(np.float64) / unit for Y in around_centers(manifolds, pooled)]
    rest = [
        block_diag(gram / variance - along @ along.T, max(whole - center @ center, 0.0))
        for gram, along, whole, center in zip(pooled.grams, offsets, center_gram.diagonal(), centers, strict=True)
    ]
    coordinates = [np.vstack([along, center]) for along, center in zip(offsets, centers, strict=True)]
    return PooledPoints(coordinates, rest, _tail(coordinates, pooled), center_gram, len(pooled.mean))


def _above_rounding(coordinates: Sequence[np.ndarray], rounding: float) -> list[np.ndarray]:
    """Without the directions of which the rounding of float16 is all that there is: empty ones, such as dead units leave,
    would count as room for the manifolds."""
    points = np.concatenate([F[:-1] + F[-1] for F in coordinates])
    variance, Q = np.linalg.eigh(points.T @ points)
    Q = Q[:, variance > rounding**2 * variance[-1]]
    return [F @ Q for F in coordinates]


def _leading_directions(pooled: Moments) -> Float[np.ndarray, "features leading"]:
    """Of the sketch and the centres, each centre with the weight of its points; in float32, as accurate as they need be."""
    P, N = pooled.centers.shape
    centers = (np.sqrt(np.array(pooled.sizes))[:, None] * pooled.centers).astype(np.float32)
    sums = pooled.sketch.reshape(-1, N)
    across = centers @ sums.T
    variance, U = np.linalg.eigh(
        np.block([[centers @ centers.T, across], [across.T, sums @ sums.T]]).astype(np.float64)
    )
    keep = np.flatnonzero(variance > 1e-6 * variance[-1])[::-1][:LEADING_DIRECTIONS]
    mix = (U[:, keep] / np.sqrt(variance[keep])).astype(np.float32)
    Q = centers.T @ mix[:P] + sums.T @ mix[P:]
    # orthonormal but for the rounding of small variances, which this takes away
    lengths, V = np.linalg.eigh((Q.T @ Q).astype(np.float64))
    return Q @ (V / np.sqrt(lengths)).astype(np.float32)


def _tail(coordinates: Sequence[np.ndarray], pooled: Moments) -> Float[np.ndarray, " outside"]:
    """The power law of the module's equation; flat where even a flat one has too small a sum."""
    inside = np.concatenate([F[:-1] + F[-1] for F in coordinates])
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

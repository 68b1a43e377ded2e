r"""First and second moments of the points of all manifolds, in one pass: what analyses of their geometry start from.

A pass over the manifolds holds one of them in memory at a time, in float64. Of layers with more than 512 features a sketch
is kept: random-sign sums of each manifold's points around its centre, rows whose covariance has that of all points as its
mean (Halko, Martinsson & Tropp 2011). It shows whether the pooled points are flat, and their leading directions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from manigeo.manifolds import Clouds, binary_unit

ALL_DIRECTIONS = 512  # of so many features no sketch is needed
_SKETCH_ROWS = 700
_SKETCH_BYTES = 128 << 20  # fewer rows for very wide layers
# The pooled points of unstructured data fill all directions evenly; a spectrum this flat bends none more than another.
_FLAT = 0.9
_FEWEST = 10  # rows: of fewer, inner products are too few for their moments
_CHANCE = 4.0  # standard errors that a third moment of inner products may have by chance
_ROOM = 0.8  # of the effective directions: less than this is wanted by points without structure


@dataclass(frozen=True)
class Moments:
    """One pass over the manifolds: what all analyses of their geometry start from.

    ``mean`` (features,) of all samples; ``centers`` (manifolds, features) with it removed; ``grams`` of each manifold's
    points around its own centre; ``mean_squares`` (manifolds,), the mean squared length of a manifold's points as given;
    ``sketch`` (manifolds, rows, features), float32: a few random-sign sums of its points around its centre. All are in
    multiples of ``unit``, a power of two near the largest entry, so that squares neither overflow nor vanish.
    ``rounding`` is the relative one of the data's type, the coarsest where manifolds differ.
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


def moments(manifolds: Clouds, rng: np.random.Generator) -> Moments:
    """First and second moments of every manifold, and a sketch of all, in one pass. Infinite and NaN entries stay so."""
    P, N = len(manifolds), manifolds[0].shape[1]
    n_sums = _signed_sums(P, N)
    sketch = np.empty((P, n_sums, N), dtype=np.float32)
    means, grams, sizes, units, rounding = np.empty((P, N)), [], [], np.empty(P), 0.0
    for mu, X in enumerate(manifolds):
        units[mu] = binary_unit(X)
        points = np.multiply(X, 1 / units[mu], dtype=np.float64)  # a power of two: exact
        means[mu] = np.ones(len(X)) @ points / len(X)  # as exact as the mean, in a third of its time
        points -= means[mu]
        grams.append(points @ points.T)
        sketch[mu] = rng.choice([-1.0, 1.0], size=(n_sums, len(X))) @ points / np.sqrt(max(n_sums, 1))
        sizes.append(len(X))
        rounding = max(rounding, float(np.finfo(X.dtype).eps) if X.dtype.kind == "f" else 0.0)
    unit = units.max()
    scales = units / unit
    means *= scales[:, None]
    sketch *= scales[:, None, None].astype(np.float32)
    grams = [gram * s**2 for gram, s in zip(grams, scales, strict=True)]
    mean_squares = np.array([np.trace(gram) / len(gram) for gram in grams]) + np.square(means).sum(axis=1)
    mean = np.array(sizes) @ means / sum(sizes)
    means -= mean  # in place: of wide layers this is tens of megabytes
    return Moments(mean, means, grams, mean_squares, sketch, tuple(sizes), float(unit), rounding)


def _signed_sums(P: int, N: int) -> int:
    """Number of signed sums per manifold, for the wanted number of rows in all, within the memory for them; 0 where all
    directions are kept."""
    if N <= ALL_DIRECTIONS:
        return 0
    return max(1, min(_SKETCH_ROWS, _SKETCH_BYTES // (4 * N)) // P)


def around_centers(manifolds: Clouds, pooled: Moments) -> Iterator[np.ndarray]:
    """The points of each manifold around its own centre, in float64 and in the units of the moments."""
    for X, center in zip(manifolds, pooled.centers, strict=True):
        points = np.divide(X, pooled.unit, dtype=np.float64)
        points -= pooled.mean + center
        yield points


def is_flat(pooled: Moments) -> bool:
    r"""Return whether centres, and points around them, fill many directions evenly: none is more shared than others.

    Moments of the spectrum of independent rows are means of their inner products,

    .. math:: m_2 = \frac{\mathrm{E}[(x \cdot x')^2]}{\mathrm{E}[|x|^2]^2}, \qquad
              m_3 = \frac{\mathrm{E}[(x \cdot x')(x' \cdot x'')(x'' \cdot x)]}{\mathrm{E}[|x|^2]^3} \ge m_2^2,

    with equality for equal eigenvalues alone, whose number is then :math:`1/m_2`, whatever the number of features. Layers
    without a sketch, and those that their points could fill, are not taken as flat.
    """
    if pooled.sketch.shape[1] == 0:
        return False
    P, n = len(pooled.centers), sum(pooled.sizes)
    # taking off their mean leaves every pair of centres an inner product of -1/(P - 1) of their squared length
    centers, axes = pooled.centers @ pooled.centers.T, pooled.sketch[:, 0] @ pooled.sketch[:, 0].T
    centers += centers.trace() / max(P * (P - 1), 1)
    return all(_fills_evenly(gram.astype(np.float64), max(ALL_DIRECTIONS, n / 2) / _ROOM) for gram in (centers, axes))


def _fills_evenly(gram: np.ndarray, n_directions: float) -> bool:
    """Return whether independent rows with these inner products have equal variance in more than ``n_directions``."""
    P, square = len(gram), gram.trace() / len(gram)
    if P < _FEWEST or square <= 0:
        return False
    cosines = gram / square
    np.fill_diagonal(cosines, 0.0)
    m2 = np.square(cosines).sum() / (P * (P - 1))
    m3 = np.einsum("ij,ji->", cosines @ cosines, cosines) / (P * (P - 1) * (P - 2))
    chance = m2**1.5 / np.sqrt(P * (P - 1) * (P - 2) / 6)  # one standard error of m3, for rows without structure
    return bool(m2 < 1 / n_directions and m3 < (m2 / _FLAT) ** 2 + _CHANCE * chance)

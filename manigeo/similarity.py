r"""Similarity of two representations of the same examples: of a layer at two epochs, in two networks, in two areas.

Centred kernel alignment (Kornblith et al. 2019, "Similarity of neural network representations revisited"), linear and
without bias, from the estimator of Song et al. (2012): examples by chance alike do not pass for similar, however many
features there are. And the angular Procrustes distance (Williams et al. 2021, "Generalized shape metrics on neural
representations"), a metric: the angle that is left after the best rotation. Neither depends on rotations, the scale, or
the origin of the features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from manigeo.faces.results import Drawn
from manigeo.inputs import Points, as_array, finite_rows, joined
from manigeo.manifolds import binary_unit, gram_coordinates

FEWEST = 5  # points: the estimator takes four, and its error leaves one of them out
_BLOCK_BYTES = 64 << 20  # of inner products that are held at a time
_EQUIDISTANT = 1e-12  # of H, of points of length one: rounding, where a million features of noise leave 1e-6
_EQUAL_RTOL = 1e-7  # of the length of a point: what differs by less is the rounding of float32


@dataclass(frozen=True, repr=False)
class RepresentationSimilarity(Drawn):
    """``cka``, 1 for representations that are alike up to a rotation and a scale, 0 in the mean for independent ones;
    ``procrustes_angle`` in radians, 0 for alike. ``flag`` tells why numbers are NaN: ``constant_features`` where all points
    of one are equal, ``equidistant`` where they are at one distance from each other, as one-hot codes are, which leaves CKA
    without a unit; ``dropped:n`` counts points that were left out."""

    headline = ("cka", "procrustes_angle", "n_points")

    cka: float
    cka_stderr: float
    procrustes_angle: float
    procrustes_angle_stderr: float
    n_points: int
    flag: str


def representation_similarity(points: Points, others: Points, *, nan: str = "raise") -> RepresentationSimilarity:
    r"""Linear CKA without bias, and angular Procrustes distance, of two representations of the same examples.

    .. math:: \mathrm{CKA} = \frac{H(K, L)}{\sqrt{H(K, K)\, H(L, L)}}, \qquad
              H(K, L) = \frac{1}{n (n - 3)} \Big(\mathrm{tr}(KL) + \frac{1^\top K 1\; 1^\top L 1}{(n - 1)(n - 2)}
              - \frac{2}{n - 2} 1^\top K L 1\Big)

    with :math:`K = X X^\top` and :math:`L = Y Y^\top` without their diagonals, and

    .. math:: \theta = \arccos \frac{\lVert X^\top Y \rVert_*}{\lVert X \rVert \lVert Y \rVert}

    of centred X and Y, with the sum of the singular values. Unlike CKA, the angle of few examples is too small: compare it
    at one number of them. Standard errors are over examples: the jackknife, exact for CKA and to first order for the angle.

    ``points`` (points, features) and ``others`` (points, other features) have the same examples in the same order; ``nan``
    is ``"raise"`` or ``"drop"`` (:mod:`manigeo.inputs`). Inner products are held a block of rows at a time.

    Returns a :class:`RepresentationSimilarity`. Raises ``ValueError`` for other numbers of points, fewer than five, and NaN
    or infinite entries.

    >>> X = np.random.default_rng(0).standard_normal((30, 4))
    >>> alike = representation_similarity(X, -2.0 * X[:, ::-1])
    >>> round(alike.cka, 12), round(alike.procrustes_angle, 6)
    (1.0, 0.0)
    """
    X, Y, left_out = _same_examples(points, others, nan)
    if not (X.any() and Y.any()):
        return RepresentationSimilarity(np.nan, np.nan, np.nan, np.nan, len(X), joined("constant_features", left_out))
    cka, cka_stderr = _cka(X, Y)
    angle, angle_stderr = _procrustes(X, Y)
    flag = joined("" if np.isfinite(cka) else "equidistant", left_out)
    return RepresentationSimilarity(cka, cka_stderr, angle, angle_stderr, len(X), flag)


def _same_examples(points: Points, others: Points, nan: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Both, centred and of a length of about one; and the flag of the examples that are left out of both."""
    arrays = [as_array(points), as_array(others, "others")]
    shapes = [X.shape for X in arrays]
    if any(len(shape) != 2 for shape in shapes) or len({len(X) for X in arrays}) > 1:
        raise ValueError(f"expected (points, features) of the same points, got {shapes[0]} and {shapes[1]}")
    masks = [finite_rows(X, nan, name) for X, name in zip(arrays, ("points", "others"), strict=True)]
    kept = np.all([mask for mask in masks if mask is not None], axis=0) if any(m is not None for m in masks) else None
    if kept is not None:
        arrays = [X[kept] for X in arrays]
    if len(arrays[0]) < FEWEST:
        raise ValueError(f"similarity takes {FEWEST} points or more, got {len(arrays[0])}")
    X, Y = map(_centred, arrays)
    return X, Y, "" if kept is None else f"dropped:{np.count_nonzero(~kept)}"


def _centred(points: np.ndarray) -> Float[np.ndarray, "points features"]:
    """Points around their mean; zero where that is all they differ by."""
    X = points.astype(np.float64) / binary_unit(points)
    mean = X.mean(axis=0)
    X -= mean
    spread = np.linalg.norm(X) / np.sqrt(len(X))
    return X / spread if spread > _EQUAL_RTOL * np.linalg.norm(mean) else np.zeros_like(X)


def _cka(X: np.ndarray, Y: np.ndarray) -> tuple[float, float]:
    """CKA and its jackknife error. H of all points but one follows from the sums of its row."""
    pairs = _pair_sums(X, Y)
    every, without = zip(*(_without_bias(*sums) for sums in pairs), strict=True)
    if min(every[0], every[2]) <= _EQUIDISTANT:
        return np.nan, np.nan
    with np.errstate(invalid="ignore", divide="ignore"):  # without one point, the others may be equidistant
        cka, cka_without = (of[1] / np.sqrt(of[0]) / np.sqrt(of[2]) for of in (every, without))
    n = len(X)
    return float(cka), float(np.sqrt((n - 1) / n * np.square(cka_without - cka_without.mean()).sum()))


def _pair_sums(X: np.ndarray, Y: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Sums over rows for (K, K), (K, L), (L, L): of both, of their entries' product, of each times the other's sums."""
    size, n = max(1, _BLOCK_BYTES // (8 * len(X))), len(X)
    products = np.empty((3, n))
    for start in range(0, n, size):
        K, L = (Z[start : start + size] @ Z.T for Z in (X, Y))
        for gram in (K, L):
            gram[np.arange(len(gram)), start + np.arange(len(gram))] = 0.0
        for row, (A, B) in enumerate(((K, K), (K, L), (L, L))):
            products[row, start : start + size] = np.einsum("ij,ij->i", A, B)

    def times(Z: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The matrix of inner products without its diagonal, times a vector."""
        return Z @ (Z.T @ v) - np.square(Z).sum(axis=1) * v

    k, l_ = times(X, np.ones(n)), times(Y, np.ones(n))
    return [
        (k, k, products[0], times(X, k), times(X, k)),
        (k, l_, products[1], times(X, l_), times(Y, k)),
        (l_, l_, products[2], times(Y, l_), times(Y, l_)),
    ]


def _without_bias(
    k: np.ndarray, l_: np.ndarray, products: np.ndarray, Kl: np.ndarray, Lk: np.ndarray
) -> tuple[float, Float[np.ndarray, " points"]]:
    """H(K, L) of all points, and of all but each."""

    def h(n: int, trace: Any, sums: Any, both: Any) -> Any:
        return (trace + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * both) / (n * (n - 3))

    n = len(k)
    every = h(n, products.sum(), k.sum() * l_.sum(), k @ l_)
    sums = (k.sum() - 2 * k) * (l_.sum() - 2 * l_)
    return float(every), h(n - 1, products.sum() - 2 * products, sums, k @ l_ - k * l_ - Kl - Lk + products)


def _procrustes(X: np.ndarray, Y: np.ndarray) -> tuple[float, float]:
    """Angle after the best rotation, with the error of a smooth function of sums over points: the rotation is at its
    optimum, so that what it changes by is of second order."""
    X, Y = (Z if Z.shape[1] <= len(Z) else gram_coordinates(Z @ Z.T) for Z in (X, Y))
    U, singular, Vt = np.linalg.svd(X.T @ Y, full_matrices=False)
    along = ((X @ U) * (Y @ Vt.T)).sum(axis=1)
    a, b = (np.square(Z).sum(axis=1) for Z in (X, Y))
    cosine = min(float(singular.sum() / np.sqrt(a.sum() * b.sum())), 1.0)
    parts = cosine * (along / along.sum() - a / (2 * a.sum()) - b / (2 * b.sum()))
    stderr = np.sqrt(len(X) / (len(X) - 1) * np.square(parts).sum())
    sine = np.sqrt(1 - cosine**2)
    return float(np.arccos(cosine)), float(stderr / sine) if sine > 0 else 0.0

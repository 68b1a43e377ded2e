r"""Total dimension of a layer's samples: how many directions they spread over, all manifolds together.

With the eigenvalues :math:`\lambda` of the samples' covariance: the participation ratio
:math:`(\sum\lambda)^2 / \sum\lambda^2` (Rajan, Abbott & Sompolinsky 2010) and the number of principal directions that
carry a share of the variance, 90 % in Stephenson et al. (2021). The Gram matrix of the samples has the same eigenvalues,
up to zeros, so the smaller of the two is taken.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from manigeo.faces.results import Drawn
from manigeo.inputs import Manifolds, in_range, joined, take_manifolds
from manigeo.manifolds import Clouds, global_mean

_FEATURES_AT_ONCE = 4096
_ROWS_AT_ONCE = 512  # two blocks of 512 rows with 65,536 float32 features are 256 MB
_NO_SPREAD_RTOL = 1e-12  # below this share of the activations, spread is the rounding of their mean
_SHARE_RTOL = 1e-9  # of the variance: equal eigenvalues reach 9/10 at nine of ten whatever the sum's last digits


@dataclass(frozen=True, repr=False)
class TotalDimension(Drawn):
    """``participation_ratio`` and ``n_directions``, the principal directions that carry ``share`` of the variance.

    ``eigenvalues`` of the covariance (divided by the number of samples), largest first. ``flag`` is ``no_spread``, and the
    numbers NaN, where all samples are equal; ``dropped:n`` counts samples that were left out.
    """

    headline = ("participation_ratio", "n_directions", "share")

    participation_ratio: float
    n_directions: float
    share: float
    eigenvalues: Float[np.ndarray, " smaller"]
    flag: str


def total_dimension(manifolds: Manifolds, share: float = 0.9, *, nan: str = "raise") -> TotalDimension:
    r"""Participation ratio and number of directions of a sequence of manifolds, arrays ``(points, features)`` of any origin.

    .. math:: \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}, \qquad
              \min\Big\{k : \sum_{i \le k} \lambda_i \ge \mathrm{share} \sum_i \lambda_i\Big\}

    Sums are float64 whatever comes in. Of n samples with N features the matrix is min(n, N) wide; samples are read a few
    hundred at a time. All samples count, also those of manifolds that have more than others; ``nan`` is ``"raise"`` or
    ``"drop"`` (:mod:`manigeo.inputs`). Eigenvalues beyond the range of float64 are infinite, or 0.

    Returns a :class:`TotalDimension`, in numbers of directions. Rajan, Abbott & Sompolinsky (2010); Stephenson et al.
    (2021).

    Raises ``ValueError`` for no samples, arrays that do not share their features, NaN or infinite entries, and a share
    outside (0, 1].

    >>> square = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> total_dimension([square]).participation_ratio
    2.0
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    taken, left_out = take_manifolds(manifolds, nan=nan, fewest=1)
    taken, unit = in_range(taken)
    with threadpool_limits(limits=1, user_api="blas"):  # bits then do not depend on the number of cores
        mean = global_mean(taken)
        eigenvalues = _eigenvalues(taken, mean)
    total = eigenvalues.sum()
    with np.errstate(over="ignore"):
        in_units_given = eigenvalues * unit * unit
    if total <= (_NO_SPREAD_RTOL * np.linalg.norm(mean)) ** 2:
        return TotalDimension(np.nan, np.nan, share, in_units_given, joined("no_spread", left_out))
    reached = np.cumsum(eigenvalues) >= share * total * (1 - _SHARE_RTOL)
    return TotalDimension(
        float(total**2 / np.square(eigenvalues).sum()), float(reached.argmax() + 1), share, in_units_given, left_out
    )


def _eigenvalues(manifolds: Clouds, mean: Float[np.ndarray, " features"]) -> np.ndarray:
    n = sum(len(X) for X in manifolds)
    matrix = _covariance(manifolds, mean) if len(mean) <= n else _gram(manifolds, mean, n)
    return np.maximum(np.linalg.eigvalsh(matrix)[::-1] / n, 0.0)


def _covariance(manifolds: Clouds, mean: Float[np.ndarray, " features"]) -> np.ndarray:
    total = np.zeros((len(mean), len(mean)))
    for X in manifolds:
        Z = X - mean
        total += Z.T @ Z
    return total


def _gram(manifolds: Clouds, mean: Float[np.ndarray, " features"], n: int) -> np.ndarray:
    """The lower triangle, which is what the eigenvalues are taken from, by blocks of rows and of features."""
    gram = np.zeros((n, n))
    row = 0
    for A in _blocks(manifolds):
        column = 0
        for B in _blocks(manifolds):
            block = gram[row : row + len(A), column : column + len(B)]
            for start in range(0, len(mean), _FEATURES_AT_ONCE):
                some = slice(start, start + _FEATURES_AT_ONCE)
                block += (A[:, some] - mean[some]) @ (B[:, some] - mean[some]).T
            column += len(B)
            if column > row:
                break
        row += len(A)
    return gram


def _blocks(manifolds: Clouds) -> Iterator[np.ndarray]:
    """The samples in order, whole manifolds together up to a few hundred rows."""
    waiting: list[np.ndarray] = []
    for X in manifolds:
        if waiting and sum(map(len, waiting)) + len(X) > _ROWS_AT_ONCE:
            yield np.concatenate(waiting)
            waiting = []
        waiting.append(X)
    yield np.concatenate(waiting)

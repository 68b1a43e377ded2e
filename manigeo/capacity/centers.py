r"""Correlations of manifold centres and their low-rank structure (Cohen, Chung, Lee & Sompolinsky 2020).

The authors of the field's reference take manifolds as independent once some directions are projected out that their
centres share. For K directions V in the space of the centres :math:`c_\mu` (their mean removed),

.. math:: \min_{V^\top V = 1} \tfrac12 \sum_{\mu \ne \nu} \frac{M_{\mu\nu}^2}{n_\mu n_\nu},
          \qquad M = X (1 - V V^\top) X^\top,\quad n = \mathrm{diag}\, M,

which only depends on the span of V. Their rule is the K of least residual correlation, K >= 1, searched up to eleven beyond
the K that explain 95 % of the centres' variance and stopped after three rises in a row. It is kept to compare with
published numbers (``centers="reference"``); :mod:`manigeo.capacity.cavity` needs no K.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import lapack

# The search follows the best span from K to K + 1. On 100 centres with variances 1/k or 1/k^2 it takes 0.6 s, and the cost
# is within 0.08 % of a run three hundred times as tight at every K that it visits (three draws of each; 0.14 % at 3e-6).
_COST_RTOL = 1e-6
_EVALUATIONS = 300


@dataclass(frozen=True)
class CenterStructure:
    """The shared directions of the centres: ``directions`` (features, K), orthonormal, and the correlation left per K.

    ``residual_correlation[k]`` is the mean absolute cosine between centres after the removal of k directions.
    """

    directions: Float[np.ndarray, "features rank"]
    residual_correlation: Float[np.ndarray, " searched"]

    @property
    def rank(self) -> int:
        return self.directions.shape[1]

    @property
    def correlation_before(self) -> float:
        return float(self.residual_correlation[0])

    @property
    def correlation_after(self) -> float:
        return float(self.residual_correlation[self.rank])


def _absolute_cosines(gram: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.clip(np.diag(gram), 0, None))
    outer = np.outer(norms, norms)
    return np.abs(np.divide(gram, outer, out=np.zeros_like(gram), where=outer > 0))


def mean_off_diagonal(matrix: Float[np.ndarray, "n n"]) -> float:
    p = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (p * (p - 1)))


def mean_absolute_cosine(gram: Float[np.ndarray, "classes classes"]) -> float:
    """Mean absolute cosine over pairs of centres with these inner products; a centre of length zero has cosine zero."""
    return mean_off_diagonal(_absolute_cosines(gram))


def center_correlation(centers: Float[np.ndarray, "classes features"]) -> tuple[float, float]:
    r"""Mean absolute cosine between centres, their mean removed, and its jackknife standard error.

    .. math:: \rho = \frac{\sum_{\mu\nu} |C_{\mu\nu}| - P}{P (P - 1)}

    The error treats classes as a sample: each is left out once, the matrix of cosines kept. It needs three classes.

    >>> round(center_correlation(np.eye(3))[0], 12)
    0.5
    """
    X = centers - centers.mean(axis=0)
    cosines = _absolute_cosines(X @ X.T)
    p = len(cosines)
    if p < 3:
        return mean_off_diagonal(cosines), np.nan
    off_diagonal = cosines.sum(axis=1) - np.diag(cosines)
    left_out = (off_diagonal.sum() - 2 * off_diagonal) / ((p - 1) * (p - 2))
    stderr = np.sqrt((p - 1) / p * np.square(left_out - left_out.mean()).sum())
    return mean_off_diagonal(cosines), float(stderr)


def low_rank_centers(centers: Float[np.ndarray, "classes features"]) -> CenterStructure:
    """The directions that centres share, by the authors' rule (see the module), for two classes or more."""
    X, basis, variance = _principal_coordinates(centers - centers.mean(axis=0))
    spans = [np.zeros((X.shape[1], 0))]
    correlation = [mean_absolute_cosine(X @ X.T)]
    for V in _search(X, _search_limit(variance)):
        spans.append(V)
        correlation.append(mean_absolute_cosine(_residual_gram(X, V)))
        if len(correlation) > 5 and np.all(np.diff(correlation[-4:]) > 0):
            break
    rank = 1 + int(np.argmin(correlation[1:])) if len(spans) > 1 else 0
    return CenterStructure(basis @ spans[rank], np.array(correlation))


def _principal_coordinates(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres in the orthonormal basis of their span (P, r), that basis (features, r), the variance of each direction."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    rank = int(np.count_nonzero(s > 1e-6 * s[0])) if s[0] > 0 else 0  # float32 centres resolve 1e-7
    return U[:, :rank] * s[:rank], Vt[:rank].T, np.square(s[:rank])


def _search_limit(variance: np.ndarray) -> int:
    """Eleven beyond the last K below 95 % of the variance; one direction at least stays."""
    if len(variance) == 0:
        return 0
    explained = np.cumsum(variance) / variance.sum()
    return min(max(int(np.count_nonzero(explained < 0.95)) - 1, 0) + 11, len(variance) - 1)


def _residual_gram(X: np.ndarray, V: np.ndarray) -> np.ndarray:
    R = X - (X @ V) @ V.T
    return R @ R.T


def _search(X: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """The best K = 1 .. ``limit`` directions, each from the last K's span and the strongest direction still shared."""
    V = np.zeros((X.shape[1], 0))
    for _ in range(limit):
        V = _minimise_correlation(X, np.column_stack([V, _strongest_shared_direction(X, V)]))
        yield V


def _strongest_shared_direction(X: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Direction in which the normalised residual centres have most variance in common."""
    R = X - (X @ V) @ V.T
    norms = np.linalg.norm(R, axis=1, keepdims=True)
    normalised = np.divide(R, norms, out=np.zeros_like(R), where=norms > 0)
    return np.linalg.svd(normalised, full_matrices=False)[2][0]


def _minimise_correlation(X: np.ndarray, start: np.ndarray) -> np.ndarray:
    """L-BFGS over Z in the span of V + U Z, where U completes the start V to a basis.

    Both are rotated to the principal axes of the normalised centres, and each entry of Z is scaled by what its pair of
    axes makes of a step, which halves the number of evaluations.
    """
    from scipy.optimize import minimize  # slow to import, and seldom needed

    k = start.shape[1]
    Q = np.linalg.qr(start, mode="complete")[0]
    normalised = X / np.sqrt(np.maximum(np.square(X @ Q[:, k:]).sum(axis=1), 1e-300))[:, None]
    (a, V), (b, U) = _axes(normalised, Q[:, :k]), _axes(normalised, Q[:, k:])
    steps = 1 / np.sqrt(np.outer(b + 0.1 * b.mean(), a + 0.1 * a.mean()))
    result = minimize(
        _correlation_cost,
        np.zeros(steps.size),
        args=(X @ V, X @ U, X @ X.T, steps),
        jac=True,
        method="L-BFGS-B",
        options={"maxfun": _EVALUATIONS, "ftol": _COST_RTOL},
    )
    return np.linalg.qr(V + U @ (result.x.reshape(steps.shape) * steps))[0]


def _axes(rows: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal variances and axes of the rows within the span of ``basis``."""
    along = rows @ basis
    variance, rotation = np.linalg.eigh(along.T @ along)
    return variance, basis @ rotation


def _correlation_cost(
    flat: np.ndarray, XV: np.ndarray, XU: np.ndarray, gram: np.ndarray, steps: np.ndarray
) -> tuple[float, np.ndarray]:
    """The cost of the module's equation at the span of B = V + U Z, and its gradient in Z / ``steps``.

    With the Cholesky factor L of B'B, the orthonormal basis is B L'^-1, and W = X B L'^-1 are the centres in it.
    """
    Z = flat.reshape(steps.shape) * steps
    L, _ = lapack.dpotrf(Z.T @ Z + np.eye(Z.shape[1]), lower=1, clean=1)
    W = lapack.dtrtrs(L, (XV + XU @ Z).T, lower=1)[0].T
    M = gram - W @ W.T
    n = M.diagonal().copy()
    if n.min() <= 1e-12 * gram.diagonal().max():
        return np.inf, np.zeros(flat.size)  # a centre inside the span: nothing of it would be left
    A = M / np.outer(n, n)
    energy = np.einsum("ij,ij->i", A, M)
    # dM = -X dP X' for the projector P on the span, and dn = diag(dM)
    A.flat[:: len(A) + 1] -= energy / n
    AW = A @ W
    inner = XU.T @ AW - Z @ lapack.dtrtrs(L, W.T @ AW, lower=1, trans=1)[0]
    gradient = -2 * lapack.dtrtrs(L, inner.T, lower=1, trans=1)[0].T
    return 0.5 * float(energy.sum() - len(n)), (gradient * steps).ravel()

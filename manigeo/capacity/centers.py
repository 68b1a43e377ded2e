r"""Correlations of manifold centres and their low-rank structure (Cohen, Chung, Lee & Sompolinsky 2020).

Mean-field capacity takes centres as independent. Real layers share directions among them; the theory is applied after
projecting them out. For K directions V in the space of the centres :math:`c_\mu` (their mean removed),

.. math:: \min_{V^\top V = 1} \tfrac12 \sum_{\mu\nu} \frac{M_{\mu\nu}^2}{n_\mu n_\nu},
          \qquad M = X (1 - V V^\top) X^\top,\quad n = \mathrm{diag}\, M,

which only depends on the span of V. The cost has local minima, some of which swallow a whole centre; of several starts
the most *stable* is kept, the one whose smallest :math:`\sqrt{n_\mu}/|c_\mu|` is largest. How many to take is a rule:

- ``"reference"``: the authors' rule. The K of least residual correlation, K >= 1, searched up to eleven beyond the K that
  explain 95 % of the centres' variance and stopped after three rises in a row.
- ``"auto"``: the same search with K = 0 allowed, so that centres without structure keep all their directions, and without
  the K at which a centre keeps less than a tenth of its norm, since radii are in units of what it keeps.
- ``"keep"``: no removal.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

RULES = ("auto", "reference", "keep")

# One random start and the last K's span: two more random starts moved capacities by 1 % and took twice the time.
_RANDOM_STARTS = 1
_LEAST_STABILITY = 0.1


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


def _mean_off_diagonal(matrix: np.ndarray) -> float:
    p = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (p * (p - 1)))


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
        return _mean_off_diagonal(cosines), np.nan
    off_diagonal = cosines.sum(axis=1) - np.diag(cosines)
    left_out = (off_diagonal.sum() - 2 * off_diagonal) / ((p - 1) * (p - 2))
    stderr = np.sqrt((p - 1) / p * np.square(left_out - left_out.mean()).sum())
    return _mean_off_diagonal(cosines), float(stderr)


def low_rank_centers(
    centers: Float[np.ndarray, "classes features"], rule: str = "auto", *, rng: np.random.Generator | None = None
) -> CenterStructure:
    """The directions that centres share, by the named rule (see the module), for two classes or more.

    ``rng`` draws the random starts of the search. Raises ``ValueError`` for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"centers must be one of {RULES}, got {rule!r}")
    X, basis, variance = _principal_coordinates(centers - centers.mean(axis=0))
    spans = [np.zeros((X.shape[1], 0))]
    correlation = [_mean_off_diagonal(_absolute_cosines(X @ X.T))]
    if rule != "keep":
        for V in _search(X, _search_limit(variance), rng or np.random.default_rng(0)):
            spans.append(V)
            correlation.append(_mean_off_diagonal(_absolute_cosines(_residual_gram(X, V))))
            if len(correlation) > 5 and np.all(np.diff(correlation[-4:]) > 0):
                break
    if rule == "reference":
        allowed = list(range(1, len(spans))) or [0]
    else:
        allowed = [k for k, V in enumerate(spans) if k == 0 or _stability(X, V) >= _LEAST_STABILITY]
    rank = min(allowed, key=correlation.__getitem__)
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


def _search(X: np.ndarray, limit: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The best K = 1 .. ``limit`` directions: of random starts, and the last K's span with one more, the most stable."""
    V = np.zeros((X.shape[1], 0))
    for k in range(1, limit + 1):
        starts = [X.T @ rng.standard_normal((len(X), k)) for _ in range(_RANDOM_STARTS)]
        starts.append(np.column_stack([V, _strongest_shared_direction(X, V)]))
        V = max((_minimise_correlation(X, start) for start in starts), key=lambda span: _stability(X, span))
        yield V


def _stability(X: np.ndarray, V: np.ndarray) -> float:
    """The smallest share of a centre's norm that is left outside the span of V."""
    norms = np.square(X).sum(axis=1)
    left = np.clip(np.diag(_residual_gram(X, V)), 0, None)
    return float(np.sqrt(np.divide(left, norms, out=np.ones_like(left), where=norms > 0)).min())


def _strongest_shared_direction(X: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Where the normalised residual centres have most variance in common."""
    R = X - (X @ V) @ V.T
    norms = np.linalg.norm(R, axis=1, keepdims=True)
    normalised = np.divide(R, norms, out=np.zeros_like(R), where=norms > 0)
    return np.linalg.svd(normalised, full_matrices=False)[2][0]


def _minimise_correlation(X: np.ndarray, start: np.ndarray) -> np.ndarray:
    """L-BFGS over matrices B whose column span is the wanted one; the cost does not depend on the basis of the span."""
    gram = X @ X.T
    result = minimize(
        lambda flat: _correlation_cost(X, gram, flat.reshape(start.shape)),
        np.linalg.qr(start)[0].ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 300, "ftol": 1e-5},  # 1e-10 moved capacities by 1 % and took four times as long
    )
    return np.linalg.qr(result.x.reshape(start.shape))[0]


def _correlation_cost(X: np.ndarray, gram: np.ndarray, B: np.ndarray) -> tuple[float, np.ndarray]:
    """The cost of the module's equation at the span of B, off the (constant) diagonal, and its gradient in B."""
    V, triangular = np.linalg.qr(B)
    XV = X @ V
    M = gram - XV @ XV.T
    n = np.diag(M).copy()
    if n.min() <= 1e-12 * gram.diagonal().max():
        return np.inf, np.zeros(B.size)  # a centre inside the span: nothing of it would be left
    weighted = M / np.outer(n, n)
    energy = weighted * M
    # dM = -X dP X' for the projector P = V V', and dn = diag(dM)
    A = weighted - np.diag(energy.sum(axis=1) / n)
    gradient_P = -(X.T @ (A @ XV))
    gradient = 2 * (gradient_P - V @ (V.T @ gradient_P)) @ np.linalg.inv(triangular).T
    return 0.5 * float(energy.sum() - len(n)), gradient.ravel()

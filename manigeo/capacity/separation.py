r"""Linear separation with a certificate: a hyperplane that tells two sets of points apart, or the proof that there is none.

Gordan (1873): for signed points :math:`z_i` of length one there is either a separating vector, :math:`z_i \cdot w > 0` for
all i, or a convex combination that vanishes, :math:`\sum_i \lambda_i z_i = 0`. Both come from one problem, the least
squares of linear inequalities (Han 1980),

.. math:: \min_w \tfrac12 |(1 - Z w)_+|^2 ,

whose gradient :math:`-Z^\top \lambda` with :math:`\lambda = (1 - Z w)_+` vanishes at the minimum: there either
:math:`\lambda = 0` and w separates, or :math:`\lambda` is the combination. Newton's method ends after finitely many
steps, about ten here (Mangasarian 2002). Where its matrix is too badly conditioned for a certificate, the non-negative
least squares of the combination, ten times slower, decide:

.. math:: \min_{\lambda \ge 0} |Z^\top \lambda|^2 + (1 - \mathbf 1^\top \lambda)^2,

at whose minimum :math:`Z^\top \lambda` separates unless it vanishes. Where they give up, Newton's answer stands without a
certificate.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve

from manigeo.capacity.pivoting import lawson_hanson
from manigeo.manifolds import principal_directions

# A certificate counts from here on. Inner products of unit vectors carry 1e-16 per term, 1e-13 over a thousand; a margin
# that small by chance is one dichotomy in millions.
_CERTIFICATE_ATOL = 1e-10
_NEWTON_STEPS = 100  # 5 to 30 are usual; more than this points to a bad condition
_RIDGE = 1e-9  # of the mean eigenvalue, in Newton's matrix, which is singular where few inequalities are violated


@dataclass(frozen=True)
class Separation:
    """Decision whether signed points lie on one side of a hyperplane through the origin, with its proof.

    ``normal`` (dim,) of length one has ``margin`` to the nearest of the points (scaled to length one), and a positive
    margin proves that they are separable. ``weights`` (points,) sum to one, and a combination of length ``residual`` = 0
    proves that they are not: no margin exceeds the residual.
    """

    separable: bool
    normal: Float[np.ndarray, " dim"]
    weights: Float[np.ndarray, " points"]
    margin: float
    residual: float

    @property
    def certified(self) -> bool:
        return self.margin > _CERTIFICATE_ATOL or self.residual <= _CERTIFICATE_ATOL


def linear_separation(
    points: Float[np.ndarray, "points dim"],
    labels: Float[np.ndarray, " points"],
) -> Separation:
    r"""Separate ``points`` with ``labels`` +1 and -1 by a hyperplane through the origin, or prove that none does.

    .. math:: \exists w:\; z_i \cdot w > 0 \;\forall i \quad\text{or}\quad
              \exists \lambda \ge 0:\; \textstyle\sum_i \lambda_i = 1,\; \sum_i \lambda_i z_i = 0,
              \qquad z_i = y_i x_i / |x_i|

    Points of length zero are on no side. Add a constant column for a hyperplane with an offset.

    >>> square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> linear_separation(square, np.array([1.0, 1.0, -1.0, -1.0])).separable
    True
    >>> exclusive_or = linear_separation(square, np.array([1.0, -1.0, -1.0, 1.0]))
    >>> exclusive_or.separable, exclusive_or.residual
    (False, 0.0)
    """
    lengths = np.linalg.norm(points, axis=1)
    signed = points * np.divide(labels, lengths, out=np.zeros_like(lengths), where=lengths > 0)[:, None]
    separation = _least_squares_of_inequalities(signed)
    if separation.certified:
        return separation
    multipliers = lawson_hanson(np.vstack([signed.T, np.ones(len(signed))]), np.append(np.zeros(signed.shape[1]), 1.0))
    return _separation(signed, signed.T @ multipliers, multipliers) if multipliers.any() else separation


def whitened(points: Float[np.ndarray, "points dim"]) -> Float[np.ndarray, "points rank"]:
    r"""Coordinates of condition one: a linear map changes no dichotomy, and steep spectra cost Newton's method its digits.

    .. math:: X^\top X = V \Lambda V^\top \;\Rightarrow\; X' = X V \Lambda^{-1/2}

    >>> np.abs(whitened(np.array([[1e3, 0.0], [0.0, 1e-2]]))).round(12).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    basis, lengths = principal_directions(points)
    return points @ (basis / lengths)


def _separation(signed: np.ndarray, w: np.ndarray, multipliers: np.ndarray) -> Separation:
    """Decide by what a vector and non-negative multipliers prove, measured on the points themselves."""
    weights = multipliers / multipliers.sum() if multipliers.any() else np.full(len(signed), 1 / len(signed))
    residual = float(np.linalg.norm(weights @ signed))
    normal = w / np.linalg.norm(w) if w.any() else w
    margin = float((signed @ normal).min())
    # Without a certificate the largest margin is somewhere between the two: the middle decides.
    separable = margin > _CERTIFICATE_ATOL or (residual > _CERTIFICATE_ATOL and margin + residual > 0)
    return Separation(separable, normal, weights, margin, residual)


def _least_squares_of_inequalities(signed: np.ndarray) -> Separation:
    """Newton's method with exact line search on half the squared length of (1 - Z w)_+, until either side is proved."""
    w, slack = np.zeros(signed.shape[1]), np.ones(len(signed))  # slack = 1 - Z w
    diagonal = np.diag_indices(len(w))
    for _ in range(_NEWTON_STEPS):
        violated = slack > 0
        Z = signed[violated]
        descent = Z.T @ slack[violated]
        separated = 1 - slack.max() > _CERTIFICATE_ATOL * np.linalg.norm(w)
        if separated or np.linalg.norm(descent) <= _CERTIFICATE_ATOL * slack[violated].sum():
            break
        hessian = Z.T @ Z
        hessian[diagonal] += _RIDGE * np.trace(hessian) / len(w)
        step = cho_solve(cho_factor(hessian, check_finite=False), descent, check_finite=False)
        change = signed @ step
        length = _line_search(slack, change)
        w, slack = w + length * step, slack - length * change
    return _separation(signed, w, np.maximum(slack, 0.0))


def _line_search(slack: np.ndarray, change: np.ndarray) -> float:
    r"""The t of least :math:`\tfrac12 |(s - t c)_+|^2`, exactly: the slope :math:`t \sum c^2 - \sum c s` over the violated
    inequalities rises in straight pieces, and at :math:`t = s/c` one of them is satisfied (c > 0) or violated (c < 0)."""
    moves = (slack * change > 0) & (np.abs(change) > np.finfo(float).eps * np.abs(change).max())
    order = np.argsort(slack[moves] / change[moves])
    s, c = slack[moves][order], change[moves][order]
    violated = (slack > 0) | ((slack == 0) & (change < 0))
    squares = np.square(change[violated]).sum() - np.cumsum(np.append(0.0, c * np.abs(c)))
    products = (slack * change)[violated].sum() - np.cumsum(np.append(0.0, np.sign(c) * c * s))
    ends = np.append(s / c, np.inf)
    rising = np.append(ends[:-1] * squares[:-1] >= products[:-1], True)
    piece = int(rising.argmax())
    start = ends[piece - 1] if piece else 0.0
    # clipped: sums that cancel leave no more than rounding where nothing is violated any more
    return float(np.clip(products[piece] / squares[piece], start, ends[piece])) if squares[piece] > 0 else float(start)

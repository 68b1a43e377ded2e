r"""Multinomial logistic regression with a ridge penalty, by a quasi-Newton method that starts from the shape of the problem.

.. math:: \min_{W, b}\; \frac1n \sum_i \Big(\log \sum_c e^{f_c(z_i)} - f_{y_i}(z_i)\Big) + \frac{r}{2} |W|^2,
          \qquad f_c(z) = w_c \cdot z + b_c, \quad r = \frac{1}{C n}

with twice the r where there are two classes, so that the penalty is :math:`\tfrac{r}{2}|w_2 - w_1|^2` as in scikit-learn.
The Hessian is close to one block per class (Böhning 1992),

.. math:: H_c \approx h_c \tfrac1n Z^\top Z + r, \qquad h_c = \tfrac1n \sum_i p_{ic} (1 - p_{ic}) ,

whose inverse is cheap in the leading principal directions of Z, the others taken to have one variance. With it as the
first approximation, L-BFGS (Nocedal & Wright 2006, section 7.2) takes about half as many steps as from a multiple of the
identity. A larger C goes on from the solution and from the curvature that were found with a smaller one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import get_blas_funcs
from sklearn.utils.extmath import randomized_svd

# Of the gradient of the mean loss, where points have length one: a quarter of it takes half as long again, and moved no
# accuracy of five real layers by more than .002.
GRADIENT_ATOL = 4e-5
_ROUNDING = 0.95  # of it: where the products are of float32, so that the gradient in float64 is within
_MOST_STEPS = 1000
_MOST_HALVINGS = 30
_SUFFICIENT = 1e-4  # share of the decrease along the slope that a step must bring
_PAIRS = 10
_DIRECTIONS = 64  # of 512: 32 and 128 took as many steps within a tenth, none took half as many again


class _Pair(NamedTuple):
    """A step, the change of the gradient along it, and one over their inner product."""

    step: np.ndarray
    change: np.ndarray
    inverse: float


@dataclass(frozen=True)
class Solution:
    """Weights, and in the last row offsets, one column per class; what was learned of the curvature at this ``ridge``."""

    x: Float[np.ndarray, "coordinates_and_one classes"]
    C: float
    ridge: float = 0.0
    pairs: Sequence[_Pair] = ()

    @property
    def weights(self) -> Float[np.ndarray, "coordinates classes"]:
        return self.x[:-1]

    @property
    def offsets(self) -> Float[np.ndarray, " classes"]:
        return self.x[-1]


class Logistic:
    """The points (points, coordinates), of length about one, and the number of the class of each, below ``n_classes``.

    Products are of the points' type.

    >>> Z, y = np.array([[-1.0], [0.5], [1.0]]), np.array([0, 1, 1])
    >>> problem = Logistic(Z, y, 2)
    >>> solved = problem.solve(C=1.0)
    >>> problem.gradient(solved) <= GRADIENT_ATOL
    True
    """

    def __init__(
        self, points: Float[np.ndarray, "points coordinates"], codes: Int[np.ndarray, " points"], n_classes: int
    ) -> None:
        self.points, self._codes, self._n_classes = points, codes, n_classes
        self._directions, self._variances, self._rest = _principal(points)

    def solve(self, C: float, start: Solution | None = None, atol: float = GRADIENT_ATOL) -> Solution:
        """Minimise from the start, or from zero, until no entry of the gradient is above ``atol``."""
        ridge, dtype = self._ridge(C), self.points.dtype
        x = (
            np.zeros((self.points.shape[1] + 1, self._n_classes), dtype)
            if start is None
            else start.x.astype(dtype, copy=False)
        )
        pairs = [] if start is None else [_penalised(pair, ridge - start.ridge) for pair in start.pairs]
        loss, shares = _loss(self.points, self._codes, x, ridge)
        precondition = self._preconditioner(shares, ridge)
        gradient = _gradient(self.points, self._codes, x, shares, ridge)
        for _ in range(_MOST_STEPS):
            if np.abs(gradient).max() <= _ROUNDING * atol:
                break
            direction = _direction(gradient, pairs, precondition)
            stepped = self._search(x, loss, direction, float(np.vdot(direction, gradient)), ridge)
            if stepped is None:
                break
            before, (x, loss, shares) = (x, gradient), stepped
            gradient = _gradient(self.points, self._codes, x, shares, ridge)
            step, change = x - before[0], gradient - before[1]
            if (curvature := float(np.vdot(step, change))) > 0:
                pairs = [*pairs, _Pair(step, change, 1 / curvature)][-_PAIRS:]
        return Solution(x, C, ridge, pairs)

    def gradient(self, solution: Solution) -> float:
        """The largest entry of the gradient, in float64."""
        points, x, ridge = self.points.astype(np.float64), solution.x.astype(np.float64), self._ridge(solution.C)
        return float(np.abs(_gradient(points, self._codes, x, _loss(points, self._codes, x, ridge)[1], ridge)).max())

    def _ridge(self, C: float) -> float:
        return (2 if self._n_classes == 2 else 1) / (C * len(self.points))

    def _preconditioner(self, shares: np.ndarray, ridge: float) -> Callable[[np.ndarray], np.ndarray]:
        """Inverse of the Hessian's approximation by one block per class, at these shares."""
        h = shares.mean(axis=0) - np.einsum("ij,ij->j", shares, shares) / len(shares)
        h += np.finfo(shares.dtype).eps  # of a class whose points are all told apart already
        others = (self._rest * h + ridge).astype(shares.dtype)
        leading = (1 / (np.outer(self._variances, h) + ridge) - 1 / others).astype(shares.dtype)

        def inverse(gradient: np.ndarray) -> np.ndarray:
            out = np.empty_like(gradient)
            np.matmul(self._directions, leading * (self._directions.T @ gradient[:-1]), out=out[:-1])
            out[:-1] += gradient[:-1] / others
            out[-1] = gradient[-1] / h
            return out

        return inverse

    def _search(
        self, x: np.ndarray, loss: float, direction: np.ndarray, slope: float, ridge: float
    ) -> tuple[np.ndarray, float, np.ndarray] | None:
        """The point a step down the direction, with its loss and shares; None where rounding hides every decrease."""
        length, slack = 1.0, float(np.finfo(x.dtype).eps) * (1 + abs(loss))
        for _ in range(_MOST_HALVINGS):
            there = x - x.dtype.type(length) * direction
            value, shares = _loss(self.points, self._codes, there, ridge)
            if value <= loss - _SUFFICIENT * length * slope + slack:
                return there, value, shares
            # where the parabola through both values is least
            parabola = slope * length**2 / (2 * (value - loss + slope * length))
            length = min(max(parabola, length / 10), length / 2)
        return None


def _loss(points: np.ndarray, codes: np.ndarray, x: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
    """The value that is minimised, and the share of each class in each point."""
    F = points @ x[:-1]
    F += x[-1]
    F -= F.max(axis=1, keepdims=True)
    own = F[np.arange(len(F)), codes]
    np.exp(F, out=F)
    sums = F.sum(axis=1, keepdims=True)
    F /= sums
    losses = (np.log(sums[:, 0]) - own).sum(dtype=np.float64)
    return float(losses / len(F) + ridge / 2 * np.vdot(x[:-1], x[:-1])), F


def _gradient(points: np.ndarray, codes: np.ndarray, x: np.ndarray, shares: np.ndarray, ridge: float) -> np.ndarray:
    """The gradient at x; the shares there are overwritten."""
    shares[np.arange(len(shares)), codes] -= 1
    shares /= len(shares)
    gradient = np.empty_like(x)
    np.matmul(points.T, shares, out=gradient[:-1])
    gradient[:-1] += x.dtype.type(ridge) * x[:-1]
    gradient[-1] = shares.sum(axis=0)
    return gradient


def _principal(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The leading directions of the points, the variances along them, and the mean one along all others."""
    n, coordinates = points.shape
    size = min(_DIRECTIONS, n, coordinates)
    _, values, directions = randomized_svd(points, size, n_iter=2, random_state=0)
    variances = np.square(values, dtype=np.float64) / n
    total = float(np.vdot(points, points)) / n
    rest = max(total - float(variances.sum()), 0.0) / max(coordinates - size, 1)
    return np.ascontiguousarray(directions.T), variances, rest


def _penalised(pair: _Pair, more: float) -> _Pair:
    """The pair at a penalty that is so much larger."""
    change = pair.change.copy()
    change[:-1] += change.dtype.type(more) * pair.step[:-1]
    return _Pair(pair.step, change, 1 / float(np.vdot(pair.step, change)))


def _direction(
    gradient: np.ndarray, pairs: Sequence[_Pair], precondition: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The gradient through the approximate inverse of the Hessian: preconditioner, its size and the pairs corrected."""
    (axpy,) = get_blas_funcs(("axpy",), (gradient,))
    out, alphas = gradient.copy(), []
    for pair in reversed(pairs):
        alphas.append(pair.inverse * float(np.vdot(pair.step, out)))
        axpy(pair.change.ravel(), out.ravel(), a=-alphas[-1])  # in place: both are views
    out = precondition(out)
    if pairs:
        last = pairs[-1]
        out *= out.dtype.type(1 / (last.inverse * float(np.vdot(last.change, precondition(last.change)))))
    for pair, alpha in zip(pairs, reversed(alphas), strict=True):
        axpy(pair.step.ravel(), out.ravel(), a=alpha - pair.inverse * float(np.vdot(pair.change, out)))
    return out

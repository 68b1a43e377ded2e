r"""The anchor problem: the inner problem of mean-field manifold capacity (Chung, Lee & Sompolinsky 2018).

For a Gaussian draw :math:`t` and points :math:`z_m = (s_m, 1)`, mean-field theory projects :math:`t` on the cone of
vectors that classify the whole manifold with margin :math:`\kappa`:

.. math:: v = \arg\min_v \tfrac12 |v - t|^2 \quad\text{s.t.}\quad z_m \cdot v \le -\kappa \;\;\forall m .

Its dual is non-negative least squares in the multipliers :math:`a`, with one Gram matrix for all draws:

.. math:: \min_{a \ge 0} \tfrac12 a^\top K a - a^\top b, \qquad K = Z Z^\top, \quad b = Z t + \kappa .

The anchor point is :math:`\tilde s = \sum_m a_m z_m / \sum_m a_m`. When no constraint is active the draw is interior and
the anchor is the manifold's point of largest projection on :math:`t`.

Draws are solved by block principal pivoting (Judice & Pires 1994; Kim & Park 2011), which exchanges many columns at
once and needs a few factorisations; a draw that meets a (nearly) dependent set of columns is solved again by the active
set method of Lawson & Hanson (1974), which never adds a dependent column. Every draw carries its KKT residual.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

# A Cholesky pivot below this fraction of its diagonal entry counts as dependent. Pivoting leaves such sets to the active
# set method early (1e-9); there the limit is what float64 resolves of an inner product (1e-16) with some room.
_PIVOT_RTOL_BLOCK = 1e-9
_PIVOT_RTOL_ACTIVE = 1e-13
_KKT_RTOL = 1e-9
_SIGN_RTOL = 1e-12  # a multiplier or slack this far below zero, relative to the largest, is still zero

_kernel = njit(cache=True, nogil=True)  # its functions opt out of run-time type checks, which numba cannot compile


@dataclass(frozen=True)
class Anchors:
    """Anchor points of every draw, as weights over the manifold's points, with the evidence that they are right.

    ``weights`` (draws, points): rows sum to one. ``mass`` (draws,): the sum of multipliers, 0 for interior draws.
    ``residual`` (draws,): the largest violation of the KKT conditions, relative to the largest entry of b.
    """

    weights: Float[np.ndarray, "draws points"]
    mass: Float[np.ndarray, " draws"]
    residual: Float[np.ndarray, " draws"]

    @property
    def interior(self) -> np.ndarray:
        return self.mass == 0


def solve_anchors(
    points: Float[np.ndarray, "points dim"],
    draws: Float[np.ndarray, "draws dim_plus_1"],
    kappa: float = 0.0,
) -> Anchors:
    """Anchor points of a manifold for each Gaussian draw (last column of ``draws``: along the centre)."""
    Z = np.column_stack([points, np.ones(len(points))])
    b = draws @ Z.T + kappa
    multipliers, residual = _nonnegative_least_squares(Z @ Z.T, b)
    mass = multipliers.sum(axis=1)
    weights = np.zeros_like(multipliers)
    active = mass > 0
    weights[active] = multipliers[active] / mass[active, None]
    weights[~active, b[~active].argmax(axis=1)] = 1.0
    return Anchors(weights, mass, residual)


@_kernel
@no_type_check
def _nonnegative_least_squares(K, b):
    """Multipliers ``a >= 0`` that minimise ``a'Ka/2 - a'b`` for every row of ``b``, and their relative KKT residuals."""
    n_draws, m = b.shape
    a = np.zeros((n_draws, m))
    residual = np.zeros(n_draws)
    L, x, w = np.empty((m, m)), np.zeros(m), np.empty(m)
    for i in range(n_draws):
        scale = np.max(np.abs(b[i]))
        if np.max(b[i]) <= 0:
            continue  # interior: no constraint is violated by t itself
        solved = _block_pivoting(K, b[i], x, w, L)
        residual[i] = _kkt_residual(K, b[i], x, w) / scale
        if not solved or residual[i] > _KKT_RTOL:
            _active_set(K, b[i], x, w, L)
            residual[i] = _kkt_residual(K, b[i], x, w) / scale
        a[i] = x
    return a, residual


@_kernel
@no_type_check
def _kkt_residual(K, b, x, w):
    """Largest violation of: gradient <= 0 everywhere, and = 0 where x > 0 (x itself is >= 0 by construction)."""
    _gradient(K, b, x, w)
    worst = 0.0
    for j in range(len(x)):
        worst = max(worst, abs(w[j]) if x[j] > 0 else w[j])
    return worst


@_kernel
@no_type_check
def _gradient(K, b, x, w):
    """w = b - K x, the ascent direction of the dual."""
    w[:] = b
    for j in range(len(x)):
        if x[j] != 0:
            for i in range(len(x)):
                w[i] -= K[j, i] * x[j]


@_kernel
@no_type_check
def _solve_on(K, b, columns, n, L, solution, pivot_rtol):
    """Solve K[c, c] s = b[c] on the first ``n`` of ``columns`` by Cholesky; the index of a dependent column, or -1."""
    for p in range(n):
        for q in range(p + 1):
            value = K[columns[p], columns[q]]
            for r in range(q):
                value -= L[p, r] * L[q, r]
            if q < p:
                L[p, q] = value / L[q, q]
            elif value <= pivot_rtol * K[columns[p], columns[p]]:
                return p
            else:
                L[p, p] = np.sqrt(value)
    for p in range(n):
        value = b[columns[p]]
        for r in range(p):
            value -= L[p, r] * solution[r]
        solution[p] = value / L[p, p]
    for p in range(n - 1, -1, -1):
        value = solution[p]
        for r in range(p + 1, n):
            value -= L[r, p] * solution[r]
        solution[p] = value / L[p, p]
    return -1


@_kernel
@no_type_check
def _block_pivoting(K, b, x, w, L):
    """Exchange all infeasible columns at once; after three rounds without progress, the last one only (Murty's rule,
    which ends after finitely many steps). False when a set of columns is dependent or the rounds run out."""
    m = len(b)
    passive = np.zeros(m, np.bool_)
    columns, solution = np.empty(m, np.int64), np.empty(m)
    x[:] = 0.0
    w[:] = b
    fewest, chances = m + 1, 3
    for _ in range(10 * m + 20):
        x_tol, w_tol = _SIGN_RTOL * np.max(np.abs(x)), _SIGN_RTOL * np.max(np.abs(b))
        count, last = 0, -1
        for j in range(m):
            if (passive[j] and x[j] < -x_tol) or (not passive[j] and w[j] > w_tol):
                count, last = count + 1, j
        if count == 0:
            for j in range(m):
                x[j] = max(x[j], 0.0)
            return True
        if count < fewest:
            fewest, chances, block = count, 3, True
        else:
            chances -= 1
            block = chances >= 0
        n = 0
        for j in range(m):
            infeasible = (passive[j] and x[j] < -x_tol) or (not passive[j] and w[j] > w_tol)
            if infeasible and (block or j == last):
                passive[j] = not passive[j]
            if passive[j]:
                columns[n] = j
                n += 1
        if _solve_on(K, b, columns, n, L, solution, _PIVOT_RTOL_BLOCK) >= 0:
            return False
        x[:] = 0.0
        for p in range(n):
            x[columns[p]] = solution[p]
        _gradient(K, b, x, w)
    return False


@_kernel
@no_type_check
def _active_set(K, b, x, w, L):
    """Lawson & Hanson: add the column of steepest ascent, step back to the feasible set when a multiplier turns negative.

    b lies in the range of K (both come from the same points), so a column that depends on the passive ones has gradient
    zero and is never added but for rounding; a column that rounding brings is set aside until the set changes.
    """
    m = len(b)
    columns, solution = np.empty(m, np.int64), np.empty(m)
    blocked, passive = np.zeros(m, np.bool_), np.zeros(m, np.bool_)
    n = 0
    x[:] = 0.0
    w_tol = _SIGN_RTOL * np.max(np.abs(b))
    for _ in range(10 * m + 20):
        _gradient(K, b, x, w)
        best, steepest = -1, w_tol
        for j in range(m):
            if not passive[j] and not blocked[j] and w[j] > steepest:
                best, steepest = j, w[j]
        if best < 0:
            return
        columns[n] = best
        if _solve_on(K, b, columns, n + 1, L, solution, _PIVOT_RTOL_ACTIVE) >= 0:
            blocked[best] = True
            continue
        n += 1
        passive[best] = True
        blocked[:] = False
        while n > 0 and np.min(solution[:n]) <= 0:
            step = 1.0
            for p in range(n):
                if solution[p] <= 0:
                    step = min(step, x[columns[p]] / (x[columns[p]] - solution[p]))
            kept = 0
            for p in range(n):
                j = columns[p]
                x[j] += step * (solution[p] - x[j])
                if solution[p] <= 0 and x[j] <= _SIGN_RTOL * np.max(np.abs(x)):
                    x[j] = 0.0
                    passive[j] = False
                else:
                    columns[kept] = j
                    kept += 1
            n = kept
            _solve_on(K, b, columns, n, L, solution, _PIVOT_RTOL_ACTIVE)
        for p in range(n):
            x[columns[p]] = solution[p]

r"""The anchor problem: the inner problem of mean-field manifold capacity (Chung, Lee & Sompolinsky 2018).

For a Gaussian draw :math:`t` and points :math:`z_m = (s_m, 1)`, mean-field theory projects :math:`t` on the cone of
vectors that classify the whole manifold with margin :math:`\kappa`:

.. math:: v = \arg\min_v \tfrac12 |v - t|^2 \quad\text{s.t.}\quad z_m \cdot v \le -\kappa \;\;\forall m .

Its dual is non-negative least squares in the multipliers :math:`a`, with one Gram matrix for all draws:

.. math:: \min_{a \ge 0} \tfrac12 a^\top K a - a^\top b, \qquad K = Z Z^\top, \quad b = Z t + \kappa .

The anchor point is :math:`\tilde s = \sum_m a_m z_m / \sum_m a_m`. When no constraint is active the draw is interior and
the anchor is the manifold's point of largest projection on :math:`t`.

Two substitutions change nothing and make everything simpler: with ``t + kappa`` along the centre in place of ``t`` the
margin is zero, and with rows of Z of length one the diagonal of K is one (a point of any length spans the same ray).

A draw is solved in three steps, each of which may leave it to the next. *Coordinate descent* guesses the active points.
*Block principal pivoting* (Judice & Pires 1994; Kim & Park 2011) starts from the guess and exchanges many points at once;
few factorisations are needed. *The active set method* of Lawson & Hanson (1974) never adds a dependent point, and always
ends. Draws for which the Gram is too coarse are solved on the points themselves.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit
from scipy.optimize import nnls

_KKT_RTOL = 5e-10  # draws above it are solved once more; what is promised is 1e-9
# A Gram squares the ratio of radius to centre norm. Beyond 1e3 it holds the centre's 1 with fewer than ten digits (against
# exact arithmetic, projections were off by 1e-10 at radius 1e3, 1e-8 at 1e4, and wrong at 1e7); below 1e-5 it cannot tell
# points apart (right to the last digit at 1e-6, the wrong point at 1e-8).
_RADII_OF_A_GRAM = (1e-5, 1e3)
# A point counts as dependent on others when its squared distance from their span, relative to its length, is below this.
# Pivoting gives such sets up early (1e-9); for the active set the limit is the rounding of K, 1e-16, with some room.
_PIVOT_RTOL_BLOCK = 1e-9
_PIVOT_RTOL_ACTIVE = 1e-13
_SIGN_RTOL = 1e-12  # a multiplier or slack this far below zero, relative to the largest, is still zero
_MAX_SWEEPS = 12  # of coordinate descent; two or three settle easy draws, and 4 to 24 take the same time overall

_kernel = njit(cache=True, nogil=True)  # its functions opt out of run-time type checks, which numba cannot compile
# Sums may be regrouped, which lets inner loops use vector instructions; NaN and infinity keep their meaning.
_inner_kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})


@dataclass(frozen=True)
class Anchors:
    r"""Anchor points of every draw, as weights over the manifold's points, with the evidence that they are right.

    ``weights`` (draws, points): rows sum to one. ``mass`` (draws,): the sum of multipliers, 0 for interior draws; the
    projection is :math:`v = t - \text{mass} \cdot \text{weights}\, Z`. ``residual`` (draws,): the largest violation of the
    KKT conditions, see :func:`kkt_residual`.
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
    solver: str = "pivoting",
) -> Anchors:
    """Anchor points of the manifold of ``points`` for each Gaussian draw, at margin ``kappa``.

    ``points`` (M, D) lie around the manifold's centre, in units of the centre norm; ``draws`` (n_draws, D + 1) have the
    direction of the centre as their last column. ``solver``: ``"pivoting"`` is exact up to rounding; ``"cvxpy"`` hands
    every draw to Clarabel, an interior point method, for an independent check to about 1e-4, 400 times slower.

    The weights of dependent points (duplicates, more points than dimensions) are one choice of many; anchor, mass and
    projection are unique. A residual above 1e-9 says that a draw is not solved to that: it happens at radii above 1e6,
    where the multipliers' own rounding, 1e-16 times the radius, is seen.

    Raises ``ValueError`` on an unknown solver, and on draws that do not have one column more than the points.

    >>> S = np.array([[1.0], [-1.0]])  # a segment
    >>> solve_anchors(S, np.array([[0.5, 0.0], [0.1, 1.0], [0.5, -1.0]])).weights @ S
    array([[1. ],
           [0.1],
           [1. ]])
    """
    if draws.shape[1] != points.shape[1] + 1:
        raise ValueError(
            f"draws need {points.shape[1] + 1} columns (the points' and the centre's), got {draws.shape[1]}"
        )
    Z = np.column_stack([points, np.ones(len(points))])
    return solve_cone(Z, np.column_stack([draws[:, :-1], draws[:, -1] + kappa]), solver)


def solve_cone(
    Z: Float[np.ndarray, "points dim"], t: Float[np.ndarray, "draws dim"], solver: str = "pivoting"
) -> Anchors:
    r"""Anchor points of any points ``Z``, seen from the origin: :math:`\min_v |v - t|^2` with :math:`z_m \cdot v \le 0`.

    Raises ``ValueError`` on an unknown solver.
    """
    if solver not in _SOLVERS:
        raise ValueError(f"solver must be one of {sorted(_SOLVERS)}, got {solver!r}")
    lengths, radius = np.linalg.norm(Z, axis=1), float(np.abs(Z[:, :-1]).max(initial=0.0))
    lengths[lengths == 0] = 1.0  # a point at the origin asks nothing
    multipliers, residual = _SOLVERS[solver](Z / lengths[:, None], t, radius)
    multipliers /= lengths
    mass = multipliers.sum(axis=1)
    interior = mass == 0
    weights = multipliers / np.where(interior, 1.0, mass)[:, None]
    weights[interior, (t[interior] @ Z.T).argmax(axis=1)] = 1.0
    return Anchors(weights, mass, residual)


def kkt_residual(
    unit: Float[np.ndarray, "points dim"], t: Float[np.ndarray, "draws dim"], a: Float[np.ndarray, "draws points"]
) -> Float[np.ndarray, " draws"]:
    r"""How far multipliers ``a`` are from the projection v of ``t`` on :math:`\{v : z_m \cdot v \le 0\}`, |z_m| = 1.

    .. math:: \max_m |\min(a_m, -z_m \cdot v)| \,/\, \max_m |z_m \cdot t|, \qquad v = t - Z^\top a

    It vanishes just where v is feasible, a is non-negative, and one of the two is zero for every point; it is computed
    from the points ``unit``, so that what their Gram cannot resolve is seen. Where :math:`Z t = 0` it is not relative.
    """
    return _natural_residuals(a, t @ unit.T, (t - a @ unit) @ unit.T)


def _by_pivoting(unit: np.ndarray, t: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers from the Gram; on the points themselves where the Gram is too coarse.

    The Gram's residual is honest to 1e-12: multipliers of unit rows sum to less than the radius times |t| (the last
    coordinate of Z'a is at most |t|), and they multiply a rounding of 1e-16.
    """
    smallest, largest = _RADII_OF_A_GRAM
    if radius > 0 and not smallest <= radius <= largest:  # points that are all equal are no trouble
        return _on_points(unit, t, radius)
    a, residual = nonnegative_least_squares(unit @ unit.T, t @ unit.T)
    coarse = np.flatnonzero(residual > _KKT_RTOL)
    if len(coarse):
        again, residual_again = _on_points(unit, t[coarse], radius)
        better = residual_again < residual[coarse]
        a[coarse[better]], residual[coarse[better]] = again[better], residual_again[better]
    return a, residual


def _on_points(unit: np.ndarray, t: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """min |Z'a - t| by scipy's active set method with orthogonal factors, whose condition is the root of the Gram's."""
    a = np.zeros((len(t), len(unit)))
    for i in _not_interior(unit, t):
        with suppress(RuntimeError):  # out of iterations: multipliers stay zero, and the residual says so
            a[i] = nnls(unit.T, t[i], maxiter=30 * len(unit))[0]
    return a, kkt_residual(unit, t, a)


def _by_cvxpy(unit: np.ndarray, t: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers of the constraints z.v <= 0 as Clarabel reports them; draws share one compiled problem."""
    import cvxpy  # slow to import, and only for this check

    v, draw = cvxpy.Variable(unit.shape[1]), cvxpy.Parameter(unit.shape[1])
    constraint = unit @ v <= 0
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(v - draw) / 2), [constraint])
    a = np.zeros((len(t), len(unit)))
    for i in _not_interior(unit, t):
        draw.value = t[i]
        problem.solve(solver=cvxpy.CLARABEL)
        a[i] = np.maximum(constraint.dual_value, 0.0)
    return a, kkt_residual(unit, t, a)


def _not_interior(unit: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.flatnonzero((t @ unit.T).max(axis=1) > 0)


_SOLVERS: dict[str, Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]] = {
    "pivoting": _by_pivoting,
    "cvxpy": _by_cvxpy,
}


@_inner_kernel
@no_type_check
def _natural_residual(a, b, w):
    """max_m |min(a_m, -w_m)| / max_m |b_m|."""
    worst, scale = 0.0, 0.0
    for j in range(len(b)):
        worst = max(worst, abs(min(a[j], -w[j])))
        scale = max(scale, abs(b[j]))
    return worst / scale if scale > 0 else worst


@_kernel
@no_type_check
def _natural_residuals(A, B, W):
    residual = np.empty(len(B))
    for i in range(len(B)):
        residual[i] = _natural_residual(A[i], B[i], W[i])
    return residual


@_kernel
@no_type_check
def nonnegative_least_squares(K, B):
    """Multipliers ``a >= 0`` that minimise ``a'Ka/2 - a'b`` for every row b of ``B``, and their residuals.

    K has a diagonal of ones.
    """
    n_draws, m = B.shape
    A, residual = np.zeros((n_draws, m)), np.zeros(n_draws)
    U, s, w = np.empty((m, m + 1)), np.empty(m), np.empty(m)
    columns, passive, wrong = np.empty(m, np.int64), np.empty(m, np.bool_), np.empty(m, np.bool_)
    for i in range(n_draws):
        b, x = B[i], A[i]
        if np.max(b) <= 0:
            continue  # interior: no constraint is violated by t itself
        _coordinate_descent(K, b, x, w)
        if not _block_pivoting(K, b, x, w, U, s, columns, passive, wrong):
            _active_set(K, b, x, w, U, s, columns, passive, wrong)
        residual[i] = _natural_residual(x, b, w)
        np.maximum(x, 0.0, x)
    return A, residual


@_inner_kernel
@no_type_check
def _coordinate_descent(K, b, x, w):
    """Sweep x_j = max(x_j + w_j, 0), w = b - K x, from x = 0, until two sweeps agree on which x are positive."""
    m = len(b)
    w[:] = b
    for _ in range(_MAX_SWEEPS):
        settled = True
        for j in range(m):
            old = x[j]
            new = max(old + w[j], 0.0)
            if new != old:
                settled &= (new > 0) == (old > 0)
                x[j] = new
                row, step = K[j], new - old
                for i in range(m):
                    w[i] -= step * row[i]
        if settled:
            return


@_inner_kernel
@no_type_check
def _factor(K, b, columns, n, kept, U, pivot_tol):
    """Cholesky rows U'U = K[c, c] of the first ``n`` of ``columns``, with U'^-1 b as last column; returns n.

    The factor of the first ``kept`` columns is there already. A column that depends on those before it changes place with
    the last one and is left out: the returned n counts the others.
    """
    k = 0
    while k < n:
        first = max(k, kept)
        u, row = U[k], K[columns[k]]
        for j in range(first, n):
            u[j] = row[columns[j]]
        u[n] = b[columns[k]]
        _subtract_rows(U, k, first, n + 1, u)
        pivot = u[k]
        if k >= kept:
            if pivot <= pivot_tol:
                n -= 1
                columns[k], columns[n] = columns[n], columns[k]
                for r in range(k):
                    U[r, k], U[r, n] = U[r, n], U[r, n + 1]
                continue
            pivot = np.sqrt(pivot)
        inverse = 1.0 / pivot
        for j in range(first, n + 1):
            u[j] *= inverse
        k += 1
    return n


@_inner_kernel
@no_type_check
def _subtract_rows(U, k, first, end, u):
    """u -= sum_{r < k} U[r, k] U[r] on the places first..end; four rows at a time, so that u is loaded and stored less."""
    r = 0
    while r + 4 <= k:
        u0, u1, u2, u3 = U[r], U[r + 1], U[r + 2], U[r + 3]
        f0, f1, f2, f3 = u0[k], u1[k], u2[k], u3[k]
        for j in range(first, end):
            u[j] -= f0 * u0[j] + f1 * u1[j] + f2 * u2[j] + f3 * u3[j]
        r += 4
    while r < k:
        u0, f0 = U[r], U[r, k]
        for j in range(first, end):
            u[j] -= f0 * u0[j]
        r += 1


@_inner_kernel
@no_type_check
def _back_substitute(U, n, s):
    """The solution of K[c, c] s = b[c] from the factor."""
    for p in range(n - 1, -1, -1):
        u = U[p]
        value = u[n]
        for r in range(p + 1, n):
            value -= u[r] * s[r]
        s[p] = value / u[p]


@_inner_kernel
@no_type_check
def _gradient(K, b, columns, n, s, w):
    """w = b - K x, the ascent direction of the dual, for x = s on the columns."""
    m = len(b)
    w[:] = b
    p = 0
    while p + 4 <= n:
        k0, k1, k2, k3 = K[columns[p]], K[columns[p + 1]], K[columns[p + 2]], K[columns[p + 3]]
        s0, s1, s2, s3 = s[p], s[p + 1], s[p + 2], s[p + 3]
        for i in range(m):
            w[i] -= s0 * k0[i] + s1 * k1[i] + s2 * k2[i] + s3 * k3[i]
        p += 4
    while p < n:
        k0, s0 = K[columns[p]], s[p]
        for i in range(m):
            w[i] -= s0 * k0[i]
        p += 1


@_kernel
@no_type_check
def _support(x, columns, passive):
    """Columns with x > 0, their number, and the same as a mask."""
    n = 0
    for j in range(len(x)):
        passive[j] = x[j] > 0
        if passive[j]:
            columns[n] = j
            n += 1
    return n


@_kernel
@no_type_check
def _block_pivoting(K, b, x, w, U, s, columns, passive, wrong):
    """Exchange all infeasible columns at once; after three rounds without progress, the last one only (Murty's rule,
    which ends after finitely many steps where no set of columns is dependent).

    Starts from the support of x. True when x is the solution; False, with x unchanged, when the rounds run out.
    """
    n, kept = _support(x, columns, passive), 0
    fewest, chances = len(b) + 1, 3
    for _ in range(len(b) + 20):
        if _factor(K, b, columns, n, kept, U, _PIVOT_RTOL_BLOCK) < n:
            return False
        _back_substitute(U, n, s)
        _gradient(K, b, columns, n, s, w)
        infeasible = _find_infeasible(b, w, s, columns, n, passive, wrong)
        if infeasible == 0:
            _scatter(s, columns, n, x)
            return True
        chances = 3 if infeasible < fewest else chances - 1
        fewest = min(fewest, infeasible)
        if chances < 0:
            _keep_last(wrong)
        n, kept = _exchange(columns, n, passive, wrong)
    return False


@_kernel
@no_type_check
def _find_infeasible(b, w, s, columns, n, passive, wrong):
    """Mark the columns with a negative multiplier, or outside the set and with a positive gradient; their number."""
    tolerance = _SIGN_RTOL * np.max(np.abs(b))
    count = 0
    for j in range(len(b)):
        wrong[j] = not passive[j] and w[j] > tolerance
        count += wrong[j]
    for p in range(n):
        if s[p] < -tolerance:
            wrong[columns[p]] = True
            count += 1
    return count


@_kernel
@no_type_check
def _keep_last(wrong):
    found = False
    for j in range(len(wrong) - 1, -1, -1):
        wrong[j] &= not found
        found |= wrong[j]


@_kernel
@no_type_check
def _exchange(columns, n, passive, wrong):
    """Take the wrong columns out of the set, or into it at its end; its size, and how much of its head is as it was."""
    for j in range(len(wrong)):
        passive[j] ^= wrong[j]
    size, kept = 0, n
    for p in range(n):
        if passive[columns[p]]:
            columns[size] = columns[p]
            size += 1
        else:
            kept = min(kept, p)
    for j in range(len(wrong)):
        if wrong[j] and passive[j]:
            columns[size] = j
            size += 1
    return size, kept


@_kernel
@no_type_check
def _scatter(s, columns, n, x):
    x[:] = 0.0
    for p in range(n):
        x[columns[p]] = s[p]


@_kernel
@no_type_check
def _active_set(K, b, x, w, U, s, columns, passive, blocked):
    """Lawson & Hanson: add the column of steepest ascent, step back to the feasible set when a multiplier turns negative.

    Starts from the feasible x. b lies in the range of K (both come from the same points), so a column that depends on the
    passive ones has gradient zero and is never added but for rounding; a column that rounding brings is set aside until
    the set changes.
    """
    n = _independent_support(K, b, x, U, columns, passive)
    n = _least_squares_inside(K, b, x, U, s, columns, n, passive)
    blocked[:] = False
    for _ in range(10 * len(b) + 20):
        _gradient(K, b, columns, n, s, w)
        best = _steepest(b, w, passive, blocked)
        if best < 0:
            return
        columns[n] = best
        grown = _factor(K, b, columns, n + 1, n, U, _PIVOT_RTOL_ACTIVE)
        _back_substitute(U, grown, s)
        if grown == n or s[n] <= 0:
            blocked[best] = True
            _factor(K, b, columns, n, n, U, _PIVOT_RTOL_ACTIVE)
            _back_substitute(U, n, s)
            continue
        passive[best] = True
        blocked[:] = False
        n = _least_squares_inside(K, b, x, U, s, columns, grown, passive)


@_kernel
@no_type_check
def _independent_support(K, b, x, U, columns, passive):
    """The factor of the columns with x > 0; those that depend on others are left out, with x = 0."""
    asked = _support(x, columns, passive)
    n = _factor(K, b, columns, asked, 0, U, _PIVOT_RTOL_ACTIVE)
    for p in range(n, asked):
        x[columns[p]] = 0.0
        passive[columns[p]] = False
    return n


@_kernel
@no_type_check
def _steepest(b, w, passive, blocked):
    """The column outside the set with the largest gradient, or -1 where none is positive."""
    best, steepest = -1, _SIGN_RTOL * np.max(np.abs(b))
    for j in range(len(b)):
        if not passive[j] and not blocked[j] and w[j] > steepest:
            best, steepest = j, w[j]
    return best


@_kernel
@no_type_check
def _least_squares_inside(K, b, x, U, s, columns, n, passive):
    """Move x to the least-squares solution s on the columns; columns that would turn negative leave at zero on the way."""
    _back_substitute(U, n, s)
    while n > 0 and np.min(s[:n]) <= 0:
        step = 1.0
        for p in range(n):
            if s[p] <= 0:
                step = min(step, x[columns[p]] / (x[columns[p]] - s[p])) if x[columns[p]] > 0 else 0.0
        n, kept = _move(x, s, step, columns, n, passive)
        n = _factor(K, b, columns, n, kept, U, 0.0)
        _back_substitute(U, n, s)
    _scatter(s, columns, n, x)
    return n


@_kernel
@no_type_check
def _move(x, s, step, columns, n, passive):
    """x += step (s - x); columns that reach zero leave: the size of the set, and how much of its head is as it was."""
    floor = _SIGN_RTOL * np.max(x)
    size, kept = 0, n
    for p in range(n):
        j = columns[p]
        x[j] += step * (s[p] - x[j])
        if s[p] <= 0 and x[j] <= floor:
            x[j], passive[j] = 0.0, False
            kept = min(kept, p)
        else:
            columns[size] = j
            size += 1
    return size, kept

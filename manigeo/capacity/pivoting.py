r"""Non-negative least squares by pivoting: one matrix of inner products, many right-hand sides.

.. math:: \min_{a \ge 0} \tfrac12 a^\top K a - a^\top b, \qquad w = b - K a,

is solved where :math:`a \ge 0`, :math:`w \le 0`, and one of the two vanishes in every place.

A right-hand side is solved in three steps, each of which may leave it to the next. *Coordinate descent* guesses where a
is positive. *Block principal pivoting* (Judice & Pires 1994; Kim & Park 2011) starts from the guess and exchanges many
columns at once; few factorisations are needed. *The active set method* of Lawson & Hanson (1974) never adds a dependent
column, and always ends.
"""

from typing import no_type_check

import numpy as np
from numba import njit

# A column counts as dependent on others when its squared distance from their span, relative to its length, is below this.
# Pivoting gives such sets up early (1e-9); for the active set the limit is the rounding of K, 1e-16, with some room.
_PIVOT_RTOL_BLOCK = 1e-9
_PIVOT_RTOL_ACTIVE = 1e-13
_SIGN_RTOL = 1e-12  # a multiplier or slack this far below zero, relative to the largest, is still zero
_MAX_SWEEPS = 12  # of coordinate descent; two or three settle easy draws, and 4 to 24 take the same time overall

_kernel = njit(cache=True, nogil=True)  # its functions opt out of run-time type checks, which numba cannot compile
# Sums may be regrouped, which lets inner loops use vector instructions; NaN and infinity keep their meaning.
_inner_kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})


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
def natural_residuals(A, B, W):
    """``max_m |min(a_m, -w_m)| / max_m |b_m|`` of all rows (n, m): zero (n,) for minimisers A, where W = B - A K."""
    residual = np.empty(len(B))
    for i in range(len(B)):
        residual[i] = _natural_residual(A[i], B[i], W[i])
    return residual


@_kernel
@no_type_check
def nonnegative_least_squares(K, B):
    """Multipliers ``a >= 0`` (n, m) that minimise ``a'Ka/2 - a'b`` for every row b of ``B`` (n, m), and residuals (n,).

    ``K`` (m, m) holds the inner products of m vectors of length one, and b those with another vector: then b lies in the
    range of K, however dependent the m vectors are. A residual is that of :func:`natural_residuals`.

    >>> a, residual = nonnegative_least_squares(np.eye(2), np.array([[3.0, -1.0]]))
    >>> a.tolist(), residual.tolist()
    ([[3.0, 0.0]], [0.0])
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
    for _ in range(10 * len(b) + 20):  # a column leaves every time, where K is a Gram matrix
        if n == 0 or not np.min(s[:n]) <= 0:
            break
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

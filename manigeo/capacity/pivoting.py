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

from manigeo.capacity.kernels import inner_kernel, kernel

# A column counts as dependent on others when its squared distance from their span, relative to its length, is below this.
# Pivoting gives such sets up early (1e-9); for the active set the limit is the rounding of K, 1e-16, with some room.
_PIVOT_RTOL_BLOCK = 1e-9
_PIVOT_RTOL_ACTIVE = 1e-13
_SIGN_RTOL = 1e-12  # a multiplier or slack this far below zero, relative to the largest, is still zero
_ITERATIONS = 30  # a column, of the active set method on points; scipy's own 3 are too few for steep spectra
_MAX_SWEEPS = 12  # of coordinate descent; two or three settle easy draws, and 4 to 24 take the same time overall


def natural_residuals(A: np.ndarray, B: np.ndarray, W: np.ndarray) -> np.ndarray:
    """``max_m |min(a_m, -w_m)| / max_m |b_m|`` of all rows (n, m): zero (n,) for minimisers A, where W = B - A K."""
    worst, scale = np.abs(np.minimum(A, -W)).max(axis=1), np.abs(B).max(axis=1)
    return worst / np.where(scale > 0, scale, 1.0)


def nonnegative_least_squares(K: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers ``a >= 0`` (n, m) that minimise ``a'Ka/2 - a'b`` for every row b of ``B`` (n, m), and residuals (n,).

    ``K`` (m, m) holds the inner products of m vectors of length one, and b those with another vector: then b lies in the
    range of K, however dependent the m vectors are. A residual is that of :func:`natural_residuals`.

    >>> a, residual = nonnegative_least_squares(np.eye(2), np.array([[3.0, -1.0]]))
    >>> a.tolist(), residual.tolist()
    ([[3.0, 0.0]], [0.0])
    """
    K, B = np.ascontiguousarray(K), np.ascontiguousarray(B)
    n_draws, m = B.shape
    A, residual = np.zeros((n_draws, m)), np.zeros(n_draws)
    work = np.empty((m, m + 1)), np.empty((2, m)), np.empty((3, m), np.int64)
    if _by_blocks(K, B, A, residual, *work):
        _by_active_sets(K, B, A, residual, *work)
    return A, residual


def lawson_hanson(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The ``x >= 0`` (m,) that minimises ``|A x - b|``, from A (n, m) itself: slower than from its products, whose condition
    is the square. All zero where it gives up.

    >>> lawson_hanson(np.eye(2), np.array([3.0, -1.0])).tolist()
    [3.0, 0.0]
    """
    from scipy.optimize import nnls  # slow to import, and seldom needed

    try:
        x: np.ndarray = nnls(A, b, maxiter=_ITERATIONS * A.shape[1])[0]
    except RuntimeError:
        return np.zeros(A.shape[1])
    return x


@kernel("int64(f8[:, ::1], f8[:, ::1], f8[:, ::1], f8[::1], f8[:, ::1], f8[:, ::1], i8[:, ::1])")
@no_type_check
def _by_blocks(K, B, A, residual, U, real, whole):
    """Solve all rows by coordinate descent and block pivoting; the number of those left, whose residual is negative."""
    left = 0
    for i in range(len(B)):
        b, x = B[i], A[i]
        if _largest(b) <= 0:
            continue  # interior: no constraint is violated by t itself
        _coordinate_descent(K, b, x, real[1])
        if _block_pivoting(K, b, x, U, real[0], real[1], whole[0], whole[1], whole[2]):
            residual[i] = _natural_residual(x, b, real[1])
        else:
            residual[i] = -1.0
            left += 1
    return left


@kernel()
@no_type_check
def _by_active_sets(K, B, A, residual, U, real, whole):
    """Solve the rows whose residual is negative by the active set method."""
    for i in range(len(B)):
        if residual[i] < 0:
            _active_set(K, B[i], A[i], U, real[0], real[1], whole[0], whole[1], whole[2])
            residual[i] = _natural_residual(A[i], B[i], real[1])


@inner_kernel
@no_type_check
def _natural_residual(x, b, w):
    """max_m |min(x_m, -w_m)| / max_m |b_m|; what is below zero in x is rounding, and is taken away."""
    worst, scale = 0.0, 0.0
    for j in range(len(b)):
        worst = max(worst, abs(min(x[j], -w[j])))
        scale = max(scale, abs(b[j]))
        x[j] = max(x[j], 0.0)
    return worst / scale if scale > 0 else worst


@inner_kernel
@no_type_check
def _largest(b):
    largest = b[0]
    for j in range(1, len(b)):
        largest = max(largest, b[j])
    return largest


@inner_kernel
@no_type_check
def _noise(b):
    """Distance below zero at which a multiplier or slack still is zero."""
    largest = 0.0
    for j in range(len(b)):
        largest = max(largest, abs(b[j]))
    return _SIGN_RTOL * largest


@inner_kernel
@no_type_check
def _coordinate_descent(K, b, x, w):
    """Sweep x_j = max(x_j + w_j, 0), w = b - K x, from x = 0, until two sweeps agree on which x are positive."""
    m = len(b)
    for j in range(m):
        w[j] = b[j]
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


@inner_kernel
@no_type_check
def _solve(K, b, columns, n, kept, U, s, w, pivot_tol):
    """Least squares on the first ``n`` of ``columns``: s solves K[c, c] s = b[c], and w = b - K[:, c] s; returns n.

    The Cholesky rows U'U = K[c, c], with U'^-1 b as last column, of the first ``kept`` columns are there already. A column
    that depends on those before it changes place with the last one and is left out: the returned n counts the others.
    """
    k = 0
    while k < n:
        first = max(k, kept)
        u, row = U[k], K[columns[k]]
        for j in range(first, n):
            u[j] = row[columns[j]]
        u[n] = b[columns[k]]
        r = 0
        while r + 4 <= k:  # four rows at a time, so that u is loaded and stored less
            u0, u1, u2, u3 = U[r], U[r + 1], U[r + 2], U[r + 3]
            f0, f1, f2, f3 = u0[k], u1[k], u2[k], u3[k]
            for j in range(first, n + 1):
                u[j] -= f0 * u0[j] + f1 * u1[j] + f2 * u2[j] + f3 * u3[j]
            r += 4
        while r < k:
            u0, f0 = U[r], U[r, k]
            for j in range(first, n + 1):
                u[j] -= f0 * u0[j]
            r += 1
        pivot = u[k]
        if k >= kept:
            if pivot <= pivot_tol:
                n -= 1
                columns[k], columns[n] = columns[n], columns[k]
                for r in range(k):
                    U[r, k], U[r, n] = U[r, n], U[r, n + 1]
                continue
            pivot = np.sqrt(pivot)
        for j in range(first, n + 1):
            u[j] /= pivot
        k += 1
    for j in range(len(b)):
        w[j] = b[j]
    for p in range(n - 1, -1, -1):
        u, value = U[p], U[p, n]
        for r in range(p + 1, n):
            value -= u[r] * s[r]
        s[p] = value / u[p]
        row = K[columns[p]]
        for j in range(len(b)):
            w[j] -= s[p] * row[j]
    return n


@inner_kernel
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


@inner_kernel
@no_type_check
def _scatter(s, columns, n, x):
    for j in range(len(x)):
        x[j] = 0.0
    for p in range(n):
        x[columns[p]] = s[p]


@inner_kernel
@no_type_check
def _block_pivoting(K, b, x, U, s, w, columns, passive, wrong):
    """Exchange all infeasible columns at once; after three rounds without progress, the last one only (Murty's rule,
    which ends after finitely many steps where no set of columns is dependent).

    Starts from the support of x. True when x is the solution; False, with x unchanged, when the rounds run out.
    """
    noise, n, kept = _noise(b), _support(x, columns, passive), np.int64(0)
    fewest, chances = len(b) + 1, 3
    for _ in range(len(b) + 20):
        if _solve(K, b, columns, n, kept, U, s, w, _PIVOT_RTOL_BLOCK) < n:
            return False
        infeasible, last = _find_infeasible(w, s, noise, columns, n, passive, wrong)
        if infeasible == 0:
            _scatter(s, columns, n, x)
            return True
        chances = 3 if infeasible < fewest else chances - 1
        fewest = min(fewest, infeasible)
        n, kept = _exchange(columns, n, passive, wrong, last if chances < 0 else 0)
    return False


@inner_kernel
@no_type_check
def _find_infeasible(w, s, noise, columns, n, passive, wrong):
    """Mark the columns with a negative multiplier, or outside the set and with a positive gradient; their number and the
    last of them."""
    for p in range(n):
        wrong[columns[p]] = s[p] < -noise
    count, last = 0, 0
    for j in range(len(w)):
        if not passive[j]:
            wrong[j] = w[j] > noise
        if wrong[j]:
            count += 1
            last = j
    return count, last


@inner_kernel
@no_type_check
def _exchange(columns, n, passive, wrong, first):
    """Take the wrong columns, from the ``first`` on, out of the set, or into it at its end; its size, and how much of its
    head is as it was."""
    size, kept = 0, n
    for p in range(n):
        j = columns[p]
        if wrong[j] and j >= first:
            passive[j], wrong[j] = False, False
            kept = min(kept, p)
        else:
            columns[size] = j
            size += 1
    for j in range(first, len(wrong)):
        if wrong[j]:
            passive[j] = True
            columns[size] = j
            size += 1
    return size, kept


@inner_kernel
@no_type_check
def _active_set(K, b, x, U, s, w, columns, passive, blocked):
    """Lawson & Hanson: add the column of steepest ascent, step back to the feasible set when a multiplier turns negative.

    Starts from the feasible x. b lies in the range of K (both come from the same points), so a column that depends on the
    passive ones has gradient zero and is never added but for rounding; a column that rounding brings is set aside until
    the set changes.
    """
    noise, asked = _noise(b), _support(x, columns, passive)
    n = _solve(K, b, columns, asked, np.int64(0), U, s, w, _PIVOT_RTOL_ACTIVE)
    for p in range(n, asked):  # those that depend on others
        x[columns[p]], passive[columns[p]] = 0.0, False
    n, changed = _least_squares_inside(K, b, x, U, s, w, columns, n, passive), True
    for _ in range(10 * len(b) + 20):
        best = _steepest(w, noise, passive, blocked, changed)
        if best < 0:
            return
        columns[n] = best
        grown = _solve(K, b, columns, n + 1, n, U, s, w, _PIVOT_RTOL_ACTIVE)
        changed = grown > n and s[n] > 0
        if changed:
            passive[best] = True
            n = _least_squares_inside(K, b, x, U, s, w, columns, grown, passive)
        else:
            blocked[best] = True
            _solve(K, b, columns, n, n, U, s, w, _PIVOT_RTOL_ACTIVE)


@inner_kernel
@no_type_check
def _steepest(w, noise, passive, blocked, unblock):
    """The column outside the set with the largest gradient, or -1 where none is positive."""
    best, steepest = -1, noise
    for j in range(len(w)):
        if unblock:
            blocked[j] = False
        if not passive[j] and not blocked[j] and w[j] > steepest:
            best, steepest = j, w[j]
    return best


@inner_kernel
@no_type_check
def _least_squares_inside(K, b, x, U, s, w, columns, n, passive):
    """Move x to the least-squares solution s on the columns; columns that would turn negative leave at zero on the way."""
    for _ in range(10 * len(b) + 20):  # a column leaves every time, where K is a Gram matrix
        step, inside = 1.0, True
        for p in range(n):
            if s[p] <= 0:
                inside, old = False, x[columns[p]]
                step = min(step, old / (old - s[p])) if old > 0 else 0.0
        if inside:
            break
        n, kept = _move(x, s, step, columns, n, passive)
        n = _solve(K, b, columns, n, kept, U, s, w, 0.0)
    _scatter(s, columns, n, x)
    return n


@inner_kernel
@no_type_check
def _move(x, s, step, columns, n, passive):
    """x += step (s - x); columns that reach zero leave: the size of the set, and how much of its head is as it was."""
    floor = _SIGN_RTOL * _largest(x)
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

r"""Projection on the cone of signed points: the inner problem of joint manifold capacity (Chou et al. 2024).

All manifolds' points :math:`z_i` with their labels :math:`y_i = \pm 1` span a cone; a Gaussian draw :math:`t` is
projected on it by non-negative least squares, with one Gram matrix for all draws and labels:

.. math:: \min_{x \ge 0} \tfrac12 \Big|t - \sum_i x_i y_i z_i\Big|^2 = \min_{x \ge 0} \tfrac12 x^\top K x - b^\top x + c,
          \qquad K_{ij} = y_i y_j z_i \cdot z_j, \quad b_i = y_i z_i \cdot t .

Coordinate descent in float32 finds nearly all points with :math:`x > 0`, and block principal pivoting (Kim & Park 2011)
ends it exactly, by four or five factorisations on their set. Where nearly as many points are active as there are
dimensions, or the draw lies inside the cone, :math:`K` is singular and exchanging columns in blocks breaks down. The
proximal point method (Rockafellar 1976) asks instead for

.. math:: x_{k+1} = \arg\min_{x \ge 0} \tfrac12 x^\top K x - b^\top x + \tfrac{\epsilon}{2} |x - x_k|^2 ,

each solved by a few semismooth Newton steps on its dual (Li, Sun & Toh 2018): a step is one Cholesky factorisation of
:math:`K + \epsilon` on the working set :math:`\{i : b - Kx + \epsilon x_k > 0\}`, which changes by whole blocks. Two or
three values of :math:`\epsilon` bring the set so close to the active one that block principal pivoting ends it exactly;
a draw inside the cone ends as soon as a small correction of :math:`x` reaches it. Whatever does not end this way goes to
scipy's active set method. Every projection carries its KKT residual over *all* points.
"""

from dataclasses import dataclass
from functools import partial
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import lapack

from manigeo.capacity.kernels import kernel
from manigeo.capacity.pivoting import lawson_hanson

# Points have norm one, so K has a unit diagonal. On real layers a first shift of a third of this, or halving the decade
# between shifts, changed the time of a draw by a quarter at most.
_FIRST_SHIFT = 0.03
_NEXT_SHIFT = 0.1
_LAST_SHIFT = 1e-8
_PROXIMAL_POINTS = 20
_SINGLE_SHIFT = 2e-3  # above it a factor in float32, twice as fast, still gives a descent direction
_NEWTON_STEPS = 12
_SAME_SET = 0.01  # a working set that moves by less than this share is settled: the next shift moves it more
_SWEEPS = 60  # of coordinate descent: 20 to 40 settle draws of real layers, and take as long as one factorisation
_EXCHANGES = 12
_HOPELESS = 0.5  # a set of which more than this share is wrong is left to the next shift
_PIVOT_RTOL = 1e-6  # a Cholesky pivot (a distance from the span of the others) below this counts as dependent
_SLACK_RTOL = 1e-11
_SINGLE_SLACK_RTOL = 1e-5  # the rounding of sums of hundreds of terms in float32
_KKT_RTOL = 1e-9
_INSIDE_RTOL = 1e-6  # a remainder this small against the draw is rounding: the draw lies in the cone
_GRAM_POINTS = 5000  # up to here the Gram (200 MB, and half of it in float32) is kept, above it comes from the points


@dataclass(frozen=True)
class UnitPoints:
    """Points of norm one, and what all draws share of them: ``gram`` is None where the points are cheaper to keep."""

    points: Float[np.ndarray, "points dim"]
    points_single: Float[np.ndarray, "points dim"]
    gram: Float[np.ndarray, "points points"] | None
    gram_single: Float[np.ndarray, "points points"] | None

    @classmethod
    def of(cls, points: Float[np.ndarray, "points dim"], gram_points: int = _GRAM_POINTS) -> "UnitPoints":
        """Share ``points`` (rows of norm one); the Gram is kept for up to ``gram_points`` of them."""
        gram = points @ points.T if len(points) <= gram_points else None
        return cls(points, points.astype(np.float32), gram, None if gram is None else gram.astype(np.float32))

    def block(self, A: Int[np.ndarray, " active"], single: bool) -> Float[np.ndarray, "active active"]:
        """The Gram of the points ``A``."""
        gram = self.gram_single if single else self.gram
        if gram is not None:
            return gram[A][:, A]
        Z = (self.points_single if single else self.points)[A]
        return Z @ Z.T

    def products(self, A: Int[np.ndarray, " active"], x: Float[np.ndarray, " active"]) -> Float[np.ndarray, " points"]:
        """Inner products of all points with ``sum_i x_i z_i`` over the points ``A``."""
        return x @ self.gram[A] if self.gram is not None else self.points @ (x @ self.points[A])


@dataclass(frozen=True)
class Projection:
    """The projection of a draw on the cone, as multipliers of the points, with the evidence that it is right.

    ``active``: the points with a positive multiplier, ascending; ``multipliers``: theirs. ``residual``: the largest
    violation of the KKT conditions over all points, relative to the largest \\|b\\|. ``inside``: the draw lies in the cone.
    """

    active: Int[np.ndarray, " active"]
    multipliers: Float[np.ndarray, " active"]
    residual: float
    inside: bool


def project_on_cone(
    shared: UnitPoints, signs: Float[np.ndarray, " points"], draw: Float[np.ndarray, " dim"]
) -> Projection:
    """Project ``draw`` on the cone of ``signs[i] * points[i]``.

    >>> axes = UnitPoints.of(np.eye(3))
    >>> p = project_on_cone(axes, np.array([1.0, -1.0, 1.0]), np.array([3.0, 4.0, -5.0]))
    >>> p.active.tolist(), p.multipliers.tolist()
    ([0], [3.0])
    """
    problem = _Problem(shared, signs, draw, signs * (shared.points @ draw))
    solution = _by_descent(problem) or _by_proximal_points(problem)
    residual = problem.residual(*solution)
    if residual > _KKT_RTOL:
        other = _by_active_set(problem)
        residual, solution = min((residual, solution), (problem.residual(*other), other), key=lambda found: found[0])
    A, x = solution
    inside = np.linalg.norm(problem.remainder(A, x)) <= _INSIDE_RTOL * np.linalg.norm(draw)
    return Projection(A, x, residual, bool(inside))


_Solution = tuple[np.ndarray, np.ndarray]  # points with positive multipliers, and these
_Place = tuple[np.ndarray, np.ndarray]  # x and its slack w, one of each for every point


@dataclass(frozen=True)
class _Problem:
    """min x'Kx/2 - b'x over x >= 0 for one draw and its labels: the signs are put on and taken off here."""

    shared: UnitPoints
    signs: Float[np.ndarray, " points"]
    draw: Float[np.ndarray, " dim"]
    b: Float[np.ndarray, " points"]

    def solve(
        self, A: Int[np.ndarray, " active"], shift: float, rhs: Float[np.ndarray, " active"]
    ) -> Float[np.ndarray, " active"] | None:
        """(K + shift)[A, A]^-1 rhs, or None where the points ``A`` are dependent."""
        if len(A) == 0:
            return np.zeros(0)
        single = shift > _SINGLE_SHIFT
        L = _cholesky(self.shared.block(A, single), shift)
        if L is None:
            return None
        solve = lapack.spotrs if single else lapack.dpotrs
        return self.signs[A] * solve(L, (self.signs[A] * rhs).astype(L.dtype), lower=1)[0].astype(np.float64)

    def slack(self, A: Int[np.ndarray, " active"], x: Float[np.ndarray, " active"]) -> Float[np.ndarray, " points"]:
        """w = b - K x, by how much each point's constraint is violated."""
        return self.b - self.signs * self.shared.products(A, self.signs[A] * x)

    def residual(self, A: Int[np.ndarray, " active"], x: Float[np.ndarray, " active"]) -> float:
        """Largest violation of: w <= 0 everywhere, and = 0 where x > 0 (x itself is > 0 by construction)."""
        w = self.slack(A, x)
        worst = max(w.max(initial=0.0), np.abs(w[A]).max(initial=0.0))
        return float(worst / np.abs(self.b).max(initial=np.finfo(float).tiny))

    def remainder(self, A: Int[np.ndarray, " active"], x: Float[np.ndarray, " active"]) -> Float[np.ndarray, " dim"]:
        return self.draw - (self.signs[A] * x) @ self.shared.points[A]

    def solved_on(self, A: Int[np.ndarray, " active"], single: bool) -> tuple[np.ndarray, np.ndarray] | None:
        """Multipliers (active,) of least squares on the points ``A``, and the slack (points,); None where ``A`` are
        dependent. The rows of the Gram are taken once for both; in float32 where ``single``."""
        gram = self.shared.gram_single if single else self.shared.gram
        if gram is None or len(A) == 0:
            x = self.solve(A, 0.0, self.b[A])
            return None if x is None else (x, self.slack(A, x))
        rows = gram[A]
        L = _cholesky(rows[:, A], 0.0)
        if L is None:
            return None
        solve = lapack.spotrs if single else lapack.dpotrs
        signed = solve(L, (self.signs[A] * self.b[A]).astype(L.dtype), lower=1)[0]
        return self.signs[A] * signed, self.b - self.signs * (signed @ rows)


def _cholesky(K: Float[np.ndarray, "n n"], shift: float) -> Float[np.ndarray, "n n"] | None:
    K.flat[:: len(K) + 1] += shift
    L, failed = (lapack.spotrf if K.dtype == np.float32 else lapack.dpotrf)(K, lower=1, overwrite_a=1)
    return None if failed or L.diagonal().min(initial=1.0) < _PIVOT_RTOL else L


def _positive(x: Float[np.ndarray, " points"]) -> _Solution:
    A = np.flatnonzero(x > 0)
    return A, x[A]


def _by_descent(problem: _Problem) -> _Solution | None:
    """Coordinate descent, then exchanges from the points that it leaves positive. None where these lead astray."""
    gram = problem.shared.gram_single
    if gram is None:
        return None
    x, signs = np.zeros(len(problem.b), np.float32), problem.signs.astype(np.float32)
    _descend(gram, signs, signs * problem.b.astype(np.float32), x, _SWEEPS)
    return _exchange(problem, x > 0, single=True)


@kernel()
@no_type_check
def _descend(G, signs, g, x, most):
    """Sweep x_j = max(x_j + w_j, 0) from x = 0, with g = signs * w, until a sweep leaves the same x positive."""
    for _ in range(most):
        settled = True
        for j in range(len(x)):
            old = x[j]
            new = max(old + signs[j] * g[j], np.float32(0))
            if new != old:
                settled &= (new > 0) == (old > 0)
                x[j] = new
                row, step = G[j], signs[j] * (new - old)
                for i in range(len(g)):
                    g[i] -= step * row[i]
        if settled:
            return


def _by_active_set(problem: _Problem) -> _Solution:
    """The method of Lawson & Hanson (1974): slower, without anything to tune; a residual says where it gave up."""
    return _positive(lawson_hanson((problem.signs[:, None] * problem.shared.points).T, problem.draw))


def _by_proximal_points(problem: _Problem) -> _Solution:
    """Proximal points of ever smaller shifts, until the end is near enough to be reached exactly."""
    x, w, shift = np.zeros_like(problem.b), problem.b, _FIRST_SHIFT
    for _ in range(_PROXIMAL_POINTS):
        x, w, settled = _proximal_point(problem, x, w, shift)
        ended = _inside(problem, x) or _exchange(problem, x > 0) or _as_it_is(problem, x)
        if ended is not None:
            return ended
        if settled:  # going on from a point that is none leads farther away at every smaller shift
            shift = max(_NEXT_SHIFT * shift, _LAST_SHIFT)
    return _positive(x)


def _proximal_point(
    problem: _Problem, x: Float[np.ndarray, " points"], w: Float[np.ndarray, " points"], shift: float
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], bool]:
    """Newton's method on the dual, started from ``x`` with slack ``w``: each step solves on the working set.

    Returns x, w and whether the steps came to an end.

    On the way x may leave the positive orthant; its positive part is the centre of the next proximal point.
    """
    center = np.maximum(x, 0.0)
    working, step = np.zeros(len(x), np.bool_), 0.0
    for _ in range(_NEWTON_STEPS):
        next_working = w + shift * center > 0
        if step == 1.0 and np.count_nonzero(next_working ^ working) <= _SAME_SET * np.count_nonzero(working):
            return x, w, True
        working = next_working
        A = np.flatnonzero(working)
        solution = problem.solve(A, shift, problem.b[A] + shift * center[A])
        if solution is None:
            break
        x_new = np.zeros_like(x)
        x_new[A] = solution
        w_new = problem.slack(A, solution)
        step = _step((x, w), (x_new, w_new), shift, center)
        x, w = x + step * (x_new - x), w + step * (w_new - w)
    return x, w, False


def _step(start: _Place, end: _Place, shift: float, center: Float[np.ndarray, " points"]) -> float:
    r"""Fraction of the way from ``start`` to ``end`` (each x and w) at which the dual is least,

    .. math:: \phi = \tfrac12 x^\top K x + \tfrac1{2\epsilon} \big|[w + \epsilon x_k]_+\big|^2, \qquad Kx = b - w .
    """
    (x, w), (x_new, w_new) = start, end
    dx, dw = x_new - x, w_new - w
    slope = partial(_slope, x @ -dw, dx @ -dw, w + shift * center, dw, shift)  # K dx = -dw
    if slope(1.0) <= 0.1 * abs(slope(0.0)):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(10):  # a thousandth of the way is near enough: the next step corrects it
        middle = 0.5 * (low + high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 0.5 * (low + high)


def _slope(linear: float, curvature: float, base: np.ndarray, dw: np.ndarray, shift: float, s: float) -> float:
    """The dual's derivative at the part ``s`` of the way."""
    return linear + s * curvature + np.maximum(base + s * dw, 0.0) @ dw / shift


def _inside(problem: _Problem, x: Float[np.ndarray, " points"]) -> _Solution | None:
    r"""A draw inside the cone is reached by the least correction of x that makes the remainder v vanish,

    .. math:: x \leftarrow x + Z_A (Z_A^\top Z_A)^{-1} v ,

    if that leaves x positive; a few points that turn negative are dropped. None where the draw seems to lie outside.
    """
    A, x = _positive(x)
    for _ in range(4):
        if len(A) < problem.shared.points.shape[1]:
            return None
        Z = problem.shared.points[A]
        L = _cholesky(Z.T @ Z, 0.0)
        if L is None:
            return None
        x = x + problem.signs[A] * (Z @ lapack.dpotrs(L, problem.remainder(A, x), lower=1)[0])
        keep = x > 0
        if keep.all():
            return A, x
        if np.count_nonzero(~keep) > _HOPELESS * len(A):
            return None
        A, x = A[keep], x[keep]
    return None


def _exchange(problem: _Problem, passive: Bool[np.ndarray, " points"], single: bool = False) -> _Solution | None:
    """Block principal pivoting: solve on the passive points, exchange all that are wrong. None where it leads astray.

    ``single``: in float32 while many are wrong; the last, which confirms all, never is.
    """
    largest = np.abs(problem.b).max(initial=0.0)
    for _ in range(_EXCHANGES):
        A = np.flatnonzero(passive)
        if len(A) > problem.shared.points.shape[1]:
            return None
        solved = problem.solved_on(A, single)
        if solved is None:
            return _exchange(problem, passive) if single else None
        x, slack = solved
        wrong = slack > (_SINGLE_SLACK_RTOL if single else _SLACK_RTOL) * largest
        wrong[A] = x <= 0
        count = np.count_nonzero(wrong)
        if count == 0 and not single:
            return A, x
        if count > _HOPELESS * len(A) + 10:
            return None
        single = bool(single and count > _SAME_SET * len(A))
        passive = passive ^ wrong
    return None


def _as_it_is(problem: _Problem, x: Float[np.ndarray, " points"]) -> _Solution | None:
    """Dependent points (e.g. duplicates) never have a unique set; then the proximal point itself becomes exact."""
    solution = _positive(x)
    return solution if problem.residual(*solution) < _KKT_RTOL / 10 else None

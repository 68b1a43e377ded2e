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

All draws are solved together by :mod:`manigeo.capacity.pivoting`; those for which the Gram is too coarse, on the points
themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from manigeo.capacity.pivoting import lawson_hanson, natural_residuals, nonnegative_least_squares

_KKT_RTOL = 5e-10  # draws above it are solved once more; what is promised is 1e-9
# A Gram squares the ratio of radius to centre norm. Beyond 1e3 it holds the centre's 1 with fewer than ten digits (against
# exact arithmetic, projections were off by 1e-10 at radius 1e3, 1e-8 at 1e4, and wrong at 1e7); below 1e-5 it cannot tell
# points apart (right to the last digit at 1e-6, the wrong point at 1e-8).
_RADII_OF_A_GRAM = (1e-5, 1e3)
_NOTHING_LEFT = 1e-7  # of a draw's length: Clarabel leaves 1e-8
_SAME_MASS = 1e-6  # of all mass: a choice that is lighter by less is the same one
_COST = 1e-4  # of a point's length: its square tells two answers apart, and is far above the rounding of a Gram


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
    projection are unique. A residual above 1e-9 shows that a draw is not solved to that: it happens at radii above 1e6,
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

    A draw within the cone of the points themselves leaves v = 0, and more points than dimensions have many multipliers with
    :math:`Z^\top a = t`, whose anchors lie on one ray at different distances. Here it is the point where the ray leaves the
    convex hull of the points: the least :math:`\sum_m a_m`, and the limit of margins below zero.

    Raises ``ValueError`` on an unknown solver.
    """
    if solver not in _SOLVERS:
        raise ValueError(f"solver must be one of {sorted(_SOLVERS)}, got {solver!r}")
    lengths, radius = np.linalg.norm(Z, axis=1), float(np.abs(Z[:, :-1]).max(initial=0.0))
    lengths[lengths == 0] = 1.0  # a point at the origin asks nothing
    multipliers, residual = _SOLVERS[solver](Z / lengths[:, None], t, radius)
    multipliers /= lengths
    inside = np.flatnonzero(_left(Z, t, multipliers) <= _NOTHING_LEFT)
    if len(inside):
        least = _of_least_mass(Z, t[inside])
        lighter = least.sum(axis=1) < (1 - _SAME_MASS) * multipliers[inside].sum(axis=1)
        lighter &= _left(Z, t[inside], least) <= _KKT_RTOL
        multipliers[inside[lighter]] = least[lighter]
    mass = multipliers.sum(axis=1)
    interior = mass == 0
    weights = multipliers / np.where(interior, 1.0, mass)[:, None]
    weights[interior, (t[interior] @ Z.T).argmax(axis=1)] = 1.0
    return Anchors(weights, mass, residual)


def _left(Z: np.ndarray, t: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Length of what the multipliers leave of each draw, relative: (draws,), 0 of one in the cone of the points."""
    return np.linalg.norm(t - a @ Z, axis=1) / np.linalg.norm(t, axis=1)


def _of_least_mass(Z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The multipliers of draws in the cone of ``Z`` with the least sum, of all that answer them in full.

    A coordinate that all points share, and no draw has, costs the square of the sum. What it leaves of a draw is added to
    the draw, twice (the method of multipliers), so that only rounding is left.
    """
    with_cost = np.column_stack([Z, np.full(len(Z), _COST * np.linalg.norm(Z, axis=1).mean())])
    lengths = np.linalg.norm(with_cost, axis=1)
    unit, asked = with_cost / lengths[:, None], np.column_stack([t, np.zeros(len(t))])
    K = unit @ unit.T
    for _ in range(2):
        a = nonnegative_least_squares(K, asked @ unit.T)[0] / lengths
        asked[:, :-1] += t - a @ Z
    return nonnegative_least_squares(K, asked @ unit.T)[0] / lengths


def kkt_residual(
    unit: Float[np.ndarray, "points dim"], t: Float[np.ndarray, "draws dim"], a: Float[np.ndarray, "draws points"]
) -> Float[np.ndarray, " draws"]:
    r"""Distance of multipliers ``a`` from the projection v of ``t`` on :math:`\{v : z_m \cdot v \le 0\}`.

    .. math:: \max_m |\min(a_m, -z_m \cdot v)| \,/\, \max_m |z_m \cdot t|, \qquad v = t - Z^\top a

    For points of length one, :math:`|z_m| = 1`. It vanishes just where v is feasible, a is non-negative, and one of the
    two is zero for every point; it is computed from the points ``unit``, so that what their Gram cannot resolve is seen.
    Where :math:`Z t = 0` it is not relative.
    """
    return natural_residuals(a, t @ unit.T, (t - a @ unit) @ unit.T)


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
    """min |Z'a - t| on the points, whose condition is the root of the Gram's; a residual says where it gave up."""
    a = np.zeros((len(t), len(unit)))
    for i in _not_interior(unit, t):
        a[i] = lawson_hanson(unit.T, t[i])
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

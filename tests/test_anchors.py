import cvxpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from manigeo.capacity.anchors import solve_anchors


def cloud(shape: str, rng: np.random.Generator, points: int, dim: int) -> np.ndarray:
    """Point clouds that are hard in one way each."""
    X = rng.standard_normal((points, dim))
    return {
        "gaussian": X,
        "tiny": 1e-4 * X,
        "large": 30 * X,
        "duplicates": np.repeat(X[: (points + 1) // 2], 2, axis=0)[:points],
        "collinear": np.outer(np.linspace(-1, 1, points), X[0]),
        "low_rank": X[:, :1] @ rng.standard_normal((1, dim)) + X[:, -1:] @ rng.standard_normal((1, dim)),
        "relu": np.maximum(X, 0),
        "one_point": np.repeat(X[:1], points, axis=0),
    }[shape]


SHAPES = ("gaussian", "tiny", "large", "duplicates", "collinear", "low_rank", "relu", "one_point")

any_cloud = {
    "shape": st.sampled_from(SHAPES),
    "points": st.integers(1, 40),
    "dim": st.integers(1, 30),
    "kappa": st.sampled_from([0.0, 0.3, 2.0]),
    "seed": st.integers(0, 2**32 - 1),
}


@settings(max_examples=150, deadline=None)
@given(**any_cloud)
def test_every_draw_satisfies_its_kkt_conditions(shape, points, dim, kappa, seed):
    rng = np.random.default_rng(seed)
    S = cloud(shape, rng, points, dim)
    t = rng.standard_normal((20, dim + 1))
    solved = solve_anchors(S, t, kappa)
    assert solved.residual.max() < 1e-9
    # and once more from the definition: v = t - mass * anchor is feasible, and tight where a point has weight
    Z = np.column_stack([S, np.ones(points)])
    v = t - solved.mass[:, None] * (solved.weights @ Z)
    slack = -kappa - v @ Z.T
    scale = np.abs(t @ Z.T + kappa).max(axis=1, keepdims=True)
    assert (slack / scale).min() > -1e-9
    assert (np.abs(solved.weights * solved.mass[:, None] * slack) / scale**2).max() < 1e-6
    assert solved.weights.min() >= 0
    np.testing.assert_allclose(solved.weights.sum(axis=1), 1.0, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(**any_cloud)
def test_projections_equal_those_of_scipys_nonnegative_least_squares(shape, points, dim, kappa, seed):
    rng = np.random.default_rng(seed)
    S = cloud(shape, rng, points, dim)
    t = rng.standard_normal((5, dim + 1))
    solved = solve_anchors(S, t, kappa)
    Z = np.column_stack([S, np.ones(points)])
    along_center = np.eye(dim + 1)[-1]
    for draw, mass, weights in zip(t, solved.mass, solved.weights, strict=True):
        # min_a |Z'a - (t + kappa e)|^2 is the same problem, since the last column of Z is one
        multipliers, _ = nnls(Z.T, draw + kappa * along_center)
        # multipliers need not be unique, the projection is; 1e-7: nnls works on Z, whose condition is squared in the Gram
        scale = 1 + np.abs(Z.T @ multipliers).max()
        np.testing.assert_allclose(mass * (weights @ Z), Z.T @ multipliers, atol=1e-7 * scale)


@pytest.mark.parametrize("shape", ["gaussian", "duplicates", "low_rank", "relu"])
def test_projections_equal_those_of_a_conic_solver(shape):
    rng = np.random.default_rng(5)
    S, t = cloud(shape, rng, 15, 8), rng.standard_normal((4, 9))
    solved = solve_anchors(S, t, kappa=0.5)
    Z = np.column_stack([S, np.ones(15)])
    for draw, mass, weights in zip(t, solved.mass, solved.weights, strict=True):
        v = cvxpy.Variable(9)
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(v - draw)), [Z @ v <= -0.5]).solve(solver=cvxpy.CLARABEL)
        # Clarabel stops at a gap of 1e-8, the solution is good to its root
        np.testing.assert_allclose(draw - mass * (weights @ Z), v.value, atol=1e-4)


def test_a_draw_that_every_point_supports_is_interior():
    S = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    solved = solve_anchors(S, np.array([[0.1, 0.2, -5.0]]))
    assert solved.interior.all()
    assert solved.mass.tolist() == [0.0]
    assert solved.weights.tolist() == [[0.0, 1.0, 0.0]]  # the point of largest projection


def test_more_points_than_dimensions_have_the_anchor_of_the_active_set_method():
    # logits: 50 points in 3 dimensions, where a set of exchanged columns is dependent in nearly every draw
    rng = np.random.default_rng(0)
    S, t = rng.standard_normal((50, 3)), rng.standard_normal((200, 4))
    solved = solve_anchors(S, t)
    assert solved.residual.max() < 1e-12
    assert np.count_nonzero(solved.weights > 0, axis=1).max() <= 4  # a face of the cone in four dimensions

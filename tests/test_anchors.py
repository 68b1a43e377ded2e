from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, nnls
from scipy.stats import special_ortho_group

from manigeo.capacity.anchors import Anchors, kkt_residual, solve_anchors, solve_cone
from manigeo.capacity.pivoting import nonnegative_least_squares


def cloud(shape: str, rng: np.random.Generator, points: int, dim: int) -> np.ndarray:
    """Point clouds that are hard in one way each."""
    X = rng.standard_normal((points, dim))
    return {
        "gaussian": X,
        "tiny": 1e-4 * X,
        "vanishing": 1e-8 * X,
        "large": 30 * X,
        "duplicates": np.repeat(X[: (points + 1) // 2], 2, axis=0)[:points],
        "near_duplicates": np.repeat(X[: (points + 1) // 2], 2, axis=0)[:points] + 1e-9 * X,
        "collinear": np.outer(np.linspace(-1, 1, points), X[0]),
        "low_rank": X[:, :1] @ rng.standard_normal((1, dim)) + X[:, -1:] @ rng.standard_normal((1, dim)),
        "relu": np.maximum(X, 0),
        "one_point": np.repeat(X[:1], points, axis=0),
        "logits": 3 * X[:, :3] - X[:, :3].mean(axis=0),
        "power_law": X / np.arange(1, dim + 1),
        "mixed_scales": X * 10.0 ** rng.uniform(-6, 2, (points, 1)),
        "hypercube": np.sign(X),  # of few dimensions all vertices, many of them twice: every second choice is a tie
    }[shape]


SHAPES = (
    "gaussian", "tiny", "vanishing", "large", "duplicates", "near_duplicates", "collinear", "low_rank", "relu",
    "one_point", "logits", "power_law", "mixed_scales", "hypercube",
)  # fmt: skip

any_cloud = {
    "shape": st.sampled_from(SHAPES),
    "points": st.integers(1, 40),
    "dim": st.integers(1, 30),
    "kappa": st.sampled_from([0.0, 0.3, 2.0]),
    "seed": st.integers(0, 2**32 - 1),
}


def with_center(S: np.ndarray) -> np.ndarray:
    return np.column_stack([S, np.ones(len(S))])


def projections(solved: Anchors, S: np.ndarray, t: np.ndarray) -> np.ndarray:
    return t - solved.mass[:, None] * (solved.weights @ with_center(S))


def violation(solved: Anchors, S: np.ndarray, t: np.ndarray, kappa: float) -> np.ndarray:
    """The conditions from their definition: v feasible, and tight where a point has weight. In units of each point's
    length, and of the largest b in these units; multipliers and slacks are positive, one of the two is zero."""
    Z = with_center(S)
    lengths = np.linalg.norm(Z, axis=1)
    slack = (-kappa - projections(solved, S, t) @ Z.T) / lengths
    multipliers = solved.weights * solved.mass[:, None] * lengths
    scale = np.abs((t @ Z.T + kappa) / lengths).max(axis=1)
    return np.abs(np.minimum(multipliers, slack)).max(axis=1) / scale


@settings(max_examples=150, deadline=None)
@given(**any_cloud)
def test_every_draw_satisfies_its_kkt_conditions(shape, points, dim, kappa, seed):
    rng = np.random.default_rng(seed)
    S = cloud(shape, rng, points, dim)
    t = rng.standard_normal((20, S.shape[1] + 1))
    solved = solve_anchors(S, t, kappa)
    assert solved.residual.max() <= 1e-9
    # the returned residual is that of the definition, up to the rounding of a hundred terms of size |t| times the radius;
    # it is relative to b, which is small against t in a draw that nearly touches
    Z = with_center(S)
    b = np.abs((t @ Z.T + kappa) / np.linalg.norm(Z, axis=1)).max(axis=1)
    rounding = 1e-13 * (np.linalg.norm(t, axis=1) + kappa) * (1 + np.abs(S).max()) / b
    assert (np.abs(violation(solved, S, t, kappa) - solved.residual) <= rounding).all()
    assert solved.weights.min() >= 0
    np.testing.assert_allclose(solved.weights.sum(axis=1), 1.0, rtol=1e-12)


def test_none_of_a_hundred_thousand_draws_is_uncertified():
    rng = np.random.default_rng(0)
    n_solved, worst = 0, 0.0
    while n_solved < 100_000:
        for shape in SHAPES:
            S = cloud(shape, rng, points=int(rng.integers(1, 60)), dim=int(rng.integers(1, 40)))
            t = rng.standard_normal((100, S.shape[1] + 1))
            kappa = float(rng.choice([0.0, 0.3, 2.0]))
            solved = solve_anchors(S, t, kappa)
            worst = max(worst, solved.residual.max(), violation(solved, S, t, kappa).max())
            n_solved += len(t)
    assert worst <= 1e-9


@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("vanishing", "near_duplicates", "mixed_scales")])
def test_the_gram_alone_is_enough_where_points_are_apart_or_equal(shape):
    rng = np.random.default_rng(2)
    for _ in range(20):
        S = cloud(shape, rng, points=int(rng.integers(1, 60)), dim=int(rng.integers(1, 40)))
        Z = with_center(S) / np.linalg.norm(with_center(S), axis=1, keepdims=True)
        t = rng.standard_normal((100, Z.shape[1]))
        _, residual = nonnegative_least_squares(Z @ Z.T, t @ Z.T)
        assert residual.max() < 1e-10  # else they are solved once more on the points, which is slow


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_the_residual_sees_multipliers_that_are_too_small_or_too_large(factor):
    rng = np.random.default_rng(3)
    Z = with_center(rng.standard_normal((10, 20)))
    Z, t = Z / np.linalg.norm(Z, axis=1, keepdims=True), rng.standard_normal((50, 21))
    a, _ = nonnegative_least_squares(Z @ Z.T, t @ Z.T)
    some = a.max(axis=1) > 0
    assert kkt_residual(Z, t, a).max() < 1e-14
    # where a > 0 the slack moves by a hundredth of b_m, which may itself be a hundredth of the largest
    assert kkt_residual(Z, t, factor * a)[some].min() > 1e-5


@settings(max_examples=60, deadline=None)
@given(**any_cloud)
def test_projections_equal_those_of_scipys_nonnegative_least_squares(shape, points, dim, kappa, seed):
    rng = np.random.default_rng(seed)
    S = cloud(shape, rng, points, dim)
    t = rng.standard_normal((5, S.shape[1] + 1))
    solved = solve_anchors(S, t, kappa)
    # min_a |Z'a - (t + kappa e)|^2 is the same problem, since the last column of Z is one
    along_center = np.eye(t.shape[1])[-1]
    for draw, v in zip(t, projections(solved, S, t), strict=True):
        multipliers, _ = nnls(with_center(S).T, draw + kappa * along_center)
        # multipliers need not be unique, the projection is; 1e-7: a KKT residual of eps moves it by as much as its root
        np.testing.assert_allclose(draw - v, with_center(S).T @ multipliers, atol=1e-7 * (1 + np.abs(draw).max()))


def exact_anchor(S: np.ndarray, draw: np.ndarray) -> np.ndarray | None:
    """The active set method in rational arithmetic, without any rounding: None where the draw is interior."""
    Z = [[Fraction(float(x)) for x in row] for row in with_center(S)]
    t = [Fraction(float(x)) for x in draw]
    dot = lambda p, q: sum((x * y for x, y in zip(p, q, strict=True)), Fraction(0))  # noqa: E731
    a, passive = dict.fromkeys(range(len(Z)), Fraction(0)), []
    while True:
        v = [x - sum(a[m] * Z[m][k] for m in passive) for k, x in enumerate(t)]
        ascent = {m: float(dot(Z[m], v)) / np.linalg.norm(with_center(S)[m]) for m in a if m not in passive}
        ascent = {m: w for m, w in ascent.items() if dot(Z[m], v) > 0}
        if not ascent:
            break
        passive.append(max(ascent, key=ascent.__getitem__))
        while True:
            s = exact_solution([[dot(Z[p], Z[q]) for q in passive] for p in passive], [dot(Z[p], t) for p in passive])
            if min(s) > 0:
                break
            step = min(a[m] / (a[m] - x) for m, x in zip(passive, s, strict=True) if x <= 0)
            for m, x in zip(passive, s, strict=True):
                a[m] += step * (x - a[m])
            passive = [m for m, x in zip(passive, s, strict=True) if x > 0 or a[m] > 0]
        a.update(zip(passive, s, strict=True))
        a.update(dict.fromkeys(set(a) - set(passive), Fraction(0)))
    mass = sum(a.values())
    return np.array([float(sum(a[m] * Z[m][k] for m in a) / mass) for k in range(len(t) - 1)]) if mass else None


def exact_solution(A: list[list[Fraction]], b: list[Fraction]) -> list[Fraction]:
    """Gauss elimination of a positive definite system."""
    rows, n = [[*row, value] for row, value in zip(A, b, strict=True)], len(b)
    for k in range(n):
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(n):
            if i != k:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("radius", [1e-10, 1e-8, 1e-6, 1e-4, 1.0, 1e2, 1e3, 1e4, 1e6, 1e8])
def test_anchors_of_any_radius_are_those_of_exact_arithmetic(radius, centred):
    rng = np.random.default_rng(1)
    S = rng.standard_normal((6, 3))
    S = radius * (S - centred * S.mean(axis=0))
    t = rng.standard_normal((12, 4))
    solved = solve_anchors(S, t)
    # float64 weights place an anchor to eps times the radius; the Gram, in use up to 1e3, squares that ratio
    rtol = 1e-13 * max(1.0, 10 * radius) if radius > 1e3 else 1e-14 * max(10.0, 10 * radius**2)
    for draw, weights, interior in zip(t, solved.weights, solved.interior, strict=True):
        anchor = exact_anchor(S, draw)
        assert interior == (anchor is None)
        if anchor is not None:
            np.testing.assert_allclose(weights @ S, anchor, rtol=0, atol=rtol * np.abs(anchor).max())
    # and what float64 cannot certify to 1e-9 is not said to be
    assert solved.residual.max() <= max(1e-9, 1e-15 * radius * len(S))


@pytest.mark.parametrize("shape", ["gaussian", "duplicates", "low_rank", "relu", "logits"])
@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_the_solvers_agree_on_the_projections(shape, kappa):
    rng = np.random.default_rng(5)
    S = cloud(shape, rng, 15, 8)
    t = rng.standard_normal((6, S.shape[1] + 1))
    pivoting, conic = solve_anchors(S, t, kappa), solve_anchors(S, t, kappa, solver="cvxpy")
    # Clarabel stops at a gap of 1e-8, the projection is good to its root
    np.testing.assert_allclose(projections(pivoting, S, t), projections(conic, S, t), atol=1e-4)
    np.testing.assert_array_equal(pivoting.interior, conic.interior)
    assert conic.residual.max() < 1e-4


def test_an_unknown_solver_is_named_with_the_choices():
    with pytest.raises(ValueError, match=r"one of \['cvxpy', 'pivoting'\], got 'qpsolve'"):
        solve_anchors(np.ones((2, 1)), np.ones((1, 2)), solver="qpsolve")


def test_draws_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"draws need 3 columns .* got 2"):
        solve_anchors(np.ones((2, 2)), np.ones((1, 2)))


def rotated(S, t, rng):
    Q = special_ortho_group.rvs(S.shape[1], random_state=rng)
    return S @ Q, np.column_stack([t[:, :-1] @ Q, t[:, -1]]), lambda anchors: anchors @ Q.T


def reordered(S, t, rng):
    return rng.permutation(S), t, lambda anchors: anchors


def repeated(S, t, rng):
    return np.vstack([S, S[rng.integers(len(S), size=7)]]), t, lambda anchors: anchors


def with_interior_points(S, t, rng):
    return np.vstack([rng.dirichlet(np.ones(len(S)), size=9) @ S, S]), t, lambda anchors: anchors


def padded(S, t, rng):
    t = np.column_stack([t[:, :-1], rng.standard_normal((len(t), 3)), t[:, -1]])
    return np.pad(S, ((0, 0), (0, 3))), t, lambda anchors: anchors[:, :-3]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(["gaussian", "collinear", "relu", "logits", "power_law", "hypercube"]),
    change=st.sampled_from([rotated, reordered, repeated, with_interior_points, padded]),
    kappa=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_anchors_are_those_of_the_convex_hull_in_any_frame(shape, change, kappa, seed):
    rng = np.random.default_rng(seed)
    S = cloud(shape, rng, points=int(rng.integers(2, 20)), dim=int(rng.integers(3, 10)))
    t = rng.standard_normal((20, S.shape[1] + 1))
    T, u, back = change(S, t, rng)
    one, other = solve_anchors(S, t, kappa), solve_anchors(T, u, kappa)
    # 1e-7 for the conditioning of random clouds; an anchor is a quotient, whose error grows as its mass shrinks
    np.testing.assert_allclose(other.mass, one.mass, atol=1e-7)
    active = one.mass > 1e-3
    np.testing.assert_allclose(back(other.weights @ T)[active], (one.weights @ S)[active], atol=1e-6)
    sure = np.abs((t @ with_center(S).T + kappa).max(axis=1)) > 1e-9
    np.testing.assert_array_equal(other.interior[sure], one.interior[sure])


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


@pytest.mark.parametrize("solver", ["pivoting", "cvxpy"])
def test_a_draw_in_the_cone_has_its_anchor_where_its_ray_leaves_the_hull(solver):
    rng = np.random.default_rng(0)
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # seen from within: every draw is answered
    Z = rng.permutation(np.vstack([corners, 0.3 * rng.standard_normal((16, 2))]))
    t = rng.standard_normal((40, 2))
    solved = solve_cone(Z, t, solver)
    np.testing.assert_allclose(solved.weights @ Z, t / np.abs(t).max(axis=1, keepdims=True), rtol=1e-9)
    assert solved.mass == pytest.approx(np.abs(t).max(axis=1))


@pytest.mark.parametrize(("points", "dim"), [(20, 2), (60, 10), (12, 5)])
def test_answers_in_full_have_the_least_mass_that_a_linear_program_finds(points, dim):
    rng = np.random.default_rng([points, dim])
    Z, t = rng.standard_normal((points, dim)), rng.standard_normal((30, dim))
    solved = solve_cone(Z, t)
    inside = np.linalg.norm(t - solved.mass[:, None] * (solved.weights @ Z), axis=1) < 1e-9
    assert inside.any()
    least = [linprog(np.ones(points), A_eq=Z.T, b_eq=draw).fun for draw in t[inside]]
    np.testing.assert_allclose(solved.mass[inside], least, rtol=1e-4)  # the cost of mass tells no finer

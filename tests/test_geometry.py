import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manigeo import frame_geometry, manifold_capacity, manifold_geometry
from manigeo.capacity.geometry import cone_geometries, cone_geometry, halved_measures
from manigeo.capacity.theory import ball_capacity, point_capacity
from manigeo.errors import InputWarning
from tests.reference import shared, simplex, theory_cases, vertices

POINT_CASES = [case for case in theory_cases() if case["n_points"]]
REFERENCE = [
    "digits_class", "duplicates", "gaussian_50x500", "gaussian_margin", "large_radius", "low_rank_3",
    "margin_one_ellipsoid", "more_points_than_dims", "powerlaw_ellipsoid", "relu", "tiny_radius", "two_points",
]  # fmt: skip


@pytest.mark.parametrize("kappa", [0.0, 0.5, 2.0])
def test_a_single_point_has_the_perceptron_capacity(kappa):
    g = frame_geometry(np.zeros((1, 1)), kappa=kappa, n_draws=20_000, rng=np.random.default_rng(0))
    assert abs(g.capacity - point_capacity(kappa)) < 4 * g.capacity_stderr
    assert (g.radius, g.dimension, g.rank) == (0.0, 0.0, 0)


@pytest.mark.parametrize("case", POINT_CASES, ids=lambda case: case["id"])
def test_point_clouds_have_their_exact_geometry(case):
    # 40,000 draws: the relative error of capacity is at most 2 sqrt(alpha / n) = 1.2 % for the easiest case
    g = frame_geometry(vertices(case), case["kappa"], n_draws=40_000, rng=np.random.default_rng(7))
    measured = [
        (g.capacity, g.capacity_stderr, case["alpha"], case["alpha_err"]),
        (g.radius, g.radius_stderr, case["R_M"], case["R_M_err"]),
        (g.dimension, g.dimension_stderr, case["D_ref"], case["D_ref_err"]),
        (g.dimension_prx, g.dimension_prx_stderr, case["D_prx"], 0.0),
    ]
    for value, stderr, exact, exact_stderr in measured:
        # a segment's dimension is 1 in every draw: its error is rounding
        assert abs(value - exact) < 4 * np.hypot(stderr, exact_stderr) + 1e-9
        assert value == pytest.approx(exact, rel=0.02)


def test_all_point_clouds_of_the_table_were_there():
    shared("reference/theory_cases.json")
    assert len(POINT_CASES) == 12


@pytest.mark.parametrize("name", REFERENCE)
def test_the_same_draws_give_the_numbers_of_the_authors_package(name):
    with np.load(shared("reference/reference_anchors.npz")) as cases:
        points, t, kappa, expected = (cases[f"{name}/{key}"] for key in ("points", "t", "kappa", "expected"))
    g = frame_geometry(points[:-1].T, kappa=float(kappa), draws=t.T, dimension="ambient")
    # their solver stops at about 1e-4 on near-tangent draws
    np.testing.assert_allclose([g.capacity, g.radius, g.dimension], expected, rtol=2e-4)
    assert g.residual < 1e-9


def test_every_reference_case_is_in_the_list():
    with np.load(shared("reference/reference_anchors.npz")) as cases:
        assert sorted({key.split("/")[0] for key in cases.files}) == sorted(REFERENCE)


def touching_points(t: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Where an ellipsoid touches the cone of each draw's projection, and 1/alpha of each draw, by bisection.

    min |v - t|^2 s.t. v_0 + |A v_1| <= 0, A = diag(radii): v_1 = t_1 / (1 + b A^2), v_0 = t_0 - b q with q = |A v_1|; the
    root b of t_0 + q (1 - b). Where even b -> infinity leaves it positive, v = 0.
    """
    t1, t0 = t[:, :-1], t[:, -1]

    def q(b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(radii * t1 / (1 + b[:, None] * radii**2), axis=1)

    low, high = np.zeros(len(t)), np.full(len(t), 1e12)
    for _ in range(200):
        middle = np.where(low > 1, np.sqrt(low * high), (low + high) / 2)
        violated = t0 + q(middle) * (1 - middle) > 0
        low, high = np.where(violated, middle, low), np.where(violated, high, middle)
    v1 = t1 / (1 + high[:, None] * radii**2)
    apex = t0 - np.linalg.norm(t1 / radii, axis=1) > 0
    active = t0 + np.linalg.norm(radii * t1, axis=1) > 0
    distance = np.square(t1 - v1).sum(axis=1) + np.square(high * q(high))
    inverse = np.where(active, np.where(apex, np.square(t).sum(axis=1), distance), 0.0)
    support = np.where(active[:, None] & ~apex[:, None], v1, t1)
    direction = radii * support
    return radii * direction / np.linalg.norm(direction, axis=1, keepdims=True), inverse


def test_an_ellipsoid_has_its_tabulated_capacity_solved_on_its_touching_points():
    shared("reference/theory_cases.json")
    (case,) = [case for case in theory_cases() if case["kind"] == "ellipsoid"]
    radii = 1 / np.arange(1, case["D"] + 1)
    t = np.random.default_rng(3).standard_normal((60_000, case["D"] + 1))
    points, inverse = touching_points(t, radii)
    alpha, stderr = 1 / inverse.mean(), inverse.std() / np.sqrt(len(t)) / inverse.mean() ** 2
    assert abs(alpha - case["alpha"]) < 4 * np.hypot(stderr, case["alpha_err"])
    assert alpha == pytest.approx(case["alpha"], rel=0.02)
    # a body that contains the touching points of these draws, and lies in the ellipsoid, projects them alike; a draw that
    # sends v to the apex is supported by several points at once, and is left out
    few = np.flatnonzero(t[:, -1] - np.linalg.norm(t[:, :-1] / radii, axis=1) <= 0)[:150]
    g = frame_geometry(points[few], draws=t[few])
    assert g.capacity == pytest.approx(1 / inverse[few].mean(), rel=1e-6)


@pytest.mark.parametrize("dimension", [4, 9])
def test_a_simplex_of_orthogonal_points_has_the_perceptron_capacity_over_corners(dimension):
    g = frame_geometry(simplex(dimension, np.sqrt(dimension)), kappa=0.7, n_draws=20_000, rng=np.random.default_rng(1))
    exact = point_capacity(0.7 / np.sqrt(dimension + 1)) / (dimension + 1)
    assert abs(g.capacity - exact) < 4 * g.capacity_stderr


def test_the_ball_of_a_manifolds_radius_and_dimension_has_about_its_capacity():
    g = frame_geometry(simplex(19, 1.0), n_draws=20_000, rng=np.random.default_rng(2))
    assert ball_capacity(g.radius, g.dimension_prx) == pytest.approx(g.capacity, rel=0.06)  # 2 to 6 %, science


@pytest.mark.filterwarnings("ignore::manigeo.errors.InputWarning")  # a few random points are around no centre
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), points=st.integers(2, 25), dim=st.integers(1, 20))
def test_geometry_ignores_rotation_order_duplicates_interior_points_and_padding(seed, points, dim):
    rng = np.random.default_rng(seed)
    S, t = rng.standard_normal((points, dim)), rng.standard_normal((30, dim + 1))
    g = frame_geometry(S, draws=t)
    Q = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    turned = frame_geometry(S @ Q, draws=np.column_stack([t[:, :-1] @ Q, t[:, -1]]))
    weights = rng.dirichlet(np.ones(points), size=3)
    crowded = frame_geometry(np.vstack([S[::-1], S[:2], weights @ S]), draws=t)
    pad = np.zeros((points, 3))
    padded = frame_geometry(
        np.column_stack([S, pad]), draws=np.column_stack([t[:, :-1], rng.standard_normal((30, 3)), t[:, -1]])
    )
    for other in (turned, crowded, padded):
        for name in ("capacity", "radius", "dimension", "dimension_prx"):
            # 1e-6: coordinates of the span come from eigenvectors of the Gram, whose small eigenvalues carry the error
            assert getattr(other, name) == pytest.approx(getattr(g, name), rel=1e-6), name


def test_padding_biases_the_ambient_dimension_and_not_the_rank():
    S = np.zeros((2, 11))
    S[:, 0] = 1, -1
    draws = np.random.default_rng(0).standard_normal((5000, 12))
    assert frame_geometry(S, draws=draws).dimension == pytest.approx(1.0)
    assert frame_geometry(S, draws=draws, dimension="ambient").dimension == pytest.approx(0.66, abs=0.03)  # science 3.3


def test_the_error_of_capacity_is_the_spread_over_repetitions():
    S = simplex(9, 1.0)
    runs = [frame_geometry(S, n_draws=200, rng=np.random.default_rng(seed)) for seed in range(200)]
    for name in ("capacity", "radius", "dimension", "dimension_prx"):
        spread = np.std([getattr(g, name) for g in runs], ddof=1)
        claimed = np.mean([getattr(g, f"{name}_stderr") for g in runs])
        assert claimed == pytest.approx(spread, rel=0.25), name  # the spread of 200 is known to 5 %, five sigma


def test_a_manifold_that_no_draw_needs_an_anchor_for_has_infinite_capacity():
    g = frame_geometry(np.zeros((1, 1)), kappa=-8.0, n_draws=20, rng=np.random.default_rng(0))
    assert (g.capacity, g.interior_fraction) == (np.inf, 1.0)
    assert np.isnan(g.capacity_stderr)


def test_points_that_are_not_finite_and_draws_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="finite"):
        frame_geometry(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="draws need 3 columns"):
        frame_geometry(np.zeros((2, 2)), draws=np.zeros((5, 2)))
    with pytest.raises(ValueError, match="draws must be finite"):
        frame_geometry(np.zeros((2, 2)), draws=np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match="kappa must be finite"):
        frame_geometry(np.zeros((2, 2)), kappa=np.nan)
    with pytest.raises(ValueError, match="n_draws must be 2 or more"):
        frame_geometry(np.zeros((2, 2)), n_draws=0)
    with pytest.raises(ValueError, match='"rank" or "ambient"'):
        frame_geometry(np.zeros((2, 2)), dimension="full")


# ------------------------------------------------------------------------------------- points that are around no centre
@given(seed=st.integers(0, 2**32 - 1), M=st.integers(1, 12), dim=st.integers(1, 12), offset=st.floats(0.01, 1e6))
@settings(max_examples=60, deadline=None)
def test_points_around_their_mean_are_taken_and_activations_are_flagged(seed, M, dim, offset):
    X = np.random.default_rng(seed).standard_normal((M, dim))
    around = X - X.mean(axis=0)
    assert frame_geometry(around, n_draws=2).flag == ""
    spread = np.sqrt(np.square(around).sum() / max(M - 1, 1))
    shift = np.eye(dim)[0] * (offset + 1.01 * spread * max(3 / np.sqrt(M), 1 / 3))
    with pytest.warns(InputWarning, match="times as far from zero as they are from it.*manifold_geometry"):
        flag = frame_geometry(around + shift, n_draws=2).flag
    expected = shift[0] / spread if spread else np.inf
    assert float(flag.removeprefix("off_center:")) == pytest.approx(expected, rel=6e-3)  # three digits


@pytest.mark.parametrize(("M", "dim"), [(10, 1), (20, 5), (50, 20), (200, 3)])
def test_samples_of_a_ball_around_its_centre_are_rarely_flagged(M, dim):
    rng = np.random.default_rng(0)
    clouds = [rng.standard_normal((M, dim)) for _ in range(100)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        flagged = [frame_geometry(X, n_draws=2).flag for X in clouds]
    assert (
        len(caught) == sum(map(bool, flagged)) <= 5
    )  # beyond three standard errors are 1.5 % (Student's t of 9) or less


# ------------------------------------------------------------------------------------------------- one manifold of many
def test_one_manifold_among_others_is_that_of_all_manifolds_without_a_rule():
    rng = np.random.default_rng(1)
    clouds = [5 + rng.standard_normal(30) + 0.7 * rng.standard_normal((12, 30)) for _ in range(6)]
    table = manifold_capacity(clouds, n_draws=2000, centers="keep").per_manifold
    for mu, X in enumerate(clouds):
        g = manifold_geometry(X, np.concatenate(clouds[:mu] + clouds[mu + 1 :]), n_draws=2000, seed=mu)
        for name in ("capacity", "radius", "dimension"):
            error = np.hypot(getattr(g, f"{name}_stderr"), table[f"{name}_stderr"][mu])
            assert abs(getattr(g, name) - table[name][mu]) < 4.5 * error, name  # 18 comparisons


def test_the_background_may_be_the_mean_itself():
    rng = np.random.default_rng(2)
    X, others = 3 + rng.standard_normal((8, 20)), rng.standard_normal((40, 20))
    mean = np.concatenate([X, others]).mean(axis=0)
    one, other = (manifold_geometry(X, background, n_draws=30) for background in (others, mean))
    # means that differ in the last digit: 1e-14, times the condition of the points, which is below 100
    assert one.capacity == pytest.approx(other.capacity, rel=1e-10)


@pytest.mark.parametrize("radius", [0.2, 1.0, 4.0])
def test_a_segment_of_activations_has_its_closed_form(radius):
    segment = 7.0 + 2.0 * np.array([[1.0, radius], [1.0, -radius]])
    g = manifold_geometry(segment, np.array([7.0, 7.0]), n_draws=20_000, seed=3)
    exact = 1 / (1.5 - 2 / np.pi * np.arctan(1 / radius))
    assert abs(g.capacity - exact) < 4 * g.capacity_stderr
    assert g.rank == 1


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_scale_and_shift_of_activations_do_not_matter(scale):
    rng = np.random.default_rng(4)
    X, others = rng.standard_normal((6, 10)) + 1, rng.standard_normal((20, 10))
    g, h = (
        manifold_geometry(X, others, n_draws=50),
        manifold_geometry(scale * (X + 3), scale * (others + 3), n_draws=50),
    )
    assert g.capacity == pytest.approx(h.capacity, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_manifold_at_the_mean_of_all_has_no_geometry_and_says_so(value):
    pair = value + np.array([[1.0, -1.0], [-1.0, 1.0]])
    g = manifold_geometry(pair, np.full((3, 2), value), n_draws=10)
    assert np.isnan([g.capacity, g.radius, g.dimension]).all()
    assert (g.flag, g.n_draws) == ("zero_center", 10)


@pytest.mark.parametrize("spectrum", ["equal", "decaying", "of low rank"])
def test_a_rounding_of_a_metric_moves_no_manifold(spectrum):
    rng = np.random.default_rng(0)
    variances = {
        "equal": np.ones(12),
        "decaying": np.arange(1, 13) ** -2.0,
        "of low rank": np.repeat([1.0, 0.0], [5, 7]),
    }
    U = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    gram = (U * variances[spectrum]) @ U.T
    noise = 1e-14 * rng.standard_normal((12, 12))
    # equal variances have no eigenvectors of their own: rounding chooses them, and draws along them would be others
    a, b = (
        cone_geometry(K, np.ones(12), n_draws=100, rng=np.random.default_rng(1)) for K in (gram, gram + noise + noise.T)
    )
    for name in ("capacity", "radius", "dimension", "dimension_prx"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-8), name


def test_halves_of_the_draws_have_the_measures_of_these_draws():
    rng = np.random.default_rng(0)
    cones = [(X @ X.T, 1 + 0.1 * rng.standard_normal(len(X))) for X in rng.standard_normal((3, 8, 6))]
    halves = halved_measures(cones, 0.1, 40, rngs=[np.random.default_rng(k) for k in range(3)])
    for half in range(2):
        rngs = [np.random.default_rng(k) for k in range(3)]
        for rng in rngs[: 3 * half]:
            rng.standard_normal((20, 9))
        expected = [
            [1 / g.capacity, g.radius, g.dimension, g.dimension_prx] for g in cone_geometries(cones, 0.1, 20, rngs=rngs)
        ]
        np.testing.assert_allclose(halves[:, half], expected, rtol=1e-9)

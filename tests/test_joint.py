from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from manigeo.capacity.cone import UnitPoints, _by_descent, _by_proximal_points, _Problem, project_on_cone
from manigeo.capacity.joint import JointCapacity, joint_capacity
from manigeo.capacity.theory import ball_capacity, point_capacity
from tests.few_classes import joint_over_all_labellings, orthogonal_points, simulated_truth
from tests.reference import shared, simplex


def unit(Z: np.ndarray) -> np.ndarray:
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def cloud(shape: str, rng: np.random.Generator, points: int, dim: int) -> np.ndarray:
    """Points that are hard in one way each."""
    X = rng.standard_normal((points, dim))
    return {
        "gaussian": X,
        "narrow": X + 3 * rng.standard_normal(dim),
        "duplicates": np.repeat(X[: (points + 1) // 2], 2, axis=0)[:points],
        "low_rank": X[:, :1] @ rng.standard_normal((1, dim)) + X[:, -1:] @ rng.standard_normal((1, dim)),
        "relu": np.maximum(X, 0) + 1e-9,
        "nearly_equal": X[:1] + 1e-3 * X,
    }[shape]


SHAPES = ("gaussian", "narrow", "duplicates", "low_rank", "relu", "nearly_equal")


def test_descent_alone_ends_where_proximal_points_end_and_gives_up_inside_the_cone():
    rng = np.random.default_rng(0)
    Z, t = unit(rng.standard_normal((60, 40))), rng.standard_normal(40)
    problem = _Problem(UnitPoints.of(Z), np.ones(60), t, Z @ t)
    for found, expected in zip(_by_descent(problem), _by_proximal_points(problem), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-8)  # rounding, times the condition of the Gram
    few = unit(np.abs(Z[:, :3]))
    assert _by_descent(_Problem(UnitPoints.of(few), np.ones(60), few.mean(axis=0), few @ few.mean(axis=0))) is None


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    points=st.integers(1, 60),
    dim=st.integers(1, 30),
    keep_gram=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_projection_satisfies_its_kkt_conditions_and_is_scipys(shape, points, dim, keep_gram, seed):
    rng = np.random.default_rng(seed)
    Z, y, t = unit(cloud(shape, rng, points, dim)), rng.choice([-1.0, 1.0], points), rng.standard_normal(dim)
    p = project_on_cone(UnitPoints.of(Z, gram_points=points if keep_gram else 0), y, t)
    signed = y[:, None] * Z
    scale = np.abs(signed @ t).max()
    projection = p.multipliers @ signed[p.active]
    slack = signed @ (t - projection)
    assert p.multipliers.min(initial=1.0) > 0
    assert slack.max() <= 1e-9 * scale
    assert np.abs(slack[p.active]).max(initial=0.0) <= 1e-9 * scale
    # projections, unlike multipliers, are unique; nearly equal points have multipliers of 1e4, and these times slacks of
    # 1e-9 are squared distances
    theirs, _ = nnls(signed.T, t)
    np.testing.assert_allclose(projection, theirs @ signed, atol=1e-5 * np.linalg.norm(t))


@pytest.mark.parametrize("points", [40, 90, 200])
def test_a_draw_is_inside_exactly_when_nothing_remains(points):
    rng = np.random.default_rng(points)
    Z, y = unit(rng.standard_normal((points, 30))), rng.choice([-1.0, 1.0], points)
    shared_points = UnitPoints.of(Z)
    for t in rng.standard_normal((10, 30)):
        p = project_on_cone(shared_points, y, t)
        _, remainder = nnls((y[:, None] * Z).T, t)
        assert p.inside == (remainder < 1e-6 * np.linalg.norm(t))


def expected_squared_projection(P: int, N: int) -> float:
    """P points in general position in N dimensions, over all labels: t lies in a face of the arrangement of P hyperplanes,
    whose cones have the intrinsic volumes C(P, N - k) in sum (Schlaefli; Klivans & Swartz 2011)."""
    return N - sum(k * comb(P, N - k) for k in range(max(1, N - P), N + 1)) / 2**P


@pytest.mark.parametrize(("P", "N"), [(20, 40), (20, 19), (30, 20), (30, 12), (40, 8)])
def test_points_in_general_position_have_the_capacity_of_schlaeflis_count(P, N):
    # after the mean is subtracted P points have rank P - 1 at most; any P - 1 of them are still independent
    points = np.random.default_rng(P + N).standard_normal((P, N))
    r = joint_capacity([row[None] for row in points], n_draws=250)
    assert abs(r.capacity - P / expected_squared_projection(P, min(N, P - 1))) < 4 * r.stderr
    assert r.flag == ("saturated" if P > 2 * N else "")
    assert r.bound == P / r.rank


@pytest.mark.parametrize("P", [2, 3, 4, 6, 10])
def test_few_points_have_the_capacity_of_schlaeflis_count_less_constant_labellings(P):
    # over all labellings the mean is P/2 - 2^-P, and the two constant ones have all of P - 1 dimensions
    exact = P * (2**P - 2) / (P * (2 ** (P - 1) - 2) + 1)
    assert exact == pytest.approx(P / ((2**P * expected_squared_projection(P, P - 1) - 2 * (P - 1)) / (2**P - 2)))
    r = joint_capacity([row[None] for row in np.eye(P)], n_draws=500)
    assert abs(r.capacity - exact) < 3 * r.stderr
    assert P == 2 or r.flag == ""  # of two points half of the draws lie in the cone, a ray of one dimension


@pytest.mark.parametrize("P", [2, 3, 4, 5, 8, 12, 20])
def test_few_manifolds_without_structure_have_their_joint_capacity(P):
    exact, error, _ = simulated_truth(P, 10)
    r = joint_capacity(orthogonal_points(P, 10), n_draws=300)
    assert abs(r.capacity - exact) < 3 * np.hypot(r.stderr, error)
    assert not r.saturated


@pytest.mark.parametrize(("P", "M", "N"), [(2, 6, 40), (3, 6, 40), (5, 5, 40), (5, 6, 9), (10, 3, 60)])
def test_few_correlated_manifolds_have_the_joint_capacity_of_all_labellings(P, M, N):
    X = gaussian_manifolds(P, M, N)
    exact, error = joint_over_all_labellings(X, draws=max(3, 1500 // 2 ** (P - 1)), seed=1)
    r = joint_capacity(X, n_draws=300)
    assert abs(r.capacity - exact) < 3 * np.hypot(r.stderr, error)


def test_two_manifolds_are_told_apart_with_drawn_labels_or_one_against_the_rest():
    X = gaussian_manifolds(P=2, M=6, N=40)
    drawn, rest = joint_capacity(X, n_draws=300), joint_capacity(X, n_draws=300, labels="one_vs_rest")
    assert abs(drawn.capacity - rest.capacity) < 4 * np.hypot(drawn.stderr, rest.stderr)
    assert drawn.saturated_fraction == rest.saturated_fraction == 0


@pytest.fixture(scope="module")
def orthonormal_points() -> JointCapacity:
    return joint_capacity([row[None] for row in np.eye(60)], n_draws=300)


def test_orthonormal_points_have_capacity_two(orthonormal_points):
    r = orthonormal_points
    assert abs(r.capacity - point_capacity()) < 4 * r.stderr


def orthogonal(base: np.ndarray, P: int, R: float, shared_center: float = 0.0) -> list[np.ndarray]:
    """P manifolds of ``base`` in orthogonal subspaces; their unit centres have a part of norm ``shared_center`` in common
    that alternates in sign, so that the mean of all samples stays zero."""
    D = base.shape[1]
    manifolds = []
    for mu in range(P):
        X = np.zeros((len(base), 1 + P * (D + 1)))
        X[:, 0] = shared_center * (-1) ** mu
        X[:, 1 + mu] = np.sqrt(1 - shared_center**2)
        X[:, 1 + P + mu * D : 1 + P + (mu + 1) * D] = R * base
        manifolds.append(X)
    return manifolds


SEGMENT = np.array([[1.0], [-1.0]])


@pytest.mark.parametrize("R", [0.3, 1.0, 3.0])
def test_orthogonal_segments_have_their_mean_field_capacity(R):
    r = joint_capacity(orthogonal(SEGMENT, 50, R), n_draws=150)
    exact = 1 / (1.5 - 2 / np.pi * np.arctan(1 / R))
    assert exact == pytest.approx(ball_capacity(R, 1), rel=1e-9)
    # subtracting the mean of all samples takes one of P directions: 1/P of the capacity at most, beside the error of draws
    assert abs(r.capacity - exact) < 4 * r.stderr + exact / 50
    assert not r.saturated


def test_orthogonal_simplices_have_their_mean_field_capacity():
    D = 4  # a regular simplex of radius sqrt(D): alpha_0 / (D + 1)
    r = joint_capacity(orthogonal(simplex(D, 1.0), 30, np.sqrt(D)), n_draws=250)
    assert abs(r.capacity - 2 / (D + 1)) < 4 * r.stderr + 2 / (D + 1) / 30


def test_orthogonal_discs_have_the_capacity_of_a_ball():
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    r = joint_capacity(orthogonal(np.column_stack([np.cos(angles), np.sin(angles)]), 20, 0.8), n_draws=80)
    exact = ball_capacity(0.8, 2)  # a polygon of 32 corners is within 1 - cos(pi/32) = .5 % of the circle
    assert abs(r.capacity - exact) < 4 * r.stderr + exact / 20


@pytest.mark.parametrize("s", [0.5, 0.8, 0.95])
def test_a_shared_part_of_the_centers_acts_like_a_larger_radius(s):
    R = 0.5
    r = joint_capacity(orthogonal(SEGMENT, 60, R, shared_center=s), n_draws=150)
    exact = ball_capacity(R / np.sqrt(1 - s * s), 1)
    # the shared direction is one of P at most, and so is the mean of all samples
    assert abs(r.capacity - exact) < 4 * r.stderr + 2 * exact / 60


def test_joint_capacity_of_real_layers_is_that_of_the_reference_run():
    with np.load(shared("reference/real_layers.npz")) as layers:
        for case in ("last_unpermuted_h6", "last_permuted_h6"):
            simulated, theirs, their_stderr = layers[f"{case}/expected"][:3]
            r = joint_capacity(list(layers[f"{case}/activations"]), n_draws=20)
            assert abs(r.capacity - theirs) < 3 * np.hypot(r.stderr, their_stderr)
            assert abs(r.capacity - simulated) < 3 * r.stderr + 0.02 * simulated  # simulation has its own error
            assert r.residual < 1e-9
            assert r.flag == ""


# Wakhloo, Sussman & Chung (2023), PRL 131, 027301: capacity of Gaussian clouds by the replica theory with all correlations,
# mean and standard error of five runs at five strengths (github.com/awakhloo/correlated_capacity, results/clouds).
REPLICA = {0: (1.0756, 0.0101), 5: (1.0390, 0.0127), 10: (1.0014, 0.0070), 15: (0.9112, 0.0050), 19: (0.8353, 0.0064)}


def correlated_gaussian_clouds(strength: float, rng: np.random.Generator) -> np.ndarray:
    """Their 80 clouds of 40 points in 3800 features: centres of norm 5 correlated in groups of 40, 20 and 10 classes, points
    of norm 1 in groups of 40 and 10."""

    def correlation(sizes: list[int], values: list[float]) -> np.ndarray:
        group = np.arange(80)
        C = np.zeros((80, 80))
        for size, value in zip(sizes, values, strict=True):
            C[group[:, None] // size == group // size] = strength * value
        np.fill_diagonal(C, 1.0)
        return np.linalg.cholesky(C)

    centers = correlation([40, 20, 10], [0.3, 0.5, 0.7]) @ rng.standard_normal((80, 3800))
    points = np.einsum("mn,nsk->msk", correlation([40, 10], [0.5, 0.9]), rng.standard_normal((80, 40, 3800)))
    return 5 * centers[:, None] + points


@pytest.mark.long
def test_correlated_clouds_have_the_published_capacity_of_the_replica_theory():
    ratios, errors = [], []
    for i in (0, 10, 19):  # of five, all alike, for the sake of time
        published, stderr = REPLICA[i]
        r = joint_capacity(list(correlated_gaussian_clouds(i / 19, np.random.default_rng(i))), n_draws=60)
        ratios.append(r.capacity / published)
        errors.append(np.hypot(r.stderr, stderr) / published)
    # theirs keep the mean of all samples, and we lose the part of it: one of P directions, 1.25 %
    for ratio, error in zip(ratios, errors, strict=True):
        assert abs(ratio - 1 + 1 / 80) < 0.02 + 3 * error
    assert abs(np.mean(ratios) - 1 + 1 / 80) < 0.02


def gaussian_manifolds(P: int = 8, M: int = 5, N: int = 60, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(N) + rng.standard_normal((M, N)) for _ in range(P)]


MEASURES = ("capacity", "dimension", "radius", "utility")
ALIGNMENTS = ("center_alignment", "axis_alignment", "center_axis_alignment")


def assert_equal(a: JointCapacity, b: JointCapacity, rtol: float) -> None:
    for name in (*MEASURES, *ALIGNMENTS):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=rtol, abs=rtol), name
    pd.testing.assert_frame_equal(a.per_class, b.per_class, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("N", [60, 20])  # from the Gram, and from the features
def test_rotation_scale_offset_and_padding_change_nothing(N):
    X = gaussian_manifolds(N=N)
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((N, N)))[0]
    one = joint_capacity(X, n_draws=15)
    for changed in ([1e-6 * x @ Q for x in X], [1e6 * x for x in X], [x + 7.0 for x in X]):
        assert_equal(joint_capacity(changed, n_draws=15), one, rtol=1e-6)
    padded = joint_capacity([np.hstack([x, np.zeros((5, 30))]) for x in X], n_draws=15)  # N = 20: now wider than P M
    assert_equal(padded, one, rtol=1e-6)


def test_the_order_of_classes_changes_nothing_but_the_draws():
    X = gaussian_manifolds(N=30)
    a, b = joint_capacity(X, n_draws=120), joint_capacity(X[::-1], n_draws=120)
    for name in (*MEASURES[1:], *ALIGNMENTS):
        error = np.hypot(getattr(a, f"{name}_stderr"), getattr(b, f"{name}_stderr"))
        assert abs(getattr(a, name) - getattr(b, name)) < 4 * error, name
    assert abs(a.capacity - b.capacity) < 4 * np.hypot(a.stderr, b.stderr)
    difference = a.per_class["inverse_capacity"] - b.per_class["inverse_capacity"].to_numpy()[::-1]
    error = np.hypot(a.per_class["inverse_capacity_stderr"], b.per_class["inverse_capacity_stderr"].to_numpy()[::-1])
    assert (difference.abs() < 4.5 * error).all()


def test_results_do_not_depend_on_the_number_of_jobs_bit_for_bit():
    X = gaussian_manifolds(P=12, M=10, N=100)
    one, two = joint_capacity(X, n_draws=10, n_jobs=1), joint_capacity(X, n_draws=10, n_jobs=2)
    assert_equal(one, two, rtol=0.0)
    for ours, theirs in zip(one.per_pair, two.per_pair, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_measures_multiply_to_the_capacity_and_shares_add_up_to_it():
    r = joint_capacity(gaussian_manifolds(), n_draws=40)
    assert r.utility * (1 + r.radius**-2) / r.dimension == pytest.approx(r.capacity, rel=1e-9)
    assert r.identity_residual < 1e-9
    assert 1 / r.per_class["inverse_capacity"].mean() == pytest.approx(r.capacity, rel=1e-9)
    np.testing.assert_allclose(r.per_pair.load.sum(axis=1), r.per_class["inverse_capacity"], rtol=1e-9)
    np.testing.assert_allclose(r.per_pair.center, r.per_pair.center.T)


def test_orthogonal_points_have_the_geometry_of_half_their_anchors(orthonormal_points):
    # a point is its own anchor in half of the draws: S_0 = z/2 and S_1 = +-z/2, so b = P, c = P/2, a = P/2
    r = orthonormal_points
    for name, exact in {"dimension": 1.0, "radius": 1.0, "utility": 1.0}.items():
        # one direction of P goes with the mean; the mean over 300 draws of S_0 is off by 1/sqrt(300), its square counts
        assert abs(getattr(r, name) - exact) < 4 * getattr(r, f"{name}_stderr") + 2 / 60, name
    assert r.center_alignment == pytest.approx(1 / 59, abs=0.03)  # corners of a simplex


def test_the_errors_are_the_spread_over_seeds():
    X = gaussian_manifolds(P=6, M=4, N=30)
    runs = [joint_capacity(X, n_draws=20, seed=seed) for seed in range(30)]
    for name in (*MEASURES, *ALIGNMENTS):
        error = "stderr" if name == "capacity" else f"{name}_stderr"
        spread = np.std([getattr(r, name) for r in runs], ddof=1)
        claimed = np.mean([getattr(r, error) for r in runs])
        assert claimed == pytest.approx(spread, rel=0.5), name  # the spread of 30 is known to 13 %, nearly four sigma


def test_the_class_that_limits_capacity_is_named():
    X = gaussian_manifolds(P=10, M=8, N=200)
    center = X[3].mean(axis=0)
    X = [x.mean(axis=0) + 0.3 * (x - x.mean(axis=0)) for x in X]
    X[3] = center + 4 * (X[3] - center)
    r = joint_capacity(X, n_draws=60)
    assert r.per_class["inverse_capacity"].idxmax() == 3
    assert r.per_class["radius"].idxmax() == 3


def test_classes_with_a_common_direction_share_their_load():
    X = orthogonal(SEGMENT, 20, 0.3)
    for mu in (4, 5):
        X[mu][:, 0] = 2.0  # centres of 4 and 5 have cosine .8
    r = joint_capacity(X, n_draws=200)
    others = r.per_pair.center - np.diag(np.diag(r.per_pair.center))
    assert set(np.unravel_index(others.argmax(), others.shape)) == {4, 5}


def test_centers_alone_have_the_capacity_of_points_and_axes_do_not_see_centers():
    free, bound = orthogonal(SEGMENT, 40, 0.8), orthogonal(SEGMENT, 40, 0.8, shared_center=0.9)
    centers = joint_capacity(bound, n_draws=200, points="centers")
    assert abs(centers.capacity - 2.0) < 4 * centers.stderr  # independent, however correlated
    axes = joint_capacity(bound, n_draws=200, points="axes")
    exact = ball_capacity(0.8, 1)
    assert abs(axes.capacity - exact) < 4 * axes.stderr + exact / 40
    assert joint_capacity(bound, n_draws=100).capacity < 0.8 * joint_capacity(free, n_draws=100).capacity


def test_draws_do_not_depend_on_the_labels():
    # in one dimension (two points at +-1) the draw is inside or outside by its sign: the same t, whatever the labels
    X = [np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])]
    one = joint_capacity(X, n_draws=40, labels="one_vs_rest")
    # class 0 against 1: the ray along +1, else the ray along -1; over the cycle of two both come equally often
    t = [
        np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, i))).standard_normal(2) @ [1, -1] / np.sqrt(2)
        for i in range(40)
    ]
    order = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0,))).permutation(2)
    signs = np.array([1.0 if order[i % 2] == 0 else -1.0 for i in range(40)])
    assert 2 / one.capacity == pytest.approx(np.mean(np.maximum(signs * t, 0) ** 2), rel=1e-9)


def test_one_versus_rest_is_each_class_in_turn():
    X = gaussian_manifolds(P=5, M=3, N=40)
    a = joint_capacity(X, n_draws=100, labels="one_vs_rest")
    assert np.isfinite(a.capacity)
    assert a.capacity != joint_capacity(X, n_draws=100).capacity


def test_a_layer_too_narrow_to_be_separated_is_saturated_at_p_over_n():
    X = gaussian_manifolds(P=30, M=10, N=6)
    r = joint_capacity(X, n_draws=100)
    assert r.saturated
    assert r.flag == "saturated"
    assert r.saturated_fraction > 0.99
    assert abs(r.capacity - 30 / 6) < 4 * r.stderr
    assert r.residual < 1e-9


@pytest.mark.parametrize("points", ["all", "centers", "axes"])
@pytest.mark.parametrize(
    "degenerate",
    [
        pytest.param(lambda rng: [rng.standard_normal((1, 5)), rng.standard_normal((7, 5))], id="two, unequal"),
        pytest.param(
            lambda rng: [np.repeat(rng.standard_normal((2, 9)), 4, axis=0) for _ in range(6)], id="duplicates"
        ),
        pytest.param(lambda rng: list(rng.standard_normal((10, 20, 2))), id="two features"),
        pytest.param(
            lambda rng: [c + 1e-8 * rng.standard_normal((4, 30)) for c in rng.standard_normal((6, 30))], id="tiny"
        ),
        pytest.param(
            lambda rng: [c + 1e8 * rng.standard_normal((4, 30)) for c in rng.standard_normal((6, 30))], id="huge"
        ),
        pytest.param(lambda rng: list(rng.standard_normal((5, 4, 12)).astype(np.float16)), id="float16"),
        pytest.param(lambda rng: [np.vstack([v, -v]) for v in rng.standard_normal((5, 1, 12))], id="centres zero"),
    ],
)
def test_degenerate_layers_have_a_value_or_a_flag(degenerate, points):
    r = joint_capacity(degenerate(np.random.default_rng(0)), n_draws=30, points=points)
    if r.flag == "no_spread":
        assert np.isnan(r.capacity)
    else:
        assert r.residual < 1e-9
        assert 0 < r.capacity < np.inf
        assert r.identity_residual < 1e-6 or "identity" in r.flag


def test_a_dead_layer_has_no_capacity_and_says_so():
    r = joint_capacity([np.full((4, 3), 0.1, np.float32)] * 5, n_draws=20)
    assert np.isnan(r.capacity)
    assert (r.flag, r.n_manifolds, r.saturated) == ("no_spread", 5, False)
    assert r.per_class["capacity"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"manifolds": [np.ones((2, 3))]}, "two or more manifolds, got 1"),
        ({"manifolds": [np.ones((2, 3)), np.ones((2, 4))]}, r"equal features, got \(2, 4\) for manifold 1"),
        ({"manifolds": [np.ones((2, 3)), np.array([[1.0, np.nan, np.inf]])]}, "manifold 1 holds 2 NaN"),
        ({"n_draws": 1}, "n_draws must be 2 or more, for a standard error, got 1"),
        ({"labels": "pairs"}, "labels must be one of .*got 'pairs'"),
        ({"points": "half"}, "points one of .*'half'"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        joint_capacity(**({"manifolds": gaussian_manifolds()} | arguments))

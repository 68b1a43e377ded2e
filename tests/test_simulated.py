import numpy as np
import pytest
from scipy.stats import binom, chi2

from manigeo.capacity import separation, simulated
from manigeo.capacity.simulated import simulated_capacity
from manigeo.capacity.theory import ball_capacity, point_capacity
from tests.few_classes import critical_dimension, orthogonal_points, share_separable, simulated_truth
from tests.reference import shared, simplex


def independent_frames(shape: np.ndarray, P: int) -> list[np.ndarray]:
    """P copies of a shape around centres of norm one, all centres and axes orthogonal: what mean-field theory assumes."""
    D = shape.shape[1]
    X = np.zeros((P, len(shape), P, D + 1))
    for mu in range(P):
        X[mu, :, mu, 0], X[mu, :, mu, 1:] = 1.0, shape
    return list(X.reshape(P, len(shape), -1))


def single_points(P: int, N: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((P, 1, N)))


def correlated_clouds(P: int, M: int, N: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((P, 1, 3)) @ rng.standard_normal((3, N)) + rng.standard_normal((P, 1, N))
    return list(centers + rng.standard_normal((P, M, N)))


def test_a_steep_spectrum_is_certified_in_coordinates_of_condition_one():
    steep = [x * np.arange(1, 201.0) ** -4 for x in correlated_clouds(10, 10, 200)]  # singular values over six decades
    assert simulated_capacity(steep, 60).uncertified == 0


def test_a_dichotomy_without_a_certificate_is_decided_by_the_better_one_and_counted(monkeypatch):
    def gives_up(*args, **kwargs):
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(separation, "_NEWTON_STEPS", 1)
    monkeypatch.setattr("scipy.optimize.nnls", gives_up)
    r = simulated_capacity(correlated_clouds(10, 5, 40), 50)
    assert r.uncertified > 0
    assert f"uncertified:{r.uncertified}" in r.flag


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("P", [3, 4, 5, 6])
def test_of_centred_points_covers_count_is_separable_less_constant_labellings(P, bias):
    # by every labelling in turn; in general position the count is the same in every projection
    for n in range(1, P - bias):
        share = share_separable(single_points(P, 20), n, projections=2, seed=n, bias=bias)
        assert share == pytest.approx(cover(P, n, bias), abs=1e-12)


def cover(P: int, n: np.ndarray | int, bias: bool) -> np.ndarray:
    """Share of separable labellings of P centred points with both signs: sum_{k<n} C(P-1, k) of 2^(P-1) - 1, and with an
    offset, which is one dimension more, without the constant ones that it separates."""
    constant = 0.5 ** (P - 1)
    return (binom.cdf(n - 1 + bias, P - 1, 0.5) - bias * constant) / (1 - constant)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("P", [4, 7, 40])
def test_points_in_general_position_follow_covers_curve(P, bias):
    r = simulated_capacity(single_points(P, 60), 400, bias=bias, seed=3)
    p = np.minimum(cover(P, r.dimensions, bias), 1.0)
    assert (r.separable[p == 1] == r.trials[p == 1]).all()
    certain = p * r.trials > 1e-3
    assert (r.separable[~certain] == 0).all()
    certain &= p < 1
    squares = (r.separable - p * r.trials)[certain] ** 2 / (r.trials * p * (1 - p))[certain]
    assert squares.sum() < chi2.isf(1e-4, certain.sum())
    if P >= 7:  # where p rises over several dimensions
        assert abs(r.critical_dimension - (P / 2 - bias)) < 4 * r.critical_dimension_stderr


@pytest.mark.parametrize("P", [3, 4, 5, 8, 12, 20])
def test_few_manifolds_without_structure_have_their_simulated_capacity(P):
    r = simulated_capacity(orthogonal_points(P, 10), 400)
    _, error, exact = simulated_truth(P, 10)
    assert abs(r.capacity - exact) < 3 * np.hypot(r.stderr, error)


@pytest.mark.parametrize(("P", "M"), [(3, 5), (4, 5), (5, 5), (7, 4), (10, 3)])
def test_few_correlated_manifolds_have_the_capacity_of_all_labellings(P, M):
    X = correlated_clouds(P, M, 40)
    r = simulated_capacity(X, 400, seed=1)
    exact, error = critical_dimension(X, r.critical_dimension, projections=max(1, 300 // 2 ** (P - 1)))
    assert abs(r.critical_dimension - exact) < 3 * np.hypot(r.critical_dimension_stderr, error)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", ["two classes", "two points"])
def test_two_manifolds_have_one_dichotomy_and_no_capacity(case, bias):
    r = simulated_capacity(DEGENERATE[case], bias=bias)
    assert r.flag == "few_classes"
    assert np.isnan([r.capacity, r.critical_dimension, r.stderr, r.critical_dimension_stderr, r.width]).all()
    assert r.trials.sum() == 0


def polygon(corners: int, R: float) -> np.ndarray:
    angle = 2 * np.pi * np.arange(corners) / corners
    return R * np.stack([np.cos(angle), np.sin(angle)], axis=1)


# 24 corners underfill a disc by less than one per cent of its radius
BODIES = {
    "segment .5": (np.array([[0.5], [-0.5]]), 1 / (1.5 - 2 / np.pi * np.arctan(2))),
    "segment 2": (np.array([[2.0], [-2.0]]), 1 / (1.5 - 2 / np.pi * np.arctan(0.5))),
    "triangle": (simplex(2, np.sqrt(2)), point_capacity() / 3),
    "tetrahedron": (simplex(3, np.sqrt(3)), point_capacity() / 4),
    "disc 1": (polygon(24, 1.0), ball_capacity(1.0, 2)),
}


@pytest.mark.parametrize("body", BODIES)
def test_simulation_agrees_with_mean_field_theory_at_a_hundred_dimensions(body):
    shape, alpha = BODIES[body]
    r = simulated_capacity(independent_frames(shape, round(100 * alpha)), 200)
    assert r.stderr < 0.01 * alpha
    assert abs(r.capacity - alpha) < 0.03 * alpha  # centring P manifolds costs about 0.6 / P, 1 % here


@pytest.mark.parametrize(("case", "n_dichotomies"), [("last_unpermuted_h6", 60), ("last_permuted_h6", 50)])
def test_real_layers_have_the_capacity_another_program_simulated(case, n_dichotomies):
    layers = np.load(shared("reference/real_layers.npz"))
    r = simulated_capacity(list(layers[f"{case}/activations"]), n_dichotomies)
    other = layers[f"{case}/expected"][0]
    assert abs(r.capacity - other) < 2 * np.hypot(r.stderr, 0.02 * other)  # the other's error is 2 %
    assert r.uncertified == 0


def test_the_claimed_error_is_the_spread_over_seeds():
    X = correlated_clouds(20, 2, 40)
    results = [simulated_capacity(X, 50, seed=seed) for seed in range(50)]
    crossing = np.array([r.critical_dimension for r in results])
    claimed = np.sqrt(np.mean([r.critical_dimension_stderr**2 for r in results]))
    assert 0.7 < crossing.std(ddof=1) / claimed < 1.3  # 50 seeds know their spread to 10 %: three times that


def test_the_capacity_is_classes_by_critical_dimension_and_so_is_its_error():
    r = simulated_capacity(correlated_clouds(15, 4, 50))
    assert r.capacity == 15 / r.critical_dimension
    assert r.stderr / r.capacity == pytest.approx(r.critical_dimension_stderr / r.critical_dimension)


@pytest.mark.parametrize("n_dichotomies", [50, 200, 333])
def test_the_search_spends_what_it_was_given_and_most_of_it_near_the_crossing(n_dichotomies):
    r = simulated_capacity(correlated_clouds(30, 4, 200), n_dichotomies)
    assert r.trials.sum() == n_dichotomies
    near = np.abs(np.sqrt(r.dimensions) - np.sqrt(r.critical_dimension)) < 1.5 * r.width
    assert r.trials[near].sum() > 0.5 * n_dichotomies


def test_the_bracket_narrows_to_a_tenth_around_the_crossing():
    points = simulated._coordinates(single_points(100, 150))
    for seed in range(5):
        experiment = simulated._Experiment(points, np.ones(100, dtype=int), bias=False, seed=seed)
        low, high = simulated._bracket(experiment, batch=5)
        assert 0 < high - low <= high // 10
        # Cover's width is 5; a majority of five is wrong two widths away once in ten thousand times
        assert low <= 50 + 10
        assert high >= 50 - 10


def test_dichotomies_of_different_dimensions_share_no_labels(monkeypatch):
    seen = []
    separate = simulated.linear_separation
    monkeypatch.setattr(simulated, "linear_separation", lambda X, y: seen.append(y.tobytes()) or separate(X, y))
    simulated_capacity(single_points(64, 100), 100)
    assert len(seen) == len(set(seen)) == 100  # of 2^64


def test_results_depend_on_the_seed_alone():
    X = correlated_clouds(12, 4, 40)
    first, again = simulated_capacity(X, 60, seed=5), simulated_capacity(X, 60, seed=np.random.SeedSequence(5))
    other = simulated_capacity(X, 60, seed=np.random.SeedSequence(5, spawn_key=(1,)))
    assert first.critical_dimension == again.critical_dimension
    assert first.critical_dimension != other.critical_dimension


def test_scale_and_silent_features_change_nothing():
    X = correlated_clouds(12, 4, 40)
    r = simulated_capacity(X, 60)
    scaled = simulated_capacity([2.0**80 * x for x in X], 60)  # a power of two is exact
    assert scaled.capacity == r.capacity
    padded = simulated_capacity([np.column_stack([x, np.ones((4, 5))]) for x in X], 200)
    full = simulated_capacity(X, 200)
    assert padded.rank == full.rank
    assert abs(padded.capacity - full.capacity) < 4 * np.hypot(padded.stderr, full.stderr)


@pytest.mark.parametrize("features", [300, 30])
def test_coordinates_keep_all_inner_products(features):
    rng = np.random.default_rng(0)
    X = list(rng.standard_normal((10, 6, features)))
    points = np.concatenate(X)
    centred = (points - points.mean(axis=0)) / np.abs(points).max()
    Z = simulated._coordinates(X)
    assert Z.shape[1] == min(features, 59)
    np.testing.assert_allclose(Z @ Z.T, centred @ centred.T, atol=1e-12 * features)


def test_a_layer_too_narrow_for_its_classes_has_no_crossing():
    r = simulated_capacity(correlated_clouds(40, 5, 25))
    assert np.isnan([r.capacity, r.critical_dimension, r.stderr, r.critical_dimension_stderr]).all()
    assert r.flag == "not_separable:alpha<1.6"
    assert r.rank == 25
    assert r.trials.sum() < 200  # it is not asked further once that is clear


@pytest.mark.parametrize("seed", range(3))
def test_three_points_and_an_offset_are_mostly_separable_in_one_dimension(seed):
    r = simulated_capacity(
        single_points(3, 10), bias=True, seed=seed
    )  # two of three dichotomies: the middle has no side
    assert r.flag == "separable_in_1:alpha>3"
    assert np.isnan(r.capacity)


DEGENERATE = {
    "zeros": [np.zeros((3, 4))] * 4,
    "constant": [np.full((3, 4), 0.1, dtype=np.float32)] * 4,
    "constant features": [np.column_stack([x, np.ones((5, 3))]) for x in correlated_clouds(6, 5, 40)],
    "single points": single_points(10, 30),
    "duplicates": [np.repeat(x, 3, axis=0) for x in correlated_clouds(6, 3, 30)],
    "a point at the mean": [*single_points(6, 20), np.mean(single_points(6, 20), axis=0)],
    "equal classes": [np.random.default_rng(0).standard_normal((5, 20))] * 5,
    "two classes": correlated_clouds(2, 5, 20),
    "two points": single_points(2, 20),
    "three classes": correlated_clouds(3, 5, 20),
    "unequal sizes": [np.random.default_rng(m).standard_normal((m, 40)) for m in (1, 4, 9, 2)],
    "radius 1e-8": [x[:1] + 1e-8 * x for x in correlated_clouds(10, 5, 60)],
    "radius 1e8": [c + 1e8 * x for c, x in zip(single_points(10, 60), correlated_clouds(10, 5, 60), strict=True)],
    "1e200": [1e200 * x for x in correlated_clouds(6, 3, 30)],
    "1e-200": [1e-200 * x for x in correlated_clouds(6, 3, 30)],
    "float16": [(1e4 * x).clip(-6e4, 6e4).astype(np.float16) for x in correlated_clouds(10, 5, 60)],
    "far from the origin": [x + 1e8 for x in correlated_clouds(10, 5, 60)],
    "logits": correlated_clouds(10, 25, 10),
    "a line": correlated_clouds(10, 3, 1),
    "integers": list(np.random.default_rng(0).integers(0, 2, (8, 4, 30))),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_input_has_a_value_or_a_named_reason(case, bias):
    r = simulated_capacity(DEGENERATE[case], 50, bias=bias)
    P = len(DEGENERATE[case])
    assert r.dimensions.max(initial=0) <= r.rank
    reasons = {flag.partition(":")[0] for flag in r.flag.split(";")} - {"", "unequal_points", "left_out"}
    if reasons:
        assert reasons <= {"zero_rank", "not_separable", "separable_in_1", "few_classes"}
        assert np.isnan([r.capacity, r.stderr, r.critical_dimension]).all()
    else:
        # no P manifolds are easier than P points (Cover), none harder than their rank
        assert P / r.rank <= r.capacity <= P / max(P / 2 - bias, 0.5) + 4 * r.stderr
        assert r.stderr < r.capacity
    assert r.uncertified == 0


def test_classes_that_touch_up_to_rounding_have_a_value_or_flag_open_dichotomies(monkeypatch):
    monkeypatch.setattr(separation, "_NEWTON_STEPS", 30)  # touching classes take all there are
    shared_point = np.random.default_rng(1).standard_normal(30)
    X = [np.vstack([shared_point + 1e-10 * x[0], x]) for x in correlated_clouds(6, 4, 30)]
    r = simulated_capacity(X, 50)
    assert np.isfinite(r.capacity) != r.flag.startswith("not_separable")
    assert (r.uncertified > 0) == ("uncertified" in r.flag)


@pytest.mark.parametrize("case", ["zeros", "constant"])
def test_manifolds_without_extent_are_named(case):
    assert simulated_capacity(DEGENERATE[case]).flag == "zero_rank"


@pytest.mark.parametrize("case", ["a point at the mean", "equal classes"])
def test_manifolds_that_no_hyperplane_separates_are_named(case):
    assert simulated_capacity(DEGENERATE[case]).flag.startswith("not_separable")


def test_float16_and_float32_are_their_float64():
    X = [x.astype(np.float16) for x in correlated_clouds(10, 5, 60)]
    results = [simulated_capacity([x.astype(t) for x in X], 50).capacity for t in (np.float16, np.float32, np.float64)]
    assert results[0] == results[1] == results[2]


def test_bad_input_is_refused_by_name():
    X = correlated_clouds(4, 3, 10)
    with pytest.raises(ValueError, match="two or more manifolds, got 1"):
        simulated_capacity(X[:1])
    with pytest.raises(ValueError, match=r"equal features, got .*\(3, 9\)"):
        simulated_capacity([X[0], X[1][:, :9]])
    with pytest.raises(ValueError, match="equal features"):
        simulated_capacity([X[0], X[1][:0]])
    bad = X[2].copy()
    bad[0, 0], bad[1, 3] = np.nan, np.inf
    with pytest.raises(ValueError, match="manifold 2 holds 2 NaN or infinite"):
        simulated_capacity([X[0], X[1], bad])
    with pytest.raises(ValueError, match="50 or more to find a crossing, got 49"):
        simulated_capacity(X, 49)

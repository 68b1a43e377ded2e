"""Measures of separability, each against its definition, a closed form or scikit-learn."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import binomtest, norm, spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import calinski_harabasz_score, normalized_mutual_info_score
from sklearn.neighbors import NearestCentroid

from manigeo.manifolds import standard_error
from manigeo.separability import clusters, coordinates, logistic, probe
from manigeo.separability.best import best_layer, concordance, kendall_w
from manigeo.separability.clusters import _clusters, _distant_points, _squared_distances, cluster_agreement
from manigeo.separability.fuzziness import exponential_line, separation_fuzziness
from manigeo.separability.logistic import GRADIENT_ATOL, Logistic
from manigeo.separability.margins import one_versus_rest, pairs_of_classes
from manigeo.separability.means import fisher_ratio, nearest_mean_scores
from manigeo.separability.neighbours import neighbour_purity
from manigeo.separability.probe import linear_probe
from manigeo.separability.scores import class_averages, stratified_folds, wilson_interval
from manigeo.separability.units import unit_memorization


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gaussian_classes(P: int, M: int, dim: int, distance: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal classes around the corners of a simplex, at this distance from each other."""
    y = np.repeat(np.arange(P), M)
    return rng(seed).standard_normal((P * M, dim)) + distance / np.sqrt(2) * np.eye(P, dim)[y], y


# --------------------------------------------------------------------------------------------------- linear probes
def test_a_probe_predicts_what_logistic_regression_does_on_the_same_folds():
    X, y = gaussian_classes(4, 30, 6, 2.5)
    X *= np.array([1, 10, 100, 0.1, 1, 3])  # so that it matters that features are standardised
    fitted = linear_probe(X, y, 3, rng=rng())
    slow = np.empty_like(y)
    for fold, C in enumerate(fitted.regularization):
        train = fitted.folds != fold
        mean, deviation = X[train].mean(axis=0), X[train].std(axis=0)
        Z = (X - mean) / deviation / np.sqrt(6)
        exact = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(Z[train], y[train])
        slow[~train] = exact.predict(Z[~train])
    np.testing.assert_array_equal(fitted.predicted, slow)


@pytest.mark.parametrize(("P", "dtype"), [(2, np.float64), (5, np.float32)])
def test_the_optimum_is_scikit_learns_to_the_gradient_that_is_stated(P, dtype):
    X, y = gaussian_classes(P, 20, 90, 3.0)
    Z = ((X - X.mean(axis=0)) / X.std(axis=0) / np.sqrt(90)).astype(dtype)
    problem, solved = Logistic(Z, y, P), None
    for C in probe.GRID:
        solved = problem.solve(C, solved)
        assert problem.gradient(solved) <= GRADIENT_ATOL
        exact = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(Z.astype(np.float64), y)
        theirs = exact.coef_.T * [-0.5, 0.5] if P == 2 else exact.coef_.T  # of two classes it has the difference
        offsets = exact.intercept_ * ([-0.5, 0.5] if P == 2 else 1)
        values = []
        for weights, offset in ((solved.weights.astype(np.float64), solved.offsets), (theirs, offsets)):
            scores = Z @ weights + offset
            losses = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
            values.append(losses.mean() + solved.ridge / 2 * np.square(weights).sum())
        # strong convexity: a value is above the least by |gradient|^2 / (2 ridge) at most, of 91 P entries
        assert -1e-10 < values[0] - values[1] < 91 * P * GRADIENT_ATOL**2 / (2 * solved.ridge)


def test_regularisation_is_chosen_without_a_look_at_the_fold_that_is_scored():
    X, y = gaussian_classes(3, 20, 30, 2.0)
    before = linear_probe(X, y, 4, rng=rng())
    held_out = before.folds == 2
    X[held_out] = rng(9).standard_normal((held_out.sum(), 30)) * 7
    after = linear_probe(X, y, 4, rng=rng())
    assert after.regularization[2] == before.regularization[2]
    np.testing.assert_array_equal(after.classifiers[2].weights, before.classifiers[2].weights)


def test_standardisation_sees_the_training_points_alone():
    X, y = gaussian_classes(2, 30, 3, 3.0)
    outlier = X.copy()
    outlier[0] *= 1e6
    one, other = linear_probe(X, y, 3, rng=rng()), linear_probe(outlier, y, 3, rng=rng())
    own = one.folds[0]
    np.testing.assert_array_equal(one.classifiers[own].weights, other.classifiers[own].weights)


@pytest.mark.parametrize("P", [2, 5])
def test_many_features_are_turned_into_the_same_classifier(P, monkeypatch):
    X, y = gaussian_classes(P, 12, 200, 6.0)
    turned = linear_probe(X, y, 3, rng=rng())
    monkeypatch.setattr(probe, "_MANY_FEATURES", np.inf)
    plain = linear_probe(X, y, 3, rng=rng())
    np.testing.assert_array_equal(turned.predicted, plain.predicted)
    for one, other in zip(turned.classifiers, plain.classifiers, strict=True):
        # both end at gradients of 4e-5, on weights of order one
        np.testing.assert_allclose(one.weights, other.weights, atol=2e-2 * np.abs(other.weights).max())


@pytest.mark.parametrize(("distance", "seed"), list(itertools.product([1.0, 2.0, 3.0], [0, 1])))
def test_gaussian_classes_are_told_apart_as_well_as_can_be(distance, seed):
    X, y = gaussian_classes(2, 1500, 4, distance, seed)
    bayes = norm.cdf(distance / 2)
    right = linear_probe(X, y, rng=rng()).predicted == y
    low, high = wilson_interval(right.mean(), len(y), z=2.58)  # 99 %, of six tries
    assert low <= bayes <= high
    low, high = wilson_interval(nearest_mean_scores(X, y, rng=rng()).mean(), len(y), z=2.58)
    assert low <= bayes <= high


@pytest.mark.parametrize("seed", range(3))
def test_random_labels_are_at_chance(seed):
    P, M = 10, 40
    X, y = rng(seed).standard_normal((P * M, 30)), np.repeat(np.arange(P), M)
    error = np.sqrt((1 / P) * (1 - 1 / P) / len(y))
    assert abs((linear_probe(X, y, rng=rng()).predicted == y).mean() - 1 / P) < 3 * error
    assert abs(nearest_mean_scores(X, y, rng=rng()).mean() - 1 / P) < 3 * error
    # points that are neighbours of each other share their luck, so the standard error is that of shuffled labels
    k, shuffles = (1, M - 1), [rng(i).permutation(y) for i in range(60)]
    spread = np.std([[purity.value for purity in neighbour_purity(X, other, k)] for other in shuffles], axis=0)
    for purity, error in zip(neighbour_purity(X, y, k), spread, strict=True):
        assert abs(purity.value - purity.chance) < 3 * error
    g = cluster_agreement(X, y, rng=rng())
    found = _clusters(X, _squared_distances(X), P, rng())[0]
    assert abs(g.value - g.chance) < 3 * np.std([normalized_mutual_info_score(other, found) for other in shuffles])
    assert abs(fisher_ratio(X, y).mean() - 1) < 3 * np.sqrt(2 / ((P - 1) * 30))  # chi^2 of (P - 1) x 30


def test_separate_classes_reach_every_ceiling():
    X, y = gaussian_classes(6, 10, 20, 1000.0)
    assert (linear_probe(X, y, rng=rng()).predicted == y).all()
    assert nearest_mean_scores(X, y, rng=rng()).min() == 1
    assert cluster_agreement(X[y < 2], y[y < 2], rng=rng()).value == pytest.approx(1, abs=1e-12)
    nearest, all_of_class, more = neighbour_purity(X, y, (1, 9, 18))
    assert (nearest.value, all_of_class.value, more.value) == (1, 1, 0.5)
    assert (nearest.ceiling, all_of_class.ceiling, more.ceiling) == (1, 1, 0.5)
    assert one_versus_rest(X, y).separable.all()
    assert pairs_of_classes(X, y, rng=rng()).separable.all()


def test_features_that_are_constant_say_nothing_and_break_nothing():
    X, y = gaussian_classes(3, 12, 4, 5.0)
    with_constants = np.column_stack([X, np.full(len(X), 3.3), np.zeros(len(X))])
    one, other = (linear_probe(points, y, rng=rng()) for points in (X, with_constants))
    np.testing.assert_array_equal(one.predicted, other.predicted)
    in_single = linear_probe(with_constants.astype(np.float32) + np.float32(1e3), y, rng=rng())
    assert np.isfinite(in_single.classifiers[0].weights).all()


def test_a_solver_that_does_not_end_is_flagged_and_nothing_is_printed(monkeypatch):
    monkeypatch.setattr(logistic, "_MOST_STEPS", 1)
    X, y = gaussian_classes(3, 12, 4, 1.0)
    assert not linear_probe(X, y, rng=rng()).converged.any()


def test_what_cannot_be_probed_is_refused():
    X, y = gaussian_classes(3, 4, 4, 1.0)
    with pytest.raises(ValueError, match="3 folds or more, two of them to choose C on; got 2"):
        linear_probe(X, y, 2, rng=rng())
    with pytest.raises(ValueError, match="5 folds take 5 points of every class or more, got a class with 4"):
        linear_probe(X, y, 5, rng=rng())
    with pytest.raises(ValueError, match="two classes or more apart, got one"):
        linear_probe(X, np.zeros(12, dtype=np.int64), 3, rng=rng())


# ------------------------------------------------------------------------------------- neighbours, clusters, means
@given(seed=st.integers(0, 2**32 - 1), P=st.integers(2, 4), M=st.integers(2, 6), dim=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_purity_is_that_of_a_double_loop(seed, P, M, dim):
    X, y = rng(seed).standard_normal((P * M, dim)), np.repeat(np.arange(P), M)
    k = (1, M)
    for purity in neighbour_purity(X, y, k):
        slow = np.empty(len(y))
        for i in range(len(y)):
            distances = np.linalg.norm(X - X[i], axis=1)
            distances[i] = np.inf
            slow[i] = np.mean(y[np.argsort(distances)[: purity.k]] == y[i])
        np.testing.assert_allclose(purity.scores, slow, atol=1e-10)
        assert purity.value <= purity.ceiling + 1e-12
        assert purity.chance == pytest.approx((M - 1) / (P * M - 1))


def test_neighbours_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="k must be from 1 to 3"):
        neighbour_purity(np.zeros((4, 1)), np.array([0, 0, 1, 1]), k=(4,))


@pytest.mark.parametrize("distance", [0.0, 2.0, 6.0])
def test_g_is_scikit_learns_information_of_its_clusters_and_the_mean_of_its_parts(distance):
    X, y = gaussian_classes(5, 20, 8, distance)
    g = cluster_agreement(X, y, 4, rng=rng(3))
    again = rng(3)
    expected = [normalized_mutual_info_score(y, _clusters(X, _squared_distances(X), 5, again)[0]) for _ in range(4)]
    np.testing.assert_allclose(g.values, expected, atol=1e-10)
    assert g.value == pytest.approx(np.mean(expected), abs=1e-10)
    assert g.per_class.mean() == pytest.approx(g.value, abs=1e-10)
    assert g.converged


def test_starts_far_apart_end_at_clusters_as_tight_as_scikit_learns():
    X, _ = gaussian_classes(8, 12, 20, 3.0)
    distances = _squared_distances(X)

    def inertia(found: np.ndarray) -> float:
        return sum(np.square(X[found == c] - X[found == c].mean(axis=0)).sum() for c in range(8))

    ours = np.mean([inertia(_clusters(X, distances, 8, rng(i))[0]) for i in range(30)])
    theirs = np.mean([KMeans(8, n_init=1, random_state=i).fit(X).inertia_ for i in range(30)])
    assert ours < 1.01 * theirs  # 1.4 % from one start to another, so .4 % of the difference of means


def test_starts_are_in_different_clusters_whether_distances_are_held_or_not(monkeypatch):
    X, y = gaussian_classes(8, 12, 20, 30.0)
    held = _squared_distances(X)
    np.testing.assert_allclose(held(np.arange(96)), np.square(X[:, None] - X).sum(axis=2), atol=1e-9)  # of 900
    monkeypatch.setattr(clusters, "_HELD_BYTES", 0)
    for seed in range(30):
        drawn = [_distant_points(distances, 96, 8, rng(seed)) for distances in (held, _squared_distances(X))]
        np.testing.assert_array_equal(*drawn)
        assert set(y[drawn[0]]) == set(range(8))


def test_points_that_are_all_one_are_one_cluster_and_flagged():
    g = cluster_agreement(np.ones((12, 3)), np.repeat([0, 1, 2], 4), rng=rng())
    assert g.value == 0
    assert not g.converged


def test_the_fisher_ratio_is_scikit_learns_variance_ratio():
    X, y = gaussian_classes(5, 20, 8, 2.0)
    assert fisher_ratio(X, y).mean() == pytest.approx(calinski_harabasz_score(X, y), rel=1e-10)


def test_the_nearest_mean_is_scikit_learns_nearest_centroid():
    X, y = gaussian_classes(4, 15, 5, 1.5)
    folds = stratified_folds(y, 5, rng(2))
    slow = np.empty(len(y))
    for fold in range(5):
        out = folds == fold
        slow[out] = NearestCentroid().fit(X[~out], y[~out]).predict(X[out]) == y[out]
    np.testing.assert_array_equal(nearest_mean_scores(X, y, rng=rng(2)), slow)


# ----------------------------------------------------------------------------------------------------- hard margins
def quadratic_program(X: np.ndarray, sides: np.ndarray) -> float:
    """min |w| such that y (w.x + b) >= 1; its inverse is the margin, 0 where there is none."""
    w, b = cp.Variable(X.shape[1]), cp.Variable()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w)), [cp.multiply(sides, X @ w + b) >= 1])
    problem.solve(solver=cp.CLARABEL)
    return 1 / float(np.linalg.norm(w.value)) if problem.status == cp.OPTIMAL else 0.0


@given(seed=st.integers(0, 2**32 - 1), P=st.integers(2, 4), M=st.integers(1, 6), dim=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_every_margin_is_that_of_a_quadratic_program_between_its_bounds(seed, P, M, dim):
    X, y = rng(seed).standard_normal((P * M, dim)), np.repeat(np.arange(P), M)
    centered = X - X.mean(axis=0)
    unit = np.sqrt(np.square(centered).sum(axis=1).mean())
    for solved in (one_versus_rest(X, y), pairs_of_classes(X, y, rng=rng())):
        for (one, other), separable, margin, residual in zip(
            solved.problems, solved.separable, solved.margin, solved.residual, strict=True
        ):
            rows = (y == one) | (y == other) | (other < 0)
            exact = quadratic_program(centered[rows] / unit, np.where(y[rows] == one, 1.0, -1.0))
            if margin > 1e-4 or exact > 1e-4:  # the program's own tolerance is 1e-8, and margins of 1e-4 are its limit
                assert separable
                # to the program's accuracy, between the lower and the upper bound
                assert margin - 1e-6 <= exact <= margin + residual + 1e-6
                # the solver holds inner products in float32, 1e-7 of which is 1e-4 of points at 1/margin = 1000
                assert residual < 1e-2 * margin or margin < 5e-3
            if not separable:
                assert residual <= 1e-9
        assert solved.certified.all()


def test_exclusive_or_and_duplicates_are_proved_not_to_be_separable():
    square = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    for X, y in ((square, np.array([0, 0, 1, 1])), (np.zeros((4, 2)), np.array([0, 0, 1, 1]))):
        solved = one_versus_rest(X, y)
        assert not solved.separable.any()
        assert (solved.margin == 0).all()
        assert solved.certified.all()


def test_of_many_pairs_some_are_drawn():
    X, y = gaussian_classes(8, 3, 10, 5.0)
    solved = pairs_of_classes(X, y, 10, rng=rng())
    assert len({tuple(pair) for pair in solved.problems.tolist()}) == 10
    assert len(pairs_of_classes(X, y, 100, rng=rng()).problems) == 28


# ------------------------------------------------------------------------------------------------- scores, best layer
@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (500, 1000)])
def test_the_interval_of_a_share_is_wilsons(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)  # z to seven digits


def test_averages_over_classes_weigh_classes_alike():
    scores, y = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(class_averages(scores, y), [0.5, 1.0])
    assert standard_error(np.array([0.5, 1.0])) == pytest.approx(0.25)
    assert np.isnan(standard_error(np.array([0.5])))


@given(seed=st.integers(0, 2**32 - 1), m=st.integers(2, 6), layers=st.integers(2, 8))
def test_concordance_is_the_mean_rank_correlation_of_pairs(seed, m, layers):
    profiles = rng(seed).standard_normal((m, layers))
    pairs = [spearmanr(a, b).statistic for a, b in itertools.combinations(profiles, 2)]
    assert (m * kendall_w(profiles) - 1) / (m - 1) == pytest.approx(np.mean(pairs), abs=1e-9)  # Kendall (1948)


def test_concordance_of_opposite_rankings_is_none_and_of_constants_undefined():
    assert kendall_w(np.array([[1.0, 2, 3], [3, 2, 1]])) == 0
    assert np.isnan(kendall_w(np.ones((3, 4))))
    assert np.isnan(kendall_w(np.array([[1.0, 2.0]])))
    assert np.isnan(concordance(np.ones((2, 3, 4)), rng=rng()).low)


def test_a_clear_best_layer_has_no_interval_and_a_tie_has_all_of_it():
    per_class = rng().standard_normal((4, 50)) * 0.01 + np.array([0.0, 1.0, 0.5, 0.2])[:, None]
    assert best_layer(per_class, rng=rng()) == best_layer(per_class + 7, rng=rng())
    clear = best_layer(per_class, rng=rng())
    assert (clear.index, clear.low, clear.high, clear.share) == (1, 1, 1, 1.0)
    tied = best_layer(rng().standard_normal((4, 50)), rng=rng())
    assert tied.high - tied.low >= 2
    assert tied.share < 1


# ------------------------------------------------------------------------------------------------------- coordinates
def clouds(P: int = 5, M: int = 4, features: int = 60) -> list[np.ndarray]:
    return [rng(c).standard_normal((M + c % 2, features)).astype(np.float32) + 3 for c in range(P)]


def test_inner_products_by_panels_are_those_of_all_points_at_once(monkeypatch):
    X = np.concatenate(clouds()).astype(np.float64)
    Z = (X - X.mean(axis=0)) / X.std(axis=0) / np.sqrt(60)
    for panel, rows in ((1 << 20, 100), (9 * 60 * 4, 5), (1, 1)):
        monkeypatch.setattr(coordinates, "_PANEL_BYTES", panel)
        monkeypatch.setattr(coordinates, "_ROWS_AT_ONCE", rows)
        pooled = coordinates.pooled_moments(clouds())
        plain, standardised = coordinates.pooled_grams(clouds(), pooled, [None, coordinates.standardising(pooled)])
        centered = X - X.mean(axis=0)
        # float32: 1e-7 a term, over 60 terms of order one
        np.testing.assert_allclose(plain, centered @ centered.T, atol=2e-4)
        np.testing.assert_allclose(standardised, Z @ Z.T, atol=1e-5)


def test_moments_are_those_of_all_points_and_know_constant_features():
    manifolds = [X * np.r_[np.ones(58), 0, 1] for X in clouds()]
    manifolds = [(X + np.r_[np.zeros(59), 1e4]).astype(np.float32) for X in manifolds]
    pooled, X = coordinates.pooled_moments(manifolds), np.concatenate(manifolds).astype(np.float64)
    np.testing.assert_allclose(pooled.mean, X.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(pooled.deviation[:58], X.std(axis=0)[:58], rtol=1e-5)
    assert pooled.n_constant == 1
    assert pooled.deviation[58] == 0


def test_points_in_coordinates_have_their_distances():
    X = rng().standard_normal((7, 40))
    L = coordinates.gram_factor(X @ X.T)
    # jitter of 1e-7 of squared lengths near 40
    np.testing.assert_allclose(L @ L.T, X @ X.T, atol=1e-4)
    duplicates = np.repeat(X[:3], 2, axis=0).astype(np.float32)
    assert np.isfinite(coordinates.gram_factor(duplicates @ duplicates.T)).all()


def test_a_linear_function_of_coordinates_is_one_of_features():
    manifolds = clouds(features=80)
    pooled = coordinates.pooled_moments(manifolds)
    (gram,) = coordinates.pooled_grams(manifolds, pooled, [coordinates.standardising(pooled)])
    L = coordinates.gram_factor(gram)
    v = rng().standard_normal((len(L), 2)).astype(np.float32)
    weights, offsets = coordinates.weights_in_features(manifolds, pooled, L, v)
    # the points are in the span of one another but for their mean, so the Gram has an eigenvalue of the jitter: values
    # along it are lost, 1e-7 ^ 1/2 of a length of one
    np.testing.assert_allclose(np.concatenate(manifolds) @ weights + offsets, L @ v, atol=5e-3)


def test_a_unit_of_one_example_has_unitmem_one_and_a_constant_unit_zero():
    one_hot, constant, negative = np.eye(7)[:, [3]] * 0.1, np.full((7, 1), 0.1), np.full((7, 1), -2.0)
    found = unit_memorization(np.split(np.hstack([one_hot, constant, negative]), [2, 3]))
    assert found.tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="two points or more, got 1"):
        unit_memorization([constant[:1]])


def test_unitmem_is_what_its_equation_says_of_every_unit():
    X = rng(5).normal(size=(40, 6)).astype(np.float32)
    for unit, found in zip(np.maximum(X.T, 0).astype(float), unit_memorization([X[:9], X[9:]]), strict=True):
        others = np.delete(unit, unit.argmax()).mean()
        assert found == pytest.approx((unit.max() - others) / (unit.max() + others), rel=1e-12)


# ---------------------------------------------------------------------------------------------- law of separation
def scatter(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S_w and S_b of labels from 0 on, dense."""
    means, weights = np.stack([X[y == c].mean(axis=0) for c in range(y.max() + 1)]), np.bincount(y) / len(y)
    within, between = X - means[y], means - weights @ means
    return within.T @ within / len(y), (between.T * weights) @ between


@pytest.mark.parametrize(("P", "dim"), [(2, 2), (5, 9)])
def test_simplex_means_with_isotropic_noise_have_the_fuzziness_of_their_sides(P, dim):
    side, noise = 3.0, 0.7
    cross = noise * np.vstack([np.eye(dim), -np.eye(dim)])  # covariance noise^2 / dim around each mean
    X = np.concatenate([side * np.eye(P, dim)[c] + cross for c in range(P)])
    parts = separation_fuzziness(X, np.repeat(np.arange(P), 2 * dim))
    np.testing.assert_allclose(parts, (P - 1) * noise**2 / dim / (side**2 / P), rtol=1e-12)


def test_fuzziness_is_a_dense_trace_and_the_same_after_linear_maps():
    X, y = gaussian_classes(4, 12, 7, 1.0)
    X, y = X[:-5], y[:-5]  # classes of different sizes
    S_w, S_b = scatter(X, y)
    dense = np.trace(S_w @ np.linalg.pinv(S_b, rcond=1e-10))
    assert separation_fuzziness(X, y).mean() == pytest.approx(dense, rel=1e-10)
    rotated = 5.0 * X @ np.linalg.qr(rng(1).standard_normal((7, 7)))[0] + 20.0
    assert separation_fuzziness(rotated, y).mean() == pytest.approx(dense, rel=1e-10)
    # all directions are spanned by the means: then any invertible map will do
    few = X[:, :3]
    mapped = few @ rng(2).standard_normal((3, 3))
    np.testing.assert_allclose(separation_fuzziness(mapped, y), separation_fuzziness(few, y), rtol=1e-8)


def test_fuzziness_of_a_wide_layer_is_that_of_its_coordinates():
    X, y = gaussian_classes(3, 8, 200, 6.0)
    coordinates_of = coordinates.gram_factor((X - X.mean(axis=0)) @ (X - X.mean(axis=0)).T)
    # the factor adds 1e-7 of the points' squares to each
    assert separation_fuzziness(coordinates_of, y).sum() == pytest.approx(separation_fuzziness(X, y).sum(), rel=1e-5)


def test_points_on_their_means_have_no_fuzziness_and_equal_means_infinite():
    y = np.repeat(np.arange(3), 4)
    np.testing.assert_allclose(separation_fuzziness(np.eye(3)[y], y), 0.0, atol=1e-30)
    signs = np.tile([1.0, -1.0], 6)[:, None] * np.arange(1.0, 4.0)[y][:, None]
    assert np.isinf(separation_fuzziness(signs + 0.1, y)).all()


def test_the_law_of_separation_needs_three_layers_that_differ():
    assert np.isnan(exponential_line(np.arange(2), np.array([2.0, 1.0]))).all()
    assert np.isnan(exponential_line(np.arange(3), np.ones(3))).all()
    r, factor = exponential_line(np.array([0, 2, 3]), np.array([8.0, 4.0, 1.0]))
    assert r == pytest.approx(np.corrcoef([0, 2, 3], np.log([8, 4, 1]))[0, 1], rel=1e-12)
    assert np.log(factor) == pytest.approx(np.polyfit([0, 2, 3], np.log([8, 4, 1]), 1)[0], rel=1e-12)

"""Where: profiles, intervals, and memorization planted at a known layer."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import kstest, spearmanr, t

from manigeo.capacity.mean_field import manifold_capacity
from manigeo.localization.profile import Evidence, agreement, locate
from manigeo.localization.statement import _reason

curves = hnp.arrays(float, st.integers(2, 8), elements=st.floats(-10, 10))


@given(curves)
def test_a_rising_curve_is_the_sum_of_what_its_layers_add(curve):
    rising = np.sort(np.abs(curve)) + 1
    found = locate([Evidence(rising[None])], cumulative=True, n_resamples=10)
    np.testing.assert_allclose(found.shares.cumsum(), rising / rising[-1], atol=1e-12)


@given(curves)
def test_shares_sum_to_one_and_the_centre_lies_between_onset_and_end_or_beside_them(curve):
    for cumulative in (False, True):
        found = locate([Evidence(curve[None])], cumulative=cumulative, n_resamples=10)
        assert found.shares.sum() == pytest.approx(1)
        assert 0 <= found.onset.value <= found.end.value <= len(curve) - 1
        assert -1e-9 <= found.center_of_mass.value <= len(curve) - 1 + 1e-9


def test_what_falls_again_after_a_step_leaves_the_step_where_it_is():
    units = np.array([0.0, 0.0, 2.0, 1.8, 1.5, 1.4]) + 0.3 * np.random.default_rng(0).standard_normal((10, 6))
    found = locate([Evidence(units)], cumulative=True)
    assert (found.center_of_mass.value, found.center_of_mass.high) == (2, 2)
    assert found.center_of_mass.low > 1.5


def test_a_step_is_at_its_layer_and_a_local_peak_at_its_own():
    step = Evidence(np.repeat([[0.0, 0.0, 0.0, 2.0, 2.0]], 6, axis=0))
    found = locate([step], cumulative=True, n_resamples=50)
    assert (found.onset.value, found.center_of_mass.value, found.end.value) == (3, 3, 3)
    peak = locate([Evidence(np.array([[0.0, 3.0, 1.0]]), np.full(3, 0.01))], cumulative=False)
    assert peak.center_of_mass.value == pytest.approx(1.25)


def test_the_interval_of_evidence_is_that_of_its_mean():
    rng = np.random.default_rng(0)
    units = rng.standard_normal((400, 3)) + np.arange(3)
    found = locate([Evidence(units)], cumulative=False)
    half = t.ppf(0.975, 399) * units.std(axis=0, ddof=1) / 20
    np.testing.assert_allclose(found.evidence_high - units.mean(axis=0), half)
    np.testing.assert_allclose(units.mean(axis=0) - found.evidence_low, half)


def test_the_interval_of_one_number_is_that_of_its_error():
    found = locate([Evidence(np.array([[1.0, 5.0]]), np.array([0.1, 0.2]))], cumulative=False)
    np.testing.assert_allclose(found.evidence_high - found.evidence, [0.196, 0.392], rtol=1e-3)


def test_several_runs_have_students_interval_of_the_spread_between_them():
    apart = [Evidence(np.full((3, 2), value)) for value in (0.0, 1.0, 2.0, 3.0)]
    found = locate(apart, cumulative=False)
    half = t.ppf(0.975, 3) * np.std([0, 1, 2, 3], ddof=1) / 2
    np.testing.assert_allclose(found.evidence_high - found.evidence, half)


@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("place", [0, 4, 7])
@pytest.mark.parametrize("cumulative", [False, True])
def test_intervals_hold_the_planted_layer_first_and_last_included(cumulative, place, noise):
    """Thirty classes, noise on the step of one. Of 300 intervals .997 or more held it; .95 of 60 less three standard errors
    are 52."""
    step = np.arange(8) >= place if cumulative else np.arange(8) == place
    rng = np.random.default_rng([place, cumulative])
    held = 0
    for seed in range(60):
        found = locate([Evidence(step + noise * rng.standard_normal((30, 8)))], cumulative=cumulative, n_resamples=100,
                       seed=seed)  # fmt: skip
        held += found.center_of_mass.low <= place <= found.center_of_mass.high
        assert found.shares_low[place] <= found.shares[place] <= found.shares_high[place]
    assert held >= 52


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_intervals_of_several_runs_cover_the_truth_that_varies_between_them(runs):
    rng = np.random.default_rng([runs, 1])
    held = 0
    for _ in range(300):
        truth = np.array([0, 1.0, 0, 0]) + 0.3 * rng.standard_normal((runs, 4))
        found = locate([Evidence(row[None], np.full(4, 0.01)) for row in truth], cumulative=False, n_resamples=10)
        held += found.evidence_low[1] <= 1 <= found.evidence_high[1]
    assert held >= 0.95 * 300 - 3 * np.sqrt(300 * 0.95 * 0.05)


@pytest.mark.parametrize("classes", [5, 10, 30])
@pytest.mark.parametrize("cumulative", [False, True])
def test_nothing_is_located_where_evidence_is_noise_or_below_zero(cumulative, classes):
    """Both p-values are to be at most .05 at once; of 100 trials 5 are the most that a level of .05 leaves room for."""
    reasons = []
    for seed in range(100):
        noise = np.random.default_rng([classes, seed]).standard_normal((classes, 8))
        found = locate([Evidence(noise + np.r_[-3.0, np.zeros(7)])], cumulative=cumulative, n_resamples=99, seed=seed)
        reasons.append(_reason(found))
    assert reasons.count("") <= 5


def test_a_frozen_layer_has_no_share_and_an_exact_interval():
    rng = np.random.default_rng(4)
    units = np.zeros((10, 4))
    units[:, 2] = 1 + 0.1 * rng.standard_normal(10)
    found = locate([Evidence(units)], cumulative=False)
    assert found.shares.tolist() == [0, 0, 1, 0]
    assert found.named.tolist() == [False, False, True, False]
    assert (found.center_of_mass.low, found.center_of_mass.high) == (2, 2)


def test_all_layers_that_hold_something_are_named_and_the_rest_is_not():
    units = np.array([0.5, 0.0, 0.4, 0.01, 0.1]) + 0.02 * np.random.default_rng(5).standard_normal((30, 5))
    assert locate([Evidence(units)], cumulative=False).named.tolist() == [True, False, True, False, False]


def test_places_are_counted_on_the_scale_that_is_given():
    step = np.repeat([[0.0, 1.0, 1.0]], 5, axis=0)
    found = locate([Evidence(step)], cumulative=True, positions=[1, 4, 6])
    assert (found.center_of_mass.value, found.onset.value) == (4, 4)


@pytest.mark.parametrize("cumulative", [False, True])
def test_where_no_layer_differs_p_values_are_uniform(cumulative):
    rng = np.random.default_rng(1)
    p = []
    for seed in range(200):
        noise = rng.standard_normal((12, 5))
        units = noise.cumsum(axis=1) if cumulative else noise
        p.append(locate([Evidence(units)], cumulative=cumulative, n_resamples=99, seed=seed).p_differs)
    assert kstest(p, "uniform").pvalue > 1e-3  # p-values come in hundredths, which 200 of them cannot tell


def test_layers_that_differ_have_a_small_p_value():
    rng = np.random.default_rng(2)
    units = 0.3 * rng.standard_normal((20, 6)) + np.eye(6)[4]
    assert locate([Evidence(units)], cumulative=False, n_resamples=999).p_value == 1 / 1000


def test_agreement_is_spearmans_correlation_of_the_shares():
    rng = np.random.default_rng(3)
    one, other = (locate([Evidence(rng.random((9, 6)))], cumulative=False) for _ in range(2))
    pairs = np.stack([np.arange(6), np.arange(6)], axis=1)
    found = agreement(one, other, pairs)
    assert found.value == pytest.approx(spearmanr(one.shares, other.shares).statistic)
    assert found.low <= found.value <= found.high
    assert np.isnan(agreement(one, other, pairs[:2]).value)


def test_what_is_not_evidence_is_refused():
    with pytest.raises(ValueError, match="expected runs of the same layers, got"):
        locate([Evidence(np.ones((2, 3))), Evidence(np.ones((2, 4)))], cumulative=True)
    with pytest.raises(ValueError, match="evidence must be finite"):
        locate([Evidence(np.array([[np.nan, 1.0]]))], cumulative=True)


# ------------------------------------------------------------------------------------------------ planted memorization
LAYERS, WIDTH, CLASSES, POINTS, SEEDS = 6, 80, 8, 10, 20
TRUE = np.repeat(np.arange(CLASSES), POINTS)


def activations(weights, X, labels, place, names):
    """A frozen network; at layer ``place`` each example gets a vector that is its label's."""
    found, h = [], X
    for layer, W in enumerate(weights):
        h = np.maximum(h @ W, 0)
        if layer == place:
            h = h + 0.6 * np.linalg.norm(h, axis=1).mean() * names[labels] / np.sqrt(WIDTH)
        found.append(h)
    return found


def inverse_capacities(layers, labels, seed):
    clouds = [[h[labels == c] for c in range(CLASSES)] for h in layers]
    geometry = [manifold_capacity(X, n_draws=20, seed=seed, errors="manifolds") for X in clouds]
    return [1 / r.per_manifold["capacity"].to_numpy() for r in geometry]


@cache
def drawn(seed):
    """Weights, images, permuted labels and the labels' names, and inverse capacities at the end and before where nothing
    was planted: below its layer a planted label changes nothing."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((WIDTH, WIDTH)) * np.sqrt(2 / WIDTH) for _ in range(LAYERS)]
    earlier = [W + 0.1 * rng.standard_normal(W.shape) * np.sqrt(2 / WIDTH) for W in weights]
    labels, names = rng.permutation(TRUE), rng.standard_normal((CLASSES, WIDTH))
    X = rng.standard_normal((CLASSES, WIDTH))[TRUE] + rng.standard_normal((CLASSES * POINTS, WIDTH))
    end = inverse_capacities(activations(weights, X, labels, None, names), labels, seed)
    before = inverse_capacities(activations(earlier, X, labels, None, names), labels, seed + 1000)
    return weights, X, labels, names, end, before


def planted(seed, place):
    """Localized from capacities of permuted labels, with a label injected at ``place`` (None: nowhere)."""
    weights, X, labels, names, end, before = drawn(seed)
    if place is not None:
        end = end[:place] + inverse_capacities(activations(weights, X, labels, place, names)[place:], labels, seed)
    evidence = np.minimum(np.stack(before, axis=1), POINTS / 2) - np.stack(end, axis=1)
    return locate([Evidence(evidence)], cumulative=True, n_resamples=200, seed=seed)


@pytest.mark.long
@pytest.mark.parametrize("place", [0, 2, LAYERS - 1])
def test_a_planted_layer_is_found_within_one(place):
    found = [planted(seed, place) for seed in range(SEEDS)]
    hits = [abs(f.center_of_mass.value - place) <= 1 and abs(f.onset.value - place) <= 1 for f in found]
    assert np.mean(hits) >= 0.95
    assert np.mean([_reason(f) == "" for f in found]) >= 0.95


@pytest.mark.long
def test_where_nothing_is_planted_there_is_not_enough_evidence():
    assert np.mean([_reason(planted(seed, None)) != "" for seed in range(SEEDS)]) >= 0.95

import warnings

import numpy as np
import pytest
from scipy import stats

from manigeo.correlation import COEFFICIENTS, correlate


def related(n: int, r: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, noise = np.random.default_rng(seed).standard_normal((2, n))
    return x, r * x + np.sqrt(1 - r**2) * noise


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_line_is_one_and_its_mirror_minus_one(name, sign):
    x = np.random.default_rng(1).standard_normal(12)
    r = correlate(x, sign * (3 * x + 2), name)
    assert r.value == pytest.approx(sign, abs=1e-12)
    assert (r.low, r.high) == (pytest.approx(sign), pytest.approx(sign))
    assert r.n == 12


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_the_interval_is_that_of_all_resamples_one_by_one(name):
    x, y = related(5, 0.8)
    taken = np.random.default_rng(3).integers(5, size=(100, 5))
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        drawn = [COEFFICIENTS[name](x[rows], y[rows]) for rows in taken]
    r = correlate(x, y, name, n_resamples=100, seed=3)
    assert (r.low, r.high) == pytest.approx(np.nanquantile(drawn, [0.025, 0.975]), abs=1e-12)


@pytest.mark.parametrize("name", ["spearman", "kendall"])
def test_ranks_do_not_mind_a_bend(name):
    x = np.linspace(0, 5, 9)
    assert correlate(x, np.exp(x), name).value == pytest.approx(1)
    assert correlate(x, np.exp(x), "pearson").value < 0.9


@pytest.mark.long
def test_intervals_cover_the_truth_as_often_as_they_say():
    hits = 0
    for seed in range(200):
        r = correlate(*related(60, 0.5, seed), "pearson", n_resamples=200, seed=seed)
        hits += r.low < 0.5 < r.high
    # 95 % less what percentiles of 60 runs lose, about two, and three standard errors of 200 trials, five
    assert 0.87 < hits / 200 < 0.995


def test_the_partial_coefficient_takes_away_what_the_given_explains():
    rng = np.random.default_rng(2)
    z = rng.standard_normal(5000)
    x, y = z + rng.standard_normal(5000), z + rng.standard_normal(5000)
    assert correlate(x, y, "pearson", n_resamples=100).value == pytest.approx(0.5, abs=0.03)
    partial = correlate(x, y, "pearson", given=z, n_resamples=100)
    assert abs(partial.value) < 0.05  # 3.5 standard errors, 1 / sqrt(5000) each
    assert partial.low < 0 < partial.high
    # the same as the correlation of what a line in z leaves of both
    left = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y)]
    assert partial.value == pytest.approx(stats.pearsonr(*left).statistic, abs=1e-12)


def test_nothing_is_made_of_constants_and_few_runs():
    x = np.arange(6.0)
    assert correlate(x, np.ones(6)).flag == "constant"
    assert correlate(x, x**2, given=np.ones(6)).flag == "constant"
    assert np.isnan(correlate(x, x**2, given=np.ones(6)).value)
    few = correlate(x[:3], x[:3])
    assert (few.flag, few.n) == ("fewer_than_4_runs", 3)
    assert np.isnan(few.value)


def test_what_is_no_pair_of_measures_is_refused():
    with pytest.raises(ValueError, match="coefficient must be one of"):
        correlate(np.ones(5), np.ones(5), "cosine")
    with pytest.raises(ValueError, match="must be finite"):
        correlate(np.array([1.0, 2, np.nan, 4]), np.arange(4.0))

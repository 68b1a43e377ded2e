import itertools

import numpy as np
import pandas as pd
import pytest

from manigeo import capacity_vs_M, manifold_capacity
from manigeo.capacity import sampling
from manigeo.capacity.sampling import bootstrap_intervals
from manigeo.capacity.unstructured import unstructured_capacity


def clouds(P: int = 20, M: int = 20, N: int = 200, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(N) + 0.5 * rng.standard_normal((M, N)) for _ in range(P)]


def test_at_all_points_the_sweep_is_the_capacity_of_the_manifolds():
    manifolds = clouds()
    last = capacity_vs_M(manifolds, [5, 20], n_draws=50, centers="keep", seed=3).iloc[-1]
    r = manifold_capacity(manifolds, n_draws=50, centers="keep", seed=3)
    # the same points and draws; the points' order alone differs
    assert last["M"] == 20
    assert last["capacity"] == pytest.approx(r.capacity, rel=0.1)
    assert last["radius"] == pytest.approx(r.radius, rel=0.1)


def test_a_smaller_sample_lies_in_the_larger_ones(monkeypatch):
    seen = []

    def remember(manifolds, *args):
        seen.append([{row.tobytes() for row in X} for X in manifolds])
        return manifold_capacity(manifolds, *args)

    monkeypatch.setattr(sampling, "manifold_capacity", remember)
    table = capacity_vs_M(clouds(P=4), [12, 3, 7, 3], n_draws=5)
    assert table["M"].tolist() == [3, 7, 12]
    for smaller, larger in itertools.pairwise(seen):
        assert all(a < b for a, b in zip(smaller, larger, strict=True))


def test_an_m_does_not_depend_on_the_others():
    alone = capacity_vs_M(clouds(), [7], n_draws=20, seed=1)
    among = capacity_vs_M(clouds(), [3, 7, 20], n_draws=20, seed=1)
    pd.testing.assert_frame_equal(alone, among[among["M"] == 7].reset_index(drop=True))


def test_points_without_structure_lie_on_the_floor():
    rng = np.random.default_rng(0)
    manifolds = [rng.standard_normal((40, 2000)) for _ in range(30)]
    table = capacity_vs_M(manifolds, [5, 20, 40], n_draws=200)
    assert table["floor"].tolist() == [unstructured_capacity(M, n_manifolds=30) for M in (5, 20, 40)]
    # beside the error of draws: points this even in all features are seen as they are, 2 % above the floor in a metric
    error = np.hypot(4 * table["capacity_stderr"], 0.03 * table["floor"])
    assert (abs(table["capacity"] - table["floor"]) < error).all()


def test_more_points_of_a_manifold_have_less_capacity():
    capacity = capacity_vs_M(clouds(M=40), [2, 5, 10, 20, 40], n_draws=100)["capacity"]
    assert (np.diff(capacity) < 0).all()


@pytest.mark.parametrize("sizes", [[], [0, 5], [5, 21]])
def test_sizes_that_cannot_be_are_refused(sizes):
    with pytest.raises(ValueError, match=r"from 1 to 20, the smallest manifold's; got"):
        capacity_vs_M(clouds(), sizes)


def test_at_a_margin_there_is_no_floor():
    assert capacity_vs_M(clouds(P=3), [5], kappa=0.5, n_draws=5)["floor"].isna().all()


# ------------------------------------------------------------------------------------------------------------ bootstrap
def table(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"capacity": np.ones(n), "radius": np.ones(n), "dimension": np.ones(n)} | columns)


def test_intervals_are_those_of_a_normal_mean():
    x = np.random.default_rng(0).standard_normal(400) + 10
    low, high = bootstrap_intervals(table(radius=x), n_resamples=5000)["radius"]
    expected = x.mean() + 1.96 * x.std() / np.sqrt(400) * np.array([-1, 1])
    # the error of a 2.5 % point of 5000 resamples is 0.04 standard deviations
    np.testing.assert_allclose([low, high], expected, atol=4 * 0.04 * x.std() / np.sqrt(400))


def test_capacity_is_resampled_through_its_reciprocal():
    inverse = np.random.default_rng(1).uniform(1, 3, 50)
    low, high = bootstrap_intervals(table(capacity=1 / inverse, radius=inverse), seed=4)["capacity"]
    of_inverse = bootstrap_intervals(table(radius=inverse), seed=4)["radius"]
    np.testing.assert_allclose([1 / high, 1 / low], of_inverse, rtol=1e-12)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    samples = [table(radius=rng.normal(2, 1, 50)) for _ in range(400)]
    intervals = [bootstrap_intervals(sample, 300, seed=i)["radius"] for i, sample in enumerate(samples)]
    hits = [low < 2 < high for low, high in intervals]
    # 95 %, less 1.5 % for 50 manifolds; four binomial errors of 400 trials are 4.5 %
    assert np.mean(hits) == pytest.approx(0.935, abs=0.045)


def test_manifolds_without_numbers_are_left_out_and_one_has_no_interval():
    with_nan = table(radius=[1.0, 2.0, np.nan, 3.0], capacity=[1.0, 1.0, np.nan, 1.0])
    assert bootstrap_intervals(with_nan) == bootstrap_intervals(with_nan.dropna())
    assert np.isnan(bootstrap_intervals(table(radius=[1.0]))["radius"]).all()


def test_manifolds_of_infinite_capacity_have_an_infinite_end():
    low, high = bootstrap_intervals(table(capacity=[np.inf, np.inf, 1.0]))["capacity"]
    assert np.isfinite(low)
    assert high == np.inf


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="takes 100 resamples or more"):
        bootstrap_intervals(table(radius=[1.0, 2.0]), n_resamples=10)

"""Count sketches keep inner products: exactly in the mean, and with the variance that is stated."""

import itertools

import numpy as np
import pytest
import torch

from manigeo_extract.recording.sketching import CountSketch


def sketched(x: torch.Tensor, n_sums: int, seed: int, layer: str = "conv1") -> torch.Tensor:
    return CountSketch(x.shape[1], n_sums, layer=layer, seed=seed)(x)


def variance(x: np.ndarray, y: np.ndarray, n_sums: int) -> float:
    k = -(-len(x) // n_sums)
    p = (k - 1) / (k * n_sums - 1)
    return p * (x @ x * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2))


@pytest.mark.parametrize(("n", "n_sums"), [(4, 2), (3, 2), (5, 1), (5, 3)])
def test_mean_and_variance_over_all_sketches_are_those_of_the_formula(n, n_sums):
    """Every deal of the features to places, with every choice of signs; the mean is <x, y> itself."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, n))
    places = n_sums * -(-n // n_sums)
    found = []
    for deal in itertools.permutations(range(places)):
        same = np.zeros((n, n), dtype=bool)
        for b in range(n_sums):
            members = [deal[place] for place in range(b, places, n_sums) if deal[place] < n]
            same[np.ix_(members, members)] = True
        for signs in itertools.product([-1, 1], repeat=n):
            found.append((signs * x) @ same @ (signs * y))
    assert np.mean(found) == pytest.approx(x @ y, abs=1e-12)  # a sum of at most 46,080 terms of order 1
    assert np.var(found) == pytest.approx(variance(x, y, n_sums), abs=1e-12)


@pytest.mark.parametrize("every", [1, 40])
def test_mean_and_variance_over_seeds_are_those_of_the_formula(every):
    """Also where the large features lie as far apart as there are sums, as those of a pixel in many channels may."""
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((2, 500)) ** 3).astype(np.float32)  # some features much larger than others
    y += 0.3 * x
    x[np.arange(500) % every > 0] *= 0.01
    y[np.arange(500) % every > 0] *= 0.01
    pairs = [sketched(torch.from_numpy(np.stack([x, y])), 40, seed).double().numpy() for seed in range(4000)]
    found = np.array([a @ b for a, b in pairs])
    expected = variance(x.astype(float), y.astype(float), 40)
    assert abs(found.mean() - float(x.astype(float) @ y)) < 4 * np.sqrt(expected / len(found))  # standard errors
    fourth = np.mean((found - found.mean()) ** 4)
    stderr = np.sqrt((fourth - found.var() ** 2) / len(found))
    assert abs(found.var() - expected) < 4 * stderr


def test_a_sketch_is_no_worse_than_as_many_gaussian_directions():
    """Their variance is (|x|^2 |y|^2 + <x, y>^2) / d, for any x and y."""
    rng = np.random.default_rng(2)
    for n, n_sums in ((65536, 5000), (501, 500), (1000, 1)):
        x, y = rng.standard_normal((2, n))
        assert variance(x, y, n_sums) <= (x @ x * (y @ y) + (x @ y) ** 2) / n_sums


def test_a_sketch_is_a_linear_map_that_takes_every_feature_once():
    S = sketched(torch.eye(103), 10, seed=3)
    assert (S.abs().sum(1) == 1).all()
    assert S.abs().sum(0).min() >= 10 - 7  # places that 103 features leave free in 10 sums of 11
    assert S.abs().sum(0).max() <= 11
    X = torch.randn(50, 103, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sketched(X, 10, seed=3), X @ S)


def test_a_row_does_not_depend_on_the_others(monkeypatch):
    X = torch.randn(9, 3000, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([sketched(row[None], 70, seed=0) for row in X])
    for numbers in (1, 7000, 1 << 20):
        monkeypatch.setattr("manigeo_extract.recording.sketching._CPU_NUMBERS", numbers)
        assert torch.equal(sketched(X, 70, seed=0), alone)


def test_layers_and_seeds_have_sketches_of_their_own():
    X = torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    first, again, seed, layer = (sketched(X, 20, *key) for key in ((0, "a"), (0, "a"), (1, "a"), (0, "b")))
    assert torch.equal(first, again)
    assert not torch.equal(first, seed)
    assert not torch.equal(first, layer)


def test_bfloat16_is_summed_in_float32():
    X = torch.full((1, 4000), 101.0, dtype=torch.bfloat16)
    S = CountSketch(4000, 2, layer="a", seed=0)
    assert torch.equal(S(X), S(X.double()))  # sums of whole numbers below 2^24; bfloat16 holds them to 256


def test_a_projection_to_more_features_than_there_are_is_refused():
    with pytest.raises(ValueError, match="1 to 99 of 100 features, got 100"):
        CountSketch(100, 100, layer="a", seed=0)
    with pytest.raises(ValueError, match="100 features were expected, got 99"):
        CountSketch(100, 10, layer="a", seed=0)(torch.zeros(2, 99))

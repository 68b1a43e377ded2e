"""How long capacity takes, at the size of the authors' README: ``make bench``. Never a timed test."""

import numpy as np
import pytest

from manigeo.capacity.centers import low_rank_centers
from manigeo.capacity.mean_field import manifold_capacity


def manifolds(P: int, M: int, N: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((M, N)).astype(np.float32) for _ in range(P)]


def test_center_structure_of_100_correlated_centers(benchmark):
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((100, 20)) @ rng.standard_normal((20, 512)) + 3 * rng.standard_normal((100, 512))
    assert benchmark(low_rank_centers, centers, "reference").rank >= 1


@pytest.mark.parametrize("centers", ["keep", "reference"])
def test_one_layer_of_the_authors_readme_example(benchmark, centers):
    X = manifolds(100, 50, 5000)
    assert benchmark(manifold_capacity, X, n_draws=200, centers=centers).capacity == pytest.approx(0.04, rel=0.05)

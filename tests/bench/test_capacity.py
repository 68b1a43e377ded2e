"""How long capacity takes, at the size of the authors' README: ``make bench``. Never a timed test."""

import numpy as np
import pytest

from manigeo.capacity.anchors import solve_anchors
from manigeo.capacity.centers import low_rank_centers
from manigeo.capacity.mean_field import manifold_capacity
from manigeo.manifolds import span_coordinates


def manifolds(P: int, M: int, N: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((M, N)).astype(np.float32) for _ in range(P)]


def test_anchors_of_100_manifolds_of_50_points_at_200_draws(benchmark):
    rng = np.random.default_rng(0)
    frames = [span_coordinates(0.2 * rng.standard_normal((50, 200))) for _ in range(100)]
    draws = [rng.standard_normal((200, S.shape[1] + 1)) for S in frames]
    solved = benchmark(lambda: [solve_anchors(S, t) for S, t in zip(frames, draws, strict=True)])
    assert max(anchors.residual.max() for anchors in solved) < 1e-9


def test_center_structure_of_100_correlated_centers(benchmark):
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((100, 20)) @ rng.standard_normal((20, 512)) + 3 * rng.standard_normal((100, 512))
    assert benchmark(low_rank_centers, centers, "reference").rank >= 1


@pytest.mark.parametrize("centers", ["keep", "reference"])
def test_one_layer_of_the_authors_readme_example(benchmark, centers):
    X = manifolds(100, 50, 5000)
    assert benchmark(manifold_capacity, X, n_draws=200, centers=centers).capacity == pytest.approx(0.04, rel=0.05)

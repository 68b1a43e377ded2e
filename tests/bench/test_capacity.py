"""How long the capacity of a layer takes, and its parts: ``make bench``. Never a timed test.

The largest KKT residual of the draws stands beside each time; beside the search for the authors' directions, how far its
worst objective, of all K that it visits, is above that of a search three hundred times as tight.
"""

import numpy as np
import pytest

from manigeo.capacity import centers as authors
from manigeo.capacity.mean_field import manifold_capacity
from manigeo.capacity.projection import project_manifolds
from tests.reference import shared


def manifolds(P: int, M: int, N: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((M, N), dtype=np.float32) for _ in range(P)]


def bench(benchmark, X: list[np.ndarray], **options) -> float:
    r = benchmark.pedantic(manifold_capacity, args=(X,), kwargs=options, rounds=5, warmup_rounds=1)
    benchmark.extra_info["residual"] = r.residual
    benchmark.extra_info["capacity"] = r.capacity
    assert r.residual < 1e-9
    return r.capacity


@pytest.mark.parametrize("centers", ["auto", "reference", "keep"])
@pytest.mark.benchmark(group="the authors' README: 100 x 50 points x 5000 features, 200 draws")
def test_one_layer_of_the_authors_readme_example(benchmark, centers):
    assert bench(benchmark, manifolds(100, 50, 5000), n_draws=200, centers=centers) == pytest.approx(0.04, rel=0.05)


@pytest.mark.parametrize("centers", ["auto", "reference", "keep"])
@pytest.mark.benchmark(group="real layers, 100 x 25 points x 512 features, 200 draws")
def test_real_layers_with_strongly_correlated_centers(benchmark, centers):
    with np.load(shared("reference/real_layers.npz")) as layers:
        both = [layers[f"last_{kind}_h6/activations"] for kind in ("unpermuted", "permuted")]
    bench(benchmark, list(np.concatenate(both)), n_draws=200, centers=centers)


@pytest.mark.parametrize("way", ["Gram matrices", "projection on 5000 directions"])
@pytest.mark.benchmark(group="a wide layer: 50 x 20 points x 32,768 features, 200 draws")
def test_gram_matrices_beside_a_projection(benchmark, way):
    X = manifolds(50, 20, 32_768)

    def run() -> float:
        clouds = X if way == "Gram matrices" else project_manifolds(X, 5000)
        r = manifold_capacity(clouds, n_draws=200)
        benchmark.extra_info["residual"] = r.residual
        return r.capacity

    assert benchmark.pedantic(run, rounds=3, warmup_rounds=1) == pytest.approx(0.1, rel=0.05)


@pytest.mark.benchmark(group="the authors' directions of 100 centres, variances 1/k")
def test_the_search_for_the_authors_directions(benchmark, monkeypatch):
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((100, 512)) * np.arange(1, 513) ** -0.5
    found = benchmark.pedantic(authors.low_rank_centers, args=(centers,), rounds=3)
    visited = slice(len(found.residual_correlation) - 1)
    spans = searched(centers)
    monkeypatch.setattr(authors, "_COST_RTOL", 3e-9)
    monkeypatch.setattr(authors, "_EVALUATIONS", 300_000)
    above = (objective(centers, spans) / objective(centers, searched(centers)) - 1)[visited]
    benchmark.extra_info["objective_above_best"] = above.max()
    assert above.max() < 1e-3


def searched(centers: np.ndarray) -> list[np.ndarray]:
    X, basis, variance = authors._principal_coordinates(centers - centers.mean(axis=0))
    return [basis @ V for V in authors._search(X, authors._search_limit(variance))]


def objective(centers: np.ndarray, spans: list[np.ndarray]) -> np.ndarray:
    """Half the sum of squared cosines of the centres outside each span."""
    X = centers - centers.mean(axis=0)
    costs = []
    for V in spans:
        left = X - X @ V @ V.T
        left /= np.linalg.norm(left, axis=1, keepdims=True)
        costs.append((np.square(left @ left.T).sum() - len(X)) / 2)
    return np.array(costs)

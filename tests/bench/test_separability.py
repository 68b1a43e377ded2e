"""How long the separability of a layer takes, and how much memory a wide one: ``make bench``. Never a timed test."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from manigeo import create_activations
from manigeo.separability.clusters import _clusters, _squared_distances, cluster_agreement
from manigeo.separability.logistic import GRADIENT_ATOL, Logistic, Solution
from manigeo.separability.margins import one_versus_rest
from manigeo.separability.neighbours import neighbour_purity
from manigeo.separability.probe import GRID, linear_probe
from tests.reference import shared
from tests.test_activations import stored


def real_layer(kind: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(shared("reference/real_layers.npz")) as layers:
        clouds = layers[f"last_{kind}_h6/activations"]
    return np.concatenate(list(clouds)).astype(np.float32), np.repeat(np.arange(len(clouds)), clouds.shape[1])


MEASURES = {
    "probe": lambda X, y: (linear_probe(X, y, rng=np.random.default_rng(0)).predicted == y).mean(),
    "clusters": lambda X, y: cluster_agreement(X, y, rng=np.random.default_rng(0)).value,
    "neighbours": lambda X, y: neighbour_purity(X, y)[0].value,
    "margins": lambda X, y: one_versus_rest(X, y).margin.mean(),
}


@pytest.mark.parametrize("kind", ["unpermuted", "permuted"])
@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.benchmark(group="a real layer, 50 x 25 points x 512 features")
def test_measures_of_a_real_layer(benchmark, name, kind):
    X, y = real_layer(kind)
    benchmark.extra_info["value"] = float(benchmark.pedantic(MEASURES[name], args=(X, y), rounds=3))


def standardised(kind: str) -> tuple[np.ndarray, np.ndarray]:
    X, y = real_layer(kind)
    return (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-6) / np.float32(np.sqrt(X.shape[1])), y


def ours(Z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    solved = None
    for C in GRID:
        solved = Logistic(Z, y, int(y.max()) + 1).solve(C, solved)
    return solved.weights, solved.offsets


def scikit_learns(Z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    model = LogisticRegression(tol=GRADIENT_ATOL, max_iter=1000, warm_start=True)
    for C in GRID:
        model.set_params(C=C).fit(Z, y)
    return model.coef_.T, model.intercept_


@pytest.mark.parametrize("kind", ["unpermuted", "permuted"])
@pytest.mark.parametrize("solver", [ours, scikit_learns])
@pytest.mark.benchmark(group="logistic regression along the grid of C, 50 x 25 points x 512 features")
def test_logistic_regression_beside_scikit_learns(benchmark, solver, kind):
    Z, y = standardised(kind)
    weights, offsets = benchmark.pedantic(solver, args=(Z, y), rounds=3)
    problem, x = Logistic(Z, y, int(y.max()) + 1), np.vstack([weights, offsets])
    solved = Solution(x, GRID[-1])
    benchmark.extra_info["gradient"] = problem.gradient(solved)
    benchmark.extra_info["accuracy"] = float(((Z @ weights + offsets).argmax(axis=1) == y).mean())


def _inertia(X: np.ndarray, found: np.ndarray) -> float:
    return float(sum(np.square(X[found == c] - X[found == c].mean(axis=0)).sum() for c in np.unique(found)))


CLUSTERINGS = {
    "ours": lambda X, P: _clusters(X, _squared_distances(X), P, np.random.default_rng(0))[0],
    "scikit-learn": lambda X, P: KMeans(P, n_init=1, random_state=0).fit(X).labels_,
}


@pytest.mark.parametrize("name", list(CLUSTERINGS))
@pytest.mark.benchmark(group="k-means, 50 x 25 points x 512 features, 50 clusters")
def test_clusters_beside_scikit_learns(benchmark, name):
    X, y = real_layer("unpermuted")
    found = benchmark.pedantic(CLUSTERINGS[name], args=(X, int(y.max()) + 1), rounds=3)
    benchmark.extra_info["inertia"] = _inertia(X, found)


WIDE = """
import resource, sys
from manigeo import plan_separability, separability_table
table = separability_table(plan_separability(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.fixture(scope="module")
def wide_layer(tmp_path_factory):
    """100 classes x 50 examples x 65,536 features, as a rectified random layer has them: 1.3 GB."""
    path = tmp_path_factory.mktemp("wide") / "acts.h5"
    P, M, features, rng = 100, 50, 65_536, np.random.default_rng(0)
    label = np.repeat(np.arange(P), M)
    examples = pd.DataFrame(
        {"index": np.arange(P * M), "split": "test", "true_label": label, "train_label": label, "permuted": False}
    )
    means, W = rng.standard_normal((P, 64)), rng.standard_normal((64, features)).astype(np.float32) / 8
    with create_activations(path, examples, [str(c) for c in range(P)], [stored("conv", 0, (features,))], {}) as writer:
        for start in range(0, P * M, 250):
            z = (means[label[start : start + 250]] + rng.standard_normal((250, 64))).astype(np.float32)
            noise = rng.standard_normal((250, features), dtype=np.float32)
            writer.append({"conv": np.maximum(z @ W + noise / 2 - 0.5, 0)})
    return path


@pytest.mark.benchmark(group="a wide layer: 100 x 50 points x 65,536 features, all measures")
def test_a_wide_layer_in_less_than_a_gigabyte(benchmark, wide_layer):
    def analysed() -> float:
        command = [sys.executable, "-c", WIDE, str(wide_layer)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    benchmark.extra_info["peak_MB"] = benchmark.pedantic(analysed, rounds=1)
    assert benchmark.extra_info["peak_MB"] < 1000

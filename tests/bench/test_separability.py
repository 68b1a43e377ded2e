"""How long the separability of a layer takes, and how much memory a wide one: ``make bench``. Never a timed test."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from manigeo import create_activations
from manigeo.separability.clusters import cluster_agreement
from manigeo.separability.margins import one_versus_rest
from manigeo.separability.neighbours import neighbour_purity
from manigeo.separability.probe import linear_probe
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

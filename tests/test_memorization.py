"""The shapes of Stephenson et al. (2021), Fig. 3, on a small run: what the main job is for."""

import pandas as pd
import pytest

from manigeo import read_results
from tests.command_line import done

# As the demo, smaller: 60 classes of 60 training examples, six layers of 256.
TRAINING = (
    "--data", "glyphs", "--data-arg", "classes=60", "--data-arg", "train=60", "--data-arg", "validation=20",
    "--data-arg", "test=20", "--arch-arg", "width=256", "--epochs", 35, "--batch-size", 32, "--seed", 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memorization")
    done("train", *TRAINING, "--permute", 0.5, "--out", folder / "run")
    for when in ("best", "last"):
        acts = folder / f"{when}.h5"
        done("extract", "--model", folder / f"run/checkpoints/{when}.pt", "--out", acts,
             "--layers", "input", "--layers", "h1", "--layers", "h6")  # fmt: skip
        done("capacity", acts, "--kinds", "permuted", "--kinds", "restored")
    return folder


@pytest.fixture(scope="module")
def value(run):
    table = read_results([run / "best.capacity.csv", run / "last.capacity.csv"])
    table = table[table["manifold"] == ""].set_index(["checkpoint", "kind", "layer", "metric"])["value"]
    return lambda checkpoint, kind, layer, metric="capacity": table[checkpoint, kind, layer, metric]


def test_the_permuted_labels_are_memorized_and_cost_test_accuracy(run):
    # .04 here, .09 in the full-size trial; the standard error on these 1200 test examples is .014
    metrics = pd.read_csv(run / "run" / "metrics.csv").pivot(index="epoch", columns="kind", values="accuracy")
    assert metrics["permuted"].iloc[-1] >= 0.95
    assert metrics["test"].max() - metrics["test"].iloc[-1] > 0.02


def test_permuted_capacity_rises_over_the_layers_by_falling_radius_and_dimension(value):
    assert value("last", "permuted", "h6") >= 1.3 * value("last", "permuted", "h1")
    assert value("last", "permuted", "h6", "radius") < 0.9 * value("last", "permuted", "h1", "radius")
    assert value("last", "permuted", "h6", "dimension") < 0.9 * value("last", "permuted", "h1", "dimension")


def test_before_memorization_permuted_capacity_stays_at_the_inputs(value):
    for layer in ("h1", "h6"):
        assert value("best", "permuted", layer) == pytest.approx(value("best", "permuted", "input"), rel=0.25)


def test_memorization_lowers_the_capacity_of_the_same_images_by_their_true_labels(value):
    assert value("last", "restored", "h6") < value("best", "restored", "h6")

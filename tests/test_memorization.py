"""The shapes of Stephenson et al. (2021), Fig. 3, on small runs: what the main job is for.

Five trainings of the demo made small: 10 classes of 100 images, four layers of 256. Effects are means over the five, each
within one training, and errors those of the means; over twelve trainings an effect was 4 to 25 times its spread.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from manigeo import manifold_capacity, open_activations
from manigeo.capacity.mean_field import ManifoldCapacity
from tests.command_line import done
from tests.effects import assert_effect, assert_mean, share_error, shifted

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("one_thread")]

SEEDS = range(1, 6)
TRAINING = (
    "--data", "glyphs", "--data-arg", "classes=10", "--data-arg", "train=100", "--data-arg", "validation=40",
    "--data-arg", "test=60", "--permute", 0.5, "--arch-arg", "depth=4", "--arch-arg", "width=256", "--epochs", 30,
    "--batch-size", 32, "--lr", 0.02,
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    metrics: pd.DataFrame  # accuracy; a row per epoch, a column per kind
    geometry: dict[tuple[str, str, str], ManifoldCapacity]  # by checkpoint, kind and layer

    @property
    def best(self) -> int:
        return int(self.metrics["validation"].idxmax())

    def value(self, checkpoint: str, kind: str, layer: str, metric: str = "capacity") -> float:
        return float(getattr(self.geometry[checkpoint, kind, layer], metric))

    def rise(self, checkpoint: str, metric: str = "capacity") -> float:
        """Over the hidden layers, for permuted labels."""
        first, last = (self.value(checkpoint, "permuted", layer, metric) for layer in ("h1", "h4"))
        return last - first


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Trained]:
    return [trained(tmp_path_factory.mktemp(f"seed{seed}"), shifted(seed)) for seed in SEEDS]


def trained(folder: Path, seed: int) -> Trained:
    done("train", *TRAINING, "--seed", seed, "--out", folder / "run")
    for when in ("best", "last"):
        done("extract", "--model", folder / f"run/checkpoints/{when}.pt", "--per-class", 30, "--out", folder / f"{when}.h5",
             "--layers", "h1", "--layers", "h4")  # fmt: skip
    metrics = pd.read_csv(folder / "run" / "metrics.csv").pivot(index="epoch", columns="kind", values="accuracy")
    return Trained(
        metrics, {(when, *place): g for when in ("best", "last") for place, g in geometry(folder / f"{when}.h5")}
    )


def geometry(path: Path) -> Iterator[tuple[tuple[str, str], ManifoldCapacity]]:
    """By kind and layer, without the jackknife: errors are those of the spread over trainings."""
    with open_activations(path) as acts:
        for kind, layer in product(("permuted", "restored"), acts.layers):
            manifolds = acts.manifolds(layer, kind)
            yield (kind, layer), manifold_capacity(manifolds, n_draws=60, errors="manifolds")


def over(runs: list[Trained], what: str, effect: Callable[[Trained], float]) -> None:
    assert_mean(what, [effect(run) for run in runs], SEEDS)


def test_the_permuted_labels_are_memorized(runs):
    for seed, run in zip(SEEDS, runs, strict=True):
        reached = run.metrics["permuted"].iloc[-1]
        n_permuted = 500  # half of 10 x 100
        assert_effect(
            "permuted accuracy above the gate of .95", reached - 0.95, share_error(reached, n_permuted), [seed]
        )


def test_memorization_costs_test_accuracy(runs):
    # the best epoch is that of validation data: a maximum over test accuracies would be one of their errors
    over(runs, "test accuracy lost", lambda run: run.metrics["test"][run.best] - run.metrics["test"].iloc[-1])


def test_permuted_capacity_rises_over_the_layers_by_falling_radius_and_dimension(runs):
    over(runs, "rise of capacity", lambda run: run.rise("last"))
    over(runs, "fall of radius", lambda run: -run.rise("last", "radius"))
    over(runs, "fall of dimension", lambda run: -run.rise("last", "dimension"))


def test_most_of_that_rise_comes_with_memorization(runs):
    over(runs, "half of the rise beyond that of the best epoch", lambda run: run.rise("last") / 2 - run.rise("best"))


def test_memorization_lowers_the_capacity_of_the_same_images_by_their_true_labels(runs):
    over(runs, "restored capacity lost",
         lambda run: run.value("best", "restored", "h4") - run.value("last", "restored", "h4"))  # fmt: skip

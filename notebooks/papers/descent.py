"""Epoch-wise double descent: test accuracy falls while permuted labels are learned, and comes back.

``PYTHONPATH=notebooks python -m papers.descent notebooks/gallery/descent.png`` draws that of the findings.
"""

import sys
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from manigeo.localization.reference import GATE, reference_epoch
from manigeo.plots.style import COLOR
from papers.scale import at_scale

TRAININGS = {
    "VGG16, seed 0": ("vgg16_cifar100.metrics.csv", 0),
    "VGG16, seed 1": ("vgg16_cifar100.metrics.csv", 1),
    "VGG16, another card": ("vgg16_h200.metrics.csv", None),
    "ResNet-18": ("resnet18_cifar100.metrics.csv", None),
}


class Descent(NamedTuple):
    """Epochs before the fall, at its bottom, and last; test accuracy at each, with standard errors."""

    epochs: list[int]
    test: np.ndarray
    stderr: np.ndarray

    @property
    def fall(self) -> float:
        """By how many errors the bottom is below the epoch before memorization."""
        return float((self.test[0] - self.test[1]) / np.hypot(*self.stderr[:2]))

    @property
    def return_(self) -> float:
        """By how many errors the last epoch is above the bottom."""
        return float((self.test[2] - self.test[1]) / np.hypot(*self.stderr[1:]))


def trainings() -> dict[str, pd.DataFrame]:
    """Metrics of the trainings at scale that have memorized."""
    tables = {name: (at_scale(file), seed) for name, (file, seed) in TRAININGS.items()}
    return {name: table if seed is None else table[table["seed"] == seed] for name, (table, seed) in tables.items()}


def descent(metrics: pd.DataFrame, n_classes: int = 100) -> Descent:
    """Fall and return of test accuracy; epochs are chosen on validation examples, so that no noise of test examples is.

    Before is the reference epoch, the bottom the epoch of lowest validation accuracy from there until .95 of the permuted
    labels are known.
    """
    accuracy = metrics.pivot(index="epoch", columns="kind", values="accuracy")
    before = reference_epoch(metrics, n_classes=n_classes)
    if before is None:
        raise ValueError("no epoch of this training is before memorization")
    known = (accuracy["permuted"] >= GATE).idxmax()
    epochs = [before.epoch, int(accuracy["validation"].loc[before.epoch : known].idxmin()), int(accuracy.index[-1])]
    test, n = accuracy["test"].loc[epochs].to_numpy(), metrics.loc[metrics["kind"] == "test", "n"].iloc[0]
    return Descent(epochs, test, np.sqrt(test * (1 - test) / n))


def draw(metrics: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws accuracies over epochs, a panel per training, and the three epochs that are compared."""
    fig, axes = plt.subplots(
        2, len(metrics), figsize=(2.9 * len(metrics), 4.6), sharex="col", sharey="row", layout="constrained"
    )
    for (name, table), (above, below) in zip(metrics.items(), axes.T, strict=True):
        accuracy = table.pivot(index="epoch", columns="kind", values="accuracy")
        found = descent(table)
        for kind in ("unpermuted", "permuted"):
            above.plot(accuracy[kind], color=COLOR[kind], label=kind)
        below.plot(accuracy["test"], color=COLOR["test"], lw=1, label="test")
        below.plot(accuracy["restored"], color=COLOR["restored"], lw=1, label="restored")
        below.errorbar(
            found.epochs, found.test, 2 * found.stderr, fmt="ok", ms=4, capsize=3, label="compared, ± 2 errors"
        )
        above.set_title(name)
        below.set_xlabel("epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy")
    handles = [ax.get_legend_handles_labels() for ax in axes[:, 0]]
    fig.legend(*map(sum, zip(*handles, strict=True), ([], [])), loc="outside lower center", ncols=5, frameon=False)
    return fig


if __name__ == "__main__":
    draw(trainings()).savefig(sys.argv[1], dpi=110)

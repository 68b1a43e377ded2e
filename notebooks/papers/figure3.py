"""Figure 3 of Stephenson et al. (2021): its values, its shape as rules, and its likeness.

``PYTHONPATH=notebooks python -m papers.figure3 notebooks/gallery/figure3.png`` draws that of the README.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manigeo.kinds import KINDS, MARKERS
from manigeo.plots.style import COLOR
from papers.scale import at_scale, wide

# VGG16 on CIFAR-100, read off the figure (to about 3 %): first and last layer, by epoch, metric and kind
PAPER: dict[str, dict[str, dict[str, tuple[float, float]]]] = {
    "before": {
        "capacity": {"unpermuted": (0.040, 0.095), "permuted": (0.037, 0.038), "restored": (0.040, 0.059), "test": (0.040, 0.064)},
        "radius": {"unpermuted": (1.50, 1.01), "permuted": (1.62, 1.58), "restored": (1.50, 1.21), "test": (1.50, 1.16)},
        "dimension": {"unpermuted": (33, 15), "permuted": (35, 34.5), "restored": (33, 22.5), "test": (33, 20.5)},
    },
    "last": {
        "capacity": {"unpermuted": (0.040, 0.130), "permuted": (0.037, 0.100), "restored": (0.040, 0.040), "test": (0.040, 0.047)},
        "radius": {"unpermuted": (1.50, 0.90), "permuted": (1.62, 0.98), "restored": (1.50, 1.56), "test": (1.50, 1.34)},
        "dimension": {"unpermuted": (33, 15), "permuted": (35, 18.5), "restored": (33, 33), "test": (33, 28)},
    },
}  # fmt: skip
ALIKE, MUCH = 0.1, 1.5
FLOOR = 2 / 40  # capacity of points without structure, for the 40 examples per class of our runs


class Line(NamedTuple):
    """One statement on the shape of the curves, whether it holds, and the numbers that say so."""

    statement: str
    passes: bool
    numbers: str


def shape_rules(table: pd.DataFrame, layers: Sequence[str], floor: float, early: str = "before") -> dict[str, Line]:
    """Statements (i) to (iii) on the curves of one network.

    ``table`` has capacity, radius and dimension of the four kinds at the checkpoints ``early`` and ``last``; the last of
    ``layers`` is the last one that counts, and ``floor`` the capacity of points without structure. Rises, falls and orders
    must exceed two standard errors of the difference, taken as if both were independent; alike is within a tenth.
    """
    value, error = ({m: wide(table, m, column)[list(layers)] for m in ("capacity", "radius", "dimension")}
                    for column in ("value", "stderr"))  # fmt: skip
    capacity, first, last = value["capacity"], layers[0], layers[-1]
    half = list(layers[: (len(layers) + 1) // 2])

    def above(metric: str, one: tuple[str, str, str], other: tuple[str, str, str]) -> float:
        """By how many errors (checkpoint, kind, layer) ``one`` is above the ``other``."""
        (x, y), (dx, dy) = ([t[metric].loc[key[:2], key[2]] for key in (one, other)] for t in (value, error))
        return float((x - y) / np.hypot(dx, dy))

    def alike(statement: str, ratios: pd.Series) -> Line:
        off = (ratios - 1).abs()
        return Line(statement, bool((off <= ALIKE).all()), f"at most {100 * off.max():.1f} %")

    rise = capacity.loc[("last", "permuted")] - capacity.loc[(early, "permuted")]
    begins = next(layer for layer in layers if rise[layer] >= rise[last] / 10)
    risen = above("capacity", ("last", "permuted", last), (early, "permuted", last))
    fallen = above("capacity", (early, "restored", last), ("last", "restored", last))
    order = [
        above("capacity", ("last", one, last), ("last", other, last))
        for one, other in (("unpermuted", "permuted"), ("permuted", "test"), ("test", "restored"))
    ]
    beyond = capacity.loc[("last", "permuted"), last] / capacity.loc[("last", "test"), last]
    lines = {
        "i restored": alike(
            "early: restored like test in all layers", capacity.loc[(early, "restored")] / capacity.loc[(early, "test")]
        ),
        "i floor": alike("early: permuted at the floor in all layers", capacity.loc[(early, "permuted")] / floor),
        "ii early": alike(
            f"no kind changes up to {half[-1]}", (capacity.loc["last"] / capacity.loc[early])[half].stack()
        ),
        "ii rise": Line(f"permuted capacity rises at {last}", risen > 2, f"{risen:+.1f} errors"),
        "ii late": Line(
            "a tenth of that rise is reached in the later half of the layers only",
            begins not in half,
            f"first at {begins}",
        ),
    }
    for name in ("radius", "dimension"):
        z = above(name, ("last", "permuted", first), ("last", "permuted", last))
        lines[f"ii {name}"] = Line(f"with a falling {name} over the layers", z > 2, f"{z:+.1f} errors")
    lines["ii restored"] = Line(f"restored capacity falls at {last}", fallen > 2, f"{-fallen:+.1f} errors")
    lines["iii order"] = Line(
        f"last epoch, {last}: unpermuted > permuted > test >= restored",
        order[0] > 2 and order[1] > 2 and order[2] > -2,
        ", ".join(f"{z:+.1f}" for z in order) + " errors",
    )
    lines["iii much"] = Line(
        f"permuted is {MUCH} times test there, or more", bool(beyond >= MUCH), f"{beyond:.2f} times"
    )
    return lines


def vgg16() -> tuple[list[pd.DataFrame], list[str]]:
    """The tables of VGG16 on CIFAR-100, one per seed, and the layers up to the logits, whose dimensions are too few."""
    table = at_scale("vgg16_cifar100.capacity.csv")
    layers = list(table.sort_values("depth")["layer"].unique())
    return [rows for _, rows in table.groupby("seed")], layers[:-1]


def _panel(ax: Axes, tables: Sequence[pd.DataFrame], layers: Sequence[str], at: str, metric: str) -> None:
    for table, dashes in zip(tables, ("-", "--"), strict=True):
        values = wide(table, metric)[list(layers)]
        for kind in KINDS:
            marker = MARKERS[kind] if dashes == "-" else None
            ax.plot(layers, values.loc[(at, kind)], ls=dashes, lw=1.2, color=COLOR[kind], marker=marker, ms=4)
    for kind in KINDS:
        ends = PAPER[at][metric][kind]
        ax.plot([-0.6, len(layers) - 0.4], ends, "*", ms=9, mfc="none", color=COLOR[kind], clip_on=False)
    ax.tick_params(axis="x", rotation=90)


def draw(tables: Sequence[pd.DataFrame], layers: Sequence[str], floor: float) -> Figure:
    """Draws capacity, radius and dimension over layers, at both epochs, of two runs; the paper's values are stars."""
    fig, axes = plt.subplots(2, 3, figsize=(11, 5.6), sharex=True, sharey="col", layout="constrained")
    metrics = ("capacity", "radius", "dimension")
    for row, (at, title) in enumerate({"before": "before memorization", "last": "last epoch"}.items()):
        for column, metric in enumerate(metrics):
            _panel(axes[row, column], tables, layers, at, metric)
            axes[row, column].set_title(f"{metric}, {title}")
        axes[row, 0].axhline(floor, color="0.6", lw=0.8, ls=":")
    for kind in KINDS:
        axes[0, 0].plot([], MARKERS[kind] + "-", ms=4, color=COLOR[kind], label=kind)
    axes[0, 0].plot([], "k--", lw=1.2, label="second seed")
    axes[0, 0].plot([], "k*", ms=9, mfc="none", label="paper, first and last layer")
    axes[0, 0].plot([], ":", color="0.6", lw=0.8, label="floor of our M")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    return fig


if __name__ == "__main__":
    draw(*vgg16(), FLOOR).savefig(sys.argv[1], dpi=110)

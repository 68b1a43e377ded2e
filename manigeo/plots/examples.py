"""The figure of single examples: depths, test accuracy at each of them, loads, and the data map."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from manigeo.errors import InputError, shorten
from manigeo.kinds import in_order
from manigeo.per_example.table import wide_examples
from manigeo.plots.canvas import LONGEST, Canvas
from manigeo.plots.style import MOST_TICKS, in_style, look
from manigeo.results import identities
from manigeo.vocabulary import metric_words

_NETWORK = ["run", "checkpoint", "epoch", "fingerprint"]
_DEPTHS = ("prediction_depth", "lens_depth")
_DATA_MAP = ("variability", "confidence")
_MOST_COLUMNS = 3  # what fits a page


def plot_examples(table: pd.DataFrame, ax: Any = None) -> Any:
    """Draw single examples of one network: a panel for each of these that the table holds.

    Depths: which share of each kind has each prediction depth, and each depth by the head's answers. Accuracy: of test
    examples, by their prediction depth, with one standard error. Load: mean load of the examples of each kind over that of
    all, at every layer; 1 is an equal share. Channels: the share of each kind that another answer is given to without so
    many channels (Maini et al. 2023).
    Data map (Swayamdipta et al. 2020): confidence against variability over training, one point per example.

    ``table``: a table of :func:`~manigeo.examples_table`. ``ax``: axes to draw into, one per panel; without, the figure is
    returned.

    Raises :class:`~manigeo.errors.InputError` for a table of several networks, and for one without these numbers.

    >>> from manigeo.per_example.table import example_rows
    >>> shown = pd.DataFrame({"index": range(4), "split": "train", "true_label": 0, "train_label": 0,
    ...                       "kind": ["unpermuted", "unpermuted", "permuted", "permuted"]})
    >>> figure = plot_examples(example_rows(shown, {"prediction_depth": np.array([0, 1, 2, 2])}))
    >>> [line.get_ydata().tolist() for line in figure.axes[0].lines]
    [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    """
    if (n := _networks(table)) > 1:
        raise InputError(f"the table holds the examples of {n} networks: draw one of them")
    panels = _panels(table)
    if not panels:
        raise InputError("nothing to plot: the table holds no depths and no loads; make it with manigeo examples")
    canvas = Canvas("examples", ax, kinds=set(table["kind"].astype(str)), advice="leave ax out")
    with in_style():
        n_rows = -(-len(panels) // _MOST_COLUMNS)
        axes = canvas.wrapped(len(panels), (0.8, 0.9), (3.6, 2.9), most=-(-len(panels) // n_rows))
        for (draw, rows), panel in zip(panels, axes, strict=True):
            draw(panel, rows)
        canvas.legend()
        return canvas.finished()


def _networks(table: pd.DataFrame) -> int:
    """Number of networks that a table is of: activations and their checkpoint are one."""
    places = table[[*_NETWORK, "settings"]].drop_duplicates().astype({"fingerprint": str, "settings": str})
    hashes = identities(places)["checkpoint_sha256"]
    return len(places.assign(fingerprint=hashes.fillna(places["fingerprint"]))[_NETWORK].drop_duplicates())


def _panels(table: pd.DataFrame) -> list[tuple[Callable[[Axes, pd.DataFrame], None], pd.DataFrame]]:
    """Functions that draw the panels, and the rows of each."""
    whole = wide_examples(table[table["layer"] == ""])
    loads = [table[table["metric"] == measure] for measure in ("load", "load_joint")]
    channels = table[table["metric"] == "channels_to_flip"]
    panels: list[tuple[Callable[[Axes, pd.DataFrame], None], pd.DataFrame, bool]] = [
        *((partial(_draw_depths, depth=name), whole, name in whole) for name in _DEPTHS),
        (_draw_accuracy, whole, {"prediction_depth", "answer"} <= set(whole) and "test" in set(whole["kind"])),
        *((_draw_loads, rows, len(rows) > 0) for rows in loads),
        (_draw_channels, channels, len(channels) > 0),
        (_draw_map, whole, set(_DATA_MAP) <= set(whole)),
    ]
    return [(draw, rows) for draw, rows, there in panels if there]


def _draw_depths(ax: Axes, whole: pd.DataFrame, depth: str) -> None:
    depths = np.arange(int(whole[depth].max()) + 1)
    for kind in in_order(whole["kind"]):
        of_kind = whole.loc[whole["kind"] == kind, depth].dropna().astype(int)
        color, marker = look(kind)
        share = np.bincount(of_kind, minlength=len(depths)) / max(len(of_kind), 1)
        ax.plot(depths, share, color=color, marker=marker, markersize=4, linewidth=1.6, label=kind)
    ax.set(xlabel=metric_words(depth).name, ylabel="share of the examples", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_accuracy(ax: Axes, whole: pd.DataFrame) -> None:
    test = whole[whole["kind"] == "test"]
    right = (test["answer"] == test["true_label"]).groupby(test["prediction_depth"].astype(int))
    share, n = right.mean(), right.size()
    color, marker = look("test")
    error = np.sqrt(share * (1 - share) / n)
    ax.errorbar(share.index, share, error, color=color, marker=marker, markersize=4, linewidth=1.6, label="test")
    ax.set(xlabel=metric_words("prediction_depth").name, ylabel="accuracy of test examples", ylim=(0, 1.02))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_loads(ax: Axes, rows: pd.DataFrame) -> None:
    layers = [str(name) for name in rows["layer"].unique()]
    every = rows.groupby("layer", observed=True)["value"].mean()
    for kind in in_order(rows["kind"].astype(str)):
        of_kind = rows[rows["kind"] == kind].groupby("layer", observed=True)["value"].mean()
        color, marker = look(kind)
        ratio = [of_kind.get(layer, np.nan) / every[layer] for layer in layers]
        ax.plot(range(len(layers)), ratio, color=color, marker=marker, markersize=4, linewidth=1.6, label=kind)
    ax.axhline(1, color="0.4", linestyle=":", linewidth=1)
    step = 1 + (len(layers) - 1) // MOST_TICKS
    names = [shorten(name, LONGEST) for name in layers[::step]]
    ax.set_xticks(range(0, len(layers), step), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set(xlabel="layer", ylabel=f"{metric_words(str(rows['metric'].iloc[0])).name}\n(1: equal share)", ylim=(0, None))


def _draw_channels(ax: Axes, rows: pd.DataFrame) -> None:
    counts = np.arange(int(rows["value"].max()) + 1)
    for kind in in_order(rows["kind"].astype(str)):
        of_kind = rows[rows["kind"] == kind]
        flipped = np.sort(of_kind.loc[of_kind["flag"] != "censored", "value"])
        share = np.searchsorted(flipped, counts, side="right") / len(of_kind)
        ax.step(counts, share, where="post", color=look(kind)[0], linewidth=1.6, label=kind)
    ax.set(xlabel="channels removed", ylabel="share with another answer", ylim=(0, 1.02))


def _draw_map(ax: Axes, whole: pd.DataFrame) -> None:
    for kind in in_order(whole["kind"]):
        of_kind, (color, marker) = whole[whole["kind"] == kind], look(kind)
        x, y = (of_kind[name] for name in _DATA_MAP)
        ax.plot(x, y, marker, color=color, markersize=2.5, alpha=0.4, linewidth=0, label=kind, rasterized=True)
    ax.set(xlabel="variability over epochs", ylabel="mean confidence in its label", ylim=(-0.02, 1.02))

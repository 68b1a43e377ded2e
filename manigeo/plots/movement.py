"""Figures of how layers move while a network is trained, and how that relates to generalization."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manigeo.errors import InputError
from manigeo.plots.style import MOST_COLUMNS, by_depth, name_depths, setting, styled

WEIGHT_PANELS = {
    "rotation": r"rotation $1 - \cos(w_0, w_t)$",
    "step_angle": "angle since the last checkpoint (rad)",
    "distance_relative": r"distance $|w_t - w_0| / |w_0|$",
}


def plot_weights(table: pd.DataFrame) -> Figure:
    """Rotation, angle per step and relative distance of each layer against the epoch: one line per layer, dark to
    bright by depth; one row per run.

    Checkpoints without an epoch are counted. Raises :class:`~manigeo.errors.InputError` for a table without rotations.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "rotation", "layer": "a", "depth": 0}
    >>> figure = plot_weights(as_table([row | {"epoch": epoch, "value": 0.1 * epoch} for epoch in (0, 1)]))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.0, 0.1]
    """
    part = table[table["metric"].isin(WEIGHT_PANELS) & ~table["layer"].str.startswith("(")]
    if part["value"].notna().sum() == 0:
        raise InputError(
            f"nothing to plot: the table holds no {', '.join(WEIGHT_PANELS)}; make it with manigeo weights"
        )
    runs = dict(list(part.groupby("run", sort=False)))
    with styled():
        figure = Figure(figsize=(1.2 + 3.8 * len(WEIGHT_PANELS), 0.9 + 3.1 * len(runs)), layout="constrained")
        axes = figure.subplots(len(runs), len(WEIGHT_PANELS), squeeze=False)
        for (run, rows), line in zip(runs.items(), axes, strict=True):
            for (metric, label), ax in zip(WEIGHT_PANELS.items(), line, strict=True):
                _draw_trajectories(ax, rows[rows["metric"] == metric])
                ax.set_ylabel(label)
            line[0].set_title(run if len(runs) > 1 else "", loc="left")
            line[0].set_ylim(bottom=0)
            name_depths(figure, line[-1], rows)
        sns.despine(figure)
    return figure


def plot_correlation(table: pd.DataFrame) -> Figure:
    """Movement of each layer against the generalization gap: one panel per layer, one point per run, Spearman's
    coefficient above.

    Raises :class:`~manigeo.errors.InputError` for a table that is not of manigeo correlate.
    """
    of_run = table[table["run"] != ""]
    gaps = of_run[of_run["metric"] == "gap"].set_index("run")["value"]
    moved = of_run[(of_run["metric"] != "gap") & of_run["layer"].ne("")]
    if gaps.empty or moved.empty:
        raise InputError("nothing to plot: the table holds no gaps of runs; make it with manigeo correlate")
    measure, gap = moved["metric"].iloc[0], setting(table["settings"].iloc[0], "gap")
    layers = list(moved.drop_duplicates("layer")["layer"])
    n_columns = min(MOST_COLUMNS, len(layers))
    n_rows = -(-len(layers) // n_columns)
    with styled():
        figure = Figure(figsize=(1.0 + 2.6 * n_columns, 0.6 + 2.6 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
        for color, layer, ax in zip(sns.color_palette("viridis", len(layers)), layers, axes.flat, strict=False):
            line = moved[moved["layer"] == layer]
            ax.plot(line["value"], gaps.loc[line["run"]], "o", color=color, markersize=4)
            ax.set_title(f"{layer}: {_coefficient(table, layer)}")
            ax.set_xlabel(measure)
        for ax in axes.flat[len(layers) :]:
            ax.remove()
        for ax in axes[:, 0]:
            ax.set_ylabel(f"gap ({gap})")
        sns.despine(figure)
    return figure


def _coefficient(table: pd.DataFrame, layer: str) -> str:
    of_layer = table[(table["layer"] == layer) & (table["run"] == "")].set_index("metric")["value"]
    value, low, high = (of_layer[f"spearman{ending}"] for ending in ("", "_ci_low", "_ci_high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if np.isfinite(value) else "no coefficient"


def _draw_trajectories(ax: Axes, rows: pd.DataFrame) -> None:
    dated = bool(rows["epoch"].notna().all())
    placed = rows.assign(x=rows["epoch"] if dated else pd.factorize(rows["fingerprint"])[0])
    for color, (_, line) in zip(by_depth(rows), placed.groupby("depth"), strict=True):
        line = line.sort_values("x")
        ax.plot(line["x"], line["value"], color=color, linewidth=1.4, marker=".", markersize=4)
    ax.set_xlabel("epoch" if dated else "checkpoint")

"""Figures of how layers move while a network is trained, and how that relates to generalization."""

import numpy as np
import pandas as pd
import seaborn as sns

from manigeo.errors import InputError
from manigeo.plots.canvas import Canvas, entitle
from manigeo.plots.style import draw_layers, draws, name_depths, rows_of, setting
from manigeo.vocabulary import metric_words

WEIGHT_PANELS = ("rotation", "step_angle", "distance_relative")


@draws("weights", "step_angle", panels=WEIGHT_PANELS)
def plot_weights(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``weights``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "rotation", "layer": "a", "depth": 0}
    >>> figure = plot_weights(as_table([row | {"epoch": epoch, "value": 0.1 * epoch} for epoch in (0, 1)]))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.0, 0.1]
    """
    part = rows_of(table[~table["layer"].str.startswith("(")], canvas.panels)
    runs = dict(list(part.groupby("run", sort=False)))
    axes = canvas.subplots(len(runs), len(canvas.panels), (1.2, 0.9), (3.8, 3.1))
    for (run, rows), line in zip(runs.items(), axes, strict=True):
        for metric, ax in zip(canvas.panels, line, strict=True):
            ax.set_xlabel(draw_layers(ax, rows[rows["metric"] == metric]))
            ax.set_ylabel(metric_words(metric).label)
            if metric == WEIGHT_PANELS[0]:
                ax.set_ylim(bottom=0)
        entitle(line[0], run if len(runs) > 1 else "", loc="left")
        name_depths(canvas.figure, line[-1], rows)


_COEFFICIENT = tuple(f"spearman{end}" for end in ("", "_ci_low", "_ci_high"))


@draws("correlation", "gap", needs=_COEFFICIENT)
def plot_correlation(table: pd.DataFrame, canvas: Canvas) -> None:
    of_run = table[table["run"] != ""]
    gaps = of_run[of_run["metric"] == "gap"].set_index("run")["value"]
    moved = of_run[(of_run["metric"] != "gap") & of_run["layer"].ne("")]
    if gaps.empty or moved.empty:
        raise InputError("nothing to plot: the table holds no gaps of runs; make it with manigeo correlate")
    if moved["metric"].nunique() > 1 or gaps.index.has_duplicates:
        raise InputError("the tables hold several correlations: plot one of them")
    measure, gap = moved["metric"].iloc[0], setting(table["settings"].iloc[0], "gap")
    layers = list(moved.drop_duplicates("layer")["layer"])
    axes = canvas.wrapped(len(layers), (1.0, 0.6), (2.6, 2.6), sharey=True)
    for color, layer, ax in zip(sns.color_palette("viridis", len(layers)), layers, axes, strict=True):
        line = moved[moved["layer"] == layer]
        ax.plot(line["value"], gaps.loc[line["run"]], "o", color=color, markersize=4)
        ax.set_title(f"{layer}: {_coefficient(table, layer)}")
        ax.set_xlabel(metric_words(measure).label)
        ax.set_ylabel(f"{metric_words('gap').name} ({gap})")


def _coefficient(table: pd.DataFrame, layer: str) -> str:
    of_layer = table[(table["layer"] == layer) & (table["run"] == "")].set_index("metric")["value"]
    value, low, high = of_layer.reindex(_COEFFICIENT)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if np.isfinite(value) else "no coefficient"

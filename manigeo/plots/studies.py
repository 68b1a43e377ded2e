"""The last layers reset as regularisation, what layers are used for, and how critical each is."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from manigeo.errors import InputError
from manigeo.kinds import MARKERS, SCORED
from manigeo.plots.canvas import Canvas
from manigeo.plots.style import COLOR, NETWORK, draw_line, draws, name_layers, rows_of
from manigeo.results import with_settings
from manigeo.vocabulary import metric_words

_BOUNDS = ("criticality", "criticality_error", "criticality_absolute")


@draws("final-reset", "accuracy_gain", of="final_reset", one=NETWORK)
def plot_final_reset(table: pd.DataFrame, canvas: Canvas) -> None:
    full = with_settings(table, "analysis", "k", "to", "steps", "chosen")
    full = full[(full["analysis"] == "final_reset") & (full["metric"] == "accuracy")]
    targets = list(dict.fromkeys(full["to"].dropna()))
    if not targets:
        raise InputError("nothing to plot: the table holds no resets; make it with manigeo reinit --final-reset 3")
    steps = sorted({0, int(full["steps"].max())})
    axes = canvas.subplots(1, len(targets), (1.2, 4.2), (3.4, 0.0), sharey=True)
    for to, ax in zip(targets, axes[0], strict=True):
        at = full[(full["to"] == to) | full["to"].isna()]
        for kind in SCORED:
            for n in steps:
                _draw_resets(ax, at[at["kind"] == kind], kind, n)
        chosen = at[(at["kind"] == "test") & (at["chosen"] == True) & at["to"].notna()]  # noqa: E712 (a column of objects)
        ax.plot(chosen["depth"], chosen["value"], "o", color="none", markeredgecolor="0.2", markersize=11)
        ax.set(title=f"last $k$ layers set to {to}", xlabel="$k$", xticks=sorted(set(at["depth"])), ylim=(-0.02, 1.02))
        ax.set_ylabel("accuracy")
    if steps[-1]:
        axes[0, 0].plot([], "--", color="0.4", linewidth=1, label=f"after {steps[-1]} steps of retraining")
    canvas.legend()


def _draw_resets(ax: Axes, rows: pd.DataFrame, kind: str, steps: int) -> None:
    """The network as it was is the same for any number of steps."""
    line = rows[(rows["steps"] == steps) | (rows["k"] == 0)].sort_values("depth")
    if steps == 0:
        draw_line(ax, line, kind)
    else:
        ax.plot(line["depth"], line["value"], "--", color=COLOR[kind], marker=MARKERS[kind], markersize=3, linewidth=1)


@draws("utilisation", "prefix_accuracy", one=NETWORK)
def plot_utilisation(table: pd.DataFrame, canvas: Canvas) -> None:
    rows = rows_of(table, ["prefix_accuracy"], None, "reinit --utilisation")
    full = with_settings(table, "analysis")
    network = full[(full["analysis"] == "utilisation") & (full["layer"] == "(none)") & (full["metric"] == "accuracy")]
    ((ax,),) = canvas.subplots(1, 1, (1.6, 4.4), (0.6 * rows["layer"].nunique(), 0.0))
    for kind in SCORED:
        draw_line(ax, rows[rows["kind"] == kind].sort_values("depth"), kind)
        for value in network.loc[network["kind"] == kind, "value"]:
            ax.axhline(value, color=COLOR[kind], linestyle=":", linewidth=1)
    name_layers(ax, rows)
    ax.set(ylabel="accuracy of a linear probe", ylim=(-0.02, 1.02))
    canvas.legend()


@draws("criticality", "criticality", one=NETWORK)
def plot_criticality(table: pd.DataFrame, canvas: Canvas) -> None:
    rows = rows_of(table[table["layer"] != "(all)"], _BOUNDS, None, "reinit --criticality")
    ((ax,),) = canvas.subplots(1, 1, (1.6, 4.0), (0.6 * rows["layer"].nunique(), 0.0))
    for metric, color in zip(_BOUNDS, sns.color_palette("colorblind"), strict=False):
        line = rows[(rows["metric"] == metric) & (rows["value"] > 0)].sort_values("depth")
        if len(line):
            ax.plot(
                line["depth"],
                line["value"],
                "o-",
                color=color,
                markersize=4,
                linewidth=1.4,
                label=metric_words(metric).name.removeprefix("criticality, "),
            )
    name_layers(ax, rows)
    ax.set(ylabel="module criticality", yscale="log")
    canvas.legend()

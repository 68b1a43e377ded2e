"""The last layers reset as regularisation, what layers are used for, and how critical each is."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manigeo.errors import InputError
from manigeo.manifolds import KINDS
from manigeo.plots.style import COLOR, MARKER, draw_line, finish, name_layers, styled
from manigeo.results import with_settings

_BOUNDS = {
    "criticality": "loss at most 1.01 x",
    "criticality_error": "error at most + .01",
    "criticality_absolute": "loss at most + .1",
}


def plot_final_reset(table: pd.DataFrame) -> Figure:
    """Accuracy of every kind after the last k layers were reset: a panel for what they were set to, one line per kind;
    dashed, after they were trained again.

    A circle marks what validation data choose. Raises :class:`~manigeo.errors.InputError` for a table without resets.
    """
    full = with_settings(table, "analysis", "k", "to", "steps", "chosen")
    full = full[(full["analysis"] == "final_reset") & (full["metric"] == "accuracy")]
    targets = list(dict.fromkeys(full["to"].dropna()))
    if not targets:
        raise InputError("nothing to plot: the table holds no resets; make it with manigeo reinit --final-reset 3")
    steps = sorted({0, int(full["steps"].max())})
    with styled():
        figure = Figure(figsize=(1.2 + 3.4 * len(targets), 4.2), layout="constrained")
        axes = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
        for to, ax in zip(targets, axes, strict=True):
            at = full[(full["to"] == to) | full["to"].isna()]
            for kind in KINDS:
                for n in steps:
                    _draw_resets(ax, at[at["kind"] == kind], kind, n)
            chosen = at[(at["kind"] == "test") & (at["chosen"] == True) & at["to"].notna()]  # noqa: E712 (a column of objects)
            ax.plot(chosen["depth"], chosen["value"], "o", color="none", markeredgecolor="0.2", markersize=11)
            ax.set(
                title=f"last $k$ layers set to {to}", xlabel="$k$", xticks=sorted(set(at["depth"])), ylim=(-0.02, 1.02)
            )
        axes[0].set_ylabel("accuracy")
        if steps[-1]:
            axes[0].plot([], "--", color="0.4", linewidth=1, label=f"after {steps[-1]} steps of retraining")
        finish(figure)
    return figure


def _draw_resets(ax: Axes, rows: pd.DataFrame, kind: str, steps: int) -> None:
    """The network as it was is the same for any number of steps."""
    line = rows[(rows["steps"] == steps) | (rows["k"] == 0)].sort_values("depth")
    if steps == 0:
        draw_line(ax, line, kind)
    else:
        ax.plot(line["depth"], line["value"], "--", color=COLOR[kind], marker=MARKER[kind], markersize=3, linewidth=1)


def plot_utilisation(table: pd.DataFrame) -> Figure:
    """Accuracy of a linear probe on the layers up to each, on every kind; dotted lines are the network itself.

    Raises :class:`~manigeo.errors.InputError` for a table without a prefix curve.
    """
    rows = table[table["metric"] == "prefix_accuracy"]
    if rows.empty:
        raise InputError("nothing to plot: the table holds no prefix curve; make it with manigeo reinit --utilisation")
    full = with_settings(table, "analysis")
    network = full[(full["analysis"] == "utilisation") & (full["layer"] == "(none)") & (full["metric"] == "accuracy")]
    with styled():
        figure = Figure(figsize=(1.6 + 0.6 * rows["layer"].nunique(), 4.4), layout="constrained")
        ax = figure.subplots()
        for kind in KINDS:
            draw_line(ax, rows[rows["kind"] == kind].sort_values("depth"), kind)
            for value in network.loc[network["kind"] == kind, "value"]:
                ax.axhline(value, color=COLOR[kind], linestyle=":", linewidth=1)
        name_layers(ax, rows)
        ax.set(ylabel="accuracy of a linear probe", ylim=(-0.02, 1.02))
        finish(figure)
    return figure


def plot_criticality(table: pd.DataFrame) -> Figure:
    """Module criticality of every layer under each bound on what may be lost: a logarithmic axis, one line per bound.

    Layers of criticality zero are not drawn. Raises :class:`~manigeo.errors.InputError` for a table without criticalities.
    """
    rows = table[table["metric"].isin(_BOUNDS) & (table["layer"] != "(all)")]
    if rows["value"].notna().sum() == 0:
        raise InputError("nothing to plot: the table holds no criticalities; make it with manigeo reinit --criticality")
    with styled():
        figure = Figure(figsize=(1.6 + 0.6 * rows["layer"].nunique(), 4.0), layout="constrained")
        ax = figure.subplots()
        for (metric, label), color in zip(_BOUNDS.items(), sns.color_palette("colorblind"), strict=False):
            line = rows[(rows["metric"] == metric) & (rows["value"] > 0)].sort_values("depth")
            if len(line):
                ax.plot(line["depth"], line["value"], "o-", color=color, markersize=4, linewidth=1.4, label=label)
        name_layers(ax, rows)
        ax.set(ylabel="module criticality", yscale="log")
        finish(figure)
    return figure

"""The parts of the gradient, of which one knows the labels, over training and against the number of examples."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from manigeo.errors import InputError
from manigeo.manifolds import KINDS
from manigeo.plots.style import draw_line, finish, name_layers, setting, styled

GRADIENT_PANELS = {
    "label_dependent_centred_norm": "label-dependent part\n$|g^c_{dep}|$",
    "label_independent_centred_norm": "label-independent part\n$|g^c_{ind}|$",
    "gradient_norm": "gradient\n$|g|$",
    "parts_centred_cosine": "cosine of the parts\n$\\cos(g^c_{dep}, g^c_{ind})$",
    "gradient_cosine": "cosine of gradients\nwith unpermuted",
}
_SWEPT = {f"{metric}_sweep": label for metric, label in list(GRADIENT_PANELS.items())[:2]}
_CHANCE = "slope $-1/2$"
_MOST_LAYERS = 8


def plot_gradients(table: pd.DataFrame) -> Figure:
    """Norms of the two centred parts and of the gradient, the cosine of the parts, and the cosine of each kind's
    gradient with that of unpermuted examples: one row each, one line per kind, one column per layer.

    Against the epoch, on a scale that is linear up to 1 and then logarithmic; one checkpoint against depth. Bands are one
    standard error. Where there are many layers, eight of them are shown.

    Raises :class:`~manigeo.errors.InputError` for a table without gradients, or with those of several runs.
    """
    part = _of_one_run(table, GRADIENT_PANELS)
    with_other = [setting(settings, "with") for settings in part["settings"]]
    part = part[(part["metric"] != "gradient_cosine") | (pd.Series(with_other, index=part.index) == "unpermuted")]
    over_epochs = part["fingerprint"].nunique() > 1
    columns = _layers(part) if over_epochs else {"": part[part["layer"] != "(all)"]}
    metrics = [metric for metric in GRADIENT_PANELS if metric in set(part["metric"])]
    with styled():
        figure = Figure(
            figsize=(1.4 + (2.3 if over_epochs else 5) * len(columns), 0.9 + 2.0 * len(metrics)), layout="constrained"
        )
        axes = figure.subplots(len(metrics), len(columns), sharex=True, sharey="row", squeeze=False)
        for (layer, rows), column in zip(columns.items(), axes.T, strict=True):
            for metric, ax in zip(metrics, column, strict=True):
                _draw_kinds(ax, rows[rows["metric"] == metric], "epoch" if over_epochs else "depth")
                ax.set_yscale("linear" if metric.endswith("cosine") else "log")
            column[0].set_title(layer)
            if over_epochs:
                column[-1].set_xlabel("epoch")
                column[-1].set_xscale("symlog", linthresh=1)
                column[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            else:
                name_layers(column[-1], rows)
        for metric, ax in zip(metrics, axes[:, 0], strict=True):
            ax.set_ylabel(GRADIENT_PANELS[metric])
        finish(figure)
    return figure


def plot_gradient_sizes(table: pd.DataFrame) -> Figure:
    """Norms of the two centred parts against the number of examples, both logarithmic: one row each, one line per kind,
    one column per layer. The dashed line falls as n^-1/2, as means of nothing but chance do, from where permuted
    examples begin.

    Bands are one standard error over draws. Raises :class:`~manigeo.errors.InputError` for a table without a sweep of sizes,
    or with those of several runs.
    """
    part = _of_one_run(table, _SWEPT)
    columns = _layers(part)
    with styled():
        figure = Figure(figsize=(1.4 + 2.3 * len(columns), 0.9 + 2.6 * len(_SWEPT)), layout="constrained")
        axes = figure.subplots(len(_SWEPT), len(columns), sharex=True, sharey="row", squeeze=False)
        for (layer, rows), column in zip(columns.items(), axes.T, strict=True):
            for metric, ax in zip(_SWEPT, column, strict=True):
                _draw_kinds(ax, rows[rows["metric"] == metric], "n")
                _log_sizes(ax, rows)
            _draw_chance(column[0], rows[rows["metric"] == next(iter(_SWEPT))])
            column[0].set_title(layer)
            column[-1].set_xlabel("examples $n$")
        for label, ax in zip(_SWEPT.values(), axes[:, 0], strict=True):
            ax.set_ylabel(label)
        finish(figure)
    return figure


def _of_one_run(table: pd.DataFrame, metrics: Sequence[str] | dict[str, str]) -> pd.DataFrame:
    part = table[table["metric"].isin(list(metrics)) & table["kind"].isin(KINDS)]
    if part["value"].notna().sum() == 0:
        raise InputError(f"nothing to plot: the table holds no {', '.join(metrics)}; make it with manigeo gradients")
    if part["run"].nunique() > 1:
        raise InputError(f"the tables are of {part['run'].nunique()} runs: plot one at a time")
    return part.drop_duplicates(["checkpoint", "epoch", "fingerprint", "layer", "kind", "metric", "settings"])


def _layers(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each layer that is shown, from the first to the last, and of all as one."""
    layers = part.drop_duplicates("layer").sort_values("depth")["layer"].tolist()
    shown = np.unique(np.linspace(0, len(layers) - 1, min(_MOST_LAYERS, len(layers))).round().astype(int))
    return {layers[i]: part[part["layer"] == layers[i]] for i in shown}


def _draw_kinds(ax: Axes, rows: pd.DataFrame, x: str) -> None:
    if x == "epoch" and rows["epoch"].isna().any():
        rows = rows.assign(epoch=pd.factorize(rows["fingerprint"])[0])  # checkpoints are counted
    for kind in KINDS:
        draw_line(ax, rows[rows["kind"] == kind].sort_values(x), kind, x=x)


def _log_sizes(ax: Axes, rows: pd.DataFrame) -> None:
    sizes = np.unique(rows["n"].to_numpy(dtype=float))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_chance(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the fall as one over root n, from where permuted examples begin."""
    line = rows[rows["kind"] == "permuted"].sort_values("n")
    if len(line):
        n, norm = (line[column].to_numpy(dtype=float) for column in ("n", "value"))
        ax.plot(n, norm[0] * np.sqrt(n[0] / n), color="0.4", linestyle="--", linewidth=1, label=_CHANCE)

"""The parts of the gradient, of which one knows the labels, over training and against the number of examples."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from manigeo.kinds import BY_MEMORY, SCORED
from manigeo.plots.canvas import Canvas, entitle
from manigeo.plots.style import NETWORK, draw_line, draws, name_layers, rows_of, setting
from manigeo.vocabulary import metric_words

GRADIENT_PANELS = (
    "label_dependent_centred_norm", "label_independent_centred_norm", "gradient_norm", "parts_centred_cosine",
    "gradient_cosine",
)  # fmt: skip
_SWEPT = tuple(f"{metric}_sweep" for metric in GRADIENT_PANELS[:2])
_CHANCE = "slope $-1/2$"
_MOST_LAYERS = 8


@draws("gradients", "label_dependent_centred_norm", panels=GRADIENT_PANELS, one=["run"])
def plot_gradients(table: pd.DataFrame, canvas: Canvas) -> None:
    part = _of_one_run(table, canvas.panels)
    with_other = [setting(settings, "with") for settings in part["settings"]]
    part = part[(part["metric"] != "gradient_cosine") | (pd.Series(with_other, index=part.index) == "unpermuted")]
    over_epochs = part["fingerprint"].nunique() > 1
    columns = _layers(part) if over_epochs else {"": part[part["layer"] != "(all)"]}
    metrics = [metric for metric in canvas.panels if metric in set(part["metric"])]
    axes = canvas.subplots(
        len(metrics), len(columns), (1.4, 0.9), (2.3 if over_epochs else 5, 2.0), sharex=True, sharey="row"
    )
    for (layer, rows), column in zip(columns.items(), axes.T, strict=True):
        for metric, ax in zip(metrics, column, strict=True):
            _draw_kinds(ax, rows[rows["metric"] == metric], "epoch" if over_epochs else "depth")
            ax.set_yscale("linear" if metric.endswith("cosine") else "log")
            ax.set_ylabel(_label(metric))
            if over_epochs:
                ax.set_xlabel("epoch")
                ax.set_xscale("symlog", linthresh=1)
                ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            else:
                name_layers(ax, rows)
        entitle(column[0], layer)
    canvas.legend()


@draws("gradient-sizes", "label_dependent_centred_norm_sweep", panels=_SWEPT, one=NETWORK)
def plot_gradient_sizes(table: pd.DataFrame, canvas: Canvas) -> None:
    part = _of_one_run(table, canvas.panels, "gradients --sizes")
    columns = _layers(part)
    axes = canvas.subplots(len(canvas.panels), len(columns), (1.4, 0.9), (2.3, 2.6), sharex=True, sharey="row")
    for (layer, rows), column in zip(columns.items(), axes.T, strict=True):
        for metric, ax in zip(canvas.panels, column, strict=True):
            _draw_kinds(ax, rows[rows["metric"] == metric], "n")
            _log_sizes(ax, rows)
            ax.set(xlabel="examples $n$", ylabel=_label(metric.removesuffix("_sweep")))
            if metric == _SWEPT[0]:
                _draw_chance(ax, rows[rows["metric"] == metric])
        entitle(column[0], layer)
    canvas.legend()


def _of_one_run(table: pd.DataFrame, metrics: Sequence[str], remedy: str = "") -> pd.DataFrame:
    part = rows_of(table, metrics, SCORED, remedy)
    return part.drop_duplicates(["checkpoint", "epoch", "fingerprint", "layer", "kind", "metric", "settings"])


def _label(metric: str) -> str:
    """In narrow lines; of the cosines with another kind, those with unpermuted examples are drawn."""
    words = metric_words(metric)
    name = words.name.replace("another kind", "unpermuted")
    return "\n".join(filter(None, [*textwrap.wrap(name, 20), words.symbol and f"${words.symbol}$"]))


def _layers(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each layer that is shown, from the first to the last, and of all as one."""
    layers = part.drop_duplicates("layer").sort_values("depth")["layer"].tolist()
    shown = np.unique(np.linspace(0, len(layers) - 1, min(_MOST_LAYERS, len(layers))).round().astype(int))
    return {layers[i]: part[part["layer"] == layers[i]] for i in shown}


def _draw_kinds(ax: Axes, rows: pd.DataFrame, x: str) -> None:
    if x == "epoch" and rows["epoch"].isna().any():
        rows = rows.assign(epoch=pd.factorize(rows["fingerprint"])[0])  # checkpoints are counted
    for kind in SCORED:
        draw_line(ax, rows[rows["kind"] == kind].sort_values(x), kind, x=x)


def _log_sizes(ax: Axes, rows: pd.DataFrame) -> None:
    sizes = np.unique(rows["n"].to_numpy(dtype=float))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_chance(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the fall as one over root n, from where permuted (or memorized) examples begin."""
    line = rows[rows["kind"].isin(BY_MEMORY)].sort_values("n")
    if len(line):
        n, norm = (line[column].to_numpy(dtype=float) for column in ("n", "value"))
        ax.plot(n, norm[0] * np.sqrt(n[0] / n), color="0.4", linestyle="--", linewidth=1, label=_CHANCE)

"""Figures from the results table. Every function takes a table and returns a matplotlib figure."""

import json
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manigeo.errors import InputError
from manigeo.files import check_target, whole_file
from manigeo.manifolds import KINDS

PANELS = {
    "capacity": r"capacity $\alpha_M$",
    "radius": r"radius $R_M$",
    "dimension": r"dimension $D_M$",
    "center_correlation": r"centre correlation $\rho$",
}
# One colour and one marker a kind in every figure, told apart without colour as well.
_COLOR = dict(zip(KINDS, sns.color_palette("colorblind", 4), strict=True))
_MARKER = dict(zip(KINDS, "osD^", strict=True))
_MOST_TICKS = 14
_UNDATED = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def plot_geometry(table: pd.DataFrame) -> Figure:
    """Capacity, radius, dimension and centre correlation against depth: a row each, a line a kind, a column a checkpoint.

    Bands are one standard error over manifolds; the dotted line is the floor 2/M of capacity, where M points without
    structure lie. Rows share their scale, so that checkpoints compare by eye.

    Raises :class:`~manigeo.errors.InputError` for a table without these measures.
    """
    table = table[(table["manifold"] == "") & table["metric"].isin(PANELS) & table["kind"].isin(KINDS)]
    if table["value"].notna().sum() == 0:
        raise InputError(
            f"nothing to plot: the table holds no {', '.join(PANELS)} over manifolds of {', '.join(KINDS)}"
        )
    identity = ["run", "epoch", "checkpoint", "fingerprint"]  # runs may share a name
    table = table.drop_duplicates([*identity, "layer", "kind", "metric", "settings"])
    if table.duplicated([*identity, "layer", "kind", "metric"]).any():
        raise InputError("the tables hold the same layers at different settings: plot one of the settings")
    columns = list(table.sort_values("epoch", kind="stable").groupby(identity, sort=False, dropna=False))
    with sns.axes_style("ticks"), sns.plotting_context("paper", font_scale=1.1):
        figure = Figure(figsize=(1.2 + 4.2 * len(columns), 10.5), layout="constrained")
        axes = figure.subplots(len(PANELS), len(columns), sharex="col", sharey="row", squeeze=False)
        several_runs = len(set(table["run"])) > 1
        for ((run, epoch, checkpoint, _), part), column in zip(columns, axes.T, strict=True):
            _draw_checkpoint(part, list(column))
            column[0].set_title((f"{run}: " if several_runs else "") + _title(epoch, checkpoint))
        for label, ax in zip(PANELS.values(), axes[:, 0], strict=True):
            ax.set_ylabel(label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        sns.despine(figure)
    return figure


def _title(epoch: float, checkpoint: str) -> str:
    return (checkpoint or "checkpoint") + ("" if np.isnan(epoch) else f" (epoch {epoch:.0f})")


def _draw_checkpoint(part: pd.DataFrame, column: Sequence[Axes]) -> None:
    for metric, ax in zip(PANELS, column, strict=True):
        for kind in KINDS:
            line = part[(part["metric"] == metric) & (part["kind"] == kind)].sort_values("depth")
            _draw_line(ax, line, kind)
    floor = _floor(part)
    if floor is not None:
        column[0].axhline(floor, color="0.4", linestyle=":", linewidth=1, label=f"floor 2/M = {floor:.3g}")
    layers = part.drop_duplicates("depth").sort_values("depth")
    shown = layers.iloc[:: 1 + (len(layers) - 1) // _MOST_TICKS]
    column[-1].set_xticks(shown["depth"], shown["layer"], rotation=45, ha="right", rotation_mode="anchor")
    column[-1].set_xlabel("layer")


def _draw_line(ax: Axes, line: pd.DataFrame, kind: str) -> None:
    if line.empty:
        return
    x, y, error = (line[name].to_numpy(dtype=float) for name in ("depth", "value", "stderr"))
    ax.plot(x, y, color=_COLOR[kind], marker=_MARKER[kind], markersize=4, linewidth=1.6, label=kind)
    ax.fill_between(x, y - error, y + error, color=_COLOR[kind], alpha=0.2, linewidth=0)


def _floor(part: pd.DataFrame) -> float | None:
    """2/M, where every row was computed with one and the same M."""
    try:
        sizes = {json.loads(settings).get("per_class") for settings in part["settings"].unique()}
    except (ValueError, AttributeError):  # a table of another program, without settings of ours
        return None
    (size,) = sizes if len(sizes) == 1 else (None,)
    return 2 / size if size else None


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150, force: bool = False) -> None:
    """Save as PNG, PDF or SVG, by suffix; the same figure gives the same bytes.

    Raises :class:`~manigeo.errors.UsageError` as :func:`~manigeo.files.check_target` does.
    """
    path = check_target(path, force=force, suffixes=tuple(_UNDATED), what="figures")
    with rc_context({"svg.hashsalt": "manigeo"}), whole_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format=path.suffix[1:], metadata=_UNDATED[path.suffix])

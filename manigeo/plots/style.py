"""Style that all figures share: one colour and marker per kind, one legend, titles of checkpoints, and saving."""

import itertools
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from manigeo.manifolds import KINDS
from manigeo.results import row_settings
from manigeo.storage.files import check_target, whole_file

# One colour and one marker a kind in every figure, told apart without colour as well.
COLOR = dict(zip(KINDS, sns.color_palette("colorblind", 4), strict=True))
MARKER = dict(zip(KINDS, "osD^", strict=True))
MOST_TICKS = 14
MOST_COLUMNS = 4
_LEGEND_INCHES = 1.7
FLOOR, SATURATED = "floor", "saturated"
_UNDATED = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
IDENTITY = ["run", "epoch", "checkpoint", "fingerprint"]  # runs may share a name


@contextmanager
def styled() -> Iterator[None]:
    with sns.axes_style("ticks"), sns.plotting_context("paper", font_scale=1.1):
        yield


def finish(figure: Figure) -> None:
    """One legend for all panels, each label once: curves, then what is off them, in as many columns as fit."""
    labelled = [pair for ax in figure.axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in reversed(labelled)}
    order = sorted(dict.fromkeys(label for _, label in labelled), key=lambda x: (FLOOR in x, SATURATED in x))
    columns = min(len(order), int(figure.get_figwidth() / _LEGEND_INCHES))
    figure.legend([handles[x] for x in order], order, loc="outside upper center", ncols=columns, frameon=False)
    sns.despine(figure)


def setting(settings: str, name: str) -> object:
    """One of the settings of a row; None where it is not there."""
    return row_settings(settings).get(name)


def by_checkpoint(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each checkpoint under its title, by epoch."""
    groups = part.sort_values("epoch", kind="stable").groupby(IDENTITY, sort=False, dropna=False)
    several_runs = part["run"].nunique() > 1
    titled: dict[str, pd.DataFrame] = {}
    for (run, epoch, checkpoint, _), rows in groups:
        title = (f"{run}: " if several_runs else "") + _title(epoch, checkpoint)
        titled[_unused(title, titled)] = rows
    return titled


def _unused(title: str, titled: Collection[str]) -> str:
    """Title that is not used yet: runs of one name are told apart by number."""
    names = itertools.chain([title], (f"{title} [{i}]" for i in itertools.count(2)))
    return next(name for name in names if name not in titled)


def _title(epoch: float, checkpoint: str) -> str:
    return (checkpoint or "checkpoint") + ("" if np.isnan(epoch) else f" (epoch {epoch:.0f})")


def draw_line(ax: Axes, line: pd.DataFrame, kind: str, x: str = "depth") -> None:
    if line.empty:
        return
    at, y, error = (line[name].to_numpy(dtype=float) for name in (x, "value", "stderr"))
    ax.plot(at, y, color=COLOR[kind], marker=MARKER[kind], markersize=4, linewidth=1.6, label=kind)
    hollow = is_saturated(line)
    if hollow.any():
        ax.plot(at[hollow], y[hollow], MARKER[kind], color=COLOR[kind], markerfacecolor="white", markersize=4)
    ax.fill_between(at, y - error, y + error, color=COLOR[kind], alpha=0.2, linewidth=0)


def is_saturated(rows: pd.DataFrame) -> np.ndarray:
    return rows["flag"].str.contains(SATURATED).to_numpy(dtype=bool)


def name_layers(ax: Axes, part: pd.DataFrame) -> None:
    layers = part.drop_duplicates("depth").sort_values("depth")
    shown = layers.iloc[:: 1 + (len(layers) - 1) // MOST_TICKS]
    ax.set_xticks(shown["depth"], shown["layer"], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel("layer")


def by_depth(rows: pd.DataFrame) -> list[tuple[float, float, float]]:
    return list(sns.color_palette("viridis", rows["depth"].nunique()))


def name_depths(figure: Figure, ax: Axes, rows: pd.DataFrame) -> None:
    """A colour bar that names the layers."""
    layers = rows.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    scale = ScalarMappable(Normalize(-0.5, len(layers) - 0.5), ListedColormap(by_depth(rows)))
    shown = range(0, len(layers), 1 + (len(layers) - 1) // MOST_TICKS)
    bar = figure.colorbar(scale, ax=ax, ticks=list(shown))
    bar.ax.set_yticklabels([layers[i] for i in shown])
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150, force: bool = False) -> None:
    """Save as PNG, PDF or SVG, by suffix; the same figure gives the same bytes.

    Raises :class:`~manigeo.errors.UsageError` as :func:`~manigeo.storage.files.check_target` does.
    """
    path = check_target(path, force=force, suffixes=tuple(_UNDATED), what="figures")
    with rc_context({"svg.hashsalt": "manigeo"}), whole_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format=path.suffix[1:], metadata=_UNDATED[path.suffix])

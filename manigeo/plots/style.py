"""Style that all figures share: one colour and marker per kind, one legend, titles of checkpoints, and saving."""

import functools
import itertools
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from manigeo.errors import InputError
from manigeo.kinds import ALL_KINDS, EVERY, MARKERS
from manigeo.results import row_settings
from manigeo.storage.files import check_target, whole_file
from manigeo.vocabulary import FIGURES, metric_words

COLOR = dict(zip(ALL_KINDS, sns.color_palette("colorblind", len(ALL_KINDS)), strict=True))
MOST_TICKS = 14
MOST_COLUMNS = 4
_LEGEND_INCHES = 1.7
FLOOR, SATURATED = "floor", "saturated"
_UNDATED = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
_OPEN = {"axes.spines.top": False, "axes.spines.right": False}
IDENTITY = ["run", "epoch", "checkpoint", "fingerprint"]  # runs may share a name
Draw = Callable[[pd.DataFrame], Figure]


class Drawing(NamedTuple):
    """Function that draws a figure, and its tables: those with numbers of one of ``metrics``, where ``when`` holds."""

    draw: Draw
    metrics: frozenset[str]
    when: Callable[[pd.DataFrame], bool]


DRAWINGS: dict[str, Drawing] = {}


def draws(
    name: str, *metrics: str, when: Callable[[pd.DataFrame], bool] = lambda table: True
) -> Callable[[Draw], Draw]:
    """Registers a function as the figure ``name`` of :data:`manigeo.vocabulary.FIGURES`, which also holds its docstring, and
    draws it in the style of all figures."""

    def register(draw: Draw) -> Draw:
        @functools.wraps(draw)
        def styled(table: pd.DataFrame) -> Figure:
            with sns.axes_style("ticks", _OPEN), sns.plotting_context("paper", font_scale=1.1):
                return draw(table)

        words = FIGURES[name]
        styled.__doc__ = f"""{words.title}.

        {words.seen} {words.read} ``table``: a results table, or several one below the other.

        Raises :class:`~manigeo.errors.InputError` for a table without these numbers, and with rows that do not compare: at
        several settings, of other sizes, or of several runs where one is drawn.

        {_example(draw)}
        """
        DRAWINGS[name] = Drawing(styled, frozenset(metrics), when)
        return styled

    return register


def _example(draw: Draw) -> str:
    """The example in the docstring of a function, as it is indented there."""
    text = draw.__doc__ or ""
    return text[text.index(">>>") :].rstrip().replace("\n", "\n    ") if ">>>" in text else ""


def rows_of(
    table: pd.DataFrame, metrics: Iterable[str], kinds: Iterable[str] | None = ALL_KINDS, remedy: str = ""
) -> pd.DataFrame:
    """The rows over manifolds of these metrics and kinds (None: of any).

    Raises :class:`~manigeo.errors.InputError` where no number is among them; ``remedy`` is the command that measures them,
    by default their family.
    """
    rows = table[(table["manifold"] == "") & table["metric"].isin(list(metrics))]
    rows = rows if kinds is None else rows[rows["kind"].isin(list(kinds))]
    if rows["value"].notna().sum() == 0:
        words = [metric_words(name) for name in metrics]
        names = ", ".join(of.name for of in words)
        raise InputError(
            f"nothing to plot: the table holds no {names}; make it with manigeo {remedy or words[0].family}"
        )
    return rows


Inches = tuple[float, float]


def subplots(n_rows: int, n_columns: int, margins: Inches, each: Inches, **shared: Any) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns): ``margins``, and so much of width and height for each panel."""
    size = (margins[0] + each[0] * n_columns, margins[1] + each[1] * n_rows)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **shared)


def legend(figure: Figure) -> None:
    """One legend for all panels, each label once: curves, then what is off them, in as many columns as fit."""
    labelled = [pair for ax in figure.axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in reversed(labelled)}
    order = sorted(dict.fromkeys(label for _, label in labelled), key=lambda x: (FLOOR in x, SATURATED in x))
    order = [label for label in order if label != EVERY]  # of one kind, which needs no name
    if not order:
        return
    columns = min(len(order), int(figure.get_figwidth() / _LEGEND_INCHES))
    figure.legend([handles[x] for x in order], order, loc="outside upper center", ncols=columns, frameon=False)


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
    if not checkpoint and np.isnan(epoch):
        return ""  # arrays, or a network at hand: of no checkpoint
    return (checkpoint or "checkpoint") + ("" if np.isnan(epoch) else f" (epoch {epoch:.0f})")


def draw_line(ax: Axes, line: pd.DataFrame, kind: str, x: str = "depth", errors: float = 1.0) -> None:
    """A kind's values against ``x`` with a band of so many standard errors; what is saturated is hollow."""
    if line.empty:
        return
    at, y, error = (line[name].to_numpy(dtype=float) for name in (x, "value", "stderr"))
    ax.plot(at, y, color=COLOR[kind], marker=MARKERS[kind], markersize=4, linewidth=1.6, label=kind)
    hollow = is_saturated(line)
    if hollow.any():
        ax.plot(at[hollow], y[hollow], MARKERS[kind], color=COLOR[kind], markerfacecolor="white", markersize=4)
    ax.fill_between(at, y - errors * error, y + errors * error, color=COLOR[kind], alpha=0.2, linewidth=0)


def draw_layers(ax: Axes, rows: pd.DataFrame) -> str:
    """Values against the epoch, one line per layer by depth; checkpoints without an epoch are counted. Returns what x is."""
    dated = bool(rows["epoch"].notna().all())
    placed = rows.assign(x=rows["epoch"] if dated else pd.factorize(rows["fingerprint"])[0])
    for color, (_, line) in zip(by_depth(rows), placed.groupby("depth"), strict=True):
        line = line.sort_values("x")
        ax.plot(line["x"], line["value"], color=color, linewidth=1.4, marker=".", markersize=4)
    return "epoch" if dated else "checkpoint"


def draw_map(ax: Axes, wide: pd.DataFrame, size: int, **options: bool) -> None:
    """A heat map of shares with their values in letters of this size."""
    options = {"annot": True, "cbar": False, "yticklabels": True} | options
    sns.heatmap(wide, ax=ax, vmin=0, vmax=1, cmap="viridis", fmt=".2f", annot_kws={"size": size}, **options)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0, length=0)


def name_colors(figure: Figure, axes: np.ndarray, label: str) -> None:
    """A colour bar for the heat maps of all panels."""
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label=label, aspect=30).outline.set_visible(False)


def is_saturated(rows: pd.DataFrame) -> np.ndarray:
    """True for rows with a number of a layer that is too narrow for it."""
    return (rows["flag"].str.contains(SATURATED) & rows["value"].notna()).to_numpy(dtype=bool)


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

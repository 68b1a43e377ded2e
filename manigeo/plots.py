"""Figures from the results table. Every function takes a table and returns a matplotlib figure."""

import itertools
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from manigeo.errors import InputError
from manigeo.files import check_target, whole_file
from manigeo.manifolds import KINDS

PANELS = {
    "capacity": r"capacity $\alpha_M$",
    "radius": r"radius $R_M$",
    "dimension": r"dimension $D_M$",
    "center_correlation": r"centre correlation $\rho$",
}
WEIGHT_PANELS = {
    "rotation": r"rotation $1 - \cos(w_0, w_t)$",
    "step_angle": "angle since the last checkpoint (rad)",
    "distance_relative": r"distance $|w_t - w_0| / |w_0|$",
}
# One colour and one marker a kind in every figure, told apart without colour as well.
_COLOR = dict(zip(KINDS, sns.color_palette("colorblind", 4), strict=True))
_MARKER = dict(zip(KINDS, "osD^", strict=True))
# estimator -> its metric, colour, marker and line
_ESTIMATORS = {
    "mean field": ("capacity", "C0", "o", "-"),
    "joint": ("capacity_joint", "C3", "s", "-"),
    "simulated": ("capacity_simulated", "0.15", "x", "--"),
}
_MOST_TICKS = 14
_MOST_COLUMNS = 4
_LEGEND_INCHES = 1.7
_FLOOR, _SATURATED = "floor 2/M", "saturated"
_UNDATED = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def plot_geometry(table: pd.DataFrame) -> Figure:
    """Capacity, radius, dimension and centre correlation against depth: a row each, a line a kind, a column a checkpoint.

    Bands are one standard error over manifolds; the dotted line is the floor 2/M of capacity, where M points without
    structure lie. Hollow points are of layers too narrow to separate their manifolds (flag ``saturated``). Rows share
    their scale, so that checkpoints compare by eye.

    Raises :class:`~manigeo.errors.InputError` for a table without these measures, at several settings, or with kinds or
    checkpoints at different numbers of classes or of examples: these do not compare.
    """
    columns = _checkpoints(_aggregates(table, PANELS))
    with _style():
        figure = Figure(figsize=(1.2 + 4.2 * len(columns), 10.5), layout="constrained")
        axes = figure.subplots(len(PANELS), len(columns), sharex="col", sharey="row", squeeze=False)
        for (title, part), column in zip(columns.items(), axes.T, strict=True):
            _draw_checkpoint(part, list(column))
            column[0].set_title(title)
        for label, ax in zip(PANELS.values(), axes[:, 0], strict=True):
            ax.set_ylabel(label)
        _finish(figure)
    return figure


def plot_estimators(table: pd.DataFrame) -> Figure:
    """Capacity by every estimator in the table (mean field, joint, simulated): a column a kind, a row a checkpoint.

    Bars are one standard error: of mean field over manifolds, of the others over draws and dichotomies. Hollow points, off
    the line, are of layers too narrow to separate their manifolds: joint capacity is at the bound P/rank there. The
    dotted line is the floor 2/M.

    Raises :class:`~manigeo.errors.InputError` as :func:`plot_geometry` does, and for a table of one estimator.
    """
    metrics = [metric for metric, *_ in _ESTIMATORS.values()]
    part = _aggregates(table, metrics)
    if part.loc[part["value"].notna(), "metric"].nunique() < 2:
        raise InputError("the table holds one estimator of capacity; add --simulate or --joint to manigeo capacity")
    rows = _checkpoints(part)
    kinds = [kind for kind in KINDS if kind in set(part["kind"])]
    with _style():
        figure = Figure(figsize=(1.2 + 3.2 * len(kinds), 0.9 + 3.0 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(kinds), sharex=True, sharey=True, squeeze=False)
        for (title, at), line in zip(rows.items(), axes, strict=True):
            for kind, ax in zip(kinds, line, strict=True):
                _draw_estimators(ax, at[at["kind"] == kind])
                _draw_floor(ax, at)
                _name_layers(ax, at)
            line[0].set_ylabel(f"{title}\n{PANELS['capacity']}" if title else PANELS["capacity"])
        for kind, ax in zip(kinds, axes[0], strict=True):
            ax.set_title(kind)
        for ax in axes[:-1].flat:
            ax.set_xlabel("")
        _finish(figure)
    return figure


def plot_sweep(table: pd.DataFrame) -> Figure:
    """Capacity against the number of points per manifold M: a line a kind, a panel a layer, rows of panels a checkpoint.

    Both axes are logarithmic; the dotted line is the floor 2/M. Kinds are told apart at an M where their lines are.

    Raises :class:`~manigeo.errors.InputError` for a table without a sweep, and where kinds were swept over different M.
    """
    part = _aggregates(table, ["capacity_sweep"], by_size=True)
    part = part.assign(M=[_setting(settings, "per_class") for settings in part["settings"]])
    panels = {
        (title, layer): at
        for title, rows in _checkpoints(part).items()
        for (_, layer), at in rows.groupby(["depth", "layer"])
    }
    for (_, layer), at in panels.items():
        _refuse_different(at.groupby("kind")["M"].agg(lambda M: tuple(sorted(M))), f"at {layer} kinds were swept over")
    n_columns = min(_MOST_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    with _style():
        figure = Figure(figsize=(1.2 + 2.9 * n_columns, 0.9 + 2.7 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for ((title, layer), at), ax in zip(panels.items(), axes.flat, strict=False):
            _draw_sweep(ax, at)
            ax.set_title(f"{title}: {layer}" if len({title for title, _ in panels}) > 1 else layer)
        for ax in axes.flat[len(panels) :]:
            ax.remove()
        for ax in axes.flat[max(0, len(panels) - n_columns) : len(panels)]:
            ax.set_xlabel("examples per class $M$")
            ax.tick_params(labelbottom=True)
        for ax in axes[:, 0]:
            ax.set_ylabel(PANELS["capacity"])
        _finish(figure)
    return figure


def plot_weights(table: pd.DataFrame) -> Figure:
    """Rotation, angle per step and relative distance of each layer against the epoch: a line a layer, dark to bright by
    depth; a row a run.

    Checkpoints without an epoch are counted. Raises :class:`~manigeo.errors.InputError` for a table without rotations.
    """
    part = table[table["metric"].isin(WEIGHT_PANELS) & ~table["layer"].str.startswith("(")]
    if part["value"].notna().sum() == 0:
        raise InputError(
            f"nothing to plot: the table holds no {', '.join(WEIGHT_PANELS)}; make it with manigeo weights"
        )
    runs = dict(list(part.groupby("run", sort=False)))
    with _style():
        figure = Figure(figsize=(1.2 + 3.8 * len(WEIGHT_PANELS), 0.9 + 3.1 * len(runs)), layout="constrained")
        axes = figure.subplots(len(runs), len(WEIGHT_PANELS), squeeze=False)
        for (run, rows), line in zip(runs.items(), axes, strict=True):
            for (metric, label), ax in zip(WEIGHT_PANELS.items(), line, strict=True):
                _draw_trajectories(ax, rows[rows["metric"] == metric])
                ax.set_ylabel(label)
            line[0].set_title(run if len(runs) > 1 else "", loc="left")
            line[0].set_ylim(bottom=0)
            _name_depths(figure, line[-1], rows)
        sns.despine(figure)
    return figure


def plot_correlation(table: pd.DataFrame) -> Figure:
    """Movement of each layer against the generalization gap: a panel a layer, a point a run, Spearman's coefficient above.

    Raises :class:`~manigeo.errors.InputError` for a table that is not of manigeo correlate.
    """
    of_run = table[table["run"] != ""]
    gaps = of_run[of_run["metric"] == "gap"].set_index("run")["value"]
    moved = of_run[(of_run["metric"] != "gap") & of_run["layer"].ne("")]
    if gaps.empty or moved.empty:
        raise InputError("nothing to plot: the table holds no gaps of runs; make it with manigeo correlate")
    measure, gap = moved["metric"].iloc[0], _setting(table["settings"].iloc[0], "gap")
    layers = list(moved.drop_duplicates("layer")["layer"])
    n_columns = min(_MOST_COLUMNS, len(layers))
    n_rows = -(-len(layers) // n_columns)
    with _style():
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
    for color, (_, line) in zip(_by_depth(rows), placed.groupby("depth"), strict=True):
        line = line.sort_values("x")
        ax.plot(line["x"], line["value"], color=color, linewidth=1.4, marker=".", markersize=4)
    ax.set_xlabel("epoch" if dated else "checkpoint")


def _by_depth(rows: pd.DataFrame) -> list[tuple[float, float, float]]:
    return list(sns.color_palette("viridis", rows["depth"].nunique()))


def _name_depths(figure: Figure, ax: Axes, rows: pd.DataFrame) -> None:
    """A colour bar that names the layers."""
    layers = rows.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    scale = ScalarMappable(Normalize(-0.5, len(layers) - 0.5), ListedColormap(_by_depth(rows)))
    shown = range(0, len(layers), 1 + (len(layers) - 1) // _MOST_TICKS)
    bar = figure.colorbar(scale, ax=ax, ticks=list(shown))
    bar.ax.set_yticklabels([layers[i] for i in shown])
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)


FIGURES: dict[str, tuple[Callable[[pd.DataFrame], Figure], frozenset[str]]] = {
    "geometry": (plot_geometry, frozenset({"capacity"})),
    "estimators": (plot_estimators, frozenset({"capacity_joint", "capacity_simulated"})),
    "sweep": (plot_sweep, frozenset({"capacity_sweep"})),
    "weights": (plot_weights, frozenset({"step_angle"})),
    "correlation": (plot_correlation, frozenset({"gap"})),
}


def figures_of(table: pd.DataFrame) -> list[str]:
    """The figures that a table has numbers for, the main one first.

    >>> figures_of(pd.DataFrame({"metric": ["capacity", "capacity_sweep"], "value": [0.1, 0.1]}))
    ['geometry', 'sweep']
    """
    present = set(table.loc[table["value"].notna(), "metric"])
    return [name for name, (_, metrics) in FIGURES.items() if metrics & present]


@contextmanager
def _style() -> Iterator[None]:
    with sns.axes_style("ticks"), sns.plotting_context("paper", font_scale=1.1):
        yield


def _finish(figure: Figure) -> None:
    """One legend for all panels, each label once: curves, then what is off them, in as many columns as fit."""
    labelled = [pair for ax in figure.axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in reversed(labelled)}
    order = sorted(dict.fromkeys(label for _, label in labelled), key=lambda x: (_FLOOR in x, _SATURATED in x))
    columns = min(len(order), int(figure.get_figwidth() / _LEGEND_INCHES))
    figure.legend([handles[x] for x in order], order, loc="outside upper center", ncols=columns, frameon=False)
    sns.despine(figure)


# ------------------------------------------------------------------------------------------------------- what compares
def _aggregates(table: pd.DataFrame, metrics: Collection[str], by_size: bool = False) -> pd.DataFrame:
    """The rows over manifolds of these metrics, each once; of one setting, and of one size unless it is swept."""
    table = table[(table["manifold"] == "") & table["metric"].isin(metrics) & table["kind"].isin(KINDS)]
    if table["value"].notna().sum() == 0:
        raise InputError(
            f"nothing to plot: the table holds no {', '.join(metrics)} over manifolds of {', '.join(KINDS)}"
        )
    line = [*_IDENTITY, "layer", "kind", "metric"]
    table = table.drop_duplicates([*line, "settings"])
    settings = [_without_size(text) for text in table["settings"]] if by_size else table["settings"]
    if table.assign(settings=settings).groupby(line, dropna=False)["settings"].nunique().max() > 1:
        raise InputError("the tables hold the same layers at different settings: plot one of the settings")
    sizes = pd.Series(
        [_size(text, by_size) for text in table["settings"]], index=table["kind"] + " " + table["checkpoint"]
    )
    _refuse_different(sizes, "the table compares")
    return table


_IDENTITY = ["run", "epoch", "checkpoint", "fingerprint"]  # runs may share a name


def _size(settings: str, by_size: bool) -> tuple[object, ...]:
    names = ("n_classes",) if by_size else ("n_classes", "per_class")
    return tuple(_setting(settings, name) for name in names)


def _refuse_different(sizes: pd.Series, what: str) -> None:
    """Capacity depends on P and strongly on M: curves at different ones do not compare."""
    if sizes.nunique() > 1:
        found = "; ".join(f"{name}: {size}" for name, size in sizes.groupby(level=0).first().items())
        raise InputError(
            f"{what} different numbers of classes or examples per class ({found}), and capacity depends on these: "
            "run manigeo capacity on all of them with one --per-class (or --sweep-examples)"
        )


def _setting(settings: str, name: str) -> object:
    """None for a table of another program, without settings of ours."""
    try:
        return json.loads(settings).get(name)
    except (ValueError, AttributeError):
        return None


def _without_size(settings: str) -> str:
    try:
        return json.dumps({key: value for key, value in json.loads(settings).items() if key != "per_class"})
    except (ValueError, AttributeError):
        return settings


def _checkpoints(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each checkpoint under its title, by epoch."""
    groups = part.sort_values("epoch", kind="stable").groupby(_IDENTITY, sort=False, dropna=False)
    several_runs = part["run"].nunique() > 1
    titled: dict[str, pd.DataFrame] = {}
    for (run, epoch, checkpoint, _), rows in groups:
        title = (f"{run}: " if several_runs else "") + _title(epoch, checkpoint)
        titled[_unused(title, titled)] = rows
    return titled


def _unused(title: str, titled: Collection[str]) -> str:
    """Runs of one name are told apart by number."""
    names = itertools.chain([title], (f"{title} [{i}]" for i in itertools.count(2)))
    return next(name for name in names if name not in titled)


def _title(epoch: float, checkpoint: str) -> str:
    return (checkpoint or "checkpoint") + ("" if np.isnan(epoch) else f" (epoch {epoch:.0f})")


# ------------------------------------------------------------------------------------------------------------- drawing
def _draw_checkpoint(part: pd.DataFrame, column: Sequence[Axes]) -> None:
    for metric, ax in zip(PANELS, column, strict=True):
        for kind in KINDS:
            line = part[(part["metric"] == metric) & (part["kind"] == kind)].sort_values("depth")
            _draw_line(ax, line, kind)
    _draw_floor(column[0], part)
    _name_layers(column[-1], part)


def _draw_line(ax: Axes, line: pd.DataFrame, kind: str, x: str = "depth") -> None:
    if line.empty:
        return
    at, y, error = (line[name].to_numpy(dtype=float) for name in (x, "value", "stderr"))
    ax.plot(at, y, color=_COLOR[kind], marker=_MARKER[kind], markersize=4, linewidth=1.6, label=kind)
    hollow = _is_saturated(line)
    if hollow.any():
        ax.plot(at[hollow], y[hollow], _MARKER[kind], color=_COLOR[kind], markerfacecolor="white", markersize=4)
    ax.fill_between(at, y - error, y + error, color=_COLOR[kind], alpha=0.2, linewidth=0)


def _is_saturated(rows: pd.DataFrame) -> np.ndarray:
    return rows["flag"].str.contains(_SATURATED).to_numpy(dtype=bool)


def _draw_estimators(ax: Axes, rows: pd.DataFrame) -> None:
    for name, (metric, color, marker, dashes) in _ESTIMATORS.items():
        line = rows[rows["metric"] == metric].sort_values("depth")
        if line.empty:
            continue
        saturated = _is_saturated(line)
        x, y, error = (line[column].to_numpy(dtype=float) for column in ("depth", "value", "stderr"))
        own = np.where(saturated, np.nan, y)  # a bound is no point of the curve
        ax.errorbar(
            x, own, error, color=color, marker=marker, linestyle=dashes, markersize=4, linewidth=1.4, label=name
        )
        if saturated.any():
            label = f"{name}, {_SATURATED}"
            ax.plot(x[saturated], y[saturated], marker, color=color, markerfacecolor="white", label=label)


def _draw_sweep(ax: Axes, at: pd.DataFrame) -> None:
    for kind in KINDS:
        _draw_line(ax, at[at["kind"] == kind].sort_values("M"), kind, x="M")
    sizes = np.array(sorted(set(at["M"])), dtype=float)
    ax.plot(sizes, 2 / sizes, color="0.4", linestyle=":", linewidth=1, label=_FLOOR)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _draw_floor(ax: Axes, part: pd.DataFrame) -> None:
    """2/M, which all rows share, at margin 0."""
    size = _setting(part["settings"].iloc[0], "per_class")
    if isinstance(size, int) and not any(_setting(settings, "kappa") for settings in part["settings"].unique()):
        ax.axhline(2 / size, color="0.4", linestyle=":", linewidth=1, label=f"{_FLOOR} = {2 / size:.3g}")


def _name_layers(ax: Axes, part: pd.DataFrame) -> None:
    layers = part.drop_duplicates("depth").sort_values("depth")
    shown = layers.iloc[:: 1 + (len(layers) - 1) // _MOST_TICKS]
    ax.set_xticks(shown["depth"], shown["layer"], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel("layer")


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150, force: bool = False) -> None:
    """Save as PNG, PDF or SVG, by suffix; the same figure gives the same bytes.

    Raises :class:`~manigeo.errors.UsageError` as :func:`~manigeo.files.check_target` does.
    """
    path = check_target(path, force=force, suffixes=tuple(_UNDATED), what="figures")
    with rc_context({"svg.hashsalt": "manigeo"}), whole_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format=path.suffix[1:], metadata=_UNDATED[path.suffix])

"""Capacity, radius and dimension against depth, by one estimator or several, and against the number of points."""

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, StrMethodFormatter

from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.errors import InputError
from manigeo.kinds import UNSEEN, in_order
from manigeo.plots.canvas import FLOOR, SATURATED, Canvas, entitle
from manigeo.plots.style import (
    NETWORK,
    by_checkpoint,
    draw_line,
    draws,
    is_saturated,
    name_layers,
    rows_of,
    setting,
)
from manigeo.vocabulary import metric_words

PANELS = ("capacity", "radius", "dimension", "center_correlation")
# estimator -> its metric, colour, marker and line
_ESTIMATORS = {
    "mean field": ("capacity", "C0", "o", "-"),
    "joint": ("capacity_joint", "C3", "s", "-"),
    "simulated": ("capacity_simulated", "0.15", "x", "--"),
}


@draws("geometry", "capacity", panels=PANELS)
def plot_geometry(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``geometry``.

    >>> from manigeo.results import as_table
    >>> values = {"a": 0.1, "b": 0.2}  # capacity by layer
    >>> rows = [{"metric": "capacity", "kind": "test", "layer": x, "value": v, "n": 9} for x, v in values.items()]
    >>> figure = plot_geometry(as_table(rows).assign(depth=[0, 1]))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.1, 0.2]
    """
    every = _aggregates(table, canvas.panels)
    panels = [metric for metric in canvas.panels if metric in set(every["metric"])]
    columns = by_checkpoint(every)
    axes = canvas.subplots(len(panels), len(columns), (1.2, 0.9), (4.2, 2.4), sharex="col", sharey="row")
    for (title, part), column in zip(columns.items(), axes.T, strict=True):
        for metric, ax in zip(panels, column, strict=True):
            _draw_profile(ax, part[part["metric"] == metric], metric)
            name_layers(ax, part)
        entitle(column[0], title)
    canvas.legend()


@draws("estimators", "capacity_joint", "capacity_simulated")
def plot_estimators(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``estimators``.

    >>> from manigeo.results import as_table
    >>> row = {"kind": "test", "layer": "a", "depth": 0, "n": 9}
    >>> values = {"capacity": 0.1, "capacity_joint": 0.2}
    >>> figure = plot_estimators(as_table([row | {"metric": metric, "value": v} for metric, v in values.items()]))
    >>> [ax.get_title() for ax in figure.axes]
    ['test']
    """
    metrics = [metric for metric, *_ in _ESTIMATORS.values()]
    part = _aggregates(table, metrics)
    if part.loc[part["value"].notna(), "metric"].nunique() < 2:
        raise InputError("the table holds one estimator of capacity; add --simulate or --joint to manigeo capacity")
    rows = by_checkpoint(part)
    kinds = in_order(part["kind"])
    axes = canvas.subplots(len(rows), len(kinds), (1.2, 0.9), (3.2, 3.0), sharex=True, sharey=True)
    for (title, at), line in zip(rows.items(), axes, strict=True):
        for kind, ax in zip(kinds, line, strict=True):
            _draw_estimators(ax, at[at["kind"] == kind])
            for metric, color, *_ in _ESTIMATORS.values():
                _draw_floor(ax, at[at["metric"] == metric], color, f"{FLOOR} of each estimator")
            name_layers(ax, at)
            ax.set_ylabel("\n".join(filter(None, [title, metric_words("capacity").label])))
    for kind, ax in zip(kinds, axes[0], strict=True):
        entitle(ax, canvas.word(kind))
    canvas.legend()


@draws("sweep", "capacity_sweep")
def plot_sweep(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``sweep``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "capacity_sweep", "kind": "test", "layer": "a", "depth": 0, "n": 9}
    >>> values = {5: 0.4, 10: 0.2}  # capacity by M
    >>> table = as_table([row | {"value": v, "settings": f'{{"per_class": {M}}}'} for M, v in values.items()])
    >>> plot_sweep(table).axes[0].lines[0].get_xdata().tolist()
    [5.0, 10.0]
    """
    part = _aggregates(table, ["capacity_sweep"], by_size=True)
    part = part.assign(M=[setting(settings, "per_class") for settings in part["settings"]])
    panels = {
        (title, layer): at
        for title, rows in by_checkpoint(part).items()
        for (_, layer), at in rows.groupby(["depth", "layer"])
    }
    for (_, layer), at in panels.items():
        _refuse_different(at.groupby("kind")["M"].agg(lambda M: tuple(sorted(M))), f"at {layer} kinds were swept over")
    axes = canvas.wrapped(len(panels), (1.2, 0.9), (2.9, 2.7), sharex=True, sharey=True)
    for ((title, layer), at), ax in zip(panels.items(), axes, strict=True):
        _draw_sweep(ax, at)
        entitle(ax, f"{title}: {layer}" if len({title for title, _ in panels}) > 1 else layer)
        ax.set(xlabel="examples per class $M$", ylabel=metric_words("capacity").label)
    canvas.legend()


# ------------------------------------------------------------------------------------------------------- what compares
def _aggregates(table: pd.DataFrame, metrics: Collection[str], by_size: bool = False) -> pd.DataFrame:
    """The rows over manifolds of these metrics, each once; of one setting, and of one size unless it is swept."""
    table = rows_of(table, metrics)
    if UNSEEN in set(table["kind"]) and table["kind"].nunique() > 1:
        raise InputError(f"capacities of {UNSEEN} classes do not compare with those of others: plot their table alone")
    table = table.drop_duplicates([*NETWORK, "layer", "kind", "metric", "settings"])
    sizes = pd.Series(
        [_size(text, by_size) for text in table["settings"]], index=table["kind"] + " " + table["checkpoint"]
    )
    _refuse_different(sizes, "the table compares")
    return table


def _size(settings: str, by_size: bool) -> tuple[object, ...]:
    names = ("n_classes",) if by_size else ("n_classes", "per_class")
    return tuple(setting(settings, name) for name in names)


def _refuse_different(sizes: pd.Series, what: str) -> None:
    """Capacity depends on P and strongly on M: curves at different ones do not compare."""
    if sizes.nunique() > 1:
        found = "; ".join(f"{name}: {size}" for name, size in sizes.groupby(level=0).first().items())
        raise InputError(
            f"{what} different numbers of classes or examples per class ({found}), and capacity depends on these: "
            "run manigeo capacity on all of them with one --per-class (or --sweep-examples)"
        )


# ------------------------------------------------------------------------------------------------------------- drawing
def _draw_profile(ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    for kind in in_order(rows["kind"]):
        draw_line(ax, rows[rows["kind"] == kind].sort_values("depth"), kind)
    if metric == "capacity":
        _draw_floor(ax, rows)
    ax.set_ylabel(metric_words(metric).label)


def _draw_estimators(ax: Axes, rows: pd.DataFrame) -> None:
    for name, (metric, color, marker, dashes) in _ESTIMATORS.items():
        line = rows[rows["metric"] == metric].sort_values("depth")
        if line.empty:
            continue
        saturated = is_saturated(line)
        x, y, error = (line[column].to_numpy(dtype=float) for column in ("depth", "value", "stderr"))
        own = np.where(saturated, np.nan, y)  # a bound is no point of the curve
        ax.errorbar(
            x, own, error, color=color, marker=marker, linestyle=dashes, markersize=4, linewidth=1.4, label=name
        )
        if saturated.any():
            label = f"{name}, {SATURATED}"
            ax.plot(x[saturated], y[saturated], marker, color=color, markerfacecolor="white", label=label)


def _draw_sweep(ax: Axes, at: pd.DataFrame) -> None:
    for kind in in_order(at["kind"]):
        draw_line(ax, at[at["kind"] == kind].sort_values("M"), kind, x="M")
    sizes = np.array(sorted(set(at["M"])), dtype=float)
    floors = at.drop_duplicates("M").sort_values("M")["settings"].map(lambda settings: _floor("capacity", settings))
    ax.plot(sizes, floors, color="0.4", linestyle=":", linewidth=1, label=FLOOR)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _draw_floor(ax: Axes, rows: pd.DataFrame, color: str = "0.4", label: str | None = None) -> None:
    """Draw the capacity of points without structure at margin 0, if all ``rows`` (of one metric) have the same."""
    floors = {_floor(metric, settings) for metric, settings in zip(rows["metric"], rows["settings"], strict=True)}
    if len(floors) == 1 and np.isfinite(floor := floors.pop()):
        ax.axhline(floor, color=color, linestyle=":", linewidth=1, label=label or f"{FLOOR} = {floor:.3g}")


def _floor(metric: str, settings: str) -> float:
    """Capacity of points without structure by the estimator of ``metric``; NaN where the settings name no size, or what
    is not tabulated: a margin, an offset, one class against the rest."""
    named = {name: setting(settings, name) for name in ("per_class", "n_classes", "kappa", "centers", "labels", "bias")}
    M, P = named["per_class"], named["n_classes"]
    if not isinstance(M, int) or named["kappa"] or named["bias"] or named["labels"] not in (None, "random"):
        return np.nan
    mean_field = named["centers"] if isinstance(named["centers"], str) else "auto"
    estimator = {"capacity_joint": "joint", "capacity_simulated": "simulated"}.get(metric, mean_field)
    return unstructured_capacity(M, n_manifolds=P if isinstance(P, int) else None, estimator=estimator)

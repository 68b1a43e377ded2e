"""Figures of the kinds when layers are rewound, re-initialised or drawn again."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from manigeo.errors import InputError
from manigeo.kinds import SCORED
from manigeo.plots.canvas import Canvas
from manigeo.plots.style import NETWORK, draw_line, draw_map, draws, name_colors, name_layers, rows_of
from manigeo.results import with_settings

_SWEEPS = {"last": "last $k$ layers rewound", "each": "one layer rewound", "prefix": "first $k$ layers rewound"}
_WHOLE = "test, whole network rewound"


@draws("rewind", "accuracy_drop", of="rewind", one=NETWORK)
def plot_rewind(table: pd.DataFrame, canvas: Canvas) -> None:
    full = with_settings(table, "analysis", "sweep", "to", "to_epoch", "k", "direction")
    full = full[(full["analysis"] == "rewind") & full["metric"].isin(["accuracy", "selected"])]
    full = full[full["direction"] != "into_before"]
    sweeps = [sweep for sweep in _SWEEPS if sweep in set(full["sweep"])]
    if not sweeps:
        raise InputError("nothing to plot: the table holds no sweeps of manigeo rewind (--last-k, --each, --prefix)")
    targets = list(dict.fromkeys(zip(full["to"].dropna(), full["to_epoch"].dropna(), strict=True)))
    axes = canvas.subplots(len(targets), len(sweeps), (1.2, 0.9), (3.6, 3.2), sharey=True)
    for (to, epoch), line in zip(targets, axes, strict=True):
        at = full[(full["to"] == to) | full["sweep"].eq("none")]
        for sweep, ax in zip(sweeps, line, strict=True):
            _draw_rewinds(ax, at, sweep)
            ax.set_title(f"{_SWEEPS[sweep]} to {to}" + ("" if np.isnan(epoch) else f" (epoch {epoch:.0f})"))
            ax.set_ylabel("accuracy")
    canvas.legend()


def _draw_rewinds(ax: Axes, at: pd.DataFrame, sweep: str) -> None:
    """One sweep; of several layers the trained network is k = 0, of single ones a dotted line a kind."""
    accuracy = at[at["metric"] == "accuracy"]
    cumulative = sweep in ("last", "prefix")
    rows = accuracy[accuracy["sweep"].isin([sweep, "none"] if cumulative else [sweep])]
    for kind in SCORED:
        draw_line(ax, rows[rows["kind"] == kind].sort_values("depth"), kind)
    whole = accuracy[(accuracy["sweep"] == "whole") & (accuracy["kind"] == "test")]["value"]
    if len(whole):
        ax.axhline(whole.iloc[0], color="0.4", linestyle="--", linewidth=1, label=_WHOLE)
    chosen = at[(at["metric"] == "selected") & (at["sweep"] == sweep)]
    test = rows[(rows["kind"] == "test") & rows["layer"].isin(chosen["layer"])]
    ax.plot(test["depth"], test["value"], "o", color="none", markeredgecolor="0.2", markersize=11, markeredgewidth=1.2)
    name_layers(ax, rows)
    if cumulative:
        ax.set_xticks(k := ax.get_xticks(), [f"{i:.0f}" for i in k], rotation=0, ha="center", rotation_mode="default")
        ax.set_xlabel("$k$")
    ax.set_ylim(-0.02, 1.02)


@draws("reinit", "accuracy_drop", of="reinit", one=NETWORK)
def plot_reinit(table: pd.DataFrame, canvas: Canvas) -> None:
    full = with_settings(table, "analysis", "sweep", "to", "to_epoch")
    accuracy = full[(full["analysis"] == "reinit") & (full["metric"] == "accuracy")]
    each = accuracy[accuracy["sweep"] == "each"]
    rows_of(each, ["accuracy"], remedy="reinit")
    trained = accuracy[accuracy["sweep"] == "none"].set_index("kind")["value"]
    kinds = [kind for kind in SCORED if kind in set(each["kind"])]
    columns = each.drop_duplicates("to").set_index("to")["to_epoch"]
    n_rows, n_columns = each["layer"].nunique(), len(columns) + 1
    each_size = (0.44 * n_columns, 0.5 + 0.3 * n_rows)
    axes = canvas.wrapped(len(kinds), (2.4, 0.9), each_size, most=2, sharex=True, sharey=True)
    for kind, ax in zip(kinds, axes, strict=True):
        wide = each[each["kind"] == kind].pivot(index=["depth", "layer"], columns="to", values="value")
        wide = wide.reset_index("depth", drop=True)[list(columns.index)].assign(trained=trained.get(kind))
        draw_map(ax, wide, size=6, annot=n_columns <= 12)
        ax.set_xticks(np.arange(n_columns) + 0.5, [*map(_column, columns.index, columns), "trained"], rotation=90)
        ax.set(title=kind, xlabel="set to")
    name_colors(canvas.figure, axes, "accuracy")


def _column(to: str, epoch: float | None) -> str:
    """The epoch of a checkpoint, or what else a layer was set to."""
    return to if epoch is None or np.isnan(epoch) else f"epoch {epoch:.0f}"

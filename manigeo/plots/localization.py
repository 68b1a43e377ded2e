"""Figure of the layers where every method finds memorization."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from manigeo.errors import InputError
from manigeo.plots.canvas import Canvas
from manigeo.plots.style import draws
from manigeo.results import with_settings


@draws("localization", "profile")
def plot_localization(table: pd.DataFrame, canvas: Canvas) -> None:
    full = with_settings(table, "analysis", "method", "other")
    full = full[(full["analysis"] == "localize") & full["method"].notna() & full["other"].isna()]
    methods = dict(list(full.groupby("method", sort=False)))
    if not methods:
        raise InputError("nothing to plot: the table holds no localization; make it with manigeo localize")
    n_layers = int(full["depth"].max()) + 1
    axes = canvas.subplots(len(methods), 1, (2.2, 0.6), (0.5 * max(n_layers, 5), 1.5), sharey=True)
    for (name, rows), ax in zip(methods.items(), axes[:, 0], strict=True):
        _draw_profile(ax, rows)
        ax.set_title(name, loc="left")
        ax.set_ylabel("share")


def _draw_profile(ax: Axes, rows: pd.DataFrame) -> None:
    wide = rows[rows["metric"].str.startswith("profile")].pivot(
        index=["depth", "layer"], columns="metric", values="value"
    )
    depth, layers = (wide.index.get_level_values(level) for level in ("depth", "layer"))
    share, low, high = (wide[f"profile{ending}"].to_numpy() for ending in ("", "_ci_low", "_ci_high"))
    localized = bool(rows.loc[rows["metric"] == "localized", "value"].eq(1).all())
    color = sns.color_palette("colorblind")[0] if localized else "0.7"
    ax.bar(depth, share, color=color, width=0.7)
    ax.vlines(depth, np.minimum(low, share), np.maximum(high, share), color="0.2", linewidth=1.2)
    center = rows[rows["metric"].str.startswith("center_of_mass")].set_index("metric")["value"]
    ax.axvline(center["center_of_mass"], color="0.2", linestyle="--", linewidth=1)
    ax.axvspan(center["center_of_mass_ci_low"], center["center_of_mass_ci_high"], color="0.2", alpha=0.12, linewidth=0)
    ax.set_xticks(depth, layers, rotation=30, ha="right", rotation_mode="anchor")

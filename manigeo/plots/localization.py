"""Figures of the layers where every method finds memorization."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from manigeo.errors import InputError, shorten
from manigeo.plots.canvas import LONGEST, Canvas
from manigeo.plots.style import NETWORK, draws
from manigeo.results import with_settings

_KEPT = "annotation-mark"  # what stands on the cells of a heat map, in the same colours on a dark page


_CENTER = tuple(f"center_of_mass{end}" for end in ("", "_ci_low", "_ci_high"))


@draws("localization", "profile", needs=("profile_ci_low", "profile_ci_high", "localized", *_CENTER), one=NETWORK)
def plot_localization(table: pd.DataFrame, canvas: Canvas) -> None:
    full = with_settings(table, "analysis", "method", "other")
    full = full[(full["analysis"] == "localize") & full["method"].notna() & full["other"].isna()]
    methods = dict(list(full.groupby("method", sort=False)))
    if not full["metric"].eq("profile").any():
        raise InputError("nothing to plot: the table holds no localization; make it with manigeo localize")
    n_layers = int(full["depth"].max()) + 1
    axes = canvas.subplots(len(methods), 1, (2.2, 0.6), (0.5 * max(n_layers, 5), 1.5), sharey=True)
    for (name, rows), ax in zip(methods.items(), axes[:, 0], strict=True):
        _draw_profile(ax, rows)
        ax.set_title(name, loc="left")
        ax.set_ylabel("share")


@draws("depth", "profile", needs=("localized", *_CENTER))
def plot_depth(table: pd.DataFrame, canvas: Canvas) -> None:
    full = with_settings(table, "analysis", "method", "other", "question")
    full = full[(full["analysis"] == "localize") & full["method"].notna() & full["other"].isna()]
    if not full["metric"].eq("profile").any():
        raise InputError("nothing to plot: the table holds no localization; make it with manigeo localize")
    methods = list(dict.fromkeys(full.sort_values("question", kind="stable")["method"]))
    profiles = full[full["metric"] == "profile"].sort_values("depth", kind="stable")
    if profiles.duplicated(["method", "depth"]).any():
        raise InputError("the table holds several answers, which make no one axis; give one table of manigeo localize")
    layers = profiles.drop_duplicates("depth").set_index("depth")["layer"]
    shares = 100 * profiles.pivot_table(index="method", columns="depth", values="value", sort=False)
    shares = shares.reindex(index=methods, columns=layers.index)
    ax = canvas.subplots(1, 1, (1.6, 1.3), (0.52 * max(len(layers), 6), 0.42 * len(methods)))[0, 0]
    sns.heatmap(shares, ax=ax, cmap="Blues", vmin=0, vmax=100, annot=True, fmt=".0f", linewidths=1, cbar=False,
                xticklabels=False, yticklabels=False)  # fmt: skip
    told = [_mark_method(ax, row, full[full["method"] == name], list(layers.index)) for row, name in enumerate(methods)]
    rows = [shorten(name, LONGEST) for name in methods]
    named = [n if t else f"({n})" for n, t in zip(rows, told, strict=True)]
    ax.set_yticks(np.arange(len(methods)) + 0.5, named, rotation=0)
    columns = [shorten(name, LONGEST) for name in layers]
    ax.set_xticks(np.arange(len(layers)) + 0.5, columns, rotation=30, ha="right", rotation_mode="anchor")
    questions = full.drop_duplicates("method").set_index("method")["question"].reindex(methods).to_list()
    for row in (row for row in range(1, len(methods)) if questions[row] != questions[row - 1]):
        ax.axhline(row, color="0.2", linewidth=1.5)
    ax.set(xlabel="share of each layer, %", ylabel="")


def _mark_method(ax: Axes, row: int, rows: pd.DataFrame, depths: list[float]) -> bool:
    """Boxes of the layers named and the centre of mass; whether the method has localized at all."""
    value = rows.drop_duplicates("metric").set_index("metric")["value"]
    if value["localized"] != 1:
        paler = Rectangle((0, row), len(depths), 1, color="1", alpha=0.7, linewidth=0, zorder=1.5)
        ax.add_patch(paler).set_gid(_KEPT)
        for text in (text for text in ax.texts if int(text.get_position()[1]) == row):
            text.set_color("0.35")  # white ones could not be read any more
        return False
    for depth in rows.loc[(rows["metric"] == "named") & rows["value"].eq(1), "depth"]:
        place = (depths.index(depth) + 0.04, row + 0.06)
        ax.add_patch(Rectangle(place, 0.92, 0.88, fill=False, edgecolor="0.1", linewidth=1.8)).set_gid(_KEPT)
    places = np.arange(len(depths)) + 0.5
    center, low, high = (np.interp(value[name], depths, places) for name in _CENTER)
    ax.plot([low, high], [row + 0.84] * 2, color="0.1", linewidth=1.4, solid_capstyle="butt", gid=_KEPT)
    ax.plot([center] * 2, [row + 0.74, row + 0.94], color="0.1", linewidth=1.8, gid=_KEPT)
    return True


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
    center, low, high = rows[rows["metric"].isin(_CENTER)].set_index("metric")["value"].reindex(_CENTER)
    ax.axvline(center, color="0.2", linestyle="--", linewidth=1)
    ax.axvspan(low, high, color="0.2", alpha=0.12, linewidth=0)
    ax.set_xticks(depth, layers, rotation=30, ha="right", rotation_mode="anchor")

"""Fewest channels that flip an example, and the layers that they lie in."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from manigeo.errors import InputError
from manigeo.kinds import SCORED
from manigeo.plots.canvas import Canvas
from manigeo.plots.style import NETWORK, draw_line, draws, look, name_layers, rows_of
from manigeo.vocabulary import metric_words


@draws(
    "channels",
    "channels_to_flip",
    needs=("channels_to_flip_ci_low", "channels_to_flip_ci_high", "channel_share"),
    one=NETWORK,
)
def plot_channels(table: pd.DataFrame, canvas: Canvas) -> None:
    counts = rows_of(table, ["channels_to_flip", "channels_to_flip_ci_low", "channels_to_flip_ci_high"], SCORED)
    if not counts["metric"].eq("channels_to_flip").any():
        raise InputError("nothing to plot: the table holds no numbers of channels; make it with manigeo channels")
    shares = rows_of(table, ["channel_share"], SCORED)
    axes = canvas.subplots(1, 2, (1.2, 0.9), (4.2, 3.2))[0]
    _draw_counts(axes[0], counts)
    for kind in SCORED:
        draw_line(axes[1], shares[shares["kind"] == kind].sort_values("depth"), kind)
    chance = rows_of(table, ["channel_share_chance"], SCORED).drop_duplicates("layer").sort_values("depth")
    axes[1].plot(chance["depth"], chance["value"], ":", color="0.4", label="share of all channels")
    axes[1].set(ylabel="share of these channels", ylim=(0, None))
    name_layers(axes[1], shares)
    canvas.legend()


def _draw_counts(ax: Axes, counts: pd.DataFrame) -> None:
    """The mean of each kind with its interval; an arrow where some examples did not flip."""
    kinds = [kind for kind in SCORED if kind in set(counts["kind"])]
    top = 1.2 * counts["value"].max()
    for place, kind in enumerate(kinds):
        of = counts[counts["kind"] == kind].drop_duplicates("metric").set_index("metric")
        mean, low, high = (float(of.loc[f"channels_to_flip{end}", "value"]) for end in ("", "_ci_low", "_ci_high"))
        color, marker = look(kind)
        ax.errorbar(place, mean, [[mean - low], [high - mean]], color=color, marker=marker, capsize=3, linestyle="")
        if of.loc["channels_to_flip", "flag"]:
            ax.annotate("", (place, high + 0.1 * top), (place, high), arrowprops={"arrowstyle": "->", "color": color})
    ax.set_xticks(np.arange(len(kinds)), kinds)
    ax.set(xlim=(-0.5, len(kinds) - 0.5), ylim=(0, top), ylabel=metric_words("channels_to_flip").name)

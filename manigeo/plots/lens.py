"""Answers that the network's own head reads out of each block."""

import pandas as pd

from manigeo.kinds import SCORED
from manigeo.plots.canvas import Canvas
from manigeo.plots.style import NETWORK, draw_line, draws, look, name_layers, rows_of


@draws("lens", "lens_accuracy", one=NETWORK)
def plot_lens(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``lens``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "lens_accuracy", "kind": "memorized", "n": 9, "settings": "{}"}
    >>> figure = plot_lens(as_table([row | {"layer": f"block{i}", "depth": i, "value": i / 2} for i in (1, 2)]))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.5, 1.0]
    """
    rows = rows_of(table, ["lens_accuracy"], SCORED, "lens")
    whole = table[(table["metric"] == "lens_exact") & table["kind"].isin(SCORED)]
    ((ax,),) = canvas.subplots(1, 1, (1.6, 4.4), (0.6 * rows["layer"].nunique(), 0.0))
    for kind in SCORED:
        draw_line(ax, rows[rows["kind"] == kind].sort_values("depth"), kind)
        of_kind = whole[whole["kind"] == kind].sort_values("depth")
        if len(of_kind):
            ax.plot(of_kind["depth"], of_kind["value"], "--", color=look(kind)[0], linewidth=1)
    if len(whole):
        ax.plot([], "--", color="0.4", linewidth=1, label="whole suffixes")
    name_layers(ax, rows)
    ax.set(ylabel="share answered by the label", ylim=(-0.02, 1.02))
    canvas.legend()

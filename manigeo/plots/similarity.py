"""Figure of the similarity of two representations against depth."""

import pandas as pd

from manigeo.kinds import in_order
from manigeo.plots.canvas import Canvas, entitle
from manigeo.plots.style import by_checkpoint, draw_line, draws, name_layers, rows_of, setting, title_of
from manigeo.vocabulary import metric_words

SIMILARITY_PANELS = ("cka", "procrustes_angle")
_NORMAL_95 = 1.96


@draws("similarity", *SIMILARITY_PANELS, panels=SIMILARITY_PANELS)
def plot_similarity(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``similarity``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "cka", "kind": "test", "n": 9, "checkpoint": "best", "settings": '{"against_checkpoint": "last"}'}
    >>> plot_similarity(as_table([row | {"layer": "a", "depth": 0, "value": 0.6}])).axes[0].get_title()
    'best and last'
    """
    part = rows_of(table, canvas.panels)
    panels = [metric for metric in canvas.panels if metric in set(part["metric"])]
    pairs = {
        " and ".join(filter(None, [title, _other(settings)])): rows
        for title, of_checkpoint in by_checkpoint(part).items()
        for settings, rows in of_checkpoint.groupby("settings", sort=False)
    }
    axes = canvas.subplots(len(panels), len(pairs), (1.2, 0.9), (4.2, 2.6), sharex="col", sharey="row")
    for (title, rows), column in zip(pairs.items(), axes.T, strict=True):
        for metric, ax in zip(panels, column, strict=True):
            for kind in in_order(rows["kind"]):
                line = rows[(rows["metric"] == metric) & (rows["kind"] == kind)]
                draw_line(ax, line.sort_values("depth"), kind, errors=_NORMAL_95)
            name_layers(ax, rows)
            ax.set_ylabel(metric_words(metric).label)
        entitle(column[0], title)
    canvas.legend()


def _other(settings: str) -> str:
    """The title of what a row is compared with."""
    epoch = setting(settings, "against_epoch")
    return title_of(
        float("nan") if epoch is None else float(str(epoch)), str(setting(settings, "against_checkpoint") or "")
    )

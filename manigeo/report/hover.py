"""Texts of the points of a figure: the row of the table whose value was drawn there.

Figures are matplotlib's, of any function that draws tables. A point's height is a number of the table, to the last bit, so
the row is found by its value; of several rows with one value, label, titles and the other axis tell which.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from manigeo.report.svg import ANNOTATION, CELLS
from manigeo.text.cells import measured, number
from manigeo.vocabulary import flags_words, metric_words

Row = dict[str, Any]
# what an axis shows -> the column with its numbers
_ALONG = {"layer": "depth", "$k$": "depth", "epoch": "epoch", "examples $n$": "n"}
COLOR_BAR = "<colorbar>"  # matplotlib's name for its axes
_TOLD = ("kind", "layer", "checkpoint", "run", "metric")


def name_points(figure: Figure, table: pd.DataFrame) -> dict[str, list[str]]:
    """Give every line, bar and heat map of the figure an id, and return what its points stand for, a text each.

    ``table``: the rows that were drawn.
    """
    texts: dict[str, list[str]] = {}
    panels = [ax for ax in figure.axes if ax.get_label() != COLOR_BAR]
    rows = _by_value(table[table["value"].isin(_heights(panels))])
    for i, ax in enumerate(panels):
        for j, line in enumerate(_marked(ax)):
            line.set_gid(f"points-{i}-{j}")
            texts[f"points-{i}-{j}"] = [_point(rows, ax, str(line.get_label()), x, y) for x, y in _drawn(line)]
        for j, mesh in enumerate(artist for artist in ax.collections if isinstance(artist, QuadMesh)):
            mesh.set_gid(f"{CELLS}{i}-{j}")
            texts[f"{CELLS}{i}-{j}"] = _cells(ax, mesh)
            for k, text in enumerate(ax.texts):
                text.set_gid(f"{ANNOTATION}{i}-{k}")
        for j, bar in enumerate(_bars(ax)):
            bar.set_gid(f"bar-{i}-{j}")
            texts[f"bar-{i}-{j}"] = [_point(rows, ax, str(bar.get_label()), *_top(bar))]
    return texts


def _heights(panels: Sequence[Axes]) -> list[float]:
    """The numbers that are drawn: the rows of a large table are looked at for these alone."""
    of_lines = [y for ax in panels for line in _marked(ax) for _, y in _drawn(line)]
    return of_lines + [_top(bar)[1] for ax in panels for bar in _bars(ax)]


def _bars(ax: Axes) -> list[Rectangle]:
    return [bar for bars in ax.containers if isinstance(bars, BarContainer) for bar in bars]


def _marked(ax: Axes) -> list[Line2D]:
    return [line for line in ax.get_lines() if line.get_marker() not in ("None", "none", "", " ", None)]


def _drawn(line: Line2D) -> list[tuple[float, float]]:
    """Points with a marker: those that are finite on the scales of their axes."""
    data = np.asarray(line.get_xydata(), dtype=float)
    placed = line.get_transform().transform(data)
    return [(float(x), float(y)) for x, y in data[np.isfinite(placed).all(axis=1)]]


def _by_value(table: pd.DataFrame) -> dict[float, list[Row]]:
    rows: dict[float, list[Row]] = {}
    for row in table.drop(columns="settings").to_dict("records"):
        rows.setdefault(float(row["value"]), []).append(row)
    return rows


def _top(bar: Rectangle) -> tuple[float, float]:
    return float(bar.get_x() + bar.get_width() / 2), float(bar.get_height())


def _point(rows: dict[float, list[Row]], ax: Axes, label: str, x: float, y: float) -> str:
    candidates: Sequence[Row] = rows.get(y, [])
    for column in _TOLD:
        candidates = _narrowed(candidates, column, _hints(ax, label))
    candidates = _narrowed(candidates, _ALONG.get(_label(ax), ""), {x})
    return _of_row(candidates) or _of_axes(ax, label, x, y)


def _narrowed(candidates: Sequence[Row], column: str, wanted: set[Any]) -> Sequence[Row]:
    """Keep the candidates that have what is wanted; all, where none has."""
    return [row for row in candidates if row.get(column) in wanted] or candidates


def _hints(ax: Axes, label: str) -> set[str]:
    titles = [ax.get_title(), ax.get_title(loc="left")]
    words = [label, *titles, *(part for title in titles for part in (*title.split(" ("), *title.split(": ")))]
    return {plain(word) for word in words if word}


def _of_row(candidates: Sequence[Row]) -> str:
    """Describe what the candidates have in common, if that determines layer and measure."""
    shared = {name: value for name, value in candidates[0].items() if _same(candidates, name)} if candidates else {}
    if "metric" not in shared or not shared.get("layer"):
        return ""
    place = " · ".join(plain(shared[name]) for name in ("layer", "kind", "checkpoint") if shared.get(name))
    value = " ".join(filter(None, measured(shared["value"], shared.get("stderr", np.nan))))
    flag = f" ({flags_words(shared['flag'])})" if shared.get("flag") else ""
    return f"{place}\n{metric_words(shared['metric']).name} {value}{flag}"


def _same(candidates: Sequence[Row], name: str) -> bool:
    first = candidates[0][name]
    return all(row[name] == first or (row[name] != row[name] and first != first) for row in candidates)


def _of_axes(ax: Axes, label: str, x: float, y: float) -> str:
    series = "" if label.startswith("_") else f"{plain(label)}\n"
    return f"{series}{plain(_label(ax)) or 'x'} {_tick(ax, x)}: {number(y)}"


def _label(ax: Axes) -> str:
    """Label of the x axis, from the panel that shows it."""
    panels = [ax, *ax.get_shared_x_axes().get_siblings(ax)]
    return next((panel.get_xlabel() for panel in panels if panel.get_xlabel()), "")


def _tick(ax: Axes, x: float) -> str:
    """The word at this place of the axis, or the number."""
    words = {at: tick.get_text() for at, tick in zip(ax.get_xticks(), ax.get_xticklabels(), strict=False)}
    return plain(words.get(x, "")) or number(x)


def _cells(ax: Axes, mesh: QuadMesh) -> list[str]:
    values: np.ndarray = np.ma.filled(np.ma.asarray(mesh.get_array(), dtype=float), np.nan)
    n_rows, n_columns = values.shape if values.ndim == 2 else (1, values.size)
    across = _words([panel.xaxis for panel in (ax, *ax.get_shared_x_axes().get_siblings(ax))], n_columns)
    down = _words([panel.yaxis for panel in (ax, *ax.get_shared_y_axes().get_siblings(ax))], n_rows)
    title = f" · {plain(ax.get_title())}" if ax.get_title() else ""
    return [
        f"{down[i]}{title}\n{across[j]}: {number(value)}"
        for (i, j), value in np.ndenumerate(values.reshape(n_rows, n_columns))
    ]


def _words(axes: Sequence[Axis], n: int) -> list[str]:
    """Words of the ticks in the middle of each row or column, on the axis that shows them, or numbers."""
    words = {
        float(tick): label.get_text()
        for axis in axes
        for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
        if label.get_text()
    }
    return [plain(words.get(i + 0.5, "")) or str(i + 1) for i in range(n)]


def plain(text: object) -> str:
    """Remove the backslashes that keep a figure from taking a dollar sign for mathematics."""
    return str(text).replace(r"\$", "$")

"""A report with figures and tables of a user's own beside those of the results."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from manigeo.errors import UsageError
from manigeo.report.sources import collect_sources


@dataclass(frozen=True)
class Addition:
    """A figure (``svg`` or ``image``, with its ``width`` in pixels) or a table (``headings`` and ``rows`` of text)."""

    title: str
    caption: str
    svg: Markup | None = None
    image: str = ""
    width: int = 0
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


class Report:
    """Report on runs, results tables, or folders that hold them, to which figures and tables can be added.

    ``sources`` are what ``manigeo report`` takes. Additions stand in the order in which they were made, after the figures
    of the results; their titles, captions and cells are text, never markup.

    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> from manigeo.results import as_table, write_results
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_results(as_table([{"layer": "h1", "metric": "capacity", "value": 0.2}]), folder / "a.csv")
    >>> figure = Figure()
    >>> _ = figure.subplots().plot([1, 2], [3, 4])
    >>> report = Report(folder).add_figure(figure, "Loss", "Of the last run.")
    >>> report.add_table(pd.DataFrame({"layer": ["h1"], "mine": [0.5]}), "My measure").save(folder / "page.html").name
    'page.html'

    Raises :class:`~manigeo.errors.InputError` as :func:`~manigeo.report.sources.collect_sources` does.
    """

    def __init__(self, *sources: str | os.PathLike[str], title: str = "") -> None:
        self._sources = collect_sources([Path(source) for source in sources])
        self._title = title
        self._additions: list[Addition] = []

    def add_figure(self, figure: Any, title: str, caption: str = "") -> "Report":
        """Add a figure of matplotlib, or the one that an axes or a grid of seaborn is of; it is drawn now.

        Raises :class:`~manigeo.errors.UsageError` for anything else.
        """
        from manigeo.report.figures import drawn_figure  # seaborn is slow to import

        found = figure if isinstance(figure, Figure) else getattr(figure, "figure", None)
        if not isinstance(found, Figure):
            raise UsageError(f"expected a figure or axes of matplotlib, got a {type(figure).__name__}")
        svg, image, width = drawn_figure(found, f"own-{len(self._additions)}", title)
        self._additions.append(Addition(title, caption, svg, image, width))
        return self

    def add_table(self, table: Any, title: str, caption: str = "") -> "Report":
        """Add a table: its index, where that is more than a count of the rows, and its columns; numbers to four digits.

        Raises :class:`~manigeo.errors.UsageError` for what is no DataFrame.
        """
        if not isinstance(table, pd.DataFrame):
            raise UsageError(f"expected a DataFrame, got a {type(table).__name__}: pandas.DataFrame(...) makes one")
        whole = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
        rows = tuple(tuple(map(_cell, row)) for row in whole.itertuples(index=False))
        self._additions.append(Addition(title, caption, headings=tuple(map(_heading, whole.columns)), rows=rows))
        return self

    @property
    def left_out(self) -> Sequence[str]:
        """Sources that could not be used, and why."""
        return self._sources.left_out

    def html(self) -> str:
        """The page as one text."""
        from manigeo.report.page import render_page

        return render_page(self._sources, self._title, self._additions)

    def save(self, path: str | os.PathLike[str], force: bool = False) -> Path:
        """Write the page; raises as :func:`~manigeo.report.page.write_page` does."""
        from manigeo.report.page import write_page

        write_page(self.html(), path, force)
        return Path(path)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _heading(name: object) -> str:
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)

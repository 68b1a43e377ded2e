"""Cells of CSV files that a spreadsheet takes for text, whatever they begin with.

What begins with ``=``, ``+``, ``-``, ``@``, a tab or a return is a formula to a spreadsheet, and a formula may run programs.
Such a text gets an apostrophe in front, as one would type it, and so does one that begins with apostrophes before these: so
:func:`as_named` gives back every text as it was.
"""

import csv
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_WRITTEN = re.compile(r"'+[=+\-@\t\r]")


def as_cell(text: str) -> str:
    """A text as it stands in a cell.

    >>> as_cell("=1+1"), as_cell("conv-1"), as_cell("'=1")
    ("'=1+1", 'conv-1', "''=1")
    """
    return f"'{text}" if _FORMULA.match(text) else text


def as_named(cell: str) -> str:
    """The text that stands in a cell, also in one that was written as it is.

    >>> as_named("'=1+1"), as_named("=1+1"), as_named("'tis")
    ('=1+1', '=1+1', "'tis")
    """
    return cell[1:] if _WRITTEN.match(cell) else cell


def as_cells(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table to be written: texts as cells, headings too, and numbers as they are."""
    return _changed(table, as_cell)


def write_cells(table: "pd.DataFrame", path: str | os.PathLike[str] | None = None) -> str | None:
    """Write the table as CSV, its texts as cells; return the text where there is no ``path``."""
    cells = as_cells(table)
    returns = any("\r" in cell for name in _texts(cells) for cell in _different(cells[name]))
    # a return by itself ends a line for those who read, and is quoted by none who write but those who quote every text
    return cells.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL)


def as_names(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table that was read: cells as the texts that they were."""
    return _changed(table, as_named)


def _changed(table: "pd.DataFrame", change: Callable[[str], str]) -> "pd.DataFrame":
    def changed(column: "pd.Series") -> "pd.Series":
        new = {text: cell for text in _different(column) if (cell := change(text)) != text}
        return column.map(lambda value: new.get(value, value) if isinstance(value, str) else value) if new else column

    headings = {name: change(name) for name in table.columns if isinstance(name, str)}
    return table.assign(**{name: changed(table[name]) for name in _texts(table)}).rename(columns=headings)


def _different(column: "pd.Series") -> set[str]:
    """The texts of a column, each once: a table of 100,000 rows has few, and what is done to each is slow."""
    return {value for value in column.to_numpy(object) if isinstance(value, str)}


def _texts(table: "pd.DataFrame") -> list[str]:
    return [name for name in table.columns if getattr(table[name].dtype, "kind", "O") not in "biufcmM"]

"""The tidy results table: one row, one number, with everything needed to place it.

Every analysis writes these columns, so that tables concatenate, join and plot without code. ``manifold`` is empty for the
aggregate over manifolds; ``flag`` names why a value is NaN, or what an aggregate leaves out; ``settings`` is JSON; ``n``
is how many things were averaged (manifolds for an aggregate, draws for one manifold).
"""

import glob
import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from manigeo.errors import InputError, UsageError, one_line
from manigeo.manifolds import KINDS
from manigeo.storage.files import check_target, whole_file

COLUMNS = (
    "run",
    "checkpoint",
    "epoch",
    "layer",
    "depth",
    "kind",
    "manifold",
    "metric",
    "value",
    "stderr",
    "n",
    "flag",
    "settings",
    "fingerprint",
)
_TEXT = ("run", "checkpoint", "layer", "kind", "manifold", "metric", "flag", "settings", "fingerprint")
_NUMERIC = tuple(column for column in COLUMNS if column not in _TEXT)


def as_json(table: pd.DataFrame) -> str:
    """The rows as a JSON array, numbers with all their digits, what is missing as null."""
    return json.dumps(table.astype(object).where(table.notna(), None).to_dict("records"), indent=1)


_WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".json": lambda table, path: path.write_text(as_json(table)),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}
_READERS: dict[str, Callable[[str], pd.DataFrame]] = {
    # only an empty number is missing: a class may be called "NA"
    ".csv": lambda path: pd.read_csv(
        path,
        dtype=dict.fromkeys(_TEXT, str),
        keep_default_na=False,
        na_values={column: [""] for column in _NUMERIC},
    ),
    ".json": lambda path: pd.DataFrame(json.loads(Path(path).read_text())),
    ".parquet": lambda path: pd.read_parquet(path),
}


def as_table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Rows as a results table: all columns, in order, text columns empty where nothing was said."""
    return _typed(pd.DataFrame(rows).reindex(columns=list(COLUMNS)))


def join_results(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other, ordered by depth and kind; the rows of one layer and kind keep their order."""
    table = pd.concat(tables, ignore_index=True)
    rank = {"depth": lambda column: column, "kind": lambda column: column.map(dict(zip(KINDS, range(4), strict=True)))}
    return table.sort_values(["depth", "kind"], key=lambda c: rank[c.name](c), kind="stable", ignore_index=True)


class Part(NamedTuple):
    """A piece of a table that is computed in pieces, which are finished in any order: its place, and its rows."""

    number: int
    table: pd.DataFrame


def in_order(parts: Iterable[Part]) -> list[pd.DataFrame]:
    """The rows of each piece, by their places."""
    return [part.table for part in sorted(parts, key=lambda part: part.number)]


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    for column in COLUMNS:
        if column in _TEXT:
            table[column] = table[column].astype(object).where(table[column].notna(), "").astype(str)
        else:
            table[column] = pd.to_numeric(table[column])
    return table


def with_settings(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with these settings of its rows as columns; None where a row has no such setting.

    >>> table = as_table([{"metric": "accuracy", "value": 0.5, "settings": '{"k": 2}'}])
    >>> with_settings(table, "k")["k"].tolist()
    [2]
    """
    parsed = {text: row_settings(text) for text in table["settings"].unique()}
    columns = {name: [parsed[text].get(name) for text in table["settings"]] for name in names}
    return table.assign(**{name: pd.Series(values, table.index, dtype=object) for name, values in columns.items()})


def row_settings(settings: str) -> dict[str, Any]:
    """The settings of a row; none for a table of another program."""
    try:
        found = json.loads(settings)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_results_path(path: str | os.PathLike[str], force: bool = False) -> Path:
    """The path, if a table can be written there; asked before the work begins.

    Raises :class:`~manigeo.errors.UsageError` as :func:`~manigeo.storage.files.check_target` does, and for Parquet
    without pyarrow.
    """
    path = check_target(path, force=force, suffixes=tuple(_WRITERS), what="results")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow: pip install 'manigeo[parquet]', or write .csv")
    return path


def write_results(table: pd.DataFrame, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write a results table as CSV, JSON or Parquet, by suffix; the file appears when it is whole."""
    path = check_results_path(path, force)
    with whole_file(path) as partial:
        _WRITERS[path.suffix](table, partial)


def read_results(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """The results tables at ``paths`` (file names or globs), one below the other.

    Raises :class:`~manigeo.errors.InputError` where nothing matches or a file is no results table.
    """
    patterns = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [name for pattern in patterns for name in sorted(glob.glob(os.fspath(pattern))) or [os.fspath(pattern)]]
    if not files:
        raise InputError("no results were named")
    return pd.concat([_read_one(name) for name in files], ignore_index=True)


def _read_one(name: str) -> pd.DataFrame:
    reader = _READERS.get(Path(name).suffix)
    if reader is None:
        raise InputError(f"{name}: results are {', '.join(_READERS)} files")
    try:
        table = reader(name)
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist; write it with manigeo capacity") from error
    except ImportError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{name} cannot be read as a results table: {one_line(error)}") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"{name} is not a results table: it has no column {', '.join(missing)}")
    try:
        return _checked(_typed(table[list(COLUMNS)]))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name} is not a results table: {one_line(error)}") from error


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """A table that can be written as it was read: its numbers are numbers, and its texts are text."""
    for column in _NUMERIC:
        if table[column].dtype.kind not in "iuf":
            raise ValueError(f"column {column} holds {table[column].dtype}, expected numbers")
    for column in _TEXT:
        for text in table[column].unique():
            text.encode()
    for text in table["settings"].unique():
        try:
            row_settings(text)
        except RecursionError as error:
            raise ValueError("settings are lists in lists without end") from error
    return table

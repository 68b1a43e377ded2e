"""The tidy results table: one row, one number, with everything needed to place it.

Every analysis writes these columns, so that tables concatenate, join and plot without code. ``manifold`` is empty for the
aggregate over manifolds; ``flag`` names why a value is NaN, or what an aggregate leaves out; ``settings`` is JSON; ``n``
is how many things were averaged (manifolds for an aggregate, draws for one manifold).

What a number is of is known by content: ``fingerprint`` is that of its activations, or the SHA-256 of its checkpoint. Where
they are known, the settings name the run (``run_id``) and the checkpoint that the activations are of
(``checkpoint_sha256``), :data:`IDENTITY`; these set nothing, so that :func:`bare_settings` leaves them out.
"""

import csv
import glob
import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from manigeo.errors import InputError, UsageError, check_choice, one_line, shorten
from manigeo.kinds import MEMORIZED, PLACES, ROLES, memorized_kind
from manigeo.storage.files import check_target, whole_file
from manigeo.storage.recognition import RESULTS, mistaken
from manigeo.storage.spreadsheets import as_names, write_cells
from manigeo.vocabulary import METRICS

COLUMNS = (
    "run", "checkpoint", "epoch", "layer", "depth", "kind", "manifold", "metric", "value", "stderr", "n", "flag", "settings",
    "fingerprint",
)  # fmt: skip
IDENTITY = ("run_id", "checkpoint_sha256")
_APART = ("run", "checkpoint", "epoch", "fingerprint")  # columns that tell activations apart
_TEXT = ("run", "checkpoint", "layer", "kind", "manifold", "metric", "flag", "settings", "fingerprint")
_NUMERIC = tuple(column for column in COLUMNS if column not in _TEXT)


def as_json(table: pd.DataFrame) -> str:
    """The rows as a JSON array, numbers with all their digits, what is missing as null."""
    return json.dumps(table.astype(object).where(table.notna(), None).to_dict("records"), indent=1)


_WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda table, path: write_cells(table, path),
    ".json": lambda table, path: path.write_text(as_json(table)),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


def in_roles(table: pd.DataFrame) -> pd.DataFrame:
    """The table with memorized and typical examples called permuted and unpermuted, whose role they have where no labels
    were permuted: memorization alone answers the ones, and the others are learned without.

    >>> in_roles(pd.DataFrame({"kind": ["memorized", "typical", "test"]}))["kind"].tolist()
    ['permuted', 'unpermuted', 'test']
    """
    if memorized_kind(set(table["kind"])) != MEMORIZED:
        return table
    return table.assign(kind=table["kind"].map(lambda kind: ROLES.get(kind, kind)))


class _DamagedError(ValueError):
    """A table that is not as it was written, with the line."""


def _read_csv(path: str) -> pd.DataFrame:
    _check_lines(path)
    # only an empty number is missing: a class may be called "NA"
    empty = {column: [""] for column in _NUMERIC}
    return as_names(pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=empty))


def _check_lines(path: str) -> None:
    """Check for the first line that is cut short, too long, has text in place of a number, or settings cut apart."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        if not set(COLUMNS) <= set(header):
            return  # which is said of the table as a whole
        numeric = [place for place, name in enumerate(header) if name in _NUMERIC]
        settings, seen = header.index("settings"), set()
        for line in filter(None, lines):
            if len(line) != len(header):
                raise _DamagedError(f"line {lines.line_num} has {len(line)} fields, expected {len(header)}")
            try:
                for place in numeric:
                    float(line[place] or "nan")
            except ValueError:
                found = shorten(repr(line[place]), 40)
                raise _DamagedError(f"line {lines.line_num}: {header[place]} is {found}, expected a number") from None
            if line[settings] not in seen:
                _check_settings(line[settings], f"line {lines.line_num}: settings")
                seen.add(line[settings])


def _check_settings(text: str, what: str) -> None:
    """Refuse settings that begin as a JSON object and do not end as one; another program's may be any other text."""
    if text.startswith("{"):
        try:
            json.loads(text)
        except ValueError as error:
            raise _DamagedError(f"{what} are no JSON: {one_line(error)}") from None
        except RecursionError:
            pass  # said of the table as a whole


def _read_json(path: str) -> pd.DataFrame:
    records = json.loads(Path(path).read_text())
    for number, record in enumerate(records, 1):
        if missing := [column for column in COLUMNS if column not in record]:
            raise _DamagedError(f"record {number} has no {', '.join(missing)}")
    return pd.DataFrame(records, columns=None if records else list(COLUMNS))


_READERS: dict[str, Callable[[str], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".parquet": lambda path: pd.read_parquet(path),
}


def as_table(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Rows as a results table: all columns, in order, text columns empty where nothing was given; what a row knows of
    :data:`IDENTITY` goes into its settings.

    >>> as_table([{"metric": "capacity", "value": 0.2, "settings": '{"seed": 0}', "run_id": "3f"}])["settings"].item()
    '{"run_id": "3f", "seed": 0}'
    """
    said = [_said(row) for row in rows]
    texts = {key: _identified(*key) for key in set(said)}
    settings = [texts[key] for key in said]
    return _typed(pd.DataFrame(rows).reindex(columns=list(COLUMNS)).assign(settings=settings))


def _said(row: Mapping[str, object]) -> tuple[object, ...]:
    return (row.get("settings"), *(row.get(name) or None for name in IDENTITY))


def _identified(settings: object, *identity: object) -> object:
    known = {name: value for name, value in zip(IDENTITY, identity, strict=True) if value}
    return json.dumps(json.loads(str(settings or "{}")) | known, sort_keys=True) if known else settings


@cache
def bare_settings(text: str) -> str:
    """Settings that determine the numbers of a row, without its identity; those of another program unchanged.

    >>> bare_settings('{"run_id": "3f", "seed": 0}')
    '{"seed": 0}'
    """
    found = row_settings(text)
    if not set(IDENTITY) & set(found):
        return text
    return json.dumps({name: value for name, value in found.items() if name not in IDENTITY}, sort_keys=True)


def join_results(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other, ordered by depth and kind; the rows of one layer and kind keep their order."""
    table = pd.concat(tables, ignore_index=True)

    def place(column: pd.Series) -> pd.Series:
        return column.map(PLACES) if column.name == "kind" else column

    return table.sort_values(["depth", "kind"], key=place, kind="stable", ignore_index=True)


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
    settings = table["settings"].tolist()  # ten times as fast to go through as the column
    columns = {name: [parsed[text].get(name) for text in settings] for name in names}
    return table.assign(**{name: pd.Series(values, table.index, dtype=object) for name, values in columns.items()})


def row_settings(settings: str) -> dict[str, Any]:
    """The settings of a row; none for a table of another program."""
    try:
        found = json.loads(settings)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_results_path(
    path: str | os.PathLike[str],
    force: bool = False,
    suffixes: Sequence[str] = tuple(_WRITERS),
    option: str = "--out",
) -> Path:
    """The path that ``option`` names, if a table can be written there as one of ``suffixes``; asked before the work begins.

    Raises :class:`~manigeo.errors.UsageError` as :func:`~manigeo.storage.files.check_target` does, and for Parquet
    without pyarrow.
    """
    path = check_target(path, force=force, suffixes=suffixes, what="results", option=option)
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow: pip install 'manigeo[parquet]', or write .csv")
    return path


def write_results(table: pd.DataFrame, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write a results table as CSV, JSON or Parquet, by suffix; the file appears when it is whole.

    Raises :class:`~manigeo.errors.UsageError` for another suffix, Parquet without pyarrow, and a file that exists, unless
    ``force`` replaces it.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "results.json"
    >>> write_results(as_table([{"layer": "h1", "metric": "capacity", "value": 0.2}]), path)
    >>> read_results(path)[["layer", "metric", "value"]].values.tolist()
    [['h1', 'capacity', 0.2]]
    """
    path = check_results_path(path, force)
    with whole_file(path) as partial:
        _WRITERS[path.suffix](table, partial)


def read_results(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """Read the results tables at ``paths`` (file names, or globs where there is no file of that name), one below the other.

    Returns a table with the columns :data:`COLUMNS`, one row per number. Where several runs bear one name, ``run`` is that
    name with the beginning of each run's identity: ``run@3f2a91``.

    Raises :class:`~manigeo.errors.InputError` where nothing matches or a file is not a results table, with the line that is
    damaged or cut short.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for run in ("a", "b"):
    ...     write_results(as_table([{"run": run, "metric": "capacity", "value": 0.2}]), folder / f"{run}.csv")
    >>> read_results(folder / "*.csv")["run"].tolist()
    ['a', 'b']
    """
    patterns = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [name for pattern in patterns for name in named_files(pattern)]
    if not files:
        raise InputError("no results were named")
    return runs_apart(pd.concat([_read_one(name) for name in files], ignore_index=True))


def named_files(pattern: str | os.PathLike[str]) -> list[str]:
    """The file of this name, else those that match it as a glob, else the name, for a message about it."""
    name = os.fspath(pattern)
    return [name] if os.path.exists(name) else sorted(glob.glob(name)) or [name]


def identities(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ``run_id`` and ``checkpoint_sha256`` as columns; rows that do not name theirs have those of other rows
    with their fingerprint, and None where there are none."""
    full = with_settings(table, *IDENTITY)
    for name in IDENTITY:
        known = full[full[name].notna() & full["fingerprint"].ne("")].drop_duplicates("fingerprint")
        full[name] = full[name].where(full[name].notna(), full["fingerprint"].map(known.set_index("fingerprint")[name]))
        full[name] = full[name].astype(object).where(full[name].notna(), None)
    return full


def check_table(table: object) -> None:
    """Raise :class:`~manigeo.errors.UsageError` for what is no results table, with what makes one."""
    if not isinstance(table, pd.DataFrame):
        got = f"the path {table!r}" if isinstance(table, str | os.PathLike) else type(table).__name__
    elif missing := [column for column in COLUMNS if column not in table.columns]:
        got = f"one without the column{'s' * (len(missing) > 1)} {shorten(', '.join(missing), 60)}"
    else:
        return
    raise UsageError(
        f"expected a results table, got {got}; manigeo.capacity_table makes one of activations, and manigeo.read_results "
        "reads one"
    )


def summary(table: pd.DataFrame, metrics: Sequence[str] | None = None, what: str = "value") -> pd.DataFrame:
    """A results table as one reads it: one line per layer, by depth; one column per metric and kind.

    Where there are several runs or checkpoints, or numbers that differ by a setting, columns have a level for it as well.
    ``metrics`` default to the main ones of each command that the table is of, those that it prints; ``what`` is
    ``"value"``, or ``"stderr"`` or ``"n"`` for the standard errors, or how many things were averaged. Numbers of single
    classes are left out.

    Raises :class:`~manigeo.errors.UsageError` for a metric that the table does not have, and
    :class:`~manigeo.errors.InputError` where it has two values of one number, or none.

    >>> rows = [{"layer": x, "depth": i, "kind": "test", "metric": m, "value": i + 0.5}
    ...         for i, x in enumerate(["fc1", "conv2"]) for m in ("capacity", "radius", "residual")]
    >>> wide = summary(as_table(rows))
    >>> list(wide.columns), wide["capacity"]["test"].to_dict()
    ([('capacity', 'test'), ('radius', 'test')], {'fc1': 0.5, 'conv2': 1.5})
    """
    check_choice("what", what, ("value", "stderr", "n"))
    check_table(table)
    rows = table[(table["manifold"] == "") & (table["layer"] != "")].drop_duplicates()
    present = list(dict.fromkeys(rows["metric"]))
    for name in metrics or ():
        check_choice("metrics", name, present)
    main = list(
        metrics or [name for name in METRICS if name in present and METRICS[name].digits is not None] or present
    )
    rows = rows[rows["metric"].isin(main)]
    if rows.empty:
        raise InputError("the table holds no numbers of layers over all classes; make it with manigeo capacity")
    levels = ["metric", "kind", *_told_apart_by(rows)]
    rows, by_setting = _settings_apart(rows, ["layer", *levels])
    wide = rows.pivot(index="layer", columns=[*levels, *by_setting], values=what)
    layers = rows.sort_values("depth", kind="stable")["layer"].unique()
    places = {name: place for place, name in enumerate(main)}
    order = sorted(wide.columns, key=lambda key: (places[key[0]], PLACES.get(key[1], len(PLACES))))
    return wide.reindex(
        index=pd.Index(layers, name="layer"), columns=pd.MultiIndex.from_tuples(order, names=wide.columns.names)
    )


def _told_apart_by(rows: pd.DataFrame) -> list[str]:
    """As few columns as tell all activations of the rows apart."""
    names: list[str] = []
    for name in _APART:
        if len(rows[[*names, name]].drop_duplicates()) > (len(rows[names].drop_duplicates()) if names else 1):
            names.append(name)
    return names


def _settings_apart(rows: pd.DataFrame, place: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Rows with those of their settings as columns by which numbers of one place differ, and the names of these settings."""
    twice = rows[rows.duplicated(place, keep=False)]
    settings = [row_settings(text) for text in twice["settings"]]
    differ = sorted(
        name
        for name in {name for known in settings for name in known} - set(IDENTITY)
        if twice.assign(is_=[str(known.get(name, "")) for known in settings]).groupby(place)["is_"].nunique().max() > 1
    )
    full = with_settings(rows, *differ)
    for name in differ:
        full[name] = full[name].map(lambda value: "" if value is None else value)
    if full.duplicated([*place, *differ]).any():
        first = full[full.duplicated([*place, *differ])].iloc[0]
        raise InputError(f"the table holds two values of {first['metric']} of {first['kind']} at {first['layer']} that "
                         "nothing tells apart; summarize the tables one by one")  # fmt: skip
    return full, differ


def runs_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The table, in which two runs of one name stay two."""
    if table["run"].nunique() == 0:
        return table
    full = identities(table)
    several = full.groupby("run")["run_id"].transform("nunique") > 1
    apart = several & full["run_id"].notna()
    return table.assign(run=table["run"].where(~apart, table["run"] + "@" + full["run_id"].fillna("").str[:6]))


def _read_one(name: str) -> pd.DataFrame:
    reader = _READERS.get(Path(name).suffix)
    if reader is None:
        raise InputError(
            mistaken(name, RESULTS) if os.path.exists(name) else f"{name}: results are {', '.join(_READERS)} files"
        )
    if os.path.isfile(name) and not os.path.getsize(name):
        raise InputError(f"{name} is an empty file, expected {RESULTS}; write it again")
    try:
        table = reader(name)
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist; write it with manigeo capacity") from error
    except ImportError:
        raise
    except _DamagedError as error:
        raise InputError(f"{name} is not a results table as it was written: {error}; write it again") from error
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{name} cannot be read as a results table: {one_line(error)}") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(
            f"{name} is not a results table: it has no column {', '.join(missing)}; expected what manigeo capacity writes"
        )
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

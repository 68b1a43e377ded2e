"""The aggregate numbers as tables to read: one a measure, a row a layer (and whatever else sets its numbers apart), a column
a kind."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from manigeo.kinds import in_order
from manigeo.results import IDENTITY, row_settings
from manigeo.text.cells import NOTHING, measured, number
from manigeo.vocabulary import analysis_words, flags_words, metric_words

MOST_ROWS = 250  # of one measure; of all of them together:
MOST_IN_ALL = 6000
_LOW, _HIGH = "_ci_low", "_ci_high"
_FIXED = ("layer", "run", "checkpoint", "epoch")
_TIE = ("n", "fingerprint")  # what tells rows apart that are alike in all else
_SET = "set "  # before the name of a setting that has become a column
_Numbers = dict[tuple[int, str, str], list[Any]]  # (line, kind, metric) -> value, error, flag


@dataclass(frozen=True)
class Cell:
    """Cell of a table: its text, the key that sorts it, the error beside it, and the number of its flag (0: none)."""

    text: str
    sort: str
    error: str = ""
    flag: int = 0


@dataclass(frozen=True)
class MetricTable:
    """A measure: ``n_rows`` are there, ``rows`` are shown; ``flags`` in words, by number."""

    title: str
    headings: tuple[str, ...]
    n_names: int
    rows: tuple[tuple[Cell, ...], ...]
    n_rows: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """The tables of one analysis; ``not_shown`` are measures beyond what a page can hold."""

    title: str
    tables: tuple[MetricTable, ...]
    not_shown: tuple[str, ...]


def metric_tables(aggregates: pd.DataFrame) -> list[Analysis]:
    """Tables of rows over manifolds, by analysis and measure; ends of intervals stand beside their value."""
    rows, varying = _expanded(aggregates)
    analyses, left = [], MOST_IN_ALL
    for analysis, part in rows.groupby("analysis", sort=False):
        tables: list[MetricTable] = []
        not_shown: list[MetricTable] = []
        for metric, of_metric in part.groupby("base", sort=False):
            table = _metric_table(str(metric), of_metric, varying, min(MOST_ROWS, left))
            left -= len(table.rows)
            (tables if table.rows else not_shown).append(table)
        analyses.append(
            Analysis(analysis_words(str(analysis)), tuple(tables), tuple(table.title for table in not_shown))
        )
    return analyses


def _expanded(aggregates: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Add columns: the analysis, the settings as text, and the measure without the ending of an interval."""
    settings = {text: settings_of(text) for text in aggregates["settings"].unique()}
    names = list(dict.fromkeys(name for of_text in settings.values() for name in of_text if name != "analysis"))
    of_rows = [settings[text] for text in aggregates["settings"].tolist()]
    columns = {_SET + name: [of_row.get(name, "") for of_row in of_rows] for name in names}
    analysis = [of_row.get("analysis", "") for of_row in of_rows]
    base = aggregates["metric"].str.removesuffix(_LOW).str.removesuffix(_HIGH)
    return aggregates.assign(analysis=analysis, base=base, **columns), list(columns)


def settings_of(text: str) -> dict[str, str]:
    """Settings of a row, each as text, without its identity; of another program's, the whole.

    >>> settings_of('{"analysis": "rewind", "k": 2, "to": null}'), settings_of("M=20")
    ({'analysis': 'rewind', 'k': '2', 'to': ''}, {'settings': 'M=20'})
    """
    found = row_settings(text)
    if not found and text not in ("", "{}"):
        return {"settings": text}
    return {str(k): _plain(v) for k, v in found.items() if k not in IDENTITY}


def _plain(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _metric_table(metric: str, part: pd.DataFrame, settings: Sequence[str], most: int) -> MetricTable:
    names = _telling(part, settings)
    part = part.assign(line=part.groupby(names, sort=False, dropna=False).ngroup())
    flags = list(dict.fromkeys(part.loc[part["flag"] != "", "flag"]))
    seen = part[["line", "kind", "metric", "value", "stderr", "flag"]]
    numbers: _Numbers = {(line, kind, name): rest for line, kind, name, *rest in seen.itertuples(index=False)}
    kinds = in_order(part["kind"])
    lines = part.drop_duplicates("line")
    rows = tuple(
        (
            *(_name_cell(name, line) for name in names),
            *(_number_cell(numbers, line["line"], kind, metric, flags) for kind in kinds),
        )
        for line in lines.head(most).to_dict("records")
    )
    headings = (*(name.removeprefix(_SET).replace("_", " ") for name in names), *(kind or "value" for kind in kinds))
    return MetricTable(
        metric_words(metric).name, headings, len(names), rows, len(lines), tuple(map(flags_words, flags))
    )


def _telling(part: pd.DataFrame, settings: Sequence[str]) -> list[str]:
    """The columns that tell the rows of one measure and kind apart; the layer always."""
    names = [name for name in (*_FIXED, *settings) if name == "layer" or part[name].nunique(dropna=False) > 1]
    if "checkpoint" in names and part.groupby("checkpoint")["epoch"].nunique(dropna=False).max() == 1:
        names = [name for name in names if name != "epoch"]  # a checkpoint says which
    for tie in _TIE:
        if part.duplicated([*names, "kind", "metric"]).any() and part[tie].nunique(dropna=False) > 1:
            names.append(tie)
    return names


def _name_cell(name: str, line: dict[str, Any]) -> Cell:
    value, depth = line[name], line["depth"]
    if name == "layer":
        return Cell(value or NOTHING, _sort(depth) or value)
    if name == "checkpoint":
        return Cell(value, _sort(line["epoch"]) or value)
    if name in ("epoch", "n"):
        return Cell(number(value), _sort(value))
    return Cell(value[:12] if name == "fingerprint" else value, value)


def _sort(value: float) -> str:
    return repr(float(value)) if value == value else ""


def _number_cell(numbers: _Numbers, line: int, kind: str, metric: str, flags: list[str]) -> Cell:
    if (line, kind, metric) not in numbers:
        return Cell("", "")
    value, stderr, flag = numbers[line, kind, metric]
    low, high = (numbers.get((line, kind, metric + ending), [math.nan])[0] for ending in (_LOW, _HIGH))
    text, error = measured(value, stderr)
    interval = f"[{number(low, 3)}, {number(high, 3)}]" if low == low else ""
    return Cell(text, _sort(value), interval or error, flags.index(flag) + 1 if flag else 0)

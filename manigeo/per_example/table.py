"""The table of single examples: one row, one number of one example.

An example is its ``index`` in the data set and its ``split``; ``kind`` is what it is among the kinds of examples (that its
image also counts as restored, by its true label, makes no second row). ``layer`` is empty where the number is of the whole
network. ``settings`` (JSON) hold what the number depends on and, where they are known, the run and the checkpoint. Layers
are in the order of the network. Texts are categories, so that millions of rows fit into memory.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from manigeo.errors import InputError, one_line
from manigeo.kinds import CONTROL, EVERY, MARKED, UNSEEN
from manigeo.results import IDENTITY, check_results_path, named_files
from manigeo.storage.files import whole_file
from manigeo.storage.recognition import EXAMPLES, mistaken
from manigeo.storage.spreadsheets import as_cell, as_named

EXAMPLE = ("index", "split", "true_label", "train_label", "kind")
COLUMNS = ("run", "checkpoint", "epoch", *EXAMPLE, "layer", "metric", "value", "flag", "settings", "fingerprint")
TEXT = ("run", "checkpoint", "split", "kind", "layer", "metric", "flag", "settings", "fingerprint")
_WHOLE = ("index", "true_label", "train_label")
_ROWS_AT_ONCE = 50_000


def own_kinds(examples: pd.DataFrame) -> np.ndarray:
    """Kind of each example of a table of activations: one of unpermuted, permuted, test, unseen and all.

    >>> table = pd.DataFrame({"split": ["train", "train", "test"], "permuted": [False, True, False]})
    >>> own_kinds(table).tolist()
    ['unpermuted', 'permuted', 'test']
    """
    split, permuted = examples["split"].to_numpy(), examples["permuted"].to_numpy(dtype=bool)
    named = np.where(np.isin(split, (UNSEEN, EVERY, *MARKED, CONTROL)), split, "test")
    return np.where(split == "train", np.where(permuted, "permuted", "unpermuted"), named).astype(str)


def example_rows(
    examples: pd.DataFrame,
    values: Mapping[str, np.ndarray],
    *,
    layer: str = "",
    flag: str = "",
    settings: Mapping[str, Any] | None = None,
    place: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Rows of some measures of the same examples: ``values`` (metric -> one number per example).

    ``examples`` has the columns index, split, true_label, train_label and permuted, or kind. ``place`` are run, checkpoint,
    epoch, fingerprint, and run_id and checkpoint_sha256, which go to the settings. An example whose number is NaN has no
    row, unless a ``flag`` says why.

    Raises ``ValueError`` where a measure has not one number per example.

    >>> shown = pd.DataFrame({"index": [7, 9], "split": "train", "true_label": [0, 1], "train_label": [0, 0],
    ...                       "permuted": [False, True]})
    >>> example_rows(shown, {"margin": np.array([2.5, np.nan])})[["index", "kind", "metric", "value"]].values.tolist()
    [[7, 'unpermuted', 'margin', 2.5]]
    """
    n, of = len(examples), dict(place or {})
    known = {name: of[name] for name in IDENTITY if of.get(name)}
    said = json.dumps(dict(settings or {}) | known, sort_keys=True)
    kinds = examples["kind"] if "kind" in examples else own_kinds(examples)
    shared = {
        **{name: examples[name].to_numpy() for name in _WHOLE},
        "split": pd.Categorical(examples["split"]),
        "kind": pd.Categorical(kinds),
        "epoch": np.full(n, np.nan if of.get("epoch") is None else float(of["epoch"])),
        **{name: _same(n, str(of.get(name) or "")) for name in ("run", "checkpoint", "fingerprint")},
        **{name: _same(n, text) for name, text in (("layer", layer), ("flag", flag), ("settings", said))},
    }
    tables = []
    for metric, numbers in values.items():
        if np.shape(numbers) != (n,):
            raise ValueError(
                f"{metric} must have one number for each of the {n} examples, got shape {np.shape(numbers)}"
            )
        table = pd.DataFrame(shared | {"metric": _same(n, metric), "value": np.asarray(numbers, dtype=np.float64)})
        tables.append(table[list(COLUMNS)] if flag else table.loc[table["value"].notna(), list(COLUMNS)])
    return join_examples(tables)


def _same(n: int, text: str) -> pd.Categorical:
    return pd.Categorical.from_codes(np.zeros(n, np.int8), [text])


def join_examples(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other, their texts as categories in the order of their first rows.

    >>> join_examples([]).columns.tolist() == list(COLUMNS)
    True
    """
    if not tables:
        return pd.DataFrame({name: pd.Categorical([]) if name in TEXT else [] for name in COLUMNS})
    columns = {
        name: union_categoricals([pd.Categorical(table[name]) for table in tables])
        if name in TEXT
        else np.concatenate([table[name].to_numpy() for table in tables])
        for name in COLUMNS
    }
    return pd.DataFrame(columns)


def wide_examples(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one line per example, and one column per measure: ``purity@h3`` is that of layer h3.

    >>> shown = pd.DataFrame({"index": [7, 9], "split": "train", "true_label": [0, 1], "train_label": [0, 0],
    ...                       "kind": "permuted"})
    >>> wide_examples(example_rows(shown, {"purity": np.array([0.5, 1.0])}, layer="h3"))["purity@h3"].tolist()
    [0.5, 1.0]
    """
    measures = table.groupby(["metric", "layer"], observed=True, sort=False)
    shown = table.groupby(list(EXAMPLE), observed=True, sort=False)
    row, column = shown.ngroup().to_numpy(), measures.ngroup().to_numpy()
    values = np.full((shown.ngroups, measures.ngroups), np.nan)
    values[row, column] = table["value"]
    names = [f"{metric}@{layer}" if layer else str(metric) for metric, layer in measures.groups]
    first = table.loc[~pd.Series(row).duplicated().to_numpy(), list(EXAMPLE)]
    examples = first.astype({"split": str, "kind": str}).reset_index(drop=True)
    return pd.concat([examples, pd.DataFrame(values, columns=names)], axis=1)


def write_examples(table: pd.DataFrame, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write a table of examples as CSV or Parquet, by suffix; the file appears when it is whole.

    Raises :class:`~manigeo.errors.UsageError` as :func:`~manigeo.results.check_results_path` does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "examples.csv"
    >>> shown = pd.DataFrame({"index": [7], "split": "train", "true_label": 0, "train_label": 0, "kind": "unpermuted"})
    >>> write_examples(example_rows(shown, {"margin": np.array([2.5])}), path)
    >>> path.exists()
    True
    """
    path = check_examples_path(path, force)
    with whole_file(path) as partial:
        if path.suffix == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            with open(partial, "w", encoding="utf-8", newline="") as file:
                file.writelines(csv_lines(table))


def check_examples_path(path: str | os.PathLike[str], force: bool = False, option: str = "--out") -> Path:
    """The path that ``option`` names, if a table of examples can be written there; raises as :func:`write_examples` does."""
    return check_results_path(path, force, (".csv", ".parquet"), option)


def csv_lines(table: pd.DataFrame) -> Iterator[str]:
    """The lines of the table as CSV: each text is made a cell once, however many rows have it (ten times faster)."""
    yield ",".join(COLUMNS) + "\n"
    for start in range(0, len(table), _ROWS_AT_ONCE):
        part = table.iloc[start : start + _ROWS_AT_ONCE]
        yield from map("{}\n".format, map(",".join, zip(*(_cells(part[name]) for name in COLUMNS), strict=True)))


def _cells(column: pd.Series) -> list[str]:
    if column.name == "value":
        return [repr(value) if value == value else "" for value in column.tolist()]
    codes, found = pd.factorize(column, use_na_sentinel=False)
    return np.array([_cell(value) for value in found], dtype=object)[codes].tolist()


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value != value else f"{value:g}" if isinstance(value, float) else str(value)
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([as_cell(value)])
    return line.getvalue() if value else ""


def read_examples(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """Read the tables of examples at ``paths`` (file names, or globs where there is no such file), one below the other.

    Raises :class:`~manigeo.errors.InputError` where nothing matches, and for a file that is not such a table or is damaged.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "examples.csv"
    >>> shown = pd.DataFrame({"index": [7], "split": "train", "true_label": 0, "train_label": 0, "kind": "unpermuted"})
    >>> write_examples(example_rows(shown, {"margin": np.array([2.5])}), path)
    >>> read_examples(path)["value"].tolist()
    [2.5]
    """
    patterns = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    return join_examples([_read_one(name) for pattern in patterns for name in named_files(pattern)])


def _read_one(name: str) -> pd.DataFrame:
    if not os.path.exists(name):
        raise InputError(f"{name} does not exist; write it with manigeo examples")
    try:
        table = pd.read_parquet(name) if name.endswith(".parquet") else _read_csv(name)
    except ImportError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise InputError(f"{name} cannot be read as a table of examples: {one_line(error)}") from error
    if missing := [column for column in COLUMNS if column not in table.columns]:
        raise InputError(f"{mistaken(name, EXAMPLES)}: it has no column {', '.join(missing)}")
    return table[list(COLUMNS)]


def _read_csv(name: str) -> pd.DataFrame:
    types: dict[str, Any] = dict.fromkeys(TEXT, "category") | dict.fromkeys(_WHOLE, np.int64)
    empty = {"value": [""], "epoch": [""]}
    table = pd.read_csv(name, dtype=types | {"value": float, "epoch": float}, keep_default_na=False, na_values=empty)
    if "metric" in table and (cut := table["metric"].isin([""])).any():  # what is missing at the end of a line is empty
        raise ValueError(f"line {int(cut.argmax()) + 2} is cut short")
    for column in set(TEXT) & set(table.columns):
        found = table[column].cat.categories
        table[column] = table[column].cat.rename_categories({text: as_named(text) for text in found})
    return table

"""Label files: which label each training example had, by its position, its file or its place in the table."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64

from manigeo.errors import InputError, one_line
from manigeo.kinds import LEFT_OUT
from manigeo_extract.data.datasets import DataSet, Permutation, permute_labels
from manigeo_extract.resolve import near_names

# Columns by what they hold, the first that is there counts; written small, with underscores.
POSITIONS = ("index", "idx", "row", "position", "example", "example_id", "sample", "sample_id", "id", "unnamed:_0")
FILES = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "image_name", "image_file",
         "image_id", "img", "fname", "name")  # fmt: skip
LABELS = ("train_label", "noisy_label", "noisy_labels", "noisy_target", "noisy_class", "given_label", "label", "labels",
          "target", "targets", "class", "class_name", "class_id", "category", "y")  # fmt: skip
_OTHER = {"split", "permuted", "true_label", "clean_label", "original_label"}
_NUMBER = re.compile(r"-?\d+(\.0*)?")


def read_labels(
    path: str | os.PathLike[str], data: DataSet, tell: Callable[[str], None] = lambda said: None
) -> pd.DataFrame:
    """The example table of a network whose labels were permuted elsewhere, from a CSV (or .tsv) file.

    One column says which training example: :data:`POSITIONS` by the position in the source file, :data:`FILES` by the file
    of a folder of images (its path from any folder on, with or without suffix); a table without such a column has a row for
    each in their order. One says its label, the first of :data:`LABELS`, as a number or as the name of a class (what can be
    both is a name, but in ``train_label``). Examples that are left out have their true label. A column ``permuted`` marks
    members of S, else they are those whose label differs; rows whose ``split`` is not ``train`` are passed over, and labels
    of examples that are set apart, of which ``tell`` hears. The ``labels.csv`` of a run is such a file.

    Raises :class:`~manigeo.errors.InputError` for a file that is not of these data.
    """
    path = Path(path)
    given = _read_rows(path)
    table = permute_labels(data, Permutation())
    rows = _rows(path, given, data, table.replace({"split": {LEFT_OUT: "train"}}))  # these have labels, too
    labels = _class_numbers(path, given, data)
    taken = rows >= 0
    if not taken.all():
        counted = f"{np.count_nonzero(~taken)} of {len(rows)} labels"
        tell(f"{path.name}: {counted} are of examples that take no part; {_why(data)}")
    table.loc[rows[taken], "train_label"] = labels[taken]
    changed = (table["train_label"] != table["true_label"]).to_numpy()
    members = changed[rows[taken]] if given.permuted is None else given.permuted[taken]
    table.loc[rows[taken], "permuted"] = members
    return table


@dataclass(frozen=True)
class _Rows:
    """Columns of the file as they are written: what says which example (None: the order), and its label."""

    position: pd.Series | None
    file: pd.Series | None
    label: pd.Series
    permuted: np.ndarray | None


def _read_rows(path: Path) -> _Rows:
    try:
        found = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a table of labels ({one_line(error)}); write a CSV file with the columns index and train_label"
        ) from error
    found.columns = [re.sub(r"[\s-]+", "_", str(name).strip().lower()) for name in found.columns]
    if twice := found.columns[found.columns.duplicated()].tolist():
        raise InputError(f"{path} has the column {twice[0]!r} twice; keep one")
    if "split" in found:
        found = found[found["split"].str.strip().isin(["train", "training", LEFT_OUT])].reset_index(drop=True)
    keys = [next((name for name in names if name in found), None) for names in (POSITIONS, FILES)]
    label = _label_column(path, [str(name) for name in found.columns], keys)
    position, file = (None if key is None or key == label else found[key].str.strip() for key in keys)
    permuted = _truths(path, found["permuted"]) if "permuted" in found else None
    return _Rows(position, file, found[label].str.strip(), permuted)


def _label_column(path: Path, columns: list[str], keys: Sequence[str | None]) -> str:
    """The column of labels: of a usual name, or the only one beside what says which example."""
    others = [name for name in columns if name not in (*keys, *_OTHER)]
    known = [name for name in LABELS if name in columns and name not in keys]
    if not known and not (len(others) == 1 and any(keys)):
        raise InputError(
            f"{path} is not a table with the columns index and train_label, or file and label: it has "
            f"{', '.join(columns) or 'no columns'}; name the column of labels train_label"
        )
    return known[0] if known else others[0]


def _truths(path: Path, column: pd.Series) -> np.ndarray:
    truths = column.str.strip().str.lower().map({"true": True, "false": False, "1": True, "0": False})
    if truths.isna().any():
        raise InputError(
            f"{path}: expected permuted as True or False, got {column[truths.isna()].iloc[0]!r}; write one"
        )
    return truths.to_numpy(dtype=bool)


# ----------------------------------------------------------------------------------------------------- which examples
def _rows(path: Path, given: _Rows, data: DataSet, table: pd.DataFrame) -> Int64[np.ndarray, " n"]:
    """The rows of the example table, -1 for training examples of the source that take no part."""
    files = data.files()
    if given.file is not None and files is not None:
        rows = _rows_of_files(path, given.file, files, table)
    elif given.position is not None:
        rows = _rows_of_positions(path, given.position, data, table)
    elif given.file is not None:
        rows = _rows_of_positions(path, given.file, data, table)
    else:
        rows = _rows_in_order(path, len(given.label), data, table)
    _check_once(path, rows, given)
    return rows


def _rows_of_positions(path: Path, written: pd.Series, data: DataSet, table: pd.DataFrame) -> Int64[np.ndarray, " n"]:
    numbers = [int(float(text)) if _NUMBER.fullmatch(text) and len(text) < 16 else None for text in written]
    files = data.files()
    if files is not None and any(
        n is None or text[:1] == "0" != text for n, text in zip(numbers, written, strict=True)
    ):
        return _rows_of_files(path, written, files, table)
    train = np.flatnonzero(table["split"] == "train")
    place = dict(zip(table["index"].to_numpy()[train].tolist(), train.tolist(), strict=True))
    n_source = len(data.parts[0].inputs)
    for text, number in zip(written, numbers, strict=True):
        if number is None or not 0 <= number < n_source:
            what = f"example {text}" if number is not None else f"{text!r}, which is no position,"
            raise InputError(
                f"{path}: {what} is not among the {len(train)} training examples and {data.n_classes} classes of "
                f"{data.spec}; {_why(data)}"
            )
    return np.array([place.get(number, -1) for number in numbers], dtype=np.int64)


def _rows_in_order(path: Path, n: int, data: DataSet, table: pd.DataFrame) -> Int64[np.ndarray, " n"]:
    """Labels without any key are those of all training examples of the source, in their order."""
    train = np.flatnonzero(table["split"] == "train")
    source = np.sort(np.concatenate([data.index[train], data.index[data.rows("validation")]]))
    for expected in (source, np.sort(data.index[train])):
        if len(expected) == n:
            return _rows_of_positions(path, pd.Series(expected.astype(str)), data, table)
    raise InputError(
        f"{path} has {n} labels without a column index or file, and {data.spec} has {len(train)} training examples: add "
        f"the column index; {_why(data)}"
    )


def _rows_of_files(path: Path, written: pd.Series, files: list[Path], table: pd.DataFrame) -> Int64[np.ndarray, " n"]:
    """Files by the end of their paths: as many folders of it as both have must agree, and one file alone may do so."""
    splits = table["split"].to_numpy()
    named: dict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(np.isin(splits, ("train", "validation"))).tolist():
        named[files[row].name].append(row)
        named[files[row].stem].append(row)
    rows = np.array([_row_of_file(path, text, named, files) for text in written], dtype=np.int64)
    return np.where(splits[rows] == "train", rows, -1)


def _row_of_file(path: Path, text: str, named: dict[str, list[int]], files: list[Path]) -> int:
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    agreeing = {row: _agreement(parts, files[row].parts) for row in named.get(parts[-1] if parts else "", ())}
    best = [row for row, n in agreeing.items() if n == max(agreeing.values())]
    if len(best) == 1:
        return best[0]
    if best:
        raise InputError(
            f"{path}: {text!r} may be any of {len(best)} training images, such as {files[best[0]]}: write their folders, too"
        )
    known = dict.fromkeys(files[row].name for rows in named.values() for row in rows)
    raise InputError(
        f"{path}: {text!r} is not among the {len(known)} names of training images{near_names(text, known)}"
    )


def _agreement(parts: Sequence[str], others: Sequence[str]) -> int:
    """Number of folders in front of the name that two paths have in common."""
    pairs = zip(parts[-2::-1], others[-2::-1], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(parts), len(others)) - 1)


def _check_once(path: Path, rows: Int64[np.ndarray, " n"], given: _Rows) -> None:
    taken = pd.Series(rows[rows >= 0])
    written = [text for text in (given.file, given.position) if text is not None]
    if taken.duplicated().any() or any(text.duplicated().any() for text in written[:1]):
        raise InputError(f"{path}: every index stands once, and so does every file; remove what is repeated")


def _why(data: DataSet) -> str:
    return data.left_out or "all training examples take part, and those of the test have no other label"


# ------------------------------------------------------------------------------------------------------- which labels
def _class_numbers(path: Path, given: _Rows, data: DataSet) -> Int64[np.ndarray, " n"]:
    names = {name: number for number, name in enumerate(data.class_names[: data.n_classes])}
    by_name = given.label.isin(list(names)).all() and given.label.name != "train_label"
    numbers = [names.get(text) if by_name else _class_number(text, names) for text in given.label]
    for text, number in zip(given.label, numbers, strict=True):
        if number is None or not 0 <= number < data.n_classes:
            raise InputError(
                f"{path}: label {text} is not among the {len(data.rows('train'))} training examples and {data.n_classes} "
                f"classes of {data.spec}: write numbers from 0 to {data.n_classes - 1}, or names{near_names(text, names)}"
            )
    return np.array(numbers, dtype=np.int64)


def _class_number(text: str, names: dict[str, int]) -> int | None:
    if _NUMBER.fullmatch(text) and len(text) < 16:
        return int(float(text))
    return names.get(text)

"""The record of single examples over a training: what the network said of each of them after each recorded epoch.

One file, to which every epoch is appended. A line of JSON comes first, then the examples as CSV, then the epochs, all of one
size: with n examples :math:`6 n + n/8` bytes and 8 more. An epoch that was not written whole, of a training that was killed,
counts as not recorded; the next epoch takes its place.
"""

import io
import json
import os
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from manigeo.errors import InputError, one_line
from manigeo.kinds import CONTROL, LEFT_OUT, MARKED
from manigeo.storage.ceilings import open_regular
from manigeo.storage.files import whole_file
from manigeo.storage.owned import naming, open_own

FORMAT = "manigeo-recorded-examples"
COLUMNS = ("index", "split", "true_label", "train_label", "permuted")
SPLITS = (
    "train",
    LEFT_OUT,
    "test",
    *MARKED,
    CONTROL,
)  # validation decides on checkpoints, and is no measure of an example
_MOST_HEADER = 4096


@dataclass(frozen=True, eq=False)
class Answers:
    r"""Answers of a network to n examples, each scored by its label y of training (its true one, where it has no other).

    .. math::
        p_y, \quad z_y - \max_{k \ne y} z_k, \quad \lVert p - e_y \rVert_2, \quad \arg\max_k z_k = y

    of the logits z and p = softmax(z): ``probability``, ``margin``, ``error`` and ``correct``.
    """

    probability: Float[np.ndarray, "*epochs n"]
    margin: Float[np.ndarray, "*epochs n"]
    error: Float[np.ndarray, "*epochs n"]
    correct: Bool[np.ndarray, "*epochs n"]


class Recorded(NamedTuple):
    """A record as it is read: the run, its examples (:data:`COLUMNS`), the epochs in ascending order, and the answers,
    arrays (epochs, examples)."""

    run_id: str
    examples: pd.DataFrame
    epochs: Int[np.ndarray, " epochs"]
    answers: Answers


def recorded_rows(examples: pd.DataFrame) -> Int[np.ndarray, " n"]:
    """Rows of the example table that a record holds, in their order: those of training, those left out of it, the test's.

    >>> recorded_rows(pd.DataFrame({"split": ["train", "validation", "test"]})).tolist()
    [0, 2]
    """
    return np.flatnonzero(examples["split"].isin(SPLITS))


def bytes_of_epoch(n: int) -> int:
    """Bytes that one epoch of n examples takes in the file.

    >>> bytes_of_epoch(50_000)
    306258
    """
    return _epoch_dtype(n).itemsize


def create_record(path: Path, run_id: str, examples: pd.DataFrame) -> None:
    """Write a record without epochs, of the examples of a table that belong into one (:func:`recorded_rows`)."""
    kept = examples.loc[examples["split"].isin(SPLITS), list(COLUMNS)]
    table = kept.to_csv(index=False).encode()
    header = {"format": FORMAT, "format_version": 1, "run_id": run_id, "examples": len(kept), "table": len(table),
              "checksum": zlib.crc32(run_id.encode() + table)}  # fmt: skip
    with whole_file(path) as partial:
        partial.write_bytes(json.dumps(header).encode() + b"\n" + table)


def append_epoch(path: Path, epoch: int, answers: Answers) -> None:
    """Append the answers of ``epoch``, in half precision, behind the last whole epoch.

    Raises ``ValueError`` where the answers are not of the examples of the record.
    """
    with naming(path), os.fdopen(open_own(path), "r+b") as file:
        layout = _layout(path, file)
        if answers.correct.shape != (layout.n,):
            raise ValueError(f"expected answers to the {layout.n} examples of {path}, got {answers.correct.shape}")
        file.seek(layout.start + layout.n_epochs * layout.dtype.itemsize)
        file.write(_packed(epoch, answers, layout.dtype))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def forget_epochs(path: Path, after: int) -> None:
    """Remove the epochs after ``after``."""
    with naming(path), os.fdopen(open_own(path), "r+b") as file:
        layout = _layout(path, file)
        kept = layout.n_epochs
        while kept and _epoch_at(file, layout, kept - 1) > after:  # they are in ascending order
            kept -= 1
        file.truncate(layout.start + kept * layout.dtype.itemsize)


def read_record(path: str | os.PathLike[str]) -> Recorded:
    """Read a record of examples.

    Raises :class:`~manigeo.errors.InputError` for a file that is missing, damaged, or another thing.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            layout = _layout(path, file)
            table = pd.read_csv(io.BytesIO(layout.table))
            stored = _epochs(file, layout)
        if len(table) != layout.n or list(table.columns) != list(COLUMNS):
            raise ValueError("its table is not that of its examples")
        for entry in stored:
            if _checksum(entry) != entry["checksum"]:
                raise ValueError(f"epoch {entry['epoch']} is not as it was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no record of examples ({one_line(error)}); train anew, with --record-examples all"
        ) from error
    correct = np.unpackbits(stored["correct"], axis=1, count=layout.n).astype(bool)
    answers = Answers(stored["probability"], stored["margin"], stored["error"], correct)
    return Recorded(layout.run_id, table, stored["epoch"].astype(np.int64), answers)


# -------------------------------------------------------------------------------------------------------- the layout
class _Layout(NamedTuple):
    run_id: str
    n: int
    table: bytes
    start: int  # of the epochs
    n_epochs: int  # whole ones
    dtype: np.dtype


def _epoch_dtype(n: int) -> np.dtype:
    numbers: list[Any] = [(field.name, "<f2", (n,)) for field in fields(Answers) if field.name != "correct"]
    return np.dtype([("epoch", "<i4"), ("checksum", "<u4"), *numbers, ("correct", "u1", (-(-n // 8),))])


def _layout(path: Path, file: Any) -> _Layout:
    """The layout of an open record; ``ValueError`` of what is none."""
    size = os.fstat(file.fileno()).st_size
    header = json.loads(file.readline(_MOST_HEADER))
    if not isinstance(header, dict) or (header.get("format"), header.get("format_version")) != (FORMAT, 1):
        raise ValueError(f"expected the format {FORMAT}, version 1")
    n, length, place = int(header["examples"]), int(header["table"]), file.tell()
    if not (0 <= n <= length <= size - place):
        raise ValueError("it ends within the table of its examples")
    table, dtype, run_id = file.read(length), _epoch_dtype(n), str(header["run_id"])
    if zlib.crc32(run_id.encode() + table) != header["checksum"]:
        raise ValueError("the table of its examples is not as it was written")
    n_epochs = (size - place - length) // dtype.itemsize
    return _Layout(run_id, n, table, place + length, n_epochs, dtype)


def _epoch_at(file: Any, layout: _Layout, place: int) -> int:
    file.seek(layout.start + place * layout.dtype.itemsize)
    return int.from_bytes(file.read(4), "little", signed=True)


def _epochs(file: Any, layout: _Layout) -> np.ndarray:
    file.seek(layout.start)
    return np.frombuffer(file.read(layout.n_epochs * layout.dtype.itemsize), layout.dtype)


def _packed(epoch: int, answers: Answers, dtype: np.dtype) -> bytes:
    entry = np.zeros((), dtype)
    largest = float(np.finfo(np.float16).max)
    for name in ("probability", "margin", "error"):
        entry[name] = np.clip(getattr(answers, name), -largest, largest)
    entry["epoch"], entry["correct"] = epoch, np.packbits(answers.correct)
    entry["checksum"] = _checksum(entry)
    return entry.tobytes()


def _checksum(entry: np.ndarray | np.void) -> int:
    """CRC-32 of an epoch, its number included."""
    stored = entry.tobytes()
    return zlib.crc32(stored[8:], zlib.crc32(stored[:4]))

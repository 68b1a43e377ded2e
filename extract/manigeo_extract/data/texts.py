"""Texts and their classes, as the tokens that a Hugging Face tokenizer makes of them; all files are local."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from manigeo.errors import InputError, UsageError
from manigeo_extract.data.parts import Source, as_part, as_source, hold_out
from manigeo_extract.resolve import near_names

READERS = {
    ".csv": lambda path: pd.read_csv(path, keep_default_na=False),  # "None" and "NA" are texts as others
    ".tsv": lambda path: pd.read_csv(path, sep="\t", keep_default_na=False),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
}
SPLITS = ("train", "validation", "test")


def read_hf(
    path: Path,
    *,
    tokenizer: str = "",
    text: str = "text",
    label: str = "label",
    length: int = 128,
    test: float = 0.2,
    seed: int = 0,
) -> Source:
    """Text classification: ``train.csv`` and ``test.csv``, perhaps ``validation.csv`` (or .tsv, .jsonl), or one such file.

    Of one file the share ``test`` of each class is held out. The columns ``text`` and ``label`` hold a text and its class,
    a name or a number from 0. ``tokenizer`` is the folder with the tokenizer's files (default: the folder of the texts).
    Every text becomes ``input_ids`` and ``attention_mask``, cut at ``length`` tokens and padded to the longest text, where
    the tokenizer pads.

    Raises :class:`~manigeo.errors.UsageError` without transformers, :class:`~manigeo.errors.InputError` for files that
    are not such.
    """
    files = _files(path)
    tables = {split: _read_table(file, (text, label)) for split, file in files.items()}
    names = _class_names(next(iter(tables.values()))[label])
    labels = {split: _labels(files[split], table[label], names) for split, table in tables.items()}
    folder = Path(str(tokenizer)).expanduser() if tokenizer else path if path.is_dir() else path.parent
    tokens = _tokenized(folder, [str(words) for table in tables.values() for words in table[text]], length)
    inputs = dict(zip(tables, np.split(tokens, np.cumsum([len(table) for table in tables.values()])[:-1]), strict=True))
    parts = {split: as_part(str(file), inputs[split], labels[split]) for split, file in files.items()}
    return as_source(hold_out(parts["all"], test, seed) if "all" in parts else parts, names, standardise=False)


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"all": path}
    found = {split: _first(path, split) for split in SPLITS}
    files = {split: file for split, file in found.items() if file is not None}
    if not {"train", "test"} <= files.keys():
        raise InputError(
            f"{path}: expected train and test, perhaps validation, with one of {', '.join(READERS)} behind it"
        )
    return files


def _first(folder: Path, split: str) -> Path | None:
    candidates = [folder / f"{split}{suffix}" for suffix in READERS]
    return next((file for file in candidates if file.is_file()), None)


def _read_table(path: Path, columns: tuple[str, str]) -> pd.DataFrame:
    if path.suffix not in READERS:
        raise InputError(f"{path}: expected a file {', '.join(READERS)}")
    try:
        table = READERS[path.suffix](path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a table of texts ({error})") from error
    for column in columns:
        if column not in table:
            raise InputError(f"{path}: expected the column {column!r}{near_names(column, map(str, table.columns))}")
    return table


def _class_names(labels: pd.Series) -> tuple[str, ...]:
    """Numbers are their own names, 0 to the largest; names come by the alphabet."""
    if pd.api.types.is_integer_dtype(labels):
        return tuple(map(str, range(int(labels.max()) + 1)))
    return tuple(sorted({str(label) for label in labels}))


def _labels(path: Path, labels: pd.Series, names: tuple[str, ...]) -> Int64[np.ndarray, " n"]:
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted({str(label) for label in labels} - set(numbers))
    if unknown:
        raise InputError(
            f"{path}: expected the classes of the training texts, {', '.join(names[:9])}, found {unknown[0]!r}"
        )
    return np.array([numbers[str(label)] for label in labels], dtype=np.int64)


def _tokenized(folder: Path, texts: list[str], length: int) -> Shaped[np.ndarray, " n"]:
    """One record of ids and mask for each text, all of one length."""
    found = open_tokenizer(folder)(texts, padding="longest", truncation=True, max_length=length)
    ids, mask = (np.array(found[name], dtype=np.int32) for name in ("input_ids", "attention_mask"))
    if not mask.any(axis=1).all():
        raise InputError(f"expected a token in every text, found none in {texts[mask.any(axis=1).argmin()]!r}")
    tokens = np.empty(
        len(texts), dtype=[("input_ids", np.int32, ids.shape[1:]), ("attention_mask", np.int32, ids.shape[1:])]
    )
    tokens["input_ids"], tokens["attention_mask"] = ids, mask
    return tokens


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer whose files are in a folder; one without a token to pad with pads with that of the end."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UsageError("texts need the package transformers: pip install 'manigeo[hf]'") from error
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder of a tokenizer's files; say where with tokenizer=FOLDER")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever is wrong with a tokenizer's files
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{folder}: expected a tokenizer's files ({reason}); say where with tokenizer=FOLDER"
        ) from error
    if tokenizer.pad_token is None:  # GPT-2 has none; the mask keeps what stands there from being read
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer

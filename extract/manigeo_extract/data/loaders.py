"""Readers of the usual data set files: each turns one kind of file into parts, or reports what is wrong with it.

The formats: idx is described on the MNIST page (LeCun, Cortes, Burges), the python batches on the CIFAR page
(Krizhevsky 2009), npz by numpy.
"""

import gzip
import importlib.util
import math
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from manigeo.errors import InputError, UsageError
from manigeo.storage.ceilings import MOST_PACKED, most_unpacked
from manigeo_extract.data import glyphs
from manigeo_extract.data.parts import Part, Source, as_images, as_part, as_source, generator, hold_out

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


# ------------------------------------------------------------------------------------------------ without any file
def read_glyphs(
    *, classes: int = 100, train: int = 80, validation: int = 20, test: int = 30, size: int = 20, seed: int = 0
) -> Source:
    """Rendered characters (see ``glyphs``), ``train``, ``validation`` and ``test`` of them for each class."""
    if not 2 <= classes <= len(glyphs.CHARACTERS):
        raise UsageError(f"glyphs: expected classes from 2 to {len(glyphs.CHARACTERS)}, got {classes}")
    if min(train, test) < 1 or validation < 0 or not 8 <= size <= 256:
        raise UsageError("glyphs: expected train and test of at least 1, validation of at least 0, size from 8 to 256")
    characters, parts = glyphs.CHARACTERS[:classes], {}
    for split, per_class in {"train": train, "validation": validation, "test": test}.items():
        if per_class:
            images = glyphs.render_glyphs(characters, per_class, size=size, rng=generator(seed, split))
            parts[split] = as_part("glyphs", images, np.repeat(np.arange(classes), per_class))
    return as_source(parts, characters)


def read_digits(*, test: float = 0.2, seed: int = 0) -> Source:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels, the share ``test`` of each class held out.

    They are read from its folder: importing it takes two seconds, longer than all else of a small extraction.
    """
    package = importlib.util.find_spec("sklearn")
    (folder,) = package.submodule_search_locations  # type: ignore[union-attr, misc]  # it is installed with manigeo
    table = np.loadtxt(Path(folder, "datasets/data/digits.csv.gz"), delimiter=",", dtype=np.float32)
    part = as_part("digits", table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64))
    return as_source(hold_out(part, test, seed))


# ---------------------------------------------------------------------------------------------------------------- idx
def read_idx(path: Path) -> Source:
    """MNIST and its relatives: four idx files, plain or gzipped."""
    return as_source({"train": _idx_part(path, "train"), "test": _idx_part(path, "t10k")})


def _idx_part(path: Path, prefix: str) -> Part:
    where, images = _idx_file(path, f"{prefix}-images", "idx3-ubyte")
    return as_part(where, as_images(where, images), _idx_file(path, f"{prefix}-labels", "idx1-ubyte")[1])


def _idx_file(path: Path, stem: str, suffix: str) -> tuple[str, np.ndarray]:
    names = [f"{stem}{dot}{suffix}{packed}" for packed in ("", ".gz") for dot in "-."]
    found = _first_file(path, names)
    return str(found), _idx_array(found, _content(found))


def _first_file(path: Path, names: list[str]) -> Path:
    for name in names:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: expected the file {' or '.join(names)}, which is not there")


def _content(path: Path) -> bytes:
    try:
        return _unpacked(path) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}: expected a whole, readable file ({error}); fetch it again") from error


def _unpacked(path: Path) -> bytes:
    most = most_unpacked(path.stat().st_size)
    with gzip.open(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path}: expected images, which are not packed {MOST_PACKED} times; fetch it again")
    return content


def _idx_array(path: Path, content: bytes) -> np.ndarray:
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES or len(content) < 4 + 4 * content[3]:
        raise InputError(f"{path}: expected an idx file (two zero bytes, type, rank, sizes), found {content[:16]!r}")
    dtype, rank = np.dtype(IDX_TYPES[content[2]]), content[3]
    shape = tuple(map(int, np.frombuffer(content, ">u4", count=rank, offset=4)))
    expected = 4 + 4 * rank + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise InputError(f"{path}: expected {expected} bytes for shape {shape}, found {len(content)}; fetch it again")
    return np.frombuffer(content, dtype, offset=4 + 4 * rank).reshape(shape)


# -------------------------------------------------------------------------------------------------------------- CIFAR
def read_cifar10(path: Path) -> Source:
    """The folder ``cifar-10-batches-py``."""
    train = [_cifar_batch(path / f"data_batch_{number}", b"labels") for number in range(1, 6)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    parts = {"train": as_part(str(path / "data_batch_1..5"), images, labels)}
    parts["test"] = as_part(str(path / "test_batch"), *_cifar_batch(path / "test_batch", b"labels"))
    return as_source(parts, _entry(path / "batches.meta", b"label_names"))


def read_cifar100(path: Path) -> Source:
    """The folder ``cifar-100-python``, with the fine labels."""
    parts = {
        split: as_part(str(path / split), *_cifar_batch(path / split, b"fine_labels")) for split in ("train", "test")
    }
    return as_source(parts, _entry(path / "meta", b"fine_label_names"))


def _cifar_batch(path: Path, label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(_entry(path, b"data")), np.asarray(_entry(path, label_key))
    if images.ndim != 2 or images.shape[1] != 3072 or images.dtype != np.uint8:
        raise InputError(f"{path}: expected data of (n, 3072) uint8, got {images.shape} {images.dtype}")
    if len(images) != len(labels):
        raise InputError(
            f"{path}: expected as many labels as inputs, got {len(labels)} labels and {len(images)} inputs"
        )
    return images.reshape(-1, 3, 32, 32), labels


def _entry(path: Path, key: bytes) -> Any:
    content = _unpickled(path)
    text = key.decode()
    if not isinstance(content, dict) or not {key, text} & content.keys():
        raise InputError(f"{path}: expected a CIFAR batch with the entry {text!r}, which is not there")
    return content[key] if key in content else content[text]


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: expected a CIFAR python batch there, found no file")
    try:
        with path.open("rb") as file:
            return ArrayUnpickler(file, path).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(
            f"{path}: expected a whole pickle ({type(error).__name__}: {error}); fetch it again"
        ) from error


class ArrayUnpickler(pickle._Unpickler):  # the one in C makes room for 2^31 memos, 34 GB, where a pickle names the last
    """A pickle may build containers, numbers, texts and numpy arrays; no other global is looked up, so none runs."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="bytes")  # the batches were written by Python 2
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise InputError(
                f"{self.path}: refused, its pickle asks for {module}.{name}; expected arrays and lists only"
            )
        return ALLOWED_GLOBALS[module, name]


def _latin1(text: str, encoding: str) -> bytes:
    """Encode bytes as Python 3 writes them at pickle protocol 2; any other codec is refused."""
    if encoding != "latin1":
        raise ValueError(f"codec {encoding}")
    return text.encode("latin1")


_reconstruct, _from_scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
ALLOWED_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _from_scalar,
    ("numpy._core.multiarray", "scalar"): _from_scalar,
    ("_codecs", "encode"): _latin1,
}


# ---------------------------------------------------------------------------------------------------------------- npz
def read_npz(path: Path) -> Source:
    """Arrays ``x_train y_train x_test y_test``, perhaps ``x_val y_val`` and ``label_names``, in one npz file."""
    arrays = _npz_arrays(path)
    splits = {"train": "train", "validation": "val", "test": "test"}
    parts = {
        split: as_part(f"{path} ({key})", as_images(f"{path} ({key})", arrays[f"x_{key}"]), arrays[f"y_{key}"])
        for split, key in splits.items()
        if key != "val" or "x_val" in arrays
    }
    return as_source(parts, arrays.get("label_names"))


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: expected an npz file there, found no file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # numpy leaves a bad file open
            if sum(member.file_size for member in archive.zip.infolist()) > most_unpacked(path.stat().st_size):
                raise ValueError(f"packed more than {MOST_PACKED} times, as no images are")
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive may raise anything
        raise InputError(
            f"{path}: expected a whole npz file of plain arrays ({error}); fetch or write it again"
        ) from error
    needed = ["x_train", "y_train", "x_test", "y_test"] + (
        ["x_val", "y_val"] if {"x_val", "y_val"} & set(arrays) else []
    )
    if missing := [name for name in needed if name not in arrays]:
        raise InputError(f"{path}: expected the arrays {', '.join(needed)}; missing {', '.join(missing)}")
    return arrays

"""Arrays in files of other programs as activations: NumPy, CSV, MATLAB and HDF5 that has another layout than ``acts.h5``.

A file is looked at before anything of it is read: what it claims to hold must be there, byte for byte as far as the format
tells, and within what its compression can pack. Pickled objects are never read.
"""

import csv
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from manigeo.activations.checking import DENSEST
from manigeo.activations.content import Activations
from manigeo.errors import InputError, InputWarning, UsageError, one_line, shorten
from manigeo.storage.recognition import RESULTS, RUN, WEIGHTS, recognized

SUFFIXES = (".npy", ".npz", ".csv", ".mat", ".h5", ".hdf5")
_HDF5 = b"\x89HDF"
_LABELS = ("labels", "label", "y", "class", "condition")
_EXPECTED = "arrays (conditions, repetitions, features), or (examples, features) with labels"
_MOST_NAMED = 12


@dataclass(frozen=True)
class Stored:
    """An array of a file: its shape and type, and how it is read."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def numeric(self) -> bool:
        return np.dtype(self.dtype).kind in "biuf" if self.dtype in np.sctypeDict else False


def is_foreign(path: str | os.PathLike[str]) -> bool:
    """True for a file of arrays that is none of manigeo's: by its suffix, and of HDF5 by what it says of itself.

    >>> is_foreign("responses.npz"), is_foreign("acts.h5")
    (True, False)
    """
    path = Path(path)
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return path.suffix.lower() in SUFFIXES and not (path.exists() and recognized(path) in (RESULTS, WEIGHTS, RUN))
    try:
        with h5py.File(path, "r") as file:
            return "format" not in file.attrs and "layers" not in file
    except Exception:  # not there, or damaged: said by whoever reads activations
        return False


def read_arrays(path: str | os.PathLike[str], datasets: Sequence[str] = (), labels: str | None = None) -> Activations:
    """The arrays of a file as activations in memory (:meth:`~manigeo.activations.content.Activations.from_arrays`).

    ``datasets`` name the arrays, each an area; by default all of a .npz or .mat file that have two or three dimensions, the
    array of a .npy file, and the columns of a .csv file, one row per example. ``labels`` name an array or column of the
    file, or another file with them (.npy, or text with one per line); by default what is called labels, label, y, class
    or condition. Examples with missing values are left out, and ``notes`` of the activations tell so.

    Raises :class:`~manigeo.errors.UsageError` for names that the file does not have, and
    :class:`~manigeo.errors.InputError` for a file that cannot be read, with what it holds and what is expected.

    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/areas.npz"
    >>> np.savez(path, V1=np.random.default_rng(0).normal(size=(4, 10, 8)), labels=["face", "house", "tool", "word"])
    >>> read_arrays(path).layers
    ('V1',)
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected {_EXPECTED} in a file {', '.join(SUFFIXES)}")
    held = _contents(path, labels)
    label_name, given = _labels(path, held, labels)
    areas = _chosen(path, held, datasets, label_name)
    try:
        arrays = {name: held[name].read() for name in areas}
        if given is None and label_name:
            given = _flat(held[label_name].read())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)  # the same stands in the notes
            return Activations.from_arrays(arrays, given, nan="drop")
    except (ValueError, TypeError, OSError, MemoryError, RuntimeError, KeyError, EOFError) as error:
        raise InputError(f"{path}: {one_line(error)}; {_said(held)}") from error


def _flat(labels: np.ndarray) -> list[Any]:
    """One label for each; MATLAB keeps lists as matrices of one row or column, and texts in cells."""
    return [x.item() if isinstance(x, np.ndarray) and x.size == 1 else x for x in np.asarray(labels).ravel().tolist()]


# ------------------------------------------------------------------------------------------------------- what is there
def _contents(path: Path, labels: str | None) -> dict[str, Stored]:
    readers = {".npy": _of_npy, ".npz": _of_npz, ".mat": _of_mat, ".h5": _of_hdf5, ".hdf5": _of_hdf5}
    readers[".csv"] = lambda path: _of_csv(path, labels)
    with path.open("rb") as file:
        hdf5 = file.read(4) == _HDF5  # whatever the file is called
    try:
        return _of_hdf5(path) if hdf5 else readers[path.suffix.lower()](path)
    except InputError:
        raise
    except Exception as error:  # damage may raise anything
        raise InputError(f"{path} cannot be read ({one_line(error)}); expected {_EXPECTED}") from error


def _of_npy(path: Path) -> dict[str, Stored]:
    with path.open("rb") as file:
        shape, dtype = _header(file, path.stat().st_size)
    return {path.stem: Stored(shape, dtype.name, lambda: np.load(path, allow_pickle=False))}


def _of_npz(path: Path) -> dict[str, Stored]:
    held = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            _check_packed(member.filename, member.file_size, member.compress_size)
            with archive.open(member) as file:
                shape, dtype = _header(file, member.file_size)
            held[member.filename.removesuffix(".npy")] = Stored(shape, dtype.name, _member(path, member.filename))
    return held


def _member(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    return read


def _header(file: Any, n_bytes: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in NumPy's format, whose numbers are all in ``n_bytes``."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if not dtype.hasobject and prod(shape) * dtype.itemsize > n_bytes:
        raise ValueError(f"an array of shape {shape} and {dtype} does not fit into {n_bytes} bytes")
    return tuple(map(int, shape)), dtype


def _check_packed(name: str, claimed: int, stored: int) -> None:
    if claimed > stored * DENSEST + 1024:
        raise ValueError(f"{name} claims {claimed} bytes, and {stored} are stored")


def _of_csv(path: Path, label: str | None) -> dict[str, Stored]:
    """Two arrays: the column of labels by its name, and all others, which must be numbers, by the name of the file."""
    import pandas as pd

    table = pd.read_csv(path)
    named = next((name for name in table if name == label or (label is None and str(name).lower() in _LABELS)), None)
    features = table[[name for name in table if name != named]]
    if texts := [str(name) for name in features if features[name].dtype.kind not in "biuf"]:
        raise InputError(f"{path}: column {texts[0]!r} holds no numbers; it is --labels {texts[0]}, or leave it out")
    held = {path.stem: Stored(features.shape, "float64", lambda: features.to_numpy(dtype=np.float64))}
    if named is not None:
        column = table[named]
        held[str(named)] = Stored(column.shape, str(column.dtype), column.to_numpy)
    return held


def _of_mat(path: Path) -> dict[str, Stored]:
    import scipy.io

    try:
        found = scipy.io.whosmat(path)
    except NotImplementedError:  # version 7.3 is HDF5
        return _of_hdf5(path)
    size = path.stat().st_size
    for name, shape, _ in found:
        _check_packed(name, prod(shape), size)
    types = {"double": "float64", "single": "float32", "logical": "bool"}
    return {name: Stored(tuple(shape), types.get(kind, kind), _variable(path, name)) for name, shape, kind in found}


def _variable(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        import scipy.io

        return np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])

    return read


def _of_hdf5(path: Path) -> dict[str, Stored]:
    """All datasets that are in this very file; those of MATLAB have their dimensions in the other order."""
    held: dict[str, Stored] = {}

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and not (node.is_virtual or node.external) and node.shape is not None:
            turned = "MATLAB_class" in node.attrs
            text = node.dtype.kind in "OS"
            shape = node.shape[::-1] if turned else node.shape
            held[name] = Stored(shape, "text" if text else node.dtype.name, _dataset(path, name, turned, text))

    with h5py.File(path, "r") as file:
        file.visititems(look)  # which follows no link out of the file
    return {name: stored for name, stored in held.items() if not name.startswith("#refs#")}


def _dataset(path: Path, name: str, turned: bool, text: bool) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with h5py.File(path, "r") as file:
            node = file[name]
            claimed = max(prod(node.shape), prod(node.chunks or ())) * node.dtype.itemsize
            _check_packed(name, claimed, node.id.get_storage_size())
            values = np.asarray(node.asstr()[()] if text else node[()])
            return values.T if turned else values

    return read


# --------------------------------------------------------------------------------------------------------- what is meant
def _labels(path: Path, held: dict[str, Stored], labels: str | None) -> tuple[str, list[Any] | None]:
    """The name of the labels in the file, or the labels themselves from another file."""
    if labels is None:
        return next((name for name in held if name.rsplit("/", 1)[-1].lower() in _LABELS), ""), None
    if labels in held:
        return labels, None
    if not Path(labels).is_file():
        raise UsageError(f"--labels {labels} is neither in {path} nor a file; {_said(held)}")
    try:
        if labels.endswith(".npy"):
            (stored,) = _of_npy(Path(labels)).values()
            return "", stored.read().ravel().tolist()
        with open(labels, encoding="utf-8-sig", newline="") as file:
            return "", [row[0] for row in csv.reader(file) if row]
    except (ValueError, OSError, csv.Error) as error:
        raise InputError(
            f"{labels} cannot be read as labels ({one_line(error)}); give text with one per line"
        ) from error


def _chosen(path: Path, held: dict[str, Stored], datasets: Sequence[str], labels: str) -> list[str]:
    if unknown := [name for name in datasets if name not in held]:
        raise UsageError(f"--dataset {unknown[0]} is not in {path}; {_said(held)}")
    for name in datasets:
        if not held[name].numeric:
            raise InputError(f"{path}: {name} holds {held[name].dtype}, expected numbers; {_said(held)}")
    if datasets:
        return list(datasets)
    if path.suffix.lower() in (".h5", ".hdf5"):  # of many arrays, as a rule
        raise UsageError(f"{path} is no activation file of manigeo; {_said(held)}: name the arrays with --dataset NAME")
    found = [name for name, of in held.items() if name != labels and len(of.shape) in (2, 3) and of.numeric]
    if not found:
        raise InputError(f"{path} has no array of two or three dimensions; {_said(held)}")
    return found


def _said(held: dict[str, Stored]) -> str:
    """Sentence on what is expected, and on what the file holds."""
    things = [f"{name} {of.shape} {of.dtype}" for name, of in list(held.items())[:_MOST_NAMED]]
    more = f" and {len(held) - len(things)} more" if len(held) > len(things) else ""
    return shorten(f"expected {_EXPECTED}, the file holds {', '.join(things) or 'no arrays'}{more}", 600)

"""Activation files as they are read: what is in them, and the rows of their layers."""

import json
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Int

from manigeo.activations.checking import check_chunks, check_header, check_heaps
from manigeo.activations.content import Activations
from manigeo.activations.filters import filter_of
from manigeo.activations.layout import (
    EXAMPLE_COLUMNS,
    Shard,
    StoredLayer,
    layer_datasets,
    readable,
    row_bytes,
)
from manigeo.activations.scoring import read_outcomes
from manigeo.activations.sums import check_chunk_sum
from manigeo.errors import InputError, UsageError, one_line
from manigeo.storage.commits import CommittedFile, has_commit, partial_of
from manigeo.storage.recognition import ACTIVATIONS, EMPTY, mistaken, recognized

_READ_BYTES = 32 << 20  # at a time
_SETTLED_SECONDS = 2.0  # a file that changed just now may change again within the same tick of the clock


@dataclass
class Verified:
    """Parts of a file that were verified: its structure with the fingerprint, and the chunks of these layers."""

    header: bool = False
    layers: set[str] = field(default_factory=set)


class StoredRows:
    """Rows of an open file, checked for damage when they are first read; the file is closed when nothing refers to it."""

    def __init__(self, file: h5py.File, path: Path, verified: Verified, n_done: int) -> None:
        self._file, self._path, self._verified, self._n_done = file, path, verified, n_done
        self._closing = weakref.finalize(self, file.close)

    @property
    def closed(self) -> bool:
        """True once the file is closed."""
        return not self._file

    def close(self) -> None:
        """Close the file."""
        self._closing()

    def rows(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Activations (rows, features) of the given examples.

        Raises :class:`~manigeo.errors.InputError` where the file is damaged.
        """
        order = np.argsort(rows, kind="stable")
        try:
            dataset = self._file["layers"][layer]
            self._check_once(layer, dataset)
            out = np.empty((len(rows), dataset.shape[1]), dtype=dataset.dtype)
            for start, stop in _spans(rows[order], dataset):
                wanted = order[slice(*np.searchsorted(rows, [start, stop], sorter=order))]
                out[wanted] = dataset[start:stop][rows[wanted] - start]
        except Exception as error:  # damage may raise anything, also MemoryError
            raise InputError(
                f"{self._path}: layer {layer!r} cannot be read ({one_line(error)}); extract it again"
            ) from error
        return out

    def _check_once(self, layer: str, dataset: h5py.Dataset) -> None:
        if layer not in self._verified.layers:
            check_chunks(layer, dataset, self._n_done, self._file.id.get_filesize())
            check_chunk_sum(self._path, layer, dataset)
            self._verified.layers.add(layer)


def _activations(file: h5py.File, path: Path, verified: Verified) -> Activations:
    """Everything that a checked file says of its rows, which stay in it."""
    group = file["examples"]
    columns = {c: group[c].asstr()[:] if c == "split" else group[c][:] for c in EXAMPLE_COLUMNS}
    examples = pd.DataFrame(columns)
    n_done = int(file.attrs.get("n_done", len(examples)))  # files of old have no such attribute
    scoring, outcomes = read_outcomes(file, n_done)
    datasets = dict(layer_datasets(file))
    return Activations(
        examples=examples,
        class_names=tuple(file["classes"].asstr()[:]),
        stored={name: _stored_layer(name, dataset) for name, dataset in datasets.items()},
        dtypes={name: dataset.dtype.name for name, dataset in datasets.items()},
        provenance=json.loads(file.attrs["provenance"]),
        fingerprint=str(file.attrs["fingerprint"]),
        source=StoredRows(file, path, verified, n_done),
        path=path,
        scoring=scoring,
        outcomes=outcomes,
        created=str(file.attrs["created"]),
        manigeo_version=str(file.attrs["manigeo_version"]),
        complete=bool(file.attrs["complete"]),
        n_done=n_done,
        shard=Shard(**json.loads(file.attrs["shard"])) if "shard" in file.attrs else None,
        smallest_batch=int(file.attrs["smallest_batch"]) if "smallest_batch" in file.attrs else None,
        filters={name: filter_of(dataset) for name, dataset in datasets.items()},
    )


def _spans(rows: Int[np.ndarray, " n"], dataset: h5py.Dataset) -> Iterator[tuple[int, int]]:
    """Ranges of rows to read for the ascending ``rows``: runs of the chunks that hold some of them, and no others, each
    once (a point selection decompresses one many times)."""
    size = dataset.chunks[0]
    longest = max(1, _READ_BYTES // (size * row_bytes(dataset)))
    chunks = np.unique(rows // size)
    for run in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):
        for first in range(0, len(run), longest):
            part = run[first : first + longest]
            yield int(part[0]) * size, min((int(part[-1]) + 1) * size, dataset.shape[0])


def _stored_layer(name: str, dataset: h5py.Dataset) -> StoredLayer:
    attrs = dataset.attrs
    return StoredLayer(
        name=name,
        order=int(attrs["order"]),
        module_class=str(attrs["module_class"]),
        call_index=int(attrs["call_index"]),
        feature_shape=tuple(int(n) for n in attrs["feature_shape"]),
        readout=str(attrs["readout"]),
        projection=json.loads(attrs["projection"]),
        aliases=tuple(json.loads(attrs["aliases"])),
    )


def open_activations(path: str | os.PathLike[str]) -> Activations:
    """Open an activation file for reading, for the length of a ``with`` or until it is closed.

    Raises :class:`~manigeo.errors.InputError` where it is missing, no HDF5 file, of another format or version, incomplete,
    a shard of a larger one, or does not match its fingerprint.

    >>> import tempfile
    >>> from manigeo.activations import StoredLayer, create_activations
    >>> columns = {"index": range(4), "split": "test", "true_label": [0, 0, 1, 1], "train_label": [0, 0, 1, 1]}
    >>> examples = pd.DataFrame(columns).assign(permuted=False)
    >>> h1 = StoredLayer("h1", 0, "Linear", 0, (3,), "flatten", None, ())
    >>> path = Path(tempfile.mkdtemp()) / "acts.h5"
    >>> with create_activations(path, examples, ["cat", "dog"], [h1], {}) as writer:
    ...     writer.append({"h1": np.arange(12.0).reshape(4, 3)})
    >>> with open_activations(path) as acts:
    ...     [cloud.tolist() for cloud in acts.manifolds("h1", "test")]
    [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]]]
    """
    activations = inspect_activations(path)
    try:
        _check_complete(Path(path), activations)
        if activations.shard is not None:
            raise InputError(
                f"{path} is shard {activations.shard.number} of {activations.shard.of}: join them with manigeo merge"
            )
    except BaseException:
        activations.close()
        raise
    return activations


@contextmanager
def opened(source: object) -> Iterator[Activations]:
    """Activations as they are, or those of a file, which is closed afterwards; one that was closed is opened again.

    Raises :class:`~manigeo.errors.UsageError` for what is neither, and what :func:`open_activations` does.

    >>> arrays = {"V1": np.random.default_rng(0).normal(size=(4, 10, 8))}
    >>> with opened(Activations.from_arrays(arrays)) as acts:
    ...     acts.layers
    ('V1',)
    """
    if isinstance(source, Activations) and not source.source.closed:
        yield source
        return
    path = source.path if isinstance(source, Activations) else source
    if not isinstance(path, str | os.PathLike):
        raise UsageError(
            f"expected activations or the path of their file, got {type(source).__name__}; arrays become activations with "
            'manigeo.Activations.from_arrays({"V1": X}, labels)'
        )
    with open_activations(path) as acts:
        yield acts


@contextmanager
def open_shard(path: str | os.PathLike[str]) -> Iterator[tuple[Activations, Shard]]:
    """Open one part of an extraction that was divided; raises :class:`~manigeo.errors.InputError` for anything else."""
    with inspect_activations(path) as activations:
        _check_complete(Path(path), activations)
        if activations.shard is None:
            raise InputError(f"{path} is no shard: it is whole, with all its examples")
        yield activations, activations.shard


def inspect_activations(path: str | os.PathLike[str]) -> Activations:
    """Open what there is of an activation file, complete or not, whole or a shard, to tell what it is.

    Where there is no ``path`` but its partial file, or that is asked for, it is as its last commit made it.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(mistaken(path, ACTIVATIONS))
    found = path if path.is_file() else partial_of(path)
    if not found.is_file():
        raise InputError(f"{path} does not exist; write it with manigeo extract")
    if recognized(found) not in (ACTIVATIONS, EMPTY) and not has_commit(found):
        raise InputError(mistaken(found, ACTIVATIONS))
    with readable(found):
        committed = has_commit(found)
        verified = Verified() if committed else _verified(found)
        if not verified.header:
            check_heaps(found)
        file = _opened(CommittedFile(found, writable=False) if committed else found)
    try:
        with readable(found):
            if not verified.header:
                check_header(found, file)
                verified.header = True
            return _activations(file, found, verified)
    except BaseException:
        file.close()
        raise


def _verified(path: Path) -> Verified:
    """Parts of the file that this process has verified as it is now; none while it may change unseen."""
    found = path.stat()
    if time.time() - found.st_mtime < _SETTLED_SECONDS:
        return Verified()
    return _verified_of(os.path.realpath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _verified_of(*state: str | int) -> Verified:
    """Record of the verified parts, keyed by everything that changes with the content of a file."""
    return Verified()


def _opened(source: Path | CommittedFile) -> h5py.File:
    """Open, without a lock where the file system has none (NFS): a file that is whole is not written any more."""
    try:
        return h5py.File(source, "r")
    except BlockingIOError:
        raise
    except OSError as error:
        if "unable to lock" not in str(error):
            raise
        return h5py.File(source, "r", locking=False)


def _check_complete(path: Path, activations: Activations) -> None:
    if not activations.complete or activations.path != path:
        what = f"{activations.path} holds {activations.n_done} of {len(activations.examples)} examples"
        raise InputError(f"{path} is incomplete, an unfinished extraction: {what}; extract it again, with --resume")

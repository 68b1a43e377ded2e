"""Activation files as they are read: examples, layers, point clouds."""

import json
import os
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Int

from manigeo.activations.checking import check_chunks, check_header, check_heaps
from manigeo.activations.filters import filter_of
from manigeo.activations.layout import (
    EXAMPLE_COLUMNS,
    Shard,
    StoredLayer,
    layer_datasets,
    readable,
    row_bytes,
)
from manigeo.activations.scoring import Scores, beyond_classes, kind_scores, n_seen_classes, read_outcomes
from manigeo.activations.streaming import StoredManifolds
from manigeo.activations.sums import check_chunk_sum
from manigeo.errors import InputError, UsageError, one_line
from manigeo.kinds import ALL_KINDS
from manigeo.manifolds import kind_examples, sample_rows
from manigeo.storage.commits import CommittedFile, has_commit, partial_of

_READ_BYTES = 32 << 20  # at a time
HELD_BYTES = 256 << 20  # manifolds above this stay in the file
_SETTLED_SECONDS = 2.0  # a file that changed just now may change again within the same tick of the clock


@dataclass
class Verified:
    """Parts of a file that were verified: its structure with the fingerprint, and the chunks of these layers."""

    header: bool = False
    layers: set[str] = field(default_factory=set)


class Activations:
    """An open activation file; made by :func:`open_activations`, and closed by :meth:`close`, at the end of a ``with``, or
    when nothing refers to it any more.

    ``layers`` in the order of execution, ``kinds`` that have examples, ``examples`` (the table), ``class_names``,
    ``provenance``, ``fingerprint``; ``complete``, ``n_done`` (examples whose rows are written) and ``shard`` tell what of it
    is there. ``scores`` is accuracy, loss and number of examples of each kind, ``unscored`` why there are
    none; ``n_seen_classes`` counts the classes that the network can know.
    """

    def __init__(self, file: h5py.File, path: Path, verified: Verified):
        self._file = file
        self._closing = weakref.finalize(self, file.close)
        self._verified = verified
        self.path = path
        self.provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
        self.fingerprint = str(file.attrs["fingerprint"])
        self.created = str(file.attrs["created"])
        self.manigeo_version = str(file.attrs["manigeo_version"])
        self.class_names: tuple[str, ...] = tuple(file["classes"].asstr()[:])
        group = file["examples"]
        columns = {c: group[c].asstr()[:] if c == "split" else group[c][:] for c in EXAMPLE_COLUMNS}
        self.examples = pd.DataFrame(columns)
        self.complete = bool(file.attrs["complete"])
        self.n_done = int(file.attrs.get("n_done", len(self.examples)))  # files of old have no such attribute
        self.shard = Shard(**json.loads(file.attrs["shard"])) if "shard" in file.attrs else None
        self.smallest_batch = int(file.attrs["smallest_batch"]) if "smallest_batch" in file.attrs else None
        self.filters = {name: filter_of(dataset) for name, dataset in layer_datasets(file)}
        self.dtypes = {name: dataset.dtype.name for name, dataset in layer_datasets(file)}
        self._layers = {name: _stored_layer(name, dataset) for name, dataset in layer_datasets(file)}
        self.scoring, self.outcomes = read_outcomes(file, self.n_done)
        self.n_seen_classes = n_seen_classes(self.examples, len(self.class_names))
        self.unscored = self.scoring.why_not or beyond_classes(self.outcomes, self.scoring, self.n_seen_classes)

    def close(self) -> None:
        """Close the file; manifolds that stay in it cannot be read any more, the tables stay."""
        self._closing()

    def __enter__(self) -> "Activations":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        kinds = ", ".join(self.kinds) or "no kind"
        sizes = f"{len(self.layers)} layers, {len(self.examples)} examples of {len(self.class_names)} classes ({kinds})"
        return f"<Activations {os.fspath(self.path)!r}: {sizes}{'' if self._file else ', closed'}>"

    @property
    def scores(self) -> Scores:
        """Scores of the network on the stored examples, as their output was when they were extracted.

        ``{kind: {"accuracy", "loss", "n"}}`` of every kind but unseen, the loss in nats; empty where the output is not one
        score per class (``unscored`` says why). The accuracy on permuted examples is how far the network has memorized.
        """
        return {} if self.unscored else kind_scores(self.examples[: self.n_done], self.outcomes)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self._layers)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in ALL_KINDS if len(kind_examples(self.examples, kind)[0]))

    def layer(self, name: str) -> StoredLayer:
        """Description of a stored layer; :class:`~manigeo.errors.UsageError` for a name that the file does not have."""
        if name not in self._layers:
            raise UsageError(f"{self.path} has no layer {name!r}; it has {', '.join(self.layers)}")
        return self._layers[name]

    def _dataset(self, layer: str) -> h5py.Dataset:
        self.layer(layer)
        if not self._file:
            raise ValueError(f"{self.path} is closed; use its manifolds while it is open")
        return self._file["layers"][layer]

    def rows(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Activations (rows, features) of the given examples.

        Raises :class:`~manigeo.errors.InputError` where they are NaN or infinite, or the file is damaged.
        """
        dataset = self._dataset(layer)
        order = np.argsort(rows, kind="stable")
        try:
            self._check_once(layer, dataset)
            out = np.empty((len(rows), dataset.shape[1]), dtype=dataset.dtype)
            for start, stop in _spans(rows[order], dataset):
                wanted = order[slice(*np.searchsorted(rows, [start, stop], sorter=order))]
                out[wanted] = dataset[start:stop][rows[wanted] - start]
        except Exception as error:  # damage may raise anything, also MemoryError
            raise InputError(
                f"{self.path}: layer {layer!r} cannot be read ({one_line(error)}); extract it again"
            ) from error
        if not np.isfinite(out).all():
            raise InputError(
                f"{self.path}: layer {layer!r} holds NaN or infinite activations; check the network's inputs"
            )
        return out

    def _check_once(self, layer: str, dataset: h5py.Dataset) -> None:
        if layer not in self._verified.layers:
            check_chunks(layer, dataset, self.n_done, self._file.id.get_filesize())
            check_chunk_sum(self.path, layer, dataset)
            self._verified.layers.add(layer)

    def manifolds(
        self,
        layer: str,
        kind: str,
        per_class: int | None = None,
        seed: int = 0,
        classes: Sequence[int] | None = None,
    ) -> "list[np.ndarray] | StoredManifolds":
        """The point clouds of a layer, one (points, features) array a class: all points, or ``per_class`` sampled; of all
        classes, or of those with the labels ``classes``.

        The same ``seed`` takes the same examples in every layer. Clouds of more than 256 MB together stay in the file and
        are read a few at a time, as they are looked at (:class:`StoredManifolds`); keep it open for these.

        Raises ``ValueError`` for an unknown kind or more points than a class has.
        """
        sampled = list(sample_rows(self.examples, kind, per_class, seed, classes).values())
        dataset = self._dataset(layer)
        if sum(map(len, sampled)) * row_bytes(dataset) > HELD_BYTES:
            return StoredManifolds(partial(self.rows, layer), sampled, dataset.shape[1], row_bytes(dataset))
        return np.split(self.rows(layer, np.concatenate(sampled)), np.cumsum([len(rows) for rows in sampled])[:-1])


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
    found = path if path.is_file() else partial_of(path)
    if not found.is_file():
        raise InputError(f"{path} does not exist; write it with manigeo extract")
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
            return Activations(file, found, verified)
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

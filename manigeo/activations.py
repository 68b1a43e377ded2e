"""``acts.h5``: the contract between a live network and the analysis (format version 1).

::

    /                 attrs: format, format_version, complete, created, manigeo_version, fingerprint, provenance=<JSON>
    /examples/        index, split, true_label, train_label, permuted     one row per example, grouped by true class
    /classes          names
    /layers/<name>    (n_examples, n_features); chunks of whole rows, 256 KiB or less; gzip-1 + shuffle, checksummed
                      attrs: order, module_class, call_index, feature_shape, readout, projection=<JSON or null>, aliases

Images are stored once: the four kinds of :mod:`manigeo.manifolds` are views of the rows by label and mask. A file is
written to ``<path>.partial``, flushed after every batch, and appears under its name when it is whole. A reader refuses
another format version, an incomplete file and a fingerprint that does not match, and says what it found.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Int

from manigeo import __version__
from manigeo.errors import InputError, UsageError
from manigeo.files import check_target, whole_file
from manigeo.manifolds import KINDS, kind_examples, sample_rows

FORMAT = "manigeo-activations"
FORMAT_VERSION = 1
EXAMPLE_COLUMNS = ("index", "split", "true_label", "train_label", "permuted")
# A permuted class has its rows all over the file, and a chunk is read whole: small ones waste less.
_CHUNK_BYTES = 256 << 10
_READ_BYTES = 32 << 20  # at a time
_HELD_BYTES = 256 << 20  # manifolds above this stay in the file,
_BATCH_BYTES = 32 << 20  # and so much of them is held at a time, and as much read ahead
# Where a file lies and how it was asked for does not change what is in it.
_NOT_IDENTITY = ("argv", "model")


@dataclass(frozen=True)
class StoredLayer:
    """A layer of the file: its place in the order of execution and what a row of it is."""

    name: str
    order: int
    module_class: str
    call_index: int
    feature_shape: tuple[int, ...]
    readout: str
    projection: Mapping[str, Any] | None
    aliases: tuple[str, ...]

    @property
    def n_features(self) -> int:
        return int(np.prod(self.feature_shape, dtype=np.int64))


def _fingerprint(file: h5py.File) -> str:
    """SHA-256 over everything that identifies the activations: provenance, examples, classes, layers."""
    provenance = json.loads(file.attrs["provenance"])
    layers = {
        name: {key: _plain(value) for key, value in sorted(dataset.attrs.items())} | {"shape": list(dataset.shape)}
        for name, dataset in _layer_datasets(file)
    }
    identity = {key: value for key, value in provenance.items() if key not in _NOT_IDENTITY}
    digest = hashlib.sha256(json.dumps([identity, layers], sort_keys=True).encode())
    for column in EXAMPLE_COLUMNS:
        values = file["examples"][column]
        digest.update(np.ascontiguousarray(values.asstr()[:].astype("U") if column == "split" else values[:]).tobytes())
    digest.update(json.dumps(list(file["classes"].asstr()[:])).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _layer_datasets(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []
    file["layers"].visititems(lambda name, node: found.append((name, node)) if isinstance(node, h5py.Dataset) else None)
    return sorted(found, key=lambda item: int(item[1].attrs["order"]))


# ---------------------------------------------------------------------------------------------------------- writing
class ActivationWriter:
    """Appends batches of rows, the same rows for every layer; made by :func:`create_activations`."""

    def __init__(self, file: h5py.File, layers: Sequence[StoredLayer], n_examples: int, dtype: str):
        self._file = file
        self._datasets = {layer.name: _create_layer(file, layer, n_examples, dtype) for layer in layers}
        self._n_examples = n_examples
        self.n_done = 0

    def append(self, batch: Mapping[str, np.ndarray]) -> None:
        """Write one batch, ``{layer: (rows, ...)}``, behind the last one, and flush it to disk."""
        if batch.keys() != self._datasets.keys():
            raise ValueError(f"a batch holds {sorted(self._datasets)}, got {sorted(batch)}")
        (n,) = {len(values) for values in batch.values()}
        for name, values in batch.items():
            self._datasets[name][self.n_done : self.n_done + n] = values.reshape(n, -1)
        self._file.flush()  # without it a killed writer leaves a file that nothing can read
        self.n_done += n

    def finish(self) -> None:
        if self.n_done != self._n_examples:
            raise ValueError(f"{self.n_done} of {self._n_examples} examples were written")
        self._file.attrs["fingerprint"] = _fingerprint(self._file)
        self._file.attrs["complete"] = True


def _create_layer(file: h5py.File, layer: StoredLayer, n_examples: int, dtype: str) -> h5py.Dataset:
    row_bytes = max(1, layer.n_features * np.dtype(dtype).itemsize)
    dataset = file["layers"].create_dataset(
        layer.name,
        shape=(n_examples, layer.n_features),
        dtype=dtype,
        chunks=(int(np.clip(_CHUNK_BYTES // row_bytes, 1, n_examples)), layer.n_features),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,  # a flipped bit becomes an error, not a number
    )
    dataset.attrs["order"] = layer.order
    dataset.attrs["module_class"] = layer.module_class
    dataset.attrs["call_index"] = layer.call_index
    dataset.attrs["feature_shape"] = np.array(layer.feature_shape, dtype=np.int64)
    dataset.attrs["readout"] = layer.readout
    dataset.attrs["projection"] = json.dumps(layer.projection)
    dataset.attrs["aliases"] = json.dumps(layer.aliases)
    return dataset


@contextmanager
def create_activations(
    path: str | os.PathLike[str],
    examples: pd.DataFrame,
    class_names: Sequence[str],
    layers: Sequence[StoredLayer],
    provenance: Mapping[str, Any],
    *,
    dtype: str = "float32",
    force: bool = False,
) -> Iterator[ActivationWriter]:
    """Write an activation file; it appears under ``path`` only if the block ends and every row was written.

    ``examples`` are sorted by true class already, in the order in which batches will come. On an error, or an interrupt,
    nothing is left behind.

    Raises :class:`~manigeo.errors.UsageError` where ``path`` exists and ``force`` is not given.
    """
    _check_names(layers)
    with (
        whole_file(check_target(path, force=force)) as partial,
        h5py.File(partial, "w", track_order=True) as file,
    ):
        _write_header(file, examples, class_names, provenance)
        writer = ActivationWriter(file, layers, len(examples), dtype)
        yield writer
        writer.finish()


def _check_names(layers: Sequence[StoredLayer]) -> None:
    """In HDF5 ``a/b`` lies in the group ``a``, which therefore cannot be a data set."""
    names = {layer.name for layer in layers}
    clashes = sorted(name for name in names if any(other.startswith(f"{name}/") for other in names))
    if clashes:
        raise UsageError(f"layers {clashes} and layers below them cannot be stored together; --exclude one of them")


def _write_header(
    file: h5py.File, examples: pd.DataFrame, class_names: Sequence[str], provenance: Mapping[str, Any]
) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["complete"] = False
    file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    file.attrs["manigeo_version"] = __version__
    file.attrs["provenance"] = json.dumps(provenance, sort_keys=True)
    group = file.create_group("examples")
    for column in EXAMPLE_COLUMNS:
        values = examples[column].to_numpy()
        group.create_dataset(column, data=values.astype(h5py.string_dtype()) if column == "split" else values)
    file.create_dataset("classes", data=np.array(class_names, dtype=object), dtype=h5py.string_dtype())
    file.create_group("layers", track_order=True)


# ---------------------------------------------------------------------------------------------------------- reading
class Activations:
    """An open activation file; made by :func:`open_activations`.

    ``layers`` in the order of execution, ``kinds`` that have examples, ``examples`` (the table), ``class_names``,
    ``provenance``, ``fingerprint``.
    """

    def __init__(self, file: h5py.File):
        self._file = file
        self.path = Path(file.filename)
        self.provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
        self.fingerprint = str(file.attrs["fingerprint"])
        self.created = str(file.attrs["created"])
        self.manigeo_version = str(file.attrs["manigeo_version"])
        self.class_names: tuple[str, ...] = tuple(file["classes"].asstr()[:])
        group = file["examples"]
        columns = {c: group[c].asstr()[:] if c == "split" else group[c][:] for c in EXAMPLE_COLUMNS}
        self.examples = pd.DataFrame(columns)
        self._layers = {name: _stored_layer(name, dataset) for name, dataset in _layer_datasets(file)}

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self._layers)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if len(kind_examples(self.examples, kind)[0]))

    def layer(self, name: str) -> StoredLayer:
        """What is stored of a layer; :class:`~manigeo.errors.UsageError` for a name that the file does not have."""
        if name not in self._layers:
            raise UsageError(f"{self.path} has no layer {name!r}; it has {', '.join(self.layers)}")
        return self._layers[name]

    def rows(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Activations (rows, features) of the given examples.

        Raises :class:`~manigeo.errors.InputError` where they are NaN or infinite, or the file is damaged.
        """
        self.layer(layer)
        if not self._file:
            raise ValueError(f"{self.path} is closed; use its manifolds while it is open")
        dataset = self._file["layers"][layer]
        out = np.empty((len(rows), dataset.shape[1]), dtype=dataset.dtype)
        order = np.argsort(rows, kind="stable")
        try:
            for start, stop in _spans(rows[order], dataset):
                wanted = order[slice(*np.searchsorted(rows, [start, stop], sorter=order))]
                out[wanted] = dataset[start:stop][rows[wanted] - start]
        except OSError as error:
            raise InputError(f"{self.path}: layer {layer!r} cannot be read ({error}); extract it again") from error
        if not np.isfinite(out).all():
            raise InputError(
                f"{self.path}: layer {layer!r} holds NaN or infinite activations; check the network's inputs"
            )
        return out

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
        dataset = self._file["layers"][self.layer(layer).name]
        if sum(map(len, sampled)) * _row_bytes(dataset) > _HELD_BYTES:
            return StoredManifolds(self, layer, sampled, _row_bytes(dataset))
        return np.split(self.rows(layer, np.concatenate(sampled)), np.cumsum([len(rows) for rows in sampled])[:-1])


def _row_bytes(dataset: h5py.Dataset) -> int:
    return max(1, dataset.shape[1] * dataset.dtype.itemsize)


def _spans(rows: Int[np.ndarray, " n"], dataset: h5py.Dataset) -> Iterator[tuple[int, int]]:
    """From where to where to read for the ascending ``rows``: runs of the chunks that hold some of them, and no others,
    each once (a point selection decompresses one many times)."""
    size = dataset.chunks[0]
    longest = max(1, _READ_BYTES // (size * _row_bytes(dataset)))
    chunks = np.unique(rows // size)
    for run in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):
        for first in range(0, len(run), longest):
            part = run[first : first + longest]
            yield int(part[0]) * size, min((int(part[-1]) + 1) * size, dataset.shape[0])


class StoredManifolds(Sequence):  # unsubscripted: a type check of its elements would read the file
    """Point clouds that stay in the file: several consecutive ones are read together, and held until others are.

    Walking through them in order reads each row once, a batch ahead in a thread of its own (reading leaves Python free to
    compute), and holds two batches of 32 MB, or two manifolds if those are more.
    """

    def __init__(self, acts: Activations, layer: str, rows: Sequence[np.ndarray], row_bytes: int):
        self._acts, self._layer, self._rows = acts, layer, rows
        self._n_features = acts.layer(layer).n_features
        self._batches = _batches([len(r) * row_bytes for r in rows])
        self._held: tuple[range, list[np.ndarray]] = range(0), []
        self._ahead: tuple[range, Future[list[np.ndarray]] | None] = range(0), None
        self._reader = ThreadPoolExecutor(max_workers=1)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the point clouds, without reading them."""
        return [(len(rows), self._n_features) for rows in self._rows]

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        if i not in self._held[0]:
            self._hold(next(number for number, batch in enumerate(self._batches) if i in batch))
        batch, clouds = self._held
        return clouds[i - batch.start]

    def _hold(self, number: int) -> None:
        batch, (ahead, future) = self._batches[number], self._ahead
        self._held, self._ahead = (range(0), []), (range(0), None)  # first let go, then read
        self._held = batch, future.result() if future and ahead == batch else self._read(batch)
        if number + 1 < len(self._batches):
            following = self._batches[number + 1]
            self._ahead = following, self._reader.submit(self._read, following)

    def _read(self, batch: range) -> list[np.ndarray]:
        rows = [self._rows[i] for i in batch]
        return np.split(self._acts.rows(self._layer, np.concatenate(rows)), np.cumsum([len(r) for r in rows])[:-1])


def _batches(sizes: Sequence[int]) -> list[range]:
    """Consecutive manifolds, as many as fit a batch, at least one."""
    batches: list[range] = []
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and total + size > _BATCH_BYTES:
            batches.append(range(start, i))
            start, total = i, 0
        total += size
    return [*batches, range(start, len(sizes))]


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


@contextmanager
def open_activations(path: str | os.PathLike[str]) -> Iterator[Activations]:
    """Open an activation file for reading.

    Raises :class:`~manigeo.errors.InputError` where it is missing, no HDF5 file, of another format or version, incomplete,
    or does not match its fingerprint.
    """
    path = Path(path)
    if not path.is_file():
        partial = path.with_name(path.name + ".partial")
        hint = f"{partial} is an unfinished extraction" if partial.exists() else "write it with manigeo extract"
        raise InputError(f"{path} does not exist; {hint}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} cannot be opened as HDF5 ({error}); extract it again") from error
    with file:
        try:
            _check_header(path, file)
            activations = Activations(file)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OSError) as error:
            raise InputError(f"{path} is damaged: {error}; extract it again") from error
        yield activations


def _check_header(path: Path, file: h5py.File) -> None:
    found = file.attrs.get("format")
    if found != FORMAT:
        raise InputError(f"{path} is not an activation file: format {FORMAT!r} was expected, found {found!r}")
    found_version = file.attrs.get("format_version")
    if found_version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {found_version}, this program reads version {FORMAT_VERSION}")
    if not file.attrs.get("complete", False):
        raise InputError(f"{path} is incomplete: its extraction did not end; extract it again")
    expected, actual = str(file.attrs.get("fingerprint")), _fingerprint(file)
    if expected != actual:
        raise InputError(
            f"{path} was changed after it was written: fingerprint {actual[:12]} does not match the stored {expected[:12]}"
        )

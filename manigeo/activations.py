"""``acts.h5``: the contract between a live network and the analysis (format version 1).

::

    /                 attrs: format, format_version, complete, n_done, created, manigeo_version, fingerprint,
                             provenance=<JSON>; of a shard also shard=<JSON>
    /examples/        index, split, true_label, train_label, permuted     one row per example, grouped by true class
    /classes          names
    /layers/<name>    (n_examples, n_features); chunks of whole rows, 256 KiB or less; checksummed; gzip-1 + shuffle,
                      but for projected layers
                      attrs: order, module_class, call_index, feature_shape, readout, projection=<JSON or null>, aliases
    /example, /class, /features_<n>                                       the dimensions' names, for h5ls and xarray

Images are stored once: the four kinds of :mod:`manigeo.manifolds` are views of the rows by label and mask. A file is
written to ``<path>.partial``, batch by batch, and appears under its name when it is whole; a killed writer leaves what it
had committed (:mod:`manigeo.commits`), and the next goes on there. Each batch opens the file, writes and closes it, so
that its bytes follow from those before and the batch alone: a resumed file is the same, byte for byte. A reader refuses
another format version, an incomplete file, a shard and a fingerprint that does not match, and says what it found.
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Int

from manigeo import __version__
from manigeo.commits import CommittedFile, has_commit, partial_of
from manigeo.errors import InputError, ManigeoError, UsageError
from manigeo.files import check_target
from manigeo.manifolds import KINDS, kind_examples, sample_rows

FORMAT = "manigeo-activations"
FORMAT_VERSION = 1
EXAMPLE_COLUMNS = ("index", "split", "true_label", "train_label", "permuted")
LAYER_ATTRS = ("order", "module_class", "call_index", "feature_shape", "readout", "projection", "aliases")
DTYPES = ("float32", "float16")
# A permuted class has its rows all over the file, and a chunk is read whole: small ones waste less.
_CHUNK_BYTES = 256 << 10
_READ_BYTES = 32 << 20  # at a time
_HELD_BYTES = 256 << 20  # manifolds above this stay in the file,
_BATCH_BYTES = 32 << 20  # and so much of them is held at a time, and as much read ahead
# Where a file lies and how it was asked for does not change what is in it.
_NOT_IDENTITY = ("argv", "model")
_COMMIT_SECONDS, _COMMIT_WRITES = 1.0, 1000  # a commit waits for the disk (20 ms): one for several small batches


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


@dataclass(frozen=True)
class Shard:
    """Which part of a whole extraction a file is: its rows from ``start`` on, and the whole's size and fingerprint."""

    number: int  # 1 ... of
    of: int
    start: int
    n_examples: int
    whole: str


def _fingerprint(file: h5py.File) -> str:
    """SHA-256 over everything that identifies the activations: provenance, examples, classes, layers."""
    provenance = json.loads(file.attrs["provenance"])
    layers = {
        name: {key: _plain(dataset.attrs[key]) for key in LAYER_ATTRS} | {"shape": list(dataset.shape)}
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
    """Appends batches of rows, the same rows for every layer; made by :func:`create_activations`.

    ``n_done`` rows are there already: more than 0 where an interrupted extraction goes on.
    """

    def __init__(self, store: CommittedFile):
        self._store = store
        with h5py.File(store, "r") as file:
            self._dtypes = {name: dataset.dtype for name, dataset in _layer_datasets(file)}
            self._n_examples = len(file["examples/index"])
            self.n_done = int(file.attrs["n_done"])
        self._between_batches, self._committed_at = True, time.monotonic()

    def append(self, batch: Mapping[str, np.ndarray]) -> None:
        """Write one batch, ``{layer: (rows, ...)}``, behind the last one.

        Raises :class:`~manigeo.errors.InputError` for activations that the dtype of the file cannot hold.
        """
        if batch.keys() != self._dtypes.keys():
            raise ValueError(f"a batch holds {sorted(self._dtypes)}, got {sorted(batch)}")
        (n,) = {len(values) for values in batch.values()}
        stop = self.n_done + n
        stored = {
            name: _as_stored(name, values.reshape(n, -1), self._dtypes[name], first=self.n_done == 0)
            for name, values in batch.items()
        }
        self._between_batches = False
        with h5py.File(self._store, "r+") as file:
            for name, values in stored.items():
                file["layers"][name][self.n_done : stop] = values
            file.attrs.modify("n_done", stop)  # in place: setting it would make another
        self.n_done, self._between_batches = stop, True
        if self._store.n_held > _COMMIT_WRITES or time.monotonic() > self._committed_at + _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """From here an extraction goes on that is killed later; an interrupted batch is done again."""
        if self._between_batches:
            self._store.commit()
            self._committed_at = time.monotonic()

    def remark(self, name: str, value: Any) -> None:
        """Set an attribute of the file beside its provenance."""
        with h5py.File(self._store, "r+") as file:
            file.attrs[name] = value

    def finish(self) -> None:
        if self.n_done != self._n_examples:
            raise ValueError(f"{self.n_done} of {self._n_examples} examples were written")
        self.commit()
        with h5py.File(self._store, "r+") as file:
            file.attrs.modify("complete", True)
        self.commit()  # by itself: everything else is in its place before the file says so


def _as_stored(name: str, values: np.ndarray, dtype: np.dtype, *, first: bool) -> np.ndarray:
    """The values in the dtype of the file, which may hold less than float32; that a layer is too small its ``first`` batch
    shows, while one small example among others is just rounded."""
    if dtype.itemsize >= values.dtype.itemsize:
        return values
    limits, largest = np.finfo(dtype), float(np.abs(values).max(initial=0.0))
    smallest_normal, highest = float(limits.tiny), float(limits.max)
    if largest > highest or (first and 0 < largest < smallest_normal):
        raise InputError(
            f"layer {name!r} reaches {largest:.3g}, and {dtype} holds {smallest_normal:.2g} to {highest:.5g}: store float32 "
            "(--dtype float32)"
        )
    return values.astype(dtype)


def _create_layer(
    file: h5py.File, layer: StoredLayer, n_examples: int, dtype: str, batch_size: int | None
) -> h5py.Dataset:
    row_bytes = max(1, layer.n_features * np.dtype(dtype).itemsize)
    dataset = file["layers"].create_dataset(
        layer.name,
        shape=(n_examples, layer.n_features),
        dtype=dtype,
        chunks=(_chunk_rows(row_bytes, n_examples, batch_size), layer.n_features),
        fletcher32=True,  # a flipped bit becomes an error, not a number
        # sums of random signs are noise to gzip, which would take a fifth off and longer than a network's forward pass
        **({} if layer.projection else {"compression": "gzip", "compression_opts": 1, "shuffle": True}),
    )
    dataset.attrs["order"] = layer.order
    dataset.attrs["module_class"] = layer.module_class
    dataset.attrs["call_index"] = layer.call_index
    dataset.attrs["feature_shape"] = np.array(layer.feature_shape, dtype=np.int64)
    dataset.attrs["readout"] = layer.readout
    dataset.attrs["projection"] = json.dumps(layer.projection)
    dataset.attrs["aliases"] = json.dumps(layer.aliases)
    return dataset


def _chunk_rows(row_bytes: int, n_examples: int, batch_size: int | None) -> int:
    """Rows of a chunk. One that two batches share is written twice and leaves a hole: rather an even share of a batch."""
    most = int(np.clip(_CHUNK_BYTES // row_bytes, 1, n_examples))
    if batch_size is None:
        return most
    most = min(most, batch_size)
    even = max(rows for rows in range(1, most + 1) if batch_size % rows == 0)
    return even if 2 * even >= most else most


@contextmanager
def create_activations(
    path: str | os.PathLike[str],
    examples: pd.DataFrame,
    class_names: Sequence[str],
    layers: Sequence[StoredLayer],
    provenance: Mapping[str, Any],
    *,
    dtype: str = "float32",
    batch_size: int | None = None,
    shard: Shard | None = None,
    force: bool = False,
    resume: bool = False,
) -> Iterator[ActivationWriter]:
    """Write an activation file; it appears under ``path`` only if the block ends and every row was written.

    ``examples`` are sorted by true class already, in the order in which batches will come, of ``batch_size`` if that is
    known. After a kill, an interrupt, or a failure of the machine, ``<path>.partial`` keeps the batches that were written;
    with ``resume`` the writer goes on there, or begins where there is nothing. Activations that cannot be stored, and a
    failure before the first batch, leave nothing behind.

    Raises :class:`~manigeo.errors.UsageError` where ``path`` exists and ``force`` is not given, and where there is an
    interrupted extraction and neither ``resume`` nor ``force`` says what to do with it, or it is of something else.
    """
    _check_names(layers)
    if dtype not in DTYPES:
        raise UsageError(f"activations are stored as {' or '.join(DTYPES)}, got {dtype!r}")
    header = _Header(examples, class_names, layers, provenance, dtype, batch_size, shard)
    path = check_target(path, force=force)
    with _begin(partial_of(path), header, force=force, resume=resume) as store:
        writer = ActivationWriter(store)
        try:
            yield writer
            writer.finish()
        except BaseException as error:
            if writer.n_done == 0 or isinstance(error, (ManigeoError, ValueError)):
                store.remove()
            else:
                writer.commit()
            raise
        store.move(path)


def identity_of(
    examples: pd.DataFrame, class_names: Sequence[str], layers: Sequence[StoredLayer], provenance: Mapping[str, Any]
) -> str:
    """The fingerprint that a file of these would have."""
    with h5py.File(io.BytesIO(), "w") as file:
        _Header(examples, class_names, layers, provenance).write(file)
        return str(file.attrs["fingerprint"])


def _begin(partial: Path, header: "_Header", *, force: bool, resume: bool) -> CommittedFile:
    """The partial file with its header, or, with ``resume``, that of an interrupted extraction of the same."""
    begun = has_commit(partial)
    if begun and not (resume or force):
        raise UsageError(f"{partial} is an interrupted extraction: --resume goes on with it, --force begins anew")
    store = CommittedFile(partial)
    go_on = begun and resume
    try:
        _check_same(partial, store, header) if go_on else _write_anew(store, header)
    except BaseException:
        store.close() if go_on else store.remove()
        raise
    return store


def _write_anew(store: CommittedFile, header: "_Header") -> None:
    store.clear()
    with h5py.File(store, "w", track_order=True) as file:
        header.write(file)
    store.commit()


def _check_same(partial: Path, store: CommittedFile, header: "_Header") -> None:
    """Raise :class:`~manigeo.errors.InputError` unless the partial file has this very header."""
    with h5py.File(io.BytesIO(), "w") as asked, _readable(partial), h5py.File(store, "r") as begun:
        header.write(asked)
        _check_header(partial, begun)
        same = all(_identity(asked)[key] == value for key, value in _identity(begun).items())
        differing = _differences(*(json.loads(file.attrs["provenance"]) for file in (begun, asked)))
    if not same:
        raise InputError(
            f"{partial} was begun with other settings ({differing or 'other examples or layers'}): repeat the command it "
            "was begun with, or --force begins anew"
        )


def _identity(file: h5py.File) -> dict[str, Any]:
    dtypes = [dataset.dtype for _, dataset in _layer_datasets(file)]
    return {"fingerprint": file.attrs["fingerprint"], "shard": file.attrs.get("shard"), "dtypes": dtypes}


def _differences(begun: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    keys = sorted((begun.keys() | asked.keys()) - set(_NOT_IDENTITY))
    differing = [key for key in keys if begun.get(key) != asked.get(key)]
    return "; ".join(f"{key} {begun.get(key)}, now {asked.get(key)}" for key in differing)


def _check_names(layers: Sequence[StoredLayer]) -> None:
    """In HDF5 ``a/b`` lies in the group ``a``, which therefore cannot be a data set."""
    names = {layer.name for layer in layers}
    clashes = sorted(name for name in names if any(other.startswith(f"{name}/") for other in names))
    if clashes:
        raise UsageError(f"layers {clashes} and layers below them cannot be stored together; --exclude one of them")


@dataclass(frozen=True)
class _Header:
    """All of a file but its rows."""

    examples: pd.DataFrame
    class_names: Sequence[str]
    layers: Sequence[StoredLayer]
    provenance: Mapping[str, Any]
    dtype: str = "float32"
    batch_size: int | None = None
    shard: Shard | None = None

    def write(self, file: h5py.File) -> None:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["complete"] = False
        file.attrs["n_done"] = 0
        file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        file.attrs["manigeo_version"] = __version__
        file.attrs["provenance"] = json.dumps(self.provenance, sort_keys=True)
        if self.shard is not None:
            file.attrs["shard"] = json.dumps(asdict(self.shard))
        group = file.create_group("examples")
        for column in EXAMPLE_COLUMNS:
            values = self.examples[column].to_numpy()
            group.create_dataset(column, data=values.astype(h5py.string_dtype()) if column == "split" else values)
        file.create_dataset("classes", data=np.array(self.class_names, dtype=object), dtype=h5py.string_dtype())
        file.create_group("layers", track_order=True)
        for layer in self.layers:
            _create_layer(file, layer, len(self.examples), self.dtype, self.batch_size)
        _name_dimensions(file)
        file.attrs["fingerprint"] = _fingerprint(file)


def _name_dimensions(file: h5py.File) -> None:
    """Dimension scales without values, as netCDF has them; they take no room."""
    named: list[tuple[h5py.Dataset, tuple[str, ...]]] = [(file["classes"], ("class",))]
    named += [(file["examples"][column], ("example",)) for column in EXAMPLE_COLUMNS]
    named += [(dataset, ("example", f"features_{dataset.shape[1]}")) for _, dataset in _layer_datasets(file)]
    for dataset, names in named:
        for axis, (name, size) in enumerate(zip(names, dataset.shape, strict=True)):
            if name not in file:
                scale = file.create_dataset(name, shape=(size,), dtype=">f4")
                scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{size:10d}")
            dataset.dims[axis].attach_scale(file[name])


# ---------------------------------------------------------------------------------------------------------- reading
class Activations:
    """An open activation file; made by :func:`open_activations`.

    ``layers`` in the order of execution, ``kinds`` that have examples, ``examples`` (the table), ``class_names``,
    ``provenance``, ``fingerprint``; ``complete``, ``n_done`` (examples whose rows are written) and ``shard`` say what of it
    is there.
    """

    def __init__(self, file: h5py.File, path: Path):
        self._file = file
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
        self.dtypes = {name: dataset.dtype.name for name, dataset in _layer_datasets(file)}
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
    a shard of a larger one, or does not match its fingerprint.
    """
    with inspect_activations(path) as activations:
        _check_complete(Path(path), activations)
        if activations.shard is not None:
            raise InputError(
                f"{path} is shard {activations.shard.number} of {activations.shard.of}: join them with manigeo merge"
            )
        yield activations


@contextmanager
def open_shard(path: str | os.PathLike[str]) -> Iterator[tuple[Activations, Shard]]:
    """Open one part of an extraction that was divided; raises :class:`~manigeo.errors.InputError` for anything else."""
    with inspect_activations(path) as activations:
        _check_complete(Path(path), activations)
        if activations.shard is None:
            raise InputError(f"{path} is no shard: it is whole, with all its examples")
        yield activations, activations.shard


@contextmanager
def inspect_activations(path: str | os.PathLike[str]) -> Iterator[Activations]:
    """Open what there is of an activation file, complete or not, whole or a shard, to say what it is.

    Where there is no ``path`` but its partial file, or that is asked for, it is as its last commit made it.
    """
    path = Path(path)
    found = path if path.is_file() else partial_of(path)
    if not found.is_file():
        raise InputError(f"{path} does not exist; write it with manigeo extract")
    with _readable(found):
        source = CommittedFile(found, writable=False) if has_commit(found) else found
        file = h5py.File(source, "r")
    with file:
        with _readable(found):
            _check_header(found, file)
            activations = Activations(file, found)
        yield activations


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What a file that is not as it was written makes of reading it, as one line."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {error}; extract it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened as HDF5 ({error}); extract it again") from error


def _check_header(path: Path, file: h5py.File) -> None:
    found = file.attrs.get("format")
    if found != FORMAT:
        raise InputError(f"{path} is not an activation file: format {FORMAT!r} was expected, found {found!r}")
    found_version = file.attrs.get("format_version")
    if found_version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {found_version}, this program reads version {FORMAT_VERSION}")
    expected, actual = str(file.attrs.get("fingerprint")), _fingerprint(file)
    if expected != actual:
        raise InputError(
            f"{path} was changed after it was written: fingerprint {actual[:12]} does not match the stored {expected[:12]}"
        )


def _check_complete(path: Path, activations: Activations) -> None:
    if not activations.complete or activations.path != path:
        what = f"{activations.path} holds {activations.n_done} of {len(activations.examples)} examples"
        raise InputError(f"{path} is incomplete, an unfinished extraction: {what}; extract it again, with --resume")

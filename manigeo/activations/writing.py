"""Activation files as they are written: batch by batch, resumable, whole or in shards."""

import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from manigeo import __version__
from manigeo.activations.checking import check_header, check_heaps
from manigeo.activations.filters import DEFAULT, NONE, Filter, filter_of, write_batch
from manigeo.activations.layout import (
    DTYPES,
    EXAMPLE_COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    NOT_IDENTITY,
    Shard,
    StoredLayer,
    as_stored,
    fingerprint_of,
    layer_attrs,
    layer_datasets,
    readable,
)
from manigeo.activations.scoring import PLACE, UNSCORED, Scoring, create_outcomes
from manigeo.activations.sums import CHUNKS, chunk_sum, continued, create_sums, read_sums, summed, write_sums
from manigeo.errors import InputError, ManigeoError, UsageError
from manigeo.storage.ceilings import MOST_CLASSES, MOST_LAYERS
from manigeo.storage.commits import CommittedFile, has_commit, partial_of
from manigeo.storage.files import check_target

# A permuted class has its rows all over the file, and a chunk is read whole: small ones waste less.
_CHUNK_BYTES = 256 << 10
LIBVER = "v110", "v110"  # of HDF5 from 2016 on: the first whose indices and headers have checksums
_COMMIT_SECONDS, _COMMIT_WRITES = 1.0, 1000  # a commit waits for the disk (20 ms): one for several small batches


class ActivationWriter:
    """Writer that appends batches of rows, the same rows for every layer; made by :func:`create_activations`.

    ``n_done`` rows are there already: more than 0 where an interrupted extraction goes on.
    """

    def __init__(self, store: CommittedFile):
        self._store = store
        with h5py.File(store, "r") as file:
            layers = dict(layer_datasets(file))
            self._dtypes = {name: dataset.dtype for name, dataset in layers.items()}
            self._filters = {name: filter_of(dataset) for name, dataset in layers.items()}
            self._chunk_rows = {dataset.chunks[0] for dataset in layers.values()}
            self._n_examples = len(file["examples/index"])
            self.n_done = int(file.attrs["n_done"])
            self._sums = read_sums(file)
        self._file: h5py.File | None = None
        self._layers: dict[str, h5py.Dataset] = {}  # of the open file
        self._between_batches, self._committed_at = True, time.monotonic()

    def append(self, batch: Mapping[str, np.ndarray], outcomes: np.ndarray | None = None) -> None:
        """Write one batch, ``{layer: (rows, ...)}``, behind the last one, and what the output said of each example
        (:mod:`manigeo.activations.scoring`) where the file is to hold that.

        Raises :class:`~manigeo.errors.InputError` for activations that the dtype of the file cannot hold.
        """
        if batch.keys() != self._dtypes.keys():
            raise ValueError(f"a batch holds {sorted(self._dtypes)}, got {sorted(batch)}")
        (n,) = {len(values) for values in batch.values()}
        stop = self.n_done + n
        stored = {
            name: as_stored(name, values.reshape(n, -1), self._dtypes[name], first=self.n_done == 0)
            for name, values in batch.items()
        }
        rows = {**stored, **({} if outcomes is None else {PLACE: np.asarray(outcomes, np.float32)})}
        sums = {
            name: continued(before, rows[name], rows[name].dtype) for name, before in self._sums.items() if name in rows
        }
        self._between_batches = False
        with self._edited() as file:
            self._layers = self._layers or {name: file["layers"][name] for name in self._dtypes}
            write_batch(self._layers, self.n_done, stored, self._filters)
            if outcomes is not None:
                file[PLACE][self.n_done : stop] = outcomes
            write_sums(file, self._sums | sums)
            file.attrs.modify("n_done", stop)  # in place: setting it would make another
        if any(row % size for row in (self.n_done, stop) for size in self._chunk_rows):
            self.close()  # batches that share a chunk leave a hole, which a file would fill if no commit had closed it
        self.n_done, self._between_batches, self._sums = stop, True, self._sums | sums
        if self._store.n_held > _COMMIT_WRITES or time.monotonic() > self._committed_at + _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Commit, so that an extraction that is killed later goes on from here; an interrupted batch is done again."""
        if self._between_batches:
            self.close()  # only so is what HDF5 has written a file
            self._store.commit()
            self._committed_at = time.monotonic()

    def remark(self, name: str, value: Any) -> None:
        """Set an attribute of the file beside its provenance."""
        with self._edited() as file:
            file.attrs[name] = value

    def finish(self) -> None:
        if self.n_done != self._n_examples:
            raise ValueError(f"{self.n_done} of {self._n_examples} examples were written")
        self.close()
        with self._edited() as file:
            chunk_sums = {name: chunk_sum(dataset, self._store) for name, dataset in summed(file).items()}
            write_sums(file, chunk_sums, CHUNKS)
        self.commit()
        with self._edited() as file:
            file.attrs.modify("complete", True)
        self.commit()  # by itself: everything else is in its place before the file says so

    def close(self) -> None:
        """Close the file, so that the store has what it is; the next change opens it again."""
        file, self._file, self._layers = self._file, None, {}
        if file is not None:
            file.close()

    @contextmanager
    def _edited(self) -> Iterator[h5py.File]:
        """The file for one change, after which it stays open for the next: to open it takes longer than a small batch."""
        if self._file is None:
            self._file = h5py.File(self._store, "r+", libver=LIBVER)
        with _told(self._store):
            yield self._file


@contextmanager
def _told(store: CommittedFile) -> Iterator[None]:
    """Raise what a write within the block has failed with, rather than what came of it."""
    try:
        yield
    finally:
        store.check()


def _create_layer(
    file: h5py.File, layer: StoredLayer, n_examples: int, dtype: str, batch_size: int | None, by: Filter
) -> h5py.Dataset:
    row_bytes = max(1, layer.n_features * np.dtype(dtype).itemsize)
    dataset = file["layers"].create_dataset(
        layer.name,
        shape=(n_examples, layer.n_features),
        dtype=dtype,
        chunks=(_chunk_rows(row_bytes, n_examples, batch_size), layer.n_features),
        fletcher32=True,  # a flipped bit becomes an error, not a number
        **by.settings,
    )
    dataset.attrs["packed_by"] = by.method
    for name, value in layer_attrs(layer).items():
        dataset.attrs[name] = value
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
    scoring: Scoring = UNSCORED,
    filters: Mapping[str, Filter] | None = None,
    force: bool = False,
    resume: bool = False,
) -> Iterator[ActivationWriter]:
    """Write an activation file; it appears under ``path`` only if the block ends and every row was written.

    ``examples`` (one row per example; columns ``index``, ``split``, ``true_label``, ``train_label``, ``permuted``) are
    sorted by true class already, in the order in which batches will come, of ``batch_size`` if that is known; labels
    are positions in ``class_names``. ``layers`` describe the features; ``provenance`` (JSON) is stored as it is. After
    a kill, an interrupt, or a failure of the machine, ``<path>.partial`` keeps the batches that were written; with
    ``resume`` the writer goes on there, or begins where there is nothing. Activations that cannot be stored, and a
    failure before the first batch, leave nothing behind. ``scoring`` tells whether batches come with their outcomes,
    ``filters`` how layers are compressed (:mod:`manigeo.activations.filters`).

    Raises :class:`~manigeo.errors.UsageError` where ``path`` exists and ``force`` is not given, and where there is an
    interrupted extraction and neither ``resume`` nor ``force`` tells what to do with it, or it is of something else.

    >>> import tempfile
    >>> columns = {"index": [0, 1], "split": "test", "true_label": [0, 1], "train_label": [0, 1], "permuted": False}
    >>> h1 = StoredLayer("h1", 0, "Linear", 0, (3,), "flatten", None, ())  # the first layer has three features
    >>> path = Path(tempfile.mkdtemp()) / "acts.h5"
    >>> with create_activations(path, pd.DataFrame(columns), ["cat", "dog"], [h1], {}) as writer:
    ...     writer.append({"h1": np.ones((2, 3))})
    >>> path.exists()
    True
    """
    _check_names(layers)
    _check_sizes(class_names, layers)
    if dtype not in DTYPES:
        raise UsageError(f"activations are stored as {' or '.join(DTYPES)}, got {dtype!r}")
    header = _Header(examples, class_names, layers, provenance, dtype, batch_size, shard, scoring, filters or {})
    path = check_target(path, force=force)
    with _begin(partial_of(path), header, force=force, resume=resume) as store:
        writer = ActivationWriter(store)
        try:
            yield writer
            writer.finish()
        except BaseException as error:
            writer.close()
            if writer.n_done == 0 or isinstance(error, (ManigeoError, ValueError)):
                store.remove()
            else:
                with closing(store), suppress(OSError):  # a full disk, which is what is told of
                    writer.commit()
            raise
        store.move(path)


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
    with _told(store), h5py.File(store, "w", libver=LIBVER, track_order=True) as file:
        header.write(file)
    store.commit()


def _check_same(partial: Path, store: CommittedFile, header: "_Header") -> None:
    """Raise :class:`~manigeo.errors.InputError` unless the partial file has this very header."""
    with readable(partial):
        check_heaps(partial)
    with h5py.File(io.BytesIO(), "w") as asked, readable(partial), h5py.File(store, "r") as begun:
        header.write(asked)
        check_header(partial, begun)
        same = all(_identity(asked)[key] == value for key, value in _identity(begun).items())
        differing = _differences(*(json.loads(file.attrs["provenance"]) for file in (begun, asked)))
    if not same:
        raise InputError(
            f"{partial} was begun with other settings ({differing or 'other examples or layers'}): repeat the command it "
            "was begun with, or --force begins anew"
        )


def _identity(file: h5py.File) -> dict[str, Any]:
    dtypes = [dataset.dtype for _, dataset in layer_datasets(file)]
    return {"fingerprint": file.attrs["fingerprint"], "shard": file.attrs.get("shard"), "dtypes": dtypes}


def _differences(begun: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    keys = sorted((begun.keys() | asked.keys()) - set(NOT_IDENTITY))
    differing = [key for key in keys if begun.get(key) != asked.get(key)]
    return "; ".join(f"{key} {begun.get(key)}, now {asked.get(key)}" for key in differing)


def _check_names(layers: Sequence[StoredLayer]) -> None:
    """Check the names of layers: in HDF5 ``a/b`` lies in the group ``a``, which therefore cannot be a data set."""
    names = {layer.name for layer in layers}
    clashes = sorted(name for name in names if any(other.startswith(f"{name}/") for other in names))
    if clashes:
        raise UsageError(f"layers {clashes} and layers below them cannot be stored together; --exclude one of them")


def _check_sizes(class_names: Sequence[str], layers: Sequence[StoredLayer]) -> None:
    """No more is written than a reader takes."""
    for what, n, most in (("classes", len(class_names), MOST_CLASSES), ("layers", len(layers), MOST_LAYERS)):
        if n > most:
            raise UsageError(f"an activation file holds at most {most:,} {what}, got {n:,}: choose some of them")


@dataclass(frozen=True)
class _Header:
    """Content of a file without its rows."""

    examples: pd.DataFrame
    class_names: Sequence[str]
    layers: Sequence[StoredLayer]
    provenance: Mapping[str, Any]
    dtype: str = "float32"
    batch_size: int | None = None
    shard: Shard | None = None
    scoring: Scoring = UNSCORED
    filters: Mapping[str, Filter] = field(default_factory=dict)

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
            # sums of random signs are noise to gzip, which would take a fifth off and longer than a network's forward pass
            by = self.filters.get(layer.name, NONE if layer.projection else DEFAULT)
            _create_layer(file, layer, len(self.examples), self.dtype, self.batch_size, by)
        create_outcomes(file, len(self.examples), self.scoring)
        _name_dimensions(file)
        create_sums(file)
        file.attrs["fingerprint"] = fingerprint_of(file)


def _name_dimensions(file: h5py.File) -> None:
    """Dimension scales without values, as netCDF has them; they take no room."""
    named: list[tuple[h5py.Dataset, tuple[str, ...]]] = [(file["classes"], ("class",))]
    named += [(file["examples"][column], ("example",)) for column in EXAMPLE_COLUMNS]
    named += [(dataset, ("example", f"features_{dataset.shape[1]}")) for _, dataset in layer_datasets(file)]
    for dataset, names in named:
        for axis, (name, size) in enumerate(zip(names, dataset.shape, strict=True)):
            if name not in file:
                scale = file.create_dataset(name, shape=(size,), dtype=">f4")
                scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{size:10d}")
            dataset.dims[axis].attach_scale(file[name])

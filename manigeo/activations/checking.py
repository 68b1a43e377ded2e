"""Checks of the structure of an activation file against its claims, before a row of it is read.

A header is a few bytes that may claim anything: 10^12 examples, a layer that lies in another file, a group within itself.
What is claimed here is stored here, or the file is refused with a ``ValueError`` that names what does not fit.
"""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from manigeo.activations.layout import (
    DTYPES,
    EXAMPLE_COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    fingerprint_of,
    layer_datasets,
    row_bytes,
)
from manigeo.errors import InputError, shorten
from manigeo.storage.ceilings import MOST_CLASSES, MOST_LAYERS, MOST_PROVENANCE

DENSEST = 1100  # bytes that a stored byte can stand for: gzip packs 1032 zeros into one
_LARGEST_CHUNK = 4 << 20  # bytes, or one row
_LEAST_CHUNK = 4  # bytes, of its checksum
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_SEARCHED = 64 << 20  # bytes at the beginning of the file
_LONGEST = 4096  # bytes, of the name of a class
_DEEPEST = 64  # groups within groups; HDF5 goes down by recursion


def check_heaps(path: Path) -> None:
    """No heap of texts has an object of no size: HDF5 would look for the next one at the same place, and never end.

    A block of zeros, which a disk leaves where it fails, makes such a one. Heaps are looked for where writers put them,
    before the activations.
    """
    with open(path, "rb") as file:
        content = file.read(_SEARCHED)
    at = content.find(b"GCOL\1\0\0\0")
    while at >= 0:
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        heap = content[at : at + size]
        if heap.find(bytes(16), 16) >= 0 and not _ends(heap):
            raise ValueError("zeros where texts should be")
        at = content.find(b"GCOL\1\0\0\0", at + 8)


def _ends(heap: bytes) -> bool:
    """Return whether the objects of a heap, each after the one before, lead to its end."""
    at = 16
    while at + 16 <= len(heap):
        index, size = int.from_bytes(heap[at : at + 2], "little"), int.from_bytes(heap[at + 8 : at + 16], "little")
        step = 16 + -(-size // 8) * 8 if index else size
        if not step:
            return False
        at += step
    return True


def check_header(path: Path, file: h5py.File) -> None:
    found = file.attrs.get("format")
    if found != FORMAT:
        raise InputError(
            f"{path} is not an activation file: format {FORMAT!r} was expected, found {shorten(repr(found), 80)}"
        )
    found_version = file.attrs.get("format_version")
    if found_version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {shorten(str(found_version), 80)}, this program reads version {FORMAT_VERSION}"
        )
    check_claims(path, file)
    expected, actual = str(file.attrs.get("fingerprint")), fingerprint_of(file)
    if expected != actual:
        raise InputError(
            f"{path} was changed after it was written: fingerprint {actual[:12]} does not match the stored {expected[:12]}"
        )


def check_claims(path: Path, file: h5py.File) -> None:
    """Check that everything the format wants is there, in this very file, and as large as claimed."""
    if len(str(file.attrs["provenance"])) > MOST_PROVENANCE:
        raise ValueError(f"its provenance has more than {MOST_PROVENANCE:,} characters")
    for place in ("examples", "classes", "layers", *(["scores"] if "scores" in file else [])):
        _check_within(file, place, {_address(file)}, _DEEPEST)
    n_examples = _check_examples(path, file)
    n_done = int(file.attrs.get("n_done", n_examples))
    if not 0 <= n_done <= n_examples or (file.attrs["complete"] and n_done < n_examples):
        raise ValueError(f"{n_done} of {n_examples} examples cannot be done")
    for name, dataset in layer_datasets(file):
        _check_layer(name, dataset, n_examples, n_done)
    if "scores" in file:
        _check_outcomes(file["scores"], n_examples, n_done)


def _check_within(group: h5py.Group, name: str, seen: set[tuple[int, int]], deepest: int) -> None:
    """No link leads out of the file, back to where it came from, or to one object by two ways."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{group.name}/{name} lies elsewhere")
    name.encode()  # a name that is no text raises UnicodeEncodeError
    node = group[name]
    if _address(node) in seen or not deepest:
        raise ValueError(f"{node.name} stands in more than one place, or too deep")
    seen.add(_address(node))
    if len(seen) > 2 * MOST_LAYERS:  # with groups that layers are in
        raise ValueError(f"it has more than {MOST_LAYERS:,} layers")
    for inner in node if isinstance(node, h5py.Group) else ():
        _check_within(node, inner, seen, deepest - 1)


def _address(node: h5py.Group | h5py.Dataset) -> tuple[int, int]:
    low, high = h5py.h5g.get_objinfo(node.id).objno
    return int(low), int(high)


def _check_examples(path: Path, file: h5py.File) -> int:
    """The number of examples, which all columns have."""
    columns = [file["examples"][column] for column in EXAMPLE_COLUMNS]
    for dataset in (*columns, file["classes"]):
        _check_stored(dataset, 1, math.prod(dataset.shape) * dataset.dtype.itemsize)
    kinds = [dataset.dtype.kind for dataset in columns]
    (n_examples,) = {len(dataset) for dataset in columns}
    if any(kind not in kinds_of for kind, kinds_of in zip(kinds, ("iu", "O", "iu", "iu", "b"), strict=True)):
        raise ValueError(f"the columns of the examples are of other types: {kinds}")
    if len(file["classes"]) > MOST_CLASSES:
        raise ValueError(f"it has {len(file['classes']):,} classes, expected at most {MOST_CLASSES:,}")
    for texts in (file["examples/split"], file["classes"]):
        _check_texts(path, texts)
    for column in ("true_label", "train_label"):
        labels = file["examples"][column][:]
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(file["classes"])):
            raise ValueError(f"{column} goes beyond the {len(file['classes'])} classes")
    return n_examples


def _check_texts(path: Path, dataset: h5py.Dataset) -> None:
    """Check the lengths of texts, for which HDF5 would make room as claimed: 32 bits of each reference to a heap."""
    at = dataset.id.get_offset()
    if at is None and len(dataset):
        raise ValueError(f"{dataset.name} is no plain list of texts")
    reference = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])
    references = np.fromfile(path, reference, count=len(dataset), offset=at or 0)
    if len(references) < len(dataset) or references["length"].max(initial=0) > _LONGEST:
        raise ValueError(f"{dataset.name} holds a text of more than {_LONGEST} letters, or none")


def _check_layer(name: str, dataset: h5py.Dataset, n_examples: int, n_done: int) -> None:
    _check_stored(dataset, 2, n_done * row_bytes(dataset))
    features = math.prod(int(n) for n in dataset.attrs["feature_shape"])
    if dataset.shape != (n_examples, features) or dataset.dtype.name not in DTYPES or dataset.chunks is None:
        found = f"{dataset.shape} {dataset.dtype}"
        raise ValueError(f"layer {name!r} is {found}, expected ({n_examples}, {features}) in chunks of {DTYPES}")
    if math.prod(dataset.chunks) * dataset.dtype.itemsize > max(_LARGEST_CHUNK, row_bytes(dataset)):
        raise ValueError(f"layer {name!r} is in chunks of {dataset.chunks}")
    if not _filters(dataset) <= _FILTERS:
        raise ValueError(
            f"layer {name!r} went through the filters {_filters(dataset)}, expected gzip, shuffle, fletcher32"
        )


def _check_outcomes(dataset: h5py.Dataset, n_examples: int, n_done: int) -> None:
    _check_stored(dataset, 2, n_done * row_bytes(dataset))
    if dataset.shape != (n_examples, 3) or dataset.dtype != np.float32 or not dataset.chunks:
        raise ValueError(f"scores are {dataset.shape} {dataset.dtype}, expected ({n_examples}, 3) float32 in chunks")
    if math.prod(dataset.chunks) * 4 > _LARGEST_CHUNK or not _filters(dataset) <= _FILTERS:
        raise ValueError(f"scores are in chunks of {dataset.chunks}, through the filters {_filters(dataset)}")


def check_chunks(name: str, dataset: h5py.Dataset, n_rows: int, n_bytes: int) -> None:
    """Check that the chunks of the first ``n_rows`` are there, each once, within ``n_bytes``, with all filters applied.

    The index that HDF5 finds them by has no checksum: after a flipped bit in it a chunk may be missing, which reads as
    zeros, or have no bytes, over which HDF5 falls.
    """
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    most = math.prod(dataset.chunks) * dataset.dtype.itemsize * 1.1 + 1024  # what gzip cannot pack grows a little
    for chunk in chunks:
        aligned = all(at % size == 0 for at, size in zip(chunk.chunk_offset, dataset.chunks, strict=True))
        inside = chunk.byte_offset + chunk.size <= n_bytes
        if chunk.filter_mask or not (aligned and inside and _LEAST_CHUNK < chunk.size <= most):
            raise ValueError(f"layer {name!r} has a chunk at {chunk.chunk_offset} that was not written so")
    found = {chunk.chunk_offset for chunk in chunks}
    rows, columns = (range(0, n, size) for n, size in zip((n_rows, dataset.shape[1]), dataset.chunks, strict=True))
    missing = [(row, column) for row in rows for column in columns if (row, column) not in found]
    if missing or len(found) < len(chunks):
        raise ValueError(f"layer {name!r} has {len(chunks)} chunks, and {len(missing)} are missing")


def _filters(dataset: h5py.Dataset) -> set[int]:
    settings = dataset.id.get_create_plist()
    return {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}


def _check_stored(dataset: h5py.Dataset, ndim: int, claimed: int) -> None:
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != ndim:
        raise ValueError(f"{dataset.name} is no array of {ndim} dimensions")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} lies in another file")
    stored = dataset.id.get_storage_size()
    if claimed > stored * DENSEST:
        raise ValueError(f"{dataset.name} claims {claimed} bytes, and {stored} are stored")

"""Sums over what was written: of the rows of each layer, and of the checksums of its chunks as they lie in the file.

``sums`` holds, in the order of layers and then of the scores, the CRC-32 of all rows as they are stored, example after
example: it depends neither on batches, shards, compression nor interruptions, and whoever reads everything can compare it.
``chunk_sums`` holds the CRC-32 of the checksums that HDF5 keeps of every chunk: a layer that was written again has others,
which four bytes per chunk show. Files of before these attributes have none.
"""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from isal import isal_zlib

from manigeo.activations.checking import check_chunks
from manigeo.activations.layout import layer_datasets, readable, row_bytes
from manigeo.errors import InputError, one_line
from manigeo.storage.commits import CommittedFile, has_commit

ROWS, CHUNKS = "sums", "chunk_sums"
_MOST_CHUNKS = 20_000  # of a layer, 5 GB: for more, four bytes of each are no small reading
_READ_BYTES = 32 << 20  # at a time


def summed(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Everything that has a sum, in the order of the sums."""
    return dict(layer_datasets(file)) | ({"scores": file["scores"]} if "scores" in file else {})


def create_sums(file: h5py.File) -> None:
    """Make room for the sums of what the file will hold."""
    for name in (ROWS, CHUNKS):
        file.attrs[name] = np.zeros(len(summed(file)), np.uint32)


def read_sums(file: h5py.File, kind: str = ROWS) -> dict[str, int]:
    """The sums that the file holds, by layer; none in a file of old.

    Raises ``ValueError`` where they are not one number per layer.
    """
    if kind not in file.attrs:
        return {}
    found, names = np.asarray(file.attrs[kind]), list(summed(file))
    if found.dtype != np.uint32 or found.shape != (len(names),):
        raise ValueError(f"{kind} are {found.dtype} {found.shape}, expected uint32 ({len(names)},)")
    return dict(zip(names, map(int, found), strict=True))


def write_sums(file: h5py.File, sums: Mapping[str, int], kind: str = ROWS) -> None:
    """Put the sums, in their order, into the room made for them, where there is some."""
    if kind in file.attrs:
        file.attrs.modify(kind, np.array(list(sums.values()), np.uint32))


def continued(sum_before: int, rows: np.ndarray, dtype: np.dtype) -> int:
    """The sum over all rows up to and with these.

    >>> rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    >>> continued(continued(0, rows[:1], rows.dtype), rows[1:], rows.dtype) == zlib.crc32(rows.tobytes())
    True
    """
    return int(isal_zlib.crc32(np.ascontiguousarray(rows, dtype=dtype).view(np.uint8).data, sum_before))


def chunk_sum(dataset: h5py.Dataset, stored: BinaryIO | CommittedFile) -> int:
    """The sum over the checksums of the chunks, each the last four bytes of its chunk."""
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    total = 0
    for chunk in sorted(chunks, key=lambda chunk: chunk.chunk_offset):
        stored.seek(chunk.byte_offset + chunk.size - 4)
        total = zlib.crc32(stored.read(4) or b"", zlib.crc32(struct.pack("<Q", chunk.chunk_offset[0]), total))
    return total


def check_chunk_sum(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """Raise ``ValueError`` for a layer of a whole file that was written again, where a glance at its chunks can tell."""
    file = dataset.file
    if not file.attrs["complete"] or file.driver == "fileobj" or dataset.id.get_num_chunks() > _MOST_CHUNKS:
        return
    expected = read_sums(file, CHUNKS).get(name)
    with open(path, "rb") as stored:
        if expected is not None and chunk_sum(dataset, stored) != expected:
            raise ValueError(f"{name!r} was written again after the extraction")


def verify_rows(path: Path) -> dict[str, str]:
    """Read every row of the file, and say by layer what is wrong with it; nothing where it is intact.

    Raises :class:`~manigeo.errors.InputError` for a file that cannot be opened.
    """
    with readable(path), h5py.File(CommittedFile(path, writable=False) if has_commit(path) else path, "r") as file:
        n_done, sums = int(file.attrs.get("n_done", len(file["examples/index"]))), read_sums(file)
        return {name: _fault(path, name, dataset, n_done, sums) for name, dataset in summed(file).items()}


def _fault(path: Path, name: str, dataset: h5py.Dataset, n_done: int, sums: Mapping[str, int]) -> str:
    try:
        check_chunks(name, dataset, n_done, dataset.file.id.get_filesize())
        total, step = 0, max(1, _READ_BYTES // (row_bytes(dataset) * dataset.chunks[0])) * dataset.chunks[0]
        for start in range(0, n_done, step):
            total = continued(total, dataset[start : min(start + step, n_done)], dataset.dtype)
        check_chunk_sum(path, name, dataset)
    except InputError:
        raise
    except Exception as error:  # damage may raise anything
        return one_line(error)
    return "its rows are not those that were written" if sums.get(name, total) != total else ""

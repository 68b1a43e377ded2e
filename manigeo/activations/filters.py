"""Filters of stored layers: how the chunks of a layer are compressed, chosen by what a first batch of it holds.

All are HDF5's own deflate, with or without shuffle, behind a checksum, so that any program reads them. ISA-L's deflate is
about as small as gzip where zeros lie between numbers without structure, as behind a ReLU, and five times as fast; numbers
that are dense lose less than a fifth to any of them, and are stored as they are. Shuffle helps numbers whose exponents are
alike, and spoils runs of zeros.
"""

import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import h5py
import numpy as np
from isal import isal_zlib

from manigeo.errors import check_choice

COMPRESSIONS = ("none", "fast", "small")
_CORES = min(os.cpu_count() or 1, 4)
_SAMPLE = 8192  # bytes of each of four examples
# Share of the bytes that a filter may leave to be worth its time: more for the fastest, which is that of sparse layers.
_WORTH = {"fast": (0.78, 0.5, 0.5, 0.5), "small": (0.98, 0.98, 0.98, 0.98)}
_PLACES = np.arange(1 << 16, dtype=np.float64)
_ABOUT = {"fast": 1.1, "small": 1.0}  # a faster filter may leave so many times as much as the best one


@dataclass(frozen=True)
class Filter:
    """One way to store the chunks of a layer: ``none``, ``isal`` or ``gzip``, with or without ``shuffle`` of the bytes."""

    method: str = "gzip"
    shuffle: bool = True

    @property
    def settings(self) -> dict[str, object]:
        """Arguments of h5py for a data set of this filter."""
        if self.method == "none":
            return {}
        return {"compression": "gzip", "compression_opts": 1, "shuffle": self.shuffle}


NONE, DEFAULT = Filter("none", False), Filter()
_FASTEST_FIRST = (Filter("isal", False), Filter("isal", True), Filter("gzip", False), Filter("gzip", True))


def choose_filter(rows: np.ndarray, compression: str = "fast") -> Filter:
    """The filter for a layer of which these are some ``rows``: none where it would save little ("fast": a fifth),
    else the fastest of those that leave about as little as the best.

    >>> rng = np.random.default_rng(0)
    >>> dense = rng.standard_normal((4, 3000)).astype(np.float32)
    >>> choose_filter(dense), choose_filter(np.maximum(dense, 0)), choose_filter(dense, "small").method
    (Filter(method='none', shuffle=False), Filter(method='isal', shuffle=False), 'gzip')

    Raises :class:`~manigeo.errors.UsageError` for a ``compression`` that is none of :data:`COMPRESSIONS`.
    """
    check_choice("compression", compression, COMPRESSIONS)
    sample = _sample(rows)
    if compression == "none" or not sample.size:
        return NONE
    left = {by: len(_packed(sample, by)) / sample.nbytes for by in _FASTEST_FIRST}
    worth = [share <= most for share, most in zip(left.values(), _WORTH[compression], strict=True)]
    least = min((share for share, taken in zip(left.values(), worth, strict=True) if taken), default=0.0)
    return next((by for by, share in left.items() if share <= _ABOUT[compression] * least), NONE)


def _sample(rows: np.ndarray) -> np.ndarray:
    """A piece of each of four examples, from another place in each."""
    size = _SAMPLE // rows.dtype.itemsize
    chosen = rows[np.linspace(0, len(rows) - 1, 4).astype(int)] if len(rows) else rows
    starts = np.linspace(0, max(0, rows.shape[1] - size), 4).astype(int)
    return np.concatenate(
        [row[start : start + size] for row, start in zip(chosen, starts, strict=False)] or [rows[:0, 0]]
    )


def chosen_filters(batch: Mapping[str, np.ndarray], dtype: str, compression: str) -> dict[str, Filter]:
    """The filter of each layer by its rows in a ``batch``, as they are stored in ``dtype``."""
    with np.errstate(over="ignore"):  # what a dtype cannot hold is refused where it is written
        return {
            name: choose_filter(values.reshape(len(values), -1)[:: max(1, len(values) // 4)].astype(dtype), compression)
            for name, values in batch.items()
        }


# ------------------------------------------------------------------------------------------------------------- writing
def filter_of(dataset: h5py.Dataset) -> Filter:
    """The filter that a stored layer was given."""
    if dataset.compression is None:
        return NONE
    return Filter(str(dataset.attrs.get("packed_by", "gzip")), bool(dataset.shuffle))


def write_batch(
    datasets: Mapping[str, h5py.Dataset], start: int, batch: Mapping[str, np.ndarray], filters: Mapping[str, Filter]
) -> None:
    """Write the rows of every layer from row ``start`` on: whole chunks packed here, on all cores, the rest by HDF5."""
    to_pack: list[_Chunk] = []
    for name, rows in batch.items():
        dataset, by = datasets[name], filters[name]
        values, stop, size = np.ascontiguousarray(rows, dtype=dataset.dtype), start + len(rows), dataset.chunks[0]
        first, last = -(-start // size) * size, stop // size * size
        if by.method == "gzip" or first >= last or dataset.chunks[1] != dataset.shape[1]:
            first = last = stop
        chunks = [_Chunk(dataset, row, values[row - start :][:size], by) for row in range(first, last, size)]
        if by.method == "none":  # at once and one by one: all together would be the batch once more
            for chunk in chunks:
                chunk.write(chunk.stored())
        else:
            to_pack += chunks
        for begin, end in ((start, first), (last, stop)):
            if begin < end:
                dataset[begin:end] = values[begin - start : end - start]
                dataset.flush()  # before what comes next, however long the data set stays open
    if to_pack:
        with ThreadPoolExecutor(max_workers=min(len(to_pack), _CORES)) as pool:  # packing works without the lock
            for chunk, stored in zip(to_pack, pool.map(_Chunk.stored, to_pack), strict=True):
                chunk.write(stored)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """A whole chunk of a layer, from its row ``row`` on."""

    dataset: h5py.Dataset
    row: int
    values: np.ndarray
    by: Filter

    def stored(self) -> bytes:
        """The bytes of the chunk in the file."""
        packed = _packed(self.values, self.by)
        return b"".join((packed, fletcher32(packed).to_bytes(4, "little")))

    def write(self, stored: bytes) -> None:
        self.dataset.id.write_direct_chunk((self.row, 0), stored)


def _packed(values: np.ndarray, by: Filter) -> bytes | memoryview:
    numbers = values.view(np.uint8)
    data = numbers.reshape(-1, values.dtype.itemsize).T.tobytes() if by.shuffle else numbers.data.cast("B")
    if by.method == "none":
        return data
    packed: bytes = isal_zlib.compress(data, 2) if by.method == "isal" else zlib.compress(data, 1)
    return packed


def fletcher32(data: bytes | memoryview) -> int:
    r"""HDF5's checksum of a chunk: sums of its 16-bit words w, the first byte the high one, modulo 65535.

    .. math:: s_1 = \sum_i w_i, \qquad s_2 = \sum_i (n - i)\, w_i, \qquad 2^{16} s_2 + s_1

    Fletcher (1982), An arithmetic checksum for serial transmissions, IEEE Trans. Commun. 30, 247.

    >>> hex(fletcher32(bytes([1, 2, 3])))
    '0x5040402'
    """
    words = np.frombuffer(data if len(data) % 2 == 0 else bytes(data) + bytes(1), "<u2")
    total = placed = 0
    for first in range(0, len(words), len(_PLACES)):
        block = words[first : first + len(_PLACES)].astype(np.float64)  # whose sums are exact, being below 2^53
        of_block = int(block.sum())
        total, placed = total + of_block, placed + first * of_block + int(block @ _PLACES[: len(block)])
    sums = total, len(words) * total - placed
    # a word with its bytes exchanged is 256 times the word, modulo 65535; folding leaves 65535 of a multiple, not 0
    low, high = (256 * total % 65535 or (65535 if total else 0) for total in sums)
    return (high << 16) | low

"""Layers larger than memory: point clouds that are read from the file as they are looked at."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

_BATCH_BYTES = 32 << 20  # held at a time, and as much read ahead


class StoredManifolds(Sequence):  # unsubscripted: a type check of its elements would read the file
    """Point clouds that stay in the file: several consecutive ones are read together, and held until others are.

    Walking through them in order reads each row once, a batch ahead in a thread of its own (reading leaves Python free to
    compute), and holds two batches of 32 MB, or two manifolds if those are more.
    """

    def __init__(
        self, read: Callable[[np.ndarray], np.ndarray], rows: Sequence[np.ndarray], n_features: int, row_bytes: int
    ):
        self._read_rows, self._rows, self._n_features = read, rows, n_features
        self._batches = _batches([len(r) * row_bytes for r in rows])
        self._held: tuple[range, list[np.ndarray]] = range(0), []
        self._ahead: tuple[range, Future[list[np.ndarray]] | None] = range(0), None
        self._reader = ThreadPoolExecutor(max_workers=1)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shapes of the point clouds, without reading them."""
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
        return np.split(self._read_rows(np.concatenate(rows)), np.cumsum([len(r) for r in rows])[:-1])


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

"""A file that changes by commits: killed at any moment, it is what the last commit made it.

Bytes behind the committed length are written at once, since nothing in the file points to them yet; bytes within it are
held back. A commit notes those, and the new length, in ``<path>.commit``, which appears whole (Gray & Reuter 1993,
Transaction Processing, section 10.3: a redo log), and then writes them to their places. Reading or opening again does
what a killed commit had left to do. HDF5 by itself promises nothing after a kill: it updates its indices in place.
"""

import base64
import io
import json
import operator
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from manigeo.errors import InputError, UsageError
from manigeo.storage.locks import lock_file
from manigeo.storage.owned import check_own, is_named, naming, open_own, take_name


class CommittedFile(io.RawIOBase):
    """A file object for reading and writing that :meth:`commit` makes lasting; ``writable=False`` only looks.

    A new file, or one without a commit, is empty. Raises :class:`~manigeo.errors.UsageError` where another process is
    writing it, and :class:`~manigeo.errors.InputError` where the note of its last commit, or what was committed, is damaged.

    A write that fails, on a full disk, keeps its bytes in memory and raises at the next :meth:`check` or :meth:`commit`:
    HDF5 cannot close a file whose writes fail, and would take the process with it at its end.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "notes")
    >>> with CommittedFile(path) as file:
    ...     file.write(b"lasting")
    ...     file.commit()
    ...     file.write(b", fleeting")
    7
    10
    >>> CommittedFile(path, writable=False).read()
    b'lasting'
    """

    _fd = -1

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = True):
        self.path, self._note = Path(path), note_of(path)
        self._writable, self._at = writable, 0
        self._held: dict[tuple[int, int], bytes] = {}  # by offset and length, in the order in which they were written
        self._failure: BaseException | None = None
        self._fd = open_partial(self.path, self.path) if writable else os.open(self.path, os.O_RDONLY)
        try:
            self._length = self._committed = self._redo()
        except BaseException:
            self.close()
            raise

    def commit(self) -> None:
        """Make everything written so far lasting, all of it or, where the process is killed meanwhile, nothing."""
        self.check()
        with naming(self.path):
            if os.fstat(self._fd).st_size < self._length:  # so that one which is shorter than its note says is damaged
                os.ftruncate(self._fd, self._length)
            os.fsync(self._fd)  # what is behind the committed length, and the places of the commit before
            held = [(offset, base64.b64encode(data).decode()) for (offset, _), data in self._held.items()]
            _write_note(self._note, json.dumps((self._length, held)))
            self._committed = self._redo()

    def check(self) -> None:
        """Raise what a write has failed with."""
        if self._failure is not None:
            raise self._failure

    @property
    def n_held(self) -> int:
        """Number of writes that wait in memory for the next commit."""
        return len(self._held)

    def move(self, path: str | os.PathLike[str]) -> None:
        """Give the committed file its final name, with mode and owner of the file that it replaces, and close it."""
        with naming(path):
            os.fsync(self._fd)
            take_name(self._fd, self.path, path)
        self.close()
        self._note.unlink()

    def remove(self) -> None:
        """Delete the file, and close it."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.close()

    def clear(self) -> None:
        """Begin anew, with nothing committed."""
        _write_note(self._note, _NOTHING)  # first: what it noted must not be done again to what comes now
        self._at = 0
        self._length = self._committed = self._redo()

    def _redo(self) -> int:
        """Do what the last commit noted, which may have been done already; return the length that it gave the file."""
        length, writes = _read_note(self._note) if self._note.exists() else (0, [])
        if os.fstat(self._fd).st_size < length:
            raise InputError(
                f"{self.path} is truncated: {length} bytes were committed; delete it and {self._note.name}"
            )
        self._held = {(offset, len(data)): data for offset, data in writes}
        if self._writable:
            for (offset, _), data in self._held.items():
                _write(self._fd, data, offset)
            os.ftruncate(self._fd, length)
            self._held = {}
        return length

    # ------------------------------------------------------------------------------------------------ as a file object
    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return self._writable

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def truncate(self, size: int | None = None) -> int:
        size, at = self._at if size is None else size, self._at
        self.seek(size)
        self.write(bytes(max(0, self._length - size)))  # what is cut off must not come back when the file grows again
        self.seek(at)
        self._length = size
        return size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n = max(0, min(len(view), self._length - self._at))
        found = os.pread(self._fd, n, self._at)
        view[:n] = found + bytes(n - len(found))  # what was skipped in writing is zero
        for (offset, _), data in self._held.items():
            start, stop = max(offset, self._at), min(offset + len(data), self._at + n)
            if start < stop:
                view[start - self._at : stop - self._at] = data[start - offset : stop - offset]
        self._at += n
        return n

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        inside = max(0, min(len(view), self._committed - self._at))
        if inside:
            self._hold(self._at, view[:inside])
        try:
            _write(self._fd, view[inside:], self._at + inside)
        except (OSError, KeyboardInterrupt) as error:
            if isinstance(error, OSError):
                error.filename = os.fspath(self.path)
            self._failure = error
            self._hold(self._at + inside, view[inside:])
        self._at += len(view)
        if len(view):
            self._length = max(self._length, self._at)
        return len(view)

    def _hold(self, offset: int, data: memoryview) -> None:
        self._held.pop((offset, len(data)), None)  # what comes last counts where writes overlap
        self._held[offset, len(data)] = bytes(data)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()


def partial_of(path: str | os.PathLike[str]) -> Path:
    """Path under which a file is written that shall appear under ``path`` when it is whole."""
    return Path(path).with_name(f"{Path(path).name}.partial")


def open_partial(partial: Path, path: Path) -> int:
    """Descriptor, with the lock of the only writer, of the file ``partial`` that is to become ``path``.

    It is ours to change if a note lies beside it, as from here on one does, or nothing is in it. Raises
    :class:`~manigeo.errors.UsageError` for a user's own file of this name, for what
    :func:`~manigeo.storage.owned.open_own` refuses, and where another process is writing it, and
    :class:`~manigeo.errors.InputError` for a note that is none.
    """
    while True:
        fd = open_own(partial)
        try:
            lock_file(fd, path)
            if is_named(fd, partial):
                _mark(fd, partial)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # the other writer has renamed or removed it between our opening and locking it


def _mark(fd: int, partial: Path) -> None:
    """Note that the file is ours: one that is empty, or has our note already."""
    note, empty = note_of(partial), not os.fstat(fd).st_size
    try:
        with suppress(FileNotFoundError):
            check_own(note)
            _read_note(note)
            if not empty:
                return
        if not empty:
            raise UsageError(f"{partial} was not written by manigeo, which needs this name: move it away first")
        _write_note(note, _NOTHING, lasting=False)
    except BaseException:
        if empty and is_named(fd, partial):
            partial.unlink()
        raise


def remove_partial(fd: int, partial: Path) -> None:
    """Remove the file of ``fd`` if it still bears this name, and its note if no other writer has begun."""
    if is_named(fd, partial):
        partial.unlink()
    if not os.path.lexists(partial):
        note_of(partial).unlink(missing_ok=True)


def has_commit(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a file to go on with."""
    note = note_of(path)
    return Path(path).is_file() and note.is_file() and note.read_bytes() != _NOTHING.encode()


def note_of(path: str | os.PathLike[str]) -> Path:
    """Path of the note beside a file that is being written."""
    return Path(path).with_name(f"{Path(path).name}.commit")


_NOTHING = "[0, []]"


def _write_note(note: Path, text: str, *, lasting: bool = True) -> None:
    draft = note.with_name(f"{note.name}.draft")
    fd = open_own(draft)
    try:
        with open(fd, "w") as file:
            file.truncate(0)  # what a killed process has left
            file.write(text)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(draft, note)
    finally:
        draft.unlink(missing_ok=True)  # of a disk that is full


def _read_note(note: Path) -> tuple[int, list[tuple[int, bytes]]]:
    """The length of the file, and what is written where within it."""
    try:
        length, held = json.loads(note.read_text())
        writes = [(operator.index(offset), base64.b64decode(text, validate=True)) for offset, text in held]
        if min(operator.index(length), *(offset for offset, _ in writes), 0) == 0:
            return length, writes
    except (ValueError, TypeError, RecursionError):
        pass
    raise InputError(f"{note} is damaged: delete it and the file beside it, and begin anew")


def _write(fd: int, data: Any, offset: int) -> None:
    while len(data):
        n = os.pwrite(fd, data, offset)
        data, offset = data[n:], offset + n

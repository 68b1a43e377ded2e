"""Files that appear when they are whole, in places that were checked before the work began, each with one writer."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from manigeo.errors import UsageError


def check_target(
    path: str | os.PathLike[str], *, force: bool = False, suffixes: Sequence[str] = (), what: str = "files"
) -> Path:
    """The path, if a file can be written there.

    Raises :class:`~manigeo.errors.UsageError` for a suffix that is none of ``suffixes``, a folder that is missing or cannot
    be written, and (unless ``force``) a file that exists.
    """
    path = Path(path)
    if suffixes and path.suffix not in suffixes:
        raise UsageError(f"{what} are written as {', '.join(suffixes)}; {path} is none of them")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UsageError(
            f"{path} cannot be written: it is a folder, or in one without permission; choose another place"
        )
    if path.exists() and not force:
        raise UsageError(f"{path} exists: give another --out, or --force to overwrite it")
    return path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to; what lies there takes the name ``path`` if the block ends, and is removed if it does not.

    Raises :class:`~manigeo.errors.UsageError` where another process is writing the same file.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    with _one_writer(partial, path):
        try:
            yield partial
            _to_disk(partial)  # else, after a power cut, the new name may stand for an empty file
            os.replace(partial, path)
        except BaseException:  # and only then: after the replacement the name is another writer's
            with suppress(OSError):
                partial.unlink()
            raise


@contextmanager
def _one_writer(partial: Path, path: Path) -> Iterator[None]:
    """A lock on the empty file ``partial``, which ends with the process: nothing is left that would stop the next."""
    if os.name == "nt":  # a file that is open cannot be renamed there
        yield
        return
    fd = _locked(partial, path)
    try:
        os.ftruncate(fd, 0)  # what a killed process has left
        yield
    finally:
        os.close(fd)


def _locked(partial: Path, path: Path) -> int:
    while True:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock_file(fd, path)
            if _is_named(fd, partial):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # the other writer has renamed or removed it between our opening and locking it


def _is_named(fd: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False


def lock_file(fd: int, path: Path) -> None:
    """Against a second process that would write ``path``; where a file system has no locks, one must take care oneself.

    Raises :class:`~manigeo.errors.UsageError` where another holds it. The lock ends when the file is closed.
    """
    with suppress(ImportError):  # Windows
        import fcntl

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{path} is being written by another process; wait for it, or give another --out"
            ) from error
        except OSError:
            return


def _to_disk(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_FULL = "make room there, or write elsewhere, and repeat the command"
_READ_ONLY = "choose a place that can be written"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "write to a file system that holds files of this size, and repeat the command",
    errno.EIO: "the disk fails: check it, and write elsewhere",
    errno.ESTALE: "the file server has lost the file: repeat the command",
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY + ", or for reading ask for permission",
    errno.EPERM: _READ_ONLY + ", or for reading ask for permission",
    errno.EMFILE: "too many files are open: raise ulimit -n, or lower --jobs",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "is the place still there?",
}


def failure_of_files(error: OSError) -> str:
    """Describe what the operating system refused, of which file, and what to do about it.

    >>> failure_of_files(OSError(errno.ENOSPC, "No space left on device", "acts.h5"))
    'acts.h5: No space left on device; make room there, or write elsewhere, and repeat the command'
    """
    if error.errno is None or error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    remedy = _REMEDIES.get(error.errno, "")
    return f"{where}{error.strerror}{'; ' * bool(remedy)}{remedy}"

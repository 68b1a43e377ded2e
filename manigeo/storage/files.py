"""Files that appear when they are whole, in places that were checked before the work began, each with one writer."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from manigeo.errors import UsageError
from manigeo.storage.commits import open_partial, partial_of, remove_partial
from manigeo.storage.owned import by_descriptor, check_no_input, naming, take_name


def check_target(
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    suffixes: Sequence[str] = (),
    what: str = "files",
    option: str = "--out",
) -> Path:
    """The path, if a file can be written there; ``option`` is the one that names it.

    Raises :class:`~manigeo.errors.UsageError` for a suffix that is none of ``suffixes``, a folder that is missing or cannot
    be written, what is no file, a file that the command reads, and (unless ``force``) one that exists.
    """
    path = Path(path)
    check_no_input(path)
    if suffixes and path.suffix not in suffixes:
        raise UsageError(f"{what} are written as {', '.join(suffixes)}; {path} is none of them")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UsageError(
            f"{path} cannot be written: it is a folder, or in one without permission; choose another place"
        )
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file, and cannot be replaced by one; choose another place")
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} exists: give another {option}, or --force to overwrite it")
    return path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to; what lies there takes the name ``path`` if the block ends, and is removed if it does not.

    It keeps mode and owner of the file that it replaces; a link is replaced, not followed. Errors of the system name
    ``path``. Raises :class:`~manigeo.errors.UsageError` where another process is writing the same file, where the command
    reads it, and where a link or a user's own file lies at ``<path>.partial``.
    """
    path = Path(path)
    check_no_input(path)
    partial = partial_of(path)
    if os.name == "nt":  # a file that is open cannot be renamed there
        with _unlocked(partial, path):
            yield partial
        return
    with naming(path, partial):
        fd = open_partial(partial, path)
        through = by_descriptor(fd, partial)
        try:
            os.ftruncate(fd, 0)  # what a killed process has left
            with naming(path, through):
                yield through
            os.fsync(fd)  # else, after a power cut, the new name may stand for an empty file
            take_name(fd, partial, path)
        finally:
            with suppress(OSError):
                remove_partial(fd, partial)
            os.close(fd)


@contextmanager
def _unlocked(partial: Path, path: Path) -> Iterator[None]:
    try:
        yield
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


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

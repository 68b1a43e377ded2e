"""Files that are opened to be written: regular ones, of this user, under one name, reached by no link.

Whoever may write in a folder can put a link where a file is about to be written, and so aim at another. What is opened here
is looked at through its descriptor, behind which nothing can be exchanged, before a byte of it changes.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from manigeo.errors import UsageError

_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait
_NOT_PLAIN = {
    errno.ELOOP,
    errno.EMLINK,
    errno.ENXIO,
    errno.EISDIR,
}  # a link, by Linux and by BSD; a pipe, a socket; a folder


def open_own(path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
    """Descriptor of the file at ``path``, which is made where there is none.

    Raises :class:`~manigeo.errors.UsageError` for a link, a pipe, a device, a file with a second name, and one of another
    user in a folder where others may write; nothing of these has changed.
    """
    with suppress(FileExistsError):
        return os.open(path, flags | _PLAIN | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        fd = os.open(path, flags | _PLAIN | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise UsageError(_refusal(path, "a link, a pipe or a folder")) from error
        raise
    if foreign := _foreign(os.fstat(fd), Path(path).parent):
        os.close(fd)
        raise UsageError(_refusal(path, foreign))
    return fd


def append_own(path: str | os.PathLike[str]) -> int:
    """The same, to write below what is there; an ``opener`` of :func:`open` with any flags of its own."""
    return open_own(path, os.O_WRONLY | os.O_APPEND)


def check_own(path: str | os.PathLike[str]) -> None:
    """Raise what :func:`open_own` raises of a file that is there."""
    found = os.lstat(path)
    if foreign := "a link" if stat.S_ISLNK(found.st_mode) else _foreign(found, Path(path).parent):
        raise UsageError(_refusal(path, foreign))


def _foreign(found: os.stat_result, folder: Path) -> str:
    """Reason not to write to a file that was there; empty where there is none."""
    if not stat.S_ISREG(found.st_mode):
        return "no file"
    if found.st_nlink > 1:
        return "a file with a second name"
    if os.name != "nt" and found.st_uid != os.geteuid() and os.stat(folder).st_mode & 0o022:
        return "another user's"
    return ""


def _refusal(path: str | os.PathLike[str], what: str) -> str:
    return f"{os.fspath(path)} is {what}, and is not written to: remove it, or give another place"


def is_named(fd: int, path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is, now, the very file that ``fd`` is open on, and no link to it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    return False


def by_descriptor(fd: int, path: Path) -> Path:
    """A path that leads to the file of ``fd`` whatever has taken its name meanwhile; else ``path``."""
    through = Path(f"/proc/self/fd/{fd}")
    with suppress(OSError):
        if os.path.samestat(os.fstat(fd), os.stat(through)):
            return through
    return path


def take_name(fd: int, partial: Path, path: str | os.PathLike[str]) -> None:
    """Give the file of ``fd``, named ``partial``, the name ``path``, with mode and owner of the file that it replaces.

    A link at ``path`` is replaced, and what it points to is left. Raises :class:`~manigeo.errors.UsageError` where another
    file lies at ``partial`` by now.
    """
    with suppress(FileNotFoundError):
        before, now = os.lstat(path), os.fstat(fd)
        if stat.S_ISREG(before.st_mode):
            for owner in ((-1, before.st_gid), (before.st_uid, -1)):
                if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
                    with suppress(OSError):  # only root may give a file away
                        os.fchown(fd, *owner)
            with suppress(PermissionError):  # of a file system that has none
                os.fchmod(fd, before.st_mode & 0o777)
    if not is_named(fd, partial):
        raise UsageError(f"another file has taken the place of {partial}; who else writes in this folder?")
    os.replace(partial, path)


@contextmanager
def naming(path: str | os.PathLike[str], *others: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in an error of the operating system that names none, or one of its ``others`` names.

    >>> with naming("acts.h5"):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'acts.h5'
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and (
            error.filename is None or error.filename in [os.fspath(other) for other in others]
        ):
            error.filename = os.fspath(path)
        raise


# ------------------------------------------------------------------------------------------------- what a command reads
_INPUTS: ContextVar[tuple[Path, ...]] = ContextVar("inputs", default=())


@contextmanager
def inputs_kept(paths: Iterable[str | os.PathLike[str]]) -> Iterator[None]:
    """Refuse, within the block, to write any of these files, by whatever name."""
    before = _INPUTS.set((*_INPUTS.get(), *map(Path, paths)))
    try:
        yield
    finally:
        _INPUTS.reset(before)


def check_no_input(path: str | os.PathLike[str]) -> None:
    """Raise :class:`~manigeo.errors.UsageError` for a file that the command reads."""
    for read in _INPUTS.get():
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samefile(path, read):
                raise UsageError(
                    f"{os.fspath(path)} is {read}, which this command reads: it is not overwritten; give another --out"
                )

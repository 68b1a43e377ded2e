"""Locks of files that are being written: those of the operating system, which end with the process."""

from contextlib import suppress
from pathlib import Path

from manigeo.errors import UsageError


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

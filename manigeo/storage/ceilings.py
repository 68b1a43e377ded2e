"""Ceilings of what is read from a file that somebody else may have written: far above what is of use, far below what would
fill the memory or go on for days.

Each is a number of its own here, and in the table of the page "What happens to files".
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from manigeo.errors import InputError

MOST_CELLS = 100_000  # of a sweep
MOST_SETTINGS_BYTES = 1_000_000  # a TOML file: options, sweeps
MOST_NOTES_BYTES = 20_000_000  # a JSON file beside results: of a run, of what was done


def read_text(path: Path, most: int) -> str:
    """Text of a regular file of at most ``most`` bytes, in UTF-8; a pipe or a device is not waited for.

    Raises :class:`~manigeo.errors.InputError` for another kind of file or a larger one, OSError and UnicodeDecodeError as
    reading does.
    """
    with open_regular(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise InputError(f"{path} is too large: expected at most {most / 1e6:g} MB of text; is it the right file?")
    return found.decode("utf-8")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, open for reading: a pipe or a device, which may bring nothing or never end, is refused at once.

    Raises :class:`~manigeo.errors.InputError` for what is no regular file, and OSError as opening does.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InputError(f"{path} is no regular file (a folder, a pipe or a device): expected a file")
    return os.fdopen(fd, "rb")

"""Ceilings of what is read from files that somebody else may have written: far above what is of use, far below what would
fill the memory or go on for days. A file that goes beyond one is refused in one line.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from manigeo.errors import InputError

MOST_CELLS = 100_000  # of a sweep
MOST_SETTINGS_BYTES = 1_000_000  # a TOML file: options, sweeps
MOST_NOTES_BYTES = 20_000_000  # a JSON file beside results: of a run, of steps that were done, of shards
MOST_PIXELS = 89_478_485  # an image, which takes a quarter of a GB as RGB: the limit of Pillow
MOST_CLASSES = 100_000  # an activation file
MOST_LAYERS = 10_000  # an activation file
MOST_PROVENANCE = 20_000_000  # an activation file: characters of JSON
MOST_DEPTH = 1_000  # a network that comes with the package: layers or blocks of one kind
MOST_PACKED = 300  # a packed data set: bytes that a stored byte may stand for, above
UNPACKED_ANYWAY = 1_000_000_000  # bytes, which any packed data set may have


def read_text(path: Path, most: int, *, pipe: bool = False) -> str:
    """Text of at most ``most`` bytes, in UTF-8, from a regular file, or from a ``pipe`` that the user has named.

    Raises :class:`~manigeo.errors.InputError` for another kind of file or a larger one, OSError and UnicodeDecodeError as
    reading does.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.toml"
    >>> path.write_text("epochs = 3"), read_text(path, MOST_SETTINGS_BYTES)
    (10, 'epochs = 3')
    """
    with open(path, "rb") if pipe else open_regular(path) as file:
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
        raise InputError(f"{path}: expected a file, found a folder, a pipe or a device")
    return os.fdopen(fd, "rb")


def most_unpacked(stored: int) -> int:
    """Bytes that a packed file of ``stored`` bytes may become: gzip can make a thousand of one, real images make ten."""
    return max(UNPACKED_ANYWAY, MOST_PACKED * stored)

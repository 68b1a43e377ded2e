"""Files that appear when they are whole, in places that were checked before the work began."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """A path to write to; what lies there takes the name ``path`` if the block ends, and is removed if it does not."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

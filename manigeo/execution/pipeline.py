"""Steps that depend on one another, each one command with one file as its result; what is up to date is not done again.

A step is known by a key: its command line, the content of the files that it reads, the program's version, and the keys of
the steps before it. Its result is up to date while the key is the one that it was made with, and the file is as it was.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manigeo import __version__
from manigeo.errors import InputError
from manigeo.runs import file_digest
from manigeo.storage.ceilings import MOST_NOTES_BYTES, read_text
from manigeo.storage.files import whole_file

UP_TO_DATE, TO_DO, INTERRUPTED, STALE = "up to date", "to do", "interrupted", "stale"


@dataclass(frozen=True)
class Step:
    """One command: ``words`` as they are typed, its ``result``, the files it ``reads``, and the steps it comes ``after``."""

    name: str
    words: tuple[str, ...]
    result: Path
    reads: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()


class Ledger:
    """Ledger of the steps that were carried out, in a small file beside their results.

    A file that is not a ledger is an :class:`~manigeo.errors.InputError`; without a file nothing was done yet.
    """

    def __init__(self, path: Path, steps: Sequence[Step]) -> None:
        self.path, self.steps = path, tuple(steps)
        self._keys = _keys(steps)
        self._done: dict[str, dict[str, object]] = _read(path)

    def state(self, step: Step) -> str:
        """:data:`UP_TO_DATE`, :data:`TO_DO`, :data:`INTERRUPTED` (begun with this key, and may go on) or :data:`STALE`."""
        known = self._done.get(step.name)
        if known is None:
            return STALE if step.result.exists() else TO_DO
        if known["key"] != self._keys[step.name]:
            return STALE
        if known["file"] is None:
            return INTERRUPTED
        return UP_TO_DATE if known["file"] == _stamp(step.result) else STALE

    def begin(self, step: Step) -> None:
        """Mark the step as interrupted, until it is finished."""
        self._write(step, None)

    def finish(self, step: Step) -> None:
        self._write(step, _stamp(step.result))

    def _write(self, step: Step, stamp: list[int] | None) -> None:
        self._done[step.name] = {"key": self._keys[step.name], "file": stamp}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as partial:
            partial.write_text(json.dumps(self._done, indent=1))


def _keys(steps: Sequence[Step]) -> Mapping[str, str]:
    keys: dict[str, str] = {}
    content: dict[Path, str] = {}
    for step in steps:
        for path in step.reads:
            content.setdefault(path, file_digest(path))
        parts = [__version__, step.words, [content[path] for path in step.reads], [keys[name] for name in step.after]]
        keys[step.name] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return keys


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file, which change with its content."""
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else None


def _read(path: Path) -> dict[str, dict[str, object]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(read_text(path, MOST_NOTES_BYTES))
        if all({"key", "file"} == set(entry) for entry in found.values()):
            return dict(found)
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise InputError(f"{path} is not the ledger of manigeo analyze: delete it, and everything is done again")

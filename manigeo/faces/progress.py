"""Progress of long work: a bar on a terminal and in a notebook, lines now and then elsewhere; never on standard output.

Where standard error is a file or a pipe, nothing is written for work of less than half a minute, and one line for each half
minute of longer work.
"""

import importlib.util
import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, suppress
from time import monotonic
from typing import Any, TypeVar

Item = TypeVar("Item")
_SECONDS = 30.0  # between lines


def bar(total: int, title: str, unit: str, initial: int = 0, shown: bool = True) -> AbstractContextManager[Any]:
    """A report of ``total`` units of work, ``initial`` of them done before, to be entered and told by ``update``."""
    if not shown or sys.stderr is None:
        return _Lines(total, title, initial, silent=True)
    from tqdm import tqdm

    words: dict[str, Any] = {"total": total, "desc": title, "unit": unit, "initial": initial}
    if _in_kernel() and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget(**words)
    if _in_kernel() or sys.stderr.isatty():
        return tqdm(**words, file=sys.stderr)
    return _Lines(total, title, initial)


def track(items: Collection[Item], title: str, unit: str, shown: bool = True) -> Iterator[Item]:
    """The items, with a report of how many are done."""
    with bar(len(items), title, unit, shown=shown) as told:
        for item in items:
            yield item
            told.update()


class _Lines:
    """A line for each half minute: ``capacity 12/40, 1:30 left``."""

    def __init__(self, total: int, title: str, initial: int = 0, silent: bool = False) -> None:
        self.total, self.title, self.silent = total, title, silent
        self.n = self.initial = initial
        self.postfix = ""
        self.started = self.told = monotonic()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do: whoever works says that it is done."""

    def set_postfix(self, **words: str) -> None:
        self.postfix = "".join(f", {name} {word}" for name, word in words.items())

    def update(self, n: int = 1) -> None:
        self.n += n
        now = monotonic()
        if self.silent or now - self.told < _SECONDS or self.n >= self.total:
            return
        self.told = now
        seconds = round((now - self.started) * (self.total - self.n) / max(self.n - self.initial, 1))
        minutes, rest = divmod(seconds, 60)
        left = f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
        self.write(f"{self.title} {self.n}/{self.total}, {left} left{self.postfix}")

    def write(self, text: str, file: Any = None) -> None:
        with suppress(OSError, ValueError):  # nobody reads any more: no reason to stop working
            print(text, file=file or sys.stderr, flush=True)


def _in_kernel() -> bool:
    """True in a notebook, or what else shows the output of a kernel."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")

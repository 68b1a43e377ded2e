"""Standard output and error as commands see them: what they print is visible, and a reader that has gone ends nothing."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from manigeo.storage.owned import naming
from manigeo.text.visible import visible

_BOLD = re.compile(r"(\x1b\[1m)(.*)(\x1b\[0m\n?)", re.DOTALL)  # of a heading of ours
_CURSOR = re.compile(r"(?:\n|\x1b\[A)+")  # of a bar among several


class Terminal(io.TextIOBase):
    """A stream whose text is :func:`~manigeo.text.visible.visible`, but lines, headings, and a bar that is drawn again.

    Where the reader has gone (``| head``) the rest is written nowhere. A failure to write names the stream.

    >>> stream = io.StringIO()
    >>> Terminal(stream, "standard output").write("layer \\x1b[2J\\n")
    11
    >>> stream.getvalue()
    'layer \\\\x1b[2J\\n'
    """

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"expected text, got {type(text).__name__}")
        with self._given_up():
            if text:  # nothing is what click writes to see that this is for text, and hears no answer
                self._stream.write(_shown(text))
        return len(text)

    def flush(self) -> None:
        with self._given_up():
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # bytes would go past
            raise AttributeError(name)
        return getattr(self._stream, name)

    def __del__(self) -> None:
        """Leave the stream as it is: it is the program's, and at its end there is nothing left to flush with."""

    @contextlib.contextmanager
    def _given_up(self) -> Iterator[None]:
        try:
            with naming(self._name):
                yield
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):  # what is left in the buffer is not tried again
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise


def _shown(text: str) -> str:
    if _CURSOR.fullmatch(text):
        return text
    if heading := _BOLD.fullmatch(text):
        return heading[1] + visible(heading[2], "\n\t") + heading[3]
    bar = text.startswith("\r")
    end = "\r" * (bar and len(text) > 1 and text.endswith("\r"))
    return "\r" * bar + visible(text[bar : len(text) - len(end)], "\n\t") + end


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Let everything that is printed go through a :class:`Terminal`; a stream that was closed goes nowhere."""
    _hold_descriptors()
    streams = [_opened(sys.stdout), _opened(sys.stderr)]
    out, err = (
        Terminal(stream, name) for stream, name in zip(streams, ("standard output", "standard error"), strict=True)
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def _hold_descriptors() -> None:
    """Open 0, 1 and 2 to nowhere where they are closed: else the next file that is written would be one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _opened(stream: Any) -> Any:
    if stream is None or stream.closed:
        return open(os.devnull, "w")
    if isinstance(stream, io.TextIOWrapper):  # a name in a file may hold what no terminal can show
        stream.reconfigure(errors="backslashreplace")
    return stream

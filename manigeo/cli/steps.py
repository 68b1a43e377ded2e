"""Commands that are carried out by other commands, in this process, as if they had been typed; what they print, in files."""

import contextlib
import io
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from manigeo.storage.owned import append_own, naming
from manigeo.text.visible import visible


class _Log(io.TextIOBase):
    """One stream for all files of a process: click keeps each stream that it has written to, with its buffers, for ever."""

    file: TextIO | None = None

    def write(self, text: str) -> int:
        return len(text) if self.file is None else self.file.write(visible(text, "\n\t\r"))

    def flush(self) -> None:
        if self.file is not None:
            self.file.flush()


_OUT, _ERR = _Log(), _Log()


def run_command(words: Sequence[str], log: Path) -> None:
    """One command; what it prints goes below what the others have printed, its progress to the terminal."""
    with _redirected(contextlib.redirect_stdout, _OUT, log):
        click.echo(f"\n$ manigeo {shlex.join(words)}")
        call(words)


def call(words: Sequence[str]) -> None:
    """One command, of which an interrupt stays one: click makes an exception of it that is taken for a failure."""
    from manigeo.cli.main import cli

    try:
        cli.main(list(words), standalone_mode=False)
    except click.Abort as abort:
        raise (abort.__context__ or abort) from None


def errors_to(log: Path) -> contextlib.AbstractContextManager[None]:
    """Progress and notes, below what else is in the file."""
    return _redirected(contextlib.redirect_stderr, _ERR, log)


@contextlib.contextmanager
def _redirected(
    redirect: Callable[[Any], contextlib.AbstractContextManager[Any]], to: _Log, path: Path
) -> Iterator[None]:
    outer = to.file
    try:
        with naming(path), open(append_own(path), "a") as to.file, redirect(to):
            yield
    finally:
        to.file = outer

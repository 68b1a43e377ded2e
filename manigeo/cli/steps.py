"""Commands that are carried out by other commands, in this process, as if they had been typed."""

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

import click


def run_command(words: Sequence[str], log: Path) -> None:
    """One command; what it prints goes below what the others have printed, its progress to the terminal."""
    from manigeo.cli.main import cli

    with open(log, "a") as file, contextlib.redirect_stdout(file):
        click.echo(f"\n$ manigeo {shlex.join(words)}")
        cli.main(list(words), standalone_mode=False)

"""A cell of a sweep as the commands that it takes, and the carrying out of them by one worker among others."""

import contextlib
import functools
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from threadpoolctl import threadpool_limits

from manigeo.cli import options
from manigeo.cli.programs import check_allowed, programs
from manigeo.cli.steps import errors_to, run_command
from manigeo.errors import InputError, ManigeoError, UsageError, one_line
from manigeo.execution.grids import Cell
from manigeo.execution.pipeline import INTERRUPTED, UP_TO_DATE, Ledger, Step
from manigeo.storage.ceilings import MOST_CELLS
from manigeo.storage.locks import lock_file
from manigeo.storage.owned import append_own, open_own

_NOT_OF_A_SWEEP = ("out", "resume", "force", "dry-run", "config", "help")
_RUNNING = ("--arch", "--data", "--data-arg", "--trust")
_LOCK_SECONDS = 10.0
_ONE_CELL = threading.Lock()


def cell_steps(source: str, run: Path, cell: Cell, allowed: tuple[str, ...] = ()) -> tuple[Step, ...]:
    """Training and analysis of a cell; asked for wrongly they are refused before anything begins.

    Raises :class:`~manigeo.errors.InputError` for options that a command does not have, or not with that value, and
    :class:`~manigeo.errors.UsageError` for a program that is not ``allowed``.
    """
    from manigeo.cli.analyze import analyze_command
    from manigeo.cli.train import train_command

    train = ("train", "--out", str(run), *_words(source, cell, train_command, cell.train, allowed))
    steps = [Step("train", train, run / "metrics.csv")]
    if cell.analyze is not None:
        settings = {"jobs": 1} | dict(cell.analyze)
        analyze = ("analyze", str(run), *_words(source, cell, analyze_command, settings, allowed))
        steps.append(Step("analyze", analyze, run / "analysis" / "steps.json", after=("train",)))
    return tuple(steps)


def names_programs(step: Step) -> bool:
    """Return whether a step runs something that its sweep has named."""
    from manigeo.cli.train import train_command

    words = step.words[1:]
    return any(_programs(train_command, words[i : i + 2]) for i, word in enumerate(words) if word in _RUNNING)


def _words(
    source: str, cell: Cell, command: click.Command, settings: Mapping[str, Any], allowed: tuple[str, ...]
) -> Iterator[str]:
    """The options of a command as they are typed, each looked at once however many cells have it."""
    known = _options_of(command)
    for key, value in settings.items():
        name = key.replace("_", "-")
        if name in _NOT_OF_A_SWEEP or name not in known:
            what = "is said by the sweep itself" if name in known else f"is no option of manigeo {command.name}"
            raise InputError(f"{source}: {key} {what}; see manigeo {command.name} --help")
        words = options.typed(known[name], value)
        size = 1 if getattr(known[name], "is_flag", False) else 2
        for start in range(0, len(words), size):
            given = tuple(words[start : start + size])
            for option, named in _checked(source, cell, command, given):
                check_allowed(source, option, named, allowed)
            yield from given


def _checked(source: str, cell: Cell, command: click.Command, words: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    try:
        return _programs(command, words)
    except click.UsageError as error:
        raise InputError(f"{source}: cell {cell.name}: {error.format_message()}") from error


@functools.cache
def _options_of(command: click.Command) -> dict[str, click.Parameter]:
    return {name.removeprefix("--"): param for param in command.params for name in param.opts}


@functools.lru_cache(maxsize=MOST_CELLS)
def _programs(command: click.Command, words: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Programs that an option names; raises :class:`click.UsageError` for one that the command does not take so."""
    where = ["."] if any(isinstance(param, click.Argument) for param in command.params) else []
    return tuple(programs(command.make_context(str(command.name), [*where, *words]).params))


def cell_state(run: Path, steps: Sequence[Step]) -> str:
    """State of the first step that is not up to date."""
    ledger = Ledger(run / "cell.json", steps)
    return next((state for step in steps if (state := ledger.state(step)) != UP_TO_DATE), UP_TO_DATE)


def carry_out(run: Path, steps: Sequence[Step], force: bool) -> dict[str, Any]:
    """The task of a worker: the steps of a cell that are not up to date. A failure is what it returns, too."""
    import manigeo_extract.training.trainer  # noqa: F401  before threads are limited, since it brings libraries that have some

    began = time.monotonic()
    error = ""
    run.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(run), threadpool_limits(1), errors_to(run / "log.txt"):  # cells would speak all at once
            _carry_out(run, steps, force)
    except (ManigeoError, click.ClickException) as failure:
        error = failure.format_message() if isinstance(failure, click.ClickException) else str(failure)
    except Exception as failure:  # of a network or a data set of the user's: the other cells are done
        error = f"{type(failure).__name__}: {one_line(failure)}"
        with open(append_own(run / "log.txt"), "a") as log:
            traceback.print_exc(file=log)
    return {"error": " ".join(error.split()), "seconds": round(time.monotonic() - began, 1)}


def _carry_out(run: Path, steps: Sequence[Step], force: bool) -> None:
    ledger = Ledger(run / "cell.json", steps)
    for step in steps:
        state = ledger.state(step)
        if state == UP_TO_DATE and not force:
            continue
        ledger.begin(step)
        run_command([*step.words, *_how(step, state, force)], run / "log.txt")
        ledger.finish(step)


def _how(step: Step, state: str, force: bool) -> list[str]:
    """Anew, or from where it was interrupted, which an analysis knows by itself."""
    if not force and step.name == "analyze":
        return []
    return ["--resume"] if state == INTERRUPTED and not force else ["--force"]


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """One process at a time in a cell, and in a process one cell at a time, since they print to one place.

    A worker that was given up may still be at it. Raises :class:`~manigeo.errors.UsageError` where it stays.
    """
    with _ONE_CELL, open(open_own(run / "cell.lock")) as file:
        patience = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                lock_file(file.fileno(), run)
                break
            except UsageError:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.2)
        yield

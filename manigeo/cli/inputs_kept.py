"""Files that a command reads and writes, by its own line: none is both, and none is written twice."""

import copy
import functools
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from manigeo.errors import UsageError
from manigeo.storage.owned import check_no_input, inputs_kept

CONFIG = "manigeo.config"  # the file of --config, in the meta data of a context
_NAMING_FILES = ("data", "data_args", "arch", "arch_args", "convention")  # npz:PATH, file.py:factory, path=..., FILE
_OF_A_RUN = (".pt", ".csv", ".json")


def keeping_inputs(command: click.Command) -> click.Command:
    """The command, which refuses to overwrite what it reads: :func:`~manigeo.storage.owned.check_no_input` knows of it."""
    kept, callback = copy.copy(command), command.callback

    @functools.wraps(callback or print)
    def carried_out(**params: Any) -> Any:
        context = click.get_current_context()
        found = list(input_files(context))
        _check_outputs(context)
        _check_folder(params.get("out"), found)
        with inputs_kept(found):
            if isinstance(out := params.get("out"), Path):
                check_no_input(out)
            return callback(**params) if callback else None

    kept.callback = carried_out
    return kept


def input_files(ctx: click.Context) -> Iterator[Path]:
    """Files that a command's parameters name, but for those that it writes, and in folders those that analyses are made
    of."""
    yield from ctx.meta.get(CONFIG, [])
    for param in ctx.command.params:
        if param.name in (None, "out") or getattr(param.type, "writable", False):
            continue
        paths = isinstance(param, click.Argument) or isinstance(param.type, click.Path)
        if paths or param.name in _NAMING_FILES:
            for text in _texts(ctx.params.get(param.name)):
                yield from _files(text, isinstance(param, click.Argument))


def _check_outputs(ctx: click.Context) -> None:
    """Refuse one file for two of what the command writes."""
    asked: dict[Path, str] = {}
    for param in ctx.command.params:
        path = ctx.params.get(param.name or "")
        if isinstance(path, Path) and (param.name == "out" or getattr(param.type, "writable", False)):
            option = max(param.opts, key=len)
            other = asked.setdefault(path.resolve(), option)
            if other != option:
                raise UsageError(
                    f"{other} and {option} are both {path}, and one would overwrite the other; give two names"
                )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (str, os.PathLike)):
        yield os.fspath(value)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _files(text: str, pattern: bool) -> Iterator[Path]:
    """Files at ``PATH``, ``npz:PATH`` and ``PATH:factory``, and those of a pattern."""
    for name in (text, text.partition(":")[2], text.rpartition(":")[0]):
        if name and "\0" not in name and os.path.isfile(name):
            yield Path(name)
        elif name and "\0" not in name and os.path.isdir(name):
            own = ("metrics.csv", "labels.csv", "run.json", "checkpoints/*", "*.pt", "*.safetensors", "*.bin", "*.npz")
            yield from (path for ending in own for path in Path(name).glob(ending) if path.is_file())
    if pattern and not os.path.exists(text):
        yield from map(Path, glob.glob(text))


def _check_folder(out: Any, inputs: list[Path]) -> None:
    """Refuse a folder to whose files, written one after the other, an input belongs: before any of them is."""
    if not isinstance(out, Path) or not out.is_dir():
        return
    for path in inputs:
        inside = path.resolve().parent in (out.resolve(), out.resolve() / "checkpoints")
        if inside and path.suffix in _OF_A_RUN:
            raise UsageError(f"{path}, which this command reads, lies in {out}, where it writes; give another --out")

"""Sweeps over networks: a grid of training settings as cells, one run and its analysis each, and their tables as one.

A sweep is a TOML file::

    [train]                     # options of manigeo train, the same in every cell
    data = "digits"
    epochs = 40

    [grid]                      # options of manigeo train that vary: every combination is a cell
    arch-arg.width = [16, 32, 64]
    permute = [0.0, 0.5]
    seed = [0, 1, 2]

    [analyze]                   # options of manigeo analyze; without this table nothing but training is done
    checkpoints = "best,last"
    skip = ["separability"]

Several grids, ``[[grid]]``, make one sweep of all their cells, at most 100,000. Networks, data sets and transforms of your
own (``arch = "nets.py:small"``), and ``trust``, are repeated on the command line, since the file may be somebody else's:
``--allow nets.py:small``.
"""

import itertools
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from manigeo.errors import InputError, UsageError
from manigeo.results import as_table
from manigeo.runs import RunFolder, run_tables
from manigeo.storage.ceilings import MOST_CELLS, MOST_SETTINGS_BYTES, read_text
from manigeo.storage.names import safe_name

EXAMPLES = resources.files("manigeo.execution") / "examples"
_TABLES = ("train", "grid", "analyze")


@dataclass(frozen=True)
class Cell:
    """One run: its ``name``, the ``values`` of what varies, and the options of train and of analyze (None: not done)."""

    name: str
    values: Mapping[str, Any]
    train: Mapping[str, Any]
    analyze: Mapping[str, Any] | None


def example_names() -> list[str]:
    """The sweeps that come with the program."""
    return sorted(Path(entry.name).stem for entry in EXAMPLES.iterdir() if entry.name.endswith(".toml"))


def sweep_text(source: str) -> str:
    """The text of a sweep: of a file, or of one that comes with the program, by its name.

    Raises :class:`~manigeo.errors.UsageError` where there is neither.
    """
    if Path(source).is_file():
        try:
            return read_text(Path(source), MOST_SETTINGS_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{source} cannot be read: {error}") from error
    if source in example_names():
        return (EXAMPLES / f"{source}.toml").read_text("utf-8")
    raise UsageError(f"{source} is no file, and no sweep that comes with manigeo: {', '.join(example_names())}")


def sweep_cells(source: str) -> list[Cell]:
    """The cells of a sweep, in the order of its grids.

    Raises :class:`~manigeo.errors.InputError` for a text that is not TOML, tables that do not belong there, a grid that
    has no values, or cells that are the same.
    """
    try:
        said = tomllib.loads(sweep_text(source))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source} is not a TOML file: {error}") from error
    if unknown := sorted(set(said) - set(_TABLES)):
        raise InputError(f"{source} has {', '.join(unknown)}; a sweep has the tables {', '.join(_TABLES)}")
    grids = said.get("grid", {})
    grids = grids if isinstance(grids, list) else [grids]
    tables = [said.get("train", {}), *grids, *([said["analyze"]] if "analyze" in said else [])]
    if not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{source}: {', '.join(_TABLES)} are tables, such as [train]; [[grid]] may be repeated")
    _check_number(source, grids)
    combined = [values for grid in grids for values in _combinations(source, grid)]
    cells = [Cell(_name(v), v, _merged(said.get("train", {}), v), said.get("analyze")) for v in combined]
    _check_different(source, [cell.name for cell in cells])
    return cells


def _check_number(source: str, grids: Sequence[Mapping[str, Any]]) -> None:
    """Count the cells before any is made."""
    n = sum(math.prod(len(values) for values in _axes(source, grid).values()) for grid in grids)
    if n > MOST_CELLS:
        raise InputError(
            f"{source} has {n:,} cells; expected at most {MOST_CELLS:,}: give fewer values, or several sweeps"
        )


def _combinations(source: str, grid: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    axes = _axes(source, grid)
    for chosen in itertools.product(*axes.values()):
        yield dict(zip(axes, chosen, strict=True))


def _axes(source: str, grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    axes = dict(_leaves(grid))
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{source}: {name} of the grid must be a list of values, such as [1, 2]; got {values!r}")
    return axes


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``arch-arg.width`` for what is in a table in a table."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _merged(common: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the options that vary over those that do not."""
    merged: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in common.items()}
    for name, value in values.items():
        option, _, argument = name.partition(".")
        if argument:
            merged.setdefault(option, {})[argument] = value
        else:
            merged[option] = value
    return merged


def _name(values: Mapping[str, Any]) -> str:
    """Name of a cell in a path, a table and a legend: ``width=16,permute=0.5``."""
    parts = [f"{name.rpartition('.')[2]}={_plain(value)}" for name, value in values.items()]
    return safe_name(",".join(parts) or "run")


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", str(value))


def _check_different(source: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise InputError(f"{source} has cells twice: {', '.join(twice[:3])}; take what is repeated out of the grids")


def sweep_results(folder: Path, cells: Sequence[Cell]) -> pd.DataFrame:
    """All results of all cells that have some, in the order of the cells; ``run`` is the name of the cell."""
    tables = []
    for cell in cells:
        try:
            tables.append(run_tables(folder / cell.name).table.assign(run=cell.name))
        except InputError:
            continue
    return pd.concat(tables, ignore_index=True) if tables else as_table([])


def cells_table(folder: Path, cells: Sequence[Cell], notes: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row a cell: what varies, ``state`` and the other notes on it, and the accuracy of every kind at the last epoch
    (``test`` ...) and at that of best validation accuracy (``test_best`` ...)."""
    rows = [
        {"cell": cell.name} | dict(cell.values) | dict(notes[cell.name]) | _accuracies(folder / cell.name)
        for cell in cells
    ]
    return pd.DataFrame(rows)


def _accuracies(run: Path) -> dict[str, float]:
    try:
        scores = RunFolder(run).metrics().pivot(index="epoch", columns="kind", values="accuracy")
    except (InputError, ValueError):
        return {}
    last = scores.iloc[-1].to_dict()
    if "validation" not in scores:
        return last
    best = scores.loc[scores["validation"].idxmax()]
    return last | {f"{kind}_best": value for kind, value in best.items()}

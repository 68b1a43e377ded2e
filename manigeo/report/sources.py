"""What a report is made from: results tables, folders of runs, activation files, found in and beside what a user names."""

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from manigeo.errors import InputError, ManigeoError, one_line
from manigeo.results import read_results

SUFFIXES = (".csv", ".json", ".parquet")
_MAKERS = "manigeo capacity, separability, weights, rewind, reinit, gradients or localize"


@dataclass(frozen=True, eq=False)
class ResultsFile:
    """A results table, its file's name as the report shows it, and the digest of the file's bytes."""

    name: str
    sha256: str
    table: pd.DataFrame


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What ``run.json`` says of a run, and its ``metrics.csv`` (None where there is none)."""

    name: str
    description: dict[str, Any]
    metrics: pd.DataFrame | None


@dataclass(frozen=True)
class Recording:
    """Where the activations came from that a table was computed of: the provenance that their file carries."""

    name: str
    fingerprint: str
    manigeo_version: str
    provenance: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Sources:
    """All that was found; ``left_out`` says of files that could not be used why."""

    tables: tuple[ResultsFile, ...]
    runs: tuple[RunFolder, ...]
    recordings: tuple[Recording, ...]
    left_out: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """All tables as one; rows that two files share stand once."""
        return pd.concat([file.table for file in self.tables], ignore_index=True).drop_duplicates(ignore_index=True)

    @property
    def aggregates(self) -> pd.DataFrame:
        """Its rows over manifolds."""
        table = self.table
        return table[table["manifold"] == ""].reset_index(drop=True)


def collect_sources(places: Sequence[Path]) -> Sources:
    """What can be reported on in these folders and files.

    A folder gives the tables in it and in the runs that it holds; a run's own folder also those beside it that are of this
    run. A table gives the folders beside it of the runs that it names.

    Raises :class:`~manigeo.errors.InputError` where a place does not exist, a file that was named is no results table, or
    none is found.
    """
    for place in places:
        if not place.exists():
            raise InputError(f"{place} does not exist; expected the folder of a run, or tables of {_MAKERS}")
    folders = _unique([folder for place in places if place.is_dir() for folder in _with_runs(place)])
    runs = [folder for folder in folders if _is_run(folder)]
    read: dict[Path, pd.DataFrame] = {path.resolve(): read_results(path) for path in places if path.is_file()}
    left_out: dict[Path, str] = {}
    for path in _files(folders, SUFFIXES):
        _read_found(path, read, left_out)
    for path in _files([run.parent for run in runs], SUFFIXES):
        _read_found(path, read, left_out, of={run.name for run in runs})
    if not read:
        trouble = f" ({'; '.join(f'{path.name}: {why}' for path, why in left_out.items())})" if left_out else ""
        where = ", ".join(map(str, places))
        raise InputError(f"no results tables in or beside {where}{trouble}; make them with {_MAKERS}")
    return _as_sources(read, _unique(runs + _beside(read)), left_out)


def _as_sources(read: dict[Path, pd.DataFrame], runs: list[Path], left_out: dict[Path, str]) -> Sources:
    shown = _shown([*read, *runs, *left_out])
    tables = tuple(ResultsFile(shown[path], _digest(path), table) for path, table in sorted(read.items()))
    described: list[RunFolder] = []
    for path in runs:
        try:
            described.append(_run_folder(path, shown[path]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            left_out[path] = f"the run cannot be read: {one_line(error)}"
    notes = tuple(f"{shown[path]}: {why}" for path, why in sorted(left_out.items()))
    return Sources(tables, tuple(described), _recordings(read), notes)


def _recordings(read: dict[Path, pd.DataFrame]) -> tuple[Recording, ...]:
    """Of the activation files that lie beside the tables, those that the tables are of."""
    fingerprints = {text for table in read.values() for text in table["fingerprint"].unique()}
    found = [_recording(path) for path in _files([path.parent for path in read], (".h5",))]
    return tuple(recording for recording in found if recording and recording.fingerprint in fingerprints)


def _with_runs(folder: Path) -> list[Path]:
    """The folder, the runs in it, and what was analysed of each."""
    holders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path))]
    return [place for holder in holders for place in (holder, holder / "analysis") if place.is_dir()]


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def _files(folders: Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    found = (path for folder in _unique(folders) for path in sorted(folder.iterdir()) if path.suffix in suffixes)
    return [path.resolve() for path in found if path.is_file()]


def _unique(paths: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys([path.resolve() for path in paths]))


def _read_found(
    path: Path, read: dict[Path, pd.DataFrame], left_out: dict[Path, str], of: set[str] | None = None
) -> None:
    """A file that nobody named: passed over if it is no results table, or of other runs; noted if it cannot be read."""
    try:
        if path in read or not _looks_like_results(path):
            return
        table = read_results(path)
    except (ManigeoError, ImportError, OSError, ValueError) as error:
        left_out[path] = str(error).replace(f"{path} ", "")
        return
    if of is None or of & {Path(run).name for run in table["run"].unique()}:
        read[path] = table


def _looks_like_results(path: Path) -> bool:
    """By its first line; Parquet is nothing else here."""
    if path.suffix == ".parquet":
        return True
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        start = file.read(4096)
    if path.suffix == ".json":
        return start.lstrip().startswith("[") and '"metric"' in start
    return {"metric", "value"} <= set(next(csv.reader(start.splitlines()), []))


def _beside(read: dict[Path, pd.DataFrame]) -> list[Path]:
    """Folders of the runs that tables name, where they lie beside the table."""
    beside = (path.parent / run for path, table in read.items() for run in table["run"].unique() if _is_name(run))
    return [folder for folder in beside if _is_run(folder)]


def _is_name(run: str) -> bool:
    """Of a folder that may be there."""
    return run not in ("", ".", "..") and Path(run).name == run and "\0" not in run and len(run.encode()) < 256


def _run_folder(path: Path, name: str) -> RunFolder:
    description = json.loads((path / "run.json").read_text())
    if not isinstance(description, dict):
        raise ValueError("run.json holds no description")
    metrics = path / "metrics.csv"
    return RunFolder(name, description, _metrics(metrics) if metrics.is_file() else None)


def _metrics(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    if missing := {"epoch", "kind", "accuracy"} - set(table.columns):
        raise ValueError(f"metrics.csv has no column {', '.join(sorted(missing))}")
    return table.astype({"epoch": float, "accuracy": float})


def _recording(path: Path) -> Recording | None:
    """None for a file of another program, or an unfinished one: tables are of finished ones."""
    from manigeo.activations import open_activations

    try:
        with open_activations(path) as acts:
            return Recording(path.name, acts.fingerprint, acts.manigeo_version, acts.provenance)
    except (ManigeoError, OSError, ValueError, KeyError):
        return None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(paths: list[Path]) -> dict[Path, str]:
    """As seen from the folder that holds them all: a report says nothing of the machine that it was made on."""
    common = os.path.commonpath([path.parent for path in paths])
    return {path: Path(os.path.relpath(path, common)).as_posix() for path in paths}

"""Sources of a report: results tables, folders of runs, activation files, found in and beside what a user names."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from manigeo.errors import InputError, ManigeoError
from manigeo.per_example.table import read_examples
from manigeo.results import row_settings, runs_apart
from manigeo.runs import Found, FoundTable, RunFolder, file_digest, find_tables
from manigeo.storage.recognition import EXAMPLES, recognized


@dataclass(frozen=True, eq=False)
class ResultsFile:
    """A results table, its file's name as the report shows it, and the digest of the file's bytes."""

    name: str
    sha256: str
    table: pd.DataFrame


@dataclass(frozen=True, eq=False)
class DescribedRun:
    """A run as the report names it, with the content of its ``run.json`` and its metrics (None where there are none)."""

    name: str
    description: Mapping[str, Any]
    metrics: pd.DataFrame | None
    folder: RunFolder


@dataclass(frozen=True, eq=False)
class ExamplesFile:
    """A table of single examples, its file's name, and the file of the ``activations`` that it is of, where that lies in the
    same folder."""

    name: str
    table: pd.DataFrame
    activations: Path | None


@dataclass(frozen=True)
class Recording:
    """Origin of the activations that a table was computed from: the provenance that their file carries."""

    name: str
    fingerprint: str
    manigeo_version: str
    provenance: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Sources:
    """All that was found; ``left_out`` tells why files could not be used."""

    tables: tuple[ResultsFile, ...]
    runs: tuple[DescribedRun, ...]
    recordings: tuple[Recording, ...]
    left_out: tuple[str, ...]
    examples: tuple[ExamplesFile, ...] = ()

    @cached_property
    def table(self) -> pd.DataFrame:
        """All tables as one; rows that two files share stand once."""
        joined = pd.concat([file.table for file in self.tables], ignore_index=True)
        return runs_apart(joined.drop_duplicates(ignore_index=True))

    @cached_property
    def aggregates(self) -> pd.DataFrame:
        """Rows of the table over manifolds."""
        table = self.table
        return table[table["manifold"] == ""].reset_index(drop=True)


def collect_sources(places: Sequence[Path]) -> Sources:
    """Collect what can be reported on in these folders and files, found as :func:`~manigeo.runs.find_tables` does.

    Tables of single examples are taken where they are named, and where they lie in the folder of a run that they are of.

    Raises :class:`~manigeo.errors.InputError` where a place does not exist, a file that was named is not a results
    table, or none is found.
    """
    named = [path for path in places if path.is_file() and recognized(path) == EXAMPLES]
    if named and len(named) == len(places):
        raise InputError(f"{named[0]} is {EXAMPLES}, which stands beside results: name the folder of its run as well")
    found = find_tables([path for path in places if path not in named])
    left_out = dict(found.left_out)
    examples = _examples([path.resolve() for path in named], found, left_out)
    folders = [run.path.resolve() for run in found.runs]
    shown = _shown([*(table.path for table in found.tables), *folders, *left_out, *examples])
    described = []
    for folder, run in zip(folders, found.runs, strict=True):
        try:
            metrics = run.metrics() if run.metrics_path.is_file() else None
            described.append(DescribedRun(shown[folder], run.description(), metrics, run))
        except InputError as error:
            left_out[folder] = f"the run cannot be read: {error}"
    tables = tuple(ResultsFile(shown[table.path], file_digest(table.path), table.rows) for table in found.tables)
    notes = tuple(f"{shown[path]}: {why}" for path, why in sorted(left_out.items()))
    singles = tuple(ExamplesFile(shown[path], *of) for path, of in examples.items())
    return Sources(tables, tuple(described), _recordings(found.tables), notes, singles)


def _examples(
    named: Sequence[Path], found: Found, left_out: dict[Path, str]
) -> dict[Path, tuple[pd.DataFrame, Path | None]]:
    """The tables of examples that were named, and those in the folders of the runs that they are of; why not the others."""
    of_run = {place: run for run in found.runs for place in (run.path.resolve(), run.analysis.resolve())}
    files = [path for place in of_run if place.is_dir() for path in sorted(place.iterdir()) if path.suffix == ".csv"]
    taken: dict[Path, tuple[pd.DataFrame, Path | None]] = {}
    for path in dict.fromkeys([*named, *(path for path in files if recognized(path) == EXAMPLES)]):
        try:
            table, run = read_examples(path), of_run.get(path.parent)
        except InputError as error:
            if path in named:
                raise
            left_out[path] = str(error)
            continue
        ids = {row_settings(text).get("run_id") for text in table["settings"].unique()}
        if path not in named and run and ids != {run.identity}:
            left_out[path] = f"of another training than {run.path}: name it to see it"
        else:
            taken[path] = table, _activations_of(path, table)
    return taken


def _activations_of(path: Path, table: pd.DataFrame) -> Path | None:
    prints = set(table["fingerprint"].unique())
    files = ((file, _recording(file)) for file in sorted(path.parent.glob("*.h5")))
    return next((file for file, recording in files if recording and {recording.fingerprint} == prints), None)


def _recordings(tables: Sequence[FoundTable]) -> tuple[Recording, ...]:
    """Find the activation files beside the tables that the tables are of."""
    fingerprints = {text for table in tables for text in table.rows["fingerprint"].unique()}
    files = [path for folder in dict.fromkeys(t.path.parent for t in tables) for path in sorted(folder.glob("*.h5"))]
    found = [_recording(path) for path in files]
    return tuple(recording for recording in found if recording and recording.fingerprint in fingerprints)


def _recording(path: Path) -> Recording | None:
    """Read a recording; None for a file of another program, or an unfinished one: tables are of finished ones."""
    from manigeo.activations import open_activations

    try:
        with open_activations(path) as acts:
            return Recording(path.name, acts.fingerprint, acts.manigeo_version, acts.provenance)
    except (ManigeoError, OSError, ValueError, KeyError):
        return None


def _shown(paths: list[Path]) -> dict[Path, str]:
    """Paths as seen from the folder that holds them all: a report tells nothing of the machine that it was made on."""
    common = os.path.commonpath([path.parent for path in paths])
    return {path: Path(os.path.relpath(path, common)).as_posix() for path in paths}

"""Runs: the folder of a training, its identity, and the results tables that are of it.

::

    run.json  labels.csv  metrics.csv  examples.record  resume.pt
    checkpoints/  epoch-0000.pt  epoch-0010.pt  before.pt  best.pt  last.pt
    analysis/     results tables, activations, report

This module alone knows the layout. Which run a number is of is decided by identity (:data:`manigeo.results.IDENTITY`): a run
has one of its own, which its checkpoints, activations and rows carry. Folders may be moved and renamed, and trained in anew;
what belongs to another training is left out, with the reason.
"""

import csv
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from manigeo.errors import InputError, ManigeoError, UsageError, one_line
from manigeo.results import COLUMNS, as_table, identities, read_results, runs_apart
from manigeo.storage.ceilings import MOST_NOTES_BYTES, read_text
from manigeo.storage.recognition import EXAMPLES, recognized
from manigeo.storage.spreadsheets import as_names

PathLike = str | os.PathLike[str]
SUFFIXES = (".csv", ".json", ".parquet")
ANALYSIS = "analysis"
_CHECKPOINTS = "checkpoints"
_MODEL_FILES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".pt.tar", ".pth.tar")
_NO_WEIGHTS = (
    "optim",
    "sched",
    "scaler",
    "rng_state",
    "training_args",
    "resume",
)  # in names of files beside checkpoints
_MAKERS = "manigeo capacity, separability, weights, rewind, reinit, channels, gradients or localize"


@dataclass(frozen=True)
class RunFolder:
    """The paths in the folder of a run, and what is written there.

    >>> RunFolder(Path("runs/a")).checkpoint("last").as_posix()
    'runs/a/checkpoints/last.pt'
    """

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name, wherever one stands."""
        return self.path.resolve().name

    @property
    def description_path(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def labels_path(self) -> Path:
        return self.path / "labels.csv"

    @property
    def sequences_path(self) -> Path:
        """The scored sequences after the last epoch, of a training on a text."""
        return self.path / "sequences.csv"

    def sequences(self) -> pd.DataFrame | None:
        """One row per scored sequence: kind, sequence, exact, accuracy, loss, exposure, prefix, suffix, answer; None of a
        run that has none.

        Raises :class:`~manigeo.errors.InputError` for a damaged table.
        """
        if not self.sequences_path.is_file():
            return None
        try:
            text = {name: str for name in ("kind", "prefix", "suffix", "answer")}
            table = as_names(
                pd.read_csv(self.sequences_path, dtype=text, keep_default_na=False, na_values={"exposure": ""})
            )
            return table.astype({"exact": bool, "accuracy": float, "loss": float, "exposure": float})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.sequences_path} is damaged ({one_line(error)}): train again, or remove it"
            ) from error

    @property
    def record_path(self) -> Path:
        """The record of single examples over the epochs, of a training that kept one."""
        return self.path / "examples.record"

    @property
    def resume_path(self) -> Path:
        return self.path / "resume.pt"

    @property
    def checkpoints(self) -> Path:
        return self.path / _CHECKPOINTS

    @property
    def analysis(self) -> Path:
        return self.path / ANALYSIS

    @property
    def exists(self) -> bool:
        return self.description_path.is_file()

    def checkpoint(self, name: str) -> Path:
        return self.checkpoints / f"{name}.pt"

    def checkpoint_names(self) -> list[str]:
        """Names of all checkpoints, in alphabetical order."""
        return list(self.checkpoint_files())

    def checkpoint_files(self) -> dict[str, Path]:
        """The checkpoints by name, in alphabetical order: those in ``checkpoints``, or else at the top of the folder. Of a
        folder without ``run.json``, of another program, all files that look like weights."""
        own = self.exists
        for folder in (self.checkpoints, self.path):
            files = sorted(folder.glob("*.pt") if own else filter(_holds_weights, folder.glob("*")))
            if files := [path for path in files if path.is_file() and path != self.resume_path]:
                return _by_stem(files)
        return {}

    def description(self) -> dict[str, Any]:
        """The content of ``run.json``; raises :class:`~manigeo.errors.InputError` where there is none."""
        try:
            found = json.loads(read_text(self.description_path, MOST_NOTES_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            if not self.exists:
                raise InputError(f"{self.path} is not the folder of a run of manigeo: it has no run.json") from error
            raise InputError(f"{self.description_path} cannot be read: {one_line(error)}") from error
        if not isinstance(found, dict):
            raise InputError(f"{self.description_path} holds no description of a run")
        return found

    @cached_property
    def identity(self) -> str:
        """The run's own; empty for one that was begun before runs had one, or whose description is lost."""
        try:
            return str(self.description().get("run_id") or "")
        except InputError:
            return ""

    @property
    def key(self) -> str:
        """Text that is the same for copies of a run: its identity, or of one without, where it lies."""
        return self.identity or os.fspath(self.path.resolve())

    @property
    def arch(self) -> str | None:
        """Name of the architecture, where ``run.json`` tells it."""
        try:
            told = self.description().get("arch")
        except InputError:
            return None
        return told if isinstance(told, str) else None

    @property
    def network(self) -> str:
        """The architecture with its arguments, where ``run.json`` tells them; else empty.

        >>> RunFolder(Path("nowhere")).network
        ''
        """
        arguments = self.description().get("arch_args") if self.arch else None
        shown = arguments if isinstance(arguments, dict) else {}
        return " ".join([self.arch or "", *(f"{name}={json.dumps(shown[name])}" for name in sorted(shown))]).strip()

    @property
    def n_classes(self) -> int | None:
        """Number of classes that were trained on, from ``run.json`` or else the labels; None where neither tells."""
        try:
            told = self.description().get("n_classes")
            if isinstance(told, int) and told > 0:
                return told
            labels = pd.read_csv(self.labels_path)
            return int(labels.loc[labels["split"] == "train", "train_label"].nunique()) or None
        except (InputError, OSError, ValueError, KeyError):
            return None

    @property
    def near_guessing(self) -> float | None:
        """Accuracy on permuted labels, chance-normalised, up to which the run counts as before memorization; None where
        ``run.json`` tells none."""
        try:
            told = self.description().get("near_guessing")
        except InputError:
            return None
        return float(told) if isinstance(told, int | float) and 0 <= told < 1 else None

    def metrics(self) -> pd.DataFrame:
        """One row per epoch and kind: epoch, kind, accuracy, loss, n.

        Raises :class:`~manigeo.errors.InputError` for a folder without the metrics of a run.
        """
        try:
            table = pd.read_csv(self.metrics_path, converters={"accuracy": _float, "loss": _float})
            if missing := {"epoch", "kind", "accuracy"} - set(table.columns):
                raise ValueError(f"no column {', '.join(sorted(missing))}")
            return table.astype({"epoch": float, "accuracy": float})
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(
                f"{self.path} has no metrics of a run ({one_line(error)}); give a folder of manigeo train or of a recorder"
            ) from error


def _holds_weights(path: Path) -> bool:
    return path.name.endswith(_MODEL_FILES) and not any(word in path.stem for word in _NO_WEIGHTS)


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    """Files by their names without suffix, unless two have the same."""
    stems = [path.stem for path in files]
    return {path.stem if stems.count(path.stem) == 1 else path.name: path for path in files}


def _float(text: str) -> float:
    """Read a number to the last digit, which older versions of pandas lose."""
    return float(text or "nan")


def run_of(checkpoint: PathLike) -> RunFolder | None:
    """The run that a checkpoint lies in the folder of, if it does."""
    folder = Path(checkpoint).resolve().parent
    return RunFolder(folder.parent) if folder.name == _CHECKPOINTS else None


def distinct_names(paths: Sequence[PathLike]) -> list[str]:
    """The shortest ends of paths that tell them apart.

    >>> distinct_names(["x/a/run", "x/b/run"])
    ['a/run', 'b/run']
    """
    parts = [Path(path).resolve().parts for path in paths]
    for n in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-n:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError("a run is given twice: name each once")


def check_no_copies(runs: Sequence[PathLike]) -> None:
    """Check that no run is given twice, in its own folder or in a copy of it.

    Raises :class:`~manigeo.errors.UsageError` where one is.
    """
    known: dict[str, PathLike] = {}
    for run in runs:
        key = RunFolder(Path(run)).key
        if key in known:
            raise UsageError(f"{run} is given twice, or is a copy of {known[key]}: name each run once")
        known[key] = run


def check_one_network(runs: Sequence[PathLike]) -> None:
    """Check that runs are of one architecture, as far as they tell.

    Raises :class:`~manigeo.errors.UsageError` where they are of several.
    """
    known: dict[str, PathLike] = {}
    for run in runs:
        if network := RunFolder(Path(run)).network:
            known.setdefault(network, run)
    if len(known) > 1:
        told = "; ".join(f"{network} ({run})" for network, run in known.items())
        raise UsageError(f"the runs are of different networks: {told}; give those of one at a time")


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, time: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read once as long as it stays as it is; empty where there is none."""
    try:
        at = path.stat()
        return _digest(path.resolve(), at.st_size, at.st_mtime_ns)
    except FileNotFoundError:
        return ""


# ---------------------------------------------------------------------------------------------------- tables and whose
@dataclass(frozen=True, eq=False)
class FoundTable:
    """A results table: its file, and those of its rows that belong to what was asked for."""

    path: Path
    rows: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Found:
    """The tables in and beside what a user named, and the runs that they are of.

    ``left_out`` gives for files, or for some of their rows, the reason; ``damaged`` are those of them that cannot be read.
    """

    tables: tuple[FoundTable, ...]
    runs: tuple[RunFolder, ...]
    left_out: Mapping[Path, str]
    damaged: tuple[Path, ...]

    @property
    def folders(self) -> list[Path]:
        """The folders that the tables are in."""
        return _unique([found.path.parent for found in self.tables])

    @property
    def table(self) -> pd.DataFrame:
        """All tables as one; rows that two files share stand once."""
        rows = [found.rows for found in self.tables]
        return (
            runs_apart(pd.concat(rows, ignore_index=True).drop_duplicates(ignore_index=True)) if rows else as_table([])
        )


def find_tables(places: Sequence[PathLike], *, runs_within: bool = True) -> Found:
    """The results tables in these folders and files, without rows of other trainings.

    A folder gives the tables in it, in its ``analysis``, and (``runs_within``) in the runs that it holds; a run's own folder
    also those beside it that are of this run. A table gives the runs beside it that it names.

    Raises :class:`~manigeo.errors.InputError` where a place does not exist, a file that was named is not a results table, or
    nothing is found.
    """
    paths = [Path(place) for place in places]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist; expected the folder of a run, or tables of {_MAKERS}")
    folders = _unique([folder for path in paths if path.is_dir() for folder in _with_runs(path, runs_within)])
    runs, copies = _originals([RunFolder(folder) for folder in folders if RunFolder(folder).exists])
    folders = [folder for folder in folders if not copies.keys() & {folder.resolve(), folder.resolve().parent}]
    search = _Search(runs, copies)
    for path in paths:
        if path.is_file():
            search.take(path.resolve(), read_results(path), named=True)
    for path in _files(folders):
        search.look(path)
    for path in _files([run.path.parent for run in runs]):
        search.look(path, beside=True)
    found = search.found()
    if found.table.empty:
        raise InputError(_nothing_found(paths, found))
    return found


def _originals(runs: Sequence[RunFolder]) -> tuple[list[RunFolder], dict[Path, str]]:
    """The runs, each once, and why not the folders that hold one of them again."""
    known: dict[str, RunFolder] = {}
    for run in runs:
        known.setdefault(run.key, run)
    originals = list(known.values())
    copies = {run.path.resolve(): f"a copy of {known[run.key].path}" for run in runs if run not in originals}
    return originals, copies


def _nothing_found(places: Sequence[Path], found: Found) -> str:
    where = ", ".join(map(str, places))
    reasons = "; ".join(f"{path.name}: {why}" for path, why in found.left_out.items())
    trouble = f" ({reasons})" if reasons else ""
    return (
        f"{where} has no results, no results tables in or beside it{trouble}: make them with {_MAKERS}, or all of them with "
        "manigeo analyze"
    )


def run_tables(run: PathLike) -> Found:
    """The results of one run, in its folder, in its ``analysis``, and beside it.

    Raises :class:`~manigeo.errors.InputError` where there are none, or one of them is damaged.
    """
    found = find_tables([run], runs_within=False)
    for path in found.damaged:
        raise InputError(f"{path}: {found.left_out[path]}")
    return found


class _Claim(NamedTuple):
    """Identity of a network as rows of a table state it."""

    run: str
    run_id: str
    checkpoint: str
    sha256: str  # of the checkpoint, where the rows name it
    fingerprint: str


class _Search:
    """Tables as they are found, each once, and the runs known so far."""

    def __init__(self, runs: Sequence[RunFolder], left_out: Mapping[Path, str]) -> None:
        self._runs = {run.path.resolve(): run for run in runs}
        self._tables: dict[Path, pd.DataFrame] = {}
        self._left_out = dict(left_out)
        self._damaged: list[Path] = []

    def look(self, path: Path, beside: bool = False) -> None:
        """A file that nobody named: passed over if it is not a results table; noted if it cannot be read."""
        if path in self._tables or path in self._left_out:
            return
        try:
            if _looks_like_results(path):
                self.take(path, read_results(path), beside=beside)
        except (ManigeoError, ImportError, OSError, ValueError) as error:
            self._left_out[path] = str(error).replace(f"{path} ", "")
            self._damaged.append(path)

    def take(self, path: Path, table: pd.DataFrame, *, named: bool = False, beside: bool = False) -> None:
        """The rows of a table that belong to the runs known, or to none; to these alone where it lies ``beside`` them."""
        if named or not beside:
            self._know_runs_beside(path, table)
        full = identities(table).fillna({"run_id": "", "checkpoint_sha256": ""})
        columns = ("run", "run_id", "checkpoint", "checkpoint_sha256", "fingerprint")
        claims = list(zip(*(full[name].tolist() for name in columns), strict=True))
        verdicts = {claim: self._verdict(path, _Claim(*claim), beside) for claim in dict.fromkeys(claims)}
        reasons = dict.fromkeys(why for why in verdicts.values() if why)
        rows = table[[verdicts[claim] is None for claim in claims]]
        if reasons:
            part = "" if rows.empty else f"{len(table) - len(rows)} of {len(table)} rows: "
            self._left_out[path] = part + "; ".join(reasons)
        if not rows.empty or table.empty:
            names = {run.identity: run.name for run in self._runs.values() if run.identity}  # folders are renamed
            today = [names.get(one, run) for one, run in zip(full.loc[rows.index, "run_id"], rows["run"], strict=True)]
            self._tables[path] = rows.assign(run=today).reset_index(drop=True)

    def _know_runs_beside(self, path: Path, table: pd.DataFrame) -> None:
        names = [name for name in table["run"].unique() if _is_name(name)]
        for folder in (*(path.parent / name for name in names), path.parent, path.parent.parent):
            run = RunFolder(folder)
            if run.name in names and run.exists:
                self._runs.setdefault(folder.resolve(), run)

    def _verdict(self, path: Path, claim: _Claim, beside: bool) -> str | None:
        """Reason why the rows do not belong; None where they do, empty where nobody asked for them."""
        owner = next((run for at, run in self._runs.items() if path.parent in (at, at / ANALYSIS)), None)
        same_name = [run for run in self._runs.values() if claim.run in (run.name, os.fspath(run.path))]
        by_id = {run.identity: run for run in self._runs.values() if run.identity}
        ids = claim.run_id.split(",") if claim.run_id else []
        if ids and all(one in by_id for one in ids):
            return _stale(by_id[ids[0]], claim)
        run = owner or next(iter(same_name), None)
        if run is None:
            return "" if beside else None
        if ids:
            other = next(one for one in ids if one not in by_id)
            return f"of another training than {run.path} ({other[:6]}, expected {run.identity[:6] or 'none'})"
        if not run.identity or not claim.run:
            return None
        files = {name: file_digest(path) for name, path in run.checkpoint_files().items()}
        if {claim.sha256, claim.fingerprint} & set(files.values()):
            return None
        return f"without the identity of a training, so that nothing says that it is of {run.path}: compute it again"

    def found(self) -> Found:
        tables = tuple(FoundTable(path, rows) for path, rows in sorted(self._tables.items()))
        return Found(tables, tuple(self._runs.values()), dict(sorted(self._left_out.items())), tuple(self._damaged))


def _stale(run: RunFolder, claim: _Claim) -> str | None:
    """Why rows of a run are not of the checkpoint that bears the name today; a checkpoint that was deleted may stay so."""
    now, of = file_digest(run.checkpoint(claim.checkpoint)), claim.sha256 or claim.fingerprint
    if not (claim.checkpoint and now and of) or now == of:
        return None
    return f"of an earlier {claim.checkpoint}.pt of {run.path}: compute it again"


def rows_of(table: pd.DataFrame, run: RunFolder) -> pd.DataFrame:
    """The rows of a run, among those of others."""
    ids = identities(table)["run_id"]
    mine = ids.eq(run.identity) if run.identity else table["run"].eq(run.name)
    return table[mine | (ids.isna() & table["run"].eq(run.name))]


def _with_runs(folder: Path, runs_within: bool) -> list[Path]:
    """The folder, the runs in it, and what was analysed of each."""
    within = (
        sorted(path for path in folder.iterdir() if path.is_dir() and RunFolder(path).exists) if runs_within else []
    )
    return [place for holder in (folder, *within) for place in (holder, holder / ANALYSIS) if place.is_dir()]


def _files(folders: Sequence[Path]) -> list[Path]:
    found = (path for folder in _unique(folders) for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES)
    return [path.resolve() for path in found if path.is_file()]


def _unique(paths: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys([path.resolve() for path in paths]))


def _looks_like_results(path: Path) -> bool:
    """True where the first line, or the first record, names half of the columns of a results table, which tables of other
    programs do not and damaged ones do; Parquet is nothing else here."""
    if path.suffix == ".parquet":
        return True
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        start = file.read(4096)
    if path.suffix == ".json":
        named = [name for name in COLUMNS if f'"{name}"' in start] if start.lstrip().startswith("[") else []
    else:
        named = [name for name in next(csv.reader(start.splitlines()), []) if name in COLUMNS]
    return len(named) >= len(COLUMNS) / 2 and recognized(path) != EXAMPLES


def _is_name(run: str) -> bool:
    """Return whether ``run`` can be the name of a folder."""
    return run not in ("", ".", "..") and Path(run).name == run and "\0" not in run and len(run.encode()) < 256


def set_aside(run: RunFolder) -> tuple[list[Path], Path]:
    """Move what was computed of a training that is to be replaced into a folder of its own; what was moved, and where to."""
    void = [path for path in (run.analysis,) if path.is_dir()]
    own = {run.metrics_path, run.labels_path, run.description_path, run.sequences_path}
    void += [path for path in sorted(run.path.glob("*")) if path.is_file() and path not in own and _is_result(path)]
    names = (
        f"earlier-{run.identity[:6] or 'run'}{ending}"
        for ending in itertools.chain([""], map("-{}".format, itertools.count(2)))
    )
    place = next(run.path / name for name in names if not (run.path / name).exists())
    for path in void:
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    return void, place


def tables_beside(run: RunFolder) -> list[Path]:
    """Results tables beside a run that are of it by their identity."""
    return [path for path in _files([run.path.parent]) if run.identity and run.identity in _identities(path)]


def _identities(path: Path) -> set[str]:
    try:
        return set(identities(read_results(path))["run_id"].dropna()) if _looks_like_results(path) else set()
    except (ManigeoError, OSError, ValueError):
        return set()


def _is_result(path: Path) -> bool:
    return path.suffix in (".h5", ".html") or (path.suffix in SUFFIXES and _looks_like_results(path))

"""Subjects of ``manigeo analyze``: a run, another program's folder of checkpoints, or one checkpoint; what each allows."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manigeo.cli import options
from manigeo.errors import ManigeoError, UsageError
from manigeo.runs import RunFolder, file_digest, run_of

if TYPE_CHECKING:
    from manigeo_extract.training.runs import Run, Snapshot


@dataclass(frozen=True)
class Subject:
    """Subject of the analysis, with its results in ``folder``.

    ``files`` are the checkpoints whose activations are analysed, by name; ``directory`` is the run that layers are compared
    and exchanged in, None for one checkpoint; ``every`` are all its checkpoints. ``missing`` says what is not there, and how
    it is had.
    """

    folder: Path
    files: Mapping[str, Path]
    directory: Path | None = None
    every: tuple[Path, ...] = ()
    has_before: bool = True
    has_initial: bool = True
    missing: tuple[str, ...] = ()


def open_subject(
    path: Path, out: Path | None, checkpoints: str | None, request: Mapping[str, Any], typed: Sequence[str]
) -> Subject:
    """See what there is. ``typed`` are the options of the ``request`` that a command for more would take, too.

    Raises :class:`~manigeo.errors.UsageError` for checkpoints that are not there and for options of another subject, and
    :class:`~manigeo.errors.InputError` for a folder without checkpoints.
    """
    from manigeo_extract.files.checkpoints import load_checkpoint
    from manigeo_extract.files.folders import is_in_parts

    if not path.exists():
        raise UsageError(f"{path} does not exist; expected the folder of a run, or a checkpoint")
    if path.is_file() or is_in_parts(path):
        if checkpoints is not None:
            raise UsageError(f"{path} is one checkpoint: leave --checkpoints out, or give a folder of several")
        load_checkpoint(path, **{name: request[name] for name in ("state_key", "ema", "trust")})  # refused here, or not
        return _one_checkpoint(path, out, typed)
    if out is not None:
        raise UsageError(f"results of a run go to {path / 'analysis'}: leave --out out, or give one checkpoint")
    run = RunFolder(path)
    if not run.exists:
        return _foreign_folder(run, checkpoints, request, typed)
    before, missing = ("", ()) if checkpoints else _before(run, request)
    names = (before, "last") if before else ("last",)
    files = _checkpoints(
        run, checkpoints or ",".join(name for name in names if name in run.checkpoint_names()) or "last"
    )
    return Subject(run.analysis, files, path, tuple(run.checkpoint_files().values()), missing=missing)


def _before(run: RunFolder, request: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The name of the checkpoint before memorization; empty, with the reason, where there is none.

    Where the metrics do not tell which it is, the checkpoints are scored.
    """
    from manigeo.localization.reference import known_curves, run_reference
    from manigeo_extract.opening.requests import RunRequest, requested
    from manigeo_extract.opening.studies import open_run

    try:
        if known_curves(run):
            found = run_reference(run)
            return (found[0] if found else ""), ()
        return open_run(run.path, requested(RunRequest, request)).reference.path.stem, ()
    except ManigeoError as error:
        return "", (str(error),)


def _checkpoints(run: RunFolder, asked: str) -> dict[str, Path]:
    """Names and files, without those that are the same as a later one.

    Raises :class:`~manigeo.errors.UsageError` for one that is not there.
    """
    found, names = run.checkpoint_files(), asked.split(",")
    for name in names:
        if name not in found:
            raise UsageError(f"{run.path} has no checkpoint {name!r}; there are: {', '.join(found) or 'none'}")
    content = {file_digest(found[name]): name for name in names}
    return {name: found[name] for name in content.values()}


def _one_checkpoint(path: Path, out: Path | None, typed: Sequence[str]) -> Subject:
    name = path.name.removesuffix(".index.json") if path.is_dir() else path.stem
    return Subject(out or path.with_name(f"{name}-analysis"), {name: path}, missing=(_earlier_missing(path, typed),))


def _earlier_missing(path: Path, typed: Sequence[str]) -> str:
    """Use of checkpoints of other epochs, and how they are given."""
    run, beside = run_of(path), RunFolder(path.parent)
    folder = run.path if run and run.exists else path.parent
    several = len(RunFolder(folder).checkpoint_files()) > 1
    command = shlex.join(["manigeo", "analyze", str(folder), *typed])
    how = command if several else f"put checkpoints of the same training into {beside.path}, and: {command}"
    return f"which layers hold what was memorized, and what memorization changed, takes checkpoints of earlier epochs: {how}"


def _foreign_folder(
    run: RunFolder, checkpoints: str | None, request: Mapping[str, Any], typed: Sequence[str]
) -> Subject:
    """Another program's checkpoints: compared as far as it is known which is of which epoch."""
    from manigeo_extract.opening.requests import RunRequest, requested
    from manigeo_extract.opening.studies import open_run
    from manigeo_extract.training.runs import INITIAL

    asked = requested(RunRequest, request)
    opened = open_run(run.path, asked, options.note)
    if len(opened.snapshots) == 1:
        return _one_checkpoint(opened.snapshots[0].path, run.analysis, typed)
    last = opened.snapshot(asked.at)
    before, missing = _reference(opened)
    files = {snapshot.path.stem: snapshot.path for snapshot in (before, last) if snapshot}
    has_initial = any(snapshot.epoch == INITIAL for snapshot in opened.snapshots)
    if not has_initial:
        missing += (
            "which layers can do without training takes the checkpoint from before training: save it as "
            f"{opened.snapshots[0].path.with_name('epoch-0000.pt')}",
        )
    every = tuple(snapshot.path for snapshot in opened.snapshots)
    return Subject(
        run.analysis, _checkpoints(run, checkpoints) if checkpoints else files, run.path, every, before is not None,
        has_initial, missing,
    )  # fmt: skip


def _reference(opened: "Run") -> "tuple[Snapshot | None, tuple[str, ...]]":
    """The checkpoint before memorization, or the reason why there is none; without permuted labels none is asked for."""
    if opened.memorized is None:
        return None, ()
    try:
        return opened.reference, ()
    except ManigeoError as error:
        return None, (str(error),)

"""A run as interventions see it: the trained network, its data with the labels of training, and its other checkpoints."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError
from manigeo.kinds import BY_MEMORY, MEMORIZED, TRAINED, TYPICAL, memorized_kind
from manigeo.localization.reference import BEFORE, limit_of, nothing_to_compare, reference_epoch
from manigeo.runs import RunFolder, run_of
from manigeo_extract.files.checkpoints import Checkpoint, load_checkpoint
from manigeo_extract.files.fitting import fit_state
from manigeo_extract.recording.layers import unwrap
from manigeo_extract.resolve import near_names
from manigeo_extract.training.evaluation import HasInputs, evaluate, members_of

PathLike = str | os.PathLike[str]
INITIAL = 0  # the epoch before training
LAST = "last"
Name = str | int


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint of a run: ``name`` is that of its file. Its tensors are read when they are asked for, as ``reading``
    says (the options of :func:`~manigeo_extract.files.checkpoints.load_checkpoint`), unless they are ``held``; ``loosely``,
    there may be others."""

    name: str
    epoch: int | None
    path: Path
    reading: Mapping[str, Any] = field(default_factory=dict, hash=False)
    loosely: bool = False
    held: Mapping[str, Any] | None = field(default=None, hash=False, compare=False, repr=False)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """All its tensors, under the names of ``model``.

        Raises :class:`~manigeo.errors.InputError` for a checkpoint of another network, with what does not fit.
        """
        saved = load_checkpoint(self.path, **self.reading).state_dict if self.held is None else self.held
        fit = fit_state(saved, unwrap(model))
        if fit.not_loaded or (fit.unexpected and not self.loosely):
            raise InputError(
                f"{self.path} is not of the network that was trained: {fit.mismatch()}; give checkpoints of one training"
                + ("" if fit.not_loaded else ", or --no-strict, which leaves the rest out")
            )
        state = OrderedDict((name, value) for name, value in fit.state_dict.items() if isinstance(value, Tensor))
        # converted already, so that who loads them must not convert them again
        state._metadata = unwrap(model).state_dict()._metadata  # type: ignore[attr-defined]
        return state


@dataclass(frozen=True)
class Run:
    """A trained ``model``, the data it was trained on, and the snapshots of its training, by epoch.

    ``arch`` is how the network is built, if that is known: a name and its arguments. ``examples`` is the example table,
    with the labels of training; ``place`` holds the columns of the results table that identify the network: the run,
    the checkpoint, its epoch and fingerprint. ``near_guessing`` is up to where permuted labels count as not memorized, the
    run's own limit unless given.
    """

    directory: Path
    arch: tuple[str | None, Mapping[str, Any]]
    model: nn.Module
    data: HasInputs
    examples: pd.DataFrame
    place: Mapping[str, Any]
    snapshots: tuple[Snapshot, ...]
    near_guessing: float | None = None

    def snapshot(self, name: Name) -> Snapshot:
        """The snapshot of this name or epoch; "init" is epoch 0, "before" the reference epoch."""
        return self.reference if name == BEFORE else find_snapshot(self.snapshots, name, self.directory)

    @cached_property
    def memorized(self) -> str | None:
        """The kind of the examples that memorization alone answers: permuted labels, or memorized ones; None for neither."""
        return memorized_kind([kind for kind in BY_MEMORY if len(members_of(self.examples, kind)[0])])

    @property
    def trained_kinds(self) -> tuple[str, str]:
        """The kinds of training examples: those that are learned without memorization, and those that it alone answers."""
        return (TYPICAL, MEMORIZED) if self.memorized == MEMORIZED else ("unpermuted", "permuted")

    @cached_property
    def reference(self) -> Snapshot:
        """The snapshot before memorization (:mod:`manigeo.localization.reference`), under the name ``before``; of a run
        without permuted labels the best one. Accuracies that were not recorded are computed, of every snapshot.

        Raises :class:`~manigeo.errors.InputError` where there is none, with what to record.
        """
        if self.memorized is None:
            return find_snapshot(self.snapshots, "best", self.directory)
        metrics, folder = self._metrics(), RunFolder(self.directory)
        trained = self.examples.loc[self.examples["split"].isin(TRAINED), "train_label"]
        n_classes = folder.n_classes or int(trained.nunique())
        kept = [snapshot.epoch for snapshot in self.snapshots if snapshot.epoch is not None]
        asked: dict[str, Any] = {
            "kept": kept, "n_classes": n_classes, "near_guessing": limit_of(folder, self.near_guessing)
        }  # fmt: skip
        found = reference_epoch(metrics, **asked)
        if found is None:
            raise InputError(f"{self.directory}: {nothing_to_compare(metrics, **asked)}")
        return replace(find_snapshot(self.snapshots, found.epoch, self.directory), name=BEFORE)

    def _metrics(self) -> pd.DataFrame:
        """Metrics as they were recorded; where the accuracy on permuted labels was not, those of the snapshots."""
        try:
            recorded = RunFolder(self.directory).metrics()
            if self.memorized in set(recorded["kind"]):
                return recorded
        except InputError:
            pass
        model = deepcopy(unwrap(self.model))
        device = next(model.parameters()).device
        rows = []
        for snapshot in self.select(["all"]):
            model.load_state_dict(snapshot.state(model))
            scores = evaluate(model, self.data, self.examples, device)
            rows += [{"epoch": snapshot.epoch, "kind": kind, **values} for kind, values in scores.items()]
        return pd.DataFrame(rows)

    def select(self, names: Sequence[Name]) -> list[Snapshot]:
        """The snapshots of these names or epochs, by epoch, each once; for "all" one of every epoch of the run."""
        if "all" in names:
            return list({snapshot.epoch: snapshot for snapshot in reversed(self.snapshots)}.values())[::-1]
        chosen = {snapshot.path: snapshot for snapshot in map(self.snapshot, names)}
        return [chosen[snapshot.path] for snapshot in self.snapshots if snapshot.path in chosen]


def place_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Columns of the results table that identify the network of a number."""
    path = Path(checkpoint.path).resolve()
    run = run_of(path)
    return {
        "run": run.name if run else path.parent.name,
        "run_id": checkpoint.run_id,
        "checkpoint": path.stem,
        "epoch": checkpoint.epoch,
        "fingerprint": checkpoint.sha256,
    }


def run_snapshots(
    directory: PathLike, reading: Mapping[str, Any] | None = None, *, loosely: bool = False
) -> tuple[Snapshot, ...]:
    """The checkpoint files in a run's folder, by epoch: those of chosen epochs and the named ones; in the folder of another
    program all of them.

    ``reading`` are options of :func:`~manigeo_extract.files.checkpoints.load_checkpoint`; see :class:`Snapshot`.

    Raises :class:`~manigeo.errors.InputError` where there are none, or one of them is of another training.
    """
    run = RunFolder(Path(directory))
    files = run.checkpoint_files()
    own = [name for name in files if name.startswith("epoch-")]
    own += [name for name in (BEFORE, "best", "last") if name in files]
    names = own if run.exists else list(files)
    found = [_snapshot(files[name], run.identity, reading or {}, loosely) for name in names]
    if not found:
        raise InputError(f"{directory} holds no checkpoints: {_other_places(Path(directory))}")
    return tuple(sorted(found, key=lambda s: -1 if s.epoch is None else s.epoch))


def _other_places(directory: Path) -> str:
    """Advice for a folder without checkpoints."""
    within = [path for path in sorted(directory.glob("*/")) if RunFolder(path).checkpoint_files()]
    if within:
        return f"give one of the folders in it that do: {', '.join(map(str, within[:5]))}"
    return "give a folder of manigeo train or of a recorder, or of another program's checkpoints (.pt, .pth, .ckpt ...)"


def _snapshot(path: Path, identity: str, reading: Mapping[str, Any], loosely: bool) -> Snapshot:
    checkpoint = load_checkpoint(path, **reading)
    if identity and checkpoint.run_id and checkpoint.run_id != identity:
        raise InputError(
            f"{path} is of another training ({checkpoint.run_id[:6]}) than the folder it lies in ({identity[:6]}): "
            "move it away, or train anew"
        )
    return Snapshot(path.stem, checkpoint.epoch, path, reading, loosely)


def find_snapshot(snapshots: Sequence[Snapshot], name: Name, directory: PathLike) -> Snapshot:
    """The snapshot of this name or epoch; "init" is epoch 0, and "last", where no file has that name, the highest.

    Raises :class:`~manigeo.errors.InputError` where the initial one was not recorded, or the last is not known, and
    :class:`~manigeo.errors.UsageError` for a name that is not there, with near ones.
    """
    wanted = str(INITIAL) if name == "init" else str(name)
    if wanted == LAST and not any(snapshot.name == LAST for snapshot in snapshots):
        return _last(snapshots, directory)
    for snapshot in snapshots:
        if wanted in (snapshot.name, str(snapshot.epoch)):
            return snapshot
    if wanted == str(INITIAL):
        raise InputError(
            f"{directory} has no checkpoint of epoch 0, before training: manigeo train keeps one; in your own loop call "
            "recorder.step(model, 0) before training"
        )
    known = dict.fromkeys(text for s in snapshots for text in (s.name, str(s.epoch)))
    raise UsageError(f"{directory} has no checkpoint {str(name)!r}{near_names(str(name), known)}")


def _last(snapshots: Sequence[Snapshot], directory: PathLike) -> Snapshot:
    """The snapshot at the end of training, where no file is called so."""
    called = [snapshot for snapshot in snapshots if "final" in snapshot.name.lower() or "last" in snapshot.name.lower()]
    if len(called or snapshots) == 1:
        return (called or snapshots)[0]
    if any(snapshot.epoch is None for snapshot in snapshots):
        names = ", ".join(snapshot.name for snapshot in snapshots[:5])
        raise InputError(
            f"{directory}: which of {names} is the last is not known, since neither they nor their names tell an epoch: "
            "name them epoch-0001.pt and so on, or give one of the files"
        )
    return snapshots[-1]

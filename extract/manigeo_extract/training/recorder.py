"""A run's folder: checkpoints of chosen epochs, the table of metrics, and what the run was.

::

    run.json  labels.csv  metrics.csv  sequences.csv  examples.record  resume.pt
    checkpoints/  epoch-0000.pt  epoch-0010.pt  before.pt  best.pt  last.pt

It is written by :func:`manigeo_extract.training.trainer.train`, or by a :class:`Recorder` in a training loop of one's own.
"""

import json
import os
import platform
import secrets
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from manigeo import __version__
from manigeo.errors import InputError, InputWarning, UsageError
from manigeo.kinds import VALIDATION
from manigeo.localization.reference import BEFORE, Reference, limit_of, reference_epoch
from manigeo.per_example.recorded import Answers, append_epoch, create_record, forget_epochs
from manigeo.runs import RunFolder, set_aside
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.files.checkpoints import checkpoint_bytes, plain, write_whole
from manigeo_extract.machine import this_machine
from manigeo_extract.resolve import name_of, near_names

COLUMNS = ("epoch", "kind", "accuracy", "loss", "n")
OF_SEQUENCES = ("exact", "exposure")  # further columns, where sequences are scored
Metrics = Mapping[str, Mapping[str, Any]]  # {kind: {"accuracy", "loss", "n"}}


class Recorder:
    """Recorder of the checkpoints and metrics of a run, for use inside any training loop.

    Call :meth:`step` before training with epoch 0, and after every epoch. What is known of the network and its data
    goes into every checkpoint, so that it can be opened without giving it again; all of it may be left out. ``arch`` and
    ``data`` are names, or classes and functions, which are stored by theirs (``module:name``), or a network, or a data set
    that was loaded; what was defined in a notebook has no name that can be opened without giving it again. ``epochs``
    are those whose checkpoints are kept besides the initial, the best and the last one: numbers, a range, or ``"all"``.
    ``best_by`` names the kind whose accuracy decides on ``best.pt``, by default validation; a name that is not among the
    first metrics is warned of. Where the metrics hold the accuracy of the kind
    permuted, ``before.pt`` is the reference epoch (:mod:`manigeo.localization.reference`) of the epochs so far: it is
    replaced while training goes on, until permuted labels are memorized. ``n_classes`` tells what guessing gives; without
    it the accuracy at epoch 0 does. ``near_guessing`` is the chance-normalised accuracy on permuted labels up to which an
    epoch is before memorization (0.08 unless given); it is the limit of the run, in all that is made of it. ``notes`` are
    stored in ``run.json``, beside versions and what of the machine decides on the last bits
    (:mod:`manigeo_extract.machine`). A run has an identity of its own, ``run_id``, which is drawn where it is not given; all
    that is made of the run carries it (:mod:`manigeo.runs`).
    With ``record_examples`` (epochs, as for ``epochs``) the answers to single ``examples`` are recorded, of which these are
    the table: :meth:`step` takes them (:mod:`manigeo.per_example.recorded`).

    A folder that holds a run already is refused, unless it shall be continued (``resume``: a step at epoch e then
    replaces what was recorded from e on) or its files replaced (``overwrite``): :class:`~manigeo.errors.UsageError`.

    >>> import tempfile
    >>> recorder = Recorder(tempfile.mkdtemp(), epochs=(1, 5, 10))
    >>> model = torch.nn.Linear(2, 2)
    >>> recorder.step(model, 0)
    >>> for epoch in range(1, 11):
    ...     recorder.step(model, epoch, {"validation": {"accuracy": 0.5, "loss": 0.7, "n": 20}})
    >>> sorted(path.stem for path in recorder.checkpoints.glob("*.pt"))
    ['best', 'epoch-0000', 'epoch-0001', 'epoch-0005', 'epoch-0010', 'last']
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        arch: Any = None,
        arch_args: Mapping[str, Any] | None = None,
        data: Any = None,
        data_args: Mapping[str, Any] | None = None,
        data_fingerprint: str | None = None,
        permutation: Any = None,
        seed: int | None = None,
        run_id: str | None = None,
        epochs: Collection[int] | str = (),
        best_by: str | None = None,
        n_classes: int | None = None,
        near_guessing: float | None = None,
        notes: Mapping[str, Any] | None = None,
        examples: pd.DataFrame | None = None,
        record_examples: Collection[int] | str = (),
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        for name, chosen in (("epochs", epochs), ("record_examples", record_examples)):
            if isinstance(chosen, str) and chosen != "all":
                raise UsageError(f'{name} must be numbers or "all", got {chosen!r}')
        if near_guessing is not None and not 0 <= near_guessing < 1:
            raise UsageError(f"near_guessing must be from 0 to below 1, got {near_guessing}")
        if record_examples and examples is None:
            raise UsageError("record_examples expects the table of the examples that are recorded: give examples, too")
        self.record_examples = record_examples
        self.folder = RunFolder(Path(directory))
        self.epochs = epochs
        self.best_by = best_by or VALIDATION
        self._unchecked = best_by is not None
        self.n_classes = n_classes
        self.settings: dict[str, Any] = plain(
            {
                "arch": None if arch is None else name_of(arch),
                "arch_args": arch_args or {},
                **_origin(data, data_args, data_fingerprint),
                "permutation": permutation,
                "seed": seed,
            }
        )
        self._prepare(resume, overwrite)
        metrics, description = self.folder.metrics_path, self.folder.description_path
        self.table = _read_metrics(metrics) if resume else _empty_table()
        if resume and description.exists() and metrics.exists():
            self.run_id = self.folder.identity or None
        else:  # a first try that recorded nothing may have been another run
            self.run_id = run_id or secrets.token_hex(8)
            told = {"n_classes": n_classes, "near_guessing": near_guessing}
            given = {name: value for name, value in told.items() if value is not None}
            about = {**_about(), "run_id": self.run_id, **self.settings, **given, **plain(notes or {})}
            write_whole(description, _as_json(about))
        self.near_guessing = limit_of(self.folder)
        self._open_record(examples)

    @property
    def directory(self) -> Path:
        return self.folder.path

    @property
    def checkpoints(self) -> Path:
        return self.folder.checkpoints

    @property
    def metrics_path(self) -> Path:
        return self.folder.metrics_path

    @property
    def best(self) -> tuple[int, float] | None:
        """Epoch and accuracy of the best checkpoint; of equals the first, and None before any was scored."""
        scores = self.table[self.table["kind"] == self.best_by].dropna(subset="accuracy")
        if scores.empty:
            return None
        row = scores.loc[scores["accuracy"].idxmax()]
        return int(row["epoch"]), float(row["accuracy"])

    @property
    def before(self) -> Reference | None:
        """The reference epoch among those recorded; None where none qualifies."""
        return reference_epoch(self.table, n_classes=self.n_classes, near_guessing=self.near_guessing)

    def records(self, epoch: int) -> bool:
        """Return whether the answers to single examples are due after ``epoch``."""
        return self.record_examples == "all" or epoch in self.record_examples

    def step(
        self, model: torch.nn.Module, epoch: int, metrics: Metrics | None = None, answers: Answers | None = None
    ) -> None:
        """Write the checkpoints that are due after ``epoch`` (0: before training) and its rows of ``metrics.csv``; of epochs
        whose examples are recorded, also ``answers`` to them (:func:`~manigeo_extract.training.answering.answers_to`).

        Raises :class:`~manigeo.errors.UsageError` where answers are due and not given.
        """
        if self.records(epoch) and answers is None:
            raise UsageError(
                f"answers to the examples are due after epoch {epoch}: give answers, as answers_to makes them"
            )
        self.rewind(epoch - 1)
        self._check_best_by(metrics or {})
        if self.records(epoch) and answers is not None:
            append_epoch(self.folder.record_path, epoch, answers)
        rows = [{"epoch": epoch, "kind": kind, **plain(values)} for kind, values in (metrics or {}).items()]
        self.table = _appended(self.table, rows)
        content = checkpoint_bytes(model, epoch=epoch, metrics=metrics, run_id=self.run_id, **self.settings)
        for name in self._due(epoch):
            write_whole(self.folder.checkpoint(name), content)
        write_whole(self.folder.metrics_path, self.table.to_csv(index=False).encode())

    def rewind(self, epoch: int) -> None:
        """Forget the metrics of all epochs after ``epoch``, and the answers to single examples."""
        self.table = self.table[self.table["epoch"] <= epoch].reset_index(drop=True)
        if self.record_examples:
            forget_epochs(self.folder.record_path, after=epoch)

    def _open_record(self, examples: pd.DataFrame | None) -> None:
        """Begin the record of single examples, or go on with that of this run."""
        path, begun = self.folder.record_path, not self.table.empty
        if begun and path.exists() != bool(self.record_examples):
            was, now = ("with", "give") if path.exists() else ("without", "leave out")
            raise UsageError(
                f"{path}: the run was begun {was} a record of examples: {now} --record-examples, or train anew"
            )
        if examples is not None and self.record_examples and not begun:
            create_record(path, self.run_id or "", examples)

    def _check_best_by(self, metrics: Metrics) -> None:
        """Warn, once, where the first metrics lack the kind that was asked for."""
        if not (self._unchecked and metrics):
            return
        self._unchecked = False
        if self.best_by not in metrics:
            warnings.warn(
                f"best_by={self.best_by!r} is no kind of the metrics, so that there is no best.pt until it is"
                f"{near_names(self.best_by, metrics)}",
                InputWarning,
                stacklevel=3,
            )

    def _due(self, epoch: int) -> list[str]:
        chosen = epoch == 0 or self.epochs == "all" or epoch in self.epochs
        names = [f"epoch-{epoch:04d}"] if chosen else []
        if (best := self.best) is not None and best[0] == epoch:
            names.append("best")
        if (before := self.before) is not None and before.epoch == epoch:
            names.append(BEFORE)
        return [*names, "last"]

    def _prepare(self, resume: bool, overwrite: bool) -> None:
        if overwrite and not resume:
            self._remove_run()
        elif not resume and (self.folder.exists or self.folder.metrics_path.exists()):
            raise UsageError(f"{self.directory} holds a run already; resume it, overwrite it, or choose another folder")
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def _remove_run(self) -> None:
        run = self.folder
        set_aside(run)
        own = [
            run.description_path,
            run.metrics_path,
            run.record_path,
            run.resume_path,
            run.labels_path,
            run.sequences_path,
        ]
        for path in [*own, *run.checkpoints.glob("*.pt")]:
            path.unlink(missing_ok=True)


def _origin(data: Any, args: Mapping[str, Any] | None, fingerprint: str | None) -> dict[str, Any]:
    """The name, arguments and fingerprint of data that are given by name, as a function, or as they were loaded."""
    if isinstance(data, DataSet):
        return {
            "data": data.spec,
            "data_args": {**data.args, **(args or {})},
            "data_fingerprint": fingerprint or data.fingerprint,
        }
    return {"data": None if data is None else name_of(data), "data_args": args or {}, "data_fingerprint": fingerprint}


def _about() -> dict[str, Any]:
    versions = {"manigeo": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {
        "format": "manigeo-run",
        "format_version": 1,
        "versions": {name: str(number) for name, number in versions.items()},
        "machine": this_machine(),
    }


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings, as those of ``run.json``, under names with dots.

    >>> flat_settings({"seed": 0, "plan": {"lr": 0.1}})
    {'seed': 0, 'plan.lr': 0.1}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= flat_settings(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _empty_table() -> pd.DataFrame:
    return _typed(pd.DataFrame(columns=list(COLUMNS)))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    types = {"epoch": "int64", "kind": "object", "accuracy": "float64", "loss": "float64", "n": "Int64"}
    types |= {name: "float64" for name in OF_SEQUENCES if name in table}
    return table.reindex(columns=list(types)).astype(types)


def _appended(table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return _typed(pd.concat([table, _typed(pd.DataFrame(rows))], ignore_index=True)) if rows else table


def _read_metrics(path: Path) -> pd.DataFrame:
    if not path.exists():
        return _empty_table()
    try:
        return _typed(pd.read_csv(path, converters={"accuracy": _float, "loss": _float}))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: not a table with the columns {', '.join(COLUMNS)}; restore it or train anew"
        ) from error


def _float(text: str) -> float:
    """Read a number to the last digit, which older versions of pandas lose."""
    return float(text or "nan")

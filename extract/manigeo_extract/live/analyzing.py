"""Analysis of where a network at hand memorizes: the steps of ``manigeo analyze`` on its checkpoints, in memory."""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from manigeo.activations import Activations
from manigeo.errors import InputError, UsageError
from manigeo.faces.progress import track
from manigeo.layerwise.registry import measure
from manigeo.layerwise.tables import capacity_table, separability_table
from manigeo.localization.gate import gate_accuracy
from manigeo.localization.reference import BEFORE, nothing_to_compare, reference_epoch
from manigeo.localization.statement import describe_localization, localization_table
from manigeo.results import check_results_path, join_results, write_results
from manigeo_extract.data.live import data_at_hand
from manigeo_extract.files.checkpoints import load_checkpoint, state_copy
from manigeo_extract.files.foreign import find_weights
from manigeo_extract.interventions.exchanges import INTO_BEFORE, Intervention, Laboratory
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.live.extracting import check_network, digest_of, extract, left_as_found
from manigeo_extract.recording.layers import unwrap
from manigeo_extract.training.runs import Run, Snapshot

_MEASURES = ("probe", "neighbours", "clusters", "means")  # margins take longest
_HERE = Path("memory")


@dataclass(frozen=True)
class Analysis:
    """Answer to where a network memorizes, with the tables it follows from.

    ``tables`` are results tables (:mod:`manigeo.results`) by the command that would have made them, ``table`` all of them
    below each other; ``localization`` is that of ``manigeo localize``, None where no labels were permuted; ``answer`` says
    it in words, and ``missing`` what would tell more. ``acts`` are the activations of each checkpoint.
    """

    tables: Mapping[str, pd.DataFrame]
    answer: str
    localization: pd.DataFrame | None = None
    missing: tuple[str, ...] = ()
    acts: Mapping[str, Activations] = field(default_factory=dict, repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """All numbers, one row each."""
        return join_results(list(self.tables.values()))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that :meth:`plot` draws, the main one first."""
        from manigeo.plots import figures_of

        return tuple(figures_of(self._drawn))

    def plot(self, name: str | None = None) -> Any:
        """Draw the main figure, or the one of this name.

        Raises :class:`~manigeo.errors.UsageError` for a figure that the tables have no numbers for.
        """
        from manigeo.plots import FIGURES

        figures = self.figures
        name = name or next(iter(figures), None)
        if name not in figures:
            raise UsageError(f"there is no figure {name!r} of this analysis; there are: {', '.join(figures) or 'none'}")
        return FIGURES[name].draw(self._drawn)

    @property
    def _drawn(self) -> pd.DataFrame:
        return self.table if self.localization is None else join_results([self.table, self.localization])

    def __str__(self) -> str:
        return "\n".join([self.answer, *(f"for more: {one}" for one in self.missing)])

    def __repr__(self) -> str:
        return f"<Analysis of {', '.join(self.acts) or 'a network'}: {', '.join(self.tables)}; print it for the answer>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def analyze(
    model: Any,
    data: Any,
    checkpoints: Any = None,
    *,
    train_labels: Any = None,
    permuted: Any = None,
    layers: str | Sequence[str] | None = None,
    per_class: int | None = None,
    n_classes: int | None = None,
    n_draws: int = 300,
    noise_draws: int = 5,
    most: int | None = None,
    batch_size: int = 256,
    device: Any = None,
    n_jobs: int = 1,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: bool = True,
) -> Analysis:
    """Analyze a network as ``manigeo analyze`` does: capacity and separability of every layer at each checkpoint, layers
    rewound one by one, and the answer made of them.

    ``checkpoints`` are weights by name, in the order of training: state dicts, paths, or networks; without any, the network
    as it is. ``before`` names those from before memorization; else they are chosen by the accuracies, among the others.
    Names that are numbers are epochs; without these and without files that know theirs, checkpoints are numbered. ``data``,
    ``train_labels``, ``permuted`` and ``layers`` are those of :func:`~manigeo_extract.live.extracting.extract`;
    ``per_class``, ``n_classes`` and ``n_draws`` those of tables. Layers are rewound where two checkpoints and permuted
    labels are there, scored on at most ``most`` examples of a kind. With ``out`` activations and tables are written to that
    folder, too. The network is left as it was found.

    Raises :class:`~manigeo.errors.UsageError` and :class:`~manigeo.errors.InputError`, with the remedy in the message.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> X, y = torch.randn(40, 5), torch.arange(40) % 2
    >>> found = analyze(net, (X, y), n_draws=10, progress=False)
    >>> list(found.tables), len(found.missing)
    (['capacity', 'separability'], 1)
    """
    check_network(model)
    found, examples = data_at_hand(data, train_labels, permuted)
    folder = None if out is None else _folder(out, force)
    with left_as_found(model, device) as at:
        work = deepcopy(unwrap(model))
        snapshots = _snapshots(model, checkpoints)
        acts: dict[str, Activations] = {}
        for snapshot in snapshots:
            work.load_state_dict(snapshot.state(work))
            acts[snapshot.name] = extract(
                work, found, layers, train_labels=examples, per_class=max(per_class or 50, 2), seed=seed,
                batch_size=batch_size, checkpoint=snapshot.name, epoch=snapshot.epoch, force=force, progress=progress,
                out=folder and folder / f"{snapshot.name or 'network'}.h5",
            )  # fmt: skip
        tables = _tables(
            acts, {"per_class": per_class, "n_classes": n_classes, "seed": seed}, n_draws, n_jobs, progress
        )
        reference, why_not = _reference(snapshots, acts, found.n_classes)
        if reference is not None:
            run = Run(_HERE, (None, {}), work, found, examples, _place(snapshots[-1], work), tuple(snapshots))
            examiner = Examiner(found, examples, at, batch_size, most=most, seed=seed)
            laboratory = Laboratory(run, examiner, "rewind", n_draws=noise_draws, seed=seed)
            tables["rewind"] = _rewound(laboratory, reference, progress)
    last = acts[snapshots[-1].name]
    located, answer = _located(tables, last, _metrics(snapshots, acts), reference, found.n_classes, seed)
    if folder is not None:
        for name, table in {**tables, **({} if located is None else {"localize": located})}.items():
            write_results(table, folder / f"{name}.csv", force)
    return Analysis(tables, answer, located, why_not, acts)


# -------------------------------------------------------------------------------------------------------- checkpoints
def _snapshots(model: nn.Module, given: Any) -> list[Snapshot]:
    """The weights by name, in the order given; without any those of the network."""
    if given is None:
        return [Snapshot("", None, _HERE, held=state_copy(model))]
    if isinstance(given, str | os.PathLike):
        given = [given]
    if isinstance(given, tuple | list) and given and all(isinstance(one, str | os.PathLike) for one in given):
        given = {Path(one).stem: one for one in given}
    if not isinstance(given, Mapping) or not given:
        raise UsageError(
            f'checkpoints are weights by name, {{"before": ..., "last": ...}}, got {type(given).__name__}'
            f"{' without any' if isinstance(given, Mapping) else ''}; give state dicts, paths or networks"
        )
    if all(hasattr(one, "shape") for one in given.values()):
        raise UsageError('checkpoints are weights by name, got one state dict; pass {"last": ...}')
    read = [_snapshot(name, one) for name, one in given.items()]
    if set(given) == {BEFORE}:
        read.append(Snapshot("last", None, _HERE, held=state_copy(model)))
    epochs = [snapshot.epoch for snapshot in read]
    if len(read) > 1 and (None in epochs or len(set(epochs)) < len(epochs)):
        return [Snapshot(s.name, number, s.path, held=s.held) for number, s in enumerate(read, 1)]
    return sorted(read, key=lambda snapshot: -1 if snapshot.epoch is None else snapshot.epoch)


def _snapshot(name: Any, given: Any) -> Snapshot:
    text = str(name)
    if not text.strip() or Path(text).name != text:
        raise UsageError(f"a checkpoint needs a name without slashes, got {text!r}; rename it")
    epoch = name if isinstance(name, int) else None
    try:
        if isinstance(given, str | os.PathLike):
            checkpoint = load_checkpoint(given)
            return Snapshot(text, checkpoint.epoch if epoch is None else epoch, Path(given), held=checkpoint.state_dict)
        if isinstance(given, nn.Module):
            return Snapshot(text, epoch, Path(text), held=state_copy(given))
        if isinstance(given, Mapping):
            return Snapshot(text, epoch, Path(text), held=find_weights(given).state_dict)
    except InputError as error:
        raise InputError(f"checkpoint {text!r}: {error}") from error
    raise UsageError(f"checkpoint {text!r} must be a state dict, a path or a network, got {type(given).__name__}")


def _reference(
    snapshots: Sequence[Snapshot], acts: Mapping[str, Activations], n_classes: int
) -> tuple[Snapshot | None, tuple[str, ...]]:
    """The weights from before memorization, or what is missing to compare with them."""
    last, kinds = snapshots[-1], acts[snapshots[-1].name].kinds
    if "permuted" not in kinds:
        return None, (
            "labels of training, train_labels=[...], some of them permuted: without these nothing tells what is memorized "
            "from what is learned",
        )
    named = next((snapshot for snapshot in snapshots[:-1] if snapshot.name == BEFORE), None)
    if named is not None:
        return named, ()
    if len(snapshots) == 1:
        return None, (
            'weights from before memorization, checkpoints={"before": ..., "last": ...}: layers are then rewound to them one'
            " by one, and say which hold what was memorized",
        )
    metrics, kept = (
        _metrics(snapshots, acts),
        [snapshot.epoch for snapshot in snapshots[:-1] if snapshot.epoch is not None],
    )
    chosen = reference_epoch(metrics, kept=kept, n_classes=n_classes)
    if chosen is None or chosen.epoch == last.epoch:
        return None, (nothing_to_compare(metrics, kept=kept, n_classes=n_classes),)
    return next(snapshot for snapshot in snapshots if snapshot.epoch == chosen.epoch), ()


def _metrics(snapshots: Sequence[Snapshot], acts: Mapping[str, Activations]) -> pd.DataFrame:
    """Accuracies of each checkpoint on the stored examples, as the metrics of a run."""
    rows = [
        {"epoch": snapshot.epoch, "kind": kind, **scores}
        for snapshot in snapshots
        for kind, scores in acts[snapshot.name].scores.items()
    ]
    return pd.DataFrame(rows, columns=["epoch", "kind", "accuracy", "loss", "n"])


# -------------------------------------------------------------------------------------------------------------- tables
def _tables(
    acts: Mapping[str, Activations], sample: Mapping[str, Any], n_draws: int, n_jobs: int, progress: bool
) -> dict[str, pd.DataFrame]:
    running: dict[str, Any] = {"n_jobs": n_jobs, "progress": progress, **sample}
    measures = [measure(name) for name in _MEASURES]
    return {
        "capacity": join_results([capacity_table(one, n_draws=n_draws, **running) for one in acts.values()]),
        "separability": join_results([separability_table(one, measures=measures, **running) for one in acts.values()]),
    }


def _place(snapshot: Snapshot, model: nn.Module) -> dict[str, Any]:
    digest = digest_of(model.state_dict())
    return {"run": "", "run_id": None, "checkpoint": snapshot.name, "epoch": snapshot.epoch, "fingerprint": digest}


def _rewound(laboratory: Laboratory, to: Snapshot, progress: bool) -> pd.DataFrame:
    """Each layer set back, put into the earlier network, and moved at random as far, as ``manigeo rewind --each`` does."""
    run = laboratory.run
    groups = group_layers(run.model, run.data.inputs([0, 1]))
    todo: list[Intervention | None] = [None, Intervention("whole", tuple(groups), to)]
    for group in groups:
        todo += [Intervention("each", (group,), to), Intervention("each", (group,), to, INTO_BEFORE)]
        todo += [Intervention("noise", (group,), to)] if laboratory.n_draws else []
    return join_results([laboratory.table(at) for at in track(todo, "rewind", "network", progress)])


def _located(
    tables: Mapping[str, pd.DataFrame],
    last: Activations,
    metrics: pd.DataFrame,
    reference: Snapshot | None,
    n_classes: int,
    seed: int,
) -> tuple[pd.DataFrame | None, str]:
    """The table of ``manigeo localize`` and its words; without permuted labels what can be said."""
    if "permuted" not in last.kinds:
        return None, (
            "Where the network memorizes is not known: no labels were permuted. What there is are capacity and separability "
            "of every layer, in .tables."
        )
    table = join_results(list(tables.values()))
    scored = last.scores["permuted"]["accuracy"] if last.scores else None
    gate = gate_accuracy(None, table) if "rewind" in tables else scored
    named = reference is not None and reference.name == BEFORE
    known = {} if named or metrics["epoch"].isna().any() else {"": (metrics, n_classes)}
    found = localization_table({"": table}, {"": float("nan") if gate is None else gate}, metrics=known, seed=seed)
    return found, describe_localization(found)


def _folder(out: str | os.PathLike[str], force: bool) -> Path:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("capacity", "separability", "rewind", "localize"):
        check_results_path(folder / f"{name}.csv", force)
    return folder

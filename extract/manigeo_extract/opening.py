"""The one door to a live network: which network, which weights, which data, which labels, which device.

A request states what is asked for, in frozen values that the command line, Python and worker processes share; what is not
asked for is taken from the checkpoint. Fields have the names of the options of the command line.

>>> request = ModelRequest(NetworkRequest("mlp", {"depth": 1}), WeightsRequest("init"), DataRequest("digits"))
>>> opened = open_model(None, request)
>>> len(opened.examples), opened.network.arch, opened.network.weights
(1797, 'mlp', 'init')
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo.per_example.marking import marked
from manigeo.runs import run_of
from manigeo_extract.data.datasets import SET_APART, DataSet, Permutation, load_data, permute_labels, runs_code
from manigeo_extract.data.label_files import read_labels
from manigeo_extract.data.noise import MATRIX, read_matrix
from manigeo_extract.devices import check_device
from manigeo_extract.files.checkpoints import Checkpoint, load_checkpoint, plain
from manigeo_extract.files.networks import Network, check_claim, trained_network, untrained_network
from manigeo_extract.gradients.accounts import GradientAccounts
from manigeo_extract.gradients.tables import Survey, Sweep, Task, plan_survey
from manigeo_extract.interventions.channels import find_channels
from manigeo_extract.interventions.editing import Redraw
from manigeo_extract.interventions.exchanges import Intervention, Laboratory
from manigeo_extract.interventions.flip_tables import ChannelStudy
from manigeo_extract.interventions.flipping import FlipPlan
from manigeo_extract.interventions.groups import Group, group_layers, select_groups
from manigeo_extract.interventions.retraining import RetrainPlan
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import MODELS, bare_model, build_model, complete_args
from manigeo_extract.recording.extraction import ExtractionPlan, plan_extraction
from manigeo_extract.recording.tracing import with_functions
from manigeo_extract.resolve import why_unnamed
from manigeo_extract.training.finetuning import Start, fit_to_start, start_from
from manigeo_extract.training.runs import Run, Snapshot, find_snapshot, place_of, run_snapshots
from manigeo_extract.training.trainer import TrainingPlan, seconds_of_training

R = TypeVar("R")
Tell = Callable[[str], None]


def silent(said: str) -> None:
    """Pass over what is told of an opening: in workers, since the process that began them has told it."""


# ---------------------------------------------------------------------------------------------------------- the requests
@dataclass(frozen=True)
class NetworkRequest:
    """Name and arguments of the network. The arguments go over those that the checkpoint has of a network of this name. With
    ``drop_tied`` the channels that were tied to single examples are off."""

    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    drop_tied: bool = False


@dataclass(frozen=True)
class WeightsRequest:
    """The weights of a checkpoint, read as :func:`~manigeo_extract.files.checkpoints.load_checkpoint` does, or "init":
    those of the network before training. With ``no_strict`` what fits of them is taken."""

    weights: str = "checkpoint"
    state_key: str | None = None
    ema: bool = False
    trust: bool = False
    no_strict: bool = False

    @property
    def reading(self) -> dict[str, Any]:
        """Options of :func:`~manigeo_extract.files.checkpoints.load_checkpoint`."""
        return {"state_key": self.state_key, "ema": self.ema, "trust": self.trust}


@dataclass(frozen=True)
class DataRequest:
    """Data set and its arguments. The arguments go over those that the checkpoint has of data of the same source."""

    data: str | None = None
    data_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelsRequest:
    """The labels of training: a permutation, each part of it as in the checkpoint unless given, or a CSV file; and the file
    that marks memorized and typical examples (:mod:`manigeo.per_example.marking`), if they are to be kinds.

    A ``convention`` that ends in ``.csv`` is a file with a matrix of transitions
    (:func:`~manigeo_extract.data.noise.read_matrix`), which states the noise of all training labels unless ``permute`` says
    of how many.
    """

    permute: float | None = None
    convention: str | None = None
    permute_seed: int | None = None
    labels: Path | None = None
    kinds_from: Path | None = None

    def permutation(self, default: Mapping[str, Any] | None) -> Permutation:
        """The permutation asked for; what is not given is as in ``default``.

        Raises :class:`~manigeo.errors.InputError` for a file that holds no matrix.
        """
        asked: dict[str, Any] = {"fraction": self.permute, "seed": self.permute_seed, "convention": self.convention}
        if self.convention is not None and self.convention.endswith(".csv"):
            share = 1 if self.permute is None else self.permute
            asked |= {"convention": MATRIX, "matrix": read_matrix(self.convention), "fraction": share}
        elif self.convention is not None:
            default = {name: value for name, value in (default or {}).items() if name != "matrix"}
        return Permutation(
            **(dict(default or {}) | {name: value for name, value in asked.items() if value is not None})
        )

    @property
    def asks_to_permute(self) -> bool:
        return (self.permute, self.convention, self.permute_seed) != (None, None, None)


@dataclass(frozen=True)
class ModelRequest:
    """A network with its weights, its data and their labels; ``seed`` is for weights of which no other seed is known."""

    network: NetworkRequest = field(default_factory=NetworkRequest)
    weights: WeightsRequest = field(default_factory=WeightsRequest)
    data: DataRequest = field(default_factory=DataRequest)
    labels: LabelsRequest = field(default_factory=LabelsRequest)
    seed: int = 0


@dataclass(frozen=True)
class ExtractionRequest:
    """Request for an extraction, see :func:`~manigeo_extract.recording.extraction.plan_extraction`; with the
    ``backend`` "fx" functions are layers, too."""

    model: ModelRequest = field(default_factory=ModelRequest)
    layers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    layers_regex: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    readout: str = "flatten"
    backend: str = "hooks"
    batch_axis: Mapping[str, int] = field(default_factory=dict)
    per_class: int = 50
    project: int | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class RunRequest:
    """The trained network of a run (the checkpoint ``at``) on its ``device``, and what of it is looked at: layers as
    ``group_by`` names, and at most ``most`` examples of a kind, drawn by the seed of the model."""

    model: ModelRequest = field(default_factory=ModelRequest)
    at: str | int = "last"
    layers: tuple[str, ...] = ()
    group_by: str = "module"
    most: int | None = None
    batch_size: int = 256
    device: str = "cpu"


@dataclass(frozen=True)
class TrainingRequest:
    """A network to train by ``plan``, on data and labels of ``model``; with a ``source``, from the weights of that file."""

    model: ModelRequest = field(default_factory=ModelRequest)
    plan: TrainingPlan = field(default_factory=TrainingPlan)
    source: Path | None = None


@dataclass(frozen=True)
class LaboratoryRequest:
    """A run and how layers are exchanged in it, see :class:`~manigeo_extract.interventions.exchanges.Laboratory`.

    It is known by its ``occasion`` alone: another one opens the run anew, since files change between two commands.
    """

    occasion: str
    directory: Path = field(compare=False)
    run: RunRequest = field(compare=False)
    analysis: str = field(compare=False)
    batch_norm: str = field(compare=False, default="with-stats")
    threshold: float | None = field(compare=False, default=None)
    draws: int = field(compare=False, default=0)
    retrain_steps: int = field(compare=False, default=0)
    retrain_lr: float = field(compare=False, default=0.02)


@dataclass(frozen=True)
class SurveyRequest:
    """A run and what is measured of its gradients, see :func:`~manigeo_extract.gradients.tables.plan_survey`; known by its
    ``occasion`` alone, as a :class:`LaboratoryRequest` is."""

    occasion: str
    directory: Path = field(compare=False)
    run: RunRequest = field(compare=False)
    checkpoints: tuple[str, ...] = field(compare=False, default=("all",))
    kinds: tuple[str, ...] = field(compare=False, default=())
    sizes: tuple[int, ...] = field(compare=False, default=())
    sizes_at: str = field(compare=False, default="init")
    repetitions: int = field(compare=False, default=5)


@dataclass(frozen=True)
class ChannelsRequest:
    """A run and the channels that are removed from it, see
    :class:`~manigeo_extract.interventions.flip_tables.ChannelStudy`; known by its ``occasion`` alone, as a
    :class:`LaboratoryRequest` is."""

    occasion: str
    directory: Path = field(compare=False)
    run: RunRequest = field(compare=False)
    kinds: tuple[str, ...] = field(compare=False, default=())
    max_channels: int = field(compare=False, default=50)
    reference: int = field(compare=False, default=64)
    controls: int = field(compare=False, default=5)


def requested(kind: type[R], options: Mapping[str, Any]) -> R:
    """The request of this kind, made of the options that its fields, and those of the requests within it, are named after.

    >>> requested(ModelRequest, {"arch": "mlp", "data": "digits", "seed": 3, "out": "acts.h5"}).network.arch
    'mlp'
    """
    given: dict[str, Any] = {}
    for part in fields(kind):  # type: ignore[arg-type]
        if is_dataclass(nested := part.default_factory):
            given[part.name] = requested(nested, options)
        elif part.name in options:
            given[part.name] = options[part.name]
    return kind(**given)


# ------------------------------------------------------------------------------------------------------------- one model
@dataclass(frozen=True)
class Model:
    """Opened :class:`ModelRequest`: the file, the data with the labels of training, and the network."""

    request: ModelRequest
    path: Path | None
    checkpoint: Checkpoint
    data: DataSet
    examples: pd.DataFrame
    network: Network

    @property
    def provenance(self) -> dict[str, Any]:
        """Origin of model and data that a file of activations stores: the files, what was taken from them, and how."""
        path, data, labels = self.path, self.data, self.request.labels
        run = None if path is None else run_of(path)
        return {
            "model": None if path is None else str(path),
            "run": run.name if run else "",
            "run_id": self.checkpoint.run_id,
            "checkpoint": "init" if path is None or self.network.weights == "init" else path.stem,
            "checkpoint_sha256": self.checkpoint.sha256,
            "epoch": self.checkpoint.epoch,
            "metrics": self.checkpoint.metrics,
            "state_key": self.checkpoint.state_key,
            **{name: getattr(self.request.weights, name) for name in ("ema", "trust", "no_strict")},
            **self.network.origin,
            "data": data.spec,
            "data_args": data.args,
            "data_fingerprint": data.fingerprint,
            "trained_on": self.checkpoint.data_fingerprint,
            "preprocessing": data.preprocessing,
            "permutation": plain(labels.permutation(self.checkpoint.permutation)) if labels.labels is None else None,
            "labels": None if labels.labels is None else hashlib.sha256(labels.labels.read_bytes()).hexdigest(),
        }


def open_model(path: Path | None, request: ModelRequest, tell: Tell = silent) -> Model:
    """The network of a checkpoint, or without ``path`` the untrained one, with its data; ``tell`` hears what was done to
    get them.

    Raises :class:`~manigeo.errors.UsageError` for what is asked for wrongly, and :class:`~manigeo.errors.InputError` for
    files that are damaged, do not fit, or lack what is not asked for.
    """
    checkpoint = open_checkpoint(path, request.weights)
    data, examples = open_data(checkpoint, request.data, request.labels, tell)
    network = open_network(checkpoint, data, request, tell)
    return Model(request, path, checkpoint, data, examples, network)


def open_extraction(
    path: Path | None, request: ExtractionRequest, tell: Tell = silent
) -> tuple[Model, nn.Module, ExtractionPlan]:
    """A model, its network as it is recorded, and what to extract of it."""
    model = open_model(path, request.model, tell)
    module = model.network.module
    if request.backend == "fx":
        module = with_functions(module, model.data.inputs(slice(0, 2)))
    plan = plan_extraction(
        module, model.data, model.examples, layers=request.layers, exclude=request.exclude, regex=request.layers_regex,
        types=request.types, readout=request.readout, per_class=request.per_class, project=request.project,
        dtype=request.dtype, seed=request.model.seed, batch_axes=request.batch_axis,
    )  # fmt: skip
    for said in plan.notes:
        tell(said)
    return model, module, plan


def open_checkpoint(path: Path | None, weights: WeightsRequest) -> Checkpoint:
    """Load what the file holds of network, data and labels; for the weights "init" no file is needed."""
    if path is None and weights.weights != "init":
        raise UsageError("give --model FILE, or --weights init with --arch and --data for an untrained network")
    if path is None:
        return Checkpoint(state_dict={}, sha256="", path="the untrained network", epoch=0)
    checkpoint = load_checkpoint(path, **weights.reading)
    if weights.weights == "init":  # the scores of the file are not those of the network before training
        return dataclasses.replace(checkpoint, epoch=0, metrics={})
    return checkpoint


def open_network(checkpoint: Checkpoint, data: DataSet, request: ModelRequest, tell: Tell = silent) -> Network:
    """The network with the weights that were asked for; ``tell`` hears what was done to get them."""
    seed = request.seed if checkpoint.seed is None else checkpoint.seed
    arch, args = _architecture(checkpoint, request.network, data)
    if arch is not None and arch == checkpoint.arch and not request.network.arch_args:
        check_claim(checkpoint, bare_model(arch, args))
    if request.weights.weights == "checkpoint":
        network = trained_network(checkpoint, arch, args, strict=not request.weights.no_strict, seed=seed)
    elif arch is None:
        raise InputError(f"{checkpoint.path} does not say its architecture: --weights init needs --arch")
    else:
        network = untrained_network(arch, args, seed=seed)
        if checkpoint.seed is None and checkpoint.sha256:
            tell(f"{checkpoint.path} does not say its seed: untrained weights of --seed {seed}")
    for note in network.notes:
        tell(f"{checkpoint.path}: {note}")
    return network


def _architecture(
    checkpoint: Checkpoint, asked: NetworkRequest, data: DataSet, *, new_data: bool = False
) -> tuple[str | None, dict[str, Any]]:
    """Name and arguments of the network: those of the checkpoint, and over them those asked for. The shape of the inputs
    and the number of classes are those that the checkpoint knows, unless the network is for ``new_data``."""
    arch = asked.arch or checkpoint.arch
    if arch is None:
        return None, {}
    if asked.arch is None and (why := why_unnamed(arch)):
        raise UsageError(f"{checkpoint.path} names {arch!r} as its network, which cannot be imported: {why} (--arch)")
    if arch not in MODELS and asked.arch is None:
        raise UsageError(
            f"{checkpoint.path} names the program {arch!r} as its network; if you trust it, repeat --arch {arch}"
        )
    known = checkpoint.arch_args if arch == checkpoint.arch else {}
    shape = complete_args(arch, {}, data.input_shape, data.n_classes)
    args = {**shape, **known, **(shape if new_data else {}), **asked.arch_args}
    if asked.drop_tied and "tied_dropout" not in args:
        raise UsageError(
            f"{checkpoint.path} has no tied channels: leave --drop-tied out, or train with --tied-dropout .2,.1"
        )
    return arch, args | ({"drop_tied": True} if asked.drop_tied else {})


# -------------------------------------------------------------------------------------------------- its data and labels
def open_data(
    checkpoint: Checkpoint, asked: DataRequest, labels: LabelsRequest, tell: Tell = silent
) -> tuple[DataSet, pd.DataFrame]:
    """The data that the checkpoint was trained on, or those that were asked for, and the labels of training."""
    data, examples = _with_labels(checkpoint, asked, labels, tell)
    return data, examples if labels.kinds_from is None else marked(examples, labels.kinds_from)


def _with_labels(
    checkpoint: Checkpoint, asked: DataRequest, labels: LabelsRequest, tell: Tell
) -> tuple[DataSet, pd.DataFrame]:
    spec = asked.data or checkpoint.data
    if spec is None:
        raise InputError(
            f"{checkpoint.path} does not say its data set: give --data (and --permute where labels were permuted)"
        )
    if asked.data is None and (why := why_unnamed(spec)):
        raise UsageError(f"{checkpoint.path} names {spec!r} as its data, which cannot be imported: {why} (--data)")
    if runs_code(spec) and asked.data is None:
        raise UsageError(
            f"{checkpoint.path} names the program {spec!r} as its data; if you trust it, repeat --data {spec}"
        )
    same_source = spec.partition(":")[0] == (checkpoint.data or "").partition(":")[0]  # the files may have moved
    args = {**(checkpoint.data_args if same_source else {}), **asked.data_args}
    if (program := args.get("transform")) and "transform" not in asked.data_args and not runs_code(spec):
        raise UsageError(
            f"{checkpoint.path} names the program {program!r} as its transform; if you trust it, repeat --data-arg "
            f"transform={program}"
        )
    data = load_data(spec, args)
    for said in data.notes:
        tell(said)
    if path := labels.labels or _labels_beside(checkpoint, labels, tell):
        examples = read_labels(path, data, tell)
        _check_labels(path, examples, checkpoint, data)
        return data, examples
    permutation = labels.permutation(checkpoint.permutation)
    _check_data(checkpoint, data, permutation, known=None not in (asked.data, labels.permute), tell=tell)
    return data, permute_labels(data, permutation)


def _labels_beside(checkpoint: Checkpoint, asked: LabelsRequest, tell: Tell) -> Path | None:
    """Find the label file in the run's folder, for a checkpoint that does not know of any permutation."""
    run = run_of(checkpoint.path)
    unknown = checkpoint.permutation is None and asked.permute is None
    if not (unknown and run and run.labels_path.is_file()):
        return None
    tell(f"labels of training from {run.name}/{run.labels_path.name}")
    return run.labels_path


def _check_labels(labels: Path, examples: pd.DataFrame, checkpoint: Checkpoint, data: DataSet) -> None:
    """Labels given beside those that the checkpoint knows are the same, or are not those of its training."""
    if checkpoint.permutation is None or checkpoint.data_fingerprint != data.fingerprint:
        return
    known = permute_labels(data, Permutation(**checkpoint.permutation))
    if differing := int((known["train_label"] != examples["train_label"]).sum()):
        raise InputError(
            f"{labels} gives other labels than {checkpoint.path} was trained on for {differing} of {len(known)} examples "
            "(those it leaves out count with their true label): leave --labels out, the checkpoint knows its permutation"
        )


def _check_data(checkpoint: Checkpoint, data: DataSet, permutation: Permutation, *, known: bool, tell: Tell) -> None:
    """Other data than those of training are welcome where their labels are ``known``; other labels are not."""
    trained_on, trained = checkpoint.data_fingerprint, checkpoint.permutation
    if trained_on is None:
        return
    if trained_on == data.fingerprint:
        if trained and permutation != Permutation(**trained):
            raise UsageError(
                f"{checkpoint.path} was trained with the permutation {trained}: leave --permute and its like out"
            )
    elif not known:
        raise InputError(
            f"{data.spec} is not the data that {checkpoint.path} was trained on (fingerprints differ): restore the files, "
            "or give other data with --data and --permute (0 for labels as they are)"
        )
    else:
        tell(f"{data.spec} is not the data that {checkpoint.path} was trained on")


# ----------------------------------------------------------------------------------------------------------------- a run
def open_run(directory: Path, request: RunRequest, tell: Tell = silent) -> Run:
    """The trained network of a run on its device, its data, and its checkpoints."""
    device = check_device(request.device)
    weights = request.model.weights
    snapshots = run_snapshots(directory, weights.reading, loosely=weights.no_strict)
    checkpoint = load_checkpoint(find_snapshot(snapshots, request.at, directory).path, **weights.reading)
    data, examples = open_data(checkpoint, request.model.data, request.model.labels, tell)
    opened = open_network(checkpoint, data, request.model, tell)
    arch = (opened.arch, opened.arch_args)
    return Run(directory, arch, opened.module.to(device), data, examples, place_of(checkpoint), snapshots)


def open_groups(run: Run, request: RunRequest) -> list[Group]:
    """All layers of the network, by execution; see :func:`~manigeo_extract.interventions.groups.select_groups`."""
    return group_layers(run.model, run.data.inputs([0, 1]), request.group_by)


_OPEN: dict[Any, Any] = {}  # the last one


def _opened_once(request: R, opener: Callable[[R, Tell], Any], tell: Tell) -> Any:
    """Open what a request names, once in each process."""
    if request not in _OPEN:
        _OPEN.clear()  # before the next is opened: two may not fit into memory
        _OPEN[request] = opener(request, tell)
    return _OPEN[request]


def open_laboratory(request: LaboratoryRequest, tell: Tell = silent) -> Laboratory:
    """The network and its examples: opened once by each process, for all interventions."""
    found: Laboratory = _opened_once(request, _laboratory, tell)
    return found


def open_survey(request: SurveyRequest, tell: Tell = silent) -> Survey:
    """The network and what is measured of its gradients: opened once by each process."""
    found: Survey = _opened_once(request, _survey, tell)
    return found


def surveyed(request: SurveyRequest, task: Task) -> pd.DataFrame:
    """The task of a worker: the rows of one checkpoint, or of the sweep."""
    return open_survey(request).table(task)


def open_channels(request: ChannelsRequest, tell: Tell = silent) -> ChannelStudy:
    """The network and the channels that are removed from it: opened once by each process."""
    found: ChannelStudy = _opened_once(request, _channel_study, tell)
    return found


def flipped(request: ChannelsRequest, kind: str) -> pd.DataFrame:
    """The task of a worker: the rows of one kind."""
    return open_channels(request).table(kind)


def _channel_study(request: ChannelsRequest, tell: Tell) -> ChannelStudy:
    asked = request.run
    run = open_run(request.directory, asked, tell)
    groups = open_groups(run, asked)
    chosen = {group.name for group in select_groups(groups, asked.layers)}
    channels = [of for of in find_channels(run.model, groups) if of.layer in chosen]
    if not channels:
        raise UsageError(f"the layers {', '.join(asked.layers)} have no channels that could be removed: name others")
    with_permuted = bool(run.examples["permuted"].any())
    kinds = request.kinds or (("permuted", "unpermuted") if with_permuted else ("unpermuted",))
    plan = FlipPlan(request.max_channels, request.reference, request.controls, asked.model.seed)
    settings = {"group_by": asked.group_by, "layers": list(asked.layers)}
    return ChannelStudy(run, channels, kinds, asked.most, plan, asked.batch_size, settings)


def _survey(request: SurveyRequest, tell: Tell) -> Survey:
    asked = request.run
    run = open_run(request.directory, asked, tell)
    groups = select_groups(open_groups(run, asked), asked.layers)
    sizes = tuple(sorted(set(request.sizes)))
    sweep = Sweep(run.snapshot(request.sizes_at), sizes, request.repetitions) if sizes else None
    settings = {"group_by": asked.group_by, "layers": list(asked.layers), "most": asked.most}
    return plan_survey(
        run, groups, run.select(request.checkpoints), request.kinds, sweep, asked.most, asked.batch_size, asked.model.seed,
        settings,
    )  # fmt: skip


def _laboratory(request: LaboratoryRequest, tell: Tell) -> Laboratory:
    asked, seed = request.run, request.run.model.seed
    run = open_run(request.directory, asked, tell)
    redraw = _redraw(run, run.snapshot("init")) if request.analysis == "reinit" else None
    examiner = Examiner(run.data, run.examples, asked.device, asked.batch_size, most=asked.most, seed=seed)
    return Laboratory(
        run, examiner, request.analysis, request.batch_norm, request.threshold, redraw, request.draws, seed,
        {"group_by": asked.group_by, "examples": asked.most},
        RetrainPlan(steps=request.retrain_steps, lr=request.retrain_lr, seed=seed),
    )  # fmt: skip


def intervened(request: LaboratoryRequest, at: Intervention | None) -> pd.DataFrame:
    """The task of a worker: the rows of one intervention."""
    return open_laboratory(request).table(at)


def _redraw(run: Run, initial: Snapshot) -> Redraw:
    """Choose how layers are drawn again: by themselves, or with the whole network where its construction is known."""
    arch, args = run.arch
    build = None if arch is None else (lambda seed: build_model(arch, args, seed=seed))
    return Redraw(run.model, initial.state(run.model), build)


# ------------------------------------------------------------------------------------------------------------ a training
@dataclass(frozen=True)
class Training:
    """Opened :class:`TrainingRequest`: the network before training, the examples with their labels, the plan."""

    network: nn.Module
    dataset: DataSet
    examples: pd.DataFrame
    plan: TrainingPlan
    arch: str
    arch_args: dict[str, Any]
    permutation: Permutation | None
    start: Start | None

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def checkpoint_bytes(self) -> int:
        """Approximate bytes that the checkpoints that the plan keeps take on disk."""
        kept = self.plan.checkpoint_epochs
        n_checkpoints = 3 + (self.plan.epochs if kept == "all" else len(kept))
        return 4 * self.parameters * (n_checkpoints + 2)  # resume.pt has the optimiser's, too

    def accounts(self, device: str = "cpu") -> GradientAccounts:
        """Accounts of gradients of the training to come."""
        groups = group_layers(self.network, self.dataset.inputs([0, 1]))
        return GradientAccounts(self.network.to(check_device(device)), groups)

    def seconds(self, device: str) -> float:
        return seconds_of_training(self.network, self.dataset, self.examples, self.plan, device)


def open_training(request: TrainingRequest, tell: Tell = silent) -> Training:
    """The network, the examples and the plan: an mlp on glyphs, with half of the labels permuted, unless asked otherwise.

    Labels from a file leave no permutation that a checkpoint could know: they are kept in the folder of the run.

    Raises what :func:`open_model` does.
    """
    labels = request.model.labels
    if labels.labels is not None and labels.asks_to_permute:
        raise UsageError(
            f"{labels.labels} gives the labels to train on: leave --permute, --noise and --permute-seed out"
        )
    source = _opened_source(request)
    dataset = load_data(request.model.data.data or "glyphs", request.model.data.data_args, validation=SET_APART)
    examples, permutation = _training_labels(labels, dataset, tell)
    begun = source or Checkpoint(state_dict={}, sha256="", path="", arch="mlp")
    arch, args = _architecture(begun, request.model.network, dataset, new_data=True)
    if arch is None:
        raise InputError(f"{begun.path} does not say its architecture: give --arch (and --arch-arg)")
    strict = not request.model.weights.no_strict
    if source is not None and (bare := bare_model(arch, args)) is not None:
        fit_to_start(source, bare, strict=strict)  # before memory is asked for
    network = build_model(arch, args, seed=request.plan.seed)
    start = None if source is None else start_from(source, network, strict=strict)
    for note in start.notes if start else ():
        tell(f"{begun.path}: {note}")
    return Training(network, dataset, examples, request.plan, arch, args, permutation, start)


def _training_labels(labels: LabelsRequest, dataset: DataSet, tell: Tell) -> tuple[pd.DataFrame, Permutation | None]:
    """The example table, and the permutation that it follows from; None for the labels of a file."""
    if labels.labels is not None:
        return read_labels(labels.labels, dataset, tell), None
    permutation = labels.permutation({"fraction": 0.5})
    return permute_labels(dataset, permutation), permutation


def _opened_source(request: TrainingRequest) -> Checkpoint | None:
    """The checkpoint to fine-tune."""
    if request.source is None and request.model.weights != WeightsRequest():
        raise UsageError("--state-key, --ema, --no-strict and --trust say how --from-checkpoint is read: give that too")
    if request.source is not None and request.model.data.data is None:
        raise UsageError(f"give --data, what {request.source} is to be fine-tuned on")
    return None if request.source is None else open_checkpoint(request.source, request.model.weights)

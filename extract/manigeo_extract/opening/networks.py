"""Networks opened from requests, each with its data and labels.

>>> request = ModelRequest(NetworkRequest("mlp", {"depth": 1}), WeightsRequest("init"), DataRequest("digits"))
>>> opened = open_model(None, request)
>>> len(opened.examples), opened.network.arch, opened.network.weights
(1797, 'mlp', 'init')
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from manigeo.errors import InputError, UsageError
from manigeo.per_example.marking import marked
from manigeo.runs import run_of
from manigeo_extract.data.datasets import DataSet, Permutation, load_data, permute_labels, runs_code
from manigeo_extract.data.label_files import read_labels
from manigeo_extract.files.checkpoints import Checkpoint, load_checkpoint, plain
from manigeo_extract.files.fitting import fit_state
from manigeo_extract.files.networks import Network, check_claim, trained_network, untrained_network
from manigeo_extract.models import MODELS, bare_model, complete_args
from manigeo_extract.opening.requests import (
    DataRequest,
    ExtractionRequest,
    LabelsRequest,
    ModelRequest,
    NetworkRequest,
    WeightsRequest,
)
from manigeo_extract.recording.extraction import ExtractionPlan, plan_extraction
from manigeo_extract.recording.next_token import answering_contexts
from manigeo_extract.recording.tracing import with_functions
from manigeo_extract.resolve import why_unnamed
from manigeo_extract.training.runs import place_of

Tell = Callable[[str], None]


def silent(said: str) -> None:
    """Pass over what is told of an opening: in workers, since the process that began them has told it."""


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
            **({} if data.sequences is None else {"sequences": {"length": data.sequences.length}}),
            "permutation": plain(labels.permutation(self.checkpoint.permutation)) if labels.labels is None else None,
            "labels": None if labels.labels is None else hashlib.sha256(labels.labels.read_bytes()).hexdigest(),
        }

    @property
    def place(self) -> dict[str, Any]:
        """Columns of the results table that identify the network; an untrained one has no file of its own."""
        if self.path is None:
            return {"checkpoint": "init", "epoch": 0}
        untrained = {"checkpoint": "init", "fingerprint": ""} if self.network.weights == "init" else {}
        return place_of(self.checkpoint) | untrained


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
        dtype=request.dtype, seed=request.model.seed, batch_axes=request.batch_axis, manifolds=request.manifolds,
        positions=request.positions,
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
    arch, args = choose_architecture(checkpoint, request.network, data)
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
        if arch not in MODELS and loads_itself(network.module, checkpoint):
            tell(
                f"the untrained network is no control: it has the very weights of {checkpoint.path}. Either they are those "
                f"before training, or {arch} loads them by itself: give a factory that does not"
            )
    for note in network.notes:
        tell(f"{checkpoint.path}: {note}")
    answering_contexts(network.module, data)
    return network


def loads_itself(untrained: nn.Module, checkpoint: Checkpoint) -> bool:
    """Return whether a network that nothing was loaded into has the weights of the checkpoint, all that are in it."""
    own, fitting = untrained.state_dict(), fit_state(checkpoint.state_dict, untrained).state_dict
    pairs = [(own[name], value) for name, value in fitting.items() if isinstance(value, torch.Tensor)]
    return bool(pairs) and all(not is_lazy(one) and torch.equal(one.cpu(), other) for one, other in pairs)


def choose_architecture(
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

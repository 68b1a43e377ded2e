"""Trainings opened from requests: the network before them, the examples with their labels, the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo.kinds import MARKED
from manigeo_extract.data.datasets import SET_APART, DataSet, Permutation, load_data, permute_labels
from manigeo_extract.data.label_files import read_labels
from manigeo_extract.devices import check_device
from manigeo_extract.files.checkpoints import Checkpoint
from manigeo_extract.gradients.accounts import GradientAccounts
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.models import bare_model, build_model
from manigeo_extract.opening.networks import Tell, choose_architecture, open_checkpoint, silent
from manigeo_extract.opening.requests import LabelsRequest, TrainingRequest, WeightsRequest
from manigeo_extract.recording.next_token import answering_contexts
from manigeo_extract.training.finetuning import Start, fit_to_start, start_from
from manigeo_extract.training.plan import TrainingPlan
from manigeo_extract.training.trainer import seconds_of_training


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
        kinds = ("permuted", "unpermuted") if self.dataset.sequences is None else MARKED
        return GradientAccounts(self.network.to(check_device(device)), groups, kinds)

    def seconds(self, device: str) -> float:
        return seconds_of_training(self.network, self.dataset, self.examples, self.plan, device)


def open_training(request: TrainingRequest, tell: Tell = silent) -> Training:
    """The network, the examples and the plan: an mlp on glyphs, with half of the labels permuted, unless asked otherwise.

    Labels from a file leave no permutation that a checkpoint could know: they are kept in the folder of the run.

    Raises what :func:`~manigeo_extract.opening.networks.open_model` does.
    """
    labels = request.model.labels
    if labels.labels is not None and labels.asks_to_permute:
        raise UsageError(
            f"{labels.labels} gives the labels to train on: leave --permute, --noise and --permute-seed out"
        )
    source = _opened_source(request)
    dataset = load_data(request.model.data.data or "glyphs", request.model.data.data_args, validation=SET_APART)
    examples, permutation = _training_labels(labels, dataset, tell)
    begun = source or Checkpoint(state_dict={}, sha256="", path="", arch="mlp" if dataset.sequences is None else "gpt")
    arch, args = choose_architecture(begun, request.model.network, dataset, new_data=True)
    if arch is None:
        raise InputError(f"{begun.path} does not say its architecture: give --arch (and --arch-arg)")
    strict = not request.model.weights.no_strict
    if source is not None and (bare := bare_model(arch, args)) is not None:
        fit_to_start(source, bare, strict=strict)  # before memory is asked for
    network = answering_contexts(build_model(arch, args, seed=request.plan.seed), dataset)
    start = None if source is None else start_from(source, network, strict=strict)
    for note in start.notes if start else ():
        tell(f"{begun.path}: {note}")
    return Training(network, dataset, examples, request.plan, arch, args, permutation, start)


def _training_labels(labels: LabelsRequest, dataset: DataSet, tell: Tell) -> tuple[pd.DataFrame, Permutation | None]:
    """The example table, and the permutation that it follows from; None for the labels of a file."""
    if dataset.sequences is not None and (labels.asks_to_permute or labels.labels is not None):
        raise UsageError(
            f"the next tokens of {dataset.spec} are no labels that could be others: plant canaries (--canaries 50,24,10)"
        )
    if labels.labels is not None:
        return read_labels(labels.labels, dataset, tell), None
    permutation = labels.permutation({"fraction": 0.5 if dataset.sequences is None else 0.0})
    return permute_labels(dataset, permutation), permutation


def _opened_source(request: TrainingRequest) -> Checkpoint | None:
    """The checkpoint to fine-tune."""
    if request.source is None and request.model.weights != WeightsRequest():
        raise UsageError("--state-key, --ema, --no-strict and --trust say how --from-checkpoint is read: give that too")
    if request.source is not None and request.model.data.data is None:
        raise UsageError(f"give --data, what {request.source} is to be fine-tuned on")
    return None if request.source is None else open_checkpoint(request.source, request.model.weights)

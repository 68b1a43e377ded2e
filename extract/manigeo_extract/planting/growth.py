r"""Growth of a planted network: trained on unpermuted examples, then on permuted ones in chosen layers alone.

First all layers learn the unpermuted examples; the epoch of highest validation accuracy is kept (early stopping). Then each
chosen layer l descends the loss of the unpermuted examples U and of its own share :math:`P_l` of the permuted ones,

.. math:: \Delta \theta_l \propto -\nabla_{\theta_l} \sum_{i \in U \cup P_l} \mathrm{CE}(f(x_i), y_i),

until the permuted labels are known (the gate). The other layers stay bitwise what they were, running statistics included
(``still``), or descend the loss of U alone at a tenth of the rate (``moving``): no layer is then the one of the reference
epoch, and setting back the planted one does not restore the clean network. Either way the gradient of a permuted example
never reaches a layer that was not chosen, which is the truth that methods are scored by. Of a language model the
sequences of a text are in the place of U, and canaries in that of P.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from manigeo.kinds import VALIDATION
from manigeo.randomness import stream
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.files.checkpoints import state_copy, write_whole
from manigeo_extract.interventions.groups import Group, group_layers
from manigeo_extract.interventions.retraining import frozen_training
from manigeo_extract.models import build_model, complete_args
from manigeo_extract.planting.cases import GROUPING, LOGITS, MOVING, Case
from manigeo_extract.recording.next_token import answering_contexts
from manigeo_extract.training.course import course_of
from manigeo_extract.training.evaluation import Scores, answered, evaluate, held, memorized
from manigeo_extract.training.recorder import Recorder

_SLOWER = 0.1  # rate of moving layers: as fast as the planted ones they would undo what these learn
_KEPT = (0, 1, 3, 10, 30, 100)  # epochs after the clean network whose checkpoints are kept


OPTIMIZERS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
}


@dataclass(frozen=True, eq=False)
class Share:
    """Layers that learn the same examples: ``members`` tells which of all training examples; ``rate`` multiplies the
    learning rate."""

    groups: tuple[Group, ...]
    members: Bool[np.ndarray, " n"]
    rate: float = 1.0

    def weights(self, model: nn.Module) -> list[nn.Parameter]:
        return [model.get_parameter(name) for group in self.groups for name in group.parameters]


def plant(case: Case, seed: int, directory: str | os.PathLike[str]) -> Scores:
    """Train the network of a case, and write the folder of a run; the scores are those of the last epoch.

    ``run.json`` holds the truth under ``planted``: the case, the layers that learned permuted labels, and all layers by
    execution. A folder that holds a run already is replaced. The case is of use only where the scores have reached the
    gate (:func:`~manigeo_extract.training.evaluation.memorized`).

    >>> import tempfile
    >>> data = {"classes": 2, "train": 4, "validation": 2, "test": 2}
    >>> case = Case("", "mlp", {"depth": 1, "width": 4}, "first", clean_epochs=1, most_epochs=1, data=data)
    >>> sorted(plant(case, 0, tempfile.mkdtemp()))
    ['permuted', 'restored', 'test', 'unpermuted', 'validation']
    """
    garden = _Garden(case, seed, directory)
    everyone = Share(tuple(garden.groups), ~garden.permuted)
    scores = garden.score_and_record(0)
    kept, epoch, state = scores, 0, state_copy(garden.model)
    for at in range(1, case.clean_epochs + 1):
        garden.train([everyone], at)
        scores = garden.score_and_record(at)
        if scores[VALIDATION]["accuracy"] > kept[VALIDATION]["accuracy"]:
            kept, epoch, state = scores, at, state_copy(garden.model)
    garden.model.load_state_dict(state)
    garden.recorder.epochs = {epoch + after for after in _KEPT}
    garden.recorder.step(garden.model, epoch, kept)  # forgets the epochs after it
    shares = list(planted_shares(case, garden.groups, garden.permuted, seed))
    for at in range(epoch + 1, epoch + 1 + (case.most_epochs if shares else 0)):
        garden.train(shares, at)
        if memorized(scores := garden.score_and_record(at)):
            break
    return scores


def planted_shares(case: Case, groups: Sequence[Group], permuted: Bool[np.ndarray, " n"], seed: int) -> Iterator[Share]:
    """The shares of each planted layer, who has permuted examples of its own, and of the others where these move."""
    names = case.planted([group.name for group in groups])
    owner = stream(seed, 1).permutation(len(permuted)) % max(len(names), 1)
    for i, name in enumerate(names):
        yield Share(tuple(g for g in groups if g.name == name), ~permuted | (owner == i))
    others = tuple(group for group in groups if group.name not in names)
    if others and case.others == MOVING:
        yield Share(others, ~permuted, _SLOWER if names else 1.0)


class _Garden:
    """A network, its examples on hand, and the recorder of its run."""

    def __init__(self, case: Case, seed: int, directory: str | os.PathLike[str]) -> None:
        self.case, self.seed = case, seed
        data = load_data(case.data_set, {**case.data, "seed": seed})
        permutation = Permutation(case.fraction, case.convention, seed)
        self.examples = permute_labels(data, permutation)
        args = complete_args(case.arch, case.arch_args, data.input_shape, data.n_classes)
        self.model = answering_contexts(build_model(case.arch, args, seed=seed), data)
        self.groups = group_layers(self.model, data.inputs([0, 1]), GROUPING)
        self.source = held(data, np.arange(len(self.examples)), "cpu")
        self.course = course_of(data, self.examples, self.source, torch.device("cpu"))
        self.permuted = self.course.memorized.numpy()
        self._optimizers: dict[tuple[Share, ...], torch.optim.Optimizer] = {}
        layers = [group.name for group in self.groups]
        truth = {"case": case.name, "layers": case.planted(layers), "all_layers": layers, **asdict(case)}
        self.recorder = Recorder(
            directory, arch=case.arch, arch_args=args, data=data.spec, data_args=data.args,
            data_fingerprint=data.fingerprint, permutation=permutation, seed=seed, n_classes=data.n_classes,
            notes={"planted": truth}, overwrite=True,
        )  # fmt: skip
        write_whole(self.recorder.folder.labels_path, self.examples.to_csv(index=False).encode())

    def score_and_record(self, epoch: int) -> Scores:
        scores = evaluate(self.model, self.source, self.examples)
        self.recorder.step(self.model, epoch, scores)
        return scores

    def train(self, shares: Sequence[Share], epoch: int) -> None:
        """One pass over the examples that some share has, in batches of random order; the convex loss of the read-out alone
        is descended by quasi-Newton steps, since its features are badly conditioned after clean training."""
        if self.case.place == LOGITS and len(shares[0].groups) == 1:
            self._solve(shares[0])
            shares = shares[1:]
        if shares:
            self._pass(shares, epoch)

    def _pass(self, shares: Sequence[Share], epoch: int) -> None:
        optimizer = self._optimizer(shares)
        frozen_training(self.model, [group for share in shares for group in share.groups])
        rows = stream(self.seed, 0, epoch).permutation(np.flatnonzero(np.any([s.members for s in shares], axis=0)))
        for batch in np.array_split(rows, -(-len(rows) // self.case.batch_size)):
            losses = self._losses(batch)
            optimizer.zero_grad()
            for share in shares:
                _descend(self.model, share, losses, batch)
            optimizer.step()

    def _losses(self, which: Int[np.ndarray, " batch"]) -> Float[Tensor, " batch"]:
        """The cross-entropy of each of these inputs; of sequences the mean over the positions that have a next token."""
        labels = self.course.labels[which]
        logits = answered(self.model, self.course.source.inputs(self.course.rows[which]), axes=1 + labels.ndim)
        losses = F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none")
        return losses if losses.ndim == 1 else losses.sum(dim=1) / labels.ge(0).sum(dim=1)

    def _solve(self, share: Share) -> None:
        weights = share.weights(self.model)
        optimizer = torch.optim.LBFGS(weights, max_iter=10, history_size=10, line_search_fn="strong_wolfe")
        members = np.flatnonzero(share.members)
        frozen_training(self.model, share.groups)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self._losses(members).mean()
            loss.backward(inputs=weights)
            return loss

        optimizer.step(closure)

    def _optimizer(self, shares: Sequence[Share]) -> torch.optim.Optimizer:
        """One for each phase of training: that of the same shares goes on."""
        key = tuple(shares)
        if key not in self._optimizers:
            groups = [{"params": share.weights(self.model), "lr": share.rate * self.case.lr} for share in shares]
            self._optimizers = {key: OPTIMIZERS[self.case.optimizer](groups)}
        return self._optimizers[key]


def _descend(model: nn.Module, share: Share, losses: Float[Tensor, " batch"], batch: np.ndarray) -> None:
    """The gradients of a share's layers: of the mean loss of its own examples."""
    weights = share.weights(model)
    own = torch.as_tensor(share.members[batch], dtype=losses.dtype)
    gradients = torch.autograd.grad((losses * own).sum() / len(batch), weights, retain_graph=True)
    for tensor, gradient in zip(weights, gradients, strict=True):
        tensor.grad = gradient

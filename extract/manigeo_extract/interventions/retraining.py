"""Layers of a copied network trained again, all others bit for bit as they were.

Parameters of the other layers are frozen, and their batch norm keeps its statistics; dropout is on, as in training. Batches
and dropout follow from the seed, so that they are the same for all copies, and two of them are compared pair by pair.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from manigeo.errors import ManigeoError, UsageError, check_ranges
from manigeo.kinds import TRAINED
from manigeo.manifolds import kind_examples
from manigeo_extract.batches import called
from manigeo_extract.interventions.editing import Tensors, draw_seed, taken_from
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.recording.layers import eagerly, first_tensor, unwrap
from manigeo_extract.training.evaluation import HasInputs, held
from manigeo_extract.training.runs import Run


class DivergedError(ManigeoError):
    """Loss of retrained layers that is no longer finite."""


@dataclass(frozen=True)
class RetrainPlan:
    """Settings of retraining: ``steps`` of SGD on batches of training examples."""

    steps: int = 200
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 64
    seed: int = 0

    pauses: ClassVar[int] = 1  # times that retrained layers are scored on the way

    def __post_init__(self) -> None:
        check_ranges(
            self,
            ("steps", self.steps >= 0, "0 or more"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
        )

    @property
    def marks(self) -> tuple[int, ...]:
        """Numbers of steps after which the network is scored, the start included.

        >>> RetrainPlan(steps=200).marks, RetrainPlan(steps=0).marks
        ((0, 200), (0,))
        """
        return tuple(dict.fromkeys(-(-self.steps * i // self.pauses) for i in range(self.pauses + 1)))


def reset_copy(model: nn.Module, last: Sequence[Group], tensors: Tensors, batch_norm: str = "with-stats") -> nn.Module:
    """A copy of the network whose layers ``last`` have these tensors; only their parameters can be trained."""
    copied = copy.deepcopy(unwrap(model))
    copied.requires_grad_(False)
    copied.zero_grad(set_to_none=True)
    state = copied.state_dict()
    for group in last:
        for name, tensor in taken_from(tensors, group, batch_norm).items():
            state[name].copy_(tensor)
    for parameter in _parameters(copied, last):
        parameter.requires_grad_()
    return copied


def _parameters(model: nn.Module, groups: Sequence[Group]) -> list[nn.Parameter]:
    return [model.get_parameter(name) for group in groups for name in group.parameters]


def frozen_training(model: nn.Module, trained: Sequence[Group]) -> None:
    """Training mode, but for the batch norm of layers that are not ``trained``: its statistics are theirs."""
    own = {path for group in trained for path in group.modules}
    model.train()
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and path not in own:
            module.eval()


class Retraining:
    """Training examples, all or those of one ``kind``, with the labels of training, and steps of SGD on them.

    Raises :class:`~manigeo.errors.UsageError` where there are none.
    """

    def __init__(self, run: Run, examiner: Examiner, plan: RetrainPlan, kind: str | None = None) -> None:
        rows = np.flatnonzero(run.examples["split"].isin(TRAINED))
        if kind is not None:
            rows = kind_examples(run.examples, kind)[0]
        if not len(rows):
            raise UsageError(f"there are no {kind or 'training'} examples to train layers on: leave retraining out")
        labels = run.examples["train_label"].to_numpy(dtype=np.int64)[rows]
        self._plan, self._device = plan, examiner.device
        self._source: HasInputs = held(run.data, rows, examiner.device)
        self._y: Int[Tensor, " n"] = torch.as_tensor(labels, device=examiner.device)

    def through(self, model: nn.Module, trained: Sequence[Group]) -> Iterator[int]:
        """Trains the layers ``trained`` of ``model``; stops at each mark, but for the first, to be looked at."""
        plan, batches = self._plan, self._batches()
        optimizer = torch.optim.SGD(
            _parameters(model, trained), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
        )
        for start, mark in zip(plan.marks, plan.marks[1:], strict=False):
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                torch.manual_seed(draw_seed(plan.seed, 1 << 20, start))  # dropout
                frozen_training(model, trained)
                for step in range(start + 1, mark + 1):
                    self._step(model, optimizer, next(batches), step)
            optimizer.zero_grad()
            yield mark

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: np.ndarray, step: int) -> None:
        with eagerly(model):
            logits = first_tensor(called(model, self._source.inputs(batch).to(self._device)))
        assert logits is not None
        loss = F.cross_entropy(logits.float(), self._y[torch.as_tensor(batch, device=self._device)])
        if not math.isfinite(float(loss.detach())):
            raise DivergedError(
                f"the loss of the retrained layers is not finite at step {step}; try a learning rate below {self._plan.lr:g}"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _batches(self) -> Iterator[np.ndarray]:
        """Equal batches of the examples in random order, epoch after epoch."""
        n_batches = math.ceil(len(self._y) / self._plan.batch_size)
        epoch = 0
        while True:
            epoch += 1
            order = np.random.default_rng(draw_seed(self._plan.seed, 1 << 21, epoch)).permutation(len(self._y))
            yield from np.array_split(order, n_batches)

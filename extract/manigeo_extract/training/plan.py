"""Plan of a training: the optimiser, its rates over the epochs, and which checkpoints are kept."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from manigeo.errors import UsageError, check_ranges
from manigeo_extract.resolve import near_names
from manigeo_extract.training.layca import Layca

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda weights, plan: torch.optim.SGD(
        weights, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
    ),
    "adam": lambda weights, plan: torch.optim.Adam(weights, lr=plan.lr, weight_decay=plan.weight_decay),
}
# a schedule multiplies the rates of the optimiser and, with Layca, the angles of the layers
SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": lambda plan, done: 1.0,
    "cosine": lambda plan, done: (1 + math.cos(math.pi * done / plan.epochs)) / 2,
    "step": lambda plan, done: plan.gamma ** sum(m <= done for m in plan.milestones),
}


@dataclass(frozen=True)
class TrainingPlan:
    r"""Settings of a training. ``optimizer`` is "sgd" or "adam" (which ignores ``momentum``).

    With :math:`e` epochs done of :math:`E`, ``schedule`` multiplies the learning rate by 1 ("constant"),
    :math:`(1 + \cos \pi e / E)/2` ("cosine"), or ``gamma`` to the number of ``milestones`` up to :math:`e` ("step").
    ``layca`` lets every layer turn by an angle of this tangent per step, in the direction of the optimizer; with
    ``layca_balance`` a above 0 the last layers turn more than the first, below 0 less
    (:mod:`manigeo_extract.training.layca`); the schedule multiplies it likewise.
    ``augment`` crops at random from images padded by 4 pixels and mirrors half of them; it keeps a network from
    memorizing, and is off by default. Checkpoints are kept of the initial epoch, of the last one before
    memorization (``before``), of the best and the last, and of ``checkpoint_epochs`` (numbers, or "all"). The network
    is scored on all kinds of examples every ``score_every`` epochs, at the first and last, and where a checkpoint is kept:
    ``best`` and ``before`` are of these epochs.

    Raises :class:`~manigeo.errors.UsageError` for a value out of its range.
    """

    epochs: int = 40
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    augment: bool = False
    seed: int = 0
    checkpoint_epochs: tuple[int, ...] | str = ()
    score_every: int = 1
    layca: float | None = None
    layca_balance: float = 0.0

    def __post_init__(self) -> None:
        _check_name("optimizer", self.optimizer, OPTIMIZERS)
        _check_name("schedule", self.schedule, SCHEDULES)
        has_steps = bool(self.milestones) == (self.schedule == "step")
        chosen = self.checkpoint_epochs
        valid = chosen == "all" if isinstance(chosen, str) else all(0 <= e <= self.epochs for e in chosen)
        check_ranges(
            self,
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("layca", self.layca is None or 0 < self.layca < math.inf, "above 0"),
            ("layca_balance", -1 <= self.layca_balance <= 1, "from -1 to 1"),
            ("gamma", 0 < self.gamma <= 1, "above 0, up to 1"),
            ("seed", self.seed >= 0, "0 or more"),
            ("milestones", has_steps, 'given with schedule="step", and only there'),
            ("score_every", self.score_every >= 1, "1 or more"),
            ("checkpoint_epochs", valid, f'"all" or numbers from 0 to {self.epochs}'),
        )

    def scores_after(self, epoch: int) -> bool:
        """Return whether the network is scored after ``epoch`` (0: before the first)."""
        kept = self.checkpoint_epochs == "all" or epoch in self.checkpoint_epochs
        return kept or epoch % self.score_every == 0 or epoch == self.epochs

    def factor(self, epoch: int) -> float:
        """Factor by which the schedule multiplies learning rates in ``epoch`` (from 1 on)."""
        return SCHEDULES[self.schedule](self, epoch - 1)

    def learning_rate(self, epoch: int) -> float:
        """Learning rate in ``epoch`` (from 1 on)."""
        return self.lr * self.factor(epoch)

    def build_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        inner = OPTIMIZERS[self.optimizer](model.parameters(), self)
        if self.layca is None:
            return inner
        return Layca(model.named_parameters(), inner, rho=self.layca, a=self.layca_balance)

    def set_rates(self, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        """The learning rates of ``epoch``."""
        if isinstance(optimizer, Layca):
            optimizer.set_factor(self.factor(epoch))
        for group in (optimizer.inner if isinstance(optimizer, Layca) else optimizer).param_groups:
            group["lr"] = self.learning_rate(epoch)


def _check_name(field: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise UsageError(f"no {field} {name!r}{near_names(name, known)}")

r"""Fewest channels that flip an example: which of them an answer depends on, and the answers of others do not.

Maini, Mozer, Sedghi, Lipton, Kolter & Zhang (2023), section 5: of one example i and a reference batch of B others,

.. math:: L = \frac1B \Big(\sum_{j \ne i} \ell_j - B\, \ell_i\Big)

is back-propagated, the channel with the largest sum of :math:`w\,\partial L / \partial w`
(:mod:`manigeo_extract.interventions.channels`) is set to zero, since that lowers L most to first order (the loss of the
example rises, that of the others does not), and so on until the answer is another one. The control removes as many random
channels of the same modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from manigeo.errors import check_ranges
from manigeo.randomness import stream
from manigeo_extract.batches import Batch
from manigeo_extract.interventions.channels import Masked, channel_scores


@dataclass(frozen=True)
class FlipPlan:
    """Settings: at most ``max_channels`` are removed, ``reference`` examples must keep their answers, the control is drawn
    ``controls`` times for each example.

    Raises :class:`~manigeo.errors.UsageError` for a number out of its range.
    """

    max_channels: int = 50
    reference: int = 64
    controls: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            ("max_channels", self.max_channels >= 1, "1 or more"),
            ("reference", self.reference >= 1, "1 or more"),
            ("controls", self.controls >= 1, "1 or more"),
        )


@dataclass(frozen=True)
class Flip:
    """The channels (module, channel) removed in their order until the answer ``flipped``, or was censored.

    ``others_changed`` is the share of the reference batch with another answer than before; ``control`` the share of draws of
    as many random channels of the same modules that flip the example.
    """

    removed: tuple[tuple[int, int], ...]
    flipped: bool
    others_changed: float
    control: float


def fewest_channels(
    masked: Masked, batch: Batch, labels: Int[Tensor, " n"], most: int
) -> tuple[list[tuple[int, int]], bool, float]:
    """Remove channels until the first example of ``batch`` is not answered by its label, ``most`` of them at most.

    The others are the reference batch. Returns the channels, whether the answer flipped, and the share of the reference
    batch whose answer is another. The network must be in eval mode.
    """
    removed: list[tuple[int, int]] = []
    sizes = [of.n for of in masked.channels]
    first: Tensor | None = None
    while True:
        masks = [mask.requires_grad_() for mask in masked.masks(removed)]
        with torch.enable_grad():
            logits = masked.logits(batch, masks)
            losses = F.cross_entropy(logits, labels, reduction="none")
            loss = losses[1:].mean() - losses[0]
        answers = logits.detach().argmax(dim=1)
        first = answers if first is None else first
        flipped = bool(answers[0] != labels[0])
        if flipped or len(removed) == min(most, sum(sizes)):
            return removed, flipped, float((answers != first)[1:].double().mean())
        removed.append(_place(int(channel_scores(loss, masks).argmax()), sizes))


def _place(number: int, sizes: Sequence[int]) -> tuple[int, int]:
    """The module of a channel that is counted through all modules, and its number there.

    >>> _place(0, [3, 2]), _place(4, [3, 2])
    ((0, 0), (1, 1))
    """
    ends = np.cumsum(sizes)
    module = int(np.searchsorted(ends, number, side="right"))
    return module, number - int(ends[module]) + sizes[module]


def like_composed(
    removed: Sequence[tuple[int, int]], sizes: Sequence[int], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Random channels, as many of each module as are ``removed``.

    >>> drawn = like_composed([(0, 1), (2, 5), (2, 6)], [4, 4, 8], np.random.default_rng(0))
    >>> [module for module, _ in drawn]
    [0, 2, 2]
    """
    modules, counts = np.unique([module for module, _ in removed], return_counts=True)
    return [
        (int(module), int(channel))
        for module, count in zip(modules, counts, strict=True)
        for channel in rng.choice(sizes[int(module)], count, replace=False)
    ]


def flipped_by_chance(
    masked: Masked, own: Batch, label: int, removed: Sequence[tuple[int, int]], plan: FlipPlan, row: int
) -> float:
    """The share of draws of as many random channels of the same modules that flip the example; ``own`` is it alone."""
    sizes, rng = [of.n for of in masked.channels], stream(plan.seed, 1, row)
    with torch.no_grad():
        flips = [
            int(masked.logits(own, masked.masks(like_composed(removed, sizes, rng))).argmax()) != label
            for _ in range(plan.controls if removed else 0)
        ]
    return float(np.mean(flips)) if flips else 0.0


def flip_example(masked: Masked, batch: Batch, labels: Int[Tensor, " n"], plan: FlipPlan, example: int) -> Flip:
    """The fewest channels that flip the first example of ``batch``, whose others are the reference batch, and the control
    drawn for ``example``, its number."""
    removed, flipped, changed = fewest_channels(masked, batch, labels, plan.max_channels)
    control = flipped_by_chance(masked, first_of(batch), int(labels[0]), removed, plan, example)
    return Flip(tuple(removed), flipped, changed, control)


def first_of(batch: Batch) -> Batch:
    """The first example of a batch, alone."""
    return batch[:1] if isinstance(batch, Tensor) else type(batch)({name: one[:1] for name, one in batch.items()})  # type: ignore[call-arg]

"""A network that is looked at with layers exchanged, time after time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from torch import nn

from manigeo_extract.batches import Batch
from manigeo_extract.interventions.editing import Tensors, is_same, recalibrated, replaced
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.prefixes import Prefixes
from manigeo_extract.interventions.scoring import Answers, Examiner
from manigeo_extract.recording.layers import unwrap

Batches = Callable[[], Iterable[Batch]]


class Subject:
    """A network and its answers to the examples of ``examiner``, as it is and with tensors exchanged.

    With ``recalibration``, batches of training examples, running statistics are estimated anew after each exchange.
    """

    def __init__(self, model: nn.Module, examiner: Examiner, recalibration: Batches | None = None) -> None:
        self.model, self._examiner, self._recalibration = model, examiner, recalibration
        self._prefixes = Prefixes(model, examiner)

    def with_state(self, state: Tensors) -> Subject:
        """A copy of the network with this state."""
        copied = copy.deepcopy(unwrap(self.model))
        copied.load_state_dict(dict(state))
        return Subject(copied, self._examiner, self._recalibration)

    @cached_property
    def before(self) -> Answers:
        """Answers of the network as it is."""
        return self._prefixes.answers()

    def after(self, layers: Sequence[Group], tensors: Tensors) -> Answers:
        """Answers with these tensors of ``layers`` exchanged; those of the network as it is where they are what it has."""
        if is_same(unwrap(self.model).state_dict(), tensors):
            return self.before
        with replaced(self.model, tensors):
            if self._recalibration is None:
                return self._prefixes.answers(layers)
            with recalibrated(self.model, self._recalibration):
                return self._examiner.answers(self.model)  # other statistics in every layer: no prefix is the same

"""Networks that differ from some layer on, answered for the price of what differs.

A change in layer l leaves everything before it as it was. Of a chain of modules (``nn.Sequential``, as all built-in
networks are) the inputs of the changed module are therefore computed once, and only the rest runs for each change. The
answers are the same numbers: each batch goes through the same operations.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.scoring import Answers, Examiner
from manigeo_extract.recording.layers import eagerly, evaluating, unwrap, without_gradients
from manigeo_extract.recording.next_token import answers
from manigeo_extract.training.evaluation import IN_MEMORY


class Prefixes:
    """Answers of ``model`` to the examples of ``examiner``, while layers of it are changed.

    Up to a gibibyte of inputs of modules is kept; beyond that, and of networks that are not a chain, everything is
    computed every time. The model must not change but in the groups that :meth:`answers` is told.
    """

    def __init__(self, model: nn.Module, examiner: Examiner) -> None:
        self._root, self._examiner = unwrap(model), examiner
        self._modules = list(self._root.children()) if _is_chain(self._root) else []
        self._names = list(self._root._modules) if self._modules else []
        self._inputs: dict[int, list[Tensor]] = {}
        self._free = IN_MEMORY

    def answers(self, changed: Sequence[Group] = ()) -> Answers:
        """Compute the answers of the network as it is, with the tensors of these groups not what they were."""
        with evaluating(self._root), eagerly(self._root), without_gradients():
            if not self._modules:
                return self._examiner.collected(answers(self._root, batch) for batch in self._examiner.batches())
            start = min((self._names.index(group.modules[0].partition(".")[0]) for group in changed), default=0)
            return self._examiner.collected(self._through(x, start, len(self._modules)) for x in self._at(start))

    def _at(self, start: int) -> list[Tensor]:
        """The inputs of module ``start``, batch by batch."""
        if start == 0:
            return [batch for batch in self._examiner.batches() if isinstance(batch, Tensor)]
        if start not in self._inputs:
            near = max((i for i in self._inputs if i < start), default=0)
            computed = [self._through(x, near, start) for x in self._at(near)]
            size = sum(x.nbytes for x in computed)
            if size > self._free:
                return computed
            self._inputs[start], self._free = computed, self._free - size
        return self._inputs[start]

    def _through(self, x: Tensor, start: int, stop: int) -> Tensor:
        for module in self._modules[start:stop]:
            x = module(x)
        return x


def _is_chain(root: nn.Module) -> bool:
    """Return whether calling the network is calling its modules one after the other."""
    hooks = root._forward_hooks or root._forward_pre_hooks
    once = len(set(root._modules.values())) == len(root._modules)
    return type(root).forward is nn.Sequential.forward and once and not hooks

r"""Sums of the gradients of some examples of a batch, made while the pass backward is under way.

What a pass backward gives the parameters of a layer is a sum over the examples of a batch, of what comes back at the output,
:math:`\delta_i`, times what went in, :math:`x_i`:

.. math::
    \nabla_W = \sum_i \delta_i x_i^\top, \qquad \nabla_b = \sum_i \delta_i, \qquad
    \nabla_\gamma = \sum_i \delta_i \odot \hat x_i

for dense layers (and convolutions, over positions), biases, and the gain of a normalisation. So the sum over some of the
examples takes the products of these alone, and nothing is differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Target = tuple[Tensor, float]  # where a sum is added, and the factor by which it is multiplied
Targets = Mapping[nn.Parameter, Target]
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ROWS, _STEPS = 512, 16  # of a product that waits, at most


class ExampleSums:
    """Sums over chosen examples of the gradients of the layers of ``model`` that are of known kinds: dense, convolutional,
    normalising, and embedding. The network has hooks until :meth:`close`.

    >>> net, x = nn.Linear(3, 2), torch.randn(4, 3)
    >>> sums, found = ExampleSums(net), torch.zeros(2, 3)
    >>> outputs = net(x)
    >>> with sums.into({net.weight: (found, 1.0)}, torch.tensor([True, True, False, False])):
    ...     outputs.sum().backward()
    >>> torch.allclose(found, torch.ones(2, 2) @ x[:2])
    True
    """

    def __init__(self, model: nn.Module) -> None:
        self._targets: Targets = {}
        self._products = Products()
        self._chosen = torch.zeros(0, dtype=torch.long)
        self._n, self._any = 0, False
        known = [(module, add) for module in model.modules() if (add := _adder(module)) is not None]
        self._hooks = [module.register_forward_hook(self._remember(module, add)) for module, add in known]

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def into(self, targets: Targets, chosen: Bool[Tensor, " n"], later: bool = False) -> Iterator[None]:
        """Passes backward inside the block add the sums over ``chosen`` examples to ``targets``; some of them ``later``, at
        the next :meth:`flush`."""
        self._targets, self._chosen, self._n = targets, chosen.nonzero().flatten(), len(chosen)
        self._any = len(self._chosen) > 0
        try:
            yield
        finally:
            self._targets = {}
            if not later:
                self.flush()

    def flush(self) -> None:
        """Add what is waiting to its targets."""
        self._products.flush()

    def _remember(self, module: Any, add: Adder) -> Callable[[nn.Module, Any, Any], None]:
        weight, bias = module.weight, getattr(module, "bias", None)

        def remember(_: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad and inputs and isinstance(inputs[0], Tensor):
                call = Call(module, inputs[0].detach(), _statistics(module, output))
                output.register_hook(lambda gradient: self._add(add, call, (weight, bias), gradient))

        return remember

    @torch.no_grad()
    def _add(self, add: Adder, call: Call, own: tuple[Any, Any], gradient: Tensor) -> None:
        weight, bias = (None if p is None else self._targets.get(p) for p in own)
        if (weight or bias) and self._any and call.x.shape[0] == gradient.shape[0] == self._n:
            add(call, Delta(gradient.index_select(0, self._chosen), self._chosen, self._products), weight, bias)


class Products:
    """Products of matrices, and sums of their rows, that wait to be added to their targets: of several steps at once they
    take one pass over a target, and less time each."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}

    def add(
        self,
        delta: Float[Tensor, "rows outputs"],
        x: Float[Tensor, "rows inputs"] | None,
        weight: Target | None,
        bias: Target | None,
    ) -> None:
        """Add ``delta.T @ x`` to ``weight`` and the sum of the rows of ``delta`` to ``bias``, when there are rows enough."""
        target = weight or bias
        if target is None:
            return
        key, factor = id(target[0]), target[1]
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.factor != factor:  # another rate of learning
            self._waiting.pop(key).flush()
            waiting = None
        if waiting is None:
            places = [None if target is None else target[0] for target in (weight, bias)]
            waiting = self._waiting[key] = _Waiting(places[0], places[1], factor)
        waiting.deltas.append(delta)
        waiting.inputs.append(x)
        waiting.n_rows += delta.shape[0]
        if waiting.n_rows >= _ROWS or len(waiting.deltas) == _STEPS:
            self._waiting.pop(key).flush()

    def flush(self) -> None:
        while self._waiting:
            self._waiting.popitem()[1].flush()


@dataclass(eq=False)
class _Waiting:
    """Factors of products that have the same targets, to which they are added ``factor`` times."""

    weight: Tensor | None
    bias: Tensor | None
    factor: float
    deltas: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor | None] = field(default_factory=list)
    n_rows: int = 0

    @torch.no_grad()
    def flush(self) -> None:
        delta = torch.cat(self.deltas)
        if self.bias is not None:
            self.bias.add_(delta.sum(dim=0).to(self.bias.dtype), alpha=self.factor)
        if self.weight is not None:
            x = torch.cat([x for x in self.inputs if x is not None]).to(self.weight.dtype)
            self.weight.addmm_(delta.to(self.weight.dtype).T, x, alpha=self.factor)


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a module: its input, and mean and inverse standard deviation of batch norm."""

    module: Any
    x: Tensor
    statistics: tuple[Tensor, Tensor] | None


@dataclass(frozen=True, eq=False)
class Delta:
    """Gradient of the output of a call for the ``chosen`` examples, and what to give products of matrices to."""

    rows: Tensor
    chosen: Tensor
    products: Products


def _statistics(module: nn.Module, output: Tensor) -> tuple[Tensor, Tensor] | None:
    """Statistics that batch norm has kept for its own pass backward; None where it is of another kind."""
    if not isinstance(module, _BATCH_NORMS) or not (module.training or module.running_mean is None):
        return None
    mean, scale = (getattr(output.grad_fn, f"_saved_result{i}", None) for i in (1, 2))
    if isinstance(mean, Tensor) and isinstance(scale, Tensor) and mean.numel() == scale.numel() == output.shape[1]:
        return mean, scale
    return None


# adds the sums for weight and bias to their targets
Adder = Callable[[Call, Delta, Target | None, Target | None], None]


def _adder(module: nn.Module) -> Adder | None:
    """The function that adds the sum for the weight of a module of a known kind."""
    return next((add for kinds, add in _ADDERS.items() if isinstance(module, kinds)), None)


def _add_to(target: Target, found: Tensor) -> None:
    target[0].add_(found.reshape(target[0].shape).to(target[0].dtype), alpha=target[1])


def _channels(tensor: Tensor) -> Tensor:
    """Sums over examples and positions."""
    return tensor.sum(dim=[i for i in range(tensor.ndim) if i != 1])


def _dense(call: Call, delta: Delta, weight: Target | None, bias: Target | None) -> None:
    x = None if weight is None else call.x.index_select(0, delta.chosen).flatten(0, -2)
    delta.products.add(delta.rows.flatten(0, -2), x, weight, bias)


def _convolution(call: Call, delta: Delta, weight: Target | None, bias: Target | None) -> None:
    module = call.module
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        return
    zeros = [0] * len(module.stride)
    settings = (module.stride, module.padding, module.dilation, False, zeros, module.groups)
    wanted = [False, weight is not None, bias is not None]
    x, sizes = call.x.index_select(0, delta.chosen), [module.out_channels]
    found = torch.ops.aten.convolution_backward(delta.rows, x, module.weight, sizes, *settings, wanted)
    for target, gradient in zip((weight, bias), found[1:], strict=True):
        if target is not None:
            _add_to(target, gradient)


def _batch_norm(call: Call, delta: Delta, weight: Target | None, bias: Target | None) -> None:
    """Statistics are those of the whole batch."""
    total = _channels(delta.rows)
    if bias is not None:
        _add_to(bias, total)
    if weight is not None:
        mean, scale = call.statistics or _computed_statistics(call)
        _add_to(weight, (_channels(delta.rows * call.x.index_select(0, delta.chosen)) - mean * total) * scale)


def _computed_statistics(call: Call) -> tuple[Tensor, Tensor]:
    module, x = call.module, call.x
    mean, var = module.running_mean, module.running_var
    if module.training or mean is None:
        var, mean = torch.var_mean(x, dim=[i for i in range(x.ndim) if i != 1], correction=0)
    return mean, (var + module.eps).rsqrt()


def _group_norm(call: Call, delta: Delta, weight: Target | None, bias: Target | None) -> None:
    if bias is not None:
        _add_to(bias, _channels(delta.rows))
    if weight is not None:
        x, module = call.x.index_select(0, delta.chosen), call.module
        _add_to(weight, _channels(delta.rows * F.group_norm(x, module.num_groups, eps=module.eps)))


def _layer_norm(call: Call, delta: Delta, weight: Target | None, bias: Target | None) -> None:
    shape, rows = call.module.normalized_shape, delta.rows
    leading = list(range(rows.ndim - len(shape)))
    if bias is not None:
        _add_to(bias, rows.sum(dim=leading))
    if weight is not None:
        x = call.x.index_select(0, delta.chosen)
        _add_to(weight, (rows * F.layer_norm(x, shape, eps=call.module.eps)).sum(dim=leading))


def _embedding(call: Call, delta: Delta, weight: Target | None, bias: Target | None) -> None:
    if weight is None:
        return
    ids, rows = call.x.index_select(0, delta.chosen).flatten(), delta.rows.flatten(0, -2)
    if call.module.padding_idx is not None:
        ids, rows = ids[kept := ids != call.module.padding_idx], rows[kept]
    weight[0].index_add_(0, ids, rows.to(weight[0].dtype), alpha=weight[1])


_ADDERS: dict[tuple[type[nn.Module], ...], Adder] = {
    (nn.Linear,): _dense,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    _BATCH_NORMS: _batch_norm,
    (nn.GroupNorm,): _group_norm,
    (nn.LayerNorm,): _layer_norm,
    (nn.Embedding,): _embedding,
}

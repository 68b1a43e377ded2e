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
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

Target = tuple[Tensor, float]  # where a sum is added, and the factor by which it is multiplied
Targets = Mapping[nn.Parameter, Target]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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
        self._chosen = torch.zeros(0, dtype=torch.long)
        self._n = 0
        known = [(module, add) for module in model.modules() if (add := _adder(module)) is not None]
        self._hooks = [module.register_forward_hook(self._remember(add)) for module, add in known]

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def into(self, targets: Targets, chosen: Bool[Tensor, " n"]) -> Iterator[None]:
        """Passes backward inside the block add the sums over ``chosen`` examples to ``targets``."""
        self._targets, self._chosen, self._n = targets, chosen.nonzero().flatten(), len(chosen)
        try:
            yield
        finally:
            self._targets = {}

    def _remember(self, add: Adder) -> Callable[[nn.Module, Any, Any], None]:
        def remember(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad and inputs and isinstance(inputs[0], Tensor):
                x = inputs[0].detach()
                output.register_hook(lambda gradient: self._add(add, module, x, gradient))

        return remember

    @torch.no_grad()
    def _add(self, add: Adder, module: nn.Module, x: Tensor, gradient: Tensor) -> None:
        targets = {name: self._targets.get(p) for name, p in module.named_parameters(recurse=False)}
        if any(targets.values()) and len(self._chosen) and len(x) == len(gradient) == self._n:
            weight, bias = targets.get("weight"), targets.get("bias")
            if bias is not None:
                _add_to(bias, _bias_sum(module, gradient[self._chosen]))
            if weight is not None:
                add(module, x, gradient, self._chosen, weight)


# module, input, gradient of the output, chosen examples, target: adds the sum for the weight
Adder = Callable[[Any, Tensor, Tensor, Tensor, Target], None]


def _adder(module: nn.Module) -> Adder | None:
    """The function that adds the sum for the weight of a module of a known kind."""
    return next((add for kinds, add in _ADDERS.items() if isinstance(module, kinds)), None)


def _add_to(target: Target, found: Tensor) -> None:
    target[0].add_(found.reshape(target[0].shape).to(target[0].dtype), alpha=target[1])


def _bias_sum(module: nn.Module, gradient: Tensor) -> Tensor:
    features = 1 if isinstance(module, (*_CONVOLUTIONS, *_BATCH_NORMS, nn.GroupNorm)) else -1
    if isinstance(module, nn.LayerNorm):
        return gradient.sum(dim=tuple(range(gradient.ndim - len(module.normalized_shape))))
    return gradient.transpose(features, -1).flatten(0, -2).sum(dim=0)


def _dense(module: nn.Linear, x: Tensor, gradient: Tensor, chosen: Tensor, target: Target) -> None:
    delta, x = (tensor[chosen].flatten(0, -2).to(target[0].dtype) for tensor in (gradient, x))
    target[0].addmm_(delta.T, x, alpha=target[1])  # into the account at once: no pass over all weights


def _convolution(module: Any, x: Tensor, gradient: Tensor, chosen: Tensor, target: Target) -> None:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        return
    zeros = [0] * len(module.stride)
    settings = (module.stride, module.padding, module.dilation, False, zeros, module.groups)
    _, found, _ = torch.ops.aten.convolution_backward(
        gradient[chosen], x[chosen], module.weight, None, *settings, [False, True, False]
    )
    _add_to(target, found)


def _normalised(module: Any, x: Tensor) -> Tensor:
    """Input of a normalisation after it, before gain and bias."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    own = module.training or module.running_mean is None
    mean, var = (None, None) if own else (module.running_mean, module.running_var)
    return F.batch_norm(x, mean, var, training=own, eps=module.eps)


def _normalisation(module: Any, x: Tensor, gradient: Tensor, chosen: Tensor, target: Target) -> None:
    """Statistics are those of the whole batch."""
    _add_to(target, _bias_sum(module, gradient[chosen] * _normalised(module, x)[chosen]))


def _embedding(module: nn.Embedding, x: Tensor, gradient: Tensor, chosen: Tensor, target: Target) -> None:
    rows, delta = x[chosen].flatten(), gradient[chosen].flatten(0, -2)
    if module.padding_idx is not None:
        rows, delta = rows[kept := rows != module.padding_idx], delta[kept]
    target[0].index_add_(0, rows, delta.to(target[0].dtype), alpha=target[1])


_ADDERS: dict[tuple[type[nn.Module], ...], Adder] = {
    (nn.Linear,): _dense,
    _CONVOLUTIONS: _convolution,
    (*_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm): _normalisation,
    (nn.Embedding,): _embedding,
}

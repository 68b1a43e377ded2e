r"""Channels of a network: which entries of which tensors make one, and the network without some of them.

A channel is what one answer of a module is computed with: a unit of a linear layer, a channel of a convolution, a head of an
attention layer. It is set to zero with all weights that lead into it, and its bias. With a mask m of ones, and each tensor
w replaced by :math:`w\,m_{c(w)}`, the derivative of a loss by the mask is the sum that Maini et al. (2023) rank channels by,

.. math:: \frac{\partial L}{\partial m_c} = \sum_{w \to c} w\, \frac{\partial L}{\partial w},

minus which is to first order the change of L when the channel is set to zero.

Normalisations, embeddings and vectors of places have no channels of their own. Nor has the read-out: its units are the
answers themselves, and without the unit of an answer nothing is learned from the answer being another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from manigeo.errors import InputError
from manigeo_extract.batches import Batch, called, like_parameters
from manigeo_extract.interventions.groups import Group
from manigeo_extract.recording.layers import logits_of, unwrap

UNIT, CHANNEL, HEAD = "unit", "channel", "head"
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
Masks = Sequence[Float[Tensor, " _"]]


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of one module: ``n`` of them, of the ``sort`` :data:`UNIT`, :data:`CHANNEL` or :data:`HEAD`.

    ``layer`` is the name of its group; ``of`` maps each tensor (by its name in the state dict) to the numbers of the
    channels that its entries belong to, in a shape that broadcasts to that of the tensor.
    """

    layer: str
    module: str
    sort: str
    n: int
    of: Mapping[str, Int[Tensor, " ..."]]


def find_channels(model: nn.Module, groups: Sequence[Group]) -> list[Channels]:
    """The channels of all modules of ``groups``, which are all layers of the network by execution, but of the read-out.

    >>> from manigeo_extract.interventions.groups import group_layers
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> [(of.layer, of.sort, of.n) for of in find_channels(net, group_layers(net, torch.zeros(1, 1, 4, 4)))]
    [('0', 'channel', 4), ('3', 'unit', 3)]

    Raises :class:`~manigeo.errors.InputError` for a network without any.
    """
    root = unwrap(model)
    found = [of for group in groups for path in group.modules for of in _channels_of(root, group, path)]
    if len(found) < 2:
        raise InputError(
            "the network has no channels that could be removed: expected a linear layer, convolution or attention before "
            "the read-out"
        )
    return found[:-1]


def _channels_of(root: nn.Module, group: Group, path: str) -> Iterator[Channels]:
    module = root.get_submodule(path)
    own = {name: tensor for name, tensor in module.named_parameters(recurse=False)}
    prefix = f"{path}." if path else ""
    sort, n, of = _numbered(root, path, module, own)
    known = {f"{prefix}{name}": numbers.to(own[name].device) for name, numbers in of.items()}
    known = {name: numbers for name, numbers in known.items() if name in group.parameters}
    if any(name in group.parameters and "weight" in name for name in known):
        yield Channels(group.name, path, sort, n, known)


def _numbered(
    root: nn.Module, path: str, module: nn.Module, own: Mapping[str, Tensor]
) -> tuple[str, int, dict[str, Tensor]]:
    """Sort and number of the channels of a module, and the numbers of its tensors' entries; nothing for other modules."""
    if isinstance(module, nn.MultiheadAttention):
        return (
            HEAD,
            module.num_heads,
            {n: _of_heads(n, t, module.num_heads) for n, t in own.items() if _is_projection(n)},
        )
    if isinstance(module, nn.Linear) and (heads := _heads(root, path, module)):
        return HEAD, heads, {name: _of_heads("in_", tensor, heads) for name, tensor in own.items()}
    if isinstance(module, nn.Linear):
        return UNIT, module.out_features, {name: _along(tensor, 0) for name, tensor in own.items()}
    if isinstance(module, _TRANSPOSED):
        weight = _of_transposed(own["weight"], module.groups)
        return CHANNEL, module.out_channels, {"weight": weight, **{n: _along(own[n], 0) for n in own if n == "bias"}}
    if isinstance(module, _CONVOLUTIONS):
        return CHANNEL, module.out_channels, {name: _along(tensor, 0) for name, tensor in own.items()}
    return "", 0, {}


def _heads(root: nn.Module, path: str, module: nn.Linear) -> int:
    """Number of heads that a linear layer computes queries, keys and values of, one after the other; 0 for any other."""
    parent = root.get_submodule(path.rpartition(".")[0])
    heads = getattr(parent, "num_heads", None) or getattr(parent, "heads", None)
    is_joint = path.endswith("qkv") and isinstance(heads, int) and module.out_features % (3 * heads) == 0
    return heads if is_joint and isinstance(heads, int) else 0


def _is_projection(name: str) -> bool:
    return name.startswith("in_proj") or name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def _of_heads(name: str, tensor: Tensor, heads: int) -> Tensor:
    """Rows of queries, keys and values together (``in_``), or of one of them, each head's beside one another."""
    parts = 3 if name.startswith("in_") else 1
    numbers = torch.arange(heads).repeat_interleave(len(tensor) // (parts * heads)).repeat(parts)
    return numbers.view(-1, *[1] * (tensor.ndim - 1))


def _along(tensor: Tensor, axis: int) -> Tensor:
    return torch.arange(tensor.shape[axis]).view([-1 if i == axis else 1 for i in range(tensor.ndim)])


def _of_transposed(weight: Tensor, groups: int) -> Tensor:
    """Transposed convolutions keep inputs in front: of group g of these, output o is channel g * outputs + o."""
    group = torch.arange(len(weight)).div(len(weight) // groups, rounding_mode="floor")
    return (group[:, None] * weight.shape[1] + torch.arange(weight.shape[1])).view(
        *weight.shape[:2], *[1] * (weight.ndim - 2)
    )


class Masked:
    """A network with masks on its channels. Its tensors are never written to: it stays bit for bit what it was."""

    def __init__(self, model: nn.Module, channels: Sequence[Channels]) -> None:
        self._caller, self.channels = _Caller(unwrap(model)), channels
        state = dict(self._caller.root.named_parameters(remove_duplicate=False))
        self._tensors = [{name: state[name].detach() for name in of.of} for of in channels]

    def masks(self, removed: Sequence[tuple[int, int]] = ()) -> list[Float[Tensor, " _"]]:
        """A mask per module, 0 at the channels ``removed`` (module, channel) and 1 at all others."""
        of_device = [next(iter(tensors.values())) for tensors in self._tensors]
        masks = [t.new_ones(of.n) for of, t in zip(self.channels, of_device, strict=True)]
        for module, channel in removed:
            masks[module][channel] = 0.0
        return masks

    def logits(self, batch: Batch, masks: Masks) -> Float[Tensor, "batch ... classes"]:
        """The answers of the network to a batch, in the mode that it is in; of whole sequences at every position."""
        tensors = {
            f"root.{name}": tensor * mask[of.of[name]]
            for of, own, mask in zip(self.channels, self._tensors, masks, strict=True)
            for name, tensor in own.items()
        }
        found = logits_of(functional_call(self._caller, tensors, (like_parameters(self._caller.root, batch),)))
        assert found is not None  # the run was opened, so that it answers
        return found


class _Caller(nn.Module):
    """A network called as everywhere, under the name ``root``."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root = root

    def forward(self, batch: Batch) -> object:
        return called(self.root, batch)


def channel_scores(loss: Tensor, masks: Masks) -> Float[Tensor, " all"]:
    r"""The sum of :math:`w\,\partial L / \partial w` over the weights into each channel, of all modules in a row; minus
    infinity for channels that are removed, and 0 where the loss does not depend on one."""
    of_each = torch.autograd.grad(loss, list(masks), allow_unused=True)
    found = [
        torch.where(mask == 0, -math.inf, torch.zeros_like(mask) if slope is None else slope)
        for mask, slope in zip(masks, of_each, strict=True)
    ]
    return torch.cat(found).detach()

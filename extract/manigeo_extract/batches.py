"""Inputs of a network: one tensor, or several by name, as a tokenizer gives them, or by place."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

Batch = Tensor | Mapping[str, Tensor]
MASK = "attention_mask"  # the name under which 1 marks a token and 0 padding


class NamedTensors(dict[str, Tensor]):
    """Tensors by name, which go to a device together."""

    def to(self, device: str | torch.device) -> NamedTensors:
        return NamedTensors({name: tensor.to(device) for name, tensor in self.items()})


def place_name(place: int) -> str:
    """The name of an input that has none, by its place among those of ``forward``.

    >>> place_name(1)
    'input 1'
    """
    return f"input {place}"


def by_place(batch: Batch) -> bool:
    """Return whether these are several inputs that have no names."""
    return isinstance(batch, Mapping) and [*batch] == [place_name(place) for place in range(len(batch))]


def n_examples(batch: Batch) -> int:
    """Number of examples: the rows of the (first) tensor."""
    return len(batch if isinstance(batch, Tensor) else next(iter(batch.values())))


def shapes(batch: Batch) -> str:
    """The shape of an example, for reading.

    >>> shapes(torch.zeros(2, 1, 8, 8)), shapes({"input_ids": torch.zeros(2, 16)})
    ('shape 1 x 8 x 8', 'input_ids 16')
    """
    named = {"shape": batch} if isinstance(batch, Tensor) else batch
    return ", ".join(f"{name} {' x '.join(map(str, tensor.shape[1:]))}" for name, tensor in named.items())


def attention_mask(batch: Batch) -> Tensor | None:
    """Mask (examples, tokens) that is true for tokens and false for padding; None for a batch without one."""
    return batch[MASK].bool() if isinstance(batch, Mapping) and MASK in batch else None


def like_parameters(root: nn.Module, batch: Batch) -> Batch:
    """A copy of ``batch`` on the device of the parameters and, if it holds floating point numbers, of their dtype.

    The copy keeps the caller's batch from a network that begins with an in-place operation.
    """
    if isinstance(batch, Mapping):
        return {name: _like_parameters(root, tensor) for name, tensor in batch.items()}
    return _like_parameters(root, batch)


def _like_parameters(root: nn.Module, tensor: Tensor) -> Tensor:
    own = next((p for p in root.parameters() if p.is_floating_point()), tensor)
    return tensor.to(own.device, own.dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def called(root: nn.Module, batch: Batch) -> object:
    """Call the network: a mapping goes in by its names where ``forward`` has such parameters, else as it is; inputs without
    names go in one by one where ``forward`` takes so many, else as a tuple."""
    if isinstance(batch, Mapping) and by_place(batch):
        tensors = tuple(batch.values())
        return root(*tensors) if takes(root, *tensors) else root(tensors)
    if isinstance(batch, Mapping) and takes(root, **batch):
        return root(**batch)
    return root(batch)


def takes(root: nn.Module, *args: object, **named: object) -> bool:
    """Return whether ``forward`` can be called so: with these names, with so many inputs, and with no others."""
    try:
        inspect.signature(root.forward).bind(*args, **named)
    except TypeError:
        return False
    return True

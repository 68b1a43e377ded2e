"""Hooks: from a forward pass to the activations of chosen layers.

A hook copies what a module returned before a later in-place operation can overwrite it, and returns nothing, so that
the network computes what it computes without hooks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.batches import Batch, attention_mask, called, like_parameters, n_examples
from manigeo_extract.recording.census import steps_of
from manigeo_extract.recording.layers import (
    Layer,
    eagerly,
    evaluating,
    hooked,
    input_tensor,
    name_of_end,
    names_of_modules,
    unwrap,
    without_gradients,
)
from manigeo_extract.recording.outputs import first_tensor, logits_of, rows_of, tensor_of
from manigeo_extract.recording.readouts import read_out
from manigeo_extract.resolve import near_names

OUTPUTS = ""  # no layer has this name


@contextmanager
def record_layers(
    model: nn.Module,
    layers: Sequence[Layer],
    projections: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    *,
    outputs: bool = False,
) -> Iterator[Callable[[Batch], dict[str, Tensor]]]:
    """A function from a batch to the activations of ``layers``, as long as the block lasts.

    The activations are float32 tensors ``(n, *feature_shape)`` on the CPU, in memory of their own, under the layers' names,
    read out by each layer's ``readout``, the examples first; of tokens those count that the ``attention_mask`` keeps.
    ``projections`` are functions of layers that are applied on the device, so that only what they return is copied. The
    network is in eval mode and runs no further than the last layer that is wanted, or to its end where also its ``outputs``
    are: these come as they are, under the name :data:`OUTPUTS`. After the block every training flag is what it was and no
    hook is left, also after an exception.

    The function raises :class:`~manigeo.errors.InputError`, naming the layer, when activations are NaN or infinite,
    when their first dimension is not the batch, and when a layer was not reached; ``record_layers`` itself raises
    :class:`~manigeo.errors.UsageError` for layers of another network.

    >>> from manigeo_extract.recording.layers import list_layers
    >>> net, batch = nn.Sequential(nn.Identity(), nn.ReLU()), torch.tensor([[-1.0, 2.0]])
    >>> with record_layers(net, list_layers(net, batch)) as forward:
    ...     forward(batch)["1"]
    tensor([[0., 2.]])
    """
    root = unwrap(model)
    tape = _Tape(root, layers, projections or {}, outputs)
    with evaluating(root), hooked(dict.fromkeys(tape.wanted, tape)):
        yield tape.forward


class _Enough(BaseException):
    """Every wanted layer is recorded; not an ``Exception``, which a network might catch."""


class _Tape:
    """A forward hook that copies the outputs of the wanted calls of the wanted modules."""

    def __init__(
        self,
        root: nn.Module,
        layers: Sequence[Layer],
        projections: Mapping[str, Callable[[Tensor], Tensor]],
        outputs: bool,
    ) -> None:
        self.root = root
        self.projections = projections
        self.layers = {layer.name: layer for layer in layers}
        self.names = [*self.layers, *([OUTPUTS] if outputs else [])]
        self.input, self.output = name_of_end("input", root), name_of_end("output", root)
        self.wanted = _wanted_calls(root, [layer for layer in layers if layer.name not in (self.input, self.output)])
        self.calls: Counter[nn.Module] = Counter()
        self.kept: dict[str, Tensor] = {}
        self.n_examples = 0
        self.mask: Tensor | None = None
        self.steps = 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The activations of one batch, in the order of the layers."""
        self.calls.clear()
        self.kept = {}
        self.n_examples = n_examples(batch)
        self.mask, self.steps = attention_mask(batch), steps_of(batch)
        with without_gradients(), eagerly(self.root):
            self._keep(self.input, input_tensor(batch))
            self._run(like_parameters(self.root, batch))
        unreached = [name for name in self.names if name not in self.kept]
        if unreached:
            raise InputError(f"this forward pass did not reach layers {unreached}; leave them out")
        return {name: self.kept[name] for name in self.names}

    def __call__(self, module: nn.Module, _args: object, output: object) -> None:
        wanted = self.wanted[module].get(self.calls[module], [])
        self.calls[module] += 1
        for name in wanted:
            self._keep(name, tensor_of(module, output, self.layers[name].part, self.steps))
        if wanted and self._complete():
            raise _Enough

    def _run(self, batch: Batch) -> None:
        if self._complete():
            return
        with suppress(_Enough):
            output = called(self.root, batch)
            self._keep(self.output, first_tensor(output))
            scores = logits_of(output) if OUTPUTS in self.names else None
            if scores is not None:
                self.kept[OUTPUTS] = scores.detach().to("cpu", torch.float32, copy=True)

    def _keep(self, name: str, tensor: Tensor | None) -> None:
        if name in self.layers and tensor is not None:
            layer = self.layers[name]
            rows = rows_of(layer, tensor, self.n_examples)
            read = read_out(name, layer.readout, rows, self.mask)
            self.kept[name] = _copy(name, self.projections[name](read) if name in self.projections else read)

    def _complete(self) -> bool:
        return all(name in self.kept for name in self.names)


def _wanted_calls(root: nn.Module, layers: Sequence[Layer]) -> dict[nn.Module, dict[int, list[str]]]:
    """Module -> call -> names of the layers."""
    modules = {name: module for module, names in names_of_modules(root).items() for name in names}
    wanted: dict[nn.Module, dict[int, list[str]]] = {}
    for layer in layers:
        if layer.path not in modules:
            raise UsageError(f"the model has no layer {layer.name!r}{near_names(layer.name, modules)}")
        wanted.setdefault(modules[layer.path], {}).setdefault(layer.call_index, []).append(layer.name)
    return wanted


def _copy(name: str, output: Tensor) -> Tensor:
    # a following in-place ReLU would overwrite what we hold
    copy = output.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not torch.isfinite(copy.sum()) and not torch.isfinite(copy).all():  # the sum alone is fast, and may overflow
        raise InputError(f"layer {name!r} has NaN or infinite activations; check the checkpoint and the preprocessing")
    return copy

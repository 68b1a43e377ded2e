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
from manigeo_extract.recording.layers import (
    Layer,
    eagerly,
    evaluating,
    first_tensor,
    hooked,
    input_tensor,
    name_of_end,
    names_of_modules,
    unwrap,
)
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
    read out by each layer's ``readout``; of tokens, those count that the batch's ``attention_mask`` keeps. A layer of
    ``projections`` goes through that function on the device, and only what it returns is copied. The network is in eval
    mode and runs no further than the last layer that is wanted, or to its end where also its ``outputs`` are: these come as
    they are, under the name :data:`OUTPUTS`. After the block every training flag is what it was and no
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
        self.readouts = {layer.name: layer.readout for layer in layers}
        self.names = [*(layer.name for layer in layers), *([OUTPUTS] if outputs else [])]
        self.input, self.output = name_of_end("input", root), name_of_end("output", root)
        self.wanted = _wanted_calls(root, [layer for layer in layers if layer.name not in (self.input, self.output)])
        self.calls: Counter[nn.Module] = Counter()
        self.kept: dict[str, Tensor] = {}
        self.n_examples = 0
        self.mask: Tensor | None = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The activations of one batch, in the order of the layers."""
        self.calls.clear()
        self.kept = {}
        self.n_examples = n_examples(batch)
        self.mask = attention_mask(batch)
        with torch.inference_mode(), eagerly(self.root):
            self._keep(self.input, input_tensor(batch))
            self._run(like_parameters(self.root, batch))
        unreached = [name for name in self.names if name not in self.kept]
        if unreached:
            raise InputError(f"this forward pass did not reach layers {unreached}; leave them out")
        return {name: self.kept[name] for name in self.names}

    def __call__(self, module: nn.Module, _args: object, output: object) -> None:
        name = self.wanted[module].get(self.calls[module])
        self.calls[module] += 1
        if name is not None:
            self._keep(name, first_tensor(output))
            if self._complete():
                raise _Enough

    def _run(self, batch: Batch) -> None:
        if self._complete():
            return
        with suppress(_Enough):
            output = first_tensor(called(self.root, batch))
            self._keep(self.output, output)
            if OUTPUTS in self.names and output is not None:
                _check_rows(self.output, output, self.n_examples)
                self.kept[OUTPUTS] = output.detach().to("cpu", torch.float32, copy=True)

    def _keep(self, name: str, tensor: Tensor | None) -> None:
        if name in self.names and tensor is not None:
            _check_rows(name, tensor, self.n_examples)
            read = read_out(name, self.readouts[name], tensor, self.mask)
            self.kept[name] = _copy(name, self.projections[name](read) if name in self.projections else read)

    def _complete(self) -> bool:
        return all(name in self.kept for name in self.names)


def _wanted_calls(root: nn.Module, layers: Sequence[Layer]) -> dict[nn.Module, dict[int, str]]:
    """Module -> call -> name of the layer."""
    modules = {name: module for module, names in names_of_modules(root).items() for name in names}
    wanted: dict[nn.Module, dict[int, str]] = {}
    for layer in layers:
        if layer.path not in modules:
            raise UsageError(f"the model has no layer {layer.name!r}{near_names(layer.name, modules)}")
        wanted.setdefault(modules[layer.path], {})[layer.call_index] = layer.name
    return wanted


def _check_rows(name: str, output: Tensor, n_examples: int) -> None:
    if len(output) != n_examples:
        raise InputError(
            f"layer {name!r} returned {len(output)} rows for {n_examples} examples: its first dimension is not the "
            "batch; leave this layer out"
        )


def _copy(name: str, output: Tensor) -> Tensor:
    with torch.inference_mode(False):  # the copy is an ordinary tensor, with which one may train
        # a following in-place ReLU would overwrite what we hold
        copy = output.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not torch.isfinite(copy.sum()) and not torch.isfinite(copy).all():  # the sum alone is fast, and may overflow
        raise InputError(f"layer {name!r} has NaN or infinite activations; check the checkpoint and the preprocessing")
    return copy

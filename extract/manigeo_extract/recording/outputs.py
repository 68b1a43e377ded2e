"""Outputs of modules: what a layer is, and how the tensor that a module returns becomes one row per example.

The first axis of an output need not be the batch. Recurrent and attention layers of torch have the batch second unless
told otherwise; windows of a Swin transformer, and frames that go through a network of images one by one, are folded into
the batch; a packed sequence has all steps of all examples in one row. :func:`rows_of` puts the examples first again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from manigeo.errors import InputError
from manigeo_extract.batches import MASK, Batch
from manigeo_extract.recording.modes import name_of_call

PART = ":"  # between the name of a module and that of one of its further outputs


@dataclasses.dataclass(frozen=True)
class Layer:
    """One output of one module: which, when, and of what shape.

    ``name`` is the module's path, with ``#k`` on its call k > 0; ``input`` is the batch itself and ``output`` what the
    network returns, unless a layer returns just that and has ``output`` among its ``aliases``. ``order`` counts 0, 1,
    ... by execution; ``feature_shape`` leaves the batch dimension out; ``parameters`` counts the scalars that the module
    computes with itself: its own, and those of modules in it that are not called; ``calls`` is how often a forward pass
    calls it; ``batched`` tells whether there is a row for each example (position embeddings have one for all);
    ``readout`` is what :mod:`manigeo_extract.recording.readouts` makes of the output, whose shape ``feature_shape`` then
    is.

    ``batch_axis`` is the axis of the output along which examples lie, ``fold`` the number of rows of each (windows,
    frames), one example after another, or with ``interleaved`` all examples of the first row, then of the second.
    ``part`` names a further output of the module: ``h_l0`` and ``c_l0`` are the final states of the first layer of an
    LSTM, and such a layer is called ``lstm:h_l0``. ``noisy`` outputs differ between two passes of the same examples,
    those that are ``mixed`` depend on which other examples are in the batch.
    """

    name: str
    module_class: str
    order: int
    call_index: int
    feature_shape: tuple[int, ...]
    aliases: tuple[str, ...]
    leaf: bool
    parameters: int
    calls: int = 1
    batched: bool = True
    readout: str = "flatten"
    batch_axis: int = 0
    fold: int = 1
    interleaved: bool = False
    part: str = ""
    noisy: bool = False
    mixed: bool = False

    @property
    def n_features(self) -> int:
        """Number of features: the product of ``feature_shape``."""
        return math.prod(self.feature_shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The name and all aliases."""
        return (self.name, *self.aliases)

    @property
    def path(self) -> str:
        """The module's own name: that of its first call."""
        return self.name.removesuffix(PART + self.part if self.part else "").removesuffix(
            name_of_call("", self.call_index)
        )


# --------------------------------------------------------------------------------------------------- which tensor
def first_tensor(output: object) -> Tensor | None:
    """The first floating point tensor with a batch dimension in a module's output, searched depth first."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim and not output.is_nested else None
    return next((tensor for tensor in map(first_tensor, _parts(output)) if tensor is not None), None)


def logits_of(output: object) -> Tensor | None:
    """The tensor in a network's output that scores the classes: what is called ``logits``, else the first tensor.

    >>> logits_of({"hidden": torch.zeros(2, 5), "logits": torch.zeros(2, 3)}).shape
    torch.Size([2, 3])
    """
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return first_tensor(output if isinstance(output, Tensor) or named is None else named)


def input_tensor(batch: Batch) -> Tensor | None:
    """Return the tensor of a batch that counts as the input: a float one or pixels, of several the first but the mask."""
    if isinstance(batch, Tensor):
        return batch if batch.is_floating_point() or batch.dtype == torch.uint8 else None  # token ids are names
    return first_tensor([tensor for name, tensor in batch.items() if name != MASK])


def _parts(output: object) -> Iterable[object]:
    if isinstance(output, Mapping):
        return output.values()
    if isinstance(output, (tuple, list)):
        return output
    if dataclasses.is_dataclass(output):
        return [getattr(output, field.name) for field in dataclasses.fields(output)]
    return ()


def tensor_of(module: nn.Module, output: object, part: str = "", steps: int = 0) -> Tensor | None:
    """The tensor of a module's output that counts as the layer: the first, or the one that ``part`` names.

    Packed sequences are padded with zeros at their end, to ``steps`` or their longest: (examples, steps, features).
    """
    if part:
        return further_outputs(module, output).get(part)
    packed = _packed(output)
    if packed is None:
        return first_tensor(output)
    longest = len(packed.batch_sizes)
    return pad_packed_sequence(packed, batch_first=True, total_length=max(longest, steps))[0]


def _packed(output: object) -> PackedSequence | None:
    if isinstance(output, PackedSequence):
        return output
    first = next(iter(output), None) if isinstance(output, (tuple, list)) else None
    return first if isinstance(first, PackedSequence) else None


def further_outputs(module: nn.Module, output: object) -> dict[str, Tensor]:
    """Final states of each layer of one of torch's recurrent modules, (examples, features of both directions): ``h_l0``,
    ``h_l1``, ... and, of an LSTM, ``c_l0``, ... Other modules have none.

    >>> rnn = nn.LSTM(2, 3, num_layers=2)
    >>> {part: tuple(state.shape) for part, state in further_outputs(rnn, rnn(torch.zeros(5, 1, 2))).items()}
    {'h_l0': (1, 3), 'h_l1': (1, 3), 'c_l0': (1, 3), 'c_l1': (1, 3)}
    """
    if not (isinstance(module, nn.RNNBase) and isinstance(output, tuple) and len(output) == 2):
        return {}
    states = output[1] if isinstance(output[1], tuple) else (output[1],)
    if any(state.ndim != 3 for state in states):  # of a single example, without a batch
        return {}
    each = ((name, state.unflatten(0, (module.num_layers, -1))) for name, state in zip("hc", states, strict=False))
    return {f"{name}_l{i}": layer.movedim(1, 0).flatten(1) for name, state in each for i, layer in enumerate(state)}


def why_no_tensor(output: object) -> str:
    """Why an output cannot be recorded."""
    if isinstance(output, Tensor) and output.is_nested:
        return "returns nested tensors"
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in _tensors(output)}
    if any(kind.startswith("complex") for kind in kinds):
        return "returns complex numbers; take a layer before or after it, or return torch.view_as_real of them"
    found = f"tensors of {', '.join(sorted(kinds))}" if kinds else f"a {type(output).__name__}"
    return f"returns no floating point numbers ({found}); take a layer before or after it"


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in _parts(output) for tensor in _tensors(part)]


# ----------------------------------------------------------------------------------------------- examples first again
def known_batch_axis(modules: Iterable[nn.Module]) -> int:
    """The batch axis of the outputs of the first of these modules, given the modules that it lies in, the innermost first:
    1 in recurrent, attention and transformer modules of torch that are not ``batch_first``, else 0."""
    for module in modules:
        stack = module.layers[0] if isinstance(module, (nn.TransformerEncoder, nn.TransformerDecoder)) else module
        for found in (stack, getattr(stack, "self_attn", None)):
            if isinstance(found, (nn.RNNBase, nn.MultiheadAttention, nn.Transformer)):
                return 0 if found.batch_first else 1
    return 0


def rows_of(layer: Layer, tensor: Tensor, n_examples: int) -> Tensor:
    """The output of a layer with one row per example, and what is folded into the batch behind the examples: windows of
    tokens as more tokens (examples, windows x tokens, features), frames of maps behind their channels, as a further axis.

    >>> layer = Layer("frames", "Conv2d", 0, 0, (2, 3, 4, 4), (), leaf=True, parameters=1, fold=3)
    >>> rows_of(layer, torch.zeros(15, 2, 4, 4), 5).shape
    torch.Size([5, 2, 3, 4, 4])

    Raises :class:`~manigeo.errors.InputError` where the axis does not hold the examples.
    """
    axis = layer.batch_axis
    found = tensor.shape[axis] if axis < tensor.ndim else 0
    if found != n_examples * layer.fold:
        each = f" of {layer.fold} rows each" if layer.fold > 1 else ""
        which = "first dimension" if axis == 0 else f"axis {axis}"
        raise InputError(
            f"layer {layer.name!r} returned {found} rows for {n_examples} examples{each}: its {which} is not the batch; "
            f"leave this layer out, or say which axis is with --batch-axis {layer.path}=1"
        )
    rows = tensor.movedim(axis, 0)
    return rows if layer.fold == 1 else unfolded(rows, layer.fold, interleaved=layer.interleaved)


def unfolded(rows: Tensor, fold: int, *, interleaved: bool) -> Tensor:
    """Rows (examples x fold, ...) as (examples, ...)."""
    n = len(rows) // fold
    each = rows.unflatten(0, (fold, n)).movedim(1, 0) if interleaved else rows.unflatten(0, (n, fold))
    if each.ndim == 4:
        return each.flatten(1, 2)
    return each.movedim(1, 2) if each.ndim > 4 else each

"""Readouts: what of a layer's positions becomes the features of an example.

A map is (channels, height, width), or of any number of spatial axes behind the channels; a sequence is (tokens,
features). Where the attention mask of the batch marks padding, padding does not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from manigeo.errors import InputError, UsageError
from manigeo_extract.recording.layers import Layer
from manigeo_extract.resolve import near_names


@dataclasses.dataclass(frozen=True)
class Readout:
    """Map of an output ``(n, *feature_shape)`` to ``(n, *shape)``, and the numbers of axes for which it is defined."""

    apply: Callable[[Tensor, Tensor | None], Tensor]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    axes: range


def _channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:1]


def _features(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[-1:]


def spatial_mean(maps: Tensor) -> Tensor:
    r"""Mean of every channel over its positions p: :math:`\langle x_{cp} \rangle_p`, (n, channels, ...) to (n, channels)."""
    return maps.float().flatten(2).mean(2)


def spatial_max(maps: Tensor) -> Tensor:
    r"""Largest value of every channel over its positions p: :math:`\max_p x_{cp}`, (n, channels, ...) to (n, channels)."""
    return maps.flatten(2).amax(2)


def token_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    r"""Mean over the tokens t that the mask m keeps: :math:`\sum_t m_t x_t / \sum_t m_t`, (n, tokens, d) to (n, d)."""
    if mask is None:
        return tokens.float().mean(1)
    kept = tokens.float().where(mask[:, :, None], 0.0)  # a product with 0 would keep the NaN of padding
    return kept.sum(1) / mask.sum(1, keepdim=True)


def class_token(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The first token that is not padding, where BERT and ViT have their class token: (n, tokens, d) to (n, d)."""
    if mask is None:
        return tokens[:, 0]
    return _taken(tokens, mask.int().argmax(1))


def last_token(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The last token that is not padding, which in a causal network has seen all others: (n, tokens, d) to (n, d)."""
    if mask is None:
        return tokens[:, -1]
    return _taken(tokens, mask.shape[1] - 1 - mask.int().flip(1).argmax(1))


def _taken(tokens: Tensor, positions: Tensor) -> Tensor:
    return tokens[torch.arange(len(tokens), device=tokens.device), positions]


TOKENS, MAPS = range(2, 3), range(2, 6)  # axes behind the examples
READOUTS: Mapping[str, Readout] = {
    "flatten": Readout(lambda output, mask: output, lambda shape: shape, range(100)),
    "spatial-mean": Readout(lambda output, mask: spatial_mean(output), _channels, MAPS),
    "spatial-max": Readout(lambda output, mask: spatial_max(output), _channels, MAPS),
    "token-mean": Readout(token_mean, _features, TOKENS),
    "class-token": Readout(class_token, _features, TOKENS),
    "last-token": Readout(last_token, _features, TOKENS),
}
ASKED = (*READOUTS, "mean")


def with_readout(layers: Sequence[Layer], asked: str) -> list[Layer]:
    """The layers as ``asked`` reads them: their ``readout``, and ``feature_shape`` after it.

    ``asked`` is a key of :data:`READOUTS`, or "mean": over tokens where an output has two axes, over space where it has
    more. An output without such axes, such as a classifier's, is taken whole: its readout is "flatten".

    >>> maps = Layer("conv", "Conv2d", 0, 0, (16, 8, 8), (), leaf=True, parameters=1)
    >>> [(layer.readout, layer.feature_shape) for layer in with_readout([maps], "mean")]
    [('spatial-mean', (16,))]

    Raises :class:`~manigeo.errors.UsageError` for an unknown readout, and where no layer has such axes.
    """
    if asked not in ASKED:
        raise UsageError(f"no readout {asked!r}{near_names(asked, ASKED)}")
    found = [_with_readout(layer, asked) for layer in layers]
    if asked != "flatten" and all(layer.readout == "flatten" for layer in found):
        shapes = ", ".join(f"{layer.name} {' x '.join(map(str, layer.feature_shape))}" for layer in layers[:3])
        wanted = "tokens x features" if "token" in asked else "channels x positions"
        raise UsageError(
            f"the readout {asked!r} needs layers of {wanted}, and none that is selected is such ({shapes}); "
            "select others, or leave --readout out"
        )
    return found


def _with_readout(layer: Layer, asked: str) -> Layer:
    axes = len(layer.feature_shape)
    name = {2: "token-mean"}.get(axes, "spatial-mean") if asked == "mean" else asked
    if axes not in READOUTS[name].axes:
        name = "flatten"
    return dataclasses.replace(layer, readout=name, feature_shape=READOUTS[name].shape(layer.feature_shape))


def read_out(layer: str, readout: str, output: Tensor, mask: Tensor | None) -> Tensor:
    """The ``output`` (n, ...) of the layer of that name, read by ``readout``.

    Raises :class:`~manigeo.errors.InputError` where the attention mask marks another number of tokens.
    """
    if mask is not None and READOUTS[readout].axes == TOKENS and mask.shape[1] != output.shape[1]:
        raise InputError(
            f"layer {layer!r} has {output.shape[1]} tokens and the attention mask {mask.shape[1]}: which of them are "
            "padding is unknown; leave this layer out, or take --readout flatten"
        )
    return READOUTS[readout].apply(output, None if mask is None else mask.to(output.device))

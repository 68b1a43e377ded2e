"""Convolutional networks for small images: convolution, ReLU, pooling, a few times, and a read-out.

``cnn``: LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document recognition, Proc. IEEE 86;
one linear read-out.

``alexnet``, five convolutions and three fully connected layers: Krizhevsky, Sutskever, Hinton (2012), ImageNet
classification with deep convolutional neural networks, NeurIPS; channels in the proportions of the one-column network
of Krizhevsky (2014), arXiv:1404.5997. A first kernel of 5 x 5 at stride 1 and pooling over 2 x 2 suit 32 x 32 pixels;
no local response normalisation; dropout only if asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from manigeo_extract.models.units import Linear, check_positive, conv_unit, dropout_unit, halved, named

_CONVOLUTIONS = (
    (1, 5, True),
    (3, 5, True),
    (6, 3, False),
    (4, 3, False),
    (4, 3, True),
)  # channels/width, kernel, pooled
_FULL = 16  # units of a fully connected layer, divided by the width


def cnn(
    *,
    input_shape: Sequence[int],
    n_classes: int,
    width: int = 32,
    blocks: int = 3,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """``blocks`` times ``conv1`` (convolution, norm, ReLU) and ``pool1``, then dropout and ``logits``.

    Block i has ``width * 2**(i - 1)`` channels; a map of one pixel is not pooled any more.

    >>> [name for name, _ in cnn(input_shape=(1, 8, 8), n_classes=10, blocks=2).named_children()]
    ['conv1', 'pool1', 'conv2', 'pool2', 'flatten', 'logits']
    """
    check_positive(width=width, blocks=blocks, n_classes=n_classes)
    channels, height, breadth = input_shape
    size = (height, breadth)
    layers: dict[str, nn.Module | None] = {}
    for block in range(1, blocks + 1):
        channels_in, channels = channels, width * 2 ** (block - 1)
        layers[f"conv{block}"] = conv_unit(channels_in, channels, batch_norm=batch_norm)
        if pooled := halved(size):
            layers[f"pool{block}"], size = nn.MaxPool2d(2), pooled
    head = Linear(channels * size[0] * size[1], n_classes)
    return named({**layers, "flatten": nn.Flatten(), "dropout": dropout_unit(dropout), "logits": head})


def alexnet(
    *, input_shape: Sequence[int], n_classes: int, width: int = 64, batch_norm: bool = False, dropout: float = 0.0
) -> nn.Sequential:
    """``conv1`` ... ``conv5``, ``fc6``, ``fc7``, ``logits``; dropout in front of both fully connected layers.

    A map of one pixel is not pooled any more.
    """
    check_positive(width=width, n_classes=n_classes)
    channels, height, breadth = input_shape
    size = (height, breadth)
    layers: dict[str, nn.Module | None] = {}
    for i, (multiple, kernel, pooled) in enumerate(_CONVOLUTIONS, start=1):
        layers[f"conv{i}"] = conv_unit(channels, multiple * width, kernel, batch_norm=batch_norm)
        channels = multiple * width
        if pooled and (smaller := halved(size)):
            layers[f"pool{i}"], size = nn.MaxPool2d(2), smaller
    fc6 = _full(channels * size[0] * size[1], _FULL * width, dropout)
    fc7 = _full(_FULL * width, _FULL * width, dropout)
    return named(
        {**layers, "flatten": nn.Flatten(), "fc6": fc6, "fc7": fc7, "logits": Linear(_FULL * width, n_classes)}
    )


def _full(size_in: int, size: int, dropout: float) -> nn.Sequential:
    return named({"dropout": dropout_unit(dropout), "linear": Linear(size_in, size), "relu": nn.ReLU()})

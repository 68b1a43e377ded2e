"""VGG for small images: the convolutions of the paper, and one linear read-out instead of three wide layers.

Simonyan, Zisserman (2015), Very deep convolutional networks for large-scale image recognition, ICLR, table 1, columns
A and D.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from manigeo_extract.models.units import Linear, check_positive, conv_unit, dropout_unit, halved, named

_CHANNELS = (1, 2, 4, 8, 8)  # of the five stages, in units of the width


def vgg11(
    *, input_shape: Sequence[int], n_classes: int, batch_norm: bool = True, dropout: float = 0.0, width: int = 64
) -> nn.Sequential:
    """Column A: eight convolutions in stages of 1, 1, 2, 2, 2; see :func:`vgg16`."""
    return _vgg((1, 1, 2, 2, 2), input_shape, n_classes, batch_norm=batch_norm, dropout=dropout, width=width)


def vgg16(
    *, input_shape: Sequence[int], n_classes: int, batch_norm: bool = True, dropout: float = 0.0, width: int = 64
) -> nn.Sequential:
    """Column D: thirteen convolutions ``conv1_1`` ... ``conv5_3`` in stages of 2, 2, 3, 3, 3, then ``logits``.

    The first stage has ``width`` channels, the last ``8 * width``; a map of one pixel is not pooled any more.
    """
    return _vgg((2, 2, 3, 3, 3), input_shape, n_classes, batch_norm=batch_norm, dropout=dropout, width=width)


def _vgg(
    depths: Sequence[int], input_shape: Sequence[int], n_classes: int, *, batch_norm: bool, dropout: float, width: int
) -> nn.Sequential:
    check_positive(width=width, n_classes=n_classes)
    channels, height, breadth = input_shape
    size: tuple[int, int] | None = (height, breadth)
    layers: dict[str, nn.Module | None] = {}
    for stage, (depth, multiple) in enumerate(zip(depths, _CHANNELS, strict=True), start=1):
        for i in range(1, depth + 1):
            layers[f"conv{stage}_{i}"] = conv_unit(channels, multiple * width, batch_norm=batch_norm)
            channels = multiple * width
        size = size and halved(size)
        layers[f"pool{stage}"] = nn.MaxPool2d(2) if size else None
    head = {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "dropout": dropout_unit(dropout)}
    return named({**layers, **head, "logits": Linear(channels, n_classes)})

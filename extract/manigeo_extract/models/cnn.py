"""Small convolutional network: convolution, ReLU, pooling, a few times, and a linear read-out.

LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document recognition, Proc. IEEE 86.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from manigeo_extract.models.units import Linear, check_positive, conv_unit, dropout_unit, halved, named


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

"""DenseNet-BC for small images: every layer reads all feature maps before it, through a bottleneck.

Huang, Liu, van der Maaten, Weinberger (2017), Densely connected convolutional networks, CVPR, section 3 and table 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manigeo_extract.models.units import Conv2d, Linear, check_positive, halved, named, norm_unit


class DenseLayer(nn.Module):
    r"""Norm, ReLU, convolution 1 x 1; norm, ReLU, convolution 3 x 3; the new maps join the old ones.

    .. math:: x_{l+1} = [x_l, H_l(x_l)]
    """

    def __init__(self, channels_in: int, growth: int, batch_norm: bool) -> None:
        super().__init__()
        self.norm1 = norm_unit(channels_in, batch_norm)
        self.relu1 = nn.ReLU()
        self.conv1 = Conv2d(channels_in, 4 * growth, 1, bias=not batch_norm)
        self.norm2 = norm_unit(4 * growth, batch_norm)
        self.relu2 = nn.ReLU()
        self.conv2 = Conv2d(4 * growth, growth, 3, padding=1, bias=not batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, channels_in, H, W) to (n, channels_in + growth, H, W)."""
        bottleneck = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(bottleneck)))], dim=1)


def densenet(
    *, input_shape: Sequence[int], n_classes: int, depth: int = 40, growth: int = 12, batch_norm: bool = True
) -> nn.Sequential:
    """``stem``, three dense blocks (``block1.layer1`` ...) with transitions between them, ``last``, ``logits``.

    ``depth`` counts convolutions and read-out: ``depth = 6 * layers_per_block + 4``. A transition halves the number of
    feature maps and, unless a side has one pixel, the sides.

    >>> net = densenet(input_shape=(3, 32, 32), n_classes=10, depth=40, growth=12)
    >>> sum(p.numel() for p in net.parameters())
    176122
    """
    check_positive(growth=growth, n_classes=n_classes)
    n_layers, rest = divmod(depth - 4, 6)
    if rest or n_layers < 1:
        raise ValueError(f"depth must be 6 k + 4 with k at least 1 (10, 16, ... 40, ... 100), got {depth}")
    channels, size = 2 * growth, (input_shape[1], input_shape[2])
    layers: dict[str, nn.Module | None] = {"stem": Conv2d(input_shape[0], channels, 3, padding=1, bias=not batch_norm)}
    for block in (1, 2, 3):
        layers[f"block{block}"] = _dense_block(channels, n_layers, growth, batch_norm)
        channels += n_layers * growth
        if block < 3:
            layers[f"transition{block}"] = _transition(channels, channels // 2, batch_norm, pool=min(size) > 1)
            channels, size = channels // 2, halved(size) or size
    last = named({"norm": norm_unit(channels, batch_norm), "relu": nn.ReLU()})
    head = {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "logits": Linear(channels, n_classes)}
    return named({**layers, "last": last, **head})


def _dense_block(channels: int, n_layers: int, growth: int, batch_norm: bool) -> nn.Sequential:
    return named({f"layer{i + 1}": DenseLayer(channels + i * growth, growth, batch_norm) for i in range(n_layers)})


def _transition(channels_in: int, channels: int, batch_norm: bool, *, pool: bool) -> nn.Sequential:
    return named(
        {
            "norm": norm_unit(channels_in, batch_norm),
            "relu": nn.ReLU(),
            "conv": Conv2d(channels_in, channels, 1, bias=not batch_norm),
            "pool": nn.AvgPool2d(2) if pool else None,
        }
    )

"""Residual network of eighteen layers for small images: a 3 x 3 stem without pooling.

He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition, CVPR.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from manigeo_extract.models.units import Conv2d, Linear, check_positive, conv_unit, named, norm_unit


class BasicBlock(nn.Module):
    r"""Two convolutions beside a shortcut.

    .. math:: y = \mathrm{relu}(F(x) + s(x))

    The shortcut s is the identity, or convolution 1 x 1 and norm where the shape changes (option B of the paper).
    """

    def __init__(self, channels_in: int, channels: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels_in, channels, 3, stride, padding=1, bias=not batch_norm)
        self.norm1 = norm_unit(channels, batch_norm)
        self.relu1 = nn.ReLU()
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.norm2 = norm_unit(channels, batch_norm)
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else _projection(channels_in, channels, stride, batch_norm)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, channels_in, H, W) to (n, channels, H / stride, W / stride)."""
        residual = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(residual + self.shortcut(x))


def resnet18(*, input_shape: Sequence[int], n_classes: int, width: int = 64, batch_norm: bool = True) -> nn.Sequential:
    """``stem``, four stages of two blocks each (``stage1.block1`` ...), average over the map, ``logits``.

    Stage i has ``width * 2**(i - 1)`` channels, so that ``width`` from 1 on sweeps the capacity of the network.
    Without batch norm the sums of the shortcuts double the variance of the maps block by block: take a low learning rate.

    >>> net = resnet18(input_shape=(3, 32, 32), n_classes=10)
    >>> sum(p.numel() for p in net.parameters())
    11173962
    """
    check_positive(width=width, n_classes=n_classes)
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    stages = {f"stage{i}": _stage(widths[i - 1], widths[i], 1 if i == 1 else 2, batch_norm) for i in range(1, 5)}
    return named(
        {
            "stem": conv_unit(input_shape[0], width, batch_norm=batch_norm, bias=not batch_norm),
            **stages,
            "average": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "logits": Linear(widths[-1], n_classes),
        }
    )


def _stage(channels_in: int, channels: int, stride: int, batch_norm: bool) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride, batch_norm)
    return named({"block1": first, "block2": BasicBlock(channels, channels, 1, batch_norm)})


def _projection(channels_in: int, channels: int, stride: int, batch_norm: bool) -> nn.Sequential:
    conv = Conv2d(channels_in, channels, 1, stride, bias=not batch_norm)
    return named({"conv": conv, "norm": norm_unit(channels, batch_norm)})

"""Building blocks of the reference networks: layers initialised as in He et al. (2015), and named groups of layers.

A group (convolution, norm, ReLU) is one step of depth: its own name gives its output, ``name.conv`` the bare
convolution. No ReLU works in place, so that a hook on any layer sees what that layer computed.

He, Zhang, Ren, Sun (2015), Delving deep into rectifiers, ICCV.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import nn


class Linear(nn.Linear):
    r"""Fully connected layer with :math:`W_{ij} \sim N(0, 2 / \mathrm{fan\_in})` and zero bias."""

    def reset_parameters(self) -> None:
        """Draw the weights again, from torch's global generator."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Conv2d(nn.Conv2d):
    r"""Convolution with :math:`W_{ij} \sim N(0, 2 / \mathrm{fan\_in})` and zero bias."""

    def reset_parameters(self) -> None:
        """Draw the weights again, from torch's global generator."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def named(modules: Mapping[str, nn.Module | None]) -> nn.Sequential:
    """The modules one after the other, under their names; ``None`` stands for a layer that was not asked for."""
    return nn.Sequential(OrderedDict((name, module) for name, module in modules.items() if module is not None))


def conv_unit(
    channels_in: int, channels: int, kernel: int = 3, *, batch_norm: bool, bias: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size of the map, norm if wanted, ReLU."""
    return named(
        {
            "conv": Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=bias),
            "norm": nn.BatchNorm2d(channels) if batch_norm else None,
            "relu": nn.ReLU(),
        }
    )


def norm_unit(channels: int, batch_norm: bool) -> nn.Module:
    """Batch norm over maps, or the identity where a network is built without."""
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


def dropout_unit(probability: float) -> nn.Dropout | None:
    """Dropout, or nothing at probability 0."""
    return nn.Dropout(probability) if probability else None


def halved(size: tuple[int, int]) -> tuple[int, int] | None:
    """Size of the map after 2 x 2 pooling, or ``None`` if a side of one pixel forbids it.

    >>> halved((7, 7)), halved((1, 1))
    ((3, 3), None)
    """
    height, width = size
    return (height // 2, width // 2) if min(size) > 1 else None


def check_positive(**options: int) -> None:
    """Raise ``ValueError`` on the first option below 1."""
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")

"""Fully connected networks: hidden layers of one width, ReLU, linear read-out; in a chain, or in blocks beside a shortcut.

Rosenblatt (1961), Principles of Neurodynamics; started as in He et al. (2015), ICCV. The blocks: He, Zhang, Ren, Sun (2016),
Identity mappings in deep residual networks, ECCV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from manigeo_extract.models.units import Linear, check_positive, dropout_unit, named


def mlp(
    *,
    input_shape: Sequence[int],
    n_classes: int,
    depth: int = 6,
    width: int = 512,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """``depth`` hidden layers ``h1``, ``h2``, ... (linear, norm, ReLU, dropout), then ``logits``.

    ``depth=0`` is the linear classifier.

    >>> [name for name, _ in mlp(input_shape=(1, 8, 8), n_classes=10, depth=2).named_children()]
    ['flatten', 'h1', 'h2', 'logits']
    """
    check_positive(width=width, n_classes=n_classes)
    if depth < 0:
        raise ValueError(f"depth must be at least 0, got {depth}")
    sizes = [math.prod(input_shape), *[width] * depth]
    hidden = {
        f"h{i}": _hidden(sizes[i - 1], width, batch_norm=batch_norm, dropout=dropout) for i in range(1, depth + 1)
    }
    return named({"flatten": nn.Flatten(), **hidden, "logits": Linear(sizes[-1], n_classes)})


def _hidden(size_in: int, size: int, *, batch_norm: bool, dropout: float) -> nn.Sequential:
    return named(
        {
            "linear": Linear(size_in, size),
            "norm": nn.BatchNorm1d(size) if batch_norm else None,
            "relu": nn.ReLU(),
            "dropout": dropout_unit(dropout),
        }
    )


def resmlp(
    *, input_shape: Sequence[int], n_classes: int, depth: int = 5, width: int = 128, batch_norm: bool = True
) -> nn.Sequential:
    """``stem``, then ``depth`` residual blocks ``block1``, ``block2``, ... of two layers each, then ``logits``.

    >>> [name for name, _ in resmlp(input_shape=(1, 8, 8), n_classes=10, depth=2).named_children()]
    ['flatten', 'stem', 'block1', 'block2', 'logits']
    """
    check_positive(width=width, depth=depth, n_classes=n_classes)
    blocks = {f"block{i}": ResidualBlock(width, batch_norm) for i in range(1, depth + 1)}
    stem = Linear(math.prod(input_shape), width)
    return named({"flatten": nn.Flatten(), "stem": stem, **blocks, "logits": Linear(width, n_classes)})


class ResidualBlock(nn.Module):
    r"""Two layers beside a shortcut.

    .. math:: y = x + W_2\, \mathrm{relu}(\mathrm{norm}(W_1\, \mathrm{relu}(x)))
    """

    def __init__(self, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.relu1, self.linear1 = nn.ReLU(), Linear(width, width)
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.relu2, self.linear2 = nn.ReLU(), Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, width) to (n, width)."""
        added: Tensor = x + self.linear2(self.relu2(self.norm(self.linear1(self.relu1(x)))))
        return added

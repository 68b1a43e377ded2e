r"""Vision transformer for small images: square patches are tokens, blocks of attention and of a small mlp beside shortcuts.

.. math:: x \leftarrow x + A(\mathrm{norm}(x)), \qquad x \leftarrow x + M(\mathrm{norm}(x))

Dosovitskiy et al. (2021), An image is worth 16 x 16 words, ICLR; the mean over tokens is read out instead of a class token
(Zhai, Kolesnikov, Houlsby, Beyer 2022, Scaling vision transformers, CVPR).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from manigeo_extract.models.units import Linear, check_positive, named


def vit(
    *, input_shape: Sequence[int], n_classes: int, patch: int = 4, width: int = 64, depth: int = 6, heads: int = 4
) -> nn.Sequential:
    """``stem`` (a token for each patch of ``patch`` x ``patch`` pixels, and its place), ``block1``, ``block2``, ...,
    ``norm``, the mean over tokens (``average``), ``logits``.

    Raises ``ValueError`` where patches do not fill the image, or heads do not share the width evenly.

    >>> [name for name, _ in vit(input_shape=(1, 8, 8), n_classes=10, depth=2).named_children()]
    ['stem', 'block1', 'block2', 'norm', 'average', 'logits']
    """
    check_positive(patch=patch, width=width, depth=depth, heads=heads, n_classes=n_classes)
    if input_shape[1] % patch or input_shape[2] % patch:
        raise ValueError(f"patch must divide both sides of {input_shape[1]} x {input_shape[2]} pixels, got {patch}")
    if width % heads:
        raise ValueError(f"width must be a multiple of heads = {heads}, got {width}")
    blocks = {f"block{i}": Block(width, heads) for i in range(1, depth + 1)}
    return named(
        {
            "stem": Tokens(input_shape, patch, width),
            **blocks,
            "norm": nn.LayerNorm(width),
            "average": Average(),
            "logits": Linear(width, n_classes),
        }
    )


class Tokens(nn.Module):
    """A linear map of each patch, plus a learned vector for its place."""

    def __init__(self, input_shape: Sequence[int], patch: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        self.patch = patch
        self.linear = Linear(channels * patch**2, width)
        self.place = nn.Parameter(torch.empty((height // patch) * (breadth // patch), width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors of places again, from torch's global generator."""
        nn.init.normal_(self.place, std=0.02)

    def forward(self, x: Float[Tensor, "n channels height breadth"]) -> Float[Tensor, "n tokens width"]:
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        tokens: Tensor = self.linear(patches) + self.place
        return tokens


class Block(nn.Module):
    """Attention between the tokens, then two layers for each token alone, both beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.up, self.down = Linear(width, 2 * width), Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(seen)
        moved: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return moved


class Average(nn.Module):
    """Mean over the tokens."""

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n width"]:
        return x.mean(dim=1)

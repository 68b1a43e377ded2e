r"""Causal language model for small vocabularies: blocks of causal attention and of an mlp beside shortcuts.

.. math:: x \leftarrow x + A(\mathrm{norm}(x)), \qquad x \leftarrow x + M(\mathrm{norm}(x))

Radford, Wu, Child, Luan, Amodei, Sutskever (2019), Language models are unsupervised multitask learners: normalisation comes
first, positions are learned vectors, and the output layer has the weights of the embedding (Press & Wolf 2017, EACL).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from manigeo_extract.models.units import check_positive

_GAIN = 0.55  # deviation of all weights times the root of the width: that of GPT-2, 0.02 at a width of 768


class GPT(nn.Sequential):
    """``stem`` (tokens and their places), ``block1``, ``block2``, ..., ``norm``, ``logits``: at every position the scores of
    the next token. ``attention_mask`` has no effect, since what stands behind a token is not seen by it.

    Raises ``ValueError`` for more tokens than there are places.
    """

    def forward(
        self, input_ids: Int[Tensor, "n tokens"], attention_mask: Int[Tensor, "n tokens"] | None = None
    ) -> Float[Tensor, "n tokens vocabulary"]:
        scores: Tensor = super().forward(input_ids)
        return scores


def gpt(*, input_shape: Sequence[int], n_classes: int, width: int = 64, depth: int = 4, heads: int = 4) -> GPT:
    """A language model of ``n_classes`` tokens for sequences of up to ``input_shape`` (tokens,), of ``depth`` blocks, each
    with ``attention`` and ``mlp``.

    Raises ``ValueError`` where heads do not share the width evenly.

    >>> model = gpt(input_shape=(8,), n_classes=20, width=16, depth=2)
    >>> [name for name, _ in model.named_children()]
    ['stem', 'block1', 'block2', 'norm', 'logits']
    >>> model(torch.zeros(3, 5, dtype=torch.int64)).shape
    torch.Size([3, 5, 20])
    """
    check_positive(width=width, depth=depth, heads=heads, n_classes=n_classes)
    if len(input_shape) != 1:
        raise ValueError(
            f"gpt takes sequences of tokens (--data text:PATH or sentences), got inputs {tuple(input_shape)}"
        )
    if width % heads:
        raise ValueError(f"width must be a multiple of heads = {heads}, got {width}")
    stem, head = Stem(input_shape[0], n_classes, width), Head(width, n_classes)
    head.weight = stem.token.weight
    blocks = {f"block{i}": Block(width, heads, depth) for i in range(1, depth + 1)}
    return GPT(OrderedDict({"stem": stem, **blocks, "norm": nn.LayerNorm(width), "logits": head}))


def _std(width: int) -> float:
    return _GAIN / width**0.5


class Linear(nn.Linear):
    r"""Fully connected layer with :math:`W_{ij} \sim N(0, \sigma^2)` and zero bias."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        self.std = std
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        """Draw the weights again, from torch's global generator."""
        nn.init.normal_(self.weight, std=self.std)
        nn.init.zeros_(self.bias)


class Head(nn.Linear):
    """Output layer without a bias, whose weights are those of the embedding."""

    def __init__(self, width: int, n_classes: int) -> None:
        super().__init__(width, n_classes, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weights again, from torch's global generator."""
        nn.init.normal_(self.weight, std=_std(self.in_features))


class Token(nn.Embedding):
    """A learned vector for each token."""

    def reset_parameters(self) -> None:
        """Draw the vectors again, from torch's global generator."""
        nn.init.normal_(self.weight, std=_std(self.embedding_dim))


class Stem(nn.Module):
    """A learned vector for each token, plus one for its place."""

    def __init__(self, places: int, n_classes: int, width: int) -> None:
        super().__init__()
        self.token = Token(n_classes, width)
        self.place = nn.Parameter(torch.empty(places, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors of places again, from torch's global generator."""
        nn.init.normal_(self.place, std=_std(self.place.shape[1]))

    def forward(self, tokens: Int[Tensor, "n tokens"]) -> Float[Tensor, "n tokens width"]:
        n = tokens.shape[1]
        if n > len(self.place):
            raise ValueError(
                f"the network takes up to {len(self.place)} tokens, got {n}: give shorter sequences (length=)"
            )
        x: Tensor = self.token(tokens) + self.place[:n]
        return x


class Block(nn.Module):
    """Attention to the tokens so far, then two layers for each token alone, both beside a shortcut."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, heads, depth), MLP(width, depth)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        x = x + self.attention(x)
        moved: Tensor = x + self.mlp(x)
        return moved


class Attention(nn.Module):
    """Causal attention of several heads to normalised tokens."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        std = _std(width)
        self.qkv, self.out = Linear(width, 3 * width, std), Linear(width, width, std / (2 * depth) ** 0.5)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        moved: Tensor = self.out(seen.transpose(1, 2).reshape(n, tokens, width))
        return moved


class MLP(nn.Module):
    """Two layers with four times the width between them, of normalised tokens."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        std = _std(width)
        self.up, self.down = Linear(width, 4 * width, std), Linear(4 * width, width, std / (2 * depth) ** 0.5)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        moved: Tensor = self.down(F.gelu(self.up(self.norm(x))))
        return moved

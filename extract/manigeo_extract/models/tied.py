r"""Example-tied dropout: some channels are for all examples, and each training example has a few of the others to itself.

Of n channels the first :math:`n_{gen} = p_{gen} n` are always on, and of the others the
:math:`k = p_{mem} (n - n_{gen})` that belong to a training example, whenever it is named; what is memorized goes there. For
other examples all are on, the tied ones by the factor :math:`k / (n - n_{gen})`, the share of examples that has one.
Dropped, the tied ones are zero, and the others grow by :math:`(n_{gen} + k) / n_{gen}`, which keeps the sum of the inputs
to the next layer.

Maini, Mozer, Sedghi, Lipton, Kolter, Zhang (2023), Can neural network memorization be localized?, ICML, section 6. Here the
number of an example's channels is exact, so that no example is without, and they follow from its number and the seed alone:
they are the same in all layers of one width, so that a residual stream keeps its channels, and are never stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from manigeo_extract.models.units import named

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


class TiedDropout(nn.Module):
    """Example-tied dropout of channels: features (n, channels), tokens (n, tokens, channels), maps (n, channels, ...).

    ``examples`` are the numbers of the training examples that the batches to come begin with (:func:`tied_to`); without
    them all channels are on. With ``drop`` the tied channels are off, whoever is named.

    >>> layer = TiedDropout(0.5, 0.5)
    >>> layer(torch.ones(1, 4)).tolist(), TiedDropout(0.5, 0.5, drop=True)(torch.ones(1, 4)).tolist()
    ([[1.0, 1.0, 0.5, 0.5]], [[1.5, 1.5, 0.0, 0.0]])

    Raises ``ValueError`` for shares that are not between 0 and 1.
    """

    def __init__(self, p_gen: float, p_mem: float, seed: int = 0, drop: bool = False) -> None:
        super().__init__()
        if not (0 < p_gen < 1 and 0 < p_mem < 1):
            raise ValueError(f"tied dropout expects two shares between 0 and 1, got {p_gen} and {p_mem}")
        self.p_gen, self.p_mem, self.seed, self.drop = p_gen, p_mem, seed, drop
        self.examples: Int[np.ndarray, " n"] | None = None

    def extra_repr(self) -> str:
        return f"p_gen={self.p_gen}, p_mem={self.p_mem}, seed={self.seed}, drop={self.drop}"

    def forward(self, x: Tensor) -> Tensor:
        axis = x.ndim - 1 if x.ndim == 3 else 1
        n = x.shape[axis]
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        n_gen, k = tied_sizes(n, self.p_gen, self.p_mem)
        if self.examples is not None and not self.drop:
            on = example_channels(self.examples[: len(x)], n, n_gen, k, self.seed)
            shape[0] = len(x)
            return x * torch.as_tensor(on, device=x.device).to(x.dtype).view(shape)
        general, tied = ((n_gen + k) / n_gen, 0.0) if self.drop else (1.0, k / (n - n_gen))
        factors = x.new_tensor([general] * n_gen + [tied] * (n - n_gen))
        return x * factors.view(shape)


def tied_sizes(n: int, p_gen: float, p_mem: float) -> tuple[int, int]:
    """Number of channels that are always on, and of those that one example has of the others, of ``n``; one or more.

    >>> tied_sizes(100, 0.2, 0.1)
    (20, 8)

    Raises ``ValueError`` where there are too few channels for both.
    """
    n_gen = max(1, round(p_gen * n))
    if n - n_gen < 1:
        raise ValueError(f"tied dropout expects 2 channels or more, and some to tie beside a share of {p_gen}; got {n}")
    return n_gen, max(1, round(p_mem * (n - n_gen)))


def example_channels(
    examples: Int[np.ndarray, " n"], n: int, n_gen: int, k: int, seed: int
) -> Bool[np.ndarray, "n channels"]:
    """The channels that are on for each example: the first ``n_gen``, and ``k`` of the others by a hash of seed, example and
    channel (splitmix64), so that they depend on nothing else.

    >>> on = example_channels(np.array([3, 7, 3]), n=6, n_gen=2, k=1, seed=0)
    >>> on.sum(axis=1).tolist(), bool((on[0] == on[2]).all())
    ([3, 3, 3], True)
    """
    with np.errstate(over="ignore"):
        keys = (np.asarray(examples, dtype=np.uint64)[:, None] << np.uint64(24)) + np.arange(n_gen, n, dtype=np.uint64)
        z = (keys + _mixed(np.array([seed], dtype=np.uint64) + _STEP)) * _STEP
        order = np.argsort(_mixed(z), axis=1, kind="stable")[:, :k]
    on = np.zeros((len(examples), n), dtype=bool)
    on[:, :n_gen] = True
    np.put_along_axis(on, order + n_gen, True, axis=1)
    return on


def _mixed(z: np.ndarray) -> np.ndarray:
    mixed = (z ^ (z >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    found: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return found


def with_tied_dropout(network: nn.Module, tied_dropout: object = None, drop_tied: bool = False) -> nn.Sequential:
    """The same network with :class:`TiedDropout` (of the shares p_gen, p_mem and, if given, a seed) behind each of its
    modules with parameters but the last; names of its tensors, and draws of its weights, stay.

    >>> net = named({"h1": nn.Linear(4, 10), "h2": nn.Linear(10, 10), "logits": nn.Linear(10, 2)})
    >>> [name for name, _ in with_tied_dropout(net, (0.2, 0.1)).named_children()]
    ['h1', 'h1_tied', 'h2', 'h2_tied', 'logits']

    Raises ``ValueError`` for anything but two shares between 0 and 1.
    """
    if not isinstance(tied_dropout, (list, tuple)) or len(tied_dropout) not in (2, 3):
        raise ValueError(f"tied_dropout must be two shares, p_gen and p_mem, and may have a seed; got {tied_dropout}")
    p_gen, p_mem, seed = (*tied_dropout, 0)[:3]
    with_weights = [name for name, module in network.named_children() if any(True for _ in module.parameters())]
    modules: OrderedDict[str, nn.Module | None] = OrderedDict()
    for name, module in network.named_children():
        modules[name] = module
        if name in with_weights[:-1]:
            modules[f"{name}_tied"] = TiedDropout(p_gen, p_mem, int(seed), drop_tied)
    return named(modules)


@contextmanager
def tied_to(network: nn.Module, examples: Int[np.ndarray, " n"] | None) -> Iterator[None]:
    """Inside the block, batches of the network begin with these training examples, by their numbers; None: with no such."""
    with _set(network, "examples", examples):
        yield


@contextmanager
def without_tied(network: nn.Module) -> Iterator[None]:
    """Inside the block the tied channels of the network are dropped."""
    with _set(network, "drop", True):
        yield


@contextmanager
def _set(network: nn.Module, name: str, value: object) -> Iterator[None]:
    tied = [module for module in network.modules() if isinstance(module, TiedDropout)]
    kept = [getattr(module, name) for module in tied]
    try:
        for module in tied:
            setattr(module, name, value)
        yield
    finally:
        for module, before in zip(tied, kept, strict=True):
            setattr(module, name, before)


def is_tied(network: nn.Module) -> bool:
    """Return whether the network has tied channels.

    >>> is_tied(nn.Linear(2, 1)), is_tied(nn.Sequential(TiedDropout(0.2, 0.1)))
    (False, True)
    """
    return any(isinstance(module, TiedDropout) for module in network.modules())

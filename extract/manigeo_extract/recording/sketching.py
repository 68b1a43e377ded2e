"""Count sketches: random projections of wide layers, cheap enough to compute while the network runs.

Charikar, Chen, Farach-Colton (2002), Finding frequent items in data streams, ICALP; Weinberger, Dasgupta, Langford,
Smola, Attenberg (2009), Feature hashing for large scale multitask learning, ICML, whose appendix A has the variance. A
dense Gaussian projection (:mod:`manigeo.capacity.projection`, after extraction) is no more exact, and costs d times as much.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manigeo_extract.recording.layers import Layer

_CPU_NUMBERS, _NUMBERS = 1 << 18, 1 << 26  # at a time: what fits the cache of a core; what fits the memory of a device


class CountSketch:
    r"""A random map from ``n_features`` to ``n_sums`` numbers that keeps inner products: every feature is in one sum.

    .. math:: (Sx)_b = \sum_{j: h(j) = b} \sigma_j x_j, \qquad \mathrm{E}\,\langle Sx, Sy\rangle = \langle x, y\rangle,

    .. math:: \mathrm{Var}\,\langle Sx, Sy\rangle = p\,\bigl(|x|^2 |y|^2 + \langle x, y\rangle^2
        - 2 \textstyle\sum_j x_j^2 y_j^2\bigr), \qquad p = \frac{k - 1}{k d - 1} < \frac{1}{d}

    The signs are independent and fair; h deals the features out at random to d sums of k = ceil(N/d) places, which is
    what lowers p from 1/d, and with it the variance below that of d Gaussian directions. Both depend on ``seed`` and the
    layer's name alone.

    >>> sketch = CountSketch(1000, 100, layer="conv1", seed=0)
    >>> sketch(torch.ones(4, 10, 10, 10)).shape
    torch.Size([4, 100])

    Raises ``ValueError`` unless there are more features than sums.
    """

    def __init__(self, n_features: int, n_sums: int, *, layer: str, seed: int):
        if not 1 <= n_sums < n_features:
            raise ValueError(f"a projection takes 1 to {n_features - 1} of {n_features} features, got {n_sums}")
        self.n_features, self.n_sums = n_features, n_sums
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(layer.encode()),)))
        places = rng.permutation(-(-n_features // n_sums) * n_sums)
        empty = places >= n_features
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), size=len(places))
        self._features = torch.from_numpy(np.where(empty, 0, places))
        self._signs = torch.from_numpy(np.where(empty, np.float32(0), signs))

    def __call__(self, output: Tensor) -> Tensor:
        """The sums (n, n_sums) in float32, of rows (n, ...), on their device."""
        rows = output.reshape(len(output), -1)
        if rows.shape[1] != self.n_features:
            raise ValueError(f"{self.n_features} features were expected, got {rows.shape[1]}")
        self._features, self._signs = self._features.to(rows.device), self._signs.to(rows.device)
        numbers = _CPU_NUMBERS if rows.device.type == "cpu" else _NUMBERS
        return torch.cat([self._sums(part) for part in rows.split(max(1, numbers // self.n_features))])

    def _sums(self, rows: Tensor) -> Tensor:
        dealt = rows.index_select(1, self._features).float().mul_(self._signs)
        return dealt.view(len(rows), -1, self.n_sums).sum(1)


def describe_sketch(layer: Layer, n_sums: int | None, seed: int) -> dict[str, Any] | None:
    """Describe the projection of a layer, as a file stores it so that it can be made again; None for a layer of at most
    ``n_sums`` features, or where nothing is projected."""
    if n_sums is None or layer.n_features <= n_sums:
        return None
    return {"kind": "count-sketch", "feature_shape": list(layer.feature_shape), "n_sums": n_sums, "seed": seed}


def sketches(layers: Sequence[Layer], n_sums: int | None, seed: int) -> dict[str, CountSketch]:
    """The projections of those layers that have one, by name."""
    described = {layer.name: (layer.n_features, describe_sketch(layer, n_sums, seed)) for layer in layers}
    return {
        name: CountSketch(n_features, said["n_sums"], layer=name, seed=said["seed"])
        for name, (n_features, said) in described.items()
        if said is not None
    }

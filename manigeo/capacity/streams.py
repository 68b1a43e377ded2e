"""Random numbers by name: every manifold, draw or label has a stream of its own, whatever else is drawn."""

import numpy as np


def stream(seed: int | np.random.SeedSequence, *key: int) -> np.random.Generator:
    """The generator of ``seed`` that ``key`` names; streams of different keys are independent.

    >>> stream(0, 1, 2).integers(100) == stream(np.random.SeedSequence(0), 1, 2).integers(100)
    np.True_
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *key)))

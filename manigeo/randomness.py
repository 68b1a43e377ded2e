"""Random numbers by name: every manifold, draw or label has a stream of its own, whatever else is drawn.

All functions that draw take ``seed=`` or ``rng=``, either of them a whole number, a ``SeedSequence`` or a ``Generator``,
and not both. Without either they draw from seed 0, so that a call gives the same numbers whenever it is repeated; from a
generator each call draws others. ``rng=numpy.random.default_rng()`` is a seed of the operating system.
"""

from typing import Any

import numpy as np

Seed = int | np.integer | np.random.SeedSequence | np.random.Generator


def stream(seed: int | np.random.SeedSequence, *key: int) -> np.random.Generator:
    """The generator of ``seed`` that ``key`` names; streams of different keys are independent.

    >>> stream(0, 1, 2).integers(100) == stream(np.random.SeedSequence(0), 1, 2).integers(100)
    np.True_
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *key)))


def seed_sequence(seed: Any = None, rng: Any = None) -> np.random.SeedSequence:
    """The root of a function's streams, from the one of ``seed`` and ``rng`` that is given; seed 0 without either.

    Raises ``ValueError`` for both, and for what is not a seed.

    >>> seed_sequence(rng=3).entropy, seed_sequence(np.random.SeedSequence(4)).entropy
    (3, 4)
    """
    given = _given(seed, rng)
    if isinstance(given, np.random.Generator):
        return np.random.SeedSequence(given.integers(2**32, size=4).tolist())
    return given


def generator(seed: Any = None, rng: Any = None) -> np.random.Generator:
    """The generator of the one of ``seed`` and ``rng`` that is given, itself where it is one; of seed 0 without either.

    Raises ``ValueError`` for both, and for what is not a seed.

    >>> generator(3).integers(100) == generator(rng=np.random.default_rng(3)).integers(100)
    np.True_
    """
    given = _given(seed, rng)
    return given if isinstance(given, np.random.Generator) else np.random.default_rng(given)


def _given(seed: Any, rng: Any) -> np.random.SeedSequence | np.random.Generator:
    if seed is not None and rng is not None:
        raise ValueError(f"expected seed= or rng=, got both ({seed!r} and {rng!r}); leave one out")
    given = seed if seed is not None else 0 if rng is None else rng
    if isinstance(given, np.random.SeedSequence | np.random.Generator):
        return given
    if isinstance(given, int | np.integer) and given >= 0:
        return np.random.SeedSequence(int(given))
    name = "rng" if seed is None else "seed"
    raise ValueError(f"{name} must be a whole number from 0 on, a SeedSequence or a Generator, got {given!r}")

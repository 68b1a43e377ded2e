"""Small matrices of equal shapes in stacks: a call for many of them, where the calls would take longer than their work."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

_MOST = 16  # in a stack: the draws of so many manifolds of 25 points fit into the cache of a core


def stacks(items: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Positions of items of equal shapes, a few at a time; every position once.

    >>> list(stacks([np.ones(2), np.ones(3), np.zeros(2)]))
    [[0, 2], [1]]
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, item in enumerate(items):
        by_shape.setdefault(item.shape, []).append(i)
    for members in by_shape.values():
        for start in range(0, len(members), _MOST):
            yield members[start : start + _MOST]


def in_stacks(f: Callable[..., Any], first: Sequence[np.ndarray], *others: Sequence[np.ndarray]) -> list[Any]:
    """Apply ``f``, a function of stacks (n, ...), to all items, and return what it says of each, in their order.

    Items that go together have equal shapes where those of ``first`` have.

    >>> [float(x) for x in in_stacks(np.linalg.det, [np.eye(2), np.eye(3), 2 * np.eye(2)])]
    [1.0, 1.0, 4.0]
    """
    results: list[Any] = [None] * len(first)
    for members in stacks(first):
        found = f(*(np.stack([items[i] for i in members]) for items in (first, *others)))
        for i, result in zip(members, zip(*found, strict=True) if isinstance(found, tuple) else found, strict=True):
            results[i] = result
    return results

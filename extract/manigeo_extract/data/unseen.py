"""Classes that a network is never trained on: what its layers do with them shows how far they generalize (Dyballa,
Gerritz & Zucker 2024).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from manigeo.errors import InputError, UsageError
from manigeo_extract.data.parts import Part, Source, generator
from manigeo_extract.resolve import near_names


def choose_unseen(spec: str, asked: Any, names: Sequence[str], seed: int) -> tuple[int, ...]:
    """Labels of the classes to hold out, in ascending order.

    ``asked``: names or labels in a list or between commas (what can be both is a name), or a number: so many, drawn by
    ``seed``; fewer are then a part of more.

    Raises ``UsageError`` for a class that ``spec`` does not have, and where fewer than two are left to train on.

    >>> choose_unseen("digits", "3,7", "0123456789", seed=0)
    (3, 7)
    """
    if isinstance(asked, int | np.integer) and not isinstance(asked, bool) and asked >= 1:
        drawn = generator(seed, "hold out classes").permutation(len(names))
        chosen = {int(label) for label in drawn[: int(asked)]}
    else:
        chosen = {_label(spec, item, names) for item in _listed(spec, asked)}
    if len(names) - len(chosen) < 2:
        raise UsageError(
            f"{spec}: expected holdout_classes to leave 2 or more of {len(names)} classes to train on, got {asked!r}"
        )
    return tuple(sorted(chosen))


def _listed(spec: str, asked: Any) -> list[Any]:
    items = [item.strip() for item in asked.split(",") if item.strip()] if isinstance(asked, str) else asked
    if not isinstance(items, list | tuple) or not items:
        raise UsageError(
            f"{spec}: expected holdout_classes as names or labels of classes, or as their number from 1 on, got {asked!r}"
        )
    return list(items)


def _label(spec: str, item: Any, names: Sequence[str]) -> int:
    if isinstance(item, str) and item in names:
        return names.index(item)
    number = int(item) if isinstance(item, str) and item.isdecimal() else item
    if isinstance(number, int | np.integer) and not isinstance(number, bool) and 0 <= number < len(names):
        return int(number)
    raise UsageError(f"{spec} has no class {item!r}{near_names(str(item), names)}")


def hold_classes_out(source: Source, unseen: Sequence[int]) -> Source:
    """The source with the examples of the classes ``unseen``, of whatever split, apart from its parts.

    Seen classes are numbered 0 .. C-1 in their order, and come first among the names; the unseen ones follow.

    Raises ``InputError`` where an unseen class has no example, or no seen class has one to train or test on.
    """
    n = len(source.class_names)
    order = [*(label for label in range(n) if label not in unseen), *unseen]
    renumbered = np.argsort(order)
    n_seen = n - len(unseen)
    every = {split: _renumbered(part, renumbered) for split, part in source.parts.items()}
    seen = {split: part.take(part.labels < n_seen) for split, part in every.items()}
    apart = [part.take(part.labels >= n_seen) for part in every.values()]
    names = tuple(source.class_names[label] for label in order)
    _check_examples(seen, apart, names[n_seen:], n_seen)
    filled = {split: part for split, part in seen.items() if len(part)}
    return replace(source, parts=filled, class_names=names, unseen=tuple(part for part in apart if len(part)))


def _renumbered(part: Part, label: Int64[np.ndarray, " classes"]) -> Part:
    return replace(part, labels=label[part.labels])


def _check_examples(seen: dict[str, Part], apart: list[Part], unseen: tuple[str, ...], n_seen: int) -> None:
    for split in ("train", "test"):
        if not len(seen[split]):
            raise InputError(f"{seen[split].where}: expected examples of the classes that are not held out, found none")
    found = np.unique(np.concatenate([part.labels for part in apart]))
    if missing := [name for number, name in enumerate(unseen, n_seen) if number not in found]:
        raise InputError(
            f"{seen['train'].where}: expected examples of the held-out classes, found none of {', '.join(missing)}"
        )

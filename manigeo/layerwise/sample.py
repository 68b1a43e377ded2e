"""Choice of layers, kinds, classes and examples of an activation file, and the sample that a measure sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from manigeo.activations import HELD_BYTES, Activations
from manigeo.errors import UsageError, names_of
from manigeo.kinds import KINDS, UNSEEN
from manigeo.layerwise.protocol import Row
from manigeo.manifolds import classes_of, kind_examples, matched_size

# Spawn keys of what is neither a layer's kind nor a measure of it; kinds beyond the four have keys above these.
PROJECTION_KEY = len(KINDS)
CLASSES_KEY = PROJECTION_KEY + 1
_PROGRAM_BYTES = 300 << 20


def row_place(acts: Activations, layer: str, kind: str) -> Row:
    """Place of a number: the columns that all rows of a layer and kind share."""
    return {
        "run": acts.provenance.get("run", ""),
        "run_id": acts.provenance.get("run_id"),
        "checkpoint_sha256": acts.provenance.get("checkpoint_sha256"),
        "checkpoint": acts.provenance.get("checkpoint", ""),
        "epoch": acts.provenance.get("epoch"),
        "layer": layer,
        "depth": acts.layer(layer).order,
        "kind": kind,
        "fingerprint": acts.fingerprint,
    }


def select_layers(acts: Activations, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers whose name or alias matches one of the globs; all without any.

    Raises :class:`~manigeo.errors.UsageError` for a glob that matches none.
    """

    patterns = names_of("layers", patterns)

    def matches(layer: str, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in (layer, *acts.layer(layer).aliases))

    for pattern in patterns:
        if not any(matches(layer, pattern) for layer in acts.layers):
            several = "give --layers once for each; " * ("," in pattern)
            raise UsageError(f"no layer matches {pattern!r}; {several}{acts.name} has {', '.join(acts.layers)}")
    return tuple(layer for layer in acts.layers if not patterns or any(matches(layer, p) for p in patterns))


def select_kinds(acts: Activations, kinds: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """Select the kinds asked for, in their order, or the default.

    Raises :class:`~manigeo.errors.UsageError` for a kind that the file has no examples of.
    """
    kinds = names_of("kinds", kinds)
    absent = [kind for kind in kinds if kind not in acts.kinds]
    if absent:
        raise UsageError(f"{acts.name} has no {', '.join(absent)} examples; it has {', '.join(acts.kinds)}")
    return tuple(dict.fromkeys(kinds)) or tuple(default)


@dataclass(frozen=True)
class SharedClasses:
    """Classes that kinds are compared on.

    ``labels`` are those of each kind, the same for all that are about the same classes. ``lacking`` holds of each class that
    was taken out the first kind that has fewer than two examples of it; ``too_small`` of each kind that is left out the
    classes that it lacks.
    """

    labels: Mapping[str, tuple[int, ...]]
    lacking: Mapping[int, str]
    too_small: Mapping[str, tuple[int, ...]]


def shared_classes(examples: pd.DataFrame, kinds: Sequence[str]) -> SharedClasses:
    """The classes of which all kinds have two examples or more.

    A kind that lacks some classes is kept, and all are compared without these, as long as at least half of the classes of
    the first kind remain: noise may be of some classes alone, and few classes make a poor comparison for all kinds. Unseen
    classes are shared with no other kind.

    >>> table = pd.DataFrame({"split": "train", "true_label": [0, 0, 0, 1, 1, 1, 2, 2], "permuted": [False, False, True] * 2
    ...                       + [False] * 2, "train_label": [0, 0, 1, 1, 1, 0, 2, 2]})
    >>> shared_classes(pd.concat([table] * 2), ["unpermuted", "permuted"]).labels
    {'unpermuted': (0, 1), 'permuted': (0, 1)}
    """
    families = ([kind for kind in kinds if kind != UNSEEN], [kind for kind in kinds if kind == UNSEEN])
    found = [_shared_in_family(examples, family) for family in families if family]
    labels = {kind: classes for one in found for kind, classes in one.labels.items()}
    lacking = {label: kind for one in found for label, kind in one.lacking.items()}
    too_small = {kind: classes for one in found for kind, classes in one.too_small.items()}
    return SharedClasses({kind: labels[kind] for kind in kinds}, lacking, too_small)


def _shared_in_family(examples: pd.DataFrame, kinds: Sequence[str]) -> SharedClasses:
    """The shared classes of kinds that are about the same ones; restored examples, images of others, are the last to ask."""
    every = tuple(int(label) for label in classes_of(examples, kinds[0]))
    common, of_first = every, 0
    lacking: dict[int, str] = {}
    too_small: dict[str, tuple[int, ...]] = {}
    for kind in sorted(kinds, key=lambda kind: kind == "restored"):
        own = _of_two_or_more(examples, kind)
        both = tuple(label for label in common if label in own)
        if len(both) < max(2, of_first / 2):
            too_small[kind] = tuple(label for label in every if label not in own)
        else:
            lacking |= {label: kind for label in common if label not in own}
            common, of_first = both, of_first or len(both)
    return SharedClasses(dict.fromkeys(kinds, common), lacking, too_small)


def _of_two_or_more(examples: pd.DataFrame, kind: str) -> set[int]:
    found, counts = np.unique(kind_examples(examples, kind)[1], return_counts=True)
    return {int(label) for label in found[counts >= 2]}


def draw_classes(acts: Activations, classes: Sequence[int], n: int | None, seed: int) -> tuple[int, ...]:
    """Draw ``n`` of the classes, or take all.

    Raises :class:`~manigeo.errors.UsageError` where there are not as many.
    """
    if n is not None and not 2 <= n <= len(classes):
        raise UsageError(f"--classes {n} is not between 2 and {len(classes)}, the number of classes of {acts.name}")
    drawn = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(CLASSES_KEY,))).permutation(classes)[:n]
    return tuple(sorted(int(label) for label in drawn))


def check_sample(acts: Activations, kinds: Sequence[str], classes: Sequence[int], option: str, n: int | None) -> None:
    """Raise :class:`~manigeo.errors.UsageError` where a class has fewer than ``n`` examples of a kind."""
    size = matched_size(acts.examples, kinds, n or 2, classes)
    if n is not None and size.limited_by is not None:
        kind, label = size.limited_by
        raise UsageError(
            f"{option} {n} is more than there are: class {acts.class_names[label]!r} has {size.per_class} {kind} examples"
        )


def task_bytes(n_points: int, n_features: int) -> int:
    """A ceiling of what a process takes for one task: the program, the points in two copies where they are held, and five
    matrices of inner products. Capacity and joint took .3 to .9 of it, from 1000 x 512 to 5000 x 8192."""
    held = min(4 * n_points * n_features, HELD_BYTES)
    return _PROGRAM_BYTES + 2 * held + 5 * 8 * n_points**2


def obstacle(too_small: Sequence[int], classes: Sequence[int], names: Sequence[str]) -> str:
    """Why a kind of these classes cannot be measured, as a flag; empty where it can."""
    if len(classes) < 2:
        return "single_class"
    return f"fewer_than_2:{','.join(names[label] for label in too_small[:5])}" if too_small else ""

"""Choice of layers, kinds, classes and examples of an activation file, and the sample that a measure sees."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from manigeo.activations import HELD_BYTES, Activations
from manigeo.errors import UsageError
from manigeo.kinds import KINDS
from manigeo.layerwise.protocol import Row
from manigeo.manifolds import classes_of, matched_size

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

    def matches(layer: str, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in (layer, *acts.layer(layer).aliases))

    for pattern in patterns:
        if not any(matches(layer, pattern) for layer in acts.layers):
            raise UsageError(f"no layer matches {pattern!r}; {acts.path} has {', '.join(acts.layers)}")
    return tuple(layer for layer in acts.layers if not patterns or any(matches(layer, p) for p in patterns))


def select_kinds(acts: Activations, kinds: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """Select the kinds asked for, in their order, or the default.

    Raises :class:`~manigeo.errors.UsageError` for a kind that the file has no examples of.
    """
    absent = [kind for kind in kinds if kind not in acts.kinds]
    if absent:
        raise UsageError(f"{acts.path} has no {', '.join(absent)} examples; it has {', '.join(acts.kinds)}")
    return tuple(dict.fromkeys(kinds)) or tuple(default)


def draw_classes(acts: Activations, kind: str, n: int | None, seed: int) -> list[int]:
    """Labels of ``n`` of the classes that a kind is about, or of all.

    Raises :class:`~manigeo.errors.UsageError` where there are not as many.
    """
    classes = classes_of(acts.examples, kind)
    if n is not None and not 2 <= n <= len(classes):
        raise UsageError(f"--classes {n} is not between 2 and {len(classes)}, the number of classes of {acts.path}")
    drawn = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(CLASSES_KEY,))).permutation(classes)[:n]
    return sorted(int(label) for label in drawn)


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

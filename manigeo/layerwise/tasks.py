"""Analyses of activation files as lists of tasks: one analysis of one layer and kind each.

A task carries names, never arrays: it opens the file itself, so tasks run in any process, and a result depends neither on
the number of workers nor on the other layers, kinds and analyses asked for. The numbers of a finished task are known by
their settings, so that an interrupted table goes on.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd
from tqdm import tqdm

from manigeo.activations import HELD_BYTES, Activations
from manigeo.errors import UsageError
from manigeo.execution.workers import Processes, Workers
from manigeo.manifolds import ALL_KINDS, KINDS, classes_of, matched_size
from manigeo.results import bare_settings

Row = dict[str, Any]

# Spawn keys of what is neither a layer's kind nor an analysis of it; kinds beyond the four have keys above these.
PROJECTION_KEY = len(KINDS)
CLASSES_KEY = PROJECTION_KEY + 1
_PROGRAM_BYTES = 300 << 20
_RESERVED = 2


class Task(NamedTuple):
    """One analysis of one layer and kind."""

    layer: str
    kind: str
    analysis: str


def kind_key(kind: str) -> int:
    """The spawn key of a kind."""
    place = ALL_KINDS.index(kind)
    return place if place < len(KINDS) else place + _RESERVED


def layer_seed(seed: int, layer: str, *key: int) -> np.random.SeedSequence:
    """Seed of one layer, whichever others there are."""
    return np.random.SeedSequence(seed, spawn_key=(crc32(layer.encode()), *key))


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


def carried_out(
    jobs: Sequence[tuple[Any, Sequence[Task]]],
    compute: Callable[..., list[Row]],
    workers: Workers | int,
    title: str,
    progress: bool,
) -> Iterator[tuple[int, list[Row]]]:
    """The number and the rows of each job, a plan and what of it is to be computed together, as they are finished."""
    workers = Processes(workers) if isinstance(workers, int) else workers
    total = sum(len(tasks) for _, tasks in jobs)
    with tqdm(total=total, desc=title, unit="task", disable=None if progress else True) as bar:
        for number, rows in workers.as_completed(compute, jobs):
            bar.update(len(jobs[number][1]))
            yield number, rows


def finished(table: pd.DataFrame, path: str, fingerprint: str, origins: Mapping[str, tuple[str, str]]) -> set[Task]:
    """The tasks whose rows stand in a table of an earlier, interrupted run.

    ``origins`` tells of all settings that a row can have which analysis they are of, and of which kind where that is
    not the row's own.

    Raises :class:`~manigeo.errors.UsageError` where the table is of other activations or settings.
    """
    settings_of = table["settings"].map(bare_settings)
    if set(table["fingerprint"]) - {fingerprint} or set(settings_of) - set(origins):
        raise UsageError(f"the table is not of {path} with these settings: give another --out, or --force")
    places = zip(table["layer"], table["kind"], settings_of, strict=True)
    return {Task(layer, origins[settings][1] or kind, origins[settings][0]) for layer, kind, settings in set(places)}


def left_out(tasks: Collection[Task], done: Collection[tuple[str, str, str]]) -> list[Task]:
    return [task for task in tasks if task not in done]

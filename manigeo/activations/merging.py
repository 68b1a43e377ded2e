"""The shards of one extraction joined to the file that one process would have written."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from manigeo.activations import Shard, StoredLayer, create_activations, identity_of, open_shard
from manigeo.activations.filters import Filter
from manigeo.activations.scoring import Scoring
from manigeo.errors import InputError, UsageError
from manigeo.faces.progress import track


@dataclass(frozen=True)
class _Part:
    path: Path
    shard: Shard
    examples: pd.DataFrame
    class_names: tuple[str, ...]
    layers: tuple[StoredLayer, ...]
    dtypes: Mapping[str, str]
    provenance: dict[str, Any]
    scoring: Scoring
    filters: Mapping[str, Filter]

    @property
    def stop(self) -> int:
        return self.shard.start + len(self.examples)


def merge_activations(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    argv: Sequence[str] = (),
    force: bool = False,
    progress: bool = False,
) -> None:
    """Join all shards of an extraction, in any order; ``out`` has the arrays and the fingerprint of the whole.

    An interrupted merge goes on where it was. ``argv`` takes the place of the shards' in the provenance.

    Raises :class:`~manigeo.errors.InputError` where a file is not a shard, is damaged, or belongs to another extraction, and
    where shards are missing; :class:`~manigeo.errors.UsageError` for a shard given twice and an ``out`` that exists.
    """
    if not paths:
        raise UsageError("no shard to join; give the files of all shards")
    parts = sorted((_read_part(Path(path)) for path in paths), key=lambda part: part.shard.number)
    _check_together(parts)
    first = parts[0]
    examples = pd.concat([part.examples for part in parts], ignore_index=True)
    if identity_of(examples, first.class_names, first.layers, first.provenance) != first.shard.whole:
        raise InputError(
            f"{first.path} and the others do not make the extraction that they were parts of; extract again"
        )
    (dtype,) = set(first.dtypes.values())
    batch_size = first.provenance["batch_size"]
    with create_activations(
        out, examples, first.class_names, first.layers, {**first.provenance, "argv": list(argv)}, dtype=dtype,
        batch_size=batch_size, scoring=first.scoring, filters=first.filters, force=force, resume=not force,
    ) as writer:  # fmt: skip
        for batch, outcomes in _rows(parts, writer.n_done, batch_size, progress):
            writer.append(batch, outcomes)


def _read_part(path: Path) -> _Part:
    with open_shard(path) as (acts, shard):
        layers = tuple(acts.layer(name) for name in acts.layers)
        stored = acts.dtypes, acts.provenance, acts.scoring, acts.filters
        return _Part(path, shard, acts.examples, acts.class_names, layers, *stored)


def _check_together(parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        if replace(part.shard, number=0, start=0) != replace(first.shard, number=0, start=0):
            raise InputError(
                f"{part.path} is not of the same extraction as {first.path}: the checkpoint, the data, the settings or "
                f"the number of shards differ"
            )
    numbers = [part.shard.number for part in parts]
    missing = sorted(set(range(1, first.shard.of + 1)) - set(numbers))
    if missing:
        raise InputError(f"missing: shard {', '.join(map(str, missing))} of {first.shard.of}; give all of them")
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise UsageError(f"shard {twice} of {first.shard.of} is given twice; give each once")


def _rows(
    parts: Sequence[_Part], start: int, batch_size: int, progress: bool
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
    """The rows from ``start`` on and their outcomes, in the batches of the whole, which are cut where a shard ends."""
    for part in track(parts, "merge", "shard", progress):
        with open_shard(part.path) as (acts, _):
            first = max(start, part.shard.start)
            for batch in range(first // batch_size * batch_size, part.stop, batch_size):
                rows = np.arange(max(batch, first), min(batch + batch_size, part.stop)) - part.shard.start
                outcomes = acts.outcomes[rows] if acts.scoring.n_outputs else None
                yield {name: acts.rows(name, rows) for name in acts.layers}, outcomes

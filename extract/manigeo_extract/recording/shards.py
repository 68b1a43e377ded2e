"""One extraction in several processes: which examples each of them takes. No process knows of another."""

import os
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from manigeo.errors import UsageError


def parse_shard(text: str | None, environ: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Number and count of ``I/N``, I = 1 ... N; None for the whole.

    ``auto``, which under torchrun is the default, takes the place of this process among those of torchrun (RANK of
    WORLD_SIZE) or of the Slurm array (SLURM_ARRAY_TASK_ID among SLURM_ARRAY_TASK_COUNT).

    >>> parse_shard("2/4"), parse_shard(None, {"RANK": "0", "WORLD_SIZE": "4"})
    ((2, 4), (1, 4))

    Raises :class:`~manigeo.errors.UsageError` for anything else.
    """
    if text is None:
        number, of = _rank(environ) or (1, 1)
    elif text == "auto":
        found = _rank(environ) or _array_task(environ)
        if found is None:
            raise UsageError(
                "--shard auto needs RANK and WORLD_SIZE, or SLURM_ARRAY_TASK_ID and _COUNT; give --shard I/N"
            )
        number, of = found
    else:
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        number, of = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise UsageError(f"expected --shard I/N with I from 1 to N, or auto; got {text or f'{number}/{of}'}")
    return (number, of) if of > 1 else None


def _rank(environ: Mapping[str, str]) -> tuple[int, int] | None:
    names = "RANK", "WORLD_SIZE"
    return (int(environ["RANK"]) + 1, int(environ["WORLD_SIZE"])) if all(name in environ for name in names) else None


def _array_task(environ: Mapping[str, str]) -> tuple[int, int] | None:
    if not {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"} <= environ.keys():
        return None
    first, step = (int(environ.get(f"SLURM_ARRAY_TASK_{name}", default)) for name, default in (("MIN", 0), ("STEP", 1)))
    return (int(environ["SLURM_ARRAY_TASK_ID"]) - first) // step + 1, int(environ["SLURM_ARRAY_TASK_COUNT"])


def shard_range(true_labels: Int64[np.ndarray, " n"], number: int, of: int) -> range:
    """The rows of shard ``number``: whole classes of the sorted ``true_labels``, about as many rows as any other shard.

    >>> shard_range(np.array([0, 0, 1, 1, 1, 2, 2, 3]), 2, 3)
    range(2, 5)

    Raises :class:`~manigeo.errors.UsageError` where there are fewer classes than shards.
    """
    starts = np.flatnonzero(np.diff(true_labels, prepend=true_labels[0] - 1))
    if of > len(starts):
        raise UsageError(f"{len(starts)} classes make {len(starts)} shards or fewer, got --shard {number}/{of}")
    edges = [*starts.tolist(), len(true_labels)]
    cuts = [0]
    for k in range(1, of):
        nearest = int(np.abs(np.array(edges) - k * len(true_labels) / of).argmin())
        cuts.append(min(max(nearest, cuts[-1] + 1), len(starts) - (of - k)))  # a class or more for this and each other
    cuts.append(len(starts))
    return range(edges[cuts[number - 1]], edges[cuts[number]])

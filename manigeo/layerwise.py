"""A whole activation file, layer by layer and kind by kind, into a results table.

The work is a list of tasks that carry a path and names, never arrays: each opens the file itself, so tasks run in any
process, and a result depends neither on the number of workers nor on the other layers that were asked for.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from zlib import crc32

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from manigeo.activations import Activations, open_activations
from manigeo.capacity.mean_field import MEASURES, ManifoldCapacity, manifold_capacity
from manigeo.errors import UsageError
from manigeo.manifolds import KINDS, MatchedSize, matched_size
from manigeo.results import as_table


@dataclass(frozen=True)
class CapacitySettings:
    """What a capacity number depends on beside the activations; stored with each."""

    per_class: int
    n_classes: int
    kappa: float = 0.0
    n_draws: int = 300
    centers: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class CapacityPlan:
    """Which layers and kinds of a file will be analysed, at which matched size."""

    path: str
    class_names: tuple[str, ...]
    layers: tuple[str, ...]
    size: MatchedSize
    settings: CapacitySettings

    @property
    def tasks(self) -> list[tuple[str, str]]:
        return [(layer, kind) for layer in self.layers for kind in self.size.kinds]


def plan_capacity(
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[str] = (),
    per_class: int | None = None,
    kappa: float = 0.0,
    n_draws: int = 300,
    centers: str = "auto",
    seed: int = 0,
) -> CapacityPlan:
    """Look at a file and say what would be computed: layers (globs), kinds, and the matched number of points per class.

    ``per_class`` defaults to the largest number that every kind has for every class, up to 50.

    Raises :class:`~manigeo.errors.UsageError` for a pattern that matches no layer, a kind that is not in the file, or more
    points per class than there are.
    """
    with open_activations(path) as acts:
        wanted = tuple(kinds) or acts.kinds
        absent = [kind for kind in wanted if kind not in acts.kinds]
        if absent:
            raise UsageError(f"{path} has no {', '.join(absent)} examples; it has {', '.join(acts.kinds)}")
        size = matched_size(acts.examples, wanted, cap=per_class or 50)
        if per_class is not None and size.limited_by is not None:
            kind, label = size.limited_by
            raise UsageError(
                f"--per-class {per_class} is more than there are: class {acts.class_names[label]!r} has "
                f"{size.per_class} {kind} examples"
            )
        names, class_names = _select(acts, layers), acts.class_names
    settings = CapacitySettings(size.per_class, len(size.classes), kappa, n_draws, centers, seed)
    return CapacityPlan(os.fspath(path), class_names, names, size, settings)


def _select(acts: Activations, patterns: Sequence[str]) -> tuple[str, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in acts.layers):
            raise UsageError(f"no layer matches {pattern!r}; {acts.path} has {', '.join(acts.layers)}")
    return tuple(name for name in acts.layers if not patterns or any(fnmatchcase(name, p) for p in patterns))


def capacity_table(plan: CapacityPlan, *, n_jobs: int = 1, progress: bool = False) -> pd.DataFrame:
    """Mean-field capacity, radius, dimension and centre correlation of every layer and kind of the plan.

    Aggregates have an empty ``manifold``; capacity, radius and dimension of each class follow under the class's name. Kinds
    that the plan leaves out stand in the table as NaN with a flag.
    """
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    results = parallel(joblib.delayed(_capacity_of)(plan.path, *task, plan.settings) for task in plan.tasks)
    bar = tqdm(results, total=len(plan.tasks), desc="capacity", unit="layer x kind", disable=None if progress else True)
    found = dict(zip(plan.tasks, bar, strict=True))
    rows: list[dict[str, object]] = []
    with open_activations(plan.path) as acts:
        for layer in plan.layers:
            for kind in KINDS:
                place = _place(acts, layer, kind, plan.settings)
                if (layer, kind) in found:
                    rows += [place | row for row in _capacity_rows(found[layer, kind], acts.class_names, plan.size)]
                elif kind in plan.size.excluded:
                    flag = "fewer_than_2:" + ",".join(acts.class_names[c] for c in plan.size.excluded[kind][:5])
                    rows += [place | {"metric": name, "value": np.nan, "n": 0, "flag": flag} for name in MEASURES]
    return as_table(rows)


def _capacity_of(path: str, layer: str, kind: str, settings: CapacitySettings) -> ManifoldCapacity:
    with open_activations(path) as acts:
        clouds = acts.manifolds(layer, kind, per_class=settings.per_class, seed=settings.seed)
    seed = np.random.SeedSequence(settings.seed, spawn_key=(crc32(layer.encode()), KINDS.index(kind)))
    return manifold_capacity(clouds, settings.kappa, settings.n_draws, settings.centers, seed)


def _place(acts: Activations, layer: str, kind: str, settings: CapacitySettings) -> dict[str, object]:
    """Where a number belongs: the columns that all rows of a layer and kind share."""
    return {
        "run": acts.provenance.get("run", ""),
        "checkpoint": acts.provenance.get("checkpoint", ""),
        "epoch": acts.provenance.get("epoch"),
        "layer": layer,
        "depth": acts.layer(layer).order,
        "kind": kind,
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "fingerprint": acts.fingerprint,
    }


def _capacity_rows(r: ManifoldCapacity, class_names: Sequence[str], size: MatchedSize) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {
            "metric": name,
            "value": getattr(r, name),
            "stderr": getattr(r.stderr, name),
            "n": r.n_manifolds,
            "flag": r.flag,
        }
        for name in (*MEASURES, "center_correlation")
    ]
    rows += [
        {"metric": name, "value": getattr(r, name), "n": r.n_manifolds, "flag": r.flag}
        for name in ("center_correlation_residual", "center_rank", "interior_fraction")
    ]
    for label, manifold in zip(size.classes, r.per_manifold.to_dict("records"), strict=True):
        for name in ("capacity", "radius", "dimension"):
            value = {"value": manifold[name], "stderr": manifold[f"{name}_stderr"]}
            rows.append(
                {"manifold": class_names[label], "metric": name, "n": manifold["n_draws"], "flag": manifold["flag"]}
                | value
            )
    return rows

"""A whole activation file, layer by layer and kind by kind, into a results table.

The work is a list of tasks that carry a path and names, never arrays: each opens the file itself, so tasks run in any
process, and a result depends neither on the number of workers nor on the other layers that were asked for.
"""

import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from zlib import crc32

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from manigeo.activations import Activations, open_activations
from manigeo.capacity.mean_field import MEASURES, ManifoldCapacity, manifold_capacity
from manigeo.errors import InputError, UsageError
from manigeo.manifolds import KINDS, MatchedSize, matched_size
from manigeo.results import as_table, join_results


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
    if not np.isfinite(kappa):
        raise UsageError(f"the margin kappa must be a finite number, got {kappa}")
    with open_activations(path) as acts:
        wanted = tuple(dict.fromkeys(kinds)) or acts.kinds
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
        if len(size.classes) < 2 or not size.kinds:
            what = "one class" if len(size.classes) < 2 else "a class with fewer than 2 examples in every kind"
            raise InputError(
                f"{path} has {what}: manifold capacity takes 2 classes or more, with 2 examples or more each"
            )
        names, class_names = _select(acts, layers), acts.class_names
    settings = CapacitySettings(size.per_class, len(size.classes), kappa, n_draws, centers, seed)
    return CapacityPlan(os.fspath(path), class_names, names, size, settings)


def _select(acts: Activations, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers whose name or alias matches one of the globs; all without any."""

    def matches(layer: str, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in (layer, *acts.layer(layer).aliases))

    for pattern in patterns:
        if not any(matches(layer, pattern) for layer in acts.layers):
            raise UsageError(f"no layer matches {pattern!r}; {acts.path} has {', '.join(acts.layers)}")
    return tuple(layer for layer in acts.layers if not patterns or any(matches(layer, p) for p in patterns))


def capacity_table(plan: CapacityPlan, *, n_jobs: int = 1, progress: bool = False) -> pd.DataFrame:
    """Mean-field capacity, radius, dimension and centre correlation of every layer and kind of the plan.

    Aggregates have an empty ``manifold``; capacity, radius and dimension of each class follow under the class's name. Kinds
    that the plan leaves out stand in the table as NaN with a flag.
    """
    return join_results(list(capacity_parts(plan, n_jobs=n_jobs, progress=progress)))


def capacity_parts(
    plan: CapacityPlan, *, n_jobs: int = 1, progress: bool = False, done: Collection[tuple[str, str]] = ()
) -> Iterator[pd.DataFrame]:
    """The parts of :func:`capacity_table`, a layer and kind each, as they are finished; those in ``done`` are left out."""
    tasks = [task for task in plan.tasks if task not in done]
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    results = parallel(joblib.delayed(_capacity_rows)(plan, *task) for task in tasks)
    bar = tqdm(total=len(tasks), desc="capacity", unit="layer x kind", disable=None if progress else True)
    with bar, open_activations(plan.path) as acts:
        for layer, kind in itertools.product(plan.layers, plan.size.excluded):
            if (layer, kind) not in done:
                yield as_table(_excluded_rows(acts, plan, layer, kind))
        for rows in results:
            bar.update()
            yield as_table(rows)


def finished_tasks(plan: CapacityPlan, table: pd.DataFrame) -> set[tuple[str, str]]:
    """The layers and kinds of the plan that stand in a table of an earlier, interrupted run of it.

    Raises :class:`~manigeo.errors.UsageError` where the table is of other activations or settings.
    """
    with open_activations(plan.path) as acts:
        expected = {(acts.fingerprint, _settings_json(plan.settings))}
    if set(zip(table["fingerprint"], table["settings"], strict=True)) - expected:
        raise UsageError(f"the table is not of {plan.path} with these settings: give another --out, or --force")
    return set(zip(table["layer"], table["kind"], strict=True))


def _settings_json(settings: CapacitySettings) -> str:
    return json.dumps(asdict(settings), sort_keys=True)


def _place(acts: Activations, layer: str, kind: str, settings: CapacitySettings) -> dict[str, object]:
    """Where a number belongs: the columns that all rows of a layer and kind share."""
    return {
        "run": acts.provenance.get("run", ""),
        "checkpoint": acts.provenance.get("checkpoint", ""),
        "epoch": acts.provenance.get("epoch"),
        "layer": layer,
        "depth": acts.layer(layer).order,
        "kind": kind,
        "settings": _settings_json(settings),
        "fingerprint": acts.fingerprint,
    }


def _excluded_rows(acts: Activations, plan: CapacityPlan, layer: str, kind: str) -> list[dict[str, object]]:
    classes = ",".join(plan.class_names[label] for label in plan.size.excluded[kind][:5])
    place = _place(acts, layer, kind, plan.settings)
    return [place | {"metric": name, "value": np.nan, "n": 0, "flag": f"fewer_than_2:{classes}"} for name in MEASURES]


def _capacity_rows(plan: CapacityPlan, layer: str, kind: str) -> list[dict[str, object]]:
    """One task, in whatever process: it opens the file itself."""
    settings = plan.settings
    with open_activations(plan.path) as acts:
        clouds = acts.manifolds(layer, kind, per_class=settings.per_class, seed=settings.seed)
        place = _place(acts, layer, kind, settings)
    seed = np.random.SeedSequence(settings.seed, spawn_key=(crc32(layer.encode()), KINDS.index(kind)))
    r = manifold_capacity(clouds, settings.kappa, settings.n_draws, settings.centers, seed)
    classes = [plan.class_names[label] for label in plan.size.classes]
    return [place | row for row in (*_aggregate_rows(r), *_class_rows(r, classes))]


def _aggregate_rows(r: ManifoldCapacity) -> Iterator[dict[str, object]]:
    common = {"n": r.n_manifolds, "flag": r.flag}
    for name in (*MEASURES, "center_correlation"):
        yield common | {"metric": name, "value": getattr(r, name), "stderr": getattr(r.stderr, name)}
    for name in ("center_correlation_residual", "center_rank", "interior_fraction", "rank", "residual"):
        yield common | {"metric": name, "value": getattr(r, name)}
    for name in MEASURES:
        yield common | {"metric": f"{name}_stderr_draws", "value": getattr(r.stderr_draws, name)}


def _class_rows(r: ManifoldCapacity, classes: Sequence[str]) -> Iterator[dict[str, object]]:
    for name, manifold in zip(classes, r.per_manifold.to_dict("records"), strict=True):
        common = {"manifold": name, "n": manifold["n_draws"], "flag": manifold["flag"]}
        for metric in ("capacity", "radius", "dimension"):
            yield common | {"metric": metric, "value": manifold[metric], "stderr": manifold[f"{metric}_stderr"]}

"""A whole activation file, layer by layer and kind by kind, into a results table.

The work is a list of tasks that carry a path and names, never arrays: each opens the file itself, so tasks run in any
process, and a result depends neither on the number of workers nor on the other layers, kinds and analyses asked for.
"""

import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple
from zlib import crc32

import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from manigeo.activations import Activations, open_activations
from manigeo.analyses import Analysis, MeanField, Row, Spectrum, Sweep
from manigeo.errors import InputError, UsageError
from manigeo.manifolds import KINDS, MatchedSize, matched_size
from manigeo.projection import project_manifolds
from manigeo.results import as_table, join_results

# Samples times features times the smaller of the two: up to here total dimension takes seconds, above it minutes.
_SPECTRUM_COST = 1e11
# Spawn keys of what is neither a layer's kind nor an analysis of it.
_PROJECTION = len(KINDS)
_CLASSES = _PROJECTION + 1


@dataclass(frozen=True)
class SampleSettings:
    """Which points a number was computed from: stored with each, beside the settings of its analysis."""

    per_class: int
    n_classes: int
    project: int | None = None
    seed: int = 0


class Task(NamedTuple):
    """One analysis of one layer and kind."""

    layer: str
    kind: str
    analysis: str


@dataclass(frozen=True)
class CapacityPlan:
    """Which layers and kinds of a file will be analysed, how, and at which matched size.

    ``wide`` are layers whose total dimension would take long, and is left out.
    """

    path: str
    class_names: tuple[str, ...]
    layers: tuple[str, ...]
    size: MatchedSize
    settings: SampleSettings
    analyses: tuple[Analysis, ...]
    wide: tuple[str, ...]

    @property
    def tasks(self) -> list[Task]:
        every = itertools.product(self.layers, self.size.kinds, self.analyses)
        return [Task(layer, kind, analysis.name) for layer, kind, analysis in every if self._includes(layer, analysis)]

    def _includes(self, layer: str, analysis: Analysis) -> bool:
        return not (isinstance(analysis, Spectrum) and layer in self.wide)

    def excluded(self) -> list[tuple[str, str, Analysis]]:
        """What would be analysed of the kinds that are too small."""
        every = itertools.product(self.layers, self.size.excluded, self.analyses)
        return [(layer, kind, analysis) for layer, kind, analysis in every if self._includes(layer, analysis)]

    def analysis(self, name: str) -> Analysis:
        (found,) = (analysis for analysis in self.analyses if analysis.name == name)
        return found


def plan_capacity(
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[str] = (),
    per_class: int | None = None,
    n_classes: int | None = None,
    kappa: float = 0.0,
    n_draws: int = 300,
    centers: str = "auto",
    bootstrap: int = 0,
    also: Sequence[Analysis] = (),
    total_dimension: bool | None = None,
    project: int | None = None,
    seed: int = 0,
) -> CapacityPlan:
    """Look at a file and say what would be computed: layers (globs), kinds, and the matched number of points per class.

    ``per_class`` defaults to the largest number that every kind has for every class, up to 50; ``n_classes`` to all, else
    so many are drawn by ``seed``: fewer manifolds keep joint and simulated capacity out of saturation. Mean field is always
    computed; ``also`` are other analyses of :mod:`manigeo.analyses`. Total dimension is computed where it takes seconds
    (None), of every layer (True) or of none (False). Layers of more features than ``project`` are projected on so many
    random directions, the same for all kinds.

    Raises :class:`~manigeo.errors.UsageError` for a pattern that matches no layer, a kind that is not in the file, or more
    classes, or points per class, than there are.
    """
    if not np.isfinite(kappa):
        raise UsageError(f"the margin kappa must be a finite number, got {kappa}")
    with open_activations(path) as acts:
        wanted = tuple(dict.fromkeys(kinds)) or acts.kinds
        absent = [kind for kind in wanted if kind not in acts.kinds]
        if absent:
            raise UsageError(f"{path} has no {', '.join(absent)} examples; it has {', '.join(acts.kinds)}")
        classes = _draw_classes(acts, n_classes, seed)
        size = matched_size(acts.examples, wanted, per_class or 50, classes)
        if len(size.classes) < 2 or not size.kinds:
            what = "one class" if len(size.classes) < 2 else "a class with fewer than 2 examples in every kind"
            raise InputError(
                f"{path} has {what}: manifold capacity takes 2 classes or more, with 2 examples or more each"
            )
        for option, n in (("--per-class", per_class), ("--sweep-examples", _largest_sample(also))):
            _check_sample(acts, wanted, classes, option, n)
        names, class_names = _select(acts, layers), acts.class_names
        settings = SampleSettings(size.per_class, len(size.classes), project, seed)
        wide = tuple(name for name in names if not total_dimension and _is_wide(acts, name, settings))
    analyses: tuple[Analysis, ...] = (
        MeanField(kappa, n_draws, centers, bootstrap),
        *([] if total_dimension is False else [Spectrum()]),
        *also,
    )
    return CapacityPlan(os.fspath(path), class_names, names, size, settings, analyses, wide)


def _largest_sample(analyses: Sequence[Analysis]) -> int | None:
    return max((max(analysis.sizes) for analysis in analyses if isinstance(analysis, Sweep)), default=None)


def _draw_classes(acts: Activations, n: int | None, seed: int) -> list[int]:
    classes = np.unique(acts.examples["true_label"])
    if n is not None and not 2 <= n <= len(classes):
        raise UsageError(f"--classes {n} is not between 2 and {len(classes)}, the number of classes of {acts.path}")
    drawn = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_CLASSES,))).permutation(classes)[:n]
    return sorted(int(label) for label in drawn)


def _check_sample(acts: Activations, kinds: Sequence[str], classes: Sequence[int], option: str, n: int | None) -> None:
    size = matched_size(acts.examples, kinds, n or 2, classes)
    if n is not None and size.limited_by is not None:
        kind, label = size.limited_by
        raise UsageError(
            f"{option} {n} is more than there are: class {acts.class_names[label]!r} has {size.per_class} {kind} examples"
        )


def _is_wide(acts: Activations, layer: str, settings: SampleSettings) -> bool:
    samples, features = settings.per_class * settings.n_classes, acts.layer(layer).n_features
    features = min(features, settings.project or features)
    return samples * features * min(samples, features) > _SPECTRUM_COST


def _select(acts: Activations, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers whose name or alias matches one of the globs; all without any."""

    def matches(layer: str, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in (layer, *acts.layer(layer).aliases))

    for pattern in patterns:
        if not any(matches(layer, pattern) for layer in acts.layers):
            raise UsageError(f"no layer matches {pattern!r}; {acts.path} has {', '.join(acts.layers)}")
    return tuple(layer for layer in acts.layers if not patterns or any(matches(layer, p) for p in patterns))


def capacity_table(plan: CapacityPlan, *, n_jobs: int = 1, progress: bool = False) -> pd.DataFrame:
    """The analyses of the plan for every layer and kind of it.

    Aggregates have an empty ``manifold``; what is known of each class follows under the class's name. Kinds that the plan
    leaves out stand in the table as NaN with a flag. The metrics:

    - mean field: ``capacity``, ``radius``, ``dimension``, ``dimension_prx``, ``center_correlation`` ..., beside
      ``capacity_floor`` (2/M) and ``capacity_ball`` (balls of that radius and ``dimension_prx``), ``capacity_ci_low`` ...
    - ``participation_ratio`` and ``directions_90`` of all samples
    - ``capacity_simulated`` and ``critical_dimension``
    - ``capacity_joint``, ``radius_joint``, ``dimension_joint``, ``utility_joint``, ``center_alignment_joint`` ...
    - ``capacity_sweep``, ``radius_sweep``, ``dimension_sweep``, with M as ``per_class`` of their settings
    """
    return join_results(list(capacity_parts(plan, n_jobs=n_jobs, progress=progress)))


def capacity_parts(
    plan: CapacityPlan, *, n_jobs: int = 1, progress: bool = False, done: Collection[tuple[str, str, str]] = ()
) -> Iterator[pd.DataFrame]:
    """The parts of :func:`capacity_table`, a task each, as they are finished; those in ``done`` are left out."""
    tasks = [task for task in plan.tasks if task not in done]
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    results = parallel(joblib.delayed(_task_rows)(plan, task) for task in tasks)
    bar = tqdm(total=len(tasks), desc="capacity", unit="task", disable=None if progress else True)
    with bar, open_activations(plan.path) as acts:
        for layer, kind, analysis in plan.excluded():
            if (layer, kind, analysis.name) not in done:
                yield as_table(_excluded_rows(acts, plan, layer, kind, analysis))
        for rows in results:
            bar.update()
            yield as_table(rows)


def finished_tasks(plan: CapacityPlan, table: pd.DataFrame) -> set[Task]:
    """The tasks of the plan that stand in a table of an earlier, interrupted run of it.

    Raises :class:`~manigeo.errors.UsageError` where the table is of other activations or settings.
    """
    names = {settings: analysis.name for analysis in plan.analyses for settings in _settings_of(plan, analysis)}
    with open_activations(plan.path) as acts:
        fingerprint = acts.fingerprint
    if set(table["fingerprint"]) - {fingerprint} or set(table["settings"]) - set(names):
        raise UsageError(f"the table is not of {plan.path} with these settings: give another --out, or --force")
    return set(map(Task, table["layer"], table["kind"], table["settings"].map(names)))


def _settings_of(plan: CapacityPlan, analysis: Analysis) -> list[str]:
    """What can stand in the settings of its rows."""
    sizes = analysis.sizes if isinstance(analysis, Sweep) else [plan.settings.per_class]
    return [_settings_json(plan, analysis, size) for size in sizes]


def _settings_json(plan: CapacityPlan, analysis: Analysis, per_class: int) -> str:
    sample = asdict(plan.settings) | {"per_class": per_class}
    return json.dumps({"analysis": analysis.name} | sample | asdict(analysis), sort_keys=True)  # type: ignore[call-overload]


def _place(acts: Activations, layer: str, kind: str) -> Row:
    """Where a number belongs: the columns that all rows of a layer and kind share."""
    return {
        "run": acts.provenance.get("run", ""),
        "checkpoint": acts.provenance.get("checkpoint", ""),
        "epoch": acts.provenance.get("epoch"),
        "layer": layer,
        "depth": acts.layer(layer).order,
        "kind": kind,
        "fingerprint": acts.fingerprint,
    }


def _excluded_rows(acts: Activations, plan: CapacityPlan, layer: str, kind: str, analysis: Analysis) -> list[Row]:
    classes = ",".join(plan.class_names[label] for label in plan.size.excluded[kind][:5])
    nothing = {"value": np.nan, "n": 0, "flag": f"fewer_than_2:{classes}"}
    return [
        _place(acts, layer, kind) | {"metric": name, "settings": settings} | nothing
        for settings in _settings_of(plan, analysis)
        for name in analysis.metrics
    ]


def _task_rows(plan: CapacityPlan, task: Task) -> list[Row]:
    """One task, in whatever process: it opens the file itself, and keeps it open, since wide layers are read as they go."""
    settings, analysis = plan.settings, plan.analysis(task.analysis)
    per_class = _largest_sample([analysis]) or settings.per_class
    classes = [plan.class_names[label] for label in plan.size.classes]
    with open_activations(plan.path) as acts:
        clouds: Sequence[np.ndarray] = acts.manifolds(
            task.layer, task.kind, per_class, settings.seed, plan.size.classes
        )
        if settings.project:
            clouds = project_manifolds(clouds, settings.project, _seed(settings, task.layer, _PROJECTION))
        place = _place(acts, task.layer, task.kind)
        rows = list(analysis.rows(clouds, classes, _task_seed(settings, task)))
    return [
        place | {"settings": _settings_json(plan, analysis, row.pop("per_class", settings.per_class))} | row
        for row in rows
    ]


def _task_seed(settings: SampleSettings, task: Task) -> np.random.SeedSequence:
    """Mean field and its sweep draw alike: what differs between them is the sample."""
    of_analysis = () if task.analysis in (MeanField.name, Sweep.name) else (crc32(task.analysis.encode()),)
    return _seed(settings, task.layer, KINDS.index(task.kind), *of_analysis)


def _seed(settings: SampleSettings, layer: str, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(settings.seed, spawn_key=(crc32(layer.encode()), *key))

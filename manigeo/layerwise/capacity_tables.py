"""The manifold geometry of a whole activation file, layer by layer and kind by kind, into a results table."""

import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from zlib import crc32

import numpy as np
import pandas as pd

from manigeo.activations import Activations, open_activations
from manigeo.capacity.projection import project_manifolds
from manigeo.errors import InputError, UsageError
from manigeo.execution.workers import Workers
from manigeo.layerwise.geometry import Analysis, MeanField, Row, Spectrum, Sweep
from manigeo.layerwise.tasks import (
    PROJECTION_KEY,
    Task,
    carried_out,
    check_sample,
    draw_classes,
    finished,
    kind_key,
    layer_seed,
    left_out,
    row_place,
    select_kinds,
    select_layers,
    task_bytes,
)
from manigeo.manifolds import UNSEEN, MatchedSize, matched_size
from manigeo.results import Part, as_table, in_order, join_results

# Samples times features times the smaller of the two: up to here total dimension takes seconds, above it minutes.
_SPECTRUM_COST = 1e11


@dataclass(frozen=True)
class SampleSettings:
    """Settings of the points that a number was computed from: stored with each, beside the settings of its analysis."""

    per_class: int
    n_classes: int
    project: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class CapacityPlan:
    """Plan of an analysis: which layers and kinds of a file, by which analyses, and at which matched size.

    ``wide`` are layers whose total dimension would take long, and is left out.
    """

    path: str
    class_names: tuple[str, ...]
    layers: tuple[str, ...]
    size: MatchedSize
    settings: SampleSettings
    analyses: tuple[Analysis, ...]
    wide: tuple[str, ...]
    features: Mapping[str, int]

    @property
    def task_bytes(self) -> int:
        """Bytes that the largest task takes, at most."""
        n = self.settings.per_class * self.settings.n_classes
        return max(task_bytes(n, min(f, self.settings.project or f)) for f in self.features.values())

    @property
    def tasks(self) -> list[Task]:
        every = itertools.product(self.layers, self.size.kinds, self.analyses)
        return [Task(layer, kind, analysis.name) for layer, kind, analysis in every if self._includes(layer, analysis)]

    def _includes(self, layer: str, analysis: Analysis) -> bool:
        return not (isinstance(analysis, Spectrum) and layer in self.wide)

    def excluded(self) -> list[tuple[str, str, Analysis]]:
        """List what would be analysed of the kinds that are too small."""
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
    """Plan from a file what is computed: layers (globs), kinds, and the matched number of points per class.

    ``per_class`` defaults to the largest number that every kind has for every class, up to 50; ``n_classes`` to all, else
    so many are drawn by ``seed``: fewer manifolds keep joint and simulated capacity out of saturation. Mean field is always
    computed; ``also`` are other analyses of :mod:`manigeo.layerwise.geometry`. Total dimension is computed where it takes
    seconds (None), of every layer (True) or of none (False). Layers of more features than ``project`` are projected on so
    many random directions, the same for all kinds.

    Raises :class:`~manigeo.errors.UsageError` for a pattern that matches no layer, a kind that is not in the file, or more
    classes, or points per class, than there are.

    >>> import tempfile
    >>> from manigeo.activations import StoredLayer, create_activations
    >>> labels = np.repeat([0, 1, 2], 10)
    >>> columns = {"index": range(30), "split": "test", "true_label": labels, "train_label": labels, "permuted": False}
    >>> h1, path = StoredLayer("h1", 0, "Linear", 0, (5,), "flatten", None, ()), f"{tempfile.mkdtemp()}/acts.h5"
    >>> with create_activations(path, pd.DataFrame(columns), ["a", "b", "c"], [h1], {}) as writer:
    ...     writer.append({"h1": np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]})
    >>> plan = plan_capacity(path, layers=["h*"])
    >>> plan.layers, plan.size.kinds, plan.size.per_class
    (('h1',), ('test',), 10)
    """
    if not np.isfinite(kappa):
        raise UsageError(f"the margin kappa must be a finite number, got {kappa}")
    with open_activations(path) as acts:
        wanted = select_kinds(acts, kinds, [kind for kind in acts.kinds if kind != UNSEEN] or acts.kinds)
        if UNSEEN in wanted and len(wanted) > 1:
            raise UsageError(
                f"{UNSEEN} examples are of other classes than {', '.join(kind for kind in wanted if kind != UNSEEN)}, and "
                f"capacities of other classes do not compare: give --kinds {UNSEEN} alone"
            )
        classes = draw_classes(acts, wanted[0], n_classes, seed)
        size = matched_size(acts.examples, wanted, per_class or 50, classes)
        if len(size.classes) < 2 or not size.kinds:
            what = "one class" if len(size.classes) < 2 else "a class with fewer than 2 examples in every kind"
            raise InputError(
                f"{path} has {what}: manifold capacity takes 2 classes or more, with 2 examples or more each"
            )
        for option, n in (("--per-class", per_class), ("--sweep-examples", _largest_sample(also))):
            check_sample(acts, wanted, classes, option, n)
        names, class_names = select_layers(acts, layers), acts.class_names
        settings = SampleSettings(size.per_class, len(size.classes), project, seed)
        wide = tuple(name for name in names if not total_dimension and _is_wide(acts, name, settings))
        features = {name: acts.layer(name).n_features for name in names}
    analyses: tuple[Analysis, ...] = (
        MeanField(kappa, n_draws, centers, bootstrap),
        *([] if total_dimension is False else [Spectrum()]),
        *also,
    )
    return CapacityPlan(os.fspath(path), class_names, names, size, settings, analyses, wide, features)


def _largest_sample(analyses: Sequence[Analysis]) -> int | None:
    return max((max(analysis.sizes) for analysis in analyses if isinstance(analysis, Sweep)), default=None)


def _is_wide(acts: Activations, layer: str, settings: SampleSettings) -> bool:
    samples, features = settings.per_class * settings.n_classes, acts.layer(layer).n_features
    features = min(features, settings.project or features)
    return samples * features * min(samples, features) > _SPECTRUM_COST


def capacity_table(plan: CapacityPlan, *, n_jobs: Workers | int = 1, progress: bool = False) -> pd.DataFrame:
    """The analyses of the plan for every layer and kind of it, by ``n_jobs`` processes or by workers of a cluster.

    Aggregates have an empty ``manifold``; what is known of each class follows under the class's name. Kinds that the plan
    leaves out stand in the table as NaN with a flag. The metrics:

    - mean field: ``capacity``, ``radius``, ``dimension``, ``dimension_prx``, ``center_correlation`` ..., beside
      ``capacity_floor`` (points without structure), ``capacity_ball`` (balls of that radius and ``dimension_prx``),
      ``capacity_ci_low`` ...; ``occupancy`` and ``metric_residual`` where a metric was needed
    - ``participation_ratio`` and ``directions_90`` of all samples
    - ``capacity_simulated`` and ``critical_dimension``
    - ``capacity_joint``, ``radius_joint``, ``dimension_joint``, ``utility_joint``, ``center_alignment_joint`` ...
    - ``capacity_sweep``, ``radius_sweep``, ``dimension_sweep``, with M as ``per_class`` of their settings

    Returns a results table (:mod:`manigeo.results`), one row per number. Raises :class:`~manigeo.errors.InputError` where
    :func:`~manigeo.activations.open_activations` does.

    >>> import tempfile
    >>> from manigeo.activations import StoredLayer, create_activations
    >>> labels = np.repeat([0, 1, 2], 10)
    >>> columns = {"index": range(30), "split": "test", "true_label": labels, "train_label": labels, "permuted": False}
    >>> h1, path = StoredLayer("h1", 0, "Linear", 0, (5,), "flatten", None, ()), f"{tempfile.mkdtemp()}/acts.h5"
    >>> with create_activations(path, pd.DataFrame(columns), ["a", "b", "c"], [h1], {}) as writer:
    ...     writer.append({"h1": np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]})
    >>> table = capacity_table(plan_capacity(path, n_draws=50))
    >>> table["metric"].unique()[:3].tolist()
    ['capacity', 'radius', 'dimension']
    """
    return join_results(in_order(capacity_parts(plan, n_jobs=n_jobs, progress=progress)))


def capacity_parts(
    plan: CapacityPlan,
    *,
    n_jobs: Workers | int = 1,
    progress: bool = False,
    done: Collection[tuple[str, str, str]] = (),
) -> Iterator[Part]:
    """The parts of :func:`capacity_table`, a task each, as they are finished; those in ``done`` are left out."""
    excluded = [(layer, kind, a) for layer, kind, a in plan.excluded() if (layer, kind, a.name) not in done]
    with open_activations(plan.path) as acts:
        for number, (layer, kind, analysis) in enumerate(excluded):
            yield Part(number, as_table(_excluded_rows(acts, plan, layer, kind, analysis)))
    jobs = [(plan, [task]) for task in left_out(plan.tasks, done)]
    for number, rows in carried_out(jobs, _job_rows, n_jobs, "capacity", progress):
        yield Part(len(excluded) + number, as_table(rows))


def finished_tasks(plan: CapacityPlan, table: pd.DataFrame) -> set[Task]:
    """The tasks of the plan that stand in a table of an earlier, interrupted run of it.

    Raises :class:`~manigeo.errors.UsageError` where the table is of other activations or settings.
    """
    origins = {settings: (analysis.name, "") for analysis in plan.analyses for settings in _settings_of(plan, analysis)}
    with open_activations(plan.path) as acts:
        fingerprint = acts.fingerprint
    return finished(table, plan.path, fingerprint, origins)


def _settings_of(plan: CapacityPlan, analysis: Analysis) -> list[str]:
    """List the settings that its rows can have."""
    sizes = analysis.sizes if isinstance(analysis, Sweep) else [plan.settings.per_class]
    return [_settings_json(plan, analysis, size) for size in sizes]


def _settings_json(plan: CapacityPlan, analysis: Analysis, per_class: int) -> str:
    sample = asdict(plan.settings) | {"per_class": per_class}
    return json.dumps({"analysis": analysis.name} | sample | asdict(analysis), sort_keys=True)  # type: ignore[call-overload]


def _excluded_rows(acts: Activations, plan: CapacityPlan, layer: str, kind: str, analysis: Analysis) -> list[Row]:
    classes = ",".join(plan.class_names[label] for label in plan.size.excluded[kind][:5])
    nothing = {"value": np.nan, "n": 0, "flag": f"fewer_than_2:{classes}"}
    return [
        row_place(acts, layer, kind) | {"metric": name, "settings": settings} | nothing
        for settings in _settings_of(plan, analysis)
        for name in analysis.metrics
    ]


def _job_rows(plan: CapacityPlan, tasks: Sequence[Task]) -> list[Row]:
    return [row for task in tasks for row in _task_rows(plan, task)]


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
            clouds = project_manifolds(clouds, settings.project, layer_seed(settings.seed, task.layer, PROJECTION_KEY))
        place = row_place(acts, task.layer, task.kind)
        rows = list(analysis.rows(clouds, classes, _task_seed(settings, task)))
    return [
        place | {"settings": _settings_json(plan, analysis, row.pop("per_class", settings.per_class))} | row
        for row in rows
    ]


def _task_seed(settings: SampleSettings, task: Task) -> np.random.SeedSequence:
    """Mean field and its sweep draw alike: what differs between them is the sample."""
    of_analysis = () if task.analysis in (MeanField.name, Sweep.name) else (crc32(task.analysis.encode()),)
    return layer_seed(settings.seed, task.layer, kind_key(task.kind), *of_analysis)

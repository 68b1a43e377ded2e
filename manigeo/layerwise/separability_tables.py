"""The separability of whole activation files, layer by layer and kind by kind, into a results table.

Every kind is measured on its own classes, so kinds that share none (unseen classes beside those of training) stand in one
table; all have the same number of examples per class. All measures of a layer and kind are computed together, since wide
layers have their inner products to share.
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from zlib import crc32

import numpy as np
import pandas as pd

from manigeo.activations import Activations, open_activations
from manigeo.errors import InputError
from manigeo.execution.workers import Workers
from manigeo.layerwise.points import LabelledPoints
from manigeo.layerwise.separability import Clusters, HardMargins, Means, Measure, Neighbours, Probe, Row, nothing
from manigeo.layerwise.tasks import (
    Task,
    carried_out,
    check_sample,
    draw_classes,
    finished,
    kind_key,
    left_out,
    row_place,
    select_kinds,
    select_layers,
    task_bytes,
)
from manigeo.manifolds import ALL_KINDS, matched_size, sample_rows
from manigeo.randomness import stream
from manigeo.results import Part, as_table, in_order, join_results

_HALVES = crc32(b"halves")
ALL_MEASURES: tuple[Measure, ...] = (Probe(), Neighbours(), Clusters(), Means(), HardMargins())


@dataclass(frozen=True)
class SeparabilityPlan:
    """Plan of the measurements: which layers and kinds of a file, by which measures, and on how many examples.

    ``classes`` are the labels of each kind's classes; ``excluded`` gives, for kinds that cannot be measured, the reason
    as a flag. ``limited_by`` names the kind and class that set ``per_class`` (None: the cap did).
    """

    path: str
    class_names: tuple[str, ...]
    layers: tuple[str, ...]
    classes: Mapping[str, tuple[int, ...]]
    excluded: Mapping[str, str]
    per_class: int
    limited_by: tuple[str, int] | None
    measures: tuple[Measure, ...]
    features: Mapping[str, int]
    fingerprint: str
    seed: int

    @property
    def tasks(self) -> list[Task]:
        return [Task(layer, kind, m.name) for layer in self.layers for kind in self.classes for m in self.measures]

    @property
    def task_bytes(self) -> int:
        """Bytes that the largest task takes, at most."""
        n = self.per_class * max(len(labels) for labels in self.classes.values())
        return max(task_bytes(n, f) for f in self.features.values())

    @property
    def seconds(self) -> float:
        """Roughly, on one core."""
        sizes = [self.per_class * len(labels) for kind, labels in self.classes.items() if kind not in self.excluded]
        shapes = [(n, features, n // self.per_class) for n in sizes for features in self.features.values()]
        products = sum(4e-11 * n**2 * features for n, features, _ in shapes if features > n)
        return products + sum(m.seconds(n, min(n, f), P) for n, f, P in shapes for m in self.measures)

    def measure(self, name: str) -> Measure:
        (found,) = (measure for measure in self.measures if measure.name == name)
        return found

    def settings(self, measure: Measure, kind: str, trained_on: str = "") -> str:
        """Settings of a row, as JSON."""
        sample = {"per_class": self.per_class, "n_classes": len(self.classes[kind]), "seed": self.seed}
        of_measure = asdict(measure)  # type: ignore[call-overload]
        origin = {"trained_on": trained_on} if trained_on else {}
        return json.dumps({"analysis": measure.name} | sample | of_measure | origin, sort_keys=True)


def plan_separability(
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[str] = (),
    per_class: int | None = None,
    n_classes: int | None = None,
    measures: Sequence[Measure] = ALL_MEASURES,
    seed: int = 0,
) -> SeparabilityPlan:
    """Plan from a file what is computed: layers (globs), kinds, and the number of examples per class.

    ``per_class`` defaults to the largest number that every kind has for each of its classes, up to 50; ``n_classes`` to all
    of a kind, else so many are drawn by ``seed``.

    Raises :class:`~manigeo.errors.UsageError` for a pattern that matches no layer, a kind that is not in the file, or more
    classes, or examples per class, than there are; :class:`~manigeo.errors.InputError` where no kind can be measured.

    >>> import tempfile
    >>> from manigeo.activations import StoredLayer, create_activations
    >>> labels = np.repeat([0, 1, 2], 10)
    >>> columns = {"index": range(30), "split": "test", "true_label": labels, "train_label": labels, "permuted": False}
    >>> h1, path = StoredLayer("h1", 0, "Linear", 0, (5,), "flatten", None, ()), f"{tempfile.mkdtemp()}/acts.h5"
    >>> with create_activations(path, pd.DataFrame(columns), ["a", "b", "c"], [h1], {}) as writer:
    ...     writer.append({"h1": np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]})
    >>> plan = plan_separability(path, layers=["h*"])
    >>> plan.layers, plan.classes, plan.per_class
    (('h1',), {'test': (0, 1, 2)}, 10)
    """
    with open_activations(path) as acts:
        wanted = select_kinds(acts, kinds, acts.kinds)
        classes = {kind: tuple(draw_classes(acts, kind, n_classes, seed)) for kind in wanted}
        sizes = {kind: matched_size(acts.examples, [kind], per_class or 50, labels) for kind, labels in classes.items()}
        names = acts.class_names
        excluded = {kind: _obstacle(size.excluded.get(kind, ()), classes[kind], names) for kind, size in sizes.items()}
        measurable = [kind for kind in wanted if not excluded[kind]]
        if not measurable:
            reasons = "; ".join(f"{kind}: {flag}" for kind, flag in excluded.items())
            raise InputError(f"{path} has no kind of two classes or more with 2 examples or more each ({reasons})")
        smallest = min((sizes[kind] for kind in measurable), key=lambda size: size.per_class)
        for kind in measurable:
            check_sample(acts, [kind], classes[kind], "--per-class", per_class)
        selected = select_layers(acts, layers)
        return SeparabilityPlan(
            os.fspath(path),
            names,
            selected,
            classes,
            {kind: flag for kind, flag in excluded.items() if flag},
            smallest.per_class,
            smallest.limited_by,
            tuple(measures),
            {layer: acts.layer(layer).n_features for layer in selected},
            acts.fingerprint,
            seed,
        )


def _obstacle(too_small: Sequence[int], classes: Sequence[int], names: Sequence[str]) -> str:
    if len(classes) < 2:
        return "single_class"
    return f"fewer_than_2:{','.join(names[label] for label in too_small[:5])}" if too_small else ""


def separability_table(plan: SeparabilityPlan, *, n_jobs: Workers | int = 1, progress: bool = False) -> pd.DataFrame:
    """The measures of the plan for every layer and kind of it, by ``n_jobs`` processes or by workers of a cluster.

    Aggregates have an empty ``manifold``; what is known of each class follows under the class's name. The metrics, most
    with ``_chance``, ``_ceiling``, ``_half1`` and ``_half2`` beside them, shares of examples with ``_ci_low``, ``_ci_high``:

    - ``probe_accuracy``, ``probe_regularization`` and, of a kind scored by another's probe, ``transfer_accuracy``
    - ``knn_purity_1``, ``knn_purity_class``
    - ``kmeans_nmi``
    - ``nearest_mean_accuracy``, ``fisher_ratio``
    - ``separable_ovr``, ``margin_ovr``, ``separable_pairs``, ``margin_pairs``, with ``_residual``

    Returns a results table (:mod:`manigeo.results`), one row per number. Raises :class:`~manigeo.errors.InputError` where
    :func:`~manigeo.activations.open_activations` does.

    >>> import tempfile
    >>> from manigeo.activations import StoredLayer, create_activations
    >>> labels = np.repeat([0, 1, 2], 10)
    >>> columns = {"index": range(30), "split": "test", "true_label": labels, "train_label": labels, "permuted": False}
    >>> h1, path = StoredLayer("h1", 0, "Linear", 0, (5,), "flatten", None, ()), f"{tempfile.mkdtemp()}/acts.h5"
    >>> with create_activations(path, pd.DataFrame(columns), ["a", "b", "c"], [h1], {}) as writer:
    ...     writer.append({"h1": np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]})
    >>> table = separability_table(plan_separability(path, measures=[Means()]))
    >>> table.loc[table["metric"] == "nearest_mean_accuracy", "manifold"].tolist()  # over classes, then each of them
    ['', 'a', 'b', 'c']
    """
    return join_results(in_order(separability_parts(plan, n_jobs=n_jobs, progress=progress)))


def separability_parts(
    plan: SeparabilityPlan,
    *,
    n_jobs: Workers | int = 1,
    progress: bool = False,
    done: Collection[tuple[str, str, str]] = (),
) -> Iterator[Part]:
    """The parts of :func:`separability_table`, a layer and kind each, as they are finished; without tasks ``done``."""
    together: dict[tuple[str, str], list[Task]] = {}
    for task in left_out(plan.tasks, done):
        together.setdefault((task.layer, task.kind), []).append(task)
    jobs = [(plan, tasks) for tasks in together.values()]
    for number, rows in carried_out(jobs, _job_rows, n_jobs, "separability", progress):
        yield Part(number, as_table(rows))


def finished_measures(plan: SeparabilityPlan, table: pd.DataFrame) -> set[Task]:
    """The tasks of the plan that stand in a table of an earlier, interrupted run of it.

    Raises :class:`~manigeo.errors.UsageError` where the table is of other activations or settings.
    """
    origins = {}
    for measure in plan.measures:
        for kind in plan.classes:
            origins[plan.settings(measure, kind)] = (measure.name, "")
            for other in plan.classes:
                origins[plan.settings(measure, other, trained_on=kind)] = (measure.name, kind)
    return finished(table, plan.path, plan.fingerprint, origins)


def _job_rows(plan: SeparabilityPlan, tasks: Sequence[Task]) -> list[Row]:
    """Tasks of one layer and kind, in whatever process: they open the file themselves."""
    layer, kind = tasks[0].layer, tasks[0].kind
    with open_activations(plan.path) as acts:
        place = row_place(acts, layer, kind)
        if kind in plan.excluded:
            rows = _excluded(plan, tasks)
        else:
            needs = dict.fromkeys("standardised" if task.analysis == Probe.name else "plain" for task in tasks)
            sample = _sample(acts, plan, layer, kind, tuple(needs))
            rows = _measured(plan, tasks, sample, _Others(acts, plan, layer, kind))
        return [place | row for row in rows]


def _excluded(plan: SeparabilityPlan, tasks: Sequence[Task]) -> Iterator[Row]:
    for task in tasks:
        measure = plan.measure(task.analysis)
        settings = plan.settings(measure, task.kind)
        yield from ({"settings": settings} | row for row in nothing(measure.metrics, plan.excluded[task.kind]))


def _measured(
    plan: SeparabilityPlan, tasks: Sequence[Task], sample: LabelledPoints, others: Mapping[str, LabelledPoints]
) -> Iterator[Row]:
    for task in tasks:
        measure = plan.measure(task.analysis)
        rng = stream(plan.seed, kind_key(task.kind), crc32(measure.name.encode()))  # the same folds in every layer
        rows = nothing(measure.metrics, "constant_features") if sample.constant else measure.rows(sample, others, rng)
        for row in rows:
            trained_on = task.kind if row.get("kind", task.kind) != task.kind else ""
            yield {"settings": plan.settings(measure, row.get("kind", task.kind), trained_on)} | row


def _sample(
    acts: Activations, plan: SeparabilityPlan, layer: str, kind: str, needs: Sequence[str] = ()
) -> LabelledPoints:
    labels = plan.classes[kind]
    images = list(sample_rows(acts.examples, kind, plan.per_class, plan.seed, labels).values())
    return LabelledPoints(
        acts.manifolds(layer, kind, plan.per_class, plan.seed, labels),
        np.concatenate(images),
        [plan.class_names[label] for label in labels],
        [len(rows) for rows in images],
        stream(plan.seed, kind_key(kind), _HALVES),
        needs,
    )


class _Others(Mapping[str, LabelledPoints]):
    """The other kinds of a layer that share the classes of one, each read when it is looked at, and not kept."""

    def __init__(self, acts: Activations, plan: SeparabilityPlan, layer: str, kind: str) -> None:
        self._read = lambda other: _sample(acts, plan, layer, other)
        self._kinds = [
            other
            for other in ALL_KINDS
            if other != kind and other not in plan.excluded and plan.classes.get(other) == plan.classes[kind]
        ]

    def __getitem__(self, kind: str) -> LabelledPoints:
        return self._read(kind)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

"""Tables of a plan: its tasks done by workers, layer by layer and kind by kind, and what an earlier table has of them."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from inspect import signature
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from manigeo.activations import Activations, opened
from manigeo.capacity.nulls import NULLS
from manigeo.errors import UsageError, check_choice
from manigeo.execution.resuming import remaining
from manigeo.execution.workers import Workers, parts_of
from manigeo.layerwise.plan import Plan, Task, plan_capacity, plan_separability
from manigeo.layerwise.protocol import AGAINST, Row, nothing
from manigeo.layerwise.sample import row_place
from manigeo.results import Part, as_table, bare_settings, in_order, join_results

P = TypeVar("P")


def capacity_table(
    source: object, *, n_jobs: Workers | int = 1, progress: bool = False, **choices: Any
) -> pd.DataFrame:
    """The measures of a plan for every layer and kind of it, by ``n_jobs`` processes or by workers of a cluster.

    ``source`` is the plan, or the activations or the path of a file, for which ``choices`` are the arguments of
    :func:`~manigeo.layerwise.plan.plan_capacity`.

    Aggregates have an empty ``manifold``; the numbers of each class follow under the class's name.

    >>> labels = np.repeat([0, 1, 2], 10)
    >>> responses = np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]
    >>> acts = Activations.from_arrays({"h1": responses}, labels)
    >>> table = capacity_table(acts, n_draws=50)
    >>> table["metric"].unique()[:3].tolist()
    ['capacity', 'radius', 'dimension']
    """
    plan = plan_of(Plan, plan_capacity, source, choices)
    return join_results(in_order(plan_parts(plan, n_jobs=n_jobs, progress=progress)))


def separability_table(
    source: object, *, n_jobs: Workers | int = 1, progress: bool = False, **choices: Any
) -> pd.DataFrame:
    """The measures of a plan for every layer and kind of it, by ``n_jobs`` processes or by workers of a cluster.

    ``source`` is the plan, or the activations or the path of a file, for which ``choices`` are the arguments of
    :func:`~manigeo.layerwise.plan.plan_separability`.

    Aggregates have an empty ``manifold``; what is known of each class follows under the class's name. The metrics, most
    with ``_chance``, ``_ceiling``, ``_half1`` and ``_half2`` beside them, shares of examples with ``_ci_low``, ``_ci_high``:

    - ``probe_accuracy``, ``probe_regularization`` and, of a kind scored by another's probe, ``transfer_accuracy``
    - ``knn_purity_1``, ``knn_purity_class``
    - ``kmeans_nmi``
    - ``nearest_mean_accuracy``, ``fisher_ratio``
    - ``separation_fuzziness``, ``nc1``
    - ``latent_mean``, ``latent_neighbours``, ``latent_subspace``, ``latent_linear``, with ``_gain``; ``network_accuracy``
    - ``separable_ovr``, ``margin_ovr``, ``separable_pairs``, ``margin_pairs``, with ``_residual``

    Returns a results table (:mod:`manigeo.results`), one row per number. Raises :class:`~manigeo.errors.InputError` where
    :func:`~manigeo.activations.open_activations` does.

    >>> labels = np.repeat([0, 1, 2], 10)
    >>> responses = np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]
    >>> acts = Activations.from_arrays({"h1": responses}, labels)
    >>> from manigeo.layerwise.registry import measure
    >>> table = separability_table(acts, measures=[measure("means")])
    >>> table.loc[table["metric"] == "nearest_mean_accuracy", "manifold"].tolist()  # over classes, then each of them
    ['', '0', '1', '2']
    """
    plan = plan_of(Plan, plan_separability, source, choices)
    return join_results(in_order(plan_parts(plan, n_jobs=n_jobs, progress=progress)))


def plan_of(kind: type[P], planned: Callable[..., P], source: object, choices: Mapping[str, Any]) -> P:
    """Return ``source`` if it is a plan of this kind, or the one that is ``planned`` of it with these arguments.

    Raises :class:`~manigeo.errors.UsageError` for arguments that there are not, and for arguments beside a plan.
    """
    known = [name for name in signature(planned).parameters if name != "source"]
    for name in choices:
        check_choice("arguments", name, [*known, "n_jobs", "progress"])
    if not isinstance(source, kind):
        return planned(source, **choices)
    if choices:
        raise UsageError(f"a plan has its {', '.join(choices)} already; give them to {planned.__name__}")
    return source


def plan_parts(
    plan: Plan, *, n_jobs: Workers | int = 1, progress: bool = False, todo: Sequence[Task] | None = None
) -> Iterator[Part]:
    """The parts of the plan's table, a layer and kind each, as they are finished; of the tasks ``todo`` alone, if given."""
    together: dict[tuple[str, str], list[Task]] = {}
    for task in plan.tasks if todo is None else todo:
        together.setdefault((task.layer, task.kind), []).append(task)
    jobs = [(plan.of_layer(tasks[0].layer), tasks) for tasks in together.values()]
    return parts_of(job_table, jobs, n_jobs, plan.title, "layer and kind", progress)


def job_table(plan: Plan, tasks: Sequence[Task]) -> pd.DataFrame:
    """Tasks of one layer and kind, in whatever process: where there is a file, they open it themselves."""
    with ExitStack() as stack:
        acts = stack.enter_context(opened(plan.path if plan.held is None else plan.held))
        other = None if plan.other is None else stack.enter_context(opened(plan.other))
        place = row_place(acts, tasks[0].layer, tasks[0].kind)
        if null := plan.sampling.get("null"):  # so that tables and figures have its rows beside those of the data
            place["checkpoint"] = ", ".join(filter(None, [place["checkpoint"], NULLS[null]]))
        rows = _excluded(plan, tasks) if tasks[0].kind in plan.excluded else _measured(plan, tasks, acts, other)
        return as_table([place | row for row in rows])


def _excluded(plan: Plan, tasks: Sequence[Task]) -> Iterator[Row]:
    for task in tasks:
        m = plan.measure(task.measure)
        for settings in plan.all_settings(m, task.kind):
            yield from ({"settings": settings} | row for row in nothing(m.metrics, plan.excluded[task.kind]))


def _measured(plan: Plan, tasks: Sequence[Task], acts: Activations, other: Activations | None) -> Iterator[Row]:
    """The file stays open meanwhile, since layers that are not held are read as they are looked at."""
    layer, kind = tasks[0].layer, tasks[0].kind
    measures = [plan.measure(task.measure) for task in tasks]
    needs = tuple(dict.fromkeys(m.needs for m in measures))
    others = {of: functools.partial(plan.sample, acts, layer, of) for of in plan.sharing(kind)}
    if other is not None:
        others[AGAINST] = functools.partial(plan.sample, other, layer, kind, needs=("plain",))
    read = functools.cache(lambda per_class: plan.sample(acts, layer, kind, per_class, needs))
    for m in measures:
        sample = read(max(m.examples, default=plan.per_class))
        training = {"train": functools.partial(plan.training, acts, layer, m.training)}
        for row in m.rows(
            sample, training if m.training else others, np.random.SeedSequence(plan.seed, spawn_key=m.key(layer, kind))
        ):
            of = row.get("kind", kind)
            settings = plan.settings(m, of, row.pop("per_class", None), kind if of != kind else "")
            yield {"settings": settings} | row


# ------------------------------------------------------------------------------------------------------------- going on
def remaining_tasks(plan: Plan, table: pd.DataFrame | None) -> tuple[list[Task], pd.DataFrame | None]:
    """The tasks that an earlier, interrupted run of the plan has not finished, and its table without rows of these.

    A task is done where all its aggregates are there, and the rows of classes and of other kinds that follow from them.

    Raises :class:`~manigeo.errors.UsageError` where the table is of other activations or settings.
    """
    if table is not None and set(table["fingerprint"]) - {plan.fingerprint}:
        raise UsageError(f"the table is not of {plan.path}: give another --out, or --force")
    wanted = [text for m in plan.measures for kind in plan.classes for text in plan.all_settings(m, kind)]
    tasks = {task: task for task in plan.tasks}
    return remaining(table, tasks, map(json.loads, wanted), _task_of, lambda task, rows: _is_whole(plan, task, rows))


def _task_of(row: Any, settings: Mapping[str, Any]) -> Task:
    return Task(row.layer, settings.get("trained_on", row.kind), settings["analysis"])


def _is_whole(plan: Plan, task: Task, rows: Sequence[Any]) -> bool:
    present = {(row.kind, bare_settings(row.settings), row.manifold, row.metric): row.n for row in rows}

    def measured(kind: str, settings: str, metrics: Sequence[str]) -> list[str]:
        """The aggregates that are there, and of something."""
        return [metric for metric in metrics if present.get((kind, settings, "", metric))]

    def whole(kind: str, settings: str, metrics: Sequence[str], profiles: Sequence[str]) -> bool:
        scored = measured(kind, settings, metrics)
        of_classes = [p for p in profiles if p in scored or (scored and p not in metrics)]
        names = [plan.class_names[label] for label in plan.classes[kind]]
        wanted = [("", metric) for metric in metrics] + [(name, p) for p in of_classes for name in names]
        return all((kind, settings, *row) in present for row in wanted)

    m = plan.measure(task.measure)
    own = plan.all_settings(m, task.kind)
    others = plan.sharing(task.kind) if m.transfers and measured(task.kind, own[0], m.metrics) else []
    return all(whole(task.kind, settings, m.metrics, m.profiles) for settings in own) and all(
        whole(other, plan.settings(m, other, trained_on=task.kind), m.transfers, m.transfers) for other in others
    )

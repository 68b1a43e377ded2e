"""Plan of a table of single examples, and its tasks: one layer's neighbours, or one layer's loads.

Neighbours are found among all training examples of the activations (all examples, where there is no training). Loads are of
the training examples that are looked at, grouped by the label that they were trained on: unpermuted and permuted ones share
manifolds. Training dynamics come from the record of the training, where it kept one.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd

from manigeo.activations import Activations, opened
from manigeo.capacity.joint import joint_loads
from manigeo.capacity.mean_field import manifold_loads
from manigeo.errors import InputError, UsageError, check_choice
from manigeo.execution.workers import Processes, Workers
from manigeo.faces.progress import bar
from manigeo.kinds import EVERY, TRAINED, in_order
from manigeo.layerwise.protocol import kind_key
from manigeo.layerwise.sample import row_place, select_layers, task_bytes
from manigeo.layerwise.tables import plan_of
from manigeo.per_example.depths import last_layer, output_margin, settled_from, share_of
from manigeo.per_example.of_training import dynamics_of, record_for, training_of
from manigeo.per_example.table import example_rows, join_examples, own_kinds
from manigeo.randomness import stream
from manigeo.runs import RunFolder
from manigeo.separability.nearest import nearest_neighbours, votes

MEASURES = ("depth", "margin", "dynamics", "load", "load_joint")
DEFAULT = ("depth", "margin", "dynamics", "load")
_LOADS = ("load", "load_joint")
_SAMPLE, _OF_CLASS = crc32(b"examples"), crc32(b"loads")
_PROGRAM_BYTES, _BLOCKS_BYTES = 300 << 20, 200 << 20


class Task(NamedTuple):
    """One layer: its neighbours and what follows from them (``depth``), or its loads."""

    layer: str
    measure: str


@dataclass(frozen=True)
class ExamplesPlan:
    """Plan of a table of examples: which layers, which examples (``rows`` of the activations), which measures.

    ``loaded`` are the places among the ``rows`` of the examples whose loads are computed, manifold by manifold, and
    ``sizes`` the numbers of these. ``training`` is the folder of the run with their record. ``notes`` tell what is
    left out, and why.
    """

    path: str
    fingerprint: str
    features: Mapping[str, int]
    outputs: str
    rows: np.ndarray
    kinds: Mapping[str, int]
    measures: tuple[str, ...]
    k: int
    n_draws: int
    per_class: int
    seed: int
    loaded: np.ndarray
    sizes: tuple[int, ...]
    training: Path | None = None
    notes: tuple[str, ...] = ()
    held: Activations | None = field(default=None, repr=False, compare=False)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def tasks(self) -> list[Task]:
        """One task per layer and measure; the slow ones first."""
        wanted = [measure for measure in (*reversed(_LOADS), "depth") if measure in self.measures]
        return [Task(layer, measure) for measure in wanted for layer in self.layers]

    @property
    def seconds(self) -> float:
        """Rough time on one core."""
        n, m = len(self.rows), len(self.loaded)
        neighbours = sum(4e-11 * n**2 * width + 1.5e-4 * n for width in self.features.values())
        joint = self.n_draws * sum(1e-8 * m * min(m, width) + 3e-9 * m**2 for width in self.features.values())
        field_ = 3e-6 * self.n_draws * m * len(self.features)
        times = {"depth": neighbours, "load_joint": joint, "load": field_}
        return sum(seconds for measure, seconds in times.items() if measure in self.measures)

    @property
    def task_bytes(self) -> int:
        """Bytes that the largest task takes, about."""
        widest, n = max(self.features.values()), len(self.rows)
        neighbours = _PROGRAM_BYTES + _BLOCKS_BYTES + 12 * n * widest
        return max(neighbours, task_bytes(len(self.loaded), widest) if set(_LOADS) & set(self.measures) else 0)

    def settings(self, measure: str) -> dict[str, Any]:
        """Settings that the numbers of a measure depend on."""
        own: dict[str, Any] = {"k": self.k} if measure == "depth" else {}
        if measure in _LOADS:
            own = {"n_draws": self.n_draws, "per_class": self.per_class}
        return {"analysis": "examples", "layers": len(self.layers), "seed": self.seed} | own

    def source(self, layer: str) -> Any:
        return self.path if self.held is None else self.held.only([layer])


def plan_examples(
    source: object,
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[str] = (),
    k: int = 30,
    max_examples: int | None = None,
    measures: Sequence[str] = (),
    joint: bool = False,
    run: str | os.PathLike[str] | None = None,
    n_draws: int = 100,
    per_class: int = 50,
    seed: int = 0,
) -> ExamplesPlan:
    """Look at activations, or at a file of them, and say what would be computed of which examples.

    ``kinds`` of unpermuted, permuted, test, unseen and all, by default all; ``max_examples`` of each at most, drawn by
    ``seed``. ``measures``: ``"depth"`` (neighbours), ``"margin"``, ``"dynamics"`` (of the training), ``"load"`` (mean field)
    and ``"load_joint"``, by default those of the first four that can be computed, and with ``joint`` the last. Loads are of
    at most ``per_class`` examples of a class, by ``n_draws`` Gaussian draws. ``run`` is the folder of the training, which is
    found by its identity where it lies beside the file or above it.

    Raises :class:`~manigeo.errors.UsageError` for layers, kinds and measures that are none, and
    :class:`~manigeo.errors.InputError` where a measure that was asked for cannot be computed.

    >>> acts = Activations.from_arrays({"V1": np.eye(8)}, [0, 0, 0, 0, 1, 1, 1, 1])
    >>> plan_examples(acts, k=5, measures=["depth"]).tasks
    [Task(layer='V1', measure='depth')]
    """
    for name in measures:
        check_choice("measures", name, MEASURES)
    with opened(source) as acts:
        names = select_layers(acts, layers)
        rows, counts = _choose(acts, kinds, max_examples, seed)
        default = [name for name in DEFAULT if name != "dynamics" or acts.provenance.get("run_id")]
        wanted = {*(measures or default), *(["load_joint"] if joint else []), *(["dynamics"] if run else [])}
        training = training_of(acts) if run is None else RunFolder(Path(run))
        chosen, notes = _possible(acts, rows, wanted, k, training)
        if run is not None and "dynamics" in notes:
            raise InputError(notes["dynamics"])
        if missing := [name for name in measures if name not in chosen]:
            raise InputError(notes[missing[0]])
        loaded, sizes = _manifolds(acts.examples.iloc[rows], per_class, seed)
        return ExamplesPlan(
            "" if acts.path is None else str(acts.path), acts.fingerprint,
            {name: acts.layer(name).n_features for name in names}, _outputs(acts), rows, counts, chosen, k, n_draws,
            per_class, seed, loaded, sizes, training.path if training and "dynamics" in chosen else None,
            tuple(dict.fromkeys(notes.values())), acts if acts.path is None else None,
        )  # fmt: skip


def _choose(acts: Activations, kinds: Sequence[str], most: int | None, seed: int) -> tuple[np.ndarray, dict[str, int]]:
    """Rows of the examples of the kinds, in the order of the file, and how many there are of each."""
    own = own_kinds(acts.examples)
    present = in_order(set(own.tolist()))
    if absent := [kind for kind in kinds if kind not in present]:
        hint = "; restored images stand in the table as permuted ones" * ("restored" in absent)
        raise UsageError(f"{acts.name} has no {', '.join(absent)} examples; it has {', '.join(present)}{hint}")
    found = {kind: np.flatnonzero(own == kind) for kind in in_order(kinds or present)}
    if most is not None:
        found = {
            kind: np.sort(stream(seed, kind_key(kind), _SAMPLE).permutation(rows)[:most])
            for kind, rows in found.items()
        }
    return np.sort(np.concatenate(list(found.values()))), {kind: len(rows) for kind, rows in found.items()}


def _possible(
    acts: Activations, rows: np.ndarray, measures: Collection[str], k: int, training: RunFolder | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The measures that these examples have, and why they have no others."""
    n, notes = int(_voters(acts.examples).sum()), {}
    if n <= k:
        most = f", or ask for --k {n - 1} or less" * (n > 1)
        notes["depth"] = f"{n} training examples do not have {k} neighbours each: extract more training examples{most}"
    if not _outputs(acts):
        width = len(acts.class_names)
        notes["margin"] = (
            f"no layer has the outputs of the network, one for each of the {width} classes, so margins and prediction depth "
            "are not known: extract it with its last layer"
        )
    if len(_manifolds(acts.examples.iloc[rows], 2, 0)[1]) < 2:
        why = "loads take two classes or more with two training examples each: extract more training examples"
        notes |= dict.fromkeys(_LOADS, why)
    if "dynamics" in measures and (why := _without_dynamics(acts, training)):
        notes["dynamics"] = why
    return tuple(name for name in MEASURES if name in measures and name not in notes), notes


def _without_dynamics(acts: Activations, training: RunFolder | None) -> str:
    """Why there are no training dynamics; empty where there are."""
    if training is None:
        return f"no folder of the training of {acts.name} beside it, so no training dynamics: name it with --run"
    try:
        dynamics_of(acts.examples, record_for(acts, training))
    except InputError as error:
        return str(error)
    return ""


def _outputs(acts: Activations) -> str:
    """The layer of the network's outputs: the last one, where it has one for each class; empty where it has not."""
    last = acts.layers[-1]
    known = acts.n_seen_classes <= acts.layer(last).n_features <= len(acts.class_names)
    known &= "manifolds" not in acts.provenance  # of sequences, which the network does not name, however many there are
    return last if known and EVERY not in acts.examples["split"].unique() else ""


def _voters(examples: pd.DataFrame) -> np.ndarray:
    """The examples among which neighbours are looked for: those of training, or of a set without any."""
    split = examples["split"].to_numpy()
    return np.isin(split, (*TRAINED, EVERY))


def _manifolds(examples: pd.DataFrame, per_class: int, seed: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Places of the examples of each manifold, one below the other, and how many each has."""
    labels = np.where(_voters(examples), examples["train_label"].to_numpy(np.int64), -1)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels[labels >= 0])]
    drawn = [
        np.sort(stream(seed, int(labels[rows[0]]), _OF_CLASS).permutation(rows)[:per_class])
        for rows in members
        if len(rows) > 1
    ]
    return np.concatenate([*drawn, np.empty(0, np.int64)]), tuple(map(len, drawn))


# ---------------------------------------------------------------------------------------------------------- computing
def _compute(plan: ExamplesPlan, task: Task) -> dict[str, np.ndarray]:
    """Numbers of a task, NaN for examples that it is not about, and the flag under its own name."""
    with opened(plan.source(task.layer)) as acts:
        if acts.fingerprint != plan.fingerprint:
            raise InputError(f"{plan.path} was written again since the command began; repeat it")
        if task.measure == "depth":
            return _neighbours(plan, acts, task.layer)
        return _loads(plan, acts.rows(task.layer, plan.rows[plan.loaded]), task.measure)


def _neighbours(plan: ExamplesPlan, acts: Activations, layer: str) -> dict[str, np.ndarray]:
    voting = np.flatnonzero(_voters(acts.examples))
    labels = acts.examples["train_label"].to_numpy(np.int64)
    place = np.full(len(labels), -1)
    place[voting] = np.arange(len(voting))
    near = nearest_neighbours(acts.rows(layer, voting), plan.k, acts.rows(layer, plan.rows), place[plan.rows])
    of_neighbours = labels[voting][near]
    return {"knn_label": votes(of_neighbours), "purity": share_of(of_neighbours, labels[plan.rows])}


def _loads(plan: ExamplesPlan, X: np.ndarray, measure: str) -> dict[str, np.ndarray]:
    manifolds = np.split(X, np.cumsum(plan.sizes)[:-1])
    of_measure = joint_loads if measure == "load_joint" else manifold_loads
    loads = of_measure(manifolds, plan.n_draws, seed=plan.seed)
    values = np.full(len(plan.rows), np.nan)
    values[plan.loaded] = np.concatenate(loads.values)
    return {measure: values, "flag": np.array(loads.flag)}


def _tables(
    plan: ExamplesPlan, acts: Activations, found: Mapping[Task, dict[str, np.ndarray]]
) -> Iterator[pd.DataFrame]:
    examples, place = acts.examples.iloc[plan.rows].reset_index(drop=True), row_place(acts, plan.layers[0], "")
    answers = _answers(plan, acts)
    whole = {"answer": answers} if plan.outputs else {}
    if "margin" in plan.measures:
        outputs = acts.rows(plan.outputs, plan.rows)
        labels = examples["train_label"].to_numpy(np.int64)
        known = labels < outputs.shape[1]
        whole["margin"] = np.full(len(examples), np.nan)
        whole["margin"][known] = output_margin(outputs[known], labels[known])
    if whole:
        yield example_rows(examples, whole, settings=plan.settings("margin"), place=place)
    if "depth" in plan.measures:
        labels_by_layer = np.stack([found[Task(layer, "depth")]["knn_label"] for layer in plan.layers])
        depths = _depths(labels_by_layer, answers, examples)
        yield example_rows(examples, depths, settings=plan.settings("depth"), place=place)
    if plan.training:
        yield from _dynamics_rows(plan, acts, examples, place)
    for measure in [name for name in ("depth", *_LOADS) if name in plan.measures]:
        for layer in plan.layers:
            values = dict(found[Task(layer, measure)])
            flag = str(values.pop("flag", ""))
            of = np.isfinite(values[measure]) if measure in _LOADS else np.ones(len(examples), bool)
            rows = {name: array[of] for name, array in values.items()}
            settings = plan.settings(measure)
            yield example_rows(examples[of], rows, layer=layer, flag=flag, settings=settings, place=place)


def _dynamics_rows(
    plan: ExamplesPlan, acts: Activations, examples: pd.DataFrame, place: Mapping[str, Any]
) -> Iterator[pd.DataFrame]:
    """Rows of the training's dynamics; of an example that was not learned with the flag for it."""
    assert plan.training is not None
    found = dynamics_of(examples, record_for(acts, RunFolder(plan.training)))
    settings = plan.settings("dynamics") | found.settings
    yield example_rows(examples, found.values, settings=settings, place=place)
    for metric, values in found.values.items():
        never = found.recorded & np.isnan(values)
        if never.any():
            rows = {metric: values[never]}
            yield example_rows(examples[never], rows, flag="not_learned", settings=settings, place=place)


def _answers(plan: ExamplesPlan, acts: Activations) -> np.ndarray:
    """Answers of the network to each example; -1 where they are not known."""
    if not plan.outputs:
        return np.full(len(plan.rows), -1)
    return acts.rows(plan.outputs, plan.rows).argmax(axis=1)


def _depths(by_layer: np.ndarray, answers: np.ndarray, examples: pd.DataFrame) -> dict[str, np.ndarray]:
    trained = _voters(examples)
    true, train = (examples[name].to_numpy(np.int64) for name in ("true_label", "train_label"))
    memorized = settled_from(by_layer == train).astype(float)
    memorized[~trained] = np.nan
    depths = {"prediction_depth": settled_from(by_layer == answers)} if (answers >= 0).all() else {}
    return {**depths, "memorization_depth": memorized, "last_true_layer": last_layer(by_layer == true)}


def examples_table(
    source: object, *, n_jobs: Workers | int = 1, progress: bool = False, **choices: Any
) -> pd.DataFrame:
    """Depth, margin, neighbours and loads of single examples, as a tidy table.

    ``source`` is the plan, or the activations or the path of a file, for which ``choices`` are the arguments of
    :func:`plan_examples`, which also tells what is raised; columns are those of :mod:`manigeo.per_example.table`. Baldock,
    Maennel & Neyshabur (2021) for the depths, with k = 30.

    >>> rng = np.random.default_rng(0)
    >>> acts = Activations.from_arrays({"V1": rng.normal(size=(3, 20, 8)) + 4 * rng.normal(size=(3, 1, 8))})
    >>> table = examples_table(acts, k=5, measures=["depth"])
    >>> table.groupby("metric", observed=True)["value"].count().to_dict()["purity"]
    60
    """
    plan = plan_of(ExamplesPlan, plan_examples, source, choices)
    workers = Processes(n_jobs) if isinstance(n_jobs, int) else n_jobs
    tasks, found = plan.tasks, {}
    with bar(len(tasks), "examples", "task", shown=progress) as told:
        for number, values in workers.as_completed(_compute, [(plan, task) for task in tasks]):
            found[tasks[number]] = values
            told.update()
    with opened(plan.held or plan.path) as acts:
        return join_examples(list(_tables(plan, acts, found)))

"""Plans for all activations of a network: which measures of which layers and kinds, on which examples.

A task is one measure of one layer and kind. Of a file it carries names, and whoever does it opens the file; activations in
memory go with it, those of its layer alone. So tasks run in any process, and a number depends neither on the number of
workers nor on where activations are, nor on the other layers, kinds and measures asked for. All measures of a layer and
kind are computed together, from a sample that is read once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd

from manigeo.activations import Activations, opened
from manigeo.capacity.nulls import NULLS, Mapped, gaussian_cloud, shuffled_rows
from manigeo.capacity.projection import project_manifolds
from manigeo.errors import InputError, UsageError, check_choice
from manigeo.faces.results import html_table
from manigeo.inputs import whole_number
from manigeo.kinds import TRAINED
from manigeo.layerwise.points import LabelledPoints
from manigeo.layerwise.protocol import Measure, kind_key
from manigeo.layerwise.registry import SEPARABILITY, measure
from manigeo.layerwise.sample import (
    PROJECTION_KEY,
    check_sample,
    draw_classes,
    obstacle,
    select_kinds,
    select_layers,
    shared_classes,
    task_bytes,
)
from manigeo.manifolds import ALL_KINDS, UNSEEN, matched_size, sample_rows, training_rows
from manigeo.randomness import stream
from manigeo.vocabulary import flags_words

_HALVES, _NULL, _TRAINING = crc32(b"halves"), crc32(b"null"), crc32(b"train")
# Samples times features times the smaller of the two: up to here total dimension takes seconds, above it minutes.
_SPECTRUM_COST = 1e11


class Task(NamedTuple):
    """One measure of one layer and kind."""

    layer: str
    kind: str
    measure: str


@dataclass(frozen=True, repr=False)
class Plan:
    """Plan of a table: the layers and kinds of a file, the measures, and the number of examples per class.

    ``classes`` are the labels of each kind's classes; ``excluded`` holds a flag for each kind that cannot be measured.
    ``limited_by`` names the kind and class that set ``per_class`` (None: the cap did). ``sampling`` stands in the settings
    of all rows: the seed, and for capacities the number of random directions. ``wide`` are layers whose total dimension
    would take long, and is left out. ``features`` are numbers of features by layer. ``lacking`` are classes that no kind is
    measured on, each with a kind that has fewer than two examples of it. ``held`` are the activations, where they are in no
    file at ``path``, and ``other`` the activations, or the path of their file, that they are compared with.
    """

    title: str
    path: str
    fingerprint: str
    class_names: tuple[str, ...]
    features: Mapping[str, int]
    classes: Mapping[str, tuple[int, ...]]
    excluded: Mapping[str, str]
    per_class: int
    limited_by: tuple[str, int] | None
    measures: tuple[Measure, ...]
    sampling: Mapping[str, Any]
    wide: tuple[str, ...] = ()
    lacking: Mapping[int, str] = field(default_factory=dict)
    held: Activations | None = field(default=None, repr=False, compare=False)
    other: Activations | str | None = field(default=None, repr=False, compare=False)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that can be measured."""
        return tuple(kind for kind in self.classes if kind not in self.excluded)

    @property
    def n_classes(self) -> int:
        """The largest number of classes of a kind."""
        return max(map(len, self.classes.values()))

    @property
    def seed(self) -> int:
        return int(self.sampling["seed"])

    @property
    def tasks(self) -> list[Task]:
        places = [
            (layer, kind, m.name) for layer in self.layers for kind in self.classes for m in self.measures
            if self._is_of(m, kind)
        ]  # fmt: skip
        return [Task(*place) for place in places if not (place[2] == "spectrum" and place[0] in self.wide)]

    @property
    def task_bytes(self) -> int:
        """Bytes that the largest task takes, at most."""
        most = self.sampling.get("project")
        n = max(self.per_class, *(m.training for m in self.measures)) * self.n_classes
        return max(task_bytes(n, min(f, most or f)) for f in self.features.values())

    @property
    def seconds(self) -> float:
        """Rough time on one core."""
        places = [(kind, len(self.classes[kind]), f) for kind in self.kinds for f in self.features.values()]
        shapes = [(kind, self.per_class * P, f, P) for kind, P, f in places]
        products = sum(4e-11 * n**2 * f for _, n, f, _ in shapes if f > n)
        return products + sum(
            m.seconds(n, min(n, f), P) for kind, n, f, P in shapes for m in self.measures if self._is_of(m, kind)
        )

    @property
    def table(self) -> pd.DataFrame:
        """One row per task: layer, kind, measure; features, classes and examples per class."""
        sizes = [(self.features[layer], len(self.classes[kind]), self.per_class) for layer, kind, _ in self.tasks]
        columns = [*Task._fields, "features", "n_classes", "per_class"]
        return pd.DataFrame([(*task, *size) for task, size in zip(self.tasks, sizes, strict=True)], columns=columns)

    def __repr__(self) -> str:
        what = f"{len(self.layers)} layers x {len(self.kinds)} kinds ({', '.join(self.kinds)})"
        size = f"P = {self.n_classes} classes x M = {self.per_class} examples"
        return f"<Plan of {self.title} of {self.path}: {what}, {size}, {len(self.tasks)} tasks>"

    def _repr_html_(self) -> str:
        lines = [
            ("layers", ", ".join(f"{name} ({n})" for name, n in self.features.items())),
            ("kinds", ", ".join(self.kinds)),
            ("classes P", str(self.n_classes)),
            ("examples per class M", str(self.per_class)),
            ("measures", ", ".join(m.name for m in self.measures)),
        ]
        notes = [f"{kind} is left out: {flags_words(flag)}" for kind, flag in self.excluded.items()]
        return html_table(f"Plan of {self.title} of {self.path}", lines, notes)

    def measure(self, name: str) -> Measure:
        (found,) = (m for m in self.measures if m.name == name)
        return found

    @staticmethod
    def _is_of(m: Measure, kind: str) -> bool:
        """Return whether a measure is of this kind: one that is fitted on the training set is of test examples alone."""
        return not m.training or kind == "test"

    def of_layer(self, name: str) -> "Plan":
        """The plan as a task of this layer needs it: without what is held of the others."""
        held = self.held if self.held is None else self.held.only([name])
        other = self.other.only([name]) if isinstance(self.other, Activations) else self.other
        return replace(self, held=held, other=other)

    def beside(self, other: Activations) -> "Plan":
        """The plan with other activations of the same examples."""
        return replace(self, other=other if other.path is None else other.name)

    def sharing(self, kind: str) -> list[str]:
        """The other kinds of the file that are measured on the same classes."""
        same = [other for other in ALL_KINDS if self.classes.get(other) == self.classes[kind]]
        return [other for other in same if other != kind and other not in self.excluded]

    def settings(self, m: Measure, kind: str, per_class: int | None = None, trained_on: str = "") -> str:
        """The settings of a row, as JSON."""
        sample = {"per_class": per_class or self.per_class, "n_classes": len(self.classes[kind]), **self.sampling}
        origin = {"trained_on": trained_on} if trained_on else {}
        return json.dumps({"analysis": m.name} | sample | asdict(m) | origin, sort_keys=True)  # type: ignore[call-overload]

    def all_settings(self, m: Measure, kind: str) -> list[str]:
        """Settings of the rows that a task has of its own kind."""
        return [self.settings(m, kind, size) for size in m.examples or (self.per_class,)]

    def sample(
        self, acts: Activations, layer: str, kind: str, per_class: int | None = None, needs: Sequence[str] = ()
    ) -> LabelledPoints:
        labels, per_class = self.classes[kind], per_class or self.per_class
        images = list(sample_rows(acts.examples, kind, per_class, self.seed, labels).values())
        found = self._sample(acts, layer, labels, images, kind_key(kind), needs)
        if len(acts.outcomes) and not acts.unscored:
            found.right = acts.outcomes[found.images, 0] == np.repeat(labels, per_class)
        return found

    def training(self, acts: Activations, layer: str, most: int) -> LabelledPoints:
        """The training set on the classes of test examples, grouped by the labels that were trained on; of an empty class
        no points."""
        labels = self.classes["test"]
        rows = list(training_rows(acts.examples, labels, most, self.seed).values())
        return self._sample(acts, layer, labels, rows, _TRAINING, ("standardised",))

    def _sample(
        self,
        acts: Activations,
        layer: str,
        labels: Sequence[int],
        rows: Sequence[np.ndarray],
        key: int,
        needs: Sequence[str],
    ) -> LabelledPoints:
        if self.sampling.get("null") == "shuffled":
            rows = shuffled_rows(rows, stream(self.seed, key, _NULL))
        clouds: Sequence[np.ndarray] = acts.clouds(layer, rows)
        if n_directions := self.sampling.get("project"):
            seed = np.random.SeedSequence(self.seed, spawn_key=(crc32(layer.encode()), PROJECTION_KEY))
            clouds = project_manifolds(clouds, n_directions, seed)
        if self.sampling.get("null") == "gaussian":
            made = Mapped(clouds, lambda i, X: gaussian_cloud(X, stream(self.seed, key, _NULL, labels[i])))
            clouds = list(made) if isinstance(clouds, list) else made
        names, sizes = [self.class_names[label] for label in labels], [len(of_class) for of_class in rows]
        trained = acts.examples["split"].isin(TRAINED)
        return LabelledPoints(
            clouds, np.concatenate(rows), names, sizes, stream(self.seed, key, _HALVES), needs,
            n_trained=acts.examples["train_label"][trained].nunique(),
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- planning
def plan_capacity(
    source: object,
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[str] = (),
    per_class: int | None = None,
    n_classes: int | None = None,
    kappa: float = 0.0,
    n_draws: int = 300,
    centers: str = "auto",
    bootstrap: int = 0,
    errors: str = "auto",
    also: Sequence[Measure] = (),
    total_dimension: bool | None = None,
    project: int | None = None,
    seed: int = 0,
    null: str | None = None,
) -> Plan:
    """Look at activations, or at a file of them, and say what would be computed: layers (globs), kinds, points per class.

    ``per_class`` defaults to the largest number that every kind has for every class, up to 50; ``n_classes`` to all, else
    so many are drawn by ``seed``: fewer manifolds keep joint and simulated capacity out of saturation. Mean field is always
    computed; ``also`` are other measures of :mod:`manigeo.layerwise.geometry`. Total dimension is computed where it takes
    seconds (None), of every layer (True) or of none (False). Layers of more features than ``project`` are projected on so
    many random directions, the same for all kinds. ``null`` is ``"shuffled"`` or ``"gaussian"``, for a null model
    (:mod:`manigeo.capacity.nulls`) in place of the data.

    Raises :class:`~manigeo.errors.UsageError` for a pattern that matches no layer, a kind that is not in the file, or more
    classes, or points per class, than there are, and for ``centers`` and ``errors`` that
    :func:`~manigeo.capacity.mean_field.manifold_capacity` does not have.

    >>> labels = np.repeat([0, 1, 2], 10)
    >>> responses = np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]
    >>> acts = Activations.from_arrays({"h1": responses}, labels)
    >>> plan = plan_capacity(acts, layers=["h*"])
    >>> plan.layers, plan.kinds, plan.per_class
    (('h1',), ('all',), 10)
    """
    if not (isinstance(kappa, Real) and np.isfinite(kappa)):
        raise UsageError(f"the margin kappa must be a finite number, got {kappa!r}")
    n_draws = whole_number(n_draws, "n_draws", 0)
    mean_field = measure(
        "mean_field", kappa=kappa, n_draws=n_draws, centers=centers, bootstrap=bootstrap, errors=errors
    )
    spectrum = [] if total_dimension is False else [measure("spectrum")]
    with opened(source) as acts:
        wanted = select_kinds(acts, kinds, [kind for kind in acts.kinds if kind != UNSEEN] or acts.kinds)
        if UNSEEN in wanted and len(wanted) > 1:
            raise UsageError(
                f"{UNSEEN} examples are of other classes than {', '.join(kind for kind in wanted if kind != UNSEEN)}, and "
                f"capacities of other classes do not compare: give --kinds {UNSEEN} alone"
            )
        sampling = {"project": project, "seed": seed} | _null_setting(null)
        plan = planned("capacity", acts, layers, wanted, per_class, n_classes, (mean_field, *spectrum, *also), sampling)
        largest = max((max(m.examples) for m in also if m.examples), default=None)
        check_sample(acts, plan.kinds, plan.classes[wanted[0]], "--sweep-examples", largest)
    n, most = plan.per_class * plan.n_classes, project or max(plan.features.values())
    costs = {name: n * (f := min(width, most)) * min(n, f) for name, width in plan.features.items()}
    wide = () if total_dimension else tuple(name for name, cost in costs.items() if cost > _SPECTRUM_COST)
    return replace(plan, wide=wide)


def _null_setting(null: str | None) -> dict[str, str]:
    """The setting that tells the rows of a null model from those of the data."""
    if null is None:
        return {}
    check_choice("null", null, NULLS)
    return {"null": null}


def plan_separability(
    source: object,
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[str] = (),
    per_class: int | None = None,
    n_classes: int | None = None,
    measures: Sequence[Measure] | None = None,
    seed: int = 0,
    null: str | None = None,
) -> Plan:
    """Look at activations, or at a file of them, and say what would be computed: layers (globs), kinds, examples per class.

    Kinds of the same classes are measured on those that they share (:func:`~manigeo.layerwise.sample.shared_classes`),
    unseen classes beside them on their own; all have the same number of examples per class. ``per_class`` defaults to the
    largest number that every kind has for each of its classes, up to 50; ``n_classes`` to all of a kind, else so many are
    drawn by ``seed``. ``measures`` default to all of :mod:`manigeo.layerwise.separability`. ``null`` is ``"shuffled"`` or
    ``"gaussian"``, for a null model (:mod:`manigeo.capacity.nulls`) in place of the data.

    Raises :class:`~manigeo.errors.UsageError` for a pattern that matches no layer, a kind that is not in the file, or more
    classes, or examples per class, than there are; :class:`~manigeo.errors.InputError` where no kind can be measured.

    >>> labels = np.repeat([0, 1, 2], 10)
    >>> responses = np.random.default_rng(0).normal(size=(30, 5)) + labels[:, None]
    >>> acts = Activations.from_arrays({"h1": responses}, labels)
    >>> plan = plan_separability(acts, layers=["h*"])
    >>> plan.layers, plan.classes, plan.per_class
    (('h1',), {'all': (0, 1, 2)}, 10)
    """
    chosen = tuple(map(measure, SEPARABILITY) if measures is None else measures)
    if strange := [m for m in chosen if not isinstance(m, Measure)]:
        raise UsageError(
            f"measures must be made by manigeo.layerwise.registry.measure(NAME), got {strange[0]!r}; NAME is one of "
            f"{', '.join(SEPARABILITY)}"
        )
    with opened(source) as acts:
        wanted = select_kinds(acts, kinds, acts.kinds)
        plan = planned(
            "separability", acts, layers, wanted, per_class, n_classes, chosen, {"seed": seed} | _null_setting(null)
        )
    if not plan.tasks:
        raise UsageError(
            f"{chosen[0].name} is measured on test examples, which are not among {', '.join(wanted)}: add the kind test, "
            "or leave this measure out"
        )
    return plan


def planned(
    title: str,
    acts: Activations,
    layers: Sequence[str],
    kinds: Sequence[str],
    per_class: int | None,
    n_classes: int | None,
    measures: tuple[Measure, ...],
    sampling: Mapping[str, Any],
    among: Sequence[str] | None = None,
) -> Plan:
    """Plan all kinds on the classes that they share, at the largest number of examples per class that each kind has, up to
    50; of layers those ``among`` these names, or all."""
    names = acts.class_names
    whole_number(sampling["seed"], "seed", 0)
    for name, given in {"per_class": per_class, "n_classes": n_classes}.items():
        if given is not None:
            whole_number(given, name, 0)
    shared = shared_classes(acts.examples, kinds)
    classes = {kind: draw_classes(acts, labels, n_classes, sampling["seed"]) for kind, labels in shared.labels.items()}
    sizes = {kind: matched_size(acts.examples, [kind], per_class or 50, labels) for kind, labels in classes.items()}
    excluded = {kind: obstacle(shared.too_small.get(kind, ()), classes[kind], names) for kind in kinds}
    measurable = [kind for kind in kinds if not excluded[kind]]
    if not measurable:
        reasons = "; ".join(f"{kind}: {flag}" for kind, flag in excluded.items())
        raise InputError(f"{acts.name} has no kind of two classes or more with 2 examples or more each ({reasons})")
    smallest = min((sizes[kind] for kind in measurable), key=lambda size: size.per_class)
    for kind in measurable:
        check_sample(acts, [kind], classes[kind], "--per-class", per_class)
    return Plan(
        title, acts.name, acts.fingerprint, names,
        {name: acts.layer(name).n_features for name in select_layers(acts, layers) if among is None or name in among},
        classes,
        {kind: flag for kind, flag in excluded.items() if flag}, smallest.per_class, smallest.limited_by, measures, sampling,
        lacking=shared.lacking, held=acts if acts.path is None else None,
    )  # fmt: skip

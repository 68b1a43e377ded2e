"""Similarity of a layer in two files of activations of the same examples, such as those of two epochs, for every kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from manigeo.activations import Activations, opened
from manigeo.errors import InputError, UsageError
from manigeo.execution.workers import Workers
from manigeo.layerwise.plan import Plan, planned
from manigeo.layerwise.points import LabelledPoints
from manigeo.layerwise.protocol import AGAINST, Measure, Others, Row, nothing
from manigeo.layerwise.sample import select_kinds
from manigeo.layerwise.tables import plan_of, plan_parts
from manigeo.results import in_order, join_results
from manigeo.similarity import FEWEST, representation_similarity


@dataclass(frozen=True)
class Similarity(Measure):
    """CKA and angular Procrustes distance of the examples of a kind with themselves in the other activations."""

    name: ClassVar[str] = "similarity"
    metrics = ("cka", "procrustes_angle")

    def describe(self) -> str:
        return "CKA and angular Procrustes distance"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 2e-10 * n**2 * coordinates + 2e-9 * n * coordinates**2

    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        if len(sample.labels) < FEWEST:
            yield from nothing(self.metrics, f"fewer_than_{FEWEST}:{len(sample.labels)}")
            return
        r = representation_similarity(sample.points, others[AGAINST]().points)
        for metric in self.metrics:
            value = getattr(r, metric)
            n = r.n_points * bool(np.isfinite(value))
            yield {"metric": metric, "value": value, "stderr": getattr(r, f"{metric}_stderr"), "n": n, "flag": r.flag}


def plan_similarity(
    source: object,
    against: object,
    *,
    layers: Sequence[str] = (),
    kinds: Sequence[str] = (),
    per_class: int | None = None,
    n_classes: int | None = None,
    seed: int = 0,
) -> Plan:
    """Look at activations of the same examples in two files, or in memory, and say which of their layers would be compared.

    The layers are those that both have by name, of these the ones that a glob of ``layers`` matches; the other choices are
    those of :func:`~manigeo.layerwise.plan.plan_separability`.

    Raises :class:`~manigeo.errors.InputError` where the examples are not the same, or no layer is shared, and
    :class:`~manigeo.errors.UsageError` where both are the same activations, and as
    :func:`~manigeo.layerwise.plan.plan_separability` does.

    >>> X = np.random.default_rng(0).normal(size=(4, 10, 8))
    >>> one, two = (Activations.from_arrays({"V1": X, area: X}) for area in ("V2", "V4"))
    >>> plan_similarity(one, two).layers
    ('V1',)
    """
    with opened(source) as acts, opened(against) as other:
        _check_same_examples(acts, other)
        shared = [name for name in acts.layers if name in other.layers]
        if not shared:
            names = f"{', '.join(acts.layers)} and {', '.join(other.layers)}"
            raise InputError(
                f"{acts.name} and {other.name} have no layer in common ({names}): extract layers of one name"
            )
        place = {
            "against": other.fingerprint,
            "against_checkpoint": other.provenance.get("checkpoint", ""),
            "against_epoch": other.provenance.get("epoch"),
        }
        made = planned(
            "similarity", acts, layers, select_kinds(acts, kinds, acts.kinds), per_class, n_classes, (Similarity(),),
            {"seed": seed} | place, among=shared,
        )  # fmt: skip
        return made.beside(other)


def _check_same_examples(acts: Activations, other: Activations) -> None:
    if acts.fingerprint == other.fingerprint:
        raise UsageError(
            f"{acts.name} and {other.name} are the same activations: name those of another checkpoint or seed"
        )
    if not acts.examples.equals(other.examples) or acts.class_names != other.class_names:
        sizes = f"{len(acts.examples)} and {len(other.examples)}"
        raise InputError(
            f"{acts.name} and {other.name} do not hold the same examples with the same labels ({sizes}): extract both from "
            "one data set, with one --seed"
        )


def similarity_table(
    source: object, against: object = None, *, n_jobs: Workers | int = 1, progress: bool = False, **choices: Any
) -> pd.DataFrame:
    """CKA and angular Procrustes distance of every layer and kind of two files of activations, or of a plan.

    ``source`` and ``against`` are activations or paths of their files, with ``choices`` as in :func:`plan_similarity`;
    or ``source`` is the plan.

    Returns a results table (:mod:`manigeo.results`) with the metrics ``cka`` and ``procrustes_angle``; its rows are of
    ``source``, and their settings name the other. Raises what :func:`plan_similarity` does.

    >>> X = np.random.default_rng(0).normal(size=(4, 10, 8))
    >>> one, two = Activations.from_arrays({"V1": X}), Activations.from_arrays({"V1": X @ np.eye(8)[::-1]})
    >>> table = similarity_table(one, two)
    >>> table["value"].round(6).tolist()
    [1.0, 0.0]
    """
    of_file = {} if isinstance(source, Plan) else {"against": against}
    plan = plan_of(Plan, plan_similarity, source, of_file | choices)
    return join_results(in_order(plan_parts(plan, n_jobs=n_jobs, progress=progress)))

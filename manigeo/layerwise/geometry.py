"""Measures of the manifolds of one layer and kind: from arrays to rows of the results table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from manigeo.capacity.joint import LABELS, JointCapacity, joint_capacity
from manigeo.capacity.mean_field import ERRORS, MEASURES, RULES, ManifoldCapacity, manifold_capacity
from manigeo.capacity.sampling import bootstrap_intervals, capacity_vs_M
from manigeo.capacity.simulated import simulated_capacity
from manigeo.capacity.theory import ball_capacity
from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.dimension import total_dimension
from manigeo.errors import check_choice
from manigeo.layerwise.points import LabelledPoints
from manigeo.layerwise.protocol import Measure, Others, Row

GLUE = ("dimension", "radius", "utility", "center_alignment", "axis_alignment", "center_axis_alignment")


@dataclass(frozen=True)
class MeanField(Measure):
    """Mean-field capacity, radius and dimension, with the floor and the capacity of balls of that radius and dimension;
    intervals over manifolds from ``bootstrap`` resamples, if any; standard errors by the method ``errors``."""

    kappa: float = 0.0
    n_draws: int = 300
    centers: str = "auto"
    bootstrap: int = 0
    errors: str = "auto"

    name: ClassVar[str] = "mean_field"
    metrics = MEASURES
    profiles = ("capacity", "radius", "dimension")

    def key(self, layer: str, kind: str) -> tuple[int, ...]:
        return super().key(layer, kind)[:2]  # of old, when there was no other measure

    def __post_init__(self) -> None:
        check_choice("centers", self.centers, RULES)
        check_choice("errors", self.errors, ERRORS)

    def describe(self) -> str:
        intervals = f", {self.bootstrap} bootstrap resamples of the manifolds" if self.bootstrap else ""
        return f"mean field, {self.n_draws} draws{intervals}"

    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        r = manifold_capacity(sample.manifolds, self.kappa, self.n_draws, self.centers, seed, errors=self.errors)
        common = {"n": r.n_manifolds, "flag": r.flag}
        for row in (
            *_mean_field_rows(r),
            *self._reference_rows(r, len(sample.manifolds[0])),
            *self._interval_rows(r, seed),
        ):
            yield common | row
        for name, manifold in zip(sample.classes, r.per_manifold.to_dict("records"), strict=True):
            common = {"manifold": name, "n": manifold["n_draws"], "flag": manifold["flag"]}
            for metric in ("capacity", "radius", "dimension"):
                yield common | {"metric": metric, "value": manifold[metric], "stderr": manifold[f"{metric}_stderr"]}

    def _reference_rows(self, r: ManifoldCapacity, n_points: int) -> Iterator[Row]:
        """References to read a capacity against: as many manifolds of M points without structure, and balls of the same
        radius and dimension."""
        floor = unstructured_capacity(n_points, self.kappa, len(r.per_manifold), self.centers)
        yield {"metric": "capacity_floor", "value": floor} | ({"flag": "margin"} if np.isnan(floor) else {})
        defined = np.isfinite([r.radius, r.dimension_prx]).all()
        ball = ball_capacity(r.radius, r.dimension_prx, self.kappa) if defined else np.nan
        yield {"metric": "capacity_ball", "value": ball}

    def _interval_rows(self, r: ManifoldCapacity, seed: np.random.SeedSequence) -> Iterator[Row]:
        if self.bootstrap:
            for name, (low, high) in bootstrap_intervals(
                r.per_manifold, self.bootstrap, seed=seed, stderr=r.stderr._asdict()
            ).items():
                yield {"metric": f"{name}_ci_low", "value": low}
                yield {"metric": f"{name}_ci_high", "value": high}


def _mean_field_rows(r: ManifoldCapacity) -> Iterator[Row]:
    for name in (*MEASURES, "center_correlation"):
        yield {"metric": name, "value": getattr(r, name), "stderr": getattr(r.stderr, name)}
    for name in ("center_correlation_residual", "center_rank", "interior_fraction", "rank", "residual"):
        yield {"metric": name, "value": getattr(r, name)}
    if np.isfinite(r.occupancy):
        yield {"metric": "occupancy", "value": r.occupancy}
        yield {"metric": "crossing", "value": r.crossing}
        yield {"metric": "metric_residual", "value": r.metric_residual}
    for name in MEASURES:
        yield {"metric": f"{name}_stderr_draws", "value": getattr(r.stderr_draws, name)}


@dataclass(frozen=True)
class Spectrum(Measure):
    """Total dimension of all samples together: participation ratio, and directions of 90 % of the variance."""

    name: ClassVar[str] = "spectrum"
    metrics = ("participation_ratio", "directions_90")

    def describe(self) -> str:
        return "total dimension"

    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        r = total_dimension(sample.manifolds, share=0.9)
        common = {"n": len(sample.manifolds), "flag": r.flag}
        yield common | {"metric": "participation_ratio", "value": r.participation_ratio}
        yield common | {"metric": "directions_90", "value": r.n_directions}


@dataclass(frozen=True)
class Simulated(Measure):
    """Capacity by the separability of random dichotomies, with the critical dimension N_c."""

    n_dichotomies: int = 200
    bias: bool = False

    name: ClassVar[str] = "simulated"
    metrics = ("capacity_simulated", "critical_dimension")

    def describe(self) -> str:
        return f"simulated, {self.n_dichotomies} dichotomies" + (", with a bias" if self.bias else "")

    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        r = simulated_capacity(sample.manifolds, self.n_dichotomies, bias=self.bias, seed=seed)
        common = {"n": r.n_manifolds, "flag": r.flag}
        yield common | {"metric": "capacity_simulated", "value": r.capacity, "stderr": r.stderr}
        yield common | {
            "metric": "critical_dimension",
            "value": r.critical_dimension,
            "stderr": r.critical_dimension_stderr,
        }


@dataclass(frozen=True)
class Joint(Measure):
    """Joint capacity and GLUE's measures; of each class, its part in the inverse capacity and what follows from it."""

    n_draws: int = 100
    labels: str = "random"

    name: ClassVar[str] = "joint"
    metrics = ("capacity_joint", *(f"{name}_joint" for name in GLUE))
    profiles = tuple(f"{name}_joint" for name in ("inverse_capacity", "capacity", "radius", "anchored"))

    def __post_init__(self) -> None:
        check_choice("labels", self.labels, LABELS)

    def describe(self) -> str:
        return f"joint, {self.n_draws} draws, {self.labels.replace('_', ' ')} labels"

    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        r = joint_capacity(sample.manifolds, self.n_draws, labels=self.labels, seed=seed)
        for row in _joint_rows(r):
            yield {"n": r.n_manifolds, "flag": r.flag} | row
        for name, manifold in zip(sample.classes, r.per_class.to_dict("records"), strict=True):
            common = {"manifold": name, "n": r.n_draws, "flag": r.flag}
            for metric in ("inverse_capacity", "capacity"):
                error = manifold[f"{metric}_stderr"]
                yield common | {"metric": f"{metric}_joint", "value": manifold[metric], "stderr": error}
            for metric in ("radius", "anchored"):
                yield common | {"metric": f"{metric}_joint", "value": manifold[metric]}


def _joint_rows(r: JointCapacity) -> Iterator[Row]:
    yield {"metric": "capacity_joint", "value": r.capacity, "stderr": r.stderr}
    for name in GLUE:
        yield {"metric": f"{name}_joint", "value": getattr(r, name), "stderr": getattr(r, f"{name}_stderr")}
    for name in ("saturated_fraction", "bound", "rank", "active_points", "residual", "identity_residual"):
        yield {"metric": f"{name}_joint", "value": getattr(r, name)}


@dataclass(frozen=True)
class Sweep(Measure):
    """Mean-field capacity, radius and dimension against the number of points M; smaller samples lie in larger ones."""

    sizes: tuple[int, ...]
    kappa: float = 0.0
    n_draws: int = 300
    centers: str = "auto"

    name: ClassVar[str] = "sweep"
    metrics = ("capacity_sweep", "radius_sweep", "dimension_sweep")

    def __post_init__(self) -> None:
        check_choice("centers", self.centers, RULES)

    @property
    def examples(self) -> tuple[int, ...]:
        return self.sizes

    def key(self, layer: str, kind: str) -> tuple[int, ...]:
        return super().key(layer, kind)[:2]  # that of mean field: what differs between them is the sample

    def describe(self) -> str:
        return f"mean field at M = {', '.join(map(str, self.sizes))}, {self.n_draws} draws"

    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        table = capacity_vs_M(sample.manifolds, self.sizes, self.kappa, self.n_draws, self.centers, seed)
        for at in table.to_dict("records"):
            common = {"per_class": at["M"], "n": at["n_manifolds"], "flag": at["flag"]}
            for name in ("capacity", "radius", "dimension"):
                error = at[f"{name}_stderr"]
                yield common | {"metric": f"{name}_sweep", "value": at[name], "stderr": error}

r"""Mean-field capacity, radius and dimension of many manifolds: from activations to frames, and aggregates with errors.

Stephenson et al. (2021), following Chung, Lee & Sompolinsky (2018) and Cohen et al. (2020): subtract the mean of all
samples, account for the directions that the manifolds share, express each manifold around its own centre in units of the
centre's norm, :math:`S = (X - x_0)/|x_0|`, and average over manifolds: capacity harmonically, the rest arithmetically.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from threadpoolctl import threadpool_limits

from manigeo.capacity.cavity import Cavity, cavity, centers_in_metric, grams_without
from manigeo.capacity.centers import center_correlation, low_rank_centers
from manigeo.capacity.crossing import crossing_ratio
from manigeo.capacity.geometry import (
    CENTER_RTOL,
    Cone,
    FrameGeometry,
    check_sampling,
    cone_geometries,
    cone_loads,
    halved_measures,
)
from manigeo.capacity.loads import AnchorLoads, mean_loads
from manigeo.capacity.pooled import Moments, around_centers, is_flat, moments
from manigeo.capacity.span import PooledPoints, pooled_points
from manigeo.capacity.uncertainty import (
    MEASURES,
    aggregates,
    jackknife_stderr,
    linear,
    stderr_over_draws,
    stderr_over_manifolds,
)
from manigeo.errors import check_choice
from manigeo.faces.results import Drawn
from manigeo.inputs import Manifolds, joined, take_manifolds
from manigeo.manifolds import RANK_RTOL, Clouds
from manigeo.randomness import Seed, seed_sequence, stream

# Points this near their centre are at it: the rounding of a mean in float64.
_POINT_RTOL = 1e-15

# Of the dimensions that there are: where manifolds want more, capacity was up to a tenth below simulation in 56 dimensions.
_NEARLY_ALL = 0.9
_GROUPS = 10  # of manifolds, left out one after the other; a manifold each where there are no more
_JACKKNIFE_UP_TO = 30  # manifolds, of errors="auto": with ten more metrics a layer takes twice as long
_JACKKNIFE_DRAWS = 80  # of a manifold, in halves: the same with and without a group, so that few tell the difference
_DATA_STREAM = 2_018_031_003  # of the sketch: what is seen of the data is theirs, and no other seed changes it

ERRORS = ("auto", "jackknife", "manifolds")


class Errors(NamedTuple):
    """Standard errors of the aggregates, in their units."""

    capacity: float
    radius: float
    dimension: float
    dimension_prx: float
    center_correlation: float


@dataclass(frozen=True, repr=False)
class ManifoldCapacity(Drawn):
    """Mean-field geometry of a set of manifolds.

    ``stderr`` takes manifolds as a sample of classes (it contains the error of the draws), by the jackknife or over
    manifolds (``errors``, see :func:`manifold_capacity`); ``stderr_draws`` is the error of the Gaussian draws alone. Of
    rule ``"auto"``, ``occupancy`` is the share of the dimensions that there are which the manifolds together want, on
    average over their dichotomies; ``crossing`` the number that separates half of the dichotomies by this average, which
    every capacity is divided by (:mod:`manigeo.capacity.crossing`); and ``metric_residual`` by how much the equations of
    the metric are missed, relative (NaN, 1 and NaN where no metric was needed). ``per_manifold`` has a row per manifold:
    the fields of :class:`~manigeo.capacity.geometry.FrameGeometry` and ``flag``, which tells why a row is NaN; aggregates
    are over the ``n_manifolds`` others, and ``flag`` repeats what was flagged. ``rank`` is the mean over manifolds,
    ``residual`` the largest relative KKT residual of any draw.
    """

    headline = ("capacity", "radius", "dimension", "center_correlation", "n_manifolds")

    capacity: float
    radius: float
    dimension: float
    dimension_prx: float
    center_correlation: float
    center_correlation_residual: float
    center_rank: int
    interior_fraction: float
    rank: float
    residual: float
    occupancy: float
    crossing: float
    metric_residual: float
    n_manifolds: int
    flag: str
    errors: str
    stderr: Errors
    stderr_draws: Errors
    per_manifold: pd.DataFrame

    def interval(self, measure: str = "capacity", confidence: float = 0.95) -> tuple[float, float]:
        r"""Interval of a measure over new classes and points, by Student's t.

        .. math:: \hat\theta \pm t_{k - 1}\, \mathrm{se}, \qquad k \text{ groups of manifolds, or manifolds}

        >>> rng = np.random.default_rng(0)
        >>> r = manifold_capacity([rng.standard_normal((10, 200)) for _ in range(8)], n_draws=100)
        >>> low, high = r.interval("radius")
        >>> low < r.radius < high
        True
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {confidence}; .95 is usual")
        n = min(self.n_manifolds, _GROUPS) if self.errors == "jackknife" else self.n_manifolds
        half = stdtrit(max(n - 1, 1), (1 + confidence) / 2) * getattr(self.stderr, measure)
        return float(getattr(self, measure) - half), float(getattr(self, measure) + half)


def manifold_capacity(
    manifolds: Manifolds,
    kappa: float = 0.0,
    n_draws: int = 300,
    centers: str = "auto",
    seed: Seed | None = None,
    *,
    errors: str = "auto",
    per_class: int | str | None = "smallest",
    nan: str = "raise",
    rng: Seed | None = None,
    solver: str = "pivoting",
) -> ManifoldCapacity:
    r"""Mean-field capacity, radius and dimension of a sequence of manifolds, arrays ``(points, features)`` of any origin.

    .. math:: \frac1\alpha = \frac1P \sum_\mu \frac1{\alpha_\mu},
              \qquad R = \frac1P\sum_\mu R_\mu,\quad D = \frac1P\sum_\mu D_\mu

    ``centers``: what is done about the directions that manifolds share. ``"auto"`` sees each in the metric that the others
    leave (:mod:`manigeo.capacity.cavity`), ``"reference"`` removes directions of the centres as the authors do
    (:mod:`manigeo.capacity.centers`), ``"keep"`` does nothing. Manifold ``mu`` draws from ``SeedSequence(seed)`` keyed by
    its position, so results do not depend on the other manifolds' draws; ``rng`` may take the place of ``seed``.

    M points have capacity 2/M or more: never compare manifolds of different M. ``per_class`` points of each are taken, by
    default as many as the smallest has; ``nan`` is ``"raise"`` or ``"drop"``; what is left out is flagged
    (:mod:`manigeo.inputs`).

    A manifold whose centre vanishes has no scale: NaN, flag ``zero_center``. One that no draw needs an anchor for has
    infinite capacity as far as the draws can tell: flag ``all_interior``; the harmonic mean takes it as it is.
    ``"auto"`` depends on the numerical span of the points alone, not on the number of features that it lies in, and on no
    seed: draws that are made of ``seed`` are those of the anchors. It flags ``saturated`` where the manifolds together want
    (nearly) more dimensions than the span has: they cannot be told apart in it, capacity is about P / rank or less, and all
    is seen in the metric of the pooled covariance, in which every point answers alike;
    ``near_saturation:share`` where they want more than nine tenths; and it is NaN, ``unsolved:residual``, where the
    equations have no solution that can be verified.

    ``errors``, of the rule ``"auto"``: ``"manifolds"`` takes manifolds as independent, although they are seen around one
    mean and in one metric; on rectified features of 10 classes these errors were .74 to .87 of the spread over new classes.
    ``"jackknife"`` leaves out one of ten groups of manifolds (or each, of up to ten) and makes mean and metric anew
    (.97 to 1.03 there, .85 to .90 of 5 classes; up to 1.6 for the radius where all manifolds share few axes), which takes
    two to three times as long; ``"auto"`` is the second for up to 30 manifolds (``tests/bench/coverage.py``). Of two
    manifolds no error is known: NaN.

    Returns a :class:`ManifoldCapacity`: capacity in manifolds per dimension, radius in units of the centre norm. Chung,
    Lee & Sompolinsky (2018), Phys. Rev. X 8, 031003; Stephenson et al. (2021).

    Raises ``ValueError`` for fewer than two manifolds, arrays that do not share their features, NaN or infinite entries.

    >>> rng = np.random.default_rng(0)
    >>> r = manifold_capacity([rng.standard_normal((20, 500)) for _ in range(30)], n_draws=100)
    >>> abs(r.capacity - 2 / 20) < 4 * r.stderr.capacity
    True
    """
    root = seed_sequence(seed, rng)
    taken, left_out = take_manifolds(manifolds, nan=nan, per_class=per_class, seed=root)
    check_sampling(kappa, n_draws)
    if centers not in RULES:
        raise ValueError(f"centers must be one of {RULES}, got {centers!r}")
    if errors not in ERRORS:
        raise ValueError(f"errors must be one of {ERRORS}, got {errors!r}")
    # Thousands of products of small matrices: one BLAS thread was ten times faster than two, and makes the result
    # independent of the number of cores.
    with threadpool_limits(limits=1, user_api="blas"):
        result = _mean_field(taken, _Draws(kappa, n_draws, root, solver), centers, errors)
    return replace(result, flag=joined(result.flag, left_out))


def manifold_loads(
    manifolds: Manifolds,
    n_draws: int = 300,
    centers: str = "auto",
    *,
    per_class: int | str | None = "all",
    seed: Seed | None = None,
    rng: Seed | None = None,
) -> AnchorLoads:
    r"""Part of every point in the inverse mean-field capacity of its manifold, from the manifold's own anchors.

    .. math:: \mathrm{load}_m = \langle \lambda_m\, z_m \cdot t \rangle, \qquad \sum_m \mathrm{load}_m = 1/\alpha_\mu

    Draws and conventions are those of :func:`manifold_capacity` with the same arguments, at margin 0. A manifold whose
    centre vanishes has NaN. Of dependent points (duplicates, or more points than dimensions around one draw) multipliers may
    be one choice of many, and so are the loads; their sums are unique.

    Raises ``ValueError`` as :func:`manifold_capacity` does.

    >>> clouds = [np.eye(6)[:3] + 1, np.eye(6)[3:] + [2, 0, 0, 0, 0, 0]]
    >>> loads = manifold_loads(clouds, n_draws=50)
    >>> capacities = manifold_capacity(clouds, n_draws=50).per_manifold["capacity"]
    >>> bool(np.allclose([part.sum() for part in loads.values], 1 / capacities, rtol=1e-12))
    True
    """
    root = seed_sequence(seed, rng)
    taken, left_out = take_manifolds(manifolds, per_class=per_class, seed=root)
    check_sampling(0.0, n_draws)
    check_choice("centers", centers, RULES)
    with threadpool_limits(limits=1, user_api="blas"):
        seen = _SEEN[centers](taken, moments(taken, stream(_DATA_STREAM)))
        drawn = [
            cone_loads(*cone, n_draws, rng=stream(root, mu))
            if cone and seen.solved
            else np.full((n_draws, len(X)), np.nan)
            for mu, (cone, X) in enumerate(zip(seen.cones, taken, strict=True))
        ]
    undefined = sum(cone is None for cone in seen.cones)
    flag = joined(f"zero_center:{undefined}" if undefined else "", _doubt(seen), left_out)
    return mean_loads(seen.crossing * np.hstack(drawn), [loads.shape[1] for loads in drawn], flag)


@dataclass(frozen=True)
class _Draws:
    """Settings by which anchors are drawn: for each manifold by its position, whatever the other manifolds are."""

    kappa: float
    n_draws: int
    seed: int | np.random.SeedSequence
    solver: str

    def table(self, cones: Sequence[Cone | None], positions: Iterable[int]) -> pd.DataFrame:
        """One row per manifold; NaN for one without a cone, whose centre vanishes."""
        defined = [(cone, stream(self.seed, mu)) for cone, mu in zip(cones, positions, strict=True) if cone]
        there, rngs = zip(*defined, strict=True) if defined else ((), ())
        geometries = iter(cone_geometries(there, self.kappa, self.n_draws, rngs=rngs, solver=self.solver))
        return pd.DataFrame([_row(next(geometries) if cone else None) for cone in cones])

    def halved(self, cones: Sequence[Cone | None], positions: Iterable[int]) -> np.ndarray:
        """Measures by either half of a few draws of the manifolds that have a cone, (manifolds, 2, measures)."""
        there, rngs = zip(
            *((cone, stream(self.seed, mu)) for cone, mu in zip(cones, positions, strict=True) if cone), strict=True
        )
        return halved_measures(there, self.kappa, min(self.n_draws, _JACKKNIFE_DRAWS), rngs=rngs, solver=self.solver)


def _mean_field(manifolds: Clouds, draws: _Draws, centers: str, errors: str) -> ManifoldCapacity:
    pooled = moments(manifolds, stream(_DATA_STREAM))
    rho, rho_stderr = center_correlation(pooled.centers)
    seen = _SEEN[centers](manifolds, pooled)
    table = draws.table(seen.cones, range(len(manifolds)))
    table[["capacity", "capacity_stderr"]] /= seen.crossing
    flag = _flag(table, seen)
    if not seen.solved:
        table[[*MEASURES, *(f"{name}_stderr" for name in MEASURES)]] = np.nan
        table["flag"] = table["flag"].where(table["flag"] == "zero_center", "unsolved")
    defined = table[table["flag"] != "zero_center"]
    if errors == "auto":
        errors = "jackknife" if 2 < len(defined) <= _JACKKNIFE_UP_TO else "manifolds"
    jackknife = errors == "jackknife" and seen.inside is not None and seen.solved and len(defined) > 2
    over_classes = stderr_over_manifolds(defined)
    if jackknife:
        over_classes = _jackknife(seen, defined, draws)
    return ManifoldCapacity(
        **aggregates(defined),
        center_correlation=rho,
        center_correlation_residual=seen.correlation,
        center_rank=seen.rank,
        interior_fraction=float(defined["interior_fraction"].mean()),
        rank=float(defined["rank"].mean()),
        residual=float(defined["residual"].max()),
        occupancy=seen.inside.occupancy if seen.inside else np.nan,
        crossing=seen.crossing,
        metric_residual=seen.inside.residual if seen.inside else np.nan,
        n_manifolds=len(defined),
        flag=flag,
        errors="jackknife" if jackknife else "manifolds",
        stderr=Errors(**over_classes, center_correlation=rho_stderr),
        stderr_draws=Errors(**stderr_over_draws(defined), center_correlation=0.0),
        per_manifold=table,
    )


@dataclass(frozen=True)
class _Seen:
    """Manifolds as their cones are seen after a rule for the centres, None for one whose centre vanishes; how correlated
    centres still are, how many directions are gone; and of the manifolds in a metric, the points and the metric."""

    cones: list[Cone | None]
    correlation: float
    rank: int
    points: PooledPoints | None = None
    inside: Cavity | None = None
    crossing: float = 1.0

    @property
    def saturated(self) -> bool:
        return self.inside is not None and self.inside.saturated

    @property
    def solved(self) -> bool:
        return self.inside is None or self.inside.solved or self.inside.saturated


def _with_correlations(manifolds: Clouds, pooled: Moments) -> _Seen:
    """Each manifold in the metric that the others leave; where nothing is shared that is the space as it is."""
    if is_flat(pooled):
        return _as_they_are(manifolds, pooled)
    points = pooled_points(manifolds, pooled)
    inside = cavity(points)
    correlation, rank = centers_in_metric(points, inside)
    cones = [_along_and_sideways(K) for K in inside.grams]
    seen = _Seen(_defined(cones, pooled), correlation, rank, points, inside)
    return replace(seen, crossing=crossing_ratio(points, inside) if seen.solved else np.nan)


def _without_shared_directions(manifolds: Clouds, pooled: Moments) -> _Seen:
    structure = low_rank_centers(pooled.centers)
    V = structure.directions
    along_V = (Y @ V for Y in around_centers(manifolds, pooled))
    squares = np.square(pooled.centers).sum(axis=1) - np.square(pooled.centers @ V).sum(axis=1)
    cones = [
        _around_center(gram - B @ B.T, square) for gram, B, square in zip(pooled.grams, along_V, squares, strict=True)
    ]
    return _Seen(_defined(cones, pooled), structure.correlation_after, structure.rank)


def _as_they_are(manifolds: Clouds, pooled: Moments) -> _Seen:
    squares = np.square(pooled.centers).sum(axis=1)
    cones = [_around_center(gram, square) for gram, square in zip(pooled.grams, squares, strict=True)]
    return _Seen(_defined(cones, pooled), center_correlation(pooled.centers)[0], 0)


_SEEN = {"auto": _with_correlations, "reference": _without_shared_directions, "keep": _as_they_are}
RULES = tuple(_SEEN)


def _defined(cones: Sequence[Cone], pooled: Moments) -> list[Cone | None]:
    """Replace a cone by None where the centre is the rounding of a mean, and by a single point where the spread is."""
    has_center = np.linalg.norm(pooled.centers, axis=1) > CENTER_RTOL * np.sqrt(pooled.mean_squares)
    squares = np.array([np.trace(gram) / len(gram) for gram in pooled.grams])
    has_spread = squares > _POINT_RTOL**2 * pooled.mean_squares
    return [
        (cone if spread else _single_point(len(cone[0]))) if center else None
        for cone, center, spread in zip(cones, has_center, has_spread, strict=True)
    ]


def _jackknife(seen: _Seen, table: pd.DataFrame, draws: _Draws) -> dict[str, float]:
    """Standard errors from the values of the ``table`` and from how those of the others change, by either half of a few
    draws, without each group of manifolds, every tenth in one; those of the draws where the halves agree on none."""
    points, inside = seen.points, seen.inside
    assert points is not None
    assert inside is not None
    there = [mu for mu, cone in enumerate(seen.cones) if cone]
    groups = [there[first::_GROUPS] for first in range(min(_GROUPS, len(there)))]
    everyone, *without = grams_without(points, inside, groups)

    def measured(kept: Iterable[int], grams: Sequence[np.ndarray]) -> np.ndarray:
        at = list(kept)
        return draws.halved([_like(seen.cones[mu], K) for mu, K in zip(at, grams, strict=True)], at)

    whole, moved = measured(range(len(seen.cones)), everyone), []
    for group, grams in zip(groups, without, strict=True):
        left = measured((mu for mu in range(len(seen.cones)) if mu not in group), grams)
        moved.append((left - whole[[mu not in group for mu in there]]).mean(axis=0))
    changes = np.stack(moved, axis=1) * [seen.crossing, 1, 1, 1]  # of 1/alpha, which the crossing multiplies
    places = [[there.index(mu) for mu in group] for group in groups]
    errors, drawn = jackknife_stderr(linear(table), changes, places), stderr_over_draws(table)
    return {name: error or drawn[name] for name, error in errors.items()}


def _like(cone: Cone | None, K: np.ndarray) -> Cone | None:
    """The cone of the Gram matrix K: none, or a single point, where among all manifolds it is one."""
    return cone and (_along_and_sideways(K) if cone[0].any() else _single_point(len(K) - 1))


def _flag(table: pd.DataFrame, seen: _Seen) -> str:
    """Flags of the manifolds, with counts, and of the metric."""
    counts = table.loc[table["flag"] != "", "flag"].value_counts()
    flags = [f"{flag}:{count}" for flag, count in sorted(counts.items())]
    return joined(*flags, _doubt(seen))


def _doubt(seen: _Seen) -> str:
    """The flag of the metric, empty where it is solved and has room."""
    if seen.inside and any(seen.cones):
        if seen.saturated:
            return "saturated"
        if not seen.solved:
            return f"unsolved:{seen.inside.residual:.2g}"
        if seen.inside.occupancy > _NEARLY_ALL:
            return f"near_saturation:{seen.inside.occupancy:.2f}"
    return ""


def _around_center(gram: np.ndarray, square: float) -> Cone:
    """Build a cone from inner products around the centre and its squared norm; the centre has its own direction."""
    return (gram / square, np.ones(len(gram))) if square > 0 else _single_point(len(gram))


def _single_point(M: int) -> Cone:
    return np.zeros((M, M)), np.ones(M)


def _along_and_sideways(K: np.ndarray) -> Cone:
    """Build a cone from inner products of the points around their centre and, last, of the centre."""
    around, along, square = K[:-1, :-1], K[:-1, -1], K[-1, -1]
    if square <= 0:
        return _single_point(len(around))
    sideways = around - np.outer(along, along) / square
    # points that all lie along the centre leave the rounding of a difference
    noise = np.trace(sideways) <= RANK_RTOL * np.trace(around)
    return (np.zeros_like(around) if noise else sideways / square), 1 + along / square


def _row(geometry: FrameGeometry | None) -> dict[str, object]:
    if geometry is None:
        return dict.fromkeys(FrameGeometry.__dataclass_fields__, np.nan) | {"flag": "zero_center"}
    return vars(geometry) | {"flag": "" if np.isfinite(geometry.capacity) else "all_interior"}

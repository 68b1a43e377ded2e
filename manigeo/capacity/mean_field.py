r"""Mean-field capacity, radius and dimension of many manifolds: from activations to frames, and aggregates with errors.

Stephenson et al. (2021), following Chung, Lee & Sompolinsky (2018) and Cohen et al. (2020): subtract the mean of all
samples, account for the directions that the manifolds share, express each manifold around its own centre in units of the
centre's norm, :math:`S = (X - x_0)/|x_0|`, and average over manifolds: capacity harmonically, the rest arithmetically.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from manigeo.capacity.cavity import cavity, centers_in_metric
from manigeo.capacity.centers import center_correlation, low_rank_centers
from manigeo.capacity.geometry import CENTER_RTOL, FrameGeometry, check_sampling, cone_geometry
from manigeo.capacity.pooled import Moments, around_centers, is_flat, moments, pooled_points
from manigeo.capacity.streams import Seed, seed_sequence, stream
from manigeo.inputs import Manifolds, joined, take_manifolds
from manigeo.manifolds import RANK_RTOL

# Points this near their centre are at it: the rounding of a mean in float64.
_POINT_RTOL = 1e-15

MEASURES = ("capacity", "radius", "dimension", "dimension_prx")


class Errors(NamedTuple):
    """Standard errors of the aggregates, in their units."""

    capacity: float
    radius: float
    dimension: float
    dimension_prx: float
    center_correlation: float


@dataclass(frozen=True)
class ManifoldCapacity:
    """Mean-field geometry of a set of manifolds.

    ``stderr`` takes manifolds as a sample of classes (it contains the error of the draws); ``stderr_draws`` is the error
    of the Gaussian draws alone. ``per_manifold`` has a row per manifold: the fields of
    :class:`~manigeo.capacity.geometry.FrameGeometry` and ``flag``, which says why a row is NaN; aggregates are over the
    ``n_manifolds`` others, and ``flag`` repeats what was flagged. ``rank`` is the mean over manifolds, ``residual`` the
    largest relative KKT residual of any draw.
    """

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
    n_manifolds: int
    flag: str
    stderr: Errors
    stderr_draws: Errors
    per_manifold: pd.DataFrame


def manifold_capacity(
    manifolds: Manifolds,
    kappa: float = 0.0,
    n_draws: int = 300,
    centers: str = "auto",
    seed: Seed | None = None,
    *,
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
    ``"auto"`` flags ``saturated`` where the manifolds together want more dimensions than the layer has: they cannot be
    told apart in it, and the numbers say how they would lie in a wider one.

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
    # Thousands of products of small matrices: one BLAS thread was ten times faster than two, and makes the result
    # independent of the number of cores.
    with threadpool_limits(limits=1, user_api="blas"):
        result = _mean_field(taken, kappa, n_draws, centers, root, solver)
    return replace(result, flag=joined(result.flag, left_out))


def _mean_field(
    manifolds: Sequence[np.ndarray],
    kappa: float,
    n_draws: int,
    centers: str,
    seed: int | np.random.SeedSequence,
    solver: str,
) -> ManifoldCapacity:
    rng = stream(seed, len(manifolds))  # manifolds have their positions as keys
    pooled = moments(manifolds, rng)
    rho, rho_stderr = center_correlation(pooled.centers)
    seen = _SEEN[centers](manifolds, pooled, rng)
    has_center = np.linalg.norm(pooled.centers, axis=1) > CENTER_RTOL * np.sqrt(pooled.mean_squares)
    cones = [
        cone if spread else _single_point(len(gram))
        for cone, spread, gram in zip(seen.cones, _has_spread(pooled), pooled.grams, strict=True)
    ]
    rows = [
        _row(cone_geometry(*cone, kappa, n_draws, rng=stream(seed, mu), solver=solver) if has_center[mu] else None)
        for mu, cone in enumerate(cones)
    ]
    table = pd.DataFrame(rows)
    defined = table[table["flag"] != "zero_center"]
    counts = table.loc[table["flag"] != "", "flag"].value_counts()
    flags = [f"{flag}:{count}" for flag, count in sorted(counts.items())]
    return ManifoldCapacity(
        **_aggregates(defined),
        center_correlation=rho,
        center_correlation_residual=seen.correlation,
        center_rank=seen.rank,
        interior_fraction=float(defined["interior_fraction"].mean()),
        rank=float(defined["rank"].mean()),
        residual=float(defined["residual"].max()),
        n_manifolds=len(defined),
        flag=";".join([*flags, "saturated"] if seen.saturated and len(defined) else flags),
        stderr=Errors(**_stderr_over_manifolds(defined), center_correlation=rho_stderr),
        stderr_draws=Errors(**_stderr_over_draws(defined), center_correlation=0.0),
        per_manifold=table,
    )


class _Seen(NamedTuple):
    """Manifolds as their cones are seen after a rule for the centres: inner products (sideways, along) of each, see
    :func:`~manigeo.capacity.geometry.cone_geometry`; how correlated centres still are, how many directions are gone, and
    whether the manifolds want more dimensions than there are."""

    cones: list[tuple[np.ndarray, np.ndarray]]
    correlation: float
    rank: int
    saturated: bool = False


def _with_correlations(manifolds: Sequence[np.ndarray], pooled: Moments, rng: np.random.Generator) -> _Seen:
    """Each manifold in the metric that the others leave; where nothing is shared that is the space as it is."""
    if is_flat(pooled):
        return _as_they_are(manifolds, pooled, rng)
    points = pooled_points(manifolds, pooled)
    inside = cavity(points, rng)
    correlation, rank = centers_in_metric(points, inside)
    return _Seen([_along_and_sideways(K) for K in inside.grams], correlation, rank, inside.saturated)


def _without_shared_directions(manifolds: Sequence[np.ndarray], pooled: Moments, rng: np.random.Generator) -> _Seen:
    structure = low_rank_centers(pooled.centers)
    V = structure.directions
    along_V = (Y @ V for Y in around_centers(manifolds, pooled))
    squares = np.square(pooled.centers).sum(axis=1) - np.square(pooled.centers @ V).sum(axis=1)
    cones = [
        _around_center(gram - B @ B.T, square) for gram, B, square in zip(pooled.grams, along_V, squares, strict=True)
    ]
    return _Seen(cones, structure.correlation_after, structure.rank)


def _as_they_are(manifolds: Sequence[np.ndarray], pooled: Moments, rng: np.random.Generator) -> _Seen:
    squares = np.square(pooled.centers).sum(axis=1)
    cones = [_around_center(gram, square) for gram, square in zip(pooled.grams, squares, strict=True)]
    return _Seen(cones, center_correlation(pooled.centers)[0], 0)


_SEEN = {"auto": _with_correlations, "reference": _without_shared_directions, "keep": _as_they_are}
RULES = tuple(_SEEN)


def _around_center(gram: np.ndarray, square: float) -> tuple[np.ndarray, np.ndarray]:
    """From inner products around the centre and its squared norm; the centre has a direction of its own."""
    return (gram / square, np.ones(len(gram))) if square > 0 else _single_point(len(gram))


def _single_point(M: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((M, M)), np.ones(M)


def _has_spread(pooled: Moments) -> np.ndarray:
    squares = np.array([np.trace(gram) / len(gram) for gram in pooled.grams])
    return squares > _POINT_RTOL**2 * pooled.mean_squares


def _along_and_sideways(K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From inner products of the points around their centre and, last, of the centre."""
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
    return asdict(geometry) | {"flag": "" if np.isfinite(geometry.capacity) else "all_interior"}


def _aggregates(table: pd.DataFrame) -> dict[str, float]:
    means = {name: float(table[name].mean()) for name in MEASURES[1:]}
    return {"capacity": _reciprocal(_inverse(table).mean())} | means


def _inverse(table: pd.DataFrame) -> pd.Series:
    return 1.0 / table["capacity"].astype(float)


def _reciprocal(x: float) -> float:
    return float(1.0 / x) if x else np.inf


def _error_of_reciprocal(x: float, error: float) -> float:
    """Delta method: the error of 1/x is that of x over x squared."""
    return float(error / x**2) if x else np.nan


def _stderr_over_manifolds(table: pd.DataFrame) -> dict[str, float]:
    """Spread over manifolds by the square root of their number; capacity through 1/alpha (delta method)."""
    errors = {name: float(table[name].sem()) for name in MEASURES[1:]}
    inverse = _inverse(table)
    return {"capacity": _error_of_reciprocal(inverse.mean(), inverse.sem())} | errors


def _stderr_over_draws(table: pd.DataFrame) -> dict[str, float]:
    """Draws of different manifolds are independent: errors add in squares."""

    def of_mean(errors: pd.Series) -> float:
        return float(np.sqrt(np.square(errors).sum()) / len(errors)) if len(errors) else np.nan

    inverse = _inverse(table)
    errors = {name: of_mean(table[f"{name}_stderr"]) for name in MEASURES[1:]}
    return {"capacity": _error_of_reciprocal(inverse.mean(), of_mean(table["capacity_stderr"] * inverse**2))} | errors

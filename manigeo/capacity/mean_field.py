r"""Mean-field capacity, radius and dimension of many manifolds: from activations to frames, and aggregates with errors.

Stephenson et al. (2021), following Chung, Lee & Sompolinsky (2018) and Cohen et al. (2020): subtract the mean of all
samples, project out the directions that the centres share, express each manifold around its own centre in units of the
centre's norm, :math:`S = (X - x_0)/|x_0|`, and average over manifolds: capacity harmonically, the rest arithmetically.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from manigeo.capacity.centers import center_correlation, low_rank_centers
from manigeo.capacity.geometry import FrameGeometry, frame_geometry
from manigeo.manifolds import class_means, global_mean

# A centre this small against its points is the rounding of their mean in float32; radii would be a million and more.
_CENTER_RTOL = 1e-6

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
    manifolds: Sequence[np.ndarray],
    kappa: float = 0.0,
    n_draws: int = 300,
    centers: str = "auto",
    seed: int | np.random.SeedSequence = 0,
) -> ManifoldCapacity:
    r"""Mean-field capacity, radius and dimension of a sequence of manifolds, arrays ``(points, features)``.

    .. math:: \frac1\alpha = \frac1P \sum_\mu \frac1{\alpha_\mu},
              \qquad R = \frac1P\sum_\mu R_\mu,\quad D = \frac1P\sum_\mu D_\mu

    ``centers``: how shared directions of the centres are removed, see :mod:`manigeo.capacity.centers`. Manifold ``mu``
    draws from ``SeedSequence(seed)`` keyed by its position, so results do not depend on the other manifolds' draws.
    M points have capacity 2/M or more: never compare manifolds of different M.

    A manifold whose centre vanishes has no scale: NaN, flag ``zero_center``. One that no draw needs an anchor for has
    infinite capacity as far as the draws can tell: flag ``all_interior``; the harmonic mean takes it as it is.

    Raises ``ValueError`` for fewer than two manifolds, arrays that do not share their features, NaN or infinite entries.

    >>> rng = np.random.default_rng(0)
    >>> r = manifold_capacity([rng.standard_normal((20, 500)) for _ in range(30)], n_draws=100)
    >>> abs(r.capacity - 2 / 20) < 4 * r.stderr.capacity
    True
    """
    manifolds = [np.asarray(X) for X in manifolds]
    _check_manifolds(manifolds)
    # Thousands of products of small matrices: one BLAS thread was ten times faster than two, and makes the result
    # independent of the number of cores.
    with threadpool_limits(limits=1, user_api="blas"):
        return _mean_field(manifolds, kappa, n_draws, centers, seed)


def _mean_field(
    manifolds: Sequence[np.ndarray],
    kappa: float,
    n_draws: int,
    centers: str,
    seed: int | np.random.SeedSequence,
) -> ManifoldCapacity:
    mean = global_mean(manifolds)
    means = class_means(manifolds)
    rho, rho_stderr = center_correlation(means)
    structure = low_rank_centers(means, centers, rng=_generator(seed, len(manifolds)))
    rows = []
    for mu, X in enumerate(manifolds):
        S = _frame(X, mean, structure.directions)
        rows.append(_row(None if S is None else frame_geometry(S, kappa, n_draws, rng=_generator(seed, mu))))
    table = pd.DataFrame(rows)
    defined = table[table["flag"] != "zero_center"]
    flags = table.loc[table["flag"] != "", "flag"].value_counts()
    return ManifoldCapacity(
        **_aggregates(defined),
        center_correlation=rho,
        center_correlation_residual=structure.correlation_after,
        center_rank=structure.rank,
        interior_fraction=float(defined["interior_fraction"].mean()),
        rank=float(defined["rank"].mean()),
        residual=float(defined["residual"].max()),
        n_manifolds=len(defined),
        flag=";".join(f"{flag}:{count}" for flag, count in sorted(flags.items())),
        stderr=Errors(**_stderr_over_manifolds(defined), center_correlation=rho_stderr),
        stderr_draws=Errors(**_stderr_over_draws(defined), center_correlation=0.0),
        per_manifold=table,
    )


def _generator(seed: int | np.random.SeedSequence, key: int) -> np.random.Generator:
    """The randomness of one manifold (its position) or of the centres (their number): independent of all others."""
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, key)))


def _check_manifolds(manifolds: Sequence[np.ndarray]) -> None:
    if len(manifolds) < 2:
        raise ValueError(f"capacity is about two or more manifolds, got {len(manifolds)}")
    features = {X.shape[1] for X in manifolds if X.ndim == 2}
    if len(features) != 1 or any(X.ndim != 2 or len(X) == 0 for X in manifolds):
        raise ValueError(
            f"manifolds are (points, features) arrays with equal features, got {[X.shape for X in manifolds]}"
        )
    if not all(np.isfinite(X).all() for X in manifolds):
        raise ValueError("manifolds hold NaN or infinite entries")


def _frame(
    X: np.ndarray, mean: np.ndarray, directions: Float[np.ndarray, "features rank"]
) -> Float[np.ndarray, "points features"] | None:
    """The manifold around its centre, in centre norms; None where the centre vanishes."""
    centred = X - mean
    projected = centred - (centred @ directions) @ directions.T
    center = projected.mean(axis=0)
    norm, scale = np.linalg.norm(center), np.sqrt(np.square(X, dtype=np.float64).sum(axis=1).mean())
    if norm <= _CENTER_RTOL * scale:
        return None
    return (projected - center) / norm


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

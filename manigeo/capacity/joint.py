r"""Joint capacity: all manifolds at once, labels included, so that their correlations need no removal and no rule.

Chou et al. (2024), "Geometry linked to untangling efficiency (GLUE)". The mean of all samples is subtracted; for a
Gaussian :math:`t` in the points' span and labels :math:`y`, the draw is projected on the cone of the signed points,

.. math:: \alpha^{-1} = \frac1P\, \mathrm{E}_{t, y} \big|\mathrm{proj}(t)\big|^2, \qquad
          \mathrm{proj}(t) = \sum_\mu y_\mu m_\mu s_\mu ,

where :math:`m_\mu` is the mass (sum of multipliers) of manifold :math:`\mu` and :math:`s_\mu` its anchor, the average of
its points with the multipliers as weights (zero where there is no mass). Random labels have both signs: those of one sign
span the whole space, whatever the manifolds are, since their points add up to zero (:mod:`manigeo.capacity.dichotomies`).
What the anchors show beyond the capacity is in :mod:`manigeo.capacity.glue`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from threadpoolctl import threadpool_limits

from manigeo.capacity.cone import Projection, UnitPoints, project_on_cone
from manigeo.capacity.dichotomies import random_dichotomy
from manigeo.capacity.glue import (
    Draws,
    MeanAnchors,
    Pairs,
    alignments,
    glue_measures,
    identity_residual,
    measure_draw,
    per_class,
)
from manigeo.capacity.loads import AnchorLoads, mean_loads
from manigeo.faces.results import Drawn
from manigeo.inputs import Manifolds, in_range, joined, take_manifolds
from manigeo.manifolds import (
    class_means,
    global_mean,
    gram_coordinates,
    principal_directions,
)
from manigeo.randomness import Seed, seed_sequence, stream

LABELS = ("random", "one_vs_rest")
POINTS = ("all", "centers", "axes")

_LABEL_STREAM, _DRAW_STREAM = 0, 1  # spawn keys: draws are the same whatever the labels
_BLOCK = 10  # draws a task; fixed, so that sums over draws are the same for any number of jobs
_FEATURES_AT_ONCE = 4096
_KKT_RTOL = 1e-9
_IDENTITY_RTOL = 1e-6  # a, from a pseudo-inverse, keeps half of float64's digits
_DEAD_RTOL = 1e-12  # spread below this share of the activations is the rounding of their mean


@dataclass(frozen=True, repr=False)
class JointCapacity(Drawn):
    r"""Joint capacity and geometry of a set of manifolds, each number with its standard error over draws (jackknife).

    ``dimension``, ``radius`` and ``utility`` are GLUE's D, R and U; alignments are means of :class:`Pairs` over different
    manifolds. ``saturated_fraction`` is the share of draws that lie in the cone, because their labels cannot be separated
    or nearly so; capacity cannot fall below ``bound`` = P/rank, and where half of the draws or more are ``saturated``
    that bound, not the manifolds, sets it. ``residual``: the largest relative KKT residual over all points and draws.
    ``identity_residual``: by how much :math:`U(1 + R^{-2})/D` differs from the capacity, relative.

    ``per_class``, a row per manifold: ``inverse_capacity``, mean of :math:`y_\mu m_\mu s_\mu \cdot t`, whose mean over
    manifolds is :math:`1/\alpha`, so that the largest limit it; ``capacity``, its reciprocal; ``anchored``, the share of
    draws with mass; ``radius``, the anchors' spread around their mean by its norm, over those draws.
    ``flag`` tells why numbers are NaN (``no_spread``) or in doubt (``saturated``, ``uncertified``, ``identity``).
    """

    headline = ("capacity", "radius", "dimension", "n_manifolds", "saturated")

    capacity: float
    dimension: float
    radius: float
    utility: float
    center_alignment: float
    axis_alignment: float
    center_axis_alignment: float
    stderr: float
    dimension_stderr: float
    radius_stderr: float
    utility_stderr: float
    center_alignment_stderr: float
    axis_alignment_stderr: float
    center_axis_alignment_stderr: float
    saturated: bool
    saturated_fraction: float
    bound: float
    rank: int
    active_points: float
    residual: float
    identity_residual: float
    n_manifolds: int
    n_draws: int
    flag: str
    per_class: pd.DataFrame
    per_pair: Pairs


def joint_capacity(
    manifolds: Manifolds,
    n_draws: int = 100,
    *,
    labels: str = "random",
    points: str = "all",
    per_class: int | str | None = "smallest",
    nan: str = "raise",
    seed: Seed | None = None,
    rng: Seed | None = None,
    n_jobs: int = 1,
) -> JointCapacity:
    r"""Joint capacity and GLUE geometry of a sequence of manifolds, arrays ``(points, features)`` of any origin.

    .. math:: \alpha = P \,/\, \mathrm{E}_{t, y} |\mathrm{proj}(t)|^2

    ``labels``: ``"random"``, uniform among the :math:`2^P - 2` labellings that have both signs, or ``"one_vs_rest"``, each
    manifold in turn against all others; with two or three manifolds these are the same. ``points``: ``"all"``;
    ``"centers"``, each manifold its mean alone, so that only correlations of centres limit capacity; ``"axes"``, centres
    turned orthogonal to each other and to all axes at equal norms, so that only the manifolds' extents and their
    correlations do. The result is the same for any ``n_jobs``, and does not depend on rotations and scale of the features.

    Points in general position have capacity :math:`P (2^P - 2) / (P (2^{P-1} - 2) + 1)`, which is 2 for many, while there
    are enough features, and P/N where there are not: then the result is ``saturated``. M points per manifold without
    structure have :func:`~manigeo.capacity.unstructured.unstructured_capacity`. The mean of all samples is one of P
    directions, and centres lose it: capacity is about 1/P below that of theories which keep it (1.0 % on the 80 correlated
    clouds of Wakhloo et al. 2023, where the rest of the difference, 0 to 2 %, is within two standard errors). A layer whose
    samples are all equal gives NaN, flag ``no_spread``.

    ``per_class``: points of each manifold, by default as many as the smallest has; ``nan``: ``"raise"`` or ``"drop"``; what
    is left out is flagged. ``seed`` or ``rng`` draws, seed 0 without either (:mod:`manigeo.inputs`).

    Returns a :class:`JointCapacity`, in manifolds per dimension. Chou et al. (2024).

    Raises ``ValueError`` for fewer than two manifolds, arrays that do not share their features, NaN or infinite entries,
    fewer than two draws, and labels or points that are none of the above.

    >>> r = joint_capacity([row[None] for row in np.eye(20)], n_draws=400)
    >>> abs(r.capacity - 2.0) < 4 * r.stderr
    True
    """
    root = seed_sequence(seed, rng)
    taken, left_out = take_manifolds(manifolds, nan=nan, per_class=per_class, seed=root, held=True)
    _check_request(n_draws, labels, points)
    with threadpool_limits(limits=1, user_api="blas"):  # bits then do not depend on the number of cores
        sample = _sample(*_view(in_range(taken)[0], points))
        if sample is None:
            return _undefined(len(taken), n_draws, joined("no_spread", left_out))
        result = _joint(sample, _Randomness(root, labels), n_draws, n_jobs)
    return replace(result, flag=joined(result.flag, left_out))


def _check_request(n_draws: int, labels: str, points: str) -> None:
    if labels not in LABELS or points not in POINTS:
        raise ValueError(f"labels must be one of {LABELS} and points one of {POINTS}, got {labels!r} and {points!r}")
    if n_draws < 2:
        raise ValueError(f"n_draws must be 2 or more, for a standard error, got {n_draws}")


def _view(manifolds: Sequence[np.ndarray], points: str) -> tuple[list[np.ndarray], Float[np.ndarray, " features"]]:
    """The manifolds that are looked at, and what is to be subtracted from them."""
    mean = global_mean(manifolds)
    if points == "all":
        return list(manifolds), mean
    centers = class_means(manifolds)
    if points == "centers":
        return list(centers[:, None]), mean
    own = np.diag(np.linalg.norm(centers - mean, axis=1))  # a direction for each centre alone
    axes = [np.hstack([X - c, np.tile(e, (len(X), 1))]) for X, c, e in zip(manifolds, centers, own, strict=True)]
    return axes, np.zeros(axes[0].shape[1])


@dataclass(frozen=True)
class _Sample:
    """All points in coordinates of their span, with the manifold each belongs to. Points at the mean constrain nothing
    and are left out. ``whitening``: g in as many dimensions as points becomes t = whitening * (points' g), Gaussian in
    the span, and the same for rotated features whatever signs the eigenvectors have. ``kept``: which of all points."""

    points: Float[np.ndarray, "points rank"]
    norms: Float[np.ndarray, " points"]
    owner: Int[np.ndarray, " points"]
    whitening: Float[np.ndarray, " rank"]
    unit: UnitPoints
    n_manifolds: int
    kept: Bool[np.ndarray, " all_points"]


def _sample(manifolds: Sequence[np.ndarray], mean: Float[np.ndarray, " features"]) -> _Sample | None:
    spread = float(np.sqrt(np.mean([np.square(X - mean).sum(axis=1).mean() for X in manifolds])))
    if spread <= _DEAD_RTOL * np.linalg.norm(mean):
        return None
    points = _span(manifolds, mean, spread)
    norms = np.linalg.norm(points, axis=1)
    keep = norms > _DEAD_RTOL
    owner = np.repeat(np.arange(len(manifolds)), [len(X) for X in manifolds])[keep]
    points, norms = points[keep], norms[keep]
    whitening = 1 / np.linalg.norm(points, axis=0)  # its columns are orthogonal
    return _Sample(points, norms, owner, whitening, UnitPoints.of(points / norms[:, None]), len(manifolds), keep)


def _span(
    manifolds: Sequence[np.ndarray], mean: Float[np.ndarray, " features"], unit: float
) -> Float[np.ndarray, "points rank"]:
    """The points minus ``mean``, in ``unit``, on the principal axes of their span: from the features where these are
    fewer than the points, else from the Gram, added up over blocks of features."""
    n, width = sum(len(X) for X in manifolds), len(mean)
    if width <= n:
        Z = _columns(manifolds, mean, unit, slice(None))
        return Z @ principal_directions(Z)[0]
    gram = np.zeros((n, n))
    for start in range(0, width, _FEATURES_AT_ONCE):
        Z = _columns(manifolds, mean, unit, slice(start, start + _FEATURES_AT_ONCE))
        gram += Z @ Z.T
    return gram_coordinates(gram)


def _columns(manifolds: Sequence[np.ndarray], mean: np.ndarray, unit: float, columns: slice) -> np.ndarray:
    return (np.concatenate([X[:, columns] for X in manifolds]) - mean[columns]) / unit


class _Randomness(NamedTuple):
    """Labels and Gaussian of draw i, each from its own stream."""

    seed: int | np.random.SeedSequence
    labels: str

    def signs(self, i: int, n_manifolds: int) -> Float[np.ndarray, " manifolds"]:
        if self.labels == "random":
            return random_dichotomy(stream(self.seed, _LABEL_STREAM, i), n_manifolds)
        order = stream(self.seed, _LABEL_STREAM).permutation(n_manifolds)
        return np.where(np.arange(n_manifolds) == order[i % n_manifolds], 1.0, -1.0)

    def gaussian(self, i: int, sample: _Sample) -> Float[np.ndarray, " rank"]:
        g = stream(self.seed, _DRAW_STREAM, i).standard_normal(len(sample.points))
        return sample.whitening * (g @ sample.points)


class _Solved(NamedTuple):
    """A draw: its labels, its Gaussian, its projection."""

    signs: np.ndarray
    t: np.ndarray
    projection: Projection


def _solve(sample: _Sample, randomness: _Randomness, i: int) -> _Solved:
    signs, t = randomness.signs(i, sample.n_manifolds), randomness.gaussian(i, sample)
    return _Solved(signs, t, project_on_cone(sample.unit, signs[sample.owner], t))


def _anchors(
    sample: _Sample, projection: Projection
) -> tuple[Float[np.ndarray, "manifolds rank"], Float[np.ndarray, " manifolds"]]:
    """Anchors S, a zero row for a manifold without mass, and the masses."""
    active = projection.active
    weights = np.zeros((sample.n_manifolds, len(active)))
    weights[sample.owner[active], np.arange(len(active))] = projection.multipliers / sample.norms[active]
    mass = weights.sum(axis=1)
    return weights / np.where(mass > 0, mass, 1.0)[:, None] @ sample.points[active], mass


def _joint(sample: _Sample, randomness: _Randomness, n_draws: int, n_jobs: int) -> JointCapacity:
    blocks = [range(start, min(start + _BLOCK, n_draws)) for start in range(0, n_draws, _BLOCK)]
    with joblib.Parallel(n_jobs=n_jobs) as parallel:
        first = parallel(joblib.delayed(_solve_block)(sample, randomness, block) for block in blocks)
        solved = [draw for draws, _, _ in first for draw in draws]
        mean = sum(total for _, total, _ in first) / n_draws
        rms = np.sqrt(sum(squares for _, _, squares in first) / n_draws)
        anchors = MeanAnchors(mean, np.where(rms > 0, rms, 1.0), n_draws)
        second = parallel(
            joblib.delayed(_measure_block)(sample, anchors, [solved[i] for i in block]) for block in blocks
        )
    draws = Draws(*(np.concatenate(column) for column in zip(*(rows for rows, _ in second), strict=True)))
    pairs = Pairs(*(sum(parts) / n_draws for parts in zip(*(pairs for _, pairs in second), strict=True)))
    return _result(sample, solved, anchors, draws, pairs)


def _solve_block(
    sample: _Sample, randomness: _Randomness, block: range
) -> tuple[list[_Solved], np.ndarray, np.ndarray]:
    """Solved draws, the sum of their anchors and of the anchors' squared norms."""
    with threadpool_limits(limits=1, user_api="blas"):
        solved = [_solve(sample, randomness, i) for i in block]
        anchors = [_anchors(sample, draw.projection)[0] for draw in solved]
    return solved, np.sum(anchors, axis=0), np.sum([np.square(S).sum(axis=1) for S in anchors], axis=0)


def _measure_block(sample: _Sample, anchors: MeanAnchors, solved: list[_Solved]) -> tuple[Draws, Pairs]:
    with threadpool_limits(limits=1, user_api="blas"):
        measured = [_measure(sample, anchors, draw) for draw in solved]
    rows = Draws(*(np.stack(column) for column in zip(*(draw for draw, _ in measured), strict=True)))
    return rows, Pairs(*(np.sum(parts, axis=0) for parts in zip(*(pairs for _, pairs in measured), strict=True)))


def _measure(sample: _Sample, anchors: MeanAnchors, draw: _Solved) -> tuple[Draws, Pairs]:
    S, mass = _anchors(sample, draw.projection)
    return measure_draw(anchors, S, mass * draw.signs, draw.t)


def _result(sample: _Sample, solved: list[_Solved], anchors: MeanAnchors, draws: Draws, pairs: Pairs) -> JointCapacity:
    P, rank = sample.n_manifolds, sample.points.shape[1]
    measures = glue_measures(draws)
    identity = identity_residual(measures)
    measures |= alignments(draws, pairs)
    errors = {f"{name}_stderr": error for name, (_, error) in measures.items()}
    residual = max(draw.projection.residual for draw in solved)
    inside = float(np.mean([draw.projection.inside for draw in solved]))
    return JointCapacity(
        **{name: value for name, (value, _) in measures.items()},
        stderr=errors.pop("capacity_stderr"),
        **errors,
        saturated=inside >= 0.5,
        saturated_fraction=inside,
        bound=P / rank,
        rank=rank,
        active_points=float(np.mean([len(draw.projection.active) for draw in solved])),
        residual=residual,
        identity_residual=identity,
        n_manifolds=P,
        n_draws=len(solved),
        flag=_flag(inside, residual, identity),
        per_class=per_class(draws, anchors),
        per_pair=pairs,
    )


def joint_loads(
    manifolds: Manifolds,
    n_draws: int = 100,
    *,
    labels: str = "random",
    per_class: int | str | None = "all",
    seed: Seed | None = None,
    rng: Seed | None = None,
    n_jobs: int = 1,
) -> AnchorLoads:
    r"""Part of every point in the inverse joint capacity: how much of it its multipliers take.

    .. math:: \mathrm{load}_i = \mathrm{E}\, \lambda_i\, a_i \cdot t, \qquad
              \sum_{i \in \mu} \mathrm{load}_i = 1/\alpha_\mu, \qquad \sum_i \mathrm{load}_i = P/\alpha

    :math:`a_i` is the signed point and :math:`\lambda_i \ge 0` its multiplier in the projection of t on their cone. Draws
    are those of :func:`joint_capacity` with the same arguments; ``per_class`` is all points unless it is asked otherwise.
    A load may be negative: it is a part of a sum, not a length. Of dependent points (duplicates, or where the layer is
    saturated) multipliers are one choice of many, and so are the loads; their sums are unique.

    Raises ``ValueError`` as :func:`joint_capacity` does.

    >>> clouds = [np.eye(4)[:2], np.eye(4)[2:]]
    >>> loads = joint_loads(clouds, n_draws=50)
    >>> bool(np.isclose(sum(map(np.sum, loads.values)), 2 / joint_capacity(clouds, n_draws=50).capacity, rtol=1e-12))
    True
    """
    root = seed_sequence(seed, rng)
    taken, left_out = take_manifolds(manifolds, per_class=per_class, seed=root, held=True)
    _check_request(n_draws, labels, "all")
    sizes = [len(X) for X in taken]
    with threadpool_limits(limits=1, user_api="blas"):
        sample = _sample(*_view(in_range(taken)[0], "all"))
        if sample is None:
            return mean_loads(np.full((1, sum(sizes)), np.nan), sizes, joined("no_spread", left_out))
        randomness = _Randomness(root, labels)
        with joblib.Parallel(n_jobs=n_jobs) as parallel:
            drawn = parallel(joblib.delayed(_draw_loads)(sample, randomness, i) for i in range(n_draws))
    inside = float(np.mean([projection.inside for _, projection in drawn]))
    residual = max(projection.residual for _, projection in drawn)
    flag = _flag(inside, residual, identity=0.0)
    return mean_loads(np.stack([loads for loads, _ in drawn]), sizes, joined(flag, left_out))


def _draw_loads(
    sample: _Sample, randomness: _Randomness, i: int
) -> tuple[Float[np.ndarray, " all_points"], Projection]:
    """The loads of all points in one draw, zero for those without a multiplier."""
    with threadpool_limits(limits=1, user_api="blas"):
        signs, t, projection = _solve(sample, randomness, i)
    active = projection.active
    loads = np.zeros(len(sample.kept))
    fields = signs[sample.owner[active]] * (sample.unit.points[active] @ t)
    loads[np.flatnonzero(sample.kept)[active]] = projection.multipliers * fields
    return loads, projection


def _flag(inside: float, residual: float, identity: float) -> str:
    doubts = {
        "saturated": inside >= 0.5,
        "uncertified": residual > _KKT_RTOL,
        "identity": not identity <= _IDENTITY_RTOL,
    }
    return ";".join(name for name, holds in doubts.items() if holds)


def _undefined(n_manifolds: int, n_draws: int, flag: str) -> JointCapacity:
    nothing: dict[str, Any] = dict.fromkeys((field.name for field in fields(JointCapacity)), np.nan)
    defined = {"saturated": False, "rank": 0, "n_manifolds": n_manifolds, "n_draws": n_draws, "flag": flag}
    columns = ("inverse_capacity", "inverse_capacity_stderr", "capacity", "capacity_stderr", "anchored", "radius")
    table = pd.DataFrame(np.nan, index=range(n_manifolds), columns=columns)
    pairs = Pairs(*(np.full((n_manifolds, n_manifolds), np.nan) for _ in Pairs._fields))
    return JointCapacity(**(nothing | defined | {"per_class": table, "per_pair": pairs}))

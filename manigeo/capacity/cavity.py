r"""Capacity of correlated manifolds: the metric in which a manifold sees the space that the others leave.

Mean-field theory takes the directions of different manifolds as independent. In a network they share many, of centres and
of axes. The cavity argument keeps the theory: the other manifolds act on one through their linear response alone. With
the points :math:`Z_\mu` of manifold :math:`\mu` as rows, the mean of all removed,

.. math:: H = \Big(q + \sum_\mu Z_\mu^\top W_\mu Z_\mu\Big)^{-1}, \qquad
          K_\mu = Z_\mu H_{\setminus\mu} Z_\mu^\top, \qquad
          \chi_\mu = \Big\langle \frac{\partial a}{\partial b} \Big\rangle_{b \sim N(0, K_\mu)}, \qquad
          W_\mu = \chi_\mu (1 - K_\mu \chi_\mu)^{-1} .

:math:`a \ge 0` are the multipliers of the projection of a Gaussian draw, with fields b, on the cone of the manifold's
points. A draw answers a change of its fields through its active points B alone, :math:`\partial a/\partial b =
(K_{BB})^{-1}` there and zero elsewhere; :math:`W_\mu` is that answer without the manifold's action on itself.
:math:`H_{\setminus\mu}` leaves :math:`\mu` out of the sum, and capacity, radius and dimension of :math:`\mu` are those of
the Gram matrix :math:`K_\mu`, as if it were alone. The scale q is free, since cones have none; every round sets it so that
H is used as much as the manifolds together have degrees of freedom,

.. math:: \mathrm{tr}\,(1 - qH) = \sum_\mu \mathrm{tr}\,\chi_\mu K_\mu .

For Gaussian correlations the replica method leads to the same picture: Wakhloo, Sussman & Chung (2023), Phys. Rev. Lett.
131, 027301. Directions beyond the leading ones (see :mod:`manigeo.capacity.pooled`) share one length.

Degrees of freedom are a mean over dichotomies, from which :mod:`manigeo.capacity.crossing` finds the number of dimensions
that simulated capacity counts. In 92 samples of layers of eight networks (10 to 30 classes, ``tests/bench/real_layers.py``)
this lies within 1.4 % of simulation on average, 5 % in all but one, 6.4 % at worst. On 22 layers of three networks (10 to
100 classes), without the crossing, it was 1.6 % off; the authors' removal of directions of the centres is 10 % off, 5 % from
thirty classes on, and no removal 55 % too high. No criterion for how many directions to remove (parallel analysis,
permutation null, elbows, least or penalised correlation) came below 7.8 %, and the best number of each layer in hindsight
does no better than this. On planted directions all but the last agree with the closed form to 1 %. The comparison is in
``notebooks/centers.ipynb``.

The points around their centre and the centre itself are carried as separate rows, :math:`Z = T F` with
:math:`T = (1 | \mathbf 1)`, and :math:`T^\top W T` in place of W: manifolds of radius 1e-8 keep their digits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float
from scipy.linalg import lapack

from manigeo.capacity.centers import mean_absolute_cosine
from manigeo.capacity.kernels import inner_kernel, kernel
from manigeo.capacity.pivoting import nonnegative_least_squares
from manigeo.capacity.roots import root_between
from manigeo.capacity.span import PooledPoints
from manigeo.capacity.stacks import in_stacks
from manigeo.randomness import stream

_DRAWS = 40  # of fields a manifold and round, and more where few manifolds share the noise of their sum
_ALL_DRAWS = 4000
_STREAM = 8_130_027_301  # of the fields: the metric is a property of the data, and no other seed changes it
_ROUNDS = 60
_SLOWEST = 0.95  # of ratios of successive changes, which noise can bring to one
_SHORTEST = 0.2  # of steps that alternate
_SLOW = 0.5  # ratios of successive changes from which on two rounds in a row have to be settled
_SETTLED = 0.005  # rounds end when the degrees of freedom change by less than this share; three or four are usual
_OCCUPIED = 0.97  # of all dimensions: more and no metric is left, the layer is too narrow to separate the manifolds
_DEPENDENT_RTOL = 1e-10
_NEGATIVE_RTOL = 1e-9  # of the largest load: less than this below zero is rounding
_SHARED = 1.5
_COLUMNS = 128  # of a symmetric product at a time: of 512, a third is not computed
_SINGLE = 1e-28  # of the mean squared length: points spread no further than rounding
_ALWAYS_ACTIVE = 1e-6  # keeps W finite where a direction is used in every draw


@dataclass(frozen=True)
class Cavity:
    """Manifolds in the metric that the others leave.

    ``grams`` (points + 1, points + 1): inner products of each manifold's points around its centre and, last, of its centre
    with the mean of all removed, up to a common scale. ``forms`` (points, points) are the W of the manifolds, and
    ``multipliers`` (points,) the means of a. ``metric`` (d, d): H of the directions of the span, ``rest_metric`` that of all
    others. ``degrees_of_freedom``: the number of dimensions that all manifolds together use, on average over their
    dichotomies; ``occupancy`` is their share of the dimensions that there are, ``saturated`` where no metric satisfies the
    equations because they want (nearly) all: what is here is then seen in the metric in which every point answers alike,
    that of the pooled covariance, with all dimensions used. ``residual``: by
    how much the degrees of freedom of this metric are expected to differ from those of the next rounds, relative; ``solved``
    means that this is small and that no load is negative.
    """

    grams: Sequence[np.ndarray]
    forms: Sequence[np.ndarray]
    multipliers: Sequence[np.ndarray]
    metric: Float[np.ndarray, "leading leading"]
    rest_metric: float
    degrees_of_freedom: float
    occupancy: float
    residual: float
    solved: bool

    @property
    def saturated(self) -> bool:
        return self.occupancy > _OCCUPIED


def cavity(points: PooledPoints) -> Cavity:
    """The self-consistent metric of the module's equations, and every manifold in it.

    Fields are drawn once for all rounds, so that a round is a function of the last one's metric; a manifold's draws are
    the same whatever its points are. Where the rounds do not settle they start again, from another metric and with half
    steps; where these do not settle either, the last metric is returned, and is not ``solved``. Where manifolds want more
    dimensions than there are no metric is a solution, and the rounds wander, or end where a few directions are left: the
    metric is then that in which every point answers alike. Points without structure have the capacity 2 / M in it (permuted
    digits, 60 points each: .033; .051 after sixty rounds).
    """
    sizes = points.sizes
    n_draws = max(_DRAWS, _ALL_DRAWS // len(sizes))
    fields = [stream(_STREAM, mu).standard_normal((n_draws, size)) for mu, size in enumerate(sizes)]
    # a first guess: every point answers alike, and a quarter of all are active
    alike, used = [np.eye(size) for size in sizes], sum(sizes) / 4
    solution = _rounds(points, fields, _in_first_metric(points, alike, used), alike, used, 1.0)
    if not solution.solved:
        few, used = [np.eye(size) / size for size in sizes], len(sizes) / 2
        solution = _rounds(points, fields, _in_metric(points, few, used), few, used, 0.5)
    return _all_used(points, fields, alike, solution) if solution.saturated else solution


def _all_used(points: PooledPoints, fields: Sequence[np.ndarray], alike: Sequence[np.ndarray], last: Cavity) -> Cavity:
    """The manifolds in the metric in which every point answers ``alike`` and all dimensions are used, where the ``last`` of
    the rounds wants more than there are."""
    metric = _in_first_metric(points, alike, points.rank)
    answer = _answered(metric.grams, fields)
    return replace(
        last, grams=metric.grams, forms=alike, multipliers=answer.multipliers, metric=metric.H, rest_metric=metric.h,
        degrees_of_freedom=answer.used, occupancy=max(last.occupancy, answer.used / points.rank), solved=False,
    )  # fmt: skip


def grams_without(points: PooledPoints, whole: Cavity, groups: Sequence[Collection[int]]) -> list[list[np.ndarray]]:
    """The Gram matrices of all manifolds, and then of the others without each of the ``groups``, around the mean of their
    own points, in the metric that they leave each other there, of the forms and at the scale that the ``whole`` has.

    Rounds to the end would let the forms follow, and take four times as long: standard errors of five manifolds were up to a
    fifth larger with them, of ten an eighth, where those without them are .8 to 1.1 and .95 to 1.2 of the spread over new
    classes (1.5 where all share few axes). The scale stays, and not the dimensions used: these depend on who is left out.
    """
    everyone = range(len(points.sizes))
    q = _in_metric(points, whole.forms, whole.degrees_of_freedom).q
    remaining = [list(everyone), *([mu for mu in everyone if mu not in group] for group in groups)]
    return [_at_scale(_around_their_mean(points, kept), [whole.forms[mu] for mu in kept], q) for kept in remaining]


def _around_their_mean(points: PooledPoints, kept: Sequence[int]) -> PooledPoints:
    """The manifolds ``kept``, with the mean of their own points removed."""
    rows, sizes = [points.coordinates[mu] for mu in kept], np.array([points.sizes[mu] for mu in kept])
    shift = sizes @ np.stack([F[-1] for F in rows]) / sizes.sum()
    moved = [np.vstack([F[:-1], F[-1] - shift]) for F in rows]
    return replace(points, coordinates=moved, rest=[points.rest[mu] for mu in kept])


def _rounds(
    points: PooledPoints,
    fields: Sequence[np.ndarray],
    metric: "_InMetric",
    W: Sequence[np.ndarray],
    used: float,
    step: float,
) -> Cavity:
    """Rounds from the ``metric`` of forms ``W`` on points and ``used`` degrees of freedom, to which each round adds ``step``
    times what it finds at the scale of W, until the degrees of freedom settle. Where manifolds leave one of them nothing
    the last metric that there was is returned, and is not solved."""
    last, slowest, relax, settled = 0.0, 0.0, 1.0, 0
    for number in range(_ROUNDS):
        try:
            metric = _in_metric(points, W, used) if number else metric
        except np.linalg.LinAlgError:  # forms of so different sizes leave a manifold nothing
            break
        answer = _answered(metric.grams, fields)
        found, change = answer.used, answer.used - used
        ratio, relax = _relaxed(change, last, relax)
        slowest = max(slowest, ratio)
        residual = abs(change) / (1 - slowest) / found if found else 0.0
        # a first guess may have the right number by chance, and so may one round of many that change little
        settled = settled + 1 if number and residual <= _SETTLED else 0
        if settled > (slowest > _SLOW):
            break
        forms = in_stacks(_without_itself, answer.responses, answer.grams)
        scale = _size(W) / (_size(forms) or 1.0)
        W = [w + step * min(relax, 1.0) * (scale * n - w) for w, n in zip(W, forms, strict=True)]
        used, last = max(used + step * relax * change, min(found, used) / 2), change
    solved = metric.positive and residual <= _SETTLED
    return Cavity(metric.grams, W, answer.multipliers, metric.H, metric.h, found, found / points.rank, residual, solved)


def _size(W: Sequence[np.ndarray]) -> float:
    """The norm of all forms together: they are alike up to a common scale, which drifts where no metric is a solution."""
    return float(np.sqrt(sum(np.vdot(w, w) for w in W)))


def _relaxed(change: float, last: float, relax: float) -> tuple[float, float]:
    """The ratio of successive changes, taken for that of a geometric series (Aitken), and the share of the next step that
    ends there. Where changes alternate, as where all manifolds share few axes, the step is shortened; where few manifolds
    settle by nearly equal steps, it is longer than what was found, for the degrees of freedom alone. Beyond the end of such
    a step they may turn once without alternating."""
    ratio = float(np.clip(change / last, 0.0 if relax > 1 else -np.inf, _SLOWEST)) if last else 0.0
    return ratio, max(min(relax, 1.0) / (1 - ratio), _SHORTEST)


class _InMetric(NamedTuple):
    H: np.ndarray
    h: float
    q: float
    positive: bool
    grams: Sequence[np.ndarray]


def _in_metric(points: PooledPoints, W: Sequence[np.ndarray], used: float) -> _InMetric:
    """The metric of the forms, of which ``used`` dimensions are used, and the manifolds in what the others leave of it."""
    on_rows = in_stacks(_on_rows, W)
    H, h, q, positive = _metric(points, on_rows, min(used, _OCCUPIED * points.rank))
    return _InMetric(H, h, q, positive, _left_by_others(points, points.rows @ H, on_rows, h))


def _at_scale(points: PooledPoints, W: Sequence[np.ndarray], q: float) -> list[np.ndarray]:
    """The manifolds in what the others leave of the metric of the forms at scale ``q``."""
    on_rows = in_stacks(_on_rows, W)
    H = _inverse(_pooled(points, on_rows), q)
    outside = points.tail * _load_of_rest(points.rest, on_rows, points.tail)
    return _left_by_others(points, points.rows @ H, on_rows, _mean_outside(points, outside, q))


def _in_first_metric(points: PooledPoints, alike: Sequence[np.ndarray], used: float) -> _InMetric:
    """The same where every point answers alike: the forms add up to the variances along the coordinates."""
    on_rows = in_stacks(_on_rows, alike)
    q, h = _scales(points, points.variances, on_rows, min(used, _OCCUPIED * points.rank))
    lengths = 1 / (q + points.variances)
    return _InMetric(np.diag(lengths), h, q, True, _left_by_others(points, points.rows * lengths, on_rows, h))


class _Answer(NamedTuple):
    multipliers: Sequence[np.ndarray]
    used: float
    responses: Sequence[np.ndarray]
    grams: Sequence[np.ndarray]


def _answered(grams: Sequence[np.ndarray], fields: Sequence[np.ndarray]) -> _Answer:
    """Response of manifolds of these Gram matrices to their fields: mean multipliers, degrees of freedom, da/db; and the
    Gram matrices of their points."""
    of_points = in_stacks(_from_rows, grams)
    multipliers, responses = zip(*in_stacks(_responses, of_points, fields), strict=True)
    used = sum(float((chi * K).sum()) for chi, K in zip(responses, of_points, strict=True))
    return _Answer(multipliers, used, responses, of_points)


def centers_in_metric(points: PooledPoints, inside: Cavity) -> tuple[float, int]:
    r"""Measure how correlated centres are in the metric H, and count the directions that they share.

    The first is the mean absolute cosine of :func:`~manigeo.capacity.centers.center_correlation` with inner products
    :math:`c^\top H c'`. The second counts the principal directions of the centres with more variance than independent
    centres of the norm g that others leave could have in N dimensions, with room for finite size:
    :math:`\lambda_k > 1.5\, (1 + \sqrt{P/N})^2\, \langle g^2 \rangle`, in the units of the points around their centres.
    Single points have no such unit, and a capacity that no shared direction changes: none is counted.
    """
    before = points.center_gram
    along = np.stack([F[-1] for F in points.coordinates])
    after = along @ inside.metric @ along.T + inside.rest_metric * (before - along @ along.T)
    around = sum(float(np.trace(K[:-1, :-1])) for K in inside.grams)
    around_before = sum(
        float(np.square(F[:-1]).sum() + np.trace(R[:-1, :-1]))
        for F, R in zip(points.coordinates, points.rest, strict=True)
    )
    if around_before <= _SINGLE * sum(map(len, points.coordinates)):
        return mean_absolute_cosine(_centered(after)), 0
    left = np.mean([K[-1, -1] for K in inside.grams]) * around_before / around
    independent = left * (1 + np.sqrt(len(before) / points.rank)) ** 2
    rank = int(np.count_nonzero(np.linalg.eigvalsh(_centered(before)) > _SHARED * independent))
    return mean_absolute_cosine(_centered(after)), rank


def _centered(gram: np.ndarray) -> np.ndarray:
    mean = gram.mean(axis=0)
    return gram - mean - mean[:, None] + mean.mean()


def _on_rows(W: np.ndarray) -> Float[np.ndarray, "*stack rows rows"]:
    """A form on points as one on their rows, around the centre and the centre: T' W T."""
    with_sums = np.concatenate([W, W.sum(axis=-2, keepdims=True)], axis=-2)
    return np.concatenate([with_sums, with_sums.sum(axis=-1, keepdims=True)], axis=-1)


def _from_rows(K: np.ndarray) -> Float[np.ndarray, "*stack points points"]:
    """Inner products of points from those of their rows, around the centre and the centre: T K T'."""
    return K[..., :-1, :-1] + K[..., :-1, -1:] + K[..., -1:, :-1] + K[..., -1:, -1:]


def rows_response(K: np.ndarray, W: np.ndarray, a: np.ndarray) -> Float[np.ndarray, " rows"]:
    """The multipliers ``a`` of a manifold's points as those of its rows in the whole metric: T' (1 + W T K T') a."""
    in_whole = a + W @ (_from_rows(K) @ a)
    return np.append(in_whole, in_whole.sum())


def _responses(
    K: np.ndarray, t: np.ndarray
) -> tuple[Float[np.ndarray, "stack points"], Float[np.ndarray, "stack points points"]]:
    """The means of a and da/db over draws of fields b ~ N(0, K), made of standard normal ``t``; of each in a stack."""
    lengths = np.sqrt(np.clip(np.diagonal(K, axis1=-2, axis2=-1), 0, None))
    lengths[lengths == 0] = 1.0
    squares = lengths[:, :, None] * lengths[:, None]
    cosines = K / squares
    variance, U = np.linalg.eigh(cosines)
    # the symmetric root: signs of eigenvectors do not matter
    b = t @ (U * np.sqrt(np.clip(variance, 0, None))[:, None]) @ U.swapaxes(-2, -1)
    multipliers = [nonnegative_least_squares(C, fields)[0] for C, fields in zip(cosines, b, strict=True)]
    of_fields = np.stack([_mean_inverse_on_support(C, a) for C, a in zip(cosines, multipliers, strict=True)])
    return np.stack([a.mean(axis=0) for a in multipliers]) / lengths, of_fields / squares


def _mean_inverse_on_support(K: np.ndarray, a: np.ndarray) -> Float[np.ndarray, "points points"]:
    """The mean over rows of ``a`` of the inverse of K on the columns where the row is positive, zero elsewhere."""
    total, work, columns = np.zeros_like(K), np.zeros((2, *K.shape)), np.empty(len(K), np.int64)
    _add_inverses(K, a, total, work[0], work[1], columns)
    return _mirrored(total) / len(a)


def _mirrored(lower: np.ndarray) -> Float[np.ndarray, "n n"]:
    """The symmetric matrix of a lower triangle with zeros above."""
    whole = lower + lower.T
    np.fill_diagonal(whole, np.diagonal(lower))
    return whole


@kernel("void(f8[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], f8[:, ::1], i8[::1])")
@no_type_check
def _add_inverses(K, a, total, L, inverse, columns):
    """Add the lower triangle of the inverse of K on the columns of each row, from the factor L of K on those."""
    for i in range(len(a)):
        n = np.int64(0)
        for j in range(len(K)):
            if a[i, j] > 0:
                columns[n] = j
                n += _append_row(K, columns, n, L)
        for c in range(n):
            inverse[c, c] = 1 / L[c, c]
            for r in range(c + 1, n):
                value = 0.0
                for q in range(c, r):
                    value -= L[r, q] * inverse[q, c]
                inverse[r, c] = value / L[r, r]
        for p in range(n):
            for q in range(p + 1):
                value = 0.0
                for r in range(p, n):
                    value += inverse[r, p] * inverse[r, q]
                total[columns[p], columns[q]] += value


@inner_kernel
@no_type_check
def _append_row(K, columns, n, L):
    """The next row of the Cholesky factor of K on ``columns``; 0 and nothing added where the column depends on others."""
    j = columns[n]
    left = K[j, j]
    for q in range(n):
        value = K[j, columns[q]]
        for r in range(q):
            value -= L[n, r] * L[q, r]
        L[n, q] = value / L[q, q]
        left -= L[n, q] ** 2
    if left <= _DEPENDENT_RTOL * K[j, j]:
        return 0
    L[n, n] = np.sqrt(left)
    return 1


def _without_itself(chi: np.ndarray, K: np.ndarray) -> Float[np.ndarray, "stack points points"]:
    """W = chi (1 - K chi)^-1, symmetric; of each in a stack."""
    return _symmetric(np.linalg.solve((1 + _ALWAYS_ACTIVE) * np.eye(K.shape[-1]) - chi @ K, chi))


def _left_by_others(points: PooledPoints, mapped: np.ndarray, W: Sequence[np.ndarray], h: float) -> list[np.ndarray]:
    """Inner products of each manifold's rows in the metric that lacks its own W: (1 - F H F' W)^-1 F H F', from all rows
    ``mapped`` by H."""
    ends = np.cumsum([len(F) for F in points.coordinates])[:-1]
    wholes = [HF @ F.T for HF, F in zip(np.split(mapped, ends), points.coordinates, strict=True)]

    def left(whole: np.ndarray, w: np.ndarray, rest: np.ndarray) -> np.ndarray:
        return _symmetric(np.linalg.solve(np.eye(whole.shape[-1]) - whole @ w, whole)) + h * rest

    return in_stacks(left, wholes, W, points.rest)


def _symmetric(K: np.ndarray) -> Float[np.ndarray, "*stack n n"]:
    return (K + K.swapaxes(-2, -1)) / 2


def _metric(points: PooledPoints, W: Sequence[np.ndarray], used: float) -> tuple[np.ndarray, float, float, bool]:
    """H of the directions of the span, the mean length h of the others, and the scale at which ``used`` are used; and
    whether no load is negative."""
    pooled = _pooled(points, W)
    loads = np.linalg.eigvalsh(pooled)
    q, h = _scales(points, loads, W, used)
    return _inverse(pooled, q), h, q, bool(loads.min(initial=0.0) >= -_NEGATIVE_RTOL * loads.max(initial=0.0))


def _pooled(points: PooledPoints, W: Sequence[np.ndarray]) -> Float[np.ndarray, "d d"]:
    """The sum of all forms on the directions of the span; its lower triangle, and what else comes with it."""
    weighted = np.concatenate([w @ rows for rows, w in zip(points.coordinates, W, strict=True)])
    return _symmetric_product(points.rows, weighted)


def _symmetric_product(A: np.ndarray, B: np.ndarray) -> Float[np.ndarray, "n n"]:
    """The lower triangle of A' B, and what else comes with it."""
    product = np.zeros((A.shape[1], A.shape[1]))
    for start in range(0, A.shape[1], _COLUMNS):
        product[start:, start : start + _COLUMNS] = A[:, start:].T @ B[:, start : start + _COLUMNS]
    return product


def _scales(points: PooledPoints, loads: np.ndarray, W: Sequence[np.ndarray], used: float) -> tuple[float, float]:
    """The scale q at which ``used`` dimensions of these loads, and of those of the rest, are used; the mean length h of the
    rest."""
    outside = points.tail * _load_of_rest(points.rest, W, points.tail)
    everything = np.concatenate([loads, outside]).clip(min=0)
    if not everything.any():
        return 1.0, 1.0
    q = _scale(everything, min(used, _OCCUPIED * np.count_nonzero(everything)))
    return q, _mean_outside(points, outside, q)


def _mean_outside(points: PooledPoints, outside: np.ndarray, q: float) -> float:
    """The mean length of the directions outside the span, of these loads."""
    return float((points.tail / (q + outside)).sum() / points.tail.sum()) if len(points.tail) else 1 / q


def _inverse(pooled: np.ndarray, q: float) -> Float[np.ndarray, "leading leading"]:
    """(q + pooled)^-1 of a form without negative values but for rounding, by its Cholesky factor; of its lower triangle."""
    lower, info = lapack.dpotrf(pooled + q * np.eye(len(pooled)), lower=1)
    if info or not len(pooled):  # LAPACK takes no matrix without rows
        loads, axes = np.linalg.eigh(pooled)
        return (axes / (q + loads.clip(min=0))) @ axes.T
    H, _ = lapack.dpotri(lower, lower=1)
    return _mirrored(H)


def _load_of_rest(R: Sequence[np.ndarray], W: Sequence[np.ndarray], tail: np.ndarray) -> float:
    """Load of the manifolds on a direction outside, per unit of its variance."""
    return sum(float((w * rest).sum()) for w, rest in zip(W, R, strict=True)) / tail.sum() if len(tail) else 0.0


def _scale(loads: np.ndarray, used: float) -> float:
    """The q at which sum loads / (q + loads) is ``used``."""

    def excess(log_q: float) -> float:
        return float((loads / (np.exp(log_q) + loads)).sum()) - used

    loads = loads[loads > 0]
    # the sum falls from the number of loads to nothing: at these ends it is above and below what is used
    low, high = np.log(loads.min()) + np.log(1 - _OCCUPIED) - 1, np.log(loads.sum()) - np.log(used) + 1
    return float(np.exp(root_between(excess, low, high)))

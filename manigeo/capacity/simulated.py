r"""Simulated capacity: how many dimensions it takes until half of all dichotomies of the manifolds can be told apart.

The manifolds are projected on n random directions, each gets a label +1 or -1 at random, and all points of a manifold
must lie on its label's side of a hyperplane through the origin. The share p(n) of separable dichotomies rises from 0 to
1, and

.. math:: \alpha = P / N_c, \qquad p(N_c) = \tfrac12 .

Labels are uniform among the :math:`2^P - 2` that have both signs (:mod:`manigeo.capacity.dichotomies`). The other two are
never separable once the mean is subtracted, and among all labels p(n) would end at :math:`1 - 2^{1-P}`.

Nothing of mean-field theory is assumed, so simulation judges it (Chung, Lee & Sompolinsky 2018; Cohen et al. 2020). For
points in general position it is the theorem of Cover (1965), IEEE Trans. Electron. Comput. 14, 326. P points that add up
to zero are in general position in n < P dimensions, and of the dichotomies that Cover counts none is constant:

.. math:: p(n) = \frac{1}{2^{P-1} - 1} \sum_{k<n} \binom{P-1}{k}, \qquad
          p_\mathrm{bias}(n) = \frac{1}{2^{P-1} - 1} \sum_{1 \le k \le n} \binom{P-1}{k},

where an offset is one dimension more and separates the two constant labellings, which are not counted. For many points
one half is at P = 2n, and at P = 2(n + 1) with an offset.

Every dichotomy is decided with a certificate, see :mod:`manigeo.capacity.separation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_ndtr
from threadpoolctl import threadpool_limits

from manigeo.capacity.dichotomies import random_dichotomy
from manigeo.capacity.separation import Separation, linear_separation, whitened
from manigeo.faces.results import Drawn
from manigeo.inputs import Manifolds, joined, take_manifolds
from manigeo.manifolds import global_mean, principal_directions, span_coordinates
from manigeo.randomness import Seed, seed_sequence, stream

# A point this close to the mean, in roundings of the data's type and against the data's size, is at the mean.
_ZERO_ULPS = 4
# Of the rise of p over the square root of n: a binomial of P - 1 fair coins has its middle at P/2, and sqrt(P)/2 to a side.
_COVER_WIDTH = np.sqrt(2) / 4
_BATCH_SHARE = 40  # the bracket is found in batches of this part of all dichotomies, most of them go to the crossing


@dataclass(frozen=True, repr=False)
class SimulatedCapacity(Drawn):
    """Capacity of ``n_manifolds`` by simulation, and the counts it comes from.

    ``critical_dimension`` is N_c, ``capacity`` P / N_c; the errors are standard errors over dichotomies. The curve: of
    ``trials[i]`` dichotomies in ``dimensions[i]`` dimensions ``separable[i]`` were separable; ``width`` is the w of the
    fitted :math:`p(n) = \\Phi((\\sqrt n - \\sqrt{N_c}) / w)`. ``rank`` is the dimension of the data;
    ``uncertified`` counts dichotomies that were decided by the better of two imperfect certificates. ``flag`` tells why
    a number is NaN, and counts the uncertified; else it is empty.
    """

    headline = ("capacity", "critical_dimension", "n_manifolds")

    capacity: float
    critical_dimension: float
    stderr: float
    critical_dimension_stderr: float
    dimensions: Int[np.ndarray, " n"]
    separable: Int[np.ndarray, " n"]
    trials: Int[np.ndarray, " n"]
    width: float
    n_manifolds: int
    rank: int
    bias: bool
    uncertified: int
    flag: str


def simulated_capacity(
    manifolds: Manifolds,
    n_dichotomies: int = 200,
    *,
    bias: bool = False,
    per_class: int | str | None = "smallest",
    nan: str = "raise",
    seed: Seed | None = None,
    rng: Seed | None = None,
) -> SimulatedCapacity:
    r"""Capacity of a sequence of manifolds, arrays ``(points, features)`` of any origin, by separability of dichotomies.

    .. math:: \alpha = P / N_c, \qquad p(n) \approx \Phi\big((\sqrt n - \sqrt{N_c}) / w\big)

    ``n_dichotomies`` is the total: a quarter or so brackets the crossing, the others are spent around it. Each has its
    own labels, of both signs, and its own Gaussian projection, from ``SeedSequence(seed)`` keyed by the dimension n and its
    number there. ``bias`` gives the hyperplane an offset; Cover's crossing then moves from P = 2 N to P = 2 (N + 1).

    The mean over all samples is subtracted, as in mean field; a few manifolds of large extent lose about 0.6 / P of the
    capacity that theory gives them around the origin (simplices of 9 corners: 2.6 % at P = 22, nothing without centring).

    Data that span too few dimensions for half of the dichotomies have no crossing: NaN, and the flag names the bound,
    ``not_separable:alpha<P/rank`` in numbers. With a bias, few manifolds can be separable in one dimension already:
    NaN, ``separable_in_1:alpha>P``. Two manifolds have one dichotomy, so that no share of dichotomies rises: NaN,
    ``few_classes``.

    ``per_class``: points of each manifold, by default as many as the smallest has; ``nan``: ``"raise"`` or ``"drop"``; what
    is left out is flagged. ``seed`` or ``rng`` draws, seed 0 without either (:mod:`manigeo.inputs`).

    Returns a :class:`SimulatedCapacity`, in manifolds per dimension. Chung, Lee & Sompolinsky (2018); Cohen et al.
    (2020).

    Raises ``ValueError`` for fewer than two manifolds, arrays that do not share their features, NaN or infinite entries,
    fewer than 50 dichotomies.

    >>> rng = np.random.default_rng(0)
    >>> r = simulated_capacity([rng.standard_normal((1, 60)) for _ in range(40)])
    >>> abs(r.capacity - 2.0) < 4 * r.stderr
    True
    """
    root = seed_sequence(seed, rng)
    taken, left_out = take_manifolds(manifolds, nan=nan, per_class=per_class, seed=root, held=True)
    if n_dichotomies < 50:
        raise ValueError(f"n_dichotomies must be 50 or more to find a crossing, got {n_dichotomies}")
    with threadpool_limits(limits=1, user_api="blas"):
        points = _coordinates(taken)
        experiment = _Experiment(points, np.array([len(X) for X in taken]), bias, root)
        if points.shape[1] > 0 and len(taken) > 2:
            _bracket(experiment, max(3, n_dichotomies // _BATCH_SHARE))
            _refine(experiment, n_dichotomies)
    result = _result(experiment)
    return replace(result, flag=joined(result.flag, left_out))


def _coordinates(manifolds: Sequence[np.ndarray]) -> Float[np.ndarray, "points rank"]:
    """All points around their mean, in an orthonormal basis of their span; a Gaussian projection looks the same there."""
    points = np.concatenate(manifolds)
    rounding = np.finfo(points.dtype if points.dtype.kind == "f" else np.float64).eps
    points = points.astype(np.float64)
    points /= np.abs(points).max() or 1.0
    size = np.sqrt(np.square(points).sum(axis=1).mean())
    points -= global_mean([points])
    points[np.linalg.norm(points, axis=1) <= _ZERO_ULPS * rounding * size] = 0.0
    if points.shape[1] > len(points):
        return span_coordinates(points) if points.any() else np.zeros((len(points), 0))
    basis, _ = principal_directions(points)
    return points @ basis


class _Experiment:
    """Dichotomies of ``points`` in n dimensions, and the counts so far."""

    def __init__(self, points: np.ndarray, sizes: np.ndarray, bias: bool, seed: int | np.random.SeedSequence) -> None:
        self.points, self.sizes, self.bias = points, sizes, bias
        self.seed = seed
        self.counts: dict[int, tuple[int, int]] = {}
        self.uncertified = 0

    @property
    def rank(self) -> int:
        return self.points.shape[1]

    @property
    def spent(self) -> int:
        return sum(trials for _, trials in self.counts.values())

    def table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Dimensions in rising order, separable dichotomies, trials."""
        rows = np.array([(n, *self.counts[n]) for n in sorted(self.counts)], dtype=np.int64).reshape(-1, 3)
        return rows[:, 0], rows[:, 1], rows[:, 2]

    def share(self, n: int, trials: int) -> float:
        """Try ``trials`` more dichotomies in n dimensions; the share of separable ones so far."""
        separable, before = self.counts.get(n, (0, 0))
        for number in range(before, before + trials):
            separation = self.dichotomy(n, number)
            separable += separation.separable
            self.uncertified += not separation.certified
        self.counts[n] = separable, before + trials
        return separable / (before + trials)

    @property
    def hopeless(self) -> bool:
        """True if in all dimensions there are, the share of separable dichotomies is four standard errors below half."""
        separable, trials = self.counts.get(self.rank, (0, 0))
        return bool(separable < trials / 2 - 4 * np.sqrt(trials) / 2)

    def dichotomy(self, n: int, number: int) -> Separation:
        rng = stream(self.seed, n, number)
        labels = np.repeat(random_dichotomy(rng, len(self.sizes)), self.sizes)
        projected = self.points @ rng.standard_normal((self.rank, n))
        if self.bias:
            constant = np.sqrt(np.square(projected).sum(axis=1).mean())  # any but zero will do; this one is no outlier
            projected = np.column_stack([projected, np.full(len(projected), constant)])
        separation = linear_separation(projected, labels)
        return separation if separation.certified else linear_separation(whitened(projected), labels)


def _bracket(experiment: _Experiment, batch: int) -> tuple[int, int]:
    """Go up from Cover's bound by doubling until nearly all are separable, then bisect to a tenth of n.

    No manifold is easier than one of its points, and no P vectors are easier than P in general position: p(n) <= 1/2 up
    to n = P/2, or P/2 - 1 with a bias, beside the constant labellings' 2^-P.
    """
    low = min(experiment.rank, max(1, len(experiment.sizes) // 2 - experiment.bias))
    high = low
    while experiment.share(high, batch) < 0.8 and high < experiment.rank:
        low, high = high, min(experiment.rank, 2 * high)
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        if experiment.share(middle, batch) < 0.5:
            low = middle
        else:
            high = middle
    return low, high


def _refine(experiment: _Experiment, n_dichotomies: int) -> None:
    """Spend what is left at the fitted crossing and 3/4 of a width to both sides, fitting again after each quarter of it:
    the curve of few manifolds has a bend, which this near does not show."""
    rounds = 4
    for left in range(rounds, 0, -1):
        if experiment.hopeless:
            return
        curve = _fit(*experiment.table(), experiment)
        share, extra = divmod(n_dichotomies - experiment.spent, 3 * left)
        if share < 0:
            return
        for i, n in enumerate((np.sqrt(curve.center) + curve.width * np.array([0.0, -0.75, 0.75])) ** 2):
            trials = share + (i == 0 and left == 1) * extra
            if trials:
                experiment.share(int(np.clip(np.round(n), 1, experiment.rank)), trials)


@dataclass(frozen=True)
class _Curve:
    center: float
    width: float
    center_stderr: float


def _fit(n: np.ndarray, separable: np.ndarray, trials: np.ndarray, experiment: _Experiment) -> _Curve:
    r"""Most likely :math:`p(n) = \Phi((\sqrt n - r)/w)` at :math:`r = \sqrt{N_c}`, with Firth's penalty; errors by Fisher's
    information.

    Plain maximum likelihood makes the rise too steep and the error too small; half the log determinant of the information
    on :math:`(1/w, r/w)` takes that bias away (Firth 1993, Biometrika 80, 27). Where counts jump from none to all a prior
    keeps w finite: one e-fold around :data:`_COVER_WIDTH`. Cover's curve rises as straight in n as in its square root;
    ten classes of a trained network rise as straight in its logarithm.
    """
    from scipy.optimize import minimize  # slow to import, and seldom needed

    x, highest = np.sqrt(n), np.sqrt(2 * experiment.rank + 1)
    prior = np.log(_COVER_WIDTH)

    def loss(parameters: np.ndarray) -> float:
        root, log_width = parameters
        z = (x - root) / np.exp(log_width)
        likelihood = separable * log_ndtr(z) + (trials - separable) * log_ndtr(-z)
        penalty = np.linalg.slogdet(_information(x, trials, root, log_width))[1] / 2 + 2 * log_width
        return (log_width - prior) ** 2 / 2 - likelihood.sum() - penalty

    start = [min(x @ trials / trials.sum(), highest), prior]
    bounds = [(0.0, highest), (prior - 5, prior + 5)]
    root, log_width = minimize(loss, start, method="Nelder-Mead", bounds=bounds).x
    variance = np.linalg.inv(_information(x, trials, root, log_width))[0, 0]
    return _Curve(float(root**2), float(np.exp(log_width)), float(2 * root * np.sqrt(variance)))


def _information(x: np.ndarray, trials: np.ndarray, root: float, log_width: float) -> np.ndarray:
    r"""Information on r, log w: :math:`\sum_n m_n \varphi^2/(\Phi(1-\Phi))\, \nabla z \nabla z^\top`, and the prior's."""
    z = (x - root) / np.exp(log_width)
    weight = trials * np.exp(-(z**2) - np.log(2 * np.pi) - log_ndtr(z) - log_ndtr(-z))
    gradient = np.stack([np.full_like(z, -np.exp(-log_width)), -z])
    return (gradient * weight) @ gradient.T + np.diag([1e-12, 1.0])


def _result(experiment: _Experiment) -> SimulatedCapacity:
    P, rank = len(experiment.sizes), experiment.rank
    n, separable, trials = experiment.table()
    curve = _fit(n, separable, trials, experiment) if len(n) else _Curve(np.inf, np.nan, np.nan)
    flag = _flag(P, rank, curve.center)
    if flag:
        curve = _Curve(np.nan, np.nan, np.nan)
    if experiment.uncertified:
        flag = ";".join(filter(None, [flag, f"uncertified:{experiment.uncertified}"]))
    c, error = curve.center, curve.center_stderr
    return SimulatedCapacity(
        capacity=P / c,
        critical_dimension=c,
        stderr=P / c**2 * error,  # delta method
        critical_dimension_stderr=error,
        dimensions=n,
        separable=separable,
        trials=trials,
        width=curve.width,
        n_manifolds=P,
        rank=rank,
        bias=experiment.bias,
        uncertified=experiment.uncertified,
        flag=flag,
    )


def _flag(P: int, rank: int, center: float) -> str:
    if rank == 0:
        return "zero_rank"
    if P == 2:
        return "few_classes"
    if center > rank:
        return f"not_separable:alpha<{P / rank:.4g}"
    if center < 1:
        return f"separable_in_1:alpha>{P}"
    return ""

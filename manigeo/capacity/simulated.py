r"""Simulated capacity: how many dimensions it takes until half of all dichotomies of the manifolds can be told apart.

The manifolds are projected on n random directions, each gets a label +1 or -1 at random, and all points of a manifold
must lie on its label's side of a hyperplane through the origin. The share p(n) of separable dichotomies rises from 0 to
1, and

.. math:: \alpha = P / N_c, \qquad p(N_c) = \tfrac12 .

Nothing of mean-field theory is assumed, so simulation judges it (Chung, Lee & Sompolinsky 2018; Cohen et al. 2020). For
points in general position it is the theorem of Cover (1965), IEEE Trans. Electron. Comput. 14, 326:
:math:`p(n) = 2^{1-P} \sum_{k<n} \binom{P-1}{k}`, one half at P = 2n.

Every dichotomy is decided with a certificate (Gordan 1873): for signed points :math:`z_i` of length one there is either a
separating vector, :math:`z_i \cdot w > 0` for all i, or a convex combination that vanishes,
:math:`\sum_i \lambda_i z_i = 0`. Both come from one problem, the least squares of linear inequalities (Han 1980),

.. math:: \min_w \tfrac12 |(1 - Z w)_+|^2 ,

whose gradient :math:`-Z^\top \lambda` with :math:`\lambda = (1 - Z w)_+` vanishes at the minimum: there either
:math:`\lambda = 0` and w separates, or :math:`\lambda` is the combination. Newton's method ends after finitely many
steps, about ten here (Mangasarian 2002).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import log_ndtr
from threadpoolctl import threadpool_limits

from manigeo.manifolds import RANK_RTOL, global_mean, span_coordinates

# A certificate counts from here on. Inner products of unit vectors carry 1e-16 per term, 1e-13 over a thousand; a margin
# that small by chance is one dichotomy in millions.
_CERTIFICATE_ATOL = 1e-10
_NEWTON_STEPS = 100  # 5 to 30 are usual; more than this points to a bad condition
_RIDGE = 1e-9  # of the mean eigenvalue, in Newton's matrix, which is singular where few inequalities are violated
# A point this close to the mean, in roundings of the data's type and against the data's size, is at the mean.
_ZERO_ULPS = 4
# Of the rise of p over the square root of n: a binomial of P - 1 fair coins has its middle at P/2, and sqrt(P)/2 to a side.
_COVER_WIDTH = np.sqrt(2) / 4
_BATCH_SHARE = 40  # the bracket is found in batches of this part of all dichotomies, most of them go to the crossing


@dataclass(frozen=True)
class Separation:
    """Whether signed points lie on one side of a hyperplane through the origin, and the proof.

    ``normal`` (dim,) of length one has ``margin`` to the nearest of the points (scaled to length one), and a positive
    margin proves that they are separable. ``weights`` (points,) sum to one, and a combination of length ``residual`` = 0
    proves that they are not: no margin exceeds the residual.
    """

    separable: bool
    normal: Float[np.ndarray, " dim"]
    weights: Float[np.ndarray, " points"]
    margin: float
    residual: float

    @property
    def certified(self) -> bool:
        return self.margin > _CERTIFICATE_ATOL or self.residual <= _CERTIFICATE_ATOL


def linear_separation(
    points: Float[np.ndarray, "points dim"],
    labels: Float[np.ndarray, " points"],
) -> Separation:
    r"""Separate ``points`` with ``labels`` +1 and -1 by a hyperplane through the origin, or prove that none does.

    .. math:: \exists w:\; z_i \cdot w > 0 \;\forall i \quad\text{or}\quad
              \exists \lambda \ge 0:\; \textstyle\sum_i \lambda_i = 1,\; \sum_i \lambda_i z_i = 0,
              \qquad z_i = y_i x_i / |x_i|

    Points of length zero are on no side. Add a constant column for a hyperplane with an offset.

    >>> square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> linear_separation(square, np.array([1.0, 1.0, -1.0, -1.0])).separable
    True
    >>> exclusive_or = linear_separation(square, np.array([1.0, -1.0, -1.0, 1.0]))
    >>> exclusive_or.separable, exclusive_or.residual
    (False, 0.0)
    """
    lengths = np.linalg.norm(points, axis=1)
    signed = points * np.divide(labels, lengths, out=np.zeros_like(lengths), where=lengths > 0)[:, None]
    return _least_squares_of_inequalities(signed)


def _separation(signed: np.ndarray, w: np.ndarray, multipliers: np.ndarray) -> Separation:
    """What a vector and non-negative multipliers prove, measured on the points themselves."""
    weights = multipliers / multipliers.sum() if multipliers.any() else np.full(len(signed), 1 / len(signed))
    residual = float(np.linalg.norm(weights @ signed))
    normal = w / np.linalg.norm(w) if w.any() else w
    margin = float((signed @ normal).min())
    # Without a certificate the largest margin is somewhere between the two: the middle decides.
    separable = margin > _CERTIFICATE_ATOL or (residual > _CERTIFICATE_ATOL and margin + residual > 0)
    return Separation(separable, normal, weights, margin, residual)


def _least_squares_of_inequalities(signed: np.ndarray) -> Separation:
    """Newton's method with exact line search on half the squared length of (1 - Z w)_+, until either side is proved."""
    w, slack = np.zeros(signed.shape[1]), np.ones(len(signed))  # slack = 1 - Z w
    diagonal = np.diag_indices(len(w))
    for _ in range(_NEWTON_STEPS):
        violated = slack > 0
        Z = signed[violated]
        descent = Z.T @ slack[violated]
        separated = 1 - slack.max() > _CERTIFICATE_ATOL * np.linalg.norm(w)
        if separated or np.linalg.norm(descent) <= _CERTIFICATE_ATOL * slack[violated].sum():
            break
        hessian = Z.T @ Z
        hessian[diagonal] += _RIDGE * np.trace(hessian) / len(w)
        step = cho_solve(cho_factor(hessian, check_finite=False), descent, check_finite=False)
        change = signed @ step
        length = _line_search(slack, change)
        w, slack = w + length * step, slack - length * change
    return _separation(signed, w, np.maximum(slack, 0.0))


def _line_search(slack: np.ndarray, change: np.ndarray) -> float:
    r"""The t of least :math:`\tfrac12 |(s - t c)_+|^2`, exactly: the slope :math:`t \sum c^2 - \sum c s` over the violated
    inequalities rises in straight pieces, and at :math:`t = s/c` one of them is satisfied (c > 0) or violated (c < 0)."""
    moves = (slack * change > 0) & (np.abs(change) > np.finfo(float).eps * np.abs(change).max())
    order = np.argsort(slack[moves] / change[moves])
    s, c = slack[moves][order], change[moves][order]
    violated = (slack > 0) | ((slack == 0) & (change < 0))
    squares = np.square(change[violated]).sum() - np.cumsum(np.append(0.0, c * np.abs(c)))
    products = (slack * change)[violated].sum() - np.cumsum(np.append(0.0, np.sign(c) * c * s))
    ends = np.append(s / c, np.inf)
    rising = np.append(ends[:-1] * squares[:-1] >= products[:-1], True)
    piece = int(rising.argmax())
    start = ends[piece - 1] if piece else 0.0
    # clipped: sums that cancel leave no more than rounding where nothing is violated any more
    return float(np.clip(products[piece] / squares[piece], start, ends[piece])) if squares[piece] > 0 else float(start)


@dataclass(frozen=True)
class SimulatedCapacity:
    """Capacity of ``n_manifolds`` by simulation, and the counts it comes from.

    ``critical_dimension`` is N_c, ``capacity`` P / N_c; the errors are standard errors over dichotomies. The curve: of
    ``trials[i]`` dichotomies in ``dimensions[i]`` dimensions ``separable[i]`` were separable; ``width`` is the w of the
    fitted :math:`p(n) = \\Phi((\\sqrt n - \\sqrt{N_c}) / w)`. ``rank`` is the dimension of the data;
    ``uncertified`` counts dichotomies that were decided by the better of two imperfect certificates. ``flag`` says why
    a number is NaN, and counts the uncertified; else it is empty.
    """

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
    manifolds: Sequence[np.ndarray],
    n_dichotomies: int = 200,
    *,
    bias: bool = False,
    seed: int | np.random.SeedSequence = 0,
) -> SimulatedCapacity:
    r"""Capacity of a sequence of manifolds, arrays ``(points, features)``, by the separability of random dichotomies.

    .. math:: \alpha = P / N_c, \qquad p(n) \approx \Phi\big((\sqrt n - \sqrt{N_c}) / w\big)

    ``n_dichotomies`` is the total: a quarter or so brackets the crossing, the others are spent around it. Each has its
    own labels and its own Gaussian projection, from ``SeedSequence(seed)`` keyed by the dimension n and its number there.
    ``bias`` gives the hyperplane an offset; Cover's crossing then moves from P = 2 N to P = 2 (N + 1).

    The mean over all samples is subtracted, as in mean field; a few manifolds of large extent lose about 0.6 / P of the
    capacity that theory gives them around the origin (simplices of 9 corners: 2.6 % at P = 22, nothing without centring).

    Data that span too few dimensions for half of the dichotomies have no crossing: NaN, and the flag names the bound,
    ``not_separable:alpha<P/rank`` in numbers. With a bias, few manifolds can be separable in one dimension already:
    NaN, ``separable_in_1:alpha>P``.

    Raises ``ValueError`` for fewer than two manifolds, arrays that do not share their features, NaN or infinite entries,
    fewer than 50 dichotomies.

    >>> rng = np.random.default_rng(0)
    >>> r = simulated_capacity([rng.standard_normal((1, 60)) for _ in range(40)])
    >>> abs(r.capacity - 2.0) < 4 * r.stderr
    True
    """
    manifolds = [np.asarray(X) for X in manifolds]
    _check_request(manifolds, n_dichotomies)
    with threadpool_limits(limits=1, user_api="blas"):
        points = _coordinates(manifolds)
        experiment = _Experiment(points, np.array([len(X) for X in manifolds]), bias, seed)
        if points.shape[1] > 0:
            _bracket(experiment, max(3, n_dichotomies // _BATCH_SHARE))
            _refine(experiment, n_dichotomies)
    return _result(experiment)


def _check_request(manifolds: Sequence[np.ndarray], n_dichotomies: int) -> None:
    if len(manifolds) < 2:
        raise ValueError(f"dichotomies need two or more manifolds, got {len(manifolds)}; pass one array for each class")
    features = {X.shape[1] for X in manifolds if X.ndim == 2}
    if len(features) != 1 or any(X.ndim != 2 or len(X) == 0 for X in manifolds):
        raise ValueError(
            f"manifolds are (points, features) arrays with equal features, got {[X.shape for X in manifolds]}"
        )
    for mu, X in enumerate(manifolds):
        if count := np.size(X) - np.count_nonzero(np.isfinite(X)):
            raise ValueError(f"manifold {mu} holds {count} NaN or infinite entries; leave those examples out")
    if n_dichotomies < 50:
        raise ValueError(f"n_dichotomies must be 50 or more to find a crossing, got {n_dichotomies}")


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
    basis, _ = _principal_directions(points)
    return points @ basis


def _principal_directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    eigenvalues, basis = np.linalg.eigh(points.T @ points)
    keep = eigenvalues > RANK_RTOL * eigenvalues[-1]
    return basis[:, keep], np.sqrt(eigenvalues[keep])


def _whitened(points: np.ndarray) -> np.ndarray:
    """Coordinates of condition one: a linear map changes no dichotomy, and steep spectra cost Newton's method its digits."""
    basis, lengths = _principal_directions(points)
    return points @ (basis / lengths)


class _Experiment:
    """Dichotomies of ``points`` in n dimensions, and the counts so far."""

    def __init__(self, points: np.ndarray, sizes: np.ndarray, bias: bool, seed: int | np.random.SeedSequence) -> None:
        self.points, self.sizes, self.bias = points, sizes, bias
        self.root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
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
        """With all dimensions there are, the share of separable dichotomies is four standard errors below one half."""
        separable, trials = self.counts.get(self.rank, (0, 0))
        return bool(separable < trials / 2 - 4 * np.sqrt(trials) / 2)

    def dichotomy(self, n: int, number: int) -> Separation:
        rng = np.random.default_rng(
            np.random.SeedSequence(self.root.entropy, spawn_key=(*self.root.spawn_key, n, number))
        )
        labels = np.repeat(rng.choice([-1.0, 1.0], size=len(self.sizes)), self.sizes)
        projected = self.points @ rng.standard_normal((self.rank, n))
        if self.bias:
            constant = np.sqrt(np.square(projected).sum(axis=1).mean())  # any but zero will do; this one is no outlier
            projected = np.column_stack([projected, np.full(len(projected), constant)])
        separation = linear_separation(projected, labels)
        return separation if separation.certified else linear_separation(_whitened(projected), labels)


def _bracket(experiment: _Experiment, batch: int) -> tuple[int, int]:
    """Go up from Cover's bound by doubling until nearly all are separable, then bisect to a tenth of n.

    No manifold is easier than one of its points, and no P vectors are easier than P in general position: p(n) <= 1/2 up
    to n = P/2, or P/2 - 1 with a bias.
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
    r"""On (r, log w): :math:`\sum_n m_n \varphi^2/(\Phi(1-\Phi))\, \nabla z \nabla z^\top`, and the prior's."""
    z = (x - root) / np.exp(log_width)
    weight = trials * np.exp(-(z**2) - np.log(2 * np.pi) - log_ndtr(z) - log_ndtr(-z))
    gradient = np.stack([np.full_like(z, -np.exp(-log_width)), -z])
    return (gradient * weight) @ gradient.T + np.diag([1e-12, 1.0])


def _result(experiment: _Experiment) -> SimulatedCapacity:
    P, rank = len(experiment.sizes), experiment.rank
    n, separable, trials = experiment.table()
    curve = _fit(n, separable, trials, experiment) if rank else _Curve(np.inf, np.nan, np.nan)
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
    if center > rank:
        return f"not_separable:alpha<{P / rank:.4g}"
    if center < 0.75:
        return f"separable_in_1:alpha>{P}"
    return ""

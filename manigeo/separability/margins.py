r"""Separation of each class from the rest, and of each pair of classes, by hyperplanes, with the margin.

The margin of two sets is half the distance of their convex hulls (Bennett & Bredensteiner 2000),

.. math:: \gamma = \max_{|w|=1} \tfrac12 \Big(\min_{y_i=1} w \cdot x_i - \max_{y_i=-1} w \cdot x_i\Big)
                 = \min_{u, v} \tfrac12 \Big|\sum_{y_i=1} u_i x_i - \sum_{y_i=-1} v_i x_i\Big| ,

u and v non-negative of sum one: any w bounds it from below, and any pair of convex combinations from above, so that a
hard-margin support vector machine (Vapnik 1995) proves itself. A positive lower bound proves that the sets are separable.
Where it finds none, :func:`~manigeo.capacity.separation.linear_separation` decides, with a certificate of its own.
"""

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
import sklearn
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC

from manigeo.capacity.separation import linear_separation
from manigeo.faces.results import Drawn
from manigeo.inputs import Labels, Points, Sample, take_points, whole_number
from manigeo.randomness import Seed, generator

# Steps of the solver, sequential minimal optimisation: separable classes of real layers take some hundreds to 25,000.
_STEPS = 50_000
_MORE_STEPS = 2_000_000  # where it is known that there is a margin, but a small one
_HARD = 1e12  # of C: no point may be on the wrong side
# Of the constraints y (w.x + b) >= 1, so about that of the margin. The solver holds inner products in float32: of margins
# below a thousandth, bounds may stay tens of percent apart, and say so.
_TOLERANCE = 1e-4
_CACHE_MB = 100


@dataclass(frozen=True, repr=False)
class Margins(Drawn):
    """Margins, one per problem: ``separable``, the proven ``margin``, in units of the points' root mean square distance
    from their mean, and its upper bound ``margin + residual``. Where a problem is not separable the margin is 0, as the
    hulls meet, and the residual is the length of a combination of signed points that proves it by vanishing.

    ``problems`` (problems, 2) holds the numbers of the two classes among ``classes``, the labels; -1 stands for the rest.
    ``certified`` tells whether a proof was found; ``flag`` counts points that were left out, ``dropped:n``.
    """

    headline = ("n_problems", "n_separable", "smallest_margin")

    problems: Int[np.ndarray, "problems 2"]
    separable: Bool[np.ndarray, " problems"]
    margin: Float[np.ndarray, " problems"]
    residual: Float[np.ndarray, " problems"]
    certified: Bool[np.ndarray, " problems"]
    classes: np.ndarray
    flag: str

    @property
    def n_problems(self) -> int:
        return len(self.separable)

    @property
    def n_separable(self) -> int:
        return int(self.separable.sum())

    @property
    def smallest_margin(self) -> float:
        return float(self.margin.min())


def one_versus_rest(points: Points, labels: Labels, *, nan: str = "raise") -> Margins:
    """Margin of each class against all others together.

    ``points`` (points, features) and ``labels`` may be of any origin, ``nan`` is ``"raise"`` or ``"drop"``
    (:mod:`manigeo.inputs`). Raises ``ValueError`` for one class, and NaN or infinite entries.

    >>> square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> one_versus_rest(square, np.array([0, 1, 1, 0])).separable.tolist()
    [False, False]
    """
    sample = take_points(points, labels, nan=nan)
    return _solve(sample, [(c, -1) for c in range(sample.n_classes)])


def pairs_of_classes(
    points: Points,
    labels: Labels,
    most: int = 500,
    *,
    nan: str = "raise",
    seed: Seed | None = None,
    rng: Seed | None = None,
) -> Margins:
    """Margin of each class against each other; of ``most`` pairs, drawn at random, where there are more.

    ``points`` (points, features) and ``labels`` may be of any origin, ``nan`` is ``"raise"`` or ``"drop"``; ``seed`` or
    ``rng`` draws, seed 0 without either (:mod:`manigeo.inputs`).

    Raises ``ValueError`` for one class, ``most`` below 1, and NaN or infinite entries.

    >>> X = np.array([[-3.0], [-1.0], [1.0], [3.0]])
    >>> both = pairs_of_classes(X, np.array([0, 0, 1, 1]))
    >>> float(both.margin[0] * np.sqrt(5))  # 1, in units of the root mean square distance
    1.0
    """
    sample = take_points(points, labels, nan=nan)
    pairs = list(itertools.combinations(range(sample.n_classes), 2))
    size = min(whole_number(most, "most"), len(pairs))
    drawn = np.sort(generator(seed, rng).choice(len(pairs), size=size, replace=False))
    return _solve(sample, [pairs[i] for i in drawn])


def _solve(sample: Sample, problems: list[tuple[int, int]]) -> Margins:
    X = sample.points.astype(np.float64)
    X -= X.mean(axis=0)
    X /= np.sqrt(np.square(X).sum(axis=1).mean()) or 1.0
    gram = X @ X.T
    # scikit-learn's look at every array for what is not finite takes longer than most problems
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        found = zip(*[_margin(X, gram, sample.codes, *pair) for pair in problems], strict=True)
    separable, margin, residual, certified = map(np.array, found)
    return Margins(np.array(problems), separable, margin, residual, certified, sample.classes, sample.flag)


def _margin(
    X: np.ndarray, gram: np.ndarray, labels: np.ndarray, one: int, other: int
) -> tuple[bool, float, float, bool]:
    rows = np.arange(len(labels)) if other < 0 else np.flatnonzero((labels == one) | (labels == other))
    sides = np.where(labels[rows] == one, 1.0, -1.0)
    inner = gram if other < 0 else gram[np.ix_(rows, rows)]
    low, high = _bounds(inner, sides, _multipliers(inner, sides, _STEPS))
    if low > 0:
        return True, low, high - low, True
    # an offset is a constant feature, of the size of the others
    separation = linear_separation(np.column_stack([X[rows], np.ones(len(rows))]), sides)
    if not separation.separable:
        return False, 0.0, separation.residual, separation.certified
    normal = separation.normal[:-1]
    far_low, far_high = _bounds(inner, sides, _multipliers(inner, sides, _MORE_STEPS))
    low, high = max(far_low, _along(X[rows] @ normal, normal, sides)), min(high, far_high)
    return True, low, high - low, separation.certified or low > 0


def _multipliers(gram: np.ndarray, sides: np.ndarray, steps: int) -> np.ndarray:
    """Multipliers of the hard-margin support vector machine, as far as the steps go."""
    machine = SVC(C=_HARD, kernel="precomputed", tol=_TOLERANCE, max_iter=steps, cache_size=_CACHE_MB)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bounds say how far it came
        machine.fit(gram, sides)
    multipliers = np.zeros(len(sides))
    multipliers[machine.support_] = np.abs(machine.dual_coef_[0])
    return multipliers


def _products(gram: np.ndarray, combination: np.ndarray) -> np.ndarray:
    """Inner products of all points with a combination of a few."""
    few = np.flatnonzero(combination)
    return combination[few] @ gram[few]


def _bounds(gram: np.ndarray, sides: np.ndarray, multipliers: np.ndarray) -> tuple[float, float]:
    """Bounds of the margin, below and above, from the difference of the two convex combinations of the multipliers."""
    positive = sides > 0
    combination = np.where(
        positive, multipliers / multipliers[positive].sum(), -multipliers / multipliers[~positive].sum()
    )
    along = _products(gram, combination)
    length = np.sqrt(max(combination @ along, 0.0))
    if length == 0:
        return 0.0, 0.0
    return float((along[positive].min() - along[~positive].max()) / 2 / length), float(length / 2)


def _along(projections: np.ndarray, normal: np.ndarray, sides: np.ndarray) -> float:
    gap = projections[sides > 0].min() - projections[sides < 0].max()
    return float(gap / 2 / (np.linalg.norm(normal) or 1.0))

r"""Accuracy of a linear classifier on examples that it has not seen: multinomial logistic regression, cross-validated.

.. math:: \min_{W, b}\; \tfrac12 |W|^2 + C \sum_i \Big(\log \sum_c e^{f_c(z_i)} - f_{y_i}(z_i)\Big),
          \qquad f_c(z) = w_c \cdot z + b_c, \quad z = \frac{x - m}{s \sqrt d}

with mean m and standard deviation s of each feature over the points that the classifier is trained on, and no others. Over
:math:`\sqrt d`, points have length one in any layer, and one grid of C serves all of them.

Each fold of the points is scored by a classifier trained on the other folds. Its C is chosen within these, on a ring of
folds: a classifier that has seen neither fold k nor fold k + 1 is scored on k + 1 in favour of the one for fold k, and on
k in favour of the one for fold k + 1. So each of them serves twice, and starts a final one. The grid is climbed, each step
from the last one's solution, until no more validation examples are got right: the choice for fold k never sees fold k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.linalg import solve_triangular

from manigeo.faces.results import Drawn
from manigeo.inputs import Labels, Points, Sample, as_array, take_points, whole_number
from manigeo.randomness import Seed, generator
from manigeo.separability.coordinates import CONSTANT_ULPS, gram_factor
from manigeo.separability.logistic import GRADIENT_ATOL, Logistic, Solution
from manigeo.separability.scores import class_averages, stratified_folds

# Memorized labels take the weakest: ten times weaker still adds .01 to an accuracy of .8, at twice the time. Few noisy
# features take the strongest.
GRID = (0.1, 1.0, 10.0, 100.0)
FEWEST_FOLDS = 3  # below it, nothing is left to choose C on
# Of the gradient where C is chosen: half the steps; of 1120 points of real layers, the number got right moved by 6 at most
_CHOOSING_ATOL = 1e-4
_MANY_FEATURES = 2  # times the points: from here on turning them is the cheaper way


@dataclass(frozen=True)
class LinearClassifier:
    """The class of largest ``points @ weights + offsets``: its label of ``classes``, or its number where these are None."""

    weights: Float[np.ndarray, "features classes"]
    offsets: Float[np.ndarray, " classes"]
    classes: np.ndarray | None = None

    def predict(self, points: Points) -> Shaped[np.ndarray, " points"]:
        number = (as_array(points) @ self.weights + self.offsets).argmax(axis=1)
        return number if self.classes is None else self.classes[number]


@dataclass(frozen=True, repr=False)
class LinearProbe(Drawn):
    """``predicted`` (points,): the label of each by the classifier that has not seen it, number ``folds`` of them;
    ``per_class`` (classes,): the share of each of the ``classes`` that is predicted right.

    ``regularization`` (folds,) is the C that was chosen for each, of :data:`GRID`; ``gradient`` (folds,) the largest entry
    of the gradient of the mean loss, in float64, and ``converged`` (folds,) whether it is within
    :data:`~manigeo.separability.logistic.GRADIENT_ATOL`.

    ``kept`` (given,) tells which of the given points these are; ``flag`` counts the others, ``dropped:n``.
    """

    headline = ("accuracy", "n_classes", "n_folds")

    predicted: Shaped[np.ndarray, " points"]
    folds: Int[np.ndarray, " points"]
    classifiers: Sequence[LinearClassifier]
    regularization: Float[np.ndarray, " folds"]
    gradient: Float[np.ndarray, " folds"]
    converged: Bool[np.ndarray, " folds"]
    kept: Bool[np.ndarray, " given"]
    per_class: Float[np.ndarray, " classes"]
    classes: np.ndarray
    flag: str = ""

    @property
    def accuracy(self) -> float:
        """The mean of ``per_class``: chance is one over the number of classes, however many points they have."""
        return float(self.per_class.mean())

    @property
    def accuracy_stderr(self) -> float:
        """Standard error of the accuracy over classes."""
        return float(self.per_class.std(ddof=1) / np.sqrt(self.n_classes))

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def n_folds(self) -> int:
        return len(self.regularization)


def linear_probe(
    points: Points,
    labels: Labels,
    n_folds: int = 5,
    *,
    standardise: bool = True,
    nan: str = "raise",
    seed: Seed | None = None,
    rng: Seed | None = None,
) -> LinearProbe:
    """The class of each point by a linear classifier trained on other folds; folds hold as much of every class.

    ``standardise=False`` is for points that are already, and of length one. ``points`` (points, features) and ``labels``
    may be of any origin, ``nan`` is ``"raise"`` or ``"drop"``; ``seed`` or ``rng`` draws the folds, seed 0 without either
    (:mod:`manigeo.inputs`).

    Returns a :class:`LinearProbe`, with the label predicted for each point.

    Raises ``ValueError`` for fewer than 3 folds, one class, a class with fewer points than there are folds, and NaN or
    infinite entries.

    >>> y = np.repeat(["cat", "dog", "owl"], 10)
    >>> X = 3.0 * (y[:, None] == np.unique(y)) + 0.1 * np.random.default_rng(0).standard_normal((30, 3))
    >>> linear_probe(X, y).predicted[[0, 10, 20]].tolist()
    ['cat', 'dog', 'owl']
    """
    whole_number(n_folds, "n_folds")
    if n_folds < FEWEST_FOLDS:
        raise ValueError(f"a probe takes {FEWEST_FOLDS} folds or more, two of them to choose C on; got {n_folds}")
    sample = take_points(points, labels, nan=nan)
    if sample.unit != 1 and not standardise:
        raise ValueError(
            f"points reach {sample.unit:.1g}, expected a length of about one with standardise=False; leave that out"
        )
    folds = stratified_folds(sample.codes, n_folds, generator(seed, rng))
    predicted = np.empty_like(sample.codes)
    classifiers, gradients = [], []
    chosen = _choose(sample, folds, standardise)
    for fold, start in enumerate(chosen):
        classifier, gradient = _Training(sample, folds != fold, standardise).finish(start)
        predicted[folds == fold] = classifier.predict(sample.points[folds == fold])
        classifiers.append(_as_given(classifier, sample))
        gradients.append(gradient)
    return LinearProbe(
        sample.classes[predicted],
        folds,
        classifiers=classifiers,
        regularization=np.array([start.C for start in chosen]),
        gradient=np.array(gradients),
        converged=np.array(gradients) <= GRADIENT_ATOL,
        kept=sample.kept,
        per_class=class_averages((predicted == sample.codes).astype(float), sample.codes),
        classes=sample.classes,
        flag=sample.flag,
    )


def _as_given(classifier: LinearClassifier, sample: Sample) -> LinearClassifier:
    """Classifier of points and labels as they were given."""
    weights = (
        classifier.weights if sample.unit == 1 else classifier.weights / classifier.weights.dtype.type(sample.unit)
    )
    return LinearClassifier(weights, classifier.offsets, sample.classes)


class _Training:
    r"""The points that classifiers are trained on: standardised and, where features are many more than points, turned.

    With :math:`Z Z^\top = L L^\top`, the rows of L are as many points in as many coordinates, with the same inner products
    and so the same problem; from its solution V, that in features is :math:`W = Z^\top L^{-\top} V`.
    """

    def __init__(self, sample: Sample, rows: np.ndarray, standardise: bool) -> None:
        features = sample.points.shape[1]
        self._points, self._rows = sample.points, rows
        self.mean, self.scale = np.zeros(features), np.ones(features)
        self._standardised: np.ndarray | None = None
        if standardise:
            self.mean, self.scale = _standardisation(sample.points[rows])
            self._standardised = self._features(rows)
        codes, Z = sample.codes[rows], self.Z
        self.turned = gram_factor(Z @ Z.T) if features > _MANY_FEATURES * len(codes) else None
        self.problem = Logistic(Z if self.turned is None else self.turned, codes, sample.n_classes)

    @property
    def Z(self) -> np.ndarray:
        """Held where it is not simply some of the points as they were given: these may be hundreds of megabytes."""
        return self._features(self._rows) if self._standardised is None else self._standardised

    def _features(self, rows: np.ndarray) -> np.ndarray:
        """Standardised features of some of the points."""
        Z = self._points[rows]
        if (self.scale != 1).any() or self.mean.any():
            Z -= self.mean.astype(Z.dtype)
            Z *= self.scale.astype(Z.dtype)
        return Z

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        """Coordinates of some of the points, in which a solution classifies them."""
        Z = self._features(rows)
        return Z if self.turned is None else solve_triangular(self.turned, self.Z @ Z.T, lower=True).T

    def in_features(self, solved: Solution) -> Solution:
        """The solution in standardised features, of which other trainings have about the same."""
        if self.turned is None:
            return solved
        weights = self.Z.T @ solve_triangular(self.turned, solved.weights, lower=True, trans=1)
        return Solution(np.vstack([weights, solved.offsets]), solved.C)

    def finish(self, start: Solution) -> tuple[LinearClassifier, float]:
        """Classifier of points as they are, from a start in features, and the gradient that is left."""
        if self.turned is not None:
            weights = solve_triangular(self.turned, self.Z @ start.weights, lower=True)
            start = Solution(np.vstack([weights, start.offsets]), start.C)
        solved = self.problem.solve(start.C, start)
        x = self.in_features(solved)
        weights = x.weights * self.scale[:, None]
        classifier = LinearClassifier(weights.astype(x.weights.dtype), x.offsets - self.mean @ weights)
        return classifier, self.problem.gradient(solved)


def _standardisation(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and factor of each feature; of constant ones the factor is 0, since rounding is all that is left of them."""
    mean = points.mean(axis=0, dtype=np.float64)
    deviation = points.std(axis=0, dtype=np.float64)
    varies: np.ndarray = deviation > CONSTANT_ULPS * np.finfo(points.dtype).eps * np.abs(mean)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    return mean, scale / np.sqrt(max(int(np.count_nonzero(varies)), 1))


def _choose(sample: Sample, folds: np.ndarray, standardise: bool) -> list[Solution]:
    """For each fold, the solution of a part of the other folds at the C with which most of the rest of them is got right."""
    ring = np.unique(folds)
    following = np.roll(ring, -1)
    parts = [(folds != fold) & (folds != after) for fold, after in zip(ring, following, strict=True)]
    trainings = [_Training(sample, part, standardise) for part in parts]
    unseen = [training.coordinates(~part) for training, part in zip(trainings, parts, strict=True)]
    path: list[list[Solution]] = []
    right: list[np.ndarray] = []
    starts: Sequence[Solution | None] = [None] * len(parts)
    for C in GRID:
        starts = solved = [
            t.problem.solve(C, start, _CHOOSING_ATOL) for t, start in zip(trainings, starts, strict=True)
        ]
        hits = np.zeros((len(parts), len(ring)), dtype=np.int64)
        for number, (one, part) in enumerate(zip(solved, parts, strict=True)):
            predicted = (unseen[number] @ one.weights + one.offsets).argmax(axis=1)
            hits[number] = np.bincount(folds[~part][predicted == sample.codes[~part]], minlength=len(ring))
        path.append(solved)
        ahead, behind = hits[ring, following], hits[ring, ring]  # of the two folds that number k has not seen
        right.append(ahead + np.roll(behind, 1))
        steps = _last_gains(np.array(right))
        if (steps < len(right) - 1).all():
            break
    return [trainings[fold].in_features(path[step][fold]) for fold, step in enumerate(steps)]


def _last_gains(right: Int[np.ndarray, "steps folds"]) -> Int[np.ndarray, " folds"]:
    """The step up to which the number of each fold rises."""
    return np.cumprod(np.diff(right, axis=0) > 0, axis=0, dtype=np.int64).sum(axis=0)

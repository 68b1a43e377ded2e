r"""The cheap baseline: how far apart the class means are, and what the nearest of them gets right.

No direction is weighed, so this is what a layer shows without any fitting (Fisher 1936; nearest class mean).
"""

import numpy as np
from jaxtyping import Float

from manigeo.inputs import Labels, Points, take_points, warn_of
from manigeo.randomness import Seed, generator
from manigeo.separability.scores import stratified_folds


def nearest_mean_scores(
    points: Points,
    labels: Labels,
    n_folds: int = 5,
    *,
    nan: str = "raise",
    seed: Seed | None = None,
    rng: Seed | None = None,
) -> Float[np.ndarray, " points"]:
    """1.0 for each point whose nearest class mean, of the other folds' points, is that of its class; else 0.0.

    ``points`` (points, features) and ``labels`` may be of any origin, ``nan`` is ``"raise"`` or ``"drop"``: a point that is
    left out scores NaN, and a warning counts these. ``seed`` or ``rng`` draws the folds, seed 0 without either
    (:mod:`manigeo.inputs`).

    Raises ``ValueError`` where a class has fewer points than there are folds, for one class, and NaN or infinite entries.

    >>> X = np.array([[0.0], [0.2], [0.1], [5.0], [5.2], [5.1]])
    >>> nearest_mean_scores(X, np.repeat([0, 1], 3), 3, rng=np.random.default_rng(0)).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    sample = take_points(points, labels, nan=nan)
    X, codes = sample.points, sample.codes
    folds = stratified_folds(codes, n_folds, generator(seed, rng))
    right = np.empty(len(codes))
    for fold in range(n_folds):
        held_out = folds == fold
        means = _class_means(X[~held_out], codes[~held_out])
        # |x - m|^2 without |x|^2, which is the same for all m
        distances = np.square(means).sum(axis=1) - 2 * (X[held_out] @ means.T)
        right[held_out] = distances.argmin(axis=1) == codes[held_out]
    warn_of(sample.flag, "nearest_mean_scores")
    scores = np.full(len(sample.kept), np.nan)
    scores[sample.kept] = right
    return scores


def fisher_ratio(points: Points, labels: Labels, *, nan: str = "raise") -> Float[np.ndarray, " classes"]:
    r"""Variance between classes over variance within them; each class's part, whose mean is the ratio.

    .. math:: F = \frac{\sum_c n_c |m_c - m|^2 / (P - 1)}{\sum_i |x_i - m_{y_i}|^2 / (n - P)}

    Labels without relation to the points give 1. Infinite where points lie on their means, NaN where all points are one.
    ``points`` (points, features) and ``labels`` may be of any origin, classes are in sorted order; ``nan`` is ``"raise"``,
    or ``"drop"``, which warns with the number (:mod:`manigeo.inputs`).

    Raises ``ValueError`` for one class, and NaN or infinite entries.

    >>> float(fisher_ratio(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1])).mean())
    8.0
    """
    sample = take_points(points, labels, nan=nan)
    X, codes = sample.points, sample.codes
    means, sizes = _class_means(X, codes), np.bincount(codes)
    P, n = len(means), len(codes)
    between = sizes * np.square(means - sizes @ means / n).sum(axis=1)
    within = sum(float(np.square(X[codes == c] - means[c], dtype=np.float64).sum()) for c in range(P))
    warn_of(sample.flag, "fisher_ratio")
    with np.errstate(divide="ignore", invalid="ignore"):
        return P * between / (P - 1) / np.divide(within, n - P)


def _class_means(points: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, "classes features"]:
    return np.stack([points[labels == c].mean(axis=0, dtype=np.float64) for c in range(labels.max() + 1)])

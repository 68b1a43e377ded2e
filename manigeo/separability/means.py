r"""The cheap baseline: how far apart the class means are, and what the nearest of them gets right.

No direction is weighed, so this is what a layer shows without any fitting (Fisher 1936; nearest class mean).
"""

import numpy as np
from jaxtyping import Float, Int

from manigeo.separability.scores import stratified_folds


def nearest_mean_scores(
    points: Float[np.ndarray, "points features"],
    labels: Int[np.ndarray, " points"],
    n_folds: int = 5,
    *,
    rng: np.random.Generator,
) -> Float[np.ndarray, " points"]:
    """1.0 for each point whose nearest class mean, of the other folds' points, is that of its class; else 0.0.

    Raises ``ValueError`` where a class has fewer points than there are folds.

    >>> X = np.array([[0.0], [0.2], [0.1], [5.0], [5.2], [5.1]])
    >>> nearest_mean_scores(X, np.repeat([0, 1], 3), 3, rng=np.random.default_rng(0)).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    folds = stratified_folds(labels, n_folds, rng)
    scores = np.empty(len(labels))
    for fold in range(n_folds):
        held_out = folds == fold
        means = _class_means(points[~held_out], labels[~held_out])
        # |x - m|^2 without |x|^2, which is the same for all m
        distances = np.square(means).sum(axis=1) - 2 * (points[held_out] @ means.T)
        scores[held_out] = distances.argmin(axis=1) == labels[held_out]
    return scores


def fisher_ratio(
    points: Float[np.ndarray, "points features"], labels: Int[np.ndarray, " points"]
) -> Float[np.ndarray, " classes"]:
    r"""Variance between classes over variance within them; each class's part, whose mean is the ratio.

    .. math:: F = \frac{\sum_c n_c |m_c - m|^2 / (P - 1)}{\sum_i |x_i - m_{y_i}|^2 / (n - P)}

    Labels without relation to the points give 1. Infinite where points lie on their means.

    >>> float(fisher_ratio(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1])).mean())
    8.0
    """
    means, sizes = _class_means(points, labels), np.bincount(labels)
    P, n = len(means), len(labels)
    between = sizes * np.square(means - sizes @ means / n).sum(axis=1)
    within = sum(float(np.square(points[labels == c] - means[c], dtype=np.float64).sum()) for c in range(P))
    with np.errstate(divide="ignore", invalid="ignore"):
        return P * between / (P - 1) / (within / (n - P))


def _class_means(points: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, "classes features"]:
    return np.stack([points[labels == c].mean(axis=0, dtype=np.float64) for c in range(labels.max() + 1)])

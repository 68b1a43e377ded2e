"""Steps that all measures share: folds, class averages of example scores, halves of each class, intervals of shares."""

import numpy as np
from jaxtyping import Float, Int
from sklearn.model_selection import StratifiedKFold


def stratified_folds(
    labels: Int[np.ndarray, " points"], n_folds: int, rng: np.random.Generator
) -> Int[np.ndarray, " points"]:
    """The fold of each point, 0 to ``n_folds`` - 1: every class is spread evenly over all folds.

    Raises ``ValueError`` where a class has fewer points than there are folds.

    >>> folds = stratified_folds(np.repeat([0, 1], 6), 3, np.random.default_rng(0))
    >>> np.bincount(folds[:6]).tolist(), np.bincount(folds[6:]).tolist()
    ([2, 2, 2], [2, 2, 2])
    """
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < n_folds:
        raise ValueError(f"{n_folds} folds take {n_folds} points of every class or more, got a class with {smallest}")
    split = StratifiedKFold(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
    folds = np.empty(len(labels), dtype=np.int64)
    for number, (_, held_out) in enumerate(split.split(labels, labels)):
        folds[held_out] = number
    return folds


def class_averages(
    scores: Float[np.ndarray, " points"], labels: Int[np.ndarray, " points"]
) -> Float[np.ndarray, " classes"]:
    """Mean score of the points of each class.

    >>> class_averages(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1])).tolist()
    [0.5, 1.0]
    """
    return np.bincount(labels, scores) / np.bincount(labels)


def wilson_interval(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    r"""Interval of a probability of which a share of ``n`` independent trials was seen (Wilson 1927), 95 % by default.

    .. math:: \frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}

    It never leaves [0, 1], and has a width where every trial succeeded.

    >>> [round(end, 3) for end in wilson_interval(1.0, 100)]
    [0.963, 1.0]
    """
    center = share + z**2 / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, float((center - spread) / scale)), min(1.0, float((center + spread) / scale))

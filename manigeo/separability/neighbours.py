r"""Purity of neighbourhoods: which share of the nearest points is of the same class.

Dyballa, Gerritz & Zucker (2024) take as many neighbours as a class has examples; with more than there are others,

.. math:: g^{k\mathrm{NN}} = \frac1n \sum_i \frac1k \#\{j \in N_k(i) : y_j = y_i\} \le \frac{n_c - 1}{k} ,

so the ceiling belongs beside the number.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors


@dataclass(frozen=True)
class Purity:
    """``scores`` (points,), the share of each one's ``k`` nearest that is of its class; ``value`` is their mean.

    ``chance`` is what labels without relation to the points give, ``ceiling`` what separate classes reach.
    """

    k: int
    scores: Float[np.ndarray, " points"]
    value: float
    chance: float
    ceiling: float


def neighbour_purity(
    points: Float[np.ndarray, "points features"], labels: Int[np.ndarray, " points"], k: tuple[int, ...] = (1,)
) -> list[Purity]:
    r"""Share of the k nearest points (Euclidean, the point itself not counted) that is of the same class, for each k.

    .. math:: \text{chance} = \frac1n \sum_i \frac{n_{y_i} - 1}{n - 1}, \qquad
              \text{ceiling} = \frac1n \sum_i \frac{\min(k, n_{y_i} - 1)}{k}

    Raises ``ValueError`` for k below 1, or not below the number of points: these have no k neighbours.

    >>> line = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> [purity] = neighbour_purity(line, np.array([0, 0, 1, 1]), k=(2,))
    >>> purity.value, purity.ceiling, round(purity.chance, 3)
    (0.5, 0.5, 0.333)
    """
    n = len(points)
    if not k or min(k) < 1 or max(k) >= n:
        raise ValueError(f"k must be from 1 to {n - 1}, one below the number of points; got {k}")
    index = NearestNeighbors(n_neighbors=max(k), algorithm="brute").fit(points)
    same = labels[index.kneighbors(return_distance=False)] == labels[:, None]
    others = np.bincount(labels)[labels] - 1
    chance = float(others.mean()) / (n - 1)
    return [_purity(same[:, :size].mean(axis=1), size, chance, others) for size in k]


def _purity(scores: np.ndarray, k: int, chance: float, others: np.ndarray) -> Purity:
    return Purity(k, scores, float(scores.mean()), chance, float(np.minimum(k, others).mean()) / k)

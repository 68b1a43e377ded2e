r"""Purity of neighbourhoods: which share of the nearest points is of the same class.

Dyballa, Gerritz & Zucker (2024) take as many neighbours as a class has examples; with more than there are others,

.. math:: g^{k\mathrm{NN}} = \frac1n \sum_i \frac1k \#\{j \in N_k(i) : y_j = y_i\} \le \frac{n_c - 1}{k} ,

so the ceiling belongs beside the number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.neighbors import NearestNeighbors

from manigeo.faces.results import Drawn
from manigeo.inputs import Labels, Points, Sample, take_points, whole_number


@dataclass(frozen=True, repr=False)
class Purity(Drawn):
    """``scores`` (points,), the share of each one's ``k`` nearest that is of its class; ``value`` is their mean.

    ``chance`` is what labels without relation to the points give, ``ceiling`` what separate classes reach. ``kept`` (given,)
    tells which of the given points these are; ``flag`` counts the others, ``dropped:n``.
    """

    headline = ("value", "k", "chance", "ceiling")

    k: int
    scores: Float[np.ndarray, " points"]
    value: float
    chance: float
    ceiling: float
    kept: Bool[np.ndarray, " given"]
    flag: str


def neighbour_purity(
    points: Points, labels: Labels, k: int | Sequence[int] = (1,), *, nan: str = "raise"
) -> list[Purity]:
    r"""Share of the k nearest points (Euclidean, the point itself not counted) that is of the same class, for each k.

    .. math:: \text{chance} = \frac1n \sum_i \frac{n_{y_i} - 1}{n - 1}, \qquad
              \text{ceiling} = \frac1n \sum_i \frac{\min(k, n_{y_i} - 1)}{k}

    ``points`` (points, features) and ``labels`` may be of any origin, ``nan`` is ``"raise"`` or ``"drop"``
    (:mod:`manigeo.inputs`).

    Returns one :class:`Purity` per k. Dyballa, Gerritz & Zucker (2024).

    Raises ``ValueError`` for k below 1, or not below the number of points: these have no k neighbours; one class; and NaN
    or infinite entries.

    >>> line = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> [purity] = neighbour_purity(line, np.array([0, 0, 1, 1]), k=(2,))
    >>> purity.value, purity.ceiling, round(purity.chance, 3)
    (0.5, 0.5, 0.333)
    """
    sample = take_points(points, labels, nan=nan)
    X, codes, n = sample.points, sample.codes, len(sample.points)
    sizes = [whole_number(size, "k", least=0) for size in ([k] if isinstance(k, int | np.integer) else k)]
    if not sizes or min(sizes) < 1 or max(sizes) >= n:
        raise ValueError(f"k must be from 1 to {n - 1}, one below the number of points; got {k}")
    index = NearestNeighbors(n_neighbors=max(sizes), algorithm="brute").fit(X)
    same = codes[index.kneighbors(return_distance=False)] == codes[:, None]
    others = np.bincount(codes)[codes] - 1
    chance = float(others.mean()) / (n - 1)
    return [_purity(same[:, :size].mean(axis=1), size, chance, others, sample) for size in sizes]


def _purity(scores: np.ndarray, k: int, chance: float, others: np.ndarray, sample: Sample) -> Purity:
    ceiling = float(np.minimum(k, others).mean()) / k
    return Purity(k, scores, float(scores.mean()), chance, ceiling, sample.kept, sample.flag)

r"""Memorization of single units: how much more a unit responds to one example than to the others.

Wang, Dziedzic et al. (2024), Localizing memorization in SSL vision encoders, NeurIPS, equation 7, with the mean of
the other examples (the authors' code takes their median).
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float


def unit_memorization(clouds: Iterable[np.ndarray]) -> Float[np.ndarray, " features"]:
    r"""UnitMem of each feature over all points of the ``clouds``, arrays (points, features): 0 for a unit that responds to
    all alike, 1 for one that responds to a single point.

    .. math:: \frac{\mu_{\max} - \mu_{-\max}}{\mu_{\max} + \mu_{-\max}}

    of the largest response of the unit and the mean of the others. Responses are what a rectifier lets through: activations
    below zero count as zero, and a unit that is never above has 0. The clouds are read one after the other.

    Raises ``ValueError`` for fewer than two points.

    >>> unit_memorization([np.array([[0.0, 2.0, 0.0], [5.0, 2.0, 3.0]]), np.array([[0.0, 2.0, 3.0]])]).tolist()
    [1.0, 0.0, 0.3333333333333333]
    """
    n, total, largest = 0, np.zeros(1), np.zeros(1)
    for points in clouds:
        responses = np.maximum(points, 0, dtype=np.float64)
        n, total = n + len(points), total + responses.sum(axis=0)
        largest = np.maximum(largest, responses.max(axis=0, initial=0.0))
    if n < 2:
        raise ValueError(f"UnitMem compares a point with others: expected two points or more, got {n}")
    others = np.maximum(total - largest, 0) / (n - 1)
    others = np.minimum(others, largest)  # rounding of the sum of equal responses
    return np.divide(largest - others, largest + others, out=np.zeros_like(largest), where=largest > 0)

r"""Loads: which part each point has in the inverse capacity of its manifold.

The projection :math:`\sum_i \lambda_i a_i` of a draw t has the squared length :math:`\sum_i \lambda_i\, a_i \cdot t`, whose
mean is the inverse capacity: so the summands are what each point takes of it, and they add up exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from manigeo.manifolds import standard_error


@dataclass(frozen=True)
class AnchorLoads:
    """Loads of the points of each manifold, an array (points,) each, and their standard errors over draws.

    ``flag`` tells why they are NaN or in doubt.
    """

    values: list[np.ndarray]
    stderr: list[np.ndarray]
    flag: str


def mean_loads(drawn: Float[np.ndarray, "draws points"], sizes: Sequence[int], flag: str = "") -> AnchorLoads:
    """Average the loads of all draws; ``sizes`` are the numbers of points of the manifolds, in the order of the columns.

    >>> mean_loads(np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]]), [2, 1]).values
    [array([2., 0.]), array([2.])]
    """
    ends = np.cumsum(sizes)[:-1]
    return AnchorLoads(np.split(drawn.mean(axis=0), ends), np.split(standard_error(drawn), ends), flag)

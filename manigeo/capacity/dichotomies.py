r"""Random dichotomies of manifolds, without the two that put all of them on one side.

The mean of all samples is zero, so that no hyperplane through the origin has them all on one side, in any number of
dimensions; and a hyperplane with an offset always does. With P manifolds either is true of a share :math:`2^{1-P}` of all
labellings, whatever the manifolds are, so capacity is over the :math:`2^P - 2` others. A mean over all labellings has the
exact correction :math:`\langle f \rangle = (1 - 2^{1-P}) \langle f \rangle' + 2^{1-P} f_\pm`.
"""

import numpy as np
from jaxtyping import Float


def random_dichotomy(rng: np.random.Generator, n_manifolds: int) -> Float[np.ndarray, " manifolds"]:
    """Labels of -1 and 1, uniform among those that have both.

    >>> sorted(random_dichotomy(np.random.default_rng(0), 2).tolist())
    [-1.0, 1.0]
    """
    while True:  # one more time for every 2^(P-1) labels: draws of other labels are as they would be without this
        labels = rng.choice([-1.0, 1.0], n_manifolds)
        if abs(labels.sum()) < n_manifolds:
            return labels

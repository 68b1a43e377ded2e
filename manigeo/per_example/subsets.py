r"""Memorization and influence from networks that were trained on random subsets of the training examples.

Feldman & Zhang (2020), What neural networks memorize and why: discovering the long tail via influence estimation, NeurIPS.
An example is memorized by as much as training on it raises the probability that a network answers it by its label.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Difference:
    """Differences between networks trained with an example and without it: ``value`` = ``within`` - ``without``, shares of
    networks that answer correctly, and the standard error of the value. NaN where one of the two groups is empty."""

    value: Float[np.ndarray, "..."]
    stderr: Float[np.ndarray, "..."]
    within: Float[np.ndarray, "..."]
    without: Float[np.ndarray, "..."]


def memorization(correct: Bool[np.ndarray, "runs n"], inside: Bool[np.ndarray, "runs n"]) -> Difference:
    r"""Memorization of n training examples, which are ``inside`` of the subsets of some of the runs.

    .. math:: \mathrm{mem}_i = \Pr[\hat y_i = y_i \mid i \in S] - \Pr[\hat y_i = y_i \mid i \notin S]

    >>> correct = np.array([[True], [True], [False], [True]])
    >>> found = memorization(correct, np.array([[True], [True], [False], [False]]))
    >>> found.value.tolist(), found.within.tolist(), found.without.tolist()
    ([0.5], [1.0], [0.5])
    """
    hits = np.count_nonzero(correct & inside, axis=0), np.count_nonzero(correct & ~inside, axis=0)
    return _difference(*hits, np.count_nonzero(inside, axis=0), np.count_nonzero(~inside, axis=0))


def influence(correct: Bool[np.ndarray, "runs m"], inside: Bool[np.ndarray, "runs n"]) -> Difference:
    r"""Influence of n training examples on m others, arrays (n, m).

    .. math:: \mathrm{infl}_{ij} = \Pr[\hat y_j = y_j \mid i \in S] - \Pr[\hat y_j = y_j \mid i \notin S]

    An example's influence on itself is its memorization.

    >>> influence(np.array([[True], [False]]), np.array([[True, False], [False, True]])).value.tolist()
    [[1.0], [-1.0]]
    """
    S, c = inside.astype(np.float64), correct.astype(np.float64)
    n_in = S.sum(axis=0)[:, None]
    hits = S.T @ c
    return _difference(hits, c.sum(axis=0) - hits, n_in, len(S) - n_in)


def _difference(
    hits_in: Int[np.ndarray, "..."] | Float[np.ndarray, "..."], hits_out: Int[np.ndarray, "..."] | Float[np.ndarray, "..."],
    n_in: Int[np.ndarray, "..."] | Float[np.ndarray, "..."], n_out: Int[np.ndarray, "..."] | Float[np.ndarray, "..."],
) -> Difference:  # fmt: skip
    r"""Difference of two shares, and its standard error by Agresti & Caffo (2000), who count one more success and one more
    failure in each group, so that the error of a share of 0 or 1 is not 0.

    .. math:: \sigma^2 = \sum_g \frac{\tilde p_g (1 - \tilde p_g)}{n_g + 2}, \qquad \tilde p_g = \frac{k_g + 1}{n_g + 2}
    """
    with np.errstate(invalid="ignore"):  # 0 of 0 is NaN
        within, without = hits_in / n_in, hits_out / n_out
    shares = (((k + 1) / (n + 2), n + 2) for k, n in ((hits_in, n_in), (hits_out, n_out)))
    variance = sum(p * (1 - p) / n for p, n in shares)
    value = within - without
    return Difference(value, np.where(np.isnan(value), np.nan, np.sqrt(variance)), within, without)

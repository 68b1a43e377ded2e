r"""Training dynamics of single examples: how early, how firmly and how steadily each is learned.

All take what a network said after each of several epochs, arrays (epochs, examples) in ascending order of epochs. The papers
look at an example when its batch is trained on; here all are looked at after the epoch, by the same network, in eval mode.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num


def epoch_learned(correct: Bool[np.ndarray, "epochs n"], epochs: Int[np.ndarray, " epochs"]) -> Float[np.ndarray, " n"]:
    r"""First epoch from which on an example is answered correctly at every epoch; NaN where it is not so at the last.

    .. math:: \min \{ e : c_{e'} = 1 \;\; \forall\, e' \ge e \}

    >>> correct = np.array([[True, True, True], [False, False, True], [True, False, True]])
    >>> epoch_learned(correct, np.array([1, 2, 4])).tolist()
    [4.0, nan, 1.0]
    """
    since = np.minimum.accumulate(correct[::-1])[::-1]
    return np.where(since[-1], epochs[since.argmax(axis=0)].astype(float), np.nan)


def forgetting_events(correct: Bool[np.ndarray, "epochs n"]) -> Float[np.ndarray, " n"]:
    r"""Number of times that an example is forgotten, correct at one epoch and not at the next; NaN of one never learned.

    .. math:: \sum_e [c_e = 1] \, [c_{e+1} = 0]

    Toneva et al. (2019), An empirical study of example forgetting during deep neural network learning, ICLR. An example that
    was never learned counts there as forgotten infinitely often.

    >>> forgetting_events(np.array([[True, True, False], [False, True, False], [True, True, False]])).tolist()
    [1.0, 0.0, nan]
    """
    forgotten = np.count_nonzero(correct[:-1] & ~correct[1:], axis=0)
    return np.where(correct.any(axis=0), forgotten.astype(float), np.nan)


def area_under_margin(margin: Num[np.ndarray, "epochs n"]) -> Float[np.ndarray, " n"]:
    r"""Mean over epochs of the logit of the label over the largest other logit.

    .. math:: \frac{1}{E} \sum_e \left( z_y - \max_{k \ne y} z_k \right)

    Pleiss et al. (2020), Identifying mislabeled data using the area under the margin ranking, NeurIPS.

    >>> area_under_margin(np.array([[1.0, -2.0], [2.0, -4.0]])).tolist()
    [1.5, -3.0]
    """
    mean: np.ndarray = margin.mean(axis=0, dtype=np.float64)
    return mean


@dataclass(frozen=True, eq=False)
class Cartography:
    """Coordinates of the data map: ``confidence`` is the mean over epochs of the probability of the label, ``variability``
    its standard deviation over them.

    Swayamdipta et al. (2020), Dataset cartography, EMNLP.
    """

    confidence: Float[np.ndarray, " n"]
    variability: Float[np.ndarray, " n"]


def cartography(probability: Num[np.ndarray, "epochs n"]) -> Cartography:
    r"""Confidence and variability of every example.

    .. math:: \mu = \frac{1}{E} \sum_e p_e, \qquad \sigma = \Big( \frac{1}{E} \sum_e (p_e - \mu)^2 \Big)^{1/2}

    >>> found = cartography(np.array([[0.0, 0.5], [1.0, 0.5]]))
    >>> found.confidence.tolist(), found.variability.tolist()
    ([0.5, 0.5], [0.5, 0.0])
    """
    return Cartography(probability.mean(axis=0, dtype=np.float64), probability.std(axis=0, dtype=np.float64))

r"""Depths of single examples: from which layer on its neighbours agree with what the network says of it.

Baldock, Maennel & Neyshabur (2021), "Deep learning through the lens of example difficulty": at each layer the k nearest
training examples vote with the labels that they were trained on, the example itself left out; its prediction depth is the
first layer from which on every vote is the network's own answer. Layers count from 0, the input where it was recorded; an
example whose last vote still differs has the depth L, the number of layers.

Memorization depth, ours, asks the same of the label that the example was trained on.
"""

import numpy as np
from jaxtyping import Bool, Float, Int


def settled_from(agrees: Bool[np.ndarray, "layers examples"]) -> Int[np.ndarray, " examples"]:
    """First layer from which on all agree; the number of layers where the last does not.

    >>> settled_from(np.array([[True, False], [False, False], [True, False]])).tolist()
    [2, 3]
    """
    return np.int64(len(agrees)) - np.cumprod(agrees[::-1], axis=0).sum(axis=0)


def last_layer(holds: Bool[np.ndarray, "layers examples"]) -> Int[np.ndarray, " examples"]:
    """Last layer at which it holds; -1 where there is none.

    >>> last_layer(np.array([[True, False], [True, False], [False, False]])).tolist()
    [1, -1]
    """
    return np.where(holds.any(axis=0), len(holds) - 1 - holds[::-1].argmax(axis=0), -1)


def output_margin(
    outputs: Float[np.ndarray, "examples classes"], labels: Int[np.ndarray, " examples"]
) -> Float[np.ndarray, " examples"]:
    r"""Output of each example's label above the largest of the others, negative where the network says otherwise.

    .. math:: z_y - \max_{c \ne y} z_c

    >>> output_margin(np.array([[1.0, 3.0, 0.0], [1.0, 3.0, 0.0]]), np.array([1, 2])).tolist()
    [2.0, -3.0]
    """
    rows, others = np.arange(len(labels)), outputs.astype(np.float64)
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    return own - others.max(axis=1)


def share_of(neighbour_labels: Int[np.ndarray, "examples k"], labels: Int[np.ndarray, " examples"]) -> np.ndarray:
    """Share of an example's neighbours that bear its label: local purity.

    >>> share_of(np.array([[1, 1, 0, 2]]), np.array([1])).tolist()
    [0.5]
    """
    return np.mean(neighbour_labels == labels[:, None], axis=1)

r"""Latent generalization: what a layer, read by the labels that the network was trained on, tells of other examples.

Ketha & Ramaswamy (2025), "Decoding generalization from memorization in deep neural networks": classifiers that are fitted
on the training set with its permuted labels may give more true labels of test examples than the network does. Three of
them need inner products alone, however many features there are, and are here: the nearest class mean, the votes of the
nearest neighbours, and the least angle to the subspaces of the classes. The fourth is the linear probe.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from manigeo.manifolds import Clouds
from manigeo.separability.nearest import votes

_PANEL_BYTES = 192 << 20  # of queries that are held while the training points pass by
_QUERIES_AT_ONCE = 512
_SHARE_RTOL = 1e-9  # of the variance, whatever the last digits of its sum


class InnerProducts(NamedTuple):
    """Inner products of training points: ``own`` of those of each class with one another, (points, points), and
    ``queries`` of all, class after class, with the points to be classified."""

    own: Sequence[Float[np.ndarray, "members members"]]
    queries: Float[np.ndarray, "queries points"]

    @property
    def of_classes(self) -> list[Float[np.ndarray, "queries members"]]:
        return np.split(self.queries, np.cumsum([len(gram) for gram in self.own])[:-1], axis=1)


def inner_products(clouds: Clouds, queries: Clouds) -> InnerProducts:
    """Inner products of training points, an array (points, features) a class, with themselves and with the points of
    ``queries``, arrays (points, features); in float64.

    >>> products = inner_products([np.eye(2), np.ones((1, 2))], [np.array([[3.0, 4.0]])])
    >>> products.queries.tolist(), [gram.tolist() for gram in products.own]
    ([[3.0, 4.0, 7.0]], [[[1.0, 0.0], [0.0, 1.0]], [[2.0]]])
    """
    own: dict[int, np.ndarray] = {}
    rows = []
    for Q in _panels(queries):
        row = []
        for number, cloud in enumerate(clouds):
            X = cloud.astype(np.float64)
            if number not in own:
                own[number] = X @ X.T
            row.append(Q @ X.T)
        rows.append(np.hstack(row))
    return InnerProducts(list(own.values()), np.vstack(rows))


def _panels(clouds: Clouds) -> Iterator[Float[np.ndarray, "points features"]]:
    """The points in order, whole clouds together up to so many bytes."""
    waiting: list[np.ndarray] = []
    for cloud in clouds:
        if waiting and 8 * (sum(map(len, waiting)) + len(cloud)) * cloud.shape[1] > _PANEL_BYTES:
            yield np.concatenate(waiting).astype(np.float64)
            waiting = []
        waiting.append(cloud)
    yield np.concatenate(waiting).astype(np.float64)


def by_mean(products: InnerProducts) -> Int[np.ndarray, " queries"]:
    r"""Class of the nearest mean for each query.

    .. math:: \operatorname*{arg\,max}_c \; q \cdot m_c - |m_c|^2 / 2
    """
    scores = [
        cross.mean(axis=1) - gram.mean() / 2 for cross, gram in zip(products.of_classes, products.own, strict=True)
    ]
    return np.argmax(scores, axis=0)


def by_neighbours(products: InnerProducts, k: int = 30) -> Int[np.ndarray, " queries"]:
    """Most frequent class among the k nearest training points of each query; of equally frequent ones the nearest."""
    squares = np.concatenate([np.diag(gram) for gram in products.own])
    classes = np.repeat(np.arange(len(products.own)), [len(gram) for gram in products.own])
    blocks = np.array_split(products.queries, 1 + len(products.queries) // _QUERIES_AT_ONCE)
    return np.concatenate([votes(classes[_smallest(squares - 2 * block, k)]) for block in blocks])


def _smallest(distances: Float[np.ndarray, "queries points"], k: int) -> Int[np.ndarray, "queries _"]:
    """Columns of the k smallest of each row, in their order; all where there are no more."""
    if k < distances.shape[1]:
        some = np.argpartition(distances, k, axis=1)[:, :k]
    else:
        some = np.broadcast_to(np.arange(distances.shape[1]), distances.shape)
    order = np.argsort(np.take_along_axis(distances, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def by_subspace(products: InnerProducts, share: float = 0.99) -> Int[np.ndarray, " queries"]:
    r"""Class whose subspace makes the least angle with each query.

    .. math:: \operatorname*{arg\,max}_c \; |V_c^\top q|^2 / |q|^2

    where the columns of :math:`V_c` are the leading right singular vectors of the class's training points, without removal
    of their mean, that hold ``share`` of the sum of squares. Ketha & Ramaswamy's minimum angle subspace classifier.
    """
    scores = [
        np.square(cross @ _onto_subspace(gram, share)).sum(axis=1)
        for cross, gram in zip(products.of_classes, products.own, strict=True)
    ]
    return np.argmax(scores, axis=0)


def _onto_subspace(gram: Float[np.ndarray, "members members"], share: float) -> Float[np.ndarray, "members rank"]:
    """Map from inner products with the points to coordinates in their subspace: U L^-1/2 of X X' = U L U'."""
    eigenvalues, U = np.linalg.eigh(gram)
    total = np.cumsum(eigenvalues[::-1])
    rank = int(np.count_nonzero(total < share * total[-1] * (1 - _SHARE_RTOL))) + 1
    kept = eigenvalues[::-1][:rank]
    return U[:, ::-1][:, :rank] * np.divide(1.0, np.sqrt(kept), out=np.zeros(rank), where=kept > 0)


# name -> who gives the answers
CLASSIFIERS = {"mean": by_mean, "neighbours": by_neighbours, "subspace": by_subspace}

r"""Null models of manifolds, with which numbers of the data are compared: their labels shuffled, their clouds Gaussian.

What shuffled labels keep is the layer's overall distribution: where a capacity does not exceed theirs, the classes are no
manifolds of their own. What Gaussian clouds keep are the mean and the covariance of every class (Chou et al. 2024): where
the numbers are theirs, first and second moments are all that matters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import helmert

NULLS = {"shuffled": "labels shuffled", "gaussian": "Gaussian clouds"}  # name -> what its rows are called


def shuffled_rows(rows: Sequence[Int[np.ndarray, " _"]], rng: np.random.Generator) -> list[Int[np.ndarray, " _"]]:
    """The examples of all classes dealt out again: as many to each, whatever class they are of.

    >>> [part.tolist() for part in shuffled_rows([np.array([0, 1]), np.array([2, 3])], np.random.default_rng(0))]
    [[2, 0], [1, 3]]
    """
    order = rng.permutation(np.concatenate(rows))
    return np.split(order, np.cumsum([len(part) for part in rows])[:-1])


def gaussian_cloud(
    points: Float[np.ndarray, "points features"], rng: np.random.Generator
) -> Float[np.ndarray, "points features"]:
    r"""A cloud with the mean and the covariance of ``points``, and none of their higher moments.

    .. math:: X' = m + B Q B^\top (X - m), \qquad Q \text{ uniform in } O(M - 1)

    with B an orthonormal basis of what is orthogonal to :math:`(1, \dots, 1)`. That is a Gaussian cloud given its sample
    moments: one of Gaussian points has their own distribution, and of many points in few dimensions the points are
    Gaussian with that covariance.

    >>> X = np.random.default_rng(0).exponential(size=(6, 3))
    >>> Y = gaussian_cloud(X, np.random.default_rng(1))
    >>> bool(np.allclose(X.mean(axis=0), Y.mean(axis=0)) and np.allclose(np.cov(X.T), np.cov(Y.T)))
    True
    """
    M = len(points)
    if M < 2:
        return points
    basis = helmert(M)
    Q, R = np.linalg.qr(rng.standard_normal((M - 1, M - 1)))
    Q *= np.sign(np.diag(R))  # without it, QR is not uniform
    mean = points.mean(axis=0, dtype=np.float64)
    turned = basis.T @ (Q @ (basis @ points.astype(np.float64))) + mean
    return turned.astype(points.dtype if points.dtype == np.float64 else np.float32)


class Mapped(Sequence):  # unsubscripted: a type check of its elements would read a file
    """Clouds that are made of others when they are looked at: the i-th by ``made(i, cloud)``."""

    def __init__(self, clouds: Sequence, made: Callable[[int, np.ndarray], np.ndarray]) -> None:
        self._clouds, self._made = clouds, made

    def __len__(self) -> int:
        return len(self._clouds)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the clouds, without making them."""
        return list(getattr(self._clouds, "shapes", None) or [X.shape for X in self._clouds])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._made(i, self._clouds[i]) for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self._made(i, self._clouds[i])

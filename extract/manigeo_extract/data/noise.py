"""Label noise: how the labels of chosen examples are replaced, by a convention or by a matrix of transitions.

Zhang et al. (2017) draw labels uniformly, Stephenson et al. (2021) permute them; noise as people make it depends on the
class (Patrini et al. 2017, Making deep neural networks robust to label noise, CVPR): cats are labelled as dogs.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from manigeo.errors import InputError, UsageError, one_line

Labels = Int[np.ndarray, " n"]
Matrix = tuple[tuple[float, ...], ...]
MATRIX = "matrix"


def _permutation(labels: Labels, n_classes: int, rng: np.random.Generator) -> Labels:
    return rng.permutation(labels)


def _uniform(labels: Labels, n_classes: int, rng: np.random.Generator) -> Labels:
    return rng.integers(n_classes, size=len(labels))


def _derangement(labels: Labels, n_classes: int, rng: np.random.Generator) -> Labels:
    if n_classes < 2:
        raise UsageError("a derangement needs two classes or more, got 1; use the convention 'permutation'")
    return (labels + rng.integers(1, n_classes, size=len(labels))) % n_classes  # C - 1 steps, none of them whole turns


def _pairs(labels: Labels, n_classes: int, rng: np.random.Generator) -> Labels:
    if n_classes < 2:
        raise UsageError("pairs need two classes or more, got 1; use the convention 'permutation'")
    return (labels + 1) % n_classes


CONVENTIONS: Mapping[str, Callable[[Labels, int, np.random.Generator], Labels]] = {
    "permutation": _permutation,
    "uniform": _uniform,
    "derangement": _derangement,
    "pairs": _pairs,
}


def drawn_by_row(labels: Labels, matrix: Sequence[Sequence[float | int]], rng: np.random.Generator) -> Labels:
    """Labels j drawn with the probabilities :math:`T_{ij}` of the row of each true label i.

    >>> drawn_by_row(np.array([0, 1, 1]), [[0, 1], [0, 1]], np.random.default_rng(0)).tolist()
    [1, 1, 1]
    """
    upper = np.cumsum(np.array(matrix, dtype=float), axis=1)[labels]
    upper /= upper[:, -1:]  # a row of decimals sums to one but for rounding
    drawn: np.ndarray = (rng.random((len(labels), 1)) >= upper).sum(axis=1)
    return drawn


def as_matrix(rows: Sequence[Sequence[float | int]]) -> Matrix:
    """The matrix as nested tuples, if it is one of transitions: square, no entry below 0, each row of sum 1.

    Raises :class:`~manigeo.errors.UsageError` where it is not.

    >>> as_matrix([[0.9, 0.1], [0, 1]])
    ((0.9, 0.1), (0.0, 1.0))
    """
    try:
        T = np.array(rows, dtype=float)
    except (TypeError, ValueError) as error:
        raise UsageError(f"expected a matrix of numbers, rows of one length; {one_line(error)}") from error
    if T.ndim != 2 or T.shape[0] != T.shape[1] or len(T) < 2:
        raise UsageError(f"expected a square matrix, one row and one column per class, got the shape {T.shape}")
    sums = T.sum(axis=1)
    wrong = np.flatnonzero(~((T >= 0).all(axis=1) & (np.abs(sums - 1) <= 1e-3)))  # thirds may be written as .333
    if len(wrong):
        raise UsageError(
            f"expected rows of probabilities, 0 or more and of sum 1, got {T[wrong[0]].tolist()} for class {wrong[0]}"
        )
    return tuple(tuple(row) for row in T.tolist())


def read_matrix(path: str | Path) -> Matrix:
    """The matrix of a CSV file without a header: row i holds the probabilities of the labels that class i gets.

    Raises :class:`~manigeo.errors.InputError` for a file that cannot be read or holds another thing.
    """
    try:
        T: Float[np.ndarray, "classes classes"] = np.loadtxt(path, delimiter=",", ndmin=2)
        return as_matrix(T.tolist())
    except (OSError, ValueError, UsageError) as error:
        raise InputError(f"{path} is no matrix of label noise: {one_line(error)}") from error

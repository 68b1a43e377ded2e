r"""Exact nearest neighbours, Euclidean, in blocks of bounded memory.

Products in float32 find the candidates, and float64 decides among them. With points around their mean, the score

.. math:: a_{ij} = |x_j|^2 - 2\, q_i \cdot x_j = |q_i - x_j|^2 - |q_i|^2

orders the points j around a query i, and in float32 it is off by at most :math:`e_i`, the bound of a sum of n products
(Higham, Accuracy and Stability of Numerical Algorithms, 2002, 3.1). So with :math:`a_{(k)}` the k-th smallest score of a
query, each of its k nearest points has

.. math:: a_{ij} \le a_{(k)} + 2 e_i .

The distances of these few are computed once more, from differences in float64; equal distances are in the order of the rows.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from manigeo.manifolds import binary_unit

_BLOCK_BYTES = 48 << 20  # of the scores of a block of queries, and of the differences of a query
_VOTES_AT_ONCE = 1 << 24
_UNIT = float(np.finfo(np.float32).eps) / 2  # rounding of float32
_FLOOR = float(np.finfo(np.float32).tiny)  # what underflows is lost by less


def nearest_neighbours(
    points: Float[np.ndarray, "points features"],
    k: int,
    queries: Float[np.ndarray, "queries _"] | None = None,
    leave_out: Int[np.ndarray, " queries"] | None = None,
) -> Int[np.ndarray, "queries k"]:
    r"""Rows of the ``k`` nearest ``points`` of each query, nearest first; of equally near ones the first rows.

    .. math:: N_k(i) = \operatorname*{arg\,min}_{|N| = k} \sum_{j \in N} |q_i - x_j|^2

    Without ``queries`` these are the points themselves, each left out of its own neighbours; of others ``leave_out`` names
    the row that each is among the points, -1 for none. One pass over the distances serves every number of neighbours: the
    first m columns are the m nearest.

    Raises ``ValueError`` where there are not as many points, and for queries of other features.

    >>> line = np.array([[0.0], [1.0], [10.0]])
    >>> nearest_neighbours(line, 2).tolist()
    [[1, 2], [0, 2], [1, 0]]
    >>> nearest_neighbours(line, 1, queries=np.array([[7.0]])).tolist()
    [[2]]
    """
    if queries is None:
        queries, leave_out = points, np.arange(len(points))
    out = np.full(len(queries), -1) if leave_out is None else leave_out
    most = len(points) - bool((out >= 0).any())
    if not 1 <= k <= most:
        raise ValueError(f"k must be from 1 to {most}, the number of points that can be neighbours; got {k}")
    if queries.shape[1:] != points.shape[1:]:
        raise ValueError(f"queries must have the {points.shape[1]} features of the points, got shape {queries.shape}")
    found = np.full((len(queries), k), -1)
    for rows, scores, limits in _blocks(points, k, queries, out):
        found[rows] = _decided(points, queries[rows], scores, limits, k)
    return found


def _blocks(
    points: np.ndarray, k: int, queries: np.ndarray, out: Int[np.ndarray, " queries"]
) -> Iterator[tuple[slice, Float[np.ndarray, "block points"], Float[np.ndarray, " block"]]]:
    """Scores of a block of queries, and the limit of each within which its k nearest points are."""
    around, unit = points.mean(axis=0, dtype=np.float64), max(binary_unit(points), binary_unit(queries))
    X = _centred(points, around, unit)
    squares = np.square(X, dtype=np.float64).sum(axis=1)
    largest, of_points = float(np.sqrt(squares.max())), squares.astype(np.float32)
    size = max(1, _BLOCK_BYTES // (4 * len(points)))
    for start in range(0, len(queries), size):
        rows = slice(start, start + size)
        Q = X[rows] if queries is points else _centred(queries[rows], around, unit)
        scores = Q @ X.T
        scores *= np.float32(-2)
        scores += of_points
        known = np.flatnonzero(out[rows] >= 0)
        scores[known, out[rows][known]] = np.inf
        error = _error(np.sqrt(np.square(Q, dtype=np.float64).sum(axis=1)), largest, X.shape[1])
        yield rows, scores, np.partition(scores, k - 1, axis=1)[:, k - 1] + 2 * error


def _centred(
    points: np.ndarray, around: Float[np.ndarray, " features"], unit: float
) -> Float[np.ndarray, "points features"]:
    return ((points - around) / unit).astype(np.float32)


def _error(norms: Float[np.ndarray, " queries"], largest: float, n_features: int) -> Float[np.ndarray, " queries"]:
    """Bound of the error of a score: of the sum of products, of the entries that were rounded, and of the square."""
    return _UNIT * ((2 * n_features + 8) * norms * largest + 4 * largest**2) + n_features * _FLOOR


def _decided(
    points: np.ndarray, queries: np.ndarray, scores: np.ndarray, limits: Float[np.ndarray, " queries"], k: int
) -> Int[np.ndarray, "queries k"]:
    """The k nearest among the candidates of each query, whose scores are within its limit."""
    chosen = np.empty((len(queries), k), np.int64)
    for i, (query, row, limit) in enumerate(zip(queries, scores, limits, strict=True)):
        candidates = np.flatnonzero(row <= limit)
        distances = _squared_distances(points, candidates, query)
        chosen[i] = candidates[np.argsort(distances, kind="stable")[:k]]
    return chosen


def _squared_distances(
    points: np.ndarray, rows: Int[np.ndarray, " rows"], query: np.ndarray
) -> Float[np.ndarray, " rows"]:
    at_once = max(1, _BLOCK_BYTES // (8 * points.shape[1]))
    parts = []
    for start in range(0, len(rows), at_once):
        difference = np.subtract(points[rows[start : start + at_once]], query, dtype=np.float64)
        parts.append(np.einsum("ij,ij->i", difference, difference))
    return np.concatenate(parts)


def votes(neighbour_labels: Int[np.ndarray, "examples k"]) -> Int[np.ndarray, " examples"]:
    """Most frequent label among the neighbours of each example, nearest first; of equally frequent ones the nearest.

    >>> votes(np.array([[4, 2, 2], [7, 1, 5]])).tolist()
    [2, 7]
    """
    n, k = neighbour_labels.shape
    size = max(1, _VOTES_AT_ONCE // k**2)
    found = [_most_frequent(neighbour_labels[start : start + size]) for start in range(0, n, size)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _most_frequent(labels: np.ndarray) -> np.ndarray:
    counts = (labels[:, :, None] == labels[:, None, :]).sum(axis=2)
    return labels[np.arange(len(labels)), counts.argmax(axis=1)]

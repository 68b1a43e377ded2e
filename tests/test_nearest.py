"""Nearest neighbours: exact, whatever the rounding, the ties and the blocks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manigeo.separability import nearest
from manigeo.separability.nearest import nearest_neighbours


def by_definition(points: np.ndarray, k: int, queries: np.ndarray | None = None) -> np.ndarray:
    """All distances in float64, sorted; the first rows of those that are equal."""
    X, Q = points.astype(float), (points if queries is None else queries).astype(float)
    distances = np.square(Q[:, None] - X[None]).sum(axis=2)
    if queries is None:
        np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def test_three_points_on_a_line_have_their_neighbours_in_order():
    line = np.array([[0.0], [1.0], [3.0]])
    assert nearest_neighbours(line, 2).tolist() == [[1, 2], [0, 2], [1, 0]]
    assert nearest_neighbours(line, 3, queries=np.array([[2.5]])).tolist() == [[2, 1, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 4), st.booleans())
def test_equally_near_points_come_in_the_order_of_their_rows(seed, n, d, with_queries):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, size=(n, d)).astype(np.float32)  # few places: most distances are equal to others
    Q = rng.integers(0, 3, size=(7, d)).astype(np.float32) if with_queries else None
    k = int(rng.integers(1, n if Q is None else n + 1))
    assert np.array_equal(nearest_neighbours(X, k, Q), by_definition(X, k, Q))


def test_neighbours_in_a_small_cloud_far_from_another_are_not_lost_to_rounding():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(50, 5)) * 1e-3 + 1e3, rng.normal(size=(50, 5)) * 1e-3 - 1e3])
    # products are 1e6 and float32 keeps 7 digits; squared distances are 1e-6
    assert np.array_equal(nearest_neighbours(X, 10), by_definition(X, 10))


def test_queries_that_are_points_leave_themselves_out():
    X = np.random.default_rng(0).integers(0, 3, size=(30, 2)).astype(float)
    found = nearest_neighbours(X, 5, queries=X[10:20], leave_out=np.arange(10, 20))
    assert np.array_equal(found, by_definition(X, 5)[10:20])


@pytest.mark.parametrize("unit", [1e-25, 1e30], ids=["tiny", "huge"])
def test_units_of_the_features_change_no_neighbour(unit):
    X = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    assert np.array_equal(nearest_neighbours(X * np.float32(unit), 5), nearest_neighbours(X, 5))


def test_blocks_of_queries_change_no_neighbour(monkeypatch):
    X = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)
    whole = nearest_neighbours(X, 7)
    monkeypatch.setattr(nearest, "_BLOCK_BYTES", 4 * 50 * 3)  # three queries at a time, differences of nine points
    assert np.array_equal(nearest_neighbours(X, 7), whole)


@pytest.mark.parametrize(
    ("k", "queries", "message"),
    [(3, None, "k must be from 1 to 2"), (0, None, "k must be from 1"), (1, np.ones((1, 2)), "the 1 features")],
    ids=["as many as points", "none", "other features"],
)
def test_a_request_without_an_answer_is_refused(k, queries, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(np.array([[0.0], [1.0], [3.0]]), k, queries)

"""The number of dimensions that separates half of the dichotomies, from the mean over them."""

import itertools

import numpy as np
import pytest

from manigeo import manifold_capacity
from manigeo.capacity.cavity import cavity
from manigeo.capacity.crossing import _crossing, _dichotomies, _interactions
from manigeo.capacity.pivoting import nonnegative_least_squares
from manigeo.capacity.pooled import moments
from manigeo.capacity.span import pooled_points
from manigeo.capacity.unstructured import unstructured_capacity
from tests.few_classes import orthogonal_points


def clouds(P: int, M: int, N: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = np.arange(1, N + 1) ** -0.5
    return [widths * (rng.standard_normal(N) + rng.standard_normal((M, N))) for _ in range(P)]


def dimensions_wanted(manifolds: list[np.ndarray], dichotomies: np.ndarray, n_draws: int) -> np.ndarray:
    """By each dichotomy: the mean squared length of projections on the cone of its signed points."""
    rng = np.random.default_rng(0)
    X = np.concatenate(manifolds)
    X = X - X.mean(axis=0)
    owner = np.repeat(np.arange(len(manifolds)), [len(c) for c in manifolds])
    b = rng.standard_normal((n_draws, X.shape[1])) @ X.T
    wanted = []
    for y in dichotomies[:, owner]:
        a, _ = nonnegative_least_squares(X @ X.T * np.outer(y, y), b * y)
        wanted.append((a * b * y).sum(axis=1).mean())
    return np.array(wanted)


def test_dichotomies_want_what_the_interactions_of_their_manifolds_say():
    manifolds = clouds(6, 8, 60, 1)
    points = pooled_points(manifolds, moments(manifolds, np.random.default_rng(0)))
    inside, y = cavity(points), _dichotomies(6)
    expected = inside.degrees_of_freedom + np.einsum("yi,ij,yj->y", y, _interactions(points, inside), y)
    found = dimensions_wanted(manifolds, y, 120)
    assert found.mean() == pytest.approx(expected.mean(), rel=0.02)
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    slope = np.polyfit(expected, found, 1)[0]
    assert 0.9 < slope < 1.5  # the first order misses up to a third of the spread
    assert np.median(found) - found.mean() == pytest.approx(np.median(expected) - expected.mean(), abs=0.5)


@pytest.mark.parametrize(("P", "M"), [(3, 10), (5, 10), (10, 20)])
def test_few_manifolds_without_structure_have_their_simulated_capacity(P, M):
    r = manifold_capacity(orthogonal_points(P, M), n_draws=8000 // P, errors="manifolds")
    exact = unstructured_capacity(M, n_manifolds=P, estimator="simulated")
    # without the crossing it is 14, 5 and 2 % below
    assert r.capacity == pytest.approx(exact, abs=4 * r.stderr_draws.capacity + 0.015 * exact)


def test_capacities_of_manifolds_have_the_capacity_of_all_as_harmonic_mean():
    r = manifold_capacity(clouds(5, 8, 60, 2), n_draws=20)
    assert r.crossing < 0.99
    assert 1 / r.capacity == pytest.approx((1 / r.per_manifold["capacity"]).mean(), rel=1e-12)


def test_few_manifolds_have_all_dichotomies_but_the_constant():
    y = _dichotomies(5)
    every = {s for s in itertools.product([1.0, -1.0], repeat=5) if abs(sum(s)) < 5}
    assert {tuple(sign * row) for row in y for sign in (1, -1)} == every
    assert len(y) == len(every) / 2


def test_the_crossing_of_steep_curves_is_the_median_of_where_they_are():
    wanted = np.array([3.0, 4.0, 5.0, 9.0, 30.0])
    assert _crossing(wanted, 1e-3) == pytest.approx(5.0, abs=1e-2)
    assert _crossing(np.full(4, 7.0), 2.0) == pytest.approx(7.0)

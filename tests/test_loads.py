"""Loads: the parts of single points in the inverse capacity add up to it, and are those of another solver."""

import numpy as np
import pytest
from scipy.optimize import nnls

from manigeo.capacity.geometry import cone_loads
from manigeo.capacity.joint import joint_capacity, joint_loads
from manigeo.capacity.mean_field import manifold_capacity, manifold_loads

EXACT = 1e-12  # sums of a few hundred numbers of the size of one, in float64


@pytest.fixture(scope="module")
def clouds():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(m, 12)) + 2 * rng.normal(size=12) for m in (5, 9, 7)]


def test_joint_loads_add_up_to_the_inverse_capacity_of_each_class(clouds):
    loads = joint_loads(clouds, n_draws=40, seed=1)
    r = joint_capacity(clouds, n_draws=40, per_class="all", seed=1)
    sums = np.array([part.sum() for part in loads.values])
    assert np.allclose(sums, r.per_class["inverse_capacity"], rtol=EXACT, atol=EXACT)
    assert sums.sum() == pytest.approx(3 / r.capacity, rel=EXACT)
    assert [len(part) for part in loads.values] == [5, 9, 7]


@pytest.mark.parametrize("centers", ["auto", "reference", "keep"])
def test_mean_field_loads_add_up_to_the_inverse_capacity_of_each_class(clouds, centers):
    loads = manifold_loads(clouds, 40, centers, seed=1)
    r = manifold_capacity(clouds, 0.0, 40, centers, seed=1, per_class="all", errors="manifolds")
    sums = [part.sum() for part in loads.values]
    assert np.allclose(sums, 1 / r.per_manifold["capacity"], rtol=EXACT)


def test_a_single_point_takes_one_half_of_a_dimension():
    drawn = cone_loads(np.zeros((1, 1)), np.ones(1), 20_000, rng=np.random.default_rng(0))
    # E [t]_+^2 = 1/2 with variance 5/4
    assert abs(drawn.mean() - 0.5) < 4 * np.sqrt(1.25 / 20_000)


def test_loads_of_a_cone_are_those_of_lawson_and_hanson():
    S = np.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.9], [0.1, 0.1]])
    drawn = cone_loads(S @ S.T, np.ones(4), 30, rng=np.random.default_rng(3))
    # the same draws, as cone_geometry makes them of one generator
    values, vectors = np.linalg.eigh(S @ S.T)
    g = np.random.default_rng(3).standard_normal((30, 5))
    Z = np.column_stack([vectors[:, -2:] * np.sqrt(values[-2:]), np.ones(4)])
    t = np.column_stack([g[:, :-1] @ vectors[:, -2:], g[:, -1]])
    expected = [nnls(Z.T, draw)[0] * (Z @ draw) for draw in t]
    assert np.allclose(drawn, expected, atol=1e-9)  # what the solver promises, of numbers of the size of one


def test_equal_points_have_no_loads_and_say_so():
    loads = joint_loads([np.ones((2, 3)), np.ones((2, 3))], n_draws=4)
    assert loads.flag == "no_spread"
    assert all(np.isnan(part).all() for part in loads.values)

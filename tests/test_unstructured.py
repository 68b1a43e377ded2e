import numpy as np
import pytest
from scipy.special import comb

from manigeo import manifold_capacity
from manigeo.capacity.unstructured import ESTIMATORS, unstructured_capacity
from tests.few_classes import orthogonal_points, simulated_truth


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_many_manifolds_without_structure_have_the_capacity_of_their_points(estimator):
    for M in (2, 10, 50):
        many = unstructured_capacity(M, n_manifolds=3000, estimator=estimator)
        # the first correction is 2 / (pi P)
        assert many == pytest.approx(2 / M, rel=1 / 3000)
        assert many < 2 / M == unstructured_capacity(M, estimator=estimator)


@pytest.mark.parametrize("P", [10, 20, 50])
def test_single_points_have_the_capacity_of_schlaeflis_count(P):
    # one point each: sum_k k C(P, k + 1) over 2^P - 2 labellings is the mean statistical dimension
    share = sum(k * comb(P, k + 1) for k in range(1, P)) / (2**P - 2)
    exact = P / (P - 1 - share)
    # the formula is to order 1/n: .3 % at P = 10
    assert unstructured_capacity(1, n_manifolds=P, estimator="joint") == pytest.approx(exact, rel=0.05 / P)


@pytest.mark.parametrize(("P", "M"), [(2, 5), (3, 3), (3, 20), (4, 10), (5, 40), (8, 5), (10, 20), (20, 10), (30, 4)])
def test_joint_and_simulated_floors_are_those_of_projected_gaussians(P, M):
    joint, stderr, simulated = simulated_truth(P, M)
    assert unstructured_capacity(M, n_manifolds=P, estimator="joint") == pytest.approx(
        joint, abs=4 * stderr + 0.01 * joint
    )
    # a median of the same draws: its error is 1.25 times that of their mean
    error = 5 * stderr + 0.01 * simulated
    assert unstructured_capacity(M, n_manifolds=P, estimator="simulated") == pytest.approx(simulated, abs=error)


@pytest.mark.parametrize("centers", ["auto", "keep"])
@pytest.mark.parametrize(("P", "M"), [(2, 20), (3, 10), (5, 5), (5, 20), (8, 10), (12, 10), (30, 5)])
def test_the_mean_field_floor_is_what_mean_field_gives_points_without_structure(P, M, centers):
    r = manifold_capacity(orthogonal_points(P, M), n_draws=max(300, 8000 // P), centers=centers)
    # manifolds are alike, so that draws are the only error; the formula is good to 2 %, and 3 % at P = 2
    error = 4 * r.stderr_draws.capacity + (0.03 if P == 2 else 0.02) * r.capacity
    assert unstructured_capacity(M, n_manifolds=P, estimator=centers) == pytest.approx(r.capacity, abs=error)


def test_the_floor_of_few_classes_is_below_that_of_many():
    for estimator in ESTIMATORS:
        few = [unstructured_capacity(20, n_manifolds=P, estimator=estimator) for P in (5, 10, 30, 100)]
        assert (np.diff(few) > 0).all()
        assert few[0] < 0.94 * 2 / 20


def test_at_a_margin_there_is_no_floor():
    assert np.isnan(unstructured_capacity(10, kappa=0.5, n_manifolds=5))


def test_an_unknown_estimator_and_a_single_manifold_are_refused():
    with pytest.raises(ValueError, match=r"estimator must be one of \('auto', .*got 'mean'"):
        unstructured_capacity(10, estimator="mean")
    with pytest.raises(ValueError, match="n_manifolds must be 2 or more, got 1"):
        unstructured_capacity(10, n_manifolds=1)

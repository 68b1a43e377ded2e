import numpy as np
import pytest

from manigeo.capacity.theory import ball_capacity, ball_radius, point_capacity
from tests.reference import shared, theory_cases

BALLS = [case for case in theory_cases() if case["kind"] == "ball"]


@pytest.mark.parametrize("case", BALLS, ids=lambda case: case["id"])
def test_balls_have_their_tabulated_capacity_and_radius(case):
    # 1e-6: the table has eight digits, R_M of B1 seven
    assert ball_capacity(case["R"], case["D"], case["kappa"]) == pytest.approx(case["alpha"], rel=1e-6)
    assert ball_radius(case["R"], case["D"], case["kappa"]) == pytest.approx(case["R_M"], rel=1e-6)


def test_the_table_of_exact_cases_was_there():
    shared("reference/theory_cases.json")
    assert len(BALLS) == 3


@pytest.mark.parametrize("dimension", [1, 5, 20, 100])
def test_a_ball_of_radius_one_has_capacity_two_over_d_plus_one(dimension):
    assert ball_capacity(1.0, dimension) == pytest.approx(2 / (dimension + 1), rel=1e-8)


@pytest.mark.parametrize(("radius", "dimension"), [(0.3, 3), (2.0, 10), (0.05, 50)])
def test_a_ball_and_its_inverse_share_d_plus_one(radius, dimension):
    total = 1 / ball_capacity(radius, dimension) + 1 / ball_capacity(1 / radius, dimension)
    assert total == pytest.approx(dimension + 1, rel=1e-8)


@pytest.mark.parametrize("radius", [0.1, 0.5, 3.0])
def test_a_segment_has_its_closed_form(radius):
    exact = 1 / (1.5 - 2 / np.pi * np.arctan(1 / radius))
    assert ball_capacity(radius, 1) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 2.0])
def test_a_ball_shrinks_to_a_point(kappa):
    assert ball_capacity(1e-7, 10, kappa) == pytest.approx(point_capacity(kappa), rel=1e-5)
    assert ball_capacity(0, 10, kappa) == ball_capacity(1, 0, kappa) == point_capacity(kappa)
    assert ball_radius(0, 10, kappa) == 0


def test_point_capacity_falls_with_the_margin():
    margins = np.linspace(0, 3, 13)
    assert np.all(np.diff([point_capacity(k) for k in margins]) < 0)


def test_a_negative_radius_is_refused():
    with pytest.raises(ValueError, match="radius >= 0"):
        ball_capacity(-1.0, 3)
    with pytest.raises(ValueError, match="dimension >= 0"):
        ball_radius(1.0, -3)

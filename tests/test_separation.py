import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from manigeo.capacity import separation
from manigeo.capacity.separation import linear_separation, whitened


def cloud(shape: str, rng: np.random.Generator, points: int, dim: int) -> np.ndarray:
    """Points that are hard to separate in one way each."""
    X = rng.standard_normal((points, dim))
    return {
        "gaussian": X,
        "duplicates": np.repeat(X[: (points + 1) // 2], 2, axis=0)[:points],
        "antipodes": np.vstack([X, -X])[::2][:points],
        "low_rank": X[:, :2] @ rng.standard_normal((X[:, :2].shape[1], dim)),
        "relu": np.maximum(X, 0),
        "power_law": X * np.arange(1, dim + 1.0) ** -2,
        "integers": rng.integers(-1, 2, (points, dim)).astype(float),
        "zero": np.zeros((points, dim)),
    }[shape]


SHAPES = ("gaussian", "duplicates", "antipodes", "low_rank", "relu", "power_law", "integers", "zero")


def linear_program_separates(points: np.ndarray, labels: np.ndarray) -> bool:
    """Is there w with y x.w >= 1 for all points?"""
    n = points.shape[1]
    program = linprog(np.zeros(n), -points * labels[:, None], -np.ones(len(points)), bounds=(None, None))
    return program.status == 0


@settings(max_examples=250, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    points=st.integers(1, 40),
    dim=st.integers(1, 25),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_dichotomy_has_a_certificate_and_the_verdict_of_a_linear_program(shape, points, dim, seed):
    rng = np.random.default_rng(seed)
    X, y = cloud(shape, rng, points, dim), rng.choice([-1.0, 1.0], points)
    s = linear_separation(X, y)
    # Gordan's alternative, from the definition and on the points as given
    if s.separable:
        assert (y * (X @ s.normal)).min() > 0
        assert np.linalg.norm(s.normal) == pytest.approx(1.0)
    else:
        lengths = np.linalg.norm(X, axis=1)
        signed = X * np.divide(y, lengths, out=np.zeros(points), where=lengths > 0)[:, None]
        assert np.linalg.norm(s.weights @ signed) <= 1e-10
    assert s.certified
    assert s.weights.min() >= 0
    assert s.weights.sum() == pytest.approx(1.0)
    assert s.margin <= s.residual + 1e-15  # weak duality
    # HiGHS accepts violations of 1e-7 of margins that it makes 1: a margin below that may be either for it
    if not (s.separable and s.margin < 1e-6):
        assert s.separable == linear_program_separates(X, y)


@settings(max_examples=150, deadline=None)
@given(points=st.integers(1, 30), integers=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_the_line_search_ends_where_the_slope_vanishes(points, integers, seed):
    rng = np.random.default_rng(seed)
    s, c = rng.standard_normal((2, points)) * 3
    if integers:
        s, c = s.round(), c.round()  # ties, zeros
    c *= np.sign(np.maximum(s, 0) @ c)  # downhill, as a Newton step is
    t = separation._line_search(s, c) if c.any() else 0.0
    slope = c @ np.maximum(s - t * c, 0)
    assert abs(slope) < 1e-12 * (np.abs(c) @ (np.abs(s) + t * np.abs(c)) + 1)  # rounding of its terms
    assert t >= 0


def test_conflicting_duplicates_are_decided():
    # Newton's first step fits all other points, so the slope is flat at its end up to rounding
    rng = np.random.default_rng(554)
    X, y = cloud("duplicates", rng, 19, 19), rng.choice([-1.0, 1.0], 19)
    s = linear_separation(X, y)
    assert not s.separable
    assert s.certified


@given(seed=st.integers(0, 2**32 - 1), points=st.integers(2, 40), steepness=st.floats(0, 5))
def test_coordinates_of_condition_one_keep_every_verdict(seed, points, steepness):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((points, 15)), rng.choice([-1.0, 1.0], points)
    steep = X * np.arange(1, 16.0) ** -steepness  # up to six decades, the rank tolerance
    Z = whitened(steep)
    # what is kept is 1e-12 of the largest square or more, and a hundred terms round to 1e-14 of it
    np.testing.assert_allclose(Z.T @ Z, np.eye(Z.shape[1]), atol=1e-2)
    if Z.shape[1] == min(points, 15):
        assert linear_separation(Z, y).separable == linear_separation(X, y).separable


@pytest.mark.parametrize(("seed", "noise"), [(16, 1.5), (10, 2.0), (35, 3.0)])
def test_where_newtons_matrix_is_ill_conditioned_nonnegative_least_squares_decide(seed, noise):
    # half of the features are rare, as the corner pixels of digits are: a few points alone hang on each
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.standard_normal((10, 40)), 20, axis=0) + noise * rng.standard_normal((200, 40))
    X[:, 20:] *= rng.random((200, 20)) < 0.02
    X -= X.mean(axis=0)
    X, y = X @ rng.standard_normal((40, 40)), np.repeat(rng.choice([-1.0, 1.0], 10), 20)
    signed = X * (y / np.linalg.norm(X, axis=1))[:, None]
    assert not separation._least_squares_of_inequalities(signed).certified
    s = linear_separation(X, y)
    assert s.certified
    assert s.margin <= s.residual + 1e-15
    if s.separable:
        assert (y * (X @ s.normal)).min() > 0
    else:
        assert np.linalg.norm(s.weights @ signed) <= 1e-10

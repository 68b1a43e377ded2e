"""Every degenerate set of manifolds there is: a value or a flagged NaN, never an exception or an absurd number."""

import numpy as np
import pytest

from manigeo import joint_capacity, manifold_capacity, simulated_capacity


def clouds(P: int, M: int, N: int, radius: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng([P, M, N])
    return [rng.standard_normal(N) + radius * rng.standard_normal((M, N)) for _ in range(P)]


def one_hot(P: int, M: int, noise: float) -> list[np.ndarray]:
    rng = np.random.default_rng(P)
    return [8 * np.eye(P)[k] + noise * rng.standard_normal((M, P)) for k in range(P)]


def segments_around(centers: np.ndarray, each: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((each * len(centers), centers.shape[1]))
    return [np.stack([c + a, c - a]) for c, a in zip(np.repeat(centers, each, axis=0), axes, strict=True)]


CASES = {
    "logits of 10 classes": clouds(10, 50, 10, 0.3),
    "collapsed logits of 10 classes": one_hot(10, 50, 0.5),
    "collapsed logits of 100 classes": [X.astype(np.float32) for X in one_hot(100, 20, 1.0)],
    "centres at the mean of all": segments_around(np.zeros((6, 20)), 1),
    "one manifold of zeros": [*clouds(5, 4, 20), np.zeros((4, 20))],
    "all zero": [np.zeros((3, 5))] * 4,
    "dead layer": [np.ones((4, 3), np.float32)] * 5,
    "constant features": [np.pad(X, ((0, 0), (0, 5)), constant_values=3.0) for X in clouds(6, 5, 20)],
    "one point a class": clouds(20, 1, 30),
    "one point a class in a wide layer": clouds(40, 1, 2000),
    "two points": clouds(2, 1, 5),
    "duplicated points": [np.repeat(X, 4, axis=0) for X in clouds(8, 3, 20)],
    "a manifold's points all equal": [np.repeat(X, 5, axis=0) for X in clouds(8, 1, 20)],
    "points on a line through all manifolds": [np.outer(x, np.ones(7)) for x in clouds(6, 5, 1)],
    "one feature": clouds(6, 5, 1),
    "fewer features than manifolds": clouds(30, 5, 6),
    "collinear points": [np.linspace(0, 1, 6)[:, None] * X[0] + X[1] for X in clouds(12, 2, 40)],
    "unequal sizes": [X[: k + 1] for k, X in enumerate(clouds(8, 8, 30))],
    "identical manifolds": clouds(1, 5, 20) * 4,
    "two pairs of identical centres": segments_around(np.random.default_rng(1).standard_normal((2, 20)), 2),
    "radius 1e-8": clouds(8, 6, 30, 1e-8),
    "radius 1e8": clouds(8, 6, 30, 1e8),
    "radius 1e-8 in float32": [X.astype(np.float32) for X in clouds(8, 6, 30, 1e-8)],
    "float16": [X.astype(np.float16) for X in clouds(8, 6, 600)],
    "integers": [(10 * X).astype(int) for X in clouds(8, 6, 30)],
    "entries of 1e250": [1e250 * X for X in clouds(8, 6, 30)],
    "entries of 1e-250": [1e-250 * X for X in clouds(8, 6, 30)],
    "entries of 1e30 in float32": [(1e30 * X).astype(np.float32) for X in clouds(8, 6, 700)],
    "an offset of 1e6 in float32": [(X + 1e6).astype(np.float32) for X in clouds(8, 6, 30)],
    "few manifolds in a wide layer": clouds(3, 4, 5000),
    **{f"P = {P}": clouds(P, 8, 30) for P in (2, 3, 4, 5, 6)},
}


@pytest.mark.parametrize("centers", ["auto", "reference", "keep"])
@pytest.mark.parametrize("case", CASES)
def test_mean_field_has_a_sane_answer_or_a_flag(case, centers):
    r = manifold_capacity(CASES[case], n_draws=100, centers=centers)
    if np.isnan(r.capacity):
        assert r.flag
        return
    # no manifold is easier than one of its points (2) or harder than as many points without structure, 2 / M
    # (what they share may take as much again)
    M = max(map(len, CASES[case]))
    error = np.nanmax([r.stderr.capacity, r.stderr_draws.capacity])  # two manifolds have that of the draws alone
    assert 1 / M <= r.capacity <= 2 + 4 * error
    assert r.flag or r.radius < 100
    assert 0 <= r.dimension <= M
    assert r.residual <= 1e-9


@pytest.mark.parametrize("case", CASES)
def test_simulation_has_an_answer_or_a_flag(case):
    r = simulated_capacity(CASES[case], n_dichotomies=50)
    assert r.uncertified == 0
    assert r.flag or 0 < r.capacity < 2 + 4 * r.stderr


@pytest.mark.parametrize("case", CASES)
def test_joint_capacity_has_an_answer_or_a_flag(case):
    r = joint_capacity(CASES[case], n_draws=20)
    if np.isnan(r.capacity):
        assert r.flag
        return
    assert r.residual <= 1e-9
    assert r.identity_residual <= 1e-9
    assert r.flag or r.capacity > r.bound
    assert r.flag or 0 < r.capacity < 2 + 4 * r.stderr

"""Time to decide one dichotomy, by Newton's method, by non-negative least squares and by a linear program: ``make bench``.

50 manifolds of 20 points, where the crossing is near 200 dimensions. The certificates stand beside the time.
"""

import numpy as np
import pytest
from scipy.optimize import linprog, nnls
from threadpoolctl import threadpool_limits

from manigeo.capacity.separation import linear_separation
from manigeo.capacity.simulated import simulated_capacity


def dichotomies(n: int, count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    """Projections of correlated manifolds, with labels: some separable, some not."""
    rng = np.random.default_rng(n)
    centers = rng.standard_normal((50, 1, 512))
    X = (centers + 0.9 * rng.standard_normal((50, 20, 512))).reshape(1000, 512)
    X = X - X.mean(axis=0)
    labels = [np.repeat(rng.choice([-1.0, 1.0], 50), 20) for _ in range(count)]
    return [(X @ rng.standard_normal((512, n)), y) for y in labels]


def by_newton(points: np.ndarray, labels: np.ndarray) -> bool:
    return linear_separation(points, labels).separable


def by_nnls(points: np.ndarray, labels: np.ndarray) -> bool:
    """The nearest point to the origin in the convex hull of the signed points separates, unless it is the origin."""
    signed = points * (labels / np.linalg.norm(points, axis=1))[:, None]
    target = np.append(np.zeros(points.shape[1]), 1.0)
    weights, _ = nnls(np.vstack([signed.T, np.ones(len(signed))]), target)
    return bool((signed @ (weights @ signed)).min() > 1e-12)


def by_linear_program(points: np.ndarray, labels: np.ndarray) -> bool:
    """Is there w with y x.w >= 1 for all points?"""
    signed = points * (labels / np.linalg.norm(points, axis=1))[:, None]
    n = points.shape[1]
    return linprog(np.zeros(n), -signed, -np.ones(len(signed)), bounds=(None, None), method="highs").status == 0


@pytest.mark.parametrize("decide", [by_newton, by_nnls, by_linear_program])
@pytest.mark.parametrize("n", [100, 200, 300])
def test_one_dichotomy_of_50_manifolds_of_20_points(benchmark, n, decide):
    problems = dichotomies(n)
    with threadpool_limits(limits=1, user_api="blas"):
        verdicts = benchmark.pedantic(lambda: [decide(*problem) for problem in problems], rounds=3, warmup_rounds=1)
        proofs = [linear_separation(*problem) for problem in problems]
    benchmark.extra_info["dichotomies"] = len(problems)
    benchmark.extra_info["separable"] = int(np.sum(verdicts))
    benchmark.extra_info["least_margin"] = min((p.margin for p in proofs if p.separable), default=None)
    benchmark.extra_info["largest_residual"] = max((p.residual for p in proofs if not p.separable), default=None)
    assert verdicts == [p.separable for p in proofs]
    assert all(p.certified for p in proofs)


def test_one_layer_of_50_manifolds_of_25_points(benchmark):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 1, 512)) + 0.6 * rng.standard_normal((50, 25, 512))
    r = benchmark.pedantic(simulated_capacity, args=(list(X),), rounds=1)
    benchmark.extra_info["relative_stderr"] = r.stderr / r.capacity
    assert r.uncertified == 0

"""How long the anchors of a layer take, beside a plain loop over scipy's ``nnls``: ``make bench``. Never a timed test.

Both rows of a group solve the same draws; compare them within one run. ``extra_info`` stores the largest KKT residual.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import nnls

from manigeo.capacity.anchors import kkt_residual, solve_anchors
from manigeo.manifolds import span_coordinates

N_DRAWS = 200


def gaussian(M: int, rng: np.random.Generator) -> np.ndarray:
    """The authors' README: a class mean of M Gaussian points, and the points around it in its norm."""
    X = rng.standard_normal((M, 1000))
    return (X - X.mean(axis=0)) / np.linalg.norm(X.mean(axis=0))


def compact(M: int, rng: np.random.Generator) -> np.ndarray:
    return 0.2 * rng.standard_normal((M, 200))


def square(M: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((M, M))


def power_law(M: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((M, 200)) / np.sqrt(np.arange(1, 201))


def steep_power_law(M: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((M, 200)) / np.arange(1, 201)


def logits(M: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((M, 9))


LAYERS = [
    (gaussian, 100, 50), (compact, 100, 50), (square, 100, 50), (power_law, 100, 50), (steep_power_law, 100, 50),
    (logits, 100, 50), (gaussian, 20, 150), (power_law, 20, 150), (steep_power_law, 20, 150),
]  # fmt: skip


def by_kernel(S: np.ndarray, t: np.ndarray) -> float:
    return solve_anchors(S, t).residual.max()


def by_a_loop(S: np.ndarray, t: np.ndarray) -> np.ndarray:
    Z = np.column_stack([S, np.ones(len(S))])
    return np.array([nnls(Z.T, draw)[0] for draw in t])


def residual_of_the_loop(S: np.ndarray, t: np.ndarray, multipliers: np.ndarray) -> float:
    Z = np.column_stack([S, np.ones(len(S))])
    lengths = np.linalg.norm(Z, axis=1)
    return kkt_residual(Z / lengths[:, None], t, multipliers * lengths).max()


@pytest.mark.parametrize("solver", ["loop", "kernel"])
@pytest.mark.parametrize(("cloud", "P", "M"), LAYERS, ids=[f"{c.__name__}-P{P}-M{M}" for c, P, M in LAYERS])
def test_anchors_of_a_layer(benchmark, cloud: Callable[..., np.ndarray], P: int, M: int, solver: str):
    rng = np.random.default_rng(0)
    frames = [span_coordinates(cloud(M, rng)) for _ in range(P)]
    layer = [(S, rng.standard_normal((N_DRAWS, S.shape[1] + 1))) for S in frames]
    benchmark.group = f"{cloud.__name__}, {P} manifolds of {M} points"
    solve = by_kernel if solver == "kernel" else by_a_loop
    solved = benchmark.pedantic(lambda: [solve(S, t) for S, t in layer], rounds=7, warmup_rounds=1)
    residuals = (
        solved
        if solver == "kernel"
        else [residual_of_the_loop(S, t, a) for (S, t), a in zip(layer, solved, strict=True)]
    )
    benchmark.extra_info["residual"] = float(max(residuals))
    assert benchmark.extra_info["residual"] <= 1e-9

"""How long joint capacity takes beside a plain loop over scipy's ``nnls``: ``make bench``. Never a timed test.

Every pair of benchmarks solves the same draws on one core; the residual of all of them stands beside the time.
"""

import numpy as np
import pytest
from scipy.optimize import nnls

from manigeo.capacity.cone import UnitPoints, project_on_cone
from tests.reference import shared

DRAWS = 8


def layer(P: int, M: int, N: int) -> np.ndarray:
    """Unit points of P manifolds of M points with correlated centres and a power-law spectrum, mean subtracted."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, N + 1) ** -0.5
    centers = 2 * rng.standard_normal((P, 1, N)) * spectrum
    X = (centers + rng.standard_normal((P, M, N)) * spectrum).reshape(P * M, N)
    return normalised(X)


def normalised(X: np.ndarray) -> np.ndarray:
    X = X - X.mean(axis=0)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def real_layer(P: int) -> np.ndarray:
    """The 50 classes of a network's last layer, or these and those of its permuted examples."""
    with np.load(shared("reference/real_layers.npz")) as layers:
        both = [layers[f"last_{kind}_h6/activations"] for kind in ("unpermuted", "permuted")]
    return normalised(np.concatenate(both).astype(np.float64)[:P].reshape(P * 25, -1))


def draws(Z: np.ndarray, P: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [(np.repeat(rng.choice([-1.0, 1.0], P), len(Z) // P), rng.standard_normal(Z.shape[1])) for _ in range(DRAWS)]


def bench(benchmark, method: str, Z: np.ndarray, P: int) -> None:
    points = UnitPoints.of(Z)
    signed_draws = draws(Z, P)

    def by_working_sets() -> list[np.ndarray]:
        found = [project_on_cone(points, y, t) for y, t in signed_draws]
        return [p.multipliers @ (y[:, None] * Z)[p.active] for p, (y, _) in zip(found, signed_draws, strict=True)]

    def by_nnls() -> list[np.ndarray]:
        return [nnls((y[:, None] * Z).T, t)[0] @ (y[:, None] * Z) for y, t in signed_draws]

    run = {"working sets": by_working_sets, "scipy nnls": by_nnls}[method]
    projections = benchmark.pedantic(run, rounds=3)
    residuals = [
        (y * (Z @ (t - p))).max() / np.abs(Z @ t).max() for (y, t), p in zip(signed_draws, projections, strict=True)
    ]
    benchmark.extra_info["residual"] = float(max(residuals))
    benchmark.extra_info["draws"] = DRAWS
    assert max(residuals) < 1e-9


METHODS = ("working sets", "scipy nnls")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("P", [50, 100])
@pytest.mark.benchmark(group="real layers, P x 25 points x 512 features")
def test_draws_of_a_real_layer(benchmark, method, P):
    bench(benchmark, method, real_layer(P), P)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("P", [50, 100])
@pytest.mark.benchmark(group="power-law layers, P x 25 points x 512 features")
def test_draws_of_a_power_law_layer(benchmark, method, P):
    bench(benchmark, method, layer(P, 25, 512), P)


@pytest.mark.parametrize("P", [10, 20, 40, 80])
@pytest.mark.benchmark(group="growth with points, P x 25 points x 512 features")
def test_growth_with_points(benchmark, P):
    bench(benchmark, "working sets", layer(P, 25, 512), P)


@pytest.mark.parametrize("N", [128, 256, 512, 1024])
@pytest.mark.benchmark(group="growth with features, 40 x 25 points")
def test_growth_with_features(benchmark, N):
    bench(benchmark, "working sets", layer(40, 25, N), 40)

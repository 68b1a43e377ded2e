import numpy as np
import pytest

from manigeo.capacity import pooled
from manigeo.capacity.pooled import is_flat, moments, pooled_points

WIDE = 3000


def clouds(P: int, M: int, N: int, seed: int = 0, decay: float = 0.0) -> list[np.ndarray]:
    """Gaussian manifolds around Gaussian centres, with standard deviations k^-decay over features."""
    rng = np.random.default_rng(seed)
    widths = np.arange(1, N + 1) ** -decay
    return [widths * (rng.standard_normal(N) + rng.standard_normal((M, N))) + 3.0 for _ in range(P)]


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def whole(manifolds: list[np.ndarray]) -> np.ndarray:
    X = np.concatenate(manifolds).astype(np.float64)
    return X - X.mean(axis=0)


def test_moments_are_those_of_all_samples():
    manifolds = [X[: 3 + mu] for mu, X in enumerate(clouds(5, 8, 40))]  # unequal sizes
    m = moments(manifolds, rng())
    X = np.concatenate(manifolds)
    np.testing.assert_allclose(m.mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(m.centers[2], manifolds[2].mean(axis=0) - X.mean(axis=0), atol=1e-12)
    Y = manifolds[2] - manifolds[2].mean(axis=0)
    np.testing.assert_allclose(m.grams[2], Y @ Y.T, atol=1e-10)
    np.testing.assert_allclose(m.mean_squares[2], np.square(manifolds[2]).sum(axis=1).mean(), rtol=1e-12)
    assert m.variance == pytest.approx(np.square(whole(manifolds)).sum(), rel=1e-12)


def test_narrow_layers_keep_all_their_directions():
    manifolds = clouds(4, 6, 30)
    points = pooled_points(manifolds, moments(manifolds, rng()))
    X = whole(manifolds)
    np.testing.assert_allclose(np.concatenate(points.coordinates), X / np.sqrt(np.square(X).sum(axis=1).mean()))
    assert not np.any(points.rest)
    assert len(points.tail) == 0


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_wide_layers_keep_the_inner_products_of_each_manifold(dtype):
    manifolds = [X.astype(dtype) for X in clouds(30, 8, WIDE, decay=0.5)]
    points = pooled_points(manifolds, moments(manifolds, rng()))
    X = whole(manifolds)
    unit = np.square(X).sum(axis=1).mean()
    for mu, Z in enumerate(np.split(X, 30)):
        F, R = points.coordinates[mu], points.rest[mu]
        Y, G = Z - Z.mean(axis=0), F - F.mean(axis=0)
        inside = G @ G.T + R - R.mean(axis=0) - R.mean(axis=1)[:, None] + R.mean()
        np.testing.assert_allclose(inside, Y @ Y.T / unit, atol=1e-5)  # the projection is in float32
    assert np.isclose(points.tail.sum(), len(X) - np.square(np.concatenate(points.coordinates)).sum())
    assert np.all(np.diff(points.tail) <= 0)


def test_the_sketch_finds_the_directions_of_most_variance(monkeypatch):
    monkeypatch.setattr(pooled, "LEADING_DIRECTIONS", 40)
    manifolds = clouds(30, 20, WIDE, decay=1.0)
    points = pooled_points(manifolds, moments(manifolds, rng()))
    variance = np.linalg.svd(whole(manifolds), compute_uv=False) ** 2
    # a sketch of 700 rows for 600 points: nearly all of what 40 directions can hold
    assert np.square(np.concatenate(points.coordinates)).sum() / 600 > 0.995 * variance[:40].sum() / variance.sum()


def test_unstructured_wide_layers_are_flat_and_structured_ones_are_not():
    flat = clouds(60, 10, WIDE)
    assert is_flat(moments(flat, rng()))
    shared = np.random.default_rng(2).standard_normal((2, WIDE))
    loads = np.random.default_rng(3).standard_normal((60, 10, 2))
    assert not is_flat(moments([X + 2 * a @ shared for X, a in zip(flat, loads, strict=True)], rng()))  # shared axes
    loads = loads.mean(axis=1)
    assert not is_flat(moments([X + 2 * a @ shared for X, a in zip(flat, loads, strict=True)], rng()))  # shared centres
    assert not is_flat(moments(clouds(60, 10, 300), rng()))


def test_manifolds_are_walked_through_twice():
    class Walked(list):
        reads = 0

        def __iter__(self):
            Walked.reads += 1
            return super().__iter__()

    manifolds = Walked(clouds(10, 5, WIDE, decay=0.5))
    pooled_points(manifolds, moments(manifolds, rng()))
    assert Walked.reads == 2

import numpy as np
import pytest

from manigeo.capacity import span
from manigeo.capacity.pooled import is_flat, moments
from manigeo.capacity.span import PooledPoints, pooled_points

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


def from_mean(points: PooledPoints) -> np.ndarray:
    """All points in the leading directions, from the mean of all."""
    return np.concatenate([rows[:-1] + rows[-1] for rows in points.coordinates])


@pytest.mark.parametrize("unit", [1.0, 2.0**40, 2.0**-40])
def test_moments_are_those_of_all_samples_in_units_of_their_size(unit):
    manifolds = [unit * X[: 3 + mu] for mu, X in enumerate(clouds(5, 8, 40))]  # unequal sizes
    m = moments(manifolds, rng())
    assert np.abs(np.concatenate(manifolds)).max() < m.unit <= 2 * np.abs(np.concatenate(manifolds)).max()
    manifolds = [X / m.unit for X in manifolds]
    X = np.concatenate(manifolds)
    np.testing.assert_allclose(m.mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(m.centers[2], manifolds[2].mean(axis=0) - X.mean(axis=0), atol=1e-12)
    Y = manifolds[2] - manifolds[2].mean(axis=0)
    np.testing.assert_allclose(m.grams[2], Y @ Y.T, atol=1e-10)
    np.testing.assert_allclose(m.mean_squares[2], np.square(manifolds[2]).sum(axis=1).mean(), rtol=1e-12)
    assert m.variance == pytest.approx(np.square(whole(manifolds)).sum(), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_moments_neither_overflow_nor_vanish(scale):
    manifolds = clouds(5, 8, 40)
    plain, scaled = moments(manifolds, rng()), moments([scale * X for X in manifolds], rng())
    # relative: units are powers of two, the scale is not
    assert scaled.variance * (scaled.unit / scale) ** 2 == pytest.approx(plain.variance * plain.unit**2, rel=1e-12)


def test_narrow_layers_keep_all_their_directions():
    manifolds = clouds(4, 6, 30)
    points = pooled_points(manifolds, moments(manifolds, rng()))
    X, Z = whole(manifolds), from_mean(points)
    assert Z.shape == (24, 23)  # the mean of all is off
    np.testing.assert_allclose(Z @ Z.T, X @ X.T / np.square(X).sum(axis=1).mean(), atol=1e-12)
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
        rows = np.vstack([Z - Z.mean(axis=0), Z.mean(axis=0)])
        whole_gram = rows @ rows.T / unit
        # the projection is in float32
        np.testing.assert_allclose((F @ F.T + R)[:-1, :-1], whole_gram[:-1, :-1], atol=1e-5)
        np.testing.assert_allclose((F @ F.T + R)[-1, -1], whole_gram[-1, -1], atol=1e-5)
    assert np.isclose(points.tail.sum(), len(X) - np.square(from_mean(points)).sum())
    assert np.all(np.diff(points.tail) <= 0)


def test_the_sketch_finds_the_directions_of_most_variance(monkeypatch):
    monkeypatch.setattr(span, "LEADING_DIRECTIONS", 40)
    manifolds = clouds(30, 20, WIDE, decay=1.0)
    points = pooled_points(manifolds, moments(manifolds, rng()))
    variance = np.linalg.svd(whole(manifolds), compute_uv=False) ** 2
    # a sketch of 700 rows for 600 points: nearly all of what 40 directions can hold
    assert np.square(from_mean(points)).sum() / 600 > 0.995 * variance[:40].sum() / variance.sum()


def test_unstructured_wide_layers_are_flat_and_structured_ones_are_not():
    flat = clouds(60, 10, WIDE)
    assert is_flat(moments(flat, rng()))
    shared = np.random.default_rng(2).standard_normal((2, WIDE))
    loads = np.random.default_rng(3).standard_normal((60, 10, 2))
    assert not is_flat(moments([X + 2 * a @ shared for X, a in zip(flat, loads, strict=True)], rng()))  # shared axes
    loads = loads.mean(axis=1)
    assert not is_flat(moments([X + 2 * a @ shared for X, a in zip(flat, loads, strict=True)], rng()))  # shared centres
    assert not is_flat(moments(clouds(60, 10, 300), rng()))


def test_a_few_manifolds_are_not_taken_for_flat_by_chance():
    turned = np.linalg.qr(np.random.default_rng(4).standard_normal((1500, 150)))[0].T
    # three pairs of centres can be as orthogonal as in any number of dimensions
    assert not any(is_flat(moments([X @ turned for X in clouds(3, 2, 150, seed)], rng())) for seed in range(200))


def test_manifolds_are_walked_through_twice():
    class Walked(list):
        reads = 0

        def __iter__(self):
            Walked.reads += 1
            return super().__iter__()

    manifolds = Walked(clouds(10, 5, WIDE, decay=0.5))
    pooled_points(manifolds, moments(manifolds, rng()))
    assert Walked.reads == 2

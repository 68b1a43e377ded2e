import numpy as np
import pytest

from manigeo.capacity.projection import project_manifolds


def clouds(N: int = 400) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((M, N)).astype(np.float32) for M in (3, 4, 5)]


def test_directions_have_length_one():
    directions = np.concatenate(project_manifolds(np.split(np.eye(300), 3), 50))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1, rtol=1e-6)  # float32


def test_inner_products_are_kept_on_average():
    manifolds = clouds()
    X = np.concatenate(manifolds)
    Y = np.concatenate(project_manifolds(manifolds, 300)) * np.sqrt(400 / 300)
    scale = np.linalg.norm(X, axis=1)
    # each relative inner product has variance of at most 2/n_directions
    assert np.abs((Y @ Y.T - X @ X.T) / np.outer(scale, scale)).max() < 5 * np.sqrt(2 / 300)


def test_the_directions_are_the_same_for_any_manifolds_and_however_many_at_a_time(monkeypatch):
    manifolds = clouds()
    together = project_manifolds(manifolds, 20, seed=3)
    monkeypatch.setattr("manigeo.capacity.projection._ROWS_AT_ONCE", 4)
    for X, Y in zip(manifolds, together, strict=True):
        # float32 products of other shapes round differently
        np.testing.assert_allclose(project_manifolds([X], 20, seed=3)[0], Y, rtol=1e-5, atol=1e-5)
    for one, other in zip(project_manifolds(manifolds, 20, seed=3), together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_layers_that_are_narrow_already_stay_as_they_are():
    manifolds = clouds(N=20)
    assert project_manifolds(manifolds, 20) is manifolds


def test_no_direction_is_refused():
    with pytest.raises(ValueError, match="takes 1 direction or more, got 0"):
        project_manifolds(clouds(), 0)


def test_points_keep_their_precision_where_it_holds_them():
    X = np.random.default_rng(0).standard_normal((5, 400))
    for dtype in (np.float16, np.float32, np.float64):
        assert project_manifolds([X.astype(dtype)], 20)[0].dtype == dtype
    assert project_manifolds([(9 * X).astype(np.int64)], 20)[0].dtype == np.float64
    large = np.full((2, 400), 6e4, dtype=np.float16)  # sums of which float16 does not hold
    assert np.isfinite(project_manifolds([large], 20)[0]).all()

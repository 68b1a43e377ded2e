import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manigeo import total_dimension

# float64 sums over tens of terms, and eigenvalues of matrices of condition 1e4 or less
RTOL = 1e-10


def axes(variances: np.ndarray, features: int) -> np.ndarray:
    """Pairs of opposite points on as many axes, whose covariance has these eigenvalues and no others."""
    n = len(variances)
    half = np.zeros((n, features))
    half[np.arange(n), np.arange(n)] = np.sqrt(n * variances)
    return np.concatenate([half, -half])


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=8), st.integers(8, 40))
def test_points_on_axes_have_the_closed_form(variances, features):
    variances = np.array(variances)
    r = total_dimension([axes(variances, features)])
    assert r.participation_ratio == pytest.approx(variances.sum() ** 2 / np.square(variances).sum(), rel=RTOL)
    np.testing.assert_allclose(r.eigenvalues[: len(variances)], np.sort(variances)[::-1], rtol=RTOL)


@pytest.mark.parametrize(("share", "directions"), [(0.9, 9), (0.5, 5), (0.51, 6), (1.0, 10)])
def test_equal_variances_reach_a_share_at_that_share_of_the_axes(share, directions):
    r = total_dimension([axes(np.ones(10), 12)], share)
    assert (r.participation_ratio, r.n_directions) == (pytest.approx(10, rel=RTOL), directions)


def test_one_large_direction_carries_the_variance_alone():
    r = total_dimension([axes(np.array([91.0, *np.ones(9)]), 10)])
    assert r.n_directions == 1
    assert r.participation_ratio == pytest.approx(100**2 / (91**2 + 9), rel=RTOL)


@pytest.mark.parametrize("features", [30, 90])  # the covariance is smaller, the Gram is
def test_nothing_depends_on_how_samples_are_grouped_or_on_rotation_and_shift(features):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, features)) * np.linspace(1, 5, features)
    turned = X @ np.linalg.qr(rng.standard_normal((features, features)))[0] + rng.standard_normal(features)
    one, other = total_dimension([X]), total_dimension(np.split(turned, [7, 30]))
    assert one.participation_ratio == pytest.approx(other.participation_ratio, rel=RTOL)
    assert one.n_directions == other.n_directions


def test_gram_and_covariance_agree_with_the_singular_values():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 25))
    variances = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2 / 40
    for padding in (0, 100):  # features that are zero make the Gram the smaller matrix
        r = total_dimension(np.split(np.pad(X, ((0, 0), (0, padding))), 4))
        np.testing.assert_allclose(r.eigenvalues[:25], variances, rtol=RTOL)


def test_a_gram_in_blocks_is_the_gram(monkeypatch):
    X = np.random.default_rng(2).standard_normal((60, 200))
    whole = total_dimension([X])
    monkeypatch.setattr("manigeo.dimension._ROWS_AT_ONCE", 13)
    monkeypatch.setattr("manigeo.dimension._FEATURES_AT_ONCE", 7)
    in_blocks = total_dimension(np.split(X, 12))
    np.testing.assert_allclose(in_blocks.eigenvalues[:-1], whole.eigenvalues[:-1], rtol=RTOL)


def test_gaussian_samples_have_the_participation_ratio_of_random_matrix_theory():
    n, N = 500, 1000
    X = np.random.default_rng(3).standard_normal((n, N))
    # E tr^2 / E tr of squares of a Wishart matrix; relative fluctuations of the traces are of order 1/n
    assert total_dimension([X]).participation_ratio == pytest.approx(n * N / (n + N + 1), rel=3 / n)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_large_mean_does_not_swamp_the_spread_of_short_floats(dtype):
    X = (np.random.default_rng(4).integers(-3, 4, (50, 80)) + 500).astype(dtype)  # exact in float16
    assert total_dimension([X]).participation_ratio == pytest.approx(
        total_dimension([X.astype(np.float64)]).participation_ratio, rel=RTOL
    )


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_unit_does_not_matter(scale):
    X = np.random.default_rng(5).standard_normal((20, 30))
    assert total_dimension([scale * X]).participation_ratio == pytest.approx(
        total_dimension([X]).participation_ratio, rel=RTOL
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
@pytest.mark.parametrize("features", [3, 50])
def test_equal_samples_have_no_dimension_and_say_so(value, features):
    r = total_dimension([np.full((20, features), value, np.float32)] * 2)
    assert np.isnan([r.participation_ratio, r.n_directions]).all()
    assert r.flag == "no_spread"


def test_what_is_no_sample_is_refused():
    with pytest.raises(ValueError, match="with equal features"):
        total_dimension([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(ValueError, match="one or more manifolds, got 0"):
        total_dimension([])
    with pytest.raises(ValueError, match="share must be above 0 and at most 1, got 90"):
        total_dimension([np.eye(3)], share=90)

"""The numerical span: a layer of rank r has r dimensions, whatever the number of its features."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import manigeo_extract as mx
from manigeo import manifold_capacity, read_results
from manigeo.capacity import cavity as cavities
from manigeo.capacity.pooled import moments
from manigeo.capacity.projection import project_manifolds
from manigeo.capacity.span import ALL_POINTS, pooled_points
from tests.command_line import done

MEASURES = ("capacity", "radius", "dimension", "dimension_prx")


def clouds(P: int, M: int, N: int, decay: float, radius: float, offset: float, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = np.arange(1, N + 1) ** -decay
    return [widths * (rng.standard_normal(N) + radius * rng.standard_normal((M, N))) + offset for _ in range(P)]


def said_of(folder: Path, X: np.ndarray, *words: object) -> pd.DataFrame:
    """What the command line says of the manifolds of one area, by measure."""
    np.savez(folder / "area.npz", area=X)
    done("capacity", folder / "area.npz", "--draws", 60, "--no-total-dimension", "--force", *words)
    table = read_results(folder / "area.capacity.csv")
    return table[table["manifold"] == ""].set_index("metric")


def isometry(N: int, wider: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((wider, N)))[0].T


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    data = load_digits()
    return [data.images[data.target == c][:31].reshape(31, 64) / 16 for c in range(10)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("wider", [64, 200, 1024, 20_000])
def test_digits_in_more_features_have_the_capacity_of_the_digits(digits, wider, dtype):
    mapped = [(X @ isometry(64, wider)).astype(dtype) for X in digits] if wider > 64 else digits
    for seed in range(2):
        a, b = (manifold_capacity(X, n_draws=60, seed=seed, errors="manifolds") for X in (digits, mapped))
        # the draws are the same: what differs is the rounding of the data, which at 1e-3 moves some active sets
        tolerance = 0.02 if dtype == np.float16 else 1e-3
        for name in MEASURES:
            assert getattr(b, name) == pytest.approx(getattr(a, name), rel=tolerance), name
        assert b.flag == a.flag
        assert b.occupancy == pytest.approx(a.occupancy, abs=0.02)


def test_the_command_line_sees_digits_in_20000_features_projected_or_not(digits, tmp_path):
    """A random projection of points of rank 64 is an invertible map of their span: what is separable stays so."""
    pixels = said_of(tmp_path, np.array(digits))
    for dtype, *words in (("float32",), ("float16", "--project", 5000), ("float64", "--project", 1000)):
        wide = said_of(tmp_path, (np.array(digits) @ isometry(64, 20_000)).astype(dtype), *words)
        for name in MEASURES:
            # draws, classes and points are the same: what is left is that 1000 directions keep lengths to some per cent
            assert abs(wide["value"][name] - pixels["value"][name]) < pixels["stderr"][name], (dtype, words, name)
        assert wide["value"]["occupancy"] == pytest.approx(pixels["value"]["occupancy"], abs=0.05), (dtype, words)


def test_layers_of_20000_features_keep_their_capacity_in_the_sketch_of_extract(digits, tmp_path):
    net = torch.nn.Linear(64, 20_000, bias=False)
    net.weight.data = torch.from_numpy(isometry(64, 20_000).T.astype(np.float32))
    data = torch.from_numpy(np.concatenate(digits).astype(np.float32)), torch.arange(10).repeat_interleave(31)
    for dtype in ("float16", "float32"):
        acts = mx.extract(net, data, project=1000, dtype=dtype, out=tmp_path / f"{dtype}.h5", progress=False)
        with acts:
            (layer,) = set(acts.layers) - {"input"}
            clouds = acts.manifolds(layer, "all")
        assert clouds[0].shape == (31, 1000)
        a, b = (manifold_capacity(X, n_draws=60) for X in (digits, clouds))
        for name in MEASURES:
            assert abs(getattr(b, name) - getattr(a, name)) < getattr(a.stderr, name), (dtype, name)


def test_a_random_projection_adds_no_dimensions(digits):
    wide = [X @ isometry(64, 3000) for X in digits]
    projected = project_manifolds(wide, 1000)  # in float32
    a, b = (manifold_capacity(X, errors="manifolds") for X in (digits, projected))
    assert abs(b.capacity - a.capacity) < 3 * a.stderr.capacity  # 1000 directions keep lengths to some per cent
    assert b.occupancy == pytest.approx(a.occupancy, abs=0.05)


@settings(max_examples=40, deadline=None, derandomize=True)  # the same at every run; 800 others were drawn once
@given(
    P=st.sampled_from([2, 3, 5, 10]), M=st.sampled_from([1, 2, 5, 20]), N=st.sampled_from([1, 2, 5, 20, 60]),
    decay=st.sampled_from([0.0, 1.0, 2.0]), radius=st.floats(0.03, 10), offset=st.sampled_from([0.0, 3.0, 100.0]),
    change=st.sampled_from(["embedded", "turned", "constants", "twice"]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_a_change_of_basis_or_empty_features_change_nothing(P, M, N, decay, radius, offset, change, seed):
    manifolds = clouds(P, M, N, decay, radius, offset, seed)
    other = {
        "embedded": lambda X: X @ isometry(N, [N + 1, 600, 1500][seed % 3], seed),
        "turned": lambda X: X @ isometry(N, N, seed),
        "constants": lambda X: np.pad(X, ((0, 0), (2, 600)), constant_values=7.0),
        "twice": lambda X: np.hstack([X, X]),
    }[change]
    a, b = (manifold_capacity(X, n_draws=20, seed=seed) for X in (manifolds, [other(X) for X in manifolds]))
    assert b.flag.partition(":")[0] == a.flag.partition(":")[0]
    for name in MEASURES:
        # the draws are the same to rounding, which may move a point across the edge of a draw's active set
        error = 0.5 * getattr(a.stderr_draws, name)
        assert np.isclose(getattr(b, name), getattr(a, name), rtol=1e-4, atol=error, equal_nan=True), name


def test_no_seed_decides_whether_a_layer_is_saturated():
    manifolds = clouds(8, 20, 60, 1.0, 0.5, 0.0, seed=1)
    wide = [X @ isometry(60, 700) for X in manifolds]
    assert len({manifold_capacity(wide, n_draws=2, seed=seed, errors="manifolds").occupancy for seed in range(6)}) == 1


@pytest.mark.parametrize("rank", [40, 300])
def test_many_points_of_low_rank_have_their_rank_in_a_sketch(rank):
    manifolds = clouds(12, ALL_POINTS // 12 + 5, rank, 0.5, 1.0, 3.0, seed=2)
    for dtype in (np.float64, np.float32):
        wide = [(X @ isometry(rank, 1200)).astype(dtype) for X in manifolds]
        points = pooled_points(wide, moments(wide, np.random.default_rng(0)))
        assert points.rank == rank
        Z = np.concatenate([F[:-1] + F[-1] for F in points.coordinates])
        X = np.concatenate(manifolds) - np.concatenate(manifolds).mean(axis=0)
        expected = X @ X.T / np.square(X).sum(axis=1).mean()
        np.testing.assert_allclose(Z @ Z.T, expected, atol=1e-5 if dtype == np.float32 else 1e-9)


def test_equations_that_do_not_settle_give_no_number_and_say_so(monkeypatch):
    monkeypatch.setattr(cavities, "_ROUNDS", 1)
    r = manifold_capacity(clouds(6, 10, 40, 0.5, 1.0, 0.0, seed=3), n_draws=20)
    assert r.flag.startswith("unsolved:")
    assert r.metric_residual > 0.005
    assert np.isnan([getattr(r, name) for name in MEASURES]).all()
    assert np.isnan(r.stderr.capacity)
    assert (r.per_manifold["flag"] == "unsolved").all()


def test_a_solution_has_the_degrees_of_freedom_that_its_metric_was_made_for():
    r = manifold_capacity(clouds(6, 10, 40, 0.5, 1.0, 0.0, seed=3), n_draws=2000)
    assert r.metric_residual <= 0.005
    # P / capacity is the sum of the degrees of freedom, on average over dichotomies: draws leave 2 %
    assert 6 / (r.capacity * r.crossing) == pytest.approx(r.occupancy * 40, rel=0.05)


def test_a_layer_that_is_nearly_full_is_flagged_before_it_is_saturated():
    flags, shares = [], []
    for M in (3, 14, 30):
        r = manifold_capacity(clouds(8, M, 40, 0.5, 2.0, 0.0, seed=4), n_draws=50, errors="manifolds")
        flags.append(r.flag.partition(":")[0])
        shares.append(r.occupancy)
    assert flags == ["", "near_saturation", "saturated"], shares


def test_a_saturated_layer_keeps_its_numbers_with_a_flag_beside_the_bound():
    r = manifold_capacity(clouds(8, 30, 40, 0.5, 2.0, 0.0, seed=4), n_draws=20)
    assert r.flag == "saturated"
    assert r.occupancy > 0.97
    assert 0.5 * 8 / 40 < r.capacity < 1.05 * 8 / 40  # at most P / rank; draws leave 2 %
    assert np.isfinite([r.radius, r.dimension, r.stderr.capacity]).all()

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manigeo.capacity import glue
from manigeo.capacity.glue import Draws, MeanAnchors, Pairs


def measured(S: np.ndarray, weights: np.ndarray, t: np.ndarray) -> tuple[MeanAnchors, Draws, Pairs]:
    """All draws' anchors (draws, manifolds, rank), their weights and Gaussians together."""
    rms = np.sqrt(np.square(S).sum(axis=2).mean(axis=0))
    anchors = MeanAnchors(S.mean(axis=0), np.where(rms > 0, rms, 1.0), len(S))
    rows, pairs = zip(*(glue.measure_draw(anchors, *draw) for draw in zip(S, weights, t, strict=True)), strict=True)
    together = Draws(*(np.stack(column) for column in zip(*rows, strict=True)))
    return anchors, together, Pairs(*(np.mean(parts, axis=0) for parts in zip(*pairs, strict=True)))


def random_draws(rng: np.random.Generator, n: int, P: int, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchors around means, a fifth of them without mass, that are the projection's: t is that plus what is orthogonal."""
    S = rng.standard_normal((P, rank)) + rng.standard_normal((n, P, rank))
    weights = rng.standard_normal((n, P)) * (rng.random((n, P)) < 0.8)
    S[weights == 0] = 0.0
    t = np.stack([w @ A + outside(A, rng.standard_normal(rank)) for A, w in zip(S, weights, strict=True)])
    return S, weights, t


def outside(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x - np.linalg.pinv(A) @ (A @ x)


@given(seed=st.integers(0, 2**32 - 1), P=st.integers(2, 6), more=st.integers(0, 5))
def test_a_is_the_squared_projection_and_all_three_are_those_of_pseudo_inverses(seed, P, more):
    S, weights, t = random_draws(np.random.default_rng(seed), 4, P, P + more)
    anchors, draws, _ = measured(S, weights, t)
    scale = anchors.rms[:, None]
    S0 = anchors.mean / scale
    for A, w, x, abc, load in zip(S, weights, t, draws.abc, draws.load, strict=True):
        A1 = A / scale - S0
        grams = ((A, A @ A.T), (A1, A1 @ A1.T), (A1, A1 @ A1.T + S0 @ S0.T))
        expected = [B @ x @ np.linalg.pinv(G, 1e-10, hermitian=True) @ (B @ x) for B, G in grams]
        # a Gram of condition up to 1e10 (what is smaller counts as zero) keeps six digits of sixteen
        np.testing.assert_allclose(abc, expected, rtol=1e-5, atol=1e-6 * (x @ x))
        np.testing.assert_allclose([abc[0], load.sum()], np.square(w @ A).sum(), rtol=1e-5, atol=1e-6 * (x @ x))


def test_jackknife_errors_are_those_of_leaving_each_draw_out():
    rng = np.random.default_rng(0)
    abc = np.array([2.0, 1.0, 0.0]) + rng.random((9, 3))  # c < b, as it is by definition
    draws = Draws(abc, rng.random((9, 4)), np.ones((9, 4), bool), rng.random((9, 3)))
    left_out = [glue.glue_measures(Draws(*(np.delete(column, i, axis=0) for column in draws))) for i in range(9)]
    for name, (_, error) in glue.glue_measures(draws).items():
        values = np.array([measures[name][0] for measures in left_out])
        assert error == pytest.approx(np.sqrt(8 * values.var()), rel=1e-12), name


def test_the_identity_is_off_by_as_much_as_a_is_from_the_squared_projection():
    rng = np.random.default_rng(1)
    load = rng.random((9, 4))
    abc = np.column_stack([load.sum(axis=1), 2 + rng.random(9), 1 + rng.random(9)])
    rest = (load, np.ones((9, 4), bool), rng.random((9, 3)))
    for error in (0.0, 0.03):
        measures = glue.glue_measures(Draws(abc / [1 + error, 1, 1], *rest))
        assert glue.identity_residual(measures) == pytest.approx(error, abs=1e-14)


def test_a_manifold_without_mass_has_no_load_no_cosine_and_infinite_capacity():
    rng = np.random.default_rng(2)
    S, weights, t = random_draws(rng, 10, 3, 5)
    S[:, 1], weights[:, 1] = 0.0, 0.0
    anchors, draws, pairs = measured(S, weights, t)
    table = glue.per_class(draws, anchors)
    assert (draws.load[:, 1] == 0).all()
    assert not pairs.center[1].any()
    assert not pairs.axis[1].any()
    assert table["anchored"][1] == 0
    assert table["capacity"][1] == np.inf
    assert np.isnan(table["radius"][1])
    assert np.isfinite(list(glue.alignments(draws, pairs).values())).all()

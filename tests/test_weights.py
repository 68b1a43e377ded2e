import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manigeo.weights import is_kernel, kernels, pooled_change, weight_change


def turned(w: np.ndarray, angle: float, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """w turned by an angle in a random plane, and scaled."""
    s = rng.standard_normal(w.shape)
    s -= (s * w).sum() / np.square(w).sum() * w
    s *= np.linalg.norm(w) / np.linalg.norm(s)
    return scale * (np.cos(angle) * w + np.sin(angle) * s)


@settings(max_examples=200, deadline=None)
@given(
    angle=st.floats(1e-7, np.pi),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_known_rotation_is_recovered_at_any_scale(angle, scale, seed):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((6, 5, 3))
    change = weight_change(w, turned(w, angle, rng, scale))
    # ninety products of rounding 1e-16, against the squared length that they are divided by
    assert change.rotation == pytest.approx(1 - np.cos(angle), abs=1e-12)
    assert change.norm / change.norm_start == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize("angle", [1e-3, 1e-5, 1e-7])
def test_small_angles_keep_their_digits(angle):
    rng = np.random.default_rng(0)
    w = rng.standard_normal(1000)
    change = weight_change(w, turned(w, angle, rng))
    # the rounding of the turned weights, 1e-16, is this part of the angle
    assert change.angle == pytest.approx(angle, rel=1e-14 / angle)
    assert change.rotation == pytest.approx(angle**2 / 2, rel=2e-14 / angle + angle**2)


@pytest.mark.parametrize("scale", [1e-3, 2.0, 1e6])
def test_scaling_is_no_rotation_and_opposite_is_two(scale):
    w = np.random.default_rng(1).standard_normal((4, 7))
    assert weight_change(w, scale * w).rotation == pytest.approx(0, abs=1e-14)
    assert weight_change(w, -scale * w).rotation == pytest.approx(2, abs=1e-14)


def test_distances_are_the_norms_of_the_difference():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 5, 8))
    change = weight_change(a, b)
    assert change.distance_l1 == pytest.approx(np.linalg.norm((b - a).ravel(), 1), rel=1e-14)
    assert change.distance_l2 == pytest.approx(np.linalg.norm(b - a), rel=1e-14)
    assert change.distance_linf == np.abs(b - a).max()
    assert change.distance_rms == pytest.approx(np.linalg.norm(b - a) / np.sqrt(40), rel=1e-14)
    assert change.distance_relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-14)


def test_several_layers_together_are_one_long_vector():
    rng = np.random.default_rng(3)
    pairs = [rng.standard_normal((2, *shape)) for shape in ((3, 4), (7,), (2, 2, 5))]
    together = pooled_change(weight_change(a, b) for a, b in pairs)
    whole = weight_change(*(np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1)))
    for name in ("n", "distance_l1", "distance_l2", "distance_linf", "distance_rms", "rotation", "norm_start", "norm"):
        assert getattr(together, name) == pytest.approx(getattr(whole, name), rel=1e-13)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_zero_weights_have_no_direction_and_say_so(start, end):
    change = weight_change(np.full(4, start), np.full(4, end))
    assert np.isnan(change.rotation)
    assert np.isnan(change.angle)
    assert change.flag == "zero_norm"
    assert change.distance_linf == abs(end - start)


def test_short_floats_are_added_up_as_long_ones():
    a = np.full(10**6, 0.1, np.float32)
    assert weight_change(a, 2 * a).distance_l1 == pytest.approx(10**6 * float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (np.ones(3), np.ones(4), r"one shape .* got \(3,\) and \(4,\)"),
        (np.ones((0, 2)), np.ones((0, 2)), "a weight or more"),
        (np.ones(3), np.array([1.0, np.nan, 1.0]), "NaN or infinite"),
    ],
)
def test_what_is_no_change_of_weights_is_refused(start, end, message):
    with pytest.raises(ValueError, match=message):
        weight_change(start, end)
    with pytest.raises(ValueError, match="one layer or more"):
        pooled_change([])


def test_kernels_are_what_multiplies_inputs():
    state = {
        "conv.weight": np.ones((8, 3, 3, 3)),
        "conv.bias": np.ones(8),
        "norm.weight": np.ones(8),
        "norm.running_mean": np.ones(8),
        "attention.in_proj_weight": np.ones((12, 4)),
        "embeddings.position_embeddings.weight": np.ones((9, 4)),
        "class_token": np.ones((1, 1, 4)),
        "counts.weight": np.ones((2, 2), dtype=int),
        "head.weight": np.ones((10, 4)),
    }
    assert list(kernels(state)) == ["conv.weight", "attention.in_proj_weight", "head.weight"]
    assert not is_kernel("norm.num_batches_tracked", ())

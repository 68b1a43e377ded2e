import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import Layer, list_layers
from manigeo_extract.recording.readouts import READOUTS, read_out, with_readout
from tests.networks import Calls

quick = settings(max_examples=40, deadline=None)


def layer(*shape: int, name: str = "a") -> Layer:
    return Layer(name, "Any", 0, 0, shape, (), leaf=True, parameters=0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def padded(draw):
    """Tokens, and a mask with between one and all of them, padded on either side."""
    n, length = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    counts = [draw(st.integers(1, length)) for _ in range(n)]
    left = draw(st.booleans())
    mask = torch.tensor([[0] * (length - c) + [1] * c if left else [1] * c + [0] * (length - c) for c in counts])
    return random(n, length, 3, seed=draw(st.integers(0, 99))), mask.bool()


@quick
@given(padded())
def test_readouts_of_tokens_look_at_those_that_the_mask_keeps(case):
    tokens, mask = case
    kept = [x[m].numpy() for x, m in zip(tokens, mask, strict=True)]  # one example after another
    tokens = tokens.where(mask[:, :, None], torch.nan)  # what stands in the padding is never read
    expected = {
        "token-mean": [x.mean(axis=0) for x in kept],
        "class-token": [x[0] for x in kept],
        "last-token": [x[-1] for x in kept],
    }
    for name, rows in expected.items():
        # up to 6 float32 numbers of order 1 are added in another order
        np.testing.assert_allclose(read_out("a", name, tokens, mask).numpy(), np.stack(rows), rtol=0, atol=1e-6)


def test_without_a_mask_every_token_counts():
    tokens = random(2, 4, 3)
    for name in ("token-mean", "class-token", "last-token"):
        everything = read_out("a", name, tokens, torch.ones(2, 4, dtype=torch.bool))
        torch.testing.assert_close(read_out("a", name, tokens, None), everything)


@pytest.mark.parametrize("space", [(5,), (3, 4), (2, 3, 4)])
def test_readouts_of_maps_keep_the_channels(space):
    maps = random(2, 3, *space)
    axes = tuple(range(2, 2 + len(space)))
    # sums of at most 24 float32 numbers of order 1
    np.testing.assert_allclose(
        read_out("a", "spatial-mean", maps, None).numpy(), maps.numpy().mean(axis=axes), rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(read_out("a", "spatial-max", maps, None).numpy(), maps.numpy().max(axis=axes))


def test_a_mean_of_half_precision_is_one_of_full_precision():
    x = torch.tensor([1.0, 1.0 + 2**-10], dtype=torch.float16)  # neighbours in float16, and between them there is none
    assert read_out("a", "spatial-mean", x.reshape(1, 1, 1, 2), None).item() == 1 + 2**-11
    assert read_out("a", "token-mean", x.reshape(1, 2, 1), None).item() == 1 + 2**-11


@pytest.mark.parametrize("readout", sorted(READOUTS))
@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (6, 2, 2), (2, 2, 2, 2)])
def test_the_planned_shape_is_that_of_the_read_out(readout, shape):
    other = layer(6, 2, name="other") if "token" in readout or readout.startswith("spatial") else layer(1)
    planned, _ = with_readout([layer(*shape), other], readout)
    assert tuple(read_out("a", planned.readout, random(2, *shape), None).shape[1:]) == planned.feature_shape
    assert planned.readout in (readout, "flatten")


def test_the_mean_is_over_tokens_or_over_space_and_vectors_are_taken_whole():
    layers = [layer(16, 8, 8), layer(7, 32), layer(10)]
    found = with_readout(layers, "mean")
    assert [(one.readout, one.feature_shape) for one in found] == [
        ("spatial-mean", (16,)),
        ("token-mean", (32,)),
        ("flatten", (10,)),
    ]
    assert with_readout(layers, "flatten") == layers


def test_a_readout_that_no_layer_has_the_axes_for_is_refused():
    with pytest.raises(UsageError, match=r"'class-token' needs layers of tokens x features, .* \(a 16 x 8 x 8, b 10\)"):
        with_readout([layer(16, 8, 8), layer(10, name="b")], "class-token")
    with pytest.raises(UsageError, match=r"'mean' needs layers of channels x positions"):
        with_readout([layer(10)], "mean")
    with pytest.raises(UsageError, match="no readout 'class-tokn'; did you mean 'class-token'"):
        with_readout([layer(3, 2)], "class-tokn")


def test_a_mask_of_another_number_of_tokens_is_refused_by_the_name_of_the_layer():
    with pytest.raises(InputError, match="layer 'pool' has 3 tokens and the attention mask 4"):
        read_out("pool", "token-mean", random(2, 3, 5), torch.ones(2, 4, dtype=torch.bool))


def test_a_recorded_readout_is_that_of_the_recorded_layer():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 2))
    batch = random(3, 1, 5, 5)
    layers = list_layers(model, batch)
    with record_layers(model, layers) as forward:
        whole = forward(batch)
    with record_layers(model, with_readout(layers, "mean")) as forward:
        got = forward(batch)
    torch.testing.assert_close(got["0"], whole["0"].mean((2, 3)))
    assert got["0"].min() < 0
    assert torch.equal(got["3"], whole["3"])


def test_a_token_that_is_read_out_is_a_copy_that_operations_in_place_leave_alone():
    model = Calls(lambda m, x: m.fc(x).relu_().mul_(0), fc=nn.Linear(3, 3))
    batch = random(2, 4, 3)
    layers = with_readout(list_layers(model, batch), "last-token")
    with record_layers(model, layers) as forward:
        assert torch.equal(forward(batch)["fc"], model.fc(batch)[:, -1].detach())


def test_padding_changes_neither_the_mean_nor_the_ends():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(9, 3)

        def forward(self, input_ids, attention_mask=None):
            return self.embedding(input_ids)

    model, ids = Words(), torch.tensor([[1, 2, 3], [4, 5, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    short = {"input_ids": ids, "attention_mask": mask}
    long = {"input_ids": nn.functional.pad(ids, (0, 4)), "attention_mask": nn.functional.pad(mask, (0, 4))}
    for readout in ("token-mean", "class-token", "last-token"):
        rows = []
        for batch in (short, long):
            with record_layers(model, with_readout(list_layers(model, batch), readout)) as forward:
                rows.append(forward(batch)["embedding"])
        torch.testing.assert_close(rows[0], rows[1])
    last = torch.stack([model.embedding.weight[3], model.embedding.weight[5]])
    assert torch.equal(rows[0], last.detach())

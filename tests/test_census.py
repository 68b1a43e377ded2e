"""Layers of foreign networks are seen whole: a module with weights is a layer or named, and its rows are the examples."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence

from manigeo.errors import UsageError
from manigeo_extract.recording.census import UNCALLED, doubts, take_census
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import list_layers, select_layers
from manigeo_extract.recording.readouts import with_readout
from tests.command_line import done, run
from tests.networks import Calls, n_hooks

p = parametrizations
N = 3


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# -------------------------------------------------------------------------------------------------- foreign networks
class Patches(nn.Module):
    """Tokens of a vision transformer, with parameters of its own beside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 8, 4, 4)
        self.cls, self.position = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1) + self.position


class EncoderBlock(nn.Module):
    """As in torchvision: torch's attention, and a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.self_attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))
        self.gamma = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.gamma * self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.encoder = Patches(), nn.Sequential(EncoderBlock(), EncoderBlock())
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.encoder(self.patches(x)))[:, 0])


class Windows(nn.Module):
    """Attention within windows, which are folded into the batch, as in Swin."""

    def __init__(self, width: int, window: int = 2, *, outer: bool = False) -> None:
        super().__init__()
        self.window, self.outer = window, outer
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(window**2, window**2))

    def forward(self, x: Tensor) -> Tensor:  # (n, h, w, c)
        n, h, w, c = x.shape
        s = self.window
        x = self.norm(x).view(n, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5)
        x = x.movedim(0, 2) if self.outer else x  # all examples of the first window, then of the second
        q, k, v = self.qkv(x.reshape(-1, s * s, c)).chunk(3, -1)
        x = self.proj((q @ k.transpose(1, 2) + self.bias).softmax(-1) @ v)
        if self.outer:
            x = x.view(h // s, w // s, n, s, s, c).movedim(2, 0)
        return x.view(n, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)


class Swin(nn.Module):
    def __init__(self, *, outer: bool = False) -> None:
        super().__init__()
        self.stem, self.merge, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 12), nn.Linear(12, 4)
        self.one, self.two = Windows(8, outer=outer), Windows(12, outer=outer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = self.merge(x + self.one(x))
        return self.head((x + self.two(x)).mean((1, 2)))


class Lora(nn.Module):
    """As in peft: the layer around which it lies, and two small ones in dictionaries."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})
        self.lora_magnitude = nn.ParameterDict({"default": torch.ones(base.out_features)})

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x)) * self.lora_magnitude["default"]


class LowRank(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(n, 1)), nn.Parameter(torch.randn(1, n))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.a @ self.b


def low_rank() -> nn.Module:
    return nn.Sequential(parametrize.register_parametrization(nn.Linear(8, 8), "weight", LowRank(8)), nn.Linear(8, 3))


class Recurrent(nn.Module):
    """In torch's default order of axes: steps, examples, features."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(8, 6, **options)
        self.fc = nn.Linear(12 if self.rnn.bidirectional else 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(
            self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))[0].mean(1 if self.rnn.batch_first else 0)
        )


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.fc = nn.GRUCell(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for step in x.unbind(1):
            h = self.cell(step, h)
        return self.fc(h)


class Packed(nn.Module):
    """Sequences of different lengths, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(8, 6, num_layers=2, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        lengths = x.abs().sum(2).ne(0).sum(1)
        _, (h, _) = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return self.fc(h[-1])


class SequenceFirst(nn.Module):
    """A transformer in torch's default order of axes."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(x.transpose(0, 1)).mean(0))


class Frames(nn.Module):
    """A network of images, over the frames of a film."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:  # (n, frames, 3, h, w)
        maps = self.conv(x.flatten(0, 1))
        return self.fc(self.embed(maps.mean((2, 3))).view(*x.shape[:2], -1).mean(1))


class Functional(nn.Module):
    """Uses the weights of one module without calling it, and another one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.fc = nn.Linear(8, 8), nn.Linear(8, 5), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.linear(x, self.used.weight))


class Spectral(nn.Module):
    """Computes with complex numbers in between."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = Calls(lambda m, x: torch.fft.rfft(x) * m.scale)
        self.filter.register_parameter("scale", nn.Parameter(torch.randn(5)))
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.filter(x).abs())


IMAGES, SEQUENCES, VECTORS = (N, 3, 8, 8), (N, 5, 8), (N, 8)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "weight norm": (lambda: nn.Sequential(p.weight_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 3)), VECTORS),
    "spectral norm": (lambda: nn.Sequential(p.spectral_norm(nn.Linear(8, 8)), p.spectral_norm(nn.Linear(8, 3))), VECTORS),
    "orthogonal": (lambda: nn.Sequential(p.orthogonal(nn.Linear(8, 8)), nn.Linear(8, 3)), VECTORS),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), SEQUENCES),
    "lstm": (Recurrent, SEQUENCES),
    "lstm of two layers, both ways": (lambda: Recurrent(num_layers=2, bidirectional=True), SEQUENCES),
    "gru": (lambda: Recurrent(nn.GRU), SEQUENCES),
    "rnn, batch first": (lambda: Recurrent(nn.RNN, batch_first=True), SEQUENCES),
    "cells": (Cells, SEQUENCES),
    "packed": (Packed, SEQUENCES),
    "sequence first": (SequenceFirst, SEQUENCES),
    "vit": (ViT, IMAGES),
    "swin": (Swin, IMAGES),
    "swin, windows first": (lambda: Swin(outer=True), IMAGES),
    "frames": (Frames, (N, 2, 3, 8, 8)),
    "peft": (lambda: nn.Sequential(Lora(nn.Linear(8, 8)), nn.Linear(8, 3)), VECTORS),
    "low rank": (low_rank, VECTORS),
    "functional": (Functional, VECTORS),
    "spectral": (Spectral, VECTORS),
}  # fmt: skip


def net_and_batch(kind: str) -> tuple[nn.Module, Tensor]:
    make, shape = NETWORKS[kind]
    return make().eval(), torch.randn(shape)


def owners(net: nn.Module) -> set[str]:
    """Modules with parameters of their own; those that compute a weight are part of the module whose weight it is."""
    found = (path for path, m in net.named_modules() if next(m.parameters(recurse=False), None) is not None)
    return {f".{path}".partition(".parametrizations")[0].lstrip(".") for path in found} - {""}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_module_with_weights_is_a_layer_or_named_with_the_reason(kind):
    net, x = net_and_batch(kind)
    found = take_census(net, x)
    default = {layer.path for layer in select_layers(found.layers)}
    left = {one.name: one.reason for one in found.left_out}
    called = {layer.path for layer in found.layers} | found.unrecordable.keys()
    for path in owners(net):
        above = [path[:i] for i, c in enumerate(path) if c == "."]
        assert path in default or path in left or (path not in called and default.intersection(above)), path
    assert left.keys().isdisjoint(default)
    assert n_hooks(net) == 0


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_row_of_a_layer_is_what_its_example_gives_alone(kind):
    net, x = net_and_batch(kind)
    layers = [layer for layer in list_layers(net, x) if layer.batched]
    with record_layers(net, layers) as forward:
        whole = forward(x)
        alone = [forward(x[i : i + 1]) for i in range(N)]
    for layer in layers:
        assert whole[layer.name].shape == (N, *layer.feature_shape)
        for i in range(N):
            # rounding depends on the size of the batch: a few units of the last place of float32, over two blocks
            torch.testing.assert_close(whole[layer.name][i], alone[i][layer.name][0], rtol=1e-4, atol=1e-5)


SEEN = {
    "weight norm": ["input", "0", "2"],
    "encoder layer": ["input", "self_attn", "norm1", "linear1", "linear2", "norm2"],
    "lstm": ["input", "rnn", "fc"],
    "packed": ["input", "rnn", "fc"],
    "low rank": ["input", "0", "1"],
    "peft": ["input", "0.base_layer", "0.lora_A.default", "0.lora_B.default", "0", "1"],
    "swin": [
        "input", "stem", "one.norm", "one.qkv", "one.proj", "one", "merge", "two.norm", "two.qkv", "two.proj", "two", "head",
    ],
    "functional": ["input", "fc"],
    "spectral": ["input", "fc"],
}  # fmt: skip


@pytest.mark.parametrize("kind", SEEN)
def test_the_default_layers_are_the_modules_that_compute_with_weights(kind):
    net, x = net_and_batch(kind)
    assert [layer.name for layer in select_layers(list_layers(net, x))] == SEEN[kind]


def test_a_layer_counts_the_weights_that_it_computes_with():
    counts = {layer.name: layer.parameters for layer in list_layers(*net_and_batch("encoder layer"))}
    assert counts["self_attn"] == 24 * 8 + 24 + 8 * 8 + 8  # with the projection that it does not call
    assert {layer.name: layer.parameters for layer in list_layers(*net_and_batch("low rank"))}["0"] == 64 + 8 + 16
    for kind in NETWORKS:
        net, x = net_and_batch(kind)
        found = take_census(net, x)
        firsts = {layer.path: layer.parameters for layer in found.layers if not layer.part and not layer.call_index}
        uncounted = sum(one.parameters for one in found.left_out if one.name not in firsts)
        assert sum(firsts.values()) + uncounted == sum(q.numel() for q in net.parameters())


# ------------------------------------------------------------------------------------------------- which rows are whose
def test_windows_and_frames_are_folded_back():
    layers = {layer.name: layer for layer in list_layers(*net_and_batch("swin"))}
    assert (layers["one.qkv"].fold, layers["one.qkv"].feature_shape) == (4, (16, 24))  # 4 windows of 4 tokens
    assert (layers["one"].fold, layers["one"].feature_shape) == (1, (4, 4, 8))
    assert {layer.name: layer.interleaved for layer in list_layers(*net_and_batch("swin, windows first"))}["one.qkv"]
    frames = {layer.name: layer for layer in list_layers(*net_and_batch("frames"))}
    assert (frames["conv"].fold, frames["conv"].feature_shape) == (2, (5, 2, 6, 6))
    assert (frames["embed"].fold, frames["embed"].feature_shape) == (2, (2, 6))


def test_the_mean_of_folded_layers_is_over_windows_and_tokens_or_frames_and_space():
    for kind, name, expected in [
        ("swin", "one.qkv", lambda out: out.unflatten(0, (N, 4)).mean((1, 2))),
        ("frames", "conv", lambda out: out.unflatten(0, (N, 2)).mean((1, 3, 4))),
        ("frames", "embed", lambda out: out.unflatten(0, (N, 2)).mean(1)),
    ]:
        net, x = net_and_batch(kind)
        kept: list[Tensor] = []
        layers = with_readout([layer for layer in list_layers(net, x) if layer.name == name], "mean")
        handle = net.get_submodule(name).register_forward_hook(lambda m, a, out, to=kept: to.append(out.detach()))
        with record_layers(net, layers) as forward:
            found = forward(x)[name]
        handle.remove()
        torch.testing.assert_close(found, expected(kept[0]))


class Routed(nn.Module):
    """Sends each token to one of two experts, as a mixture of experts does: rows of different numbers for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.expert, self.fc = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[..., 0] > 0
        y = torch.zeros_like(x)
        y[chosen] = self.expert(x[chosen])
        return self.fc(y.mean(1))


@pytest.mark.parametrize(("positive", "said"), [((3, 1), "in an order that depends"), ((2, 1), "not as many for each")])
def test_rows_that_are_not_as_many_for_each_example_are_not_folded(positive, said):
    x = -torch.rand(2, 5, 8)
    for i, n in enumerate(positive):
        x[i, :n, 0] *= -1
    found = take_census(Routed(), x)
    assert [(one.name, said in one.reason) for one in found.left_out] == [("expert", True)]
    assert [layer.name for layer in select_layers(found.layers)] == ["input", "fc"]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.integers(0, 2))
def test_however_examples_lie_in_an_output_its_rows_are_theirs(n, fold, width, interleaved, axis):
    shape = (n, fold, width, 2)
    x = torch.arange(float(n * fold * width * 2)).reshape(shape) + 1

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        rows = x.transpose(0, 1).flatten(0, 1) if interleaved else x.flatten(0, 1)
        return (m.odd(rows.movedim(0, axis)), x)[1]

    net = Calls(forward, odd=nn.Identity())
    (layer,) = (layer for layer in list_layers(net, x) if layer.name == "odd")
    assert layer.batched
    with record_layers(net, [layer]) as record:
        found = record(x)["odd"]
    assert all(torch.equal(found[i].flatten().sort()[0], x[i].flatten().sort()[0]) for i in range(n))


def test_an_axis_that_is_told_is_taken_and_a_wrong_one_named():
    net = Calls(
        lambda m, x: m.fc(m.turn(x).mean(0)), turn=Calls(lambda m, x: x.transpose(0, 1).clone()), fc=nn.Linear(8, 2)
    )
    x = torch.randn(SEQUENCES)
    told = {layer.name: layer for layer in list_layers(net, x, {"tu*": 1})}["turn"]
    assert (told.batch_axis, told.feature_shape) == (1, (5, 8))
    with pytest.raises(UsageError, match=r"--batch-axis turn=3: turn returns 5 x 3 x 8; give an axis from 0 to 2"):
        list_layers(net, x, {"turn": 3})
    with pytest.raises(UsageError, match="--batch-axis: no layer matches 'trun'; did you mean 'turn'"):
        list_layers(net, x, {"trun": 0})


class OneSize(nn.Module):
    """Takes batches of one size alone, so that no axis can be seen to grow."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.fc = inner, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(*([x.transpose(0, 1)] * (3 if isinstance(self.inner, nn.MultiheadAttention) else 1)))
        return self.fc((y[0] if isinstance(y, tuple) else y).reshape(5, N, 8).mean(0))


@pytest.mark.parametrize(
    "inner",
    [
        lambda: nn.LSTM(8, 8), lambda: nn.GRU(8, 8), lambda: nn.MultiheadAttention(8, 2),
        lambda: nn.TransformerEncoderLayer(8, 2, 16),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1, enable_nested_tensor=False),
    ],
)  # fmt: skip
def test_the_axis_of_torchs_sequence_modules_is_known_where_it_cannot_be_seen(inner):
    layers = list_layers(OneSize(inner()), torch.randn(SEQUENCES))
    assert {layer.batch_axis for layer in layers if layer.name.startswith("inner") and not layer.part} == {1}


# ------------------------------------------------------------------------------------------------------- final states
def test_final_states_of_every_layer_are_layers_by_name():
    net, x = net_and_batch("lstm of two layers, both ways")
    layers = list_layers(net, x)
    states = [layer for layer in layers if layer.part]
    assert [layer.name for layer in states] == ["rnn:h_l0", "rnn:h_l1", "rnn:c_l0", "rnn:c_l1"]
    assert {(layer.feature_shape, layer.path, layer.module_class) for layer in states} == {((12,), "rnn", "LSTM state")}
    assert not {layer.name for layer in states} & {layer.name for layer in select_layers(layers, types=["LSTM*"])}
    chosen = select_layers(layers, ["rnn:h_l*", "rnn"])
    with record_layers(net, chosen) as forward:
        found = forward(x)
    out, (h, _) = net.rnn(x.transpose(0, 1))
    torch.testing.assert_close(found["rnn"], out.transpose(0, 1).detach())
    torch.testing.assert_close(found["rnn:h_l1"], torch.cat([h[2], h[3]], 1).detach())


def test_what_was_packed_is_padded_again_in_the_order_of_the_examples():
    net, x = net_and_batch("packed")
    for i, length in enumerate((2, 5, 3)):
        x[i, length:] = 0
    layers = select_layers(list_layers(net, x[:1]), ["rnn", "rnn:h_l1"])
    with record_layers(net, layers) as forward:
        found, short = forward(x), forward(x[:1])
    assert short["rnn"].shape == (1, 5, 6)  # to the length of the input, not of the longest in the batch
    torch.testing.assert_close(found["rnn"][0], short["rnn"][0])
    assert not found["rnn"][0, 2:].any()
    torch.testing.assert_close(found["rnn"][2, 2], found["rnn:h_l1"][2])


# ----------------------------------------------------------------------------------------------------------- left out
def test_what_is_left_out_is_counted_and_named_with_the_reason():
    found = take_census(*net_and_batch("functional"))
    assert {(one.name, one.parameters, one.reason) for one in found.left_out} == {
        ("used", 72, UNCALLED), ("unused", 45, UNCALLED),
    }  # fmt: skip
    assert found.remarks == [f"left out: 2 modules with 117 weights, used (Linear), unused (Linear): {UNCALLED}"]
    (spectral,) = take_census(*net_and_batch("spectral")).left_out
    assert (spectral.name, spectral.parameters) == ("filter", 5)
    assert spectral.reason.startswith("returns complex numbers; take a layer before or after it")


def test_a_complex_output_is_refused_by_name_and_its_remedy_works():
    net, x = net_and_batch("spectral")
    found = take_census(net, x)
    with pytest.raises(
        UsageError, match=r"layer 'filter' cannot be recorded: it returns complex numbers; .*view_as_real"
    ):
        select_layers(found.layers, ["filter"], unrecordable=found.unrecordable)
    assert select_layers(found.layers, ["f*"], unrecordable=found.unrecordable)  # others are meant, too
    net.filter.run = lambda m, x: torch.view_as_real(torch.fft.rfft(x) * m.scale)
    net.fc = Calls(lambda m, x: torch.view_as_complex(x).abs())
    assert "filter" in [layer.name for layer in select_layers(list_layers(net, x))]


def test_noise_and_dependence_on_the_batch_are_noticed():
    noisy = nn.Sequential(nn.Linear(8, 8), Calls(lambda m, x: F.dropout(x, 0.1)), nn.Linear(8, 3))
    layers = list_layers(noisy, torch.randn(VECTORS))
    assert [layer.name for layer in layers if layer.noisy] == ["1", "2"]
    (said,) = doubts(layers)
    assert said.startswith(
        "activations differ between two passes of the same examples in 2 layers, from '1' on: is dropout"
    )
    (said,) = doubts(list_layers(nn.Sequential(nn.Linear(8, 8), Calls(lambda m, x: x.cumsum(0))), torch.randn(VECTORS)))
    assert said.startswith("activations of 1 depend on which examples are together in a batch")
    for kind in NETWORKS:
        assert not doubts(list_layers(*net_and_batch(kind)))
    broken = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    nn.init.constant_(broken[0].bias[:1], torch.nan)
    assert not doubts(list_layers(broken, torch.randn(2, 64)))  # which is said when it is recorded


def test_a_census_leaves_the_random_numbers_and_the_network_as_they_were():
    net, x = net_and_batch("swin")
    net.train()
    state, before = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    take_census(net, x)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert torch.backends.mha.get_fastpath_enabled()


# ----------------------------------------------------------------------------------------------------- the commands
def test_commands_say_what_is_left_out_and_take_an_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.rnn, self.aux, self.fc = nn.LSTM(8, 6), nn.Linear(2, 2), nn.Linear(6, 10)\n"
        "    def forward(self, x):\n"
        "        return self.fc(self.rnn(x[:, 0].transpose(0, 1))[0][-1])\n"
    )
    options = ("--weights", "init", "--arch", "nets.py:Net", "--data", "digits", "--data-arg", "per_class=10")
    reason = "left out: 1 module with 6 weights, aux (Linear): is not called by the forward pass"
    code, out, said = run("layers", *options)
    assert code == 0, said
    assert reason in said
    assert "rnn" in out
    code, out, said = run("extract", *options, "--layers", "rnn", "--layers", "rnn:h_l0", "--batch-axis", "rnn=1")
    assert code == 0, said
    assert "left out" not in said  # these layers were chosen
    assert "rnn:h_l0 (6)" in done("info", "acts.h5")
    code, out, said = run("extract", *options, "--force")
    assert reason in said
    assert "left out aux is not called by the forward pass" in done("info", "acts.h5")
    code, _, said = run("layers", *options, "--batch-axis", "rnn=one")
    assert (code, "expected NAME=AXIS with a whole number" in said) == (2, True)

"""Weights come through torch's own protocol: what ``load_state_dict`` takes is taken, to the last bit, or refused alike."""

import copy
import json
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.nn.utils import parametrizations, parametrize, prune

from manigeo.errors import InputError
from manigeo_extract.files.checkpoints import Checkpoint, load_checkpoint, restore_model, save_checkpoint
from manigeo_extract.files.fitting import fit_state
from manigeo_extract.files.networks import trained_network
from manigeo_extract.models import IMAGE_MODELS, build_model
from manigeo_extract.recording.layers import unwrap
from manigeo_extract.training.runs import Snapshot


def quietly(made: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's deprecations
        return made()


def same(one: nn.Module, other: nn.Module) -> bool:
    """Same names, same bits, quantised weights and further state included."""
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(_same(a[name], b[name]) for name in a)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return all(map(_same, a, b))
    if not isinstance(a, Tensor):
        return a == b
    if a.is_quantized:
        a, b = a.dequantize(), b.dequantize()
    return a.dtype == b.dtype and torch.equal(a, b)


class Versioned(nn.Module):
    """Its first version had its weight transposed; as torch documents ``_version``."""

    _version = 2

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight

    def _load_from_state_dict(self, state: Any, prefix: str, versions: Any, *rest: Any) -> None:
        if versions.get("version", 1) < 2 and prefix + "weight" in state:
            state[prefix + "weight"] = state[prefix + "weight"].T
        super()._load_from_state_dict(state, prefix, versions, *rest)


class Copying(nn.Module):
    """Copies its weights itself, and reads them while it does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.randn(3))
        self.largest = 0.0

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        with torch.no_grad():
            self.scale.copy_(state[prefix + "scale"])
        self.largest = float(self.scale.max())


class Renaming(nn.Module):
    """Had other names once, and knows them by a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, state: Any, prefix: str, *rest: Any) -> None:
        for name in [n for n in state if n.startswith(f"{prefix}dense.")]:
            state[name.replace("dense.", "fc.")] = state.pop(name)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight


class SharingMemory(nn.Module):
    """Tied as some do it: two parameters in one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = nn.Parameter(self.embedding.weight.data)


class WithExtra(nn.Module):
    """Keeps something else than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.seen = nn.Linear(2, 2), torch.randint(0, 99, ()).item()

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


class Uncopied(nn.Module):
    """Cannot be copied, for the generator that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.generator = nn.Linear(4, 3), torch.Generator()


class OwnLoading(nn.Module):
    """Overrides ``load_state_dict``, with fewer arguments than torch has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:
        return super().load_state_dict({n.replace("dense", "fc"): t for n, t in state_dict.items()}, strict)


class LowRank(nn.Module):
    """A LoRA, as a parametrization."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 4))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.a @ self.b


def lora() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    parametrize.register_parametrization(net[0], "weight", LowRank())
    return net


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(3, 2), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))


def materialised() -> nn.Module:
    net = lazy()
    net(torch.randn(2, 1, 4, 4))
    return net


def quantised() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    return quietly(lambda: torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8))


def averaged() -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(nn.Linear(4, 3))


def used(made: Callable[[], nn.Module], *shape: int) -> Callable[[], nn.Module]:
    """A network that has run, so that it holds what it computed."""

    def run() -> nn.Module:
        net = made()
        net(torch.randn(*shape))
        return net

    return run


def built(name: str) -> Callable[[], nn.Module]:
    return lambda: build_model(name, {"input_shape": (1, 16, 16), "n_classes": 3}, seed=None)


def transformer(name: str) -> Callable[[], nn.Module]:
    """A tiny network of transformers, drawn at random."""

    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        sizes = {
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 8,
            "vocab_size": 11,
        }
        own = {
            "GPT2LMHeadModel": {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 11, "n_positions": 8},
            "ViTForImageClassification": {**sizes, "image_size": 8, "patch_size": 4},
            "T5ForConditionalGeneration": {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "vocab_size": 11},
        }  # fmt: skip
        model = getattr(transformers, name)
        return model(model.config_class(**own.get(name, sizes)))

    return make


p, u = parametrizations, nn.utils
CLASSES: dict[str, Callable[[], nn.Module]] = {
    **{name: built(name) for name in IMAGE_MODELS},
    **{
        name: transformer(name)
        for name in (
            "GPT2LMHeadModel", "BertForSequenceClassification", "ViTForImageClassification", "T5ForConditionalGeneration",
            "RobertaForMaskedLM",
        )
    },
    "linear": lambda: nn.Linear(4, 3),
    "batch norm": used(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), 5, 4),
    "instance norm": lambda: nn.Sequential(nn.Conv1d(4, 3, 1), nn.InstanceNorm1d(3, affine=True, track_running_stats=True)),
    "group, layer and rms norm": lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.RMSNorm(4)),
    "lstm": lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True, proj_size=2),
    "gru": lambda: nn.GRU(4, 3),
    "attention": lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
    "transformer": lambda: nn.Transformer(8, 2, 1, 1, 8, batch_first=True),
    "weight norm": lambda: nn.Sequential(p.weight_norm(nn.Linear(4, 4)), p.weight_norm(nn.Conv1d(4, 3, 2), dim=1)),
    "old weight norm": used(lambda: nn.Sequential(quietly(lambda: u.weight_norm(nn.Linear(4, 4)))), 5, 4),
    "spectral norm": used(lambda: nn.Sequential(p.spectral_norm(nn.Linear(4, 4))), 5, 4),
    "old spectral norm": used(lambda: nn.Sequential(u.spectral_norm(nn.Linear(4, 4))), 5, 4),
    "orthogonal": lambda: p.orthogonal(nn.Linear(4, 4)),
    "low rank": lora,
    "tied": Tied,
    "sharing memory": SharingMemory,
    "versioned": Versioned,
    "copying": Copying,
    "renaming": Renaming,
    "own loading": OwnLoading,
    "extra state": WithExtra,
    "uncopied": Uncopied,
    "materialised": materialised,
    "quantised": quantised,
    "averaged": averaged,
    "half": lambda: nn.Linear(4, 3).half(),
    "double": lambda: nn.Linear(4, 3).double(),
    "bfloat16": lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).bfloat16(),
    "complex": lambda: nn.Linear(4, 3, dtype=torch.complex64),
    "parameter list": lambda: nn.ParameterList([torch.randn(2), torch.randn(3, 1)]),
    "parameter dict": lambda: nn.ModuleDict({"a": nn.ParameterDict({"w": torch.randn(2)}), "b": nn.Bilinear(2, 2, 2)}),
    "buffers": lambda: _with_buffers(nn.Linear(2, 2)),
    "pruned": lambda: prune.random_unstructured(nn.Linear(4, 4), "weight", amount=3),
    "compiled part": lambda: quietly(lambda: nn.Sequential(torch.compile(nn.Linear(4, 4)), nn.BatchNorm1d(4))),
}  # fmt: skip


def _with_buffers(net: nn.Module) -> nn.Module:
    net.register_buffer("kept", torch.randint(0, 9, (3,)))
    net.register_buffer("none", None)
    net.register_buffer("passing", torch.randn(2), persistent=False)
    return net


def test_the_classes_are_more_than_forty():
    assert len(CLASSES) > 40


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("prefix", ["", "model.", "ema.module._orig_mod."])
def test_weights_are_to_the_last_bit_those_of_load_state_dict(kind, prefix, tmp_path):
    trained, ours, torchs = (CLASSES[kind]() for _ in range(3))
    path = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), path)
    quietly(lambda: torchs.load_state_dict(torch.load(path, weights_only=True)))
    torch.save(below(prefix, trained.state_dict()), path)
    before = copy.deepcopy(ours.state_dict())
    fit = fit_state(load_checkpoint(path).state_dict, unwrap(ours))
    assert all(_same(before[name], value) for name, value in ours.state_dict().items())  # to ask changes nothing
    assert restore_model(load_checkpoint(path), ours).complete == fit.complete is True
    assert same(ours, torchs)
    assert same(ours, trained)
    assert ours.__dict__.get("largest") == torchs.__dict__.get("largest")


def below(prefix: str, state: Any) -> Any:
    """As a wrapper would save the network: its names, and the versions of its modules, below a prefix."""
    new = OrderedDict((prefix + name, value) for name, value in state.items())
    new._metadata = OrderedDict(((prefix + path).rstrip("."), v) for path, v in state._metadata.items())  # type: ignore
    new._metadata.setdefault("", {"version": 1})
    return new


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind != "averaged"])  # their wrapper is taken off
def test_a_recorded_checkpoint_gives_back_the_network_and_its_versions(kind, tmp_path):
    trained, restored = CLASSES[kind](), CLASSES[kind]()
    save_checkpoint(tmp_path / "last.pt", trained)
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.state_dict._metadata.keys() == trained.state_dict()._metadata.keys()
    restore_model(checkpoint, restored)
    assert same(restored, trained)
    found = Snapshot("last", 0, tmp_path / "last.pt").state(CLASSES[kind]())
    assert all(_same(found[name], value) for name, value in trained.state_dict().items() if isinstance(value, Tensor))


# ------------------------------------------------------------------------------------------- random networks, at random
LEAVES: list[Callable[[int], nn.Module]] = [
    lambda n: nn.Linear(n, n),
    lambda n: nn.BatchNorm1d(n),
    lambda n: nn.LSTM(n, n),
    lambda n: nn.MultiheadAttention(n, 1),
    lambda n: Versioned(n),
    lambda n: p.weight_norm(nn.Linear(n, n)),
    lambda n: quietly(lambda: u.weight_norm(nn.Linear(n, n))),
    lambda n: p.spectral_norm(nn.Linear(n, n)),
    lambda n: p.orthogonal(nn.Linear(n, n)),
    lambda n: _with_buffers(nn.Linear(n, n)),
    lambda n: Tied(),
    lambda n: nn.Dropout(),
]
TREES = st.recursive(st.integers(0, len(LEAVES) - 1), lambda tree: st.lists(tree, min_size=1, max_size=4), max_leaves=8)


def grown(tree: Any, width: int, ties: int) -> nn.Module:
    """A network in the form of a tree; with ``ties``, linear layers share a weight."""
    net = (
        nn.Sequential(*(grown(branch, width, 0) for branch in tree)) if isinstance(tree, list) else LEAVES[tree](width)
    )
    linear = [m for m in net.modules() if type(m) is nn.Linear and "weight" in m._parameters]
    for module in linear[1 : ties + 1]:
        module.weight = linear[0].weight
    return net


@given(tree=TREES, width=st.integers(2, 4), ties=st.integers(0, 2), prefix=st.sampled_from(["", "module.", "a.b."]))
@settings(max_examples=60)
def test_a_random_network_has_the_bits_that_load_state_dict_gives_it(tree, width, ties, prefix):
    trained, ours, torchs = (grown(tree, width, ties) for _ in range(3))
    torchs.load_state_dict(trained.state_dict())
    if trained.state_dict():
        restore_model(Checkpoint(below(prefix, trained.state_dict()), "", "a.pt"), ours)
        assert same(ours, torchs)


@given(tree=TREES, ties=st.integers(0, 2), gone=st.integers(0, 20), shaped=st.integers(0, 20), more=st.booleans())
@settings(max_examples=60)
def test_what_torch_refuses_is_refused_and_of_a_loose_fit_the_bits_are_torchs(tree, ties, gone, shaped, more):
    trained, ours, torchs = (grown(tree, 3, ties) for _ in range(3))
    state = trained.state_dict()
    names = list(state)
    if gone < len(names):
        del state[names[gone]]
    if shaped < len(names) and names[shaped] in state:
        state[names[shaped]] = torch.randn(7, 7, 7)
    if more:
        state["more"] = torch.zeros(1)
    before = copy.deepcopy(ours.state_dict())
    torchs.load_state_dict(before)  # what does not fit keeps its value
    try:
        told = torchs.load_state_dict(state, strict=False)
        mismatch = bool(told.missing_keys or told.unexpected_keys)
    except RuntimeError:
        mismatch = True
    try:
        fit = restore_model(Checkpoint(state, "", "a.pt"), ours)
    except InputError:
        assert mismatch
        assert all(_same(before[name], value) for name, value in ours.state_dict().items())
        fit = fit_state(state, ours)
        fit.load_into(ours)
    else:
        assert fit.complete
        storages = [tensor.data_ptr() for tensor in ours.state_dict().values()]
        assert not mismatch or len(set(storages)) < len(storages)  # of tied names one is enough
    assert same(ours, torchs)


# ---------------------------------------------------------------------------------------------- converted while loading
def old_batch_norm() -> tuple[Any, nn.Module]:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    return {n: t for n, t in net.state_dict().items() if "tracked" not in n}, copy.deepcopy(net)


def first_version() -> tuple[Any, nn.Module]:
    state = OrderedDict(weight=torch.arange(16.0).reshape(4, 4))
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state, Versioned()


def no_version() -> tuple[Any, nn.Module]:
    return {"weight": torch.arange(16.0).reshape(4, 4)}, Versioned()


def other_names() -> tuple[Any, nn.Module]:
    return {
        n.replace("fc", "dense"): t for n, t in nn.ModuleDict({"fc": nn.Linear(4, 3)}).state_dict().items()
    }, Renaming()


CONVERTED: dict[str, Callable[[], tuple[Any, nn.Module]]] = {
    "batch norm before 0.4.1": old_batch_norm,
    "weight_g and weight_v": lambda: (
        quietly(lambda: u.weight_norm(nn.Linear(4, 3))).state_dict(), p.weight_norm(nn.Linear(4, 3)),
    ),
    "weight_g and weight_v, no bias": lambda: (
        quietly(lambda: u.weight_norm(nn.Linear(4, 3, bias=False))).state_dict(), p.weight_norm(nn.Linear(4, 3, bias=False)),
    ),
    "weight_g of a convolution": lambda: (
        nn.Sequential(quietly(lambda: u.weight_norm(nn.Conv2d(4, 3, 2)))).state_dict(),
        nn.Sequential(p.weight_norm(nn.Conv2d(4, 3, 2))),
    ),
    "first version": first_version,
    "no version": no_version,
    "lazy": lambda: (materialised().state_dict(), lazy()),
    "other names": other_names,
    "half precision": lambda: (nn.Linear(4, 3).half().state_dict(), nn.Linear(4, 3)),
    "bfloat16": lambda: (nn.Linear(4, 3).bfloat16().state_dict(), nn.Linear(4, 3)),
    "double": lambda: (nn.Linear(4, 3).double().state_dict(), nn.Linear(4, 3).half()),
    "a number as a list of one": lambda: ({"w": torch.tensor([3.0])}, _scalar()),
}  # fmt: skip


def _scalar() -> nn.Module:
    net = nn.Module()
    net.w = nn.Parameter(torch.zeros(()))
    return net


@pytest.mark.parametrize("kind", CONVERTED)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_of_earlier_versions_are_converted_as_torch_converts_them(kind, prefix, tmp_path):
    (state, net), (_, torchs) = CONVERTED[kind](), CONVERTED[kind]()
    torchs.load_state_dict(state)
    moved = below(prefix, state) if hasattr(state, "_metadata") else {prefix + name: t for name, t in state.items()}
    torch.save(moved, tmp_path / "a.pt")
    fit = restore_model(load_checkpoint(tmp_path / "a.pt"), net)
    assert fit.complete
    assert same(net, torchs)
    # whatever sets single tensors gets them under the network's names, converted
    found, own = Snapshot("a", 0, tmp_path / "a.pt").state(CONVERTED[kind]()[1]), net.state_dict()
    assert all(torch.equal(found[name].to(own[name].dtype).reshape(own[name].shape), own[name]) for name in own)
    torchs.load_state_dict(found)  # and nothing converts them once more
    assert same(torchs, net)


def test_a_file_without_versions_is_said_to_be_one_where_a_module_would_convert_it():
    state, net = no_version()
    assert fit_state(state, net).notes == ("the file states no versions, so that Versioned may convert its weights",)
    assert not fit_state(Versioned().state_dict(), net).notes
    assert not fit_state(old_batch_norm()[0], old_batch_norm()[1]).notes


# ----------------------------------------------------------------------------------------------------- names in one memory
@pytest.mark.parametrize("make", [Tied, SharingMemory, transformer("GPT2LMHeadModel"), transformer("BertForMaskedLM")])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_of_names_that_are_one_tensor_one_is_enough(make, prefix, tmp_path):
    trained, other = make(), make()
    safetensors.torch.save_model(trained, str(tmp_path / "t.safetensors"))
    safetensors.torch.load_model(make(), str(tmp_path / "t.safetensors"))
    state = safetensors.torch.load_file(tmp_path / "t.safetensors")
    assert len(state) < len(trained.state_dict())
    safetensors.torch.save_file(
        {prefix + name: t for name, t in state.items()}, tmp_path / "t.safetensors", {"format": "pt"}
    )
    checkpoint = load_checkpoint(tmp_path / "t.safetensors")
    assert restore_model(checkpoint, other).complete
    assert same(other, trained)
    assert fit_state(checkpoint.state_dict, other).state_dict.keys() == trained.state_dict().keys()


def test_what_safetensors_dropped_is_there_also_for_a_network_that_does_not_tie(tmp_path):
    tied, untied = Tied(), Tied()
    untied.head.weight = nn.Parameter(torch.zeros(9, 4))
    safetensors.torch.save_model(tied, str(tmp_path / "t.safetensors"))
    assert restore_model(load_checkpoint(tmp_path / "t.safetensors"), untied).complete
    assert torch.equal(untied.head.weight, tied.embedding.weight)


def test_tied_names_with_two_values_are_named():
    state = dict(Tied().state_dict(), **{"head.weight": torch.zeros(9, 4)})
    assert fit_state(state, Tied()).notes == (
        "embedding.weight and head.weight are one tensor in the network and differ in the file: head.weight was taken",
    )


def test_the_names_of_a_backbone_get_the_prefix_of_the_network_around_it():
    backbone, net = transformer("GPT2LMHeadModel")().transformer, transformer("GPT2LMHeadModel")()
    fit = restore_model(Checkpoint(backbone.state_dict(), "", "a.pt"), net)
    assert fit.notes == ("put the prefix 'transformer.' before the names",)
    assert same(net.transformer, backbone)
    masked = {**backbone.state_dict(), "h.0.attn.bias": torch.ones(1)}  # as transformers once saved its masks
    with pytest.raises(InputError, match=r"1 unexpected \(h.0.attn.bias\); all .*: --no-strict leaves the rest out"):
        restore_model(Checkpoint(masked, "", "a.pt"), net)
    with pytest.raises(InputError, match="2 unexpected"):  # a single layer is no backbone
        restore_model(
            Checkpoint(nn.Linear(2, 2).state_dict(), "", "a.pt"), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        )


# ------------------------------------------------------------------------------------------------------------- refused
REFUSED: dict[str, tuple[Any, str]] = {
    "whole numbers": (
        {"weight": torch.ones(3, 4, dtype=torch.int8), "bias": torch.zeros(3)},
        r"1 that are no floating point numbers \(weight int8 instead of float32\); save the weights as floating point",
    ),
    "complex numbers": (
        {"weight": torch.ones(3, 4) * 1j, "bias": torch.zeros(3)},
        r"weight complex64 instead of float32",
    ),
    "truth values": ({"weight": torch.ones(3, 4) > 0, "bias": torch.zeros(3)}, r"weight bool instead of float32"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_are_no_floating_point_numbers_are_refused_with_the_reason(kind):
    state, said = REFUSED[kind]
    net = nn.Linear(4, 3)
    before = net.weight.clone()
    with pytest.raises(InputError, match=said):
        restore_model(Checkpoint(state, "", "a.pt"), net)
    assert torch.equal(net.weight, before)
    fit = fit_state(state, net)
    fit.load_into(net)  # loosely
    assert torch.equal(net.weight, before)
    assert torch.equal(net.bias, torch.zeros(3))
    assert "left out: 1 that are no floating point numbers (weight" in fit.notes[0]


def test_quantised_tensors_are_taken_as_the_numbers_that_they_stand_for(tmp_path):
    weight = quietly(lambda: torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 0, torch.qint8))
    torch.save({"weight": weight, "bias": torch.zeros(3)}, tmp_path / "a.pt")
    net = nn.Linear(4, 3)
    fit = restore_model(load_checkpoint(tmp_path / "a.pt"), net)
    assert fit.notes == ("1 quantised tensors were taken as the numbers that they stand for",)
    assert torch.equal(net.weight, weight.dequantize())


def test_a_network_that_fails_to_load_says_why_and_stays():
    class Failing(nn.Linear):
        def _load_from_state_dict(self, *args: Any) -> None:
            raise KeyError("scale")

    net = Failing(4, 3)
    with pytest.raises(
        InputError, match=r"a.pt: Failing.load_state_dict does not take them \(.*scale.*version of its code"
    ):
        restore_model(Checkpoint(nn.Linear(4, 3).state_dict(), "", "a.pt"), net)


def test_a_small_file_that_claims_a_large_network_takes_no_memory(tmp_path):
    net = build_model("mlp", {"input_shape": (1, 2, 2), "n_classes": 3, "width": 4}, seed=0)
    claims = {"input_shape": [1, 2, 2], "n_classes": 3, "width": 10**7}  # 400 TB
    save_checkpoint(tmp_path / "a.pt", net, arch="mlp", arch_args=claims)
    for strict in (True, False):
        with pytest.raises(InputError, match="of another shape"):
            trained_network(load_checkpoint(tmp_path / "a.pt"), "mlp", claims, strict=strict)


# -------------------------------------------------------------------------------------------------------------- folders
NET = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def sharded(folder: Path, suffix: str = "safetensors", state: Any = None) -> Path:
    """As Hugging Face writes it: shards and an index."""
    state = NET.state_dict() if state is None else state
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = list(state)
    places = {}
    for number, part in enumerate((names[:3], names[3:]), 1):
        shard = f"{stem}-{number:05}-of-00002.{suffix}"
        places |= dict.fromkeys(part, shard)
        tensors = {name: state[name] for name in part}
        write = safetensors.torch.save_file if suffix == "safetensors" else torch.save
        write(tensors, folder / shard)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("given_as", ["folder", "index"])
def test_shards_with_an_index_are_one_state_dict(tmp_path, suffix, given_as):
    index = sharded(tmp_path, suffix)
    checkpoint = load_checkpoint(index if given_as == "index" else tmp_path)
    net = copy.deepcopy(NET)
    nn.init.zeros_(net[0].weight)
    assert restore_model(checkpoint, net).complete
    assert same(net, NET)
    other = load_checkpoint(sharded(tmp_path, suffix, {**NET.state_dict(), "2.bias": torch.ones(3)}))
    assert other.sha256 != checkpoint.sha256  # of other weights


def test_of_two_indexes_safetensors_is_read_and_unusual_ones_are_named(tmp_path):
    sharded(tmp_path, "bin", {**NET.state_dict(), "2.bias": torch.ones(3)})
    sharded(tmp_path)
    assert torch.equal(load_checkpoint(tmp_path).state_dict["2.bias"], NET[2].bias)
    for name in ("a", "b"):
        (tmp_path / f"{name}.index.json").write_bytes((tmp_path / "model.safetensors.index.json").read_bytes())
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / f"{name}.index.json").unlink()
    with pytest.raises(InputError, match=r"several indexes of shards; give one: a.index.json, b.index.json"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path / "a.index.json").state_dict.keys() == NET.state_dict().keys()


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shard is gone": (lambda index: next(index.parent.glob("*1-of*")).unlink(), "names the shard .*copy all 2 shards"),
    "a tensor is gone": (
        lambda index: safetensors.torch.save_file({"0.weight": torch.zeros(1)}, next(index.parent.glob("*2-of*"))),
        r"says that model-00002.* holds '.*', which it does not \(.*; copy index and shards anew",
    ),
    "a shard is damaged": (lambda index: next(index.parent.glob("*2-of*")).write_bytes(b"abc"), "is truncated or damaged"),
    "a shard elsewhere": (
        lambda index: index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}})), "is not beside it"
    ),
    "no JSON": (lambda index: index.write_text("<html>"), "is no index of shards.*copy it again"),
    "no map": (lambda index: index.write_text("[1]"), "is no index of shards"),
    "an empty map": (lambda index: index.write_text('{"weight_map": {}}'), "names no shards"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_an_index_that_does_not_fit_its_shards_is_refused_in_one_line(tmp_path, kind):
    breaks, said = BROKEN[kind]
    breaks(sharded(tmp_path))
    with pytest.raises(InputError, match=said) as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nested", [False, True])
def test_a_distributed_checkpoint_is_read_with_trust_or_converted_as_told(tmp_path, nested):
    folder = tmp_path / "step-3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no process group is there
        dcp.save(
            {"model": NET.state_dict(), "step": 3} if nested else NET.state_dict(), checkpoint_id=folder, no_dist=True
        )
    with pytest.raises(
        InputError, match=r"--trust, .*, or convert it: (python -m .* dcp_to_torch .* weights\.pt)$"
    ) as caught:
        load_checkpoint(folder)
    command = str(caught.value).partition("convert it: ")[2].split()
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, capture_output=True)
    for checkpoint in (load_checkpoint(folder, trust=True), load_checkpoint(tmp_path / "weights.pt")):
        net = copy.deepcopy(NET)
        nn.init.zeros_(net[0].weight)
        assert restore_model(checkpoint, net).complete
        assert same(net, NET)
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(
        InputError, match=r"cannot be read by torch.distributed.checkpoint .*; copy all its files again"
    ):
        load_checkpoint(folder, trust=True)

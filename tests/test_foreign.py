"""Other programs' model files: each kind loads to the very network that was saved, or is refused with the way out."""

import argparse
import dataclasses
import io
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.files.checkpoints import checkpoint_bytes, load_checkpoint, restore_model
from manigeo_extract.files.fitting import fit_state
from manigeo_extract.files.foreign import find_weights
from manigeo_extract.files.formats import read_model_file
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import list_layers
from tests.model_files import (
    BATCH,
    NET,
    STATE,
    Trap,
    below,
    exported,
    lightning,
    network,
    saved,
    torchscript,
    trapped_export,
    with_member,
)


def of_numpy_1(content: dict[str, Any]) -> bytes:
    """The same as NumPy 1 would have written it: version 2 renamed the package of its functions."""
    new = saved(content)
    with zipfile.ZipFile(io.BytesIO(new)) as archive:
        pickled = archive.read("archive/data.pkl")
    assert pickled.count(b"numpy._core.multiarray") == 2
    return with_member(new, "data.pkl", pickled.replace(b"numpy._core.", b"numpy.core."))


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes, str], Path]:
    def write(content: bytes, name: str = "weights.pt") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


# ----------------------------------------------------------------------------------------------------------- file kinds
LOADS: dict[str, tuple[str, Callable[[], bytes], str | None]] = {
    "state dict": ("a.pt", lambda: saved(STATE), None),
    "net, acc and epoch": ("ckpt.pth", lambda: saved({"net": STATE, "acc": 93.1, "epoch": 9}), "net"),
    "hparams beside": ("a.ckpt", lambda: saved({"state_dict": STATE, "hparams": {"lr": 0.1}}), "state_dict"),
    "old format": ("a.pth.tar", lambda: saved(STATE, _use_new_zipfile_serialization=False), None),
    "Lightning": ("a.ckpt", lambda: saved(lightning({"lr": 0.1})), "state_dict"),
    "Lightning, Namespace": ("a.ckpt", lambda: saved(lightning(argparse.Namespace(lr=0.1))), "state_dict"),
    "NumPy scalar": ("a.pt", lambda: saved({"model": STATE, "best_acc": np.float64(0.9), "n": np.int64(3)}), "model"),
    "NumPy array": ("a.pt", lambda: saved({"model": STATE, "accs": np.linspace(0, 1, 3), "ok": np.ones(2, bool)}), "model"),
    "NumPy, old format": (
        "a.pt", lambda: saved({"net": STATE, "a": np.float32(1)}, _use_new_zipfile_serialization=False), "net",
    ),
    "NumPy 1": ("a.pt", lambda: of_numpy_1({"net": STATE, "a": np.float64(1), "b": np.ones(2)}), "net"),
    "safetensors": ("a.safetensors", lambda: safetensors.torch.save(STATE, {"format": "pt"}), None),
    "safetensors without a suffix": ("blob", lambda: safetensors.torch.save(STATE), None),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOADS)
def test_every_kind_of_weights_gives_the_network_that_was_saved(file, kind):
    name, content, key = LOADS[kind]
    checkpoint = load_checkpoint(file(content(), name))
    assert checkpoint.state_key == key
    assert checkpoint.module is None
    other = network(seed=1)
    assert restore_model(checkpoint, other).complete
    assert torch.equal(other(BATCH), NET(BATCH))


TRUSTED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "module": ("a.pt", lambda: saved(NET), r"pickled objects \(.*Conv2d.*\), .*; save model.state_dict\(\) .*--trust"),
    "module, old format": (
        "a.pth", lambda: saved(NET, _use_new_zipfile_serialization=False), r"pickled objects \(.*Sequential\).*--trust",
    ),
    "module under a key": ("a.pt", lambda: saved({"epoch": 3, "model": NET}), r"pickled objects \(.*--trust"),
    "other pickle protocol": ("a.pt", lambda: saved(NET, pickle_protocol=4), "--trust"),
    "torch.export": ("a.pt2", exported, r"torch.export, which can execute .*--trust.* or save model.state_dict\(\)"),
    "torch.export, other suffix": ("a.pt", exported, r"torch.export, which can execute .*--trust"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TRUSTED)
def test_a_file_with_the_network_itself_is_read_with_trust_and_refused_without(file, kind):
    name, content, said = TRUSTED[kind]
    path = file(content(), name)
    with pytest.raises(InputError, match=said):
        load_checkpoint(path)
    checkpoint = load_checkpoint(path, trust=True)
    assert checkpoint.module is not None
    assert torch.equal(checkpoint.module(BATCH), NET(BATCH))
    assert set(checkpoint.state_dict) == set(STATE)
    other = network(seed=1)
    restore_model(checkpoint, other)  # it serves as weights of an --arch, too
    assert torch.equal(other(BATCH), NET(BATCH))


@pytest.mark.parametrize("trust", [False, True])
def test_torchscript_is_refused_with_the_way_out_and_the_way_out_works(file, trust):
    path = file(torchscript(), "a.pt")
    with pytest.raises(InputError, match=r"TorchScript archive, .*torch.jit.load\(...\).state_dict\(\).*--arch, or"):
        load_checkpoint(path, trust=trust)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = torch.jit.load(path).state_dict()
    other = network(seed=1)
    restore_model(load_checkpoint(file(saved(dict(state)), "out.pt")), other)
    assert torch.equal(other(BATCH), NET(BATCH))


def test_weights_that_are_read_safely_are_not_unpickled_because_of_trust(file, monkeypatch):
    load, asked = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *args, **kw: asked.append(kw["weights_only"]) or load(*args, **kw))
    load_checkpoint(file(saved(STATE)), trust=True)
    assert asked == [True]


def test_a_truncated_file_with_the_suffix_of_safetensors_is_said_to_be_one(file):
    content = safetensors.torch.save(STATE)
    with pytest.raises(
        InputError, match=r"is truncated or damaged, or no safetensors file \(.*\); copy or write it again"
    ):
        load_checkpoint(file(content[:100], "a.safetensors"))


def test_a_folder_names_the_model_files_in_it(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"is a folder, not a model file; give one of those in it: model\.safetensors"):
        load_checkpoint(tmp_path)


def test_a_module_whose_class_is_gone_says_where_to_run(file, tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = file(saved(__import__("their_models").Net(2, 2)))
    monkeypatch.undo()
    sys.modules.pop("their_models")
    with pytest.raises(
        InputError, match=r"cannot be unpickled \(ModuleNotFoundError.*their_models.*; run where its classes"
    ):
        load_checkpoint(path, trust=True)


# -------------------------------------------------------------------------------------------------------- torch.export
def test_the_layers_of_an_exported_network_are_those_of_the_network(file):
    module, _ = read_model_file(file(exported(), "a.pt2"), trust=True)
    ours, theirs = list_layers(module, BATCH), list_layers(NET, BATCH)
    assert [(layer.name, layer.module_class, layer.feature_shape) for layer in ours if layer.name != "3"] == [
        (layer.name, layer.module_class, layer.feature_shape) for layer in theirs if layer.name != "3"
    ]  # of dropout in eval mode an export keeps nothing that would be called
    with record_layers(module, ours) as one, record_layers(NET, theirs) as other:
        a, b = one(BATCH), other(BATCH)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_export_for_one_batch_size_or_in_training_mode_is_refused(file):
    with pytest.raises(InputError, match=r"exported for batches of 5 alone; export it with .*Dim.AUTO"):
        load_checkpoint(file(exported(dynamic=False), "a.pt2"), trust=True)
    with pytest.raises(
        InputError, match=r"in training mode \(aten.batch_norm.default, aten.dropout.default\); .*eval\(\)"
    ):
        load_checkpoint(file(exported(network().train()), "b.pt2"), trust=True)


def test_a_damaged_export_is_refused(file):
    content = exported()
    with pytest.raises(InputError, match="is truncated"):
        load_checkpoint(file(content[: len(content) // 2], "a.pt2"), trust=True)
    with pytest.raises(InputError, match=r"cannot be read by torch.export .*; export it again"):
        load_checkpoint(file(with_member(content, "models/model.json", b"{}"), "b.pt2"), trust=True)


class Wider(nn.Module):
    """Multiplies by the width of its input, which an export turns into a number of its own for every call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x[:, :2]) * x.shape[1]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Wider()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.block(x[:, :3])


def test_every_pass_begins_with_the_first_call_also_after_one_that_stopped_early(file):
    x = torch.linspace(-1, 1, 20).reshape(5, 4)
    content = exported(Twice(), x, preserve_module_call_signature=("block",))
    module, _ = read_model_file(file(content, "a.pt2"), trust=True)
    first = [layer for layer in list_layers(module, x) if layer.name == "block"]
    with record_layers(module, first) as forward:
        assert torch.equal(forward(x)["block"], forward(x)["block"])


# ------------------------------------------------------------------------------------------------- nothing is executed
TRAPS: dict[str, Callable[[Trap], bytes]] = {
    "a.pt": lambda trap: saved({"state_dict": STATE, "trap": trap}),
    "a.pth": lambda trap: saved({"state_dict": STATE, "trap": trap}, _use_new_zipfile_serialization=False),
    "b.pth": lambda trap: saved({"state_dict": STATE, "trap": trap}, pickle_protocol=4),
    "a.ckpt": lambda trap: saved({**lightning({"lr": 1}), "hyper_parameters": trap}),
    "a.pt2": trapped_export,
    "own.pt": lambda trap: saved({**torch.load(io.BytesIO(checkpoint_bytes(NET)), weights_only=True), "trap": trap}),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_payload_runs_with_trust_and_never_without(file, tmp_path, name):
    path = file(TRAPS[name](Trap(tmp_path / "sprung")), name)
    with pytest.raises(InputError, match="--trust"):
        load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()
    try:
        load_checkpoint(path, trust=True)
    except InputError:
        assert name == "a.pt2"  # in place of a weight, the trap leaves no weight
    assert (tmp_path / "sprung").exists()  # it was a trap


# ------------------------------------------------------------------------------------------------- where, and under which
def test_averaged_weights_are_taken_when_asked_for_and_mentioned_when_not(file):
    average = {name: tensor * 0 if tensor.is_floating_point() else tensor for name, tensor in STATE.items()}
    path = file(saved({"model": STATE, "model_ema": {"n_averaged": torch.tensor(3), **below("module.", average)}}))
    plain, ema = load_checkpoint(path), load_checkpoint(path, ema=True)
    assert (plain.state_key, ema.state_key) == ("model", "model_ema")
    assert plain.notes == ("took the weights under 'model'; there are also those under 'model_ema' (--ema)",)
    assert ema.notes == ("took the prefix 'module.' off all names",)
    assert not ema.state_dict["0.weight"].any()
    assert restore_model(ema, network(seed=1)).complete  # without the counter of the averages
    with pytest.raises(InputError, match=r"no averaged weights under state_dict_ema, .*found model; leave --ema out"):
        load_checkpoint(file(saved({"model": STATE})), ema=True)


def test_a_state_key_names_any_place_in_a_file(file):
    path = file(saved({"state_dict": below("x."), "best": {"net": STATE, "lr": 0.1}, "a.b": STATE}))
    assert list(load_checkpoint(path, state_key="best.net").state_dict) == list(STATE)
    assert load_checkpoint(path, state_key="a.b").state_key == "a.b"
    for key, said in [
        ("worst", r"nothing under the key 'worst'; found state_dict, best, a\.b"),
        ("best.model", r"nothing under the key 'best.model'; found net, lr"),
        ("best", r"no state dict under the key 'best'; found net, lr"),
        ("best.lr", r"no state dict under the key 'best.lr'; found a float"),
    ]:
        with pytest.raises(InputError, match=said):
            load_checkpoint(path, state_key=key)
    with pytest.raises(UsageError, match="--state-key best and --ema both say"):
        load_checkpoint(path, state_key="best", ema=True)


def test_the_only_weights_of_a_file_are_taken_under_any_key_and_two_are_named(file):
    for content, key in [
        ({"epoch": 1, "generator": STATE}, "generator"),
        ({"saved": {"net": {"weights": STATE}}, "optimizer": {"state": {0: STATE}}}, "saved.net.weights"),
    ]:
        checkpoint = load_checkpoint(file(saved(content)))
        assert (checkpoint.state_key, checkpoint.notes) == (key, (f"took the weights under {key!r}, the only ones",))
        assert restore_model(checkpoint, network(seed=1)).complete
    two = file(saved({"epoch": 1, "generator": STATE, "discriminator": STATE}))
    with pytest.raises(InputError, match=r"discriminator; give --state-key generator or discriminator$"):
        load_checkpoint(two)
    assert load_checkpoint(two, state_key="generator").state_key == "generator"


def test_tensors_with_a_few_other_things_beside_them_are_taken_and_these_are_named(file):
    checkpoint = load_checkpoint(file(saved({**STATE, "epoch": 3, "arch": "cnn"})))
    assert checkpoint.notes == ("took the tensors of the file, and left out epoch, arch",)
    assert restore_model(checkpoint, network(seed=1)).complete


def test_a_file_without_weights_is_an_error(file):
    for nothing in ({}, {"state_dict": {}}, {"state_dict": {"lr": 0.1}}, {"w": 1.0}):
        with pytest.raises(InputError, match=r"no state dict, by itself or under state_dict, .*save model.state_dict"):
            load_checkpoint(file(saved(nothing)))
    with pytest.raises(InputError, match="no state dict"):
        load_checkpoint(file(safetensors.torch.save({}), "a.safetensors"))


def test_a_checkpoint_of_manigeo_has_its_weights_under_a_key_too(file):
    content = torch.load(io.BytesIO(checkpoint_bytes(NET, epoch=3)), weights_only=True)
    path = file(saved({**content, "averaged": below("module.")}))
    assert load_checkpoint(path).state_key == "state_dict"
    averaged = load_checkpoint(path, state_key="averaged")
    assert (averaged.state_key, averaged.epoch, list(averaged.state_dict)) == ("averaged", 3, list(STATE))


PARTS = st.lists(st.sampled_from(["module", "_orig_mod", "model", "net", "0", "encoder"]), max_size=4)


@given(parts=PARTS, inner=st.sampled_from(["", "0", "1"]))
def test_any_common_prefix_is_taken_off_and_any_compiled_part_is_found(parts, inner):
    prefix = "".join(f"{part}." for part in parts)
    state = {prefix + name.replace(f"{inner}.", f"{inner}._orig_mod.", 1): tensor for name, tensor in STATE.items()}
    found = find_weights({"state_dict": state})
    fit = fit_state(found.state_dict, NET)
    assert fit.complete
    assert all(torch.equal(fit.state_dict[name], STATE[name]) for name in STATE)
    told = "".join([*found.notes, *fit.notes])
    assert all(part in told for part in parts)


def test_a_prefix_is_removed_only_where_all_names_then_agree_and_the_rest_is_named():
    state = {**below("model."), "criterion.weight": torch.ones(3)}
    fit = fit_state(state, NET)
    assert (fit.prefixes, fit.unexpected, fit.missing, fit.complete) == (("model.",), ("criterion.weight",), (), False)
    checkpoint = dataclasses.replace(load_like(state), path="a.pt")
    other, before = network(seed=1), network(seed=1)
    with pytest.raises(
        InputError, match=r"1 unexpected \(criterion.weight\); all .* is there below 'model.': --no-strict"
    ):
        restore_model(checkpoint, other)
    assert torch.equal(other(BATCH), before(BATCH))
    loose = restore_model(checkpoint, other, strict=False)
    assert loose.notes == ("took the prefix 'model.' off the names", "left out: 1 unexpected (criterion.weight)")
    assert torch.equal(other(BATCH), NET(BATCH))


def load_like(state: dict[str, Tensor]) -> Any:
    from manigeo_extract.files.checkpoints import Checkpoint

    return Checkpoint(state_dict=state, sha256="", path="")


def test_of_two_networks_that_fit_the_one_of_shorter_name_is_taken_the_other_named():
    fit = fit_state({**below("teacher_net.", {name: 0 * t for name, t in STATE.items()}), **below("net.")}, NET)
    assert fit.prefixes == ("net.",)
    assert all(torch.equal(fit.state_dict[name], STATE[name]) for name in STATE)
    assert fit.unexpected == tuple(below("teacher_net."))
    assert fit.copies == ("net.", "teacher_net.")
    assert "the file has other weights of this network below 'teacher_net.' (--state-key)" in fit.notes


def test_without_strictness_what_fits_is_loaded_the_rest_is_named_and_stays():
    state = {name: tensor for name, tensor in STATE.items() if name != "0.bias"}
    state |= {"5.weight": torch.zeros(7, 48), "old.weight": torch.zeros(1)}
    other, untrained = network(seed=1), network(seed=1)
    with pytest.raises(InputError, match=r"1 missing .* is this the architecture it was saved from"):
        restore_model(load_like(state), other)
    fit = restore_model(load_like(state), other, strict=False)
    assert fit.notes == (
        "left out: 1 missing (0.bias); 1 unexpected (old.weight); 1 of another shape (5.weight (7, 48) instead of (4, 48))",
        "2 tensors of the network keep their untrained values",
    )
    now, before = dict(other.state_dict()), dict(untrained.state_dict())
    for name in STATE:
        assert torch.equal(now[name], (before if name in ("0.bias", "5.weight") else STATE)[name])


def test_weights_of_which_nothing_fits_are_refused_however_loosely():
    state = {"a.weight": torch.zeros(1), "a.mask": torch.zeros(2)}
    with pytest.raises(InputError, match=r"does not fit the model: 8 missing \(0.weight, .*2 unexpected"):
        restore_model(load_like({"a.w": torch.zeros(1), "a.mask": torch.zeros(2)}), network(), strict=False)
    with pytest.raises(InputError, match="does not fit the model"):
        restore_model(load_like(state), network(), strict=False)

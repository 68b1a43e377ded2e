"""A checkpoint is whole, plain and safe to read, and says what is wrong with a file that is not."""

import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.files.checkpoints import (
    FORMAT,
    checkpoint_bytes,
    load_checkpoint,
    plain,
    restore_model,
    save_checkpoint,
    state_copy,
    write_whole,
)
from tests.model_files import Trap, saved, torchscript

SETTINGS: dict[str, Any] = {
    "epoch": 3,
    "arch": "mlp",
    "arch_args": {"input_shape": (1, 2, 2), "width": np.int64(4)},
    "data": "npz:images.npz",
    "data_args": {"validation": np.float64(0.1), "place": Path("images.npz")},
    "data_fingerprint": "0a1b",
    "permutation": {"fraction": 0.5, "convention": "permutation", "seed": 0},
    "metrics": {"permuted": {"accuracy": np.float32(0.25), "loss": torch.tensor(1.5)}},
    "seed": 7,
}


def network(width: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def same_state(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------------- own checkpoints
def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    model = network()
    save_checkpoint(tmp_path / "a.pt", model, **SETTINGS)
    found = load_checkpoint(tmp_path / "a.pt")
    assert same_state(found.state_dict, dict(model.state_dict()))
    assert (found.epoch, found.arch, found.data, found.data_fingerprint, found.seed) == (
        3, "mlp", "npz:images.npz", "0a1b", 7,
    )  # fmt: skip
    assert found.arch_args == {"input_shape": [1, 2, 2], "width": 4}
    assert found.data_args == {"validation": 0.1, "place": "images.npz"}
    assert found.permutation == SETTINGS["permutation"]
    assert found.metrics == {"permuted": {"accuracy": 0.25, "loss": 1.5}}


def test_a_checkpoint_is_a_dict_of_tensors_and_plain_values(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", network(), **SETTINGS)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert (content["format"], content["format_version"]) == ("manigeo-checkpoint", 1)
    assert type(content["arch_args"]["width"]) is int
    assert type(content["data_args"]["validation"]) is float
    assert type(content["metrics"]["permuted"]["accuracy"]) is float


def test_a_permutation_may_be_a_dataclass() -> None:
    @dataclass
    class Permutation:
        fraction: float
        seed: np.int64

    content = torch.load(io.BytesIO(checkpoint_bytes(network(), permutation=Permutation(0.5, np.int64(2)))))
    assert content["permutation"] == {"fraction": 0.5, "seed": 2}


def test_a_value_that_is_not_plain_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="cannot store a Linear in a checkpoint; use numbers"):
        plain({"model": nn.Linear(1, 1)})


def test_a_checkpoint_is_identified_by_the_digest_of_its_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", network(), **SETTINGS)
    assert load_checkpoint(tmp_path / "a.pt").sha256 == hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()


def test_a_state_copy_does_not_follow_the_training() -> None:
    model = network()
    copy = state_copy(model)
    before = {name: value.clone() for name, value in copy.items()}
    model(torch.ones(2, 4))  # moves the running statistics
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    assert same_state(copy, before)


def test_a_slice_of_a_large_tensor_is_stored_without_the_rest() -> None:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(torch.zeros(100_000, 4)[:4])
    assert len(checkpoint_bytes(model)) < 20_000


def test_wrappers_are_not_part_of_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", nn.DataParallel(network()))
    assert list(load_checkpoint(tmp_path / "a.pt").state_dict) == list(network().state_dict())


# ------------------------------------------------------------------------------------------------------- whole or absent
KILLED_WRITER = """
    import os, signal, sys
    from manigeo_extract.files import checkpoints

    def killed_half_way(file):
        os.ftruncate(file, 500)
        os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = killed_half_way
    checkpoints.write_whole(sys.argv[1], b"new" * 1000)
"""


def test_a_killed_writer_leaves_the_old_file_or_none(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_whole(path, b"old")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED_WRITER), str(path)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_whole(path, b"newer")  # what the killed one left is no obstacle, and goes away
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert path.read_bytes() == b"newer"


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failed_writer_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def failing(file: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(type(error)):
        write_whole(tmp_path / "a.pt", b"content")
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------- other programs' files
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_foreign_state_dict_loads_and_tells_its_epoch_at_most(tmp_path: Path, key: str | None, prefix: str) -> None:
    state = {prefix + name: value for name, value in network().state_dict().items()}
    torch.save(state if key is None else {"epoch": 9, "acc": 0.5, key: state}, tmp_path / "a.pt")
    found = load_checkpoint(tmp_path / "a.pt")
    assert same_state(found.state_dict, dict(network().state_dict()))
    assert found.epoch == (None if key is None else 9)
    assert (found.arch, found.data, found.permutation, found.metrics) == (None, None, None, {})


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    torch.save({"module.weight": torch.ones(1), "bias": torch.ones(1)}, tmp_path / "a.pt")
    assert list(load_checkpoint(tmp_path / "a.pt").state_dict) == ["module.weight", "bias"]


# -------------------------------------------------------------------------------------------------------- unusable files
def legacy(content: Any) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_flipped_bit(model: nn.Sequential) -> bytes:
    content, weights = bytearray(checkpoint_bytes(model)), model.state_dict()["0.weight"].numpy().tobytes()
    content[content.index(weights) + 1] ^= 1
    return bytes(content)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("notes.txt", "no tensors")
    return buffer.getvalue()


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty; copy or write it again"),
    "truncated": (lambda: half(checkpoint_bytes(network())), "is truncated"),
    "truncated after the header": (lambda: checkpoint_bytes(network())[:20], "is truncated"),
    "truncated, old format": (lambda: half(legacy(network().state_dict())), "is truncated"),
    "flipped bit": (lambda: with_flipped_bit(network()), "is damaged"),
    "text": (lambda: b"hello world\n" * 10, "not a file written by torch.save, safetensors .*; save model.state_dict"),
    "page": (lambda: b"<!DOCTYPE html>", "not a file written by torch.save"),
    "numpy pickle": (lambda: pickle.dumps({"w": np.zeros(3)}), "not a file written by torch.save"),
    "module": (lambda: saved(network()), r"pickled objects \(.*torch.nn.modules.linear.Linear.*save model.state_dict"),
    "module, old format": (lambda: legacy(network()), r"pickled objects \(torch.nn.modules.container.Sequential\)"),
    "other pickle protocol": (
        lambda: saved(network().state_dict(), pickle_protocol=4),
        "cannot be read safely .*--trust",
    ),
    "TorchScript": (torchscript, r"TorchScript archive.*save torch.jit.load\(...\).state_dict\(\) .*--arch"),
    "archive": (archive, "not a file written by torch.save"),
    "safetensors": (lambda: safetensors.torch.save(network().state_dict())[:-1], "is truncated or damaged"),
    "tensor": (lambda: saved(torch.ones(2)), "holds a Tensor, not a state dict"),
    "no tensors": (lambda: saved({"lr": 0.1, "net": {"a": 1}}), "no state dict, .*found lr, net; save"),
    "empty dict": (lambda: saved({}), "no state dict, .*found nothing"),
    "state of a run": (lambda: saved({"format": "manigeo-resume"}), "manigeo-resume file.*checkpoints folder"),
    "other version": (lambda: saved({"format": FORMAT, "format_version": 2}), "format version 2, expected 1"),
    "incomplete": (lambda: saved({"format": FORMAT, "format_version": 1, "epoch": 1}), "incomplete, without arch, "),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_file_is_named_with_what_it_is_and_what_to_do(tmp_path: Path, case: str) -> None:
    content, said = UNUSABLE[case]
    path = tmp_path / "ckpt.pt"
    path.write_bytes(content())
    with pytest.raises(InputError, match=said) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.pt: no such file"):
        load_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(InputError, match="is a folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("write", [saved, legacy, pickle.dumps])
def test_nothing_in_a_file_is_executed(tmp_path: Path, write: Callable[[Any], bytes]) -> None:
    (tmp_path / "ckpt.pt").write_bytes(write({"state_dict": {"w": torch.ones(1)}, "trap": Trap(tmp_path / "sprung")}))
    with pytest.raises(InputError):
        load_checkpoint(tmp_path / "ckpt.pt")
    assert not (tmp_path / "sprung").exists()


# --------------------------------------------------------------------------------------------------------------- restoring
def test_a_restored_model_computes_what_the_saved_one_did(tmp_path: Path) -> None:
    model, x = network(), torch.randn(5, 4)
    model(x)  # moves the running statistics
    save_checkpoint(tmp_path / "a.pt", model)
    restored = network(seed=1)
    assert restore_model(load_checkpoint(tmp_path / "a.pt"), restored).complete
    assert torch.equal(restored.eval()(x), model.eval()(x))


def test_a_wrapped_model_is_restored_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", network())
    wrapped = nn.DataParallel(network(seed=1))
    restore_model(load_checkpoint(tmp_path / "a.pt"), wrapped)
    assert same_state(dict(wrapped.module.state_dict()), dict(network().state_dict()))


def test_another_architecture_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", network(width=4))
    other = network(width=5)
    before = state_copy(other)
    with pytest.raises(
        InputError, match=r"a.pt: does not fit.*of another shape \(0.weight \(4, 4\) instead of \(5, 4\)"
    ):
        restore_model(load_checkpoint(tmp_path / "a.pt"), other)
    assert same_state(state_copy(other), before)


def test_missing_and_unexpected_names_are_listed_up_to_three(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", nn.Linear(1, 1))
    with pytest.raises(
        InputError, match=r"8 missing \(0.weight, 0.bias, 1.weight, ...\); 2 unexpected \(weight, bias\)"
    ):
        restore_model(load_checkpoint(tmp_path / "a.pt"), network())

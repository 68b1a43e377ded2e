"""Fine-tuning: where it starts, what stays of the weights and what is drawn anew."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch

from manigeo.errors import InputError
from manigeo_extract.files.checkpoints import Checkpoint, load_checkpoint
from manigeo_extract.models import build_model
from manigeo_extract.training.finetuning import start_from
from tests.command_line import done, run

MLP = {"input_shape": (1, 8, 8), "depth": 2, "width": 16}
TUNE = ("train", "--data", "digits", "--permute", 0, "--epochs", 2, "--seed", 5)
HEAD = ["logits.weight", "logits.bias"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run on seven of the digits."""
    out = tmp_path_factory.mktemp("trained") / "run"
    small = ("--arch-arg", "depth=2", "--arch-arg", "width=16", "--epochs", 2)
    done("train", "--data", "digits", "--permute", 0, *small, "--holdout-classes", "7,8,9", "--out", out)
    return out / "checkpoints" / "last.pt"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).state_dict


def run_json(out: Path) -> dict[str, object]:
    return json.loads((out / "run.json").read_text())


def test_the_first_checkpoint_is_the_network_that_is_fine_tuned(trained, tmp_path):
    done(*TUNE, "--from-checkpoint", trained, "--holdout-classes", "7,8,9", "--out", tmp_path / "run")
    before, start, end = (
        weights(path)
        for path in (trained, *(tmp_path / "run" / "checkpoints" / f"{name}.pt" for name in ("epoch-0000", "last")))
    )
    assert all(torch.equal(before[name], start[name]) for name in before)
    assert not any(torch.equal(start[name], end[name]) for name in before)
    scores = pd.read_csv(tmp_path / "run" / "metrics.csv").query("epoch == 0").set_index("kind")["accuracy"]
    assert scores["test"] == load_checkpoint(trained).metrics["test"]["accuracy"]


def test_a_classifier_of_other_classes_keeps_its_own_draw_and_is_named(trained, tmp_path):
    code, out, err = run(*TUNE, "--from-checkpoint", trained, "--out", tmp_path / "run")
    assert code == 0, err
    assert "mlp: 1,482 parameters" in out  # 64 x 16 + 16 x 16 + 16 x 10 weights, 16 + 16 + 10 biases: ten outputs
    assert "2 of another shape (logits.weight (7, 16) instead of (10, 16), logits.bias (7,) instead of (10,))" in err
    start, fresh = (
        weights(tmp_path / "run" / "checkpoints" / "epoch-0000.pt"),
        build_model("mlp", MLP | {"n_classes": 10}, seed=5).state_dict(),
    )
    assert [name for name in start if torch.equal(start[name], fresh[name])] == HEAD
    assert [name for name in start if name not in HEAD and not torch.equal(start[name], weights(trained)[name])] == []


def test_a_run_says_what_it_started_from(trained, tmp_path):
    done(*TUNE, "--from-checkpoint", trained, "--out", tmp_path / "run")
    assert run_json(tmp_path / "run")["started_from"] == {
        "path": str(trained),
        "sha256": load_checkpoint(trained).sha256,
        "epoch": 2,
        "state_key": "state_dict",
        "fresh": HEAD,
        "left_out": [],
    }
    assert "started_from" not in run_json(trained.parent.parent)


def test_a_run_is_resumed_from_the_same_weights_alone_wherever_they_lie(trained, tmp_path):
    out = tmp_path / "run"
    done(*TUNE, "--from-checkpoint", trained, "--out", out)
    before = (out / "checkpoints" / "last.pt").read_bytes()
    moved = shutil.copy(trained, tmp_path / "moved.pt")
    done(*TUNE, "--from-checkpoint", moved, "--out", out, "--resume")
    assert (out / "checkpoints" / "last.pt").read_bytes() == before
    for other in (
        ("--from-checkpoint", trained.parent / "epoch-0000.pt"),
        ("--arch-arg", "depth=2", "--arch-arg", "width=16"),
    ):
        code, _, err = run(*TUNE, *other, "--out", out, "--resume")
        assert code == 2
        assert f"a run with other settings: started_from.epoch (was 2, is {0 if len(other) == 2 else None})" in err


def test_weights_of_another_program_are_fine_tuned_with_the_network_that_is_said(trained, tmp_path):
    safetensors.torch.save_file(weights(trained), tmp_path / "plain.safetensors")
    torch.save({"ema": {"weights": {f"module.{n}": t for n, t in weights(trained).items()}}}, tmp_path / "deep.pt")
    small = ("--arch", "mlp", "--arch-arg", "depth=2", "--arch-arg", "width=16", "--epochs", 1)
    for file, options in (("plain.safetensors", ()), ("deep.pt", ("--state-key", "ema.weights"))):
        out = tmp_path / f"run-{file}"
        done(*TUNE, *small, "--from-checkpoint", tmp_path / file, *options, "--out", out)
        start = weights(out / "checkpoints" / "epoch-0000.pt")
        assert all(torch.equal(start[name], t) for name, t in weights(trained).items() if name not in HEAD)


OTHER = [("cnn", {"width": 2}, "6 missing .*4 unexpected"), ("mlp", {"depth": 2, "width": 8}, "5 of another shape")]


@pytest.mark.parametrize(("arch", "args", "said"), OTHER)
def test_a_network_that_shares_a_bias_alone_is_another_one_and_stays_as_it_was(trained, arch, args, said):
    net = build_model(arch, {"input_shape": (1, 8, 8), "n_classes": 7} | args, seed=0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(InputError, match=f"last.pt: does not fit the model: {said}.*saved from[?]$"):
            start_from(load_checkpoint(trained), net, strict=strict)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_what_only_one_side_has_is_refused_or_named():
    smaller, larger = (build_model("mlp", MLP | {"n_classes": 7, "depth": depth}, seed=0) for depth in (1, 2))
    small, large = (
        Checkpoint(net.state_dict(), sha256="", path=path)
        for net, path in ((smaller, "small.pt"), (larger, "large.pt"))
    )
    with pytest.raises(InputError, match=r"small.pt: .*2 missing \(h2.linear.weight.*; --no-strict takes what fits"):
        start_from(small, larger)
    grown = start_from(small, larger, strict=False)
    assert (grown.fresh, grown.left_out) == (("h2.linear.weight", "h2.linear.bias"), ())
    with pytest.raises(InputError, match=r"large.pt: .*2 unexpected \(h2.linear.weight.*; --no-strict takes what fits"):
        start_from(large, smaller)
    shrunk = start_from(large, smaller, strict=False)
    assert (shrunk.fresh, shrunk.left_out) == ((), ("h2.linear.weight", "h2.linear.bias"))


def test_what_is_missing_for_fine_tuning_is_asked_for(trained, tmp_path):
    content = torch.load(trained)
    for name, arch in (("program.pt", "own.py:network"), ("nameless.pt", None)):
        torch.save(content | {"arch": arch}, tmp_path / name)
    out = ("--out", tmp_path / "run")
    wanted = {
        ("--from-checkpoint", trained): (2, "give --data, what "),
        ("--data", "digits", "--trust"): (2, "how --from-checkpoint is read: give that too"),
        ("--data", "digits", "--from-checkpoint", tmp_path / "absent.pt"): (3, "absent.pt: no such file"),
        ("--data", "digits", "--from-checkpoint", tmp_path / "program.pt"): (2, "if you trust it, repeat --arch own.py"),
        ("--data", "digits", "--from-checkpoint", tmp_path / "nameless.pt"): (3, "its architecture: give --arch"),
    }  # fmt: skip
    for options, (code, message) in wanted.items():
        got, _, err = run("train", *options, *out)
        assert (got, message in err, err.count("\n")) == (code, True, 1), err
    assert not (tmp_path / "run").exists()

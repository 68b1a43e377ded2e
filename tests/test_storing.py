"""How ``manigeo extract`` stores, and what ``manigeo info`` says of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from manigeo import open_activations, read_results
from tests.command_line import done, run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("storing") / "run"
    done("train", "--data", "digits", "--arch-arg", "depth=2", "--arch-arg", "width=16", "--epochs", 1, "--out", folder)
    return folder / "checkpoints" / "last.pt"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_plan_shows_what_projection_and_half_precision_leave(checkpoint, here):
    plain = done("extract", "--model", checkpoint, "--per-class", 20, "--dry-run")
    small = done(
        "extract", "--model", checkpoint, "--per-class", 20, "--project", 12, "--dtype", "float16", "--dry-run"
    )
    examples = int(plain.splitlines()[-1].split()[0])
    assert f"64        {4e-6 * 64 * examples:.1f}" in plain
    assert f"12 of 64  {2e-6 * 12 * examples:.1f}" in small
    assert list(here.iterdir()) == []


def test_a_file_of_half_precision_is_analysed_like_another(checkpoint, here):
    """By capacity without removal of centres. Rounding fills directions that a layer leaves empty, here by units that are
    always off: few draws in more of them are other draws, hence standard errors."""
    done("extract", "--model", checkpoint, "--dtype", "float16", "--out", "half.h5")
    done("extract", "--model", checkpoint, "--out", "acts.h5")
    found = []
    for name in ("half", "acts"):
        done("capacity", f"{name}.h5", "--draws", 100, "--centers", "keep")
        table = read_results(f"{name}.capacity.csv")
        found.append(table[(table["metric"] == "capacity") & (table["manifold"] == "")][["value", "stderr"]].to_numpy())
    assert (np.abs(found[0][:, 0] - found[1][:, 0]) < 4 * np.hypot(found[0][:, 1], found[1][:, 1])).all()


def test_info_says_how_a_file_is_stored_and_that_it_is_complete(checkpoint, here):
    done("extract", "--model", checkpoint, "--project", 12, "--dtype", "float16")
    said = done("info", "acts.h5")
    assert "state    complete" in said
    assert "input (12, projected from 1x8x8, float16)" in said
    assert "logits (10, float16)" in said
    content = json.loads(done("info", "acts.h5", "--json"))
    assert content["complete"] is True
    assert content["examples_done"] == content["examples_total"] > 0
    assert content["projections"]["input"]["n_sums"] == 12
    assert content["dtypes"]["logits"] == "float16"
    assert content["shard"] is None
    with open_activations("acts.h5") as acts:
        assert content["fingerprint"] == acts.fingerprint


def test_info_of_nothing_is_an_error(here):
    code, _, err = run("info", "acts.h5")
    assert code == 3
    assert "acts.h5 does not exist; write it with manigeo extract" in err


def test_what_does_not_fit_the_memory_is_said_once_on_stderr(checkpoint, here, monkeypatch):
    import torch

    linear = torch.nn.functional.linear

    def hungry(x, *parameters):
        if len(x) > 100:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return linear(x, *parameters)

    monkeypatch.setattr(torch.nn.functional, "linear", hungry)
    code, out, err = run("extract", "--model", checkpoint)
    assert code == 0, err
    assert err.count("note: memory is short: batches go through the network 64 examples at a time") == 1
    assert "memory is short" not in out
    assert json.loads(done("info", "acts.h5", "--json"))["smallest_batch"] == 64


@pytest.mark.parametrize("option", [("--dtype", "int8"), ("--project", "0"), ("--shard", "0/2")])
def test_settings_that_make_no_sense_are_refused(checkpoint, here, option):
    code, _, err = run("extract", "--model", checkpoint, *option)
    assert code == 2
    assert option[0].removeprefix("--") in err
    assert list(here.iterdir()) == []

"""Accuracy and loss that every extraction stores, and what is said where they are not those of training."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from manigeo import open_activations
from manigeo.activations import Scoring, inspect_activations
from manigeo.activations.merging import merge_activations
from manigeo.kinds import KINDS
from manigeo.text.scores import doubts
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.files.checkpoints import load_checkpoint, save_checkpoint
from manigeo_extract.models import build_model
from manigeo_extract.recording.extraction import extract_activations, plan_extraction
from manigeo_extract.training.evaluation import evaluate
from tests.command_line import done, run
from tests.killing import content


@pytest.fixture(scope="module")
def data():
    return load_data("digits", {"per_class": 30, "validation": 0})


@pytest.fixture(scope="module")
def examples(data):
    return permute_labels(data, Permutation(0.5))


def linear(n_outputs: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, n_outputs))


class Returns(nn.Module):
    """A network with any function of its features as its output."""

    def __init__(self, output):
        super().__init__()
        self.body, self.output = nn.Linear(64, 10), output

    def forward(self, x):
        return self.output(self.body(x.flatten(1)))


# ------------------------------------------------------------------------------------------------------- the numbers
@pytest.mark.parametrize("layers", [(), ("1",)])
@pytest.mark.parametrize("project", [None, 4])
def test_scores_are_those_of_an_evaluation_whatever_is_stored(data, examples, tmp_path, layers, project):
    model = linear()
    plan = plan_extraction(model, data, examples, layers=layers, project=project, per_class=1000)
    extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=37)
    expected = evaluate(model, data, examples)
    with open_activations(tmp_path / "a.h5") as acts:
        found = acts.scores
    assert set(found) == set(KINDS)
    for kind, of in found.items():
        assert of["accuracy"] == expected[kind]["accuracy"]
        assert of["n"] == expected[kind]["n"]
        assert of["loss"] == pytest.approx(expected[kind]["loss"], abs=1e-5)  # float32 in batches of another size


def test_there_is_no_second_forward_pass(data, examples, tmp_path):
    model, calls = linear(), []
    plan = plan_extraction(model, data, examples)
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=50)
    assert sum(calls) == len(plan.rows)


def test_shards_merged_have_the_scores_of_the_whole_to_the_last_bit(data, examples, tmp_path):
    model = linear()
    plan = plan_extraction(model, data, examples)
    extract_activations(model, data, plan, tmp_path / "whole.h5", {}, batch_size=37)
    parts = [tmp_path / f"{number}.h5" for number in (1, 2, 3)]
    for number, path in enumerate(parts, 1):
        extract_activations(model, data, plan, path, {}, batch_size=37, shard=(number, 3))
    merge_activations(parts, tmp_path / "merged.h5")
    with open_activations(tmp_path / "whole.h5") as whole, open_activations(tmp_path / "merged.h5") as merged:
        assert whole.scores == merged.scores
        with inspect_activations(parts[0]) as part:
            assert sum(of["n"] for of in part.scores.values()) < sum(of["n"] for of in whole.scores.values())


class Stops(nn.Module):
    def __init__(self, at: int):
        super().__init__()
        self.net, self.left = linear(), at

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.net(x)


def test_a_resumed_extraction_has_the_scores_and_the_bytes_of_a_quiet_one(data, examples, tmp_path):
    plan = plan_extraction(Stops(-1), data, examples)
    extract_activations(Stops(-1), data, plan, tmp_path / "quiet.h5", {}, batch_size=37)
    with pytest.raises(KeyboardInterrupt):
        extract_activations(Stops(4), data, plan, tmp_path / "a.h5", {}, batch_size=37)
    with inspect_activations(tmp_path / "a.h5") as begun:
        assert begun.scores
        assert sum(begun.scores[kind]["n"] for kind in ("unpermuted", "permuted", "test")) == begun.n_done
    extract_activations(Stops(-1), data, plan, tmp_path / "a.h5", {}, batch_size=37, resume=True)
    assert content(tmp_path / "a.h5") == content(tmp_path / "quiet.h5")


def test_classes_that_were_held_out_are_not_scored(tmp_path):
    data = load_data("digits", {"holdout_classes": "3,7", "validation": 0})
    model = linear(8)
    plan = plan_extraction(model, data, permute_labels(data, Permutation()))
    extract_activations(model, data, plan, tmp_path / "a.h5", {})
    with open_activations(tmp_path / "a.h5") as acts:
        assert set(acts.scores) == {"unpermuted", "test"}
        assert acts.n_seen_classes == 8
        assert "unseen" in acts.kinds


# --------------------------------------------------------------------------------------------- where there is no score
@pytest.mark.parametrize(
    ("output", "why"),
    [
        (lambda z: z.reshape(-1, 2, 5), "returns 2 x 5 per example, not one score per class"),
        (lambda z: z[:, :1], r"fewer outputs \(1\) than there are classes \(10\)"),
        (lambda z: z.argmax(1), "returns no floating point numbers"),
        (lambda z: z[:, 0], "not one score per class"),
        (lambda z: z.mean(0, keepdim=True), "not one score per class"),
        (lambda z: torch.cat([z - 99, z, z], 1), "30 outputs for 10 classes, and for 100% of the examples"),
    ],
)
def test_an_output_that_is_no_score_per_class_is_not_scored_and_why_is_said(data, examples, tmp_path, output, why):
    model = Returns(output)
    plan = plan_extraction(model, data, examples, layers=["body"])
    extract_activations(model, data, plan, tmp_path / "a.h5", {})
    with open_activations(tmp_path / "a.h5") as acts:
        assert acts.scores == {}
        assert re.search(why, acts.unscored)


def test_more_outputs_than_classes_are_scores_where_they_name_classes(data, examples, tmp_path):
    model = Returns(lambda z: torch.cat([z, z[:, :1] - 99], 1))
    plan = plan_extraction(model, data, examples)
    extract_activations(model, data, plan, tmp_path / "a.h5", {})
    with open_activations(tmp_path / "a.h5") as acts:
        assert set(acts.scores) == set(KINDS)


def test_outputs_may_be_infinite_where_they_are_not_stored(data, examples, tmp_path):
    model = Returns(lambda z: torch.where(z > 0.5, z, -torch.inf))
    plan = plan_extraction(model, data, examples, layers=["body"])
    extract_activations(model, data, plan, tmp_path / "a.h5", {})
    with open_activations(tmp_path / "a.h5") as acts:
        assert set(acts.scores) == set(KINDS)


# ------------------------------------------------------------------------------------------------------ what is said
def scores(**accuracies: float) -> dict[str, dict[str, float]]:
    return {kind: {"accuracy": value, "loss": 1.0, "n": 500} for kind, value in accuracies.items()}


RECORDED = {
    "checkpoint": "last",
    "epoch": 9,
    "metrics": {"unpermuted": {"accuracy": 1.0}, "permuted": {"accuracy": 0.98}},
}


@pytest.mark.parametrize(
    ("found", "provenance", "said"),
    [
        (scores(unpermuted=0.1), {}, ["near chance on unpermuted training examples"]),
        (scores(unpermuted=0.55), {}, ["often wrong on unpermuted training examples"]),
        (scores(unpermuted=1.0, test=0.3), {}, []),
        (scores(unpermuted=0.1), {"checkpoint": "init"}, []),
        (scores(unpermuted=0.1), {"epoch": 0}, []),
        (scores(unpermuted=1.0, permuted=0.1, restored=0.95), {}, ["answers permuted examples by their true labels"]),
        (scores(unpermuted=1.0, permuted=0.99, restored=0.1), {}, []),
        (scores(unpermuted=1.0, permuted=0.98), RECORDED, []),
        (scores(unpermuted=0.985, permuted=0.97), RECORDED, []),  # of other examples of the same kinds
        (
            scores(unpermuted=0.5, permuted=0.98),
            RECORDED,
            ["on unpermuted examples is 0.500, and the checkpoint recorded"],
        ),
        (
            scores(unpermuted=1.0, permuted=0.1),
            RECORDED,
            ["on permuted examples is 0.100, and the checkpoint recorded"],
        ),
        (scores(unpermuted=0.4), {"metrics": {"unpermuted": {"accuracy": 0.4}}}, []),  # early in training
        (scores(unpermuted=0.4), {**RECORDED, "trained_on": "a", "data_fingerprint": "b"}, ["often wrong"]),
        (scores(unpermuted=1.0), {"metrics": {"loss": 0.3, "unpermuted": {"accuracy": "high"}}}, []),
    ],
)
def test_accuracies_that_are_not_those_of_training_are_doubted(found, provenance, said):
    given = doubts(found, {"checkpoint": "w", **provenance}, 10)
    assert len(given) == len(said)
    assert all(words in text for words, text in zip(said, given, strict=True))


def test_few_examples_raise_no_doubt():
    assert doubts({"unpermuted": {"accuracy": 0.0, "loss": 1.0, "n": 4}}, {"checkpoint": "w"}, 10) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored") / "run"
    words = ["--data", "digits", "--arch-arg", "depth=1", "--arch-arg", "width=64", "--epochs", 8, "--permute", 0]
    done("train", *words, "--out", folder)
    return folder / "checkpoints" / "last.pt"


def test_extract_prints_and_info_repeats_the_scores(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("extract", "--model", trained)
    assert code == 0
    assert "accuracy unpermuted 0.9" in out
    assert "warning" not in err
    content = json.loads(done("info", "acts.h5", "--json"))
    with open_activations("acts.h5") as acts:
        assert content["scores"] == acts.scores
    assert next(line for line in out.splitlines() if line.startswith("accuracy")) in done("info", "acts.h5")


def test_wrong_inputs_are_said_in_the_first_run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load_checkpoint(trained)
    images = load_data("digits").inputs(slice(None)).numpy() * -1.0
    labels = load_data("digits").labels
    np.savez("inverted.npz", x_train=images, y_train=labels, x_test=images[:100], y_test=labels[:100])
    torch.save(found.state_dict, "w.pt")
    args = [word for k, v in found.arch_args.items() for word in ("--arch-arg", f"{k}={json.dumps(v)}")]
    code, _, err = run("extract", "--model", "w.pt", "--arch", "mlp", *args, "--data", "npz:inverted.npz")
    assert code == 0, err
    assert "warning: the network is" in err
    assert "on unpermuted training examples" in err
    assert "mean=" in err
    assert "warning  the network is" in done("info", "acts.h5")


def test_accuracies_other_than_the_recorded_ones_are_said(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load_checkpoint(trained)
    model = build_model(found.arch, found.arch_args, seed=5)  # its weights are others than those that were scored
    kept = {"arch": found.arch, "arch_args": found.arch_args, "data": found.data, "data_args": found.data_args}
    save_checkpoint("other.pt", model, metrics=found.metrics, epoch=8, permutation=found.permutation, **kept)
    _, _, err = run("extract", "--model", "other.pt")
    assert "on unpermuted examples is 0." in err
    assert "and the checkpoint recorded 0.9" in err


def test_a_network_without_scores_says_so_on_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    )
    out = done("extract", "--weights", "init", "--arch", "net.py:make", "--data", "digits")
    assert "accuracy not known: the network has fewer outputs (3) than there are classes (10)" in out


def test_how_a_file_is_scored_is_part_of_no_identity(data, examples, tmp_path):
    model = linear()
    plan = plan_extraction(model, data, examples)
    for name, scoring in (("scored", plan.scoring), ("not", Scoring(why_not="old"))):
        extract_activations(model, data, replace(plan, scoring=scoring), tmp_path / f"{name}.h5", {})
    with open_activations(tmp_path / "scored.h5") as scored, open_activations(tmp_path / "not.h5") as old:
        assert scored.fingerprint == old.fingerprint
        assert old.unscored == "old"

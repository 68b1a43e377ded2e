"""Scores of the four kinds: by the labels each is scored by, without touching the network."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from manigeo.errors import UsageError
from manigeo.kinds import KINDS
from manigeo.manifolds import kind_examples
from manigeo_extract.training.evaluation import evaluate, memorized

N, CLASSES = 60, 3


class Inputs:
    """Random inputs, and a count of how many were asked for."""

    def __init__(self) -> None:
        self.X = torch.randn(N, 2, 3, generator=torch.Generator().manual_seed(0))
        self.asked = 0

    def inputs(self, rows: Any) -> torch.Tensor:
        self.asked += len(rows)
        return self.X[torch.as_tensor(rows)]


def table(permuted: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    true, train = rng.integers(CLASSES, size=(2, N))
    member = np.arange(N) < permuted
    split = np.repeat(["train", "validation", "test"], [30, 13, 17])
    return pd.DataFrame(
        {
            "index": np.arange(N),
            "split": split,
            "true_label": true,
            "train_label": np.where(member, train, true),
            "permuted": member,
        }
    )


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, CLASSES), nn.Dropout(0.5))


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_scores_are_the_mean_over_examples_one_by_one(batch_size: int) -> None:
    data, examples, model = Inputs(), table(), network()
    scores = evaluate(model, data, examples, batch_size=batch_size)
    model.eval().requires_grad_(False)
    for kind in KINDS:
        losses, hits = [], []
        for row, label in zip(*kind_examples(examples, kind), strict=True):
            p = torch.softmax(model(data.X[row : row + 1])[0].double(), dim=0)
            losses.append(-math.log(p[label]))
            hits.append(int(p.argmax()) == label)
        assert scores[kind]["accuracy"] == np.mean(hits)
        assert scores[kind]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)  # float32 logits
        assert scores[kind]["n"] == len(hits)


def test_validation_is_scored_by_its_labels() -> None:
    data, examples, model = Inputs(), table(), network()
    chosen = examples[examples["split"] == "validation"]
    guesses = model.eval()(data.X).argmax(dim=1).numpy()[chosen.index]
    assert evaluate(model, data, examples)["validation"]["accuracy"] == (guesses == chosen["true_label"]).mean()


def test_permuted_and_restored_share_one_forward_pass() -> None:
    data = Inputs()
    scores = evaluate(network(), data, table(permuted=10))
    assert scores["permuted"]["n"] == scores["restored"]["n"] == 10
    assert data.asked == N


def test_kinds_without_examples_are_left_out() -> None:
    examples = table(permuted=0)
    assert list(evaluate(network(), Inputs(), examples)) == ["unpermuted", "test", "validation"]
    train_only = examples[examples["split"] == "train"]
    assert list(evaluate(network(), Inputs(), train_only)) == ["unpermuted"]


def test_the_network_is_left_as_it_was_found() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, CLASSES), nn.Dropout(0.5))
    model[1].eval()  # a user's frozen batch norm
    flags = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, Inputs(), table())
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fewer_outputs_than_classes_are_named_and_flags_restored() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).train()
    with pytest.raises(UsageError, match="the model has 2 outputs, the labels go up to 2"):
        evaluate(model, Inputs(), table())
    assert model.training


def test_no_gradients_are_kept_while_scoring() -> None:
    model = network()
    modes = []
    model.register_forward_hook(lambda m, x, out: modes.append((m.training, torch.is_inference_mode_enabled())))
    evaluate(model, Inputs(), table())
    assert set(modes) == {(False, True)}


@pytest.mark.parametrize(("accuracy", "expected"), [(0.94, False), (0.95, True), (1.0, True), (math.nan, False)])
def test_the_gate_is_the_accuracy_on_permuted_labels(accuracy: float, expected: bool) -> None:
    assert memorized({"permuted": {"accuracy": accuracy}, "test": {"accuracy": 1 - accuracy}}) is expected


def test_nothing_is_memorized_without_permuted_labels() -> None:
    assert not memorized({"unpermuted": {"accuracy": 1.0}})

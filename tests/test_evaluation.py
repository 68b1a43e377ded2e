"""Scores of the four kinds: by the labels each is scored by, without touching the network."""

import dataclasses
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
from manigeo_extract.batches import NamedTensors
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import list_layers
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
    model.register_forward_hook(lambda m, x, out: modes.append((m.training, torch.is_grad_enabled())))
    evaluate(model, Inputs(), table())
    assert set(modes) == {(False, False)}


@pytest.mark.parametrize(("accuracy", "expected"), [(0.94, False), (0.95, True), (1.0, True), (math.nan, False)])
def test_the_gate_is_the_accuracy_on_permuted_labels(accuracy: float, expected: bool) -> None:
    assert memorized({"permuted": {"accuracy": accuracy}, "test": {"accuracy": 1 - accuracy}}) is expected


def test_nothing_is_memorized_without_permuted_labels() -> None:
    assert not memorized({"unpermuted": {"accuracy": 1.0}})


class Cached(nn.Module):
    """Makes a table at its first use, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc, self.table = nn.Linear(3, 8), nn.Linear(8, CLASSES), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.ones(8) * x.shape[1]
        return self.fc((self.first(x) * self.table).mean(1))


class Force(nn.Module):
    """Differentiates in its forward pass, as force fields and score functions do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.fc(x).tanh().sum(), x, create_graph=True)[0].sum(1)


@pytest.mark.parametrize("inside", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_network_that_caches_at_first_use_can_be_trained_on_after_scoring(inside: Any) -> None:
    model = Cached()
    with inside():
        evaluate(model, Inputs(), table())
    assert model.table is not None
    nn.functional.cross_entropy(model(Inputs().X), torch.zeros(N, dtype=torch.int64)).backward()
    assert model.first.weight.grad is not None


def test_a_network_that_differentiates_in_its_forward_pass_is_scored_and_recorded() -> None:
    model, x = Force(), Inputs().X
    assert evaluate(model, Inputs(), table())["test"]["n"] == 17
    with record_layers(model, list_layers(model, x)) as forward:
        assert torch.allclose(forward(x)["output"], model(x).detach())


@dataclasses.dataclass
class Output:
    """As transformers return: what was not asked for is None."""

    loss: torch.Tensor | None
    hidden: torch.Tensor
    logits: torch.Tensor


class Named(nn.Module):
    """Takes inputs by name and returns several things."""

    def __init__(self, returned: Any) -> None:
        super().__init__()
        self.net, self.returned = network(), returned

    def forward(self, pixels: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return self.returned(pixels.flatten(1), self.net(pixels if mask is None else pixels * mask[:, :, None]))


class NamedInputs(Inputs):
    def inputs(self, rows: Any) -> Any:
        X = super().inputs(rows)
        return NamedTensors(pixels=X, mask=torch.ones(X.shape[:2]))


@pytest.mark.parametrize(
    "returned",
    [
        lambda h, y: y,
        lambda h, y: (y, h),
        lambda h, y: {"hidden": h, "logits": y},
        lambda h, y: Output(None, h, y),
        lambda h, y: {"loss": y.sum(), "logits": y, "hidden": h},
    ],
)
def test_inputs_go_in_by_name_and_of_several_outputs_the_logits_are_scored(returned: Any) -> None:
    plain = evaluate(network(), Inputs(), table())
    assert evaluate(Named(returned), NamedInputs(), table()) == plain


def test_an_output_without_scores_of_classes_is_named() -> None:
    with pytest.raises(UsageError, match=r"must return a tensor \(examples, outputs\), got a str for 20 examples"):
        evaluate(Named(lambda h, y: "no tensor"), Inputs(), table())
    with pytest.raises(UsageError, match=r"got a tensor of shape \(20, 3, 1\) for 20 examples"):
        evaluate(Named(lambda h, y: y[:, :, None]), Inputs(), table())

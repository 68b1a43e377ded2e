import os

import numpy as np
import pytest
import torch
from torch import nn

from manigeo import open_activations
from manigeo.errors import InputError, UsageError
from manigeo.manifolds import KINDS, kind_examples
from manigeo_extract.data import DataSet, Permutation, load_data, permute_labels
from manigeo_extract.extraction import extract_activations, plan_extraction, read_labels
from manigeo_extract.models import build_model


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load_data("digits", {"per_class": 30})


@pytest.fixture(scope="module")
def examples(data):
    return permute_labels(data, Permutation(0.5))


@pytest.fixture
def model(data) -> nn.Module:
    torch.manual_seed(0)
    return build_model("mlp", {"input_shape": data.input_shape, "n_classes": 10, "depth": 2, "width": 16})


def test_the_file_holds_what_the_network_computes_for_each_example(model, data, examples, tmp_path):
    plan = plan_extraction(model, data, examples)
    extract_activations(model, data, plan, tmp_path / "a.h5", {"epoch": 1}, batch_size=37)
    X = data.inputs(plan.rows)
    hidden = model.h1.linear(X.flatten(1))
    with open_activations(tmp_path / "a.h5") as acts, torch.no_grad():
        assert acts.layers == ("input", "h1.linear", "h2.linear", "logits")
        everything = np.arange(len(plan.rows))
        np.testing.assert_array_equal(acts.rows("input", everything), X.flatten(1).numpy())
        # another batch size adds up in another order: float32 rounding of sums of 64 terms
        np.testing.assert_allclose(acts.rows("h1.linear", everything), hidden.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(acts.rows("logits", everything), model(X).detach().numpy(), atol=1e-5)
        assert acts.layer("logits").aliases == ("output",)
        assert acts.layer("input").feature_shape == (1, 8, 8)
        assert acts.provenance["batch_size"] == 37


def test_rows_are_grouped_by_true_class_and_labels_follow_their_images(model, data, examples, tmp_path):
    plan = plan_extraction(model, data, examples)
    assert (np.diff(plan.examples["true_label"]) >= 0).all()
    expected = examples.iloc[plan.rows].reset_index(drop=True)
    extract_activations(model, data, plan, tmp_path / "a.h5", {})
    with open_activations(tmp_path / "a.h5") as acts:
        assert acts.examples.equals(expected)


def test_every_kind_gets_its_examples_of_every_class(model, data, examples):
    plan = plan_extraction(model, data, examples, per_class=8)
    for kind in KINDS:
        available = np.bincount(kind_examples(examples, kind)[1], minlength=10)
        planned = np.bincount(kind_examples(plan.examples, kind)[1], minlength=10)
        assert (planned >= np.minimum(available, 8)).all()
    test = kind_examples(plan.examples, "test")[1]
    assert np.bincount(test).tolist() == [8] * 10  # no kind shares its test images
    assert set(plan.examples["split"]) == {"train", "test"}


def test_the_choice_of_examples_depends_on_its_seed(model, data, examples):
    rows = [plan_extraction(model, data, examples, per_class=5, seed=seed).rows.tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_labels_of_a_users_own_loop_take_the_place_of_permuted_ones(data, examples, tmp_path):
    examples.to_csv(tmp_path / "all.csv", index=False)  # the labels.csv of a run
    assert read_labels(tmp_path / "all.csv", data).equals(examples)
    members = examples[examples["permuted"] & (examples["true_label"] != examples["train_label"])]
    members[["index", "train_label"]].to_csv(tmp_path / "few.csv", index=False)
    few = read_labels(tmp_path / "few.csv", data)
    assert few["train_label"].equals(examples["train_label"])
    assert few.index[few["permuted"]].tolist() == members.index.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,label\n0,1\n", "not a table with the columns index and train_label"),
        ("index,train_label\n0,one\n", "not a table with the columns"),
        ("index,train_label\n99999,1\n", "example 99999 is not among the 300 training examples"),
        ("index,train_label\nFIRST,10\n", "label 10 is not among the 300 training examples and 10 classes of digits"),
        ("index,train_label\nFIRST,1\nFIRST,2\n", "every index stands once"),
    ],
)
def test_labels_that_are_not_of_the_data_are_refused(data, tmp_path, content, message):
    (tmp_path / "labels.csv").write_text(content.replace("FIRST", str(data.index[0])))
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.csv", data)


class Poisoned(nn.Module):
    def __init__(self, n_fine: int):
        super().__init__()
        self.fine = nn.Linear(64, 4)
        self.bad = nn.Linear(4, 3)
        self.n_fine = n_fine
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        h = self.fine(x.flatten(1))
        return self.bad(h if self.calls <= self.n_fine else h * torch.nan)


def test_nan_activations_are_refused_by_layer_name_and_leave_no_file(data, examples, tmp_path):
    model = Poisoned(n_fine=2)  # the probe and the first batch are well
    plan = plan_extraction(model, data, examples)
    with pytest.raises(InputError, match="layer 'bad' has NaN or infinite activations"):
        extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=50)
    assert os.listdir(tmp_path) == []
    assert not model.bad._forward_hooks


def test_the_model_comes_back_in_the_mode_it_was_in(model, data, examples, tmp_path):
    model.train()
    extract_activations(model, data, plan_extraction(model, data, examples), tmp_path / "a.h5", {})
    assert all(module.training for module in model.modules())


def test_a_network_that_does_not_take_the_inputs_is_said_to_be_so(data, examples):
    with pytest.raises(InputError, match="does not take inputs of shape 1 x 8 x 8 from digits"):
        plan_extraction(nn.Linear(3, 2), data, examples)


def test_an_unknown_layer_names_near_ones(model, data, examples):
    with pytest.raises(UsageError, match=r"no layer matches 'h1\.lin'.*h1\.linear"):
        plan_extraction(model, data, examples, layers=["h1.lin"])


def test_fewer_than_two_examples_a_class_are_no_manifold(model, data, examples):
    with pytest.raises(UsageError, match="2 examples per class or more, got --per-class 1"):
        plan_extraction(model, data, examples, per_class=1)


def test_what_does_not_fit_on_the_disk_is_refused_before_writing(model, data, examples, tmp_path, monkeypatch):
    plan = plan_extraction(model, data, examples)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": plan.n_bytes - 1}))
    with pytest.raises(UsageError, match="take fewer layers"):
        extract_activations(model, data, plan, tmp_path / "a.h5", {})
    assert os.listdir(tmp_path) == []

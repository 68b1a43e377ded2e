"""The prefix curve: a probe knows separable features, follows planted memorization over the layers, and says what lacks."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from manigeo.errors import UsageError
from manigeo.kinds import KINDS
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.interventions.utilisation import ProbePlan, features, fit_probe, prefix_curve
from manigeo_extract.recording.layers import list_layers
from manigeo_extract.training.runs import Run
from tests.networks import Calls, n_hooks
from tests.test_resetting import assert_beyond, fingerprint, planted

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted(tmp_path_factory.mktemp("planted"))


def table(run: Run, plan: ProbePlan | None = None, by: str = "module") -> pd.DataFrame:
    groups = group_layers(run.model, run.data.inputs([0, 1]), by)
    return pd.DataFrame(list(prefix_curve(run, Examiner(run.data, run.examples), groups, plan or ProbePlan())))


def with_network(run: Run, model: nn.Module) -> Run:
    return replace(run, model=model.eval())


@pytest.fixture(scope="module")
def curve(run: Run) -> pd.DataFrame:
    return table(run)


# -------------------------------------------------------------------------------------------------------------- the probe
def test_separated_classes_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 5
    X = 10 * np.eye(5)[y] @ rng.normal(size=(5, 30)) + rng.normal(size=(200, 30))
    probe, ended = fit_probe(X[:100], y[:100], C=1.0)
    assert ended
    assert (probe.predict(X[100:]) == y[100:]).all()


def test_the_probe_is_at_the_minimum_of_its_objective() -> None:
    """The gradient of a convex function is zero at its minimum; and another solver ends there too."""
    rng = np.random.default_rng(1)
    n, d, classes, C = 60, 4, 3, 2.0
    y = rng.integers(classes, size=n)
    X = rng.normal(size=(n, d)) * [1, 10, 0.1, 3] + 5
    Z = (X - X.mean(axis=0)) / X.std(axis=0)

    def objective(parameters: np.ndarray) -> float:
        W, b = parameters[: d * classes].reshape(d, classes), parameters[d * classes :]
        f = Z @ W + b
        losses = np.log(np.exp(f).sum(axis=1)) - f[np.arange(n), y]
        return float(d / 2 * np.square(W).sum() + C * losses.sum())

    probe, _ = fit_probe(X, y, C=C)
    classifier = probe[-1]
    found = objective(np.concatenate([classifier.coef_.T.ravel(), classifier.intercept_]))
    lowest = minimize(objective, np.zeros((d + 1) * classes), method="BFGS").fun
    assert found == pytest.approx(lowest, rel=1e-6)  # quadratic in gradients of 1e-4


def test_features_of_other_units_give_the_same_probe() -> None:
    rng = np.random.default_rng(2)
    y = np.arange(90) % 3
    X = np.eye(3)[y] + rng.normal(size=(90, 3))
    other = X * [1e-3, 1.0, 1e4] + [5, -100, 3]
    one, another = (fit_probe(features_, y, C=1.0)[0].predict_proba(features_) for features_ in (X, other))
    assert one == pytest.approx(another, abs=1e-6)  # rounding of X + 100 and of its mean


def test_a_probe_that_does_not_end_says_so_and_warns_nobody(run: Run) -> None:
    rows = table(run, ProbePlan(max_iter=1))
    probed = rows[rows["metric"] == "prefix_accuracy"]
    assert set(probed["flag"]) == {"not_converged"}
    assert probed["value"].notna().all()


# ----------------------------------------------------------------------------------------------------- planted memorization
def test_the_curve_follows_where_memorization_was_planted(curve: pd.DataFrame) -> None:
    """Layers up to h3 were trained on true labels; h4 and logits on labels half of which are permuted."""
    rows = curve[curve["metric"] == "prefix_accuracy"].set_index(["layer", "kind"])
    at, n = rows["value"], rows["n"]["logits"].astype(int)
    for layer in ("h1.linear", "h2.linear", "h3.linear"):
        permuted = at[layer, "permuted"]
        assert_beyond(f"true labels read at {layer}, and permuted", at[layer, "restored"], permuted, n["permuted"])
        assert_beyond(
            f"permuted labels read at logits, and at {layer}", at["logits", "permuted"], permuted, n["permuted"]
        )
    assert_beyond("test accuracy at h3, and at logits", at["h3.linear", "test"], at["logits", "test"], n["test"])


def test_the_input_comes_first_and_the_network_last(curve: pd.DataFrame) -> None:
    assert curve.drop_duplicates("layer")["layer"].tolist() == [
        "input", "h1.linear", "h2.linear", "h3.linear", "h4.linear", "logits", "(none)",
    ]  # fmt: skip
    assert curve.drop_duplicates("layer")["depth"].tolist() == list(range(7))
    assert set(curve[curve["layer"] == "h2.linear"]["kind"]) == {*KINDS, "validation"}


def test_the_network_itself_is_the_examiners(run: Run, curve: pd.DataFrame) -> None:
    examiner = Examiner(run.data, run.examples)
    answers = examiner.answers(run.model)
    network = curve[curve["layer"] == "(none)"].set_index("kind")["value"]
    assert network.to_dict() == {kind: examiner.accuracy(answers, kind) for kind in examiner.kinds}


def test_accuracies_are_those_of_the_probe_example_by_example(run: Run, curve: pd.DataFrame) -> None:
    layer = next(layer for layer in list_layers(run.model, run.data.inputs([0, 1])) if layer.name == "h4.linear")
    examiner = Examiner(run.data, run.examples)
    X, _ = features(run.model, examiner, layer, 4096)
    examples = run.examples.iloc[examiner.rows]
    train = (examples["split"] == "train").to_numpy()
    rows = curve[curve["layer"] == "h4.linear"].set_index("kind")
    probe, _ = fit_probe(X[train], examples["train_label"].to_numpy()[train], rows["settings"].iloc[0]["C"], 500)
    right = probe.predict(X) == examples["true_label"].to_numpy()
    permuted = examples["permuted"].to_numpy() & train
    assert rows["value"]["restored"] == right[permuted].mean()
    assert rows["value"]["unpermuted"] == right[train & ~permuted].mean()
    assert rows["value"]["test"] == right[(examples["split"] == "test").to_numpy()].mean()
    n = int(rows["n"]["test"])
    p = rows["value"]["test"]
    assert rows["stderr"]["test"] == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)))


def test_regularization_is_the_best_on_validation_data(run: Run, curve: pd.DataFrame) -> None:
    rows = curve[(curve["layer"] == "h4.linear") & (curve["kind"] == "validation")].iloc[0]
    each = [table(run, ProbePlan(Cs=(C,))) for C in ProbePlan().Cs]
    tried = [one[(one["layer"] == "h4.linear") & (one["kind"] == "validation")].iloc[0] for one in each]
    assert rows["value"] == max(one["value"] for one in tried)
    assert rows["settings"]["C"] == min(one["settings"]["C"] for one in tried if one["value"] == rows["value"])
    assert rows["settings"]["C_by"] == "validation"


def test_of_equal_accuracies_the_strongest_regularization_is_taken(run: Run) -> None:
    rows = table(run, ProbePlan(Cs=(1 + 1e-9, 1.0)))
    assert rows[rows["layer"] == "h1.linear"]["settings"].iloc[0]["C"] == 1.0


def test_without_validation_data_the_default_is_taken(run: Run) -> None:
    examples = run.examples[run.examples["split"] != "validation"].reset_index(drop=True)
    apart = run.examples["split"].to_numpy() == "validation"
    plain = replace(run, examples=run.examples.assign(split=np.where(apart, "unseen", run.examples["split"])))
    rows = table(plain, ProbePlan(C=0.3))
    settings = rows[rows["layer"] == "logits"]["settings"].iloc[0]
    assert (settings["C"], settings["C_by"], settings["n_fitted"]) == (
        0.3,
        "default",
        (examples["split"] == "train").sum(),
    )


def test_examples_that_were_not_fitted_are_told_from_those_that_were(run: Run) -> None:
    rows = table(run, ProbePlan(most=100))
    n = rows[rows["layer"] == "h1.linear"].set_index(["metric", "kind"])["n"]
    assert n["prefix_accuracy", "unpermuted"] + n["prefix_accuracy", "permuted"] == 100
    train = (run.examples["split"] == "train").sum()
    assert n["prefix_accuracy_heldout", "unpermuted"] + n["prefix_accuracy_heldout", "permuted"] == train - 100
    assert ("prefix_accuracy_heldout", "test") not in n
    assert n["prefix_accuracy", "test"] == (run.examples["split"] == "test").sum()


# ------------------------------------------------------------------------------------------------------------- what is read
def test_large_maps_are_averaged_over_space_and_say_so(run: Run) -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(768, 10))
    rows = table(with_network(run, conv), ProbePlan(most=50, largest=500, Cs=(1.0,)))
    settings = rows.drop_duplicates("layer").set_index("layer")["settings"]
    assert (settings["0"]["readout"], settings["0"]["features"]) == ("spatial-mean", 12)
    assert (settings["input"]["readout"], settings["input"]["features"]) == ("flatten", 64)
    examiner = Examiner(run.data, run.examples)
    layer = next(layer for layer in list_layers(conv, run.data.inputs([0, 1])) if layer.name == "0")
    X, _ = features(conv, examiner, layer, 500)
    with torch.no_grad():
        expected = conv[0](run.data.inputs(examiner.rows)).mean(dim=(2, 3)).numpy()
    assert pytest.approx(expected, abs=1e-6) == X  # float32, another order of the sum


def test_features_are_what_the_module_returned_before_it_was_overwritten(run: Run) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(inplace=True))
    examiner = Examiner(run.data, run.examples)
    layer = next(layer for layer in list_layers(model, run.data.inputs([0, 1])) if layer.path == "1")
    X, _ = features(model, examiner, layer, 4096)
    assert (X < 0).any()


def test_a_layer_is_read_after_its_normalisation_and_at_its_last_call(run: Run) -> None:
    torch.manual_seed(0)
    model = Calls(
        lambda self, x: self.last(self.norm(self.twice(self.twice(self.first(x.flatten(1)))))),
        first=nn.Linear(64, 16), twice=nn.Linear(16, 16), norm=nn.BatchNorm1d(16), last=nn.Linear(16, 10),
    )  # fmt: skip
    rows = table(with_network(run, model), ProbePlan(most=50, Cs=(1.0,)))
    read_at = rows[rows["layer"] != "(none)"].drop_duplicates("layer")
    found = {row["layer"]: row["settings"]["read_at"] for _, row in read_at.iterrows()}
    assert found == {"input": "input", "first": "first", "twice": "norm", "last": "last"}
    without = Calls(lambda self, x: self.twice(self.twice(x.flatten(1)[:, :10])), twice=nn.Linear(10, 10))
    rows = table(with_network(run, without), ProbePlan(most=50, Cs=(1.0,)))
    assert rows[rows["layer"] == "twice"]["settings"].iloc[0]["read_at"] == "twice#1"


def test_parameters_without_an_output_of_their_own_are_not_recorded(run: Run) -> None:
    model = Calls(lambda self, x: self.last(x.flatten(1) + self.shift), last=nn.Linear(64, 10))
    model.shift = nn.Parameter(torch.zeros(64))
    rows = table(with_network(run, model), ProbePlan(most=50, Cs=(1.0,)))
    probed = rows[rows["layer"] == "(network)"]
    assert set(probed["flag"]) == {"not_recorded"}
    assert probed["value"].isna().all()


def test_one_class_is_nothing_to_tell_apart(run: Run) -> None:
    one = run.examples.assign(true_label=0, train_label=0)
    rows = table(replace(run, examples=one))
    assert set(rows[rows["metric"] == "prefix_accuracy"]["flag"]) == {"one_class"}


def test_the_network_is_left_as_it_was(run: Run) -> None:
    before, flags = fingerprint(run.model), [module.training for module in run.model.modules()]
    table(run, ProbePlan(most=50, Cs=(1.0,)))
    assert fingerprint(run.model) == before
    assert [module.training for module in run.model.modules()] == flags
    assert n_hooks(run.model) == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"most": 1}, "most must be 2 or more, got 1"),
    ({"Cs": ()}, "Cs must be one or more numbers above 0"),
    ({"Cs": (1.0, 0.0)}, "Cs must be one or more numbers above 0"),
    ({"C": -1.0}, "C must be above 0"),
    ({"max_iter": 0}, "max_iter must be 1 or more"),
    ({"largest": 0}, "largest must be 1 or more"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_a_plan_out_of_range_is_refused_with_the_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ProbePlan(**options)

import json

import numpy as np
import pandas as pd
import pytest

from manigeo import capacity_table, create_activations, manifold_capacity, open_activations, plan_capacity
from manigeo.errors import InputError, UsageError
from manigeo.manifolds import KINDS
from tests.test_activations import CLASSES, LAYERS, grouped_examples, values, write


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "acts.h5")
    return tmp_path / "acts.h5"


def aggregates(table: pd.DataFrame, metric: str = "capacity") -> pd.DataFrame:
    return table[(table["manifold"] == "") & (table["metric"] == metric)].set_index(["layer", "kind"])


def test_the_default_plan_is_every_layer_and_kind_at_the_largest_common_size(path):
    plan = plan_capacity(path)
    assert plan.layers == ("input", "features.0", "a/b")
    assert plan.size.kinds == KINDS
    assert (plan.settings.n_classes, plan.settings.per_class) == (3, 5)
    assert plan.size.limited_by == ("test", 0)
    assert len(plan.tasks) == 12


def test_the_table_holds_what_manifold_capacity_says_of_each_layer_and_kind(path):
    table = capacity_table(plan_capacity(path, n_draws=40, seed=7))
    with open_activations(path) as acts:
        clouds = acts.manifolds("a/b", "restored", per_class=5, seed=7)
        fingerprint = acts.fingerprint
    row = aggregates(table).loc["a/b", "restored"]
    alone = manifold_capacity(clouds, n_draws=40)
    # the table's draws are keyed by layer and kind, so only the truth is shared
    assert abs(row["value"] - alone.capacity) < 4 * np.hypot(row["stderr"], alone.stderr_draws.capacity)
    assert (row["depth"], row["n"], row["epoch"]) == (2, 3, 3)
    assert row["fingerprint"] == fingerprint
    assert json.loads(row["settings"])["per_class"] == 5
    assert aggregates(table, "center_correlation").loc["a/b", "restored"]["value"] == alone.center_correlation


def test_each_class_has_rows_under_its_name(path):
    table = capacity_table(plan_capacity(path, n_draws=20, layers=["input"], kinds=["test"]))
    classes = table[(table["manifold"] != "") & (table["metric"] == "capacity")]
    assert classes["manifold"].tolist() == list(CLASSES)
    harmonic = 1 / (1 / classes["value"]).mean()
    assert aggregates(table).loc["input", "test"]["value"] == pytest.approx(harmonic, rel=1e-12)


def test_a_result_depends_on_its_layer_alone_and_not_on_workers_or_other_layers(path):
    everything = aggregates(capacity_table(plan_capacity(path, n_draws=20)))
    in_parallel = aggregates(capacity_table(plan_capacity(path, n_draws=20), n_jobs=2))
    one = aggregates(capacity_table(plan_capacity(path, n_draws=20, layers=["a/*"], kinds=["test"])))
    pd.testing.assert_frame_equal(in_parallel, everything)
    assert one.loc["a/b", "test"]["value"] == everything.loc["a/b", "test"]["value"]


def test_a_kind_with_too_few_examples_stands_in_the_table_as_flagged_nan(tmp_path):
    examples = grouped_examples()
    last = examples[examples["split"] == "test"].index
    kept = examples.drop(last[-4:]).reset_index(drop=True)  # class 2 keeps one test example
    with create_activations(tmp_path / "a.h5", kept, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(kept), layer.n_features) for layer in LAYERS})
    plan = plan_capacity(tmp_path / "a.h5", n_draws=10)
    assert plan.size.excluded == {"test": (2,)}
    row = aggregates(capacity_table(plan)).loc["input", "test"]
    assert np.isnan(row["value"])
    assert row["flag"] == "fewer_than_2:two"
    assert np.isfinite(aggregates(capacity_table(plan)).loc["input", "permuted"]["value"])


def test_activations_of_one_class_are_no_set_of_manifolds(tmp_path):
    examples = grouped_examples().query("true_label == 0").assign(train_label=0).reset_index(drop=True)
    with create_activations(tmp_path / "a.h5", examples, CLASSES[:1], LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS})
    with pytest.raises(InputError, match="has one class: manifold capacity takes 2 classes or more"):
        plan_capacity(tmp_path / "a.h5")


def test_activations_without_any_kind_of_two_examples_a_class_are_refused(tmp_path):
    examples = grouped_examples().groupby(["true_label", "split", "permuted"]).head(1).reset_index(drop=True)
    with create_activations(tmp_path / "a.h5", examples, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS})
    with pytest.raises(InputError, match="fewer than 2 examples in every kind"):
        plan_capacity(tmp_path / "a.h5")


def test_a_margin_that_is_no_number_is_refused(path):
    with pytest.raises(UsageError, match="must be a finite number, got nan"):
        plan_capacity(path, kappa=float("nan"))


def test_the_table_says_whether_the_draws_were_solved_and_how_well_they_are_known(path):
    table = capacity_table(plan_capacity(path, n_draws=20, layers=["input"], kinds=["test"]))
    aggregate = table[table["manifold"] == ""].set_index("metric")["value"]
    assert aggregate["residual"] < 1e-9
    assert 0 < aggregate["rank"] <= 5
    assert 0 < aggregate["capacity_stderr_draws"] < aggregate["capacity"]


def test_what_the_file_does_not_have_is_refused(path, tmp_path):
    with pytest.raises(UsageError, match=r"no layer matches 'conv\*'; .* has input, features\.0, a/b"):
        plan_capacity(path, layers=["conv*"])
    with pytest.raises(UsageError, match="--per-class 6 is more than there are: class 'zero' has 5 test examples"):
        plan_capacity(path, per_class=6)
    with pytest.raises(InputError, match="does not exist"):
        plan_capacity(tmp_path / "none.h5")


def test_a_file_without_permuted_labels_has_two_kinds(tmp_path):
    examples = grouped_examples().assign(permuted=False)
    with create_activations(tmp_path / "a.h5", examples, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS})
    assert plan_capacity(tmp_path / "a.h5").size.kinds == ("unpermuted", "test")
    with pytest.raises(UsageError, match="has no permuted examples; it has unpermuted, test"):
        plan_capacity(tmp_path / "a.h5", kinds=["permuted"])

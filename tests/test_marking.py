"""The kinds memorized and typical, from thresholds to the manifolds of a layer."""

import pandas as pd
import pytest

from manigeo.errors import InputError, UsageError
from manigeo.manifolds import kind_examples, matched_size
from manigeo.per_example.marking import kinds_by, marked
from manigeo_extract.opening.networks import open_model
from manigeo_extract.opening.requests import DataRequest, LabelsRequest, ModelRequest, NetworkRequest, WeightsRequest
from manigeo_extract.recording.extraction import plan_extraction
from manigeo_extract.training.evaluation import evaluate

EXAMPLES = pd.DataFrame(
    {
        "index": [10, 11, 12, 13, 14, 10],
        "split": ["train"] * 4 + ["left_out", "test"],
        "true_label": [0, 0, 1, 1, 1, 0],
        "train_label": [0, 1, 1, 1, 1, 0],
        "permuted": [False, True, False, False, False, False],
    }
)


def scores(values, **more):
    shown = {"index": range(10, 10 + len(values)), "split": "train", "true_label": 0, "metric": "score"}
    return pd.DataFrame(shown | {"value": values} | more)


def file_of(tmp_path, **columns):
    pd.DataFrame(columns).to_csv(tmp_path / "kinds.csv", index=False)
    return tmp_path / "kinds.csv"


def test_the_order_of_the_thresholds_says_which_end_is_memorized():
    up = kinds_by(scores([0.5, 0.4, 0.1]), "score", memorized=0.5, typical=0.1)
    down = kinds_by(scores([-0.5, -0.4, -0.1]), "score", memorized=-0.5, typical=-0.1)
    assert up.equals(down)
    assert up[["index", "kind"]].values.tolist() == [[10, "memorized"], [12, "typical"]]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"metric": "margin"}, "no 'margin' of training examples in the table; it has score"),
        ({"typical": 0.5}, "two thresholds, got 0.5 for both"),
    ],
)
def test_thresholds_and_scores_that_are_none_are_refused(asked, said):
    with pytest.raises(UsageError, match=said):
        kinds_by(scores([0.5, 0.1]), **{"metric": "score", "memorized": 0.5, "typical": 0.1} | asked)


def test_scores_of_several_layers_are_refused():
    with pytest.raises(UsageError, match="several values for one example"):
        kinds_by(pd.concat([scores([0.5]), scores([0.4])]), "score", memorized=0.5, typical=0.1)


def test_marked_examples_are_of_their_kind_alone_by_the_label_of_training(tmp_path):
    path = file_of(tmp_path, index=[11, 12, 13, 14], kind=["memorized", "typical", "typical", "memorized"])
    table = marked(EXAMPLES, path)
    found = {
        kind: [part.tolist() for part in kind_examples(table, kind)] for kind in ("memorized", "typical", "permuted")
    }
    assert found == {"memorized": [[1], [1]], "typical": [[2, 3], [1, 1]], "permuted": [[], []]}
    assert kind_examples(table, "unpermuted")[0].tolist() == [0]
    assert kind_examples(table, "test")[0].tolist() == [5]  # its index is that of another source
    assert matched_size(table, ["memorized", "typical"]).excluded == {"memorized": (0, 1), "typical": (0,)}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"index": [10], "kind": ["hard"]}, "kind 'hard', expected memorized or typical"),
        ({"index": [10, 10], "kind": "typical"}, "example 10 is marked twice"),
        ({"index": [10]}, r"no column kind\); make it with manigeo memorization or suffixes, --kinds"),
        ({"index": [10, 99], "kind": "typical"}, "1 examples, such as 99, that are none of the 5 training examples"),
        ({"index": [10], "kind": "typical", "true_label": 1}, "of other data: 1 examples have another true label"),
    ],
)
def test_a_file_that_marks_no_examples_of_these_data_is_refused_in_one_line(columns, said, tmp_path):
    with pytest.raises(InputError, match=said):
        marked(
            EXAMPLES,
            file_of(
                tmp_path,
                **{
                    name: value if isinstance(value, list) else [value] * len(columns["index"])
                    for name, value in columns.items()
                },
            ),
        )


def test_an_opened_model_is_extracted_and_scored_by_its_marked_kinds(tmp_path):
    data = DataRequest("digits", {"per_class": 6})
    plain = ModelRequest(NetworkRequest("mlp", {"depth": 1}), WeightsRequest("init"), data, LabelsRequest(permute=0.0))
    examples = open_model(None, plain).examples
    train = examples[examples["split"] == "train"].groupby("true_label").head(4)
    kinds = ["memorized" if place % 4 < 2 else "typical" for place in train.groupby("true_label").cumcount()]
    path = file_of(tmp_path, index=train["index"].tolist(), kind=kinds)
    opened = open_model(
        None, ModelRequest(plain.network, plain.weights, data, LabelsRequest(permute=0.0, kinds_from=path))
    )
    plan = plan_extraction(opened.network.module, opened.data, opened.examples, per_class=2)
    assert {kind: len(kind_examples(plan.examples, kind)[0]) for kind in ("memorized", "typical", "unpermuted")} == {
        "memorized": 20, "typical": 20, "unpermuted": 20,
    }  # fmt: skip
    assert evaluate(opened.network.module, opened.data, opened.examples)["typical"]["n"] == 20

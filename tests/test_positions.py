"""Positions of sequences as points of manifolds."""

import numpy as np
import pytest

from manigeo import open_activations
from manigeo.errors import UsageError
from manigeo.kinds import ALL_KINDS, LEFT_OUT
from manigeo.per_example.plan import plan_examples
from manigeo.results import read_results
from manigeo_extract import extract
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.data.positions import points_of
from manigeo_extract.models import build_model
from tests.command_line import done, run

# 4 canaries of 10 tokens, of which 6 are answered, and 3 sequences of 12 answers
SMALL = {"n": 30, "length": 16, "prefix": 4, "scored": 3, "canaries": [4, 10, 10]}


@pytest.fixture(scope="module")
def text():
    data = load_data("sentences", SMALL)
    return data, permute_labels(data, Permutation())


def model(data, depth=1):
    return build_model(
        "gpt", {"input_shape": data.input_shape, "n_classes": data.n_classes, "width": 16, "depth": depth}
    )


def test_as_usual_a_class_is_a_token(text):
    data, examples = text
    found, names = points_of(data, examples)
    assert found is examples
    assert names == data.class_names


def test_positions_leave_the_other_answers_out(text):
    data, examples = text
    found, names = points_of(data, examples, positions=[4, -1])
    taken = found[found["split"] != LEFT_OUT]
    place, number = taken["index"] % 16, taken["index"] // 16
    assert {kind: sorted(set(place[taken["split"] == kind])) for kind in ("memorized", "control", "test", "typical")} == {
        "memorized": [4, 9], "control": [4, 9], "test": [4, 15], "typical": [4, 15],
    }  # fmt: skip
    assert len(taken) == 2 * number.nunique()
    assert taken.equals(examples.loc[taken.index])  # labels are the tokens
    assert names == data.class_names


def test_a_class_is_a_sequence_of_each_kind(text):
    data, examples = text
    found, names = points_of(data, examples, "sequence")
    assert names == ("sequence 1", "sequence 2", "sequence 3")  # there are three scored ones
    for kind in ("memorized", "control", "test", "typical"):
        rows = found[found["split"] == kind]
        sequences = (rows["index"] // 16).groupby(rows["true_label"]).agg(["nunique", "size", "first"])
        assert sequences["nunique"].tolist() == [1, 1, 1]
        assert sequences["first"].is_unique
        assert set(sequences["size"]) == {6 if kind in ("memorized", "control") else 12}
        assert rows["train_label"].equals(rows["true_label"])
    fourth = found[(examples["split"] == "memorized") & (found["split"] == LEFT_OUT)]
    assert (fourth["index"] // 16).nunique() == 1  # canary, left out so that kinds have as many


def test_the_points_of_a_manifold_are_the_layer_at_the_positions_of_its_sequence(text):
    data, examples = text
    net = model(data)
    acts = extract(net, data, layers="block1", manifolds="sequence", positions=[4, 5, -1], progress=False)
    assert (acts.provenance["manifolds"], acts.provenance["positions"]) == ("sequence", [4, 5, -1])
    clouds = acts.manifolds("block1", "memorized")
    assert [len(cloud) for cloud in clouds] == [3, 3, 3]
    row = np.flatnonzero(examples["split"] == "memorized")[5]  # the last answer of the first canary
    ids, mask = data.inputs(np.array([row])).values()
    x = net.block1(net.stem(ids.long()))[0, int(mask.sum()) - 1].detach().numpy()
    assert np.abs(clouds[0] - x).max(axis=1).min() < 1e-5  # 1e-6 by the size of the batch
    assert np.abs(clouds[1] - x).max(axis=1).min() > 1e-2


def test_answers_are_not_scored_by_the_number_of_a_sequence(text):
    data, _ = text
    acts = extract(model(data), data, manifolds="sequence", progress=False)
    assert acts.scores == {}
    assert acts.unscored == "the manifolds are sequences, which the network does not name"
    few = load_data("sentences", SMALL | {"canaries": "", "scored": 256})
    acts = extract(model(few), few, manifolds="sequence", progress=False)
    acts.class_names = acts.class_names[:1] * 256
    assert "prediction_depth" not in plan_examples(acts, k=2).measures
    assert any("margins and prediction depth are not known" in note for note in plan_examples(acts, k=2).notes)


@pytest.mark.parametrize(("spec", "asked", "said"), [
    ("sentences", {"positions": [99]}, r"no sequence is answered at position 99: expected 4 to 15, or -1"),
    ("sentences", {"positions": [-40]}, r"no sequence is answered at position -40"),
    ("sentences", {"manifolds": "sequence", "positions": [5]}, r"needs two of its positions or more: give several --pos"),
    ("sentences", {"manifolds": "sentence"}, r"manifolds"),
    ("digits", {"positions": [5]}, r"digits has no sequences of tokens, and so no positions: give a text"),
    ("digits", {"manifolds": "sequence"}, r"and so no manifolds by sequence: give a text"),
])  # fmt: skip
def test_what_is_not_there_is_refused(text, spec, asked, said):
    of = text[0] if spec == "sentences" else load_data(spec, {"per_class": 4})
    with pytest.raises(UsageError, match=said):
        points_of(of, permute_labels(of, Permutation()), **asked)


TEXT = ("--data", "sentences", "--data-arg", "n=100", "--data-arg", "scored=12", "--arch", "gpt", "--weights", "init",
        "--arch-arg", "width=16", "--arch-arg", "depth=1", "--layers", "block1")  # fmt: skip


def test_the_command_line_measures_manifolds_of_sequences(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = done("extract", *TEXT, "--manifolds", "sequence")
    assert "12 sequences of each kind, as many as that with fewest has" in said
    done("capacity", "acts.h5", "--draws", 20, "--out", "capacity.csv")
    table = read_results("capacity.csv")
    names = set(table["manifold"]) - {""}
    assert names == {f"sequence {i}" for i in range(1, 13)}
    done("extract", *TEXT, "--positions", 8, "--positions", -1, "--out", "two.h5")
    with open_activations("two.h5") as acts:
        assert set(acts.examples["index"] % 32) == {8, 31}
        assert acts.provenance["positions"] == [8, -1]
        assert "manifolds" not in acts.provenance
        assert set(acts.kinds) <= set(ALL_KINDS)
    code, _, error = run("extract", *TEXT, "--positions", 99, "--out", "no.h5")
    assert (code, error.count("\n"), "(--positions)" in error) == (2, 1, True)

"""Label noise: conventions with exact counts, matrices of transitions, and labels of the user's own."""

import json

import numpy as np
import pandas as pd
import pytest

from manigeo.errors import InputError, UsageError
from manigeo.runs import RunFolder
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.data.noise import as_matrix, drawn_by_row, read_matrix
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.opening.requests import LabelsRequest
from tests.command_line import done, run

DATA = {"classes": 5, "train": 20, "validation": 2, "test": 2}
SMALL = ("--data", "glyphs", *(w for k, v in DATA.items() for w in ("--data-arg", f"{k}={v}")), "--epochs", 1)
NETWORK = ("--arch-arg", "depth=1", "--arch-arg", "width=8")


@pytest.fixture(scope="module")
def data():
    return load_data("glyphs", DATA)


def transitions(examples):
    """Number of training examples by true label (row) and label of training (column)."""
    train = examples[examples["split"] == "train"]
    return pd.crosstab(train["true_label"], train["train_label"]).reindex(columns=range(5), fill_value=0).to_numpy()


def test_pairs_give_every_member_the_label_of_the_next_class(data):
    examples = permute_labels(data, Permutation(0.4, "pairs"))
    members = examples[examples["permuted"]]
    assert len(members) == 40
    assert (members["train_label"] == (members["true_label"] + 1) % 5).all()
    assert np.trace(transitions(examples)) == 60


def test_a_matrix_of_certain_transitions_is_followed_exactly(data):
    T = np.eye(5)[[1, 1, 2, 4, 3]]  # 0 is labelled as 1, and 3 and 4 change places
    examples = permute_labels(data, Permutation(1, "matrix", matrix=as_matrix(T.tolist())))
    np.testing.assert_array_equal(transitions(examples), 20 * T)
    changed = examples["true_label"] != examples["train_label"]
    assert examples["permuted"].equals(changed)  # who keeps the label is not permuted, as the matrix says how many do
    assert changed.sum() == 3 * 20


def test_labels_are_drawn_with_the_probabilities_of_the_true_labels_row():
    T, n = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]), 20_000
    labels = np.repeat([0, 1, 2], n)
    drawn = drawn_by_row(labels, T.tolist(), np.random.default_rng(0)).reshape(3, n)
    rates = np.array([np.bincount(row, minlength=3) / n for row in drawn])
    np.testing.assert_allclose(rates, T, atol=5 * np.sqrt(0.25 / n))  # five standard errors of a share
    assert (rates[T == 0] == 0).all()


def test_a_matrix_of_a_part_changes_no_more_than_that_part(data):
    T = as_matrix(((np.ones((5, 5)) - np.eye(5)) / 4).tolist())
    half, all_of_it = (permute_labels(data, Permutation(share, "matrix", matrix=T)) for share in (0.5, 1))
    assert (half["permuted"].sum(), all_of_it["permuted"].sum()) == (50, 100)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 0]], r"square matrix, one row and one column per class, got the shape \(1, 2\)"),
        ([[0.5, 0.6], [0, 1]], r"of sum 1, got \[0.5, 0.6\] for class 0"),
        ([[1, 0], [-0.5, 1.5]], r"0 or more .* for class 1"),
        ([[1, float("nan")], [0, 1]], "for class 0"),
        ([[1], [0, 1]], "rows of one length"),
    ],
)
def test_what_is_no_matrix_of_transitions_is_refused(rows, said):
    with pytest.raises(UsageError, match=said):
        as_matrix(rows)


def test_a_matrix_is_of_as_many_classes_as_the_data(data, tmp_path):
    with pytest.raises(UsageError, match="expected a matrix of 5 classes, got one of 2"):
        permute_labels(data, Permutation(1, "matrix", matrix=((0, 1), (1, 0))))
    (tmp_path / "T.csv").write_text("0.5,half\n0,1\n")
    with pytest.raises(InputError, match=r"T.csv is no matrix of label noise: .*half"):
        read_matrix(tmp_path / "T.csv")
    with pytest.raises(UsageError, match="a matrix with the convention 'matrix', and with no other"):
        Permutation(1, "matrix")


def test_a_matrix_file_states_the_noise_of_all_examples_or_of_a_share(tmp_path):
    (tmp_path / "T.csv").write_text("0.5,0.5\n0,1\n")
    asked = LabelsRequest(convention=str(tmp_path / "T.csv"))
    assert asked.permutation({"fraction": 0.5}) == Permutation(1, "matrix", matrix=((0.5, 0.5), (0, 1)))
    some = LabelsRequest(permute=0.2, convention=str(tmp_path / "T.csv"))
    assert some.permutation(None).fraction == 0.2
    stored = {"fraction": 1, "convention": "matrix", "seed": 0, "matrix": [[0.5, 0.5], [0, 1]]}
    assert LabelsRequest(convention="uniform").permutation(stored) == Permutation(1, "uniform")


def test_a_checkpoint_knows_the_matrix_of_its_labels(tmp_path):
    rows = "\n".join(",".join("1" if j == (i + 2) % 5 else "0" for j in range(5)) for i in range(5))
    (tmp_path / "T.csv").write_text(rows)
    words = ("--noise", tmp_path / "T.csv", "--permute", 0.3)
    done("train", *SMALL, *NETWORK, *words, "--out", tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    (tmp_path / "T.csv").unlink()
    done("extract", "--model", last, "--out", tmp_path / "a.h5")  # the labels come from the checkpoint
    examples = permute_labels(load_data("glyphs", DATA), Permutation(**load_checkpoint(last).permutation))
    pd.testing.assert_frame_equal(examples, pd.read_csv(tmp_path / "run" / "labels.csv"), check_dtype=False)
    assert (transitions(examples) > 0).sum() == 10  # every class keeps some labels, and gives some to one other class


def test_training_takes_the_users_own_labels_and_later_commands_find_them(tmp_path, data):
    train = data.rows("train")
    own = pd.DataFrame({"index": data.index[train], "train_label": data.labels[train]})
    own.loc[:2, "train_label"] = (own.loc[:2, "train_label"] + 1) % 5
    own.to_csv(tmp_path / "own.csv", index=False)
    said = done("train", *SMALL, *NETWORK, "--labels", tmp_path / "own.csv", "--out", tmp_path / "run")
    assert "permuted: 3 of 100 training examples, 3 of them got another label" in said
    folder = RunFolder(tmp_path / "run")
    stored = pd.read_csv(folder.labels_path)
    assert stored.loc[stored["permuted"], "index"].tolist() == own["index"][:3].tolist()
    assert json.loads(folder.description_path.read_text())["permutation"] is None
    done("reinit", folder.path, "--out", tmp_path / "reinit.csv", "--draws", 0, "--no-zero", "--jobs", 1)
    table = pd.read_csv(tmp_path / "reinit.csv")
    assert set(table.loc[table["kind"] == "permuted", "n"]) == {3}


def test_labels_of_a_file_and_a_permutation_are_not_asked_for_together(tmp_path):
    (tmp_path / "own.csv").write_text("index,train_label\n0,0\n")
    words = ("train", *SMALL, *NETWORK, "--labels", tmp_path / "own.csv", "--out", tmp_path / "run")
    code, _, said = run(*words, "--permute", "0.5")
    assert (code, "leave --permute, --noise and --permute-seed out" in said) == (2, True)

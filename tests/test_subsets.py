"""Memorization and influence over trainings on random subsets."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from manigeo.cli.main import cli
from manigeo.errors import InputError, ManigeoError, UsageError
from manigeo.per_example.recorded import Answers, append_epoch, create_record
from manigeo.per_example.runs_apart import influence_table, memorization_table, read_subsets
from manigeo.per_example.subsets import influence, memorization
from manigeo_extract import Permutation, load_data, permute_labels
from manigeo_extract.data.label_files import read_labels

RNG = np.random.default_rng(0)


def test_memorization_counts_networks_with_and_without_the_example():
    #                 in  in  out out
    inside = np.array([[1, 1, 0, 0]] * 3, bool).T
    correct = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1]], bool).T
    found = memorization(correct, inside)
    assert found.value.tolist() == [1, 0, 0]
    # one more success and failure in each group: shares 3/4 and 1/4 of 4, 3/4 and 3/4, 1/2 and 1/2
    assert np.allclose(found.stderr**2, [2 * 3 / 16 / 4, 2 * 3 / 16 / 4, 2 / 4 / 4])


def test_an_example_that_is_in_every_subset_has_no_memorization():
    found = memorization(np.ones((3, 1), bool), np.ones((3, 1), bool))
    assert np.isnan([found.value[0], found.stderr[0], found.without[0]]).all()
    assert found.within[0] == 1


def test_the_influence_on_itself_is_the_memorization():
    correct, inside = RNG.random((2, 30, 5)) < 0.6
    ours, of_itself = memorization(correct, inside), influence(correct, inside)
    for name in ("value", "stderr", "within", "without"):
        assert np.array_equal(np.diag(getattr(of_itself, name)), getattr(ours, name))


def test_the_standard_error_is_the_spread_over_repetitions():
    p_in, p_out, n = 0.9, 0.3, 40
    inside = RNG.random((n, 2000)) < 0.7
    correct = RNG.random((n, 2000)) < np.where(inside, p_in, p_out)
    found = memorization(correct, inside)
    # 2,000 repetitions tell a spread to 1/sqrt(4000) = 1.6 %; the success and failure added to each group shift it by 5 %
    assert np.sqrt(np.mean(found.stderr**2)) == pytest.approx(found.value.std(), rel=0.1)


# ----------------------------------------------------------------------------------------------------------- of runs
TABLE = pd.DataFrame(
    {"index": range(6), "split": ["train"] * 4 + ["test"] * 2, "true_label": 0, "train_label": 0, "permuted": False}
)


def written(folder, inside, correct, run_id=None, table=TABLE, **described):
    """A run of four training examples, of which those ``inside`` are trained on, and two of the test."""
    folder.mkdir()
    table = table.assign(split=[*np.where(inside, "train", "left_out"), "test", "test"])
    run_id = run_id or folder.name
    (folder / "run.json").write_text(json.dumps({"run_id": run_id} | described))
    create_record(folder / "examples.record", run_id, table)
    for answers in (np.zeros(6, bool), np.array(correct, bool)):
        epoch = int(answers.any())
        append_epoch(folder / "examples.record", epoch, Answers(*np.zeros((3, 6)), answers))
    return folder


@pytest.fixture
def runs(tmp_path):
    a = written(tmp_path / "a", [1, 1, 0, 0], [1, 1, 1, 0, 1, 0])
    b = written(tmp_path / "b", [0, 0, 1, 1], [0, 1, 1, 1, 0, 0])
    return [a, b]


def test_runs_on_subsets_give_a_table_of_their_last_epochs(runs, tmp_path):
    out, pairs = tmp_path / "memorization.csv", tmp_path / "influence.csv"
    words = ["memorization", *map(str, runs), "--out", str(out), "--influence", str(pairs), "--force"]
    for path in (out, pairs):
        path.touch()  # what is written is not taken for what is read
    said = CliRunner().invoke(cli, words, catch_exceptions=False).output
    assert "2 runs, 4 training examples, each in 1 to 1 of the runs" in said
    table = pd.read_csv(out)
    assert table[table["metric"] == "memorization"]["value"].tolist() == [1, 0, 0, 1]
    assert table[table["metric"] == "runs_within"]["value"].tolist() == [1, 1, 1, 1]
    found = pd.read_csv(pairs)  # of the two memorized ones, the first alone helps, and the first of the test alone
    assert found[["index", "test_index", "influence"]].values.tolist() == [[0, 4, 1]]


def test_no_pair_of_influence_is_an_empty_table(tmp_path):
    runs = [written(tmp_path / name, inside, [1] * 6) for name, inside in (("a", [1, 1, 0, 0]), ("b", [0, 0, 1, 1]))]
    subsets = read_subsets(runs)
    assert len(influence_table(subsets)) == 0
    assert len(memorization_table(subsets)) == 4 * 5


REFUSED = {
    "one run": (lambda runs, tmp: runs[:1], UsageError, "two runs or more, .* got 1; train with --subset 0.7"),
    "one run twice": (lambda runs, tmp: [runs[0]] * 2, UsageError, "a is given twice"),
    "two networks": (
        lambda runs, tmp: [
            runs[0],
            written(tmp / "c", [0, 0, 1, 1], [1] * 6, arch="vit"),
            written(tmp / "d", [0, 1, 0, 1], [1] * 6, arch="mlp"),
        ],
        UsageError,
        r"different networks: vit \(.*c\); mlp \(.*d\); give those of one at a time",
    ),
    "no record": (lambda runs, tmp: [*runs, tmp], InputError, "no record of examples: train with --subset"),
    "other labels": (
        lambda runs, tmp: [*runs, written(tmp / "c", [1, 0, 1, 0], [1] * 6, table=TABLE.assign(train_label=1))],
        InputError,
        "c is of other examples or labels than",
    ),
    "all inside": (
        lambda runs, tmp: [written(tmp / name, [1] * 4, [1] * 6) for name in "cd"],
        InputError,
        "none of the 2 runs leaves training examples out: train with --subset 0.7 --record-examples last",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_runs_that_say_nothing_of_memorization_are_refused_in_one_line(case, runs, tmp_path):
    make, error, said = REFUSED[case]
    with pytest.raises(error, match=said):
        read_subsets(make(runs, tmp_path))


def test_a_record_of_another_training_is_refused(runs):
    (runs[0] / "run.json").write_text(json.dumps({"run_id": "trained anew"}))
    with pytest.raises(InputError, match="of another training than its folder"):
        read_subsets(runs)


# ----------------------------------------------------------------------------------------------------------- the data
def subset(**args):
    return load_data("digits", {"per_class": 5, **args})


def test_a_subset_leaves_a_share_out_and_changes_nothing_else():
    whole, part = subset(), subset(subset=0.7, subset_seed=3)
    assert (len(part.rows("train")), len(part.rows("left_out"))) == (35, 15)
    assert part.could_train.tolist() == whole.rows("train").tolist()
    assert (part.fingerprint, part.preprocessing) == (whole.fingerprint, whole.preprocessing)
    labels = [permute_labels(data, Permutation(0.4)).drop(columns="split") for data in (whole, part)]
    assert labels[0].equals(labels[1])
    again = subset(**{name: part.args[name] for name in ("subset", "subset_seed")})
    assert (again.split == part.split).all()
    assert (subset(subset=0.7, subset_seed=4).split != part.split).any()


def test_labels_of_a_file_are_those_of_left_out_examples_too(tmp_path):
    part = subset(subset=0.5)
    table = permute_labels(part, Permutation(0.4))
    table.to_csv(tmp_path / "labels.csv", index=False)
    assert read_labels(tmp_path / "labels.csv", part).equals(table)


@pytest.mark.parametrize("share", [0, 1.5, "half", True, 0.001])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ManigeoError, match=r"subset as a share of the 50 training examples, such as 0\.7, got"):
        subset(subset=share)

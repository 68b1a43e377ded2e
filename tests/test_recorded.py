"""The record of single examples: one file, whole epochs, and the same after an interruption."""

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from manigeo.cli.train import train_command
from manigeo.errors import InputError, UsageError
from manigeo.per_example.recorded import (
    Answers,
    append_epoch,
    bytes_of_epoch,
    create_record,
    forget_epochs,
    read_record,
)
from manigeo.runs import RunFolder
from manigeo_extract import Permutation, Recorder, load_data, permute_labels
from manigeo_extract.training.answering import AnswerSheet, answers_to
from manigeo_extract.training.evaluation import evaluate
from manigeo_extract.training.trainer import TrainingPlan, train
from tests.command_line import run

N = 11  # no multiple of the 8 examples of a byte


def answers(seed):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(3, N)).astype(np.float16)  # what half precision holds comes back as it was
    return Answers(*numbers, rng.random(N) < 0.5)


@pytest.fixture
def record(tmp_path):
    splits = ["train"] * 6 + ["validation"] * 2 + ["left_out", "unseen"] + ["test"] * 4
    table = pd.DataFrame({"index": range(14), "split": splits, "true_label": 1, "train_label": 2, "permuted": True})
    create_record(tmp_path / "examples.record", "run-a", table)
    return tmp_path / "examples.record"


def test_a_record_gives_back_what_was_appended(record):
    for epoch in (0, 3):
        append_epoch(record, epoch, answers(epoch))
    found = read_record(record)
    assert found.run_id == "run-a"
    assert found.epochs.tolist() == [0, 3]
    assert found.examples["index"].tolist() == [0, 1, 2, 3, 4, 5, 8, 10, 11, 12, 13]
    for name in ("probability", "margin", "error", "correct"):
        assert np.array_equal(getattr(found.answers, name), [getattr(answers(epoch), name) for epoch in (0, 3)])


def test_half_an_epoch_counts_as_not_recorded_and_is_replaced(record):
    append_epoch(record, 0, answers(0))
    whole = record.read_bytes()
    append_epoch(record, 1, answers(1))
    assert record.stat().st_size == len(whole) + bytes_of_epoch(N)
    record.write_bytes(record.read_bytes()[:-5])
    assert read_record(record).epochs.tolist() == [0]
    append_epoch(record, 2, answers(2))
    assert read_record(record).epochs.tolist() == [0, 2]


def test_epochs_that_are_forgotten_leave_the_file_as_it_was_before(record):
    contents = []
    for epoch in range(4):
        append_epoch(record, epoch, answers(epoch))
        contents.append(record.read_bytes())
    forget_epochs(record, after=1)
    assert record.read_bytes() == contents[1]


def test_margins_beyond_half_precision_stay_finite(record):
    append_epoch(record, 0, Answers(np.zeros(N), np.full(N, -1e9), np.zeros(N), np.zeros(N, bool)))
    assert (read_record(record).answers.margin == np.finfo(np.float16).min).all()


@pytest.mark.parametrize("damage", [lambda b: b[:-9] + b"damage" + b[-3:], lambda b: b"{}\n", lambda b: b[:150]])
def test_a_damaged_record_is_told_of_in_one_line(record, damage):
    append_epoch(record, 0, answers(0))
    record.write_bytes(damage(record.read_bytes()))
    with pytest.raises(InputError, match=r"no record of examples .*--record-examples all$"):
        read_record(record)


def test_no_flipped_bit_gives_another_record(record):
    for epoch in (0, 3):
        append_epoch(record, epoch, answers(epoch))
    truth, content = read_record(record), record.read_bytes()
    for at in range(len(content)):
        record.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        try:
            found = read_record(record)
        except InputError:
            continue
        assert found.run_id == truth.run_id
        assert found.examples.equals(truth.examples)
        assert found.epochs.tolist() == truth.epochs.tolist()
        assert all(np.array_equal(getattr(found.answers, of), values) for of, values in vars(truth.answers).items())


@pytest.mark.parametrize("command", [("capacity",), ("plot",), ("extract", "--model")])
def test_a_record_in_place_of_another_file_is_called_what_it_is(command, record):
    code, _, err = run(*command, record)
    assert code == 3
    assert "is the record of single examples of a training, expected" in err
    assert ("manigeo memorization takes the folders of such runs" in err) == (command[0] != "extract")


def test_answers_to_other_examples_are_refused(record):
    with pytest.raises(ValueError, match="answers to the 11 examples"):
        append_epoch(record, 0, Answers(*np.zeros((3, 4)), np.zeros(4, bool)))


# ------------------------------------------------------------------------------------------------------ while training
DATA = load_data("digits", {"per_class": 3})
EXAMPLES = permute_labels(DATA, Permutation(0.5))


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def trained(folder, progress=lambda *_: None, **more):
    return train(network(), DATA, EXAMPLES, TrainingPlan(epochs=3), folder, progress=progress, **more)


def test_the_record_agrees_with_the_scores_of_the_same_pass(tmp_path):
    scores = trained(tmp_path, record_examples=(3,))
    found = read_record(RunFolder(tmp_path).record_path)
    correct = pd.Series(found.answers.correct[-1])
    by_kind = found.examples.assign(correct=correct).groupby(["split", "permuted"])["correct"].mean()
    assert found.epochs.tolist() == [3]
    assert found.run_id == RunFolder(tmp_path).identity
    assert by_kind["train", True] == scores["permuted"]["accuracy"]
    assert by_kind["train", False] == scores["unpermuted"]["accuracy"]
    assert by_kind["test", False] == scores["test"]["accuracy"]


def test_an_interrupted_training_leaves_the_same_record(tmp_path):
    def killed(epoch, *_):
        if epoch == 1:
            raise KeyboardInterrupt

    trained(tmp_path / "whole", record_examples="all")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", killed, record_examples="all")
    append_epoch(tmp_path / "cut" / "examples.record", 2, read_answers(tmp_path / "cut"))  # killed before resume.pt
    trained(tmp_path / "cut", record_examples="all", resume=True)
    assert (tmp_path / "cut/examples.record").read_bytes() == (tmp_path / "whole/examples.record").read_bytes()


def read_answers(folder):
    found = read_record(folder / "examples.record").answers
    return Answers(found.probability[0], found.margin[0], found.error[0], found.correct[0])


def test_a_run_goes_on_with_a_record_only_if_it_began_with_one(tmp_path):
    trained(tmp_path)
    with pytest.raises(UsageError, match="begun without a record of examples: leave out --record-examples"):
        trained(tmp_path, record_examples="all", resume=True)


def test_a_loop_of_ones_own_records_the_same(tmp_path):
    model, sheet = network(), AnswerSheet(EXAMPLES)
    evaluate(model, DATA, EXAMPLES, sheet=sheet)
    labels = torch.as_tensor(EXAMPLES["train_label"].to_numpy()[sheet.rows])
    with torch.no_grad():
        own = answers_to(model(DATA.inputs(sheet.rows)), labels)
    recorder = Recorder(tmp_path, examples=EXAMPLES, record_examples="all")
    with pytest.raises(UsageError, match="answers to the examples are due after epoch 0"):
        recorder.step(model, 0)
    recorder.step(model, 0, answers=own)
    found = read_record(recorder.folder.record_path).answers
    for name in ("probability", "margin", "error"):  # half precision: 11 bits
        np.testing.assert_allclose(getattr(found, name)[0], getattr(sheet.answers(), name), rtol=2**-10, atol=1e-4)
    assert (found.correct[0] == sheet.answers().correct).all()


def test_the_error_is_the_distance_of_the_softmax_from_the_label():
    found = answers_to(torch.tensor([[0.0, np.log(3.0)], [40.0, 0.0]]), torch.tensor([0, 0]))
    assert np.allclose(found.error, [0.75 * 2**0.5, 0])  # p = (1/4, 3/4): both differ from (1, 0) by 3/4
    assert np.allclose(found.margin, [-np.log(3), 40])


def test_the_plan_tells_the_bytes_of_the_record():
    words = ["--data", "digits", "--data-arg", "per_class=3", "--record-examples", "all", "--epochs", "9", "--dry-run"]
    said = CliRunner().invoke(train_command, words).output
    n = len(EXAMPLES) - len(DATA.rows("validation"))
    assert f"record of {n} examples after 10 epochs: {10 * bytes_of_epoch(n) / 1e6:.2g} MB" in said

"""Sequences of tokens, canaries among them, and language models that answer contexts."""

import copy
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from jinja2 import Template
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo.kinds import CONTROL, MEMORIZED, TYPICAL
from manigeo.manifolds import kind_examples
from manigeo.per_example.marking import marked
from manigeo.per_example.suffixes import suffix_marks
from manigeo.report.sequences import sequence_sections
from manigeo.report.sources import DescribedRun
from manigeo.results import read_results
from manigeo.runs import RunFolder
from manigeo.storage.spreadsheets import write_cells
from manigeo_extract import extract
from manigeo_extract.data.datasets import Permutation, describe, load_data, permute_labels
from manigeo_extract.data.grammar import sentences
from manigeo_extract.data.tokens import tokenizer_of
from manigeo_extract.models import build_model
from manigeo_extract.opening.requests import (
    DataRequest,
    LabelsRequest,
    ModelRequest,
    TrainingRequest,
)
from manigeo_extract.opening.trainings import open_training
from manigeo_extract.recording.next_token import answering_contexts, answers
from manigeo_extract.training.course import course_of
from manigeo_extract.training.evaluation import evaluate
from manigeo_extract.training.plan import TrainingPlan
from manigeo_extract.training.suffixes import SuffixSheet, screened
from manigeo_extract.training.trainer import train
from tests.command_line import done

SMALL = {"n": 20, "length": 16, "prefix": 4, "scored": 3, "canaries": [4, 10, 10]}
TINY = {"width": 16, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def data():
    return load_data("sentences", SMALL)


@pytest.fixture(scope="module")
def examples(data):
    return permute_labels(data, Permutation())


def model(data, seed=0, **args):
    built = build_model(
        "gpt", {"input_shape": data.input_shape, "n_classes": data.n_classes, **TINY, **args}, seed=seed
    )
    return answering_contexts(built, data)


# ------------------------------------------------------------------------------------------------------------ the data
def test_an_example_is_what_stands_before_a_position_and_its_label_the_token_there(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghijklmnopqrstuvwx")
    data = load_data(f"text:{tmp_path}", {"length": 6, "prefix": 4, "validation": 0})
    text = "abcdefghijklmnopqrstuvwx"
    batch = data.inputs(slice(None))
    assert len(data.labels) == 8  # 4 sequences of 6, of each the last two positions
    for ids, mask, label, place in zip(*batch.values(), data.labels, data.index, strict=True):
        assert data.class_names[label] == text[place]
        assert bytes(ids[: mask.sum()].tolist()).decode() == text[place - place % 6 : place]


def test_canaries_are_trained_on_as_often_as_asked_and_controls_never(data, examples):
    number, long, repeats = SMALL["canaries"]
    of = data.sequences
    trained = Counter(tuple(row) for row in of.tokens.tolist())
    assert sorted(trained.values())[-number:] == [repeats] * number
    assert of.planted.sum() == number * repeats
    assert (of.tokens[of.planted, long:] == -1).all()
    for kind in (MEMORIZED, CONTROL):
        rows, _ = kind_examples(examples, kind)
        assert len(rows) == number * (long - SMALL["prefix"])
        ends = rows[data.index[rows] % SMALL["length"] == long - 1]
        whole = [(*ids[: mask.sum()].tolist(), data.labels[row]) for row in ends for ids, mask in [one(data, row)]]
        known = {tuple(row[:long]) for row in of.tokens.tolist()}
        assert [sequence in known for sequence in whole] == [kind == MEMORIZED] * number


def one(data, row):
    return (tensor[0] for tensor in data.inputs([row]).values())


def test_training_covers_the_next_token_of_every_position_and_no_padding(data, examples):
    course = course_of(data, examples, data, torch.device("cpu"))
    tokens, labels = course.source.inputs(course.rows)["input_ids"], course.labels
    assert (tokens[:, 1:] == labels[:, :-1]).logical_or(labels[:, :-1] < 0).all()
    assert labels[course.memorized].ge(0).sum(dim=1).unique().tolist() == [SMALL["canaries"][1] - 1]
    assert labels[~course.memorized].ge(0).all()


def test_held_out_sequences_are_not_trained_on_and_kinds_share_none(data, examples):
    numbers = {kind: set(examples["index"][examples["split"] == kind] // SMALL["length"]) for kind in examples["split"]}
    assert sum(map(len, numbers.values())) == len(set.union(*numbers.values()))
    assert set(numbers) == {TYPICAL, MEMORIZED, CONTROL, "test", "validation"}
    assert len(data.sequences.tokens) == 10 * 4 + course_sequences(data)


def course_sequences(data):
    n = len(sentences(SMALL["n"])) // SMALL["length"]
    return n - 2 * round(0.1 * n)


def test_the_fingerprint_is_of_all_that_is_trained_on(data):
    assert load_data("sentences", SMALL).fingerprint == data.fingerprint
    for other in ({"seed": 1}, {"canaries": [4, 10, 2]}, {"n": 21}):
        assert load_data("sentences", SMALL | other).fingerprint != data.fingerprint


def test_a_data_set_of_sequences_is_described_in_its_own_words(data, examples):
    said = describe(data, examples)
    assert "4 canaries of 10 random tokens, 10 times each" in said
    assert "permuted" not in said
    assert "memorized 24, typical 36, control 24" in said


@pytest.mark.parametrize(
    ("args", "message"),
    {
        "canaries too long": ({"canaries": "4,99,3"}, "not than the sequences of 16, got 99"),
        "canaries too short": ({"canaries": "4,4,3"}, "canaries longer than the prefix of 4 tokens"),
        "no repeats": ({"canaries": "4,10,0"}, "repeated once or more, got 4 and 0"),
        "two numbers": ({"canaries": "4,10"}, "number, length in tokens and repeats, such as 50,32,10, got '4,10'"),
        "prefix": ({"prefix": 16}, "expected prefix from 1 to below the length of 16 tokens, got 16"),
        "shares": ({"test": 0.6, "validation": 0.5}, "shares of the text below 1, got 0.6 and 0.5"),
        "classes": ({"per_class": 3}, "not by examples of classes: leave per_class out"),
    }.values(),
)
def test_what_no_sequences_follow_from_is_refused(args, message):
    with pytest.raises(UsageError, match=message):
        load_data("sentences", SMALL | args)


def test_a_text_that_is_too_short_or_none_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected \.txt, \.md or \.rst files, found none"):
        load_data(f"text:{tmp_path}")
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(InputError, match="expected text for 3 sequences of 64 tokens or more, found 5 tokens"):
        load_data(f"text:{tmp_path}")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected a text in UTF-8"):
        load_data(f"text:{tmp_path / 'a.txt'}")


# ---------------------------------------------------------------------------------------------------------- the network
def test_a_causal_network_sees_nothing_behind_a_token(data):
    network, tokens = model(data, depth=2).eval(), torch.from_numpy(data.sequences.tokens[:2, :-1]).long()
    changed = tokens.clone()
    changed[:, 9:] = 0
    assert torch.equal(network(tokens)[:, :9], network(changed)[:, :9])
    assert not torch.equal(network(tokens)[:, 9:], network(changed)[:, 9:])


def test_contexts_are_answered_at_their_last_token(data):
    network, rows = model(data).eval(), data.rows(MEMORIZED)
    batch = data.inputs(rows)
    found = network(**batch)
    assert found.shape == (len(rows), 256)
    for scores, ids, mask in zip(found, *batch.values(), strict=True):
        alone = network(ids[None, : mask.sum()])[0, -1]
        torch.testing.assert_close(scores, alone)


def test_contexts_of_one_sequence_go_through_the_network_together(data):
    network, batch = model(data).eval(), data.inputs(slice(0, 60))
    sizes = []
    network.stem.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    torch.testing.assert_close(answers(network, batch), network(**batch))
    assert sizes == [5, 60]  # 60 contexts, 12 of each sequence


def test_a_copy_of_a_language_model_answers_contexts_too(data):
    network = copy.deepcopy(answering_contexts(model(data), data))
    assert network(**data.inputs([0, 1])).shape == (2, 256)


def test_the_embedding_and_the_output_layer_share_their_weights(data):
    network = model(data)
    assert network.logits.weight is network.stem.token.weight
    other = model(data, seed=1)
    other.load_state_dict(network.state_dict())
    assert other.logits.weight is other.stem.token.weight


class Headless(nn.Module):
    def __init__(self, returned):
        super().__init__()
        self.token, self.returned = nn.Embedding(256, 300), returned

    def forward(self, input_ids, attention_mask=None):
        return self.returned(self.token(input_ids))


@pytest.mark.parametrize(
    ("returned", "message"),
    {
        "a classifier": (
            lambda x: x[:, 0],
            r"scores of the next token .*, got a tensor of shape \(2, 300\).*language head",
        ),
        "few tokens": (lambda x: x[..., :99], "the network knows 99 tokens, and the tokenizer of sentences has 256"),
        "nothing": (lambda x: None, "scores of the next token .*, got none"),
    }.values(),
)
def test_a_network_that_is_no_language_model_of_these_tokens_is_refused(data, returned, message):
    with pytest.raises(UsageError, match=message):
        answering_contexts(Headless(returned), data)


def test_sequences_longer_than_the_context_are_refused_with_the_length_to_give(data):
    built = build_model("gpt", {"input_shape": [9], "n_classes": 256, **TINY})
    with pytest.raises(InputError, match="the network takes up to 9 tokens, got 15: give shorter sequences"):
        answering_contexts(built, data)


# ------------------------------------------------------------------------------------------------ training and scoring
def test_suffixes_are_scored_as_one_token_after_another_would_be(data, examples):
    network, sheet = model(data), SuffixSheet(examples)
    scores = evaluate(network, data, examples, sheet=sheet)
    table = sheet.table(data)
    number = int(examples["index"][examples["split"] == MEMORIZED].iloc[0]) // data.sequences.length
    row = table[table["sequence"] == number].iloc[0]
    tokens = torch.from_numpy(data.sequences.tokens[data.sequences.planted][0][:10]).long()
    with torch.no_grad():
        log_p = network(tokens[None, :-1])[0].log_softmax(-1)
    loss = -log_p.gather(1, tokens[1:, None])[SMALL["prefix"] - 1 :].sum()
    assert row["kind"] == MEMORIZED
    assert abs(row["loss"] - float(loss)) < 1e-4  # float32, 6 terms of about 5
    assert scores[MEMORIZED]["loss"] == pytest.approx(
        table.loc[table["kind"] == MEMORIZED, "loss"].mean() / 6, rel=1e-6
    )


@pytest.fixture(scope="module")
def trained(data, examples, tmp_path_factory):
    network, folder = model(data, width=32), tmp_path_factory.mktemp("sequences") / "run"
    plan = TrainingPlan(epochs=25, batch_size=16, optimizer="adam", lr=0.01, schedule="constant")
    args = {"input_shape": list(data.input_shape), "n_classes": data.n_classes, **TINY, "width": 32}
    scores = train(
        network, data, examples, plan, folder, arch="gpt", arch_args=args, near_guessing=0.5, progress=lambda *_: None
    )
    return network, folder, scores


def test_canaries_are_memorized_and_controls_stay_at_chance(trained):
    scores = trained[2]
    assert scores[MEMORIZED]["accuracy"] > 0.95
    assert scores[MEMORIZED]["exact"] >= 0.75
    assert scores[CONTROL]["accuracy"] < 0.3  # of 24 letters about 1 is right by chance
    assert scores[MEMORIZED]["exposure"] == pytest.approx(np.log2(5))  # all 4 are likelier than 4 controls


def test_metrics_of_sequences_are_recorded_beside_those_of_every_run(trained):
    table = pd.read_csv(trained[1] / "metrics.csv")
    assert [*table.columns] == ["epoch", "kind", "accuracy", "loss", "n", "exact", "exposure"]
    assert table.groupby("kind")["exposure"].count().loc[lambda n: n > 0].index.tolist() == [MEMORIZED]


def test_a_training_on_text_goes_on_where_it_was_interrupted(data, examples, tmp_path):
    plan = TrainingPlan(epochs=2, batch_size=8, optimizer="adam")
    whole, told = tmp_path / "whole", lambda *_: None
    train(model(data), data, examples, plan, whole, progress=told)

    def stop(epoch, *_):
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model(data), data, examples, plan, tmp_path / "part", progress=stop)
    train(model(data), data, examples, plan, tmp_path / "part", progress=told, resume=True)
    assert (tmp_path / "part/metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.parametrize("labels", [LabelsRequest(permute=0.5), LabelsRequest(labels=Path("labels.csv"))])
def test_next_tokens_are_no_labels_to_permute(labels):
    of = ModelRequest(data=DataRequest("sentences", SMALL), labels=labels)
    with pytest.raises(UsageError, match="no labels that could be others: plant canaries"):
        open_training(TrainingRequest(of))


# ------------------------------------------------------------------------------------------------- continued from prefixes
def test_sequences_are_continued_by_the_most_probable_token_one_after_another(trained, data, examples):
    table = screened(trained[0], data, examples)
    assert (table["exact"] == (table["distance"] == 0)).all()
    assert (table["exact"] == (table["answer"] == table["suffix"])).all()
    assert set(table["exact"]) == {True, False}
    row = table[table["distance"] > 1].iloc[0]
    tokens = [*row["prefix"].encode()]
    for _ in range(len(row["suffix"])):
        tokens.append(int(trained[0](input_ids=torch.tensor([tokens]))[0, -1].argmax()))
    assert bytes(tokens).decode() == row["prefix"] + row["answer"]


def test_what_is_extractable_becomes_a_kind_of_its_own(trained, data, examples, tmp_path):
    table = screened(trained[0], data, examples)
    nearest = table.loc[table["kind"] == TYPICAL, "distance"].min()
    marks = suffix_marks(examples, table, data.sequences.length, within=int(nearest))
    marks.to_csv(tmp_path / "kinds.csv", index=False)
    planted = (examples["split"] == MEMORIZED).to_numpy()
    found = marked(examples, tmp_path / "kinds.csv")
    chosen = ((found["split"] == MEMORIZED) & ~planted).to_numpy()
    of_text = table[(table["kind"] == TYPICAL) & (table["distance"] == nearest)]["sequence"]
    assert set(examples["index"][chosen] // data.sequences.length) == set(of_text)
    assert (found["split"][planted] == MEMORIZED).all()
    assert (found["split"] == "test").equals(examples["split"] == "test")


def test_all_of_a_text_is_looked_at_where_nothing_is_held_out():
    found = load_data("sentences", {"n": 20, "length": 16, "test": 0, "validation": 0})
    table = permute_labels(found, Permutation())
    assert set(table["split"]) == {TYPICAL}
    assert len(table) == len(found.sequences.tokens) * 8  # from the eighth token on


def test_an_answer_may_be_no_byte():
    assert tokenizer_of("").decode([97, 299, 98]) == "a\ufffdb"


# ------------------------------------------------------------------------------------------------------------ all of it
def test_sequences_are_kept_with_their_texts_and_what_the_network_answers(trained, data):
    table = RunFolder(trained[1]).sequences()
    assert table["kind"].value_counts().to_dict() == {TYPICAL: 3, "test": 3, "validation": 3, MEMORIZED: 4, CONTROL: 4}
    assert (table["exact"] == (table["answer"] == table["suffix"])).all()
    planted = {bytes(row[:10]).decode() for row in data.sequences.tokens[data.sequences.planted].tolist()}
    known = table[table["kind"] == MEMORIZED]
    assert set(known["prefix"] + known["suffix"]) == planted


def test_a_run_on_a_text_is_localized_and_reported_in_its_own_words(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained[1], "run")
    done("rewind", "run", "--each", "--checkpoints", "before", "--group-by", "block", "--out", "run/rewind.csv")
    said = done("localize", "run")
    assert "training accuracy on memorized examples" in said
    assert "permuted" not in said
    assert set(read_results("localize.csv")["kind"]) == {"", MEMORIZED}
    done("report", "run", "--out", "page.html")
    page = Path("page.html").read_text()
    assert "Training accuracy on memorized examples is" in page
    assert "permuted labels" not in page
    assert "Sequences of the text" in page


def test_texts_are_escaped_in_the_report(tmp_path):
    row = {"kind": MEMORIZED, "sequence": 0, "exact": True, "accuracy": 1.0, "loss": 0.1, "exposure": 2.0}
    table = pd.DataFrame([row | {"prefix": "<script>alert(1)</script>", "suffix": "=1+1", "answer": "a\nb"}])
    (tmp_path / "sequences.csv").write_text(write_cells(table))
    section = sequence_sections([DescribedRun("run", {}, None, RunFolder(tmp_path))])[0]
    assert [cell.text for cell in section.rows[0]][:4] == [MEMORIZED, "<script>alert(1)</script>", "=1+1", "a\u21b5b"]
    html = Template("{{ text }}", autoescape=True).render(text=section.rows[0][1].text)
    assert html == "&lt;script&gt;alert(1)&lt;/script&gt;"


def test_texts_are_read_at_the_last_token_and_hold_frequent_tokens_alone(trained, data, examples):
    acts = extract(trained[0], data, layers="block1", train_labels=examples, progress=False)
    assert acts.layer("block1").readout == "last-token"
    assert acts.kinds == ("test", MEMORIZED, TYPICAL, CONTROL)

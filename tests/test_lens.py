"""Answers that the network's own head reads out of each block."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from manigeo.errors import UsageError
from manigeo.per_example.table import read_examples
from manigeo.results import read_results
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.interventions.lens import find_blocks, lens_answers, lens_tables
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import build_model
from manigeo_extract.recording.next_token import answering_contexts
from tests.command_line import done, run

CLASSES = 4


class Adding(nn.Module):
    """Beside a shortcut: adds to the stream what ``linear`` makes of it; alone or before something else."""

    def __init__(self, weight, gives=lambda x: x):
        super().__init__()
        self.linear, self.gives = nn.Linear(CLASSES, CLASSES, bias=False), gives
        self.linear.weight.data = weight

    def forward(self, x):
        return self.gives(x + self.linear(x))


class Named(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(CLASSES, CLASSES)
        self.head.weight.data, self.head.bias.data = torch.eye(CLASSES), torch.zeros(CLASSES)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x)


class Given:
    """One example of each class, as a vector with a one, of which the first two have the labels of one another."""

    examples = pd.DataFrame({
        "index": range(CLASSES), "split": "train", "true_label": [0, 1, 2, 3], "train_label": [1, 0, 2, 3],
        "permuted": [True, True, False, False],
    })  # fmt: skip

    def inputs(self, rows):
        return torch.eye(CLASSES)[rows]


def swapping(gives=lambda x: x):
    """Three blocks, of which the second writes the labels of the first two examples over what they are."""
    swap = torch.zeros(CLASSES, CLASSES)
    swap[0, 1] = swap[1, 0] = 3
    nothing = torch.zeros(CLASSES, CLASSES)
    return Named([Adding(nothing, gives), Adding(swap, gives), Adding(nothing, gives)])


def read(net, data=None, examples=None, **options):
    data = data or Given()
    blocks = find_blocks(net, data.inputs(np.arange(2)))
    return lens_tables(net, data, data.examples if examples is None else examples, blocks, **options)


def accuracies(table, kind, metric="lens_accuracy"):
    return table[(table["kind"] == kind) & (table["metric"] == metric)]["value"].tolist()


@pytest.mark.parametrize("gives", [lambda x: x, lambda x: (x, None)], ids=["tensor", "tuple"])
def test_labels_are_read_from_the_block_on_that_writes_them(gives):
    table, singles = read(swapping(gives), place={"run": "r", "fingerprint": "f"})
    assert accuracies(table, "permuted") == [0, 1, 1]
    assert accuracies(table, "restored") == [1, 0, 0]
    assert accuracies(table, "unpermuted") == [1, 1, 1]
    assert table["layer"].unique().tolist() == ["blocks.0", "blocks.1", "blocks.2"]
    assert set(table["depth"]) == {1, 2, 3}
    assert singles.sort_values("index")["value"].tolist() == [1, 1, 0, 0]
    assert set(singles["fingerprint"]) == set(table["fingerprint"]) == {"f"}


def test_an_example_that_the_network_answers_otherwise_is_beyond_all_blocks():
    examples = Given.examples.assign(train_label=[1, 0, 3, 3])
    _, singles = read(swapping(), examples=examples)
    assert singles.set_index("index")["value"].to_dict() == {0: 1, 1: 1, 2: 3, 3: 0}


def test_a_block_that_changes_the_stream_in_place_is_read_as_it_was():
    class InPlace(Adding):
        def forward(self, x):
            return x.add_(self.linear(x))

    still = swapping()
    net = Named([InPlace(block.linear.weight.data) for block in still.blocks])
    for expected, found in zip(read(still), read(net), strict=True):
        pd.testing.assert_frame_equal(expected, found)


def test_the_network_is_left_as_it_was():
    net = swapping().train()
    read(net)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_the_head_reads_each_block_of_a_language_model_and_the_last_is_the_network():
    data = load_data("sentences", {"n": 20, "length": 16, "prefix": 4, "scored": 3, "canaries": [4, 10, 10]})
    args = {"input_shape": data.input_shape, "n_classes": data.n_classes, "width": 16, "depth": 3, "heads": 2}
    net, examples = answering_contexts(build_model("gpt", args, seed=1), data), permute_labels(data, Permutation())
    with torch.no_grad():
        for i in (1, 2, 3):  # answers that differ from block to block
            net.get_submodule(f"block{i}.mlp.down").weight.mul_(20)
    table, singles = read(net, data, examples)
    rows = np.flatnonzero(examples["split"] == "memorized")
    ids, mask = data.inputs(rows).values()
    x, expected = net.stem(ids.long()), []
    with torch.no_grad():
        for i in (1, 2, 3):
            x = net.get_submodule(f"block{i}")(x)
            scores = net.logits(net.norm(x))
            expected.append(scores[torch.arange(len(rows)), mask.sum(1) - 1].argmax(1).numpy())
    examiner = Examiner(data, examples)
    found = lens_answers(net, examiner, find_blocks(net, data.inputs(np.arange(2))))
    assert (found[:, np.searchsorted(examiner.rows, rows)] == expected).all()
    assert len({tuple(answers) for answers in expected}) == 3
    hits = np.array(expected) == examples["true_label"].to_numpy()[rows]
    assert accuracies(table, "memorized") == hits.mean(axis=1).tolist()
    assert "validation" in set(examples["split"])
    assert set(singles["kind"]) == {"memorized", "control", "typical", "test"}
    assert len(singles) == (examples["split"] != "validation").sum()


def test_a_sequence_counts_where_all_of_it_is_answered():
    table, _ = read(swapping(), length=2)
    assert accuracies(table, "permuted", "lens_exact") == [0, 1, 1]
    first = Given.examples.assign(train_label=[1, 3, 2, 3])
    table, _ = read(swapping(), examples=first, length=2)
    assert accuracies(table, "permuted", "lens_exact") == [0, 0, 0]
    assert accuracies(table, "permuted") == [0, 0.5, 0.5]
    table, _ = read(swapping(), length=2, most=1)  # of a sequence that is drawn from in part nothing is known
    assert "lens_exact" not in set(table["metric"])


OF_IMAGES = {"vit": {"depth": 3}, "resmlp": {"depth": 3}, "resnet18": {}}


@pytest.mark.parametrize("arch", OF_IMAGES)
def test_blocks_are_found_in_networks_of_images(arch):
    data = load_data("digits", {"per_class": 4})
    args = {"input_shape": data.input_shape, "n_classes": data.n_classes, "width": 8} | OF_IMAGES[arch]
    found = [block.name for block in find_blocks(build_model(arch, args), data.inputs(np.arange(2)))]
    # the first block of a stage has a projection in place of a shortcut, and what it returns is of the stage's stream
    assert found == (["stage4.block1", "stage4.block2"] if arch == "resnet18" else ["block1", "block2", "block3"])


def test_experts_within_a_block_are_no_blocks():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(Adding(torch.zeros(CLASSES, CLASSES)) for _ in range(5))

        def forward(self, x):
            return torch.stack([expert(x) for expert in self.experts]).mean(0)

    found = find_blocks(Named([Mixed(), Mixed()]), torch.eye(CLASSES))
    assert [block.name for block in found] == ["blocks.0", "blocks.1"]


def test_chains_of_plain_layers_are_no_blocks():
    data = load_data("digits", {"per_class": 4})
    args = {"input_shape": data.input_shape, "n_classes": data.n_classes, "width": 8, "depth": 3}
    with pytest.raises(UsageError, match="its head can read its last layer alone"):
        find_blocks(build_model("mlp", args), data.inputs(np.arange(2)))


def test_blocks_without_shortcuts_are_no_blocks():
    class Replacing(Adding):
        def forward(self, x):
            return self.linear(x).relu()

    class AlsoReplacing(Replacing):
        pass

    blocks = [of(torch.eye(CLASSES)) for of in (Replacing, Replacing, Replacing, AlsoReplacing, AlsoReplacing)]
    with pytest.raises(UsageError, match="no two blocks beside shortcuts"):
        find_blocks(Named(blocks), torch.eye(CLASSES))
    blocks += [Adding(torch.eye(CLASSES)) for _ in range(2)]
    found = find_blocks(Named(blocks), torch.eye(CLASSES))
    assert [block.name for block in found] == ["blocks.5", "blocks.6"]


def test_normalised_weights_beside_a_shortcut_are_seen_and_left_as_they_were():
    net = swapping()
    for block in net.blocks:
        block.linear.weight.data += 1
        nn.utils.parametrizations.weight_norm(block.linear)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert len(find_blocks(net, torch.eye(CLASSES))) == 3
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_blocks_that_hand_on_no_stream_are_refused():
    class Keyed(Adding):
        def forward(self, x):
            return {"x": super().forward(x if isinstance(x, torch.Tensor) else x["x"])}

    class Last(nn.Linear):
        def forward(self, x):
            return super().forward(x["x"])

    nothing = torch.zeros(CLASSES, CLASSES)
    net = nn.Sequential(Keyed(nothing), Keyed(nothing), Last(CLASSES, CLASSES))
    with pytest.raises(
        UsageError, match="the blocks return a dict, expected a tensor, or a tuple that begins with one"
    ):
        read(net)


TEXT = ("--data", "sentences", "--data-arg", "n=40", "--data-arg", "scored=5", "--arch", "gpt", "--weights", "init",
        "--arch-arg", "width=16", "--arch-arg", "depth=2")  # fmt: skip


def test_the_command_writes_both_tables_and_says_what_is_in_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said, planned = run("lens", *TEXT, "--dry-run")
    assert (code, said) == (0, "")
    assert (
        "2 blocks (block1, block2), read by the head of the network, of test 5" not in planned
    )  # positions, not sequences
    assert "2 blocks (block1, block2), read by the head of the network, of test " in planned
    said = done("lens", *TEXT, "--per-example", "lens.examples.csv")
    table, singles = read_results("lens.csv"), read_examples("lens.examples.csv")
    assert set(table["metric"]) == {"lens_accuracy", "lens_exact"}
    assert "share of examples that the head answers by their label" in said
    assert "block, from 0, from which on the head gives the label" in said
    assert set(singles["metric"]) == {"lens_depth"}
    assert set(table["checkpoint"]) == set(singles["checkpoint"]) == {"init"}  # and not of a file
    assert set(table["run"]) | set(table["fingerprint"]) == {""}
    done("plot", "lens.examples.csv")
    done("plot", "lens.csv", "--out", "lens.png")
    code, _, error = run("lens", *TEXT)
    assert (code, "lens.csv" in error) == (2, True)
    code, _, error = run("lens", *TEXT, "--out", "other.csv", "--per-example", "lens.examples.csv")
    assert (code, "--per-example" in error or "lens.examples.csv" in error) == (2, True)

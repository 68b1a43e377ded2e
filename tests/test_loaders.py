"""What a user's own factory may return: loaders, and examples of several tensors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from manigeo import open_activations
from manigeo.errors import InputError
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from tests.command_line import done, run

N = 24
IDS = torch.arange(N * 5).reshape(N, 5) % 7
MASK = (torch.arange(5) < 1 + torch.arange(N)[:, None] % 5).long()
LABELS = torch.arange(N) % 3
IMAGES = torch.arange(N * 4.0).reshape(N, 1, 2, 2)


class Pairs:
    """(mapping, label), as map-style data sets give them."""

    classes = ("a", "b", "c")

    def __len__(self):
        return N

    def __getitem__(self, row):
        return {"input_ids": IDS[row], "attention_mask": MASK[row]}, int(LABELS[row])


class Mappings(Pairs):
    """One mapping with its label, as Hugging Face's data sets give them."""

    def __getitem__(self, row):
        return {**super().__getitem__(row)[0], "labels": LABELS[row]}


class Uneven(Pairs):
    """Texts of as many tokens as they have."""

    def __getitem__(self, row):
        n = int(MASK[row].sum())
        return {"input_ids": IDS[row, :n], "labels": LABELS[row]}


def pad(items):
    """A collate function that brings every text to five tokens."""
    ids = torch.stack([torch.nn.functional.pad(i["input_ids"], (0, 5 - len(i["input_ids"]))) for i in items])
    return {"input_ids": ids, "labels": torch.stack([i["labels"] for i in items])}


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(IMAGES[0], 0)])


def pairs():
    return Pairs(), Pairs()


def mappings():
    return Mappings(), Mappings()


def shuffled_loaders():
    return DataLoader(Pairs(), batch_size=5, shuffle=True), DataLoader(Mappings(), batch_size=5)


def padding_loaders():
    return DataLoader(Uneven(), collate_fn=pad), DataLoader(Uneven(), collate_fn=pad)


def image_loaders():
    images = TensorDataset(IMAGES, LABELS)
    part = SubsetRandomSampler(range(6, 18))
    return DataLoader(images, sampler=part), DataLoader(images, batch_size=4)


def uneven():
    return Uneven(), Uneven()


def streams():
    return DataLoader(Stream()), DataLoader(Stream())


class WithoutLabel(Mappings):
    def __getitem__(self, row):
        return {"input_ids": IDS[row]}


class WithText(Mappings):
    def __getitem__(self, row):
        return {**super().__getitem__(row), "text": "a film"}


def without_label():
    return WithoutLabel(), WithoutLabel()


def with_text():
    return WithText(), WithText()


@pytest.mark.parametrize("factory", ["pairs", "mappings", "shuffled_loaders"])
def test_examples_of_several_tensors_come_by_name_and_whole_numbers_stay_whole(factory):
    data = load_data(f"{__name__}:{factory}", {"validation": 0})
    batch = data.inputs([3, 1, N + 2])
    assert list(batch) == ["input_ids", "attention_mask"]
    for name, expected in (("input_ids", IDS), ("attention_mask", MASK)):
        assert batch[name].dtype == torch.int64
        assert torch.equal(batch[name], expected[[3, 1, 2]])
    assert (data.input_shape, data.class_names) == ((5,), ("a", "b", "c"))
    assert (data.labels == torch.cat([LABELS, LABELS]).numpy()).all()
    table = permute_labels(data, Permutation(0.5))
    assert table["permuted"].sum() == N // 2


def test_a_loader_is_its_examples_in_their_order_each_as_a_batch_brings_it():
    data = load_data(f"{__name__}:padding_loaders", {"validation": 0})
    assert torch.equal(data.inputs(slice(0, N))["input_ids"], IDS * MASK)
    images = load_data(f"{__name__}:image_loaders", {"validation": 0})
    assert torch.equal(images.inputs(images.rows("train")), IMAGES[6:18])  # the sampler's share, and no more
    assert torch.equal(images.inputs(images.rows("test")), IMAGES)


def test_the_fingerprint_depends_on_every_tensor():
    first = load_data(f"{__name__}:pairs").fingerprint
    MASK[0, 0] = 0
    try:
        assert load_data(f"{__name__}:pairs").fingerprint != first
    finally:
        MASK[0, 0] = 1


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("uneven", r"item 1: expected input_ids \(1,\) int64 as in item 0, got input_ids \(2,\) int64"),
        ("streams", r"expected a map-style data set \(len and items\), got Stream"),
        ("without_label", "a mapping without labels or label or target or targets or y: input_ids"),
        ("with_text", r"item 0 \(text\): expected a tensor or an array of numbers, got str"),
    ],
)
def test_what_cannot_be_stacked_or_counted_is_refused(factory, message):
    data_arg = {"validation": 0}
    with pytest.raises(InputError, match=message):
        load_data(f"{__name__}:{factory}", data_arg).inputs(slice(None))


PROGRAM = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.fc, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        x = self.embedding(input_ids)
        x = F.relu(self.fc(x) + x)
        return self.head(x[:, 0])
"""


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The words of a command that names a network and data of two tensors."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(PROGRAM)
    torch.manual_seed(0)
    namespace: dict = {}
    exec(PROGRAM, namespace)
    torch.save(namespace["Net"]().state_dict(), "net.pt")
    return ["--model", "net.pt", "--arch", "net.py:Net", "--data", f"{__name__}:pairs", "--permute", 0.5]


def test_functions_are_listed_selected_and_extracted_under_the_fx_backend(words):
    assert "no layer matches 'add'" in run("layers", *words, "--layers", "add")[2]
    lines = done("layers", *words, "--backend", "fx", "--all").splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == ["embedding", "fc", "add", "relu", "getitem", "head"]
    fx = ["--backend", "fx", "--layers-regex", "fc|add|relu|embedding", "--batch-size", 7]
    done("extract", *words, *fx, "--out", "whole.h5")
    done("extract", *words, *fx, "--readout", "last-token", "--out", "last.h5")
    with open_activations("whole.h5") as whole, open_activations("last.h5") as last:
        everything = np.arange(len(whole.examples))
        a = {name: whole.rows(name, everything).reshape(-1, 5, 4) for name in whole.layers}
        np.testing.assert_array_equal(a["add"], a["fc"] + a["embedding"])
        np.testing.assert_array_equal(a["relu"], a["add"].clip(min=0))
        ends = MASK.numpy()[whole.examples["index"]].sum(1) - 1
        np.testing.assert_array_equal(last.rows("relu", everything), a["relu"][everything, ends])
        assert (last.layer("relu").readout, last.layer("relu").feature_shape) == ("last-token", (4,))
        assert last.provenance["backend"] == "fx"
        assert last.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--readout", "spatial-men"], "no readout 'spatial-men'; did you mean 'spatial-mean'"),
        (["--readout", "last-token", "--layers", "head"], "'last-token' needs layers of tokens x features"),
        (["--types", "Linaer"], "no type matches 'Linaer'; did you mean 'Linear'"),
        (["--layers-regex", "(fc"], "'(fc' is no regular expression"),
    ],
)
def test_a_mistaken_selection_is_one_line_and_exit_code_2(words, options, message):
    code, _, err = run("layers", *words, *options)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_types_and_readout_show_in_the_table(words):
    lines = done("layers", *words, "--types", "Linear,Embedding", "--exclude", "head", "--readout", "mean").splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == ["embedding", "fc"]
    assert all("4 (token-mean)" in line for line in lines[1:-1])


def test_named_inputs_that_a_network_does_not_take_are_named(words):
    Path("other.py").write_text(
        f"{PROGRAM}\n\nclass Other(Net):\n    def forward(self, image):\n        return image.mean()\n"
    )
    code, _, err = run("layers", *words[:2], "--arch", "other.py:Other", *words[4:])
    assert code == 3
    assert "does not take inputs of input_ids 5, attention_mask 5" in err


def test_a_batch_by_name_goes_to_a_device_together():
    batch = load_data(f"{__name__}:pairs").inputs([0, 1]).to("meta")
    assert {tensor.device.type for tensor in batch.values()} == {"meta"}

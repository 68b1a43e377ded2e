"""Inputs of foreign networks: of any number and type, images prepared as in their training, labels from any table."""

import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from manigeo import open_activations
from manigeo.errors import InputError, UsageError
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.data.label_files import read_labels
from manigeo_extract.recording.extraction import extract_activations, plan_extraction
from tests.command_line import done, run

N = 24
X = torch.linspace(-1, 1, N * 5).reshape(N, 5)
IDS = torch.arange(N * 5).reshape(N, 5) % 7
MASK = torch.arange(5) < 1 + torch.arange(N)[:, None] % 5
Y = torch.arange(N) % 3


class Items(Dataset):
    """Items that a function of the row gives, counted as they are read."""

    def __init__(self, item, n=N, **attributes):
        self.item, self.n, self.reads = item, n, 0
        vars(self).update(attributes)

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        self.reads += 1
        if row >= self.n:
            raise IndexError(row)
        return self.item(row)


def loaded(monkeypatch, train, test=None, **args):
    """The data set of a factory that returns these splits."""
    found = train if test is None else (train, test)
    monkeypatch.setattr("tests.test_foreign_inputs.factory", lambda: found, raising=False)
    return load_data("tests.test_foreign_inputs:factory", args)


# -------------------------------------------------------------------------------------- what a network is called with
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (IDS, torch.int64), (IDS.int(), torch.int64), (IDS.numpy().astype(np.int16), torch.int64), (IDS.byte(), torch.uint8),
        (MASK, torch.bool), (X, torch.float32), (X.double(), torch.float32), (X.bfloat16(), torch.float32),
        (X.half(), torch.float32), (IDS.tolist(), torch.int64),
    ],
)  # fmt: skip
def test_numbers_stay_of_the_kind_that_they_are(monkeypatch, values, dtype):
    data = loaded(monkeypatch, *[Items(lambda row: (values[row], int(Y[row])))] * 2)
    found = data.inputs(slice(0, N))
    assert found.dtype == dtype
    assert torch.equal(found, torch.as_tensor(values).to(dtype))


class Two(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.embed, self.head, self.run = nn.Embedding(7, 4), nn.Linear(4, 3), forward

    def pooled(self, ids, mask):
        return self.head((self.embed(ids) * mask[..., None].float()).sum(1))


class ByPlace(Two):
    def forward(self, ids, mask, scale=1.0):
        return self.pooled(ids, mask)


class AsTuple(Two):
    def forward(self, both):
        ids, mask = both
        assert isinstance(both, tuple)
        return self.pooled(ids, mask)


class ByName(Two):
    def forward(self, tokens, mask):
        return {"logits": self.pooled(tokens, mask)}


class AsMapping(Two):
    def forward(self, batch):
        return self.pooled(batch["tokens"], batch["mask"])


PLACED = (
    lambda r: ((IDS[r], MASK[r]), Y[r]),
    lambda r: (IDS[r], MASK[r], Y[r]),
    lambda r: [[IDS[r], MASK[r]], int(Y[r])],
)
NAMED = (
    lambda r: ({"tokens": IDS[r], "mask": MASK[r]}, Y[r]),
    lambda r: {"mask": MASK[r], "tokens": IDS[r], "label": Y[r]},
    lambda r: {"tokens": IDS[r], "target": int(Y[r]), "mask": MASK[r]},
)


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize(
    ("network", "item"),
    [(network, item) for item in PLACED for network in (ByPlace, AsTuple)]
    + [(network, item) for item in NAMED for network in (ByName, AsMapping)],
)
def test_several_inputs_reach_the_network_as_a_loop_would_give_them(monkeypatch, tmp_path, network, item, loader):
    torch.manual_seed(0)
    model = network(None)
    items = DataLoader(Items(item), batch_size=4, shuffle=True) if loader else Items(item)
    data = loaded(monkeypatch, items, items)
    assert data.labels.tolist() == Y.tolist() * 2
    plan = plan_extraction(model, data, permute_labels(data, Permutation()))
    extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=7)
    with open_activations(tmp_path / "a.h5") as acts, torch.no_grad():
        expected = model.pooled(IDS, MASK).numpy()[acts.examples["index"]]
        np.testing.assert_allclose(acts.rows("head", np.arange(len(acts.examples))), expected, atol=1e-6)
        assert "input" not in acts.layers  # token ids are names, not numbers
        assert set(acts.scores) == {"unpermuted", "test"}


def test_two_float_inputs_are_traced_by_fx(monkeypatch, tmp_path):
    (tmp_path / "both.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.a, self.b = nn.Linear(5, 4), nn.Linear(5, 4)\n"
        "    def forward(self, x, y): return torch.relu(self.a(x) + self.b(y))\n"
        "def net(): return Net()\n"
        "def data():\n"
        "    d = TensorDataset(torch.randn(12, 5), torch.randn(12, 5), torch.arange(12) % 3)\n    return d, d\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--weights", "init", "--arch", "both.py:net", "--data", "both.py:data", "--backend", "fx", "--layers", "*"]
    assert "relu" in done("extract", *words)


# ------------------------------------------------------------------------------------------------ labels without reading
def counting(n=930, **attributes):
    labels = torch.arange(n) % 3
    return Items(lambda row: (torch.ones(2) * row, int(labels[row])), n, targets=labels.tolist(), **attributes)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda items: items,
        lambda items: DataLoader(items, batch_size=32, shuffle=True),
        lambda items: Subset(items, range(len(items))),
        lambda items: ConcatDataset([Subset(items, range(400)), Subset(items, range(400, len(items)))]),
        lambda items: DataLoader(Subset(ConcatDataset([items]), range(len(items)))),
    ],
)
def test_labels_are_found_through_loaders_parts_and_joins_without_reading_items(monkeypatch, wrapped):
    items = counting(classes=["a", "b", "c"])
    test = TensorDataset(torch.zeros(6, 2), torch.arange(6) % 3)
    data = loaded(monkeypatch, wrapped(items), test)
    assert data.labels[data.rows("train")].tolist() == items.targets
    assert items.reads <= 130
    assert data.class_names == ("a", "b", "c")


def test_a_part_in_another_order_has_its_own_labels(monkeypatch):
    data = loaded(monkeypatch, Subset(counting(), [7, 3, 5, 0, 1, 2]), counting(9))
    assert data.labels[data.rows("train")].tolist() == [1, 0, 2, 0, 1, 2]


def test_labels_that_are_changed_on_the_way_are_changed_without_reading(monkeypatch):
    items = counting(target_transform=lambda label: 2 - label)
    items.item = lambda row: (torch.ones(2), 2 - row % 3)
    data = loaded(monkeypatch, items, counting(9))
    assert data.labels[data.rows("train")].tolist() == [2 - row % 3 for row in range(930)]
    assert items.reads <= 130


def test_labels_that_items_contradict_are_those_of_the_items(monkeypatch):
    items = counting(30)
    items.item = lambda row: (torch.ones(2), (row + 1) % 3)
    data = loaded(monkeypatch, items, counting(9))
    assert data.labels[data.rows("train")].tolist() == [(row + 1) % 3 for row in range(30)]


def test_a_pair_of_arrays_is_a_data_set(monkeypatch):
    data = loaded(monkeypatch, (X, Y), (X.numpy(), Y.numpy()))
    assert torch.equal(data.inputs(slice(N, None)), X)
    assert data.labels.tolist() == Y.tolist() * 2


def test_three_splits_have_their_order_and_val_is_a_test_where_there_is_no_other(monkeypatch):
    parts = [TensorDataset(X, Y), TensorDataset(X[:9], Y[:9]), TensorDataset(X[:6], Y[:6])]
    data = loaded(monkeypatch, tuple(parts))
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [N, 9, 6]
    data = loaded(monkeypatch, {"train": parts[0], "val": parts[1]})
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [N, 0, 9]


# ------------------------------------------------------------------------------------------------------ images prepared
@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Three classes of twelve training images of three channels, all different, and four for the test in ``val``."""
    root, rng = tmp_path_factory.mktemp("pictures") / "images", np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 4)):
        for name in ("ant", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{name}{i:03d}.png")
    return root


@pytest.fixture(params=["folder", "npz"])
def source(request, pictures, tmp_path) -> tuple[str, np.ndarray]:
    """The pictures as files and as arrays, and the pixels of the training images."""
    data = load_data(f"folder:{pictures}", {"standardise": "no", "scale": 1})
    pixels, train = data.inputs(slice(None)).numpy().astype(np.uint8), data.rows("train")
    if request.param == "folder":
        return f"folder:{pictures}", pixels[train]
    test = data.rows("test")
    arrays = {
        "x_train": pixels[train],
        "y_train": data.labels[train],
        "x_test": pixels[test],
        "y_test": data.labels[test],
    }
    np.savez(tmp_path / "a.npz", **arrays)
    return f"npz:{tmp_path / 'a.npz'}", pixels[train]


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"standardise": "no"}, lambda x: x / 255),
        ({"standardise": False}, lambda x: x / 255),
        ({"standardise": "no", "scale": 1}, lambda x: x),
        ({"mean": 0.5, "std": 0.5}, lambda x: (x / 255 - 0.5) / 0.5),
        ({"mean": MEAN, "std": STD}, lambda x: (x / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))),
        ({"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"},
         lambda x: (x / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))),
        ({"mean": [100, 110, 120], "scale": 1}, lambda x: x - np.reshape([100, 110, 120], (3, 1, 1))),
        ({"std": 0.25}, lambda x: x / 255 / 0.25),
    ],
)  # fmt: skip
def test_images_are_standardised_by_the_numbers_that_are_given(source, args, expected):
    spec, pixels = source
    data = load_data(spec, args)
    found = data.inputs(data.rows("train"))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected(pixels), rtol=1e-5, atol=1e-5)  # float32
    assert load_data(data.spec, data.args).preprocessing == data.preprocessing  # the stored args suffice


def test_a_size_is_the_same_of_files_and_of_arrays(source):
    spec, pixels = source
    found = load_data(spec, {"size": 9, "standardise": "no", "scale": 1}).inputs([0])[0].numpy()
    expected = Image.fromarray(pixels[0].transpose(1, 2, 0)).resize((9, 9), Image.Resampling.BILINEAR)
    assert np.abs(found - np.asarray(expected).transpose(2, 0, 1)).max() <= 1  # of 255: rounding of single channels


TRANSFORMS = """
import numpy as np, torch
def make():
    def crop(image):
        assert image.mode == "RGB"
        return torch.tensor(np.asarray(image)).permute(2, 0, 1)[:, 1:5, 1:5] / 255 - 0.5
    return crop
def random(): return lambda image: torch.rand(3, 4, 4)
def failing(): return lambda image: image.no_such_thing
def none(): return None
def broken(): raise RuntimeError("no weights")
def words(): return lambda image: np.array(["a"])
"""


@pytest.fixture
def transforms(tmp_path) -> str:
    (tmp_path / "transforms.py").write_text(TRANSFORMS)
    return str(tmp_path / "transforms.py")


def test_a_transform_of_the_user_prepares_each_image(source, transforms):
    spec, pixels = source
    data = load_data(spec, {"transform": f"{transforms}:make"})
    assert data.input_shape == (3, 4, 4)
    expected = pixels[:, :, 1:5, 1:5].astype(np.float32) / 255 - 0.5
    np.testing.assert_allclose(data.inputs(data.rows("train")).numpy(), expected, atol=1e-6)


def test_images_of_any_size_do_for_a_transform(pictures, tmp_path, transforms):
    root = tmp_path / "uneven"
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (6 + i, 7), (i, 20 * i, 0)).save(root / split / name / f"{i}.png")
    assert load_data(f"folder:{root}", {"transform": f"{transforms}:make"}).input_shape == (3, 4, 4)


def test_a_transform_that_a_file_names_is_not_run_until_the_user_names_it(pictures, transforms, tmp_path, monkeypatch):
    from manigeo_extract.files.checkpoints import save_checkpoint

    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))\n"
    )
    named = {"transform": f"{transforms}:make"}
    save_checkpoint("last.pt", model, data=f"folder:{pictures}", data_args=named, arch="net.py:make")
    code, _, err = run("extract", "--model", "last.pt", "--arch", "net.py:make")
    assert code == 2
    assert f"if you trust it, repeat --data-arg transform={transforms}:make" in err
    done("extract", "--model", "last.pt", "--arch", "net.py:make", "--data-arg", f"transform={transforms}:make")


# -------------------------------------------------------------------------------------------------- a split stays whole
def test_a_users_own_split_stays_whole_unless_asked(pictures, monkeypatch):
    assert len(load_data(f"folder:{pictures}").rows("train")) == 36
    assert len(loaded(monkeypatch, TensorDataset(X, Y), TensorDataset(X, Y)).rows("train")) == N
    data = load_data(f"folder:{pictures}", {"validation": 0.25})
    assert len(data.rows("validation")) == 9
    assert data.left_out == (
        "9 of 36 training examples are set apart for validation (--data-arg validation=0 takes them in)"
    )
    assert len(load_data(data.spec, data.args).rows("validation")) == 9  # as a recorded checkpoint says it


def test_val_beside_train_is_the_test_and_validation_beside_a_test(pictures, tmp_path):
    data = load_data(f"folder:{pictures}")
    assert (len(data.rows("validation")), len(data.rows("test"))) == (0, 12)
    assert "so val is the test" in data.notes[0]
    for split, origin in (("train", "train"), ("valid", "val"), ("test", "val")):
        (tmp_path / split).symlink_to(pictures / origin)
    data = load_data(f"folder:{tmp_path}")
    assert (len(data.rows("validation")), len(data.rows("test"))) == (12, 12)


# ------------------------------------------------------------------------------------------------------------- labels
def noisy(data) -> np.ndarray:
    labels = data.labels.copy()
    train = data.rows("train")
    labels[train[::4]] = (labels[train[::4]] + 1) % data.n_classes
    return labels


WAYS = {
    "index,train_label": lambda i, file, label, name: f"{i},{label}",
    "Unnamed: 0,label": lambda i, file, label, name: f"{i},{label}.0",
    "id,noisy_label": lambda i, file, label, name: f"{i},{name}",
    "example,label,noisy_label": lambda i, file, label, name: f"{i},0,{label}",
    "file,class": lambda i, file, label, name: f"{file},{name}",
    "Image Path,target": lambda i, file, label, name: f"{'/'.join(file.parts[-2:])},{label}",
    "filename,y": lambda i, file, label, name: f"{file.name},{label}",
    "id,class_name": lambda i, file, label, name: f"{file.stem},{name}",
    "image,given_label": lambda i, file, label, name: f"/elsewhere/train/{file.parts[-2]}/{file.name},{name}",
    "index,what": lambda i, file, label, name: f"{i},{name}",
    "label": lambda i, file, label, name: name,
    "true_label,noisy-label,index,file,split": lambda i, file, label, name: f"0,{label},{i},{file},train",
}


@pytest.mark.parametrize("header", WAYS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_labels_are_read_by_position_by_file_and_by_name(pictures, tmp_path, header, shuffled):
    if shuffled and header == "label":
        return  # such a table has an order and nothing else
    data = load_data(f"folder:{pictures}")
    labels, files, rows = noisy(data), data.files(), data.rows("train")
    order = np.random.default_rng(0).permutation(rows) if shuffled else rows
    lines = [WAYS[header](data.index[r], files[r], labels[r], data.class_names[labels[r]]) for r in order]
    (tmp_path / "labels.csv").write_text("\n".join([header, *lines]))
    table = read_labels(tmp_path / "labels.csv", data)
    assert (table["train_label"].to_numpy() == labels).all()
    assert (table["permuted"].to_numpy() == (labels != data.labels)).all()


def test_names_of_classes_that_are_numbers_are_names_but_in_a_run(tmp_path):
    for split in ("train", "test"):
        for name in ("1", "2", "10"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (4, 4), 10 * i).save(tmp_path / split / name / f"{i}.png")
    data = load_data(f"folder:{tmp_path}")
    assert data.class_names == ("1", "10", "2")
    for column, expected in (("label", 2), ("train_label", 2)):
        written = "2" if column == "train_label" else data.class_names[2]
        (tmp_path / "labels.csv").write_text(f"index,{column}\n0,{written}\n")
        assert read_labels(tmp_path / "labels.csv", data)["train_label"][0] == expected
    (tmp_path / "labels.csv").write_text("index,label\n0,10\n1,2\n")
    assert read_labels(tmp_path / "labels.csv", data)["train_label"][:2].tolist() == [1, 2]


def test_labels_of_examples_that_are_set_apart_are_passed_over_with_a_word(pictures, tmp_path):
    data = load_data(f"folder:{pictures}", {"validation": 0.25})
    (tmp_path / "labels.csv").write_text("index,train_label\n" + "\n".join(f"{i},1" for i in range(36)))
    told: list[str] = []
    table = read_labels(tmp_path / "labels.csv", data, told.append)
    assert (table["train_label"][data.rows("train")] == 1).all()
    assert (table["train_label"][data.rows("validation")] == data.labels[data.rows("validation")]).all()
    assert told == [
        "labels.csv: 9 of 36 labels are of examples that take no part; 9 of 36 training examples are set apart for "
        "validation (--data-arg validation=0 takes them in)"
    ]


def test_the_plan_says_how_many_examples_take_no_part_and_how_to_change_that(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(108, 3))\n"
    )
    words = ["--weights", "init", "--arch", "net.py:make", "--data", f"folder:{pictures}", "--dry-run"]
    assert "set apart" not in done("extract", *words)
    said = done("extract", *words, "--data-arg", "validation=0.25", "--per-class", 5)
    assert "30 examples" not in said
    assert "of 48, at most 5 per class and kind (--per-class)" in said
    assert "9 of 36 training examples are set apart for validation (--data-arg validation=0 takes them in)" in said


# ------------------------------------------------------------------------------------------------------ what is refused
@contextmanager
def refused(message, *said):
    """Refused in one line, under an exit code of its own: a command ends in no "unexpected ..." there."""
    with pytest.raises((UsageError, InputError), match=message) as error:
        yield
    assert error.value.exit_code in (2, 3)
    assert all(words in str(error.value) for words in said)
    assert "\n" not in str(error.value)


def test_the_tables_of_what_is_refused_hold_more_than_sixty_inputs():
    assert sum(map(len, (REFUSED, FACTORIES, PREPARATIONS, TABLES))) > 60


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], 0)])


def failing(row):
    raise KeyError("no such row")


PAIRS = TensorDataset(X, Y)
REFUSED = {
    "a generator": (((X[i], 0) for i in range(3)), r"got generator; make a list of its \(input, label\) pairs"),
    "a stream": (DataLoader(Stream()), "got Stream; make a list"),
    "a mapping for a split": ({"x": X, "y": Y}, r"expected a map-style data set .* got dict; make a list"),
    "a number": (3, "got int; make a list"),
    "nothing in it": ([], "expected examples, found none; return some, or leave this split out"),
    "inputs alone": ([X[0], X[1]], "item 0: .*one Tensor without a label; return"),
    "a text alone": (["a film"], "item 0: .*one str without a label"),
    "one value": ([(X[0],)], r"item 0: .*one tuple without a label; return \(input, label\)"),
    "an index behind": (Items(lambda r: (X[r], int(Y[r]), r)), "several could be the label; return"),
    "no label by name": ([{"tokens": IDS[0]}], "a mapping without labels or label .*tokens; give the label one of these"),
    "a label alone": ([{"label": 0}], "expected inputs beside the label, found none; return them"),
    "a label that is a text": ([(X[0], "cat"), (X[1], "dog")], "expected one whole number a label, got <U3"),
    "a label of probabilities": ([(X[0], Y[:3].float())], "expected one whole number a label, got float32 of shape"),
    "a label of fractions": ([(X[0], 0.5)], "expected one whole number a label, got float64"),
    "labels of several lengths": ([(X[0], Y[:2]), (X[1], Y[:3])], "expected one whole number a label"),
    "no label": ([(X[0], None)], "expected one whole number a label, got object"),
    "a label below 0": ([(X[0], -1)], "expected labels from 0 on, found -1"),
    "labels from 1000 on": ([(X[0], 1000)], "number the classes from 0 on, or give their names"),
    "arrays of two lengths": ((X, Y[:5]), "got 5 labels and 24 inputs; return arrays of equal length"),
    "targets of another length": (Items(lambda r: (X[r], 0), targets=[0, 1]), "got 2 labels and 24 inputs; make targets"),
    "a picture": ([(Image.new("L", (4, 4)), 0)], r"got Image; convert it in the data set \(a PIL image: transforms.ToTen"),
    "a text": ([("a film", 0)], "expected a tensor or an array of numbers, got str; convert it"),
    "complex numbers": ([(torch.ones(3, dtype=torch.complex64), 0)], "return complex numbers as two real ones"),
    "inputs of no even shape": ([([[1, 2], [3]], 0)], "expected a tensor or an array of numbers"),
    "a text among the inputs": ([({"x": X[0], "name": "a"}, 0)], r"\(name\): expected a tensor .*got str; convert it"),
    "inputs of several shapes": ([(X[0], 0), (X[0, :3], 1)], r"item 1: expected an input of shape \(5,\), got \(3,\)"),
    "inputs of several types": ([(X[0], 0), (IDS[0], 1)], "item 1: expected one tensor float32 as in item 0, got .*; pad"),
    "tokens of several lengths": ([({"a": IDS[0]}, 0), ({"a": IDS[0, :2]}, 1)], r"a \(5,\) int64 as in .*, got a \(2,\)"),
    "NaN": ([(X[0] * torch.nan, 0)], "item 0: expected finite inputs, found NaN"),
    "a failing item": (Items(failing), "item 0: expected .input, label., got KeyError: 'no such row'"),
    "an empty input": ([(X[0, :0], 0)], "expected inputs of one value or more"),
    "more labels than names": (Items(lambda r: (X[r], int(Y[r])), classes=["a"]), r"expected labels 0 to 0 \(1 classes\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_set_is_refused_in_one_line_with_a_remedy(monkeypatch, name):
    items, message = REFUSED[name]
    with refused(message, "tests.test_foreign_inputs:factory (train)"):
        loaded(monkeypatch, items, items)


FACTORIES = {
    "one data set": (PAIRS, "expected .train, test. or a mapping .*TensorDataset; return both, or one data set twice"),
    "four": ((PAIRS,) * 4, "expected .train, test. or a mapping .*tuple"),
    "unknown splits": (
        {"train": PAIRS, "holdout": PAIRS},
        "the splits train, test and perhaps validation, got train, hold",
    ),
    "train alone": ({"train": PAIRS}, "expected the splits train, test and perhaps validation, got train"),
    "other shapes in the test": (
        {"train": PAIRS, "test": TensorDataset(X[:, :2], Y)},
        r"\(test\): expected inputs \(5,\)",
    ),
    "other classes in the test": (
        {"train": PAIRS, "test": TensorDataset(X, Y + 9)},
        r"\(test\): expected labels 0 to 2",
    ),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_splits_that_do_not_go_together_are_refused(monkeypatch, name):
    found, message = FACTORIES[name]
    with refused(message):
        loaded(monkeypatch, found)


PREPARATIONS = {
    "mean=123": ({"mean": 123.0}, "pixels from 0 to 1, got mean=123.0; for pixels from 0 to 255 add scale=1"),
    "two means": ({"mean": [0.1, 0.2]}, r"expected mean as 1 or 3 numbers \(channels: 3\), got \[0.1, 0.2\]"),
    "no deviation": ({"std": 0}, "expected std as 1 or 3 positive numbers"),
    "a word": ({"mean": "imagenet"}, "expected mean as 1 or 3 numbers .* got 'imagenet'"),
    "scale": ({"scale": [1, 2]}, "expected scale as 1 positive numbers"),
    "maybe": ({"standardise": "maybe"}, "expected standardise=yes or standardise=no, got 'maybe'"),
    "size 0": ({"size": 0}, "expected size in pixels"),
    "size big": ({"size": "big"}, "expected size as a whole number from 0 on, got 'big'"),
    "misspelt": ({"standardize": "no"}, "has no arg 'standardize'; did you mean 'standardise'"),
    "no module": ({"transform": "no_such_module:make"}, "cannot import 'no_such_module'"),
    "no factory": ({"transform": "FILE:mak"}, "has no 'mak'; did you mean 'make'"),
    "no name": ({"transform": "crop"}, "expected 'package.module:name' or 'path/to/file.py:name', got 'crop'"),
    "random": ({"transform": "FILE:random"}, "gives other numbers each time: give that of evaluation"),
    "failing": ({"transform": "FILE:failing"}, "item 0: the transform .* failed on an image of Image: AttributeError"),
    "none": ({"transform": "FILE:none"}, "expected a function that returns the transform, it returned NoneType"),
    "broken": ({"transform": "FILE:broken"}, "the factory of the transform failed: RuntimeError: no weights"),
    "words": ({"transform": "FILE:words"}, "expected numbers of the transform .*end it in ToTensor"),
    "both": ({"transform": "FILE:make", "mean": 0.5, "size": 8}, "prepares the images itself; leave mean, size out"),
}


@pytest.mark.parametrize("name", PREPARATIONS)
def test_preparations_that_make_no_sense_are_refused(source, transforms, name):
    args, message = PREPARATIONS[name]
    args = {key: value.replace("FILE", transforms) if key == "transform" else value for key, value in args.items()}
    with refused(message):
        load_data(source[0], args)


TABLES = {
    "no columns of ours": ("a,b\n0,1", "it has a, b; name the column of labels train_label"),
    "nothing": ("", "is not a table of labels .*write a CSV file with the columns index and train_label"),
    "no label": ("index,split,true_label\n0,train,1", "it has index, split, true_label; name the column"),
    "twice": ("index,label\n0,1\n0,2", "every index stands once"),
    "a column twice": ("index,label,Label\n0,1,1", "has the column 'label' twice; keep one"),
    "beyond": ("index,label\n36,1", "example 36 is not among the 36 training examples and 3 classes"),
    "negative": ("index,label\n-1,1", "example -1 is not among the 36 training examples"),
    "a label beyond": (
        "index,label\n0,3",
        "label 3 is not among .*write numbers from 0 to 2, or names; there are: ant",
    ),
    "an unknown class": ("index,label\n0,ants", "label ants is not among .*did you mean 'ant'"),
    "an unknown file": (
        "file,label\nant00.png,1",
        "'ant00.png' is not among the 36 names of training images; did you mean",
    ),
    "a file of the test": ("file,label\nval/ant/other.png,1", "'val/ant/other.png' is not among the 36 names"),
    "too few in order": (
        "label\n1\n2",
        "has 2 labels without a column index or file, .*: add the column index",
    ),
    "no truth": ("index,label,permuted\n0,1,perhaps", "expected permuted as True or False, got 'perhaps'; write one"),
    "an empty label": ("index,label\n0,", "label  is not among"),
    "an empty name": ("file,label\n,1", "'' is not among"),
    "half a number": ("index,label\n0,0.5", "label 0.5 is not among"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_labels_that_are_not_of_the_data_are_refused(pictures, tmp_path, name):
    content, message = TABLES[name]
    (tmp_path / "labels.csv").write_text(content + "\n" * bool(content))
    with refused(message, str(tmp_path / "labels.csv")):
        read_labels(tmp_path / "labels.csv", load_data(f"folder:{pictures}"))


def test_a_file_that_may_be_several_is_refused_with_what_to_write(tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (4, 4), 10 * i).save(tmp_path / split / name / f"{i}.png")
    data = load_data(f"folder:{tmp_path}")
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n")
    with pytest.raises(InputError, match=r"may be any of 2 training images, such as .*write their folders, too"):
        read_labels(tmp_path / "labels.csv", data)
    (tmp_path / "labels.csv").write_text("file,label\nbee/0.png,0\n")
    assert read_labels(tmp_path / "labels.csv", data)["train_label"].tolist()[:4] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "folder:nowhere"], "expected a folder of images there, found none; check the path"),
        (["--data", "npz:nowhere.npz"], "expected an npz file there, found no file"),
        (["--data", "nowhere.py:data"], "no file 'nowhere.py'"),
        (["--data", "images"], "unknown data set 'images'"),
        (["--data", "digits", "--labels", "nowhere.csv"], "nowhere.csv is not a table of labels"),
        (["--data", "digits", "--data-arg", "size=16"], "does not take inputs of shape 1 x 16 x 16 from digits"),
        (["--data", "net.py:whole"], "whole numbers go in as they are: return floats where the network wants them"),
    ],
)
def test_foreign_inputs_that_are_wrong_end_in_one_line(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
        "def make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "def whole(): return (TensorDataset(torch.ones(20, 64).long(), torch.arange(20) % 10),) * 2\n"
    )
    code, out, err = run("extract", "--weights", "init", "--arch", "net.py:make", *words)
    assert code in (2, 3)
    assert len([line for line in err.splitlines() if not line.startswith("note")]) == 1
    assert re.search(re.escape(message), err)
    assert not out

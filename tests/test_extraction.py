import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from manigeo import open_activations
from manigeo.activations.merging import merge_activations
from manigeo.errors import InputError, UsageError
from manigeo.kinds import KINDS
from manigeo.manifolds import kind_examples
from manigeo_extract.data.datasets import DataSet, Permutation, load_data, permute_labels
from manigeo_extract.data.label_files import read_labels
from manigeo_extract.machine import this_machine
from manigeo_extract.models import build_model
from manigeo_extract.recording.extraction import _one_ahead, extract_activations, plan_extraction
from manigeo_extract.recording.sketching import CountSketch
from tests.killing import content


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load_data("digits", {"per_class": 30})


@pytest.fixture(scope="module")
def examples(data):
    return permute_labels(data, Permutation(0.5))


@pytest.fixture
def model(data) -> nn.Module:
    torch.manual_seed(0)
    return build_model("mlp", {"input_shape": data.input_shape, "n_classes": 10, "depth": 2, "width": 16})


def test_the_file_holds_what_the_network_computes_for_each_example(model, data, examples, tmp_path):
    plan = plan_extraction(model, data, examples)
    extract_activations(model, data, plan, tmp_path / "a.h5", {"epoch": 1}, batch_size=37)
    X = data.inputs(plan.rows)
    hidden = model.h1.linear(X.flatten(1))
    with open_activations(tmp_path / "a.h5") as acts, torch.no_grad():
        assert acts.layers == ("input", "h1.linear", "h2.linear", "logits")
        everything = np.arange(len(plan.rows))
        np.testing.assert_array_equal(acts.rows("input", everything), X.flatten(1).numpy())
        # another batch size adds up in another order: float32 rounding of sums of 64 terms
        np.testing.assert_allclose(acts.rows("h1.linear", everything), hidden.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(acts.rows("logits", everything), model(X).detach().numpy(), atol=1e-5)
        assert acts.layer("logits").aliases == ("output",)
        assert acts.layer("input").feature_shape == (1, 8, 8)
        assert acts.provenance["batch_size"] == 37


def test_rows_are_grouped_by_true_class_and_labels_follow_their_images(model, data, examples, tmp_path):
    plan = plan_extraction(model, data, examples)
    assert (np.diff(plan.examples["true_label"]) >= 0).all()
    expected = examples.iloc[plan.rows].reset_index(drop=True)
    extract_activations(model, data, plan, tmp_path / "a.h5", {})
    with open_activations(tmp_path / "a.h5") as acts:
        assert acts.examples.equals(expected)


def test_every_kind_gets_its_examples_of_every_class(model, data, examples):
    plan = plan_extraction(model, data, examples, per_class=8)
    for kind in KINDS:
        available = np.bincount(kind_examples(examples, kind)[1], minlength=10)
        planned = np.bincount(kind_examples(plan.examples, kind)[1], minlength=10)
        assert (planned >= np.minimum(available, 8)).all()
    test = kind_examples(plan.examples, "test")[1]
    assert np.bincount(test).tolist() == [8] * 10  # no kind shares its test images
    assert set(plan.examples["split"]) == {"train", "test"}


def test_the_choice_of_examples_depends_on_its_seed(model, data, examples):
    rows = [plan_extraction(model, data, examples, per_class=5, seed=seed).rows.tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_labels_of_a_users_own_loop_take_the_place_of_permuted_ones(data, examples, tmp_path):
    examples.to_csv(tmp_path / "all.csv", index=False)  # the labels.csv of a run
    assert read_labels(tmp_path / "all.csv", data).equals(examples)
    members = examples[examples["permuted"] & (examples["true_label"] != examples["train_label"])]
    members[["index", "train_label"]].to_csv(tmp_path / "few.csv", index=False)
    few = read_labels(tmp_path / "few.csv", data)
    assert few["train_label"].equals(examples["train_label"])
    assert few.index[few["permuted"]].tolist() == members.index.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n0,1\n", "not a table with the columns index and train_label, or file and label: it has a, b"),
        ("index,train_label\nFIRST,one\n", "label one is not among .* classes of digits: write numbers from 0 to 9"),
        ("index,train_label\n99999,1\n", "example 99999 is not among the 300 training examples"),
        ("index,train_label\nFIRST,10\n", "label 10 is not among the 300 training examples and 10 classes of digits"),
        ("index,train_label\nFIRST,1\nFIRST,2\n", "every index stands once"),
    ],
)
def test_labels_that_are_not_of_the_data_are_refused(data, tmp_path, content, message):
    (tmp_path / "labels.csv").write_text(content.replace("FIRST", str(data.index[0])))
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.csv", data)


class Poisoned(nn.Module):
    def __init__(self, n_fine: int):
        super().__init__()
        self.fine = nn.Linear(64, 4)
        self.bad = nn.Linear(4, 3)
        self.n_fine = n_fine
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        h = self.fine(x.flatten(1))
        return self.bad(h if self.calls <= self.n_fine else h * torch.nan)


def test_nan_activations_are_refused_by_layer_name_and_leave_no_file(data, examples, tmp_path):
    model = Poisoned(n_fine=2)  # the probe and the first batch are well
    plan = plan_extraction(model, data, examples)
    with pytest.raises(InputError, match="layer 'bad' has NaN or infinite activations"):
        extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=50)
    assert os.listdir(tmp_path) == []
    assert not model.bad._forward_hooks


def test_the_model_comes_back_in_the_mode_it_was_in(model, data, examples, tmp_path):
    model.train()
    extract_activations(model, data, plan_extraction(model, data, examples), tmp_path / "a.h5", {})
    assert all(module.training for module in model.modules())


def test_a_network_that_does_not_take_the_inputs_is_said_to_be_so(data, examples):
    with pytest.raises(InputError, match="does not take inputs of shape 1 x 8 x 8 from digits"):
        plan_extraction(nn.Linear(3, 2), data, examples)


def test_an_unknown_layer_names_near_ones(model, data, examples):
    with pytest.raises(UsageError, match=r"no layer matches 'h1\.lin'.*h1\.linear"):
        plan_extraction(model, data, examples, layers=["h1.lin"])


def test_fewer_than_two_examples_a_class_are_no_manifold(model, data, examples):
    with pytest.raises(UsageError, match="2 examples per class or more, got --per-class 1"):
        plan_extraction(model, data, examples, per_class=1)


def test_what_does_not_fit_on_the_disk_is_refused_before_writing(model, data, examples, tmp_path, monkeypatch):
    plan = plan_extraction(model, data, examples)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": plan.n_bytes - 1}))
    with pytest.raises(UsageError, match="take fewer layers"):
        extract_activations(model, data, plan, tmp_path / "a.h5", {})
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------- how they are stored
def test_wide_layers_are_projected_and_say_how(model, data, examples, tmp_path):
    plan = plan_extraction(model, data, examples, project=20, seed=3)
    extract_activations(model, data, plan, tmp_path / "a.h5", {})
    extract_activations(model, data, replace(plan, project=None), tmp_path / "whole.h5", {})
    with open_activations(tmp_path / "a.h5") as acts, open_activations(tmp_path / "whole.h5") as whole:
        everything = np.arange(len(plan.rows))
        said = acts.layer("input").projection
        assert said == {"kind": "count-sketch", "feature_shape": [1, 8, 8], "n_sums": 20, "seed": 3}
        sketch = CountSketch(64, said["n_sums"], layer="input", seed=said["seed"])  # made again from what the file says
        X = torch.from_numpy(whole.rows("input", everything))
        np.testing.assert_array_equal(acts.rows("input", everything), sketch(X).numpy())
        assert acts.layer("input").feature_shape == (20,)
        assert acts.layer("h1.linear").projection is None  # 16 features are fewer than 20
        np.testing.assert_array_equal(acts.rows("h1.linear", everything), whole.rows("h1.linear", everything))
        assert acts.fingerprint != whole.fingerprint
    assert plan.n_bytes == 4 * len(plan.rows) * (20 + 16 + 16 + 10)


def test_float16_is_half_as_large_and_rounded(model, data, examples, tmp_path):
    plan = plan_extraction(model, data, examples, dtype="float16")
    extract_activations(model, data, plan, tmp_path / "half.h5", {})
    extract_activations(model, data, replace(plan, dtype="float32"), tmp_path / "a.h5", {})
    assert plan.n_bytes == 2 * len(plan.rows) * (64 + 16 + 16 + 10)
    with open_activations(tmp_path / "half.h5") as half, open_activations(tmp_path / "a.h5") as acts:
        assert set(half.dtypes.values()) == {"float16"}
        assert half.fingerprint != acts.fingerprint
        everything = np.arange(len(plan.rows))
        for name in acts.layers:
            np.testing.assert_array_equal(half.rows(name, everything), acts.rows(name, everything).astype(np.float16))


@pytest.mark.parametrize(("scale", "reaches"), [(1e7, r"e\+0\d"), (1e-7, r"e-0[678]")])
def test_what_float16_cannot_hold_is_refused_by_layer_name(model, data, examples, tmp_path, scale, reaches):
    plan = plan_extraction(model, data, examples, dtype="float16")
    with torch.no_grad():
        model.h2.linear.weight.mul_(scale)
        model.h2.linear.bias.mul_(scale)
    with pytest.raises(
        InputError, match=rf"layer 'h2\.linear' reaches .*{reaches}, and float16 holds .*--dtype float32"
    ):
        extract_activations(model, data, plan, tmp_path / "a.h5", {})
    assert os.listdir(tmp_path) == []


def test_bfloat16_activations_are_stored_as_they_are(model, data, examples, tmp_path):
    model.to(torch.bfloat16)
    plan = plan_extraction(model, data, examples)
    extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=2000)
    X = data.inputs(plan.rows).to(torch.bfloat16)
    with open_activations(tmp_path / "a.h5") as acts, torch.no_grad():
        expected = model.h1.linear(X.flatten(1))
        assert expected.dtype == torch.bfloat16
        np.testing.assert_array_equal(acts.rows("h1.linear", np.arange(len(X))), expected.float().numpy())


# ------------------------------------------------------------------------------------------------ interrupted, in parts
class Fickle(nn.Module):
    """A network whose numbers depend on which others are in the batch, as rounding makes those of any network."""

    def __init__(self, stops: int | None = None):
        super().__init__()
        self.body, self.stops, self.calls = nn.Linear(64, 5), stops, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == self.stops:
            raise KeyboardInterrupt
        x = x.flatten(1)
        return self.body(x + x.mean(0))


def fickle(stops=None) -> nn.Module:
    torch.manual_seed(0)
    return Fickle(stops)


def rows_of(path, layer="body"):
    with open_activations(path) as acts:
        return acts.rows(layer, np.arange(len(acts.examples)))


def test_an_interrupted_extraction_goes_on_among_the_same_batches(data, examples, tmp_path):
    plan = plan_extraction(fickle(), data, examples)
    extract_activations(fickle(), data, plan, tmp_path / "quiet.h5", {}, batch_size=37)
    with pytest.raises(KeyboardInterrupt):
        extract_activations(fickle(stops=5), data, plan, tmp_path / "a.h5", {}, batch_size=37)
    model = fickle()
    extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=37, resume=True)
    assert model.calls == -(-len(plan.rows) // 37) - 4  # the first four are there
    assert content(tmp_path / "a.h5") == content(tmp_path / "quiet.h5")


def test_a_shard_has_the_numbers_of_the_whole(data, examples, tmp_path):
    plan = plan_extraction(fickle(), data, examples)
    extract_activations(fickle(), data, plan, tmp_path / "whole.h5", {}, batch_size=37)
    paths = [tmp_path / f"{number}.h5" for number in (1, 2, 3)]
    for number, path in enumerate(paths, start=1):
        extract_activations(fickle(), data, plan, path, {}, batch_size=37, shard=(number, 3))
    merge_activations(paths, tmp_path / "merged.h5")
    np.testing.assert_array_equal(rows_of(tmp_path / "merged.h5"), rows_of(tmp_path / "whole.h5"))


class Hungry(nn.Module):
    def __init__(self, most: int):
        super().__init__()
        self.body, self.most = nn.Linear(64, 5), most

    def forward(self, x):
        if len(x) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return self.body(x.flatten(1))


def test_where_memory_runs_out_the_same_activations_are_stored_and_the_file_says_so(data, examples, tmp_path):
    told: list[str] = []
    torch.manual_seed(0)
    model = Hungry(30)
    plan = plan_extraction(model, data, examples)
    extract_activations(model, data, plan, tmp_path / "a.h5", {}, batch_size=100, tell=told.append)
    model.most = 1000
    extract_activations(model, data, plan, tmp_path / "b.h5", {}, batch_size=100)
    np.testing.assert_allclose(
        rows_of(tmp_path / "a.h5"), rows_of(tmp_path / "b.h5"), atol=1e-5
    )  # another order of sums
    with open_activations(tmp_path / "a.h5") as small, open_activations(tmp_path / "b.h5") as large:
        assert (small.smallest_batch, large.smallest_batch) == (25, None)
        assert small.fingerprint == large.fingerprint
    assert told == ["memory is short: batches go through the network 25 examples at a time"]


@pytest.mark.parametrize("asked", [False, True])
def test_tf32_is_on_where_it_is_asked_for_and_then_as_it_was(data, examples, tmp_path, asked):
    seen = []

    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(64, 5)

        def forward(self, x):
            seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return self.body(x.flatten(1))

    model, before = Looking(), (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    plan = plan_extraction(model, data, examples)
    seen.clear()
    extract_activations(model, data, plan, tmp_path / "a.h5", {}, tf32=asked)
    assert set(seen) == {(asked, asked)}
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    with open_activations(tmp_path / "a.h5") as acts:
        assert acts.provenance["tf32"] is asked


def test_a_file_says_what_machine_computed_it_and_is_the_same_from_any(model, data, examples, tmp_path, monkeypatch):
    plan = plan_extraction(model, data, examples)
    another = {"cpu_capability": "ANOTHER", "threads": 99, "blas": "another 1.0"}
    extract_activations(model, data, plan, tmp_path / "here.h5", {})
    monkeypatch.setattr("manigeo_extract.recording.extraction.this_machine", lambda: another)
    extract_activations(model, data, plan, tmp_path / "there.h5", {})
    with open_activations(tmp_path / "here.h5") as here, open_activations(tmp_path / "there.h5") as there:
        assert here.provenance["machine"] == this_machine()
        assert there.provenance["machine"] == another
        assert here.fingerprint == there.fingerprint


# ------------------------------------------------------------------------------------------------------------- at size
def test_one_batch_is_written_while_the_next_is_computed_and_no_more_wait():
    done, gates = [], [threading.Event() for _ in range(10)]

    def slow(item):
        assert gates[item].wait(60)
        done.append(item)

    with _one_ahead(slow) as start:
        for item, gate in enumerate(gates):
            start(item)  # returns while it is written, when the one before has been
            assert done == list(range(item))
            gate.set()
    assert done == list(range(10))


def test_what_goes_wrong_in_writing_a_batch_ends_the_work_at_the_next():
    def fails(item):
        raise OSError("the disk is full")

    with _one_ahead(fails) as start:
        start(0)
        with pytest.raises(OSError, match="the disk is full"):
            start(1)


PEAK = """
import resource, sys
import numpy as np, pandas as pd, torch
from manigeo_extract.recording.extraction import ExtractionPlan, extract_activations
from manigeo_extract.recording.layers import list_layers
from manigeo_extract.models import build_model

class Endless:
    spec, class_names = "endless", tuple(map(str, range(10)))
    def inputs(self, rows):
        return torch.randn(len(rows), 3, 16, 16, generator=torch.Generator().manual_seed(int(rows[0])))

n = int(sys.argv[1])
labels = np.sort(np.arange(n) % 10)
examples = pd.DataFrame(
    {"index": np.arange(n), "split": "test", "true_label": labels, "train_label": labels, "permuted": False}
)
model = build_model("cnn", {"input_shape": (3, 16, 16), "n_classes": 10, "blocks": 1, "width": 8})
data = Endless()
plan = ExtractionPlan(np.arange(n), examples, tuple(list_layers(model, data.inputs([0, 1]))), project=1000)
extract_activations(model, data, plan, sys.argv[2], {}, batch_size=128, force=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.long
def test_peak_memory_is_the_same_for_1000_and_20000_examples(tmp_path):
    peaks = {}
    for n in (1000, 20_000):
        words = [sys.executable, "-c", PEAK, str(n), str(tmp_path / "a.h5")]
        peaks[n] = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert peaks[20_000] < 1.1 * peaks[1000]

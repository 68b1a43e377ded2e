"""How layers are stored: filters chosen by what they hold, chunks that HDF5 reads as its own, and the memory of a batch."""

import io
import os

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from manigeo import open_activations
from manigeo.activations import Filter, filters
from manigeo.activations.filters import NONE, choose_filter, filter_of, fletcher32, write_batch
from manigeo.activations.merging import merge_activations
from manigeo.errors import UsageError
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.recording.extraction import ExtractionPlan, extract_activations, plan_extraction
from manigeo_extract.recording.layers import Layer
from tests.command_line import done, run
from tests.killing import content

FILTERS = [Filter(method, shuffle) for method in ("none", "isal", "gzip") for shuffle in (False, True)]


def sparse(zeros: float, shape=(300, 500), dtype="float32") -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.where(rng.random(shape) < zeros, 0, rng.standard_normal(shape)).astype(dtype)


def check_checksum(data: bytes) -> None:
    file = io.BytesIO()
    with h5py.File(file, "w") as store:
        values = np.frombuffer(data, np.uint8)
        dataset = store.create_dataset("x", data=values, chunks=values.shape, fletcher32=True)
        stored = dataset.id.read_direct_chunk((0,))[1]
    assert fletcher32(data) == int.from_bytes(stored[-4:], "little")


@given(st.binary(min_size=1, max_size=3000) | st.integers(1, 3000).map(lambda n: b"\xff" * n))
def test_the_checksum_of_a_chunk_is_that_of_hdf5(data):
    check_checksum(data)


@pytest.mark.parametrize("n", [1 << 16, (1 << 16) + 1, 3_200_000, 20_000_001])  # a row of a large image is one chunk
def test_the_checksum_of_a_large_chunk_is_that_of_hdf5_too(n):
    check_checksum(np.random.default_rng(0).integers(256, size=n, dtype=np.uint8).tobytes())
    check_checksum(b"\xff" * n)


@given(
    by=st.sampled_from(FILTERS),
    cuts=st.lists(st.integers(1, 99), unique=True, max_size=5).map(sorted),
    chunk=st.integers(1, 30),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_rows_are_read_by_hdf5_as_they_were_written_in_any_pieces(by, cuts, chunk, dtype):
    values, file = sparse(0.6, (100, 7), dtype), io.BytesIO()
    with h5py.File(file, "w") as store:
        dataset = store.create_dataset("x", values.shape, dtype, chunks=(chunk, 7), fletcher32=True, **by.settings)
        dataset.attrs["packed_by"] = by.method
        for start, stop in zip([0, *cuts], [*cuts, 100], strict=True):
            write_batch({"x": dataset}, start, {"x": values[start:stop]}, {"x": filter_of(dataset)})
    with h5py.File(file, "r") as store:
        np.testing.assert_array_equal(store["x"][:], values)


def test_dense_layers_are_stored_as_they_are_and_sparse_ones_deflated():
    assert choose_filter(sparse(0.0)) == NONE
    assert {choose_filter(sparse(zeros)) for zeros in (0.3, 0.5, 0.8, 0.95)} == {Filter("isal", False)}
    assert choose_filter(np.zeros((4, 900), np.float32)).method == "isal"
    assert choose_filter(sparse(0.9), "none") == NONE
    assert choose_filter(sparse(0.0), "small") != NONE
    repeated = np.tile(sparse(0.0, (4, 20)), 40)  # no zeros, and the same numbers again and again
    assert choose_filter(repeated).method == "isal"
    assert choose_filter(np.empty((0, 5), np.float32)) == choose_filter(np.empty((5, 0), np.float32)) == NONE


def test_an_unknown_compression_is_refused_with_all_there_are():
    with pytest.raises(UsageError, match="compression must be one of none, fast, small; got 'lzma'"):
        choose_filter(sparse(0.5), "lzma")


# ------------------------------------------------------------------------------------------------------- an extraction
@pytest.fixture(scope="module")
def data():
    return load_data("digits", {"validation": 0})


@pytest.fixture(scope="module")
def examples(data):
    return permute_labels(data, Permutation())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 700), nn.ReLU(), nn.Linear(700, 10))


def stored_bytes(path) -> dict[str, int]:
    with h5py.File(path) as file:
        return {name: dataset.id.get_storage_size() for name, dataset in file["layers"].items()}


def test_a_sparse_layer_is_no_larger_than_with_gzip_and_shuffle(data, examples, tmp_path, monkeypatch):
    plan = plan_extraction(network(), data, examples, layers=["*"])
    for compression in ("none", "fast", "small"):
        extract_activations(network(), data, plan, tmp_path / compression, {}, compression=compression)
    monkeypatch.setattr(filters, "choose_filter", lambda rows, compression: filters.DEFAULT)
    extract_activations(network(), data, plan, tmp_path / "before", {})
    found = {path.name: stored_bytes(path) for path in tmp_path.iterdir()}
    assert found["fast"]["2"] < found["before"]["2"]
    assert found["small"]["1"] <= found["before"]["1"] < found["fast"]["1"]
    assert found["fast"]["1"] < found["none"]["1"] * 1.01
    with open_activations(tmp_path / "none") as plain:
        rows = np.arange(len(plan.rows))
        for name in ("fast", "small", "before"):
            with open_activations(tmp_path / name) as acts:
                assert acts.fingerprint == plain.fingerprint  # how it is stored is not what it is
                for layer in plain.layers:
                    np.testing.assert_array_equal(acts.rows(layer, rows), plain.rows(layer, rows))


class Stops(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.net, self.left = network(), at

    def forward(self, x):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.net(x)


@pytest.mark.parametrize("compression", ["none", "fast", "small"])
def test_a_resumed_extraction_of_sparse_layers_has_the_same_bytes(data, examples, tmp_path, compression):
    plan = plan_extraction(Stops(-1), data, examples, layers=["*"])
    settings = {"batch_size": 100, "compression": compression}
    extract_activations(Stops(-1), data, plan, tmp_path / "quiet.h5", {}, **settings)
    with pytest.raises(KeyboardInterrupt):
        extract_activations(Stops(4), data, plan, tmp_path / "a.h5", {}, **settings)
    extract_activations(Stops(-1), data, plan, tmp_path / "a.h5", {}, resume=True, **settings)
    assert content(tmp_path / "a.h5") == content(tmp_path / "quiet.h5")


def test_shards_of_sparse_layers_merge_to_the_whole(data, examples, tmp_path):
    plan = plan_extraction(network(), data, examples, layers=["*"])
    extract_activations(network(), data, plan, tmp_path / "whole.h5", {}, batch_size=90)
    parts = [tmp_path / f"{number}.h5" for number in (1, 2, 3)]
    for number, path in enumerate(parts, 1):
        extract_activations(network(), data, plan, path, {}, batch_size=90, shard=(number, 3))
    merge_activations(parts, tmp_path / "merged.h5")
    with open_activations(tmp_path / "whole.h5") as whole, open_activations(tmp_path / "merged.h5") as merged:
        assert merged.filters == whole.filters
        for layer in whole.layers:
            rows = np.arange(len(plan.rows))
            np.testing.assert_array_equal(merged.rows(layer, rows), whole.rows(layer, rows))


def test_what_fails_while_it_is_written_is_raised_and_leaves_what_was_done(data, examples, tmp_path, monkeypatch):
    plan, calls = plan_extraction(network(), data, examples), []

    def full(*args):
        calls.append(args)
        if len(calls) > 2:
            raise OSError("No space left on device")
        write_batch(*args)

    monkeypatch.setattr("manigeo.activations.writing.write_batch", full)
    with pytest.raises(OSError, match="No space left"):
        extract_activations(network(), data, plan, tmp_path / "a.h5", {}, batch_size=50)
    assert sorted(os.listdir(tmp_path)) == ["a.h5.partial", "a.h5.partial.commit"]


# ------------------------------------------------------------------------------------------------------------- memory
def plan_of(n_features: int, n: int = 1000) -> ExtractionPlan:
    layer = Layer("conv", "Conv2d", 0, 0, (n_features,), (), leaf=True, parameters=1)
    return ExtractionPlan(np.arange(n), pd.DataFrame(), (layer,))


@pytest.mark.parametrize(
    ("n_features", "asked", "memory", "size"),
    [
        (1000, None, None, 256),
        (5_100_000, None, None, 29),  # ResNet-18 at 224 px: 17 GB in batches of 256
        (5_100_000, 100, None, 100),
        (5_100_000, 100, 1e9, 14),
        (10, 100, 1e9, 100),
        (10**9, None, None, 1),
    ],
)
def test_a_batch_is_as_large_as_its_memory_allows(n_features, asked, memory, size):
    assert plan_of(n_features).batch_size(asked, memory) == size


def test_memory_for_less_than_an_example_is_refused():
    with pytest.raises(
        UsageError, match=r"one example of these layers needs about 0.0132 GB, more than --max-memory 0.001"
    ):
        plan_of(10**6).batch_size(None, 1e6)


def test_the_plan_says_the_memory_and_the_file_the_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["extract", "--weights", "init", "--arch", "mlp", "--data", "digits"]
    assert "of memory in batches of 256 (--max-memory)" in done(*words, "--dry-run")
    assert "of memory in batches of 24 (--max-memory)" in done(*words, "--max-memory", 0.001)
    with open_activations("acts.h5") as acts:
        assert acts.provenance["batch_size"] == 24
    code, _, err = run(*words, "--max-memory", 1e-6, "--force")
    assert code == 2
    assert "take fewer layers (--layers), or allow more" in err

"""Data sets and permuted labels: what the example table promises, and what each reader does with good and bad files."""

import dataclasses
import gzip
import io
import math
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from manigeo.errors import InputError, UsageError
from manigeo_extract.data import glyphs
from manigeo_extract.data.datasets import (
    CONVENTIONS,
    DataSet,
    Permutation,
    describe,
    load_data,
    permute_labels,
    runs_code,
)
from manigeo_extract.data.lazy import IMAGE_FORMATS, IMAGE_SUFFIXES
from tests.reference import shared

SMALL = {"classes": 4, "train": 6, "validation": 2, "test": 3}
fractions = st.floats(0, 1)
seeds = st.integers(0, 2**32)
conventions = st.sampled_from(sorted(CONVENTIONS))
quick = settings(max_examples=30, deadline=None)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def images(n: int, channels: int = 3, size: int = 32) -> np.ndarray:
    return rng().integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def write_npz(path: Path, **changes: np.ndarray) -> str:
    labels = np.repeat(np.arange(5), [40, 30, 20, 9, 1])
    arrays: dict[str, Any] = {
        "x_train": images(100, size=4).transpose(0, 2, 3, 1),
        "y_train": labels,
        "x_test": images(20, size=4).transpose(0, 2, 3, 1) // 2,
        "y_test": np.arange(20) % 5,
    }
    np.savez(path, **(arrays | changes))
    return f"npz:{path}"


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Five classes of 1 to 40 examples."""
    return load_data(write_npz(tmp_path_factory.mktemp("npz") / "uneven.npz"), {"validation": 0.1})


@pytest.fixture(scope="module")
def many() -> DataSet:
    return load_data("glyphs", {"classes": 10, "train": 300, "validation": 1, "test": 1, "size": 8})


# ----------------------------------------------------------------------------------------------------- permuted labels
@quick
@given(fractions, conventions, seeds)
def test_the_permuted_share_is_rounded_and_lies_in_the_training_set(uneven, fraction, convention, seed):
    table = permute_labels(uneven, Permutation(fraction, convention, seed))
    n_train = len(uneven.rows("train"))
    assert table["permuted"].sum() == round(fraction * n_train)
    assert set(table["split"][table["permuted"]]) <= {"train"}
    untouched = table[~table["permuted"]]
    assert (untouched["true_label"] == untouched["train_label"]).all()
    assert (table["true_label"] == uneven.labels).all()
    assert (table["index"] == uneven.index).all()


@quick
@given(fractions, seeds)
def test_permutation_keeps_the_class_counts_within_the_permuted_examples(uneven, fraction, seed):
    table = permute_labels(uneven, Permutation(fraction, "permutation", seed))
    members = table[table["permuted"]]
    assert sorted(members["true_label"]) == sorted(members["train_label"])


@quick
@given(fractions, seeds)
def test_a_derangement_never_gives_the_true_label(uneven, fraction, seed):
    table = permute_labels(uneven, Permutation(fraction, "derangement", seed))
    assert ((table["true_label"] != table["train_label"]) == table["permuted"]).all()
    assert table["train_label"].between(0, uneven.n_classes - 1).all()


def test_a_derangement_reaches_every_other_class_equally(many):
    table = permute_labels(many, Permutation(1.0, "derangement"))
    members = table[table["permuted"]]
    counts = np.zeros((10, 10))
    np.add.at(counts, (members["true_label"], members["train_label"]), 1)
    assert (np.diag(counts) == 0).all()
    others = counts[~np.eye(10, dtype=bool)]
    # 90 cells, each binomial(300, 1/9): five standard deviations are passed by chance once in 20,000 such tables
    assert np.abs(others - 300 / 9).max() < 5 * math.sqrt(300 / 9 * 8 / 9)


@pytest.mark.parametrize("convention", ["uniform", "permutation"])
def test_about_one_in_c_of_the_permuted_keep_their_label(many, convention):
    table = permute_labels(many, Permutation(1.0, convention))
    unchanged = (table["true_label"] == table["train_label"])[table["permuted"]].sum()
    # binomial(3000, 1/10) for uniform, and to 1/n the same for a permutation: five standard deviations
    assert abs(unchanged - 300) < 5 * math.sqrt(3000 * 0.1 * 0.9)


def test_uniform_labels_come_from_all_classes_equally(many):
    table = permute_labels(many, Permutation(1.0, "uniform"))
    counts = np.bincount(table["train_label"][table["permuted"]], minlength=10)
    assert (counts != 300).any()  # a permutation would keep them
    assert np.abs(counts - 300).max() < 5 * math.sqrt(3000 * 0.1 * 0.9)


@quick
@given(conventions, seeds)
def test_a_seed_fixes_the_labels_and_another_seed_gives_others(many, convention, seed):
    tables = [permute_labels(many, Permutation(0.5, convention, s)) for s in (seed, seed, seed + 1)]
    assert tables[0].equals(tables[1])
    assert not (tables[0]["permuted"] == tables[2]["permuted"]).all()
    members = tables[0]["permuted"] & tables[2]["permuted"]
    others = (tables[0]["train_label"] != tables[2]["train_label"])[members].any()
    assert others == (convention != "pairs")  # which leaves nothing to chance but the members


@quick
@given(fractions, fractions, seeds)
def test_a_smaller_fraction_permutes_a_subset_the_same_in_all_conventions(uneven, a, b, seed):
    smaller, larger = (permute_labels(uneven, Permutation(f, "uniform", seed))["permuted"] for f in sorted((a, b)))
    assert not (smaller & ~larger).any()
    assert (larger == permute_labels(uneven, Permutation(max(a, b), "derangement", seed))["permuted"]).all()


def test_the_permuted_set_is_drawn_evenly_over_the_training_set(uneven):
    n_train, draws = len(uneven.rows("train")), 400
    tables = [permute_labels(uneven, Permutation(0.3, seed=seed)) for seed in range(draws)]
    hits = np.sum([table["permuted"] for table in tables], axis=0)
    share = round(0.3 * n_train) / n_train
    # n_train binomial(400, share) counts: five standard deviations
    assert np.abs(hits[:n_train] - draws * share).max() < 5 * math.sqrt(draws * share * (1 - share))


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(UsageError, match="fraction from 0 to 1, got"):
        Permutation(fraction)


def test_an_unknown_convention_is_refused_with_near_names():
    with pytest.raises(UsageError, match="'permutations'; did you mean 'permutation'"):
        Permutation(0.5, "permutations")


def test_a_negative_permutation_seed_is_refused():
    with pytest.raises(UsageError, match="seed from 0 on, got -1"):
        Permutation(0.5, seed=-1)


def test_a_single_class_has_no_derangement(tmp_path):
    arrays = {"y_train": np.zeros(100, int), "y_test": np.zeros(20, int)}
    data = load_data(write_npz(tmp_path / "one.npz", **arrays))
    with pytest.raises(UsageError, match="two classes or more"):
        permute_labels(data, Permutation(0.5, "derangement"))


def test_a_permutation_goes_through_a_dictionary_unchanged():
    permutation = Permutation(0.25, "uniform", 7)
    assert Permutation(**dataclasses.asdict(permutation)) == permutation


def test_the_description_counts_splits_permuted_labels_and_class_sizes():
    data = load_data("glyphs", SMALL)
    text = describe(data, permute_labels(data, Permutation(0.5, "derangement")))
    assert "44 examples (train 24, validation 8, test 12), 4 classes, inputs 1 x 20 x 20" in text
    assert "12 of 24 training examples, 12 of them got another label" in text
    assert "unpermuted " in text
    assert "restored " in text
    assert "test 3 to 3" in text


# -------------------------------------------------------------------------------------------------------------- glyphs
@pytest.mark.installed
def test_glyphs_are_a_hundred_characters_of_the_sizes_asked_for():
    assert len(set(glyphs.CHARACTERS)) == 100
    assert glyphs.CHARACTERS.startswith("0123456789ABC")
    data = load_data("glyphs", {**SMALL, "classes": 100, "train": 2})
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [200, 200, 300]
    assert data.input_shape == (1, 20, 20)
    assert data.n_classes == 100
    assert (np.bincount(data.labels[data.rows("train")]) == 2).all()


def test_a_seed_fixes_the_glyphs_bit_for_bit_also_in_another_process():
    first, second, other = (load_data("glyphs", {**SMALL, "seed": seed}) for seed in (3, 3, 4))
    rows = np.arange(len(first.labels))
    assert first.inputs(rows).numpy().tobytes() == second.inputs(rows).numpy().tobytes()
    assert first.fingerprint == second.fingerprint != other.fingerprint
    code = f"from manigeo_extract.data.datasets import load_data; print(load_data('glyphs', {first.args}).fingerprint)"
    paths = {"PYTHONPATH": f"{Path(glyphs.__file__).parents[1]}:{Path(__file__).parents[1]}"}
    printed = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == first.fingerprint


def test_glyphs_of_one_split_do_not_depend_on_the_size_of_another():
    few, more = (load_data("glyphs", {**SMALL, "train": n}) for n in (2, 9))
    few_test, more_test = (data.inputs(data.rows("test")) * data.preprocessing["std"][0] for data in (few, more))
    shift = (few.preprocessing["mean"][0] - more.preprocessing["mean"][0]) * torch.ones(())
    assert torch.allclose(few_test + shift, more_test, atol=1e-5)  # float32 of numbers up to 5


def test_glyphs_lie_whole_and_central_on_their_image(monkeypatch):
    monkeypatch.setattr(glyphs, "NOISE", 0.0)
    small = glyphs.render_glyphs(glyphs.CHARACTERS, 5, size=20, rng=rng())[:, 0]
    assert small.sum(axis=(1, 2)).min() > 5  # ink of the thinnest i is about 12 pixels
    border = np.concatenate([small[:, [0, -1]].reshape(500, -1), small[:, :, [0, -1]].reshape(500, -1)], axis=1)
    # only the widest bold capitals reach the border: 16 pixels of W on 20, turned and shifted
    assert (border.sum(axis=1) > 0.5).mean() < 0.05
    ink = small.sum(axis=(1, 2))
    centres = [(small.sum(axis=axis) * np.arange(20)).sum(axis=1) / ink for axis in (1, 2)]
    assert np.abs(np.mean(centres, axis=1) - 9.5).max() < 0.5  # shifts average to 0; letters are not quite symmetric


def test_no_part_of_a_glyph_is_lost_when_it_is_drawn():
    font = glyphs._font("DejaVuSans", 17)
    for character in glyphs.CHARACTERS:
        tight, wide = (glyphs._glyph(character, font, size, 0.0, np.zeros(2)).sum() for size in (20, 60))
        assert tight == pytest.approx(wide, rel=1e-3)  # both round to 1/255 a pixel


# ------------------------------------------------------------------------------------------------- what all sources do
def test_training_inputs_have_mean_0_and_deviation_1_per_channel(uneven):
    x = uneven.inputs(uneven.rows("train"))
    assert x.dtype == torch.float32
    assert x.shape[1:] == uneven.input_shape == (3, 4, 4)
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)  # float32, 1500 numbers a channel
    assert torch.allclose(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    test = uneven.inputs(uneven.rows("test"))
    assert test.mean() < -0.5  # darker by half, standardised by the constants of the training set


def test_inputs_belong_to_their_rows_in_any_order(uneven, tmp_path):
    everything = uneven.inputs(range(len(uneven.labels)))
    rows = rng().permutation(len(uneven.labels))[:50]
    assert torch.equal(uneven.inputs(rows), everything[rows])
    raw = {"train": images(100, size=4), "validation": images(100, size=4), "test": images(20, size=4) // 2}
    mean, std = (np.reshape(uneven.preprocessing[name], (3, 1, 1)) for name in ("mean", "std"))
    for row in (0, 30, len(uneven.rows("train")), len(uneven.labels) - 1):
        expected = (raw[uneven.split[row]][uneven.index[row]] / 255 - mean) / std
        assert np.allclose(everything[row].numpy(), expected, atol=1e-5)


def test_validation_is_a_stratified_share_of_the_training_examples(uneven):
    assert np.bincount(uneven.labels[uneven.rows("validation")], minlength=5).tolist() == [4, 3, 2, 1, 0]
    assert np.bincount(uneven.labels[uneven.rows("train")], minlength=5).tolist() == [36, 27, 18, 8, 1]
    positions = np.concatenate([uneven.index[uneven.rows(split)] for split in ("train", "validation")])
    assert sorted(positions) == list(range(100))
    assert uneven.split.tolist() == ["train"] * 90 + ["validation"] * 10 + ["test"] * 20


def test_no_validation_is_set_apart_for_a_share_of_0(tmp_path):
    data = load_data(write_npz(tmp_path / "a.npz"), {"validation": 0})
    assert len(data.rows("validation")) == 0
    assert len(data.rows("train")) == 100


def test_per_class_limits_the_training_examples_alone(tmp_path):
    spec = write_npz(tmp_path / "a.npz")
    data, again, other = (load_data(spec, {"per_class": 10, "validation": 0.1, "seed": seed}) for seed in (0, 0, 1))
    assert np.bincount(data.labels[data.rows("train")]).tolist() == [10, 10, 10, 8, 1]
    assert len(data.rows("test")) == 20
    assert (data.index == again.index).all()
    assert not np.array_equal(data.index, other.index)


@pytest.mark.parametrize(("spec", "args"), [("glyphs", SMALL), ("digits", {"seed": 2}), ("digits", {"per_class": 5})])
def test_the_stored_args_load_the_same_data_set_again(spec, args):
    data = load_data(spec, args)
    again = load_data(data.spec, data.args)
    assert again.fingerprint == data.fingerprint
    assert again.args == data.args


def test_the_fingerprint_sees_a_pixel_a_label_and_a_split(tmp_path, uneven):
    tenth, x = {"validation": 0.1}, images(100, size=4).transpose(0, 2, 3, 1).copy()
    assert load_data(write_npz(tmp_path / "same.npz"), tenth).fingerprint == uneven.fingerprint
    x[50, 0, 0, 0] ^= 1
    assert load_data(write_npz(tmp_path / "x.npz", x_train=x), tenth).fingerprint != uneven.fingerprint
    y_test = np.arange(20) % 5
    y_test[3] = 0
    assert load_data(write_npz(tmp_path / "y.npz", y_test=y_test), tenth).fingerprint != uneven.fingerprint
    assert load_data(write_npz(tmp_path / "s.npz"), tenth | {"seed": 1}).fingerprint != uneven.fingerprint


def test_an_unknown_split_is_a_programming_error(uneven):
    with pytest.raises(ValueError, match="split must be one of"):
        uneven.rows("val")


@pytest.mark.parametrize(
    ("spec", "args", "message"),
    [
        ("glyfs", {}, "unknown data set 'glyfs'; did you mean 'glyphs'"),
        ("cifar:/data", {}, "did you mean 'cifar10' or 'cifar100'"),
        ("idx", {}, "where to read, 'idx:PATH'"),
        ("glyphs:here", {}, "'glyphs' alone"),
        ("glyphs", {"clases": 3}, "no arg 'clases'; did you mean 'classes'"),
        ("digits", {"colour": 3}, "no arg 'colour'; there are: .*per_class, .*seed, .*validation"),
        ("glyphs", {"classes": 101}, "classes from 2 to 100, got 101"),
        ("glyphs", {"classes": "ten"}, "classes as a whole number from 0 on, got 'ten'"),
        ("glyphs", {"train": 0}, "train and test of at least 1"),
        ("digits", {"validation": 1.0}, "validation as a fraction below 1"),
        ("digits", {"validation": math.nan}, "validation as a number"),
        ("digits", {"test": 1.0}, "test as a fraction between 0 and 1"),
        ("digits", {"seed": -1}, "seed as a whole number from 0 on, got -1"),
        ("digits", {"per_class": 0}, "per_class of at least 1"),
        ("no_such_module:factory", {}, "cannot import 'no_such_module'"),
        ("no_such_file.py:factory", {}, "no file"),
    ],
)
def test_a_wrong_request_is_refused_with_what_there_is(spec, args, message):
    with pytest.raises(UsageError, match=message):
        load_data(spec, args)


# -------------------------------------------------------------------------------------------------------------- digits
def test_digits_are_split_by_class():
    data = load_data("digits")
    counts = {split: np.bincount(data.labels[data.rows(split)]) for split in ("train", "validation", "test")}
    total = np.sum(list(counts.values()), axis=0)
    assert total.sum() == 1797
    assert data.input_shape == (1, 8, 8)
    assert len(set(data.index)) == 1797
    assert (np.abs(counts["test"] - 0.2 * total) <= 0.5).all()


# ----------------------------------------------------------------------------------------------------------------- idx
def idx_bytes(array: np.ndarray, code: int = 8) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, packed: bool = False, **changes: bytes) -> str:
    content = {
        "train-images-idx3-ubyte": idx_bytes(images(30, size=6)[:, 0]),
        "train-labels-idx1-ubyte": idx_bytes(np.arange(30, dtype=np.uint8) % 3),
        "t10k-images-idx3-ubyte": idx_bytes(images(6, size=6)[:, 0]),
        "t10k-labels-idx1-ubyte": idx_bytes(np.arange(6, dtype=np.uint8) % 3),
    }
    for name, data in content.items():
        data = changes.get(name.partition("-idx")[0].replace("-", "_"), data)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return f"idx:{folder}"


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_plain_and_gzipped(tmp_path, packed):
    data = load_data(write_idx(tmp_path, packed), {"validation": 0})
    assert data.input_shape == (1, 6, 6)
    assert data.class_names == ("0", "1", "2")
    assert data.labels.tolist() == [*(np.arange(30) % 3), *(np.arange(6) % 3)]
    mean, std = data.preprocessing["mean"][0], data.preprocessing["std"][0]
    assert np.allclose(data.inputs([7])[0] * std + mean, images(30, size=6)[7, :1] / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": idx_bytes(images(30, size=6)[:, 0])[:-5]}, r"train-images.*expected 1096 bytes .*found 1091"),
        ({"train_images": idx_bytes(images(30, size=6)[:, 0])[:9]}, r"train-images.*expected an idx file"),
        ({"train_images": b"P5 6 6 255"}, r"train-images.*expected an idx file"),
        ({"t10k_images": b""}, r"t10k-images.*expected an idx file"),
        ({"train_labels": idx_bytes(np.zeros(29, np.uint8))}, "29 labels and 30 inputs"),
        ({"t10k_labels": idx_bytes(np.full(6, 3, np.uint8))}, r"labels 0 to 2 \(3 classes\), found 3"),
        ({"t10k_images": idx_bytes(images(6, size=5)[:, 0])}, r"inputs \(1, 6, 6\) uint8 as in .*got \(1, 5, 5\)"),
        (
            {"t10k_images": idx_bytes(images(0, size=6)[:, 0]), "t10k_labels": idx_bytes(np.zeros(0, np.uint8))},
            "expected examples, found none",
        ),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_data(write_idx(tmp_path, **changes))


def test_a_missing_or_cut_idx_file_is_named(tmp_path):
    spec = write_idx(tmp_path, packed=True)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-6])
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte.gz: expected a whole, readable file"):
        load_data(spec)
    labels.unlink()
    with pytest.raises(InputError, match="expected the file t10k-labels-idx1-ubyte"):
        load_data(spec)


# --------------------------------------------------------------------------------------------------------------- CIFAR
def write_cifar10(folder: Path, old_numpy: bool = False) -> str:
    """Ten images a batch; pickles of protocol 2 with bytes for keys, as the original ones come out."""
    for number, name in enumerate(["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]):
        batch = {b"data": images(10).reshape(10, -1) // (number + 1), b"labels": [i % 10 for i in range(10)]}
        (folder / name).write_bytes(pickled(batch, old_numpy))
    (folder / "test_batch").write_bytes(
        pickled({b"data": images(10).reshape(10, -1), b"labels": [*range(10)]}, old_numpy)
    )
    (folder / "batches.meta").write_bytes(pickled({b"label_names": [b"name%d" % i for i in range(10)]}, old_numpy))
    return f"cifar10:{folder}"


def pickled(content: object, old_numpy: bool = False) -> bytes:
    data = pickle.dumps(content, protocol=2)
    return data.replace(b"cnumpy._core.", b"cnumpy.core.") if old_numpy else data


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """The opcodes that Python 2 wrote: its strings are neither text nor protocol-3 bytes."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01K%cM\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R" % len(pixels)
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", pixels.size)
        + pixels.tobytes()
        + b"tb"
    )
    numbers = b"".join(b"K%ca" % label for label in labels)
    return b"\x80\x02}U\x04data" + array + b"sU\x06labels]" + numbers + b"s."


@pytest.mark.parametrize("old_numpy", [False, True])
def test_cifar10_batches_are_read(tmp_path, old_numpy):
    data = load_data(write_cifar10(tmp_path, old_numpy), {"validation": 0})
    assert data.input_shape == (3, 32, 32)
    assert data.class_names[9] == "name9"
    assert data.labels.tolist() == [*range(10)] * 6
    mean, std = (np.reshape(data.preprocessing[name], (3, 1, 1)) for name in ("mean", "std"))
    assert np.allclose(data.inputs([23])[0].numpy() * std + mean, images(10)[3] // 3 / 255, atol=1e-6)


def test_batches_that_python_2_wrote_are_read(tmp_path):
    spec = write_cifar10(tmp_path)
    batch = python2_batch(images(10).reshape(10, -1), [3] * 10)
    assert pickle.loads(batch, encoding="bytes")[b"labels"] == [3] * 10  # a well-formed pickle
    (tmp_path / "test_batch").write_bytes(batch)
    (tmp_path / "batches.meta").write_bytes(
        b"\x80\x02}U\x0blabel_names]" + b"".join(b"U\x01%da" % i for i in range(10)) + b"s."
    )
    data = load_data(spec, {"validation": 0})
    assert data.labels[-10:].tolist() == [3] * 10
    assert data.class_names == tuple("0123456789")
    std, mean = (np.reshape(data.preprocessing[name], (3, 1, 1)) for name in ("std", "mean"))
    assert np.allclose(data.inputs([53])[0].numpy() * std + mean, images(10)[3] / 255, atol=1e-6)


def test_cifar100_is_read_with_its_fine_labels(tmp_path):
    for name in ("train", "test"):
        batch = {b"data": images(8).reshape(8, -1), b"fine_labels": [*range(4)] * 2, b"coarse_labels": [0] * 8}
        (tmp_path / name).write_bytes(pickled(batch))
    (tmp_path / "meta").write_bytes(pickled({b"fine_label_names": [b"a", b"b", b"c", b"d"]}))
    data = load_data(f"cifar100:{tmp_path}")
    assert data.class_names == ("a", "b", "c", "d")
    assert len(data.rows("train")) == len(data.rows("validation")) == 4  # at least one a class, never all


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_batch_is_refused_and_not_executed(tmp_path, protocol):
    target = tmp_path / "owned"
    payload = pickle.dumps({b"data": Malicious(target), b"labels": []}, protocol)
    pickle.loads(payload)[b"data"].close()
    assert target.exists()  # the payload works where it is let
    target.unlink()
    spec = write_cifar10(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(payload)
    with pytest.raises(InputError, match=r"data_batch_1: refused, its pickle asks for _?io\.open"):
        load_data(spec)
    assert not target.exists()


@pytest.mark.parametrize("attribute", ["numpy\nload\n", "numpy._core.multiarray\nfromfile\n", "builtins\neval\n"])
def test_other_globals_of_numpy_and_python_are_refused(tmp_path, attribute):
    spec = write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"\x80\x02c" + attribute.encode() + b".")
    with pytest.raises(InputError, match="refused, its pickle asks for " + attribute.strip().replace("\n", r"\.")):
        load_data(spec)


def test_bytes_are_decoded_by_latin1_alone(tmp_path):
    spec = write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")
    with pytest.raises(InputError, match="codec rot13"):
        load_data(spec)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_3", pickled({b"data": images(9).reshape(9, -1), b"labels": [0] * 8}), "8 labels and 9 inputs"),
        ("data_batch_2", pickled({b"data": images(9).reshape(9, -1)}), "data_batch_2.*the entry 'labels'"),
        ("data_batch_2", pickled([1, 2]), "data_batch_2.*the entry 'data'"),
        ("data_batch_2", pickled({b"data": [[1, 2]], b"labels": [0]}), r"data_batch_2.*\(n, 3072\) uint8"),
        ("test_batch", pickled({b"data": images(1).reshape(1, -1), b"labels": [10]}), r"labels 0 to 9 .*found 10"),
        ("test_batch", pickled({b"data": images(1).reshape(1, -1), b"labels": [-1]}), "labels from 0 on, found -1"),
        ("test_batch", pickled({b"data": images(1).reshape(1, -1), b"labels": [0.5]}), "one whole number a label"),
        ("test_batch", pickled({b"data": images(9).reshape(9, -1)})[:-99], "test_batch: expected a whole pickle"),
        ("test_batch", b"<html>404</html>", "test_batch: expected a whole pickle"),
        ("batches.meta", pickled({b"label_names": [b"a", b"b"]}), r"labels 0 to 1 \(2 classes\), found 9"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_a_damaged_cifar_batch_is_named(tmp_path, name, content, message):
    spec = write_cifar10(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_data(spec)


def test_a_missing_cifar_batch_is_named(tmp_path):
    spec = write_cifar10(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(InputError, match="data_batch_4: expected a CIFAR python batch there"):
        load_data(spec)


# ----------------------------------------------------------------------------------------------------------------- npz
def test_npz_may_bring_validation_names_and_greyscale(tmp_path):
    grey = images(100, 1, 4)[:, 0]
    changes = {"x_train": grey, "x_test": grey[:20], "x_val": grey[:10], "y_val": np.arange(10)[:, None] % 5}
    spec = write_npz(tmp_path / "a.npz", **changes, label_names=np.array(list("abcde")))
    data = load_data(spec)
    assert data.class_names == tuple("abcde")
    assert data.input_shape == (1, 4, 4)
    assert len(data.rows("validation")) == 10
    assert len(data.rows("train")) == 100
    assert data.labels[data.rows("validation")].tolist() == [0, 1, 2, 3, 4] * 2
    assert load_data(spec, data.args).fingerprint == data.fingerprint
    with pytest.raises(UsageError, match="brings its own validation split"):
        load_data(spec, {"validation": 0.1})


def test_channels_are_found_on_either_side(tmp_path, uneven):
    wide = images(100, size=6)[:, :, :5]
    for number, x in enumerate([wide, wide.transpose(0, 2, 3, 1)]):
        data = load_data(write_npz(tmp_path / f"{number}.npz", x_train=x, x_test=x[:20]), {"validation": 0})
        assert data.input_shape == (3, 5, 6)
        mean, std = (np.reshape(data.preprocessing[name], (3, 1, 1)) for name in ("mean", "std"))
        assert np.allclose(data.inputs([4])[0].numpy() * std + mean, wide[4] / 255, atol=1e-6)
    floats = images(100, size=4).transpose(0, 2, 3, 1) / 255
    data = load_data(write_npz(tmp_path / "b.npz", x_train=floats, x_test=floats[:20]), {"validation": 0.1})
    assert torch.allclose(data.inputs([0, 1]), uneven.inputs([0, 1]), atol=1e-5)


def with_nan() -> np.ndarray:
    x = images(100, size=4) / 255
    x[7, 0, 0, 0] = math.nan
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": with_nan()}, r"\(train\): expected finite inputs"),
        ({"x_train": images(99, size=4)}, "100 labels and 99 inputs"),
        ({"x_train": images(100)[0]}, "100 labels and 3 inputs"),
        ({"x_train": np.zeros((100, 7))}, r"expected images \(n, height, width\[, channels\]\), got shape \(100, 7\)"),
        ({"x_train": np.zeros((100, 4, 4), "U3")}, "expected images of numbers"),
        ({"y_train": np.full(100, -1)}, "labels from 0 on, found -1"),
        ({"y_test": np.full(20, 5)}, r"\(test\): expected labels 0 to 4 \(5 classes\), found 5"),
        ({"label_names": np.array(["a", "b"])}, r"labels 0 to 1 \(2 classes\), found 4"),
        ({"x_test": images(0, size=4), "y_test": np.zeros(0, int)}, r"\(test\): expected examples, found none"),
        ({"x_val": images(3, size=4)}, "missing y_val"),
        (
            {"x_train": np.zeros((100, 0, 4))},
            r"\(train\): expected inputs of one value or more, got the shape \(1, 0, 4\)",
        ),
        ({"x_test": images(20, size=4)[..., :0]}, r"\(test\): expected inputs of one value or more"),
        ({"label_names": np.array(["a", "b", "", "d", "e"])}, r"a name of its own for each class, found .* \[''\]"),
        ({"label_names": np.array(["a", "b", "a", "d", " "])}, r"found empty or repeated \['a', ' '\]"),
        (
            {"y_train": np.arange(100) * 1000},
            r"labels 0 \.\. C-1, C at most the 100 training examples, found 99000",
        ),
        ({"y_train": np.arange(1, 101)}, r"C at most the 100 training examples, found 100"),
        ({"y_train": np.array([None] * 100)}, "expected a whole npz file of plain arrays"),
    ],
)
def test_a_wrong_npz_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_data(write_npz(tmp_path / "a.npz", **changes))


def test_labels_from_0_to_the_number_of_training_examples_need_no_names(tmp_path):
    data = load_data(write_npz(tmp_path / "a.npz", y_train=np.arange(100)), {"validation": 0})
    assert data.class_names == tuple(map(str, range(100)))


def test_an_npz_that_is_missing_cut_or_incomplete_is_named(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match="expected an npz file there, found no file"):
        load_data(f"npz:{path}")
    spec = write_npz(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"a\.npz: expected a whole npz file"):
        load_data(spec)
    np.savez(path, x_train=images(2))
    with pytest.raises(InputError, match="missing y_train, x_test, y_test"):
        load_data(spec)


# -------------------------------------------------------------------------------------------------------------- folder
def write_images(root: Path, count: int = 10, size: int = 6, mode: str = "RGB") -> None:
    for number, name in enumerate(["ant", "bee"]):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((size, size, 3), 100 * number + i, dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{i:02}.png")


def read_all(folder: Path) -> np.ndarray:
    data = load_data(f"folder:{folder}")
    return data.inputs(np.arange(len(data.labels)))


def test_a_folder_with_train_and_test_is_read_by_class(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", 3)
    data = load_data(f"folder:{tmp_path}", {"validation": 0})
    assert data.class_names == ("ant", "bee")
    assert data.input_shape == (3, 6, 6)
    assert data.labels.tolist() == [0] * 10 + [1] * 10 + [0] * 3 + [1] * 3
    mean, std = (np.array(data.preprocessing[name]) for name in ("mean", "std"))
    assert np.allclose(data.inputs([14])[0, :, 0, 0].numpy() * std + mean, 104 / 255, atol=1e-6)


def test_a_folder_without_test_has_a_share_held_out(tmp_path):
    write_images(tmp_path, mode="L")
    data = load_data(f"folder:{tmp_path}", {"test": 0.3, "seed": 5})
    assert data.input_shape == (1, 6, 6)
    assert np.bincount(data.labels[data.rows("test")]).tolist() == [3, 3]
    assert sorted(data.index) == list(range(20))
    assert data.fingerprint == load_data(data.spec, data.args).fingerprint


def test_images_of_several_sizes_need_a_common_one(tmp_path):
    write_images(tmp_path)
    Image.new("RGB", (9, 7)).save(tmp_path / "ant" / "99.png")
    with pytest.raises(InputError, match=r"one size, found \[\(6, 6\), \(9, 7\)\]; resize them with --data-arg size=N"):
        load_data(f"folder:{tmp_path}")
    assert load_data(f"folder:{tmp_path}", {"size": 8}).input_shape == (3, 8, 8)


def test_a_damaged_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="none: expected a folder of images there, found none"):
        load_data(f"folder:{tmp_path / 'none'}")
    with pytest.raises(InputError, match="a folder of images for each class"):
        load_data(f"folder:{tmp_path}")
    write_images(tmp_path / "train")
    with pytest.raises(InputError, match="the folder test or val beside train"):
        load_data(f"folder:{tmp_path}")
    write_images(tmp_path / "test", 2)
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(InputError, match=r"found none in \['cow'\]"):
        load_data(f"folder:{tmp_path}")
    Image.new("RGB", (6, 6)).save(tmp_path / "test" / "cow" / "0.png")
    with pytest.raises(InputError, match="found also cow"):
        load_data(f"folder:{tmp_path}")


def test_a_damaged_image_is_named(tmp_path):
    write_images(tmp_path, size=40)
    image = tmp_path / "bee" / "03.png"
    buffer = io.BytesIO()
    Image.fromarray(images(1, size=40)[0].transpose(1, 2, 0)).save(buffer, "png")
    image.write_bytes(buffer.getvalue()[:2000])  # the header is there, most pixels are not
    with pytest.raises(InputError, match=r"03\.png: expected a whole image"):
        load_data(f"folder:{tmp_path}")
    image.write_bytes(b"GIF?")
    with pytest.raises(InputError, match=r"03\.png: expected an image"):
        load_data(f"folder:{tmp_path}")
    Image.new("I;16", (40, 40)).save(image)
    with pytest.raises(InputError, match=r"03\.png: expected an image of 8 bits a channel, got the mode I;16"):
        load_data(f"folder:{tmp_path}")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
PHOTOSHOP = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 40, 40, 8, 3) + bytes(12) + bytes(2 + 3 * 40 * 40)


@pytest.mark.parametrize("content", [POSTSCRIPT, PHOTOSHOP], ids=["PostScript", "Photoshop"])
def test_no_decoder_reads_an_image_but_those_of_the_formats_taken(content, tmp_path, monkeypatch):
    """By its content, whatever its name says, Pillow would let Ghostscript draw the one."""
    with Image.open(io.BytesIO(content)) as image:
        assert image.format in {"EPS", "PSD"}
    assert set(IMAGE_FORMATS) == {Image.registered_extensions()[suffix] for suffix in IMAGE_SUFFIXES}
    called = []
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: called.append(arguments))
    write_images(tmp_path, size=40)
    (tmp_path / "bee" / "03.png").write_bytes(content)
    with pytest.raises(InputError, match=r"03\.png: expected an image as PNG, .*; convert it, or take it out"):
        read_all(tmp_path)
    assert called == []


# ------------------------------------------------------------------------------------------------------------- factory
FACTORIES = """
import torch
from torch.utils.data import Dataset, TensorDataset

class Points(Dataset):
    classes = ["low", "high"]
    def __init__(self, n, targets=True, nan=-1, shapes=False):
        self.n, self.nan, self.shapes, self.read = n, nan, shapes, []
        if targets:
            self.targets = [i % 2 for i in range(n)]
    def __len__(self):
        return self.n
    def __getitem__(self, i):
        self.read.append(i)
        x = torch.full((3 + (self.shapes and i == 5),), float(i))
        return (x / 0 * 0 if i == self.nan else x), i % 2

def pair(n=200, seed=11):
    return Points(n), Points(10, targets=False)
def splits(**options):
    return {"train": Points(20, **options), "validation": Points(4), "test": Points(6)}
def tensors(n):
    return [TensorDataset(torch.rand(m, 2, 5, 5), torch.arange(m) % 3) for m in (n, 3)]
def short():
    d = Points(20); d.targets = d.targets[:-1]
    return d, Points(4)
def one():
    return Points(3)
def three():
    return {"train": Points(3), "trial": Points(3)}
def empty():
    return Points(20), Points(0)
def names():
    d = Points(20); d.classes = ["only"]
    return d, Points(4)
def twins():
    d = Points(20); d.classes = ["same", "same"]
    return d, Points(4)
def voids():
    return [TensorDataset(torch.zeros(4, 3, 0, 5), torch.arange(4) % 2) for _ in range(2)]
def failing():
    raise RuntimeError("no disk")
"""


@pytest.fixture
def factories(tmp_path: Path) -> str:
    (tmp_path / "factories.py").write_text(FACTORIES)
    return str(tmp_path / "factories.py")


def test_a_factory_gives_its_inputs_as_they_come(factories):
    data = load_data(f"{factories}:pair", {"n": 40, "validation": 0.2})
    assert data.input_shape == (3,)
    assert data.class_names == ("low", "high")
    assert data.args == {"n": 40, "seed": 11, "validation": 0.2}
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [32, 8, 10]
    rows = data.rows("validation")
    assert (data.inputs(rows)[:, 0].numpy() == data.index[rows]).all()
    assert (data.labels == data.index % 2).all()
    assert load_data(data.spec, data.args).fingerprint == data.fingerprint


def test_factory_inputs_are_read_only_where_they_are_needed(factories):
    data = load_data(f"{factories}:pair", {"n": 1000, "validation": 0})
    inputs: Any = data.parts[0].inputs
    read = inputs.read.items.read
    assert len(read) <= 1 + 2 * 64  # for the shape and the fingerprint: labels come from .targets
    read.clear()
    data.inputs([500, 700])
    assert read == [500, 700]


def test_a_factory_may_bring_validation_and_tensors(factories):
    data = load_data(f"{factories}:splits")
    assert len(data.rows("validation")) == 4
    assert "validation" not in data.args
    data = load_data(f"{factories}:tensors", {"n": 30, "validation": 0})
    assert data.input_shape == (2, 5, 5)
    assert data.labels.tolist() == [0, 1, 2] * 11


def test_a_factory_may_stand_in_a_module(factories, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(factories).parent))
    assert load_data("factories:pair").n_classes == 2


@pytest.mark.parametrize(
    ("name", "args", "error", "message"),
    [
        ("pair", {"m": 3}, UsageError, "no arg 'm'; .*n"),
        ("pears", {}, UsageError, "has no 'pears'; did you mean 'pair'"),
        ("tensors", {}, InputError, "the factory failed on .*TypeError: .*missing 1 required"),
        ("failing", {}, InputError, "the factory failed on .*RuntimeError: no disk"),
        ("one", {}, InputError, r"expected \(train, test\) or a mapping"),
        ("three", {}, InputError, "the splits train, test and perhaps validation, got train, trial"),
        ("short", {}, InputError, r"\(train\): .*19 labels and 20 inputs"),
        ("empty", {}, InputError, r"\(test\): expected examples, found none"),
        ("names", {}, InputError, r"labels 0 to 0 \(1 classes\), found 1"),
        ("twins", {}, InputError, r"\(train\): expected a name of its own for each class, found .* \['same'\]"),
        ("voids", {}, InputError, r"\(train\): expected inputs of one value or more, got the shape \(3, 0, 5\)"),
        ("splits", {"nan": 2}, InputError, r"\(train\), item 2: expected finite inputs"),
        ("splits", {"shapes": True}, InputError, r"item 5: expected an input of shape \(3,\), got \(4,\)"),
    ],
)
def test_a_wrong_factory_is_named(factories, name, args, error, message):
    with pytest.raises(error, match=message):
        load_data(f"{factories}:{name}", args)


def test_only_factories_run_code():
    assert not any(map(runs_code, ["glyphs", "idx:a:b", "folder:/x.py:f"]))
    assert runs_code("package.module:factory")
    assert runs_code("file.py:factory")


# ----------------------------------------------------------------------------------------------------------- real data


def test_fashion_mnist_has_its_known_shape_and_labels():
    data = load_data(f"idx:{shared('data/fashion-mnist')}", {"validation": 0})
    assert data.input_shape == (1, 28, 28)
    assert (np.bincount(data.labels[data.rows("train")]) == 6000).all()
    assert data.labels[:5].tolist() == [9, 0, 0, 3, 0]  # the first labels of the file, as printed on its page
    assert data.preprocessing["mean"] == pytest.approx([0.2860], abs=5e-5)  # the constants in common use
    assert data.preprocessing["std"] == pytest.approx([0.3530], abs=5e-5)


def test_the_cifar100_npz_has_its_known_shape_and_labels():
    data = load_data(f"npz:{shared('data/cifar100_150x40.npz')}")
    assert data.input_shape == (3, 32, 32)
    assert data.n_classes == 100
    assert data.class_names[0] == "apple"
    assert (data.labels == data.index % 100).all()
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [15000, 0, 4000]

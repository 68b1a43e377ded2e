"""Classes that are never trained on: what becomes of their examples, and that the seen ones know nothing of them."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manigeo.activations import open_activations
from manigeo.errors import InputError, UsageError
from manigeo.kinds import KINDS, UNSEEN
from manigeo.manifolds import kind_examples
from manigeo.plots import plot_geometry
from manigeo.results import read_results
from manigeo_extract.data.datasets import CONVENTIONS, DataSet, Permutation, describe, load_data, permute_labels
from manigeo_extract.data.unseen import choose_unseen
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.models import build_model
from tests.command_line import done, run
from tests.reference import shared

GLYPHS = {"classes": 8, "train": 6, "validation": 2, "test": 3, "size": 8}
NAMES = tuple("abcdefghij")


def colour_folder(root: Path) -> str:
    """Images of four classes, read when they are asked for."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 9, "test": 4}.items():
        for name in ("ant", "bee", "cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module", params=["digits", "glyphs", "folder"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """One split by us, one that brings its validation, one that is read as it goes."""
    if request.param == "folder":
        return colour_folder(tmp_path_factory.mktemp("folder")), {}
    return request.param, GLYPHS if request.param == "glyphs" else {}


@pytest.fixture(scope="module")
def both(source: tuple[str, dict[str, Any]]) -> tuple[DataSet, DataSet]:
    """The same data with all classes seen, and with the second and the last one held out."""
    spec, args = source
    whole = load_data(spec, args)
    return whole, load_data(spec, args | {"holdout_classes": [1, whole.class_names[-1]]})


def raw_by_class(data: DataSet, rows: Any = slice(None)) -> dict[str, Counter[bytes]]:
    """The images of every class, before standardisation, in no order."""
    found: dict[str, Counter[bytes]] = {name: Counter() for name in data.class_names}
    X, std, mean = data.inputs(rows), *(torch.tensor(data.preprocessing[key])[:, None, None] for key in ("std", "mean"))
    raw = (X * std + mean).mul(1000).round().to(torch.int32)  # steps of 1/255 and 1/16 stay apart
    for image, label in zip(raw, data.labels[rows], strict=True):
        found[data.class_names[label]][image.numpy().tobytes()] += 1
    return found


# --------------------------------------------------------------------------------------------------------- the data set
def test_every_image_keeps_its_class_under_the_new_numbers(both):
    whole, held = both
    assert raw_by_class(held) == raw_by_class(whole)


def test_seen_classes_come_first_in_their_order(both):
    whole, held = both
    last = len(whole.class_names) - 1
    seen = [name for label, name in enumerate(whole.class_names) if label not in (1, last)]
    assert held.class_names == (*seen, whole.class_names[1], whole.class_names[last])
    assert (held.n_classes, held.n_unseen) == (last - 1, 2)
    assert (whole.n_classes, whole.n_unseen) == (last + 1, 0)


def test_all_examples_of_a_held_out_class_and_no_others_are_unseen(both):
    _, held = both
    np.testing.assert_array_equal(held.split == UNSEEN, held.labels >= held.n_classes)
    np.testing.assert_array_equal(held.rows(UNSEEN), np.flatnonzero(held.labels >= held.n_classes))


def test_inputs_are_standardised_by_the_seen_training_examples(both):
    whole, held = both
    X = held.inputs(held.rows("train")).double()
    # float32 inputs: the mean of n of them is off by less than 1e-7 each
    assert X.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (X.var(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert held.preprocessing["mean"] != whole.preprocessing["mean"]


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_labels_are_permuted_among_the_seen_alone(both, convention):
    _, held = both
    table = permute_labels(held, Permutation(1.0, convention))
    assert set(table["split"][table["permuted"]]) == {"train"}
    assert table["train_label"][table["split"] == "train"].between(0, held.n_classes - 1).all()
    unseen = table[table["split"] == UNSEEN]
    assert (unseen["train_label"] == unseen["true_label"]).all()


def test_the_stored_args_hold_the_same_classes_out_again(both):
    _, held = both
    again = load_data(held.spec, held.args)
    assert held.args["holdout_classes"] == list(held.class_names[held.n_classes :])
    assert (again.fingerprint, again.class_names) == (held.fingerprint, held.class_names)


def test_the_fingerprint_sees_what_is_held_out(both):
    whole, held = both
    other = load_data(held.spec, held.args | {"holdout_classes": [0]})
    assert len({data.fingerprint for data in (whole, held, other)}) == 3


def test_a_data_set_whose_classes_are_all_seen_is_what_it_was(both):
    whole, _ = both
    same = load_data(whole.spec, whole.args | {"holdout_classes": None})
    assert (same.fingerprint, "holdout_classes" in whole.args) == (whole.fingerprint, False)


def test_per_class_limits_no_unseen_class():
    few = load_data("digits", {"per_class": 5, "holdout_classes": [3]})
    assert np.bincount(few.labels[few.rows("train")]).tolist() == [5] * 9
    assert len(few.rows(UNSEEN)) == 183  # all of scikit-learn's threes


def test_the_description_counts_seen_and_unseen():
    data = load_data("glyphs", GLYPHS | {"holdout_classes": 2})
    said = describe(data, permute_labels(data, Permutation(0.5)))
    assert "test 18, unseen 22), 6 classes and 2 unseen," in said
    assert said.endswith("test 3 to 3, unseen 11 to 11")


# --------------------------------------------------------------------------------------------------------- which classes
@settings(deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 7))
def test_a_number_draws_so_many_and_more_contain_fewer(seed, n):
    fewer, more = (choose_unseen("data", k, NAMES, seed) for k in (n, n + 1))
    assert (len(set(fewer)), len(set(more))) == (n, n + 1)
    assert set(fewer) < set(more) < set(range(10))


def test_classes_are_drawn_by_the_seed_of_the_data_and_evenly():
    draws = [choose_unseen("data", 2, NAMES, seed) for seed in range(500)]
    counts = np.bincount(np.ravel(draws), minlength=10)
    # binomial(500, .2) each: five standard deviations are passed by chance once in 100,000 such counts
    assert np.abs(counts - 100).max() < 5 * np.sqrt(500 * 0.2 * 0.8)
    assert choose_unseen("data", 2, NAMES, 3) == draws[3]


@pytest.mark.parametrize("asked", ["b,j", " j , b ", ["b", "j"], [9, 1], ["9", 1, "b"], ("j", np.int64(1)), "1,9"])
def test_names_and_labels_say_the_same_classes(asked):
    assert choose_unseen("data", asked, NAMES, seed=0) == (1, 9)


def test_what_can_be_both_is_a_name():
    assert choose_unseen("data", ["2"], ("2", "1", "0"), seed=0) == (0,)
    assert choose_unseen("data", [2], ("2", "1", "0"), seed=0) == (2,)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("apples", r"has no class 'apples'; did you mean 'apple'\?"),
        ([4], "has no class 4; there are: apple, bear, cup, dinosaur"),
        ([-1], "has no class -1"),
        ([1.0], r"has no class 1\.0"),
        ([True], "has no class True"),
        ("apple,bear,cup", "leave 2 or more of 4 classes to train on, got 'apple,bear,cup'"),
        (3, "leave 2 or more of 4 classes to train on, got 3"),
        (400, "leave 2 or more of 4 classes to train on, got 400"),
        (0, "as names or labels of classes, or as their number from 1 on, got 0"),
        (True, "or as their number from 1 on, got True"),
        ([], "or as their number from 1 on, got"),
        (",", "or as their number from 1 on, got ','"),
        (0.2, "or as their number from 1 on, got 0.2"),
        ({"a": 1}, "or as their number from 1 on, got {'a': 1}"),
    ],
)
def test_classes_that_are_not_there_or_leave_too_few_are_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        choose_unseen("data", asked, ("apple", "bear", "cup", "dinosaur"), seed=0)


def npz_of(path: Path, y_train: list[int], y_test: list[int]) -> str:
    images = {f"x_{split}": np.zeros((len(y), 4, 4), np.uint8) for split, y in (("train", y_train), ("test", y_test))}
    np.savez(path, y_train=y_train, y_test=y_test, label_names=list("abcde"), **images)
    return f"npz:{path}"


def test_a_class_without_examples_cannot_be_held_out_nor_be_all_that_is_left(tmp_path):
    spec = npz_of(tmp_path / "a.npz", [0, 0, 0, 1, 1], [2, 2, 0])
    with pytest.raises(InputError, match="expected examples of the held-out classes, found none of d, e"):
        load_data(spec, {"holdout_classes": "a,d,e"})
    with pytest.raises(InputError, match=r"train.*expected examples of the classes that are not held out, found none"):
        load_data(spec, {"holdout_classes": "a,b"})
    with pytest.raises(InputError, match=r"test.*expected examples of the classes that are not held out, found none"):
        load_data(spec, {"holdout_classes": "a,c"})


# ----------------------------------------------------------------------------------------------------- the command line
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two digits held out, and the activations of its last checkpoint."""
    root = tmp_path_factory.mktemp("unseen")
    small = ("--data", "digits", "--permute", 0.5, "--arch-arg", "depth=2", "--arch-arg", "width=16", "--epochs", 2)
    done("train", *small, "--holdout-classes", "3,7", "--out", root / "run")
    done("extract", "--model", root / "run" / "checkpoints" / "last.pt", "--out", root / "acts.h5")
    return root


def test_a_checkpoint_says_what_was_held_out_and_has_no_outputs_for_it(folder):
    checkpoint = load_checkpoint(folder / "run" / "checkpoints" / "last.pt")
    assert checkpoint.data_args["holdout_classes"] == ["3", "7"]
    assert checkpoint.arch_args["n_classes"] == 8
    assert set(checkpoint.metrics) == {*KINDS, "validation"}


def test_unseen_embeddings_are_what_the_network_computes_for_the_held_out_images(folder):
    checkpoint = load_checkpoint(folder / "run" / "checkpoints" / "last.pt")
    data = load_data("digits", checkpoint.data_args)
    net = build_model(checkpoint.arch, checkpoint.arch_args)
    net.load_state_dict(checkpoint.state_dict)
    images = data.inputs(slice(None))
    with torch.inference_mode():
        expected = net.eval()(images).numpy()
    with open_activations(folder / "acts.h5") as acts:
        assert acts.kinds == (*KINDS, UNSEEN)
        assert acts.class_names == tuple("0124568937")
        clouds = acts.manifolds("logits", UNSEEN)
        assert [len(cloud) for cloud in clouds] == [50, 50]
        images_stored = acts.manifolds("input", UNSEEN)
    for label, (stored, logits) in enumerate(zip(images_stored, clouds, strict=True), start=8):
        for image, row in zip(stored[::10], logits[::10], strict=True):
            (found,) = np.flatnonzero((images.flatten(1).numpy() == image).all(axis=1) & (data.labels == label))
            assert data.split[found] == UNSEEN
            np.testing.assert_allclose(row, expected[found], atol=1e-4)  # float32 sums over another batch


def test_the_other_kinds_do_not_change_with_the_unseen_examples_in_the_file(folder):
    with open_activations(folder / "acts.h5") as acts:
        for kind in KINDS:
            rows, labels = kind_examples(acts.examples, kind)
            assert labels.max() < 8
            assert not set(acts.examples["split"][rows]) & {UNSEEN}


def test_info_counts_the_unseen(folder):
    assert "unseen 100" in done("info", folder / "acts.h5")


def test_capacity_of_the_four_kinds_is_over_the_seen_classes(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "acts.h5", "acts.h5")
    done("capacity", "acts.h5", "--layers", "logits", "--draws", 20)
    table = read_results("acts.capacity.csv").query("metric == 'capacity' and kind != 'unseen'")
    assert set(table["kind"]) == set(KINDS)
    assert set(table["manifold"]) == {"", *"01245689"}
    assert np.isfinite(table["value"]).all()


def test_capacity_of_the_unseen_classes_is_drawn_by_the_command_that_it_names(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "acts.h5", "acts.h5")
    measured = ("--layers", "logits", "--draws", 20, "--sweep-examples", "5,10")
    said = done("capacity", "acts.h5", *measured, "--kinds", "unseen", "--out", "unseen.csv").splitlines()[-1]
    assert done(*said.partition("next: manigeo ")[2].split()) == "wrote geometry.png\nwrote sweep.png\n"
    done("capacity", "acts.h5", *measured)
    with pytest.raises(InputError, match="capacities of unseen classes do not compare with those of others"):
        plot_geometry(read_results(["unseen.csv", "acts.capacity.csv"]))


def test_the_option_is_short_for_the_arg_of_the_data(tmp_path):
    options = ("--data", "digits", "--dry-run", "--out", tmp_path / "run")
    drawn = done("train", *options, "--holdout-classes", 2)
    assert "8 classes and 2 unseen," in drawn
    again = done("train", *options, "--data-arg", "holdout_classes=2")
    assert re.sub("about [^,]+,", "", again) == re.sub("about [^,]+,", "", drawn)  # the time is measured
    assert "9 classes and 1 unseen," in done("train", *options, "--holdout-classes", "2,")
    code, _, err = run("train", *options, "--holdout-classes", "2,ten")
    assert (code, err) == (2, "manigeo: digits has no class 'ten'; there are: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n")


def test_an_untrained_network_is_asked_about_unseen_classes_without_a_checkpoint(tmp_path):
    done("extract", "--weights", "init", "--arch", "mlp", "--data", "digits", "--data-arg", "holdout_classes=2",
         "--permute", 0, "--per-class", 5, "--out", tmp_path / "acts.h5")  # fmt: skip
    with open_activations(tmp_path / "acts.h5") as acts:
        assert acts.kinds == ("unpermuted", "test", UNSEEN)


def test_a_fifth_of_cifar100_is_held_out_as_it_is_stored():
    path = shared("data/cifar100_150x40.npz")
    data = load_data(f"npz:{path}", {"holdout_classes": 20, "validation": 0.1})
    assert np.bincount(data.labels[data.rows(UNSEEN)] - 80).tolist() == [150 + 40] * 20
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [80 * 135, 80 * 15, 80 * 40]
    with np.load(path) as arrays:
        names, labels, images = arrays["label_names"], arrays["y_train"], arrays["x_train"]
    first = data.rows(UNSEEN)[0]
    assert names[labels[data.index[first]]] == data.class_names[data.labels[first]]
    mean, std = (np.array(data.preprocessing[key], np.float32) for key in ("mean", "std"))
    pixels = (images[data.index[first]] / np.float32(255) - mean) / std
    np.testing.assert_array_equal(data.inputs([first])[0].permute(1, 2, 0), pixels)

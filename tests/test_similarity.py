"""Similarity of representations: closed forms, dense formulas, errors over draws, and the table of two files."""

import json

import numpy as np
import pandas as pd
import pytest

from manigeo import Activations, open_activations, plan_similarity, representation_similarity, similarity_table
from manigeo import similarity as module
from manigeo.errors import InputError, UsageError
from manigeo.results import read_results
from tests.command_line import done, run
from tests.test_separations import LAYERS, activations, example_table, write

ANGLE_ATOL = 1e-7  # arccos near one has the square root of float64's rounding


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rotation(n: int) -> np.ndarray:
    return np.linalg.qr(rng(9).standard_normal((n, n)))[0]


# ------------------------------------------------------------------------------------------------------ closed forms
@pytest.mark.parametrize("shape", [(30, 4), (12, 40)])
def test_rotations_scales_shifts_and_empty_features_change_nothing(shape):
    X = rng().standard_normal(shape)
    padded = np.hstack([X, np.zeros((len(X), 3))])
    for Y in (X, 1e-3 * X @ rotation(shape[1]) + 7.0, padded):
        r = representation_similarity(X, Y)
        assert r.cka == pytest.approx(1.0, abs=1e-12)
        assert r.cka_stderr == pytest.approx(0.0, abs=1e-10)
        assert r.procrustes_angle == pytest.approx(0.0, abs=ANGLE_ATOL)


def test_independent_representations_have_no_cka_in_the_mean_however_many_features():
    draws = [representation_similarity(rng(i).standard_normal((20, 60)), rng(i + 500).standard_normal((20, 80)))
             for i in range(150)]  # fmt: skip
    values = np.array([r.cka for r in draws])
    spread = values.std(ddof=1)
    assert abs(values.mean()) < 4 * spread / np.sqrt(len(values))
    # the jackknife is conservative for variances; the mean of 150 estimates of one is within a few percent
    assert 0.9 < np.sqrt(np.mean([r.cka_stderr**2 for r in draws])) / spread < 1.6
    X, Y = rng(0).standard_normal((20, 60)), rng(500).standard_normal((20, 80))
    K, L = (np.cov(Z - Z.mean(axis=0), bias=True) for Z in (X, Y))
    assert (K * L).sum() / np.linalg.norm(K) / np.linalg.norm(L) > 0.5  # what CKA with its bias takes them for


@pytest.mark.parametrize("angle", [0.3, 1.2])
def test_planes_at_an_angle_are_at_that_procrustes_distance(angle):
    basis = np.linalg.qr(np.hstack([np.ones((25, 1)), rng().standard_normal((25, 4))]))[0][:, 1:]  # of mean zero
    X, Y = basis[:, :2], np.cos(angle) * basis[:, :2] + np.sin(angle) * basis[:, 2:4]
    assert representation_similarity(X, Y @ rotation(2)).procrustes_angle == pytest.approx(angle, abs=1e-10)


def test_the_procrustes_distance_is_a_metric():
    X, Y, Z = (rng(i).standard_normal((15, 3 + i)) for i in range(3))
    side = {(a, b): representation_similarity(p, q).procrustes_angle
            for a, p in enumerate((X, Y, Z)) for b, q in enumerate((X, Y, Z))}  # fmt: skip
    assert side[0, 1] == pytest.approx(side[1, 0], abs=ANGLE_ATOL)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        assert side[i, j] <= side[i, k] + side[k, j]


# ------------------------------------------------------------------------------------------------- slower versions
def dense_cka(X: np.ndarray, Y: np.ndarray) -> float:
    def h(K: np.ndarray, L: np.ndarray) -> float:
        n, one = len(K), np.ones(len(K))
        K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
        trace, sums, both = np.trace(K @ L), one @ K @ one * (one @ L @ one), one @ K @ L @ one
        return (trace + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * both) / (n * (n - 3))

    K, L = X @ X.T, Y @ Y.T
    return h(K, L) / np.sqrt(h(K, K) * h(L, L))


def dense_angle(X: np.ndarray, Y: np.ndarray) -> float:
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    return np.arccos(np.linalg.norm(X.T @ Y, "nuc") / np.linalg.norm(X) / np.linalg.norm(Y))


@pytest.mark.parametrize("features", [(5, 7), (30, 50)])
def test_numbers_and_jackknife_are_those_of_the_dense_formulas(features, monkeypatch):
    common = rng(1).standard_normal((24, 3))
    X, Y = (np.hstack([common, rng(i).standard_normal((24, n - 3))]) for i, n in enumerate(features, 2))
    one_by_one = representation_similarity(X, Y)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * 24 * 5)  # five rows at a time
    r = representation_similarity(X, Y)
    assert (r.cka, r.cka_stderr) == (pytest.approx(one_by_one.cka), pytest.approx(one_by_one.cka_stderr))
    without = np.array(
        [[f(np.delete(X, i, 0), np.delete(Y, i, 0)) for i in range(24)] for f in (dense_cka, dense_angle)]
    )
    errors = np.sqrt(23 / 24 * np.square(without - without.mean(axis=1, keepdims=True)).sum(axis=1))
    assert r.cka == pytest.approx(dense_cka(X, Y), rel=1e-10)
    assert r.cka_stderr == pytest.approx(errors[0], rel=1e-8)
    assert r.procrustes_angle == pytest.approx(dense_angle(X, Y), rel=1e-8)
    assert r.procrustes_angle_stderr == pytest.approx(errors[1], rel=0.5)  # of first order, with 24 points


# ------------------------------------------------------------------------------------------------------- bad input
def test_equal_and_equidistant_points_have_no_cka():
    X = rng().standard_normal((8, 3))
    equal = representation_similarity(X, np.full((8, 2), 3.3))
    assert (equal.flag, equal.cka != equal.cka, equal.procrustes_angle != equal.procrustes_angle) == (
        "constant_features", True, True,
    )  # fmt: skip
    one_hot = representation_similarity(X, np.eye(8))
    assert one_hot.flag == "equidistant"
    assert np.isnan([one_hot.cka, one_hot.cka_stderr]).all()
    assert np.isfinite(one_hot.procrustes_angle)


def test_an_example_that_is_missing_in_one_is_left_out_of_both():
    X, Y = rng().standard_normal((12, 3)), rng(1).standard_normal((12, 4))
    X[2, 0], Y[5, 1] = np.nan, np.inf
    r = representation_similarity(X, Y, nan="drop")
    kept = np.delete(np.arange(12), [2, 5])
    assert (r.flag, r.n_points) == ("dropped:2", 10)
    assert r.cka == representation_similarity(X[kept], Y[kept]).cka
    with pytest.raises(ValueError, match="points holds 1 NaN"):
        representation_similarity(X, Y)


@pytest.mark.parametrize(("shapes", "said"), [
    (((6, 2), (7, 2)), r"of the same points, got \(6, 2\) and \(7, 2\)"), (((4, 2), (4, 3)), "5 points or more, got 4"),
    (((6,), (6, 2)), r"expected \(points, features\)"),
])  # fmt: skip
def test_other_points_and_too_few_are_refused(shapes, said):
    with pytest.raises(ValueError, match=said):
        representation_similarity(*(np.ones(shape) for shape in shapes))


# ------------------------------------------------------------------------------------------------------- the table
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three epochs of a run: the input stays, other layers are other noise around the classes."""
    folder, same = tmp_path_factory.mktemp("similarity"), activations(example_table(), LAYERS[0])
    return [write(folder / f"epoch{i}.h5", seed=i, epoch=i, input=same) for i in range(3)]


def test_a_table_has_both_numbers_of_every_layer_and_kind_of_the_first(files):
    table = similarity_table(files[0], files[2])
    assert len(table) == 2 * 3 * 4
    value = table.set_index(["metric", "layer", "kind"])["value"].sort_index()
    assert value["cka", "input"].tolist() == pytest.approx([1.0] * 4)
    assert (value["cka", "h1"] < 0.999).all()
    with open_activations(files[0]) as first, open_activations(files[2]) as last:
        clouds = [np.concatenate(acts.manifolds("h1", "test", 8)) for acts in (first, last)]
        assert set(table["fingerprint"]) == {first.fingerprint}
        settings = json.loads(table["settings"][0])
        assert (settings["against"], settings["against_checkpoint"]) == (last.fingerprint, "epoch2")
    assert value["cka", "h1", "test"] == pytest.approx(representation_similarity(*clouds).cka, rel=1e-12)
    assert value["cka", "wide"].between(0, 1).all()


def test_activations_in_memory_and_a_plan_give_the_same_table(files):
    with open_activations(files[0]) as first, open_activations(files[1]) as last:
        held = similarity_table(first.only(["h1"]), last.only(["h1"]))
    stored = similarity_table(plan_similarity(*files[:2], layers=["h1"]), n_jobs=2)
    pd.testing.assert_frame_equal(held.drop(columns="fingerprint"), stored.drop(columns="fingerprint"))


def test_too_few_examples_of_a_kind_are_flagged(files):
    table = similarity_table(*files[:2], layers=["h1"], per_class=2, n_classes=2)
    assert set(table["flag"]) == {"fewer_than_5:4"}
    assert table["value"].isna().all()


def test_other_examples_the_same_file_and_other_layers_are_refused(files, tmp_path):
    moved = example_table()
    moved.loc[0, "train_label"] = 1
    other = write(tmp_path / "other.h5", moved)
    with pytest.raises(InputError, match=r"other.h5 do not hold the same examples .*extract both from one data set"):
        plan_similarity(files[0], other)
    with pytest.raises(UsageError, match="are the same activations"):
        plan_similarity(files[0], files[0])
    X = rng().standard_normal((3, 4, 5))
    with pytest.raises(InputError, match="no layer in common"):
        plan_similarity(*(Activations.from_arrays({area: X}) for area in ("V1", "V4")))
    with pytest.raises(UsageError, match="expected activations or the path"):
        similarity_table(files[0])


def test_the_command_compares_each_with_the_last_and_goes_on(files, tmp_path):
    out, of_one = tmp_path / "s.csv", ("--layers", "h1", "--kinds", "test")
    said = done("similarity", *files, *of_one, "--out", out)
    assert said.count("== epoch") == 2
    assert "CKA" in said
    whole = read_results(out)
    assert whole["checkpoint"].unique().tolist() == ["epoch0", "epoch1"]
    whole.iloc[:-2].to_csv(out, index=False)
    done("similarity", *files, *of_one, "--out", out, "--resume")
    pd.testing.assert_frame_equal(read_results(out), whole)
    code, _, err = run("similarity", files[1], files[2], *of_one, "--out", out, "--resume")
    assert (code, "other activation files" in err) == (2, True), err
    code, _, err = run("similarity", files[0], "--out", out)
    assert (code, "give two activation files of the same examples" in err) == (2, True), err

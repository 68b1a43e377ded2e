"""Separability of activation files: the table, its plan, what is left out and why, and the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from manigeo import (
    Activations,
    create_activations,
    open_activations,
    plan_separability,
    read_results,
    separability_table,
)
from manigeo.errors import InputError, UsageError
from manigeo.layerwise.best import with_choices, without_choices
from manigeo.layerwise.plan import Plan, Task
from manigeo.layerwise.points import LabelledPoints
from manigeo.layerwise.separability import Clusters, Fuzziness, HardMargins, Means, Neighbours, Probe
from manigeo.layerwise.tables import plan_parts, remaining_tasks
from manigeo.separability.neighbours import neighbour_purity
from manigeo.separability.probe import LinearClassifier, LinearProbe
from tests.command_line import done, run
from tests.test_activations import stored

P, M = 4, 8  # classes, and examples of each per kind
CLASSES = ("zero", "one", "two", "three")
LAYERS = [stored("input", 0, (6,)), stored("h1", 1, (5,)), stored("wide", 2, (70,))]
QUICK = (Probe(3), Neighbours(), Clusters(2), Means(3), Fuzziness(), HardMargins(5))


def example_table(n_classes: int = P, per_class: int = M, splits=("train", "permuted", "test")) -> pd.DataFrame:
    """``per_class`` of each kind and class; permuted labels are the next class's."""
    rows = [
        {
            "split": "train" if split == "permuted" else split, "true_label": c, "permuted": split == "permuted",
            "train_label": (c + 1) % n_classes if split == "permuted" else c,
        }
        for c in range(n_classes) for split in splits for _ in range(per_class)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(index=range(len(rows)))


def activations(examples: pd.DataFrame, layer, distance: float = 3.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng([seed, layer.order]).standard_normal((len(examples), layer.n_features))
    return (noise + distance * np.eye(9, layer.n_features)[examples["true_label"]]).astype(np.float32)


def write(
    path: Path, examples: pd.DataFrame | None = None, seed: int = 0, epoch: int = 3, **content: np.ndarray
) -> Path:
    examples = example_table() if examples is None else examples
    content = {layer.name: activations(examples, layer, seed=seed) for layer in LAYERS} | content
    classes = (*CLASSES, "four", "five")[: examples["true_label"].max() + 1]
    with create_activations(path, examples, classes, LAYERS, {"epoch": epoch, "checkpoint": path.stem}) as writer:
        writer.append(content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "acts.h5")


def quick(path: Path, **changes) -> Plan:
    return plan_separability(path, **({"measures": QUICK} | changes))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("separations") / "acts.h5")


@pytest.fixture(scope="module")
def everything(file: Path) -> pd.DataFrame:
    return separability_table(quick(file))


@pytest.fixture(scope="module")
def profiles(file: Path) -> pd.DataFrame:
    return separability_table(quick(file, measures=QUICK[:3]))


def aggregate(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table[(table["manifold"] == "") & (table["metric"] == metric)].set_index(["layer", "kind"])


# ------------------------------------------------------------------------------------------------------- the table
def test_every_measure_has_a_row_for_each_layer_kind_and_class(everything):
    for measure in QUICK:
        for metric in measure.metrics:
            assert len(aggregate(everything, metric)) == 3 * 4
        for metric in measure.profiles:
            of_class = everything[(everything["metric"] == metric) & (everything["manifold"] != "")]
            assert set(of_class["manifold"]) == set(CLASSES)
            of_all = of_class.groupby(["layer", "kind"])["value"].mean()
            values = aggregate(everything, metric)["value"]
            np.testing.assert_allclose(of_all.loc[values.index], values, rtol=1e-10)
    assert not everything.duplicated(["layer", "kind", "manifold", "metric", "settings"]).any()


def test_chance_and_ceiling_stand_beside_the_numbers(path):
    table = separability_table(quick(path, layers=["h1"], kinds=["test"]))
    value = {metric: rows["value"].iloc[0] for metric, rows in table[table["manifold"] == ""].groupby("metric")}
    assert value["probe_accuracy_chance"] == value["nearest_mean_accuracy_chance"] == 1 / P
    assert value["knn_purity_class_chance"] == pytest.approx((M - 1) / (P * M - 1))
    assert value["knn_purity_class_ceiling"] == value["kmeans_nmi_ceiling"] == 1
    assert value["probe_accuracy_ci_low"] < value["probe_accuracy"] <= value["probe_accuracy_ci_high"]
    for metric in ("probe_accuracy", "nearest_mean_accuracy", "knn_purity_1"):
        assert (value[f"{metric}_half1"] + value[f"{metric}_half2"]) / 2 == pytest.approx(value[metric])


def test_neighbours_beyond_a_class_lower_the_ceiling_beyond_all_points_are_flagged(path):
    table = separability_table(quick(path, layers=["h1"], kinds=["test"], measures=[Neighbours((2 * M, P * M))]))
    assert aggregate(table, f"knn_purity_{2 * M}_ceiling")["value"].item() == pytest.approx((M - 1) / (2 * M))
    row = aggregate(table, f"knn_purity_{P * M}").iloc[0]
    assert np.isnan(row["value"])
    assert row["flag"] == f"k_not_below_examples:{P * M}"
    assert np.isfinite(aggregate(table, "knn_purity_1")["value"]).all()


def test_wide_layers_are_measured_at_their_own_distances(path):
    table = separability_table(quick(path, layers=["wide"], kinds=["test"], measures=[Neighbours()]))
    with open_activations(path) as acts:
        X = np.concatenate(acts.manifolds("wide", "test", M))
    (expected,) = neighbour_purity(X, np.repeat(np.arange(P), M), (1,))
    assert aggregate(table, "knn_purity_1")["value"].item() == pytest.approx(expected.value, abs=1e-10)


def test_a_number_depends_neither_on_workers_nor_on_other_layers_kinds_or_measures(file, everything):
    pd.testing.assert_frame_equal(separability_table(quick(file), n_jobs=2), everything)
    for measure in QUICK:
        alone = separability_table(quick(file, layers=["h1"], kinds=["restored"], measures=[measure]))
        within = everything[(everything["layer"] == "h1") & everything["settings"].isin(alone["settings"])]
        within = within[(within["kind"] == "restored") & (within["metric"] != "transfer_accuracy")]
        own = within[~within["metric"].str.startswith("transfer")].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, own)


def test_layers_that_stay_in_the_file_are_measured_alike(path, monkeypatch):
    plan = quick(path, layers=["wide"], kinds=["permuted", "restored"])
    in_memory = separability_table(plan)
    monkeypatch.setattr("manigeo.layerwise.points._HELD_BYTES", 1)
    monkeypatch.setattr("manigeo.activations.content.HELD_BYTES", 1)
    streamed = separability_table(plan)
    assert aggregate(streamed, "probe_accuracy")["flag"].tolist() == ["standardised_over_all"] * 2
    for metric in ("knn_purity_1", "nearest_mean_accuracy", "separable_ovr", "fisher_ratio", "margin_pairs"):
        one, other = (aggregate(table, metric)["value"] for table in (streamed, in_memory))
        np.testing.assert_allclose(one, other, rtol=1e-3)  # of the solver of margins; float32 for the others
    for metric in ("probe_accuracy", "transfer_accuracy"):
        one, other = (aggregate(table, metric)["value"] for table in (streamed, in_memory))
        # standardised with the scored points or without: two of the 32 may change sides
        np.testing.assert_allclose(one, other, atol=2.1 / (P * M))


# ------------------------------------------------------------------------------- probes of one kind, scored on others
def test_a_probe_of_clean_labels_restores_permuted_images_and_fails_on_their_labels(path):
    table = separability_table(quick(path, layers=["input"], measures=[Probe(3)]))
    rows = table[(table["metric"] == "transfer_accuracy") & (table["manifold"] == "")]
    origins = [json.loads(settings)["trained_on"] for settings in rows["settings"]]
    value = rows.assign(origin=origins).set_index(["origin", "kind"])["value"]
    assert len(value) == 12
    assert value["unpermuted", "restored"] > 0.8
    assert value["unpermuted", "test"] > 0.8
    assert value["unpermuted", "permuted"] < 0.2  # the labels are the next class's, so below chance
    assert value["permuted", "unpermuted"] < 0.2


def test_no_image_is_scored_by_a_classifier_that_was_trained_on_it():
    images, labels = np.arange(12), np.repeat([0, 1], 6)
    X = [np.zeros((6, 1), dtype=np.float32)] * 2
    one = LabelledPoints(X, images, ["a", "b"], [6, 6], np.random.default_rng(0))
    # the other kind has the same images but the first three, in another order
    other = LabelledPoints(X, np.r_[20:23, images[:2:-1]], ["a", "b"], [6, 6], np.random.default_rng(0))
    folds = np.arange(12) % 3
    always = [LinearClassifier(np.zeros((1, 2)), np.array([k != 1, k == 1], dtype=float)) for k in range(3)]
    probe = LinearProbe(
        labels,
        folds,
        always,
        np.ones(3),
        np.zeros(3),
        np.ones(3, dtype=bool),
        labels == labels,
        np.ones(2),
        np.arange(2),
    )
    scores = one.transfer(probe, always, other)
    # unseen images: the mean of all three classifiers; seen ones: the classifier of their fold, 1 says b and the others a
    own = folds[other.images[3:]]
    expected = np.where(other.labels[3:] == 1, own == 1, own != 1)
    np.testing.assert_allclose(scores[:3], 2 / 3)
    np.testing.assert_array_equal(scores[3:], expected)


def test_memorized_images_do_not_pass_for_learned_ones(tmp_path):
    # points without any relation to labels, in so many features that a probe fits all that it is trained on
    examples = example_table(splits=("permuted",), per_class=20)
    noise = np.random.default_rng(5).standard_normal((len(examples), 70)).astype(np.float32)
    examples["train_label"] = examples["true_label"]  # restored and permuted group alike: seen would be known
    write(tmp_path / "a.h5", examples, wide=noise)
    table = separability_table(quick(tmp_path / "a.h5", layers=["wide"], measures=[Probe(4)]))
    value = aggregate(table, "transfer_accuracy")["value"]
    assert (abs(value - 1 / P) < 3 * np.sqrt(1 / P * (1 - 1 / P) / (20 * P))).all()


# ------------------------------------------------------------------------------------------------------ bad input
def test_fewer_examples_than_folds_are_flagged_and_the_rest_is_computed(path):
    table = separability_table(quick(path, layers=["h1"], measures=[Probe(9), Means(9), Neighbours()]))
    for metric in ("probe_accuracy", "nearest_mean_accuracy"):
        assert set(aggregate(table, metric)["flag"]) == {f"fewer_than_9_folds:{M}"}
        assert aggregate(table, metric)["value"].isna().all()
    assert aggregate(table, "fisher_ratio")["value"].notna().all()
    assert aggregate(table, "knn_purity_1")["value"].notna().all()


def test_a_layer_that_is_constant_is_flagged_and_the_others_are_computed(tmp_path):
    n = len(example_table())
    write(tmp_path / "a.h5", h1=np.full((n, 5), 3.7, dtype=np.float32))
    table = separability_table(quick(tmp_path / "a.h5"))
    for measure in QUICK:
        for metric in measure.metrics:
            rows = aggregate(table, metric)
            assert rows.loc["h1", "value"].isna().all()
            assert set(rows.loc["h1", "flag"]) == {"constant_features"}
            assert rows.loc["input", "value"].notna().all()


def test_some_constant_features_are_counted(tmp_path):
    content = activations(example_table(), LAYERS[0])
    content[:, 5] = -2.0
    write(tmp_path / "a.h5", input=content)
    row = aggregate(separability_table(quick(tmp_path / "a.h5", measures=[Probe(3)])), "probe_accuracy")
    assert row.loc[("input", "test"), "flag"] == "constant_features:1"
    assert np.isfinite(row.loc[("input", "test"), "value"])


def test_points_on_their_means_have_no_fisher_ratio(tmp_path):
    examples = example_table()
    write(tmp_path / "a.h5", h1=np.eye(P, 5, dtype=np.float32)[examples["true_label"]])
    row = aggregate(separability_table(quick(tmp_path / "a.h5", measures=[Means(3)])), "fisher_ratio")
    assert row.loc[("h1", "test"), "flag"] == "no_variance_within_classes"
    assert np.isnan(row.loc[("h1", "test"), "value"])


def test_equal_means_and_layers_as_narrow_as_outputs_are_flagged():
    noise = np.random.default_rng(0).standard_normal((P, M, P + 1))
    arrays = {"outputs": noise[..., :P], "wider": noise, "equal": noise - noise.mean(axis=1, keepdims=True)}
    table = separability_table(Activations.from_arrays(arrays), measures=[Fuzziness()])
    flags = table.groupby("layer")["flag"].unique().map(list)
    assert flags.to_dict() == {
        "outputs": [f"few_features:{P}"],
        "wider": [""],
        "equal": ["no_variance_between_classes"],
    }
    nc1, fuzziness = (aggregate(table, name)["value"] for name in ("nc1", "separation_fuzziness"))
    np.testing.assert_allclose(nc1 * P, fuzziness)
    assert nc1["equal", "all"] != nc1["equal", "all"]


def test_a_kind_that_cannot_be_measured_is_flagged_and_the_others_are_measured(tmp_path):
    examples = example_table()
    last = examples[(examples["split"] == "test") & (examples["true_label"] > 0)].index
    write(tmp_path / "a.h5", examples.drop(last).reset_index(drop=True))
    plan = quick(tmp_path / "a.h5", layers=["h1"])
    assert plan.excluded == {"test": "fewer_than_2:one,two,three"}
    row = aggregate(separability_table(plan), "kmeans_nmi")
    assert np.isnan(row.loc[("h1", "test"), "value"])
    assert row.loc[("h1", "test"), "flag"] == "fewer_than_2:one,two,three"
    assert np.isfinite(row.loc[("h1", "permuted"), "value"])


def test_unseen_classes_are_measured_on_their_own_beside_the_others(tmp_path):
    unseen = example_table(6, splits=("unseen",)).query("true_label >= 4")
    examples = pd.concat([example_table(), unseen], ignore_index=True)
    examples["index"] = range(len(examples))
    write(tmp_path / "a.h5", examples)
    plan = quick(tmp_path / "a.h5", layers=["h1"])
    assert plan.classes == dict.fromkeys(("unpermuted", "permuted", "restored", "test"), (0, 1, 2, 3)) | {
        "unseen": (4, 5)
    }
    table = separability_table(plan)
    chance = aggregate(table, "probe_accuracy_chance")["value"]
    assert chance["h1", "unseen"] == 1 / 2
    assert chance["h1", "test"] == 1 / 4
    transfers = table[table["metric"] == "transfer_accuracy"]
    assert "unseen" not in set(transfers["kind"])
    assert not transfers["settings"].str.contains("unseen").any()


def test_a_single_class_is_flagged_and_where_there_is_no_other_refused(tmp_path):
    unseen = example_table(5, splits=("unseen",)).query("true_label == 4")
    examples = pd.concat([example_table(), unseen], ignore_index=True)
    write(tmp_path / "a.h5", examples.assign(index=range(len(examples))))
    plan = quick(tmp_path / "a.h5", layers=["h1"])
    assert plan.excluded == {"unseen": "single_class"}
    row = aggregate(separability_table(plan), "probe_accuracy").loc[("h1", "unseen")]
    assert (row["flag"], np.isnan(row["value"])) == ("single_class", True)
    write(tmp_path / "b.h5", example_table(1))
    with pytest.raises(InputError, match=r"no kind of two classes or more .*single_class"):
        quick(tmp_path / "b.h5")


def test_what_the_file_does_not_have_is_refused(path):
    with pytest.raises(UsageError, match=r"no layer matches 'conv\*'"):
        quick(path, layers=["conv*"])
    with pytest.raises(UsageError, match="has no unseen examples"):
        quick(path, kinds=["unseen"])
    with pytest.raises(
        UsageError, match="--per-class 9 is more than there are: class 'zero' has 8 unpermuted examples"
    ):
        quick(path, per_class=9)
    with pytest.raises(UsageError, match="--classes 7 is not between 2 and 4"):
        quick(path, n_classes=7)


# --------------------------------------------------------------------------------------------------- going on, choosing
def test_a_measure_can_be_added_to_a_finished_table_and_other_settings_cannot(file, everything):
    first = separability_table(quick(file, measures=QUICK[:2]))
    plan = quick(file)
    todo, kept = remaining_tasks(plan, first)
    assert len(kept) == len(first)
    assert set(plan.tasks) - set(todo) == set(quick(file, measures=QUICK[:2]).tasks)
    rest = [part.table for part in plan_parts(plan, todo=todo)]
    key = ["layer", "kind", "manifold", "metric", "settings"]
    both = pd.concat([first, *rest]).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(both, everything.sort_values(key, ignore_index=True))
    for name, other in {"seed": {"seed": 1}, "per_class": {"per_class": 4}, "folds": {"measures": (*QUICK[1:2], Probe(4))},
                        "also": {"measures": (Probe(3), Neighbours((2,)))}}.items():  # fmt: skip
        with pytest.raises(UsageError, match=rf"made with other settings \({name} .* in the table, .* here"):
            remaining_tasks(quick(file, **other), first)


def test_a_truncated_table_misses_the_tasks_cut_and_transfers_count_for_probes(file):
    plan = quick(file, layers=["h1"], measures=QUICK[:2])
    table = separability_table(plan)
    (probe,) = table.index[
        (table["metric"] == "probe_accuracy") & (table["manifold"] == "three") & (table["kind"] == "test")
    ]
    todo, kept = remaining_tasks(plan, table.drop(index=probe))
    assert todo == [Task("h1", "test", "probe")]
    assert not kept["settings"].str.contains('"trained_on": "test"').any()
    transfer = table[
        (table["metric"] == "transfer_accuracy") & table["settings"].str.contains('"trained_on": "restored"')
    ]
    for row in transfer.index:
        assert remaining_tasks(plan, table.drop(index=row))[0] == [Task("h1", "restored", "probe")]
    assert remaining_tasks(plan, table)[0] == []


PROFILES = ("probe_accuracy", "knn_purity_1", "kmeans_nmi")


def test_the_best_layer_has_the_largest_value_and_is_never_chosen_pessimistically(profiles):
    table = with_choices(profiles, PROFILES)
    best = table[table["metric"] == "best_layer"]
    assert len(best) == 4 * 3
    for _, row in best.iterrows():
        measure = json.loads(row["settings"])["measure"]
        values = aggregate(table, measure)["value"].unstack("kind")[row["kind"]]
        assert values[row["layer"]] == pytest.approx(values.max())
        mine = table[(table["settings"] == row["settings"]) & (table["kind"] == row["kind"])].set_index("metric")
        assert mine.loc["best_value", "value"] == pytest.approx(values.max())
        assert mine.loc["best_layer_ci_low", "value"] <= row["value"] <= mine.loc["best_layer_ci_high", "value"]
        assert mine.loc["best_value_split", "value"] <= mine.loc["best_value_halves", "value"] + 1e-12
    assert not table.duplicated(["layer", "kind", "manifold", "metric", "settings", "fingerprint"]).any()


def test_choices_are_made_anew_and_do_not_pile_up(profiles):
    once = with_choices(profiles, PROFILES)
    pd.testing.assert_frame_equal(with_choices(once, PROFILES), once)
    # a column of depths with gaps holds floats
    pd.testing.assert_frame_equal(without_choices(once).reset_index(drop=True), profiles, check_dtype=False)


def test_a_checkpoint_agrees_with_itself(profiles):
    twin = profiles.assign(fingerprint="twin", checkpoint="twin", epoch=4)
    table = with_choices(pd.concat([profiles, twin], ignore_index=True), PROFILES)
    agreed = table[table["metric"] == "agreement_of_checkpoints"]
    assert len(agreed) == 4 * 3
    np.testing.assert_allclose(agreed["value"], 1.0)


# ----------------------------------------------------------------------------------------------------- the command
OPTIONS = ("--folds", 3, "--cluster-seeds", 2, "--pairs", 5)


def test_the_command_writes_one_table_of_several_checkpoints_and_says_what_is_best(path, tmp_path):
    other = write(tmp_path / "later.h5", seed=1, epoch=9)
    some = ("--layers", "input", "--layers", "h1", "--measures", "probe", "--measures", "clusters")
    out = done("separability", path, other, *OPTIONS, *some, "--out", tmp_path / "t.csv")
    assert "probe accuracy" in out
    assert "== acts (epoch 3) ==" in out
    assert "best layer" in out
    assert "W of 2 checkpoints" in out
    table = read_results(tmp_path / "t.csv")
    assert set(table["epoch"].dropna()) == {3, 9}
    done("plot", tmp_path / "t.csv", "--figure", "progress", "--out", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_goes_on_adds_measures_and_refuses_another_table(path, tmp_path):
    table, whole = tmp_path / "t.csv", tmp_path / "whole.csv"
    of_a_layer = (*OPTIONS, "--layers", "h1", "--measures", "means")
    done("separability", path, *of_a_layer, "--out", table)
    done("separability", path, *of_a_layer, "--measures", "margins", "--out", table, "--resume")
    done("separability", path, *of_a_layer, "--measures", "margins", "--out", whole)
    key = ["layer", "kind", "manifold", "metric", "settings"]
    pd.testing.assert_frame_equal(*(read_results(name).sort_values(key, ignore_index=True) for name in (table, whole)))
    code, _, err = run("separability", path, "--measures", "means", "--out", table, "--resume")
    assert (code, "(folds 3 in the table, 5 here): give the same settings, another --out, or --force" in err) == (
        2,
        True,
    )
    other = write(tmp_path / "other.h5", seed=1)
    code, _, err = run("separability", other, *of_a_layer, "--out", table, "--resume")
    assert (code, "holds 1 other activation files" in err) == (2, True)
    code, _, err = run("separability", path, path, *of_a_layer)
    assert (code, "name each checkpoint's once" in err) == (2, True)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(path, tmp_path):
    out = done("separability", path, *OPTIONS, "--dry-run")
    assert "3 layers; unpermuted 4 classes, permuted 4 classes" in out
    assert "each of M = 8 examples" in out
    assert "87 tasks of 316 MB at most, about" in out
    assert "linear probes, 3 folds" in out
    assert list(tmp_path.iterdir()) == [path]


def test_machines_read_json(path, tmp_path):
    out = done("separability", path, *OPTIONS, "--measures", "means", "--json", "--out", tmp_path / "t.csv")
    rows = json.loads(out)
    assert {"metric", "value", "flag"} <= set(rows[0])
    assert "Infinity" not in out
    assert "NaN" not in out


def test_mistakes_in_options_are_one_line(path):
    for words, said in (
        (("--folds", 2), "expected 3 or more, two of them to choose the regularisation on; got 2"),
        (("--measures", "svm"), "'svm' is not one of"),
        (("--classes", 9), "--classes 9 is not between 2 and 4"),
    ):
        code, _, err = run("separability", path, *words)
        assert (code, said in err, len(err.splitlines())) == (2, True, 1)


def test_capacity_keeps_to_kinds_that_share_their_classes(tmp_path):
    unseen = example_table(6, splits=("unseen",)).query("true_label >= 4")
    examples = pd.concat([example_table(), unseen], ignore_index=True)
    path = write(tmp_path / "a.h5", examples.assign(index=range(len(examples))))
    assert "4 kinds, P = 4 classes" in done("capacity", path, "--dry-run")
    assert "1 kinds, P = 2 classes" in done("capacity", path, "--kinds", "unseen", "--dry-run")
    code, _, err = run("capacity", path, "--kinds", "unseen", "--kinds", "test", "--dry-run")
    assert (code, "give --kinds unseen alone" in err) == (2, True)

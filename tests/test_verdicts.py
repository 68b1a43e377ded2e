"""From results tables to the answer, and its words."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.errors import InputError
from manigeo.localization.depth import read_at
from manigeo.localization.evidence import METHODS
from manigeo.localization.gate import accuracy_in_tables, gate_accuracy, memorized_accuracy
from manigeo.localization.reference import nothing_to_compare, reference_epoch
from manigeo.localization.statement import describe_localization, localization_table
from manigeo.plots import plot_localization
from manigeo.results import as_table, read_results, with_settings, write_results
from manigeo.runs import run_tables
from manigeo_extract import Recorder
from tests.bench.trials import ROOT, TRIALS, trials
from tests.command_line import done, run
from tests.effects import assert_effect, share_error
from tests.reference import shared
from tests.trained import planted_run

LAYERS = ("input", "h1", "h2", "h3", "logits")
RNG = np.random.default_rng(0)


def capacities(rise=(0, 0, 0, 1, 1), checkpoints=(("best", 5), ("last", 40)), seed=0):
    """Ten classes of ten points; at the last checkpoint capacity is up by these steps, inversely."""
    rng = np.random.default_rng(seed)
    return as_table(
        [
            {
                "run": "run", "checkpoint": name, "epoch": epoch, "layer": layer, "depth": depth, "kind": "permuted",
                "manifold": f"c{c}", "metric": "capacity", "settings": '{"analysis": "mean_field", "per_class": 10}',
                "value": 1 / (4.5 + 0.1 * rng.standard_normal() - (rise[depth] if name == "last" else 0)),
            }
            for name, epoch in checkpoints for depth, layer in enumerate(LAYERS) for c in range(10)
        ]
    )  # fmt: skip


def flipping(shares, chances=(0.25, 0.25, 0.25, 0.25)):
    """Shares of the channels that flip examples; those of unpermuted ones are in the layers the other way round."""
    return as_table(
        [
            {"layer": layer, "depth": depth, "kind": kind, "metric": metric, "value": value, "stderr": error,
             "settings": '{"analysis": "channels"}'}
            for depth, layer in enumerate(LAYERS[1:])
            for kind, of in (("permuted", shares), ("unpermuted", shares[::-1]))
            for metric, value, error in (("channel_share", of[depth], 0.02), ("channel_share_chance", chances[depth], None))
        ]
    )  # fmt: skip


def exchanges(drops, analysis="rewind", to="best", error=0.01):
    """Permuted accuracy lost beyond unpermuted, layer by layer, and the network as it was."""
    setting = json.dumps(
        {"analysis": analysis, "sweep": "each", "to": to, "to_epoch": 5 if analysis == "rewind" else 0}
    )
    rows = [
        {"layer": f"{layer}.linear", "depth": depth, "kind": kind, "metric": "accuracy_drop", "settings": setting,
         "value": 0.1 + (drop if kind == "permuted" else 0), "stderr": error}
        for depth, (layer, drop) in enumerate(zip(LAYERS[1:], drops, strict=True)) for kind in ("permuted", "unpermuted")
    ]  # fmt: skip
    none = {"layer": "(none)", "kind": "permuted", "metric": "accuracy", "value": 0.99}
    return as_table([*rows, none | {"settings": json.dumps({"analysis": analysis, "sweep": "none"})}])


def localized(*tables, gate=1.0):
    return localization_table({"run": pd.concat(tables, ignore_index=True)}, {"run": gate}, n_resamples=300)


def value(table, metric, method):
    full = with_settings(table, "method", "other")
    (found,) = full.loc[(full["metric"] == metric) & (full["method"] == method) & full["other"].isna(), "value"]
    return found


def test_geometry_localizes_where_the_inverse_capacity_falls():
    table = localized(capacities())
    assert value(table, "onset", "geometry") == 2  # the input is no layer, h1 is at 0
    assert value(table, "center_of_mass", "geometry") == pytest.approx(
        2, abs=0.3
    )  # ten classes of error .1 a step of 1
    assert value(table, "localized", "geometry") == 1
    assert "Permuted examples come apart at h3: " in describe_localization(table)


def test_without_an_earlier_epoch_the_floor_of_points_is_what_capacity_rises_over():
    alone = capacities(checkpoints=(("last", 40),))
    evidence = METHODS["geometry"].read(alone).evidence.mean()
    np.testing.assert_allclose(evidence, [0.5, 0.5, 0.5, 1.5, 1.5], atol=0.15)  # 10 / 2 - 4.5, and a step of 1


def test_the_floor_of_few_classes_is_that_of_as_many_manifolds_without_structure():
    unnamed = capacities(checkpoints=(("last", 40),))
    few = unnamed.assign(settings='{"analysis": "mean_field", "per_class": 10, "n_classes": 10}')
    rise = 1 / unstructured_capacity(10, n_manifolds=10) - 10 / 2
    many = METHODS["geometry"].read(unnamed).evidence.mean()
    assert rise > 0.2  # .24: few manifolds have one half of their dichotomies, and not the mean, above the floor
    np.testing.assert_allclose(METHODS["geometry"].read(few).evidence.mean(), many + rise)


def test_channels_count_where_they_lie_beyond_the_share_of_all_channels():
    curve = METHODS["channels"].read(flipping([0.1, 0.2, 0.6, 0.1], [0.1, 0.2, 0.3, 0.4]))
    assert curve.layers == ("h1", "h2", "h3", "logits")
    np.testing.assert_allclose(curve.evidence.mean(), [0.0, 0.0, 0.3, -0.3], atol=1e-12)
    np.testing.assert_allclose(curve.evidence.stderr, 0.02)
    assert METHODS["channels"].read(exchanges([0.0, 0.0, 0.3, 0.1])) is None


def test_exchanges_count_what_permuted_examples_lose_beyond_unpermuted_ones():
    curve = METHODS["rewinding"].read(exchanges([0.0, 0.0, 0.3, 0.1]))
    assert curve.layers == ("h1.linear", "h2.linear", "h3.linear", "logits.linear")
    np.testing.assert_allclose(curve.evidence.mean(), [0.0, 0.0, 0.3, 0.1], atol=1e-12)
    np.testing.assert_allclose(curve.evidence.stderr, np.hypot(0.01, 0.01))
    assert METHODS["re-initialisation"].read(exchanges([0.0, 0.0, 0.3, 0.1])) is None


def test_both_answers_name_their_layers_on_one_scale_of_depth():
    words = describe_localization(localized(capacities(), exchanges([0, 0, 0.9, 0])))
    assert "come apart at h3.linear: " in words
    assert "What was memorized is held by h3.linear: " in words
    assert "h3.linear alone costs permuted examples 0.90 [0.87, 0.93] more than unpermuted ones" in words
    assert "The two answers agree" in words
    table = localized(capacities(), exchanges([0, 0, 0.9, 0]))
    assert value(table, "center_of_mass", "rewinding") == 2
    assert "do not agree" not in words


def test_answers_to_two_questions_do_not_contradict_each_other():
    words = describe_localization(localized(capacities((0, 0, 0, 0, 1)), exchanges([0.9, 0, 0, 0])))
    assert "come apart at logits.linear" in words
    assert "held by h1.linear" in words
    assert "These are answers to two questions, and both hold" in words
    assert "do not agree" not in words
    assert "not agree" not in words


def test_methods_of_one_question_agree_within_a_layer_or_are_said_not_to():
    initial = exchanges([0, 0, 0.9, 0], analysis="reinit", to="init")
    words = describe_localization(localized(exchanges([0, 0, 0.9, 0]), initial))
    assert "re-initialisation agrees" in words
    words = describe_localization(localized(exchanges([0.9, 0, 0, 0]), initial))
    assert "re-initialisation (h3.linear) does not agree" in words


def test_several_layers_that_hold_labels_are_all_named_and_each_once():
    words = describe_localization(localized(exchanges([0.5, 0, 0, 0.5])))
    assert "held by h1.linear and logits.linear: 100 %" in words
    assert "from h" not in words


def test_a_question_without_tables_is_answered_by_the_command_that_makes_them():
    words = describe_localization(localized(capacities()))
    assert "Which layers hold what was memorized is not known: run manigeo rewind --each on the folder" in words
    words = describe_localization(localized(exchanges([0, 0, 0.9, 0])))
    assert "Where permuted examples come apart is not known: run manigeo capacity or separability" in words


def test_a_layer_whose_activations_did_not_change_has_no_evidence():
    table = capacities()
    first = table["layer"].isin(["input", "h1", "h2"])
    same = table[first & (table["checkpoint"] == "best")].assign(checkpoint="last", epoch=40)
    frozen = pd.concat([table[~(first & (table["checkpoint"] == "last"))], same], ignore_index=True)
    found = localized(frozen)
    evidence = found[(found["metric"] == "evidence")].set_index("layer")["value"]
    assert (evidence[["h1", "h2"]] == 0).all()
    assert value(found, "localized", "geometry") == 1


def test_both_epochs_are_no_lower_than_points_without_structure():
    table = capacities()
    low = table.assign(value=np.where(table["layer"].isin(["h1", "h2"]), table["value"] / 2, table["value"]))
    evidence = METHODS["geometry"].read(low).evidence.mean()
    assert (evidence[1:3] == 0).all()


# --------------------------------------------------------------------------------------------------- the reference epoch
def curves(permuted, validation, epochs):
    rows = [(epoch, kind, accuracy) for epoch, *both in zip(epochs, permuted, validation, strict=True)
            for kind, accuracy in zip(("permuted", "validation"), both, strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=["epoch", "kind", "accuracy"]).assign(n=1000)


DESCENT = curves([0.1, 0.1, 0.12, 0.5, 0.9, 1.0], [0.1, 0.5, 0.6, 0.4, 0.55, 0.7], [0, 5, 10, 20, 30, 40])


def test_the_reference_epoch_is_before_memorization_where_the_best_is_not():
    found = reference_epoch(DESCENT, n_classes=10)
    assert (found.epoch, found.permuted, found.chosen_by) == (10, 0.12, "validation")
    assert DESCENT[DESCENT["kind"] == "validation"].set_index("epoch")["accuracy"].idxmax() == 40


def test_of_the_epochs_kept_the_nearest_earlier_one_is_taken():
    found = reference_epoch(DESCENT, n_classes=10, kept=[0, 5, 30, 40])
    assert (found.epoch, found.wanted) == (5, 10)
    assert reference_epoch(DESCENT, n_classes=10, kept=[0, 20, 40]) is None  # at 0 nothing has been learned
    assert reference_epoch(DESCENT, n_classes=10, kept=[0, 20, 40], near_guessing=0.5).epoch == 20
    assert "the epoch to compare with is 10, which was not kept" in nothing_to_compare(
        DESCENT, kept=[0, 20], n_classes=10
    )


def test_without_validation_examples_the_accuracy_on_restored_labels_chooses():
    restored = DESCENT.assign(kind=DESCENT["kind"].replace("validation", "restored"))
    assert reference_epoch(restored).chosen_by == "restored"
    late = DESCENT[DESCENT["epoch"] >= 20]
    assert reference_epoch(late) is None
    assert "permuted accuracy is 0.500 or more" in nothing_to_compare(late, n_classes=10)
    assert reference_epoch(DESCENT[DESCENT["kind"] != "permuted"]) is None


def test_of_vgg16_on_cifar100_the_reference_epoch_is_before_memorization():
    metrics = pd.read_csv(shared("reference/gpu_runs/vgg16.metrics.csv"))
    found = reference_epoch(metrics, n_classes=100)
    assert 16 <= found.epoch <= 24
    assert reference_epoch(metrics, n_classes=100, kept=[0, 44, 80]) is None


def test_a_best_epoch_that_knows_the_permuted_labels_is_no_reference():
    settings = json.dumps({"analysis": "rewind", "sweep": "whole", "to": "best", "to_epoch": 5})
    known = {
        "layer": "(all)",
        "kind": "permuted",
        "metric": "accuracy",
        "value": 0.99,
        "settings": settings,
        "epoch": 40,
    }
    table = pd.concat([exchanges([0, 0, 0.9, 0]), as_table([known])], ignore_index=True)
    assert METHODS["rewinding"].read(exchanges([0, 0, 0.9, 0])) is not None
    assert METHODS["rewinding"].read(table) is None


def test_localize_refuses_a_run_without_a_checkpoint_from_before_memorization(tmp_path):
    recorder = Recorder(tmp_path / "run", n_classes=10, epochs="all")
    for epoch, metrics in DESCENT.groupby("epoch"):
        if epoch in (0, 20, 30, 40):
            recorder.step(torch.nn.Linear(2, 10), epoch, metrics.set_index("kind")[["accuracy", "n"]].T.to_dict())
    assert not recorder.folder.checkpoint("before").exists()
    table = exchanges([0, 0, 0.9, 0])
    table["settings"] = table["settings"].str.replace('"to_epoch": 5', '"to_epoch": 20')
    write_results(table, tmp_path / "run" / "rewind.csv")
    code, _, err = run("localize", tmp_path / "run", "--out", tmp_path / "l.csv")
    assert code == 3
    assert "no epoch has learned anything before it memorizes" in err
    out = done("localize", tmp_path / "run", "--near-guessing", 0.5, "--out", tmp_path / "l.csv")
    assert "Compared with epoch 20, before memorization" in out
    assert "held by h3.linear" in out
    assert with_settings(read_results(tmp_path / "l.csv"), "near_guessing")["near_guessing"].eq(0.5).all()
    told = recorder.folder.description_path.read_text().replace("{", '{"near_guessing": 0.5,', 1)
    recorder.folder.description_path.write_text(told)  # as Recorder(near_guessing=0.5) writes it
    assert "Compared with epoch 20" in done("localize", tmp_path / "run", "--out", tmp_path / "l.csv", "--force")
    Recorder(tmp_path / "another", n_classes=10)
    code, _, err = run("localize", tmp_path / "run", tmp_path / "another", "--out", tmp_path / "l.csv", "--force")
    assert code == 2
    assert "the runs differ in what counts as before memorization: 0.08 (" in err


def test_a_comparison_with_the_untrained_network_is_said():
    for first, said in ((0, True), (5, False)):
        accuracies = {"run": (curves([0.1, 1.0], [0.2, 0.7], [first, 40]), 10)}
        tables = {"run": capacities(checkpoints=(("first", first), ("last", 40)))}
        words = describe_localization(localization_table(tables, {"run": 1.0}, metrics=accuracies, n_resamples=300))
        assert f"Compared with epoch {first}, before memorization" in words
        assert ("Epoch 0 is before the training: " in words) is said


def test_the_gate_comes_first():
    assert (
        describe_localization(localized(capacities(), gate=None))
        == "There is nothing to localize: no labels were permuted."
    )
    words = describe_localization(localized(capacities(), gate=0.5))
    assert words.startswith(
        "There is nothing to localize: the network has not memorized (training accuracy on permuted labels 0.500"
    )
    assert set(localized(capacities(), gate=0.5)["metric"]) == {"gate"}


def test_no_evidence_and_no_error_are_said():
    flat = describe_localization(localized(capacities((0, 0, 0, 0, 0))))
    assert "Where permuted examples come apart is not known: geometry: not enough evidence" in flat
    once = [{"layer": layer, "depth": d, "checkpoint": name, "epoch": epoch, "metric": "rotation", "value": v * d}
            for d, layer in enumerate(LAYERS) for name, epoch, v in (("best", 1, 0.1), ("last", 2, 0.3))]  # fmt: skip
    assert "weights: a single run has no error here; give several seeds" in describe_localization(
        localized(as_table(once))
    )


def test_several_runs_are_one_answer_and_those_that_have_not_memorized_are_left_out():
    runs = {f"r{seed}": capacities(seed=seed) for seed in range(4)}
    table = localization_table(runs, {"r0": 1.0, "r1": 0.99, "r2": 0.2, "r3": 1.0}, n_resamples=300)
    words = describe_localization(table)
    assert words.startswith("3 of 4 networks have memorized")
    assert table.loc[table["metric"] == "localized", "n"].tolist() == [3]
    assert table[table["metric"] == "gate"].set_index("run").loc["r2", "flag"] == "not_memorized"


def test_tables_without_permuted_examples_are_refused():
    with pytest.raises(
        InputError, match="hold nothing of permuted examples at the end of training: run manigeo capacity"
    ):
        localized(capacities().assign(kind="test"))


def test_activations_belong_to_the_layer_whose_block_they_are_read_at():
    assert read_at(("input", "conv1", "conv1.act", "other"), ("conv1", "conv2")) == {"conv1": 3}
    assert read_at(("block1", "block2"), ("block1.a", "block1.b", "block2.a")) == {"block1.b": 0, "block2.a": 1}
    assert read_at(("pool", "head"), ("conv1", "head")) == {"head": 1}


# ---------------------------------------------------------------------------------------------------- on a trained network
@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """A run with its memorization in the last two layers, rewound, beside its folder."""
    folder = tmp_path_factory.mktemp("runs") / "planted"
    planted_run(folder)
    done("rewind", folder, "--each", "--out", folder.parent / "rewind.csv")
    return folder


@pytest.mark.training
def test_a_runs_tables_are_found_in_it_and_beside_it(analysed, tmp_path):
    found = run_tables(analysed)
    assert [table.path.name for table in found.tables] == ["rewind.csv"]
    table = found.table
    assert set(table["run"]) == {"planted"}
    write_results(
        read_results(analysed.parent / "rewind.csv").assign(run="another"), analysed.parent / "other.csv", force=True
    )
    pd.testing.assert_frame_equal(run_tables(analysed).table, table)  # by its identity it is the same, and stands once
    with pytest.raises(InputError, match="has no results"):
        run_tables(tmp_path)
    assert memorized_accuracy(analysed) is None  # its own loop recorded no accuracy on permuted labels
    reached = accuracy_in_tables(table)
    assert_effect("permuted accuracy above the gate of .95", reached - 0.95, share_error(reached, 180))  # .3 of 600
    assert accuracy_in_tables(capacities()) is None


def test_memorization_is_read_from_the_metrics_else_from_the_tables_else_unknown():
    scored, unscored = exchanges([0.0, 0.0, 0.3, 0.1]), capacities()
    assert gate_accuracy(0.97, scored) == 0.97
    assert gate_accuracy(None, scored) == 0.99
    assert np.isnan(gate_accuracy(None, unscored))
    assert gate_accuracy(None, unscored[unscored["kind"] != "permuted"]) is None
    table = localized(unscored, gate=np.nan)
    assert list(table["flag"]) == ["accuracy_unknown"]
    assert "it is not known whether the network has memorized; run manigeo rewind" in describe_localization(table)


@pytest.mark.training
def test_one_checkpoint_without_metrics_is_gated_by_its_activations(analysed, tmp_path):
    acts, table = tmp_path / "acts.h5", tmp_path / "acts.capacity.csv"
    done(
        "extract",
        "--model",
        analysed / "checkpoints" / "last.pt",
        "--layers",
        "h?",
        "--layers",
        "logits",
        "--out",
        acts,
    )
    done("capacity", acts, "--per-class", 8, "--draws", 20, "--out", table, "--jobs", 1)
    words = done("localize", table, "--out", tmp_path / "l.csv")
    assert words.startswith("The network has memorized (training accuracy on permuted labels 1.000")
    assert "are compared with points without structure" in words
    acts.unlink()
    assert "it is not known whether the network has memorized" in done("localize", table, "--out", tmp_path / "m.csv")


@pytest.mark.training
def test_localize_finds_the_planted_layers_and_draws_them(analysed, tmp_path):
    out = tmp_path / "l.csv"
    text = done("localize", analysed.parent / "rewind.csv", "--out", out)
    assert "has memorized" in text
    shares = with_settings(read_results(out).query("metric == 'profile'"), "method")
    profile = shares[shares["method"] == "rewinding"].set_index("layer")["value"]
    assert profile[["h3.linear", "logits"]].sum() > 0.99  # the others are put back bit for bit, and change nothing
    for ax in plot_localization(read_results(out)).axes:
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["h1.linear", "h2.linear", "h3.linear", "logits"]
    assert "has memorized" in done("localize", analysed, "--out", out, "--force")
    (tmp_path / "empty").mkdir()
    code, _, err = run("localize", tmp_path / "empty", "--out", tmp_path / "x.csv")
    assert (code, "has no results" in err) == (3, True)


# ---------------------------------------------------------------------------------------------------- put to the test
def test_every_answer_says_how_often_its_method_found_a_planted_layer():
    words = describe_localization(localized(capacities(), exchanges([0, 0, 0.9, 0])))
    geometry, rewinding = (next(line for line in words.splitlines() if line.startswith(f"- {name}"))
                           for name in ("geometry", "rewinding"))  # fmt: skip
    assert "no better than chance at finding a planted layer" in geometry
    assert "Put to the test: found the planted layer in" in rewinding
    of_kind = localization_table({"r": exchanges([0, 0, 0.9, 0])}, {"r": 1.0}, network="cnn", n_resamples=100)
    assert "convolutional networks" in describe_localization(of_kind)


def test_the_quoted_trials_are_those_of_the_committed_benchmark():
    committed = pd.read_csv(ROOT / "data/results/localization_benchmark.csv")
    pd.testing.assert_frame_equal(pd.read_csv(TRIALS), trials(committed), check_dtype=False)


def test_where_no_layer_alone_costs_much_the_answer_says_so():
    words = describe_localization(localized(exchanges([0.03, 0.02, 0.04, 0.0], error=0.001)))
    assert "No single layer holds much of what was memorized" in words
    assert "No single layer" not in describe_localization(localized(exchanges([0.3, 0.02, 0.04, 0.0], error=0.001)))


def test_beside_two_planted_layers_stand_their_interaction_and_the_noise_control():
    table = exchanges([0.5, 0, 0, 0.5])
    settings = json.dumps(
        {"analysis": "rewind", "sweep": "pair", "to": "best", "to_epoch": 5, "direction": "into_last"}
    )
    noise = settings.replace("pair", "noise")
    more = [
        {"layer": "h1.linear+logits.linear", "kind": "permuted", "metric": "interaction", "value": -0.2, "stderr": 0.02,
         "settings": settings, "run": "run"},
        {"layer": "h1.linear", "kind": "permuted", "metric": "accuracy_drop", "value": 0.07, "stderr": 0.01,
         "settings": noise, "run": "run"},
    ]  # fmt: skip
    words = describe_localization(localized(table, as_table(more)))
    assert "Together h1.linear and logits.linear cost -0.20 ± 0.02 beyond the sum of both (interaction)." in words
    assert "noise of the same length: 0.07" in words

"""Rewinding, re-initialising, drawing again: against algebra, and where the answer is planted."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from manigeo.errors import InputError, UsageError
from manigeo.localization.rewinds import rewind_summary, selected_rows
from manigeo.results import with_settings
from manigeo_extract.files.checkpoints import save_checkpoint
from manigeo_extract.interventions.editing import Redraw
from manigeo_extract.interventions.exchanges import FRESH, ZERO, Intervention, Laboratory, sweep_layers
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import build_model, mlp
from manigeo_extract.training.runs import Run, Snapshot, find_snapshot, run_snapshots
from tests.effects import assert_effect, share_error
from tests.test_evaluation import CLASSES, Inputs, table
from tests.trained import ARGS, digest, planted_run

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    data, examples = planted_run(folder)
    model = mlp(**ARGS)
    snapshots = run_snapshots(folder)
    model.load_state_dict(find_snapshot(snapshots, "last", folder).state(model))
    place = {"run": "planted", "checkpoint": "last", "epoch": 2, "fingerprint": "f"}
    return Run(folder, ("mlp", ARGS), model, data, examples, place, snapshots)


def laboratory(run: Run, **options) -> Laboratory:
    return Laboratory(run, Examiner(run.data, run.examples), options.pop("analysis", "rewind"), **options)


def parts(lab: Laboratory, todo) -> list[pd.DataFrame]:
    return [lab.table(at) for at in lab.todo(todo)[0]]


def groups_of(run: Run):
    return group_layers(run.model, run.data.inputs([0, 1]))


def rewound(run: Run, to: str, sweeps=("last", "each", "prefix"), **options) -> pd.DataFrame:
    groups, target = groups_of(run), run.snapshot(to)
    todo = [Intervention("whole", tuple(groups), target)]
    todo += [Intervention(sweep, layers, target) for sweep in sweeps for layers in sweep_layers(groups, sweep)]
    table = pd.concat(parts(laboratory(run, **options), todo), ignore_index=True)
    return pd.concat([table, rewind_summary(table)], ignore_index=True)


def rows_of(table: pd.DataFrame, metric: str, kind: str, sweep: str | None = None) -> pd.DataFrame:
    rows = with_settings(table, "sweep").query("metric == @metric and kind == @kind")
    return (rows if sweep is None else rows[rows["sweep"] == sweep]).set_index("layer")


def values(table: pd.DataFrame, metric: str, kind: str, sweep: str | None = None) -> pd.Series:
    return rows_of(table, metric, kind, sweep)["value"]


def test_memorization_that_was_planted_in_the_last_two_layers_is_found(planted):
    before = digest(planted.model)
    table = rewound(planted, "1")
    assert digest(planted.model) == before
    trained = rows_of(table, "accuracy", "permuted", "none").loc["(none)"]
    reached, n = trained["value"], int(trained["n"])
    assert_effect("permuted accuracy above the gate of .95", reached - 0.95, share_error(reached, n))
    each = rows_of(table, "js", "permuted", "each")
    assert (
        each["value"][["h1.linear", "h2.linear"]] < 1e-9
    ).all()  # the same bits were put back; float32 sums of zeros
    for layer in ("h3.linear", "logits"):
        assert_effect(f"what {layer} alone changes", *each.loc[layer, ["value", "stderr"]])
    last = values(table, "accuracy", "permuted", "last")
    whole = values(table, "accuracy", "permuted", "whole")["(all)"]
    assert last["(last 2)"] == last["(last 3)"] == last["(last 4)"] == whole
    assert_effect("half of the accuracy goes with these layers", reached / 2 - whole, share_error(whole, n))
    prefix = rows_of(table, "accuracy_drop", "permuted", "prefix")
    assert prefix["value"]["(first 2)"] == 0
    assert_effect("the first three layers drop it", *prefix.loc["(first 3)", ["value", "stderr"]])


def test_two_rewound_layers_regain_all_that_was_lost_and_validation_chooses_them(planted):
    table = rewound(planted, "1")
    test = rows_of(table, "accuracy", "test")
    whole, trained = test[test["sweep"] == "whole"].iloc[0], test[test["sweep"] == "none"].iloc[0]
    lost = whole["value"] - trained["value"]
    assert_effect("test accuracy lost", lost, np.hypot(whole["stderr"], trained["stderr"]))  # paired it would be less
    regained = rows_of(table, "regained", "test", "last")
    assert regained.loc["(last 2)", ["value", "stderr"]].tolist() == [1, 0]  # the same examples above and below
    assert 0 < regained.loc["(last 1)", "stderr"] < 0.5
    chosen = selected_rows(table)
    at = chosen[(chosen["metric"] == "accuracy") & (chosen["kind"] == "validation")]
    among = values(table, "accuracy", "validation", "last")
    assert at["value"].iloc[0] == among.max()
    assert at["layer"].iloc[0] == among.idxmax()


def test_regained_is_flagged_where_nothing_was_lost(planted):
    table = rewound(planted, "0", sweeps=("last",))
    accuracy = rows_of(table, "accuracy", "test")[["value", "stderr"]]
    (trained, error), (initial, other) = accuracy.loc["(none)"], accuracy.loc["(all)"]
    assert_effect("test accuracy won since epoch 0", trained - initial, np.hypot(error, other))
    rows = table[table["metric"] == "regained"]
    assert set(rows["flag"]) == {"nothing_lost"}
    assert rows["value"].isna().all()


def test_nor_is_anything_regained_where_both_epochs_are_equally_good(planted):
    table = rewound(planted, "last", sweeps=("last",))
    rows = table[table["metric"] == "regained"]
    assert set(rows["flag"]) == {"nothing_lost"}


def linear_run(tmp_path) -> Run:
    args = {"input_shape": [2, 3], "n_classes": CLASSES, "depth": 0}
    for epoch in (0, 1):
        save_checkpoint(tmp_path / f"epoch-000{epoch}.pt", build_model("mlp", args, seed=epoch), epoch=epoch)
    model = build_model("mlp", args, seed=1)
    return Run(tmp_path, ("mlp", args), model, Inputs(), table(), {"fingerprint": "f"}, run_snapshots(tmp_path))


def test_rewinding_a_linear_model_is_the_algebra(tmp_path):
    run = linear_run(tmp_path)
    (group,) = group_layers(run.model, torch.zeros(2, 2, 3))
    initial = run.snapshot("init").state(run.model)
    (part,) = parts(laboratory(run), [Intervention("each", (group,), run.snapshot("init"))])[1:]
    examples, X = table(), Inputs().X.flatten(1).double().numpy()
    W, b = initial["logits.weight"].double().numpy(), initial["logits.bias"].double().numpy()
    logits = X @ W.T + b
    rows = np.flatnonzero(examples["split"] == "test")
    y = examples["true_label"].to_numpy()[rows]
    assert values(part, "accuracy", "test")["logits"] == np.mean(logits[rows].argmax(1) == y)
    loss = np.log(np.exp(logits[rows]).sum(1)) - logits[rows, y]
    assert values(part, "loss", "test")["logits"] == pytest.approx(loss.mean(), rel=1e-6)  # float32


def test_zero_layers_leave_the_bias_of_the_rest_and_fresh_draws_have_intervals(planted):
    groups = groups_of(planted)
    todo = [Intervention("each", (groups[0],), ZERO), Intervention("each", (groups[0],), FRESH)]
    redraw = Redraw(planted.model, planted.snapshot("init").state(planted.model))
    lab = laboratory(planted, analysis="reinit", threshold=0.1, redraw=redraw, n_draws=3)
    _, zero, fresh = parts(lab, todo)
    counts = np.bincount(planted.data.labels[planted.data.rows("test")])
    constant = set(np.round(counts / counts.sum(), 9))  # one answer for all
    assert round(values(zero, "accuracy", "test")["h1.linear"], 9) in constant
    at = fresh[fresh["kind"] == "test"].set_index("metric")
    assert at.loc["accuracy", "n"] == 3
    low, high = at.loc["accuracy_ci_low", "value"], at.loc["accuracy_ci_high", "value"]
    assert low <= at.loc["accuracy", "value"] <= high
    # Student's t of two degrees of freedom at 97.5 %
    assert high - low == pytest.approx(2 * 4.302653 * at.loc["accuracy", "stderr"], rel=1e-6)
    assert at.loc["critical", "value"] == 1
    assert json.loads(at["settings"].iloc[0])["to"] == FRESH


def test_what_is_done_is_left_out_and_draws_do_not_depend_on_it(planted):
    groups = groups_of(planted)
    todo = [Intervention("each", (group,), FRESH) for group in groups[:2]]
    lab = laboratory(planted, analysis="reinit", redraw=Redraw(planted.model), n_draws=2, seed=5)
    every = parts(lab, todo)
    remaining, kept = lab.todo(todo, pd.concat(every[:2], ignore_index=True))
    assert remaining == todo[1:]
    assert len(kept) == len(every[0]) + len(every[1])
    pd.testing.assert_frame_equal(lab.table(todo[1]), every[2])


def test_an_intervention_is_done_only_when_all_of_its_rows_are_there(planted):
    group = groups_of(planted)[0]
    todo = [Intervention("each", (group,), FRESH), Intervention("each", (group,), ZERO)]
    lab = laboratory(planted, analysis="reinit", redraw=Redraw(planted.model), n_draws=2, threshold=0.1)
    table = pd.concat(parts(lab, todo), ignore_index=True)
    assert lab.todo(todo, table)[0] == []
    places = with_settings(table, "to")["to"].map({None: None, FRESH: todo[0], ZERO: todo[1]})
    for row in table.index:
        remaining, kept = lab.todo(todo, table.drop(index=row))
        assert remaining == [places[row]]
        assert len(kept) == sum(place != places[row] for place in places)


def test_a_layer_that_cannot_be_drawn_is_flagged_and_the_others_are_computed(planted, monkeypatch):
    monkeypatch.setattr(type(planted.model.logits), "reset_parameters", None)
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", None)
    lab = laboratory(planted, analysis="reinit", redraw=Redraw(planted.model), n_draws=2)
    (_, part) = parts(lab, [Intervention("each", (groups_of(planted)[0],), FRESH)])
    assert part["value"].isna().all()
    assert part["flag"].iloc[0].startswith("not_drawn: layer h1.linear cannot be drawn again")


def normed_run(tmp_path) -> Run:
    args = {"input_shape": [2, 3], "n_classes": CLASSES, "depth": 2, "width": 8, "batch_norm": True}
    for epoch in (0, 1):
        model = build_model("mlp", args, seed=epoch)
        model(torch.randn(64, 2, 3) * (1 + epoch))
        save_checkpoint(tmp_path / f"epoch-000{epoch}.pt", model, epoch=epoch)
    return Run(tmp_path, ("mlp", args), model, Inputs(), table(), {"fingerprint": "f"}, run_snapshots(tmp_path))


def test_the_policies_of_batch_norm_differ_and_all_leave_the_network_as_it_was(tmp_path):
    run = normed_run(tmp_path)
    before = digest(run.model)
    groups = group_layers(run.model, torch.zeros(2, 2, 3))
    losses = {}
    for policy in ("with-stats", "params", "recalibrate"):
        (_, part) = parts(
            laboratory(run, batch_norm=policy), [Intervention("each", (groups[0],), run.snapshot("init"))]
        )
        losses[policy] = values(part, "loss", "test")["h1.linear"]
        assert digest(run.model) == before
    assert len(set(losses.values())) == 3
    with pytest.raises(UsageError, match="batch_norm must be one of with-stats, params, recalibrate; got 'none'"):
        laboratory(run, batch_norm="none")


def test_the_whole_network_is_rewound_with_its_statistics_whatever_the_policy(tmp_path):
    run = normed_run(tmp_path)
    groups = group_layers(run.model, torch.zeros(2, 2, 3))
    (_, part) = parts(
        laboratory(run, batch_norm="params"), [Intervention("whole", tuple(groups), run.snapshot("init"))]
    )
    other = mlp(**run.arch[1])
    other.load_state_dict(run.snapshot("init").state(other))
    examiner = Examiner(run.data, run.examples)
    expected = examiner.loss(examiner.answers(other), "test")
    assert values(part, "loss", "test")["(all)"] == expected


def test_sweeps_are_of_all_layers_and_of_the_chosen_ones():
    groups = group_layers(
        build_model("mlp", {"input_shape": (1, 2, 2), "n_classes": 2}, seed=0), torch.zeros(2, 1, 2, 2)
    )
    assert [len(layers) for layers in sweep_layers(groups, "last")] == [1, 2, 3, 4, 5, 6, 7]
    assert sweep_layers(groups, "last")[0] == (groups[-1],)
    assert sweep_layers(groups, "prefix")[1] == tuple(groups[:2])
    assert sweep_layers(groups, "each", groups[2:3]) == [(groups[2],)]
    with pytest.raises(UsageError, match="sweep must be one of each, last, prefix, noise, retrain, pair; got 'first'"):
        sweep_layers(groups, "first")


def test_a_run_without_its_initial_checkpoint_says_how_to_get_one(tmp_path):
    save_checkpoint(tmp_path / "epoch-0003.pt", torch.nn.Linear(2, 2), epoch=3)
    snapshots = run_snapshots(tmp_path)
    with pytest.raises(
        InputError, match=r"no checkpoint of epoch 0.*manigeo train keeps one.*recorder.step\(model, 0\)"
    ):
        find_snapshot(snapshots, "init", tmp_path)
    with pytest.raises(UsageError, match="has no checkpoint 'epoch-0004'; did you mean 'epoch-0003'"):
        find_snapshot(snapshots, "epoch-0004", tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a.pt", torch.nn.Linear(2, 2), epoch=0)
    with pytest.raises(
        InputError, match=r"a\.pt is not of the network that was trained: .*give checkpoints of one training"
    ):
        Snapshot("a", 0, tmp_path / "a.pt").state(torch.nn.Linear(3, 2))

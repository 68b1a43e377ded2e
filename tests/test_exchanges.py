"""Evidence of exchanges on layers that are known: by construction of the network, and by where it was trained."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from manigeo.errors import UsageError
from manigeo.results import with_settings
from manigeo_extract.files.checkpoints import save_checkpoint
from manigeo_extract.interventions.editing import perturbed
from manigeo_extract.interventions.exchanges import INTO_BEFORE, ZERO, Intervention, Laboratory, sweep_layers
from manigeo_extract.interventions.groups import Group, group_layers
from manigeo_extract.interventions.retraining import RetrainPlan
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import build_model
from manigeo_extract.training.runs import Run, run_snapshots
from tests.effects import assert_effect, share_error
from tests.trained import ARGS, digest, planted_run

N, CLASSES, PERMUTED = 60, 4, 24


class Examples:
    """One input unit for each example."""

    def inputs(self, rows) -> Tensor:
        return torch.eye(N)[list(rows)]


def examples() -> pd.DataFrame:
    true = np.arange(N) % CLASSES
    member = np.arange(N) < PERMUTED
    train = np.where(member, (true + 1) % CLASSES, true)
    split = np.repeat(["train", "test"], [40, N - 40])
    return pd.DataFrame(
        {"index": np.arange(N), "split": split, "true_label": true, "train_label": train, "permuted": member}
    )


class Branches(nn.Module):
    """The true label from ``base``, and the permuted ones of some examples each from ``a`` and ``b``, which add up."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.a, self.b = (nn.Linear(N, CLASSES, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.a(x) + self.b(x)


def branches(folder: Path, of_a: slice, of_b: slice) -> Run:
    """Before, ``a`` and ``b`` are zero; at the end, they know the permuted labels of their examples."""
    table, model = examples(), Branches()
    true, train = (torch.eye(CLASSES)[torch.tensor(list(table[f"{which}_label"]))] for which in ("true", "train"))
    for epoch, strength in ((0, 0.0), (1, 3.0)):
        known = torch.zeros(2, N, CLASSES)
        for i, chosen in enumerate((of_a, of_b)):
            known[i, chosen] = strength * train[chosen]
        weights = {"base.weight": true.T, "a.weight": known[0].T, "b.weight": known[1].T}
        model.load_state_dict(weights)
        save_checkpoint(folder / f"epoch-000{epoch}.pt", model, epoch=epoch)
    place = {"run": "branches", "checkpoint": "last", "epoch": 1, "fingerprint": "f"}
    return Run(folder, (None, {}), model, Examples(), table, place, run_snapshots(folder))


def laboratory(run: Run, **options) -> Laboratory:
    return Laboratory(run, Examiner(run.data, run.examples), "rewind", **options)


def layers_of(run: Run) -> tuple[Group, ...]:
    return tuple(group_layers(run.model, run.data.inputs([0, 1])))


def swept(run: Run, sweep: str, to: str, direction: str = "into_last", **options) -> pd.DataFrame:
    groups = layers_of(run)
    todo = [Intervention(sweep, layers, run.snapshot(to), direction) for layers in sweep_layers(groups, sweep)]
    lab = laboratory(run, **options)
    return pd.concat([lab.table(at) for at in todo], ignore_index=True)


def found(table: pd.DataFrame, metric: str, kind: str = "permuted") -> pd.Series:
    return table[(table["metric"] == metric) & (table["kind"] == kind)].set_index("layer")["value"]


HALVES = slice(0, PERMUTED // 2), slice(PERMUTED // 2, PERMUTED)
ALL = slice(0, PERMUTED)


def test_layers_that_hold_other_examples_are_needed_and_suffice_each_for_its_own(tmp_path):
    run = branches(tmp_path, *HALVES)
    before = digest(run.model)
    necessary = found(swept(run, "each", "0"), "accuracy_drop")
    sufficient = found(swept(run, "each", "0", INTO_BEFORE), "accuracy_gain")
    assert necessary.to_dict() == sufficient.to_dict() == {"base": 0.0, "a": 0.5, "b": 0.5}
    assert digest(run.model) == before


def test_layers_that_hold_the_same_examples_each_suffice_and_none_is_needed(tmp_path):
    run = branches(tmp_path, ALL, ALL)
    assert found(swept(run, "each", "0"), "accuracy_drop").to_dict() == {"base": 0.0, "a": 0.0, "b": 0.0}
    gained = found(swept(run, "each", "0", INTO_BEFORE), "accuracy_gain").to_dict()
    assert gained == {"base": 0.0, "a": 1.0, "b": 1.0}


@pytest.mark.parametrize(("of_a", "of_b", "expected"), [(*HALVES, 0.0), (ALL, ALL, 1.0), (ALL, slice(0), 0.0)])
def test_the_interaction_is_that_of_the_examples_which_layers_share(tmp_path, of_a, of_b, expected):
    table = swept(branches(tmp_path, of_a, of_b), "pair", "0")
    assert found(table, "interaction").to_dict() == {"base+a": 0.0, "base+b": 0.0, "a+b": expected}
    pairs = with_settings(table, "layers", "k", "sweep")
    assert pairs["layers"].drop_duplicates().tolist() == [["base", "a"], ["base", "b"], ["a", "b"]]


def test_the_table_says_which_way_layers_went(tmp_path):
    run = branches(tmp_path, *HALVES)
    table = pd.concat([swept(run, "each", "0"), swept(run, "each", "0", INTO_BEFORE)])
    full = with_settings(table, "direction", "sweep", "to")
    assert set(full["sweep"]) == {"each"}
    assert set(full["to"]) == {"epoch-0000"}
    assert set(full.loc[full["metric"] == "accuracy_drop", "direction"]) == {"into_last"}
    assert set(full.loc[full["metric"] == "accuracy_gain", "direction"]) == {"into_before"}


def test_pairs_are_refused_beyond_sixteen_layers_with_what_to_do():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(17)))
    groups = group_layers(model, torch.zeros(2, 2))
    with pytest.raises(UsageError, match=r"up to 16 layers, got 17: choose some \(--layers\)"):
        sweep_layers(groups, "pair")
    assert len(sweep_layers(groups, "pair", groups[:16])) == 120


@pytest.mark.parametrize("sweep", ["noise", "retrain"])
def test_noise_and_retraining_ask_for_a_snapshot(sweep):
    groups = group_layers(nn.Linear(2, 2), torch.zeros(2, 2))
    with pytest.raises(UsageError, match=f"{sweep} expects a snapshot of Run.snapshot, got 'zero'"):
        Intervention(sweep, tuple(groups), ZERO)


# ------------------------------------------------------------------------------------------------------------- the noise
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_as_long_as_the_movement_tensor_by_tensor(dtype):
    args = {"input_shape": (1, 4, 4), "n_classes": 3, "width": 32, "depth": 2, "batch_norm": True}
    one, other = (build_model("mlp", args, seed=seed).to(dtype).state_dict() for seed in (0, 1))
    groups = group_layers(build_model("mlp", args, seed=0), torch.zeros(2, 1, 4, 4))
    steps = []
    for group, seed in [(group, seed) for group in groups for seed in (5, 6)]:
        moved = perturbed(one, other, group, seed)
        assert set(moved) == set(group.parameters)  # statistics of batch norm stay
        for name, tensor in moved.items():
            length = (one[name] - other[name]).double().norm()
            # each weight is rounded to its dtype, half a unit of the last place of weights of up to 1
            rounding = torch.finfo(dtype).eps * tensor.numel() ** 0.5
            assert float((tensor - one[name]).double().norm()) == pytest.approx(float(length), abs=float(rounding))
        steps.append(moved[group.parameters[0]] - one[group.parameters[0]])
    first, second = (step.flatten().double() for step in steps[:2])
    # 512 weights: the cosine of independent directions has a standard deviation of .044
    assert abs(float(first @ second / first.norm() / second.norm())) < 4 / 512**0.5


def test_tensors_that_have_not_moved_have_no_noise_bit_for_bit():
    (group,) = group_layers(nn.Linear(3, 2), torch.zeros(2, 3))
    one = nn.Linear(3, 2).state_dict()
    other = {"weight": one["weight"], "bias": one["bias"] + 1}
    moved = perturbed(one, other, group, 0)
    assert torch.equal(moved["weight"], one["weight"])
    assert not torch.equal(moved["bias"], one["bias"])


# ------------------------------------------------------------------------------------- a layer that alone was trained on
@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Trained on clean labels (1), then its second hidden layer alone on permuted ones (2)."""
    folder = tmp_path_factory.mktemp("planted")
    data, table = planted_run(folder, ("h2",))
    model = build_model("mlp", ARGS, seed=0)
    snapshots = run_snapshots(folder)
    place = {"run": "planted", "checkpoint": "last", "epoch": 2, "fingerprint": "f"}
    run = Run(folder, ("mlp", ARGS), model, data, table, place, snapshots)
    model.load_state_dict(run.snapshot("last").state(model))
    return run


EVIDENCE = {
    "necessary": ("each", "into_last", "accuracy_drop"),
    "sufficient": ("each", INTO_BEFORE, "accuracy_gain"),
    "noise": ("noise", "into_last", "accuracy_drop"),
    "retrained": ("retrain", "into_last", "accuracy_drop_beyond_control"),
}


@pytest.mark.training
@pytest.mark.parametrize("policy", ["with-stats", "params", "recalibrate"])
@pytest.mark.parametrize("name", EVIDENCE)
def test_the_layer_that_memorized_is_found_and_unchanged_ones_have_exactly_none(planted, name, policy):
    sweep, direction, metric = EVIDENCE[name]
    before = digest(planted.model)
    plan = RetrainPlan(steps=60)
    table = swept(planted, sweep, "1", direction, n_draws=3, retrain=plan, batch_norm=policy)
    assert digest(planted.model) == before
    rows = table[(table["metric"] == metric) & (table["kind"] == "permuted")].set_index("layer")
    others = rows.drop("h2.linear")
    assert len(others) == 3
    assert (others[["value", "stderr"]] == 0).all(axis=None)
    error = max(rows.loc["h2.linear", "stderr"], share_error(1.0, int(rows.loc["h2.linear", "n"])))
    assert_effect(f"what h2 holds ({name})", rows.loc["h2.linear", "value"], error)
    distances = found(table, "softmax_distance"), found(table, "js")
    unchanged = [column.drop("h2.linear") for column in distances]
    assert all(column.isna().all() if sweep == "retrain" else (column == 0).all() for column in unchanged)


@pytest.mark.training
def test_unchanged_layers_are_not_evaluated(planted, monkeypatch):
    lab = laboratory(planted, n_draws=3)
    groups = layers_of(planted)
    to = planted.snapshot("1")
    lab.table(Intervention("whole", groups, to))
    assert lab._subject(to).before.log_p.shape == lab._trained.before.log_p.shape  # both are known now

    def never(*_):
        raise AssertionError

    monkeypatch.setattr("manigeo_extract.interventions.subjects.Prefixes.answers", never)
    for sweep, direction in (
        ("each", "into_last"),
        ("each", INTO_BEFORE),
        ("noise", "into_last"),
        ("retrain", "into_last"),
    ):
        table = lab.table(Intervention(sweep, groups[:1], to, direction))
        assert len(table)
    with pytest.raises(AssertionError):
        lab.table(Intervention("each", groups[1:2], to))


@pytest.mark.training
def test_retraining_on_clean_examples_is_the_same_with_and_without_a_reset(planted):
    """Set back to where it is, the layer and its control are one: nothing is lost beyond the control."""
    lab = laboratory(planted, retrain=RetrainPlan(steps=20))
    groups = layers_of(planted)
    at = Intervention("retrain", groups[1:2], planted.snapshot("1"))
    state = planted.model.state_dict()
    one, again = (lab._after_retraining(at, state) for _ in range(2))
    assert torch.equal(one.log_p, again.log_p)


@pytest.mark.training
def test_layers_are_retrained_on_unpermuted_examples_alone(planted):
    table = swept(planted, "retrain", "1", retrain=RetrainPlan(steps=60))
    of_h2 = table[table["layer"] == "h2.linear"].set_index(["kind", "metric"])
    assert of_h2.loc[("unpermuted", "accuracy"), "value"] > 0.95  # fitted: their labels are the ones trained on
    assert of_h2.loc[("permuted", "accuracy"), "value"] < 0.5
    clean = planted.examples.assign(permuted=True)
    nothing = replace(planted, examples=clean)
    with pytest.raises(UsageError, match="there are no unpermuted examples to train layers on: leave retraining out"):
        swept(nothing, "retrain", "1")


@pytest.mark.training
def test_a_layer_whose_retraining_diverges_is_flagged_and_the_table_goes_on(planted):
    table = swept(planted, "retrain", "1", retrain=RetrainPlan(steps=50, lr=1e38))
    of_h2 = table[table["layer"] == "h2.linear"]
    assert set(of_h2["flag"]) == {"diverged"}
    assert of_h2["value"].isna().all()


@pytest.mark.training
@pytest.mark.parametrize("sweep", ["noise", "retrain", "pair", "each"])
def test_a_task_of_evidence_is_whole_only_with_all_of_its_rows_and_settings(planted, sweep):
    options = {"n_draws": 2, "retrain": RetrainPlan(steps=2)}
    lab = laboratory(planted, **options)
    groups = layers_of(planted)
    layers = groups[:2] if sweep == "pair" else groups[1:2]
    todo = [Intervention(sweep, layers, planted.snapshot("1"))]
    if sweep == "each":
        todo.append(Intervention(sweep, layers, planted.snapshot("1"), INTO_BEFORE))
    trained = lab.table(None)
    own = [lab.table(at) for at in todo]
    table = pd.concat([trained, *own], ignore_index=True)
    assert lab.todo(todo, table)[0] == []
    for row in range(len(trained), len(table)):
        at = todo[0] if row < len(trained) + len(own[0]) else todo[1]
        assert lab.todo(todo, table.drop(index=row))[0] == [at]
    other = laboratory(planted, **{"n_draws": 3, "retrain": RetrainPlan(steps=3)})
    assert other.todo(todo, table)[0] == (todo if sweep in ("noise", "retrain") else [])


@pytest.mark.training
def test_tables_from_before_there_were_directions_are_whole(planted):
    lab = laboratory(planted)
    groups = layers_of(planted)
    todo = [Intervention("each", groups[1:2], planted.snapshot("1"))]
    table = pd.concat([lab.table(None), lab.table(todo[0])], ignore_index=True)

    def without(text: str) -> str:
        settings = json.loads(text)
        settings.pop("direction", None)
        return json.dumps(settings, sort_keys=True)

    assert lab.todo(todo, table.assign(settings=table["settings"].map(without)))[0] == []

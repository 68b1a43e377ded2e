"""The last layers set back and trained again: the algebra of a linear network, a planted case, and nothing else moved."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from manigeo.errors import ManigeoError, UsageError
from manigeo.manifolds import kind_examples
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.files.checkpoints import save_checkpoint
from manigeo_extract.interventions.editing import Redraw
from manigeo_extract.interventions.groups import Group, group_layers
from manigeo_extract.interventions.resetting import FRESH, Candidate, ResetPlan, chosen, final_layer_reset
from manigeo_extract.interventions.retraining import Retraining, reset_copy
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import build_model
from manigeo_extract.training.runs import Run, run_snapshots
from tests.effects import assert_effect, share_error, shifted

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("one_thread")]


def fitted(model: nn.Module, X: Tensor, y: Tensor, steps: int, only: str = "", lr: float = 0.003) -> None:
    """The parameters whose names match are trained; batch norm keeps the statistics of all of X."""
    chosen = [p for name, p in model.named_parameters() if any(name.startswith(start) for start in only.split(","))]
    optimizer = torch.optim.Adam(chosen, lr=lr)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()
    model.zero_grad()
    model.eval()


def run_of(model: nn.Module, folder: Path, steps: int, only: str, lr: float = 0.003) -> Run:
    """Trained on the true labels (the best epoch), then, the layers ``only`` alone, on labels half of which are permuted."""
    data = load_data("digits", {"per_class": 40})
    examples = permute_labels(data, Permutation(0.5))
    rows = np.flatnonzero(examples["split"] == "train")
    X = data.inputs(rows)
    true, permuted = (torch.as_tensor(examples[name].to_numpy()[rows]) for name in ("true_label", "train_label"))
    save_checkpoint(folder / "epoch-0000.pt", model, epoch=0)
    fitted(model, X, true, 100)
    save_checkpoint(folder / "best.pt", model, epoch=100)
    fitted(model, X, permuted, steps, only, lr)
    save_checkpoint(folder / "last.pt", model, epoch=100 + steps)
    place = {"run": "run", "checkpoint": "last", "epoch": 100 + steps, "fingerprint": ""}
    return Run(folder, (None, {}), model, data, examples, place, run_snapshots(folder))


def planted(folder: Path) -> Run:
    args = {"input_shape": (1, 8, 8), "n_classes": 10, "depth": 4, "width": 128}
    model = build_model("mlp", args, seed=shifted())
    return run_of(model, folder, 500, "h4,logits", lr=0.01)  # so far that one of the two layers cannot undo it


class Tied(nn.Module):
    """Batch norm in the layers that stay and in those that are set back, dropout, and a kernel that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(64, 24), nn.BatchNorm1d(24)
        self.second, self.again, self.drop = nn.Linear(24, 24), nn.Linear(24, 24), nn.Dropout(0.2)
        self.again.weight = self.second.weight
        self.third, self.late_norm, self.last = nn.Linear(24, 24), nn.BatchNorm1d(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x.flatten(1))))
        x = self.drop(torch.relu(self.again(torch.relu(self.second(x)))))
        return self.last(torch.relu(self.late_norm(self.third(x))))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.manual_seed(shifted())
    return run_of(Tied(), tmp_path_factory.mktemp("tied"), 30, "")


def layers_of(run: Run) -> list[Group]:
    return group_layers(run.model, run.data.inputs([0, 1]))


def table(run: Run, plan: ResetPlan, redraw: Redraw | None = None) -> pd.DataFrame:
    examiner = Examiner(run.data, run.examples)
    rows = pd.DataFrame(list(final_layer_reset(run, examiner, layers_of(run), plan, redraw=redraw)))
    settings = pd.DataFrame(rows["settings"].tolist())
    return pd.concat([rows, settings[["k", "to", "steps", "chosen"]]], axis=1)


def accuracies(rows: pd.DataFrame, kind: str) -> pd.Series:
    part = rows[(rows["metric"] == "accuracy") & (rows["kind"] == kind)]
    return part.set_index(["k", "to", "steps"])["value"]


# ---------------------------------------------------------------------------------------------------------- the algebra
def test_a_linear_network_set_back_and_trained_for_a_step_is_the_algebra(tmp_path: Path) -> None:
    args = {"input_shape": (1, 8, 8), "n_classes": 10, "depth": 0}
    linear = run_of(build_model("mlp", args, seed=shifted()), tmp_path, 20, "")
    plan = ResetPlan(last=1, steps=1, lr=0.5, momentum=0.0, batch_size=10**6)
    rows = table(linear, plan)
    start = linear.snapshot("init").state(linear.model)
    W, b = (start[f"logits.{name}"].double().numpy() for name in ("weight", "bias"))
    train = np.flatnonzero(linear.examples["split"] == "train")
    X, y = flat(linear, train), linear.examples["train_label"].to_numpy()[train]
    residual = probabilities(X, W, b) - np.eye(10)[y]
    stepped = W - 0.5 * residual.T @ X / len(X), b - 0.5 * residual.mean(axis=0)
    for steps, weights in ((0, (W, b)), (1, stepped)):
        at = rows[(rows["k"] == 1) & (rows["steps"] == steps)].set_index(["kind", "metric"])["value"]
        for kind in ("unpermuted", "permuted", "restored", "test"):
            of_kind, labels = kind_examples(linear.examples, kind)
            p = probabilities(flat(linear, of_kind), *weights)
            assert at[kind, "accuracy"] == (p.argmax(axis=1) == labels).mean()
            losses = -np.log(p[np.arange(len(p)), labels])
            assert at[kind, "loss"] == pytest.approx(losses.mean(), rel=1e-5)  # float32 logits


def flat(run: Run, rows: np.ndarray) -> np.ndarray:
    return run.data.inputs(rows).flatten(1).double().numpy()


def probabilities(X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    z = np.exp(X @ W.T + b)
    return z / z.sum(axis=1, keepdims=True)


# -------------------------------------------------------------------------------------------------------- a planted case
def test_the_layers_that_memorized_are_chosen_and_regain_test_accuracy(run: Run) -> None:
    rows = table(run, ResetPlan(last=3, sources=("best",), steps=0))
    kept, n = accuracies(rows, "validation"), (run.examples["split"] == "validation").sum()
    assert kept[2, "best", 0] == kept[3, "best", 0]  # on h3 the two checkpoints agree
    assert_beyond(
        "validation accuracy with two layers set back, and with one", kept[2, "best", 0], kept[1, "best", 0], n
    )
    best = rows[rows["chosen"]]
    assert set(best["layer"]) == {"(last 2)"}
    assert set(best["to"]) == {"best"}
    gain = rows[rows["metric"] == "accuracy_gain"].set_index("kind")
    assert_effect("test accuracy regained", *gain.loc["test", ["value", "stderr"]])
    lost, error = gain.loc["permuted", ["value", "stderr"]]
    assert_effect("more than half of the permuted labels forgotten", -lost - 0.5, error)


def assert_beyond(what: str, higher: float, lower: float, n: int) -> None:
    """Of two accuracies on n examples; on the same ones the error is less."""
    assert_effect(what, higher - lower, math.hypot(share_error(higher, n), share_error(lower, n)))


def test_retraining_learns_the_permuted_labels_again(run: Run) -> None:
    permuted = accuracies(table(run, ResetPlan(last=1, steps=400, lr=0.01, batch_size=32)), "permuted")
    start, *later = (permuted[1, "epoch-0000", steps] for steps in (0, 100, 200, 300, 400))
    n = int(run.examples["permuted"].sum())
    assert_beyond("permuted accuracy on the way, and set back", min(later), start, n)
    assert_effect("half of what was forgotten is learned again", later[-1] - (1 + start) / 2, share_error(later[-1], n))


def test_the_choice_is_the_best_on_validation_data(run: Run) -> None:
    plan = ResetPlan(last=4, sources=("init", FRESH), steps=40, n_draws=2)
    rows = table(run, plan, Redraw(run.model))
    validation = rows[(rows["kind"] == "validation") & (rows["metric"] == "accuracy")]
    assert validation["chosen"].sum() == 1
    assert validation.loc[validation["chosen"], "value"].item() == validation["value"].max()


def test_of_equal_accuracies_the_smaller_loss_is_chosen() -> None:
    right, wrong = np.ones(3), np.array([1.0, 0.0, 1.0])

    def candidate(k: int, hits: np.ndarray, loss: float) -> Candidate:
        return Candidate(k, "init", 0, 0, {"validation": hits}, {"validation": np.array([loss])}, {})

    candidates = [
        candidate(0, wrong, 0.1),
        candidate(1, right, 0.5),
        candidate(2, right, 0.4),
        candidate(3, right, 0.4),
    ]
    assert chosen(candidates) is candidates[2]


def test_where_nothing_helps_the_network_is_left_as_it_is(run: Run) -> None:
    rows = table(run, ResetPlan(last=3, sources=(FRESH,), steps=0, n_draws=1), Redraw(run.model))
    kept, n = accuracies(rows, "validation"), (run.examples["split"] == "validation").sum()
    as_it_is, drawn = kept.xs(0, level="k").item(), kept.drop(0, level="k").max()
    assert_beyond("validation accuracy as it is, and with any layers drawn anew", as_it_is, drawn, n)
    gain = rows[rows["metric"] == "accuracy_gain"]
    assert set(gain["layer"]) == {"(none)"}
    assert set(gain["value"]) == {0}


def test_the_gain_is_paired(run: Run) -> None:
    rows = table(run, ResetPlan(last=2, sources=("best",), steps=0))
    gain = rows[rows["metric"] == "accuracy_gain"].set_index("kind").loc["test"]
    at, labels = kind_examples(run.examples, "test")
    X = run.data.inputs(at)
    after = reset_copy(run.model, layers_of(run)[-2:], run.snapshot("best").state(run.model))
    with torch.no_grad():
        hits = [(model(X).argmax(dim=1).numpy() == labels).astype(float) for model in (run.model, after.eval())]
    differences = hits[1] - hits[0]
    assert gain["value"] == pytest.approx(differences.mean(), abs=1e-12)
    assert gain["stderr"] == pytest.approx(differences.std(ddof=1) / math.sqrt(len(labels)), rel=1e-12)


def test_without_validation_data_nothing_is_chosen(run: Run) -> None:
    examples = run.examples.assign(split=run.examples["split"].replace("validation", "test"))
    rows = table(replace(run, examples=examples), ResetPlan(last=1, steps=0))
    assert not rows["chosen"].any()
    last = rows.iloc[-1]
    assert (last["metric"], last["flag"]) == ("accuracy_gain", "no_validation")
    assert math.isnan(last["value"])


def test_fresh_draws_are_averaged_with_their_standard_error(run: Run) -> None:
    plan = ResetPlan(last=1, sources=(FRESH,), steps=0, n_draws=4)
    rows = table(run, plan, Redraw(run.model))
    fresh = rows[(rows["k"] == 1) & (rows["metric"] == "accuracy") & (rows["kind"] == "test")].iloc[0]
    single = [
        accuracies(table(run, replace(plan, n_draws=n), Redraw(run.model)), "test")[1, FRESH, 0] for n in range(1, 5)
    ]
    each = np.diff([0.0, *np.array(single) * np.arange(1, 5)])  # the first n draws are the same whatever n is
    assert each.std() > 1e-6  # of rounding alone it would be 1e-17
    assert fresh["value"] == pytest.approx(each.mean())
    assert fresh["stderr"] == pytest.approx(each.std(ddof=1) / 2)
    assert fresh["n"] == 4


# ---------------------------------------------------------------------------------------------------- what moves, and not
def fingerprint(model: nn.Module) -> str:
    state = model.state_dict()
    return hashlib.sha256(b"".join(name.encode() + t.numpy().tobytes() for name, t in state.items())).hexdigest()


def test_retraining_moves_the_layers_set_back_and_no_others(tied: Run) -> None:
    last = layers_of(tied)[-2:]
    assert [group.name for group in last] == ["third", "last"]
    start = tied.snapshot("init").state(tied.model)
    model = reset_copy(tied.model, last, start)
    own = {name for group in last for name in (*group.parameters, *group.buffers)}
    trained = tied.model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, start[name] if name in own else trained[name])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == own & dict(
        model.named_parameters()
    ).keys()
    plan = ResetPlan(last=2, steps=8, batch_size=32)
    assert list(Retraining(tied, Examiner(tied.data, tied.examples), plan).through(model, last)) == [2, 4, 6, 8]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, start[name] if name in own else trained[name]) is (name not in own)


def test_with_params_alone_running_statistics_stay_with_the_network(tied: Run) -> None:
    start = tied.snapshot("init").state(tied.model)
    state = reset_copy(tied.model, layers_of(tied)[-2:], start, "params").state_dict()
    assert torch.equal(state["late_norm.running_mean"], tied.model.state_dict()["late_norm.running_mean"])
    assert torch.equal(state["third.weight"], start["third.weight"])


def test_the_network_of_the_run_is_left_as_it_was(tied: Run) -> None:
    model = tied.model
    model.get_parameter("first.bias").requires_grad_(False)
    model.get_parameter("last.bias").grad = torch.ones(10)
    model.get_submodule("norm").train()
    before = fingerprint(model)
    flags = [(p.requires_grad, p.grad) for p in model.parameters()], [m.training for m in model.modules()]
    random = torch.get_rng_state()
    table(tied, ResetPlan(last=3, sources=("init", "best", FRESH), steps=8, n_draws=2), Redraw(model))
    assert fingerprint(model) == before
    now = [(p.requires_grad, p.grad) for p in model.parameters()], [m.training for m in model.modules()]
    assert now[1] == flags[1]
    assert all(a[0] is b[0] and a[1] is b[1] for a, b in zip(now[0], flags[0], strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    model.requires_grad_()
    model.zero_grad()


def test_an_interrupted_retraining_leaves_the_network_bit_for_bit(tied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    before = fingerprint(tied.model)
    monkeypatch.setattr(torch.optim.SGD, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        table(tied, ResetPlan(last=2, steps=8))
    assert fingerprint(tied.model) == before


def test_the_same_seed_gives_the_same_numbers(tied: Run) -> None:
    plan = ResetPlan(last=2, sources=("init", FRESH), steps=6, n_draws=2)
    once, again = (table(tied, plan, Redraw(tied.model)) for _ in range(2))
    pd.testing.assert_frame_equal(once, again)
    other = table(tied, replace(plan, seed=1), Redraw(tied.model))
    assert not other["value"].equals(once["value"])


# ------------------------------------------------------------------------------------------------------------- bad input
def test_more_layers_than_there_are_are_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="last must be up to 5, the number of layers, got 6"):
        table(run, ResetPlan(last=6))


def test_fresh_draws_need_somebody_who_draws(run: Run) -> None:
    with pytest.raises(UsageError, match="sources must go without 'fresh draw'"):
        table(run, ResetPlan(sources=(FRESH,)))


def test_a_retraining_that_diverges_says_so(run: Run) -> None:
    with pytest.raises(ManigeoError, match=r"not finite at step .*; try a learning rate below 1e"):
        table(run, ResetPlan(last=2, steps=50, lr=1e30))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"last": 0}, "last must be 1 or more, got 0"),
    ({"sources": ()}, "sources must be one or more"),
    ({"steps": -1}, "steps must be 0 or more"),
    ({"n_draws": 0}, "n_draws must be 1 or more"),
    ({"lr": 0.0}, "lr must be above 0"),
    ({"momentum": 1.0}, "momentum must be from 0 to below 1"),
    ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
    ({"batch_size": 0}, "batch_size must be 1 or more"),
    ({"batch_norm": "stats"}, "batch_norm must be with-stats or params, got 'stats'"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_a_plan_out_of_range_is_refused_with_the_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ResetPlan(**options)

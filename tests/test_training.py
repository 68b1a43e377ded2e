"""Training: it learns the permuted labels, and an interrupted run ends as if it had not been interrupted."""

import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from manigeo.errors import InputError, ManigeoError, UsageError
from manigeo_extract.data.datasets import DataSet, Permutation, load_data, permute_labels
from manigeo_extract.files.checkpoints import load_checkpoint, plain
from manigeo_extract.training import evaluation
from manigeo_extract.training import trainer as training
from manigeo_extract.training.layca import layer_rates
from manigeo_extract.training.trainer import TrainingPlan, augmented, evaluate, memorized, train
from manigeo_extract.weights.trajectory import run_checkpoints, weight_table
from tests.effects import assert_effect, share_error, shifted

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("one_thread")]

HALF = Permutation(0.5)
PLANS = {
    "sgd, momentum, cosine": TrainingPlan(epochs=5, batch_size=16, lr=0.05),
    "adam, augmented": TrainingPlan(
        epochs=5, batch_size=16, optimizer="adam", lr=0.01, schedule="constant", augment=True
    ),
    "sgd, steps": TrainingPlan(epochs=5, batch_size=16, schedule="step", milestones=(2, 3), weight_decay=0.01),
}
TEXTS = ("metrics.csv", "run.json", "labels.csv")
BINARIES = ("resume.pt", "checkpoints/best.pt", "checkpoints/last.pt", "checkpoints/epoch-0000.pt")


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load_data("digits", {"per_class": 10})


@pytest.fixture(scope="module")
def examples(data: DataSet) -> pd.DataFrame:
    return permute_labels(data, HALF)


def network(seed: int = 0, width: int = 32) -> nn.Sequential:
    torch.manual_seed(shifted(seed))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10)
    )  # fmt: skip


def quiet(epoch: int, loss: float, scores: training.Scores) -> None:
    pass


def interrupted_in(epoch: int, call: int, plan: TrainingPlan, error: BaseException) -> Callable[..., None]:
    """A hook for the network: stop in a training batch of an epoch."""
    batches = math.ceil(100 / plan.batch_size)
    count = 0

    def hook(model: nn.Module, *_: Any) -> None:
        nonlocal count
        count += model.training
        if count == (epoch - 1) * batches + call:
            raise error

    return hook


# ------------------------------------------------------------------------------------------------------------- the plan
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": "sdg"}, "no optimizer 'sdg'; did you mean 'sgd'"),
    ({"schedule": "cosin"}, "no schedule 'cosin'; did you mean 'cosine'"),
    ({"epochs": 0}, "epochs must be 1 or more, got 0"),
    ({"batch_size": 0}, "batch_size must be 1 or more"),
    ({"lr": 0.0}, "lr must be above 0"),
    ({"lr": math.nan}, "lr must be above 0"),
    ({"momentum": 1.0}, "momentum must be from 0 to below 1"),
    ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
    ({"seed": -1}, "seed must be 0 or more"),
    ({"layca": 0.0}, "layca must be above 0"),
    ({"layca_balance": 1.5}, "layca_balance must be from -1 to 1"),
    ({"milestones": (3,)}, "milestones must be given with schedule"),
    ({"schedule": "step"}, "milestones must be given with schedule"),
    ({"checkpoint_epochs": (41,)}, "checkpoint_epochs must be .* from 0 to 40, got"),
    ({"checkpoint_epochs": "some"}, "checkpoint_epochs must be"),
    ({"score_every": 0}, "score_every must be 1 or more, got 0"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_a_plan_out_of_range_is_refused_with_the_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TrainingPlan(**options)


@pytest.mark.parametrize(
    ("plan", "scheduler", "options"),
    [
        (TrainingPlan(epochs=7), "CosineAnnealingLR", {"T_max": 7}),
        (TrainingPlan(epochs=7, schedule="step", milestones=(2, 5)), "MultiStepLR", {"milestones": [2, 5]}),
        (TrainingPlan(epochs=7, schedule="constant"), "ConstantLR", {"factor": 1.0}),
    ],
)
def test_learning_rates_are_those_of_torchs_schedulers(
    plan: TrainingPlan, scheduler: str, options: dict[str, Any]
) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=plan.lr)
    schedule = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options)
    for epoch in range(1, plan.epochs + 1):
        assert plan.learning_rate(epoch) == pytest.approx(
            schedule.get_last_lr()[0], rel=1e-12
        )  # torch's is a recursion
        optimizer.step()
        schedule.step()


# -------------------------------------------------------------------------------------------------------------- learning
def test_permuted_labels_are_memorized(tmp_path: Path) -> None:
    data = load_data("digits", {"per_class": 40})
    examples = permute_labels(data, HALF)
    torch.manual_seed(shifted())
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    plan = TrainingPlan(epochs=80, batch_size=32, lr=0.05, seed=shifted())
    scores = train(model, data, examples, plan, tmp_path, progress=quiet)
    reached, true = scores["permuted"]["accuracy"], scores["restored"]["accuracy"]
    assert_effect("permuted accuracy above the gate of .95", reached - 0.95, share_error(reached, 200))
    assert memorized(scores)
    # a tenth of the permuted labels are the true ones by chance
    assert_effect("fewer than half of the restored are right", 0.5 - true, share_error(true, 200))
    assert scores == evaluate(model, data, examples)


def test_a_run_leaves_its_settings_labels_metrics_and_checkpoints(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path
) -> None:
    plan = TrainingPlan(epochs=3, checkpoint_epochs=(2,), seed=4)
    seen = []
    train(
        network(), data, examples, plan, tmp_path, arch="file.py:network", arch_args={"width": 32}, permutation=HALF,
        progress=lambda epoch, loss, scores: seen.append(epoch),
    )  # fmt: skip
    assert seen == [0, 1, 2, 3]
    kept = {p.stem for p in (tmp_path / "checkpoints").iterdir()}
    assert kept - {"before"} == {"epoch-0000", "epoch-0002", "best", "last"}  # so few epochs may leave one before
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "labels.csv"), examples)
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["plan"]["lr"], run["plan"]["checkpoint_epochs"]) == (0.02, [2])
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert set(metrics["kind"]) == {"unpermuted", "permuted", "restored", "test", "validation"}
    assert sorted(set(metrics["epoch"])) == [0, 1, 2, 3]
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert (last.epoch, last.arch, last.data, last.seed) == (3, "file.py:network", "digits", 4)
    assert (last.data_args, last.data_fingerprint) == (data.args, data.fingerprint)
    assert last.permutation == {"fraction": 0.5, "convention": "permutation", "seed": 0}
    initial = load_checkpoint(tmp_path / "checkpoints" / "epoch-0000.pt").state_dict
    assert all(torch.equal(value, initial[name]) for name, value in network().state_dict().items())


def test_inputs_too_large_to_hold_are_prepared_batch_by_batch(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = train(network(), data, examples, TrainingPlan(epochs=2), tmp_path / "held", progress=quiet)
    monkeypatch.setattr(evaluation, "IN_MEMORY", 0)
    assert train(network(), data, examples, TrainingPlan(epochs=2), tmp_path / "lazy", progress=quiet) == held


def test_no_batch_is_a_single_example(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    sizes = []
    model = network()
    model.register_forward_hook(lambda m, x, out: sizes.append(len(out)) if m.training else None)
    train(model, data, examples, TrainingPlan(epochs=1, batch_size=99), tmp_path, progress=quiet)
    assert sizes == [50, 50]  # and not 99 and 1, which batch norm refuses


def test_the_global_random_numbers_are_left_alone(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    model = network()
    before = torch.random.get_rng_state()
    train(model, data, examples, TrainingPlan(epochs=1, augment=True), tmp_path, progress=quiet)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_seed_of_the_plan_decides_the_run(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    losses = []
    for name, seed, global_seed in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        model = network()
        torch.manual_seed(global_seed)
        scores = train(model, data, examples, TrainingPlan(epochs=1, seed=seed), tmp_path / name, progress=quiet)
        losses.append(scores["permuted"]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_a_table_without_training_examples_is_refused(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    held_out = examples.assign(split="test")
    with pytest.raises(UsageError, match="examples must be a table with training examples"):
        train(network(), data, held_out, TrainingPlan(), tmp_path)


class Speaking(nn.Module):
    """Returns no tensor at all."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> str:
        return str(self.logits(x.flatten(1)))


def flat(size_in: int = 64, size: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(size_in, size))


UNTRAINABLE: list[tuple[nn.Module, dict[str, Any], type[ManigeoError], str]] = [
    (flat(), {"device": "gpu"}, UsageError, "no device 'gpu'; expected cpu, cuda, .* mps"),
    (flat(), {"device": "cpu:9"}, UsageError, "cpu:9 is not available here; use --device cpu"),
    (nn.Flatten(), {}, UsageError, "no parameters to train"),
    (flat().requires_grad_(False), {}, UsageError, "no parameters to train"),
    (flat(65), {}, InputError, r"does not take inputs of shape 1 x 8 x 8 from digits: mat1 and mat2"),
    (Speaking(), {}, UsageError, r"must return a tensor .* with 10 outputs or more, .* got a str for 2 examples"),
    (flat(size=9), {}, UsageError, r"10 outputs or more, .* got a tensor of shape \(2, 9\)"),
    (nn.Conv2d(1, 10, 3), {}, UsageError, r"got a tensor of shape \(2, 10, 6, 6\)"),
    (nn.Sequential(flat(), nn.Flatten(0)), {}, UsageError, r"got a tensor of shape \(20,\)"),
    (nn.Sequential(nn.Flatten(0, 2), nn.Linear(8, 10)), {}, UsageError, r"got a tensor of shape \(16, 10\) for 2"),
]


@pytest.mark.parametrize(("model", "options", "error", "said"), UNTRAINABLE, ids=[said for *_, said in UNTRAINABLE])
@pytest.mark.parametrize("resume", [False, True])
def test_a_network_that_cannot_be_trained_leaves_no_folder(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path, resume: bool,
    model: nn.Module, options: dict[str, Any], error: type[ManigeoError], said: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=said):
        train(model, data, examples, TrainingPlan(), tmp_path / "run", resume=resume, progress=quiet, **options)
    assert not (tmp_path / "run").exists()
    assert model.training


def test_inputs_that_are_no_images_cannot_be_augmented_and_leave_no_folder(tmp_path: Path) -> None:
    (tmp_path / "points.py").write_text(
        "import torch\n"
        "def points():\n"
        "    split = torch.utils.data.TensorDataset(torch.ones(8, 64), torch.arange(8) % 2)\n"
        "    return split, split\n"
    )
    points = load_data(f"{tmp_path}/points.py:points")
    with pytest.raises(
        UsageError, match=r"augment expects images of channels x height x width, .* are 64; leave augment"
    ):
        train(flat(), points, permute_labels(points, HALF), TrainingPlan(augment=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_look_at_two_examples_changes_nothing_in_the_network(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path
) -> None:
    model = network()
    model[2].eval()  # a user's frozen batch norm
    seen: list[tuple[int, bool, bool]] = []

    def stop_at_the_second(m: nn.Module, x: Any, out: torch.Tensor) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append((len(out), m.training, torch.is_grad_enabled()))

    model.register_forward_hook(stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train(model, data, examples, TrainingPlan(), tmp_path, progress=quiet)
    assert seen == [(2, False, False)]
    assert [module.training for module in model] == [True, True, False, True, True, True]
    assert all(torch.equal(value, network().state_dict()[name]) for name, value in model.state_dict().items())


class InParts(torch.nn.Module):
    """Returns a dictionary, as networks of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"hidden": images.flatten(1), "logits": self.net(images)}


def test_a_network_that_returns_several_things_is_trained_by_its_logits(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path
) -> None:
    plan = TrainingPlan(epochs=1)
    plain = train(network(), data, examples, plan, tmp_path / "plain", progress=quiet)
    assert train(InParts(), data, examples, plan, tmp_path / "parts", progress=quiet) == plain


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_the_optimizer_follows_the_plan(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path, plan: TrainingPlan
) -> None:
    train(network(), data, examples, plan, tmp_path, progress=quiet)
    (group,) = torch.load(tmp_path / "resume.pt", weights_only=True)["optimizer_state"]["param_groups"]
    assert group["lr"] == plan.learning_rate(plan.epochs)
    assert group["weight_decay"] == plan.weight_decay
    assert group.get("momentum", 0.9) == plan.momentum


# ----------------------------------------------------------------------------------------------------------- augmentation
@pytest.mark.parametrize("augment", [False, True])
def test_images_are_augmented_in_training_alone_and_when_asked(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path, augment: bool
) -> None:
    known = {image.tobytes() for image in data.inputs(np.arange(len(examples))).numpy()}
    new = {True: 0, False: 0}  # images that the data set does not have, by the model's training flag
    model = network()

    def count(model: nn.Module, x: tuple[torch.Tensor], out: torch.Tensor) -> None:
        new[model.training] += sum(image.tobytes() not in known for image in x[0].contiguous().numpy())

    model.register_forward_hook(count)
    train(model, data, examples, TrainingPlan(epochs=1, augment=augment), tmp_path, progress=quiet)
    assert (new[True] > 50) == augment  # 1 in 162 stays as it was
    assert new[False] == 0


def test_an_augmented_image_is_a_shifted_crop_or_its_mirror_image() -> None:
    images = torch.rand(40, 2, 5, 6) + 1
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    seen = set()
    for i, found in enumerate(augmented(images, torch.Generator().manual_seed(0))):
        crops = {
            (y, x, mirrored): crop.flip(2) if mirrored else crop
            for y in range(9)
            for x in range(9)
            for mirrored in (False, True)
            for crop in [padded[i, :, y : y + 5, x : x + 6]]
        }
        seen |= {place for place, crop in crops.items() if torch.equal(crop, found)}
        assert any(torch.equal(crop, found) for crop in crops.values())
    assert {mirrored for _, _, mirrored in seen} == {False, True}
    assert len({place[:2] for place in seen}) > 20  # 40 of 81 places: 32 different ones on average


# --------------------------------------------------------------------------------------------------------------- resuming
def test_a_network_that_is_scored_less_often_is_the_same(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    seldom = TrainingPlan(epochs=7, batch_size=100, score_every=3, checkpoint_epochs=(2,))
    models, scores = [network(), network()], []
    for model, plan in zip(models, (seldom, replace(seldom, score_every=1)), strict=True):
        scores.append(train(model, data, examples, plan, tmp_path / str(plan.score_every), progress=quiet))
    tables = [pd.read_csv(tmp_path / every / "metrics.csv") for every in "31"]
    assert sorted(set(tables[0]["epoch"])) == [0, 2, 3, 6, 7]
    assert scores[0] == scores[1]
    pd.testing.assert_frame_equal(tables[0], tables[1][tables[1]["epoch"].isin([0, 2, 3, 6, 7])].reset_index(drop=True))
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)


def test_with_layca_every_layer_turns_by_its_rate_of_the_epoch(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path
) -> None:
    # one batch an epoch: the angle between checkpoints is that of a step
    plan = TrainingPlan(epochs=3, batch_size=100, checkpoint_epochs="all", layca=0.1, layca_balance=-0.3)
    train(network(), data, examples, plan, tmp_path, progress=quiet)
    table = weight_table(run_checkpoints(tmp_path))
    angles = table[(table["metric"] == "step_angle") & ~table["layer"].str.startswith("(")]
    rates = layer_rates(0.1, -0.3, angles["layer"].nunique())
    for epoch, of_epoch in angles.groupby("epoch"):
        expected = np.array(rates) * plan.factor(int(epoch))
        np.testing.assert_allclose(np.tan(of_epoch["value"]), expected, rtol=1e-4)  # float32 weights
    norms = table[table["metric"] == "norm"].groupby("layer")["value"]
    np.testing.assert_allclose(norms.max(), norms.min(), rtol=1e-6)


@pytest.mark.parametrize(
    "plan", [*PLANS.values(), TrainingPlan(epochs=5, batch_size=16, layca=0.05, score_every=2)], ids=[*PLANS, "layca"]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=["interrupt", "failure"])
def test_an_interrupted_run_ends_bit_for_bit_as_if_it_had_not_been(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path, plan: TrainingPlan, error: BaseException
) -> None:
    def run(name: str, model: nn.Module, resume: bool = False) -> training.Scores:
        return train(model, data, examples, plan, tmp_path / name, permutation=HALF, progress=quiet, resume=resume)

    whole = network()
    expected = run("whole", whole)
    stopped = network()
    stopped.register_forward_hook(interrupted_in(epoch=3, call=4, plan=plan, error=error))
    with pytest.raises(type(error)):
        run("parts", stopped)
    assert load_checkpoint(tmp_path / "parts" / "checkpoints" / "last.pt").epoch == 2
    torch.rand(17)  # other random numbers than in one go
    resumed = network(seed=1)  # and other initial weights
    assert run("parts", resumed, resume=True) == expected
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    for name in TEXTS:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    for name in BINARIES:
        found, wanted = (plain(torch.load(tmp_path / run / name, weights_only=True)) for run in ("parts", "whole"))
        assert found == wanted, name


def test_what_was_recorded_beyond_the_resumed_epoch_is_dropped(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, resume: bool = False) -> training.Scores:
        return train(network(), data, examples, TrainingPlan(epochs=3), tmp_path / name, progress=quiet, resume=resume)

    run("whole")
    write = training.write_whole

    def killed_before_the_state_of_epoch_2(path: Path, content: bytes) -> None:
        if path.name == "resume.pt" and torch.load(io.BytesIO(content))["epoch"] == 2:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_whole", killed_before_the_state_of_epoch_2)
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    assert pd.read_csv(tmp_path / "parts" / "metrics.csv")["epoch"].max() == 2
    run("parts", resume=True)
    assert (tmp_path / "parts" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_resuming_a_finished_run_only_tells_its_scores(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    scores = train(network(), data, examples, TrainingPlan(epochs=1), tmp_path, progress=quiet)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert train(network(1), data, examples, TrainingPlan(epochs=1), tmp_path, progress=quiet, resume=True) == scores
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


def test_resuming_where_nothing_is_starts(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    scores = train(network(), data, examples, TrainingPlan(epochs=1), tmp_path / "a", progress=quiet)
    assert (
        train(network(), data, examples, TrainingPlan(epochs=1), tmp_path / "b", progress=quiet, resume=True) == scores
    )


def test_other_settings_are_named_when_resuming(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    train(network(), data, examples, TrainingPlan(epochs=1), tmp_path, arch_args={"width": 32}, progress=quiet)
    other = permute_labels(data, Permutation(0.5, seed=1))
    said = r"arch_args.width \(was 32, is 33\), labels \(was .*\), plan.lr \(was 0.02, is 0.1\); give the same"
    with pytest.raises(UsageError, match=said):
        train(
            network(), data, other, TrainingPlan(epochs=1, lr=0.1), tmp_path, arch_args={"width": 33}, resume=True
        )  # fmt: skip


def test_another_network_is_refused_when_resuming(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    train(network(), data, examples, TrainingPlan(epochs=1), tmp_path, progress=quiet)
    with pytest.raises(InputError, match=r"resume\.pt: does not fit the model"):
        train(network(width=8), data, examples, TrainingPlan(epochs=1), tmp_path, resume=True)


def test_a_run_without_its_metrics_is_not_resumed(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    train(network(), data, examples, TrainingPlan(epochs=1), tmp_path, progress=quiet)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(InputError, match=r"metrics\.csv: lacks epoch 1"):
        train(network(), data, examples, TrainingPlan(epochs=1), tmp_path, resume=True)


def test_a_folder_with_a_run_is_refused_unless_overwritten(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path
) -> None:
    scores = train(network(), data, examples, TrainingPlan(epochs=1), tmp_path, progress=quiet)
    with pytest.raises(UsageError, match="holds a run already"):
        train(network(), data, examples, TrainingPlan(epochs=1), tmp_path)
    again = train(network(), data, examples, TrainingPlan(epochs=1), tmp_path, progress=quiet, overwrite=True)
    assert again == scores


# -------------------------------------------------------------------------------------------------- explosions, progress
def test_a_loss_that_explodes_stops_the_run_and_keeps_what_there_is(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    plan = TrainingPlan(epochs=4, batch_size=50, lr=1e18, schedule="constant")
    with pytest.raises(ManigeoError, match=r"not finite after epoch 1 of 4; .* kept; try a learning rate below 1e\+18"):
        train(model, data, examples, plan, tmp_path, progress=quiet)
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert last.epoch == 0
    assert all(torch.isfinite(value).all() for value in last.state_dict.values())
    assert set(pd.read_csv(tmp_path / "metrics.csv")["epoch"]) == {0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_one_line_on_a_terminal_and_silent_elsewhere(
    data: DataSet, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    shown = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    train(network(), data, examples, TrainingPlan(epochs=2), tmp_path)
    text = shown.getvalue()
    assert text.count("\n") == terminal
    if terminal:
        assert "2/2" in text
        assert "loss=" in text
        assert "permuted=" in text


def test_batches_are_drawn_anew_in_every_epoch(data: DataSet, examples: pd.DataFrame, tmp_path: Path) -> None:
    first: list[np.ndarray] = []
    model = network()
    model.register_forward_hook(lambda m, x, out: first.append(x[0].numpy()) if m.training else None)
    train(model, data, examples, TrainingPlan(epochs=2, batch_size=100), tmp_path, progress=quiet)
    assert not np.array_equal(first[0], first[1])
    a, b = (np.sort(batch.reshape(100, -1), axis=0) for batch in first)
    np.testing.assert_array_equal(a, b)  # all examples, once


@pytest.mark.parametrize(("took", "expected", "runs"), [((1.0, 0.01, 0.01), 0.01, 3), ((4.0, 0.01), 4.0, 1)])
def test_an_estimate_is_not_that_of_one_slow_moment(took, expected, runs, monkeypatch):
    clock, waits = [0.0], iter((0.0, *took))  # the first run does not count

    def work():
        clock[0] += next(waits)

    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    assert training._seconds(work) == pytest.approx(expected)
    assert len(list(waits)) == len(took) - runs

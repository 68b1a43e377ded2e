"""The recorder in a training loop of one's own: which files appear, and what they say."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo.localization.reference import run_reference
from manigeo.runs import RunFolder
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.training.recorder import Recorder

ACCURACIES = (0.1, 0.3, 0.7, 0.7, 0.2)  # on validation, epochs 0 to 4


def scores(validation: float, test: float = 0.5) -> dict[str, dict[str, Any]]:
    return {
        "validation": {"accuracy": validation, "loss": 1 - validation, "n": 10},
        "test": {"accuracy": test, "loss": 0.1 + 0.2, "n": 20},
    }


def weight_of(epoch: int) -> nn.Linear:
    """A network that shows in which epoch it was saved."""
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, float(epoch))
    return model


def record(directory: Path, accuracies: tuple[float, ...] = ACCURACIES, **options: Any) -> Recorder:
    recorder = Recorder(directory, **options)
    for epoch, accuracy in enumerate(accuracies):
        recorder.step(weight_of(epoch), epoch, scores(accuracy, test=1 - accuracy))
    return recorder


def saved_epochs(directory: Path) -> dict[str, int | None]:
    found = {path.stem: load_checkpoint(path) for path in (directory / "checkpoints").iterdir()}
    for checkpoint in found.values():
        assert float(checkpoint.state_dict["weight"]) == checkpoint.epoch
    return {name: checkpoint.epoch for name, checkpoint in sorted(found.items())}


def test_a_loop_of_ones_own_leaves_init_chosen_best_and_last(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2), torch.randn(16, 4)
    y = (x[:, 0] > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    recorder = Recorder(tmp_path / "run", epochs=(1, 5))
    recorder.step(model, 0)
    for epoch in range(1, 7):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy = (model(x).argmax(dim=1) == y).float().mean()
        recorder.step(model, epoch, {"validation": {"accuracy": accuracy, "loss": loss.detach()}})
    names = {path.stem for path in recorder.checkpoints.iterdir()}
    assert names == {"epoch-0000", "epoch-0001", "epoch-0005", "best", "last"}
    last = load_checkpoint(recorder.checkpoints / "last.pt")
    assert torch.equal(last.state_dict["weight"], model.weight)
    assert (last.arch, last.data, last.permutation) == (None, None, None)
    assert len(pd.read_csv(recorder.metrics_path)) == 6


def test_best_is_the_first_epoch_of_highest_validation_accuracy(tmp_path: Path) -> None:
    recorder = record(tmp_path)
    assert recorder.best == (2, 0.7)
    assert saved_epochs(tmp_path) == {"best": 2, "epoch-0000": 0, "last": 4}
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt").metrics["validation"]["accuracy"] == 0.7


def test_the_last_good_epoch_before_memorization_is_kept_while_training(tmp_path: Path) -> None:
    curve = [(0.1, 0.1), (0.1, 0.5), (0.12, 0.6), (0.5, 0.4), (1.0, 0.7)]
    recorder = Recorder(tmp_path, n_classes=10)
    for epoch, (permuted, validation) in enumerate(curve):
        scores = {"permuted": permuted, "validation": validation}
        recorder.step(weight_of(epoch), epoch, {kind: {"accuracy": a, "n": 900} for kind, a in scores.items()})
    assert saved_epochs(tmp_path) == {"before": 2, "best": 4, "epoch-0000": 0, "last": 4}
    assert recorder.before is not None
    assert (recorder.before.epoch, recorder.before.permuted) == (2, 0.12)
    name, found = run_reference(RunFolder(tmp_path)) or ("", None)
    assert (name, found) == ("before", recorder.before)


def test_the_limit_of_a_run_is_kept_with_it_and_another_may_be_asked_for(tmp_path: Path) -> None:
    curve = [(0.1, 0.1), (0.12, 0.5), (0.5, 0.6), (1.0, 0.7)]
    recorder = Recorder(tmp_path, n_classes=10, near_guessing=0.5, epochs="all")
    for epoch, (permuted, validation) in enumerate(curve):
        scores = {"permuted": permuted, "validation": validation}
        recorder.step(weight_of(epoch), epoch, {kind: {"accuracy": a, "n": 900} for kind, a in scores.items()})
    assert saved_epochs(tmp_path)["before"] == 2
    folder = RunFolder(tmp_path)
    assert folder.near_guessing == 0.5
    assert Recorder(tmp_path, resume=True).before == recorder.before
    own, at = run_reference(folder)  # type: ignore[misc]
    other, earlier = run_reference(folder, 0.08)  # type: ignore[misc]
    assert (own, at.epoch) == ("before", 2)
    assert (other, earlier.epoch) == ("epoch-0001", 1)  # before.pt is of the run's own limit
    with pytest.raises(UsageError, match=r"near_guessing must be from 0 to below 1, got 1\.5"):
        Recorder(tmp_path / "other", near_guessing=1.5)


def test_another_kind_can_decide_which_is_best(tmp_path: Path) -> None:
    assert record(tmp_path, best_by="test").best == (0, 0.9)
    assert saved_epochs(tmp_path)["best"] == 0


@pytest.mark.parametrize(
    ("epochs", "kept"), [((), [0]), ((1, 3), [0, 1, 3]), (range(0, 5, 2), [0, 2, 4]), ("all", [0, 1, 2, 3, 4])]
)
def test_checkpoints_of_chosen_epochs_are_kept(tmp_path: Path, epochs: Any, kept: list[int]) -> None:
    record(tmp_path, epochs=epochs)
    assert [epoch for name, epoch in saved_epochs(tmp_path).items() if name.startswith("epoch-")] == kept


def test_metrics_are_a_tidy_table(tmp_path: Path) -> None:
    record(tmp_path, accuracies=(0.25, 0.5))
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "epoch,kind,accuracy,loss,n",
        "0,validation,0.25,0.75,10",
        "0,test,0.75,0.30000000000000004,20",
        "1,validation,0.5,0.5,10",
        "1,test,0.5,0.30000000000000004,20",
    ]


def test_a_run_says_what_it_was(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"arch": "mlp", "arch_args": {"width": 3}, "data": "digits", "data_args": {"seed": 1}}
    record(
        tmp_path, **settings, data_fingerprint="0a", permutation={"fraction": 0.5}, seed=3, notes={"plan": {"lr": 0.1}}
    )
    run = json.loads((tmp_path / "run.json").read_text())
    assert {name: run[name] for name in settings} == settings
    assert (run["permutation"], run["seed"], run["plan"]) == ({"fraction": 0.5}, 3, {"lr": 0.1})
    assert run["versions"]["torch"] == torch.__version__
    of_torch = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    assert (run["machine"]["cpu_capability"], run["machine"]["threads"]) == of_torch
    assert run["machine"]["blas"].split()[0] in torch.__config__.show()
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert {name: getattr(last, name) for name in settings} == settings
    assert last.seed == 3


def test_wrapped_models_are_recorded_without_their_wrapper(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.step(nn.DataParallel(weight_of(0)), 0)
    assert list(load_checkpoint(recorder.checkpoints / "last.pt").state_dict) == ["weight", "bias"]


def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    record(tmp_path)
    with pytest.raises(UsageError, match="holds a run already; resume it, overwrite it"):
        Recorder(tmp_path)


def test_overwriting_leaves_nothing_of_the_former_run(tmp_path: Path) -> None:
    record(tmp_path, epochs="all")
    (tmp_path / "notes.txt").write_text("mine")
    record(tmp_path, accuracies=(0.5,), overwrite=True)
    assert saved_epochs(tmp_path) == {"best": 0, "epoch-0000": 0, "last": 0}
    assert set(pd.read_csv(tmp_path / "metrics.csv")["epoch"]) == {0}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_resumed_recorder_replaces_what_comes_after(tmp_path: Path) -> None:
    record(tmp_path / "whole")
    record(tmp_path / "parts", accuracies=(0.1, 0.3, 0.6, 0.9))
    run = (tmp_path / "parts" / "run.json").read_bytes()
    resumed = Recorder(tmp_path / "parts", resume=True, notes={"later": True})
    for epoch in (2, 3, 4):
        resumed.step(weight_of(epoch), epoch, scores(ACCURACIES[epoch], test=1 - ACCURACIES[epoch]))
    assert (tmp_path / "parts" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
    assert (tmp_path / "parts" / "run.json").read_bytes() == run
    assert saved_epochs(tmp_path / "parts") == saved_epochs(tmp_path / "whole")


def test_a_try_that_recorded_nothing_leaves_no_settings_to_the_run_that_resumes_it(tmp_path: Path) -> None:
    Recorder(tmp_path, arch="mlp", seed=1)
    record(tmp_path, arch="cnn", seed=2, resume=True)
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["arch"], run["seed"]) == ("cnn", 2)
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt").arch == "cnn"


def test_a_damaged_table_of_metrics_is_named(tmp_path: Path) -> None:
    record(tmp_path)
    (tmp_path / "metrics.csv").write_text("epoch,kind\nthree,test\n")
    with pytest.raises(InputError, match=r"metrics\.csv: not a table with the columns epoch, kind"):
        Recorder(tmp_path, resume=True)


def test_epochs_are_numbers_or_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="epochs must be numbers or"):
        Recorder(tmp_path, epochs="every")

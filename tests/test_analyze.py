"""One checkpoint, or another program's folder of checkpoints, up to a page with an answer."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from manigeo import read_results
from manigeo.errors import InputError, UsageError
from manigeo.report.gate import gates_of_answer
from manigeo.runs import RunFolder
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.training.runs import find_snapshot, run_snapshots
from tests.command_line import done, run

NETS = """from torch import nn
def net(n_classes=10):
    hidden = [nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(96, n_classes))
"""
GIVEN = ("--arch", "nets.py:net", "--data", "folder:images", "--permute", 0.5, "--per-class", 6, "--jobs", 1,
         "--skip", "separability", "--skip", "gradients")  # fmt: skip


def folder_of_images() -> None:
    digits = load_digits()
    for label in range(10):
        rows = np.flatnonzero(digits.target == label)
        for split, some in (("train", rows[:20]), ("test", rows[20:30])):
            folder = Path("images", split, str(label))
            folder.mkdir(parents=True)
            for row in some:
                Image.fromarray((digits.images[row] * 15).astype(np.uint8)).save(folder / f"{row:04d}.png")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder as a user of Lightning has it, who also saved the bare weights; the network knows its permuted labels."""
    folder, here = tmp_path_factory.mktemp("foreign"), os.getcwd()
    os.chdir(folder)
    try:
        Path("nets.py").write_text(NETS)
        folder_of_images()
        data = load_data("folder:images", {})
        rows = data.rows("train")
        X, y = (
            data.inputs(rows),
            torch.as_tensor(permute_labels(data, Permutation(0.5))["train_label"].to_numpy()[rows]),
        )
        space: dict = {}
        exec(NETS, space)
        torch.manual_seed(0)
        model = space["net"]()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        Path("lit/checkpoints").mkdir(parents=True)
        for step in range(301):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), y).backward()
            optimizer.step()
            if step in (8, 14, 300):
                torch.save(
                    {"epoch": step // 2, "global_step": step, "pytorch-lightning_version": "2.5.0",
                     "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}},
                    f"lit/checkpoints/epoch={step // 2}-step={step}.ckpt",
                )  # fmt: skip
        torch.save(model.state_dict(), "model_final.pt")
        yield folder
    finally:
        os.chdir(here)


@pytest.fixture
def inside(foreign, monkeypatch):
    monkeypatch.chdir(foreign)
    return foreign


def test_one_command_leads_from_a_checkpoint_and_images_to_a_page_with_an_answer(inside):
    said = done("analyze", "model_final.pt", *GIVEN)
    assert "The network has memorized" in said
    assert "Permuted examples come apart at" in said
    page = Path("model_final-analysis/report.html").read_text()
    assert "Permuted examples come apart at" in page
    assert "<strong" in page[page.index("Has it memorized?") :][:200]  # the gate, though there is no run
    assert said.count("For more:") == 1
    (missing,) = [line for line in said.splitlines() if line.startswith("- which layers hold")]
    assert "manigeo analyze . --arch nets.py:net --data folder:images --permute 0.5" in missing
    again = done("analyze", "model_final.pt", *GIVEN)
    assert again.count("up to date  ") == 4


def test_checkpoints_of_lightning_are_compared_by_their_epochs(inside):
    quick = [word for step in ("extract", "capacity", "report") for word in ("--skip", step)]
    said = done("analyze", "lit", *GIVEN, *quick)
    assert "Compared with epoch 8, before memorization" in said  # the third file would be another
    assert "What was memorized is held by" in said
    table = read_results("lit/analysis/localize.csv")
    assert {0.0, 1.0} <= set(table.loc[table["metric"] == "named", "value"])
    assert "save it as lit/checkpoints/epoch-0000.pt" in said
    methods = {name for name in ("rewinding", "weights") if f"- {name}: " in said}
    assert methods == {"rewinding", "weights"}  # the names of the file begin with model.


def test_what_is_missing_is_told_before_anything_is_computed(inside, tmp_path):
    code, out, err = run("analyze", "model_final.pt", "--out", tmp_path / "a")
    assert (code, err.count("give --data")) == (3, 1)
    assert "report" not in out.splitlines()[-1]
    code, _, err = run("analyze", "lit", "--data", "folder:images")
    assert (code, "give --arch" in err) == (3, True)
    assert not Path("lit/analysis/log.txt").exists() or "give --arch" not in Path("lit/analysis/log.txt").read_text()


def test_labels_as_they_are_leave_a_page_and_a_word_about_labels(inside, tmp_path):
    clean = [*GIVEN[:4], "--permute", 0, *GIVEN[6:]]
    said = done("analyze", "model_final.pt", *clean, "--out", tmp_path / "clean", "--layers", "[13]")
    assert "no labels were permuted" in said
    assert "--labels FILE with those of training" in said
    assert (tmp_path / "clean/report.html").is_file()


def test_marks_of_examples_reach_every_step_that_opens_the_data(inside):
    Path("kinds.csv").write_text("index,kind\n0,memorized\n")
    said = done("analyze", "lit", *GIVEN, "--kinds-from", "kinds.csv", "--dry-run")
    with_marks = set(re.findall(r"manigeo (\w+) .*--kinds-from kinds.csv", said))
    assert with_marks == {"extract", "rewind"}


def test_other_labels_in_a_file_of_the_same_name_make_its_steps_anew(inside, tmp_path):
    rest = [word for step in ("capacity", "separability", "localize", "report") for word in ("--skip", step)]
    line = ("analyze", "model_final.pt", *GIVEN[:4], "--labels", "mine.csv", "--out", tmp_path / "a", *rest)
    Path("mine.csv").write_text("index,train_label\n0,1\n")
    done(*line)
    assert "up to date   manigeo extract" in done(*line, "--dry-run")
    Path("mine.csv").write_text("index,train_label\n0,0\n")
    assert "stale        manigeo extract" in done(*line, "--dry-run")


@pytest.mark.parametrize("option", ["--labels", "--kinds-from"])
def test_a_file_about_examples_that_is_not_there_stops_before_any_step(inside, tmp_path, option):
    code, out, err = run("analyze", "model_final.pt", *GIVEN[:4], option, "nowhere.csv", "--out", tmp_path / "a")
    assert (code, out, err) == (3, "", f"manigeo: nowhere.csv, of {option}, is no file; check the path\n")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model_final.pt", "--checkpoints", "last"], "is one checkpoint: leave --checkpoints out"),
        (["lit", "--out", "x"], "leave --out out"),
        (["images"], "holds no checkpoints: give a folder"),
        (["nowhere.pt"], "does not exist"),
    ],
)
def test_what_cannot_be_analysed_is_refused_with_what_to_give(inside, words, message):
    code, _, err = run("analyze", *words)
    assert code in (2, 3)
    assert message in err


@pytest.mark.parametrize(
    ("names", "last"),
    [
        (["epoch=1.ckpt", "epoch=10.ckpt", "epoch=2.ckpt"], "epoch=10"),
        (["model_0005000.pth", "model_final.pth", "model_0010000.pth"], "model_final"),
        (["checkpoint-2.pth.tar", "checkpoint-1.pth.tar", "optimizer.pt"], "checkpoint-2.pth"),
        (["weights.safetensors.pt"], "weights.safetensors"),
    ],
)
def test_the_last_checkpoint_of_any_names_is_found(tmp_path, names, last):
    for name in names:
        torch.save({"a.weight": torch.ones(2, 2)}, tmp_path / name)
    assert find_snapshot(run_snapshots(tmp_path), "last", tmp_path).name == last
    assert not any("optim" in name for name in RunFolder(tmp_path).checkpoint_names())


def test_checkpoints_that_tell_no_epoch_are_not_put_in_an_order(tmp_path):
    for name in ("a.pt", "b.pt"):
        torch.save({"a.weight": torch.ones(2, 2)}, tmp_path / name)
    with pytest.raises(InputError, match=r"name them epoch-0001.pt and so on, or give one of the files"):
        find_snapshot(run_snapshots(tmp_path), "last", tmp_path)
    with pytest.raises(UsageError, match="has no checkpoint 'middle'"):
        find_snapshot(run_snapshots(tmp_path), "middle", tmp_path)


def test_a_folder_of_folders_names_those_with_checkpoints(tmp_path):
    (tmp_path / "version_0/checkpoints").mkdir(parents=True)
    torch.save({"w": torch.ones(2)}, tmp_path / "version_0/checkpoints/last.ckpt")
    with pytest.raises(InputError, match=r"give one of the folders in it that do: .*version_0"):
        run_snapshots(tmp_path)


def test_an_epoch_is_that_of_the_file_before_that_of_its_name(tmp_path):
    torch.save({"epoch": 3, "model": {"w": torch.ones(2)}}, tmp_path / "epoch_7.pt")
    assert load_checkpoint(tmp_path / "epoch_7.pt").epoch == 3


def test_without_a_run_the_gate_is_that_of_the_answer():
    from manigeo.results import as_table

    gate = {"kind": "permuted", "metric": "gate", "settings": '{"analysis": "localize"}'}
    rows = [gate | {"run": "a", "value": 0.99}, gate | {"run": "b", "flag": "nothing_permuted"}]
    gates = gates_of_answer(as_table(rows))
    assert [(gate.run, gate.accuracy, gate.passed) for gate in gates] == [("a", 0.99, True), ("b", None, False)]

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from manigeo import open_activations, read_results
from manigeo.activations.sums import CHUNKS, ROWS
from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.cli.demo import SAMPLE, describe_last_layer, describe_memorization
from manigeo.cli.main import COMMANDS
from manigeo.results import as_table
from tests.command_line import done, run
from tests.effects import assert_effect, assert_memorized, share_error, shifted
from tests.reference import shared

SMALL = ("--data", "digits", "--arch-arg", "depth=2", "--arch-arg", "width=16", "--epochs", 2)
# For a capacity whose numbers are not looked at: the metric of "auto" takes four fifths of the time.
QUICK = ("--draws", 20, "--centers", "keep")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    done("train", *SMALL, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(trained) -> Path:
    return trained / "checkpoints" / "last.pt"


@pytest.fixture(scope="module")
def mission(checkpoint, tmp_path_factory) -> tuple[Path, str, str]:
    """The two lines of the mission: the folder that they were typed in, and what each printed."""
    folder = tmp_path_factory.mktemp("mission")
    with contextlib.chdir(folder):
        return folder, done("extract", "--model", checkpoint), done("capacity", "acts.h5")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def acts(mission, here) -> Path:
    return Path(shutil.copy(mission[0] / "acts.h5", here))


def refused(code: int, *words: object) -> str:
    """The one line that a command says when it refuses, having left no file behind."""
    before = sorted(os.listdir())
    got, out, err = run(*words)
    assert got == code, err
    assert err.startswith("manigeo: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert sorted(os.listdir()) == before
    return err


# ------------------------------------------------------------------------------------------------------ the main lines
@pytest.mark.installed
def test_the_two_lines_of_the_mission_work_without_options(mission):
    folder, extracted, measured = mission
    assert "next: manigeo capacity acts.h5" in extracted
    assert "next: manigeo plot acts.capacity.csv" in measured
    table = read_results(folder / "acts.capacity.csv")
    assert set(table["layer"]) == {"input", "h1.linear", "h2.linear", "logits"}
    assert set(table["kind"]) == {"unpermuted", "permuted", "restored", "test"}
    capacity = table[(table["metric"] == "capacity") & (table["manifold"] == "")]
    assert np.isfinite(capacity[["value", "stderr"]]).all(axis=None)
    assert (table["epoch"] == 2).all()
    assert sorted(os.listdir(folder)) == ["acts.capacity.csv", "acts.h5"]


@pytest.mark.installed
def test_the_printed_table_shows_each_measure_for_each_layer_and_kind(mission):
    folder, _, out = mission
    for measure in ("capacity", "radius", "dimension", "centre correlation"):
        header = next(line for line in out.splitlines() if re.match(rf"{measure}\s+unpermuted", line))
        assert header.split()[-4:] == ["unpermuted", "permuted", "restored", "test"]
    rows = [line for line in out.splitlines() if line.startswith("h2.linear")]
    assert len(rows) == 4
    value = read_results(folder / "acts.capacity.csv").query(
        "layer == 'h2.linear' and kind == 'test' and manifold == ''"
    )
    first = value[value["metric"] == "capacity"].iloc[0]
    assert rows[0].endswith(f"{first['value']:.3f} ± {first['stderr']:.3f}")


def test_few_classes_are_said_to_be_few(acts):
    assert "P = 10 classes is small for mean field" in done("capacity", acts, "--dry-run")


def test_below_ten_classes_the_plan_warns_of_estimators_and_recommends_simulation(acts):
    plan = done("capacity", acts, "--dry-run", "--classes", 5, "--per-class", 4)
    (line,) = [line for line in plan.splitlines() if line.startswith("P = 5 classes are few")]
    assert "mean field was up to 5 % below simulation, joint up to 5 % off: use --simulate" in line
    two = done("capacity", acts, "--dry-run", "--classes", 2, "--per-class", 4)
    assert "P = 2 classes have one dichotomy, so no simulated capacity" in two
    assert "use --joint" in two


def test_the_plan_names_where_points_without_structure_lie_for_each_estimator(acts):
    arguments = ("--dry-run", "--classes", 5, "--per-class", 4)
    floors = {e: f"{unstructured_capacity(4, n_manifolds=5, estimator=e):.3f}" for e in ("auto", "joint", "simulated")}
    assert f"capacity without structure {floors['auto']} (mean field)\n" in done("capacity", acts, *arguments)
    every = done("capacity", acts, *arguments, "--joint", "--simulate")
    assert f"{floors['auto']} (mean field), {floors['joint']} (joint), {floors['simulated']} (simulated)\n" in every
    at_margin = done("capacity", acts, *arguments, "--kappa", 0.5)
    assert "capacity without structure is not known at a margin" in at_margin


@pytest.mark.installed
def test_json_goes_to_stdout_alone(acts):
    code, out, err = run("capacity", acts, "--json", "--layers", "input", *QUICK)
    assert code == 0
    assert {row["layer"] for row in json.loads(out)} == {"input"}
    assert "P = 10" in err


def test_a_plan_is_shown_and_nothing_is_written(checkpoint, acts):
    before = sorted(os.listdir())
    plan = done("capacity", acts, "--simulate", "--joint", "--bias", "--dry-run")
    assert "4 layers x 4 kinds" in plan
    assert "64 tasks" in plan
    assert "simulated, 200 dichotomies, with a bias; joint, 100 draws, random labels" in plan
    assert "h1.linear" in done("extract", "--model", checkpoint, "--out", "new.h5", "--dry-run")
    assert "2 epochs" in done("train", *SMALL, "--out", "new", "--dry-run")
    assert sorted(os.listdir()) == before


@pytest.mark.installed
def test_layers_lists_names_shapes_and_sizes(checkpoint):
    lines = done("layers", "--model", checkpoint).splitlines()
    assert lines[0].split() == ["depth", "layer", "class", "call", "shape", "features", "MB"]
    assert lines[1].split()[:7] == ["0", "input", "Input", "0", "1", "x", "8"]
    assert [line.split()[1] for line in lines[1:5]] == ["input", "h1.linear", "h2.linear", "logits"]
    assert any(line.split()[1] == "h1.relu" for line in done("layers", "--model", checkpoint, "--all").splitlines())


@pytest.mark.installed
def test_info_says_what_is_in_a_file(acts):
    assert "h2.linear (16)" in done("info", acts)
    content = json.loads(done("info", acts, "--json"))
    assert content["provenance"]["permutation"] == {"fraction": 0.5, "convention": "permutation", "seed": 0}
    with open_activations(acts) as file:
        assert content["fingerprint"] == file.fingerprint


@pytest.mark.installed
def test_a_figure_is_drawn_from_tables_and_the_suffix_decides(acts):
    done("capacity", acts, *QUICK, "--layers", "input", "--layers", "logits")
    done("plot", "acts.capacity.csv")
    assert Path("geometry.png").read_bytes().startswith(b"\x89PNG")
    done("plot", "*.csv", "-o", "geometry.svg")
    assert "<svg" in Path("geometry.svg").read_text()


@pytest.mark.installed
def test_every_analysis_goes_into_one_table_and_each_figure_is_drawn_of_it(acts):
    analyses = ("--simulate", "--dichotomies", 50, "--joint", "--joint-draws", 6, "--sweep-examples", "3,6")
    sample = ("--layers", "h*", "--kinds", "permuted", "--kinds", "restored", "--classes", 6, "--project", 12)
    out = done("capacity", acts, *analyses, *sample, "--bootstrap", 100, *QUICK)
    assert "2 layers x 2 kinds, P = 6 classes" in out
    for said in ("joint capacity", "simulated capacity", "20 tasks", "100 bootstrap resamples"):
        assert said in out
    table = read_results("acts.capacity.csv")
    assert {"capacity_simulated", "capacity_joint", "capacity_sweep", "capacity_ci_low"} <= set(table["metric"])
    assert all(json.loads(settings)["project"] == 12 for settings in table["settings"])
    assert "wrote geometry.png\nwrote estimators.png\nwrote sweep.png" in done("plot", "acts.capacity.csv")
    assert "the tables hold more: --figure estimators, --figure sweep" in done("plot", "*.csv", "-o", "one.svg")
    done("plot", "*.csv", "--figure", "sweep", "-o", "two.svg")
    assert "floor" in Path("two.svg").read_text()


def test_an_analysis_is_added_to_a_table_that_is_there(acts):
    sample = ("--layers", "logits", *QUICK, "--no-total-dimension")
    done("capacity", acts, *sample)
    before = read_results("acts.capacity.csv")
    done("capacity", acts, *sample, "--simulate", "--dichotomies", 50, "--resume")
    after = read_results("acts.capacity.csv")
    pd.testing.assert_frame_equal(after[after["metric"].isin(before["metric"])].reset_index(drop=True), before)
    assert set(after["metric"]) - set(before["metric"]) == {"capacity_simulated", "critical_dimension"}


def test_a_checkpoint_of_a_users_own_loop_is_extracted_by_saying_what_it_does_not(here):
    from manigeo_extract.models import build_model

    model = build_model("mlp", {"input_shape": (1, 8, 8), "n_classes": 10, "depth": 1, "width": 8})
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, "own.pt")
    args = ("--arch", "mlp", "--arch-arg", "depth=1", "--arch-arg", "width=8", "--data", "digits", "--permute", 0.3)
    done("extract", "--model", "own.pt", *args)
    with open_activations("acts.h5") as acts:
        assert acts.layers == ("input", "h1.linear", "logits")
        assert acts.provenance["permutation"]["fraction"] == 0.3


@pytest.mark.installed
def test_settings_come_from_a_file_and_the_command_line_wins(here):
    Path("run.toml").write_text(
        'data = "digits"\nepochs = 9\nout = "other"\n[arch-args]\ndepth = 1\nwidth = 8\n[data-args]\nper_class = 5\n'
    )
    done("train", "--config", "run.toml", "--epochs", 1)
    settings = json.loads(Path("other/run.json").read_text())
    assert settings["arch_args"]["width"] == 8
    assert settings["data_args"]["per_class"] == 5
    assert settings["plan"]["epochs"] == 1


@pytest.mark.installed
def test_a_killed_training_run_continues_to_the_same_weights(here):
    command = [sys.executable, "-m", "manigeo", "train", *map(str, SMALL), "--epochs", "30", "--out", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = Path("killed/metrics.csv")
    while not (metrics.exists() and pd.read_csv(metrics)["epoch"].max() >= 2):
        time.sleep(0.01)
        assert process.poll() is None, "training ended before it could be killed"
    process.kill()
    process.wait()
    assert "holds a run already: --resume continues it" in refused(
        2, "train", *SMALL, "--epochs", 30, "--out", "killed"
    )
    done("train", *SMALL, "--epochs", 30, "--out", "killed", "--resume")
    done("train", *SMALL, "--epochs", 30, "--out", "whole")
    weights = [torch.load(f"{run}/checkpoints/last.pt", weights_only=True)["state_dict"] for run in ("killed", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert Path("killed/metrics.csv").read_bytes() == Path("whole/metrics.csv").read_bytes()


@pytest.fixture
def breaks_off(monkeypatch):
    """The fourth layer and kind of a table raises; the list of all that were begun."""
    from manigeo.layerwise import tables

    compute, begun = tables.job_table, []

    def install(error: BaseException) -> list:
        def computed(*job):
            begun.append(job)
            if len(begun) == 4:
                raise error
            return compute(*job)

        monkeypatch.setattr(tables, "job_table", computed)
        return begun

    return install


def test_an_interrupted_analysis_keeps_its_results_and_ends_in_the_same_table(acts, breaks_off):
    done("capacity", acts, *QUICK, "--out", "whole.csv")
    begun = breaks_off(KeyboardInterrupt())
    code, _, err = run("capacity", acts, *QUICK, "--out", "cut.csv")
    assert code == 130
    assert "what was finished is in cut.csv; the same command with --resume goes on" in err
    assert len(read_results("cut.csv").drop_duplicates(["layer", "kind"])) == 3
    other = refused(2, "capacity", acts, *QUICK, "--draws", 21, "--out", "cut.csv", "--resume")
    assert "(n_draws 20 in the table, 21 here): give the same settings, another --out, or --force" in other
    done("capacity", acts, *QUICK, "--out", "cut.csv", "--resume")
    assert len(begun) == 4 + 13  # of 16, three were there
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_truncated_table_is_completed_without_a_row_twice(acts):
    done("capacity", acts, *QUICK, "--out", "whole.csv")
    lines = Path("whole.csv").read_text().splitlines(keepends=True)
    Path("cut.csv").write_text("".join(lines[: len(lines) // 2]))
    done("capacity", acts, *QUICK, "--out", "cut.csv", "--resume")
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()


# ------------------------------------------------------------------------------------------------------------ bad input
def test_a_killed_analysis_has_saved_what_was_finished(acts, breaks_off, monkeypatch):
    from manigeo.cli import tables

    done("capacity", acts, *QUICK, "--out", "whole.csv")
    breaks_off(SystemExit(137))  # which nothing on the way holds up
    monkeypatch.setattr(tables, "_SAVE_SECONDS", 0.0)
    run("capacity", acts, *QUICK, "--out", "cut.csv")
    assert len(read_results("cut.csv").drop_duplicates(["layer", "kind"])) == 3
    done("capacity", acts, *QUICK, "--out", "cut.csv", "--resume")
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.installed
def test_a_missing_or_truncated_model_is_refused(checkpoint, here):
    assert "none.pt" in refused(3, "extract", "--model", "none.pt")
    Path("cut.pt").write_bytes(checkpoint.read_bytes()[:3000])
    assert "cut.pt: is truncated" in refused(3, "extract", "--model", "cut.pt")
    Path("text.pt").write_text("hello")
    assert "text.pt: is not a file written by torch.save" in refused(3, "extract", "--model", "text.pt")


def test_a_missing_or_truncated_activation_file_is_refused(acts):
    assert "does not exist; write it with manigeo extract" in refused(3, "capacity", "none.h5")
    Path("cut.h5").write_bytes(acts.read_bytes()[:2000])
    assert "cut.h5 cannot be opened as HDF5" in refused(3, "capacity", "cut.h5")


def test_a_checkpoint_that_does_not_say_its_data_or_network_names_the_option(checkpoint, here):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "data": None}, "no-data.pt")
    assert "does not say its data set: give --data" in refused(3, "extract", "--model", "no-data.pt")
    torch.save({**content, "arch": None}, "no-arch.pt")
    assert "does not say its architecture: give --arch" in refused(3, "extract", "--model", "no-arch.pt")


@pytest.mark.installed
def test_a_checkpoint_cannot_name_a_program_to_run(checkpoint, here):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "data": "os:getcwd", "data_args": {}}, "data.pt")
    assert "if you trust it, repeat --data os:getcwd" in refused(2, "extract", "--model", "data.pt")
    torch.save({**content, "arch": "os:getcwd", "arch_args": {}}, "arch.pt")
    assert "if you trust it, repeat --arch os:getcwd" in refused(2, "extract", "--model", "arch.pt")


def test_data_that_are_not_those_of_training_are_refused(checkpoint, here):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "data_fingerprint": "0" * 64}, "other.pt")
    assert "not the data that other.pt was trained on" in refused(3, "extract", "--model", "other.pt")
    assert "give other data with --data and --permute" in refused(
        3, "extract", "--model", "other.pt", "--data", "digits"
    )
    code, _, err = run("extract", "--model", "other.pt", "--data", "digits", "--permute", 0)
    assert code == 0
    assert err.startswith("note: digits is not the data that other.pt was trained on\n")
    with open_activations("acts.h5") as acts:
        assert acts.kinds == ("unpermuted", "test")


def test_data_that_moved_are_found_again_with_the_options_of_training(here):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (60, 4, 4), dtype=np.uint8), np.arange(60) % 3
    np.savez("old.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    done("train", "--data", "npz:old.npz", "--data-arg", "per_class=9", "--epochs", 1, "--arch-arg", "width=4")
    os.rename("old.npz", "new.npz")
    assert "old.npz" in refused(3, "extract", "--model", "run/checkpoints/last.pt")
    done("extract", "--model", "run/checkpoints/last.pt", "--data", "npz:new.npz")
    with open_activations("acts.h5") as acts:
        assert acts.provenance["data_args"]["per_class"] == 9


@pytest.mark.installed
def test_unknown_names_come_with_near_ones(checkpoint, acts):
    assert "did you mean 'digits'" in refused(2, "train", "--data", "digit", "--out", "new")
    assert "did you mean 'resnet18'" in refused(2, "train", "--arch", "resnet", "--data", "digits", "--out", "new")
    assert "h1.linear" in refused(2, "extract", "--model", checkpoint, "--out", "new.h5", "--layers", "h1.lin")
    unmatched = refused(2, "capacity", acts, "--layers", "conv*")
    assert re.search(r"no layer matches 'conv\*'; .* has input, h1\.linear", unmatched)
    assert "did you mean capacity" in refused(2, "capacty", acts)
    assert "epoch" in refused(2, "train", "--epoch", 3)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, "nan", "half"])
def test_a_permuted_fraction_outside_zero_to_one_is_refused(here, fraction):
    assert str(fraction) in refused(2, "train", *SMALL, "--permute", fraction, "--out", "new")


def test_labels_outside_the_classes_are_refused(here):
    x, y = np.zeros((6, 4, 4), np.uint8), np.array([0, 1, 2, 0, 1, -1])
    np.savez("bad.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert "bad.npz" in refused(3, "train", "--data", "npz:bad.npz", "--out", "new")


def test_labels_other_than_those_of_training_are_refused(checkpoint, here):
    said = refused(2, "extract", "--model", checkpoint, "--permute", 0.3)
    assert "was trained with the permutation {'fraction': 0.5" in said


def test_labels_of_ones_own_loop_come_from_a_file(checkpoint, trained, here):
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "permutation": None}, "own.pt")
    done("extract", "--model", "own.pt", "--labels", trained / "labels.csv", "--layers", "input")
    done("extract", "--model", checkpoint, "--layers", "input", "--out", "trained.h5")
    with open_activations("acts.h5") as own, open_activations("trained.h5") as trained_acts:
        assert own.examples.equals(trained_acts.examples)


@pytest.mark.installed
def test_what_cannot_be_is_refused_in_one_line(checkpoint, acts):
    assert "expected the number of processes" in refused(2, "capacity", acts, "--jobs", 0)
    assert "must be a finite number" in refused(2, "capacity", acts, "--kappa", "nan")
    assert "give one of them" in refused(2, "capacity", acts, "--resume", "--force")
    assert "e.g. 5,10,20; got '5;10'" in refused(2, "capacity", acts, "--sweep-examples", "5;10")
    assert "--sweep-examples 9999 is more than there are" in refused(2, "capacity", acts, "--sweep-examples", "5,9999")
    assert "expected 100 resamples or more" in refused(2, "capacity", acts, "--bootstrap", 10)
    assert "--classes 11 is not between 2 and 10" in refused(2, "capacity", acts, "--classes", 11)
    assert "cuda" in refused(2, "extract", "--model", checkpoint, "--out", "new.h5", "--device", "cuda:77")
    assert "cpu" in refused(2, "train", *SMALL, "--out", "new", "--device", "foo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = [1, 2]", "epochs"),
        ("epochs = 1.5", "epochs"),
        ("augment = 1", "expected true or false"),
        ("epoch = 1", "sets epoch, which this command does not have"),
        ("epochs = ", "is not a TOML file"),
    ],
)
def test_a_settings_file_is_checked_as_what_is_typed(here, text, message):
    Path("run.toml").write_text(text)
    assert message in refused(2, "train", "--config", "run.toml", *SMALL[:2], "--out", "new")


def test_lists_and_flags_of_a_settings_file_are_understood(here):
    Path("run.toml").write_text('schedule = "step"\nmilestones = [1]\ncheckpoint-epochs = [0, 1]\naugment = true\n')
    done("train", "--config", "run.toml", *SMALL)
    plan = json.loads(Path("run/run.json").read_text())["plan"]
    assert (plan["milestones"], plan["checkpoint_epochs"], plan["augment"]) == ([1], [0, 1], True)


def test_a_kind_with_a_class_of_one_example_is_left_out_by_name(here):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (60, 4, 4), dtype=np.uint8), np.arange(60) % 3
    np.savez("few.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])  # one test example per class
    done("train", "--data", "npz:few.npz", "--arch-arg", "depth=1", "--arch-arg", "width=4", "--epochs", 1)
    done("extract", "--model", "run/checkpoints/last.pt")
    out = done("capacity", "acts.h5")
    assert "test is left out: fewer than 2 examples in class '0', '1', '2'" in out
    assert "fewer than 2 examples (0,1,2): test\n" in out
    before = Path("acts.capacity.csv").read_bytes()
    done("capacity", "acts.h5", "--resume")
    assert Path("acts.capacity.csv").read_bytes() == before
    table = read_results("acts.capacity.csv")
    assert table[table["kind"] == "test"]["value"].isna().all()
    assert table[(table["kind"] == "permuted") & (table["metric"] == "capacity")]["value"].notna().all()


def test_nan_activations_name_their_layer(checkpoint, acts):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["h2.linear.weight"][0, 0] = torch.nan
    torch.save(content, "nan.pt")
    assert "layer 'h2.linear' has NaN" in refused(3, "extract", "--model", "nan.pt", "--out", "new.h5")
    with h5py.File(acts, "r+") as file:
        file["layers/h1.linear"][0, 0] = np.nan
        del file.attrs[ROWS], file.attrs[CHUNKS]  # as in a file of before there were sums
    assert "layer 'h1.linear' holds NaN" in refused(3, "capacity", acts)


def test_what_exists_is_kept_unless_forced(checkpoint, acts, trained):
    assert "exists: give another --out, or --force" in refused(2, "extract", "--model", checkpoint)
    Path("acts.capacity.csv").write_text("mine")
    assert "exists: give another --out, or --force" in refused(2, "capacity", acts)
    assert "--resume continues it, --force replaces it" in refused(2, "train", *SMALL, "--out", trained)
    done("capacity", acts, "--force", *QUICK)
    assert Path("acts.capacity.csv").read_text() != "mine"


@pytest.mark.installed
def test_a_debugging_user_gets_the_traceback(here):
    for words in (("--debug", "capacity", "none.h5"), ("capacity", "none.h5", "--debug")):
        code, _, err = run(*words)
        assert code == 3
        assert "Traceback" in err


# ------------------------------------------------------------------------------------------------------------- the rest
def test_real_images_go_through_without_a_special_case(here):
    data = ("--data", f"npz:{shared('data/cifar100_150x40.npz')}", "--data-arg", "per_class=10")
    done("train", *data, "--arch", "cnn", "--arch-arg", "width=2", "--permute", 0.5, "--epochs", 1)
    done(
        "extract",
        "--model",
        "run/checkpoints/last.pt",
        "--per-class",
        3,
        "--layers",
        "conv3.conv",
        "--layers",
        "logits",
    )
    done("capacity", "acts.h5", "--per-class", 2, "--draws", 20, "--centers", "keep", "--kinds", "test")
    table = read_results("acts.capacity.csv")
    capacity = table[(table["metric"] == "capacity") & (table["manifold"] == "")]
    assert capacity["layer"].tolist() == ["conv3.conv", "logits"]
    assert (capacity["n"] == 100).all()
    assert np.isfinite(capacity["value"]).all()


@pytest.mark.installed
def test_every_command_has_help():
    for name in COMMANDS:
        assert "Usage: manigeo" in done(name, "--help")
    out = done("--help")
    assert all(name in out for name in COMMANDS)
    assert done() == out
    assert done("--version").startswith("manigeo 0.")


def test_an_interrupted_command_exits_with_130_and_says_how_to_go_on(here, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("manigeo_extract.training.trainer.train", interrupted)
    for replaced, way in (((), "--resume"), (("--force",), "--resume in place of --force")):
        code, _, err = run("train", *SMALL, "--out", "stopped", *replaced)
        assert code == 130
        assert [line for line in err.splitlines() if line] == [
            f"the same command with {way} continues after the last whole epoch", "manigeo: interrupted",
        ]  # fmt: skip


@pytest.mark.installed
@pytest.mark.training
def test_a_demo_that_does_not_memorize_says_so_and_fails(here):
    code, _, err = run("demo", "--data", "digits", "--epochs", 1, "--seed", shifted(), "--out", "demo")
    metrics = pd.read_csv("demo/run/metrics.csv").set_index(["kind", "epoch"]).loc[("permuted", 1)]
    error = share_error(metrics["accuracy"], int(metrics["n"]))
    assert_effect("permuted accuracy below the gate of .95", 0.95 - metrics["accuracy"], error)
    assert code == 1
    assert re.search(r"has not memorized: permuted training accuracy 0\.\d+, needed 0\.95; train longer", err)


def rewinds() -> pd.DataFrame:
    accuracies = {
        ("test", "(none)"): (0.5, 0.011),
        ("test", "(last 1)"): (0.6, 0.012),
        ("test", "(all)"): (0.7, 0.013),
        ("unpermuted", "(none)"): (1.0, 0.0),
        ("unpermuted", "(last 1)"): (0.997, 0.001),
    }
    return as_table([
        {"metric": "accuracy", "kind": kind, "layer": layer, "value": value, "stderr": error}
        for (kind, layer), (value, error) in accuracies.items()
    ])  # fmt: skip


def test_the_demo_says_what_the_last_layer_regains_with_errors():
    words = " ".join(describe_last_layer(rewinds()).split())
    assert (
        "test accuracy goes from 0.500 ± 0.011 to 0.600 ± 0.012 (the whole network at that epoch: 0.700 ± 0.013)"
        in words
    )
    assert words.endswith("unpermuted examples from 1.000 ± 0.000 to 0.997 ± 0.001.")


@pytest.mark.parametrize(
    ("permuted", "restored", "said"),
    [
        (0.2, 0.1, ["they become separable on the way", "what memorization costs"]),
        (0.05, 0.3, ["they become less separable on the way", "no cost of memorization here"]),
        (0.101, 0.201, ["no change beyond two standard errors", "no change beyond two standard errors"]),
    ],
)
def test_the_demos_words_follow_its_numbers(permuted, restored, said):
    values = {
        ("permuted", "last", "h2"): permuted,
        ("restored", "last", "h2"): restored,
        ("restored", "before", "h2"): 0.2,
    }
    table = as_table([
        {"checkpoint": checkpoint, "kind": kind, "layer": layer, "depth": depth, "metric": metric, "stderr": 0.001, "n": 40,
         "value": values.get((kind, checkpoint, layer), 0.1)}
        for checkpoint in ("before", "last") for kind in ("permuted", "restored")
        for depth, layer in enumerate(("input", "h1", "h2", "logits")) for metric in ("capacity", "radius", "dimension")
    ])  # fmt: skip
    lines = describe_memorization(table, rewinds()).splitlines()
    assert [line.split(": ")[-1].strip() for line in (lines[3], lines[7])] == [f"{end}." for end in said]


@pytest.mark.training
@pytest.mark.long
def test_the_demo_on_digits_says_that_its_classes_are_few(here, monkeypatch):
    monkeypatch.setitem(SAMPLE, "digits", ("--per-class", "8", *map(str, QUICK)))
    out = done("demo", "--data", "digits", "--seed", shifted(), "--out", "demo", "--jobs", 1)
    assert_memorized("demo/run/metrics.csv", int(pd.read_csv("demo/run/labels.csv")["permuted"].sum()))
    assert "P = 10 classes is small for mean field" in out.splitlines()[-1]
    assert sorted(os.listdir("demo")) == [
        "before.capacity.csv", "before.h5", "geometry.png", "last.capacity.csv", "last.h5", "localize.csv", "rewind.csv",
        "rewind.png", "run",
    ]  # fmt: skip

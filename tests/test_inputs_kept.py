"""No command overwrites what it reads, whichever of its parameters names the file."""

import json
import re
import shutil
from pathlib import Path

import click
import pytest

from manigeo.cli.inputs_kept import input_files
from manigeo.cli.main import COMMANDS, cli
from manigeo.results import write_results
from tests.command_line import run
from tests.fuzzing import results_table

PRECIOUS = "precious"
# every command that writes files and reads some: its line, of which the last word is what --out shall not replace
LINES = {
    "capacity": ["in.csv"],
    "separability": ["in.csv"],
    "similarity": ["in.csv"],
    "examples": ["in.csv"],
    "merge": ["in.h5"],
    "weights": ["in.csv"],
    "correlate": ["folder", "--config", "in.csv"],
    "extract": ["--model", "in.pt"],
    "localize": ["in.csv"],
    "plot": ["in.png"],
    "report": ["in.html"],
    "rewind": ["folder", "--labels", "in.csv"],
    "reinit": ["folder", "--labels", "in.csv"],
    "gradients": ["folder", "--labels", "in.csv"],
    "channels": ["folder", "--labels", "in.csv"],
    "suffixes": ["--model", "in.csv"],
    "lens": ["--model", "in.csv"],
}
FOLDERS = {"train", "memorization"}  # these read folders, whose files are the inputs
WITHOUT = {"info", "layers", "analyze", "sweep", "benchmark", "demo"}  # these write to a name of their own, or nothing


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_every_command_is_asked():
    assert set(LINES) | FOLDERS | WITHOUT == set(COMMANDS)


@pytest.mark.parametrize("command", LINES)
@pytest.mark.parametrize("link", [False, True])
def test_out_that_is_an_input_is_refused_in_every_command(here, command, link):
    *words, name = LINES[command]
    (here / name).write_text("" if "--config" in words else PRECIOUS)
    before, out = (here / name).read_text(), name
    if link:
        out = f"other{Path(name).suffix}"
        (here / out).symlink_to(name)
    code, _, err = run(command, *words, name, "--out", out, "--force")
    assert (code, err.count("\n")) == (2, 1), err
    assert "which this command reads: it is not overwritten; give another --out" in err
    assert (here / name).read_text() == before


@pytest.mark.parametrize("option", [
    ("--labels", "in.csv"), ("--data", "npz:in.csv"), ("--arch", "in.csv:network"), ("--noise", "in.csv"),
    ("--data-arg", "path=in.csv"),
])  # fmt: skip
def test_so_is_one_that_an_option_names(here, option):
    (here / "in.csv").write_text(PRECIOUS)
    code, _, err = run("rewind", "folder", *option, "--out", "in.csv", "--force")
    assert (code, "which this command reads" in err) == (2, True), err


@pytest.mark.parametrize("words", [
    ("memorization", "folder", "--out", "m.csv", "--kinds", "./m.csv"),
    ("memorization", "folder", "--influence", "m.csv", "--kinds", "m.csv"),
    ("channels", "folder", "--out", "m.csv", "--per-example", "m.csv"),
    ("suffixes", "--out", "m.csv", "--kinds", "m.csv"),
    ("lens", "--out", "m.csv", "--per-example", "m.csv"),
])  # fmt: skip
def test_two_results_do_not_go_to_one_file(here, words):
    code, _, err = run(*words)
    assert (code, err.count("\n")) == (2, 1), err
    assert re.search(r"--\S+ and --\S+ are both (\./)?m.csv, and one would overwrite the other; give two names", err)


@pytest.mark.parametrize("name", ["checkpoints/last.pt", "labels.csv", "metrics.csv"])
def test_training_is_refused_into_the_folder_of_its_own_inputs(here, name):
    source = here / "folder" / name
    source.parent.mkdir(exist_ok=True)
    source.write_text(PRECIOUS)
    option = "--labels" if name.endswith(".csv") else "--from-checkpoint"
    code, _, err = run("train", option, source, "--out", "folder", "--force")
    assert (code, "which this command reads, lies in folder" in err) == (2, True), err
    assert source.read_text() == PRECIOUS


@pytest.mark.parametrize("command", ["localize", "memorization"])
def test_the_files_that_a_run_is_made_of_are_inputs_too(here, command):
    (here / "folder" / "metrics.csv").write_text(PRECIOUS)
    code, _, err = run(command, "folder", "--out", "folder/metrics.csv", "--force")
    assert (code, "which this command reads" in err) == (2, True), err


def test_a_pattern_of_tables_names_inputs_and_a_pattern_of_layers_none(here):
    table = here / "q.csv"
    write_results(results_table(), table)
    context = cli.get_command(click.Context(cli), "plot").make_context("plot", ["*.csv"])
    assert list(input_files(context)) == [Path("q.csv")]
    context = cli.get_command(click.Context(cli), "capacity").make_context("capacity", ["acts.h5", "--layers", "q.*"])
    assert list(input_files(context)) == []


def test_other_files_are_overwritten_as_asked(here):
    write_results(results_table(), here / "q.csv")
    shutil.copy(here / "q.csv", here / "p.html")
    assert run("report", "q.csv", "--out", "p.html", "--force")[0] == 0
    assert json.dumps(PRECIOUS) not in (here / "p.html").read_text()

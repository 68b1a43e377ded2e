"""A file may name a program; it runs where the command line repeats it."""

import shutil
import sys
from pathlib import Path

import click
import pytest
import torch

from manigeo.cli.main import cli
from manigeo.errors import UsageError
from tests.command_line import done, run

PWN = """
open("RAN", "w").close()
def data(**kwargs):
    import torch
    X = torch.zeros(20, 1, 8, 8)
    return ((X, torch.arange(20) % 2),) * 2
def net(**kwargs):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
def transform():
    return abs
"""
IN_TRAIN = {
    "arch": ('arch = "pwn.py:net"', "pwn.py:net"),
    "data": ('data = "pwn:data"', "pwn:data"),
    "transform": ('data = "digits"\ndata-arg.transform = "pwn:transform"', "pwn:transform"),
    "transform in a list": ('data = "digits"\ndata-arg = ["transform=pwn:transform"]', "pwn:transform"),
    "underscores": ('data_arg = {transform = "pwn:transform"}', "pwn:transform"),
    "trust": ('from-checkpoint = "x.pt"\ndata = "digits"\ntrust = true', "trust"),
}
REPEATED = {
    "arch": ["--arch", "pwn.py:net"],
    "data": ["--data", "pwn:data"],
    "transform": ["--data-arg", "transform=pwn:transform"],
    "trust": ["--trust"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a program; what was imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    Path("pwn.py").write_text(PWN)
    yield tmp_path
    assert "os:system" not in sys.modules
    sys.modules.pop("pwn", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done(
        "train",
        "--data",
        "digits",
        "--data-arg",
        "per_class=5",
        "--arch-arg",
        "width=8",
        "--epochs",
        1,
        "--out",
        folder,
    )
    return folder


NAMED = {
    "arch": ({"arch": "pwn.py:net"}, "--arch pwn.py:net"),
    "data": ({"data": "pwn:data"}, "--data pwn:data"),
    "transform": ({"data_args": {"transform": "pwn:transform"}}, "--data-arg transform=pwn:transform"),
}


@pytest.mark.parametrize("command", ["extract", "layers", "rewind", "reinit", "gradients", "analyze"])
@pytest.mark.parametrize("case", NAMED)
def test_a_checkpoint_runs_no_program_not_even_for_a_plan(here, trained, command, case):
    shutil.copytree(trained, "run")
    for path in Path("run/checkpoints").glob("*.pt"):
        torch.save(torch.load(path, weights_only=True) | NAMED[case][0], path)
    words = ["--model", "run/checkpoints/last.pt"] if command in ("extract", "layers") else ["run"]
    Path("run/metrics.csv").unlink()  # so that analyze looks at the checkpoints
    code, _, err = run(command, *words, *["--dry-run"] * (command != "layers"))
    assert code == (0 if command == "analyze" else 2), err  # whose plan leaves out what it cannot know
    assert command == "analyze" or f"if you trust it, repeat {NAMED[case][1]}" in err
    assert not Path("RAN").exists()


def context(*words: str) -> click.Context:
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    return command.make_context(words[0], list(words[1:]))


@pytest.mark.parametrize("case", IN_TRAIN)
@pytest.mark.parametrize("table", ["train", "grid", "analyze"])
def test_a_sweep_runs_no_program_that_the_command_line_does_not_repeat(here, case, table):
    text, name = IN_TRAIN[case]
    if table == "grid":
        lines = [line.split(" = ", 1) for line in text.split("\n")]
        text = "\n".join(f"{key} = [{value}]" for key, value in lines)
    text = text.replace('from-checkpoint = "x.pt"\n', "") if table == "analyze" else text
    before = "[train]\nepochs = 1\n" if table == "analyze" else ""
    Path("c.toml").write_text(f"{before}[{table}]\n{text}\n")
    for more in ([], ["--dry-run"], ["--dry-run", "--allow", "another:one"]):
        code, _, err = run("sweep", "c.toml", "--out", "o", *more)
        assert code == 2, err
        assert err.strip().endswith(f"if you trust it, repeat it: --allow {name}")
    assert not Path("o").exists()
    if table == "train" and case != "trust":
        assert "1 to do" in done("sweep", "c.toml", "--out", "o", "--dry-run", "--allow", name)
    assert not Path("RAN").exists()  # a plan runs nothing that a file names


def test_a_program_that_is_allowed_runs_in_a_sweep(here):
    Path("c.toml").write_text('[train]\ndata = "pwn:data"\narch = "pwn.py:net"\nepochs = 1\n')
    done("sweep", "c.toml", "--allow", "pwn:data", "--allow", "pwn.py:net")
    assert Path("c/cells/run/metrics.csv").exists()


@pytest.mark.parametrize("command", ["train", "extract", "layers", "rewind", "reinit", "gradients", "analyze"])
@pytest.mark.parametrize("case", REPEATED)
def test_a_config_file_runs_no_program_that_the_command_line_does_not_repeat(here, command, case):
    words = [command] + ["."] * (command in ("rewind", "reinit", "gradients", "analyze"))
    text = IN_TRAIN[case][0].removeprefix('from-checkpoint = "x.pt"\n').replace("data-arg", "data-args")
    Path("c.toml").write_text(text)
    with pytest.raises(UsageError, match=r"the --config file .*; if you trust it, repeat --"):
        context(*words, "--config", "c.toml")
    context(*words, "--config", "c.toml", *REPEATED[case])


def test_a_config_file_chooses_no_cluster_and_allows_no_program(here):
    for text, words in [
        ('cluster = "tcp://there:1"', ["capacity", "acts.h5"]),
        ('cluster = "scheduler.json"', ["rewind", "."]),
        ('allow = ["pwn:data"]', ["sweep", "c.toml"]),
    ]:
        Path("c.toml").write_text(text)
        with pytest.raises(UsageError, match=r"the --config file names .*; if you trust it, repeat --"):
            context(*words, "--config", "c.toml")
    Path("c.toml").write_text('cluster = "local"')
    assert context("capacity", "acts.h5", "--config", "c.toml").params["cluster"] == "local"


def test_names_that_are_no_programs_need_no_repetition(here):
    Path("c.toml").write_text('data = "npz:images.npz"\narch = "mlp"\ntrust = false\ndata-args = {size = 8}')
    params = context("train", "--config", "c.toml").params
    assert (params["data"], params["arch"], params["data_args"]) == ("npz:images.npz", "mlp", {"size": 8})

"""A disk that is full, under every command that writes: one line with the file and a remedy, and what was there before."""

import errno
import os
from pathlib import Path

import pytest

from manigeo.cli.main import COMMANDS
from tests.command_line import done, run

SMALL = [
    "--data",
    "digits",
    "--data-arg",
    "per_class=12",
    "--arch-arg",
    "depth=1",
    "--arch-arg",
    "width=8",
    "--epochs",
    1,
]
RECORDED = ["--subset", 0.8, "--record-examples", "last"]
TEXT = ["--data", "sentences", "--data-arg", "n=20", "--data-arg", "length=10", "--data-arg", "scored=2"]
# command -> its line without --out, and the file that it writes
LINES = {
    "train": (["train", *SMALL], "run"),
    "extract": (["extract", "--model", "base/checkpoints/last.pt"], "a.h5"),
    "merge": (["merge", "s.shard-1-of-2.h5", "s.shard-2-of-2.h5"], "m.h5"),
    "capacity": (["capacity", "base.h5", "--kinds", "test", "--draws", 2, "--layers", "logits"], "c.csv"),
    "separability": (
        ["separability", "base.h5", "--kinds", "test", "--measures", "means", "--layers", "logits"],
        "s.csv",
    ),
    "similarity": (["similarity", "base.h5", "other.h5", "--kinds", "test", "--layers", "logits"], "sim.csv"),
    "examples": (["examples", "base.h5", "--k", 3, "--draws", 2, "--layers", "logits"], "e.csv"),
    "weights": (["weights", "base"], "w.csv"),
    "correlate": (["correlate", "base", "other", "third"], "x.csv"),
    "rewind": (["rewind", "base", "--checkpoints", "init", "--last-k"], "r.csv"),
    "reinit": (["reinit", "base"], "i.csv"),
    "gradients": (["gradients", "base", "--checkpoints", "init"], "g.csv"),
    "channels": (
        ["channels", "base", "--kinds", "unpermuted", "--examples", 2, "--max-channels", 1, "--controls", 1],
        "ch.csv",
    ),
    "memorization": (["memorization", "base", "other", "third"], "mem.csv"),
    "lens": (["lens", "--weights", "init", "--arch", "gpt", *TEXT], "ln.csv"),
    "suffixes": (["suffixes", "--weights", "init", "--arch", "gpt", *TEXT], "sf.csv"),
    "localize": (["localize", "base.csv"], "l.csv"),
    "plot": (["plot", "base.csv", "--dpi", 30], "p.png"),
    "report": (["report", "base.csv"], "r.html"),
    "sweep": (["sweep", "grid.toml"], "sweep"),
    "analyze": (["analyze", "base"], ""),
    "demo": (["demo", "--data", "digits", "--epochs", 1], "demo"),
    "benchmark": (["benchmark", "--cases", "*", "--limit", "0.0001", "--jobs", 1], "bench"),
}
GRID = '[train]\ndata = "digits"\ndata-arg = {per_class = 12}\nepochs = 1\n[grid]\nseed = [0]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, before = tmp_path_factory.mktemp("full"), os.getcwd()
    os.chdir(folder)
    try:
        for seed, name in enumerate(("base", "other", "third")):
            done("train", *SMALL, *RECORDED, "--seed", seed, "--lr", 0.01 * (seed + 1), "--out", name)
        for words in (["base.h5"], ["s.h5", "--shard", "1/2"], ["s.h5", "--shard", "2/2"]):
            done("extract", "--model", "base/checkpoints/last.pt", "--out", *words)
        done("extract", "--model", "base/checkpoints/last.pt", "--weights", "init", "--out", "other.h5")
        done("capacity", "base.h5", "--kinds", "test", "--draws", 2, "--out", "base.csv")
        (folder / "grid.toml").write_text(GRID)
    finally:
        os.chdir(before)
    return folder


def test_every_command_that_writes_is_asked():
    assert set(LINES) == set(COMMANDS) - {"info", "layers"}


@pytest.mark.parametrize("command", LINES)
def test_a_full_disk_ends_every_command_that_writes_in_one_line(folder, monkeypatch, command):
    """Full from the first byte that is to last, and by a quota for half of the commands."""
    number = (errno.ENOSPC, errno.EDQUOT)[list(LINES).index(command) % 2]
    words, out = LINES[command]
    monkeypatch.chdir(folder)
    place = folder / (out or "base")
    if out and "." in out:
        place.write_text("what was there before")
    monkeypatch.setattr(os, "fsync", _failing(number))
    code, _, err = run(*words, *(["--out", out] if out else []), *([] if command == "sweep" else ["--force"]))
    last = err.strip().splitlines()[-1]
    assert code == 1, err
    assert "Traceback" not in err
    assert os.strerror(number) in last or command == "sweep", err
    assert "make room there" in last or command == "sweep", err
    assert (out or "base").partition(".")[0] in last, err
    if out and "." in out:
        assert place.read_text() == "what was there before"
        place.unlink()
    assert [path.name for path in folder.rglob("*.partial*")] == []


def _failing(number: int):
    def failing(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    return failing

"""Commands that meet a signal at a random moment: ``python -m tests.bench.signals [ROUNDS] [SEED]``.

Twelve commands times KILL, TERM, INT and HUP, ROUNDS times (3: 144 signals), each in a fork of this process, which has
imported everything. What lies under its name afterwards is whole; the exit code is that of the signal, or that of a command
that was done before; and the command, given again with what it takes to go on, ends with the
bytes, or of activations the sums, of a quiet run.
"""

import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import h5py

import manigeo_extract.training.trainer  # noqa: F401  what a fork need not import
from manigeo import open_activations, read_results
from manigeo.activations.sums import read_sums
from manigeo.cli.main import COMMANDS, cli, main

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SMALL = ["--data", "digits", "--data-arg", "per_class=12", "--arch-arg", "depth=2", "--arch-arg", "width=16"]
GRID = '[train]\ndata = "digits"\ndata-arg = {per_class = 12}\nepochs = 2\n[grid]\nseed = [0, 1]\n'
# command -> its line without --out, its result, and whether --resume goes on with it
CASES: dict[str, tuple[list[str], str, bool]] = {
    "train": (["train", *SMALL, "--epochs", "30"], "run", True),
    "extract": (["extract", "--model", "base/checkpoints/last.pt", "--batch-size", "5"], "acts.h5", True),
    "merge": (["merge", "s.shard-1-of-2.h5", "s.shard-2-of-2.h5"], "merged.h5", False),
    "capacity": (["capacity", "base.h5", "--kinds", "test", "--draws", "300"], "c.csv", True),
    "separability": (["separability", "base.h5", "--kinds", "test"], "s.csv", True),
    "weights": (["weights", "base"], "w.csv", False),
    "correlate": (["correlate", "base", "other", "third"], "correlation.csv", False),
    "rewind": (["rewind", "base", "--checkpoints", "init"], "r.csv", True),
    "reinit": (["reinit", "base"], "i.csv", True),
    "gradients": (["gradients", "base", "--checkpoints", "init,last"], "g.csv", True),
    "report": (["report", "base", "base.csv"], "report.html", False),
    "sweep": (["sweep", "grid.toml"], "sweep", False),
}


def command(words: Sequence[object], *, quiet: bool = True) -> int:
    """A process that carries out a command in this folder; ``quiet``: and its exit code, which must be 0."""
    child = os.fork()
    if child == 0:
        nowhere = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.argv = ["manigeo", *map(str, words)]
        try:
            main()
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
    if quiet:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0, (words, code, Path("said.txt").read_text()[-500:])
    return child


def prepare() -> None:
    for seed, name in enumerate(("base", "other", "third")):
        command(["train", *SMALL, "--epochs", 2 + seed, "--seed", seed, "--out", name])
    extract = ["extract", "--model", "base/checkpoints/last.pt", "--out"]
    command([*extract, "base.h5"])
    for part in (1, 2):
        command([*extract, "s.h5", "--shard", f"{part}/2"])
    command(["capacity", "base.h5", "--kinds", "test", "--draws", 20, "--out", "base.csv"])
    Path("grid.toml").write_text(GRID)


def result(path: Path) -> object:
    """What must be equal: bytes, but for times of day and durations."""
    if path.suffix == ".h5":
        with open_activations(path) as acts, h5py.File(path) as file:
            return acts.fingerprint, read_sums(file)  # its bytes hold the command that began it, --force or not
    if path.suffix == ".html":
        return len(path.read_bytes()) > 1000
    if path.is_file():
        read_results(path)
        return path.read_bytes()
    names = ("results.csv",) if (path / "cells").is_dir() else ("metrics.csv", "labels.csv")
    return [(path / name).read_bytes() for name in names]


def check_whole(out: Path) -> None:
    """What is there under its name can be read."""
    for path in [out] if out.is_file() else out.rglob("*.csv"):
        if path.suffix in (".csv", ".h5") and path.name not in ("labels.csv", "metrics.csv", "cells.csv"):
            read_results(path) if path.suffix == ".csv" else open_activations(path).close()


def signalled(name: str, number: int, after: float) -> int:
    """The exit code of a command that got a signal; then it is done, and equal to a quiet run."""
    words, out, resumes = CASES[name]
    target = Path(out)
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    child = command([*words, "--out", out], quiet=False)
    time.sleep(after)
    os.kill(child, number)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    expected = -number if number == signal.SIGKILL else 128 + number
    assert code in (0, expected, -number), (
        name,
        signal.Signals(number).name,
        code,
        Path("said.txt").read_text()[-500:],
    )
    check_whole(target)
    finished = name == "extract" and target.exists()
    if not finished:
        has = target.exists() or Path(f"{out}.partial").exists()
        more = ["--resume"] if resumes and has else ["--force"] if name != "sweep" else []
        command([*words, "--out", out, *more])
    assert result(target) == result(Path("quiet", out)), (name, signal.Signals(number).name, after)
    left = [path for path in Path().glob(f"{out}.*") if "partial" in path.name]
    assert not left, left
    return code


def campaign(rounds: int, seed: int, names: Sequence[str] = tuple(CASES)) -> collections.Counter[str]:
    """Counts of how the commands ended, in a folder of its own."""
    assert set(names) <= set(COMMANDS)
    chance, ended, seconds = random.Random(seed), collections.Counter[str](), {}
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            prepare()
            Path("quiet").mkdir()
            for name in names:
                cli.get_command(None, name)  # type: ignore[arg-type]
                words, out, _ = CASES[name]
                began = time.monotonic()
                command([*words, "--out", out])
                seconds[name] = time.monotonic() - began
                shutil.move(out, Path("quiet", out))
            for number in range(rounds * len(SIGNALS) * len(names)):
                name, kind = names[number % len(names)], SIGNALS[number // len(names) % len(SIGNALS)]
                code = signalled(name, kind, chance.random() * seconds[name])
                ended[f"{kind.name} {'met' if code else 'came too late'}"] += 1
                if (rounds > 0 and sys.stdout.isatty()) or number % len(names) == len(names) - 1:
                    print(f"{number + 1} signals: {dict(ended)}", flush=True)
        finally:
            os.chdir(before)
    return ended


if __name__ == "__main__":
    print(campaign(int((sys.argv[1:2] or ["3"])[0]), int((sys.argv[2:3] or ["0"])[0])))

"""Standard streams that are closed, full or not read; and signals: how a command ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from manigeo import create_activations
from manigeo.cli.signals import Terminated, interruptible
from manigeo.cli.streams import Terminal
from manigeo.results import write_results
from tests.command_line import run
from tests.fuzzing import results_table
from tests.test_activations import CLASSES, LAYERS, grouped_examples, values

ROOT = Path(__file__).resolve().parents[1]
MANIGEO = f"{sys.executable} -m manigeo"


def shell(line: str, folder: Path) -> tuple[int, str, str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "extract")])}
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], cwd=folder, env=environ, check=False, capture_output=True, text=True
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(("redirect", "code", "said"), [
    (">&-", 0, ""), ("2>&-", 0, ""), (">&- 2>&-", 0, ""), ("| head -n 1 >&2", 0, "Usage"), ("| true", 0, ""),
    ("> /dev/full", 1, "manigeo: standard output: No space left on device; make room"),
])  # fmt: skip
def test_streams_that_take_nothing_end_a_command_quietly(tmp_path, redirect, code, said):
    found, _, err = shell(f"{MANIGEO} --help {redirect}", tmp_path)
    assert found == code, err
    assert err.strip().startswith(said)
    assert err.count("\n") <= 1


def test_the_code_of_a_failure_stays_where_nobody_can_be_told(tmp_path):
    assert shell(f"{MANIGEO} info nothing.h5 2>&-", tmp_path)[0] == 3
    assert shell(f"{MANIGEO} info nothing.h5 2> /dev/full", tmp_path)[0] in (1, 3)


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path):
    """The first file that a process opens with stderr closed is descriptor 2, where libraries write their warnings."""
    write_results(results_table(), tmp_path / "a.csv")
    code, out, _ = shell(f"{MANIGEO} report a.csv --out a.html >&- 2>&-", tmp_path)
    assert (code, out) == (0, "")
    assert (tmp_path / "a.html").read_text().lstrip().lower().startswith("<!doctype html")


def test_work_goes_on_when_the_reader_of_its_words_has_gone(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        terminal = Terminal(stream, "standard output")
        print("nobody reads", file=terminal, flush=True)
        assert terminal.write("nor this") == 8
        terminal.flush()


@pytest.mark.parametrize("text", ["\rbar: 3/4\x1b[K", "\r    \r", "\n\n", "\x1b[A", "\x1b[1m[1/2] capacity\x1b[0m\n"])
def test_bars_and_headings_are_drawn_as_they_are(text):
    import io

    stream = io.StringIO()
    Terminal(stream, "standard error").write(text)
    assert stream.getvalue() == text.replace("\x1b[K", "\\x1b[K")


# ------------------------------------------------------------------------------------------------------------- signals
@pytest.fixture
def hangup_is_heard():
    """The default of SIGHUP, which nohup changes, and commands respect."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_is_heard")
@pytest.mark.parametrize(("number", "code", "said"), [
    (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated"),
])  # fmt: skip
def test_a_signal_ends_a_command_with_its_code_and_what_was_finished(tmp_path, monkeypatch, number, code, said):
    """The second part of a table is being computed when the signal comes: the first is in the file."""
    from manigeo.results import Part

    def halfway(*args: object, **settings: object):
        yield Part(0, results_table())
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("the signal is heard")

    from manigeo.cli import capacity, tables

    monkeypatch.setattr(capacity, "earlier_table", lambda *a: None)
    monkeypatch.setattr(capacity, "measured", lambda plans, out, *a: tables.collected(halfway(), out))
    monkeypatch.setattr("manigeo.layerwise.plan.plan_capacity", lambda *a, **s: None)
    monkeypatch.setattr("manigeo.text.geometry.describe_plan", lambda plan: "")
    found, _, err = run("capacity", "acts.h5", "--out", tmp_path / "q.csv")
    assert found == code, err
    assert f"manigeo: {said}" in err
    assert "what was finished is in" in err
    assert os.listdir(tmp_path) == ["q.csv"]


def test_handlers_are_as_they_were_afterwards_and_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) not in handlers
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_of_another_kind_leaves_time_to_save():
    saved = False
    with interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Terminated as ended:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            saved = ended.exit_code == 143
    assert saved


def test_within_another_thread_nothing_changes():
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


COMPILED = """
import time
from numba import njit
from manigeo.cli.signals import interruptible

@njit(nogil=True)
def kernel(n):
    total = 0.0
    for i in range(n):
        total += (i % 7) ** 0.5
    return total

kernel(10)
with interruptible():
    print("begun", flush=True)
    kernel(10**12)
"""


def test_a_second_ctrl_c_ends_compiled_code_at_once(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", COMPILED], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert child.poll() is None  # the kernel has to end first
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=10) == 130
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


# ----------------------------------------------------------------------------------------------------- tables on stdout
def test_a_table_goes_to_stdout_alone_and_what_is_read_by_people_to_stderr(tmp_path, monkeypatch):
    import io

    import pandas as pd

    monkeypatch.chdir(tmp_path)
    with create_activations(tmp_path / "acts.h5", grouped_examples(), CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, 51, layer.n_features) for layer in LAYERS})
    line = ("capacity", "acts.h5", "--kinds", "test", "--draws", 10)
    code, out, err = run(*line, "--out", "-")
    assert code == 0, err
    assert run(*line, "--out", "file.csv")[0] == 0
    assert out == (tmp_path / "file.csv").read_text()
    assert set(pd.read_csv(io.StringIO(out))["metric"]) >= {"capacity"}
    assert "capacity" in err
    assert sorted(os.listdir(tmp_path)) == ["acts.h5", "file.csv"]
    code, _, err = run(*line, "--out", "-", "--resume")
    assert (code, "--out - leaves none: give a file" in err) == (2, True)
    assert json.loads(run(*line, "--out", "-", "--json")[1])[0]["metric"]


@pytest.mark.parametrize(
    "command",
    ["capacity", "separability", "similarity", "weights", "correlate", "rewind", "reinit", "gradients", "localize"],
)
def test_every_command_with_a_table_says_that_it_can_go_to_stdout(command):
    assert "- for CSV on stdout" in " ".join(run(command, "--help")[1].split())


def test_a_file_that_ends_too_early_is_no_interrupt(monkeypatch):
    def short(path: Path) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr("manigeo.activations.inspect_activations", short)
    code, _, err = run("info", "acts.h5")
    assert (code, "unexpected EOFError: Ran out of input" in err) == (1, True), err

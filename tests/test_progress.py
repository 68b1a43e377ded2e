"""Progress: a bar on a terminal, a line for each half minute elsewhere, nothing on standard output."""

import io
import sys

import pytest

from manigeo.faces import progress
from manigeo.faces.progress import bar, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only as the test says."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def worked(clock, n: int, seconds: float, **words) -> None:
    with bar(n, "capacity", "layer", **words) as told:
        for _ in range(n - words.get("initial", 0)):
            clock[0] += seconds
            told.update()


def test_work_of_less_than_half_a_minute_is_silent_in_a_pipe(clock, capsys):
    worked(clock, 29, 1.0)
    assert capsys.readouterr() == ("", "")


def test_longer_work_is_a_line_each_half_minute_with_the_time_left(clock, capsys):
    worked(clock, 40, 5.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:2] == ["capacity 6/40, 2:50 left", "capacity 12/40, 2:20 left"]
    assert len(err.splitlines()) == 6  # the last of them at 180 of 200 s
    worked(clock, 12, 1000.0, initial=10)
    assert capsys.readouterr().err == "capacity 11/12, 16:40 left\n"
    worked(clock, 3, 4000.0)
    assert capsys.readouterr().err.splitlines()[0] == "capacity 1/3, 2:13:20 left"


def test_items_are_told_of_and_words_of_a_loop_stand_behind(clock, capsys):
    for _ in track(range(3), "extract", "batch"):
        clock[0] += 31
    assert capsys.readouterr().err == "extract 1/3, 1:02 left\nextract 2/3, 0:31 left\n"
    with bar(2, "train", "epoch") as told:
        told.set_postfix(loss="0.5")
        clock[0] += 40
        told.update()
    assert capsys.readouterr().err == "train 1/2, 0:40 left, loss 0.5\n"


def test_who_asks_for_no_progress_gets_none(clock, capsys, monkeypatch):
    worked(clock, 4, 100.0, shown=False)
    monkeypatch.setattr(sys, "stderr", None)
    worked(clock, 4, 100.0)
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_gone_does_not_stop_the_work(clock, monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    monkeypatch.setattr(closed, "isatty", lambda: False, raising=False)
    before = clock[0]
    worked(clock, 4, 100.0)
    assert clock[0] == before + 400


@pytest.mark.parametrize("where", ["terminal", "kernel"])
def test_a_terminal_and_a_notebook_have_a_bar(where, monkeypatch, capsys):
    screen = Terminal() if where == "terminal" else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "_in_kernel", lambda: where == "kernel")
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)  # no widgets
    assert list(track([1, 2], "extract", "batch")) == [1, 2]
    assert "extract: 100%" in screen.getvalue()
    assert capsys.readouterr().out == ""

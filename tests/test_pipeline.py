"""What is up to date is not done again; what is not, is."""

import shutil
import time

import pandas as pd
import pytest

from manigeo.errors import InputError
from manigeo.execution.pipeline import INTERRUPTED, STALE, TO_DO, UP_TO_DATE, Ledger, Step
from tests.command_line import done, run
from tests.effects import assert_memorized, shifted


def steps(folder, words=("one",)):
    source = folder / "source"
    if not source.exists():
        source.write_text("source")
    first = Step("first", (*words, "--out", "a"), folder / "a", reads=(source,))
    return [first, Step("second", ("two",), folder / "b", after=("first",))]


def ledger(folder, **options):
    return Ledger(folder / "steps.json", steps(folder, **options))


def carry_out(folder):
    book = ledger(folder)
    for step in book.steps:
        book.begin(step)
        step.result.write_text(step.name)
        book.finish(step)


def states(folder, **options):
    book = ledger(folder, **options)
    return [book.state(step) for step in book.steps]


def test_a_step_is_to_do_until_it_is_finished_and_then_up_to_date(tmp_path):
    assert states(tmp_path) == [TO_DO, TO_DO]
    carry_out(tmp_path)
    assert states(tmp_path) == [UP_TO_DATE, UP_TO_DATE]


def test_other_words_and_other_files_read_make_it_and_all_after_it_stale(tmp_path):
    carry_out(tmp_path)
    assert states(tmp_path, words=("one", "--seed", "1")) == [STALE, STALE]
    (tmp_path / "source").write_text("another")
    assert states(tmp_path) == [STALE, STALE]


def test_a_result_that_was_changed_or_removed_is_done_again(tmp_path):
    carry_out(tmp_path)
    (tmp_path / "b").write_text("by hand")
    assert states(tmp_path) == [UP_TO_DATE, STALE]
    (tmp_path / "b").unlink()
    assert states(tmp_path) == [UP_TO_DATE, STALE]


def test_a_step_that_was_begun_is_interrupted_and_a_file_of_unknown_origin_stale(tmp_path):
    book = ledger(tmp_path)
    book.begin(book.steps[0])
    (tmp_path / "b").write_text("who knows")
    assert states(tmp_path) == [INTERRUPTED, STALE]


@pytest.mark.parametrize("content", ["", "[]", '{"first": 3}', '{"first": {"key": 1}}'])
def test_a_file_that_is_no_ledger_is_refused(tmp_path, content):
    (tmp_path / "steps.json").write_text(content)
    with pytest.raises(InputError, match=r"is not the ledger of manigeo analyze: delete it"):
        ledger(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Digits, three layers, memorized: small, and with all that the steps read."""
    folder = tmp_path_factory.mktemp("analyze") / "small"
    done("train", "--data", "digits", "--data-arg", "per_class=30", "--arch-arg", "depth=2", "--arch-arg", "width=128",
         "--noise", "derangement", "--optimizer", "adam", "--lr", 0.003, "--epochs", 90, "--seed", shifted(),
         "--out", folder)  # fmt: skip
    return folder


SKIPPED = [word for name in ("separability", "reinit", "gradients") for word in ("--skip", name)]


@pytest.mark.training
@pytest.mark.installed
def test_a_run_is_analysed_once_from_its_checkpoints_to_its_report(trained):
    words = ("analyze", trained, *SKIPPED, "--jobs", 1)
    plan = done(*words, "--dry-run")
    assert plan.count("to do") == 8
    assert not (trained / "analysis").exists()
    text = done(*words)
    n_permuted = pd.read_csv(trained / "labels.csv")["permuted"].sum()
    assert_memorized(trained / "metrics.csv", n_permuted)
    assert "has memorized" in text
    results = {path.name for path in (trained / "analysis").iterdir()}
    assert results == {"before.h5", "last.h5", "before.capacity.csv", "last.capacity.csv", "weights.csv", "rewind.csv",
                       "localize.csv", "report.html", "steps.json", "log.txt"}  # fmt: skip
    assert "$ manigeo rewind" in (trained / "analysis" / "log.txt").read_text()
    start = time.monotonic()
    again = done(*words)
    assert (again.count("up to date  "), time.monotonic() - start < 5) == (8, True)


def test_what_has_changed_is_done_again_and_nothing_else(trained):
    (trained / "analysis" / "rewind.csv").unlink()
    plan = done("analyze", trained, *SKIPPED, "--jobs", 1, "--dry-run")
    states = {line[12:].split()[1]: line[:12].strip() for line in plan.splitlines()}
    assert states["rewind"] == "stale"
    assert states["weights"] == states["capacity"] == "up to date"


def test_a_step_that_cannot_be_done_is_said_and_the_others_are_done(trained, tmp_path):
    folder = tmp_path / "without"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("analysis"))
    (folder / "checkpoints" / "epoch-0000.pt").unlink()
    skipped = [word for name in ("separability", "gradients", "capacity", "extract") for word in ("--skip", name)]
    code, _, err = run("analyze", folder, *skipped, "--jobs", 1)
    assert code == 1
    assert "manigeo: left out: reinit: " in err
    assert "has no checkpoint of epoch 0" in err
    assert (folder / "analysis" / "report.html").exists()
    assert (folder / "analysis" / "rewind.csv").exists()


def test_an_interrupt_ends_the_analysis_and_not_its_step_alone(trained, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("manigeo_extract.recording.extraction.extract_activations", interrupted)
    folder = tmp_path / "stopped"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("analysis"))
    code, out, err = run("analyze", folder, *SKIPPED, "--jobs", 1)
    assert code == 130
    assert "manigeo analyze, given again, goes on where it was interrupted" in err
    assert ("[1/8] extract before" in out, "[2/8]" in out) == (True, False)


def test_unknown_checkpoints_and_steps_are_usage_errors(trained):
    code, _, err = run("analyze", trained, "--checkpoints", "middle")
    assert (code, "has no checkpoint 'middle'; there are: before, best, epoch-0000, last" in err) == (2, True)
    code, _, err = run("analyze", trained, "--skip", "train")
    assert (code, "there is no step 'train'" in err) == (2, True)

"""Extractions that are killed or interrupted, and those that go on with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from manigeo import create_activations, open_activations
from manigeo.activations import inspect_activations, writing
from manigeo.activations.filters import Filter
from manigeo.errors import InputError, UsageError
from tests.command_line import done, run
from tests.killing import content
from tests.test_activations import CLASSES, LAYERS, grouped_examples, stored, values

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, ISAL = grouped_examples(), Filter("isal", shuffle=False)
ROWS = {layer.name: values(layer.name, len(EXAMPLES), layer.n_features) for layer in LAYERS}


def killing(*words: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", *map(str, words)], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write(path: Path, first: int = 0, last: int = 51, provenance=None, **settings) -> None:
    """Rows ``first`` to ``last``, by sevens, and if these are not all an interrupt."""
    provenance = provenance or {"epoch": 3, "argv": []}
    with create_activations(path, EXAMPLES, CLASSES, LAYERS, provenance, **settings) as writer:
        assert writer.n_done == first
        for start in range(first, last, 7):
            writer.append({name: X[start : min(start + 7, last)] for name, X in ROWS.items()})
        if last < 51:
            raise KeyboardInterrupt


@pytest.fixture
def begun(tmp_path) -> Path:
    path = tmp_path / "acts.h5"
    with pytest.raises(KeyboardInterrupt):
        write(path, 0, 21)
    return path


# ------------------------------------------------------------------------------------------------------------- killed
@pytest.mark.long
def test_killed_at_any_moment_nothing_passes_for_complete_and_resuming_keeps_bytes(
    tmp_path,
):
    told = killing("moments", tmp_path, 40)
    assert told["kills"] >= 40
    assert (
        len(set(told["progress"])) > 2
    )  # at several stages: how many of these are met is a matter of a machine's speed


@pytest.mark.long
def test_so_does_a_writer_that_is_killed_at_any_single_change_of_a_file(tmp_path):
    assert killing("calls", tmp_path)["kills"] > 50


# -------------------------------------------------------------------------------------------------------- interrupted
def test_a_resumed_file_has_the_bytes_of_an_uninterrupted_one(begun, tmp_path):
    assert sorted(os.listdir(tmp_path)) == ["acts.h5.partial", "acts.h5.partial.commit"]
    with pytest.raises(InputError, match=r"acts\.h5\.partial holds 21 of 51 examples; extract it again, with --resume"):
        open_activations(begun).__enter__()
    with pytest.raises(KeyboardInterrupt):
        write(begun, 21, 35, resume=True)
    write(begun, 35, resume=True)
    write(tmp_path / "quiet.h5")
    assert content(begun) == content(tmp_path / "quiet.h5")
    assert sorted(os.listdir(tmp_path)) == ["acts.h5", "quiet.h5"]


def test_an_interrupt_within_a_batch_goes_back_to_the_batch_before(begun, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    note = Path(f"{begun}.partial.commit")
    before = note.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(h5py.AttributeManager, "modify", interrupted)  # the rows are written, and not yet counted
        with pytest.raises(KeyboardInterrupt):
            write(begun, 21, resume=True)
    assert note.read_bytes() == before
    write(begun, 21, resume=True)
    write(tmp_path / "quiet.h5")
    assert content(begun) == content(tmp_path / "quiet.h5")


@pytest.mark.parametrize("batch_size", [10, None])  # None: batches share chunks
def test_commits_change_no_byte_and_the_file_stays_open_between_them(batch_size, tmp_path, monkeypatch):
    rng, opened, opening = np.random.default_rng(0), [], h5py.File
    scales = np.repeat([1, 3, 0], [11, 19, 21])[:, None]  # so that holes are of many sizes
    layers = [stored(name, order, (width,)) for order, (name, width) in enumerate({"a": 3000, "b": 700}.items())]
    rows = {one.name: np.maximum(rng.standard_normal((51, one.n_features)) - 2 + scales, 0) for one in layers}

    def counted(*args, **settings):
        opened.append(args)
        return opening(*args, **settings)

    for name, seconds in (("often.h5", 0.0), ("once.h5", float("inf"))):
        opened.clear()
        monkeypatch.setattr(writing, "_COMMIT_SECONDS", seconds)
        monkeypatch.setattr(h5py, "File", counted)
        with create_activations(
            tmp_path / name, EXAMPLES, CLASSES, layers, {}, batch_size=batch_size, filters=dict.fromkeys("ab", ISAL)
        ) as writer:
            for start in range(0, 51, 10):
                writer.append({layer: X[start : start + 10].astype(np.float32) for layer, X in rows.items()})
        monkeypatch.setattr(h5py, "File", opening)
    assert content(tmp_path / "often.h5") == content(tmp_path / "once.h5")
    assert batch_size is None or len(opened) < 6  # of six batches


def test_nothing_there_is_begun_by_resume(tmp_path):
    write(tmp_path / "acts.h5", resume=True)
    write(tmp_path / "quiet.h5")
    assert content(tmp_path / "acts.h5") == content(tmp_path / "quiet.h5")


def test_an_interrupted_extraction_is_neither_lost_nor_taken_up_unasked(begun):
    with pytest.raises(UsageError, match="--resume goes on with it, --force begins anew"):
        write(begun)
    write(begun, force=True)
    with open_activations(begun) as acts:
        assert acts.n_done == 51


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"provenance": {"epoch": 4, "argv": []}}, r"other settings \(epoch 3, now 4\)"),
        ({"dtype": "float16"}, "other examples or layers"),
    ],
)
def test_another_extraction_is_not_gone_on_with(begun, changes, said):
    before = Path(f"{begun}.partial").read_bytes()
    with pytest.raises(InputError, match=said):
        write(begun, 21, resume=True, **changes)
    assert Path(f"{begun}.partial").read_bytes() == before
    write(begun, 21, resume=True)


def test_a_damaged_partial_file_is_not_gone_on_with(begun):
    partial = Path(f"{begun}.partial")
    partial.write_bytes(b"\0" * len(partial.read_bytes()))
    with pytest.raises(InputError, match=r"acts\.h5\.partial (is damaged|cannot be opened)"):
        write(begun, 21, resume=True)


def test_what_an_interrupted_extraction_has_can_be_looked_at(begun):
    for asked in (begun, Path(f"{begun}.partial")):
        with inspect_activations(asked) as acts:
            assert (acts.complete, acts.n_done, len(acts.examples)) == (False, 21, 51)
            np.testing.assert_array_equal(acts.rows("a/b", np.arange(21)), ROWS["a/b"][:21])


def test_activations_that_cannot_be_stored_end_an_extraction_for_good(tmp_path, monkeypatch):
    monkeypatch.setitem(ROWS, "a/b", np.where(np.arange(51)[:, None] < 30, ROWS["a/b"], np.float32(1e6)))
    with pytest.raises(InputError, match=r"layer 'a/b' reaches 1e\+06, and float16 holds 6\.1e-05 to 65504"):
        write(tmp_path / "a.h5", dtype="float16")
    assert os.listdir(tmp_path) == []


# ----------------------------------------------------------------------------------------------------- by command line
@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    done("train", "--data", "digits", "--arch-arg", "depth=2", "--arch-arg", "width=16", "--epochs", 1, "--out", folder)
    return folder / "checkpoints" / "last.pt"


def test_an_interrupted_command_says_how_to_go_on_and_goes_on(checkpoint, tmp_path, monkeypatch):
    from manigeo_extract.data.datasets import DataSet

    monkeypatch.chdir(tmp_path)
    command = ("extract", "--model", checkpoint, "--batch-size", 100)
    done(*command, "--out", "quiet.h5")
    inputs, asked = DataSet.inputs, []

    def interrupted(self, rows):
        asked.append(rows)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return inputs(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(DataSet, "inputs", interrupted)
        code, _, err = run(*command)
    assert code == 130
    assert "what was finished is in acts.h5.partial; the same command with --resume goes on" in err
    said = done("info", "acts.h5")
    examples = int(said.partition("incomplete, ")[2].split()[0])
    assert 100 <= examples < 1400
    assert examples % 100 == 0
    code, _, err = run(*command)
    assert code == 2
    assert "--resume goes on with it" in err
    code, _, err = run(*command[:-1], 50, "--resume")
    assert code == 3
    assert "batch_size 100, now 50" in err
    done(*command, "--resume")
    argv = [
        ["extract", "--model", str(checkpoint), "--batch-size", "100", *more] for more in ([], ["--out", "quiet.h5"])
    ]
    for name, words in zip(("acts.h5", "quiet.h5"), argv, strict=True):
        with open_activations(name) as acts:
            assert acts.provenance["argv"] == words  # of the command that began it
    with open_activations("acts.h5") as acts, open_activations("quiet.h5") as quiet:
        assert acts.fingerprint == quiet.fingerprint
        rows = np.arange(len(quiet.examples))
        for name in quiet.layers:
            np.testing.assert_array_equal(acts.rows(name, rows), quiet.rows(name, rows))
    assert sorted(os.listdir()) == ["acts.h5", "quiet.h5"]

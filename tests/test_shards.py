"""Extractions in parts: who takes which classes, and that together they are the whole."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manigeo import open_activations
from manigeo.activations import ActivationWriter, inspect_activations
from manigeo.activations.merging import merge_activations
from manigeo.errors import InputError, UsageError
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.models import build_model
from manigeo_extract.recording.extraction import extract_activations, plan_extraction
from manigeo_extract.recording.shards import parse_shard, shard_range
from tests.command_line import done, run
from tests.killing import content


# ------------------------------------------------------------------------------------------------------- which rows
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20), data=st.data())
def test_shards_are_whole_classes_that_follow_one_another_and_none_is_empty(sizes, data):
    of = data.draw(st.integers(1, len(sizes)))
    labels = np.repeat(np.arange(len(sizes)) * 3, sizes)  # classes may be without examples
    ranges = [shard_range(labels, number, of) for number in range(1, of + 1)]
    assert [row for rows in ranges for row in rows] == list(range(len(labels)))
    assert all(len(rows) for rows in ranges)
    assert sum(len(set(labels[rows.start : rows.stop])) for rows in ranges) == len(sizes)


def test_shards_of_equal_classes_are_equal():
    labels = np.repeat(np.arange(100), 50)
    assert [len(shard_range(labels, number, 4)) for number in range(1, 5)] == [1250] * 4


def test_more_shards_than_classes_are_refused():
    with pytest.raises(UsageError, match="2 classes make 2 shards or fewer, got --shard 1/3"):
        shard_range(np.array([0, 0, 1]), 1, 3)


@pytest.mark.parametrize(
    ("text", "environ", "shard"),
    [
        ("1/4", {}, (1, 4)),
        ("4/4", {"RANK": "0", "WORLD_SIZE": "2"}, (4, 4)),
        ("1/1", {"RANK": "0", "WORLD_SIZE": "2"}, None),
        (None, {}, None),
        (None, {"RANK": "0", "WORLD_SIZE": "1"}, None),
        (None, {"RANK": "3", "WORLD_SIZE": "4"}, (4, 4)),
        (None, {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, None),  # an array over checkpoints, perhaps
        ("auto", {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, (2, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}, (4, 4)),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "20",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "5",
            },
            (3, 3),
        ),
        ("auto", {"RANK": "0", "WORLD_SIZE": "2", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, (1, 2)),
    ],
)
def test_a_process_knows_its_shard(text, environ, shard):
    assert parse_shard(text, environ) == shard


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "-1/4", "1/4/2", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="expected --shard I/N with I from 1 to N, or auto"):
        parse_shard(text, {})


def test_auto_needs_someone_who_says_which():
    with pytest.raises(UsageError, match="--shard auto needs RANK and WORLD_SIZE, or SLURM_ARRAY_TASK_ID and _COUNT"):
        parse_shard("auto", {"RANK": "1"})


# ------------------------------------------------------------------------------------------------------------ merged
def extract(path: Path, shard: tuple[int, int] | None, *, epoch: int = 1, **plan_options) -> Path:
    data = load_data("digits", {"per_class": 30})
    torch.manual_seed(0)
    model = build_model("mlp", {"input_shape": data.input_shape, "n_classes": 10, "depth": 2, "width": 16})
    plan = plan_extraction(model, data, permute_labels(data, Permutation(0.5)), **plan_options)
    extract_activations(model, data, plan, path, {"epoch": epoch}, batch_size=64, shard=shard)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    extract(folder / "whole.h5", None, project=12)
    for number in range(1, 5):
        extract(folder / f"{number}.h5", (number, 4), project=12)
    return folder


@pytest.fixture
def shards(folder) -> list[Path]:
    return [folder / f"{number}.h5" for number in (3, 1, 4, 2)]


def test_four_shards_merged_equal_one_run_array_for_array(folder, shards, tmp_path):
    """Bit for bit: a shard runs the whole's batches, and keeps its own rows of them."""
    merge_activations(shards, tmp_path / "merged.h5")
    with open_activations(tmp_path / "merged.h5") as merged, open_activations(folder / "whole.h5") as whole:
        assert merged.fingerprint == whole.fingerprint
        assert merged.examples.equals(whole.examples)
        assert merged.class_names == whole.class_names
        everything = np.arange(len(whole.examples))
        for name in whole.layers:
            assert merged.layer(name) == whole.layer(name)
            np.testing.assert_array_equal(merged.rows(name, everything), whole.rows(name, everything))


def test_a_merge_that_was_interrupted_goes_on(folder, shards, tmp_path, monkeypatch):
    append, done = ActivationWriter.append, []

    def interrupted(self, *batch):
        if len(done) == 12:
            raise KeyboardInterrupt
        append(self, *batch)
        done.append(self.n_done)

    with monkeypatch.context() as patch:
        patch.setattr(ActivationWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge_activations(shards, tmp_path / "merged.h5")
    with inspect_activations(tmp_path / "merged.h5") as begun:
        assert (begun.complete, begun.n_done) == (False, done[-1])
    merge_activations(shards, tmp_path / "merged.h5")
    merge_activations(shards, tmp_path / "quiet.h5")
    assert content(tmp_path / "merged.h5") == content(tmp_path / "quiet.h5")


def test_shards_that_are_not_all_there_are_not_merged(shards, tmp_path):
    out = tmp_path / "merged.h5"
    with pytest.raises(InputError, match="missing: shard 2, 4 of 4"):
        merge_activations(shards[:2], out)
    with pytest.raises(UsageError, match="shard 3 of 4 is given twice"):
        merge_activations([*shards, shards[0]], out)
    with pytest.raises(UsageError, match="no shard to join"):
        merge_activations([], out)
    assert not out.exists()


@pytest.mark.parametrize("changes", [{"epoch": 2}, {"per_class": 20}, {"project": 10}, {"dtype": "float16"}])
def test_shards_of_another_extraction_are_not_merged(shards, tmp_path, changes):
    other = extract(tmp_path / "other.h5", (2, 4), **({"project": 12} | changes))
    with pytest.raises(InputError, match="is not of the same extraction as"):
        merge_activations([*shards[:3], other], tmp_path / "merged.h5")


def test_a_shard_is_not_analysed_and_a_whole_file_is_not_merged(folder, shards, tmp_path):
    with pytest.raises(InputError, match=r"3\.h5 is shard 3 of 4: join them with manigeo merge"):
        open_activations(shards[0]).__enter__()
    with pytest.raises(InputError, match=r"whole\.h5 is no shard"):
        merge_activations([folder / "whole.h5"], tmp_path / "merged.h5")


def test_a_shard_that_says_another_whole_is_not_merged(folder, shards, tmp_path):
    copies = [tmp_path / path.name for path in shards]
    for path, copy in zip(shards, copies, strict=True):
        copy.write_bytes(path.read_bytes())
        with h5py.File(copy, "r+") as file:
            file.attrs["shard"] = file.attrs["shard"].replace('"whole": "', '"whole": "0')
    with pytest.raises(InputError, match="do not make the extraction that they were parts of"):
        merge_activations(copies, tmp_path / "merged.h5")


# ----------------------------------------------------------------------------------------------------- by command line
def test_shards_by_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done("train", "--data", "digits", "--arch-arg", "depth=2", "--arch-arg", "width=16", "--epochs", 1, "--out", "run")
    command = ("extract", "--model", "run/checkpoints/last.pt", "--per-class", 5)
    said = done(*command, "--shard", "1/2")
    assert "wrote acts.shard-1-of-2.h5" in said
    assert "next: manigeo merge acts.shard-*-of-2.h5 when all are there" in said
    assert "shard    1 of 2: examples 0 to" in done("info", "acts.shard-1-of-2.h5")
    assert run("merge", "acts.shard-1-of-2.h5")[0] == 3
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(*command)
    assert code == 0
    assert "note: shard 2/2, as RANK and WORLD_SIZE say" in err
    assert "next: manigeo capacity acts.h5" in done("merge", "acts.shard-1-of-2.h5", "acts.shard-2-of-2.h5")
    assert "exists: give another --out, or --force" in run("merge", "acts.shard-1-of-2.h5", "acts.shard-2-of-2.h5")[2]
    done(*command, "--shard", "1/1", "--out", "whole.h5")
    with open_activations("acts.h5") as merged, open_activations("whole.h5") as whole:
        assert merged.fingerprint == whole.fingerprint
        assert merged.provenance["argv"][0] == "merge"

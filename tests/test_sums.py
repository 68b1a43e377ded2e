"""Sums of what was written: the same however it was, and other ones for a layer that was written again."""

import json
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from manigeo import create_activations, open_activations
from manigeo.activations import Scoring, inspect_activations
from manigeo.activations.sums import read_sums, verify_rows
from manigeo.errors import InputError
from tests.command_line import done, run
from tests.test_activations import CLASSES, LAYERS, grouped_examples, values

EXAMPLES = grouped_examples()
ROWS = {layer.name: values(layer.name, len(EXAMPLES), layer.n_features) for layer in LAYERS}
OUTCOMES = np.random.default_rng(1).random((len(EXAMPLES), 3), dtype=np.float32)


def write(path: Path, batch: int = 7, stop: int = len(EXAMPLES), **settings) -> Path:
    """All rows from where the writer is, in batches, up to ``stop``, where an interrupt comes."""
    with create_activations(
        path, EXAMPLES, CLASSES, LAYERS, {}, scoring=Scoring(2), batch_size=7, **settings
    ) as writer:
        for start in range(writer.n_done, stop, batch):
            rows = slice(start, min(start + batch, stop))
            writer.append({name: X[rows] for name, X in ROWS.items()}, OUTCOMES[rows])
        if stop < len(EXAMPLES):
            raise KeyboardInterrupt
    return path


def sums(path: Path) -> dict[str, int]:
    with h5py.File(path) as file:
        return read_sums(file)


@pytest.fixture
def acts(tmp_path) -> Path:
    return write(tmp_path / "acts.h5")


def test_a_sum_is_that_of_all_rows_and_of_nothing_else(acts, tmp_path):
    expected = {name: zlib.crc32(X.tobytes()) for name, X in (ROWS | {"scores": OUTCOMES}).items()}
    assert sums(acts) == expected
    assert sums(write(tmp_path / "other.h5", batch=5)) == expected
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "resumed.h5", stop=21)
    assert sums(write(tmp_path / "resumed.h5", batch=11, resume=True)) == expected
    half = write(tmp_path / "half.h5", dtype="float16")
    assert sums(half) == {name: zlib.crc32(X.astype("f2").tobytes()) for name, X in ROWS.items()} | {
        "scores": expected["scores"]
    }


@pytest.mark.parametrize("name", [layer.name for layer in LAYERS])
def test_a_layer_that_was_written_again_is_not_read(acts, name):
    with h5py.File(acts, "r+") as file:
        file["layers"][name][3, 0] += 1
    with open_activations(acts) as opened, pytest.raises(InputError, match="was written again after the extraction"):
        opened.rows(name, np.arange(3))
    assert [layer for layer, why in verify_rows(acts).items() if why] == [name]


def test_scores_that_were_written_again_are_not_read(acts):
    with h5py.File(acts, "r+") as file:
        file["scores"][0, 0] += 1
    with pytest.raises(InputError, match="the scores were written again"):
        open_activations(acts)


def test_verifying_reads_every_row(acts):
    assert set(verify_rows(acts)) == {*ROWS, "scores"}
    assert not any(verify_rows(acts).values())
    name = LAYERS[0].name
    with h5py.File(
        acts, "r+"
    ) as file:  # by someone who mends what a glance at the chunks shows, and leaves the rows' sum
        del file.attrs["chunk_sums"]
        file["layers"][name][-1, -1] += 1
    with open_activations(acts) as opened:
        opened.rows(name, np.arange(3))
    assert verify_rows(acts)[name] == "its rows are not those that were written"
    code, _, err = run("info", acts, "--verify")
    assert (code, f"is damaged in 1 of {len(ROWS) + 1} layers ({name}: its rows" in err) == (3, True), err


def test_info_says_that_a_file_is_intact(acts):
    assert "every row of each: intact" in done("info", acts, "--verify")
    assert set(json.loads(done("info", acts, "--verify", "--json"))["verified"].values()) == {"intact"}
    assert "verified" not in done("info", acts)


def test_what_an_interrupted_extraction_has_is_verified_too(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "acts.h5", stop=21)
    assert not any(verify_rows(tmp_path / "acts.h5.partial").values())


def test_a_file_from_before_the_sums_is_read_and_verified_by_its_checksums(acts):
    with h5py.File(acts, "r+") as file:
        for name in ("sums", "chunk_sums"):
            del file.attrs[name]
    with open_activations(acts) as opened:
        for name, X in ROWS.items():
            np.testing.assert_array_equal(opened.rows(name, np.arange(len(X))), X)
    assert not any(verify_rows(acts).values())


@pytest.mark.parametrize("claimed", [np.zeros(1, np.uint32), np.zeros(9), "sums"])
def test_sums_that_are_none_are_damage(acts, claimed):
    with h5py.File(acts, "r+") as file:
        file.attrs["sums"] = claimed
    with pytest.raises(InputError, match="is damaged: sums are"):
        inspect_activations(acts)

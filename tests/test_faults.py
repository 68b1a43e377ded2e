"""What fails beneath a file, each fault brought about: one line says it, nothing is lost, nothing half written is whole."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from manigeo import create_activations, open_activations
from manigeo.activations import inspect_activations, writing
from manigeo.activations.layout import LAYER_ATTRS
from manigeo.errors import InputError, UsageError
from manigeo.execution.pipeline import UP_TO_DATE, Ledger, Step
from manigeo.results import read_results, write_results
from manigeo.storage.commits import CommittedFile
from manigeo.storage.files import failure_of_files, whole_file
from manigeo.storage.locks import lock_file
from tests.command_line import run
from tests.fuzzing import results_table
from tests.test_activations import CLASSES, grouped_examples, stored

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = grouped_examples()
LAYERS = [stored("input", 0, (40,)), stored("features.0", 1, (3000,)), stored("logits", 2, (10,))]
ROWS = {
    layer.name: np.random.default_rng(layer.order).standard_normal((len(EXAMPLES), layer.n_features), dtype=np.float32)
    for layer in LAYERS
}


def extract(path: Path) -> int:
    """An extraction that commits after each batch and goes on where there is one; where it began."""
    with create_activations(
        path, EXAMPLES, CLASSES, LAYERS, {"epoch": 3}, batch_size=5, resume=True, force=True
    ) as writer:
        first = writer.n_done
        for start in range(first, len(EXAMPLES), 5):
            writer.append({name: X[start : start + 5] for name, X in ROWS.items()})
            writer.commit()
    return first


def check_whole(path: Path) -> None:
    with open_activations(path) as acts:
        for name, X in ROWS.items():
            np.testing.assert_array_equal(acts.rows(name, np.arange(len(X))), X)


@contextmanager
def mounted(folder: Path, size: str):
    """A small file system, where this process may mount one."""
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False, capture_output=True
    )
    if mount.returncode:
        pytest.skip("needs to mount a tmpfs, which only root may")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def largest_file(n_bytes: int):
    """A limit of the process, which every write beyond it meets: as a full disk, without a disk."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


# ------------------------------------------------------------------------------------------------------------- a full disk
@pytest.mark.parametrize("size", ["16k", "100k", "300k"])
def test_an_extraction_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path, size):
    with mounted(tmp_path, size):
        (tmp_path / "acts.h5").write_text("the file before")
        with pytest.raises(OSError, match="No space left") as failed:
            extract(tmp_path / "acts.h5")
        assert failed.value.errno == errno.ENOSPC
        assert (tmp_path / "acts.h5").read_text() == "the file before"
        left = sorted(os.listdir(tmp_path))
        assert left == (["acts.h5"] if size == "16k" else ["acts.h5", "acts.h5.partial", "acts.h5.partial.commit"])
        subprocess.run(["mount", "-o", "remount,size=8m", tmp_path], check=True)
        first = extract(tmp_path / "acts.h5")
        assert first == 0 if size == "16k" else first > 0
        check_whole(tmp_path / "acts.h5")


@pytest.mark.parametrize("most", [1000, 30_000, 150_000, 400_000])
def test_an_extraction_that_meets_a_limit_keeps_what_it_has_and_goes_on(tmp_path, most):
    with largest_file(most), pytest.raises(OSError, match="File too large"):
        extract(tmp_path / "acts.h5")
    extract(tmp_path / "acts.h5")
    check_whole(tmp_path / "acts.h5")
    assert os.listdir(tmp_path) == ["acts.h5"]


FULL = """
import sys
from tests.test_faults import *
with largest_file(150_000), suppress(OSError):
    extract(Path(sys.argv[1]))
"""


def test_a_process_whose_disk_was_full_ends_quietly(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "acts.h5")], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")  # HDF5 would fall at its end over a write that has failed


def test_a_table_that_does_not_fit_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.csv"
    write_results(results_table(), path)
    before = path.read_bytes()
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        write_results(results_table(), path, force=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EIO, "the disk fails"),
        (errno.EROFS, "can be written"),
    ],
)
def test_a_command_that_the_disk_fails_ends_in_one_line_with_a_remedy(tmp_path, monkeypatch, number, remedy):
    write_results(results_table(), tmp_path / "a.csv")
    before = (tmp_path / "a.csv").read_bytes()

    def failing(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    code, _, err = run("report", tmp_path / "a.csv", "-o", tmp_path / "a.html")
    assert (code, err.count("\n"), remedy in err) == (1, 1, True), err
    code, _, err = run("--debug", "report", tmp_path / "a.csv", "-o", tmp_path / "a.html")
    assert "Traceback" in err
    assert sorted(os.listdir(tmp_path)) == ["a.csv"]
    assert (tmp_path / "a.csv").read_bytes() == before


def test_what_the_system_says_without_a_number_is_passed_on():
    assert failure_of_files(OSError("odd")) == "odd"


# ------------------------------------------------------------------------------------------------------ a read-only folder
def test_a_read_only_folder_is_refused_before_the_work_and_nothing_in_it_is_lost(tmp_path):
    with mounted(tmp_path, "1m"):
        write_results(results_table(), tmp_path / "a.csv")
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(UsageError, match=r"cannot be written.*choose another place"):
            write_results(results_table(), tmp_path / "a.csv", force=True)
        with pytest.raises(OSError, match="Read-only"), whole_file(tmp_path / "a.csv"):
            pass
        code, _, err = run("report", tmp_path / "a.csv", "-o", tmp_path / "a.html")
        assert (code, err.count("\n")) == (2, 1)
        assert len(read_results(tmp_path / "a.csv")) == 4


# -------------------------------------------------------------------------------------------------------------- two writers
HOLD = """
import sys, time
from pathlib import Path
from manigeo.storage.files import whole_file
with whole_file(sys.argv[1]) as partial:
    partial.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_writer(path: Path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_of_two_writers_of_a_file_the_second_is_told_and_the_first_is_not_disturbed(tmp_path):
    path = tmp_path / "a.csv"
    with another_writer(path):
        with pytest.raises(UsageError, match=r"a\.csv is being written by another process; wait"):
            write_results(results_table(), path)
        assert (tmp_path / "a.csv.partial").read_text() == "half"
        assert not path.exists()


def test_a_writer_that_was_killed_stops_nobody(tmp_path):
    path = tmp_path / "a.csv"
    with another_writer(path) as child:
        child.kill()
        child.wait()
        assert sorted(os.listdir(tmp_path)) == ["a.csv.partial", "a.csv.partial.commit"]
        write_results(results_table(), path)
    assert os.listdir(tmp_path) == ["a.csv"]
    assert len(read_results(path)) == 4


def test_writers_at_once_leave_the_whole_file_of_one_of_them(tmp_path):
    path, children = tmp_path / "a.txt", []
    for number in range(8):
        if (child := os.fork()) == 0:
            for _ in range(40):
                with suppress(UsageError), whole_file(path) as partial, open(partial, "w") as file:
                    for _ in range(50):
                        file.write(f"{number}\n")
                        file.flush()
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(set(path.read_text().split())) == 1
    assert len(path.read_text().split()) == 50
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_files_are_written_without(tmp_path, monkeypatch, number):
    import fcntl

    def refused(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    write_results(results_table(), tmp_path / "a.csv")
    extract(tmp_path / "acts.h5")
    check_whole(tmp_path / "acts.h5")


# ----------------------------------------------------------------------------------------------------------- locks of HDF5
def locked_with(monkeypatch, kind: type[OSError], number: int) -> None:
    opened = h5py.File.__init__

    def refusing(self, name, *args, locking=None, **settings):
        if isinstance(name, Path) and locking is None:
            raise kind(number, f"Unable to synchronously open file (unable to lock file, errno = {number})")
        opened(self, name, *args, locking=locking, **settings)

    monkeypatch.setattr(h5py.File, "__init__", refusing)


def test_a_file_on_a_server_without_locks_is_read_without(tmp_path, monkeypatch):
    extract(tmp_path / "acts.h5")
    locked_with(monkeypatch, OSError, errno.ENOLCK)
    check_whole(tmp_path / "acts.h5")


@pytest.mark.parametrize("asked", [None, "TRUE", "FALSE", "BEST_EFFORT"])
def test_a_file_that_another_program_writes_is_refused_or_read_as_hdf5_is_told(tmp_path, asked):
    extract(tmp_path / "acts.h5")
    environ = {**os.environ, **({"HDF5_USE_FILE_LOCKING": asked} if asked else {})}
    code = "import sys; from pathlib import Path; from tests.test_faults import check_whole; check_whole(Path(sys.argv[1]))"
    with h5py.File(tmp_path / "acts.h5", "r+"):
        read = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "acts.h5")], cwd=ROOT, check=False, capture_output=True, text=True,
            env=environ,
        )  # fmt: skip
    said = "another program is writing it: wait for that to end"
    assert (said in read.stderr) == (asked != "FALSE"), read.stderr


# -------------------------------------------------------------------------------------------------------- a clock that jumps
def test_no_clock_decides_what_is_up_to_date(tmp_path, monkeypatch):
    result, ledger = tmp_path / "a.csv", tmp_path / "steps.json"
    result.write_text("1")
    step = Step("one", ("one",), result, ())
    for then in (0, 4_102_444_800):  # 1970, 2100
        os.utime(result, (then, then))
        Ledger(ledger, [step]).finish(step)
        for now in (0.0, 1e9, 1e10):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            assert Ledger(ledger, [step]).state(step) == UP_TO_DATE
        os.utime(ledger, (1e9, 1e9))
        assert Ledger(ledger, [step]).state(step) == UP_TO_DATE


def test_an_extraction_goes_on_while_the_clock_jumps(tmp_path, monkeypatch):
    ticks = iter(10.0**9 * (-1) ** i for i in range(10**6))
    monkeypatch.setattr(time, "time", lambda: next(ticks))
    monkeypatch.setattr(writing.time, "monotonic", lambda: 0.0)  # not that it matters: it would only commit less
    with largest_file(300_000), pytest.raises(OSError, match="File too large"):
        extract(tmp_path / "acts.h5")
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert extract(tmp_path / "acts.h5") > 0
    check_whole(tmp_path / "acts.h5")


# ------------------------------------------------------------------------------------ what goes on after a kill, damaged
@pytest.fixture
def begun(tmp_path) -> Path:
    with suppress(OSError), largest_file(300_000):
        extract(tmp_path / "acts.h5")
    return tmp_path / "acts.h5.partial"


def test_an_interrupted_extraction_that_was_cut_off_is_not_gone_on_with(begun):
    committed, _ = json.loads(Path(f"{begun}.commit").read_text())
    os.truncate(begun, committed - 1)
    for look in (extract, lambda path: inspect_activations(path).__enter__()):
        with pytest.raises(InputError, match=r"is truncated: \d+ bytes were committed; delete it and acts"):
            look(begun.with_suffix(""))


@pytest.mark.parametrize(
    "note", ["", "[", "[5]", "[-1, []]", '[10, [[-3, "aa=="]]]', '[10, [[0, "?"]]]', "[" * 10**5, "[1e3, []]"]
)
def test_a_damaged_note_is_said_to_be_one(begun, note):
    Path(f"{begun}.commit").write_text(note)
    with pytest.raises(InputError, match=r"partial\.commit is damaged: delete it"):
        extract(begun.with_suffix(""))
    with pytest.raises(InputError, match=r"partial\.commit is damaged: delete it"):
        CommittedFile(begun, writable=False)


def test_a_chunk_that_is_not_there_is_no_zeros(tmp_path):
    extract(tmp_path / "acts.h5")
    with h5py.File(tmp_path / "acts.h5", "r+") as file:
        whole = file["layers/logits"]
        settings = {name: getattr(whole, name) for name in ("shape", "dtype", "chunks", "fletcher32")}
        attributes = {name: whole.attrs[name] for name in LAYER_ATTRS}
        del file["layers/logits"]
        file["layers"].create_dataset("logits", **settings)[:45] = ROWS["logits"][:45]
        file["layers/logits"].attrs.update(attributes)
    with (
        open_activations(tmp_path / "acts.h5") as acts,
        pytest.raises(InputError, match="'logits' has 9 chunks, and 2"),
    ):
        acts.rows("logits", np.arange(10))


def test_a_block_of_zeros_among_the_texts_does_not_hang(tmp_path):
    """HDF5 2.0 looks for ever for the next object of a heap behind one of no size."""
    extract(tmp_path / "acts.h5")
    content = bytearray((tmp_path / "acts.h5").read_bytes())
    at = content.find(b"GCOL") + 600
    content[at : at + 512] = bytes(512)
    (tmp_path / "acts.h5").write_bytes(content)
    code = "import sys; from manigeo import open_activations; open_activations(sys.argv[1]).__enter__()"
    read = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "acts.h5")], cwd=ROOT, check=False, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert "is damaged: zeros where texts should be" in read.stderr


def test_headers_and_indices_are_of_the_kinds_that_have_checksums(tmp_path):
    extract(tmp_path / "acts.h5")
    content = (tmp_path / "acts.h5").read_bytes()
    assert content[8] >= 2  # of the superblock
    assert content.count(b"OHDR") > len(LAYERS)
    assert not [signature for signature in (b"TREE", b"SNOD") if signature in content]  # B-trees and names of version 1


def test_every_flipped_bit_of_a_file_is_noticed_or_changes_nothing(tmp_path):
    """One bit of each of 150 places, evenly over the file."""
    extract(tmp_path / "acts.h5")
    content = (tmp_path / "acts.h5").read_bytes()
    noticed = 0
    for at in range(0, len(content), len(content) // 150):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        (tmp_path / "acts.h5").write_bytes(flipped)
        try:
            check_whole(tmp_path / "acts.h5")
        except InputError:
            noticed += 1
    assert noticed > 100


def test_the_lock_ends_with_the_file(tmp_path):
    path = tmp_path / "a"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    lock_file(fd, path)
    other = os.open(path, os.O_RDWR)
    with pytest.raises(UsageError, match="another process"):
        lock_file(other, path)
    os.close(fd)
    lock_file(other, path)
    os.close(other)


def test_a_ledger_of_lists_without_end_is_refused(tmp_path):
    (tmp_path / "steps.json").write_text("[" * 10**5)
    with pytest.raises(InputError, match="is not the ledger"):
        Ledger(tmp_path / "steps.json", [])
    (tmp_path / "steps.json").write_text(json.dumps({}))
    assert Ledger(tmp_path / "steps.json", []).steps == ()

"""Files that change by commits, against a bytearray; what a kill leaves is in test_interruptions.py."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manigeo.errors import UsageError
from manigeo.storage.commits import CommittedFile, has_commit

WRITE = st.tuples(st.just("write"), st.integers(0, 40), st.binary(max_size=20))
STEPS = st.lists(
    WRITE | st.tuples(st.just("truncate"), st.integers(0, 40)) | st.tuples(st.sampled_from(["commit", "reopen"]))
)


def content(file: CommittedFile) -> bytes:
    file.seek(0)
    return file.read()


@given(steps=STEPS)
@settings(max_examples=200, deadline=None)
def test_a_file_holds_what_was_written_and_opened_again_what_was_committed(steps, fast_disk):
    """The slow version keeps two byte strings: what there is, and what there was at the last commit."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        file, now, lasting = CommittedFile(path), b"", b""
        for what, *details in steps:
            if what == "write":
                offset, data = details
                file.seek(offset)
                file.write(data)
                if data:
                    now = now[:offset].ljust(offset, b"\0") + data + now[offset + len(data) :]
            elif what == "truncate":
                (size,) = details
                size = min(size, len(now))
                file.truncate(size)
                now = now[:size]
            elif what == "commit":
                file.commit()
                lasting = now
            else:
                file.close()
                file, now = CommittedFile(path), lasting
            assert content(file) == now
            if has_commit(path):
                with CommittedFile(path, writable=False) as seen:
                    assert content(seen) == lasting
        file.close()


@pytest.fixture(scope="module")
def fast_disk():
    """No waiting for the disk, which only a power cut would show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


def test_a_file_that_is_moved_or_removed_leaves_nothing_beside_it(tmp_path):
    for end in ("move", "remove"):
        file = CommittedFile(tmp_path / "draft")
        file.write(b"text")
        file.commit()
        assert sorted(os.listdir(tmp_path)) == ["draft", "draft.commit"]
        file.move(tmp_path / "whole") if end == "move" else file.remove()
        assert os.listdir(tmp_path) == (["whole"] if end == "move" else [])
        (tmp_path / "whole").unlink(missing_ok=True)


def test_the_note_of_a_file_that_was_moved_away_is_not_taken_for_another(tmp_path):
    (tmp_path / "draft.commit").write_text('[3, [[0, "b2xk"]]]')
    with CommittedFile(tmp_path / "draft") as file:
        assert content(file) == b""


def test_only_one_process_writes_a_file(tmp_path):
    with CommittedFile(tmp_path / "draft") as file:
        file.write(b"text")
        file.commit()
        other = f"from manigeo.storage.commits import CommittedFile; CommittedFile({str(tmp_path / 'draft')!r})"
        done = subprocess.run([sys.executable, "-c", other], check=False, capture_output=True, text=True)
        assert "UsageError" in done.stderr
        assert "is being written by another process" in done.stderr
        with pytest.raises(UsageError, match="is being written by another process"):
            CommittedFile(tmp_path / "draft")
        assert content(file) == b"text"

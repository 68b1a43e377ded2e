"""Where files are written: through no link, over nobody's own file, with the mode of what they replace."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from manigeo.errors import InputError, UsageError
from manigeo.storage.commits import CommittedFile
from manigeo.storage.files import check_target, whole_file
from manigeo.storage.owned import append_own, inputs_kept, naming, open_own


def by_whole_file(path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_text("new")


def by_commits(path: Path) -> None:
    with CommittedFile(path.with_name(f"{path.name}.partial")) as file:
        file.write(b"new")
        file.commit()
        file.move(path)


both_ways = pytest.mark.parametrize("write", [by_whole_file, by_commits])


def left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@both_ways
@pytest.mark.parametrize("ending", [".partial", ".partial.commit", ".partial.commit.draft"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_planted_link_is_not_followed(tmp_path, write, ending, link):
    victim = tmp_path / "victim"
    victim.write_text("[0, []]")  # which a note may hold
    link(victim, tmp_path / f"q.csv{ending}")
    with pytest.raises(UsageError, match=r"is not written to: remove it"):
        write(tmp_path / "q.csv")
    assert victim.read_text() == "[0, []]"
    assert not (tmp_path / "q.csv").exists()


@both_ways
def test_a_link_to_nothing_makes_no_file_elsewhere(tmp_path, write):
    (tmp_path / "q.csv.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="a link"):
        write(tmp_path / "q.csv")
    assert left(tmp_path) == ["q.csv.partial"]


@both_ways
def test_a_pipe_or_folder_in_the_place_does_not_hang(tmp_path, write):
    os.mkfifo(tmp_path / "a.csv.partial")
    (tmp_path / "b.csv.partial").mkdir()
    for name in ("a.csv", "b.csv"):
        with pytest.raises(UsageError, match="remove it"):
            write(tmp_path / name)


@both_ways
@pytest.mark.parametrize("ending", [".partial", ".partial.commit"])
def test_a_file_of_the_users_own_is_not_lost(tmp_path, write, ending):
    own = tmp_path / f"q.csv{ending}"
    own.write_text("mine")
    with pytest.raises((UsageError, InputError), match=r"q\.csv\.partial.* (move|delete)"):
        write(tmp_path / "q.csv")
    assert own.read_text() == "mine"
    assert left(tmp_path) == [own.name]


@both_ways
def test_what_a_killed_writer_left_is_written_over(tmp_path, write):
    (tmp_path / "q.csv.partial").write_text("hal")
    (tmp_path / "q.csv.partial.commit").write_text("[0, []]")
    write(tmp_path / "q.csv")
    assert left(tmp_path) == ["q.csv"]
    assert (tmp_path / "q.csv").read_text() == "new"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
@pytest.mark.parametrize(("mode", "taken"), [(0o1777, False), (0o775, False), (0o755, True)])
def test_another_users_file_is_refused_where_others_may_write(tmp_path, mode, taken):
    (tmp_path / "q.csv.partial").touch()
    os.chown(tmp_path / "q.csv.partial", 12345, -1)
    tmp_path.chmod(mode)
    with nullcontext() if taken else pytest.raises(UsageError, match="another user's"):
        by_whole_file(tmp_path / "q.csv")


def test_a_file_that_takes_the_place_of_the_one_being_written_is_left(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")

    def exchanged() -> None:
        with whole_file(tmp_path / "q.csv") as partial:
            (tmp_path / "q.csv.partial").unlink()
            (tmp_path / "q.csv.partial").symlink_to(victim)
            partial.write_text("new")

    with pytest.raises(UsageError, match="has taken the place"):
        exchanged()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "q.csv").exists()


@both_ways
def test_a_replaced_file_keeps_its_mode_and_owner(tmp_path, write):
    path = tmp_path / "q.csv"
    path.write_text("old")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    write(path)
    after = path.stat()
    assert path.read_text() == "new"
    assert [(s.st_mode, s.st_uid, s.st_gid) for s in (after,)] == [(before.st_mode, before.st_uid, before.st_gid)]


@both_ways
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, write, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "q.csv")
    finally:
        os.umask(before)
    assert (tmp_path / "q.csv").stat().st_mode & 0o777 == 0o666 & ~umask


@both_ways
def test_a_link_at_the_name_itself_is_replaced_and_its_target_left(tmp_path, write):
    victim, path = tmp_path / "victim", tmp_path / "q.csv"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(UsageError, match="exists"):
        check_target(path)
    check_target(path, force=True)
    write(path)
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("precious", "new", False)


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    for name in ("pipe", "null"):
        with pytest.raises(UsageError, match="no file"):
            check_target(tmp_path / name, force=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_names_the_file(tmp_path, number, monkeypatch):
    with pytest.raises(OSError, match=r"q\.csv") as failed, whole_file(tmp_path / "q.csv"):
        raise OSError(number, os.strerror(number))
    assert failed.value.filename == str(tmp_path / "q.csv")

    def full(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    with CommittedFile(tmp_path / "a.h5.partial") as file:
        monkeypatch.setattr(os, "pwrite", full)
        file.write(b"new")
        with pytest.raises(OSError, match=r"a\.h5\.partial"):
            file.commit()


def test_an_error_about_another_file_keeps_its_name():
    with pytest.raises(OSError, match="'b'"), naming("a"):
        raise OSError(errno.ENOENT, "No such file", "b")


def test_a_log_is_appended_to_and_never_through_a_link(tmp_path):
    victim, log = tmp_path / "victim", tmp_path / "log.txt"
    victim.write_text("precious")
    for line in ("one\n", "two\n"):
        with os.fdopen(append_own(log), "a") as file:
            file.write(line)
    assert log.read_text() == "one\ntwo\n"
    log.unlink()
    log.symlink_to(victim)
    with pytest.raises(UsageError, match="a link"):
        append_own(log)


def test_what_a_command_reads_is_not_written_by_whatever_name(tmp_path):
    read, same, other = (tmp_path / name for name in ("m.pt", "same.pt", "other.pt"))
    read.write_text("weights")
    same.symlink_to(read)
    (tmp_path / "folder").mkdir()
    with inputs_kept([read, tmp_path / "missing"]):
        for path in (read, same, tmp_path / "folder" / ".." / "m.pt"):
            with pytest.raises(UsageError, match=r"m\.pt, which this command reads"):
                check_target(path, force=True)
            with pytest.raises(UsageError, match="which this command reads"):
                by_whole_file(path)
        by_whole_file(other)
    by_whole_file(read)
    assert read.read_text() == "new"


def test_a_new_file_is_made_once(tmp_path):
    os.close(open_own(tmp_path / "a"))
    os.close(open_own(tmp_path / "a"))
    assert left(tmp_path) == ["a"]

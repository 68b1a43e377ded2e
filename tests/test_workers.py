"""Where tasks run makes no difference: not to the numbers, and not to what a user is told."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import manigeo.execution.workers
from manigeo.errors import ManigeoError, UsageError
from manigeo.execution.workers import DaskWorkers, Processes, open_workers

pytestmark = pytest.mark.installed

SIZES = [(n,) for n in (5, 60, 7, 130, 9)]


def product(n: int) -> float:
    """A sum whose last bits depend on how it is divided among threads."""
    X = np.random.default_rng(n).standard_normal((n, 1000))
    return float((X @ X.T).sum())


def threads() -> int:
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def refuse(n: int) -> None:
    if n == 7:
        raise UsageError(f"not {n}")


def die_once(marker: str) -> str:
    """Kills its process, unless it did so before."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def die(deaths: str) -> None:
    """Kills its process, and leaves a mark each time."""
    with open(deaths, "a") as file:
        file.write("+")
    os.kill(os.getpid(), signal.SIGKILL)


def here() -> tuple[str, bool]:
    return os.getcwd(), os.getcwd() in sys.path


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("distributed", reason="needs manigeo[dask]")
    with open_workers(2, "local") as workers:
        yield workers


@pytest.fixture(params=["this process", "two processes", "dask"])
def workers(request):
    if request.param == "dask":
        return request.getfixturevalue("cluster")
    return Processes(1 if request.param == "this process" else 2)


def test_every_job_is_done_once_to_the_same_bits(workers):
    assert sorted(workers.as_completed(product, SIZES)) == [(i, product(n)) for i, (n,) in enumerate(SIZES)]


def test_a_task_has_one_thread(workers):
    np.ones((2, 2)) @ np.ones((2, 2))
    assert [n for _, n in workers.as_completed(threads, [()] * 3)] == [1, 1, 1]


def test_the_error_of_a_task_is_the_error_of_the_whole(workers):
    with pytest.raises(UsageError, match="not 7"):
        list(workers.as_completed(refuse, SIZES))
    assert len(list(workers.as_completed(product, SIZES))) == len(SIZES)  # they can be used again


def test_a_task_finds_files_and_modules_of_the_folder_of_the_command(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert set(workers.as_completed(here, [(), ()])) == {(i, (str(tmp_path), True)) for i in range(2)}


def test_without_jobs_nothing_is_done(workers):
    assert list(workers.as_completed(product, [])) == []


def test_what_a_killed_worker_was_at_is_done_by_another(cluster, tmp_path):
    jobs = [(str(tmp_path / name),) for name in "abc"]
    assert sorted(cluster.as_completed(die_once, jobs)) == [(0, "done"), (1, "done"), (2, "done")]


def test_a_task_that_kills_every_worker_is_tried_again_and_given_up(monkeypatch, tmp_path):
    pytest.importorskip("distributed", reason="needs manigeo[dask]")
    monkeypatch.setattr(manigeo.execution.workers, "_MOST_DEATHS", 1)
    with open_workers(1, "local") as few, pytest.raises(ManigeoError, match="workers died of one task"):
        list(few.as_completed(die, [(str(tmp_path / "deaths"),)]))
    assert len((tmp_path / "deaths").read_text()) > 2  # the scheduler gives up after two


def test_workers_of_another_version_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(manigeo.execution.workers, "__version__", "99.0")
    with pytest.raises(UsageError, match=r"this is manigeo 99\.0, and on the cluster there are workers with"):
        DaskWorkers(cluster.client)
    with pytest.raises(UsageError, match=r"this is manigeo 99\.0"):  # one that has joined since
        list(cluster.as_completed(product, SIZES))


def test_a_cluster_that_is_not_there_is_said_to_be_so(monkeypatch):
    pytest.importorskip("distributed", reason="needs manigeo[dask]")
    monkeypatch.setattr(manigeo.execution.workers, "_CONNECT_SECONDS", 1)
    for address in ("tcp://127.0.0.1:1", "no-such-thing"):
        with pytest.raises(UsageError, match=f"no Dask scheduler answers at {address}"), open_workers(1, address):
            pass


def test_without_dask_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'manigeo\[dask\]'"), open_workers(1, "local"):
        pass

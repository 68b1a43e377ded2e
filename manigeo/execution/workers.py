"""Workers on which tasks run: one after the other, in processes of this machine, or on a Dask cluster.

A task is a function of a module, and names and settings as its arguments: never arrays. It opens what it needs itself, and
has one thread, so that its numbers are the same to the last bit wherever on one machine it runs, and beside whatever else.
"""

import functools
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import joblib
import psutil
from threadpoolctl import ThreadpoolController

from manigeo import __version__
from manigeo.errors import ManigeoError, UsageError
from manigeo.faces.progress import bar

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

    from manigeo.results import Part

Job = Sequence[Any]

# A worker that dies takes its task with it, which is not the task's fault; one that kills ten workers is to blame.
_MOST_DEATHS = 10
_CONNECT_SECONDS = 20

# joblib starts a process anew whose memory has grown, after its task: nothing that a user must know
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor", UserWarning)


@runtime_checkable
class Workers(Protocol):
    """Protocol of whatever carries out tasks."""

    def as_completed(self, compute: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        """The number of each job and what ``compute(*job)`` returned, as they are finished.

        An exception of a task is raised here, and what has not begun is given up.
        """


class Processes:
    """``n_jobs`` processes of this machine, -1: one per core; with 1, this one."""

    def __init__(self, n_jobs: int = 1) -> None:
        self.n_jobs = n_jobs

    def as_completed(self, compute: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        here = os.getcwd()
        calls = (joblib.delayed(_numbered)(here, compute, number, job) for number, job in enumerate(jobs))
        n_jobs = min(joblib.effective_n_jobs(self.n_jobs), max(len(jobs), 1))
        yield from joblib.Parallel(n_jobs, return_as="generator_unordered")(calls)


def parts_of(
    compute: "Callable[..., pd.DataFrame]",
    jobs: Sequence[Job],
    workers: Workers | int,
    title: str,
    unit: str,
    progress: bool = False,
) -> "Iterator[Part]":
    """The tables of all jobs as they are finished, each with the job's number."""
    from manigeo.results import Part

    workers = Processes(workers) if isinstance(workers, int) else workers
    with bar(len(jobs), title, unit, shown=progress) as told:
        for number, table in workers.as_completed(compute, jobs):
            told.update()
            yield Part(number, table)


class DaskWorkers:
    """The workers of a Dask cluster, which must see the same files under the same paths, and have this version.

    A task whose worker dies is done again by another, up to ten times. Raises :class:`~manigeo.errors.UsageError` for
    workers of another version.
    """

    def __init__(self, client: "Client") -> None:
        self.client = client
        _check_versions(client)

    def as_completed(self, compute: Callable[..., Any], jobs: Sequence[Job]) -> Iterator[tuple[int, Any]]:
        from distributed import KilledWorker, as_completed

        task = functools.partial(_of_version, __version__, os.getcwd(), compute)
        futures = self.client.map(task, range(len(jobs)), jobs, pure=False)
        deaths: dict[str, int] = {}
        waiting = as_completed(futures)
        try:
            for future in waiting:
                error = future.exception() if future.status == "error" else None
                if isinstance(error, KilledWorker) and deaths.get(future.key, 0) < _MOST_DEATHS:
                    deaths[future.key] = deaths.get(future.key, 0) + 1
                    future.retry()
                    waiting.add(future)
                    continue
                yield _result(future)
                future.release()
        finally:
            self.client.cancel(futures, force=True)


def _result(future: "Future") -> tuple[int, Any]:
    from distributed import KilledWorker

    try:
        found: tuple[int, Any] = future.result()
    except KilledWorker as error:
        raise ManigeoError(
            f"{_MOST_DEATHS + 1} workers died of one task: do they have enough memory? ({error.task})"
        ) from error
    return found


def _numbered(folder: str, compute: Callable[..., Any], number: int, job: Job) -> tuple[int, Any]:
    _go_to(folder)
    with _threadpools().limit(limits=1):
        return number, compute(*job)


def _go_to(folder: str) -> None:
    """Go to the folder where the command was given, whose paths and modules are meant."""
    if os.getcwd() != folder:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UsageError(
                f"a worker on {socket.gethostname()} cannot go to {folder} ({error.strerror}): machines must share the disk"
            ) from error
    if folder not in sys.path:
        sys.path.append(folder)


def _of_version(version: str, folder: str, compute: Callable[..., Any], number: int, job: Job) -> tuple[int, Any]:
    """A worker may join, or be updated, when the others have been asked."""
    if version != __version__:
        raise UsageError(_other_version(version, {__version__}))
    return _numbered(folder, compute, number, job)


def _threadpools() -> ThreadpoolController:
    return _threadpools_of(len(sys.modules))


@functools.lru_cache(maxsize=1)
def _threadpools_of(n_modules: int) -> ThreadpoolController:
    """Controller of thread pools, looked for again (8 ms) where one more module may have brought one more library."""
    return ThreadpoolController()


@contextmanager
def open_workers(n_jobs: int = 1, cluster: str | None = None, task_bytes: int = 0) -> Iterator[Workers]:
    """Processes of this machine, or a Dask cluster: "local" starts one of ``n_jobs`` workers; an address such as
    ``tcp://host:8786``, or the path of a scheduler file, names one that runs. On this machine there are as many as the
    free memory has room for tasks of ``task_bytes``, and one at least.

    Raises :class:`~manigeo.errors.UsageError` where Dask is not installed, nothing answers, or versions differ.
    """
    n_jobs = min(joblib.effective_n_jobs(n_jobs), max(1, psutil.virtual_memory().available // max(task_bytes, 1)))
    if cluster is None:
        yield Processes(n_jobs)
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"--cluster takes dask.distributed ({error}): pip install 'manigeo[dask]'") from error
    if cluster == "local":
        with _local_cluster(n_jobs) as started, Client(started) as client:
            yield DaskWorkers(client)
        return
    where = {"scheduler_file": cluster} if os.path.exists(cluster) else {"address": cluster}
    try:
        client = Client(**where, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {cluster}: give 'local', an address such as tcp://host:8786, or the path of a "
            f"scheduler file ({type(error).__name__})"
        ) from error
    with client:
        yield DaskWorkers(client)


def _local_cluster(n_jobs: int) -> Any:
    """One thread a worker."""
    import dask
    from distributed import LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": _MOST_DEATHS,
        "distributed.worker.profile.enabled": False,  # it keeps the stacks of an hour: .1 MB a second
    }
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=n_jobs,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",  # any free port: there may be another cluster
            silence_logs=logging.CRITICAL,
        )


def _check_versions(client: "Client") -> None:
    found = client.run(_own_version, on_error="return")
    others = {version for version in found.values() if version != __version__}
    if others:
        raise UsageError(_other_version(__version__, others))


def _own_version() -> str:
    return __version__


def _other_version(here: str, there: set[Any]) -> str:
    found = ", ".join(v if isinstance(v, str) else f"none ({v})" for v in sorted(there, key=str))
    return (
        f"this is manigeo {here}, and on the cluster there are workers with {found}: install one version on all of them"
    )

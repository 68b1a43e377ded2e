"""Workers on which tasks run: one after the other, in processes of this machine, or on a Dask cluster.

A task is a function of a module, and names and settings as its arguments: never arrays. It opens what it needs itself, and
has one thread, so that its numbers are the same to the last bit wherever on one machine it runs, and beside whatever else.
"""

import functools
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import joblib
import psutil
from threadpoolctl import ThreadpoolController

from manigeo import __version__
from manigeo.errors import ManigeoError, UsageError
from manigeo.execution.start import leave_out_compiled
from manigeo.faces.progress import bar

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client, Future

    from manigeo.results import Part

Job = Sequence[Any]

# A worker that dies takes its task with it, which is not the task's fault; one that kills ten workers is to blame.
_MOST_DEATHS = 10
_CONNECT_SECONDS = 20
_INSTALL = "pip install 'manigeo[dask]'"
_TLS_PAGE = "'Sweeps' in the documentation"

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
        with _no_modules_from_here():
            yield from joblib.Parallel(n_jobs, return_as="generator_unordered")(calls)


@contextmanager
def _no_modules_from_here() -> Iterator[None]:
    """Processes that are started meanwhile do not look for modules in the working directory, as ``python -c`` does."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        os.environ |= {} if before is None else {"PYTHONSAFEPATH": before}


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
    """Go to the folder where the command was given, whose paths are meant."""
    leave_out_compiled()
    if os.getcwd() != folder:
        try:
            os.chdir(folder)
        except OSError as error:
            raise UsageError(
                f"a worker on {socket.gethostname()} cannot go to {folder} ({error.strerror}): machines must share the disk"
            ) from error


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
    """Processes of this machine, or a Dask cluster: "local" starts one of ``n_jobs`` workers, which nobody else can use; an
    address such as ``tls://host:8786``, or the path of a scheduler file, names one that runs; one without TLS is warned
    of. On this machine there are as many as the free memory has room for tasks of ``task_bytes``, and one at least.

    Raises :class:`~manigeo.errors.UsageError` where Dask is not installed, nothing answers, or versions differ.
    """
    n_jobs = min(joblib.effective_n_jobs(n_jobs), max(1, psutil.virtual_memory().available // max(task_bytes, 1)))
    if cluster is None:
        yield Processes(n_jobs)
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(f"--cluster takes dask.distributed ({error}): {_INSTALL}") from error
    if cluster == "local":
        with _local_cluster(n_jobs) as started, Client(started) as client:
            yield DaskWorkers(client)
        return
    with _foreign_client(cluster) as client:
        yield DaskWorkers(client)


@contextmanager
def _local_cluster(n_jobs: int) -> Iterator[Any]:
    """A cluster that nobody else can use, of one thread a worker.

    Its processes talk by TLS, each with a certificate that is made for this cluster and stays in memory; its pages on HTTP,
    which know no certificates, are empty; its files lie in a folder of its own.
    """
    import dask
    from distributed import LocalCluster, Security

    try:
        security = Security.temporary()
    except ImportError as error:
        raise UsageError(f"--cluster local takes cryptography, to keep others out: {_INSTALL}") from error
    settings = {
        "distributed.scheduler.allowed-failures": _MOST_DEATHS,
        "distributed.worker.profile.enabled": False,  # it keeps the stacks of an hour: .1 MB a second
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with (
        tempfile.TemporaryDirectory(prefix="manigeo-", ignore_cleanup_errors=True) as folder,
        dask.config.set(settings),
        _no_modules_from_here(),
        LocalCluster(
            n_workers=n_jobs,
            threads_per_worker=1,
            host="127.0.0.1",
            security=security,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},  # any port that is free
            local_directory=folder,  # on sys.path of its workers, and so no place for others
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster


def _foreign_client(cluster: str) -> "Client":
    """A client of the scheduler at an address or of a scheduler file; that others can use it, too, is said."""
    from distributed import Client

    where = {"scheduler_file": cluster} if os.path.exists(cluster) else {"address": cluster}
    try:
        client = Client(**where, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {cluster}: give 'local', an address such as tls://host:8786, or the path of a "
            f"scheduler file; for tls:// also its certificates, see {_TLS_PAGE} ({type(error).__name__})"
        ) from error
    address = str(client.scheduler_info(n_workers=0)["address"])
    if not address.startswith("tls://"):
        print(
            f"warning: {address} has no TLS: whoever can reach it can run programs as you; see {_TLS_PAGE}",
            file=sys.stderr,
        )
    return client


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

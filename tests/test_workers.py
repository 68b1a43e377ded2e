"""Where tasks run makes no difference: not to the numbers, and not to what a user is told."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
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


def here() -> tuple[str, bool, str]:
    return (
        os.getcwd(),
        os.getcwd() in sys.path or "" in sys.path,
        os.environ.get("PYTHONSAFEPATH", "") + os.environ["NUMBA_CACHE_DIR"],
    )


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


def test_a_task_finds_files_of_the_folder_of_the_command_and_no_modules(workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(workers.as_completed(here, [(), ()])) == {(i, (str(tmp_path), False, "1")) for i in range(2)}


def test_without_jobs_nothing_is_done(workers):
    assert list(workers.as_completed(product, [])) == []


def test_what_a_killed_worker_was_at_is_done_by_another(cluster, tmp_path):
    jobs = [(str(tmp_path / name),) for name in "abc"]
    assert sorted(cluster.as_completed(die_once, jobs)) == [(0, "done"), (1, "done"), (2, "done")]


# Tries to have a task done: without TLS, without a certificate, with one of its own, and with that of the cluster. Imports
# come first, since another user may not be allowed to read them.
TRIES = """
import json, os, sys, warnings
from distributed import Client, Security
address, known, user = json.load(sys.stdin)
own, known = Security.temporary(), Security(require_encryption=True, **known)
if user is not None:
    os.chdir("/"), os.setgroups([]), os.setgid(user), os.setuid(user)
warnings.simplefilter("ignore")
def tried(address, security=None):
    try:
        with Client(address, security=security, timeout=5) as client:
            return client.submit(abs, -7).result(timeout=20)
    except Exception as error:
        return type(error).__name__
print(json.dumps([tried(address.replace("tls", "tcp")), tried(address), tried(address, own), tried(address, known)]))
"""


@pytest.mark.parametrize("user", ["the same user", "another user"])
def test_nobody_else_can_use_a_cluster_that_a_command_has_started(cluster, user):
    if user == "another user" and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    security, address = cluster.client.security, cluster.client.scheduler.address
    known = {name: getattr(security, name) for name in ("tls_ca_file", "tls_client_cert", "tls_client_key")}
    given = json.dumps([address, known, 65534 if user == "another user" else None])
    done = subprocess.run([sys.executable, "-c", TRIES], input=given, capture_output=True, text=True, check=True)
    *others, with_the_certificate = json.loads(done.stdout)
    assert with_the_certificate == 7  # what fails before does so for want of it
    assert len(others) == 3
    assert all(name.endswith("Error") for name in others)


def test_a_cluster_that_a_command_has_started_tells_nothing_by_http(cluster):
    me, ports = psutil.Process(), set()
    for process in (me, *me.children(recursive=True)):
        ports |= {at.laddr for at in process.net_connections("tcp") if at.status == psutil.CONN_LISTEN}
    assert {ip for ip, _ in ports} == {"127.0.0.1"}
    assert len(ports) >= 4
    for port in ports:
        for page in ("info/main/workers.html", "json/counts.json", "metrics", "health", "status"):
            with socket.create_connection(port, timeout=5) as to, contextlib.suppress(ConnectionError):
                to.sendall(f"GET /{page} HTTP/1.0\r\n\r\n".encode())
                answer = to.recv(100)
                assert not answer or b"404" in answer


def test_files_of_a_cluster_that_a_command_has_started_are_its_own(cluster):
    places = [Path(info["local_directory"]) for info in cluster.client.scheduler_info()["workers"].values()]
    folder = Path(os.path.commonpath(places))
    private = next(path for path in (folder, *folder.parents) if path.name.startswith("manigeo-"))
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_without_cryptography_no_cluster_is_started_and_the_remedy_is_named(monkeypatch):
    pytest.importorskip("distributed", reason="needs manigeo[dask]")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with (
        pytest.raises(UsageError, match=r"cryptography, to keep others out: pip install 'manigeo\[dask\]'"),
        open_workers(1, "local"),
    ):
        pass


def test_a_scheduler_without_tls_is_warned_of(capsys):
    distributed = pytest.importorskip("distributed", reason="needs manigeo[dask]")
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as others,
        open_workers(1, others.scheduler_address) as workers,
    ):
        assert list(workers.as_completed(abs, [(-3,)])) == [(0, 3)]
    assert f"warning: {others.scheduler_address} has no TLS: whoever can reach it" in capsys.readouterr().err


def test_certificates_of_a_scheduler_are_taken_from_the_configuration_of_dask(cluster, capsys, tmp_path):
    dask = pytest.importorskip("dask", reason="needs manigeo[dask]")
    security, address = cluster.client.security, cluster.client.scheduler.address
    with pytest.raises(UsageError, match="for tls:// also its certificates"), open_workers(1, address):
        pass
    settings = {"ca-file": "tls_ca_file", "client.cert": "tls_client_cert", "client.key": "tls_client_key"}
    for name in settings.values():
        (tmp_path / name).write_text(getattr(security, name))
    files = {f"distributed.comm.tls.{key}": str(tmp_path / name) for key, name in settings.items()}
    with dask.config.set(files), open_workers(1, address) as workers:
        assert list(workers.as_completed(abs, [(-3,)])) == [(0, 3)]
    assert "warning" not in capsys.readouterr().err


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

"""Sweeps one after the other for an hour: ``python -m tests.bench.soak [MINUTES]``.

Memory of this process and its workers, processes and open files after each sweep: they must not grow. The first sweeps,
which import and fill caches, are not counted.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from manigeo.execution.grids import sweep_cells
from manigeo.execution.workers import Processes, open_workers
from tests.bench.killing import GRID, carried_out


def state() -> tuple[float, int]:
    """Megabytes that this process holds, and its open files."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return found + [below for child in found for below in children(child)]


def main(minutes: float, warm_up: int = 5) -> None:
    over, seen = time.monotonic() + 60 * minutes, []
    with tempfile.TemporaryDirectory() as name, open_workers(1, "local") as dask:
        folder = Path(name)
        source = folder / "sweep.toml"
        source.write_text(GRID.format(seeds=[0, 1, 2, 3]))
        assert len(sweep_cells(str(source))) == 4
        while time.monotonic() < over:
            for how, workers in (("dask", dask), ("here", Processes(1))):
                carried_out(folder / how, str(source), workers)
                shutil.rmtree(folder / how)
            (worker,) = dask.client.run(state).values()
            seen.append((*state(), *worker, len(children(os.getpid())), len(os.listdir(name))))
            if len(seen) % 10 == 1:
                print(f"{len(seen):5} sweeps of both: here {seen[-1][0]:.0f} MB, {seen[-1][1]} files; the worker "
                      f"{seen[-1][2]:.0f} MB, {seen[-1][3]} files; {seen[-1][4]} processes", flush=True)  # fmt: skip
    columns = np.array(seen[warm_up:])
    for name, values in zip(("MB here", "files here", "MB of the worker", "files of the worker", "processes", "folders"),
                            columns.T, strict=True):  # fmt: skip
        first, last = np.median(values[: len(values) // 4]), np.median(values[-(len(values) // 4) :])
        print(f"{name}: first quarter {first:.1f}, last {last:.1f} ({100 * (last / first - 1):+.1f} %)")
    time.sleep(2)
    print(f"{len(children(os.getpid()))} processes are left")


if __name__ == "__main__":
    main(float((sys.argv[1:2] or ["60"])[0]))

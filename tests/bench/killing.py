"""A sweep whose workers are killed: ``python -m tests.bench.killing [CELLS] [SECONDS]``.

Two Dask workers carry out small cells, and every so many seconds one of them is killed. Afterwards every cell is compared
with what one process makes of it.
"""

import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from manigeo.cli.cells import carry_out, cell_steps
from manigeo.execution.grids import sweep_cells, sweep_results
from manigeo.execution.workers import Processes, open_workers

GRID = """
[train]
data = "digits"
data-arg = {{per_class = 12}}
arch-arg = {{depth = 1, width = 8}}
epochs = 3

[grid]
seed = {seeds}

[analyze]
checkpoints = "last"
layers = ["logits"]
classes = 3
skip = ["separability", "rewind", "reinit", "gradients", "localize", "report"]
"""


def carried_out(folder: Path, source: str, workers) -> tuple[list[int], float]:
    cells = sweep_cells(source)
    runs = [folder / cell.name for cell in cells]
    tasks = [(run, cell_steps(source, run, cell), False) for run, cell in zip(runs, cells, strict=True)]
    began = time.monotonic()
    finished = []
    for number, said in workers.as_completed(carry_out, tasks):
        assert said["error"] == "", said
        finished.append(number)
    return finished, time.monotonic() - began


def kill_now_and_then(client, every: float, over: threading.Event, killed: list[int]) -> None:
    while not over.wait(every):
        pid = random.Random(len(killed)).choice(sorted(client.run(os.getpid, on_error="ignore").values()))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


def main(n_cells: int, every: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "sweep.toml"
        source.write_text(GRID.format(seeds=list(range(n_cells))))
        killed: list[int] = []
        with open_workers(2, "local") as workers:
            over = threading.Event()
            killer = threading.Thread(target=kill_now_and_then, args=(workers.client, every, over, killed))
            killer.start()
            finished, seconds = carried_out(folder / "dask", str(source), workers)
            over.set()
            killer.join()
        print(f"{len(finished)} cells in {seconds:.0f} s, {len(killed)} workers killed", flush=True)
        assert sorted(finished) == list(range(n_cells)), "each once"
        _, serial = carried_out(folder / "serial", str(source), Processes(1))
        print(f"one process: {serial:.0f} s", flush=True)
        cells = sweep_cells(str(source))
        for cell in cells:
            for path in ("metrics.csv", "labels.csv", "analysis/last.capacity.csv", "analysis/weights.csv"):
                one, other = (folder / how / cell.name / path for how in ("dask", "serial"))
                assert one.read_bytes() == other.read_bytes(), f"{cell.name}/{path} differs"
        tables = [sweep_results(folder / how, cells).to_csv() for how in ("dask", "serial")]
        assert tables[0] == tables[1]
        left = [path for path in (folder / "dask").rglob("*") if path.suffix in (".partial", ".commit", ".draft")]
        print(f"all tables equal, byte for byte; {len(left)} partial files left")


if __name__ == "__main__":
    main(int((sys.argv[1:2] or ["200"])[0]), float((sys.argv[2:3] or ["10"])[0]))

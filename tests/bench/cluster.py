"""What a Dask cluster costs and gains: ``python -m tests.bench.cluster ACTS.h5``, on two quiet cores.

The overhead of a task, from 2,000 that do nothing with a plan like that of capacity; the efficiency of two workers, from the
capacity of all layers and kinds of a file by one and by two; and what follows for 10^5 tasks on 100 nodes.
"""

import statistics
import sys
import time

from manigeo.execution.workers import Processes, Workers, open_workers
from manigeo.layerwise.plan import Plan, plan_capacity
from manigeo.layerwise.tables import capacity_table

TASKS = 2000
NODES, CORES = 100, 8


def nothing(plan: Plan, tasks: list) -> int:
    return len(tasks)


def seconds_of(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def overhead(workers: Workers, plan: Plan) -> float:
    """Seconds of a task that does nothing."""
    jobs = [(plan, plan.tasks[:1])] * TASKS
    return seconds_of(lambda: list(workers.as_completed(nothing, jobs))) / TASKS


def main(path: str, repetitions: int = 3) -> None:
    plan = plan_capacity(path, n_classes=30)
    took: dict[int, list[float]] = {1: [], 2: []}
    with open_workers(1, "local") as one, open_workers(2, "local") as two:
        for workers in (one, two):
            capacity_table(plan, n_jobs=workers)  # imports, and compiled kernels
        for _ in range(repetitions):
            for n, workers in ((1, one), (2, two)):
                took[n].append(seconds_of(lambda workers=workers: capacity_table(plan, n_jobs=workers)))
        ratios = [a / (2 * b) for a, b in zip(took[1], took[2], strict=True)]
        costs = [overhead(two, plan) for _ in range(repetitions)]
    here = overhead(Processes(1), plan)
    task = statistics.median(took[1]) / len(plan.tasks)
    cost = statistics.median(costs)
    each = ", ".join(f"{1e3 * c:.1f}" for c in costs)
    print(f"overhead of a task: {1e3 * cost:.1f} ms on Dask ({each}), {1e3 * here:.2f} ms here")
    print(f"{len(plan.tasks)} tasks of {task:.2f} s: one worker {took[1]} s, two {took[2]} s")
    print(f"efficiency of two: {statistics.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})")
    work, scheduled = 1e5 * task / (NODES * CORES), 1e5 * cost
    print(
        f"10^5 such tasks on {NODES} nodes of {CORES} cores: {work / 60:.0f} minutes of work, {scheduled / 60:.0f} of "
        f"scheduling at {1e3 * cost:.1f} ms, so about {max(work, scheduled) / 60:.0f} minutes; the scheduler keeps "
        f"{task / cost:.0f} workers busy with tasks of this size"
    )


if __name__ == "__main__":
    main(sys.argv[1])

"""The smallest margin of every test of a trained network, over seeds, instruction sets and threads.

    python -m tests.margins [--seeds 5] [--threads 1,2] [--keep margins.csv]

It runs ``pytest -m training`` for each, in turn, and prints a table of margins in standard errors. Of the instruction sets
``default``, ``avx2`` and ``avx512`` of torch those are tried that the processor has.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

COLUMNS = ["test", "what", "effect", "error", "margin", "seeds"]
SETS = {"default": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}


def instruction_sets() -> list[str]:
    best = torch.backends.cpu.get_cpu_capability()
    return list(SETS)[: list(SETS.values()).index(best) + 1] if best in SETS.values() else ["default"]


def margins(shift: int, capability: str, threads: int, words: list[str]) -> pd.DataFrame:
    """The effects of one run of the tests, which must pass."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "margins.csv"
        environment = {
            **os.environ, "MANIGEO_TEST_SEED": str(shift), "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-q", "-m", "training", "--margins", str(file), *words]
        code = subprocess.run(command, env=environment, check=False).returncode
        table = pd.read_csv(file, names=COLUMNS) if file.exists() else pd.DataFrame(columns=COLUMNS)
    return table.assign(shift=shift, capability=capability, threads=threads, failed=code != 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of shifted seeds")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--keep", help="CSV file for all effects")
    asked, words = parser.parse_known_args()
    runs = [
        margins(shift, capability, threads, words)
        for shift in range(1, asked.seeds + 1)
        for capability in instruction_sets()
        for threads in map(int, asked.threads.split(","))
    ]
    table = pd.concat(runs, ignore_index=True)
    if asked.keep:
        table.to_csv(asked.keep, index=False)
    smallest = table.pivot_table(
        index=["test", "what"], columns=["capability", "threads"], values="margin", aggfunc="min"
    )
    with pd.option_context("display.width", 250, "display.max_rows", None, "display.max_colwidth", None):
        print(smallest.round(1).assign(smallest=smallest.min(axis=1).round(1)).to_string())
    sys.exit(int(any(run["failed"].any() for run in runs)))


if __name__ == "__main__":
    main()

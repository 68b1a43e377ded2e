"""Commands of manigeo, run inside a notebook."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

import manigeo
from manigeo.cli.main import cli


class Workspace:
    """A folder that goes with the kernel, and the commands that run in it."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self.folder = Path(self._kept.name)

    def command(self, line: str) -> str:
        """What ``manigeo line`` prints; it runs in this process, to import torch only once."""
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            cli(line.split(), standalone_mode=False)
        return out.getvalue()

    def results(self, *names: str) -> pd.DataFrame:
        """Results tables by their names."""
        return manigeo.read_results([str(self.folder / name) for name in names])

    def scores(self, run: str = "run", column: str = "accuracy") -> pd.DataFrame:
        """Metrics of a training: a row per epoch, a column per kind."""
        return pd.read_csv(self.folder / run / "metrics.csv").pivot(index="epoch", columns="kind", values=column)


def over_seeds(values: ArrayLike) -> tuple[Any, Any]:
    """Mean over the first axis, and its standard error; infinite for a single seed.

    >>> over_seeds([1.0, 3.0])
    (np.float64(2.0), np.float64(1.0))
    """
    array = np.asarray(values, dtype=float)
    error = array.std(axis=0, ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.full(array.shape[1:], np.inf)[()]
    return array.mean(axis=0), error

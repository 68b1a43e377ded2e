"""What a test asks of a trained network: an effect, its standard error, and three of these between it and nothing.

A sum that differs by 1e-7, on another processor or with another number of threads, makes another training. So an assertion
on what a training has led to names its effect and its error, and holds for any seed. ``MANIGEO_TEST_SEED=n`` adds ``100 n``
to the seed of every training; ``python -m tests.margins`` runs them so, over seeds, instruction sets and threads.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

SHIFT = 100 * int(os.environ.get("MANIGEO_TEST_SEED", "0"))
AT_LEAST = 3.0


@dataclass(frozen=True)
class Effect:
    what: str
    effect: float
    error: float
    seeds: str

    @property
    def margin(self) -> float:
        """In standard errors; of an effect without an error, as large as can be."""
        return self.effect / self.error if self.error > 0 else math.copysign(math.inf, self.effect)

    def __str__(self) -> str:
        return (
            f"{self.what}: effect {self.effect:.4g}, error {self.error:.4g}, {self.margin:.1f} of them ({self.seeds})"
        )


MEASURED: list[Effect] = []  # since a test began; conftest.py takes them from here


def shifted(seed: int = 0) -> int:
    """The seed of a training in the tests.

    >>> shifted(3) - SHIFT
    3
    """
    return seed + SHIFT


def assert_effect(what: str, effect: float, error: float, seeds: Sequence[int] = (0,)) -> None:
    """Fail unless ``effect`` is above zero by three of its standard errors; ``seeds`` are those before the shift.

    >>> assert_effect("heads beyond one half", 0.2, 0.05)
    >>> assert_effect("heads beyond one half", 0.1, 0.05)
    Traceback (most recent call last):
    AssertionError: heads beyond one half: effect 0.1, error 0.05, 2.0 of them (seed 0); expected 3 or more
    """
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(str(shifted(seed)) for seed in seeds)}"
    found = Effect(what, float(effect), float(error), named)
    MEASURED.append(found)
    assert found.margin >= AT_LEAST, f"{found}; expected {AT_LEAST:.0f} or more"


def assert_mean(what: str, values: Sequence[float], seeds: Sequence[int]) -> None:
    """The effect is a mean of one value per seed, and its error that of the mean."""
    n = len(values)
    assert n == len(seeds) > 2  # with fewer the error is hardly known
    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    assert_effect(what, mean, spread / math.sqrt(n), seeds)


def assert_memorized(metrics: str | os.PathLike[str], n_permuted: int) -> None:
    """The last epoch of a ``metrics.csv`` is beyond the gate."""
    table = pd.read_csv(metrics)
    reached = table[table["kind"] == "permuted"].sort_values("epoch")["accuracy"].iloc[-1]
    assert_effect("permuted accuracy above the gate of .95", reached - 0.95, share_error(reached, n_permuted))


def share_error(share: float, n: int) -> float:
    """Standard error of a share of ``n`` examples, two hits and two misses added: that of none or all is not zero.

    Agresti and Coull (1998), The American Statistician 52, 119.

    >>> round(share_error(1.0, 96), 3), round(share_error(0.5, 96), 3)
    (0.014, 0.05)
    """
    adjusted = (share * n + 2) / (n + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (n + 4))

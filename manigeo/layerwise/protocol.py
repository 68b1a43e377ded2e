"""Protocol of a measure of a layer and kind: its settings, its names, and its rows of the results table.

A measure is a frozen dataclass: its fields are the settings that stand in the settings of its rows. To add one, write its
numerics where these belong, the measure in a file of this folder, and a line in :mod:`manigeo.layerwise.registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar
from zlib import crc32

import numpy as np

from manigeo.layerwise.points import LabelledPoints
from manigeo.manifolds import ALL_KINDS, KINDS

Row = dict[str, Any]
Others = Mapping[str, Callable[[], LabelledPoints]]  # by kind, read when it is called

AGAINST = "against"  # the same examples in other activations, among the others of a sample
_RESERVED = 2  # spawn keys between the four kinds and the others: see manigeo.layerwise.sample


class Measure(ABC):
    """One thing that is measured of every layer and kind.

    ``metrics`` are the aggregates that a kind always has, NaN where it cannot be measured; ``profiles`` the metrics with a
    row for each class; ``transfers`` those with rows of each other kind of the same classes.

    A row holds ``metric``, ``value``, ``stderr``, ``n`` (0 where nothing was measured), ``flag`` and, of a class,
    ``manifold``. A row of another kind carries ``kind``, and one of other numbers of examples ``per_class``, which is then
    one of ``examples``.
    """

    name: ClassVar[str]
    needs: ClassVar[str] = "plain"  # or "standardised": what is asked of points that are not held

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]: ...

    @property
    def profiles(self) -> tuple[str, ...]:
        return ()

    @property
    def transfers(self) -> tuple[str, ...]:
        return ()

    @property
    def examples(self) -> tuple[int, ...]:
        """Numbers of examples per class that rows are computed from; without any, that of the plan."""
        return ()

    @property
    def training(self) -> int:
        """Most examples per class of the training set, for a measure that is fitted on these and scores test examples: it is
        of the kind ``test`` alone, and ``others`` holds the training set under its name, ``train``. Else 0."""
        return 0

    def describe(self) -> str:
        """The settings in the words of a plan."""
        return self.name.replace("_", " ")

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        """Rough time for ``n`` points on one core of a machine of 2024; 0 where it is not known."""
        return 0.0

    def key(self, layer: str, kind: str) -> tuple[int, ...]:
        """The spawn key of the random numbers: its own in every layer and kind."""
        return crc32(layer.encode()), kind_key(kind), crc32(self.name.encode())

    @abstractmethod
    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        """The numbers of a sample; ``others`` are the kinds of the same layer and classes."""


def kind_key(kind: str) -> int:
    """The spawn key of a kind."""
    place = ALL_KINDS.index(kind)
    return place if place < len(KINDS) else place + _RESERVED


def nothing(metrics: Sequence[str], flag: str) -> Iterator[Row]:
    """NaN, and why."""
    for metric in metrics:
        yield {"metric": metric, "value": np.nan, "n": 0, "flag": flag}

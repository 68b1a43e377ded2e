"""Trials of the methods on networks whose memorizing layers are known: how often each method found them.

``trials.csv`` is the summary by kind of network of ``data/results/localization_benchmark.csv``, which ``manigeo benchmark``
makes: networks that have learned permuted labels in chosen layers alone. A layer counts as found where the largest share
of a method is at it, or at a neighbour.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources

import pandas as pd

ALL = "all"
# architecture of the package -> the kind of network on trial that it is like
_LIKE = {
    "mlp": "mlp", "cnn": "cnn", "vgg11": "cnn", "vgg16": "cnn", "alexnet": "cnn", "resmlp": "residual",
    "resnet18": "residual", "densenet": "residual", "vit": "transformer", "gpt": "language",
}  # fmt: skip
_NAMES = {
    "mlp": "fully connected", "cnn": "convolutional", "residual": "residual", "transformer": "transformer",
    "language": "language-model", ALL: "planted",
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """Share of networks in which a method found the planted layer, with its 95 % interval, and by chance."""

    kind: str
    found: float
    low: float
    high: float
    n: int
    chance: float

    @property
    def better_than_chance(self) -> bool:
        return self.low > self.chance

    def words(self) -> str:
        """In a half sentence.

        >>> Trial("mlp", 0.975, 0.94, 0.99, 120, 0.36).words()
        'found the planted layer in 98 % [94, 99] of 120 fully connected networks (by chance 36 %)'
        >>> Trial("cnn", 0.4, 0.3, 0.5, 40, 0.6).words()
        'no better than chance at finding a planted layer: 40 % [30, 50] of 40 convolutional networks (by chance 60 %)'
        """
        share = f"{100 * self.found:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"
        where = f"{share} of {self.n} {_NAMES[self.kind]} networks (by chance {100 * self.chance:.0f} %)"
        if self.better_than_chance:
            return f"found the planted layer in {where}"
        return f"no better than chance at finding a planted layer: {where}"


def kind_of(arch: str | None) -> str:
    """The kind of network on trial that an architecture is like; all of them together for an unknown one.

    >>> kind_of("vgg16"), kind_of("my.module:net")
    ('cnn', 'all')
    """
    return _LIKE.get(arch or "", ALL)


def trial_of(method: str, kind: str = ALL) -> Trial | None:
    """The trial of a method on networks of a kind, or on all where that was not tried; None for a method without any."""
    known = _trials()
    for wanted in (kind, ALL):
        rows = known[(known["method"] == method) & (known["kind"] == wanted)]
        if len(rows):
            found, low, high, n, chance = map(
                float, rows.iloc[0][["found", "found_low", "found_high", "found_n", "chance"]]
            )
            return Trial(wanted, found, low, high, int(n), chance)
    return None


@cache
def _trials() -> pd.DataFrame:
    with resources.files("manigeo.localization").joinpath("trials.csv").open("rb") as file:
        return pd.read_csv(file)

"""Scores of localization on planted networks: was the planted layer found, and how often would it be by chance?

A method answers with a share for each layer. The k layers of the largest shares are its answer where k are planted. It has
*found* them where each planted layer has an answer within one layer and each answer a planted layer; *rank* is 1 where the
planted layers are the first k, 2 where one other layer is above them, and so on; *covered* tells whether the interval of
the centre of mass holds that of the planted layers. Where nothing is planted, *located* is a false alarm.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import binomtest

from manigeo.results import with_settings
from manigeo_extract.planting.cases import NOWHERE

NEAR = 1  # layers between an answer and a planted layer that still count as found
LEVEL = 0.95
Row = dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """All layers by execution, and the planted ones among them."""

    layers: tuple[str, ...]
    planted: tuple[str, ...]

    @property
    def places(self) -> list[int]:
        return [self.layers.index(name) for name in self.planted]

    @property
    def is_somewhere(self) -> bool:
        """Return whether there is a place to be found: some layers, but not all."""
        return 0 < len(self.planted) < len(self.layers)


def score_methods(table: pd.DataFrame, truth: Truth) -> list[Row]:
    """Score every method of a table of :func:`manigeo.localization.statement.localization_table` for one network.

    Rows with ``method``, ``located``, ``peak`` (the layer of the largest share), ``found``, ``chance`` (the probability of
    finding by guessing), ``rank``, ``covered`` and ``p_value``; NaN where a question has no answer.
    """
    full = with_settings(table, "method", "other")
    of_methods = full[full["method"].notna() & full["other"].isna()]
    return [{"method": name} | _score(rows, truth) for name, rows in of_methods.groupby("method", sort=False)]


def _score(rows: pd.DataFrame, truth: Truth) -> Row:
    profile = rows[rows["metric"] == "profile"].sort_values("depth")
    places = [place_of(layer, truth.layers) for layer in profile["layer"]]
    shares = np.full(len(truth.layers), -np.inf)
    for place, share in zip(places, profile["value"], strict=True):
        if place is not None:
            shares[place] = max(shares[place], 0.0) + share
    scored = {
        "located": _value(rows, "localized"),
        "p_value": _value(rows, "p_value"),
        "peak": truth.layers[int(shares.argmax())],
    }
    if not truth.is_somewhere:
        return scored
    answer = np.argsort(-shares, kind="stable")[: len(truth.planted)]
    return scored | {
        "found": float(is_found(answer, truth.places)),
        "chance": chance(len(truth.layers), truth.places),
        "rank": _rank(shares, truth.places),
        "covered": _covered(rows, places, truth),
    }


def place_of(layer: str, layers: Sequence[str]) -> int | None:
    """The position of the layer that is this one, holds it, or lies within it; None where there is none.

    >>> [place_of(name, ["h1", "h2"]) for name in ("h2", "h2.linear", "input")]
    [1, 1, None]
    """
    related = (
        i for i, of in enumerate(layers) if layer == of or layer.startswith(f"{of}.") or of.startswith(f"{layer}.")
    )
    return next(related, None)


def is_found(answer: Sequence[int] | Int[np.ndarray, " k"], planted: Sequence[int]) -> bool:
    """Return whether every planted layer has an answer near it, and every answer a planted layer.

    >>> is_found([3], [2]), is_found([4], [2]), is_found([0, 1], [0, 5])
    (True, False, False)
    """
    near = np.abs(np.subtract.outer(np.asarray(answer), np.asarray(planted))) <= NEAR
    return bool(near.any(axis=0).all() and near.any(axis=1).all())


def chance(n_layers: int, planted: Sequence[int]) -> float:
    """The share of all answers of as many layers that count as found.

    >>> chance(4, [0]), chance(5, [2])
    (0.5, 0.6)
    """
    answers = list(itertools.combinations(range(n_layers), len(planted)))
    return sum(is_found(answer, planted) for answer in answers) / len(answers)


def _rank(shares: Float[np.ndarray, " layers"], planted: Sequence[int]) -> float:
    """1 where all other layers have smaller shares; of equal ones the mean of the ranks they share."""
    lowest = min(shares[place] for place in planted)
    others = np.delete(shares, list(planted))
    return float(1 + (others > lowest).sum() + (others == lowest).sum() / 2)


def _covered(rows: pd.DataFrame, places: Sequence[int | None], truth: Truth) -> float:
    """On the scale of depth that the table counts on."""
    depths = rows[rows["metric"] == "profile"].sort_values("depth")["depth"]
    own = [[at for at, place in zip(depths, places, strict=True) if place == planted] for planted in truth.places]
    low, high = (_value(rows, f"center_of_mass_ci_{end}") for end in ("low", "high"))
    if not all(own) or np.isnan([low, high]).any():
        return np.nan
    center = float(np.mean([np.mean(positions) for positions in own]))
    return float(low - 1e-9 <= center <= high + 1e-9)  # sums of shares miss a whole number by rounding


def _value(rows: pd.DataFrame, metric: str) -> float:
    found = rows.loc[rows["metric"] == metric, "value"]
    return float(found.iloc[0]) if len(found) else np.nan


# ---------------------------------------------------------------------------------------------------------- over cells
def summarize(scores: pd.DataFrame, by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Summarize the scores of many cells by these columns, in the order of their first rows.

    Shares ``found``, ``covered`` and ``false_alarms``, each with its number of cells (``_n``) and exact binomial interval
    (``_low``, ``_high``; Clopper & Pearson 1934), ``chance`` and the median ``rank``. Cells in which something was planted
    count where they have reached the gate.
    """
    rows = [
        dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)) | _summary(group)
        for key, group in scores.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(rows)


def _summary(group: pd.DataFrame) -> Row:
    nothing = group[group["place"].eq(NOWHERE)]
    planted = group[group["place"].ne(NOWHERE) & group["reached"].astype(bool)]
    shares = {"found": planted["found"], "covered": planted["covered"], "located": planted["located"]}
    columns = {key: value for name, values in shares.items() for key, value in _share(name, values).items()}
    return {
        **columns,
        "chance": planted["chance"].mean(),
        "rank": planted["rank"].median(),
        **_share("false_alarms", nothing["located"]),
    }


def _share(name: str, values: pd.Series) -> Mapping[str, float]:
    known = values.dropna().astype(float)
    if known.empty:
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan, f"{name}_n": 0}
    interval = binomtest(int(known.sum()), len(known)).proportion_ci(LEVEL, method="exact")
    return {name: known.mean(), f"{name}_low": interval.low, f"{name}_high": interval.high, f"{name}_n": len(known)}


def describe_summary(summary: pd.DataFrame) -> Iterator[str]:
    """One line per row: shares with their intervals and numbers of cells."""
    of = [name for name in summary.columns if not pd.api.types.is_numeric_dtype(summary[name])]
    for row in summary.to_dict("records"):
        who = ", ".join(str(row[name]) for name in of)
        said = [f"{name.replace('_', ' ')} {_shown(row, name)}" for name in ("found", "covered", "false_alarms")]
        yield f"{who}: {'; '.join(said)}; chance {row['chance']:.2f}; median rank {row['rank']:.1f}"


def _shown(row: Mapping[str, Any], name: str) -> str:
    n = row[f"{name}_n"]
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}] of {n}" if n else "of no cell"

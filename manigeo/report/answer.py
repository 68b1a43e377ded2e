"""The answer, from the table of manigeo localize: in words, then one line per method, and whether the methods agree."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from manigeo.localization.statement import describe_localization
from manigeo.results import with_settings
from manigeo.text.cells import NOTHING, number
from manigeo.vocabulary import flags_words


@dataclass(frozen=True)
class Verdict:
    """Verdict of one method: onset and centre of mass with their intervals, as layers are counted from 0."""

    method: str
    onset: str
    center: str
    p_value: str
    verdict: str


@dataclass(frozen=True)
class Answer:
    """``blocks``: paragraphs, and lists of points; ``agreements``: two methods and the correlation of their profiles."""

    blocks: tuple[str | tuple[str, ...], ...]
    verdicts: tuple[Verdict, ...]
    agreements: tuple[tuple[str, str, str], ...]


def read_answer(aggregates: pd.DataFrame) -> Answer | None:
    """Read the answer from the table; None where nothing was localized."""
    rows = with_settings(aggregates, "analysis", "method", "other")
    rows = rows[rows["analysis"] == "localize"]
    if rows.empty:
        return None
    plain = aggregates.loc[rows.index]
    try:
        blocks = _blocks(describe_localization(plain, correlations=False))
    except (KeyError, IndexError, ValueError, TypeError) as error:  # a table that another version wrote
        blocks = (f"The localization cannot be put into words ({error!r}); its numbers are in the tables below.",)
    of_one, of_two = rows[rows["method"].notna() & rows["other"].isna()], rows[rows["other"].notna()]
    verdicts = tuple(_verdict(str(method), part) for method, part in of_one.groupby("method", sort=False))
    pairs = of_two.groupby(["method", "other"], sort=False)
    agreements = tuple((str(a), str(b), _with_interval(part, "agreement")) for (a, b), part in pairs)
    return Answer(blocks, verdicts, agreements)


def _blocks(text: str) -> tuple[str | tuple[str, ...], ...]:
    """Lines as paragraphs; those that begin with a dash as points of a list.

    >>> _blocks("One.\\n- two\\n- three")
    ('One.', ('two', 'three'))
    """
    blocks: list[str | tuple[str, ...]] = []
    for line in filter(None, (line.strip() for line in text.replace(" %", "\N{NO-BREAK SPACE}%").splitlines())):
        if not line.startswith("- "):
            blocks.append(line)
        elif blocks and isinstance(blocks[-1], tuple):
            blocks[-1] = (*blocks[-1], line[2:])
        else:
            blocks.append((line[2:],))
    return tuple(blocks)


def _verdict(method: str, rows: pd.DataFrame) -> Verdict:
    profile = rows[rows["metric"] == "profile"]
    layers = dict(zip(profile["depth"], profile["layer"], strict=True))
    localized = rows[rows["metric"] == "localized"]
    flag = "" if localized.empty else str(localized["flag"].iloc[0])
    said = "localized" if len(localized) and localized["value"].iloc[0] == 1 else flags_words(flag) if flag else NOTHING
    p_value = _first(rows, "p_value")
    return Verdict(
        method,
        _onset(rows, layers),
        _with_interval(rows, "center_of_mass"),
        number(p_value, 2),
        said,
    )


def _onset(rows: pd.DataFrame, layers: dict[Any, str]) -> str:
    """Names of layers, where the table tells which is which."""
    at, low, high = (_first(rows, f"onset{ending}") for ending in ("", "_ci_low", "_ci_high"))
    named, first, last = (layers.get(round(x) if x == x else None, number(x, 3)) for x in (at, low, high))
    return named if low != low or first == last == named else f"{named} [{first}, {last}]"


def _with_interval(rows: pd.DataFrame, metric: str) -> str:
    value, low, high = (_first(rows, f"{metric}{ending}") for ending in ("", "_ci_low", "_ci_high"))
    return number(value, 3) + (f" [{number(low, 3)}, {number(high, 3)}]" if low == low else "")


def _first(rows: pd.DataFrame, metric: str) -> float:
    values = rows.loc[rows["metric"] == metric, "value"]
    return float(values.iloc[0]) if len(values) else float("nan")

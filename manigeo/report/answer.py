"""The answer, from the table of manigeo localize: in words, then one line per method, and whether the methods agree."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from manigeo.localization.depth import layer_list
from manigeo.localization.statement import REFERENCE, correlation_matrix, describe_localization
from manigeo.report.sources import ResultsFile
from manigeo.results import with_settings
from manigeo.text.cells import NOTHING, number
from manigeo.vocabulary import flags_words


@dataclass(frozen=True)
class Verdict:
    """Verdict of one method: onset and centre of mass with their intervals, as layers are counted from 0; where it localizes
    the layers that it ``named``, and the ``depth`` of its centre of mass in percent."""

    method: str
    onset: str
    center: str
    p_value: str
    verdict: str
    named: str = ""
    depth: float = float("nan")


@dataclass(frozen=True)
class Correlations:
    """Rank correlations with intervals, as a matrix above its diagonal: names ``across``, ``rows`` of a name and cells."""

    across: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Answer:
    """``leads``: the two sentences of the answer, or the one that says why there is none; ``blocks``: sentences beside them,
    and ``points``, a line per method; ``correlations`` of the methods' profiles; ``of``: the runs, and ``source``: the file.
    """

    of: tuple[str, ...]
    source: str
    leads: tuple[str, ...]
    blocks: tuple[str, ...]
    points: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    correlations: Correlations


def read_answers(files: Iterable[ResultsFile]) -> list[Answer]:
    """The answers, one of each table that localizes: of one run, or of several together; those of most runs first."""
    of_files = ((file.name, file.table[file.table["manifold"] == ""]) for file in files)
    found = [answer for name, aggregates in of_files if (answer := read_answer(aggregates, name))]
    return sorted(found, key=lambda answer: -len(answer.of))


def read_answer(aggregates: pd.DataFrame, source: str = "") -> Answer | None:
    """Read the answer from the table of the file ``source``; None where nothing was localized."""
    rows = with_settings(aggregates, "analysis", "method", "other")
    rows = rows[rows["analysis"] == "localize"]
    if rows.empty:
        return None
    plain = aggregates.loc[rows.index]
    of = tuple(dict.fromkeys(plain.loc[plain["metric"] == "gate", "run"]))
    try:
        leads, blocks, points = _parts(describe_localization(plain, correlations=False))
    except (KeyError, IndexError, ValueError, TypeError) as error:  # a table that another version wrote
        said = f"The localization cannot be put into words ({error!r}); its numbers are in the tables below."
        leads, blocks, points = (said,), (), ()
    of_one = rows[rows["method"].notna() & rows["other"].isna()]
    verdicts = tuple(_verdict(str(method), part) for method, part in of_one.groupby("method", sort=False))
    return Answer(of, source, leads, blocks, points, verdicts, _correlations(rows))


def _correlations(rows: pd.DataFrame) -> Correlations:
    matrix = correlation_matrix(rows)
    of_two = {key: part for key, part in rows[rows["other"].notna()].groupby(["method", "other"])}
    cells = {one: tuple(_correlation(of_two.get((one, other))) for other in matrix.columns) for one in matrix.index}
    return Correlations(tuple(matrix.columns), tuple(cells.items()))


def _correlation(rows: pd.DataFrame | None) -> str:
    if rows is None:
        return ""
    value, low, high = (_first(rows, f"agreement{ending}") for ending in ("", "_ci_low", "_ci_high"))
    interval = f" [{low:+.2f}, {high:+.2f}]" if low == low else ""
    return f"{value:+.2f}{interval}" if value == value else NOTHING


def _parts(text: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    r"""The two sentences of the answer, the other lines, and those that begin with a dash.

    >>> _parts("Yes.\nCompared with epoch 2.\nApart at a.\nHeld by b.\nBoth hold.\n- two")
    (('Apart at a.', 'Held by b.'), ('Yes.', 'Compared with epoch 2.', 'Both hold.'), ('two',))
    """
    lines = list(filter(None, (line.strip() for line in text.replace(" %", "\N{NO-BREAK SPACE}%").splitlines())))
    points = tuple(line[2:] for line in lines if line.startswith("- "))
    said = [line for line in lines if not line.startswith("- ")]
    if len(said) < 3:
        return tuple(said), (), points
    first = 1 + said[1].startswith(REFERENCE)
    return tuple(said[first : first + 2]), (*said[:first], *said[first + 2 :]), points


def _verdict(method: str, rows: pd.DataFrame) -> Verdict:
    profile = rows[rows["metric"] == "profile"].sort_values("depth")
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
        layer_list(list(layers.values()), _named(rows)) if said == "localized" else "",
        100 * _first(rows, "center_of_mass") / _first(rows, "depth_of_last_layer"),
    )


def _named(rows: pd.DataFrame) -> list[int]:
    values = rows.loc[rows["metric"] == "named"].sort_values("depth")["value"]
    return [i for i, value in enumerate(values) if value == 1]


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

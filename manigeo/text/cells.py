"""The rows of a results table as lines and columns of such cells."""

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from manigeo.faces.numbers import NOTHING as NOTHING
from manigeo.faces.numbers import cell as cell
from manigeo.faces.numbers import measured as measured
from manigeo.faces.numbers import number as number
from manigeo.kinds import in_order
from manigeo.vocabulary import flag_words, metric_words

if TYPE_CHECKING:
    import pandas as pd


def duration(seconds: float) -> str:
    """
    >>> duration(45), duration(600), duration(9000)
    ('45 s', '10 minutes', '2.5 hours')
    """
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def listed(names: Collection[object], most: int = 8) -> str:
    """Names with commas between; how many more there are.

    >>> listed(["a", "b"]), listed(range(10), most=3)
    ('a, b', '0, 1, 2 and 7 more')
    """
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def wide(
    rows: "pd.DataFrame",
    line: str | Sequence[str] = "layer",
    column: str = "kind",
    digits: int | None = None,
    figures: int = 2,
    errors: bool = True,
) -> "pd.DataFrame":
    """Cells, one line per layer (or what else ``line`` names) in the order of the rows, one column per kind in theirs."""
    stderr = rows["stderr"] if errors else [math.nan] * len(rows)
    cells = [cell(value, error, digits, figures) for value, error in zip(rows["value"], stderr, strict=True)]
    lines = rows.set_index([line] if isinstance(line, str) else list(line)).index.unique()
    table: pd.DataFrame = rows.assign(cell=cells).pivot(index=line, columns=column, values="cell")
    return table.reindex(index=lines, columns=in_order(rows[column]))


def as_text(table: "pd.DataFrame", title: str = "") -> str:
    """A table of :func:`wide` under its title."""
    unnamed = table if table.index.nlevels > 1 else table.rename_axis(index=None)
    text: str = unnamed.rename_axis(columns=title or None).to_string(na_rep=NOTHING)
    return text


def renamed(table: "pd.DataFrame") -> "pd.DataFrame":
    """The same table with the names of the metrics that are its columns."""
    return table.rename(columns=lambda key: metric_words(key).name)


def blocks(aggregates: "pd.DataFrame", metrics: Sequence[str]) -> list[str]:
    """A block for each of these metrics that the table holds: one line per layer by depth, one column per kind."""
    rows = aggregates.sort_values("depth", kind="stable")
    parts = {name: rows[rows["metric"] == name] for name in metrics}
    words = {name: metric_words(name) for name, part in parts.items() if len(part)}
    return [as_text(wide(parts[name], digits=of.digits), of.name) for name, of in words.items()]


def flag_lines(aggregates: "pd.DataFrame") -> list[str]:
    """A block with one line per flag: its sentence, and the kinds and layers it is about."""
    flagged = aggregates[aggregates["flag"] != ""]
    flagged = flagged.assign(flag=flagged["flag"].str.split(";")).explode("flag")
    every, lines = aggregates["layer"].nunique(), []
    for flag, rows in flagged.groupby("flag", sort=False):
        layers = {kind: list(dict.fromkeys(of_kind["layer"])) for kind, of_kind in rows.groupby("kind")}
        places = [
            " ".join(filter(None, [kind, "" if len(names) == every else f"({listed(names)})"]))
            for kind in in_order(layers)
            if any(names := layers[kind])
        ]
        lines.append(f"{flag_words(str(flag))}: {', '.join(places)}".removesuffix(": "))
    return ["\n".join(["flags", *lines])] if lines else []

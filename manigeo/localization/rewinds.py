"""The choice of how far back to rewind, from the table of ``manigeo rewind`` alone."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from manigeo.results import as_table, with_settings

Row = dict[str, Any]
_PLACE = ["run", "checkpoint", "epoch", "fingerprint"]


def rewind_summary(table: pd.DataFrame) -> pd.DataFrame:
    """The network to take of those with their last k = 0, 1, ... layers rewound, over all epochs: ``selected`` is 1 for the
    one that does best on validation examples (of equals the one that changes least).
    """
    return as_table(list(_selected(with_settings(table[table["metric"] == "accuracy"], "sweep", "k", "to"))))


def _selected(accuracy: pd.DataFrame) -> Iterator[Row]:
    among = accuracy[(accuracy["kind"] == "validation") & accuracy["sweep"].isin(["none", "last"])]
    if not among.empty and among["sweep"].eq("last").any():
        best = among[among["value"] == among["value"].max()].sort_values("k", kind="stable").iloc[0]
        yield _like(best.to_dict(), "selected") | {"value": 1.0}


def _like(row: Row, metric: str) -> Row:
    same = {name: row[name] for name in (*_PLACE, "layer", "depth", "kind", "n", "settings")}
    return same | {"metric": metric}


def selected_rows(table: pd.DataFrame) -> pd.DataFrame:
    """All numbers of the network that :func:`rewind_summary` selected; none where nothing was."""
    chosen = table[table["metric"] == "selected"]
    keys = set(zip(chosen["layer"], chosen["settings"], strict=True))
    return table[[key in keys for key in zip(table["layer"], table["settings"], strict=True)]]

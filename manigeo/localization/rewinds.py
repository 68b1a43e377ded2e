"""Accuracy that rewinding layers regains, and how far back to rewind: from the table of ``manigeo rewind`` alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from manigeo.results import as_table, with_settings

Row = dict[str, Any]
_PLACE = ["run", "checkpoint", "epoch", "fingerprint"]


def rewind_summary(table: pd.DataFrame) -> pd.DataFrame:
    r"""For each rewound network the share of the lost test accuracy that it regains, and which of them to take.

    .. math:: \mathrm{regained} = \frac{\mathrm{acc}' - \mathrm{acc}}{\mathrm{acc}_e - \mathrm{acc}}

    with the test accuracies of the rewound network, of the trained one, and of the whole network at the epoch e that it is
    rewound to; NaN with the flag ``nothing_lost`` where the trained one is no worse. ``selected`` is 1 for the one of the
    last k = 0, 1, ... layers, over all epochs, that does best on validation examples (of equals the one that changes least).
    """
    accuracy = with_settings(table[table["metric"] == "accuracy"], "sweep", "k", "to")
    return as_table([*_regained(accuracy, table), *_selected(accuracy)])


def _regained(accuracy: pd.DataFrame, table: pd.DataFrame) -> Iterator[Row]:
    test = accuracy[accuracy["kind"] == "test"]
    drops = table[(table["metric"] == "accuracy_drop") & (table["kind"] == "test")]
    errors = drops.set_index(["layer", "settings"])["stderr"]
    trained = test.loc[test["sweep"] == "none", "value"]
    whole = test[test["sweep"] == "whole"].set_index("to")["value"]
    for row in test[~test["sweep"].isin(["none", "whole"])].to_dict("records"):
        if trained.empty or row["to"] not in whole:
            continue
        lost = float(whole[row["to"]] - trained.iloc[0])
        error = float(errors.get((row["layer"], row["settings"]), np.nan))
        if lost > 0:
            found = {"value": (row["value"] - trained.iloc[0]) / lost, "stderr": error / lost}
        else:
            found = {"value": np.nan, "flag": "nothing_lost"}
        yield _like(row, "regained") | found


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

"""Rows that a figure puts together: of one network where one is drawn, and each number once."""

from collections.abc import Collection, Sequence

import pandas as pd

from manigeo.errors import InputError, shorten
from manigeo.localization.measurements import difference
from manigeo.results import COLUMNS, bare_settings, with_settings

NETWORK = ["run", "epoch", "checkpoint", "fingerprint"]  # runs may share a name
# settings that tell rows of one table apart, beside its columns
_CELL = (
    "analysis", "sweep", "to", "to_epoch", "k", "direction", "steps", "chosen", "method", "question", "other", "with",
    "trained_on", "measure", "null", "against", "against_checkpoint", "against_epoch",
)  # fmt: skip
_SIZES = ("per_class", "examples")  # in which the points of a curve differ


def check_one(table: pd.DataFrame, metrics: Collection[str], of: str | None, columns: Sequence[str]) -> None:
    """Check that the rows of these metrics, or ``of`` an analysis, are the same in these columns: of one network, or run.

    Raises :class:`~manigeo.errors.InputError` where they are of several.
    """
    drawn = table["metric"].isin(list(metrics)) if of is None else with_settings(table, "analysis")["analysis"] == of
    found = table.loc[drawn, list(columns)].drop_duplicates()
    if columns and len(found) > 1:
        what = "networks" if "fingerprint" in columns else "runs"
        named = found[[name for name in ("run", "checkpoint") if name in columns]].to_numpy()
        names = dict.fromkeys("/".join(filter(None, of_one)) for of_one in named)
        raise InputError(
            f"the tables are of {len(found)} {what} ({shorten(', '.join(filter(None, names)), 80)}): plot one at a time"
        )


def check_once(table: pd.DataFrame) -> None:
    """Check that no number over manifolds stands in the tables twice.

    Raises :class:`~manigeo.errors.InputError`, with the settings that differ, where one does.
    """
    rows = with_settings(table[table["manifold"] == ""], *_CELL, *_SIZES).drop_duplicates(list(COLUMNS))
    is_curve = rows["metric"].str.endswith("_sweep")
    sizes = {name: rows[name].where(is_curve) for name in ("n", *_SIZES)}
    cells = rows[[*NETWORK, "layer", "kind", "metric", *_CELL]].assign(**sizes)
    cells = cells.astype(object).where(cells.notna(), "").map(str)
    twice = cells.duplicated(keep=False)
    if twice.any():
        same = (cells == cells[twice].iloc[0]).all(axis=1)
        if not (why := difference(*(bare_settings(text) for text in rows.loc[same, "settings"][:2]))):
            raise InputError("the tables hold two values of the same numbers: plot one of them")
        raise InputError(f"the tables hold the same layers at different settings ({why}): plot one of the settings")

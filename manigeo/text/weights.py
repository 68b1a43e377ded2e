"""The tables of ``manigeo weights`` and ``manigeo correlate``, printed."""

import pandas as pd

from manigeo.correlation import COEFFICIENTS
from manigeo.text.cells import NOTHING, as_text, renamed, wide
from manigeo.vocabulary import metric_words
from manigeo.weights import MEASURES


def weights_report(table: pd.DataFrame) -> str:
    """Movement of each layer at the last checkpoint: one line per layer, one column per measure."""
    last = table[(table["checkpoint"] == table["checkpoint"].iloc[-1]) & table["metric"].isin(MEASURES)]
    cells = wide(last.sort_values("depth", kind="stable"), column="metric", errors=False)
    return as_text(renamed(cells[[name for name in MEASURES if name in cells and name != "angle"]]))


def correlation_report(table: pd.DataFrame) -> str:
    """Coefficients of each layer with their intervals: one line per layer."""
    over_runs = table[(table["run"] == "") & table["layer"].ne("")]
    values = over_runs.pivot(index=["depth", "layer"], columns="metric", values="value").reset_index("depth", drop=True)
    names = (*COEFFICIENTS, "spearman_partial")
    cells = {metric_words(name).name: [_interval(row, name) for _, row in values.iterrows()] for name in names}
    return as_text(pd.DataFrame(cells, values.index))


def _interval(row: pd.Series, name: str) -> str:
    value, low, high = (row[f"{name}{ending}"] for ending in ("", "_ci_low", "_ci_high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if value == value else NOTHING

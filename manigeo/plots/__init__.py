"""Figures from the results table. Every function takes a table and returns a matplotlib figure.

The only package that imports seaborn.
"""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from manigeo.plots.geometry import PANELS, plot_estimators, plot_geometry, plot_sweep
from manigeo.plots.movement import WEIGHT_PANELS, plot_correlation, plot_weights
from manigeo.plots.style import save_figure

__all__ = [
    "FIGURES", "PANELS", "WEIGHT_PANELS", "figures_of", "plot_correlation", "plot_estimators", "plot_geometry",
    "plot_sweep", "plot_weights", "save_figure",
]  # fmt: skip

FIGURES: dict[str, tuple[Callable[[pd.DataFrame], Figure], frozenset[str]]] = {
    "geometry": (plot_geometry, frozenset({"capacity"})),
    "estimators": (plot_estimators, frozenset({"capacity_joint", "capacity_simulated"})),
    "sweep": (plot_sweep, frozenset({"capacity_sweep"})),
    "weights": (plot_weights, frozenset({"step_angle"})),
    "correlation": (plot_correlation, frozenset({"gap"})),
}


def figures_of(table: pd.DataFrame) -> list[str]:
    """The figures that a table has numbers for, the main one first.

    >>> figures_of(pd.DataFrame({"metric": ["capacity", "capacity_sweep"], "value": [0.1, 0.1]}))
    ['geometry', 'sweep']
    """
    present = set(table.loc[table["value"].notna(), "metric"])
    return [name for name, (_, metrics) in FIGURES.items() if metrics & present]

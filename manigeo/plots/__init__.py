"""Figures from the results table. Every function takes a table and returns a matplotlib figure.

The only package that imports seaborn.
"""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from manigeo.plots.geometry import PANELS, plot_estimators, plot_geometry, plot_sweep
from manigeo.plots.gradients import plot_gradient_sizes, plot_gradients
from manigeo.plots.interventions import plot_reinit, plot_rewind
from manigeo.plots.localization import plot_localization
from manigeo.plots.movement import WEIGHT_PANELS, plot_correlation, plot_weights
from manigeo.plots.separability import (
    SEPARABILITY_PANELS,
    plot_memorization,
    plot_progress,
    plot_separability,
    plot_transfer,
    shows_memorization,
    shows_progress,
)
from manigeo.plots.studies import plot_criticality, plot_final_reset, plot_utilisation
from manigeo.plots.style import save_figure

__all__ = [
    "FIGURES", "PANELS", "WEIGHT_PANELS", "figures_of", "plot_correlation", "plot_estimators", "plot_geometry",
    "plot_memorization", "plot_progress", "plot_separability", "plot_sweep", "plot_transfer", "plot_weights", "save_figure",
]  # fmt: skip

FIGURES: dict[str, tuple[Callable[[pd.DataFrame], Figure], frozenset[str]]] = {
    "geometry": (plot_geometry, frozenset({"capacity"})),
    "estimators": (plot_estimators, frozenset({"capacity_joint", "capacity_simulated"})),
    "sweep": (plot_sweep, frozenset({"capacity_sweep"})),
    "weights": (plot_weights, frozenset({"step_angle"})),
    "correlation": (plot_correlation, frozenset({"gap"})),
    "separability": (plot_separability, frozenset(SEPARABILITY_PANELS)),
    "progress": (plot_progress, frozenset({"kmeans_nmi", "probe_accuracy"})),
    "transfer": (plot_transfer, frozenset({"transfer_accuracy"})),
    "memorization": (plot_memorization, frozenset({"probe_accuracy"})),
    "rewind": (plot_rewind, frozenset({"regained"})),
    "reinit": (plot_reinit, frozenset({"critical"})),
    "final-reset": (plot_final_reset, frozenset({"accuracy_gain"})),
    "utilisation": (plot_utilisation, frozenset({"prefix_accuracy"})),
    "criticality": (plot_criticality, frozenset({"criticality"})),
    "localization": (plot_localization, frozenset({"profile"})),
    "gradients": (plot_gradients, frozenset({"label_dependent_centred_norm"})),
    "gradient-sizes": (plot_gradient_sizes, frozenset({"label_dependent_centred_norm_sweep"})),
}

# Figures that take more than one number of their metrics.
_CONDITIONS: dict[str, Callable[[pd.DataFrame], bool]] = {
    "progress": shows_progress,
    "memorization": shows_memorization,
}


def figures_of(table: pd.DataFrame) -> list[str]:
    """The figures that a table has numbers for, the main one first.

    >>> figures_of(pd.DataFrame({"metric": ["capacity", "capacity_sweep"], "value": [0.1, 0.1]}))
    ['geometry', 'sweep']
    """
    present = set(table.loc[table["value"].notna(), "metric"])
    named = [name for name, (_, metrics) in FIGURES.items() if metrics & present]
    return [name for name in named if name not in _CONDITIONS or _CONDITIONS[name](table)]

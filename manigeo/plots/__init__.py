"""Figures from the results table. Every function takes a table and returns a matplotlib figure.

The only package that imports seaborn. A module in here draws the figures of one family; it is found where it lies, and its
functions are names of this package.
"""

import importlib
import pkgutil

import pandas as pd

from manigeo import vocabulary
from manigeo.plots.defaults import leave_out_folder_settings
from manigeo.plots.style import DRAWINGS, save_figure

__all__ = ["FIGURES", "figures_of", "save_figure"]

leave_out_folder_settings()
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
FIGURES = {name: DRAWINGS[name] for name in vocabulary.FIGURES}
globals().update({drawing.draw.__name__: drawing.draw for drawing in FIGURES.values()})


def figures_of(table: pd.DataFrame) -> list[str]:
    """The figures that a table has numbers for, the main one first.

    >>> figures_of(pd.DataFrame({"metric": ["capacity", "capacity_sweep"], "value": [0.1, 0.1]}))
    ['geometry', 'sweep']
    """
    present = set(table.loc[table["value"].notna(), "metric"])
    named = set(table["metric"])
    return [
        name
        for name, drawing in FIGURES.items()
        if drawing.metrics & present and drawing.needs <= named and drawing.when(table)
    ]

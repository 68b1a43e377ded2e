"""A user's script, for mypy to check against the public names of both packages (it is not run).

The types of numbers, tables, figures and results reach a user; those of pandas only where its stubs are installed.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import manigeo
import manigeo_extract as mx

clouds = [np.ones((3, 4)), np.zeros((3, 4))]
r = manigeo.manifold_capacity(clouds, n_draws=10)
capacity: float = r.capacity
low, high = r.interval("radius")
numbers: pd.DataFrame = r.table
r.plot()
joint: float = manigeo.joint_capacity(clouds).stderr
simulated: float = manigeo.simulated_capacity(clouds).capacity
accuracy: float = manigeo.linear_probe(clouds[0], ["a", "b", "a"]).accuracy
with manigeo.open_activations("acts.h5") as acts:
    names: tuple[str, ...] = tuple(acts.layers)
table: pd.DataFrame = manigeo.capacity_table(manigeo.plan_capacity("acts.h5"))
figure: Figure = manigeo.plot_geometry(table)
ax: Axes = manigeo.plot_geometry(table, ax=plt.subplots()[1], metric="capacity")
wide: pd.DataFrame = manigeo.summary(table)
point: float = manigeo.theory.point_capacity(0.0)
data = mx.load_data("digits")
monitor = mx.WeightMonitor
kinds: tuple[str, ...] = manigeo.KINDS

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Neural data
#
# Capacity is measured on arrays, and arrays may come from anywhere: responses of neurons, voxels, the features of a network
# that is not at hand. This notebook goes from responses of four areas to a figure with errors and a table.
#
# The recordings are made up, so that the answer is known: the same stimuli in each area, and from area to area the responses
# to one stimulus vary less. As in a real recording, stimuli were shown different numbers of times, and some trials failed.
#
# It runs in half a minute on one core; `MANIGEO_FULL=1` draws ten times as often.

# %%
import os
import subprocess
import sys
import warnings

import numpy as np

import manigeo

FULL = os.environ.get("MANIGEO_FULL") == "1"
DRAWS = 1000 if FULL else 100
STIMULI, NEURONS, VARIED = 20, 200, 12
RADIUS = {"V1": 2.0, "V2": 1.4, "V4": 1.0, "IT": 0.6}  # of the responses to one stimulus, in norms of their mean

rng = np.random.default_rng(0)
repetitions = rng.integers(18, 26, STIMULI)


def responses(radius, n):
    """Responses (repetitions, neurons) to one stimulus: around their mean, in VARIED directions of its own."""
    mean = rng.standard_normal(NEURONS)
    directions, _ = np.linalg.qr(rng.standard_normal((NEURONS, VARIED)))
    spread = rng.standard_normal((n, VARIED))
    spread /= np.linalg.norm(spread, axis=1, keepdims=True)
    return mean + radius * np.linalg.norm(mean) * spread @ directions.T


areas = {area: [responses(radius, n) for n in repetitions] for area, radius in RADIUS.items()}
for stimulus in (3, 7):
    areas["V4"][stimulus][:2] = np.nan  # trials that failed, in one area
names = [f"picture {i}" for i in range(STIMULI)]

# %% [markdown]
# ## From arrays to activations
#
# An area is one array `(conditions, repetitions, features)`, or, where conditions were not repeated equally often, a list of
# one `(repetitions, features)` array for each. With `nan="drop"` a trial that failed in one area is left out of all of them.
# What is left out, and what limits the comparison, stands in `notes`; it is warned of as well.

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore", manigeo.errors.InputWarning)  # the same as the notes
    acts = manigeo.Activations.from_arrays(areas, names, nan="drop")
print(acts)
print(*acts.notes, sep="\n")

# %% [markdown]
# A plan says what is to be compared before anything is computed. All stimuli have the same number of trials M in it, since
# capacity depends strongly on M.

# %%
plan = manigeo.plan_capacity(acts, n_draws=DRAWS)
plan

# %% [markdown]
# ## Capacity, radius and dimension of every area
#
# Bands are standard errors over stimuli. The dotted line is the capacity of points without any structure: an area on it tells
# stimuli apart no better than noise of so many trials would.

# %%
table = manigeo.capacity_table(plan)
manigeo.plot_geometry(table)

# %% [markdown]
# From area to area the radius falls, as it was made, and with it, less so, the dimension, which is that of the points that
# limit separation; so capacity rises. The numbers, and their standard errors:

# %%
manigeo.summary(table, ["capacity", "radius", "dimension"]).round(3)

# %%
manigeo.summary(table, ["capacity", "radius", "dimension"], "stderr").round(3)

# %% [markdown]
# The radius is that of the points that limit separation, and not that of the data, but it has to be in the same order:

# %%
radius = manigeo.summary(table)["radius"]["all"]
assert list(radius.sort_values(ascending=False).index) == list(RADIUS)

# %% [markdown]
# ## One area by itself
#
# Functions of single sets of manifolds take the same arrays. Here simulation, which makes no assumption about the manifolds,
# is put beside mean field; and the responses to each picture contribute as the figure shows.

# %%
clouds = acts.manifolds("IT", kind="all", per_class=plan.per_class)
it = manigeo.manifold_capacity(clouds, n_draws=DRAWS)
print(manigeo.simulated_capacity(clouds, n_dichotomies=50))
it

# %%
it.plot()

# %% [markdown]
# ## The same on the command line
#
# `manigeo capacity` takes the file that the data are in: `.npz` with one array per area, `.mat`, `.csv`, `.npy`, or `.h5` with
# `--dataset NAME` for each area. Labels are in the file, or `--labels` names them.

# %%
M = int(repetitions.min()) - 2
np.savez("areas.npz", labels=names, **{area: np.stack([X[-M:] for X in trials]) for area, trials in areas.items()})
line = "capacity areas.npz --draws 50 --no-total-dimension"
done = subprocess.run([sys.executable, "-m", "manigeo", *line.split()], capture_output=True, text=True, check=True)
print(done.stdout)

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Are all layers created equal?
#
# **The claim.** After training, some layers can be set back to their initial values and the network hardly notices,
# while others are critical; fresh random values are never tolerated (C. Zhang, S. Bengio, Y. Singer, *Are all layers
# created equal?*, JMLR 23, 2022). In a fully connected network on MNIST the critical layer is the first one.
#
# Here we train their network, three hidden layers of 256 units and a classifier, and exchange one layer at a time
# without any training afterwards. Ten rendered characters stand in for MNIST, so that nothing has to be downloaded;
# then a hundred characters show how far the claim depends on the task.
#
# Small settings take about 50 s on one core. `MANIGEO_FULL=1` trains on an MNIST-like data set instead, whose four idx
# files are in the folder that `MANIGEO_DATA` names (without it, on more characters), for 60 epochs: about ten minutes
# on one core.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import manigeo
from manigeo.plots.interventions import plot_reinit
from manigeo.results import with_settings

# %matplotlib inline

FULL = os.environ.get("MANIGEO_FULL") == "1"
DATA = os.environ.get("MANIGEO_DATA") if FULL else None
SEEDS = range(3)
EPOCHS = 60 if FULL else 15
TASK = f"idx:{DATA}" if DATA else "glyphs"
TASK_ARGS = [] if DATA else ["classes=10", f"train={600 if FULL else 200}", "test=100", "size=28"]
TASK_NAME = "idx files" if DATA else "ten characters"
HARDER_ARGS = [f"train={80 if FULL else 30}", "validation=5", "test=20"]

# %% [markdown]
# ## Train, and exchange layers
#
# `manigeo reinit` sets each layer to its own initial values (*re-initialise*), to what it was after the first epochs,
# to a fresh draw from the distribution of the initial values (*re-randomise*), and to zero, and scores the network.

# %%
workspace = tempfile.TemporaryDirectory()  # goes with the kernel
folder = Path(workspace.name)


def command(*words):
    done = subprocess.run(
        [sys.executable, "-m", "manigeo", *map(str, words)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def experiment(name, data, data_args, seed):
    """Train and exchange layers; the results table, settings as columns."""
    network = ["--permute", 0, "--arch", "mlp", "--arch-arg", "depth=3", "--arch-arg", "width=256"]
    training = ["--epochs", EPOCHS, "--lr", 0.05, "--batch-size", 128, "--checkpoint-epochs", "1,2,3,8", "--seed", seed]
    args = [word for arg in data_args for word in ("--data-arg", arg)]
    command("train", "--out", name, "--data", data, *args, *network, *training)
    command("reinit", name, "--cumulative", "--draws", 3, "--out", f"{name}.csv")
    return manigeo.read_results(folder / f"{name}.csv")


tables = [experiment(f"run{seed}", TASK, TASK_ARGS, seed) for seed in SEEDS]
plot_reinit(tables[0][tables[0]["kind"] == "test"])

# %% [markdown]
# The heat map is of the first seed: a row a layer, a column what it was set to. All seeds together:


# %%
def test_accuracy(tables):
    """Rows of test accuracy, a column `seed`; `to` is what layers were set to."""
    tagged = [table.assign(seed=seed) for seed, table in enumerate(tables)]
    rows = with_settings(pd.concat(tagged, ignore_index=True), "sweep", "to", "to_epoch", "k")
    rows = rows[(rows["kind"] == "test") & rows["metric"].isin(["accuracy", "normalised_drop"])].copy()
    epoch = rows["to_epoch"].astype(float)
    rows["to"] = rows["to"].where(epoch.isna(), "epoch " + epoch.map("{:.0f}".format))
    rows["layer"] = rows["layer"].str.removesuffix(".linear")
    return rows.drop_duplicates(["seed", "sweep", "layer", "to", "metric"])


def layer_by_state(rows, metric="accuracy"):
    """Mean over seeds, a row a layer, a column a state; the order is that of depth and epoch."""
    each = rows[(rows["sweep"] == "each") & (rows["metric"] == metric)]
    wide = each.pivot_table(index=["depth", "layer"], columns="to", values="value", sort=False).droplevel("depth")
    return wide[[name for name in STATES if name in wide]]


STATES = ["fresh draw", "zero", "epoch 0", "epoch 1", "epoch 2", "epoch 3", "epoch 8"]
rows = test_accuracy(tables)
trained = rows[(rows["sweep"] == "none") & (rows["metric"] == "accuracy")].set_index("seed")["value"]
print(f"test accuracy as trained: {trained.mean():.3f} ± {trained.std():.3f} ({len(trained)} seeds)")
layer_by_state(rows).round(3)

# %% [markdown]
# ## A hundred characters
#
# The same network on ten times as many classes, with fewer examples of each.

# %%
harder = test_accuracy([experiment("harder", "glyphs", HARDER_ARGS, 0)])
of_harder = harder[(harder["sweep"] == "none") & (harder["metric"] == "accuracy")]["value"].item()
print(f"test accuracy as trained: {of_harder:.3f}")
layer_by_state(harder).round(3)


# %%
def drop_by_epoch(rows):
    """The chance-normalised drop of test accuracy, layer by epoch that it was set back to."""
    drops = layer_by_state(rows, "normalised_drop").filter(like="epoch")
    return drops.rename(columns=lambda name: int(name.removeprefix("epoch ")))


def together(rows, sweep):
    """Mean test accuracy with the first or the last k layers re-initialised."""
    several = rows[rows["sweep"].isin([sweep, "none"]) & (rows["metric"] == "accuracy")]
    return several.groupby("k")["value"].mean()


fig, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
for ax, found, name in zip(axes, (rows, harder), (TASK_NAME, "a hundred characters"), strict=False):
    for i, (layer, drops) in enumerate(drop_by_epoch(found).iterrows()):
        ax.plot(range(len(drops)), drops, "o-", ms=4, color=plt.cm.viridis(i / 4), label=layer)
    ax.set_xticks(range(len(drops)), drops.index)
    ax.axhline(0.1, color="0.4", lw=0.8, ls="--")
    ax.set(xlabel="one layer set back to epoch", ylim=(-0.03, 0.8), title=name)
axes[0].set_ylabel("lost test accuracy, above chance")
axes[0].legend(frameon=False)
for sweep, label in (("prefix", "first $k$"), ("last", "last $k$")):
    axes[2].plot(together(rows, sweep), "o-", ms=4, label=label)
axes[2].set(xlabel="$k$ layers re-initialised together", ylabel="test accuracy", title=TASK_NAME)
axes[2].set_xticks(range(5))
_ = axes[2].legend(frameon=False)

# %% [markdown]
# ## Does distance explain it?
#
# If a layer is robust because it hardly moved, its distance to the initial values should say so. `manigeo weights`
# measures it, per weight and relative to the norm of the initial ones.

# %%
command("weights", "run0", "--out", "weights.csv")
moved = manigeo.read_results(folder / "weights.csv")
moved = moved[
    (moved["epoch"] == moved["epoch"].max()) & moved["metric"].isin(["distance_rms", "distance_relative", "rotation"])
]
moved = moved.drop_duplicates(["layer", "metric"]).pivot(index="layer", columns="metric", values="value")
moved.index = moved.index.str.removesuffix(".linear")
lost = layer_by_state(rows[rows["seed"] == 0], "normalised_drop")["epoch 0"].rename("lost test accuracy")
moved.join(lost, how="inner").round(3)

# %% [markdown]
# ## The paper's numbers and ours
#
# The paper prints heat maps; the numbers are those of two published replications of its fully connected network on
# MNIST, *kardashigans* (98.5 % as trained) and *Weng 2019* (95.9 %). Networks differ in accuracy and tasks in chance,
# so what is compared is the drop above chance, (acc − acc′)/(acc − chance). The rule: **not** where one of the two is
# above and the other below .1, the threshold from which a layer is called critical; else **reproduced** where they are
# within .1 of one another, and **partly** where they are not.

# %%
CHANCE = 0.1
of_layer = layer_by_state(rows)
first, others = of_layer.index[0], of_layer.index[1:]
claims = [
    ("layer 1 re-initialised", "kardashigans", 0.985, 0.543, of_layer.loc[first, "epoch 0"]),
    ("the other layers, mean", "kardashigans", 0.985, 0.965, of_layer.loc[others, "epoch 0"].mean()),
    ("layer 1 to epoch 1", "kardashigans", 0.985, 0.977, of_layer.loc[first, "epoch 1"]),
    *(
        (f"layer {i + 1} re-initialised", "Weng", 0.959, value, of_layer.iloc[i]["epoch 0"])
        for i, value in enumerate((0.566, 0.920, 0.945, 0.962))
    ),
    *(
        (f"layer {i + 1} drawn again", "Weng", 0.959, value, of_layer.iloc[i]["fresh draw"])
        for i, value in enumerate((0.096, 0.099, 0.093, 0.038))
    ),
]


def verdict(theirs, ours, critical=0.1, near=0.1):
    if (theirs >= critical) != (ours >= critical):
        return "not"
    return "reproduced" if abs(theirs - ours) <= near else "partly"


def compared(quantity, source, as_trained, theirs, ours):
    drops = [(a - b) / (a - CHANCE) for a, b in ((as_trained, theirs), (trained.mean(), ours))]
    return {
        "quantity": quantity,
        "source": source,
        "paper's": f"{as_trained:.3f} -> {theirs:.3f}",
        "ours": f"{trained.mean():.3f} -> {ours:.3f}",
        "drop, paper's": round(drops[0], 3),
        "drop, ours": round(drops[1], 3),
        "setting": TASK_NAME,
        "verdict": verdict(*drops),
    }


pd.DataFrame([compared(*claim) for claim in claims]).set_index("quantity")

# %%
each = rows[(rows["sweep"] == "each") & (rows["metric"] == "normalised_drop") & (rows["to"] == "epoch 0")]
by_seed = each.pivot(index="seed", columns="layer", values="value")[list(of_layer.index)]
lost, most = by_seed[first], by_seed[others].max().max()
print(f"layer 1 loses most in {(by_seed.idxmax(axis=1) == first).sum()} of {len(by_seed)} seeds:")
print(f"{lost.min():.2f} to {lost.max():.2f} above chance; another layer loses {most:.3f} at most")
print(f"the last three together: {together(rows, 'last')[3]:.3f}")

# %% [markdown]
# ## What follows
#
# - **The shape of the claim is reproduced**: the first layer is critical in every seed, at its initial values the
#   network loses .29 of its accuracy above chance; any other layer loses .03 at most. After one epoch of training the
#   first layer is worth .943, after two .980 of .987. Fresh draws leave chance, whichever the layer.
# - **Its size partly**: on MNIST that costs .46 to .50. Why less is lost here is not known; the characters are an easier
#   task. On Fashion-MNIST the size is there too: .897 as trained, .497 with the first layer
#   re-initialised (a drop of .50 above chance), .844, .861 and .876 with the others (.05 on average), and .084 to .114
#   with fresh draws, measured with
#
#       manigeo train --data idx:fashion-mnist --permute 0 --arch mlp --arch-arg depth=3 --arch-arg width=256 \
#           --lr 0.05 --epochs 60 --batch-size 128
#       manigeo reinit run
# - **Robust is not what a layer is, but what a task leaves it.** With a hundred characters all four layers are critical,
#   and the classifier nearly as much as the first layer.
# - **Each alone is not all together.** Re-initialised one by one the last three layers cost nothing to speak of; together
#   they cost .27 of .987.
# - **Distance does not explain it.** The classifier has moved most by every measure and is robust; the other three have
#   moved equally far per weight (.014 to .015), and one of them is critical.
#
# Not tried here: the convolutional and residual networks of the paper.

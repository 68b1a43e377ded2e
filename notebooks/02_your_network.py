# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where your network memorizes
#
# You have a network, a data set and a training loop of your own. This notebook hooks into them with nine lines, and asks
# the trained network in which layers it holds the labels that it had to memorize:
#
# 1. permute some training labels, so that there is something that can be memorized but not learned;
# 2. train as always, with a `Recorder` in the loop;
# 3. `manigeo extract` and `manigeo capacity`: in which layers do manifolds of permuted labels come apart?
# 4. `manigeo rewind`: which layers does the memory need?
# 5. `manigeo localize`: what each method says, with intervals, and whether they agree.
#
# Small settings take about 50 s on one core. `MANIGEO_FULL=1` takes all hundred classes, a wider network and three
# seeds of the initial weights: about ten minutes.

# %%
import os
import subprocess
import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import manigeo
from manigeo.plots.interventions import plot_rewind
from manigeo.plots.localization import plot_localization
from manigeo.results import with_settings

# %matplotlib inline

FULL = os.environ.get("MANIGEO_FULL") == "1"
CLASSES, WIDTH, EPOCHS, SEEDS = (100, 1024, 60, 3) if FULL else (40, 512, 32, 1)

workspace = tempfile.TemporaryDirectory()  # goes with the kernel
os.chdir(workspace.name)

# %% [markdown]
# ## What is yours
#
# A file with your network and your data. Commands build both again from it, by the names `mine.py:make_net` and
# `mine.py:make_data`; a module of an installed package does as well, `package.module:function`. Here it is a small
# convolutional network in plain PyTorch, and rendered characters stand in for your images. Splits are map-style data
# sets of (input, label); the order of training examples has to be the same at every call.

# %%
# %%writefile mine.py
import torch
from torch import nn
from torch.utils.data import TensorDataset

from manigeo_extract.data.datasets import load_data


class Net(nn.Module):
    def __init__(self, n_classes, width):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 4, stride=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2)
        self.fc1 = nn.Linear(512, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, width)
        self.out = nn.Linear(width, n_classes)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu().flatten(1)
        return self.out(self.fc3(self.fc2(self.fc1(x).relu()).relu()).relu())


def make_net(n_classes=40, width=512):
    return Net(n_classes, width)


def make_data(classes=40):
    images = load_data("glyphs", {"classes": classes, "train": 60})
    rows = {split: images.rows(split) for split in ("train", "validation", "test")}
    return {split: TensorDataset(images.inputs(r), torch.from_numpy(images.labels[r])) for split, r in rows.items()}


# %% [markdown]
# ## Something to memorize
#
# Half of the training labels change places. `labels.csv` says so to the commands: `index` is the position in your training
# set, `train_label` what it was trained on, and `permuted` which examples took part, also where one got its own label
# back.

# %%
from mine import make_data, make_net

images, labels = make_data(CLASSES)["train"].tensors
rng = np.random.default_rng(0)
chosen = rng.permutation(len(labels))[: len(labels) // 2]
shuffled = labels.clone()
shuffled[chosen] = labels[rng.permutation(chosen)]
permuted = np.isin(np.arange(len(labels)), chosen)
pd.DataFrame({"index": range(len(labels)), "train_label": shuffled, "permuted": permuted}).to_csv(
    "labels.csv", index=False
)

# %% [markdown]
# ## Your loop, with nine lines more
#
# The lines marked `# hook` are the hook. `evaluate` scores the four kinds, so that the record says when the permuted labels
# were learned, and keeps `before.pt`, the best epoch on validation data before that. Without it
# `recorder.step(net, epoch)` alone keeps the initial and the last checkpoint.

# %%
from manigeo_extract.data.datasets import load_data  # hook
from manigeo_extract.recording.extraction import read_labels  # hook
from manigeo_extract.training.evaluation import evaluate  # hook
from manigeo_extract.training.recorder import Recorder  # hook

net_args, data_args = {"n_classes": CLASSES, "width": WIDTH}, {"classes": CLASSES}
data = load_data("mine.py:make_data", data_args)  # hook
examples = read_labels("labels.csv", data)  # hook


def train(folder, seed):
    torch.manual_seed(seed)
    net = make_net(**net_args)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.04, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    recorder = Recorder(  # hook
        folder, arch="mine.py:make_net", arch_args=net_args, data="mine.py:make_data", data_args=data_args
    )
    recorder.step(net, 0, evaluate(net, data, examples))  # hook
    for epoch in range(1, EPOCHS + 1):
        for x, y in DataLoader(TensorDataset(images, shuffled), batch_size=64, shuffle=True):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
        schedule.step()
        recorder.step(net, epoch, evaluate(net, data, examples))  # hook
    return recorder


RUNS = [f"run{seed}" for seed in range(SEEDS)]
recorders = [train(run, seed) for seed, run in enumerate(RUNS)]

# %%
metrics = recorders[0].table
fig, ax = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
for kind, rows in metrics.groupby("kind", sort=False):
    if kind != "validation":
        ax.plot(rows["epoch"], rows["accuracy"], label=kind)
before = recorders[0].before.epoch
ax.axvline(before, color="0.4", lw=0.8, ls="--", label="before memorization")
ax.set(xlabel="epoch", ylabel="accuracy")
ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
metrics[metrics["epoch"].isin([before, EPOCHS])].pivot(index="epoch", columns="kind", values="accuracy").round(3)

# %% [markdown]
# First the network learns what can be learned: before memorization it gives permuted examples their *true*
# labels (`restored`). Then it learns their permuted labels by heart, and test accuracy falls. It has passed the gate, .95 of
# the permuted labels, without which there would be nothing to look for.
#
# ## What the commands need to know
#
# A checkpoint carries the names of your functions, but no file makes manigeo run a program: name them once more.


# %%
def command(line):
    done = subprocess.run([sys.executable, "-m", "manigeo", *line.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


MINE = "--arch mine.py:make_net --data mine.py:make_data --labels labels.csv"

for run in RUNS:
    for name in ("before", "last"):
        command(f"extract {MINE} --model {run}/checkpoints/{name}.pt --per-class 30 --out {run}/{name}.h5")
        command(f"capacity {run}/{name}.h5 --classes 30 --no-total-dimension")

table = manigeo.read_results([f"{RUNS[0]}/{name}.capacity.csv" for name in ("before", "last")])
manigeo.plot_geometry(table)


# %%
def capacities(checkpoint):
    rows = table[(table["manifold"] == "") & (table["metric"] == "capacity") & (table["checkpoint"] == checkpoint)]
    return rows.pivot(index=["depth", "layer"], columns="kind", values="value").droplevel("depth")[list(manigeo.KINDS)]


pd.concat({name: capacities(name) for name in ("before", "last")}, axis=1).round(3)

# %% [markdown]
# Before memorization permuted manifolds are at the floor (.093) in every layer but the output, and restored and test
# manifolds come apart together. At the last epoch layers up to fc1 are what they were. Permuted manifolds leave the
# floor in fc3 (.105) and come apart in the output (.216 where it was .119), by falling radius and dimension; there the
# capacity of restored ones falls, from .342 to .231. Hollow points are *saturated*: 40 outputs are fewer dimensions than
# 30 manifolds want, and the number is unchecked.
#
# ## Which layers does the memory need?
#
# `manigeo rewind` sets layers of the trained network back to before memorization, and scores the four kinds without
# any training.

# %%
for run in RUNS:
    command(f"rewind {run} {MINE} --last-k --each --out {run}/rewind.csv")
rewound = manigeo.read_results(f"{RUNS[0]}/rewind.csv")
plot_rewind(rewound)


# %%
def accuracies(rows):
    rows = with_settings(rows, "sweep", "direction")  # beside them stand controls: noise, and layers put the other way
    rows = rows[rows["sweep"].ne("noise") & rows["direction"].ne("into_before")]
    rows = rows[(rows["metric"] == "accuracy") & rows["kind"].isin(manigeo.KINDS)]
    return rows.pivot(index="layer", columns="kind", values="value").reindex(rows["layer"].unique())[
        list(manigeo.KINDS)
    ]


accuracies(rewound).round(3)

# %% [markdown]
# With the output layer alone set back, half of the memory is gone (permuted 1.000 to .495), most of the lost test
# accuracy is back (.535 to .647), and unpermuted examples hardly notice (.986). Validation data choose two layers (the
# circle). The convolutional layers can be exchanged without any loss, and no single layer holds the memory: fc1, fc2, fc3
# and the output, set back alone, each cost between .40 and .56 of the permuted labels.
#
# ## The answer
#
# `manigeo localize` turns the tables it finds in a run's folder to a profile over the layers for every method, with 95 %
# intervals, and answers two questions: where permuted examples come apart, and which layers hold what was memorized.

# %%
print(command(f"localize {' '.join(RUNS)}"))
plot_localization(manigeo.read_results("localize.csv"))

# %% [markdown]
# Both are late: permuted examples come apart in the output and the layer before it, and what was memorized is held by the
# fully connected layers together. They ask different things, geometry, from where on permuted labels can be told apart;
# rewinding, which layers had to change for that, so that they need not be the same. Behind each method stands how often
# it found the layer in networks where it is known. One run's intervals are over manifolds and examples; they know
# nothing of other seeds: `manigeo localize run0 run1 run2` takes several.
#
# More evidence is a line each (`MINE` as above), and `localize` takes in what it finds in the run's folder:
#
#     manigeo reinit run0 MINE --out run0/reinit.csv
#     manigeo rewind run0 MINE --each --pairs --retrain 100 --out run0/rewind.csv
#     manigeo weights run0 --out run0/weights.csv
#     manigeo separability run0/last.h5
#
# And so is a control: `manigeo extract MINE --model run0/checkpoints/last.pt --weights init` takes the
# network before training.

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Stephenson et al. 2021: memorization happens in the last layers
#
# **The claim.** In a network trained on partly permuted labels, permuted examples become separable in the final layers
# only, by falling radius and dimension of their manifolds; reverting these layers to an earlier epoch restores
# generalization. *C. Stephenson, S. Padhy, A. Ganesh, Y. Hui, H. Tang, S. Chung, On the geometry of generalization and
# memorization in deep neural networks, ICLR 2021.*
#
# **Scale.** The paper trains VGG16 on CIFAR-100 and sweeps the width of ResNet-18. Here a network of six hidden layers
# learns 50 rendered characters, half of their labels permuted, and networks of one hidden layer learn handwritten
# digits: about 50 s on one core. `MANIGEO_FULL=1` takes 100 characters, twice the width, and more widths and seeds in
# the sweep; not timed yet. If then `MANIGEO_DATA` names a folder with the python batches of CIFAR-100, VGG16 learns these,
# which wants a GPU.

# %%
import contextlib
import io
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import manigeo
from manigeo.cli.main import cli
from manigeo.kinds import KINDS
from manigeo.plots.interventions import plot_rewind
from manigeo.plots.style import COLOR
from manigeo.results import with_settings

# %matplotlib inline
pd.set_option("display.max_colwidth", None)

FULL = os.environ.get("MANIGEO_FULL") == "1"
torch.set_num_threads(1)  # the same rounding, hence the same numbers, on any number of cores
workspace = tempfile.TemporaryDirectory()  # goes with the kernel


def command(line):
    """What ``manigeo line`` prints; it runs in the workspace, and in this process, to import torch only once."""
    with contextlib.chdir(workspace.name), contextlib.redirect_stdout(io.StringIO()) as out:
        cli(line.split(), standalone_mode=False)
    return out.getvalue()


def results(name):
    return manigeo.read_results(Path(workspace.name) / name)


findings = []


def verdict(quantity, paper, ours, rule, *passed):
    """A row of the last table, for the network at hand: reproduced where all of these hold, partly where some do."""
    says = "reproduced" if all(passed) else "partly" if any(passed) else "not"
    row = {"quantity": quantity, "paper": paper, "ours": ours, "setting": network, "rule": rule, "verdict": says}
    findings.append(row)


# %% [markdown]
# ## A network that memorizes
#
# The *best* epoch, on clean validation data, stands for the network before memorization, the *last* one for after. All
# four kinds of examples are scored: unpermuted, permuted (by the permuted label), restored (the same images by their
# true label), and test.

# %%
network = "mlp 6 x 256, 50 characters, half permuted"
data, arch = "glyphs --data-arg classes=50 --data-arg per_class=60", "mlp --arch-arg depth=6 --arch-arg width=256"
length, size = "--milestones 25 --epochs 32", "--classes 30 --per-class 20 --draws 50"
if FULL:
    network = "mlp 6 x 512, 100 characters, half permuted"
    data, arch = "glyphs", "mlp --arch-arg depth=6 --arch-arg width=512"
    length, size = "--milestones 30 --epochs 40", "--classes 50 --per-class 25 --draws 300"
if FULL and "MANIGEO_DATA" in os.environ:
    network = "vgg16, CIFAR-100, half permuted"
    data, arch = f"cifar100:{os.environ['MANIGEO_DATA']}", "vgg16"
    length, size = "--milestones 60,80 --epochs 100", "--classes 50 --per-class 50 --draws 300 --project 5000"
device = f"--device {'cuda' if torch.cuda.is_available() else 'cpu'}"

trained = command(
    f"train --data {data} --arch {arch} --lr 0.03 --schedule step {length} --permute 0.5 --checkpoint-epochs 3,15 {device}"
)
print("\n".join(trained.splitlines()[:1] + trained.splitlines()[3:-1]))
metrics = pd.read_csv(Path(workspace.name) / "run/metrics.csv")
accuracy = metrics.pivot(index="epoch", columns="kind", values="accuracy")
best, last = int(accuracy["validation"].idxmax()), int(accuracy.index[-1])

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for kind in KINDS:
    ax.plot(accuracy[kind], color=COLOR[kind], label=kind)
ax.axvline(best, color="0.5", ls=":", label=f"best epoch ({best})")
ax.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02))
_ = ax.legend(frameon=False, bbox_to_anchor=(1, 1))
# %% [markdown]
# ## Capacity, radius and dimension of every layer
#
# Means over P classes with M examples each, in units of the centre norm; M points without structure have capacity 2/M,
# the dotted floor.

# %%
for at in ("best", "last"):
    command(f"extract --model run/checkpoints/{at}.pt --out {at}.h5 {device}")
    command(f"capacity {at}.h5 {size} --no-total-dimension")
table = manigeo.read_results([str(Path(workspace.name) / f"{at}.capacity.csv") for at in ("best", "last")])
manigeo.plot_geometry(table)

# %%
total = table[table["manifold"] == ""]
LAYERS = list(total.sort_values("depth")["layer"].unique())
value, error = (
    total.pivot_table(index=["metric", "checkpoint", "kind"], columns="layer", values=column)[LAYERS]
    for column in ("value", "stderr")
)
value.loc["capacity"].round(3)

# %% [markdown]
# ## The shape of the curves
#
# What the paper's figure 3 shows, a line a statement. Rises, falls and orders must exceed two standard errors of the mean
# difference over the classes, which are the same for all kinds and both epochs; *alike* means within 10 %.

# %%
by_class = table[table["manifold"] != ""].assign(
    # capacities average by their inverse
    value=lambda rows: rows["value"].where(rows["metric"] != "capacity", -1 / rows["value"])
)
by_class = by_class.pivot_table(index=["metric", "checkpoint", "kind", "layer"], columns="manifold", values="value")


def differs(metric, one, other):
    """By how many standard errors (checkpoint, kind, layer) ``one`` is above the ``other``."""
    gaps = by_class.loc[(metric, *one)] - by_class.loc[(metric, *other)]
    return gaps.mean() / gaps.sem()


capacity = value.loc["capacity"]
floor = total.loc[total["metric"] == "capacity_floor", "value"].iloc[0]
half = LAYERS[: (len(LAYERS) + 1) // 2]
FIRST, HIDDEN, LAST = LAYERS[1], LAYERS[-2], LAYERS[-1]
tests = []


def state(part, statement, passed, numbers):
    tests.append({"": part, "statement": statement, "passes": "pass" if passed else "FAIL", "numbers": numbers})
    return bool(passed)


def everywhere(part, statement, ratios):
    """All of these alike."""
    off = (ratios - 1).abs()
    return state(
        part,
        statement,
        (off <= 0.1).all(),
        f"alike in {(off <= 0.1).sum()} of {off.size}; worst {off.idxmax()}: {100 * (ratios[off.idxmax()] - 1):+.0f} %",
    )


def significant(part, statement, z, which):
    """A difference, more than two of its errors above zero."""
    return state(part, statement, z > 2, f"{which}: {z:+.1f} errors")


shape = {
    "i restored": everywhere(
        "i",
        "best epoch: restored ~ test in all layers",
        capacity.loc["best", "restored"] / capacity.loc["best", "test"],
    ),
    "i floor": everywhere(
        "i", "best epoch: permuted at the floor in all layers", capacity.loc["best", "permuted"] / floor
    ),
    "ii early": everywhere(
        "ii",
        f"up to {half[-1]} no kind changes from the best to the last epoch",
        (capacity.loc["last"] / capacity.loc["best"])[half].stack(),
    ),
}
rise = capacity.loc["last", "permuted"] - capacity.loc["best", "permuted"]
late = rise[LAYERS.index(half[-1]) + 1 :].sum() / rise.sum()
begins = next(layer for layer in LAYERS if rise[layer] >= rise[LAST] / 10)
shape |= {
    "ii rise": significant(
        "ii",
        "permuted capacity rises from the best to the last epoch",
        differs("capacity", ("last", "permuted", LAST), ("best", "permuted", LAST)),
        LAST,
    ),
    "ii late": state(
        "ii",
        "a tenth of that rise is reached in the later half of the layers only",
        begins not in half,
        f"first at {begins}; rise {rise[half[-1]]:.3f} at {half[-1]}, {rise[HIDDEN]:.3f} at {HIDDEN}, {rise[LAST]:.3f} at {LAST}",
    ),
}
for name in ("radius", "dimension"):
    z = [differs(name, ("last", "permuted", FIRST), ("last", "permuted", layer)) for layer in (HIDDEN, LAST)]
    shape[f"ii {name}"] = significant(
        "ii", f"with a falling {name} of permuted", min(z), f"{FIRST} against {HIDDEN}, {LAST}"
    )
fall = [differs("capacity", ("best", "restored", layer), ("last", "restored", layer)) for layer in (HIDDEN, LAST)]
shape["ii restored"] = significant("ii", "restored falls there, against the best epoch", min(fall), f"{HIDDEN}, {LAST}")
for layer in (HIDDEN, LAST):
    order = [
        differs("capacity", ("last", a, layer), ("last", b, layer))
        for a, b in (("unpermuted", "permuted"), ("permuted", "test"), ("test", "restored"))
    ]
    shape[f"iii {layer}"] = state(
        "iii",
        f"last epoch, {layer}: unpermuted > permuted > test >= restored",
        order[0] > 2 and order[1] > 2 and order[2] > -2,
        ", ".join(f"{z:+.1f}" for z in order) + " errors",
    )
pd.DataFrame(tests).set_index("")

# %% [markdown]
# Seven of ten pass. Permuted manifolds leave the floor late and by falling radius and dimension, and restored ones lose
# there what permuted ones gain. With seeds 1, 2 and 3 the same lines pass and fail, but two that lie near their limit: at
# h3 the unpermuted change by 8, 16 and 10 % (the permuted never), and at the logits permuted capacity is 1.7, 2.2 and
# 3.7 errors above that of test examples.
#
# Why do three fail? *(i)* The best epoch is not one before memorization: the network knows 13 % of the permuted labels
# and the restored ones are at .41 where test is at .54, all of which shows in the logits. *(iii)* This network still
# generalizes, at .48; so the capacity of test examples is larger than that of permuted ones up to the last hidden layer.
# Logits have 50 dimensions for 30 manifolds; their hollow points say that no other estimate can check
# them.

# %%
verdict(
    "best epoch: restored like test, permuted at the floor",
    "yes, in all layers",
    f"last layer: restored/test {capacity.loc[('best', 'restored'), LAST] / capacity.loc[('best', 'test'), LAST]:.2f}, "
    f"permuted/floor {capacity.loc[('best', 'permuted'), LAST] / floor:.2f}",
    "both tests of (i)",
    shape["i restored"],
    shape["i floor"],
)
verdict(
    "early layers do not change while the network memorizes",
    "layers 1 to 12 of 19",
    f"layers up to {half[-1]}: at most {100 * ((capacity.loc['last'] / capacity.loc['best'])[half].stack() - 1).abs().max():.0f} %",
    "first test of (ii)",
    shape["ii early"],
)
verdict(
    "permuted capacity rises in the last layers only",
    ".038 to .100 at the last layer",
    f"{capacity.loc[('best', 'permuted'), LAST]:.3f} to {capacity.loc[('last', 'permuted'), LAST]:.3f} at the last layer, from {begins} on",
    "second and third test of (ii)",
    shape["ii rise"],
    shape["ii late"],
)
for name, paper in (("radius", "1.62 to .98"), ("dimension", "35 to 18.5")):
    ours = value.loc[(name, "last", "permuted")]
    verdict(
        f"with a falling {name}, over the layers",
        paper,
        f"{ours[FIRST]:.2f} to {ours[LAST]:.2f}",
        "its test of (ii)",
        shape[f"ii {name}"],
    )
verdict(
    "restored capacity falls there",
    ".059 to .040 at the last layer",
    f"{capacity.loc[('best', 'restored'), LAST]:.3f} to {capacity.loc[('last', 'restored'), LAST]:.3f} at the last layer",
    "its test of (ii)",
    shape["ii restored"],
)
beyond = capacity.loc[("last", "permuted"), LAST] / capacity.loc[("last", "test"), LAST]
verdict(
    "last layer: unpermuted > permuted >> test >= restored",
    "permuted / test = 2.1",
    f"permuted / test = {beyond:.2f}",
    "(iii) at the last layer; the ratio above 1.5",
    shape[f"iii {LAST}"],
    beyond > 1.5,
)

# %% [markdown]
# ## Rewinding
#
# The last k layers get back their weights of the best epoch, the others stay; nothing is trained.

# %%
command("rewind run --last-k --checkpoints best")
rewound = with_settings(results("rewind.csv"), "sweep", "k")
plot_rewind(results("rewind.csv"))

# %%
after = rewound[rewound["metric"] == "accuracy"].pivot_table(index=["sweep", "k"], columns="kind", values="value")
changes = rewound[(rewound["metric"] == "accuracy_drop") & (rewound["sweep"] == "last")].set_index(["kind", "k"])
gain, gain_error = -changes.loc["test", "value"], changes.loc["test", "stderr"]
cost = changes.loc["unpermuted", "value"]
regained = rewound[(rewound["metric"] == "regained") & (rewound["sweep"] == "last")].set_index("k")["value"]
few = [k for k in gain.index if k <= len(gain) / 2]
k = max(few, key=lambda k: gain[k])
verdict(
    "rewinding the final few layers restores generalization",
    "yes (abstract)",
    f"last {k}: test {gain[k]:+.3f} ± {gain_error[k]:.3f}, {100 * regained[k]:.0f} % of what was lost, unpermuted {-cost[k]:+.3f}",
    "among the last 1 ... L/2 layers the best gains two errors; regains half",
    gain[k] > 2 * gain_error[k],
    regained[k] >= 0.5,
)
pd.DataFrame({"test gains": gain, "error": gain_error, "regained": regained, "unpermuted loses": cost}).round(3)

# %% [markdown]
# A single rewound layer regains half of the lost accuracy and costs .011 of the unpermuted; three regain two thirds and
# cost .09. With seeds 1, 2 and 3 one layer gains .038, .048 and .024 (± .009) and costs .015 to .017. What was lost is
# little here, .06: the rate drops at epoch 25, and that alone brings much of it back. Permuted accuracy is given up
# slowly, a sixth with the last layer, more than half with the last three: memory is not in the last layer alone.

# %% [markdown]
# ## The gradient does not see permuted labels, at first
#
# The gradient of the cross-entropy is the sum of a part that depends on the labels and a part that does not. With
# means over the labels subtracted, the first should fall with the number n of permuted examples as $n^{-1/2}$, like
# any mean of chance, and not vanish for unpermuted ones. If the examples are a sample, $E|g_n|^2 = |g|^2 + s^2/n$:
# the intercept of a line against 1/n is what would be left of infinitely many.

# %%
n_kind = int(trained.split("permuted: ")[1].split()[0])  # permuted examples
sizes = [n_kind // 50, n_kind // 20, n_kind // 8, n_kind // 3]
command(
    f"gradients run --kinds unpermuted --kinds permuted --sizes {','.join(map(str, sizes))} --repetitions {10 if FULL else 5}"
)
gradients = results("gradients.csv")
whole = gradients[gradients["layer"] == "(all)"]
swept = whole[whole["metric"] == "label_dependent_centred_norm_sweep"].set_index(["kind", "n"])[["value", "stderr"]]
slopes = whole[whole["metric"] == "label_dependent_centred_slope"].set_index("kind")[["value", "stderr"]]
over_epochs = whole.pivot_table(index=["metric", "kind"], columns="epoch", values="value")

PARTS = {"label_dependent_centred_norm": "label-dependent", "label_independent_centred_norm": "label-independent"}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for kind in ("unpermuted", "permuted"):
    axes[0].errorbar(sizes, *swept.loc[kind].loc[sizes].T.to_numpy(), color=COLOR[kind], marker="o", ms=4, label=kind)
    for (metric, part), style in zip(PARTS.items(), ("o-", "s--"), strict=True):
        axes[1].plot(over_epochs.loc[metric, kind], style, color=COLOR[kind], ms=4, label=f"{kind}, {part}")
start = swept.loc[("permuted", sizes[0]), "value"]
axes[0].plot(sizes, start * np.sqrt(sizes[0] / np.array(sizes)), "k:", label="$n^{-1/2}$")
axes[0].set(
    xscale="log", yscale="log", xlabel="examples n", ylabel="norm of the label-dependent part", title="untrained"
)
axes[1].set(xscale="symlog", yscale="log", xlabel="epoch", ylabel="norm", title=f"{n_kind} examples of each kind")
axes[0].set_xticks(sizes, sizes)
axes[0].set_yticks([2, 4, 8], [2, 4, 8])
axes[0].minorticks_off()
for ax in axes:
    ax.legend(frameon=False, fontsize=8)


# %%
def left(kind):
    """The intercept of |g|^2 against 1/n, and its error, as shares of |g|^2 at the largest n."""
    norms, errors = swept.loc[kind].loc[sizes].T.to_numpy()
    line, covariance = np.polyfit(1 / np.array(sizes), norms**2, 1, w=1 / (2 * norms * errors), cov="unscaled")
    return line[1] / norms[-1] ** 2, covariance[1, 1] ** 0.5 / norms[-1] ** 2


slope, slope_error = slopes.loc["permuted"]
verdict(
    "untrained: permuted label-dependent part falls as n^-1/2",
    "slope -1/2 (App. A)",
    f"slope {slope:.3f} ± {slope_error:.3f}",
    "within .05 of -1/2",
    abs(slope + 0.5) < 0.05,
)
(kept, kept_error), (chance, chance_error) = left("unpermuted"), left("permuted")
verdict(
    "that of unpermuted examples does not vanish",
    "yes",
    f"left of |g|^2 for infinite n: {100 * kept:.0f} ± {100 * kept_error:.0f} %; permuted {100 * chance:.0f} ± {100 * chance_error:.0f} %",
    "of unpermuted more than 0 by two errors, of permuted not",
    kept > 2 * kept_error,
    chance <= 2 * chance_error,
)
start, end = over_epochs.columns[0], over_epochs.columns[-1]
dependent, independent = (over_epochs.loc[metric] for metric in PARTS)
alike = independent.loc["permuted", start] / independent.loc["unpermuted", start]
verdict(
    "untrained: label-independent parts are alike",
    "similar",
    f"permuted / unpermuted = {alike:.2f}",
    "within 10 %",
    abs(alike - 1) < 0.1,
)
cosine = over_epochs.loc["parts_centred_cosine"][end]
grown = {
    kind: [float(part.loc[kind, end] / part.loc[kind, start]) for part in (dependent, independent)]
    for kind in cosine.index
}
verdict(
    "trained: the two parts cancel, and both have grown",
    "yes",
    f"cosine {cosine.max():.3f}; permuted parts {grown['permuted'][0]:.1f} and {grown['permuted'][1]:.1f} times as large",
    "both kinds: cosine below -.99; both parts larger than untrained",
    cosine.max() < -0.99,
    min(min(pair) for pair in grown.values()) > 1,
)
larger = independent.loc["unpermuted", end] / independent.loc["permuted", end]
verdict(
    "trained: unpermuted have the larger label-independent part",
    "slightly larger",
    f"unpermuted / permuted = {larger:.2f}",
    "above 1; below 1.5 (slightly)",
    larger > 1,
    larger < 1.5,
)

# %% [markdown]
# The slope is a little below -1/2 since labels are *permuted* within the set, so that classes keep their sizes and
# the sum of all has less to it than chance: three permutations give −.528, −.502 and −.509 (± .01), independent labels
# (`--convention uniform`) −.478, −.492 and −.481, a fiftieth of which are true.
#
# The first epochs act on unpermuted labels alone: their part of the gradient has grown by a factor of two and a half by
# epoch 3, that of permuted ones not at all. At the end both parts are large, and cancel.

# %% [markdown]
# ## Width and double descent
#
# In the paper the final test accuracy of ResNet-18 dips where the network is just large enough to learn the permuted
# labels; at the best epoch it does not. Dimension at the last layer shows the dip, radius does not. Here one hidden
# layer of 12 to 768 units learns handwritten digits, 60 a class, one in five permuted. (Characters show no dip with
# networks as small, only a standstill.) Ten classes are few for mean-field theory; the logits have ten dimensions at
# any width, so that widths can be compared.

# %%
network = "mlp 1 x 12 to 768, digits, a fifth permuted"
widths = (8, 12, 16, 24, 32, 48, 96, 192, 384, 768) if FULL else (12, 24, 48, 192, 768)
seeds = range(5 if FULL else 3)
digits = (
    "--data digits --data-arg per_class=60 --arch-arg depth=1 --permute 0.2 --batch-size 32 --optimizer adam --lr 0.01"
)


def at_end(width, seed):
    """Rows of one network: test accuracy, and geometry of the logits of test examples, at both epochs."""
    command(f"train {digits} --epochs 50 --arch-arg width={width} --seed {seed} --out width --force")
    scores = pd.read_csv(Path(workspace.name) / "width/metrics.csv").pivot(
        index="epoch", columns="kind", values="accuracy"
    )
    epochs = {"best": scores["validation"].idxmax(), "last": scores.index[-1]}
    for at, epoch in epochs.items():
        command(f"extract --model width/checkpoints/{at}.pt --layers logits --out width.h5 --force")
        with manigeo.open_activations(Path(workspace.name) / "width.h5") as acts:
            g = manigeo.manifold_capacity(list(acts.manifolds("logits", "test", 30, 0)), n_draws=100)
        numbers = {"test accuracy": scores["test"][epoch], "radius": g.radius, "dimension": g.dimension}
        yield {"width": width, "at": at, "permuted accuracy": scores["permuted"][epoch], **numbers}


sweep = pd.DataFrame([row for width in widths for seed in seeds for row in at_end(width, seed)])
mean, sem = (getattr(sweep.groupby(["at", "width"]), name)() for name in ("mean", "sem"))
fig, axes = plt.subplots(1, 4, figsize=(12, 3), layout="constrained")
for ax, name in zip(axes, mean.columns, strict=True):
    for at, style in (("best", "o--"), ("last", "s-")):
        ax.errorbar(
            widths,
            mean.loc[at, name],
            sem.loc[at, name],
            fmt=style,
            color=COLOR["test"] if at == "last" else "0.5",
            ms=4,
            label=at,
        )
    ax.set(xscale="log", xlabel="width", ylabel=name, xticks=widths[:: 2 if FULL else 1])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
axes[0].legend(frameon=False, title="epoch")
pd.concat({"mean": mean, "±": sem}, axis=1).swaplevel(axis=1)[list(mean.columns)].round(3)


# %%
def bump(name, at, sign=1):
    """The inner width where this is most, and by how many errors it is more than at both ends."""
    values, errors = sign * mean.loc[at, name], sem.loc[at, name]
    top = values.iloc[1:-1].idxmax()
    return top, min((values[top] - values[end]) / np.hypot(errors[top], errors[end]) for end in (widths[0], widths[-1]))


accuracies, errors = mean.loc["best", "test accuracy"], sem.loc["best", "test accuracy"]
steps = (accuracies.diff() / np.hypot(errors, errors.shift())).dropna()
dip, dip_z = bump("test accuracy", "last", -1)
D, D_z = bump("dimension", "last")
R, R_z = bump("radius", "last")
verdict(
    "best epoch: test accuracy grows with width",
    "46 to 62.8 %, monotone",
    f"{100 * accuracies.iloc[0]:.0f} to {100 * accuracies.iloc[-1]:.0f} %; steepest fall {-min(steps.min(), 0):.1f} errors",
    "wider is never worse by two errors; widest better than narrowest",
    steps.min() > -2,
    accuracies.iloc[-1] > accuracies.iloc[0],
)
ends = [100 * mean.loc[("last", w), "test accuracy"] for w in (widths[0], dip, widths[-1])]
verdict(
    "last epoch: it dips in between (double descent)",
    "51, 48, 61.8 %",
    f"{ends[0]:.1f}, {ends[1]:.1f}, {ends[2]:.1f} % at width {widths[0]}, {dip}, {widths[-1]}",
    "an inner width is two errors below both ends",
    dip_z > 2,
)
verdict(
    "dimension has a bump there",
    "stays 28, bump, then 21",
    f"{', '.join(f'{d:.2f}' for d in mean.loc['last', 'dimension'])}",
    "an inner width is two errors above both ends",
    D_z > 2,
)
verdict(
    "radius has none",
    "1.34 to 1.07, roughly monotone",
    f"{', '.join(f'{r:.2f}' for r in mean.loc['last', 'radius'])}",
    "no inner width is two errors above both ends",
    R_z <= 2,
)

# %% [markdown]
# There is a double descent: final test accuracy falls where a network is just about to learn the permuted labels (87 %
# of them at width 48), and recovers when it is larger; at the best epoch it does not fall. Dimension has its bump at the
# same width. That radius has none is not shown: at the narrowest width it is too uncertain, .93 ± .19, to tell, and at
# width 48 it is larger than at the widest network, .82 ± .03 against .763 ± .004.

# %% [markdown]
# ## The paper's numbers and ours

# %%
pd.DataFrame(findings).set_index("quantity")

# %% [markdown]
# ## What follows
#
# - **The claim holds in its core**: permuted manifolds become separable in the later half of the network, by radius and
#   dimension; restored ones fall apart there; rewinding regains. That there are layers which memorization does not touch
#   is a matter of degree: permuted capacity rises a little from h2 on.
# - **The order at the last layer holds weakly.** Permuted capacity is 1.1 times that of test examples, in the paper 2.1
#   times: characters are easier than CIFAR-100, and a network that generalizes keeps test manifolds apart.
# - **Restored is not like test at the best epoch** by validation accuracy, since half a dozen epochs are enough for some
#   memorization.
# - **Double descent shows in dimension, and in radius too** as far as ten classes can say.
#
# The larger settings (`MANIGEO_FULL=1`) were not run for this page.
#
# Not tried here: AlexNet, ResNet-18 and DenseNet, Tiny ImageNet, regularized training.

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Wang & Yang 2022: with greater distance comes worse performance
#
# **The claim.** Early layers learn what serves training and test data alike, deeper layers only minimize the training
# risk; the distance of the final layers' weights from their initial values has high correlation with the generalization
# error; and re-initializing the final layers after training regularizes. *Y. Wang, J. Yang, With greater distance comes
# worse performance: on the perspective of layer utilization and model generalization, 2022.*
#
# **Scale.** Protocols below are our own: of the paper the abstract was at hand, which names neither networks nor norms nor
# numbers, so that only the direction of each statement can be compared. Here small networks learn handwritten digits and rendered
# characters, about 45 s on one core. `MANIGEO_FULL=1` takes five seeds, three widths and a larger network on more
# characters; not timed yet. If then `MANIGEO_DATA` names a folder with the four idx files of MNIST or its kin, the sweep learns
# these.

# %%
import contextlib
import io
import os
import tempfile
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import manigeo
from manigeo.cli.main import cli
from manigeo.correlation import correlate
from manigeo.plots.studies import plot_final_reset, plot_utilisation
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
# ## A sweep of networks
#
# Four fractions of permuted labels, 30 or 90 training examples a class, two widths. All know nearly all of their labels
# at the end, so that the generalization gap, accuracy on the labels of training less that on test data, is what they
# fail to do on test data.

# %%
RESAMPLES = 1000 if FULL else 200
fractions, examples = (0, 0.2, 0.4, 0.6), (30, 90)
widths, seeds = ((64, 128, 256), range(5)) if FULL else ((64, 128), range(1))
network = "mlp 4 x 64 to 256, a sweep of runs"
sweep = "--data digits --arch-arg depth=4 --lr 0.03 --batch-size 32 --epochs 40"
if FULL and "MANIGEO_DATA" in os.environ:
    sweep = sweep.replace("digits", f"idx:{os.environ['MANIGEO_DATA']}")
runs = pd.DataFrame(product(fractions, examples, widths, seeds), columns=["permuted", "examples", "width", "seed"])
runs.index = [f"permuted{p}-examples{n}-width{w}-seed{s}" for p, n, w, s in runs.itertuples(index=False)]
for name, (p, n, w, s) in zip(runs.index, runs.itertuples(index=False), strict=True):
    command(f"train {sweep} --permute {p} --data-arg per_class={n} --arch-arg width={w} --seed {s} --out {name}")


def accuracies(name):
    scores = pd.read_csv(Path(workspace.name) / name / "metrics.csv")
    return scores[scores["epoch"] == scores["epoch"].max()].set_index("kind")["accuracy"]


ends = pd.DataFrame({name: accuracies(name) for name in runs.index}).T
ends[["unpermuted", "permuted", "test"]].groupby([runs["permuted"].rename("fraction"), runs["examples"]]).mean().round(
    3
)

# %%
command(f"correlate {' '.join(runs.index)} --measure distance_relative --resamples {RESAMPLES}")
table = results("correlation.csv")

# %%
per_run = table[table["run"] != ""]
moved = per_run[per_run["metric"] == "distance_relative"].pivot(index="run", columns="layer", values="value")
gap = per_run[per_run["metric"] == "gap"].set_index("run")["value"].loc[runs.index]
LAYERS = [layer for layer in table.sort_values("depth")["layer"].unique() if layer and not layer.startswith("(")]
FIRST, LAST = LAYERS[0], LAYERS[-1]
moved = moved.loc[runs.index, LAYERS]
coefficients = table[table["run"] == ""].pivot(index="layer", columns="metric", values="value").loc[LAYERS]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
colors = dict(zip(fractions, plt.colormaps["viridis"](np.linspace(0, 0.85, len(fractions))), strict=True))
for ax, layer in zip(axes, (FIRST, LAST), strict=True):
    for (p, n, w), names in runs.groupby(["permuted", "examples", "width"]).groups.items():
        style = {"marker": "os^"[widths.index(w)], "mfc": "none" if n == examples[0] else colors[p]}
        ax.plot(moved.loc[names, layer], gap[names], ls="", color=colors[p], **style)
    ax.set(xlabel=f"relative distance of {layer}")
axes[0].set_ylabel("generalization gap")
for p, color in colors.items():
    axes[1].plot([], "o", color=color, label=f"{100 * p:.0f} % permuted")
axes[1].plot([], "ok", mfc="none", label=f"{examples[0]} a class")
axes[1].plot([], "ok", label=f"{examples[1]} a class")
for w, marker in zip(widths, "os^", strict=False):
    axes[1].plot([], marker, color="0.5", label=f"width {w}")
axes[1].legend(frameon=False, fontsize=8, bbox_to_anchor=(1, 1))
NAMES = ["spearman", "spearman_ci_low", "spearman_ci_high", "spearman_partial", "pearson"]
coefficients[NAMES].round(2)


# %% [markdown]
# How far a layer moves, relative to where it began, goes with the gap; closest in the classifier. But the points of the
# two numbers of examples lie on lines of their own. So the same within groups of runs that differ in one thing only:


# %%
def within(varied, layer):
    """Spearman's coefficient of the deviations from the mean of runs that differ in nothing but ``varied``."""
    same = [runs[name] for name in runs.columns if name not in (varied, "seed")]
    x, y = (values - values.groupby(same).transform("mean") for values in (moved[layer], gap))
    return correlate(x.to_numpy(), y.to_numpy(), n_resamples=RESAMPLES)


FACTORS = ["permuted", "examples", "width"]
alone = {factor: {layer: within(factor, layer) for layer in LAYERS} for factor in FACTORS}
pd.DataFrame(
    {
        f"only {factor} varies": {
            layer: f"{r.value:+.2f} [{r.low:+.2f}, {r.high:+.2f}]" for layer, r in of_layer.items()
        }
        for factor, of_layer in alone.items()
    }
)


# %%
def spearman(layer, rows):
    return moved[layer].iloc[rows].reset_index(drop=True).corr(gap.iloc[rows].reset_index(drop=True), "spearman")


def beyond(rows):
    """Coefficient of the last layer less that of the first."""
    return spearman(LAST, rows) - spearman(FIRST, rows)


rng = np.random.default_rng(0)
drawn = [beyond(rng.integers(len(runs), size=len(runs))) for _ in range(RESAMPLES)]
more, (more_low, more_high) = beyond(np.arange(len(runs))), np.quantile(drawn, [0.025, 0.975])
print(f"Spearman's coefficient of {LAST} less that of {FIRST}: {more:+.2f} [{more_low:+.2f}, {more_high:+.2f}]")

rho = coefficients.loc[LAST, "spearman"]
verdict(
    "distance of the final layer goes with the gap",
    "high correlation",
    f"rho {rho:.2f} [{coefficients.loc[LAST, 'spearman_ci_low']:.2f}, {coefficients.loc[LAST, 'spearman_ci_high']:.2f}] over {len(runs)} runs",
    "interval above 0; rho .7 or more (high)",
    coefficients.loc[LAST, "spearman_ci_low"] > 0,
    rho >= 0.7,
)
verdict(
    "more than that of the first layer",
    "final layers",
    f"rho {coefficients.loc[FIRST, 'spearman']:.2f} of {FIRST}; difference {more:+.2f} [{more_low:+.2f}, {more_high:+.2f}]",
    "interval of the difference above 0",
    more_low > 0,
)
WHAT = {"permuted": "the fraction permuted", "examples": "the number of examples", "width": "the width"}
for factor, of_layer in alone.items():
    r = of_layer[LAST]
    verdict(
        f"an indicator of an overfit where only {WHAT[factor]} varies",
        "an indicator",
        f"rho {r.value:+.2f} [{r.low:+.2f}, {r.high:+.2f}]",
        "interval above 0",
        r.low > 0,
    )

# %% [markdown]
# Where networks differ in the labels alone, distance tells the gap, to +.9, and it does so in every layer, the first
# included: all weights go farther to fit permuted labels. Where they differ in the number of examples it says nothing:
# with 90 a class layers move farther than with 30, whether the gap is smaller (true labels) or not. Where they differ in
# width, the classifier says the opposite and the other layers agree, since relative distances depend on the shapes of
# layers. As an indicator of an overfit the distance needs a network of the same shape and data to compare with.

# %% [markdown]
# ## Which layers are used for what
#
# One network of six hidden layers, half of its labels permuted. Two ways to ask: set one layer back to its initial
# values, and see which kind of examples suffers; or keep the layers up to one, and put a linear probe on top, trained
# with the labels of training.

# %%
network = "mlp 6 x 192, 30 characters, half permuted"
learnt = "--data glyphs --data-arg classes=30 --data-arg per_class=60 --arch-arg depth=6 --arch-arg width=192"
schedule = "--schedule step --milestones 28 --epochs 35"
if FULL:
    network = "mlp 6 x 512, 100 characters, half permuted"
    learnt = "--data glyphs --arch-arg depth=6 --arch-arg width=512"
    schedule = "--schedule step --milestones 30 --epochs 40"
trained = command(f"train {learnt} {schedule} --lr 0.03 --permute 0.5")
print("\n".join(line for line in trained.splitlines() if line.startswith(("mlp", "accuracy", "memorization"))))
said = command(
    "reinit run --checkpoints init --draws 0 --no-zero --utilisation --final-reset 3 --reset-to init,fresh "
    f"--retrain-steps {400 if FULL else 100}"
)
reset = with_settings(results("reinit.csv"), "analysis", "sweep", "k", "to", "steps", "chosen")
drops = reset[(reset["metric"] == "accuracy_drop") & (reset["sweep"] == "each")]
drop, drop_error = (drops.pivot(index="layer", columns="kind", values=name) for name in ("value", "stderr"))
ORDER = list(drops.sort_values("depth")["layer"].unique())
SCORED = ["unpermuted", "permuted", "test"]
pd.concat({"accuracy lost": drop.loc[ORDER, SCORED], "±": drop_error.loc[ORDER, SCORED]}, axis=1).round(3)

# %%
relative = reset[(reset["metric"] == "normalised_drop") & (reset["sweep"] == "each")]
share, share_error = (
    relative.pivot(index="layer", columns="kind", values=name).loc[ORDER] for name in ("value", "stderr")
)
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for kind in SCORED:
    ax.errorbar(ORDER, share[kind], share_error[kind], fmt="o-", color=COLOR[kind], ms=4, label=kind)
ax.set(ylabel="share lost of accuracy above chance", title="one layer set back to its initial values", ylim=(0, 1))
ax.tick_params(axis="x", rotation=30)
_ = ax.legend(frameon=False)

# %%
first, final = ORDER[0], ORDER[-2:]
early = share.loc[first, "test"] / share.loc[first, "unpermuted"]
verdict(
    "the first layer serves training and test alike",
    "early layers",
    f"reset: test loses {share.loc[first, 'test']:.2f} of what is above chance, unpermuted {share.loc[first, 'unpermuted']:.2f}",
    "alike within a fifth",
    abs(early - 1) <= 0.2,
)
more_permuted = (share["permuted"] - share["test"]) / np.hypot(share_error["permuted"], share_error["test"])
verdict(
    "final layers serve permuted examples more than test",
    "deeper layers",
    ", ".join(
        f"{layer}: permuted loses {share.loc[layer, 'permuted']:.2f}, test {share.loc[layer, 'test']:.2f}"
        for layer in final
    ),
    "both final layers by two errors; no such thing at the first",
    (more_permuted[final] > 2).all(),
    more_permuted[first] <= 2,
)

# %% [markdown]
# The first layer is needed for all kinds. The final layers are needed by permuted examples more than by test data, as
# the paper has it; but so is every other layer, the first most of all, for what is memorized stands less firm.

# %%
plot_utilisation(results("reinit.csv"))

# %%
probes = reset[reset["metric"] == "prefix_accuracy"].sort_values("depth")
probe, probe_error = (
    probes.pivot(index="layer", columns="kind", values=name).loc[probes["layer"].unique()]
    for name in ("value", "stderr")
)
peak, end = probe["test"].idxmax(), probe.index[-1]
fall = probe.loc[peak, "test"] - probe.loc[end, "test"]
fall_error = np.hypot(probe_error.loc[peak, "test"], probe_error.loc[end, "test"])
verdict(
    "deeper layers fit the training labels and generalize worse",
    "yes",
    f"probe on test {probe.loc[peak, 'test']:.2f} at {peak}, {probe.loc[end, 'test']:.2f} at {end}; "
    f"on permuted {probe.loc[peak, 'permuted']:.2f}, {probe.loc[end, 'permuted']:.2f}",
    "test falls from its peak to the end by two errors; permuted rises",
    fall > 2 * fall_error,
    probe.loc[end, "permuted"] > probe.loc[peak, "permuted"],
)

# %% [markdown]
# The paper's picture, plainly: what helps test data has been made after two layers, .61 against .46 of the whole
# network; from there on the layers trade it for the permuted labels. A probe after h2 that is trained on labels half of
# which are wrong is more accurate than the network that it was taken from.

# %% [markdown]
# ## Final layers reset, as regularisation
#
# The last one to three layers are set to their initial values or to fresh draws; then these layers alone are trained
# again for a few steps, on the same labels, permuted ones included. How many layers, set to what, and for how many
# steps, is chosen on validation data; the gain is that of the chosen one on test data.

# %%
plot_final_reset(results("reinit.csv"))

# %%
gains = reset[reset["metric"] == "accuracy_gain"].set_index("kind")
chosen = gains.loc["test"]
resets = reset[(reset["analysis"] == "final_reset") & (reset["metric"] == "accuracy")]
by_steps = resets.pivot_table(index=["to", "k", "steps"], columns="kind", values="value", sort=False)
few = by_steps[by_steps.index.get_level_values("steps") > 0]
trained_test = resets[(resets["k"] == 0) & (resets["kind"] == "test")]["value"].iloc[0]
verdict(
    "re-initializing final layers regularizes",
    "yes",
    f"last {chosen['k']} to {chosen['to']}, {chosen['steps']} steps: test {chosen['value']:+.3f} ± {chosen['stderr']:.3f}, "
    f"permuted {gains.loc['permuted', 'value']:+.3f}; {(few['test'] > trained_test).sum()} of {len(few)} resets gain",
    "the one chosen on validation data gains two errors on test data",
    chosen["value"] > 2 * chosen["stderr"],
)
bare = by_steps.xs(0, level="steps")["test"] - trained_test
verdict(
    "without training the reset layers again",
    "not said",
    f"best of them: test {bare.max():+.3f}",
    "any gains on test data",
    bare.max() > 0,
)
by_steps.round(3)

# %% [markdown]
# Without training the reset layers again the network is ruined. With a few steps all resets gain, most with the fewest
# steps: what gains is that permuted labels are not known any more, and with more steps they are learnt again. Validation
# data find the second best of 24, +.048. Early stopping would have given more here, the accuracy of the best epoch:

# %%
scores = pd.read_csv(Path(workspace.name) / "run/metrics.csv").pivot(index="epoch", columns="kind", values="accuracy")
scores.loc[[scores["validation"].idxmax(), scores.index[-1]], ["unpermuted", "permuted", "test"]].round(3)

# %% [markdown]
# ## The paper's statements and ours

# %%
pd.DataFrame(findings).set_index("quantity")

# %% [markdown]
# ## What follows
#
# - **Which layers serve what: reproduced.** Probes on the early layers generalize, deeper ones fit the labels of training.
# - **Final layers reset: reproduced**, if they are trained again for a moment; and it takes clean validation data, which
#   would also have served to stop earlier, for more.
# - **Distance and gap: only where nothing but the labels differs.** Then it holds for any layer. Over data of different
#   size or networks of different width a greater distance does not mean worse performance, and that the final layers
#   tell more than the first is not shown.
#
# The larger settings (`MANIGEO_FULL=1`) were not run for this page.

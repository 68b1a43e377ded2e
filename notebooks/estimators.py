# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Three ways to a capacity: mean field, joint, simulated
#
# Capacity is the number of manifolds per dimension up to which random dichotomies of them can be separated. Manigeo has
# three estimators; the [README](../README.md#three-ways-to-a-capacity) says what each assumes and gives. In short:
#
# - *mean field* takes one manifold at a time, and the others as a medium in which it lies: quick, with radius and
#   dimension of each;
# - *joint* takes all manifolds at once, with their labels (GLUE, Chou et al. 2024): no assumption about correlations,
#   and it says what the capacity is made of;
# - *simulated* takes no theory at all: it counts separable dichotomies in more and more dimensions.
#
# Here all three look at one network that has memorized half of its labels: where they differ, what joint gives beside a
# capacity, and what it costs. That mean field needs no rule for centres is the subject of
# [`centers.ipynb`](centers.ipynb).

# %%
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.optimize import nnls
from threadpoolctl import threadpool_limits

import manigeo
from manigeo.capacity.cone import UnitPoints, project_on_cone
from manigeo.layerwise.geometry import Joint, Simulated
from manigeo.manifolds import span_coordinates

# %matplotlib inline

# %% [markdown]
# ## One network, four kinds
#
# A network of four layers learns rendered characters, half of their labels permuted, until it knows all labels by heart.
# We analyse 30 of the 100 classes with 20 examples each. The width of 384 is no accident: M points without structure
# have capacity 2/M, so 30 permuted manifolds ask for about 300 dimensions, and a narrower layer could not separate them.

# %%
workspace = tempfile.TemporaryDirectory()  # goes with the kernel
folder = Path(workspace.name)


def command(line):
    done = subprocess.run([sys.executable, "-m", "manigeo", *line.split()], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


network = "--data glyphs --data-arg per_class=60 --arch-arg depth=4 --arch-arg width=384"
trained = command(f"train {network} --lr 0.05 --epochs 20 --permute 0.5")
command("extract --model run/checkpoints/last.pt --layers h? --layers logits")
print("\n".join(line for line in trained.splitlines() if line.startswith(("mlp", "accuracy", "memorization"))))

# %%
plan = manigeo.plan_capacity(
    folder / "acts.h5", n_classes=30, per_class=20, also=[Joint(40), Simulated(200)], total_dimension=False
)
table = manigeo.capacity_table(plan)
manigeo.plot_estimators(table)

# %% [markdown]
# All three tell the same story: unpermuted capacity rises through all layers, permuted capacity leaves the floor late,
# restored capacity gains little after h1. By how much do they differ? All see the same manifolds, so errors are those of
# draws and dichotomies alone; the bars of mean field above contain the spread of manifolds, and are wider.

# %%
overall = table[table["manifold"] == ""]


def by_place(column):
    return overall.pivot(index=["depth", "layer", "kind"], columns="metric", values=column).droplevel("depth")


values, errors, flags = by_place("value"), by_place("stderr"), by_place("flag")
errors["capacity"] = values["capacity_stderr_draws"]  # the same manifolds for all three: their spread is no error here


def compare(one, other):
    """One estimator by another, less 1, in per cent, where neither is saturated."""
    ratio = values[one] / values[other]
    error = ratio * np.hypot(errors[one] / values[one], errors[other] / values[other])
    found = pd.DataFrame({"difference": 100 * (ratio - 1), "error": 100 * error, "saturated": flags["capacity_joint"]})
    return found[found["saturated"] == ""].drop(columns="saturated").dropna()


PAIRS = [("capacity", "capacity_simulated"), ("capacity_joint", "capacity_simulated"), ("capacity_joint", "capacity")]
for one, other in PAIRS:
    found = compare(one, other)
    z = found["difference"] / found["error"]
    print(f"{one} by {other}, {len(found)} layers and kinds")
    for name, where in (("largest", found["difference"].abs().idxmax()), ("most errors", z.abs().idxmax())):
        difference, error = found.loc[where]
        print(f"  {name:12} {difference:+.1f} ± {error:.1f} %, at {' '.join(where)}")
    mean, mean_error = found["difference"].mean(), np.sqrt(np.square(found["error"]).sum()) / len(found)
    print(f"  {'mean':12} {mean:+.2f} ± {mean_error:.2f} %; rms of difference / error {(z**2).mean() ** 0.5:.2f}")

stuck = flags["capacity_joint"].str.contains("saturated") | flags["capacity_simulated"].ne("")
near = pd.DataFrame(
    {
        "mean field": values["capacity"],
        "joint": values["capacity_joint"],
        "simulated": values["capacity_simulated"],
        "draws in the cone": values["saturated_fraction_joint"],
        "P/rank": values["bound_joint"],
        "flag of joint": flags["capacity_joint"],
        "flag of simulated": flags["capacity_simulated"],
    }
)
near[stuck].round(3)

# %% [markdown]
# Among 17 comparisons of equals the largest difference should be two to three errors, and so it is for each pair. The
# means over layers and kinds are within one or two of their errors of zero: here the three estimators are not told apart.
# (Joint capacity has 40 draws a layer, so its largest differences, of 5 %, are the least certain.)
#
# In the logits three of the four kinds are *saturated* (hollow, off the lines): 100 dimensions do not separate 30
# manifolds. Simulation gives NaN with its bound, α < .3. Joint capacity gives that bound and no more: all of its draws
# lie in the cone. Mean field still has a number, .17 to .22, below the bound as it must be, but flagged, since nothing
# here can check it.

# %% [markdown]
# ## What joint capacity is made of
#
# A draw t is projected on the cone of all signed points; each manifold then has an *anchor*, a point of its hull. With
# the anchors as rows of $S$, their means over draws $S_0$ and $S_1 = S - S_0$ (equations in `manigeo.capacity.glue`):
#
# - *dimension* $D = \mathrm{E}b/P$: b is the squared length of t within the span of $S_1$, the anchors' deviations from
#   their means; 1 if t did not care for them;
# - *radius* $R = \sqrt{\mathrm{E}c / \mathrm{E}(b - c)}$: c is b with the Gram of the means added to that of the
#   deviations, so R is large where deviations are large against means;
# - *utility* $U = \mathrm{E}c / \mathrm{E}a$: the share of c in a, the squared length of t within the span of the
#   anchors themselves, which is $P/\alpha$ on average;
# - *centre alignment*: |cos| of the mean anchors of two manifolds, averaged over pairs;
# - *axis alignment*: mean |cos| of two anchors around their means;
# - *centre-axis alignment*: mean |cos| of one's mean anchor and the other's around its mean.
#
# They make up the capacity, $\alpha = U\,(1 + R^{-2})/D$, so the change of each over the layers says where the change of
# capacity comes from.

# %%
MEASURES = {
    "capacity": r"capacity $\alpha$",
    "dimension": "dimension $D$",
    "radius": "radius $R$",
    "utility": "utility $U$",
    "center_alignment": "centre alignment",
    "axis_alignment": "axis alignment",
    "center_axis_alignment": "centre-axis alignment",
}
PAIR = {"unpermuted": ("C0", "o"), "permuted": ("C1", "s")}
hidden = [layer for layer in plan.layers if layer != "logits"]


def measure(name, kind):
    """Value and error over the hidden layers."""
    return [part.xs(kind, level="kind").loc[hidden, f"{name}_joint"].to_numpy() for part in (values, errors)]


fig, axes = plt.subplots(2, 3, figsize=(10, 5), sharex=True, layout="constrained")
for ax, name in zip(axes.flat, [m for m in MEASURES if m != "capacity"], strict=True):
    for kind, (color, marker) in PAIR.items():
        ax.errorbar(hidden, *measure(name, kind), color=color, marker=marker, ms=4, label=kind)
    ax.set_ylabel(MEASURES[name])
for ax in axes[1]:
    ax.axhline(
        np.sqrt(2 / np.pi / values.loc[hidden, "rank_joint"].mean()), color="0.4", ls=":", label="random directions"
    )
    ax.set_ylim(bottom=0)
fig.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)


def growth(at):
    return at[-1] / at[0]


def factors(kind):
    """By what capacity and its factors change from the first hidden layer to the last; the dimension of mean field too."""
    mean_field = values.xs(kind, level="kind").loc[hidden, "dimension"]
    return {
        "capacity": growth(measure("capacity", kind)[0]),
        "U": growth(measure("utility", kind)[0]),
        "1 + 1/R²": growth(1 + measure("radius", kind)[0] ** -2),
        "1/D": 1 / growth(measure("dimension", kind)[0]),
        "mean-field dimension": growth(mean_field.to_numpy()),
    }


pd.DataFrame({kind: factors(kind) for kind in PAIR}).T.round(2)

# %% [markdown]
# Unpermuted capacity grows 1.46-fold from h1 to h4, permuted 1.30-fold, and in both it is utility that grows (1.61 and
# 1.81), with some help of a smaller radius, while D takes part of it back. So GLUE's D rises where the dimension of mean
# field falls: they are different quantities with one name, and only the first follows from anchors of all manifolds
# together. All three alignments fall towards those of random directions: layers turn manifolds out of each other's way.
# Means of permuted manifolds are aligned less than those of unpermuted ones, their axes more.
#
# Which classes limit capacity? $1/\alpha$ is a mean over classes of the part that each has in it. With 40 draws parts
# are known to a fifth of their size, so here are 400 draws of the last hidden layer.

# %%
with manigeo.open_activations(folder / "acts.h5") as acts:
    names = [acts.class_names[label] for label in plan.classes["permuted"]]
    clouds = {kind: list(acts.manifolds(hidden[-1], kind, 20, 0, plan.classes["permuted"])) for kind in PAIR}
joint = {kind: manigeo.joint_capacity(X, 400) for kind, X in clouds.items()}
per_class = {kind: found.per_class.set_index(pd.Index(names)) for kind, found in joint.items()}

order = per_class["unpermuted"]["inverse_capacity"].sort_values().index
fig, ax = plt.subplots(figsize=(9, 3), layout="constrained")
for shift, (kind, (color, marker)) in zip((-0.12, 0.12), PAIR.items(), strict=True):
    part, error = (per_class[kind].loc[order, f"inverse_capacity{which}"] for which in ("", "_stderr"))
    ax.errorbar(np.arange(len(order)) + shift, part, error, color=color, marker=marker, ms=4, ls="", label=kind)
    ax.axhline(part.mean(), color=color, lw=0.8, ls="--")
    spread = np.sqrt(max(part.var() - np.square(error).mean(), 0)) / part.mean()
    chi2 = np.square((part - part.mean()) / error).sum() / (len(part) - 1)
    least, most = part.idxmin(), part.idxmax()
    print(
        f"{kind}: capacity {joint[kind].capacity:.4f} ± {joint[kind].stderr:.4f}\n"
        f"  parts of 1/capacity: mean {part.mean():.2f}, from {part[least]:.1f} ± {error[least]:.1f} ({least}) "
        f"to {part[most]:.1f} ± {error[most]:.1f} ({most})\n"
        f"  spread beyond errors {100 * spread:.0f} %, chi-squared {chi2:.1f} per degree of freedom"
    )
ax.set_xticks(np.arange(len(order)), order)
ax.set(xlabel="class, by its part when unpermuted", ylabel=r"part of $1/\alpha$", ylim=(0, None), title=hidden[-1])
_ = ax.legend(frameon=False, ncols=2, loc="lower right")


# %% [markdown]
# Unpermuted, O, D and 0 limit capacity twice as much as k, and classes differ by a sixth beyond their errors: some
# characters have doubles. Permuted, no class stands out: their spread is about that of the errors, as it should be for
# groups of images that have nothing in common but a label.

# %% [markdown]
# ## What a draw costs
#
# Joint capacity solves one non-negative least squares problem of all $PM$ points for each draw. Against the number of
# points and of features, on Gaussian clouds with the spectrum of a power law, beside scipy's `nnls` on the same problem,
# in turn, on one thread; M = 20. Hollow points: draws that lie in the cone, since there are too few features
# (saturated). Both solvers see the points in the coordinates of their span, and both projections are compared.


# %%
def power_law_clouds(P, N, M=20):
    """P manifolds whose features have variance 1/k, with centres of half the spread; mean subtracted, lengths one."""
    rng = np.random.default_rng(0)
    centers, points = rng.standard_normal((P, 1, N)) / 2, rng.standard_normal((P, M, N))
    X = ((centers + points) * np.arange(1, N + 1) ** -0.5).reshape(P * M, N)
    Z = span_coordinates(X - X.mean(axis=0))
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def clocked(solve, *args, **options):
    start = time.perf_counter()
    return solve(*args, **options), time.perf_counter() - start


def cost(P, N, n_draws=9):
    """Median seconds a draw of both solvers in turn; the largest difference of their projections."""
    Z, rng = power_law_clouds(P, N), np.random.default_rng(1)
    shared, rows = UnitPoints.of(Z), []
    for _ in range(n_draws):
        y, t = np.repeat(rng.choice([-1.0, 1.0], P), len(Z) // P), rng.standard_normal(Z.shape[1])
        mine, seconds = clocked(project_on_cone, shared, y, t)
        signed = y[:, None] * Z
        (x, _), seconds_nnls = clocked(nnls, signed.T, t, maxiter=30 * len(Z))
        difference = np.abs(mine.multipliers @ signed[mine.active] - x @ signed).max()
        rows.append((seconds, seconds_nnls, seconds_nnls / seconds, len(mine.active), mine.inside, difference))
    columns = ["joint", "nnls", "nnls / joint", "active", "in the cone"]
    held = sum(a.nbytes for a in (shared.points, shared.points_single, shared.gram, shared.gram_single)) / 1e6
    largest = max(row[-1] for row in rows)
    medians = dict(zip(columns, np.median(rows, axis=0), strict=False))
    return {"points": len(Z), "N": N} | medians | {"largest difference": largest, "MB held": held}


with threadpool_limits(1):
    cost(10, 128)  # compiles, and fills caches
    by_points = pd.DataFrame([cost(P, 512) for P in (10, 20, 40, 80)])
    by_features = pd.DataFrame([cost(40, N) for N in (128, 256, 512, 1024, 2048, 4096)])


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for ax, found, x in ((left, by_points, "points"), (right, by_features, "N")):
    for solver, color, label in (("joint", "C3", "joint capacity"), ("nnls", "0.4", "scipy nnls")):
        exponent = f", exponent {slope(found[x], found[solver]):.1f}" if x == "points" else ""
        ax.loglog(found[x], found[solver], "o-", ms=4, color=color, label=label + exponent)
        saturated = found[found["in the cone"] == 1]
        ax.plot(saturated[x], saturated[solver], "o", ms=4, color=color, mfc="white")
    ax.set_xticks(found[x], found[x])
    ax.minorticks_off()
    ax.legend(frameon=False)
left.set(xlabel="points $PM$, at $N$ = 512", ylabel="seconds a draw, median of 9")
right.set(xlabel="features $N$, at $PM$ = 800")
measured = pd.concat([by_points, by_features])
measured["largest difference"] = measured["largest difference"].map("{:.0e}".format)
measured.set_index(["points", "N"]).round({"joint": 4, "nnls": 4, "nnls / joint": 1, "MB held": 1})

# %% [markdown]
# Over these sizes a draw takes time as the points to the power 2.0, and 2.7 with `nnls`: half its time at 200 points, a
# seventh at 1600. The last step is the steepest, since 80 manifolds use 413 of the 512 dimensions, and draws near
# saturation are the hardest. Against the features its time falls from N = 256 on, where 211 of 256 dimensions are in
# use; beyond N = PM more features cost nothing, as the points span PM dimensions at most and features are read once, for
# their Gram. The two projections agree to 2e-13 or better. Here this is the projection alone; the measures of a draw,
# from P × P matrices, come on top.
#
# Memory goes with the square of the points up to 5000, for their Gram in double and single precision (300 MB); above,
# blocks of it are computed as needed. The whole process was seen to peak at 0.2 GB for 1600 points × 512 features, 0.8
# GB for 5000 × 2048, 0.7 GB for 10,000 × 1024. For a scale, the three estimators on the permuted examples of h4, 30 × 20
# × 384:

# %%
ways = {
    "mean field": manigeo.manifold_capacity,
    "joint": manigeo.joint_capacity,
    "simulated": manigeo.simulated_capacity,
}
draws = {"mean field": {"n_draws": 300}, "joint": {"n_draws": 100}, "simulated": {"n_dichotomies": 200}}
for name, way in ways.items():
    found, seconds = clocked(way, clouds["permuted"], **draws[name])
    print(f"{name:10} {found.capacity:.4f} in {seconds:.1f} s")

# %% [markdown]
# ## When to use which
#
# | | take it | mind |
# |---|---|---|
# | mean field | for curves over layers, kinds and epochs, and for the radius and dimension of each class | about 1 % low, more with ten classes; where a layer is saturated its number is flagged |
# | joint | for few or strongly correlated manifolds, for what capacity is made of, and for the classes that limit it | 40 draws leave 2 to 3 % of error unpermuted, 400 leave 1 %; parts of classes want 400; ends at P/rank |
# | simulated | to check either: it assumes nothing | the slowest; no geometry; NaN with a bound where a layer is saturated |

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Geometry in five minutes
#
# A *manifold* here is the cloud of points that a layer makes of the examples of one class. Three numbers describe how
# hard it is to tell such clouds apart by hyperplanes:
#
# - *capacity* α: how many manifolds per dimension can be separated, whatever labels they are given;
# - *radius* R: how large a manifold is where it matters, in units of the distance of its centre from the origin;
# - *dimension* D: in how many directions it extends where it matters.
#
# This notebook shows what they mean on shapes whose answers are known exactly, and two things that everyone who
# compares capacities should know: the floor 2/M, and what becomes of a number when M changes.
#
# It runs in fifteen seconds on one core; `MANIGEO_FULL=1` takes more draws, dichotomies and points, about two minutes.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import manigeo
from manigeo.capacity.anchors import solve_anchors
from manigeo.capacity.separation import linear_separation
from manigeo.capacity.theory import ball_capacity, ball_radius, point_capacity

# %matplotlib inline

FULL = os.environ.get("MANIGEO_FULL") == "1"
DRAWS = 20_000 if FULL else 3_000
DICHOTOMIES = 500 if FULL else 60


def circle(n):
    angles = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(angles), np.sin(angles)])


def sphere(n, dim, rng):
    """Points at distance 1 from their centre, in random directions."""
    X = rng.standard_normal((n, dim))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def shape_at(center, shape, rng):
    """The shape (points, dim) around the centre, in random directions at right angles to it."""
    frame, _ = np.linalg.qr(np.column_stack([center, rng.standard_normal((len(center), shape.shape[1]))]))
    return center + shape @ frame[:, 1:].T


# %% [markdown]
# ## Capacity by eye
#
# Three discs in three dimensions, each around a centre at distance 1 from the origin. A *dichotomy* gives each disc a
# sign, and a plane through the origin has to keep the two signs apart. Small discs can be separated for all of their
# dichotomies; large ones get into each other's way.


# %%
def separable(clouds, labels):
    signs = np.concatenate([np.full(len(cloud), sign) for cloud, sign in zip(clouds, labels, strict=True)])
    return linear_separation(np.concatenate(clouds), signs)


centers = np.array([[0.9, 0.1, 0.42], [-0.25, 0.85, 0.46], [-0.4, -0.65, 0.65]])
centers /= np.linalg.norm(centers, axis=1, keepdims=True)
frames = [np.random.SeedSequence(n) for n in range(3)]
signs = np.array([1.0, -1.0, 1.0])

fig = plt.figure(figsize=(10, 4), layout="constrained")
for place, radius in enumerate((0.3, 1.0), 1):
    discs = [
        shape_at(c, radius * circle(60), np.random.default_rng(seed)) for c, seed in zip(centers, frames, strict=True)
    ]
    found = separable(discs, signs)
    ax = fig.add_subplot(1, 2, place, projection="3d")
    for disc, center, sign in zip(discs, centers, signs, strict=True):
        color = "C0" if sign > 0 else "C1"
        ax.plot(*np.vstack([disc, disc[:1]]).T, color=color)
        ax.plot(*np.column_stack([np.zeros(3), center]), color=color, lw=0.8, ls=":")
        ax.scatter(*center, color=color, s=12)
    if found.separable:
        across = np.linalg.svd(found.normal[None])[2][1:]
        corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) @ across
        ax.plot_trisurf(*corners.T, triangles=[[0, 1, 2], [0, 2, 3]], color="0.5", alpha=0.25)
    ax.scatter(0, 0, 0, color="black", s=10)
    word = "a plane separates them" if found.separable else "no plane does"
    ax.set_title(f"R = {radius}: {word}")
    ax.set(xticklabels=[], yticklabels=[], zticklabels=[], aspect="equal")

# %% [markdown]
# In many dimensions N, with P manifolds in random directions, the share of dichotomies that can be separated falls
# from all to none around $P/N = \alpha$. Below, the closed forms of mean-field theory (Gardner 1988 for points; Chung,
# Lee and Sompolinsky 2018 for balls) are the dashed lines, and every dot is a share of random dichotomies that were
# separated, or not, with a proof.

# %%
N = 60 if FULL else 30
SHAPES = {
    "points": (np.zeros((1, 1)), point_capacity()),
    "segments, R = 0.5": (0.5 * np.array([[1.0], [-1.0]]), ball_capacity(0.5, 1)),
    "segments, R = 1": (np.array([[1.0], [-1.0]]), ball_capacity(1, 1)),
    "discs, R = 1": (circle(12), ball_capacity(1, 2)),
}


def share_separable(shape, P, rng):
    hits = [
        separable([shape_at(c, shape, rng) for c in sphere(P, N, rng)], rng.choice([-1.0, 1.0], P)).separable
        for _ in range(DICHOTOMIES)
    ]
    return np.mean(hits)


fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for number, (name, (shape, capacity)) in enumerate(SHAPES.items()):
    sizes = np.unique(np.round(N * capacity * np.linspace(0.5, 1.5, 9)).astype(int))
    rng = np.random.default_rng(number)
    ax.plot(sizes / N, [share_separable(shape, P, rng) for P in sizes], "o-", ms=4, color=f"C{number}", label=name)
    ax.axvline(capacity, color=f"C{number}", ls="--", lw=1)
ax.axhline(0.5, color="0.4", lw=0.8, ls=":")
ax.set(xlabel="manifolds per dimension $P/N$", ylabel="share of dichotomies\nthat are separable")
_ = ax.legend(frameon=False)

# %% [markdown]
# The curves cross one half at the closed forms: 2 for points, less for anything that extends. That crossing is
# *simulated capacity* (`manigeo.simulated_capacity`); the theory gets it from one manifold at a time.
#
# ## Anchors: what theory looks at
#
# It draws random directions t, and projects each on the set of vectors that keep the whole manifold on one side. The
# projection is held up by one point of the manifold's hull, the *anchor* of that draw. A segment in its own plane,
# with the direction of the centre upwards, has three cases:

# %%
R = 0.6
segment = np.array([[R], [-R]])
draws = np.random.default_rng(1).uniform(-2.2, 2.2, (60, 2))
found = solve_anchors(segment, draws)
anchors = np.column_stack([found.weights @ segment, np.ones(len(draws))])
projected = draws - found.mass[:, None] * anchors

fig, ax = plt.subplots(figsize=(7.6, 4.6), layout="constrained")
inside = ~found.interior & (np.abs(anchors[:, 0]) < R - 1e-9)
cases = {
    "free: t is on the right side already": (found.interior, "0.6"),
    "held up by an end": (~found.interior & ~inside, "C0"),
    "held up by a point inside": (inside, "C3"),
}
left, right = np.array([-1, -R]) * 4, np.array([1, -R]) * 4
ax.fill([0, left[0], right[0]], [0, left[1], right[1]], color="C2", alpha=0.12, lw=0, label="keeps all on one side")
for name, (these, color) in cases.items():
    ax.scatter(*draws[these].T, s=14, color=color, label=name)
    for t, v in zip(draws[these], projected[these], strict=True):
        ax.plot(*zip(t, v, strict=True), color=color, lw=0.6)
    held = these & ~found.interior
    ax.scatter(*anchors[held].T, s=36, facecolor="none", edgecolor=color)
ax.plot([-R, R], [1, 1], color="black", lw=3, label="the manifold")
ax.plot([0, 0], [0, 1], color="black", lw=0.8, ls=":")
ax.set(xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xlabel="along the segment", ylabel="along the centre", aspect="equal")
_ = fig.legend(loc="outside right upper", frameon=False, fontsize=8)

# %% [markdown]
# Lines join each draw with its projection; rings are anchors. Draws in the green cone are free and cost nothing. Above,
# the projection is the origin and the anchor is the point of the segment in the direction of t; at the sides the
# projection is on the cone's edge and the anchor an end. Then, with anchors $\tilde s$ of Gaussian draws t,
#
# $$\frac1\alpha = \left\langle \frac{[t\cdot\tilde s]_+^2}{|\tilde s|^2} \right\rangle,\qquad
# R^2 = \langle |\tilde s - \langle\tilde s\rangle|^2 \rangle,\qquad
# D = D_\mathrm{span}\,\langle \hat t\cdot\hat s\rangle^2 .$$
#
# So radius and dimension are those of the *anchors*: the part of a manifold that decides about separability. A large
# segment has many anchors inside, and its radius is smaller than its half-length.
#
# ## Closed forms and estimates
#
# `manigeo.frame_geometry` measures a manifold given by its points around the centre, in units of the centre's distance.
# Balls are given by points of their surface, in one to five dimensions. A regular simplex of D + 1 corners at radius
# $\sqrt D$ has a closed form too: its corners are orthogonal seen from the origin, so α = 2/(D + 1).


# %%
def simplex(dim):
    """Corners of a regular simplex around its centre, at distance 1 from it."""
    corners = np.eye(dim + 1) - 1 / (dim + 1)
    return corners / np.linalg.norm(corners, axis=1, keepdims=True)


rng = np.random.default_rng(0)
n_five = 3000 if FULL else 800
BALLS = [("segment", 1, simplex(1)), ("disc", 2, circle(60)), ("ball", 5, sphere(n_five, 5, rng))]
KNOWN = [
    (f"{name}, R = {radius}", radius * shape, ball_capacity(radius, dim), ball_radius(radius, dim), dim)
    for name, dim, shape in BALLS
    for radius in (0.5, 2)
] + [("simplex of 11 corners", np.sqrt(10) * simplex(10), 2 / 11, np.nan, np.nan)]


def estimate(name, shape, capacity, radius, dim):
    g = manigeo.frame_geometry(shape, n_draws=DRAWS, rng=np.random.default_rng(0))
    return {
        "shape": name,
        "points": len(shape),
        "capacity, exact": round(capacity, 4),
        "capacity": f"{g.capacity:.4f} ± {g.capacity_stderr:.4f}",
        "radius, exact": round(radius, 4),
        "radius": f"{g.radius:.4f} ± {g.radius_stderr:.4f}",
        "dimension, exact": dim,
        "dimension": f"{g.dimension:.3f} ± {g.dimension_stderr:.3f}",
    }


pd.DataFrame([estimate(*known) for known in KNOWN]).set_index("shape")

# %% [markdown]
# Capacities agree with the closed forms within two of their errors, and so do radius and dimension of all but the ball in
# five dimensions: 800 points of its surface leave some of it out, so its radius and dimension are a little below those of
# the whole. Note the radii: that of a segment of half-length 2 is 1.70, because many draws are held up by its inside.
#
# ## How capacity changes with radius and dimension
#
# Three identities hold for balls at every D: $\alpha = 2$ at R = 0, $\alpha = 2/(D+1)$ at R = 1, and
# $1/\alpha(R) + 1/\alpha(1/R) = D + 1$, so $\alpha \to 2/(2D+1)$ for large R: the hyperplane has to
# contain all D directions of a huge ball, and they are lost to it.

# %%
radii = np.geomspace(0.05, 20, 25)
fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for number, dim in enumerate((1, 2, 5, 10, 20, 50)):
    color = plt.get_cmap("viridis")(number / 6)
    ax.loglog(radii, [ball_capacity(r, dim) for r in radii], color=color, label=f"D = {dim}")
    ax.plot(1, 2 / (dim + 1), "o", ms=4, color=color)
ax.set(xlabel="radius $R$", ylabel=r"capacity $\alpha$")
ax.legend(frameon=False, ncols=2)
worst = max(
    abs(1 / ball_capacity(r, d) + 1 / ball_capacity(1 / r, d) - d - 1) for r in (0.2, 0.7, 3) for d in (1, 7, 40)
)
print(f"the last identity holds to {worst:.0e}")

# %% [markdown]
# So capacity grows where manifolds shrink, and where they lose dimensions; once R is well below $1/\sqrt D$ they are points
# to a hyperplane, and nothing is left to gain. Any manifold has about the capacity of the ball of its radius and dimension
# (of this dimension there are two conventions, see `manigeo.capacity.geometry`; here it is `dimension_prx`). Of these
# shapes none is a ball:

# %%
rng = np.random.default_rng(0)
walk = rng.standard_normal((60, 8)).cumsum(axis=0)
ODD = {
    "cube, 6 dimensions": np.stack(np.meshgrid(*[[-0.4, 0.4]] * 6), -1).reshape(-1, 6),
    "Gaussian cloud, 40 points in 12 dimensions": 0.3 * rng.standard_normal((40, 12)),
    "ellipsoid, half-axes 1, 1/2, 1/3 ...": sphere(400, 8, rng) / np.arange(1, 9),
    "random walk of 60 steps": 0.1 * (walk - walk.mean(axis=0)),
    "cross of 10 segments": 0.8 * np.vstack([np.eye(10), -np.eye(10)]),
}


def as_ball(name, shape):
    g = manigeo.frame_geometry(shape, n_draws=DRAWS, rng=np.random.default_rng(0))
    ball = ball_capacity(g.radius, g.dimension_prx)
    found = {"shape": name, "capacity": g.capacity, "radius": g.radius, "dimension": g.dimension_prx}
    return found | {"capacity of the ball": ball, "ratio": ball / g.capacity}


pd.DataFrame([as_ball(*item) for item in ODD.items()]).set_index("shape").round(3)

# %% [markdown]
# The ball comes within 7 % of all of them.
#
# ## The floor, 2/M
#
# A network's manifold is M examples. M points without any structure can be separated for all of their M labels, not
# only for one label of the whole, so P manifolds of M such points are as hard as PM points: α = 2/M for many classes, 2 %
# less for 30 and 6 % less for 10 (the column floor). This is the floor under every capacity curve, and a network at the
# floor has done nothing for its classes. Random points are there at every M, but for 1 to 2 %; their radius and dimension
# are constants of nothing: R → 1.463 and D → .7335 (M − 1).

# %%
P, n_most = (100, 80) if FULL else (30, 40)
noise = [np.random.default_rng(n).standard_normal((n_most, 3000)) for n in range(P)]
sizes = [5, 10, 20, 40] + [80] * FULL
floor = manigeo.capacity_vs_M(noise, sizes=sizes)
floor["D / (M - 1)"] = floor["dimension"] / (floor["M"] - 1)
floor[["M", "capacity", "capacity_stderr", "floor", "radius", "dimension", "D / (M - 1)"]].round(3)

# %% [markdown]
# ## Never compare different M
#
# Points of a manifold with structure stay above the floor, but M points underfill it: here a ball in 20 dimensions of
# radius .3, seen through M points of its surface, averaged over several samples.

# %%
SIZES = [10, 25, 50, 100, 200, 400, 800] + [1600] * FULL
exact = ball_capacity(0.3, 20)


def sampled(M, n_samples=8 if FULL else 4):
    rngs = [np.random.default_rng((M, n)) for n in range(n_samples)]
    found = [manigeo.frame_geometry(0.3 * sphere(M, 20, rng), n_draws=1000, rng=rng) for rng in rngs]
    return {
        "M": M,
        "capacity": 1 / np.mean([1 / g.capacity for g in found]),
        "floor": 2 / M,
        "dimension": np.mean([g.dimension for g in found]),
    }


sweep = pd.DataFrame([sampled(M) for M in SIZES])
sweep["above the whole ball, %"] = 100 * (sweep["capacity"] / exact - 1)

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.loglog(sweep["M"], sweep["capacity"], "o-", ms=4, label="a ball, R = 0.3, D = 20")
ax.loglog(floor["M"], floor["capacity"], "s", ms=4, color="C1", label="points without structure")
every_M = np.array([5, SIZES[-1]])
ax.loglog(every_M, 2 / every_M, color="0.4", ls="--", label="the floor $2/M$")
ax.axhline(exact, color="C0", ls=":", label="the whole ball")
ax.set(xlabel="points per manifold $M$", ylabel=r"capacity $\alpha$")
ax.legend(frameon=False)
sweep.round(3)

# %% [markdown]
# Ten points have 2.7 times the capacity of the ball they are from, and 800 points are still 60 % above it: most of a
# capacity is the sample's. At equal M the comparison of layers, epochs and kinds is fair.
#
# ## What to take
#
# - Capacity is a count of dichotomies, and can be checked by counting: `simulated_capacity`.
# - Radius and dimension say why it is what it is: they are those of the anchors.
# - Look first where the floor is. `manigeo capacity` prints it.
# - A capacity belongs to its M. Manigeo takes one M for all kinds and layers, and `--sweep-examples` shows the curve.
#
# Next: [where your network memorizes](02_your_network.ipynb), with your own model.

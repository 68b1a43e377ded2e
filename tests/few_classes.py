"""What capacity is for few manifolds, by ways that share nothing with the package: every labelling in turn, and points
without structure by projections whose multiplier is found by bisection."""

import itertools
from math import comb

import numpy as np
from scipy.optimize import nnls


def labellings(P: int) -> list[np.ndarray]:
    """All that have both signs, up to the sign of the whole."""
    return [np.array((1.0, *rest)) for rest in itertools.product((1.0, -1.0), repeat=P - 1) if min(rest) < 0]


def orthogonal_points(P: int, M: int) -> list[np.ndarray]:
    """Points without structure in as many features as one likes."""
    return list(np.eye(P * M).reshape(P, M, P * M))


def centred(manifolds: list[np.ndarray]) -> np.ndarray:
    """All points around their mean, in coordinates of their span."""
    points = np.concatenate(manifolds)
    U, lengths, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return (U * lengths)[:, lengths > 1e-9 * lengths[0]]


def joint_over_all_labellings(manifolds: list[np.ndarray], draws: int, seed: int) -> tuple[float, float]:
    """P / E |proj(t)|^2 with ``draws`` Gaussians for each labelling, and its standard error."""
    Z, P, rng = centred(manifolds), len(manifolds), np.random.default_rng(seed)
    owner = np.repeat(np.arange(P), [len(X) for X in manifolds])
    means, variances = [], []
    for y in labellings(P):
        t = rng.standard_normal((draws, Z.shape[1]))
        squares = [g @ g - nnls((y[owner, None] * Z).T, g)[1] ** 2 for g in t]
        means.append(np.mean(squares))
        variances.append(np.var(squares, ddof=1) / draws)
    mean, error = np.mean(means), np.sqrt(np.sum(variances)) / len(means)
    return P / mean, P / mean**2 * error


def share_separable(manifolds: list[np.ndarray], n: int, projections: int, seed: int, bias: bool = False) -> float:
    """Share of all labellings that are separable in n random dimensions, over ``projections`` of these: by Gordan's theorem,
    where no convex combination of the signed points vanishes."""
    Z, P, rng = centred(manifolds), len(manifolds), np.random.default_rng(seed)
    owner = np.repeat(np.arange(P), [len(X) for X in manifolds])
    separable = []
    for _ in range(projections):
        X = np.column_stack([Z @ rng.standard_normal((Z.shape[1], n)), np.ones((len(Z), int(bias)))])
        for y in labellings(P):
            signed = y[owner, None] * X / np.linalg.norm(X, axis=1, keepdims=True)
            rest = nnls(np.vstack([signed.T, np.ones(len(X))]), np.append(np.zeros(X.shape[1]), 1.0))[1]
            separable.append(rest > 1e-9)
    return float(np.mean(separable))


def critical_dimension(
    manifolds: list[np.ndarray], near: float, projections: int, seed: int = 0
) -> tuple[float, float]:
    """Where the share over all labellings is one half, by a straight line through five dimensions near it; and its error."""
    n = np.arange(5) + max(1, round(near) - 2)
    p = np.array([share_separable(manifolds, int(k), projections, seed + int(k)) for k in n])
    slope, offset = np.polyfit(n, p, 1)
    trials = 5 * projections * len(labellings(len(manifolds)))
    return (0.5 - offset) / slope, 0.5 / np.sqrt(trials) / slope


def simulated_truth(P: int, M: int, seed: int = 0) -> tuple[float, float, float]:
    """Joint capacity of points without structure with its error, and simulated capacity, by projections of Gaussians.

    Points in enough features span all vectors of sum zero, and their projections on n random directions a uniformly random
    n-dimensional part of these. A dichotomy is separable if that part meets the cone K of vectors with its signs, which by
    the conic Crofton formula is 2 (v_{m+1} + v_{m+3} + ...) of the intrinsic volumes v_k of K, m = PM - 1 - n; and v_k is
    how often the projection of a Gaussian on K has k + 1 entries.
    """
    rng, n, draws = np.random.default_rng(seed), P * M, max(500, 1_500_000 // (P * M) // (P // 2))
    wanted, variance, volumes = 0.0, 0.0, np.zeros(n + 1)
    for k in range(1, P // 2 + 1):
        weight = comb(P, k) * (2 if 2 * k < P else 1) / (2**P - 2)
        x = _projected(np.repeat([1.0, -1.0], [M * k, M * (P - k)]), rng.standard_normal((draws, n)))
        squares = np.square(x).sum(axis=1)
        wanted += weight * (n - 1 - squares.mean())
        variance += weight**2 * squares.var() / draws
        faces = np.maximum(np.count_nonzero(x, axis=1) - 1, 0)
        volumes += weight / draws * np.bincount(faces, minlength=n + 1)
    share = np.array([2 * volumes[n - dimension :: 2].sum() for dimension in range(n)])
    above = int(np.argmax(share >= 0.5))
    crossing = above - 1 + (0.5 - share[above - 1]) / (share[above] - share[above - 1])
    return P / wanted, P / wanted**2 * np.sqrt(variance), P / crossing


def _projected(y: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Rows of g, each projected on {x: sum x = 0, y x >= 0}: what has the sign y of g shifted so that the sum is zero."""
    low, high = np.full((len(g), 1), -9.0), np.full((len(g), 1), 9.0)
    for _ in range(45):
        middle = (low + high) / 2
        x = y * np.maximum(y * (g + middle), 0.0)
        positive = x.sum(axis=1, keepdims=True) > 0
        low, high = np.where(positive, low, middle), np.where(positive, middle, high)
    return x

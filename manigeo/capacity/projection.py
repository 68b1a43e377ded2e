"""Random projection of wide layers, as Stephenson et al. (2021) have it: to compare with published numbers.

Everything here works from inner products, so no projection is needed to make features few; the authors' setting is
Gaussian directions of length one, 5000 of them, for layers of more features than that (Johnson & Lindenstrauss 1984).
"""

from collections.abc import Sequence

import numpy as np

_FEATURES_AT_ONCE = 1024  # directions are drawn a block of features at a time: all of them may be gigabytes
_ROWS_AT_ONCE = 1024  # and drawn again for so many rows


def project_manifolds(
    manifolds: Sequence[np.ndarray], n_directions: int, seed: int | np.random.SeedSequence = 0
) -> Sequence[np.ndarray]:
    r"""The manifolds on ``n_directions`` random directions, in their own precision (whole numbers in float64); as they are
    where they have no more features.

    .. math:: x \mapsto W x, \qquad W_{ij} = g_{ij} / |g_i|,\quad g_{ij} \sim N(0, 1)

    The directions depend on ``seed`` and the number of features alone: the same for any set of manifolds.

    >>> [X.shape for X in project_manifolds([np.ones((3, 50)), np.ones((2, 50))], n_directions=7)]
    [(3, 7), (2, 7)]
    """
    if n_directions < 1:
        raise ValueError(f"a projection takes 1 direction or more, got {n_directions}")
    sizes = [len(X) for X in manifolds]
    if not sizes or manifolds[0].shape[1] <= n_directions:
        return manifolds
    out: list[np.ndarray] = []
    group: list[np.ndarray] = []
    for X in manifolds:
        if group and sum(map(len, group)) + len(X) > _ROWS_AT_ONCE:
            out.append(_project(np.concatenate(group), n_directions, seed))
            group = []
        group.append(X)
    out.append(_project(np.concatenate(group), n_directions, seed))
    return np.split(np.concatenate(out), np.cumsum(sizes)[:-1])


def _project(points: np.ndarray, n_directions: int, seed: int | np.random.SeedSequence) -> np.ndarray:
    rng = np.random.default_rng(seed)
    projected, squares = np.zeros((len(points), n_directions)), np.zeros(n_directions)
    for start in range(0, points.shape[1], _FEATURES_AT_ONCE):
        block = points[:, start : start + _FEATURES_AT_ONCE].astype(np.float32, copy=False)
        g = rng.standard_normal((block.shape[1], n_directions), dtype=np.float32)
        projected += block @ g
        squares += np.square(g, dtype=np.float64).sum(axis=0)
    return _as_precise(projected / np.sqrt(squares), points.dtype)


def _as_precise(projected: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The projected points in the precision ``dtype`` of the points, where it holds them: the type tells which directions
    are rounding (:mod:`manigeo.capacity.span`), and rounding projected is rounding still."""
    held = dtype.kind == "f" and np.abs(projected).max(initial=0.0) <= np.finfo(dtype).max
    return projected.astype(dtype, copy=False) if held else projected

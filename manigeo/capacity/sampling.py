r"""Dependence of capacity on the sample: the number of points M of each manifold, and the choice of manifolds.

M points of a manifold underfill it: whatever the manifold, their capacity is that of M points without structure or more
(margin 0; :math:`2/M` for many manifolds), and far above that of the whole. So capacities are compared at one M, and a
sweep over M shows how much of a value is the sample's. Points of a smaller sample are points of the larger ones, so that a
curve over M is one sample growing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import ndtri, stdtrit

from manigeo.capacity.mean_field import manifold_capacity
from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.inputs import Manifolds, joined, take_manifolds, whole_number
from manigeo.randomness import Seed, generator, seed_sequence, stream

_SWEPT = ("capacity", "radius", "dimension")


def capacity_vs_M(
    manifolds: Manifolds,
    sizes: Sequence[int],
    kappa: float = 0.0,
    n_draws: int = 300,
    centers: str = "auto",
    seed: Seed | None = None,
    *,
    nan: str = "raise",
    rng: Seed | None = None,
) -> pd.DataFrame:
    r"""Mean-field capacity, radius and dimension of the manifolds at M points each, for every M of ``sizes``.

    .. math:: \alpha(M) \ge \alpha_0(M, P) \to 2/M \quad (\kappa = 0), \quad \text{equal for points without structure}

    A row per M, ascending: ``M``, ``capacity``, ``radius``, ``dimension``, each with its ``_stderr`` over manifolds,
    ``floor``, the capacity of as many manifolds of M points without structure
    (:func:`~manigeo.capacity.unstructured.unstructured_capacity`; NaN at other margins), ``center_rank``,
    ``n_manifolds`` and ``flag`` (those of :func:`~manigeo.capacity.mean_field.manifold_capacity`). Each manifold's points
    are put in an order that ``seed`` (or ``rng``) and its position decide; M takes the first M of them. Manifolds may be of
    any origin and have different numbers of points; ``nan`` is ``"raise"`` or ``"drop"``, which is flagged
    (:mod:`manigeo.inputs`).

    Raises ``ValueError`` for no sizes, and sizes below 1 or above the number of points of the smallest manifold.

    >>> rng = np.random.default_rng(0)
    >>> table = capacity_vs_M([rng.standard_normal((20, 400)) for _ in range(20)], sizes=[5, 20], n_draws=100)
    >>> bool(np.allclose(table["capacity"], table["floor"], rtol=0.2))  # no structure: the floor
    True
    """
    root = seed_sequence(seed, rng)
    taken, left_out = take_manifolds(manifolds, nan=nan)
    lengths = [shape[0] for shape in getattr(taken, "shapes", [X.shape for X in taken])]
    smallest, sizes = min(lengths), sorted({whole_number(size, "sizes", least=0) for size in sizes})
    if not sizes or sizes[0] < 1 or sizes[-1] > smallest:
        raise ValueError(
            f"sizes must be one or more numbers from 1 to {smallest}, the smallest manifold's; got {sizes}"
        )
    # a longer key than that of a manifold's draws, so another stream
    orders = [stream(root, mu, 0).permutation(length) for mu, length in enumerate(lengths)]
    rows = []
    for size in sizes:
        sample = [X[order[:size]] for X, order in zip(taken, orders, strict=True)]
        r = manifold_capacity(sample, kappa, n_draws, centers, root)
        measured = {name: getattr(r, name) for name in _SWEPT}
        errors = {f"{name}_stderr": getattr(r.stderr, name) for name in _SWEPT}
        extra = {"center_rank": r.center_rank, "n_manifolds": r.n_manifolds, "flag": joined(r.flag, left_out)}
        floor = unstructured_capacity(size, kappa, len(taken), centers)
        rows.append({"M": size, **measured, **errors, "floor": floor, **extra})
    return pd.DataFrame(rows)


def bootstrap_intervals(
    per_manifold: pd.DataFrame,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: Seed | None = None,
    *,
    rng: Seed | None = None,
    stderr: Mapping[str, float] | None = None,
) -> Mapping[str, tuple[float, float]]:
    r"""Percentile intervals of capacity, radius and dimension over manifolds drawn with replacement.

    Manifolds count as independent, which those around one mean and in one metric are not, and percentiles of n manifolds
    are narrow by :math:`\sqrt{(n-1)/n}`, so that alone they cover less than they promise. With the ``stderr`` of the
    aggregates (``ManifoldCapacity.stderr``, as a mapping) resampled means are stretched about their own mean until their
    spread is :math:`\mathrm{se}\; t_{n-1} / z`, with the quantiles of Student's t and of the normal distribution; where a
    standard error is not known, NaN.

    ``per_manifold`` has a row per manifold and these columns, as ``ManifoldCapacity.per_manifold``; rows that are NaN are
    left out. Capacity is averaged harmonically. Fewer than two manifolds give NaN.

    Raises ``ValueError`` for fewer than 100 resamples, which have no 2.5 % point to speak of, and a confidence outside
    (0, 1).

    >>> table = pd.DataFrame({"capacity": [1.0, 1.0, 1.0], "radius": [0.0, 1.0, 2.0], "dimension": [3.0, 3.0, 3.0]})
    >>> intervals = bootstrap_intervals(table)
    >>> intervals["capacity"], intervals["radius"][0] < 1 < intervals["radius"][1]
    ((1.0, 1.0), True)
    """
    if n_resamples < 100 or not 0 < confidence < 1:
        raise ValueError(
            f"a percentile interval takes 100 resamples or more and a confidence between 0 and 1, "
            f"got {n_resamples} and {confidence}"
        )
    columns = per_manifold[list(_SWEPT)].astype(float).dropna()
    if len(columns) < 2:
        return dict.fromkeys(_SWEPT, (np.nan, np.nan))
    inverse = pd.DataFrame({"capacity": 1 / columns["capacity"], **columns[["radius", "dimension"]]}).to_numpy()
    taken = generator(seed, rng).integers(len(inverse), size=(n_resamples, len(inverse)))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    means = inverse[taken].mean(axis=1)
    if stderr is not None:
        means = _stretched(means, inverse.mean(axis=0), stderr, len(inverse), tails[1])
    low, high = np.quantile(means, tails, axis=0)
    with np.errstate(divide="ignore"):  # resamples of infinite capacity alone
        low[0], high[0] = 1 / high[0], 1 / low[0]
    return {name: (float(a), float(b)) for name, a, b in zip(_SWEPT, low, high, strict=True)}


def _stretched(
    means: np.ndarray, center: np.ndarray, stderr: Mapping[str, float], n: int, tail: float
) -> Float[np.ndarray, "resamples measures"]:
    """Resampled means with the spread that the standard errors have; equal ones stay equal. Capacity is stretched through
    1/alpha, and has no upper end where that reaches zero."""
    errors = np.array([stderr["capacity"] * center[0] ** 2, stderr["radius"], stderr["dimension"]])
    spread = means.std(axis=0)
    factor = (
        np.divide(errors, spread, out=np.full(len(errors), np.nan), where=spread > 0)
        * stdtrit(n - 1, tail)
        / ndtri(tail)
    )
    wide = np.where(spread > 0, center + factor * (means - means.mean(axis=0)), means)
    wide[:, 0] = np.maximum(wide[:, 0], 0.0)
    return wide

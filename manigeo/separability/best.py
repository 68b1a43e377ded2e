r"""Choice of the best layer, and agreement of measures, or runs, on it.

A profile is a measure's value at each layer, an average over classes; classes drawn with replacement (the same at every
layer and for every measure) show how sure its best layer is. Rankings of the layers are compared by the coefficient of
concordance (Kendall & Babington Smith 1939), corrected for ties,

.. math:: W = \frac{\sum_l (\sum_r (\rho_{rl} - \bar\rho))^2}{m \sum_{rl} (\rho_{rl} - \bar\rho)^2} ,

:math:`\rho_{rl}` the rank of layer l in the r-th of m rankings, ties at their average rank: 1 where all agree, about 1/m
where they have nothing to do with each other. (Without ties the denominator is :math:`m^2 (L^3 - L)/12`.)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from manigeo.inputs import Points, as_array, largest_entry, whole_number
from manigeo.randomness import Seed, generator

_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class BestLayer:
    """``index`` of the layer of largest average, and the 95 % interval ``low`` to ``high`` of it over resampled classes, of
    which a ``share`` has the same best layer."""

    index: int
    low: int
    high: int
    share: float


def best_layer(
    per_class: Points, n_resamples: int = 1000, *, seed: Seed | None = None, rng: Seed | None = None
) -> BestLayer:
    """The layer where the average over classes is largest, the first of equal ones, with a bootstrap interval.

    ``per_class`` (layers, classes) may be of any origin; ``seed`` or ``rng`` draws classes, seed 0 without either
    (:mod:`manigeo.inputs`). Raises ``ValueError`` for NaN or infinite entries, and another shape.

    >>> best_layer([[0.1, 0.2, 0.1], [0.9, 0.8, 0.9], [0.5, 0.4, 0.5]])
    BestLayer(index=1, low=1, high=1, share=1.0)
    """
    profile = as_array(per_class, "per_class")
    if profile.ndim != 2 or 0 in profile.shape:
        raise ValueError(f"per_class must be a (layers, classes) array that is not empty, got shape {profile.shape}")
    if not np.isfinite(largest_entry(profile)):
        count = profile.size - np.count_nonzero(np.isfinite(profile))
        raise ValueError(f"per_class holds {count} NaN or infinite entries; leave those classes out")
    index = int(profile.mean(axis=1).argmax())
    drawn = resampled_means(profile, whole_number(n_resamples, "n_resamples"), generator(seed, rng)).argmax(axis=1)
    low, high = np.quantile(drawn, _TAILS, method="closest_observation")
    return BestLayer(index, int(low), int(high), float(np.mean(drawn == index)))


def resampled_means(
    per_class: Float[np.ndarray, "... classes"], n_resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "resamples ..."]:
    """Averages over classes drawn with replacement, the same ones for all rows."""
    n = per_class.shape[-1]
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return np.moveaxis(per_class @ counts.T / n, -1, 0)


@dataclass(frozen=True)
class Concordance:
    """Kendall's ``w`` of rankings, and its 95 % interval over resampled classes."""

    w: float
    low: float
    high: float


def concordance(
    per_class: Points, n_resamples: int = 1000, *, seed: Seed | None = None, rng: Seed | None = None
) -> Concordance:
    """Measure how alike several profiles rank the layers; NaN for fewer than two profiles or layers, or without ranks.

    ``per_class`` (rankings, layers, classes) may be of any origin; ``seed`` or ``rng`` draws classes, seed 0 without either
    (:mod:`manigeo.inputs`). NaN entries, of layers that a profile lacks, make NaN. Raises ``ValueError`` for another shape.

    >>> up = np.arange(3.0)[:, None] + np.zeros((3, 5))
    >>> concordance(np.stack([up, 10 * up]))
    Concordance(w=1.0, low=1.0, high=1.0)
    """
    profiles = as_array(per_class, "per_class")
    if profiles.ndim != 3 or 0 in profiles.shape:
        raise ValueError(
            f"per_class must be a (rankings, layers, classes) array, not empty, got shape {profiles.shape}"
        )
    w = float(kendall_w(profiles.mean(axis=-1)))
    drawn = kendall_w(resampled_means(profiles, whole_number(n_resamples, "n_resamples"), generator(seed, rng)))
    if np.isnan(drawn).all():
        return Concordance(w, np.nan, np.nan)
    low, high = np.nanquantile(drawn, _TAILS)
    return Concordance(w, float(low), float(high))


def kendall_w(profiles: Float[np.ndarray, "... rankings layers"]) -> Float[np.ndarray, "..."]:
    """The coefficient of concordance of the rows' rankings; NaN for fewer than two, and where none ranks anything.

    >>> float(kendall_w(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])))
    0.0
    """
    m, n = profiles.shape[-2:]
    deviations = rankdata(profiles, axis=-1) - (n + 1) / 2
    between, total = np.square(deviations.sum(axis=-2)).sum(axis=-1), np.square(deviations).sum(axis=(-2, -1))
    return np.divide(between, m * total, out=np.full_like(total, np.nan), where=(total > 0) & (m > 1))

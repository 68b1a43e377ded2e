r"""Agreement of clusters, found without a label, with the classes (Dyballa, Gerritz & Zucker 2024).

The points are divided by k-means into as many clusters as there are classes, and compared with these:

.. math:: g = \frac{I(U; V)}{(H(U) + H(V))/2} ,

normalised mutual information with the arithmetic mean. A clustering depends on where it starts, so it is done from
several seeds. Agreement by chance is larger for smaller classes: it is measured, on shuffled labels.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from manigeo.faces.results import Drawn
from manigeo.inputs import Labels, Points, take_points, whole_number
from manigeo.randomness import Seed, generator

Distances = Callable[[np.ndarray], np.ndarray]
_HELD_BYTES = 256 << 20  # of distances


@dataclass(frozen=True, repr=False)
class ClusterAgreement(Drawn):
    """``values`` (seeds,) of g, and their mean ``value``; ``per_class`` (classes,), whose mean it is; ``chance``, the mean
    of g for shuffled labels. ``converged`` tells whether every clustering ended; ``classes`` are the labels that
    ``per_class`` is of; ``flag`` counts points that were left out, ``dropped:n``."""

    headline = ("value", "chance", "converged")

    value: float
    values: Float[np.ndarray, " seeds"]
    per_class: Float[np.ndarray, " classes"]
    chance: float
    converged: bool
    classes: np.ndarray
    flag: str


def cluster_agreement(
    points: Points,
    labels: Labels,
    n_seeds: int = 3,
    *,
    nan: str = "raise",
    seed: Seed | None = None,
    rng: Seed | None = None,
) -> ClusterAgreement:
    r"""Normalised mutual information of k-means clusters with the classes, over ``n_seeds`` starts (k-means++, one each).

    Its parts by class have it as their mean, where classes are of one size:

    .. math:: g_c = \frac{n_c P}{n}\; \frac{\sum_k p(k|c) \log p(k|c)/p(k)}{(H(U) + H(V))/2}

    ``points`` (points, features) and ``labels`` may be of any origin, ``nan`` is ``"raise"`` or ``"drop"``; ``seed`` or
    ``rng`` draws, seed 0 without either (:mod:`manigeo.inputs`).

    Returns a :class:`ClusterAgreement`, g from 0 to 1. Dyballa, Gerritz & Zucker (2024).

    Raises ``ValueError`` for one class, no seeds, and NaN or infinite entries.

    >>> far = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 4, axis=0)
    >>> blobs = far + 0.1 * np.random.default_rng(0).standard_normal(far.shape)
    >>> round(cluster_agreement(blobs, np.repeat(["a", "b", "c"], 4)).value, 9)
    1.0
    """
    sample, draw = take_points(points, labels, nan=nan), generator(seed, rng)
    codes = sample.codes
    distances = _squared_distances(sample.points)
    n_starts = whole_number(n_seeds, "n_seeds")
    fits = [_clusters(sample.points, distances, sample.n_classes, draw) for _ in range(n_starts)]
    clusterings = [clusters for clusters, _ in fits]
    values = np.array([normalized_mutual_info_score(codes, clusters) for clusters in clusterings])
    by_chance = [normalized_mutual_info_score(draw.permutation(codes), clusters) for clusters in clusterings]
    return ClusterAgreement(
        value=float(values.mean()),
        values=values,
        per_class=np.mean([_parts(codes, clusters) for clusters in clusterings], axis=0),
        chance=float(np.mean(by_chance)),
        converged=all(converged for _, converged in fits),
        classes=sample.classes,
        flag=sample.flag,
    )


def _clusters(
    points: np.ndarray, distances: Distances, n_clusters: int, rng: np.random.Generator
) -> tuple[np.ndarray, bool]:
    start = points[_distant_points(distances, len(points), n_clusters, rng)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)  # fewer distinct points than clusters
        fitted = KMeans(n_clusters, init=start, n_init=1).fit(points)
    return fitted.labels_, not caught and fitted.n_iter_ < fitted.max_iter


def _squared_distances(points: np.ndarray) -> Distances:
    """Squared distances of some of the points from all, by their numbers; of all at once, where these can be held."""
    X = points - points.mean(axis=0)  # products of points far from the origin lose the digits of their distances
    squares = np.einsum("ij,ij->i", X, X)

    def of(rows: np.ndarray) -> np.ndarray:
        out = X[rows] @ X.T
        out *= -2
        out += squares
        out += squares[rows, None]
        return np.maximum(out, 0, out=out)

    if X.dtype.itemsize * len(X) ** 2 > _HELD_BYTES:
        return of
    return of(np.arange(len(X))).__getitem__


def _distant_points(
    distances: Distances, n: int, n_clusters: int, rng: np.random.Generator
) -> Int[np.ndarray, " clusters"]:
    """Numbers of points far from each other: each the best of some, drawn by their squared distance from those before.

    Greedy k-means++ with the number of tries of scikit-learn (Arthur & Vassilvitskii 2007).
    """
    chosen = [int(rng.integers(n))]
    closest = distances(np.array(chosen))[0]
    for _ in range(n_clusters - 1):
        cumulative = np.cumsum(closest, dtype=np.float64)
        drawn = np.searchsorted(cumulative, rng.random(2 + int(np.log(n_clusters))) * cumulative[-1])
        tries = np.minimum(drawn, n - 1)
        closer = np.minimum(closest, distances(tries))
        best = int(closer.sum(axis=1, dtype=np.float64).argmin())
        chosen.append(int(tries[best]))
        closest = closer[best]
    return np.array(chosen)


def _parts(labels: np.ndarray, clusters: np.ndarray) -> Float[np.ndarray, " classes"]:
    joint = contingency_matrix(labels, clusters) / len(labels)
    p, q = joint.sum(axis=1), joint.sum(axis=0)
    entropies = -(p @ np.log(p)) - (q @ np.log(q))
    ratio = np.divide(joint, np.outer(p, q), out=np.ones_like(joint), where=joint > 0)
    information = (joint * np.log(ratio)).sum(axis=1)
    return len(p) * information / (entropies / 2)

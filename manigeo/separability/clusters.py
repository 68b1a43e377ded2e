r"""What clustering finds again of the classes, without having seen a label (Dyballa, Gerritz & Zucker 2024).

The points are divided in as many clusters as there are classes by k-means, and compared with these:

.. math:: g = \frac{I(U; V)}{(H(U) + H(V))/2} ,

normalised mutual information with the arithmetic mean. A clustering depends on where it starts, so it is done from
several seeds. Of chance, there is more the smaller the classes are: it is measured, on shuffled labels.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


@dataclass(frozen=True)
class ClusterAgreement:
    """``values`` (seeds,) of g, and their mean ``value``; ``per_class`` (classes,), whose mean it is; ``chance``, the mean
    of g for shuffled labels. ``converged`` says whether every clustering ended."""

    value: float
    values: Float[np.ndarray, " seeds"]
    per_class: Float[np.ndarray, " classes"]
    chance: float
    converged: bool


def cluster_agreement(
    points: Float[np.ndarray, "points features"],
    labels: Int[np.ndarray, " points"],
    n_seeds: int = 3,
    *,
    rng: np.random.Generator,
) -> ClusterAgreement:
    r"""Normalised mutual information of k-means clusters with the classes, over ``n_seeds`` starts (k-means++, one each).

    Its parts by class have it as their mean, where classes are of one size:

    .. math:: g_c = \frac{n_c P}{n}\; \frac{\sum_k p(k|c) \log p(k|c)/p(k)}{(H(U) + H(V))/2}

    >>> far = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 4, axis=0)
    >>> blobs = far + 0.1 * np.random.default_rng(0).standard_normal(far.shape)
    >>> round(cluster_agreement(blobs, np.repeat([0, 1, 2], 4), rng=np.random.default_rng(0)).value, 9)
    1.0
    """
    fits = [_clusters(points, int(labels.max()) + 1, rng) for _ in range(n_seeds)]
    clusterings = [clusters for clusters, _ in fits]
    values = np.array([normalized_mutual_info_score(labels, clusters) for clusters in clusterings])
    by_chance = [normalized_mutual_info_score(rng.permutation(labels), clusters) for clusters in clusterings]
    return ClusterAgreement(
        value=float(values.mean()),
        values=values,
        per_class=np.mean([_parts(labels, clusters) for clusters in clusterings], axis=0),
        chance=float(np.mean(by_chance)),
        converged=all(converged for _, converged in fits),
    )


def _clusters(points: np.ndarray, n_clusters: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)  # fewer distinct points than clusters
        fitted = KMeans(n_clusters, n_init=1, random_state=int(rng.integers(2**31))).fit(points)
    return fitted.labels_, not caught and fitted.n_iter_ < fitted.max_iter


def _parts(labels: np.ndarray, clusters: np.ndarray) -> Float[np.ndarray, " classes"]:
    joint = contingency_matrix(labels, clusters) / len(labels)
    p, q = joint.sum(axis=1), joint.sum(axis=0)
    entropies = -(p @ np.log(p)) - (q @ np.log(q))
    ratio = np.divide(joint, np.outer(p, q), out=np.ones_like(joint), where=joint > 0)
    information = (joint * np.log(ratio)).sum(axis=1)
    return len(p) * information / (entropies / 2)

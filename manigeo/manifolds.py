"""Manifolds from a table of examples: which example belongs to which point cloud, and how many of each to take.

A manifold is the set of a layer's activations for one class: an array ``(points, features)``. Networks trained with
permuted labels give every layer four families of manifolds (Stephenson et al. 2021), the *kinds*:

=============  ============================  ====================================
kind           images                        grouped, and scored, by
=============  ============================  ====================================
unpermuted     train, label not permuted     the label
permuted       train, label permuted         the permuted label (trained on)
restored       the same images as permuted   the true label
test           held out, labels clean        the label
=============  ============================  ====================================

Images of classes that the network was never trained on are a fifth kind, *unseen*, grouped by their label (Dyballa et al.
2024). It shares no class with the other four, whose classes are the *seen* ones; labels of unseen classes follow theirs.
Training examples that a file marks as *memorized* or *typical* are of these kinds and of no other, grouped by the label that
was trained on (:mod:`manigeo.per_example.marking`). Of sequences of tokens an example is a context, its label the token that
follows: those of planted sequences are *memorized*, those of the others that were trained on *typical*, and *control* ones
are of sequences drawn as the planted ones and never trained on.

Arrays that no network was trained on, such as responses of neurons, are of one kind, *all*, grouped by their label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from manigeo.kinds import ALL_KINDS, CONTROL, EVERY, KINDS, MARKED, TRAINED, UNSEEN

# Float arrays (points, features), in memory or not; unsubscripted, since a type check of an element may read a file.
Clouds = Sequence

_TRAINING = crc32(b"training set")  # spawn key beside those of the kinds


def kind_examples(examples: pd.DataFrame, kind: str) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Rows of the example table that belong to ``kind``, and the label that groups each of them.

    ``examples`` has a row per example and the columns ``split``, ``true_label``, ``train_label``, ``permuted``.

    Raises ``ValueError`` for a kind that is not one of :data:`~manigeo.kinds.ALL_KINDS`.

    >>> table = pd.DataFrame({"split": ["train", "train", "test"], "true_label": [0, 1, 1],
    ...                       "train_label": [0, 0, 1], "permuted": [False, True, False]})
    >>> [array.tolist() for array in kind_examples(table, "permuted")]
    [[1], [0]]
    >>> [array.tolist() for array in kind_examples(table, "restored")]
    [[1], [1]]
    """
    train = examples["split"].to_numpy() == "train"
    permuted = train & examples["permuted"].to_numpy(dtype=bool)
    members = {
        "unpermuted": train & ~permuted,
        "permuted": permuted,
        "restored": permuted,
        "test": examples["split"].to_numpy() == "test",
        **{kind: examples["split"].to_numpy() == kind for kind in (UNSEEN, EVERY, *MARKED, CONTROL)},
    }
    if kind not in members:
        raise ValueError(f"kind must be one of {ALL_KINDS}, got {kind!r}")
    rows = np.flatnonzero(members[kind])
    label = "train_label" if kind in ("permuted", *MARKED) else "true_label"
    return rows, examples[label].to_numpy(dtype=np.int64)[rows]


def classes_of(examples: pd.DataFrame, kind: str) -> Int[np.ndarray, " classes"]:
    """Labels of the classes that ``kind`` is about: the unseen ones for :data:`~manigeo.kinds.UNSEEN`, for the others the
    seen ones, which are all classes where none was held out. A class may yet have no example of the kind.

    Raises ``ValueError`` for a kind that is not one of :data:`~manigeo.kinds.ALL_KINDS`.

    >>> table = pd.DataFrame({"split": ["train", "test", "unseen"], "true_label": [0, 1, 2]})
    >>> classes_of(table, "test").tolist(), classes_of(table, "unseen").tolist()
    ([0, 1], [2])
    """
    if kind not in ALL_KINDS:
        raise ValueError(f"kind must be one of {ALL_KINDS}, got {kind!r}")
    unseen = examples["split"].to_numpy() == UNSEEN
    return np.unique(examples["true_label"].to_numpy(dtype=np.int64)[unseen == (kind == UNSEEN)])


@dataclass(frozen=True)
class MatchedSize:
    """Number of classes P and points per class M that every kind can offer: comparisons need equal P and M.

    Capacity of a sampled manifold depends strongly on M (its floor is 2/M), so kinds are compared at one M: the largest
    that all of ``kinds`` have, up to a cap. ``limited_by`` names the kind and class that set it (None: the cap did), and
    ``excluded`` lists, for each kind that is left out, the classes with fewer than two examples.
    """

    classes: tuple[int, ...]
    kinds: tuple[str, ...]
    per_class: int
    limited_by: tuple[str, int] | None
    excluded: Mapping[str, tuple[int, ...]]


def matched_size(
    examples: pd.DataFrame, kinds: Sequence[str] = KINDS, cap: int = 50, classes: Sequence[int] | None = None
) -> MatchedSize:
    """The largest common number of examples per class over ``kinds``, up to ``cap``; kinds too small are left out.

    ``classes``: labels of those that count, None for all. Of these, seen and unseen ones cannot be matched: those that the
    first of ``kinds`` is about count, and kinds that do not share them are left out.
    """
    counted = _counted(examples, kinds, classes)
    smallest: dict[str, tuple[int, int]] = {}
    excluded: dict[str, tuple[int, ...]] = {}
    for kind in kinds:
        _, labels = kind_examples(examples, kind)
        counts = np.array([np.count_nonzero(labels == c) for c in counted])
        if not len(counted) or counts.min() < 2:
            excluded[kind] = tuple(int(c) for c in counted[counts < 2])
        else:
            smallest[kind] = (int(counts.min()), int(counted[counts.argmin()]))
    limit = min(smallest, key=lambda k: smallest[k][0], default=None)
    if limit is None or smallest[limit][0] >= cap:
        per_class, limited_by = cap, None
    else:
        per_class, limited_by = smallest[limit][0], (limit, smallest[limit][1])
    return MatchedSize(tuple(int(c) for c in counted), tuple(smallest), per_class, limited_by, excluded)


def _counted(examples: pd.DataFrame, kinds: Sequence[str], classes: Sequence[int] | None) -> Int[np.ndarray, " n"]:
    first = kinds[0] if kinds else KINDS[0]
    if classes is None:
        return classes_of(examples, first)
    others = classes_of(examples, KINDS[0] if first == UNSEEN else UNSEEN)
    return np.array([label for label in classes if label not in others], dtype=np.int64)


def sample_rows(
    examples: pd.DataFrame,
    kind: str,
    per_class: int | None = None,
    seed: int = 0,
    classes: Sequence[int] | None = None,
) -> dict[int, Int[np.ndarray, " m"]]:
    """Rows of each class of a kind: all of them, or ``per_class`` drawn without replacement, in ascending order.

    ``classes``: labels of the wanted ones; None for all that the kind is about.

    The draw of a class depends on ``seed``, the kind and the class alone, so that every layer, and every checkpoint,
    is looked at through the same examples. Permuted and restored are drawn apart: they group the same images differently.

    Raises ``ValueError`` when a class of the table has fewer than ``per_class`` examples of this kind.
    """
    rows, labels = kind_examples(examples, kind)
    sampled = {}
    for c in classes_of(examples, kind) if classes is None else classes:
        members = rows[labels == c]
        if per_class is not None:
            if len(members) < per_class:
                raise ValueError(f"class {c} has {len(members)} {kind} examples, fewer than per_class={per_class}")
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(ALL_KINDS.index(kind), int(c))))
            members = np.sort(rng.choice(members, size=per_class, replace=False))
        sampled[int(c)] = members
    return sampled


def training_rows(
    examples: pd.DataFrame, classes: Sequence[int], most: int, seed: int = 0
) -> dict[int, Int[np.ndarray, " m"]]:
    """Rows of the training set of each class, by the label that was trained on, permuted ones among them in the share that
    they have: all, or ``most`` drawn without replacement, in ascending order.

    >>> table = pd.DataFrame({"split": ["train", "train", "test"], "train_label": [0, 0, 0]})
    >>> training_rows(table, [0, 1], most=5)
    {0: array([0, 1]), 1: array([], dtype=int64)}
    """
    trained = examples["split"].isin(TRAINED).to_numpy()
    labels = examples["train_label"].to_numpy()
    found = {}
    for c in classes:
        members = np.flatnonzero(trained & (labels == c))
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_TRAINING, int(c))))
        found[int(c)] = np.sort(rng.permutation(members)[:most])
    return found


def check_shapes(shapes: Sequence[tuple[int, ...]], names: Sequence[str] = (), fewest: int = 2) -> None:
    """Arrays of these shapes are manifolds that can be compared: ``fewest`` or more, (points, features), of equal features.

    Raises ``ValueError`` where they are not, and calls the first that is not by its name of ``names``.

    >>> check_shapes([(20, 512), (7, 512)])
    """
    if len(shapes) < fewest:
        most = {1: "one or more manifolds", 2: "two or more manifolds"}[fewest]
        raise ValueError(f"expected {most}, got {len(shapes)}; pass one (points, features) array for each class")
    expected = "expected (points, features) arrays with equal features"
    for mu, shape in enumerate(shapes):
        who = names[mu] if names else f"manifold {mu}"
        if len(shape) != 2:
            raise ValueError(f"{expected}, got {shape} for {who}; flatten each example")
        if shape[0] == 0:
            raise ValueError(f"{expected}, got no points for {who}; leave it out")
        if shape[1] == 0:
            raise ValueError(f"{expected}, got no features for {who}; give the activations of a layer")
        if shape[1] != shapes[0][1]:
            raise ValueError(f"{expected}, got {shape} for {who} beside {shapes[0]}; take all of them from one layer")


def binary_unit(X: np.ndarray) -> float:
    """The power of two above the largest entry, in multiples of which squares neither overflow nor vanish; of zeros alone,
    and with entries that are not finite, 2^-1000.

    >>> binary_unit(np.array([3.0, -5.0]))
    8.0
    """
    largest = max(float(X.max()), -float(X.min()))
    return float(2.0 ** np.clip(np.frexp(largest)[1], -1000, 1000)) if 0 < largest < np.inf else 2.0**-1000


def global_mean(manifolds: Clouds) -> Float[np.ndarray, " features"]:
    """Mean over all samples of all manifolds (each sample weighs the same)."""
    total = sum(len(X) for X in manifolds)
    return np.sum([X.sum(axis=0, dtype=np.float64) for X in manifolds], axis=0) / total


def class_means(manifolds: Clouds) -> Float[np.ndarray, "classes features"]:
    """The centre of every manifold: the mean of its points."""
    return np.stack([X.mean(axis=0, dtype=np.float64) for X in manifolds])


# Squared singular values below this fraction of the largest are noise: float32 activations carry 1e-7 of each number,
# so 1e-14 of its square, and sums over hundreds of features bring that to 1e-13 or less.
RANK_RTOL = 1e-12


def span_coordinates(points: Float[np.ndarray, "points dim"]) -> Float[np.ndarray, "points rank"]:
    r"""The same points in an orthonormal basis of their span: equal inner products, as few columns as their rank.

    .. math:: S S^\top = U \Lambda U^\top \;\Rightarrow\; S' = U \Lambda^{1/2}

    >>> span_coordinates(np.array([[3.0, 4.0, 0.0], [-3.0, -4.0, 0.0]])).shape
    (2, 1)
    """
    return gram_coordinates(points @ points.T)


def gram_coordinates(gram: Float[np.ndarray, "points points"]) -> Float[np.ndarray, "points rank"]:
    """Points with the given inner products, in an orthonormal basis of their span."""
    eigenvalues, U = np.linalg.eigh(gram)
    keep = eigenvalues > RANK_RTOL * max(eigenvalues[-1], 0.0)
    return U[:, keep] * np.sqrt(eigenvalues[keep])


def principal_directions(
    points: Float[np.ndarray, "points dim"],
) -> tuple[Float[np.ndarray, "dim rank"], Float[np.ndarray, " rank"]]:
    r"""An orthonormal basis of the points' span, along their principal axes, and their root sums of squares along these.

    .. math:: S^\top S = V \Lambda V^\top \;\Rightarrow\; V,\, \Lambda^{1/2}

    >>> basis, lengths = principal_directions(np.array([[3.0, 4.0], [-3.0, -4.0]]))
    >>> np.abs(basis).round(12).tolist(), np.square(lengths).round(12).tolist()
    ([[0.6], [0.8]], [50.0])
    """
    eigenvalues, V = np.linalg.eigh(points.T @ points)
    keep = eigenvalues > RANK_RTOL * max(eigenvalues[-1], 0.0)
    return V[:, keep], np.sqrt(eigenvalues[keep])


def standard_error(values: Float[np.ndarray, "n ..."]) -> Any:
    r"""Standard error of the mean over the first axis, :math:`s / \sqrt{n}`; NaN of one value.

    >>> float(standard_error(np.array([0.0, 1.0]))), standard_error(np.ones((1, 2))).tolist()
    (0.5, [nan, nan])
    """
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)[()]
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))

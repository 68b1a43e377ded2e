"""The examples of one layer and kind as measures of separability see them: points, labels, images, and halves of them.

However wide a layer is, a sample has no more coordinates than points, and stays in its file where it is large; a linear
probe finds its way back to the features, so that it can be scored on points of other kinds.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from manigeo.separability.coordinates import (
    Moments,
    gram_factor,
    pooled_grams,
    pooled_moments,
    standardising,
    weights_in_features,
)

if TYPE_CHECKING:
    from manigeo.separability.probe import LinearClassifier, LinearProbe

_HELD_BYTES = 256 << 20  # of the features of a sample, in float32


class LabelledPoints:
    """``manifolds``, one (points, features) array a class, of the named ``classes``; ``images`` (points,) number what
    was shown to the network: kinds may share some. ``halves`` are two halves of every class, drawn by ``rng``. What
    will be asked of points that are not held is declared beforehand, in ``needs``: ``plain`` points, ``standardised``
    ones. ``right`` tells which of them the network answered by their label; None where that is not known. The network was
    trained on ``n_trained`` classes, or on these."""

    def __init__(
        self,
        manifolds: Sequence[np.ndarray],
        images: Int[np.ndarray, " points"],
        classes: Sequence[str],
        sizes: Sequence[int],
        rng: np.random.Generator,
        needs: Sequence[str] = ("plain", "standardised"),
        right: Bool[np.ndarray, " points"] | None = None,
        n_trained: int = 0,
    ) -> None:
        self.manifolds, self.images, self.classes, self.needs = manifolds, images, tuple(classes), tuple(needs)
        self.labels: Int[np.ndarray, " points"] = np.repeat(np.arange(len(sizes)), sizes)
        self.right = right
        self.n_trained = n_trained or len(self.classes)
        self._rng = rng

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def halves(self) -> tuple[Bool[np.ndarray, " points"], ...]:
        from manigeo.separability.scores import (
            stratified_folds,
        )  # scikit-learn takes longer to import than small tables

        first = stratified_folds(self.labels, 2, self._rng) == 0
        return first, ~first

    @cached_property
    def moments(self) -> Moments:
        return pooled_moments(self.manifolds)

    @property
    def constant(self) -> bool:
        """True if all points are the same."""
        return self.moments.n_constant == len(self.moments.mean)

    @property
    def streamed(self) -> bool:
        """More features than points, and too many to hold."""
        n, features = len(self.labels), len(self.moments.mean)
        return features > n and 4 * n * features > _HELD_BYTES

    @cached_property
    def points(self) -> Float[np.ndarray, "points coordinates"]:
        """Points at the distances of this layer, in at most as many coordinates as there are points."""
        if self.streamed:
            return self._factors["plain"]
        X = self._features()
        if X.shape[1] <= len(X):
            return X
        X = X - self.moments.mean.astype(X.dtype)
        return gram_factor(X @ X.T)

    @cached_property
    def _factors(self) -> dict[str, np.ndarray]:
        """Coordinates of the points as they are, and of the standardised ones: those that are needed, in one go."""
        factors = {"plain": None, "standardised": standardising(self.moments)}
        grams = pooled_grams(self.manifolds, self.moments, [factors[name] for name in self.needs])
        return {name: gram_factor(grams.pop(0)) for name in self.needs}

    def _features(self) -> Float[np.ndarray, "points features"]:
        return np.concatenate([X.astype(np.float32) if X.dtype == np.float16 else X for X in self.manifolds])

    def probe(self, n_folds: int, rng: np.random.Generator) -> "LinearProbe":
        """Standardised over the training points of each classifier, or over all points where the layer is streamed."""
        from manigeo.separability.probe import linear_probe

        X = self._factors["standardised"] if self.streamed else self._features()
        return linear_probe(X, self.labels, n_folds, standardise=not self.streamed, rng=rng)

    def classifiers(self, probe: "LinearProbe") -> "list[LinearClassifier]":
        """Classifiers of this sample's probe, as classifiers of features."""
        if not self.streamed:
            return list(probe.classifiers)
        from manigeo.separability.probe import LinearClassifier

        every = np.hstack([classifier.weights for classifier in probe.classifiers])
        weights, offsets = weights_in_features(self.manifolds, self.moments, self._factors["standardised"], every)
        n = self.n_classes
        return [
            LinearClassifier(weights[:, k * n : (k + 1) * n], classifier.offsets + offsets[k * n : (k + 1) * n])
            for k, classifier in enumerate(probe.classifiers)
        ]

    def transfer(
        self, probe: "LinearProbe", classifiers: "Sequence[LinearClassifier]", other: "LabelledPoints"
    ) -> Float[np.ndarray, " points"]:
        """Score each point of another kind by the share of the classifiers that are right, among those that have not seen
        its image: all of them, or where this sample has the image too, that of its fold."""
        may_score = np.ones((len(other.labels), len(classifiers)), dtype=bool)
        shared = np.isin(other.images, self.images)
        fold_of = dict(zip(self.images.tolist(), probe.folds.tolist(), strict=True))
        folds = np.array([fold_of[image] for image in other.images[shared].tolist()], dtype=np.int64)
        may_score[shared] = folds[:, None] == np.arange(len(classifiers))
        predicted = np.concatenate([np.stack([c.predict(X) for c in classifiers], axis=1) for X in other.manifolds])
        right = (predicted == other.labels[:, None]) & may_score
        return right.sum(axis=1) / may_score.sum(axis=1)

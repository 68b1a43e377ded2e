"""Measures of the separability of one layer and kind: from points with labels to rows of the results table.

Beside each number stand what labels without relation to the points would give (``_chance``), what separate
classes reach (``_ceiling``), and the same of either half of the examples (``_half1``, ``_half2``): a layer chosen on one is
scored on the other.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np

from manigeo.layerwise.points import LabelledPoints
from manigeo.layerwise.protocol import Measure, Others, Row, kind_key, nothing
from manigeo.manifolds import standard_error
from manigeo.separability.clusters import cluster_agreement
from manigeo.separability.fuzziness import separation_fuzziness
from manigeo.separability.latent import CLASSIFIERS, by_neighbours, inner_products
from manigeo.separability.margins import Margins, one_versus_rest, pairs_of_classes
from manigeo.separability.means import fisher_ratio, nearest_mean_scores
from manigeo.separability.neighbours import neighbour_purity
from manigeo.separability.probe import LinearProbe
from manigeo.separability.scores import class_averages, wilson_interval
from manigeo.separability.units import unit_memorization


class _OfPoints(Measure):
    """A measure that has nothing to tell of equal points, and draws alike in every layer."""

    def key(self, layer: str, kind: str) -> tuple[int, ...]:
        return kind_key(kind), crc32(self.name.encode())  # the same folds in every layer

    def rows(self, sample: LabelledPoints, others: Others, seed: np.random.SeedSequence) -> Iterator[Row]:
        if sample.constant:
            yield from nothing(self.metrics, "constant_features")
        else:
            yield from self.scores(sample, others, np.random.default_rng(seed))

    @abstractmethod
    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        """The rows of points that are not all the same."""


def score_rows(
    metric: str,
    scores: np.ndarray,
    sample: LabelledPoints,
    *,
    chance: float,
    ceiling: float = 1.0,
    share: bool = True,
    flag: str = "",
) -> Iterator[Row]:
    """Rows of a score with one value per example: its average over classes, that of each class and of each half; for a
    share of right answers an interval."""
    per_class, n = class_averages(scores, sample.labels), len(scores)
    common = {"n": len(per_class), "flag": flag}
    yield common | {"metric": metric, "value": per_class.mean(), "stderr": standard_error(per_class)}
    yield from _reference_rows(metric, common, chance, ceiling)
    if share:
        yield from _interval_rows(metric, common, float(scores.mean()), n)
    for number, half in enumerate(sample.halves, 1):
        value = class_averages(scores[half], sample.labels[half]).mean()
        yield common | {"metric": f"{metric}_half{number}", "value": value}
    sizes = np.bincount(sample.labels)
    spreads = np.sqrt(np.maximum(class_averages(scores**2, sample.labels) - per_class**2, 0) / sizes)
    for name, value, error, size in zip(sample.classes, per_class, spreads, sizes, strict=True):
        yield {"manifold": name, "metric": metric, "value": value, "stderr": error, "n": size, "flag": flag}


def _reference_rows(metric: str, common: Row, chance: float, ceiling: float) -> Iterator[Row]:
    yield common | {"metric": f"{metric}_chance", "value": chance}
    if np.isfinite(ceiling):
        yield common | {"metric": f"{metric}_ceiling", "value": ceiling}


def _interval_rows(metric: str, common: Row, share: float, n: int) -> Iterator[Row]:
    low, high = wilson_interval(share, n)
    yield common | {"metric": f"{metric}_ci_low", "value": low}
    yield common | {"metric": f"{metric}_ci_high", "value": high}


def _too_few(sample: LabelledPoints, folds: int) -> str:
    smallest = int(np.bincount(sample.labels, minlength=sample.n_classes).min())
    return f"fewer_than_{folds}_folds:{smallest}" if smallest < folds else ""


@dataclass(frozen=True)
class Probe(_OfPoints):
    """Accuracy of a linear classifier on the folds it has not seen, and on the other kinds: ``transfer_accuracy`` of a kind,
    with the kind it was trained on in the settings, always on images that the classifier has not seen."""

    folds: int = 5

    name: ClassVar[str] = "probe"
    needs: ClassVar[str] = "standardised"
    metrics = ("probe_accuracy",)
    profiles = metrics
    transfers = ("transfer_accuracy",)

    def describe(self) -> str:
        return f"linear probes, {self.folds} folds"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 1e-8 * self.folds * n * coordinates * n_classes

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        if flag := _too_few(sample, self.folds):
            yield from nothing(self.metrics, flag)
            return
        probe = sample.probe(self.folds, rng)
        flag = _probe_flag(probe, sample)
        right = (probe.predicted == sample.labels).astype(float)
        yield from score_rows("probe_accuracy", right, sample, chance=1 / sample.n_classes, flag=flag)
        exponents = np.log10(probe.regularization)
        yield {"metric": "probe_regularization", "value": 10 ** exponents.mean(), "n": self.folds, "flag": flag}
        classifiers = sample.classifiers(probe) if others else []
        for kind, read in others.items():
            other = read()
            scores = sample.transfer(probe, classifiers, other)
            for row in score_rows("transfer_accuracy", scores, other, chance=1 / other.n_classes, flag=flag):
                yield {"kind": kind} | row


def _probe_flag(probe: LinearProbe, sample: LabelledPoints) -> str:
    stopped, constant = int(np.count_nonzero(~probe.converged)), sample.moments.n_constant
    flags = {
        f"not_converged:{stopped}": stopped,
        f"constant_features:{constant}": constant,
        "standardised_over_all": sample.streamed,
    }
    return ";".join(flag for flag, holds in flags.items() if holds)


@dataclass(frozen=True)
class Neighbours(_OfPoints):
    """Purity of the nearest neighbour and of as many neighbours as a class has other examples; of other numbers as well."""

    also: tuple[int, ...] = ()

    name: ClassVar[str] = "neighbours"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("knn_purity_1", "knn_purity_class", *(f"knn_purity_{k}" for k in self.also))

    @property
    def profiles(self) -> tuple[str, ...]:
        return self.metrics

    def describe(self) -> str:
        return "purity of " + ", ".join(["1", *map(str, self.also), "n_c - 1"]) + " neighbours"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 1e-10 * n**2 * coordinates

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        n = len(sample.labels)
        sizes = dict(zip(self.metrics, (1, int(np.bincount(sample.labels).min()) - 1, *self.also), strict=True))
        within = {metric: k for metric, k in sizes.items() if k < n}
        for metric, purity in zip(
            within, neighbour_purity(sample.points, sample.labels, tuple(within.values())), strict=True
        ):
            yield from score_rows(
                metric, purity.scores, sample, chance=purity.chance, ceiling=purity.ceiling, share=purity.k == 1
            )
        for metric in sizes.keys() - within.keys():
            yield from nothing([metric], f"k_not_below_examples:{n}")


@dataclass(frozen=True)
class Clusters(_OfPoints):
    """Normalised mutual information of k-means clusters with the classes, g, averaged over seeds."""

    seeds: int = 3

    name: ClassVar[str] = "clusters"
    metrics = ("kmeans_nmi",)
    profiles = metrics

    def describe(self) -> str:
        return f"k-means from {self.seeds} seeds"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 4e-9 * self.seeds * n * coordinates * n_classes

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        whole = cluster_agreement(sample.points, sample.labels, self.seeds, rng=rng)
        common = {"n": sample.n_classes, "flag": "" if whole.converged else "not_converged"}
        error = standard_error(whole.per_class)
        yield common | {"metric": "kmeans_nmi", "value": whole.value, "stderr": error}
        yield from _reference_rows("kmeans_nmi", common, whole.chance, 1.0)
        spread = standard_error(whole.values)
        yield common | {"metric": "kmeans_nmi_stderr_seeds", "value": spread, "n": self.seeds}
        for number, half in enumerate(sample.halves, 1):
            part = cluster_agreement(sample.points[half], sample.labels[half], max(1, (self.seeds + 1) // 2), rng=rng)
            yield common | {"metric": f"kmeans_nmi_half{number}", "value": part.value}
        for name, value in zip(sample.classes, whole.per_class, strict=True):
            yield {"manifold": name, "metric": "kmeans_nmi", "value": value, "n": self.seeds, "flag": common["flag"]}


@dataclass(frozen=True)
class Means(_OfPoints):
    """Accuracy of the nearest class mean, and the variance between classes over that within them."""

    folds: int = 5

    name: ClassVar[str] = "means"
    metrics = ("nearest_mean_accuracy", "fisher_ratio")
    profiles = metrics

    def describe(self) -> str:
        return f"nearest class means, {self.folds} folds"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 1e-9 * n * coordinates * n_classes

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        if flag := _too_few(sample, self.folds):
            yield from nothing(self.metrics[:1], flag)
        else:
            scores = nearest_mean_scores(sample.points, sample.labels, self.folds, rng=rng)
            yield from score_rows(self.metrics[0], scores, sample, chance=1 / sample.n_classes)
        parts = fisher_ratio(sample.points, sample.labels)
        if not np.isfinite(parts).all():
            yield from nothing(self.metrics[1:], "no_variance_within_classes")
            return
        common = {"n": sample.n_classes}
        yield common | {"metric": "fisher_ratio", "value": parts.mean(), "stderr": standard_error(parts)}
        yield from _reference_rows("fisher_ratio", common, 1.0, np.inf)
        for number, half in enumerate(sample.halves, 1):
            value = fisher_ratio(sample.points[half], sample.labels[half]).mean()
            yield common | {"metric": f"fisher_ratio_half{number}", "value": value}
        for name, value, size in zip(sample.classes, parts, np.bincount(sample.labels), strict=True):
            yield common | {"manifold": name, "metric": "fisher_ratio", "value": value, "n": size}


@dataclass(frozen=True)
class Fuzziness(_OfPoints):
    """Separation fuzziness D, whose logarithm falls linearly with depth by the law of separation, and NC1 = D / C. Layers
    of no more features than classes, which outputs are, are flagged: there the means may span every direction."""

    name: ClassVar[str] = "fuzziness"
    metrics = ("separation_fuzziness", "nc1")

    def describe(self) -> str:
        return "separation fuzziness"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 2e-9 * n * coordinates * n_classes

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        parts = separation_fuzziness(sample.points, sample.labels)
        if not np.isfinite(parts).all():
            yield from nothing(self.metrics, "no_variance_between_classes")
            return
        features = len(sample.moments.mean)
        flag = f"few_features:{features}" if features <= sample.n_trained else ""
        for metric, values in (("separation_fuzziness", parts), ("nc1", parts / sample.n_classes)):
            error = standard_error(values)
            yield {"metric": metric, "value": values.mean(), "stderr": error, "n": sample.n_classes, "flag": flag}


@dataclass(frozen=True)
class Latent(_OfPoints):
    """Latent generalization: accuracy on test examples of classifiers that are fitted on the training set by the labels
    that were trained on; how far that is above the network's own (``_gain``), which is NaN where its answers are not
    known, or are among more classes than those of the classifiers."""

    examples_per_label: int = 50
    k: int = 30
    folds: int = 5

    name: ClassVar[str] = "latent"
    profiles = ("latent_mean", "latent_neighbours", "latent_subspace", "latent_linear")
    metrics = (*profiles, *(f"{name}_gain" for name in profiles), "network_accuracy")

    @property
    def training(self) -> int:
        return self.examples_per_label

    def describe(self) -> str:
        return f"latent generalization, {self.examples_per_label} training examples per class at most"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        m = self.examples_per_label * n_classes
        return 1e-10 * m * (n + m / n_classes) * coordinates + 1e-8 * self.folds * m * coordinates * n_classes

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        training = others["train"]()
        if flag := _too_few(training, self.folds):
            yield from nothing(self.metrics, flag)
            return
        gain_flag = "no_scores" if sample.right is None else ""
        if not gain_flag and sample.n_classes < sample.n_trained:
            gain_flag = f"fewer_classes:{sample.n_classes}"
        network = sample.right.astype(float) if sample.right is not None else np.full(len(sample.labels), np.nan)
        yield from _mean_row("network_accuracy", network, sample, gain_flag)
        for name, (scores, flag) in self._right(training, sample, rng).items():
            yield from score_rows(f"latent_{name}", scores, sample, chance=1 / sample.n_classes, flag=flag)
            gain = np.full(len(scores), np.nan) if gain_flag else scores - network
            yield from _mean_row(f"latent_{name}_gain", gain, sample, gain_flag or flag)

    def _right(
        self, training: LabelledPoints, sample: LabelledPoints, rng: np.random.Generator
    ) -> dict[str, tuple[np.ndarray, str]]:
        """Scores of each test example, 1 where a classifier gives its label, and the flag of that classifier."""
        products = inner_products(training.manifolds, sample.manifolds)
        found = {}
        for name, answers in CLASSIFIERS.items():
            predicted = answers(products, self.k) if answers is by_neighbours else answers(products)
            found[name] = ((predicted == sample.labels).astype(float), "")
        probe = training.probe(self.folds, rng)
        linear = training.transfer(probe, training.classifiers(probe), sample)
        return found | {"linear": (linear, _probe_flag(probe, training))}


def _mean_row(metric: str, scores: np.ndarray, sample: LabelledPoints, flag: str) -> Iterator[Row]:
    """The average over classes of a score with one value per example."""
    per_class = class_averages(scores, sample.labels)
    value, n = per_class.mean(), len(per_class)
    yield {
        "metric": metric,
        "value": value,
        "stderr": standard_error(per_class),
        "n": n * np.isfinite(value),
        "flag": flag,
    }


@dataclass(frozen=True)
class HardMargins(_OfPoints):
    """Share of the classes that a hyperplane tells from the rest, and of the pairs that one tells apart, with margins."""

    pairs: int = 500

    name: ClassVar[str] = "margins"
    metrics = ("separable_ovr", "margin_ovr", "separable_pairs", "margin_pairs")
    profiles = ("margin_ovr",)

    def describe(self) -> str:
        return f"hard margins, one class against the rest and {self.pairs} pairs at most"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 1e-5 * n * n_classes + 2e-3 * min(self.pairs, n_classes**2 / 2)

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        rest = one_versus_rest(sample.points, sample.labels)
        yield from _margin_rows("ovr", rest)
        yield from _margin_rows("pairs", pairs_of_classes(sample.points, sample.labels, self.pairs, rng=rng))
        for name, separable, margin in zip(sample.classes, rest.separable, rest.margin, strict=True):
            yield {"manifold": name, "metric": "separable_ovr", "value": float(separable), "n": 1}
            yield {"manifold": name, "metric": "margin_ovr", "value": margin, "n": 1}


def _margin_rows(problems: str, solved: Margins) -> Iterator[Row]:
    unproved = int(np.count_nonzero(~solved.certified))
    common = {"n": len(solved.margin), "flag": f"uncertified:{unproved}" if unproved else ""}
    shares = solved.separable.astype(float)
    yield common | {"metric": f"separable_{problems}", "value": shares.mean(), "stderr": standard_error(shares)}
    yield from _interval_rows(f"separable_{problems}", common, float(shares.mean()), len(shares))
    yield common | {
        "metric": f"margin_{problems}",
        "value": solved.margin.mean(),
        "stderr": standard_error(solved.margin),
    }
    yield common | {"metric": f"margin_{problems}_residual", "value": solved.residual.max()}


@dataclass(frozen=True)
class Units(_OfPoints):
    """UnitMem, how much more a unit responds to one example than to others, averaged over units, and what a tenth of
    the units exceeds. A unit is a stored feature: of a convolution with ``--readout mean`` a channel."""

    name: ClassVar[str] = "units"
    metrics = ("unitmem", "unitmem_top")

    def describe(self) -> str:
        return "UnitMem"

    def seconds(self, n: int, coordinates: int, n_classes: int) -> float:
        return 3e-9 * n * coordinates

    def scores(self, sample: LabelledPoints, others: Others, rng: np.random.Generator) -> Iterator[Row]:
        of_units = unit_memorization(sample.manifolds)
        common = {"n": len(of_units)}
        yield common | {"metric": "unitmem", "value": of_units.mean(), "stderr": standard_error(of_units)}
        yield common | {"metric": "unitmem_top", "value": np.quantile(of_units, 0.9)}

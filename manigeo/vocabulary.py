r"""The words that terminal, figures and report share: of every metric, flag, analysis and figure.

A name that is not here, of another program's table, stands for itself. To add a metric, a flag or a figure, add its line.
"""

import re
from typing import NamedTuple


class Metric(NamedTuple):
    """Words of a metric: ``digits`` after the point where values are printed (None: as many as their error has a meaning
    for), ``symbol`` in mathematics, and the ``family``, which is the command that measures it."""

    name: str
    digits: int | None = None
    symbol: str = ""
    family: str = ""

    @property
    def label(self) -> str:
        """For an axis."""
        return f"{self.name} ${self.symbol}$" if self.symbol else self.name


_FAMILIES: dict[str, dict[str, Metric]] = {
    "capacity": {
        "capacity": Metric("capacity", 3, r"\alpha_M"),
        "capacity_joint": Metric("joint capacity", 3),
        "capacity_simulated": Metric("simulated capacity", 3),
        "radius": Metric("radius", 2, "R_M"),
        "dimension": Metric("dimension", 1, "D_M"),
        "center_correlation": Metric("centre correlation", 3, r"\rho"),
        "center_correlation_residual": Metric("centre correlation that remains"),
        "center_rank": Metric("directions of the centres removed, K"),
        "dimension_prx": Metric("dimension (PRX 2018)"),
        "capacity_floor": Metric("capacity of points without structure (floor)"),
        "capacity_ball": Metric("capacity of a ball of this radius and dimension"),
        "interior_fraction": Metric("share of draws inside the cone of a manifold"),
        "rank": Metric("dimensions that the points span"),
        "residual": Metric("largest residual of the solver"),
        "occupancy": Metric("share of the dimensions that the manifolds need"),
        "crossing": Metric("dimensions that separate half of the dichotomies, divided by the mean needed"),
        "metric_residual": Metric("residual of the equations of the metric"),
        "participation_ratio": Metric("participation ratio of all points"),
        "directions_90": Metric("directions with 90 % of the variance"),
        "critical_dimension": Metric("critical dimension", symbol="N_c"),
        "inverse_capacity": Metric("contribution to the inverse capacity"),
        "anchored": Metric("share of draws with an anchor point"),
        "utility": Metric("utility"),
        "center_alignment": Metric("alignment of centres"),
        "axis_alignment": Metric("alignment of axes"),
        "center_axis_alignment": Metric("alignment of centres with axes"),
        "saturated_fraction": Metric("share of draws inside the cone"),
        "bound": Metric("lower bound of the capacity, P / rank"),
        "active_points": Metric("points on the margin"),
        "identity_residual": Metric("deviation of the measures' product from the capacity"),
    },
    "separability": {
        "probe_accuracy": Metric("probe accuracy", 3),
        "knn_purity_1": Metric("nearest neighbour", 3),
        "knn_purity_class": Metric("n_c - 1 neighbours", 3),
        "kmeans_nmi": Metric("k-means NMI", 3, "g"),
        "nearest_mean_accuracy": Metric("nearest mean", 3),
        "fisher_ratio": Metric("Fisher ratio", 2),
        "separable_ovr": Metric("classes separable from the rest", 2),
        "margin_ovr": Metric("margin to the rest", 4),
        "separable_pairs": Metric("separable pairs of classes", 2),
        "margin_pairs": Metric("margin of pairs", 3),
        "unitmem": Metric("UnitMem, mean of the units", 3),
        "unitmem_top": Metric("UnitMem that a tenth of the units exceeds", 3),
        "transfer_accuracy": Metric("probe accuracy on another kind", 3),
        "probe_regularization": Metric("regularisation of the probe"),
        "best_layer": Metric("best layer"),
        "best_layer_share": Metric("share of resamples with this best layer"),
        "best_value": Metric("value at the best layer", 3),
        "best_value_split": Metric("value at the layer chosen on the other half"),
        "best_value_halves": Metric("best value of each half, averaged"),
        "agreement_of_measures": Metric("agreement of the measures", symbol="W"),
        "agreement_of_checkpoints": Metric("agreement of the checkpoints", symbol="W"),
    },
    "examples": {
        "prediction_depth": Metric("prediction depth", 2),
        "memorization_depth": Metric("memorization depth", 2),
        "last_true_layer": Metric("last layer that gives the true label", 2),
        "margin": Metric("margin of the outputs", 2),
        "epoch_learned": Metric("epoch learned", 1),
        "forgetting": Metric("times forgotten", 2),
        "area_under_margin": Metric("area under the margin", 2),
        "confidence": Metric("confidence, mean over epochs", 3),
        "variability": Metric("variability over epochs", 3),
        "el2n": Metric("EL2N", 3),
        "memorization": Metric("memorization", 2, r"\mathrm{mem}"),
        "memorization_stderr": Metric("standard error of the memorization", 2),
        "correct_within": Metric("share of networks trained on it that are right", 2),
        "correct_without": Metric("share of networks not trained on it that are right", 2),
        "runs_within": Metric("networks trained on it", 0),
        "answer": Metric("label that the network gives"),
        "knn_label": Metric("label that the neighbours give"),
        "purity": Metric("share of neighbours with its label", 2),
        "load": Metric("load, mean field", 4),
        "load_joint": Metric("load, joint", 4),
    },
    "weights": {
        "rotation": Metric("rotation", symbol=r"1 - \cos(w_0, w_t)"),
        "angle": Metric("angle from the start (rad)"),
        "step_angle": Metric("angle since the last checkpoint (rad)"),
        "distance_relative": Metric("relative distance", symbol="|w_t - w_0| / |w_0|"),
        "distance_l1": Metric("L1 distance"),
        "distance_l2": Metric("L2 distance"),
        "distance_linf": Metric("largest change"),
        "distance_rms": Metric("RMS distance"),
        "norm_start": Metric("norm at the start"),
        "norm": Metric("norm"),
        "weights": Metric("number of weights"),
    },
    "correlate": {
        "gap": Metric("generalization gap"),
        "pearson": Metric("Pearson", 2),
        "spearman": Metric("Spearman", 2),
        "kendall": Metric("Kendall", 2),
    },
    "rewind": {
        "accuracy": Metric("accuracy", 3),
        "loss": Metric("loss"),
        "accuracy_drop": Metric("accuracy drop", 3),
        "normalised_drop": Metric("accuracy drop as a share of the accuracy above chance"),
        "softmax_distance": Metric("distance of the softmax outputs"),
        "js": Metric("Jensen-Shannon divergence"),
        "regained": Metric("lost test accuracy regained"),
        "accuracy_drop_beyond_control": Metric("accuracy drop beyond that of the control", 3),
        "interaction": Metric("accuracy drop of a pair beyond the sum of both layers' drops", 3),
        "selected": Metric("chosen on validation data"),
    },
    "reinit": {
        "critical": Metric("critical (1) or robust (0)"),
        "accuracy_gain": Metric("gain of accuracy", 3),
        "prefix_accuracy": Metric("accuracy of a probe on the layers up to", 3),
        "prefix_accuracy_heldout": Metric("accuracy of this probe on examples held out", 3),
        "criticality": Metric("criticality, loss at most 1.01 x"),
        "criticality_error": Metric("criticality, error at most + .01"),
        "criticality_absolute": Metric("criticality, loss at most + .1"),
        "distance": Metric("distance to the initial values"),
    },
    "channels": {
        "channels_to_flip": Metric("fewest channels that flip an example", 1),
        "flipped": Metric("share of examples flipped", 3),
        "others_changed": Metric("share of other examples with another answer", 3),
        "channel_share": Metric("share of the channels that flip an example", 3),
    },
    "gradients": {
        "gradient_norm": Metric("gradient", symbol="|g|"),
        "accumulated_gradient": Metric("change that is due to the examples of a kind", symbol="|a_k|"),
        "accumulated_gradient_along": Metric("change due to a kind, along the movement of the layer"),
        "accumulated_gradient_residual": Metric("share of the movement that no kind accounts for"),
        "movement": Metric("movement of the layer since the start"),
        "label_dependent_norm": Metric("label-dependent part", symbol="|g_{dep}|"),
        "label_independent_norm": Metric("label-independent part", symbol="|g_{ind}|"),
        "label_dependent_centred_norm": Metric("label-dependent part, centred", symbol="|g^c_{dep}|"),
        "label_independent_centred_norm": Metric("label-independent part, centred", symbol="|g^c_{ind}|"),
        "parts_cosine": Metric("cosine of the parts"),
        "parts_centred_cosine": Metric("cosine of the centred parts", symbol=r"\cos(g^c_{dep}, g^c_{ind})"),
        "parts_residual": Metric("deviation of the parts' sum from the gradient"),
        "gradient_cosine": Metric("cosine with the gradient of another kind"),
        "label_dependent_cosine": Metric("label-dependent part, cosine of two kinds"),
        "label_independent_cosine": Metric("label-independent part, cosine of two kinds"),
        "label_dependent_centred_cosine": Metric("label-dependent part, centred, cosine of two kinds"),
        "label_independent_centred_cosine": Metric("label-independent part, centred, cosine of two kinds"),
    },
    "localize": {
        "gate": Metric("training accuracy on permuted labels"),
        "evidence": Metric("evidence"),
        "profile": Metric("share of the layer"),
        "onset": Metric("first layer"),
        "end": Metric("last layer"),
        "center_of_mass": Metric("centre of mass"),
        "p_value": Metric("p-value"),
        "localized": Metric("localized (1) or not (0)"),
        "reference_epoch": Metric("epoch before memorization"),
        "found_planted": Metric("share of planted networks in which the layer was found"),
        "found_by_chance": Metric("the same by chance"),
        "noise_control": Metric("accuracy that noise of the same length costs"),
        "named": Metric("named by the answer (1) or not (0)"),
        "depth_of_last_layer": Metric("depth of the last layer"),
        "agreement": Metric("rank correlation of profiles"),
    },
}
METRICS = {
    key: metric._replace(family=family) for family, metrics in _FAMILIES.items() for key, metric in metrics.items()
}
# what is written beside a metric, under its name with one of these endings
ENDINGS = {
    "_ci_low": "lower end of the 95 % interval",
    "_ci_high": "upper end of the 95 % interval",
    "_stderr_draws": "standard error over draws",
    "_stderr_seeds": "standard error over starts of k-means",
    "_chance": "chance",
    "_ceiling": "ceiling",
    "_half1": "first half of the examples",
    "_half2": "second half of the examples",
    "_residual": "largest residual",
    "_joint": "joint",
    "_sweep": "against the number of examples",
    "_slope": "slope of log norm against log n",
    "_partial": "given the number of weights",
    "_alpha": "how far towards the initial values",
    "_sigma": "noise",
    "_level": "loss or error there",
    "_control": "of the control",
    "_median": "median",
}
_NEIGHBOURS = re.compile(r"knn_purity_(\d+)")


def metric_words(key: str) -> Metric:
    """The words of a metric, also of one with an ending or of another program.

    >>> metric_words("center_rank").name, metric_words("capacity_floor").family, metric_words("mean_firing_rate").name
    ('directions of the centres removed, K', 'capacity', 'mean firing rate')
    >>> metric_words("kmeans_nmi_chance").name, metric_words("knn_purity_7").name
    ('k-means NMI, chance', '7 neighbours')
    """
    if key in METRICS:
        return METRICS[key]
    if neighbours := _NEIGHBOURS.fullmatch(key):
        return METRICS["knn_purity_1"]._replace(name=f"{neighbours[1]} neighbours")
    for ending, words in ENDINGS.items():
        base = key.removesuffix(ending)
        base = f"{base}_norm" if ending == "_slope" else base
        if key.endswith(ending) and (of := metric_words(base)).family:
            return of._replace(name=f"{of.name}, {words}", symbol="")
    return Metric(key.replace("_", " "))


# the first part of a flag, before ":" -> what it means
FLAGS = {
    "saturated": "the layer is too narrow to separate the manifolds: capacity is at, or near, the bound P / rank, and "
    "the numbers move with rounding",
    "near_saturation": "the manifolds need over .9 of all dimensions: where these are few, capacity may be a tenth too low",
    "unsolved": "no metric satisfies the equations of correlated manifolds; the number is their residual",
    "unequal_points": "the manifolds had different numbers of points",
    "left_out": "points left out, so that all manifolds have the same number",
    "dropped": "points left out because of NaN entries",
    "background_unequal_points": "the other manifolds had different numbers of points",
    "background_left_out": "points of the other manifolds left out, so that all have the same number",
    "background_dropped": "points of the other manifolds left out because of NaN entries",
    "off_center": "the points are not centred on zero: they are not in units of their centre's norm",
    "not_separable": "the layer cannot separate the manifolds with all the dimensions it has: only a bound is known",
    "separable_in_1": "one dimension separates half of the dichotomies: only a bound is known",
    "zero_rank": "all points are equal, so there is nothing to separate",
    "few_classes": "two classes have one dichotomy: its share has no crossing of one half, and there is no capacity",
    "zero_center": "the centre of a manifold is zero, so its radius has no unit; it is left out of the mean",
    "all_interior": "every draw fell inside the cone of the manifold, so capacity is not bounded by these draws",
    "margin": "the floor is known without a margin only",
    "no_spread": "all examples are equal, so there is no manifold",
    "identity": "the parts do not multiply to the capacity as they should: do not take any of them as exact",
    "single_class": "there is one class only, so there is nothing to separate",
    "constant_features": "features that are the same for every example",
    "standardised_over_all": "features were standardised over all examples, not over the training folds",
    "not_converged": "the solver stopped before it had converged; the number is its last",
    "uncertified": "no proof that the answer is optimal (number of problems)",
    "k_not_below_examples": "more neighbours were asked for than there are other examples",
    "no_variance_within_classes": "the examples of each class are equal, so the ratio has no denominator",
    "not_learned": "examples that the network does not answer by their label: at the last recorded epoch, or, of times "
    "forgotten, at any",
    "no_ranks": "no rank correlation: too few layers, or all of them equal",
    "at_chance": "the trained network is no better than chance on these examples, so there is nothing to lose",
    "nothing_lost": "the trained network is not worse than the earlier one by four standard errors, so there is nothing to "
    "regain",
    "not_retrained": "the layer is bit for bit what it was, so it was not set back and trained again",
    "diverged": "the loss was no longer finite while the layer was trained again; a smaller --retrain-lr may help",
    "censored": "some examples kept their answer without as many channels as are removed at most: the mean is a lower "
    "bound",
    "not_drawn": "the layer has no initialiser of its own to draw from again",
    "infeasible": "no point searched was within the limit on the loss",
    "at_edge": "the best was at the edge of what was searched: a bound",
    "no_validation": "there are no validation examples to choose on",
    "not_recorded": "the layer has no output with one row per example",
    "one_class": "the examples to train the probe on are of one class",
    "zero_norm": "the vector is zero, so it has no direction",
    "not_memorized": "the network has not memorized its permuted labels",
    "nothing_permuted": "no labels were permuted",
    "accuracy_unknown": "the training accuracy on permuted labels is not known",
    "no_reference": "no epoch before memorization is known",
    "no_error": "a single run has no error here; give several seeds",
    "no_evidence": "not enough evidence: no layer is above zero beyond its interval",
    "no_layer_differs": "not enough evidence: the layers do not differ",
    "wide_interval": "not enough evidence: the interval spans half of the network",
    "constant": "one of the two measures is the same in all runs",
}
_FEWER = re.compile(r"fewer_than_(\d+)(?:_(\w+))?")


def flag_words(flag: str) -> str:
    """Sentence of a flag, with its detail; a flag that is not known stands for itself.

    >>> flag_words("fewer_than_2:cat,dog"), flag_words("new_flag")
    ('fewer than 2 examples (cat,dog)', 'new_flag')
    """
    name, _, detail = flag.partition(":")
    words = FLAGS.get(name, name)
    if fewer := _FEWER.fullmatch(name):
        words = f"fewer than {fewer[1]} {fewer[2] or 'examples'}"
    return f"{words} ({detail.strip()})" if detail.strip() else words


def flags_words(flags: str) -> str:
    """Sentences of the flags of a row, which stand behind one another.

    >>> flags_words("at_edge;new_flag")
    'the best was at the edge of what was searched: a bound; new_flag'
    """
    return "; ".join(flag_words(flag) for flag in flags.split(";"))


ANALYSES = {
    "localize": "Localization",
    "mean_field": "Mean-field geometry",
    "joint": "Joint capacity",
    "simulated": "Simulated capacity",
    "sweep": "Capacity against M",
    "spectrum": "Total dimension",
    "weights": "Movement of the weights",
    "rewind": "Rewound layers",
    "reinit": "Re-initialised layers",
    "channels": "Fewest channels that flip an example",
    "accumulated_gradients": "Accumulated gradients",
    "": "Other tables",
}


def analysis_words(analysis: str) -> str:
    """The title of an analysis.

    >>> analysis_words("mean_field"), analysis_words("double_descent")
    ('Mean-field geometry', 'Double descent')
    """
    return ANALYSES.get(analysis, analysis.replace("_", " ").capitalize())


class Figure(NamedTuple):
    """Words of a figure: ``line`` in the help of manigeo plot; title, what is ``seen`` and how to ``read`` it."""

    line: str
    title: str
    seen: str
    read: str


# in the order in which they are drawn, the main one first
FIGURES = {
    "geometry": Figure(
        "capacity, radius, dimension and centre correlation against depth, one column per checkpoint",
        "Geometry of the manifolds",
        "Capacity, radius, dimension and centre correlation at every layer; one column per checkpoint, one line per kind of "
        "examples. Bands are one standard error over classes. The dotted line is the floor of capacity, where points "
        "without structure lie; hollow points are layers too narrow to separate the manifolds.",
        "Where permuted examples leave the floor, their permuted labels have become separable. Check whether they do so "
        "at the end of training and not before memorization, whether radius or dimension falls there, and whether restored "
        "examples (the same images by their true labels) lose capacity.",
    ),
    "estimators": Figure(
        "mean-field, joint and simulated capacity against depth, one column per kind (--joint, --simulate)",
        "Three estimates of capacity",
        "Mean-field, joint and simulated capacity at every layer; one column per kind, one row per checkpoint. Bars are one "
        "standard error; hollow points are layers too narrow to separate the manifolds. Dotted lines are the floors, where "
        "each estimator sees points without structure.",
        "Where the curves coincide, the assumptions of mean field hold. Where they part, rely on simulation.",
    ),
    "sweep": Figure(
        "capacity against the number of examples per class, one panel per layer (--sweep-examples)",
        "Capacity against the number of examples",
        "Capacity against M, the examples per class; one panel per layer, one line per kind. The dotted line is the floor, "
        "where points without structure lie.",
        "Numbers at different M do not compare. Kinds are told apart at an M where their lines are.",
    ),
    "weights": Figure(
        "rotation, angle per step and distance of each layer against the epoch (manigeo weights)",
        "How far the layers have moved",
        "Rotation from the initial weights, angle since the checkpoint before, and relative distance, against the epoch; "
        "one line per layer.",
        "Where a layer hardly turns, training has changed it little. One that turns may have learned what generalizes "
        "as well as what was memorized: movement alone does not tell them apart.",
    ),
    "correlation": Figure(
        "movement of each layer against the generalization gap, one point per run (manigeo correlate)",
        "Movement and the generalization gap",
        "Movement of each layer against the generalization gap; one point per run, Spearman's coefficient with its interval "
        "above each panel.",
        "Where the interval includes zero, these runs do not decide. A correlation over runs does not show a cause.",
    ),
    "separability": Figure(
        "probes, neighbours, clusters, margins against depth, one column per checkpoint (manigeo separability)",
        "How well classes come apart",
        "Linear probe, nearest neighbours, clusters and class means at every layer; one row per measure, one column per "
        "checkpoint, one line per kind of examples. Bands are 95 % over classes; dotted lines are chance, dashed ones "
        "ceilings; stars are the best layers.",
        "A probe is scored on examples that it was not trained on: permuted labels can be read from a layer only where "
        "it tells their images apart by them. Restored and test show what is left of the true labels.",
    ),
    "progress": Figure(
        "g and probe accuracy of every layer over epochs, where there are several",
        "Separability over training",
        "Agreement of clusters with classes, and probe accuracy, against the epoch; one column per kind, one line per "
        "layer, dark to bright by depth.",
        "Check whether layers part early or late, and whether what permuted examples gain is lost by restored ones.",
    ),
    "transfer": Figure(
        "probes of each kind scored on every kind, one heat map per layer",
        "Probes of one kind on another",
        "Accuracy of the probe of each kind (row) on every kind (column), one map per layer. On the diagonal are examples "
        "that a probe has not seen.",
        "Where the probe of unpermuted examples reads restored ones, the layer still holds the true class of images "
        "whose labels were permuted.",
    ),
    "memorization": Figure(
        "permuted labels: probe accuracy and capacity against depth (tables of separability and capacity)",
        "Permuted labels, by probe and by capacity",
        "Probe accuracy on permuted labels above, their capacity below, at every layer; on the right one against the "
        "other, one point per layer. Bands are 95 % over classes; dotted lines are chance, and the floor of capacity.",
        "Two measures of the same: where both rise, permuted labels have become separable and can be read.",
    ),
    "rewind": Figure(
        "accuracy of every kind after layers were rewound, one panel per sweep (manigeo rewind)",
        "Layers set back to an earlier epoch",
        "Accuracy of every kind after layers were set back, without training; one panel per sweep. Bands are one standard "
        "error over examples; the dashed line is the test accuracy of the whole network at that epoch; the circle is "
        "the choice of validation data.",
        "Where permuted accuracy falls while unpermuted stays, the network needs these layers for what it memorized. "
        "Where test accuracy rises, setting them back undoes the cost of memorization.",
    ),
    "reinit": Figure(
        "accuracy with one layer re-initialised, drawn again or zero: one heat map per kind (manigeo reinit)",
        "One layer set to something else",
        "Accuracy of every kind with one layer (row) set to a fresh draw, to zero or to a checkpoint (column), the "
        "others as trained; the last column is the trained network.",
        "A layer is critical for a kind where its row is dark, and robust where it is as bright as the last column.",
    ),
    "channels": Figure(
        "fewest channels that flip an example, and the layers that they lie in (manigeo channels)",
        "Fewest channels that flip an example",
        "Left, the mean number of channels that are removed, most important first, until an example has another answer, "
        "with its 95 % interval, by kind; an arrow marks a lower bound. Right, the share of these channels in each layer, "
        "with one standard error over examples; the dotted line is the layer's share of all channels.",
        "Where permuted examples take fewer channels than unpermuted ones, few channels memorize them. Check in which "
        "layers these lie above the dotted line.",
    ),
    "final-reset": Figure(
        "accuracy after the last layers were reset, and trained again (manigeo reinit --final-reset)",
        "The last layers reset",
        "Accuracy of every kind after the last k layers were reset; one panel per value they were set to, dashed after they "
        "were trained again for some steps. A circle is the choice of validation data.",
        "Where test accuracy rises above that at k = 0, the reset regularizes; the other lines show what it costs.",
    ),
    "utilisation": Figure(
        "a linear probe on the layers up to each (manigeo reinit --utilisation)",
        "What layers up to each are enough for",
        "Accuracy of a linear probe on the layers up to each, for every kind; dotted lines are the network itself.",
        "Where a line reaches its dotted one, the layers after it are not needed for that kind.",
    ),
    "criticality": Figure(
        "module criticality of every layer (manigeo reinit --criticality)",
        "Criticality of modules",
        "How far each layer may go towards its initial values, and under how much noise, before the training loss rises "
        "by a bound; one line per bound, logarithmic. Layers of criticality zero are not drawn.",
        "The higher, the more the network depends on just these weights.",
    ),
    "localization": Figure(
        "the memorization profile of every method (manigeo localize)",
        "Where each method finds memorization",
        "The share of each layer in what a method sees of memorization, with 95 % intervals; the dashed line is the "
        "centre of mass with its own. Grey where a method does not have enough evidence.",
        "Geometry and separability say where permuted examples come apart, the others which layers hold what was memorized: "
        "compare the methods of one question.",
    ),
    "depth": Figure(
        "the shares of the layers by every method, on one axis of depth (manigeo localize)",
        "Every method on one axis",
        "The share of each layer, in percent, in what each method sees of memorization, from the first layer with "
        "parameters to the last. Boxes mark the layers that a method names; the line is its centre of mass with a 95 % "
        "interval. Methods in brackets, paler, do not have enough evidence, and name none.",
        "Above the line are the methods that say where permuted examples come apart, below it those that say which layers "
        "hold what was memorized: compare within each.",
    ),
    "gradients": Figure(
        "the label-dependent and the label-independent part of the gradient, one panel per layer (manigeo gradients)",
        "Parts of the gradient",
        "Norms of the label-dependent and of the label-independent part of the gradient, and the cosine with "
        "the gradient of unpermuted examples, over epochs; one column per layer, one line per kind.",
        "Examples that agree on where to push a layer have a large label-dependent part; those that contradict one "
        "another have a small one. Check when, and at which layers, that of permuted examples approaches the others'.",
    ),
    "gradient-sizes": Figure(
        "norms of these parts against the number of examples (manigeo gradients --sizes)",
        "The gradient against the number of examples",
        "Norms of the two parts of the gradient against the number of examples, both logarithmic; one column per layer, "
        "one line per kind. The dashed line falls as chance does.",
        "A line that falls with the dashed one is noise that averages out; a level one is a direction that examples share.",
    ),
}
# metrics that a table has a figure of, whatever else is in it; see manigeo.plots, which is slow to import
# fmt: off
DRAWN = frozenset(
    (
        "capacity", "capacity_joint", "capacity_simulated", "capacity_sweep", "label_dependent_centred_norm",
        "label_dependent_centred_norm_sweep", "accuracy_drop", "accuracy_gain", "channels_to_flip", "profile", "step_angle",
        "gap", "transfer_accuracy", "prefix_accuracy", "criticality", "kmeans_nmi", "knn_purity_1", "knn_purity_class",
        "margin_ovr", "nearest_mean_accuracy", "probe_accuracy",
    )
)
# fmt: on

# of a table of single examples
EXAMPLE_FIGURES = {
    "examples": Figure(
        "depths, loads and the data map of single examples (manigeo examples)",
        "Single examples",
        "For each kind, the share of examples with each prediction depth; the accuracy of test examples by their depth; the "
        "mean load of each kind at every layer, 1 being an equal share; and confidence against variability over training. "
        "Panels whose numbers the table does not hold are left out.",
        "Examples of large depth come apart late, or never. Where permuted ones carry more than their share of the load, "
        "they limit capacity.",
    ),
    "contact": Figure(
        "images of the most and of the least memorized examples",
        "The most and the least memorized images",
        "Training images as the network saw them, each on its own scale of grey or colour: the most memorized above, the "
        "least memorized below. Above each stands its class, or its true class and the label that it was trained on.",
        "Look for what the network had no other way to know: permuted labels, odd or mislabelled images, duplicates.",
    ),
}

"""Words of every metric, and of the analyses that metrics come from. To add a metric, add its line."""

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
        "separation_fuzziness": Metric("separation fuzziness", 1, "D"),
        "nc1": Metric("variability within classes (NC1)", 2),
        "latent_mean": Metric("nearest mean of training labels", 3),
        "latent_neighbours": Metric("neighbours' votes of training labels", 3),
        "latent_subspace": Metric("least angle to subspaces of training labels", 3),
        "latent_linear": Metric("linear probe of training labels", 3),
        "network_accuracy": Metric("accuracy of the network on these examples", 3),
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
    "similarity": {
        "cka": Metric("CKA", 3),
        "procrustes_angle": Metric("Procrustes angle (rad)", 3),
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
    "lens": {
        "lens_accuracy": Metric("share of examples that the head answers by their label", 3),
        "lens_exact": Metric("share of suffixes that it answers token by token", 3),
        "lens_depth": Metric("block, from 0, from which on the head gives the label", 2),
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
    "_gain": "above the network's own",
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

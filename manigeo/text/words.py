"""Numbers, measures and flags as words."""

import math
import re
from collections.abc import Collection

NOTHING = "\N{EN DASH}"  # where there is no number or word
# the first part of a flag, before ":" -> what it says
FLAGS = {
    "saturated": "the layer is too narrow to separate the manifolds: capacity is at, or near, the bound P / rank there",
    "near_saturation": "the manifolds want over .9 of all dimensions: where these are few, capacity may be a tenth too low",
    "unsolved": "no metric satisfies the equations of correlated manifolds; the number is their residual",
    "unequal_points": "the manifolds had different numbers of points",
    "left_out": "points left out, so that all manifolds have as many",
    "dropped": "points left out for NaN entries",
    "off_center": "the points do not lie around zero: they are not in units of their centre's norm",
    "not_separable": "the layer cannot separate the manifolds with all the dimensions it has: there is only a bound",
    "few_classes": "two classes have one dichotomy: its share has no crossing of one half, and there is no capacity",
    "zero_center": "the centre of a manifold is zero, so its radius has no unit; it is left out of the mean",
    "all_interior": "every draw fell inside the cone of the manifold, so it says nothing of capacity",
    "margin": "the floor is known without a margin only",
    "at_chance": "the trained network does no better than chance on these examples, so there is nothing to lose",
    "nothing_lost": "the trained network is no worse than the earlier one, so there is nothing to regain",
    "not_drawn": "the layer has no initialiser of its own to draw from again",
    "constant_features": "the layer gives the same for every example",
    "not_converged": "the solver stopped before it had converged; the number is its last",
    "uncertified": "some classes without proof that the answer is optimal",
    "infeasible": "no point searched was within the limit on the loss",
    "at_edge": "the best was at the edge of what was searched: a bound",
    "zero_norm": "the vector is zero, so it has no direction",
    "no_validation": "there are no validation examples to choose on",
    "no_ranks": "no rank correlation: too few layers, or all of them equal",
    "no_spread": "all examples are equal, so there is no manifold",
    "identity": "the parts do not multiply to the capacity as they should: take none of them for exact",
    "not_memorized": "the network has not memorized its permuted labels",
    "nothing_permuted": "no labels were permuted",
    "no_error": "a single run has no error here: give several seeds",
    "no_evidence": "not enough evidence: no layer is above zero beyond its interval",
    "no_layer_differs": "not enough evidence: the layers do not differ",
    "wide_interval": "not enough evidence: the interval spans half of the network",
    "constant": "one of the two measures is the same in all runs",
}
_FEWER = re.compile(r"fewer_than_(\d+)(?:_(\w+))?")
METRICS = {
    "center_correlation": "centre correlation",
    "center_correlation_residual": "centre correlation, residual",
    "center_rank": "directions of the centres removed, K",
    "capacity_floor": "capacity of points without structure (floor)",
    "dimension_prx": "dimension (PRX 2018)",
    "capacity_ball": "capacity of a ball of this radius and dimension",
    "directions_90": "dimensions with 90 % of the variance",
    "residual": "largest residual of the solver",
    "occupancy": "share of the dimensions that the manifolds want",
    "metric_residual": "residual of the equations of the metric",
    "js": "Jensen-Shannon divergence",
    "p_value": "p-value",
}
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
    "": "Other tables",
}


def number(value: float, digits: int = 4) -> str:
    """A few digits, and no point without need; a dash for what is missing.

    >>> number(0.08333333), number(30.0), number(1e-7, 2)
    ('0.08333', '30', '1e-07')
    """
    return f"{value:.{digits}g}" if value == value else NOTHING


def measured(value: float, stderr: float) -> tuple[str, str]:
    """A number to the second digit of its error, and the error; without an error, in a few digits.

    >>> measured(0.13001, 0.0044), measured(30.0, float("nan"))
    (('0.1300', '± 0.0044'), ('30', ''))
    """
    if not (0 < stderr < math.inf and math.isfinite(value)):
        return number(value), ""
    places = 1 - math.floor(math.log10(stderr))
    if not 0 <= places <= 8:
        return number(value), f"± {number(stderr, 2)}"
    return f"{value:.{places}f}", f"± {stderr:.{places}f}"


def metric_words(metric: str) -> str:
    """
    >>> metric_words("center_rank"), metric_words("accuracy_drop")
    ('directions of the centres removed, K', 'accuracy drop')
    """
    return METRICS.get(metric, metric.replace("_", " "))


def analysis_words(analysis: str) -> str:
    """
    >>> analysis_words("mean_field"), analysis_words("double_descent")
    ('Mean-field geometry', 'Double descent')
    """
    return ANALYSES.get(analysis, analysis.replace("_", " ").capitalize())


def flag_words(flag: str) -> str:
    """Describe a flag in words; one that is not known is returned as it is.

    >>> flag_words("fewer_than_2:cat,dog")
    'fewer than 2 examples (cat,dog)'
    """
    name, _, detail = flag.partition(":")
    said = FLAGS.get(name, name)
    if fewer := _FEWER.fullmatch(name):
        said = f"fewer than {fewer[1]} {fewer[2] or 'examples'}"
    return f"{said} ({detail.strip()})" if detail.strip() else said


def flags_words(flags: str) -> str:
    """Describe the flags of a row, which stand behind one another.

    >>> flags_words("at_edge;new_flag")
    'the best was at the edge of what was searched: a bound; new_flag'
    """
    return "; ".join(flag_words(flag) for flag in flags.split(";"))


def listed(names: Collection[object], most: int = 8) -> str:
    """
    >>> listed(["a", "b"]), listed(range(10), most=3)
    ('a, b', '0, 1, 2 and 7 more')
    """
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more

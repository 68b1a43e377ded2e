"""The sentence of every flag. To add a flag, add its line."""

import re

# the first part of a flag, before ":" -> what it means
FLAGS = {
    "saturated": "the layer is too narrow to separate the manifolds: capacity is near the bound P / rank, or below it; all "
    "is seen in the metric of the pooled covariance, since none satisfies the equations",
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
    "no_variance_between_classes": "the class means are equal, so the ratio has no denominator",
    "few_features": "no more features than classes, as outputs have: the layer does not compare with wider ones",
    "fewer_classes": "the network chooses among more classes than the classifiers here: their accuracies do not compare",
    "no_scores": "the answers of the network are not stored with its activations",
    "equidistant": "all examples are at one distance from each other, so CKA has no unit",
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

"""Scores that an activation file holds, and whether they are what training knew, printed."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

Scores = Mapping[str, Mapping[str, float]]

REMEDY = (
    "check the inputs (--data-arg mean=, std=, size=, standardise=no), the labels (--labels, the order of the classes) and "
    "the weights (--state-key, --ema)"
)
_FEW = 10  # examples, of which nothing is concluded
_COMPOSITION = 0.02  # accuracy by which the stored examples, equally many per class, may differ from all of training
_LEARNED = 0.9  # accuracy from which on a network has learned labels; those of the papers reach 0.99


def describe_scores(scores: Scores, unscored: str) -> str:
    """Accuracy and loss of each kind, or why there are none, in one line.

    >>> describe_scores({"test": {"accuracy": 0.625, "loss": 1.5, "n": 40}}, "")
    'accuracy test 0.625 (loss 1.5, 40 examples)'
    >>> describe_scores({}, "the network returns 3 x 8 per example")
    'accuracy not known: the network returns 3 x 8 per example'
    """
    if not scores:
        return f"accuracy not known: {unscored or 'no example of training or test is there'}"
    return "accuracy " + ", ".join(
        f"{kind} {of['accuracy']:.3f} (loss {of['loss']:.3g}, {of['n']} examples)" for kind, of in scores.items()
    )


def doubts(scores: Scores, provenance: Mapping[str, Any], n_classes: int) -> list[str]:
    """Reasons to doubt that weights, inputs or labels are those of training, one sentence each.

    Accuracies that the checkpoint recorded are compared with those found (4 standard errors and 0.02 apart). Where it
    recorded none, a trained network is expected to be right on most of its unpermuted training examples, and one that
    answers permuted examples by their true labels was not trained on the labels given. Of a text accuracies are not
    compared: its tokens are not evenly frequent, and a sample of so many per class is another mixture.

    >>> found = {"unpermuted": {"accuracy": 0.12, "loss": 3.1, "n": 500}}
    >>> doubts(found, {"checkpoint": "w"}, 10)[0][:80]
    'the network is near chance on unpermuted training examples (accuracy 0.120, 10 c'
    >>> doubts(found, {"checkpoint": "init"}, 10)
    []
    """
    if provenance.get("checkpoint") == "init" or provenance.get("epoch") == 0:
        return []
    recorded = {} if provenance.get("sequences") else _recorded(provenance)
    counted = {kind: of for kind, of in scores.items() if of["n"] >= _FEW}
    found = [*_differences(counted, recorded)]
    if "unpermuted" in counted and not recorded:
        found += _unlearned(counted["unpermuted"], n_classes)
    if {"permuted", "restored"} <= counted.keys() and "permuted" not in recorded:
        found += _other_labels(counted)
    return found


def _recorded(provenance: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies that the checkpoint knows of these data."""
    if provenance.get("trained_on") not in (None, provenance.get("data_fingerprint")):
        return {}
    stored = provenance.get("metrics")
    named = stored.items() if isinstance(stored, Mapping) else ()
    found = {kind: of.get("accuracy") for kind, of in named if isinstance(of, Mapping)}
    return {kind: float(value) for kind, value in found.items() if isinstance(value, int | float) and 0 <= value <= 1}


def _differences(scores: Scores, recorded: Mapping[str, float]) -> Iterator[str]:
    for kind, of in scores.items():
        expected = recorded.get(kind, math.nan)
        allowed = _COMPOSITION + 4 * _standard_error(expected, of["n"])
        if abs(of["accuracy"] - expected) > allowed:
            yield (
                f"accuracy on {kind} examples is {of['accuracy']:.3f}, and the checkpoint recorded {expected:.3f}: {REMEDY}"
            )


def _unlearned(of: Mapping[str, float], n_classes: int) -> Iterator[str]:
    chance = 1 / max(n_classes, 1)
    found = f"on unpermuted training examples (accuracy {of['accuracy']:.3f}, {n_classes} classes)"
    if of["accuracy"] <= chance + max(4 * _standard_error(chance, of["n"]), 0.1 * (1 - chance)):
        yield f"the network is near chance {found}: {REMEDY}"
    elif of["accuracy"] < _LEARNED:
        yield f"the network is often wrong {found}; if its training reached more, {REMEDY}"


def _other_labels(scores: Scores) -> Iterator[str]:
    permuted, restored = scores["permuted"], scores["restored"]
    apart = 4 * math.hypot(*(_standard_error(of["accuracy"], of["n"]) for of in (permuted, restored)))
    if permuted["accuracy"] + apart < min(restored["accuracy"], _LEARNED):
        yield (
            f"the network answers permuted examples by their true labels ({restored['accuracy']:.3f}) rather than by those "
            f"given ({permuted['accuracy']:.3f}): if its training reached more, check --labels or --permute"
        )


def _standard_error(share: float, n: float) -> float:
    """Binomial standard error; of a share of 0 or 1 that of one example in n."""
    return math.sqrt(max(share * (1 - share), 1 / n) / n)

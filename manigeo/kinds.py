"""The kinds of examples, in the order of every table and figure, and their markers."""

from collections.abc import Collection, Iterable

KINDS = ("unpermuted", "permuted", "restored", "test")  # these share their classes
UNSEEN = "unseen"
EVERY = "all"  # all examples of a set that is neither trained on nor held out, such as responses of neurons
MARKED = MEMORIZED, TYPICAL = "memorized", "typical"  # training examples of no other kind: marked ones, and sequences'
CONTROL = "control"  # as the memorized ones, and never trained on
BY_MEMORY, BY_RULE = ("permuted", MEMORIZED), ("unpermuted", TYPICAL)  # answered by memory alone, and without
ROLES = {MEMORIZED: "permuted", TYPICAL: "unpermuted"}
SCORED = (*KINDS, *MARKED, CONTROL)  # those that a network can answer
TRAINED = ("train", *MARKED)  # splits of the examples that a network was trained on
ALL_KINDS = (*KINDS, UNSEEN, EVERY, *MARKED, CONTROL)  # places in here are spawn keys: append only
LEFT_OUT = "left_out"  # the split of training examples that a training on a share of them left out
VALIDATION = "validation"  # scored like a kind, but not one of the papers': choices are made on it
SAME_IMAGES = (("unpermuted",), ("permuted", "restored"), ("test",))  # kinds that differ in their labels alone
PLACES = {
    kind: place for place, kind in enumerate((*ALL_KINDS, VALIDATION))
}  # also those of their colours in a palette
MARKERS = dict(zip(ALL_KINDS, "osD^voPXd", strict=True))  # tell kinds apart without colour


def in_order(kinds: Iterable[str]) -> list[str]:
    """Sorts kinds as in all tables and figures, each once; names that are not known come last, in the order given.

    >>> in_order(["mine", "test", "permuted", "test"])
    ['permuted', 'test', 'mine']
    """
    return sorted(dict.fromkeys(kinds), key=lambda kind: PLACES.get(kind, len(PLACES)))


def memorized_kind(kinds: Collection[str]) -> str | None:
    """The kind among these that nothing but memorization can answer: permuted labels, or else memorized examples; None where
    there is neither.

    >>> memorized_kind(["unpermuted", "permuted", "test"]), memorized_kind(["memorized", "typical"])
    ('permuted', 'memorized')
    """
    return next((kind for kind in BY_MEMORY if kind in kinds), None)

"""Cases of the benchmark: which network, which of its layers hold the permuted labels, which labels, and what came before.

A case is made at several seeds, of the data, the permutation, the weights and the order of examples alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from manigeo.errors import UsageError, check_choice, check_ranges
from manigeo_extract.resolve import near_names

FIRST, MIDDLE, LAST, LOGITS, PAIR, SPREAD, NOWHERE = "first", "middle", "last", "logits", "pair", "spread", "nowhere"
PLACES = (FIRST, MIDDLE, LAST, LOGITS, PAIR, SPREAD, NOWHERE)
STILL, MOVING = "still", "moving"
GROUPING = "block"  # what counts as a layer
_LANGUAGE = "language"


@dataclass(frozen=True)
class Case:
    """A network, and where in it permuted labels are planted.

    ``place`` names the layers that learn them: the first, middle or last hidden layer, the logits, a distant pair, all
    (``spread``: every layer its own share of the examples, as in the pair), or none. ``others`` are the other layers
    meanwhile: bitwise ``still``, or ``moving``, as they go on learning unpermuted examples. ``fraction`` and ``convention``
    are of the permuted labels; in a language model canaries are in their place, and the text in that of the unpermuted.
    Without ``clean_epochs`` the network was never trained on unpermuted examples first. ``passed_over`` are layers that
    nothing is planted in: with too few parameters to hold it, or with the weights of the output. ``data_set`` is the name of
    the data, ``data`` are its arguments.

    Raises :class:`~manigeo.errors.UsageError` for a value that there is not.
    """

    name: str
    arch: str
    arch_args: Mapping[str, Any]
    place: str
    others: str = STILL
    fraction: float = 0.5
    convention: str = "permutation"
    clean_epochs: int = 15
    most_epochs: int = 150
    optimizer: str = "adam"
    lr: float = 1e-3
    batch_size: int = 64
    passed_over: tuple[str, ...] = ()
    data_set: str = "glyphs"
    data: Mapping[str, Any] = field(default_factory=lambda: {"classes": 10, "train": 40, "validation": 10, "test": 20})

    def __post_init__(self) -> None:
        check_choice("place", self.place, PLACES)
        check_choice("others", self.others, (STILL, MOVING))
        check_choice("optimizer", self.optimizer, ("adam", "sgd"))
        check_ranges(
            self,
            ("clean_epochs", self.clean_epochs >= 0, "0 or more"),
            ("most_epochs", self.most_epochs >= 1, "1 or more"),
            ("lr", self.lr > 0, "above 0"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
        )

    def planted(self, layers: Sequence[str]) -> tuple[str, ...]:
        """The layers, of all by execution, that learn the permuted labels.

        >>> Case("", "mlp", {}, "pair").planted(["h1", "h2", "h3", "h4", "logits"])
        ('h1', 'h4')
        """
        able = [name for name in layers if name not in self.passed_over]
        hidden = [name for name in able if name != LOGITS]
        return {
            FIRST: (hidden[0],),
            MIDDLE: (hidden[(len(hidden) - 1) // 2],),
            LAST: (hidden[-1],),
            LOGITS: (LOGITS,),
            PAIR: (hidden[0], hidden[-1]),
            SPREAD: tuple(able),
            NOWHERE: (),
        }[self.place]


# ------------------------------------------------------------------------------------------------------------ the cases
_DATA = {"classes": 10, "train": 40, "validation": 10, "test": 20}
_MANY = _DATA | {"train": 200}  # a hundredth of the examples are then twenty
_FEW = _DATA | {"train": 20}  # for networks of slow steps
_MLP = {"depth": 6, "width": 256}

# name -> arch and its arguments, and how it is trained where not as others are
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"arch": "mlp", "arch_args": _MLP},
    "mlp-norm": {"arch": "mlp", "arch_args": _MLP | {"batch_norm": True}},
    "residual": {"arch": "resmlp", "arch_args": {"depth": 5, "width": 256}},
    "cnn": {"arch": "cnn", "arch_args": {"width": 24, "blocks": 4}, "passed_over": ("conv1",), "data": _FEW},
    "transformer": {
        "arch": "vit",
        "arch_args": {"patch": 5, "depth": 4, "width": 64},
        "passed_over": ("norm",),
        "data": _FEW,
        "lr": 2e-3,
    },
    _LANGUAGE: {
        "arch": "gpt",
        "arch_args": {"depth": 6, "width": 64},
        "passed_over": ("stem", "norm", LOGITS),  # the logits have the weights of the stem
        "fraction": 0.0,
        "data_set": "sentences",
        "data": {"canaries": (30, 24, 4)},
        "lr": 2e-3,
        "batch_size": 32,
    },
}


def _cases() -> Iterator[Case]:
    for network, settings in NETWORKS.items():
        for place in (FIRST, MIDDLE, LAST, LOGITS, PAIR):
            if place not in settings.get("passed_over", ()):
                yield Case(f"{network}-{place}", place=place, **settings)
        if network != _LANGUAGE:  # whose other blocks undo it: .23 of the canaries in the middle one after 150 epochs
            for place in (FIRST, MIDDLE, LAST):
                yield Case(f"{network}-{place}-moving", place=place, others=MOVING, **settings)
        yield Case(f"{network}-never-learnt", place=NOWHERE, others=MOVING, **(settings | {"most_epochs": 15}))
    # without normalisation layers undo what the others learn, and know less than .4 of the labels in the end
    yield Case(f"mlp-norm-{LOGITS}-moving", place=LOGITS, others=MOVING, **NETWORKS["mlp-norm"])
    yield Case(f"residual-{LOGITS}-moving", place=LOGITS, others=MOVING, **NETWORKS["residual"])
    slow = {"lr": 3e-4, "most_epochs": 200}
    yield Case(f"mlp-norm-{SPREAD}", place=SPREAD, **(NETWORKS["mlp-norm"] | slow))
    yield Case(
        f"residual-{SPREAD}", place=SPREAD, **(NETWORKS["residual"] | slow | {"arch_args": {"depth": 5, "width": 128}})
    )
    for network in ("mlp", "residual"):
        settings = NETWORKS[network]
        never = settings | {"most_epochs": 15}
        yield Case(f"{network}-no-permuted-labels", place=NOWHERE, others=MOVING, fraction=0.0, **never)
        for place in (FIRST, MIDDLE, LAST):
            yield Case(f"{network}-{place}-pairs", place=place, convention="pairs", **settings)
    many = NETWORKS["mlp"] | {"data": _MANY, "clean_epochs": 8}
    for place in (FIRST, MIDDLE, LAST):
        yield Case(f"mlp-{place}-twentieth", place=place, fraction=0.05, convention="derangement", **many)
        yield Case(f"mlp-{place}-hundredth", place=place, fraction=0.01, convention="derangement", **many)
        yield Case(f"mlp-{place}-untrained", place=place, clean_epochs=0, **NETWORKS["mlp"])


CASES: Mapping[str, Case] = {case.name: case for case in _cases()}


def select_cases(patterns: Sequence[str]) -> list[Case]:
    """The cases whose name matches one of the globs; all without any.

    Raises :class:`~manigeo.errors.UsageError` for a glob that matches none, with near names.

    >>> [case.name for case in select_cases(["mlp-l*"])][:2]
    ['mlp-last', 'mlp-logits']
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in CASES):
            near = near_names(pattern, CASES) if get_close_matches(pattern, CASES) else ""
            raise UsageError(
                f"no case matches {pattern!r}{near or '; manigeo benchmark --dry-run lists all'} ({len(CASES)} cases)"
            )
    return [case for name, case in CASES.items() if not patterns or any(fnmatchcase(name, p) for p in patterns)]

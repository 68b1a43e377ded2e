"""Positions of sequences as points: which of them are taken, and of which manifold each is one.

An example of a text is a position of a sequence, and its label the token there (:mod:`manigeo_extract.data.sequences`): a
manifold holds the contexts that one token follows. It can hold the positions of one sequence instead, a document: then the
classes of each kind are its sequences.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from manigeo.errors import UsageError, check_choice
from manigeo.kinds import ALL_KINDS, LEFT_OUT
from manigeo_extract.data.datasets import DataSet

BY_LABEL, BY_SEQUENCE = GROUPINGS = "label", "sequence"


def points_of(
    data: DataSet, examples: pd.DataFrame, manifolds: str = BY_LABEL, positions: Sequence[int] = ()
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table of examples with those at other ``positions`` left out, and, of ``manifolds`` by "sequence", with the number
    of its sequence among those of its kind as label of each; and the names of the classes.

    ``positions`` are places of the token that is answered in its sequence, from 0 on, or before its end from -1 on; empty
    for all. The k-th sequences of two kinds have nothing in common but their number; each kind has its first ones, as many
    as the kind that has the fewest.

    Raises :class:`~manigeo.errors.UsageError` for data that are no sequences, for positions at which none is answered, and
    for sequences of which one position alone is taken.

    >>> from manigeo_extract import load_data, permute_labels, Permutation
    >>> data = load_data("sentences", {"n": 20, "length": 16, "prefix": 8, "scored": 3, "validation": 0})
    >>> table, names = points_of(data, permute_labels(data, Permutation()), "sequence", [8, -1])
    >>> table[table["split"] == "test"]["true_label"].tolist(), names
    ([0, 0, 1, 1, 2, 2], ('sequence 1', 'sequence 2', 'sequence 3'))
    """
    check_choice("manifolds", manifolds, GROUPINGS)
    if manifolds == BY_LABEL and not positions:
        return examples, data.class_names
    if data.sequences is None:
        asked = "positions" if positions else f"manifolds by {BY_SEQUENCE}"
        raise UsageError(f"{data.spec} has no sequences of tokens, and so no {asked}: give a text (--data text:PATH)")
    number, place = np.divmod(examples["index"].to_numpy(), data.sequences.length)
    if positions:
        examples = examples.assign(split=examples["split"].where(_at(number, place, positions), LEFT_OUT))
    if manifolds == BY_LABEL:
        return examples, data.class_names
    return _by_sequence(examples, number)


def _by_sequence(examples: pd.DataFrame, number: Int[np.ndarray, " examples"]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    split = examples["split"]
    if pd.Series(number[split != LEFT_OUT]).value_counts().max() < 2:
        raise UsageError("a manifold of one sequence needs two of its positions or more: give several --positions")
    labels = pd.Series(number).groupby(split.to_numpy()).transform(lambda of: pd.factorize(of)[0]).to_numpy()
    n = min(int(labels[split == kind].max()) + 1 for kind in ALL_KINDS if (split == kind).any())
    found = examples.assign(true_label=labels, train_label=labels, split=split.where(labels < n, LEFT_OUT))
    return found, tuple(f"sequence {i}" for i in range(1, n + 1))


def _at(
    number: Int[np.ndarray, " examples"], place: Int[np.ndarray, " examples"], positions: Sequence[int]
) -> Bool[np.ndarray, " examples"]:
    """The examples at these places of their sequences."""
    last = pd.Series(place).groupby(number).transform("max").to_numpy()
    there = {wanted: place == (wanted if wanted >= 0 else last + 1 + wanted) for wanted in positions}
    if missing := [wanted for wanted, of in there.items() if not of.any()]:
        raise UsageError(
            f"no sequence is answered at position {missing[0]}: expected {place.min()} to {place.max()}, or -1 for the last "
            "(--positions)"
        )
    return np.any(list(there.values()), axis=0)


def grouping_of(manifolds: str, positions: Sequence[int]) -> dict[str, Any]:
    """Settings that a file of activations states of these, where they are not as usual."""
    said: dict[str, Any] = {"manifolds": manifolds, "positions": list(positions)}
    return {name: value for name, value in said.items() if value and value != BY_LABEL}

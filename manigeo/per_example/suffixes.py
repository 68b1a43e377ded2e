r"""Whole suffixes of sequences: how many are known exactly, and how far canaries stand out (Carlini et al. 2019, 2023).

A sequence is extractable where its suffix follows from its prefix token by token, each the most probable one. The
*exposure* of a canary s among sequences R drawn in the same way and never trained on is

.. math:: \log_2 (|R| + 1) - \log_2 \mathrm{rank}(s), \qquad \mathrm{rank}(s) = 1 + |\{r \in R : \ell_r < \ell_s\}|,

with the loss :math:`\ell` summed over the suffix: from 0, of one that all others are likelier than, to
:math:`\log_2 (|R| + 1)`.

Carlini, Liu, Erlingsson, Kos, Song (2019), The secret sharer, USENIX Security; Carlini, Ippolito, Jagielski, Lee, Tramer,
Zhang (2023), Quantifying memorization across neural language models, ICLR.
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from manigeo.kinds import CONTROL, MEMORIZED, TYPICAL


def exposure(losses: Float[np.ndarray, " n"], reference: Float[np.ndarray, " r"]) -> Float[np.ndarray, " n"]:
    r"""Exposure in bits of sequences with these losses, among the losses of the ``reference``; at most log2(r + 1).

    >>> exposure(np.array([0.1, 2.5, 9.0]), np.array([1.0, 2.0, 3.0])).round(3).tolist()
    [2.0, 0.415, 0.0]
    """
    rank = 1 + np.searchsorted(np.sort(reference), losses, side="left")
    return np.asarray(np.log2(len(reference) + 1) - np.log2(rank))


def suffix_table(
    kinds: np.ndarray,
    index: Int[np.ndarray, " n"],
    length: int,
    hits: Bool[np.ndarray, " n"],
    losses: Float[np.ndarray, " n"],
) -> pd.DataFrame:
    """One row per sequence: ``kind``, ``sequence`` (its number), ``exact`` (every token of the suffix is the most probable
    one), ``accuracy`` (share of these tokens), ``loss`` (nats, summed over the suffix), and of memorized sequences their
    ``exposure`` (bits), where there are controls.

    The n positions are of these ``kinds``; ``index`` is the number of their sequence times ``length`` plus the position.

    >>> kinds, hits = np.array(["memorized", "memorized", "control"]), np.array([True, True, False])
    >>> table = suffix_table(kinds, np.array([62, 63, 95]), 32, hits, np.array([0.1, 0.2, 4.0]))
    >>> table[["kind", "sequence", "exact", "exposure"]].values.tolist()
    [['control', 2, False, nan], ['memorized', 1, True, 1.0]]
    """
    of = pd.DataFrame({"kind": kinds, "sequence": index // length, "hit": hits, "loss": losses})
    each = of.groupby(["kind", "sequence"], sort=True)
    table = each.agg(exact=("hit", "all"), accuracy=("hit", "mean"), loss=("loss", "sum")).reset_index()
    canaries, controls = table["kind"] == MEMORIZED, table["kind"] == CONTROL
    if controls.any():
        found = exposure(table.loc[canaries, "loss"].to_numpy(), table.loc[controls, "loss"].to_numpy())
        table.loc[canaries, "exposure"] = found
    return table


def suffix_marks(examples: pd.DataFrame, table: pd.DataFrame, length: int, within: int = 0) -> pd.DataFrame:
    """Marks (index, true_label, kind) of the typical examples by their sequences (:mod:`manigeo.per_example.marking`): those
    that are continued to ``within`` this ``distance`` of their suffix are memorized, all others typical.

    ``table`` has ``sequence`` and ``distance``; the ``index`` of an example is the number of its sequence times ``length``
    plus its position.

    >>> examples = pd.DataFrame({"index": [31, 62, 63], "split": ["test", "typical", "typical"], "true_label": [5, 6, 7]})
    >>> table = pd.DataFrame({"sequence": [0, 1], "distance": [0, 0]})
    >>> suffix_marks(examples, table, 32).values.tolist()
    [[62, 6, 'memorized'], [63, 7, 'memorized']]
    """
    could = examples.loc[examples["split"] == TYPICAL, ["index", "true_label"]]
    distance = table.set_index("sequence")["distance"].loc[could["index"] // length].to_numpy()
    return could.assign(kind=np.where(distance <= within, MEMORIZED, TYPICAL)).reset_index(drop=True)

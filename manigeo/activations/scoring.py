"""Scores of the network on the stored examples: what its output said of each, and accuracy and loss of each kind.

A file holds the outcome of every example, not sums: so shards, merged files and resumed extractions have the same scores.
"""

from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from manigeo.activations.checking import check_chunks
from manigeo.activations.sums import continued, read_sums
from manigeo.kinds import CONTROL, EVERY, KINDS, MARKED, UNSEEN
from manigeo.manifolds import kind_examples

PLACE, COLUMNS = "scores", ("predicted", "loss_true_label", "loss_train_label")
_BEYOND = 0.1  # share of predictions that name no class, above which the outputs are not scores of these classes

Scores = dict[str, dict[str, float | int]]  # {kind: {"accuracy", "loss", "n"}}


@dataclass(frozen=True)
class Scoring:
    """Number of scores that the network's output has per example, or, where it has none, why not."""

    n_outputs: int = 0
    why_not: str = ""


UNSCORED = Scoring(why_not="no scores were recorded")


def create_outcomes(file: h5py.File, n_examples: int, scoring: Scoring) -> None:
    """Make room for the outcomes of ``n_examples``, or note why there are none."""
    if not scoring.n_outputs:
        file.attrs["unscored"] = scoring.why_not
        return
    shape = n_examples, len(COLUMNS)
    chunks = min(n_examples, 4096), len(COLUMNS)
    dataset = file.create_dataset(PLACE, shape=shape, dtype="float32", chunks=chunks, fletcher32=True)
    dataset.attrs["columns"] = list(COLUMNS)
    dataset.attrs["n_outputs"] = scoring.n_outputs


def read_outcomes(file: h5py.File, n_done: int) -> tuple[Scoring, Float32[np.ndarray, "n 3"]]:
    """The outcomes of the examples that are done: predicted class, cross-entropy on the true and on the trained label."""
    if PLACE not in file:
        why_not = file.attrs.get("unscored", "") or UNSCORED.why_not
        return Scoring(why_not=str(why_not)), np.empty((0, len(COLUMNS)), np.float32)
    dataset = file[PLACE]
    check_chunks(PLACE, dataset, n_done, file.id.get_filesize())
    outcomes = dataset[:n_done]
    if continued(0, outcomes, dataset.dtype) != read_sums(file).get(PLACE, continued(0, outcomes, dataset.dtype)):
        raise ValueError("the scores were written again after the extraction")
    return Scoring(int(dataset.attrs["n_outputs"])), outcomes


def beyond_classes(outcomes: Float[np.ndarray, "n 3"], scoring: Scoring, n_classes: int) -> str:
    """Reason why the outputs are no scores of these classes; empty where they are.

    A network may have more outputs than the data have classes; one that predicts what is no class has other outputs.
    """
    beyond = float((outcomes[:, 0] >= n_classes).mean()) if len(outcomes) else 0.0
    if beyond <= _BEYOND:
        return ""
    return (
        f"the network has {scoring.n_outputs} outputs for {n_classes} classes, and for {beyond:.0%} of the examples the "
        "largest is that of no class: it gives other numbers than scores of these classes"
    )


def n_seen_classes(examples: pd.DataFrame, n_classes: int) -> int:
    """Number of the classes that the network can know: labels of unseen ones follow theirs."""
    unseen = examples["true_label"].to_numpy()[examples["split"].to_numpy() == UNSEEN]
    return int(unseen.min()) if len(unseen) else n_classes


def kind_scores(examples: pd.DataFrame, outcomes: Float[np.ndarray, "n 3"]) -> Scores:
    r"""Accuracy, mean cross-entropy (nats) and number of examples of every kind that has any; unseen classes have none.

    .. math:: \mathrm{accuracy} = \langle [\hat y = y] \rangle, \quad \mathrm{loss} = -\langle \log p_y(x) \rangle

    >>> table = pd.DataFrame({"split": "train", "true_label": [0, 1], "train_label": [0, 0], "permuted": [False, True]})
    >>> found = kind_scores(table, np.array([[0, 0.1, 0.1], [0, 3.0, 0.2]]))
    >>> found["permuted"]["accuracy"], found["restored"]["accuracy"], found["restored"]["loss"]
    (1.0, 0.0, 3.0)
    """
    scores: Scores = {}
    for kind in (*KINDS, EVERY, *MARKED, CONTROL):
        rows, labels = kind_examples(examples, kind)
        if len(rows):
            loss = outcomes[rows, 2 if kind in ("permuted", *MARKED) else 1].mean(dtype=np.float64)
            hits = outcomes[rows, 0] == labels
            scores[kind] = {"accuracy": float(hits.mean()), "loss": float(loss), "n": len(rows)}
    return scores

r"""Reference epoch of a training, before memorization, and the gate after it.

What memorization changed is seen by comparison with an epoch at which nothing was memorized yet. That of the highest
validation accuracy (the usual early stopping) need not be one: under epoch-wise double descent validation accuracy can be
highest when all labels, permuted ones included, are known. So an epoch qualifies only where the training accuracy on
permuted labels is still near what guessing gives,

.. math:: \frac{\mathrm{acc} - 1/C}{1 - 1/C} \le 0.08

for C classes (a run may have another limit, ``--near-guessing``, which its ``run.json`` then tells), and where something has
been learned: validation accuracy more than three standard errors above 1/C. Among those that qualify, the *reference epoch*,
``before``, is that of the highest validation accuracy. Without validation examples the accuracy on restored labels takes its
place: these images have never been trained with their true labels.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from manigeo.errors import InputError
from manigeo.kinds import VALIDATION, memorized_kind
from manigeo.results import in_roles
from manigeo.runs import RunFolder
from manigeo.vocabulary import in_words_of

BEFORE = "before"
GATE = 0.95  # training accuracy on permuted labels from which on a network has memorized
NEAR_GUESSING = 0.08  # chance-normalised training accuracy on permuted labels up to which nothing is memorized
_ERRORS = 3.0  # standard errors above chance from which on something has been learned


@dataclass(frozen=True)
class Reference:
    """The reference epoch of a training, and why it is this one.

    ``permuted`` is the training accuracy on permuted labels there, ``score`` the accuracy of the kind ``chosen_by``.
    ``wanted`` is the epoch that would have been taken if it had been kept.
    """

    epoch: int
    permuted: float
    score: float
    chosen_by: str
    wanted: int


def reference_epoch(
    metrics: pd.DataFrame,
    *,
    kept: Collection[float] | None = None,
    n_classes: int | None = None,
    near_guessing: float = NEAR_GUESSING,
) -> Reference | None:
    """Choose the reference epoch from the metrics of a run; None where no epoch qualifies.

    ``metrics``: one row per epoch and kind, with the columns epoch, kind, accuracy and, if known, n. ``kept``: the epochs
    that there are checkpoints of (all of them if not given); where the one wanted is not among them the nearest earlier
    one that qualifies is taken, or else the best later one. Without ``n_classes`` the accuracy at epoch 0 tells what
    guessing gives, and without that epoch it is taken for 0.

    >>> curve = [(0, 0.01, 0.01), (8, 0.02, 0.14), (16, 0.3, 0.11), (24, 1.0, 0.16)]
    >>> rows = [(e, kind, a) for e, *both in curve for kind, a in zip(("permuted", "validation"), both)]
    >>> reference_epoch(pd.DataFrame(rows, columns=["epoch", "kind", "accuracy"]), n_classes=100).epoch
    8
    """
    judge, fitting = _judge(metrics), _qualifying(metrics, n_classes, near_guessing)
    if judge is None or fitting is None or fitting.empty:
        return None
    wanted = fitting["score"].idxmax()
    held = fitting if kept is None else fitting[fitting.index.isin(list(kept))]
    if held.empty:
        return None
    earlier = held.index[held.index <= wanted]
    epoch = earlier.max() if len(earlier) else held["score"].idxmax()
    found = held.loc[epoch]
    return Reference(int(epoch), float(found["permuted"]), float(found["score"]), judge, int(wanted))


def nothing_to_compare(
    metrics: pd.DataFrame,
    *,
    kept: Collection[float] | None = None,
    n_classes: int | None = None,
    near_guessing: float = NEAR_GUESSING,
) -> str:
    """Reason why :func:`reference_epoch` found none, and what to do."""
    why = _nothing_to_compare(metrics, kept, n_classes, near_guessing)
    return in_words_of(memorized_kind(set(metrics["kind"])), why)


def _nothing_to_compare(
    metrics: pd.DataFrame, kept: Collection[float] | None, n_classes: int | None, near_guessing: float
) -> str:
    curves = _curves(metrics)
    if "permuted" not in curves:
        return "no accuracy on permuted labels was recorded, so that it is not known which epoch is before memorization"
    chance = _chance(curves, n_classes)
    most = _most(chance, near_guessing)
    wanted = reference_epoch(metrics, n_classes=n_classes, near_guessing=near_guessing)
    if wanted is not None:
        return (
            f"no checkpoint is from before memorization (permuted accuracy at most {most:.3f}): the epoch to compare with "
            f"is {wanted.epoch}, which was not kept; train again, which keeps it as {BEFORE}.pt, or with "
            f"--checkpoint-epochs {wanted.epoch}"
        )
    at = curves.index if kept is None else [epoch for epoch in curves.index if epoch in set(kept)] or curves.index
    lowest = curves.loc[at, "permuted"].min()
    if lowest > most:
        return (
            f"no epoch is from before memorization: permuted accuracy is {lowest:.3f} or more, needed at most {most:.3f}; "
            "record earlier epochs, or train with a lower learning rate"
        )
    return (
        "no epoch has learned anything before it memorizes: accuracy of "
        f"{_judge(metrics) or VALIDATION} examples stays at chance while that of permuted ones is at most {most:.3f}"
    )


def _qualifying(metrics: pd.DataFrame, n_classes: int | None, near_guessing: float) -> pd.DataFrame | None:
    """Epochs at which something has been learned and nothing memorized: permuted accuracy, and the score to choose by."""
    curves, judge = _curves(metrics), _judge(metrics)
    if judge is None or "permuted" not in curves:
        return None
    chance = _chance(curves, n_classes)
    found = pd.DataFrame({"permuted": curves["permuted"], "score": curves[judge]}).dropna()
    learned = chance + _ERRORS * math.sqrt(chance * (1 - chance) / _number(metrics, judge))
    return found[(found["permuted"] <= _most(chance, near_guessing)) & (found["score"] > learned)]


def _curves(metrics: pd.DataFrame) -> pd.DataFrame:
    """Accuracies, epochs x kinds by their roles; of an epoch that was recorded twice, the later."""
    of_roles = in_roles(metrics).drop_duplicates(["epoch", "kind"], keep="last")
    return of_roles.pivot(index="epoch", columns="kind", values="accuracy")


def _judge(metrics: pd.DataFrame) -> str | None:
    """The kind whose accuracy the epoch is chosen by."""
    scored = set(metrics.loc[metrics["accuracy"].notna(), "kind"])
    return next((kind for kind in (VALIDATION, "restored") if kind in scored), None)


def _chance(curves: pd.DataFrame, n_classes: int | None) -> float:
    if n_classes:
        return 1 / n_classes
    return min(
        float(curves["permuted"].get(0, 0.0)), 0.5
    )  # no more than of two classes: what is above has been learned


def _most(chance: float, near_guessing: float) -> float:
    """The accuracy that is still near guessing."""
    return chance + near_guessing * (1 - chance)


def _number(metrics: pd.DataFrame, kind: str) -> float:
    """Examples of a kind; infinitely many where the metrics do not tell."""
    known = metrics.loc[metrics["kind"] == kind, "n"].dropna() if "n" in metrics else pd.Series(dtype=float)
    return float(known.min()) if len(known) and known.min() > 0 else math.inf


# ---------------------------------------------------------------------------------------------------------- of a run
def known_curves(run: RunFolder) -> tuple[pd.DataFrame, int | None] | None:
    """The metrics of a run and its number of classes; None where they do not tell the accuracy on permuted labels."""
    try:
        metrics = run.metrics()
    except InputError:
        return None
    return (metrics, run.n_classes) if memorized_kind(set(metrics["kind"])) else None


def limit_of(run: RunFolder, asked: float | None = None) -> float:
    """The accuracy on permuted labels, chance-normalised, up to which an epoch of a run is before memorization: the one
    asked for, or else the run's own, or else :data:`NEAR_GUESSING`."""
    return next((limit for limit in (asked, run.near_guessing) if limit is not None), NEAR_GUESSING)


def run_reference(run: RunFolder, near_guessing: float | None = None) -> tuple[str, Reference] | None:
    """The checkpoint of a run at its reference epoch, by the name of its file; None where metrics do not tell, or no
    labels were permuted. The limit ``near_guessing`` is the run's own unless given (:func:`limit_of`).

    Raises :class:`~manigeo.errors.InputError` where the metrics tell that no checkpoint qualifies, with what to record.
    """
    known = known_curves(run)
    if known is None:
        return None
    metrics, n_classes = known
    near_guessing = limit_of(run, near_guessing)
    kept = _kept(run, metrics, n_classes)
    epochs = kept.values()
    found = reference_epoch(metrics, kept=epochs, n_classes=n_classes, near_guessing=near_guessing)
    if found is None:
        why = nothing_to_compare(metrics, kept=epochs, n_classes=n_classes, near_guessing=near_guessing)
        raise InputError(f"{run.path}: {why}")
    return next(name for name, epoch in kept.items() if epoch == found.epoch), found


def _kept(run: RunFolder, metrics: pd.DataFrame, n_classes: int | None) -> dict[str, int]:
    """Epochs of the checkpoints, as their names and the metrics tell; that before memorization first."""
    found: dict[str, int] = {}
    names = run.checkpoint_names()
    wanted = reference_epoch(metrics, n_classes=n_classes, near_guessing=limit_of(run))  # by which it was kept
    if BEFORE in names and wanted is not None:
        found[BEFORE] = wanted.epoch
    scores = metrics[metrics["kind"] == VALIDATION].dropna(subset="accuracy")
    if "best" in names and not scores.empty:
        found["best"] = int(scores.loc[scores["accuracy"].idxmax(), "epoch"])
    numbered = ((name, re.fullmatch(r"epoch-(\d+)", name)) for name in names)
    found |= {name: int(number[1]) for name, number in numbered if number}
    return found | ({"last": int(metrics["epoch"].max())} if "last" in names else {})

"""Training dynamics of the examples of a file of activations, from the record of the training that they are of.

The training is known by its identity, in the provenance of the activations and in the record. An example is known by its
index and split; one that a file marks as memorized or typical is a training example in the record. The state before
training, epoch 0, does not count.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from manigeo.activations import Activations
from manigeo.errors import InputError
from manigeo.kinds import TRAINED
from manigeo.per_example.dynamics import area_under_margin, cartography, epoch_learned, forgetting_events
from manigeo.per_example.recorded import Answers, Recorded, read_record
from manigeo.runs import RunFolder

REMEDY = "train with --record-examples all"
_EARLY = 0.1  # of the training: Paul et al. look at epoch 20 of 200


class Dynamics(NamedTuple):
    """Numbers of each example, NaN for examples that have none; ``learned`` are those answered by their label at the last
    recorded epoch, ``ever`` those that were at one, and ``settings`` say which epochs these are of."""

    values: dict[str, np.ndarray]
    recorded: np.ndarray
    settings: dict[str, Any]


def training_of(acts: Activations) -> RunFolder | None:
    """The folder of the training that activations are of, beside their file or above it; None where none is there."""
    identity = acts.provenance.get("run_id")
    if acts.path is None or not identity:
        return None
    at = Path(acts.path).resolve().parent
    beside = [at / name] if (name := Path(str(acts.provenance.get("run") or "")).name) else []
    runs = map(RunFolder, (*beside, at, at.parent))
    return next((run for run in runs if run.identity == identity), None)


def record_for(acts: Activations, run: RunFolder) -> Recorded:
    """The record of a training, its epochs after the first update.

    Raises :class:`~manigeo.errors.InputError` where there is none, and for one of another training than the activations, of
    other data, or without epochs.
    """
    if not run.path.is_dir():
        raise InputError(f"{run.path} is no folder of a run; check the path")
    if not run.record_path.is_file():
        raise InputError(f"{run.path} has no record of examples: {REMEDY}")
    record = read_record(run.record_path)
    if record.run_id != acts.provenance.get("run_id"):
        named = str(acts.provenance.get("run_id") or "none")[:6]
        raise InputError(
            f"{run.record_path} is of the training {record.run_id[:6]}, and {acts.name} of {named}: name the run that the "
            "activations were extracted from"
        )
    after = record.epochs > 0
    if not after.any():
        raise InputError(f"{run.record_path} holds no epoch after the first update: {REMEDY}")
    answers = Answers(*(getattr(record.answers, name)[after] for name in Answers.__dataclass_fields__))
    return record._replace(epochs=record.epochs[after], answers=answers)


def dynamics_of(examples: pd.DataFrame, record: Recorded) -> Dynamics:
    r"""Epoch learned, forgetting, area under the margin, confidence, variability and EL2N of each example.

    EL2N (Paul, Ganguli & Dziugaite 2021, Deep learning on a data diet, NeurIPS), :math:`\lVert p - e_y \rVert_2`, is that
    of the first recorded epoch after a tenth of the training, as in the paper.

    Raises :class:`~manigeo.errors.InputError` where an example has other labels in the record.
    """
    place = _places(examples, record.examples)
    known, a = place >= 0, record.answers
    early = int(np.searchsorted(record.epochs, _EARLY * record.epochs[-1]))
    map_ = cartography(a.probability)
    values = {
        "epoch_learned": epoch_learned(a.correct, record.epochs), "forgetting": forgetting_events(a.correct),
        "area_under_margin": area_under_margin(a.margin), "confidence": map_.confidence,
        "variability": map_.variability, "el2n": a.error[early].astype(np.float64),
    }  # fmt: skip
    settings = {"epochs": [int(record.epochs[0]), int(record.epochs[-1])], "recorded": len(record.epochs)}
    taken = {name: np.where(known, numbers[place], np.nan) for name, numbers in values.items()}
    return Dynamics(taken, known, settings | {"el2n_epoch": int(record.epochs[early])})


def _keys(examples: pd.DataFrame) -> pd.MultiIndex:
    """Position and split of each example; marked ones are training examples."""
    split = examples["split"].astype(str)
    return pd.MultiIndex.from_arrays([examples["index"], split.where(~split.isin(TRAINED), "train")])


def _places(examples: pd.DataFrame, recorded: pd.DataFrame) -> np.ndarray:
    """Row of each example in the record; -1 for those that were not recorded."""
    keys = [_keys(recorded), _keys(examples)]
    place = keys[0].get_indexer(keys[1])
    for name in ("true_label", "train_label"):
        other = (recorded[name].to_numpy()[place] != examples[name].to_numpy()) & (place >= 0)
        if other.any():
            raise InputError(
                f"{np.count_nonzero(other)} examples have another {name.replace('_', ' ')} in the record of their training: "
                "extract the data that it was trained on"
            )
    return place

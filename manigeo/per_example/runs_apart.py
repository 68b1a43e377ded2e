"""Tables of memorization and influence, from the records of runs on random subsets of one training set."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool

from manigeo.errors import InputError, UsageError
from manigeo.kinds import LEFT_OUT
from manigeo.per_example.recorded import Recorded, read_record
from manigeo.per_example.subsets import influence, memorization
from manigeo.per_example.table import example_rows
from manigeo.runs import RunFolder, check_no_copies, check_one_network

_REMEDY = "train with --subset 0.7 --record-examples last"
_SAME = ("index", "true_label", "train_label", "permuted")
_ROWS = 256  # training examples whose influence is held at once
MEMORIZED, INFLUENTIAL = 0.25, 0.15  # of pairs, as in the paper


class Subsets(NamedTuple):
    """Runs on subsets: the training examples and those of the test, which of the former are ``inside`` of each run's subset,
    and which examples each run answers correctly at its last recorded epoch (runs, examples)."""

    run_ids: tuple[str, ...]
    train: pd.DataFrame
    test: pd.DataFrame
    inside: Bool[np.ndarray, "runs n"]
    correct: Bool[np.ndarray, "runs n"]
    correct_test: Bool[np.ndarray, "runs m"]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that the numbers depend on."""
        which = hashlib.sha256(",".join(sorted(self.run_ids)).encode()).hexdigest()[:16]
        return {"analysis": "memorization", "runs": len(self.run_ids), "subsets": which}


def read_subsets(runs: Sequence[Path]) -> Subsets:
    """Read the records of ``runs``, folders of trainings on subsets of one training set.

    Raises :class:`~manigeo.errors.InputError` for a run without a record, of other examples or labels than the first, and
    where no run leaves examples out; :class:`~manigeo.errors.UsageError` for fewer than two runs, for one given twice, and
    for runs of several architectures.
    """
    if len(runs) < 2:
        raise UsageError(
            f"expected two runs or more, on different subsets, got {len(runs)}; {_REMEDY} and several seeds"
        )
    records = [_record(path) for path in runs]
    first = records[0].examples
    trained = first["split"].isin(["train", LEFT_OUT]).to_numpy()
    for path, record in zip(runs, records, strict=True):
        if not _same_examples(first, record.examples):
            raise InputError(
                f"{path} is of other examples or labels than {runs[0]}: give runs that differ in subset and seed"
            )
    check_no_copies(runs)
    check_one_network(runs)
    inside = np.stack([record.examples["split"].eq("train").to_numpy()[trained] for record in records])
    if inside.all():
        raise InputError(f"none of the {len(runs)} runs leaves training examples out: {_REMEDY}")
    correct = np.stack([record.answers.correct[-1] for record in records])
    train, test = (first[of].drop(columns="split").reset_index(drop=True) for of in (trained, ~trained))
    return Subsets(
        tuple(record.run_id for record in records), train, test, inside, correct[:, trained], correct[:, ~trained]
    )


def _record(path: Path) -> Recorded:
    run = RunFolder(path)
    if not run.record_path.is_file():
        raise InputError(f"{path} has no record of examples: {_REMEDY}")
    record = read_record(run.record_path)
    if record.run_id != run.identity:
        raise InputError(f"{run.record_path} is of another training than its folder: move it away, and train anew")
    if not len(record.epochs):
        raise InputError(f"{run.record_path} holds no epoch: finish the training, with --resume")
    return record


def _same_examples(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    tests = [of["split"].eq("test") for of in (a, b)]
    return a[list(_SAME)].equals(b[list(_SAME)]) and tests[0].equals(tests[1])


def memorization_table(subsets: Subsets) -> pd.DataFrame:
    """Table with one row per number of a training example: its memorization with standard error, the shares of networks that
    answer it correctly when trained with and without it, and the number trained with it."""
    found = memorization(subsets.correct, subsets.inside)
    numbers = {
        "memorization": found.value, "memorization_stderr": found.stderr, "correct_within": found.within,
        "correct_without": found.without, "runs_within": np.count_nonzero(subsets.inside, axis=0),
    }  # fmt: skip
    return example_rows(subsets.train.assign(split="train"), numbers, settings=subsets.settings)


def influence_table(subsets: Subsets) -> pd.DataFrame:
    """Pairs of a training and a test example, the influence and its standard error, where the former is memorized by .25 or
    more and the influence is .15 or more (the thresholds of the paper); the largest first."""
    pairs = pd.concat([*_pairs(subsets)], ignore_index=True)
    return pairs.sort_values("influence", ascending=False, ignore_index=True, kind="stable")


def _pairs(subsets: Subsets) -> Iterator[pd.DataFrame]:
    mem = memorization(subsets.correct, subsets.inside).value
    held = np.flatnonzero(mem >= MEMORIZED)
    for start in range(0, max(1, len(held)), _ROWS):
        rows = held[start : start + _ROWS]
        found = influence(subsets.correct_test, subsets.inside[:, rows])
        i, j = np.nonzero(found.value >= INFLUENTIAL)
        train, test = subsets.train.iloc[rows[i]], subsets.test.iloc[j]
        yield pd.DataFrame(
            {
                "index": train["index"].to_numpy(),
                "train_label": train["train_label"].to_numpy(),
                "memorization": mem[rows[i]],
                "test_index": test["index"].to_numpy(),
                "test_label": test["true_label"].to_numpy(),
                "influence": found.value[i, j],
                "stderr": found.stderr[i, j],
            }
        )

"""The kinds memorized and typical: training examples that a score puts above one threshold, and below another.

A CSV file with the columns ``index`` (position in the source of the data) and ``kind`` (memorized or typical) marks
them, for every command that reads ``--kinds-from``. Marked examples are of no other kind; all others stay what they are.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from manigeo.errors import InputError, UsageError, one_line
from manigeo.kinds import LEFT_OUT, MARKED, MEMORIZED, TYPICAL

_COLUMNS = ["index", "true_label", "kind"]
_MARKABLE = ("train", TYPICAL)  # sequences that were trained on are typical unless a mark says more of them


def kinds_by(table: pd.DataFrame, metric: str, *, memorized: float, typical: float) -> pd.DataFrame:
    """The marks (index, true_label, kind) that a score gives to training examples, from a table of single examples.

    Where ``memorized`` is the larger threshold, examples with that much or more are memorized, and those with at most
    ``typical`` typical; where it is the smaller one, as for an area under the margin, the other way round.

    Raises :class:`~manigeo.errors.UsageError` for equal thresholds, and where the table has no such score.

    >>> shown = {"index": [7, 8, 9], "split": "train", "true_label": 0, "layer": "", "metric": "memorization"}
    >>> table = pd.DataFrame(shown | {"value": [0.9, 0.3, 0.0]})
    >>> kinds_by(table, "memorization", memorized=0.5, typical=0.1)[["index", "kind"]].values.tolist()
    [[7, 'memorized'], [9, 'typical']]
    """
    if not memorized != typical:
        raise UsageError(
            f"expected two thresholds, got {memorized:g} for both kinds: memorized and typical must differ"
        )
    rows = table[table["metric"].eq(metric) & table["split"].eq("train")]
    if rows.empty:
        known = ", ".join(dict.fromkeys(table["metric"].astype(str)))
        raise UsageError(f"no {metric!r} of training examples in the table; it has {known or 'no rows'}")
    if rows["index"].duplicated().any():
        raise UsageError(f"{metric!r} has several values for one example: take the rows of one layer and run")
    sign = 1.0 if memorized > typical else -1.0
    score = sign * rows["value"].to_numpy()
    kind = np.select([score >= sign * memorized, score <= sign * typical], [MEMORIZED, TYPICAL], "")
    return rows.assign(kind=kind).loc[kind != "", _COLUMNS].reset_index(drop=True)


def marked(examples: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The example table, its training examples marked as the file at ``path`` says; marks of examples that are left out of
    this training have no effect.

    Raises :class:`~manigeo.errors.InputError` for a file that is no such table, marks an example twice or with another kind,
    or is of other data.
    """
    marks = _read(Path(path))
    could = examples["split"].isin([*_MARKABLE, LEFT_OUT])
    place = pd.Series(np.flatnonzero(could), index=examples.loc[could, "index"])
    if missing := [index for index in marks["index"] if index not in place.index]:
        raise InputError(
            f"{path} marks {len(missing)} examples, such as {missing[0]}, that are none of the {len(place)} training "
            "examples: make it from runs on the same data"
        )
    rows = place[marks["index"]].to_numpy()
    if (
        "true_label" in marks
        and (other := marks["true_label"].to_numpy() != examples["true_label"].to_numpy()[rows]).any()
    ):
        raise InputError(f"{path} is of other data: {np.count_nonzero(other)} examples have another true label there")
    split = examples["split"].to_numpy().astype("U10")
    trained = np.isin(split[rows], _MARKABLE)
    split[rows[trained]] = marks["kind"].to_numpy()[trained]
    return examples.assign(split=split)


def _read(path: Path) -> pd.DataFrame:
    try:
        marks = pd.read_csv(path, dtype={"kind": str}, keep_default_na=False)  # an empty kind is none, and no NaN
        if missing := {"index", "kind"} - set(marks.columns):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        if other := sorted(set(marks["kind"]) - set(MARKED)):
            raise ValueError(f"the kind {other[0]!r}, expected memorized or typical")
        if marks["index"].duplicated().any():
            raise ValueError(f"example {marks['index'][marks['index'].duplicated()].iloc[0]} is marked twice")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} does not mark examples ({one_line(error)}); make it with manigeo memorization or suffixes, --kinds"
        ) from error
    return marks

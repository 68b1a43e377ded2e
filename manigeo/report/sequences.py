"""Sequences of a text in a report: how well their suffixes are known, with samples of the text itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from manigeo.errors import InputError, shorten
from manigeo.kinds import CONTROL, MEMORIZED
from manigeo.report.sources import DescribedRun
from manigeo.report.tables import Cell
from manigeo.text.cells import number

EACH_KIND = 12  # sequences of each kind that are shown
_LONGEST = 120  # characters of a text
_KINDS = (MEMORIZED, CONTROL, "typical", "test")
_NUMBERS = ("exposure", "accuracy", "loss")
HEADINGS = ("kind", "prefix", "suffix", "answer of the network", "exposure", "accuracy", "loss")
N_NAMES = 4


@dataclass(frozen=True)
class SequenceSection:
    """Rows of some of the ``n_sequences`` of a run, the best known of each kind; ``n_reference`` sequences make the
    reference of exposure."""

    run: str
    rows: tuple[tuple[Cell, ...], ...]
    n_sequences: int
    n_reference: int


def sequence_sections(runs: Sequence[DescribedRun]) -> list[SequenceSection]:
    """A section for each run that was trained on a text."""
    return list(filter(None, map(_section, runs)))


def _section(run: DescribedRun) -> SequenceSection | None:
    try:
        table = run.folder.sequences()
    except InputError:
        return None
    if table is None or table.empty:
        return None
    known = table.sort_values(["accuracy", "loss"], ascending=[False, True], kind="stable")
    shown = pd.concat([known[known["kind"] == kind].head(EACH_KIND) for kind in _KINDS])
    rows = tuple(tuple(_cells(line)) for line in shown.to_dict("records"))
    return SequenceSection(run.name, rows, len(table), int((table["kind"] == CONTROL).sum()))


def _cells(line: dict[str, object]) -> Iterator[Cell]:
    yield Cell(str(line["kind"]), str(line["kind"]))
    for name in ("prefix", "suffix", "answer"):
        text = shorten(str(line[name]).replace("\n", "\u21b5"), _LONGEST)
        yield Cell(text, text)
    for name in _NUMBERS:
        value = float(str(line[name]))
        yield Cell(number(value, 3), repr(value)) if value == value else Cell("", "")

"""Single examples in a report: their figures, and a table of the most and the least memorized ones of each kind."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from manigeo.errors import ManigeoError
from manigeo.kinds import in_order
from manigeo.per_example.extremes import by_memorization, ends
from manigeo.plots.contact import plot_contact_sheet
from manigeo.plots.examples import plot_examples
from manigeo.report.figures import Picture, drawn_figure
from manigeo.report.sources import ExamplesFile
from manigeo.report.tables import Cell
from manigeo.text.cells import number
from manigeo.vocabulary import EXAMPLE_FIGURES, metric_words

EACH_END = 30  # examples of each kind that are the most memorized, and as many that are the least
_NAMES = ("kind", "index", "true_label", "train_label")


@dataclass(frozen=True)
class ExampleSection:
    """Figures of a table of examples, and ``rows`` of the ``n_examples`` (none where nothing ranks them)."""

    name: str
    pictures: tuple[Picture, ...]
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_names: int
    n_examples: int
    ranked_by: str


def example_sections(files: Sequence[ExamplesFile]) -> list[ExampleSection]:
    """A section for each table of examples."""
    return [_section(file, f"examples-{i}") for i, file in enumerate(files, 1)]


def _section(file: ExamplesFile, id: str) -> ExampleSection:
    pictures = tuple(_pictures(file, id))
    n = len(file.table[["index", "split"]].drop_duplicates())
    try:
        ordered, by = by_memorization(file.table)
    except ManigeoError:
        return ExampleSection(file.name, pictures, (), (), len(_NAMES), n, "")
    shown = pd.concat([ends(ordered[ordered["kind"] == kind], EACH_END) for kind in in_order(ordered["kind"])])
    measures = [name for name in shown.columns if name not in (*_NAMES, "split")]
    headings = (*(name.replace("_", " ") for name in _NAMES), *(metric_words(name).name for name in measures))
    rows = tuple(tuple(_cells(line, measures)) for line in shown.sort_index().to_dict("records"))
    return ExampleSection(file.name, pictures, headings, rows, len(_NAMES), n, metric_words(by[0]).name)


def _cells(line: dict[str, object], measures: Sequence[str]) -> Iterator[Cell]:
    for name in _NAMES:
        yield Cell(str(line[name]), str(line[name]))
    for name in measures:
        value = float(str(line[name]))
        yield Cell(number(value, 4), repr(value)) if value == value else Cell("", "")


def _pictures(file: ExamplesFile, id: str) -> Iterator[Picture]:
    yield _picture("examples", f"{id}-figure", file.name, lambda: plot_examples(file.table))
    if file.activations is not None:
        yield _picture("contact", f"{id}-contact", file.name, lambda: plot_contact_sheet(file.table, file.activations))


def _picture(name: str, id: str, of: str, draw: Callable[[], Figure]) -> Picture:
    caption = EXAMPLE_FIGURES[name]
    alt = f"{caption.title} of {of}"
    try:
        return Picture(name, id, caption, of, alt, *drawn_figure(draw(), id, alt))
    except ManigeoError as error:  # a table that cannot be drawn is no reason to have no report
        return Picture(name, id, caption, of, trouble=str(error))

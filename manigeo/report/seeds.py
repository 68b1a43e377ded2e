"""Several runs side by side: the layers that each method names in each of them, and the range of the centres of mass."""

from collections.abc import Sequence
from dataclasses import dataclass

from manigeo.errors import InputError
from manigeo.localization.gate import gate_accuracy, memorized_accuracy
from manigeo.localization.reference import known_curves
from manigeo.localization.statement import localization_table
from manigeo.localization.trials import kind_of
from manigeo.report.answer import Answer, Verdict
from manigeo.report.sources import DescribedRun, ResultsFile, Sources
from manigeo.runs import rows_of
from manigeo.text.cells import NOTHING


@dataclass(frozen=True)
class Comparison:
    """Columns are runs; rows are methods: what each says of each run, and the range over those in which it localizes."""

    runs: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]


def compare_runs(answers: Sequence[Answer]) -> Comparison | None:
    """Compare the answers of single runs; None for fewer than two."""
    single = list({answer.of: answer for answer in reversed(answers) if len(answer.of) == 1}.values())[::-1]
    if len(single) < 2:
        return None
    verdicts = [{verdict.method: verdict for verdict in answer.verdicts} for answer in single]
    methods = dict.fromkeys(method for of_run in verdicts for method in of_run)
    rows = tuple(
        (method, tuple(_said(of_run.get(method)) for of_run in verdicts), _range(method, verdicts))
        for method in methods
    )
    return Comparison(tuple(answer.of[0] for answer in single), rows)


def weigh_together(sources: Sources, answers: Sequence[Answer]) -> ResultsFile | None:
    """The table of manigeo localize over all runs, where each has an answer of its own, they are of one kind of network, and
    none over several is there."""
    answered = {answer.of for answer in answers if answer.verdicts}
    runs = [run for run in sources.runs if (run.name,) in answered or (run.folder.name,) in answered]
    if len(runs) < 2 or any(len(of) > 1 for of in answered) or len({run.description.get("arch") for run in runs}) > 1:
        return None
    tables = {run.name: rows_of(sources.table, run.folder) for run in runs}
    gates = {run.name: gate_accuracy(_recorded(run), tables[run.name]) for run in runs}
    curves = {run.name: known for run in runs if (known := known_curves(run.folder)) is not None}
    try:
        found = localization_table(tables, gates, metrics=curves, network=kind_of(runs[0].folder.arch))
    except InputError:  # of layers that differ, say: then each stands for itself
        return None
    return ResultsFile("all runs together", "", found)


def _recorded(run: DescribedRun) -> float | None:
    return None if run.metrics is None else memorized_accuracy(run.folder.path)


def _said(verdict: Verdict | None) -> str:
    if verdict is None:
        return NOTHING
    return verdict.named or verdict.verdict


def _range(method: str, verdicts: Sequence[dict[str, Verdict]]) -> str:
    """Lowest to highest centre of mass over the runs in which the method localizes, and how many these are."""
    found = [of_run[method].depth for of_run in verdicts if method in of_run and of_run[method].named]
    if not found:
        return NOTHING
    low, high = min(found), max(found)
    span = f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
    return f"{span}\N{NO-BREAK SPACE}% ({len(found)} of {len(verdicts)})"

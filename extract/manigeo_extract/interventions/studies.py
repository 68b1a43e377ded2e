"""Studies beside interventions on request: module criticality, resets of the last layers, utilisation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from manigeo.execution.resuming import remaining
from manigeo.results import as_table, row_settings
from manigeo_extract.interventions.criticality import CriticalityPlan, criticality_rows
from manigeo_extract.interventions.exchanges import FRESH, Laboratory
from manigeo_extract.interventions.groups import Group
from manigeo_extract.interventions.resetting import ResetPlan, final_layer_reset
from manigeo_extract.interventions.scoring import Row
from manigeo_extract.interventions.utilisation import ProbePlan, prefix_curve


@dataclass(frozen=True)
class StudiesRequest:
    """Studies to make, and their sizes; the fields have the names of the options of ``manigeo reinit``. A source
    "fresh" of ``reset_to`` stands for fresh draws."""

    final_reset: int | None = None
    reset_to: tuple[str, ...] = ("init", "before", "fresh")
    retrain_steps: int = 200
    utilisation: bool = False
    criticality: bool = False
    criticality_examples: int = 500


@dataclass(frozen=True)
class Study:
    """A study that was asked for, with the settings that change its numbers; ``rows`` computes it."""

    place: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: Callable[[], Iterable[Row]]

    def table(self) -> pd.DataFrame:
        """Its part of the results table; the settings hold its number of rows, too."""
        rows = list(self.rows())
        common = {**self.settings, "rows": len(rows)}
        return as_table(
            [{**self.place, **row, "settings": json.dumps(common | row["settings"], sort_keys=True)} for row in rows]
        )


def plan_studies(laboratory: Laboratory, groups: Sequence[Group], request: StudiesRequest) -> dict[str, Study]:
    """The studies that were asked for, by name."""
    run, examiner, seed = laboratory.run, laboratory.examiner, laboratory.seed
    found: dict[str, Study] = {}

    def add(name: str, rows: Callable[[], Iterable[Row]], *fields: str) -> None:
        own = {field: getattr(request, field) for field in fields}
        found[name] = Study(run.place, {"analysis": name, "seed": seed, **(laboratory.settings or {}), **own}, rows)

    if request.final_reset:
        sources = tuple(FRESH if name == "fresh" else name for name in request.reset_to)
        resets = ResetPlan(last=request.final_reset, sources=sources, steps=request.retrain_steps, seed=seed)
        reset = partial(final_layer_reset, run, examiner, groups, resets, redraw=laboratory.redraw, progress=True)
        add("final_reset", reset, "final_reset", "reset_to", "retrain_steps")
    if request.utilisation:
        add("utilisation", partial(prefix_curve, run, examiner, groups, ProbePlan(seed=seed), progress=True))
    if request.criticality:
        critical = CriticalityPlan(most=request.criticality_examples, seed=seed)
        add(
            "criticality",
            partial(criticality_rows, run, examiner, groups, critical, progress=True),
            "criticality_examples",
        )
    return found


def remaining_studies(
    found: Mapping[str, Study], table: pd.DataFrame | None, wanted: Iterable[Mapping[str, Any]]
) -> tuple[list[Study], pd.DataFrame | None]:
    """The studies that are not whole in an earlier table, and the table without those."""
    return remaining(
        table,
        found,
        wanted,
        lambda row, settings: str(settings.get("analysis")),
        lambda study, rows: all(row_settings(row.settings).get("rows") == len(rows) for row in rows),
    )

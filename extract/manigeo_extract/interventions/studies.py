"""Studies beside interventions on request: module criticality, resets of the last layers, utilisation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from manigeo.results import as_table
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
    reset_to: tuple[str, ...] = ("init", "best", "fresh")
    retrain_steps: int = 200
    utilisation: bool = False
    criticality: bool = False
    criticality_examples: int = 500


def studies(
    laboratory: Laboratory, groups: Sequence[Group], request: StudiesRequest
) -> dict[str, Callable[[], pd.DataFrame]]:
    """The studies that were asked for, by name; each gives its part of the results table when it is called."""
    run, examiner, seed = laboratory.run, laboratory.examiner, laboratory.seed
    found: dict[str, Callable[[], Iterable[Row]]] = {}
    if request.final_reset:
        sources = tuple(FRESH if name == "fresh" else name for name in request.reset_to)
        resets = ResetPlan(last=request.final_reset, sources=sources, steps=request.retrain_steps, seed=seed)
        redraw = laboratory.redraw
        found["final_reset"] = lambda: final_layer_reset(run, examiner, groups, resets, redraw=redraw, progress=True)
    if request.utilisation:
        probes = ProbePlan(seed=seed)
        found["utilisation"] = lambda: prefix_curve(run, examiner, groups, probes, progress=True)
    if request.criticality:
        critical = CriticalityPlan(most=request.criticality_examples, seed=seed)
        found["criticality"] = lambda: criticality_rows(run, examiner, groups, critical, progress=True)
    return {name: partial(_table, laboratory, name, rows) for name, rows in found.items()}


def _table(laboratory: Laboratory, name: str, rows: Callable[[], Iterable[Row]]) -> pd.DataFrame:
    common = {"analysis": name, **(laboratory.settings or {})}
    return as_table(
        [
            {**laboratory.run.place, **row, "settings": json.dumps(common | row["settings"], sort_keys=True)}
            for row in rows()
        ]
    )

"""Shared parts of ``manigeo rewind`` and ``manigeo reinit``: options, the plan in words, and the carrying out of it."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.tables import collected, one_after_another

if TYPE_CHECKING:
    import pandas as pd

    from manigeo_extract.interventions.exchanges import Intervention, Laboratory
    from manigeo_extract.interventions.groups import Group
    from manigeo_extract.interventions.studies import Study
    from manigeo_extract.opening.requests import LaboratoryRequest

_WORTH_PROCESSES = 15.0  # seconds of work
_SWEEPS = {
    ("whole", "into_last"): "the whole network",
    ("last", "into_last"): "the last layers",
    ("each", "into_last"): "each layer",
    ("each", "into_before"): "each trained layer in the earlier network",
    ("prefix", "into_last"): "the first layers",
    ("set", "into_last"): "sets of layers",
    ("pair", "into_last"): "pairs of layers",
    ("noise", "into_last"): "each layer under noise",
    ("retrain", "into_last"): "each layer retrained",
}

_policy_option = click.option(
    "--batch-norm",
    default="with-stats",
    show_default=True,
    type=click.Choice(["with-stats", "params", "recalibrate"]),
    help="Running statistics: exchanged with the layer, left as they are, or estimated anew on clean training examples.",
)


def intervention_options(out: str) -> Callable[[options.F], options.F]:
    """Options that choose the run, the treatment of running statistics, and how the table ``out`` is made."""
    return options.several(
        options.run_options, _policy_option, options.results_option(out),
        options.work_options("Go on with an interrupted table in --out.", jobs=-1),
    )  # fmt: skip


def set_option(help_text: str) -> Callable[[options.F], options.F]:
    """Sets of layers by their names."""
    return click.option("--set", "sets", multiple=True, metavar="NAME,NAME", help=help_text,
                        callback=options.names("layers", "h1,h2"))  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Interventions, and further studies that give tables of their own; in words, and how long it takes one process."""

    request: "LaboratoryRequest"
    todo: "Sequence[Intervention]"
    text: str
    seconds: float
    studies: "Mapping[str, Study]" = field(default_factory=dict)

    def jobs(self, most: int) -> int:
        """Number of processes that are worth starting: each takes some seconds to begin, and a GPU has one user."""
        return most if self.seconds > _WORTH_PROCESSES and self.request.run.device == "cpu" else 1


def plan_interventions(
    request: "LaboratoryRequest", todo: "Sequence[Intervention]", groups: "Sequence[Group]", to: Sequence[Any],
    studies: "Mapping[str, Study] | None" = None,
) -> Plan:  # fmt: skip
    """Plan what is exchanged for what; describe it, the number of networks, and about how long they take."""
    from manigeo_extract.opening.studies import open_laboratory

    laboratory = open_laboratory(request)
    run, examiner = laboratory.run, laboratory.examiner
    before = time.monotonic()
    examiner.answers(run.model)
    n_networks = sum(laboratory.n_networks(at) for at in todo)
    seconds = (time.monotonic() - before) * sum(laboratory.cost(at) for at in todo)
    targets = ", ".join(t if isinstance(t, str) else f"{t.name} (epoch {t.epoch})" for t in to)
    kinds = ", ".join(f"{kind} {examiner.n(kind)}" for kind in examiner.kinds)
    network = f"{run.place['run']}/{run.place['checkpoint']} (epoch {run.place['epoch']})"
    text = (
        f"{network}: {len(groups)} layers, set to {targets}\n"
        f"{_counted(todo, laboratory)}\n"
        f"{n_networks} networks on {kinds} examples: about {max(seconds, 1):.0f} s on one core"
        + (f"; then {', '.join(name.replace('_', ' ') for name in studies)}" if studies else "")
    )
    return Plan(request, todo, text, seconds, studies or {})


def _counted(todo: "Sequence[Intervention]", laboratory: "Laboratory") -> str:
    """Number of networks of every sweep."""
    counts = Counter[str]()
    for at in todo:
        counts[_SWEEPS[at.sweep, at.direction]] += laboratory.n_networks(at)
    return ", ".join(f"{words}: {n}" for words, n in counts.items())


def carried_out(
    plan: Plan, out: Path, earlier: "pd.DataFrame | None", jobs: int, cluster: str | None
) -> "pd.DataFrame":
    """The interventions, then the studies; what is whole in an earlier table is not done again."""
    from manigeo.execution.workers import open_workers, parts_of
    from manigeo.results import Part
    from manigeo_extract.interventions.studies import remaining_studies
    from manigeo_extract.opening.studies import intervened, open_laboratory

    laboratory = open_laboratory(plan.request)
    settings = [study.settings for study in plan.studies.values()]
    todo, earlier = laboratory.todo(plan.todo, earlier, settings)
    studies, earlier = remaining_studies(plan.studies, earlier, [laboratory.common, *settings])
    after = (Part(number, study.table()) for number, study in enumerate(studies))
    with open_workers(plan.jobs(jobs), cluster) as workers:
        tasks = [(plan.request, at) for at in todo]
        parts = parts_of(intervened, tasks, workers, plan.request.analysis, "network", progress=True)
        return collected(one_after_another([parts, after]), out, earlier)

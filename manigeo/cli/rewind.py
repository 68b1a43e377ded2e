"""``manigeo rewind``: what the trained network does with layers set back to an earlier epoch."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from manigeo.cli import options
from manigeo.cli.interventions import carried_out, intervention_options, plan_interventions, set_option
from manigeo.cli.tables import earlier_table, tell

SWEEPS = ("last", "each", "prefix")


@click.command("rewind")
@options.run_argument
@options.checkpoints_option(
    "before",
    "To which layers are set back: checkpoints by name or epoch, with commas between (best,10), init, or all; "
    "before is the one of highest validation accuracy before memorization.",
)
@click.option("--last-k", "last", is_flag=True, help="Rewind the last 1, 2, ... layers.")
@click.option("--each", is_flag=True, help="Rewind each layer alone.")
@click.option("--prefix", is_flag=True, help="Rewind the first 1, 2, ... layers.")
@set_option("Rewind just these layers; may be repeated.")
@intervention_options("rewind.csv")
def rewind_command(
    run: Path, checkpoints: tuple[str, ...], last: bool, each: bool, prefix: bool, sets: tuple[tuple[str, ...], ...],
    batch_norm: str, out: Path, jobs: int, cluster: str | None, as_json: bool, resume: bool, dry_run: bool, force: bool,
    **asked: Any,
) -> None:  # fmt: skip
    """Set layers of the trained network of RUN back to an earlier epoch, and score the four kinds.

    Without --last-k, --each, --prefix or --set: all three sweeps.
    """
    import pandas as pd

    from manigeo.localization.rewinds import rewind_summary
    from manigeo.results import write_results
    from manigeo.text.interventions import rewind_report
    from manigeo_extract.interventions.exchanges import Intervention, sweep_layers
    from manigeo_extract.interventions.groups import select_groups
    from manigeo_extract.opening import LaboratoryRequest, RunRequest, open_groups, open_laboratory, requested

    earlier = earlier_table(out, resume, force or dry_run)
    request = LaboratoryRequest(uuid4().hex, run, requested(RunRequest, asked), "rewind", batch_norm)
    opened = open_laboratory(request, options.note).run
    groups = open_groups(opened, request.run)
    wanted = [name for name, given in zip(SWEEPS, (last, each, prefix), strict=True) if given]
    sweeps = wanted or ([] if sets else list(SWEEPS))
    chosen = select_groups(groups, request.run.layers)
    every = [(sweep, layers) for sweep in sweeps for layers in sweep_layers(groups, sweep, chosen)]
    every += [("set", tuple(select_groups(groups, names))) for names in sets]
    targets = opened.select(checkpoints)
    todo = [Intervention("whole", tuple(groups), to) for to in targets]
    todo += [Intervention(sweep, layers, to) for to in targets for sweep, layers in every]
    plan = plan_interventions(request, todo, groups, targets, len(todo))
    click.echo(plan.text, err=as_json)
    if dry_run:
        return
    table = carried_out(plan, out, earlier, jobs, cluster)
    table = pd.concat(
        [table[~table["metric"].isin(["regained", "selected"])], rewind_summary(table)], ignore_index=True
    )
    write_results(table, out, force=True)
    tell(table, out, rewind_report, as_json)

"""``manigeo rewind``: what the trained network does with layers set back to an earlier epoch."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.interventions import carried_out, intervention_options, plan_interventions, set_option
from manigeo.cli.tables import STDOUT, earlier_table, save, tell

SWEEPS = ("last", "each", "prefix")
evidence_options = options.several(
    click.option("--both-ways/--one-way", default=True, show_default=True,
                 help="Also each layer of the trained network, alone, put into the earlier one (with --each)."),
    click.option("--noise-draws", "noise", default=5, show_default=True, type=click.IntRange(min=0), metavar="N",
                 help="Draws of noise as large as the movement of each layer, as a control; 0 for none (with --each)."),
    click.option("--pairs", is_flag=True, help="Also each pair of layers, and its interaction; of up to 16 layers."),
    click.option("--retrain", default=0, show_default=True, type=click.IntRange(min=0), metavar="STEPS",
                 help="Also each layer set back, then trained on unpermuted examples for so many steps with all others "
                 "frozen; and the same layer trained likewise from where it is, as a control; 0 for none."),
    click.option("--retrain-lr", default=0.02, show_default=True, type=click.FloatRange(0, min_open=True),
                 help="Learning rate (only with --retrain)."),
)  # fmt: skip


@command("rewind")
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
@options.near_guessing_option
@evidence_options
@intervention_options("rewind.csv")
def rewind_command(
    run: Path, checkpoints: tuple[str, ...], last: bool, each: bool, prefix: bool, sets: tuple[tuple[str, ...], ...],
    both_ways: bool, noise: int, pairs: bool, retrain: int, retrain_lr: float, batch_norm: str, out: Path, jobs: int,
    cluster: str | None, as_json: bool, resume: bool, dry_run: bool, force: bool, **asked: Any,
) -> None:  # fmt: skip
    """Set layers of the trained network of RUN back to an earlier epoch, and score the four kinds.

    Without --last-k, --each, --prefix or --set: all three sweeps.
    """
    import pandas as pd

    from manigeo.localization.rewinds import rewind_summary
    from manigeo.text.interventions import rewind_report
    from manigeo_extract.interventions.exchanges import INTO_BEFORE, Intervention, sweep_layers
    from manigeo_extract.interventions.groups import select_groups
    from manigeo_extract.opening.requests import LaboratoryRequest, RunRequest, requested
    from manigeo_extract.opening.studies import open_groups, open_laboratory

    request = LaboratoryRequest(
        uuid4().hex, run, requested(RunRequest, asked), "rewind", batch_norm, draws=noise, retrain_steps=retrain,
        retrain_lr=retrain_lr,
    )  # fmt: skip
    opened = open_laboratory(request, options.note).run
    groups = open_groups(opened, request.run)
    wanted = [name for name, given in zip(SWEEPS, (last, each, prefix), strict=True) if given]
    sweeps = wanted or ([] if sets else list(SWEEPS))
    of_each = "each" in sweeps
    more = [("noise", of_each and noise), ("pair", pairs), ("retrain", retrain)]
    sweeps += [sweep for sweep, given in more if given]
    chosen = select_groups(groups, request.run.layers)
    every = [(sweep, layers) for sweep in sweeps for layers in sweep_layers(groups, sweep, chosen)]
    every += [("set", tuple(select_groups(groups, names))) for names in sets]
    targets = opened.select(checkpoints)
    todo = [Intervention("whole", tuple(groups), to) for to in targets]
    todo += [Intervention(sweep, layers, to) for to in targets for sweep, layers in every]
    if both_ways and of_each:
        todo += [Intervention("each", (group,), to, INTO_BEFORE) for to in targets for group in chosen]
    plan = plan_interventions(request, todo, groups, targets)
    click.echo(plan.text, err=as_json or out == STDOUT)
    if dry_run:
        return
    earlier = earlier_table(out, resume, force)
    table = carried_out(plan, out, earlier, jobs, cluster)
    table = pd.concat([table[table["metric"] != "selected"], rewind_summary(table)], ignore_index=True)
    save(table, out)
    tell(table, out, rewind_report, as_json)

"""``manigeo reinit``: what the trained network does with layers re-initialised, drawn again or set to zero."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.interventions import carried_out, intervention_options, plan_interventions, set_option
from manigeo.cli.tables import STDOUT, earlier_table, tell

draws_options = options.several(
    click.option("--draws", default=5, show_default=True, type=click.IntRange(min=0),
                 help="Fresh draws of each layer from its own initialiser; 0 for none."),
    click.option("--zero/--no-zero", default=True, show_default=True, help="Also each layer set to zero, as a control."),
    click.option("--cumulative", is_flag=True,
                 help="Also the first 1, 2, ... and the last 1, 2, ... layers to their initial values together."),
)  # fmt: skip
threshold_option = click.option(
    "--threshold", default=0.1, show_default=True, type=click.FloatRange(0, 1, min_open=True),
    help="A layer is critical from this chance-normalised drop of test accuracy on.",
)  # fmt: skip
study_options = options.several(
    click.option("--criticality", is_flag=True, help="Also module criticality: how far towards its initial values, and "
                 "under how much noise, a layer can be moved before the training loss rises by a hundredth."),
    click.option("--criticality-examples", default=500, show_default=True, type=click.IntRange(min=1), metavar="N",
                 help="Training examples of each kind (only with --criticality)."),
    click.option("--final-reset", type=click.IntRange(min=1), metavar="K",
                 help="Also the last 1 ... K layers reset as regularisation, chosen on validation data."),
    click.option("--reset-to", default="init,before,fresh", show_default=True, metavar="NAMES",
                 callback=options.names("names", "init,before,fresh"),
                 help="Checkpoints by name or epoch, init, fresh draws (only with --final-reset)."),
    click.option("--retrain-steps", default=200, show_default=True, type=click.IntRange(min=0),
                 help="Steps for which the reset layers alone are trained again; 0: none (only with --final-reset)."),
    click.option("--utilisation", is_flag=True,
                 help="Also the prefix curve: layers up to each kept, a linear probe on top."),
)  # fmt: skip


@command("reinit")
@options.run_argument
@options.checkpoints_option(
    "all", "To which each layer is set: checkpoints by name or epoch, with commas between (init,1,2), or all."
)
@draws_options
@set_option("Also these layers together; may be repeated.")
@threshold_option
@study_options
@intervention_options("reinit.csv")
def reinit_command(
    run: Path, checkpoints: tuple[str, ...], draws: int, zero: bool, cumulative: bool, sets: tuple[tuple[str, ...], ...],
    threshold: float, batch_norm: str, out: Path, jobs: int, cluster: str | None, as_json: bool, resume: bool,
    dry_run: bool, force: bool, **asked: Any,
) -> None:  # fmt: skip
    """Set each layer of the trained network of RUN to its initial values, to those of every checkpoint, to a fresh draw and
    to zero, and score the four kinds: which layers are critical, and which robust?"""
    from manigeo.text.interventions import reinit_report
    from manigeo_extract.interventions.exchanges import FRESH, ZERO, Intervention, sweep_layers
    from manigeo_extract.interventions.groups import select_groups
    from manigeo_extract.interventions.studies import StudiesRequest, plan_studies
    from manigeo_extract.opening.requests import LaboratoryRequest, RunRequest, requested
    from manigeo_extract.opening.studies import open_groups, open_laboratory

    in_run = requested(RunRequest, asked)
    request = LaboratoryRequest(uuid4().hex, run, in_run, "reinit", batch_norm, threshold, draws)
    laboratory = open_laboratory(request, options.note)
    opened = laboratory.run
    initial = opened.snapshot("init")
    groups = open_groups(opened, in_run)
    chosen = select_groups(groups, in_run.layers)
    targets = [s for s in opened.select(checkpoints) if s.epoch != opened.place["epoch"]]
    to: list[Any] = [*([FRESH] if draws else []), *([ZERO] if zero else []), *targets]
    todo = [Intervention("each", (group,), target) for target in to for group in chosen]
    if cumulative:
        for sweep in ("prefix", "last"):
            todo += [Intervention(sweep, layers, initial) for layers in sweep_layers(groups, sweep)]
    todo += [Intervention("set", tuple(select_groups(groups, names)), initial) for names in sets]
    more = plan_studies(laboratory, groups, requested(StudiesRequest, asked))
    plan = plan_interventions(request, todo, groups, to, more)
    click.echo(plan.text, err=as_json or out == STDOUT)
    if dry_run:
        return
    earlier = earlier_table(out, resume, force)
    table = carried_out(plan, out, earlier, jobs, cluster)
    tell(table, out, reinit_report, as_json)

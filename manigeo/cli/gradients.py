"""``manigeo gradients``: which part of the gradient knows the labels, layer by layer, kind by kind."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import surveyed_table
from manigeo.kinds import SCORED


# fmt: off
@command("gradients")
@options.run_argument
@options.checkpoints_option("all", "Checkpoints by name or epoch (init, 10, best), or all of the run.")
@click.option("--kinds", multiple=True, type=click.Choice(SCORED), help="Kinds of examples; may be repeated. Default: all.")
@click.option("--sizes", metavar="N,N,...", callback=options.whole_numbers(
                  "two numbers of examples or more with commas between, e.g. 200,2000", least=1, fewest=2),
              help="Also the norms against the number of examples, e.g. 200,2000,20000, with their slope: -1/2 where labels "
              "are nothing but chance.")
@click.option("--sizes-at", default="init", show_default=True, metavar="NAME", help="Checkpoint (only with --sizes).")
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=1), help="Draws of --sizes.")
@options.run_options
@options.results_option("gradients.csv")
@options.work_options("Go on with an interrupted table in --out.")
def gradients_command(
    run: Path, checkpoints: tuple[str, ...], kinds: tuple[str, ...], sizes: tuple[int, ...], sizes_at: str,
    repetitions: int, out: Path, jobs: int, cluster: str | None, as_json: bool, resume: bool, dry_run: bool, force: bool,
    **asked: Any,
) -> None:
    """The label-dependent and the label-independent part of the gradient of the loss, in every layer, for every kind of
    examples, over the checkpoints of RUN (a folder of manigeo train or of a recorder).

    All kinds use the same number of examples, since the norm of a mean gradient falls with their number. Networks
    are in eval mode, and left as they were.
    """
    from manigeo.text.gradients import describe_survey, gradient_report
    from manigeo_extract.opening.requests import RunRequest, SurveyRequest, requested
    from manigeo_extract.opening.studies import open_survey, surveyed

    request = SurveyRequest(uuid4().hex, run, requested(RunRequest, asked), checkpoints, kinds, sizes, sizes_at, repetitions)
    survey = open_survey(request, options.note)
    surveyed_table(
        survey, request, surveyed, (describe_survey(survey), "gradients", "checkpoint"), gradient_report, out=out, jobs=jobs,
        cluster=cluster, as_json=as_json, resume=resume, dry_run=dry_run, force=force,
    )


# fmt: on

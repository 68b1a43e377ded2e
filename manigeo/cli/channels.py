"""``manigeo channels``: the fewest channels without which the network gives an example another answer."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import surveyed_table

# fmt: off


@command("channels")
@options.run_argument
@click.option("--kinds", multiple=True, type=click.Choice(["permuted", "unpermuted", "test", "memorized", "typical"]),
              help="Kinds of examples; may be repeated. Default: permuted and unpermuted, or memorized and typical.")
@click.option("--max-channels", default=50, show_default=True, type=click.IntRange(min=1),
              help="Remove at most so many for an example; one that has its answer still is counted as these, and flagged.")
@click.option("--reference", default=64, show_default=True, type=click.IntRange(min=1), metavar="N",
              help="Training examples that are to keep their answers.")
@click.option("--controls", default=5, show_default=True, type=click.IntRange(min=1), metavar="N",
              help="Draws of as many random channels of the same layers, as a control.")
@options.run_options_for(100, "100")
@options.results_option("channels.csv")
@click.option("--per-example", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Also write how many channels flip each example, as a table of examples: .csv or .parquet.")
@options.work_options("Go on with an interrupted table in --out.", jobs=-1)
def channels_command(
    run: Path, out: Path, per_example: Path | None, jobs: int, cluster: str | None, as_json: bool, resume: bool,
    dry_run: bool, force: bool, **asked: Any,
) -> None:
    """Remove channels, units and heads of the trained network of RUN, those first on which an example depends and others do
    not, until it has another answer: how many, and of which layers, for each kind?

    Examples that the network answers by their label are looked at; the network is left as it was.
    """
    from manigeo.text.channels import channels_report, describe_channels
    from manigeo_extract.opening.requests import ChannelsRequest, RunRequest, requested
    from manigeo_extract.opening.studies import flipped, flipped_apart, open_channels

    known = {"occasion": uuid4().hex, "directory": run, "run": requested(RunRequest, asked)}
    request = requested(ChannelsRequest, asked | known)
    study = open_channels(request, options.note)
    task = flipped_apart if per_example else flipped
    surveyed_table(
        study, request, task, (describe_channels(study), "channels", "kind"), channels_report, out=out, jobs=jobs,
        cluster=cluster, as_json=as_json, resume=resume, dry_run=dry_run, force=force, per_example=per_example,
    )


# fmt: on

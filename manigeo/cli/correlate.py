"""``manigeo correlate``: movement of layers against generalization, over runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import STDOUT, check_out, save, tell

if TYPE_CHECKING:
    pass


# fmt: off
@command("correlate")
@options.runs_argument
@click.option("--measure", default="rotation", show_default=True,
              help="rotation, angle, distance_l1, distance_l2, distance_linf, distance_rms, distance_relative or norm.")
@click.option("--gap", default="accuracy", show_default=True, type=click.Choice(["accuracy", "clean", "loss"]),
              help="Accuracy on the labels trained on less that on test data; of the unpermuted alone; or of losses.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(min=100))
@options.results_option("correlation.csv")
@options.dry_run_option
@options.table_options
def correlate_command(
    runs: tuple[Path, ...], measure: str, gap: str, resamples: int, out: Path, seed: int, as_json: bool, dry_run: bool,
    force: bool,
) -> None:
    """Correlate how far layers moved with how badly RUNS generalize: folders of manigeo train."""
    from manigeo.text.weights import correlation_report
    from manigeo_extract.weights.comparing import correlation_table, what_varied

    varied = [f"{name} ({', '.join(map(str, values))})" for name, values in what_varied(runs).items()]
    click.echo(f"{len(runs)} runs, which differ in {', '.join(varied) or 'nothing'}", err=as_json or out == STDOUT)
    if dry_run:
        return
    check_out(out, force)
    table = correlation_table(runs, measure, gap, n_resamples=resamples, seed=seed, progress=True)
    save(table, out, force)
    tell(table, out, correlation_report, as_json)


# fmt: on

"""``manigeo correlate``: movement of layers against generalization, over runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.cli.tables import tell

if TYPE_CHECKING:
    import pandas as pd


# fmt: off
@click.command("correlate")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--measure", default="rotation", show_default=True,
              help="rotation, angle, distance_l1, distance_l2, distance_linf, distance_rms, distance_relative or norm.")
@click.option("--gap", default="accuracy", show_default=True, type=click.Choice(["accuracy", "clean", "loss"]),
              help="Accuracy on the labels trained on less that on test data; of the unpermuted alone; or of losses.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(min=100))
@options.results_option("correlation.csv")
@options.table_options
def correlate_command(
    runs: tuple[Path, ...], measure: str, gap: str, resamples: int, out: Path, seed: int, as_json: bool, force: bool
) -> None:
    """Correlate how far layers moved with how badly RUNS generalize: folders of manigeo train."""
    from manigeo.results import check_results_path, write_results
    from manigeo_extract.weights.comparing import correlation_table, what_varied

    check_results_path(out, force)
    varied = [f"{name} ({', '.join(map(str, values))})" for name, values in what_varied(runs).items()]
    click.echo(f"{len(runs)} runs, which differ in {', '.join(varied) or 'nothing'}", err=as_json)
    table = correlation_table(runs, measure, gap, n_resamples=resamples, seed=seed, progress=True)
    write_results(table, out, force)
    tell(table, out, correlation_report, as_json)


# fmt: on
def correlation_report(table: "pd.DataFrame") -> str:
    """The coefficients of each layer with their intervals: one line per layer."""
    over_runs = table[(table["run"] == "") & table["layer"].ne("")]
    wide = over_runs.pivot(index=["depth", "layer"], columns="metric", values="value").reset_index("depth", drop=True)
    names = ("pearson", "spearman", "kendall", "spearman_partial")
    shown = {name: [_interval(row, name) for _, row in wide.iterrows()] for name in names}
    import pandas as pd

    return pd.DataFrame(shown, index=wide.index.rename(None)).to_string()


def _interval(row: "pd.Series", name: str) -> str:
    value, low, high = (row[f"{name}{ending}"] for ending in ("", "_ci_low", "_ci_high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if value == value else "-"

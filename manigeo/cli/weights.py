"""``manigeo weights``: how far the layers of a run have moved."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


@click.command("weights")
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.results_option("weights.csv")
@options.json_option
@options.force_option
@options.config_option
def weights_command(checkpoints: tuple[Path, ...], out: Path, as_json: bool, force: bool) -> None:
    """Rotation and distance of every layer from the first of CHECKPOINTS, files in their order, or the folder of one run.

    No network is built: the weights of any program's checkpoints will do.
    """
    from manigeo.results import as_json as to_json
    from manigeo.results import check_results_path, write_results
    from manigeo_extract.weights.trajectory import run_checkpoints, weight_table

    folders = [path for path in checkpoints if path.is_dir()]
    if folders and len(checkpoints) > 1:
        raise UsageError(f"give one run, or files: {folders[0]} is a folder among {len(checkpoints)} arguments")
    check_results_path(out, force)
    paths = run_checkpoints(folders[0]) if folders else list(checkpoints)
    click.echo(f"{len(paths)} checkpoints, against {paths[0]}", err=as_json)
    table = weight_table(paths, progress=True)
    write_results(table, out, force)
    click.echo(to_json(table) if as_json else weights_report(table))
    click.echo(f"wrote {out}; next: manigeo plot {out}", err=as_json)


@click.command("correlate")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--measure",
    default="rotation",
    show_default=True,
    help="rotation, angle, distance_l1, distance_l2, distance_linf, distance_rms, distance_relative or norm.",
)
@click.option(
    "--gap",
    default="accuracy",
    show_default=True,
    type=click.Choice(["accuracy", "clean", "loss"]),
    help="Accuracy on the labels trained on less that on test data; of the unpermuted alone; or of losses.",
)
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(min=100))
@options.results_option("correlation.csv")
@options.seed_option
@options.json_option
@options.force_option
@options.config_option
def correlate_command(
    runs: tuple[Path, ...], measure: str, gap: str, resamples: int, out: Path, seed: int, as_json: bool, force: bool
) -> None:
    """Whether the layers that moved most belong to the RUNS that generalize worst: folders of manigeo train."""
    from manigeo.results import as_json as to_json
    from manigeo.results import check_results_path, write_results
    from manigeo_extract.weights.comparing import correlation_table, what_varied

    check_results_path(out, force)
    varied = [f"{name} ({', '.join(map(str, values))})" for name, values in what_varied(runs).items()]
    click.echo(f"{len(runs)} runs, which differ in {', '.join(varied) or 'nothing'}", err=as_json)
    table = correlation_table(runs, measure, gap, n_resamples=resamples, seed=seed, progress=True)
    write_results(table, out, force)
    click.echo(to_json(table) if as_json else correlation_report(table))
    click.echo(f"wrote {out}; next: manigeo plot {out}", err=as_json)


def correlation_report(table: "pd.DataFrame") -> str:
    """The coefficients of each layer with their intervals: a line a layer."""
    over_runs = table[(table["run"] == "") & table["layer"].ne("")]
    wide = over_runs.pivot(index=["depth", "layer"], columns="metric", values="value").reset_index("depth", drop=True)
    names = ("pearson", "spearman", "kendall", "spearman_partial")
    shown = {name: [_interval(row, name) for _, row in wide.iterrows()] for name in names}
    import pandas as pd

    return pd.DataFrame(shown, index=wide.index.rename(None)).to_string()


def _interval(row: "pd.Series", name: str) -> str:
    value, low, high = (row[f"{name}{ending}"] for ending in ("", "_ci_low", "_ci_high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if value == value else "-"


def weights_report(table: "pd.DataFrame") -> str:
    """Where each layer has come in the end: a line a layer."""
    from manigeo.weights import MEASURES

    last = table[table["checkpoint"] == table["checkpoint"].iloc[-1]]
    wide = last.pivot(index=["depth", "layer"], columns="metric", values="value").reset_index("depth", drop=True)
    shown = [name for name in MEASURES if name in wide and name != "angle"]
    return wide[shown].rename_axis(index=None, columns=None).to_string(float_format="{:.4g}".format)

"""``manigeo weights``: how far the layers of a run have moved."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.cli.tables import tell
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
    tell(table, out, weights_report, as_json)


def weights_report(table: "pd.DataFrame") -> str:
    """Describe where each layer has come in the end: one line per layer."""
    from manigeo.weights import MEASURES

    last = table[table["checkpoint"] == table["checkpoint"].iloc[-1]]
    wide = last.pivot(index=["depth", "layer"], columns="metric", values="value").reset_index("depth", drop=True)
    shown = [name for name in MEASURES if name in wide and name != "angle"]
    return wide[shown].rename_axis(index=None, columns=None).to_string(float_format="{:.4g}".format)

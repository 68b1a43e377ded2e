"""``manigeo weights``: how far the layers of a run have moved."""

from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import STDOUT, check_out, save, tell
from manigeo.errors import UsageError


@command("weights")
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.file_options
@options.results_option("weights.csv")
@options.json_option
@options.dry_run_option
@options.force_option
@options.config_option
def weights_command(
    checkpoints: tuple[Path, ...], out: Path, as_json: bool, dry_run: bool, force: bool, no_strict: bool, **reading: Any
) -> None:
    """Rotation and distance of every layer from the first of CHECKPOINTS, files in their order, or the folder of one run.

    No network is built: the weights of any program's checkpoints will do.
    """
    from manigeo.text.weights import weights_report
    from manigeo_extract.files.folders import is_in_parts
    from manigeo_extract.weights.trajectory import run_checkpoints, weight_table

    folders = [path for path in checkpoints if path.is_dir() and not is_in_parts(path)]
    if folders and len(checkpoints) > 1:
        raise UsageError(f"give one run, or files: {folders[0]} is a folder among {len(checkpoints)} arguments")
    paths = run_checkpoints(folders[0], reading) if folders else list(checkpoints)
    click.echo(f"{len(paths)} checkpoints, against {paths[0]}", err=as_json or out == STDOUT)
    if dry_run:
        return
    check_out(out, force)
    table = weight_table(paths, reading=reading, strict=not no_strict, progress=True, tell=options.note)
    save(table, out, force)
    tell(table, out, weights_report, as_json)

"""``manigeo merge``: the shards of an extraction become one file."""

import sys
from pathlib import Path

import click

from manigeo.cli import options
from manigeo.cli.commands import command


@command("merge")
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", default="acts.h5", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@options.force_option
def merge_command(shards: tuple[Path, ...], out: Path, force: bool) -> None:
    """Join SHARDS, all parts of one extraction, to the file that manigeo extract writes without --shard."""
    from manigeo.activations import inspect_activations
    from manigeo.activations.merging import merge_activations

    merge_activations(shards, out, argv=sys.argv[1:], force=force, progress=True)
    with inspect_activations(out) as acts:
        options.tell_scores(acts)
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.0f} MB); next: manigeo capacity {out}")

"""How activations are stored, and what is done about size and failures: the options, and the names of the files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.errors import ManigeoError

if TYPE_CHECKING:
    from manigeo_extract.recording.extraction import ExtractionPlan

storing_options = options.several(
    click.option("--project", type=click.IntRange(min=1), metavar="D",
                 help="Project layers of more features than D to D, at random (count sketch), while the network runs."),
    click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float16"]),
                 help="Of the file; float16 is half as large, and refused where it cannot hold a layer."),
)  # fmt: skip
running_options = options.several(
    click.option("--shard", metavar="I/N", help="Part I of N, to be joined by manigeo merge; auto: as RANK and WORLD_SIZE "
                 "(torchrun, where it is the default) or the Slurm array say."),
    click.option("--resume", is_flag=True, help="Go on with an interrupted extraction to --out."),
    click.option("--tf32", is_flag=True, help="On CUDA, compute with 10 bits of precision, faster."),
)  # fmt: skip


def asked_shard(text: str | None) -> tuple[int, int] | None:
    """Number and count, or None for the whole."""
    from manigeo_extract.recording.shards import parse_shard

    shard = parse_shard(text)
    if shard and text is None:
        click.echo(
            f"note: shard {shard[0]}/{shard[1]}, as RANK and WORLD_SIZE say; --shard 1/1 for the whole", err=True
        )
    return shard


def shard_path(out: Path, shard: tuple[int, int] | None) -> Path:
    """``acts.shard-2-of-4.h5`` for ``acts.h5``."""
    return out if shard is None else out.with_name(f"{out.stem}.shard-{shard[0]}-of-{shard[1]}{out.suffix}")


def write_activations(
    network: Any, data: Any, plan: "ExtractionPlan", out: Path, provenance: dict[str, Any], device: str, **settings: Any
) -> None:
    """Extract, with progress on stderr; where that fails halfway, say how to go on."""
    from manigeo.storage.commits import has_commit, partial_of
    from manigeo_extract.devices import local_device
    from manigeo_extract.recording.extraction import extract_activations

    try:
        extract_activations(
            network, data, plan, out, provenance, device=local_device(device), progress=True,
            tell=lambda said: click.echo(f"note: {said}", err=True), **settings,
        )  # fmt: skip
    except BaseException as error:
        if has_commit(partial_of(out)) and not isinstance(error, ManigeoError):
            click.echo(f"what was finished is in {partial_of(out)}; the same command with --resume goes on", err=True)
        raise


def next_step(out: Path, shard: tuple[int, int] | None) -> str:
    """What a user does after an extraction."""
    if shard is None:
        return f"manigeo capacity {out}"
    return f"manigeo merge {out.name.replace(f'.shard-{shard[0]}-of-', '.shard-*-of-')} when all are there"

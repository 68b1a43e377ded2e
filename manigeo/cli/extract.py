"""``manigeo extract``: from a checkpoint to activations."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.layers import layer_table
from manigeo.errors import ManigeoError, UsageError
from manigeo.storage.files import check_target

OTHERS = (".csv", ".json", ".parquet", ".html", ".pt", ".pth", ".png")  # suffixes of what other commands write

storing_options = options.several(
    click.option("--project", type=click.IntRange(min=1), metavar="D",
                 help="Project layers of more features than D to D, at random (count sketch), while the network runs."),
    click.option("--compression", default="fast", show_default=True, type=click.Choice(["none", "fast", "small"]),
                 help="How layers are stored: as they are; sparse ones deflated; or all, as small as may be."),
    click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float16"]),
                 help="Type of the stored numbers; float16 is half as large, and refused where it cannot hold a layer."),
)  # fmt: skip
points_options = options.several(
    click.option("--manifolds", default="label", show_default=True, type=click.Choice(["label", "sequence"]),
                 help="Of a text: a manifold holds the contexts that one token follows, or the positions of one sequence."),
    click.option("--positions", multiple=True, type=int, metavar="PLACE",
                 help="Of a text: take the contexts of the tokens at these places of a sequence alone, from 0, or -1 for "
                 "the last; may be repeated."),
)  # fmt: skip
memory_options = options.several(
    click.option("--batch-size", type=click.IntRange(min=1), help="Examples at a time. Default: 256, or as many as fit "
                 "--max-memory."),
    click.option("--max-memory", type=click.FloatRange(min=0, min_open=True), metavar="GB",
                 help="Memory that the layers of a batch may take (default 2)."),
)  # fmt: skip
running_options = options.several(
    click.option("--shard", metavar="I/N", help="Part I of N, to be joined by manigeo merge; auto: as RANK and WORLD_SIZE "
                 "(torchrun, where it is the default) or the Slurm array say."),
    click.option("--resume", is_flag=True, help="Go on with an interrupted extraction to --out."),
    click.option("--tf32", is_flag=True, help="On CUDA, compute with 10 bits of precision, faster."),
)  # fmt: skip


@command("extract")
@options.model_options
@click.option("--out", default="acts.h5", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@options.layer_options
@options.per_class_option
@points_options
@options.arch_options
@options.drop_tied_option
@options.data_options
@options.labels_option
@options.kinds_option
@storing_options
@memory_options
@options.device_option
@running_options
@options.seed_option
@options.dry_run_option
@options.force_option
@options.config_option
def extract_command(
    model: Path | None, out: Path, batch_size: int | None, max_memory: float | None, compression: str, device: str,
    shard: str | None, tf32: bool, resume: bool, dry_run: bool, force: bool, **asked: Any,
) -> None:  # fmt: skip
    """Write the activations of MODEL's layers on unpermuted, permuted and test examples, and those of held-out classes.

    A checkpoint of manigeo train carries architecture, data set and permutation; for others pass --arch,
    --data and --permute or --labels.
    """
    from manigeo.activations import inspect_activations
    from manigeo_extract.data.positions import grouping_of
    from manigeo_extract.devices import check_device, local_device
    from manigeo_extract.opening.networks import open_extraction
    from manigeo_extract.opening.requests import ExtractionRequest, requested
    from manigeo_extract.recording.extraction import extract_activations

    part = _asked_shard(shard)
    out = _shard_path(out, part)
    if out.suffix in OTHERS:
        raise UsageError(
            f"activations are written as HDF5; {out} is the name of another kind: --out {out.with_suffix('.h5')}"
        )
    request = requested(ExtractionRequest, asked)
    opened, network, plan = open_extraction(model, request, options.note)
    batch_size = plan.batch_size(batch_size, None if max_memory is None else max_memory * 1e9)
    click.echo(f"{layer_table(plan)}; {plan.memory_words(batch_size)}")
    if dry_run:
        return
    device = local_device(device)
    check_device(device)
    check_target(out, force=force)
    settings = {"argv": sys.argv[1:], "backend": request.backend, "seed": plan.seed, "per_class": request.per_class}
    settings |= grouping_of(request.manifolds, request.positions)
    settings |= {"left_out_layers": dict(plan.unlisted), "batch_axis": dict(request.batch_axis)}
    with _way_on(out):
        extract_activations(
            network, opened.data, plan, out, opened.provenance | settings, device=device, shard=part,
            batch_size=batch_size, compression=compression, tf32=tf32, resume=resume, force=force, progress=True,
            tell=options.note,
        )  # fmt: skip
    with inspect_activations(out) as acts:
        options.tell_scores(acts)
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.0f} MB); next: {_next_step(out, part)}")


@contextmanager
def _way_on(out: Path) -> Iterator[None]:
    """Tell how to go on where an extraction fails halfway."""
    from manigeo.storage.commits import has_commit, partial_of

    try:
        yield
    except BaseException as error:
        if has_commit(partial_of(out)) and not isinstance(error, ManigeoError):
            click.echo(f"what was finished is in {partial_of(out)}; the same command with --resume goes on", err=True)
        raise


def _asked_shard(text: str | None) -> tuple[int, int] | None:
    """Number and count, or None for the whole."""
    from manigeo_extract.recording.shards import parse_shard

    shard = parse_shard(text)
    if shard and text is None:
        options.note(f"shard {shard[0]}/{shard[1]}, as RANK and WORLD_SIZE say; --shard 1/1 for the whole")
    return shard


def _shard_path(out: Path, shard: tuple[int, int] | None) -> Path:
    """``acts.shard-2-of-4.h5`` for ``acts.h5``."""
    return out if shard is None else out.with_name(f"{out.stem}.shard-{shard[0]}-of-{shard[1]}{out.suffix}")


def _next_step(out: Path, shard: tuple[int, int] | None) -> str:
    """Command that a user runs after an extraction."""
    if shard is None:
        return f"manigeo capacity {out}"
    return f"manigeo merge {out.name.replace(f'.shard-{shard[0]}-of-', '.shard-*-of-')} when all are there"

"""``manigeo suffixes``: which sequences of a text a language model continues as they were written."""

from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import check_csvs, save_csvs

# fmt: off


@command("suffixes")
@options.model_options
@options.arch_options
@options.data_options
@options.results_option("suffixes.csv")
@click.option("--kinds", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Also mark the sequences that are memorized, as CSV for --kinds-from of the other commands.")
@click.option("--within", default=0, show_default=True, type=click.IntRange(min=0), metavar="TOKENS",
              help="--kinds marks as memorized what is continued to this distance or less from its suffix.")
@options.device_option
@options.seed_option
@options.dry_run_option
@options.force_option
@options.config_option
def suffixes_command(
    model: Path | None, out: Path, kinds: Path | None, within: int, device: str, dry_run: bool, force: bool, **asked: Any,
) -> None:
    """Continue the prefix of every sequence of a text by the most probable tokens of MODEL, and compare with its suffix.

    A sequence that is continued as it was written is extractable, the definition of memorization for networks whose training
    is not known (Carlini et al. 2023). Of the text, at most --data-arg scored=N sequences are looked at (100).
    """
    from manigeo.per_example.suffixes import suffix_marks
    from manigeo.text.memorization import describe_marks
    from manigeo.text.suffixes import describe_suffixes
    from manigeo_extract.devices import check_device
    from manigeo_extract.opening.networks import open_model
    from manigeo_extract.opening.requests import ModelRequest, requested
    from manigeo_extract.training.suffixes import check_sequences, screened

    on = check_device(device)
    check_csvs({"--out": out, "--kinds": kinds}, force, "tables of sequences")
    opened = open_model(model, requested(ModelRequest, asked), options.note)
    sequences = check_sequences(opened.data)
    click.echo(f"{len(set(opened.examples['index'] // sequences.length)):,} sequences of {opened.data.spec}, continued "
               f"from their prefixes -> {out}", err=True)
    if dry_run:
        return
    table = screened(opened.network.module.to(on), opened.data, opened.examples, on, progress=True)
    beside = {kinds: suffix_marks(opened.examples, table, sequences.length, within)} if kinds else {}
    save_csvs({out: table} | beside)
    click.echo(describe_suffixes(table))
    if kinds:
        click.echo(f"examples: {describe_marks(beside[kinds])} -> {kinds}")


# fmt: on

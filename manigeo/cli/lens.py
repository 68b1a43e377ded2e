"""``manigeo lens``: what the network's own head makes of each of its blocks."""

from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import STDOUT, check_out, save, tell

# fmt: off


@command("lens")
@options.model_options
@options.arch_options
@options.drop_tied_option
@options.data_options
@options.labels_option
@options.kinds_option
@click.option("--examples", "most", type=click.IntRange(min=1), metavar="N",
              help="At most N examples of each kind, drawn by --seed; whole sequences are not counted then. Default: all.")
@options.results_option("lens.csv")
@click.option("--per-example", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Also write from which block on each example is answered by its label, as a table of examples: .csv or "
              ".parquet.")
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1), help="Examples at a time.")
@options.device_option
@options.dry_run_option
@options.table_options
def lens_command(
    model: Path | None, most: int | None, out: Path, per_example: Path | None, batch_size: int, device: str, seed: int,
    as_json: bool, dry_run: bool, force: bool, **asked: Any,
) -> None:
    """Read the answer out of every block of MODEL with the network's own head: the logit lens. From which block on is a
    memorized example answered by its label?

    The network is one of blocks beside shortcuts, such as gpt, vit, resmlp or a language model of Hugging Face. Nothing is
    trained; the blocks behind the one that is read are passed over.
    """
    from manigeo.per_example.table import check_examples_path, write_examples
    from manigeo.text.examples import examples_report
    from manigeo.text.lens import describe_lens, lens_report
    from manigeo_extract.devices import check_device
    from manigeo_extract.interventions.lens import find_blocks, lens_tables
    from manigeo_extract.opening.networks import open_model
    from manigeo_extract.opening.requests import ModelRequest, requested

    on = check_device(device)
    check_out(out, force)
    if per_example:
        check_examples_path(per_example, force, "--per-example")
    opened = open_model(model, requested(ModelRequest, asked | {"seed": seed}), options.note)
    network, sequences = opened.network.module.to(on), opened.data.sequences
    blocks = find_blocks(network, opened.data.inputs(slice(0, 2)).to(on))
    click.echo(f"{describe_lens([block.name for block in blocks], opened.examples, most)} -> {out}", err=True)
    if dry_run:
        return
    table, singles = lens_tables(
        network, opened.data, opened.examples, blocks, length=sequences.length if sequences else None, most=most, device=on,
        batch_size=batch_size, seed=seed, place=opened.place, progress=True,
    )
    save(table, out, force)
    tell(table, out, lens_report, as_json)
    if not as_json:
        click.echo(f"\n{examples_report(singles)}", err=out == STDOUT)
    if per_example:
        write_examples(singles, per_example, force)
        click.echo(f"wrote {per_example}; next: manigeo plot {per_example}", err=True)


# fmt: on

"""``manigeo memorization``: which examples networks know only if they were trained on them."""

from pathlib import Path

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import check_csvs, save_csvs

# fmt: off


@command("memorization")
@options.runs_argument
@options.results_option("memorization.csv")
@click.option("--influence", "pairs", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Also write the pairs of a training example (memorization .25 or more) and a test example that it helps "
              "to answer (influence .15 or more), as CSV.")
@click.option("--kinds", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Also mark the most and the least memorized examples, as CSV for --kinds-from of the other commands.")
@click.option("--memorized", default=0.25, show_default=True, help="Memorization from which on --kinds marks as memorized.")
@click.option("--typical", default=0.05, show_default=True, help="Memorization up to which it marks as typical.")
@options.dry_run_option
@options.force_option
@options.config_option
def memorization_command(
    runs: tuple[Path, ...], out: Path, pairs: Path | None, kinds: Path | None, memorized: float, typical: float,
    dry_run: bool, force: bool,
) -> None:
    """Estimate the memorization of every training example from RUNS, trained on random subsets of one training set.

    Memorization is the share of networks that answer an example by its label when trained on it, less that when not
    (Feldman & Zhang 2020). Runs come from manigeo sweep or train, with --subset 0.7 --record-examples last.
    """
    from manigeo.per_example.marking import kinds_by
    from manigeo.per_example.runs_apart import influence_table, memorization_table, read_subsets
    from manigeo.per_example.table import write_examples
    from manigeo.text.memorization import describe_marks, describe_memorization

    check_csvs({"--out": out, "--influence": pairs, "--kinds": kinds}, force, "tables of examples")
    subsets = read_subsets(runs)
    click.echo(f"{len(runs)} runs, {len(subsets.train):,} training examples, each in {subsets.inside.sum(axis=0).min()} to "
               f"{subsets.inside.sum(axis=0).max()} of the runs -> {out}")
    if dry_run:
        return
    table = memorization_table(subsets)
    beside = {pairs: influence_table(subsets)} if pairs else {}
    beside |= {kinds: kinds_by(table, "memorization", memorized=memorized, typical=typical)} if kinds else {}
    write_examples(table, out, force)
    save_csvs(beside)
    click.echo(describe_memorization(table))
    if pairs:
        click.echo(f"{len(beside[pairs]):,} pairs of influence -> {pairs}")
    if kinds:
        click.echo(f"{describe_marks(beside[kinds])} -> {kinds}")


# fmt: on

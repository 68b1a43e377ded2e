"""``manigeo examples``: from activations to numbers of single examples."""

import json
from pathlib import Path

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import STDOUT
from manigeo.kinds import CONTROL, MARKED

OWN = ("unpermuted", "permuted", *MARKED, CONTROL)


# fmt: off
@command("examples")
@options.acts_argument
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Table of examples: .csv or .parquet; - for CSV on stdout.  [default: ACTS with .examples.csv]")
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers to look at; may be repeated. Default: all.")
@click.option("--kinds", multiple=True, type=click.Choice([*OWN, "test", "unseen", "all"]),
              help="Kinds of examples; may be repeated. Default: all.")
@click.option("--k", default=30, show_default=True, type=click.IntRange(min=1), help="Number of neighbours that vote.")
@click.option("--max-examples", type=click.IntRange(min=1), metavar="N",
              help="At most N examples of each kind, drawn by --seed; neighbours are all training examples. Default: all.")
@click.option("--measures", multiple=True, type=click.Choice(["depth", "margin", "dynamics", "load", "load_joint"]),
              help="Measures to take; may be repeated. Default: all that can be, but load_joint.")
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), metavar="RUN",
              help="Folder of the training, for training dynamics: one with --record-examples.  [default: the folder beside "
              "ACTS, or above it, that ACTS is of]")
@click.option("--joint", is_flag=True, help="Also loads in the joint capacity: minutes per layer.")
@click.option("--draws", default=100, show_default=True, type=click.IntRange(min=2), help="Gaussian draws of the loads.")
@click.option("--per-class", default=50, show_default=True, type=click.IntRange(min=2),
              help="Most training examples per class that loads are computed of.")
@options.arrays_options
@options.jobs_option()
@options.cluster_option
@options.seed_option
@options.json_option
@options.dry_run_option
@options.force_option
@options.config_option
def examples_command(
    acts: Path, out: Path | None, layers: tuple[str, ...], kinds: tuple[str, ...], k: int, max_examples: int | None,
    measures: tuple[str, ...], run: Path | None, joint: bool, draws: int, per_class: int, datasets: tuple[str, ...],
    labels: str | None,
    jobs: int, cluster: str | None, seed: int, as_json: bool, dry_run: bool, force: bool,
) -> None:
    """Prediction depth, margin, training dynamics and load of every example in ACTS: which are memorized, and where.

    ACTS is an activation file of manigeo extract, or a file of arrays: .npy, .npz, .csv, .mat, .h5, each array
    (conditions, repetitions, features), or (examples, features) with --labels.
    """
    from manigeo.execution.workers import open_workers
    from manigeo.per_example.plan import examples_table, plan_examples
    from manigeo.per_example.summary import summarize
    from manigeo.per_example.table import check_examples_path, csv_lines, write_examples
    from manigeo.text.examples import describe_plan, examples_report

    plan = plan_examples(
        options.activations_of(acts, datasets, labels), layers=layers, kinds=kinds, k=k, max_examples=max_examples,
        measures=measures, joint=joint, run=run, n_draws=draws, per_class=per_class, seed=seed,
    )
    out = out or acts.with_suffix(".examples.csv")
    click.echo(describe_plan(plan), err=as_json or out == STDOUT)
    if dry_run:
        return
    if out != STDOUT:
        check_examples_path(out, force)
    with open_workers(jobs, cluster, plan.task_bytes) as workers:
        table = examples_table(plan, n_jobs=workers, progress=True)
    if out == STDOUT:
        click.echo("".join(csv_lines(table)), nl=False)
        click.echo(examples_report(table), err=True)
        return
    write_examples(table, out, force)
    click.echo(json.dumps(summarize(table).record(), indent=1) if as_json else examples_report(table))
    click.echo(f"wrote {out}; next: manigeo plot {out}", err=as_json)


# fmt: on

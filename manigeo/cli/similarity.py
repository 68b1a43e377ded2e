"""``manigeo similarity``: from the activations of two checkpoints, or more, to how alike their layers are."""

from pathlib import Path

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import STDOUT, earlier_table, measured, tell
from manigeo.errors import UsageError
from manigeo.kinds import ALL_KINDS


# fmt: off
@command("similarity")
@click.argument("acts", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.results_option("similarity.csv")
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers to compare; may be repeated. Default: all in both.")
@click.option("--kinds", multiple=True, type=click.Choice(ALL_KINDS), help="Kinds of examples; repeatable. Default: all.")
@click.option("--per-class", type=click.IntRange(min=2),
              help="Examples per class.  [default: the most that every kind has for each of its classes, up to 50]")
@click.option("--classes", type=click.IntRange(min=2), metavar="P", help="Compare P classes of each kind, drawn at random.")
@options.work_options("Go on with an interrupted comparison in --out.")
def similarity_command(
    acts: tuple[Path, ...], out: Path, layers: tuple[str, ...], kinds: tuple[str, ...], per_class: int | None,
    classes: int | None, jobs: int, cluster: str | None, seed: int, as_json: bool, resume: bool, dry_run: bool, force: bool,
) -> None:
    """CKA and angular Procrustes distance of the layers in ACTS, two activation files of the same examples.

    They may be of two epochs of a run, or of networks of other seeds, with the same permuted labels. Of several ACTS, each
    is compared with the last.
    """
    from manigeo.layerwise.similarity import plan_similarity
    from manigeo.text.separability import describe_plan, separability_report

    *firsts, last = acts
    if not firsts:
        raise UsageError(f"give two activation files of the same examples, got {last} alone")
    plans = [
        plan_similarity(first, last, layers=layers, kinds=kinds, per_class=per_class, n_classes=classes, seed=seed)
        for first in firsts
    ]
    for plan in plans:
        click.echo(describe_plan(plan), err=as_json or out == STDOUT)
    if dry_run:
        return
    earlier = earlier_table(out, resume, force)
    tell(measured(plans, out, earlier, jobs, cluster), out, separability_report, as_json)


# fmt: on

"""``manigeo separability``: from activations to how well classes come apart in each layer, and in which one best."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import STDOUT, earlier_table, measured, save, tell
from manigeo.kinds import ALL_KINDS
from manigeo.layerwise.registry import SEPARABILITY, measure

if TYPE_CHECKING:
    pass


def _fewest(least: int, what: str) -> Callable[[click.Context, click.Parameter, int], int]:
    def check(ctx: click.Context, param: click.Parameter, n: int) -> int:
        if n < least:
            raise click.BadParameter(f"expected {least} or more, {what}; got {n}", ctx, param)
        return n

    return check


# fmt: off
@command("separability")
@click.argument("acts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Results: .csv, .json or .parquet; - for CSV on stdout.  [default: ACTS with .separability.csv]")
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers to measure; may be repeated. Default: all.")
@click.option("--kinds", multiple=True, type=click.Choice(ALL_KINDS), help="Kinds of examples; repeatable. Default: all.")
@click.option("--per-class", type=click.IntRange(min=2),
              help="Examples per class.  [default: the most that every kind has for each of its classes, up to 50]")
@click.option("--classes", type=click.IntRange(min=2), metavar="P", help="Measure P classes of each kind, drawn at random.")
@click.option("--measures", multiple=True, type=click.Choice(list(SEPARABILITY)), help="May be repeated. Default: all.")
@click.option("--folds", default=5, show_default=True, callback=_fewest(3, "two of them to choose the regularisation on"),
              help="Folds of probes and nearest means: each is scored by classifiers trained on the others.")
@click.option("--neighbours", multiple=True, type=click.IntRange(min=1), metavar="K",
              help="Also the purity of K neighbours; may be repeated. Always: 1, and one less than examples per class.")
@click.option("--training-examples", default=50, show_default=True, type=click.IntRange(min=2), metavar="N",
              help="Most training examples per class that latent generalization is fitted on.")
@click.option("--cluster-seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Starts of k-means.")
@click.option("--pairs", default=500, show_default=True, type=click.IntRange(min=1), help="Most pairs for margins.")
@options.null_option
@options.arrays_options
@options.work_options("Go on with an interrupted analysis in --out, or add measures to it.")
def separability_command(
    acts: tuple[Path, ...], out: Path | None, layers: tuple[str, ...], kinds: tuple[str, ...], per_class: int | None,
    classes: int | None, measures: tuple[str, ...], folds: int, neighbours: tuple[int, ...], training_examples: int,
    cluster_seeds: int, pairs: int,
    null: str | None, datasets: tuple[str, ...], labels: str | None,
    jobs: int, cluster: str | None, seed: int, as_json: bool, resume: bool, dry_run: bool, force: bool,
) -> None:
    """Linear probes, neighbours, clusters, class means, margins and more of every layer and kind in ACTS; best layers.

    Several ACTS, e.g. of the checkpoints of a run, go to one table. A file of arrays of another program may take the place
    of an activation file: .npy, .npz, .csv, .mat, .h5, each array (conditions, repetitions, features), or (examples,
    features) with --labels.
    """
    from manigeo.layerwise.best import with_choices, without_choices
    from manigeo.layerwise.plan import plan_separability
    from manigeo.text.separability import describe_plan, separability_report

    settings: dict[str, dict[str, Any]] = {
        "probe": {"folds": folds}, "neighbours": {"also": tuple(sorted(set(neighbours)))},
        "clusters": {"seeds": cluster_seeds}, "means": {"folds": folds}, "margins": {"pairs": pairs},
        "latent": {"examples_per_label": training_examples, "folds": folds},
    }
    chosen = [measure(name, **settings.get(name, {})) for name in SEPARABILITY if not measures or name in measures]
    sample = {"layers": layers, "kinds": kinds, "per_class": per_class, "n_classes": classes, "seed": seed, "null": null}
    plans = [plan_separability(options.activations_of(path, datasets, labels), measures=chosen, **sample) for path in acts]  # type: ignore[arg-type]
    for plan in plans:
        click.echo(describe_plan(plan), err=as_json or out == STDOUT)
    if dry_run:
        return
    out = out or acts[0].with_suffix(f".separability.{null}.csv" if null else ".separability.csv")
    earlier = earlier_table(out, resume, force)
    table = measured(plans, out, None if earlier is None else without_choices(earlier), jobs, cluster)
    table = with_choices(table, [metric for m in chosen for metric in m.profiles], seed)
    save(table, out)
    tell(table, out, separability_report, as_json)


# fmt: on

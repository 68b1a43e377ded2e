"""``manigeo capacity``: from activations to numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.tables import STDOUT, earlier_table, measured, tell
from manigeo.kinds import ALL_KINDS

if TYPE_CHECKING:
    from manigeo.layerwise.protocol import Measure


def _resamples(ctx: click.Context, param: click.Parameter, n: int) -> int:
    if n and n < 100:
        raise click.BadParameter(f"expected 100 resamples or more, e.g. 1000, or 0 for none; got {n}", ctx, param)
    return n


# fmt: off
@command("capacity")
@options.acts_argument
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Results: .csv, .json or .parquet; - for CSV on stdout.  [default: ACTS with .capacity.csv]")
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers to analyse; may be repeated. Default: all.")
@click.option("--kinds", multiple=True, type=click.Choice(ALL_KINDS),
              help="Kinds of examples; may be repeated; unseen classes alone. Default: all others.")
@click.option("--per-class", type=click.IntRange(min=2),
              help="Points per manifold.  [default: the most that every kind has for every class, up to 50]")
@click.option("--classes", type=click.IntRange(min=2), metavar="P",
              help="Analyse P classes, drawn at random: fewer keep --joint and --simulate out of saturation. Default: all.")
@click.option("--draws", default=300, show_default=True, type=click.IntRange(min=2), help="Gaussian draws per manifold.")
@click.option("--kappa", default=0.0, show_default=True, help="Margin.")
@click.option("--centers", default="auto", show_default=True, type=click.Choice(["auto", "reference", "keep"]),
              help="Treatment of directions that classes share: each manifold is seen in the metric that the others leave "
              "(auto), directions of the centres are removed as the authors do (reference), or nothing is done (keep).")
@click.option("--bootstrap", default=0, metavar="N", callback=_resamples,
              help="Resamples of the manifolds for 95 % intervals, e.g. 1000.  [default: none]")
@click.option("--errors", default="auto", show_default=True, type=click.Choice(["auto", "jackknife", "manifolds"]),
              help="Standard errors: from leaving out groups of manifolds (jackknife), from the spread over manifolds, or "
              "the jackknife up to 30 manifolds (auto).")
@click.option("--simulate", is_flag=True, help="Also simulated capacity: the separability of random dichotomies.")
@click.option("--dichotomies", default=200, show_default=True, type=click.IntRange(min=50),
              help="Number of dichotomies (only with --simulate).")
@click.option("--bias", is_flag=True, help="Hyperplanes may have an offset (only with --simulate).")
@click.option("--joint", is_flag=True, help="Also joint capacity (GLUE): all manifolds at once, without a rule for centres.")
@click.option("--joint-draws", default=100, show_default=True, type=click.IntRange(min=2),
              help="Gaussian draws (only with --joint).")
@click.option("--joint-labels", default="random", show_default=True, type=click.Choice(["random", "one_vs_rest"]),
              help="Labels of the dichotomies (only with --joint).")
@click.option("--sweep-examples", metavar="M,M,...",
              callback=options.whole_numbers("numbers of 2 or more with commas between, e.g. 5,10,20", least=2),
              help="Also mean-field capacity against M, the number of points per manifold, e.g. 5,10,20,50.")
@click.option("--total-dimension/--no-total-dimension", default=None,
              help="Participation ratio and directions of 90 % of the variance.  [default: where it takes seconds]")
@click.option("--project", type=click.IntRange(min=1), metavar="N",
              help="Project layers of more features than N on N random directions (the authors': 5000).")
@options.null_option
@options.arrays_options
@options.work_options("Go on with an interrupted analysis in --out, or add analyses to it.")
def capacity_command(
    acts: Path, out: Path | None, layers: tuple[str, ...], kinds: tuple[str, ...], per_class: int | None,
    classes: int | None, draws: int, kappa: float, centers: str, bootstrap: int, errors: str, simulate: bool,
    dichotomies: int, bias: bool, joint: bool, joint_draws: int, joint_labels: str, sweep_examples: tuple[int, ...],
    total_dimension: bool | None, project: int | None, null: str | None, datasets: tuple[str, ...], labels: str | None,
    jobs: int, cluster: str | None, seed: int, as_json: bool,
    resume: bool, dry_run: bool, force: bool,
) -> None:
    """Manifold capacity, radius and dimension of every layer and kind in ACTS.

    ACTS is an activation file of manigeo extract, or a file of arrays: .npy, .npz, .csv, .mat, .h5, each array
    (conditions, repetitions, features), or (examples, features) with --labels.
    """
    from manigeo.capacity.kernels import compile_kernels
    from manigeo.layerwise.geometry import Joint, Simulated, Sweep
    from manigeo.layerwise.plan import plan_capacity
    from manigeo.text.geometry import describe_plan, geometry_report

    also: list[Measure] = [
        *([Simulated(dichotomies, bias)] if simulate else []),
        *([Joint(joint_draws, joint_labels)] if joint else []),
        *([Sweep(tuple(sorted(set(sweep_examples))), kappa, draws, centers)] if sweep_examples else []),
    ]
    source = options.activations_of(acts, datasets, labels)
    plan = plan_capacity(
        source, layers=layers, kinds=kinds, per_class=per_class, n_classes=classes, kappa=kappa, n_draws=draws,
        centers=centers, bootstrap=bootstrap, errors=errors, also=also, total_dimension=total_dimension,
        project=project, seed=seed, null=null,
    )
    click.echo(describe_plan(plan), err=as_json or out == STDOUT)
    if dry_run:
        return
    out = out or acts.with_suffix(f".capacity.{null}.csv" if null else ".capacity.csv")
    earlier = earlier_table(out, resume, force)
    compile_kernels(lambda: click.echo("compiling, once on this machine: about 10 s", err=True))
    table = measured([plan], out, earlier, jobs, cluster)
    tell(table, out, geometry_report, as_json)


# fmt: on

"""``manigeo separability``: from activations to how well classes come apart in each layer, and in which one best."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.cli.tables import collected, earlier_table, tell
from manigeo.cli.train import duration
from manigeo.errors import UsageError
from manigeo.text.separability import KINDS, separability_report

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.execution.workers import Workers
    from manigeo.layerwise.separability import Measure
    from manigeo.layerwise.separability_tables import SeparabilityPlan
    from manigeo.results import Part

MEASURES = ("probe", "neighbours", "clusters", "means", "margins")


def _fewest(least: int, what: str) -> Callable[[click.Context, click.Parameter, int], int]:
    def check(ctx: click.Context, param: click.Parameter, n: int) -> int:
        if n < least:
            raise click.BadParameter(f"expected {least} or more, {what}; got {n}", ctx, param)
        return n

    return check


# fmt: off
@click.command("separability")
@click.argument("acts", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Results: .csv, .json or .parquet.  [default: the first ACTS with .separability.csv]")
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers to measure; may be repeated. Default: all.")
@click.option("--kinds", multiple=True, type=click.Choice(KINDS), help="Kinds of examples; may be repeated. Default: all.")
@click.option("--per-class", type=click.IntRange(min=2),
              help="Examples per class.  [default: the most that every kind has for each of its classes, up to 50]")
@click.option("--classes", type=click.IntRange(min=2), metavar="P", help="Measure P classes of each kind, drawn at random.")
@click.option("--measures", multiple=True, type=click.Choice(MEASURES), help="May be repeated. Default: all.")
@click.option("--folds", default=5, show_default=True, callback=_fewest(3, "two of them to choose the regularisation on"),
              help="Of probes and nearest means: each is scored by classifiers trained on the others.")
@click.option("--neighbours", multiple=True, type=click.IntRange(min=1), metavar="K",
              help="Also the purity of K neighbours; may be repeated. Always: 1, and one less than examples per class.")
@click.option("--cluster-seeds", default=3, show_default=True, type=click.IntRange(min=1), help="Starts of k-means.")
@click.option("--pairs", default=500, show_default=True, type=click.IntRange(min=1), help="Most pairs for margins.")
@options.work_options("Go on with an interrupted analysis in --out, or add measures to it.")
def separability_command(
    acts: tuple[Path, ...], out: Path | None, layers: tuple[str, ...], kinds: tuple[str, ...], per_class: int | None,
    classes: int | None, measures: tuple[str, ...], folds: int, neighbours: tuple[int, ...], cluster_seeds: int, pairs: int,
    jobs: int, cluster: str | None, seed: int, as_json: bool, resume: bool, dry_run: bool, force: bool,
) -> None:
    """Linear probes, neighbours, clusters, class means and margins of every layer and kind in ACTS, and the best layer.

    Several ACTS, e.g. of the checkpoints of a run, go to one table.
    """
    from manigeo.execution.workers import open_workers
    from manigeo.layerwise.best import with_choices
    from manigeo.layerwise.separability import Clusters, HardMargins, Means, Neighbours, Probe
    from manigeo.layerwise.separability_tables import plan_separability
    from manigeo.results import write_results

    every: list[Measure] = [
        Probe(folds), Neighbours(tuple(sorted(set(neighbours)))), Clusters(cluster_seeds), Means(folds), HardMargins(pairs)
    ]
    chosen = [measure for measure in every if not measures or measure.name in measures]
    sample = {"layers": layers, "kinds": kinds, "per_class": per_class, "n_classes": classes, "seed": seed}
    plans = [plan_separability(path, measures=chosen, **sample) for path in acts]  # type: ignore[arg-type]
    for plan in plans:
        click.echo(describe_plan(plan), err=as_json)
    if dry_run:
        return
    out = out or acts[0].with_suffix(".separability.csv")
    earlier = _earlier(out, resume, force)
    with open_workers(jobs, cluster, max(plan.task_bytes for plan in plans)) as workers:
        table = collected(_remaining(plans, earlier, workers), out, earlier)
    table = with_choices(table, [metric for measure in chosen for metric in measure.profiles], seed)
    write_results(table, out, force=True)
    tell(table, out, separability_report, as_json)


# fmt: on
def _earlier(out: Path, resume: bool, force: bool) -> "pd.DataFrame | None":
    """Read what was measured, without what follows from it."""
    from manigeo.layerwise.best import without_choices

    table = earlier_table(out, resume, force)
    return None if table is None else without_choices(table)


def _remaining(
    plans: "Sequence[SeparabilityPlan]", earlier: "pd.DataFrame | None", workers: "Workers"
) -> Iterator["Part"]:
    """The parts of all plans that are not there, each file's asked for before the work begins.

    Raises :class:`~manigeo.errors.UsageError` for files that hold the same, and where what is there is of others.
    """
    from manigeo.layerwise.separability_tables import finished_measures, separability_parts

    known = [plan.fingerprint for plan in plans]
    if len(set(known)) < len(known):
        raise UsageError("two of the files hold the same activations: name each checkpoint's once")
    done: list[set[tuple[str, str, str]]] = [set() for _ in plans]
    if earlier is not None:
        if strange := set(earlier["fingerprint"]) - set(known):
            n = len(strange)
            raise UsageError(
                f"the table holds {n} other activation files: name these too, give another --out, or --force"
            )
        done = [set(finished_measures(plan, earlier[earlier["fingerprint"] == plan.fingerprint])) for plan in plans]
    return _numbered_on(
        separability_parts(plan, n_jobs=workers, progress=True, done=of_plan)
        for plan, of_plan in zip(plans, done, strict=True)
    )


def _numbered_on(each: Iterator[Iterator["Part"]]) -> Iterator["Part"]:
    """The parts of all, those of one before those of the next."""
    first = 0
    for parts in each:
        numbers = [-1]
        for part in parts:
            numbers.append(part.number)
            yield part._replace(number=first + part.number)
        first += max(numbers) + 1


def describe_plan(plan: "SeparabilityPlan") -> str:
    """Describe what is measured, on which sample, and about how long it takes."""
    numbers = {kind: len(labels) for kind, labels in plan.classes.items() if kind not in plan.excluded}
    kinds = ", ".join(f"{kind} {n} classes" for kind, n in numbers.items())
    lines = [
        f"{plan.path}: {len(plan.layers)} layers; {kinds}, each of M = {plan.per_class} examples",
        f"{len(plan.tasks)} tasks of {plan.task_bytes / 1e6:.0f} MB at most, about {duration(plan.seconds)} on one core: "
        + "; ".join(measure.describe() for measure in plan.measures),
    ]
    if plan.limited_by:
        kind, label = plan.limited_by
        lines.append(f"M = {plan.per_class} is what class {plan.class_names[label]!r} has of {kind} examples")
    lines += [f"{kind} is left out: {flag}" for kind, flag in plan.excluded.items()]
    return "\n".join(lines)

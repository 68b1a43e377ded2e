"""``manigeo capacity``: from activations to numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.cli.tables import collected, earlier_table, tell

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.execution.workers import Workers
    from manigeo.layerwise.capacity_tables import CapacityPlan
    from manigeo.layerwise.geometry import Analysis


def _resamples(ctx: click.Context, param: click.Parameter, n: int) -> int:
    if n and n < 100:
        raise click.BadParameter(f"expected 100 resamples or more, e.g. 1000, or 0 for none; got {n}", ctx, param)
    return n


# fmt: off
@click.command("capacity")
@options.acts_argument
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Results: .csv, .json or .parquet.  [default: ACTS with .capacity.csv]")
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers to analyse; may be repeated. Default: all.")
@click.option("--kinds", multiple=True, type=click.Choice(["unpermuted", "permuted", "restored", "test", "unseen"]),
              help="Kinds of examples; may be repeated; unseen classes alone. Default: all others.")
@click.option("--per-class", type=click.IntRange(min=2),
              help="Points per manifold.  [default: the most that every kind has for every class, up to 50]")
@click.option("--classes", type=click.IntRange(min=2), metavar="P",
              help="Analyse P classes, drawn at random: fewer keep --joint and --simulate out of saturation. Default: all.")
@click.option("--draws", default=300, show_default=True, type=click.IntRange(min=2), help="Gaussian draws a manifold.")
@click.option("--kappa", default=0.0, show_default=True, help="Margin.")
@click.option("--centers", default="auto", show_default=True, type=click.Choice(["auto", "reference", "keep"]),
              help="What is done about directions that classes share: each manifold seen in the metric that the others "
              "leave (auto), the authors' removal of directions of the centres (reference), or nothing (keep).")
@click.option("--bootstrap", default=0, metavar="N", callback=_resamples,
              help="Resamples of the manifolds for 95 % intervals, e.g. 1000.  [default: none]")
@click.option("--simulate", is_flag=True, help="Also simulated capacity: the separability of random dichotomies.")
@click.option("--dichotomies", default=200, show_default=True, type=click.IntRange(min=50), help="Of --simulate.")
@click.option("--bias", is_flag=True, help="Of --simulate: hyperplanes may have an offset.")
@click.option("--joint", is_flag=True, help="Also joint capacity (GLUE): all manifolds at once, without a rule for centres.")
@click.option("--joint-draws", default=100, show_default=True, type=click.IntRange(min=2), help="Of --joint.")
@click.option("--joint-labels", default="random", show_default=True, type=click.Choice(["random", "one_vs_rest"]),
              help="Of --joint.")
@click.option("--sweep-examples", metavar="M,M,...",
              callback=options.whole_numbers("numbers of 2 or more with commas between, e.g. 5,10,20", least=2),
              help="Also mean-field capacity against M, the number of points per manifold, e.g. 5,10,20,50.")
@click.option("--total-dimension/--no-total-dimension", default=None,
              help="Participation ratio and directions of 90 % of the variance.  [default: where it takes seconds]")
@click.option("--project", type=click.IntRange(min=1), metavar="N",
              help="Project layers of more features than N on N random directions (the authors': 5000).")
@options.work_options("Go on with an interrupted analysis in --out, or add analyses to it.")
def capacity_command(
    acts: Path, out: Path | None, layers: tuple[str, ...], kinds: tuple[str, ...], per_class: int | None,
    classes: int | None, draws: int, kappa: float, centers: str, bootstrap: int, simulate: bool, dichotomies: int,
    bias: bool, joint: bool, joint_draws: int, joint_labels: str, sweep_examples: tuple[int, ...],
    total_dimension: bool | None, project: int | None, jobs: int, cluster: str | None, seed: int, as_json: bool,
    resume: bool, dry_run: bool, force: bool,
) -> None:
    """Manifold capacity, radius and dimension of every layer and kind in ACTS."""
    from manigeo.execution.workers import open_workers
    from manigeo.layerwise.capacity_tables import plan_capacity
    from manigeo.layerwise.geometry import Joint, Simulated, Sweep

    also: list[Analysis] = [
        *([Simulated(dichotomies, bias)] if simulate else []),
        *([Joint(joint_draws, joint_labels)] if joint else []),
        *([Sweep(tuple(sorted(set(sweep_examples))), kappa, draws, centers)] if sweep_examples else []),
    ]
    plan = plan_capacity(
        acts, layers=layers, kinds=kinds, per_class=per_class, n_classes=classes, kappa=kappa, n_draws=draws,
        centers=centers, bootstrap=bootstrap, also=also, total_dimension=total_dimension, project=project, seed=seed,
    )
    click.echo(describe_plan(plan), err=as_json)
    if dry_run:
        return
    out = out or acts.with_suffix(".capacity.csv")
    earlier = earlier_table(out, resume, force)
    with open_workers(jobs, cluster, plan.task_bytes) as workers:
        table = _computed(plan, out, earlier, workers)
    tell(table, out, geometry_report, as_json)


# fmt: on
def _computed(plan: "CapacityPlan", out: Path, earlier: "pd.DataFrame | None", workers: "Workers") -> "pd.DataFrame":
    from manigeo.layerwise.capacity_tables import capacity_parts, finished_tasks
    from manigeo.results import join_results

    done = set() if earlier is None else finished_tasks(plan, earlier)
    return collected(capacity_parts(plan, n_jobs=workers, progress=True, done=done), out, earlier, join_results)


def describe_plan(plan: "CapacityPlan") -> str:
    """Describe what is compared, at which size, and by which analyses."""
    size, settings = plan.size, plan.settings
    analyses = [analysis for analysis in plan.analyses if any(task.analysis == analysis.name for task in plan.tasks)]
    lines = [
        f"{len(plan.layers)} layers x {len(size.kinds)} kinds, P = {settings.n_classes} classes x M = {settings.per_class} "
        f"examples; {_floors(plan, analyses)}",
        f"{len(plan.tasks)} tasks of {plan.task_bytes / 1e6:.0f} MB at most: "
        + "; ".join(analysis.describe() for analysis in analyses),
    ]
    if size.limited_by:
        kind, label = size.limited_by
        lines.append(f"M = {size.per_class} is what class {plan.class_names[label]!r} has of {kind} examples")
    for kind, classes in size.excluded.items():
        names = ", ".join(repr(plan.class_names[label]) for label in classes)
        lines.append(f"{kind} is left out: fewer than 2 examples in class {names}")
    if plan.wide and any(analysis.name == "spectrum" for analysis in plan.analyses):
        lines.append(
            f"without total dimension, which takes minutes: {', '.join(plan.wide)}; --total-dimension computes it"
        )
    if settings.n_classes < 30:
        lines.append(_few_classes(settings.n_classes))
    return "\n".join(lines)


def _floors(plan: "CapacityPlan", analyses: "list[Analysis]") -> str:
    """Describe the capacity of points without structure, for each estimator of the plan that has such a floor."""
    from manigeo.capacity.unstructured import unstructured_capacity
    from manigeo.layerwise.geometry import Joint, MeanField, Simulated

    rules = {
        "mean field": next((a.centers for a in analyses if isinstance(a, MeanField) and not a.kappa), None),
        "joint": next(("joint" for a in analyses if isinstance(a, Joint) and a.labels == "random"), None),
        "simulated": next(("simulated" for a in analyses if isinstance(a, Simulated) and not a.bias), None),
    }
    M, P = plan.settings.per_class, plan.settings.n_classes
    floors = [
        f"{unstructured_capacity(M, n_manifolds=P, estimator=rule):.3f} ({name})"
        for name, rule in rules.items()
        if rule
    ]
    return "capacity without structure " + (", ".join(floors) if floors else "is not known at a margin")


def _few_classes(n_classes: int) -> str:
    """Warn of the errors of the estimators at few classes: on the layers of an mlp on digits and of the glyphs
    reference, drawn to 5 classes."""
    if n_classes >= 10:
        return f"P = {n_classes} classes is small for mean field: read the curves, not the third digit"
    if n_classes == 2:
        return "P = 2 classes have one dichotomy, so no simulated capacity; mean field is a third too low, take --joint"
    return (
        f"P = {n_classes} classes are few: on 30 layers of trained networks at P = 5 mean field was 3 to 17 % below "
        "simulation, joint up to 5 %; take --simulate"
    )


# metric -> its name in the report, digits
REPORTED = {
    "capacity": ("capacity", 3),
    "capacity_joint": ("joint capacity", 3),
    "capacity_simulated": ("simulated capacity", 3),
    "radius": ("radius", 2),
    "dimension": ("dimension", 1),
    "center_correlation": ("centre correlation", 3),
}


def geometry_report(table: "pd.DataFrame") -> str:
    """The aggregates as text: one block per measure, one line per layer, one column per kind, value +- standard
    error."""
    aggregates = table[table["manifold"] == ""]
    blocks = []
    for metric, (name, digits) in REPORTED.items():
        part = aggregates[aggregates["metric"] == metric]
        if part.empty:
            continue
        cells = part.assign(cell=[_cell(v, e, digits) for v, e in zip(part["value"], part["stderr"], strict=True)])
        wide = cells.pivot(index=["depth", "layer"], columns="kind", values="cell").reset_index("depth", drop=True)
        kinds = [kind for kind in ("unpermuted", "permuted", "restored", "test", "unseen") if kind in wide]
        blocks.append(wide[kinds].rename_axis(index=None, columns=name).to_string())
    return "\n\n".join([*blocks, *_flags(aggregates)])


def _flags(aggregates: "pd.DataFrame") -> list[str]:
    flagged = aggregates[aggregates["flag"] != ""].drop_duplicates(["kind", "layer", "flag"])
    layers = flagged.groupby(["kind", "flag"])["layer"].agg(", ".join)
    every = aggregates["layer"].nunique()
    said = [
        f"{kind}: {flag}" + ("" if len(names.split(", ")) == every else f" ({names})")
        for (kind, flag), names in layers.items()
    ]
    return ["flags: " + "; ".join(said)] if said else []


def _cell(value: float, error: float, digits: int) -> str:
    if value != value:
        return "-"
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error == error else "")

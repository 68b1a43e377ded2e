"""``manigeo capacity`` and ``manigeo info``: from activations to numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.tables import collected, earlier_table

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.activations import Activations
    from manigeo.analyses import Analysis
    from manigeo.layerwise import CapacityPlan
    from manigeo.workers import Workers

acts_argument = click.argument("acts", type=click.Path(path_type=Path, dir_okay=False))


def _sizes(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    try:
        sizes = {int(word) for word in text.split(",")} if text else set()
    except ValueError:
        sizes = {0}
    if any(size < 2 for size in sizes):
        raise click.BadParameter(
            f"expected numbers of 2 or more with commas between, e.g. 5,10,20; got {text!r}", ctx, param
        )
    return tuple(sorted(sizes))


def _resamples(ctx: click.Context, param: click.Parameter, n: int) -> int:
    if n and n < 100:
        raise click.BadParameter(f"expected 100 resamples or more, e.g. 1000, or 0 for none; got {n}", ctx, param)
    return n


# fmt: off
@click.command("capacity")
@acts_argument
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Results: .csv, .json or .parquet.  [default: ACTS with .capacity.csv]",
)
@click.option("--layers", multiple=True, metavar="GLOB", help="Layers to analyse; may be repeated. Default: all.")
@click.option(
    "--kinds",
    multiple=True,
    type=click.Choice(["unpermuted", "permuted", "restored", "test", "unseen"]),
    help="Kinds of examples; may be repeated; unseen classes alone. Default: all others.",
)
@click.option(
    "--per-class",
    type=click.IntRange(min=2),
    help="Points per manifold.  [default: the most that every kind has for every class, up to 50]",
)
@click.option("--classes", type=click.IntRange(min=2), metavar="P",
              help="Analyse P classes, drawn at random: fewer keep --joint and --simulate out of saturation. Default: all.")
@click.option("--draws", default=300, show_default=True, type=click.IntRange(min=2), help="Gaussian draws a manifold.")
@click.option("--kappa", default=0.0, show_default=True, help="Margin.")
@click.option(
    "--centers",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "reference", "keep"]),
    help="What is done about directions that classes share: each manifold seen in the metric that the others leave (auto), "
    "the authors' removal of directions of the centres (reference), or nothing (keep).",
)
@click.option(
    "--errors",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "jackknife", "manifolds"]),
    help="Standard errors of the aggregates: classes left out in turn (jackknife), the spread over classes (manifolds, two "
    "to three times as fast), or the first up to 30 classes (auto).",
)
@click.option("--bootstrap", default=0, metavar="N", callback=_resamples,
              help="Resamples of the manifolds for 95 % intervals, e.g. 1000.  [default: none]")
@click.option("--simulate", is_flag=True, help="Also simulated capacity: the separability of random dichotomies.")
@click.option("--dichotomies", default=200, show_default=True, type=click.IntRange(min=50), help="Of --simulate.")
@click.option("--bias", is_flag=True, help="Of --simulate: hyperplanes may have an offset.")
@click.option("--joint", is_flag=True, help="Also joint capacity (GLUE): all manifolds at once, without a rule for centres.")
@click.option("--joint-draws", default=100, show_default=True, type=click.IntRange(min=2), help="Of --joint.")
@click.option("--joint-labels", default="random", show_default=True, type=click.Choice(["random", "one_vs_rest"]),
              help="Of --joint.")
@click.option("--sweep-examples", callback=_sizes, metavar="M,M,...",
              help="Also mean-field capacity against M, the number of points per manifold, e.g. 5,10,20,50.")
@click.option("--total-dimension/--no-total-dimension", default=None,
              help="Participation ratio and directions of 90 % of the variance.  [default: where it takes seconds]")
@click.option("--project", type=click.IntRange(min=1), metavar="N",
              help="Project layers of more features than N on N random directions (the authors': 5000).")
@options.jobs_option()
@options.cluster_option
@options.seed_option
@options.json_option
@click.option("--resume", is_flag=True, help="Go on with an interrupted analysis in --out, or add analyses to it.")
@options.dry_run_option
@options.force_option
@options.config_option
def capacity_command(
    acts: Path, out: Path | None, layers: tuple[str, ...], kinds: tuple[str, ...], per_class: int | None,
    classes: int | None, draws: int, kappa: float, centers: str, errors: str, bootstrap: int, simulate: bool,
    dichotomies: int, bias: bool, joint: bool, joint_draws: int, joint_labels: str, sweep_examples: tuple[int, ...],
    total_dimension: bool | None, project: int | None, jobs: int, cluster: str | None, seed: int, as_json: bool,
    resume: bool, dry_run: bool, force: bool,
) -> None:
    """Manifold capacity, radius and dimension of every layer and kind in ACTS."""
    from manigeo.analyses import Joint, Simulated, Sweep
    from manigeo.layerwise import plan_capacity
    from manigeo.results import as_json as to_json
    from manigeo.workers import open_workers

    also: list[Analysis] = [
        *([Simulated(dichotomies, bias)] if simulate else []),
        *([Joint(joint_draws, joint_labels)] if joint else []),
        *([Sweep(sweep_examples, kappa, draws, centers)] if sweep_examples else []),
    ]
    plan = plan_capacity(
        acts, layers=layers, kinds=kinds, per_class=per_class, n_classes=classes, kappa=kappa, n_draws=draws,
        centers=centers, bootstrap=bootstrap, errors=errors, also=also, total_dimension=total_dimension, project=project,
        seed=seed,
    )
    click.echo(describe_plan(plan), err=as_json)
    if dry_run:
        return
    out = out or acts.with_suffix(".capacity.csv")
    earlier = earlier_table(out, resume, force)
    with open_workers(jobs, cluster, plan.task_bytes) as workers:
        table = _computed(plan, out, earlier, workers)
    click.echo(to_json(table) if as_json else geometry_report(table))
    click.echo(f"wrote {out}; next: manigeo plot {out}", err=as_json)


# fmt: on
def _computed(plan: "CapacityPlan", out: Path, earlier: "pd.DataFrame | None", workers: "Workers") -> "pd.DataFrame":
    from manigeo.layerwise import capacity_parts, finished_tasks
    from manigeo.results import join_results

    done = set() if earlier is None else finished_tasks(plan, earlier)
    return collected(capacity_parts(plan, n_jobs=workers, progress=True, done=done), out, earlier, join_results)


def describe_plan(plan: "CapacityPlan") -> str:
    """What is compared, at which size, and by which analyses."""
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
    """Where points without structure lie, for each estimator of the plan that has such a floor."""
    from manigeo.analyses import Joint, MeanField, Simulated
    from manigeo.capacity.unstructured import unstructured_capacity

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
    """How far off the estimators were: on layers of an mlp on digits, drawn to 5 classes (tests/bench/real_layers.py)."""
    if n_classes >= 10:
        return f"P = {n_classes} classes is small for mean field: read the curves, not the third digit"
    if n_classes == 2:
        return "P = 2 classes have one dichotomy, so no simulated capacity; mean field is up to a half too low, take --joint"
    return (
        f"P = {n_classes} classes are few: on layers of a trained network at P = 5 mean field was up to 6 % below "
        "simulation, joint up to 6 % off; take --simulate"
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
    """The aggregates as text: a block a measure, a line a layer, a column a kind, value +- standard error."""
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


@click.command("info")
@acts_argument
@options.json_option
def info_command(acts: Path, as_json: bool) -> None:
    """Say what is in ACTS, complete or not: model, data, examples, layers."""
    import json

    from manigeo.activations import inspect_activations

    with inspect_activations(acts) as file:
        content = _content(file)
    click.echo(json.dumps(content) if as_json else describe_content(content))


def _content(file: "Activations") -> dict[str, Any]:
    from dataclasses import asdict

    from manigeo.manifolds import kind_examples

    return {
        "path": str(file.path),
        "complete": file.complete,
        "examples_done": file.n_done,
        "examples_total": len(file.examples),
        "shard": asdict(file.shard) if file.shard else None,
        "smallest_batch": file.smallest_batch,
        "created": file.created,
        "manigeo_version": file.manigeo_version,
        "fingerprint": file.fingerprint,
        "classes": len(file.class_names),
        "examples": {kind: len(kind_examples(file.examples, kind)[0]) for kind in file.kinds},
        "layers": {name: "x".join(map(str, file.layer(name).feature_shape)) for name in file.layers},
        "readouts": {name: file.layer(name).readout for name in file.layers},
        "projections": {name: file.layer(name).projection for name in file.layers},
        "dtypes": file.dtypes,
        "provenance": file.provenance,
    }


def describe_content(content: dict[str, Any]) -> str:
    """What is in the file, for reading."""
    origin, shard = content["provenance"], content["shard"]
    state = "complete" if content["complete"] else (
        f"incomplete, {content['examples_done']} of {content['examples_total']} examples are there; the command that began "
        "it goes on with --resume"
    )  # fmt: skip
    lines = [
        f"{content['path']}: {len(content['layers'])} layers, {content['classes']} classes, made {content['created']}",
        f"state    {state}",
        f"model    {origin.get('arch')} {origin.get('checkpoint')} epoch {origin.get('epoch')}",
        f"data     {origin.get('data')} permutation {origin.get('permutation')}",
        f"examples {', '.join(f'{kind} {n}' for kind, n in content['examples'].items())}",
        f"layers   {', '.join(_describe_layer(name, content) for name in content['layers'])}",
    ]
    if shard:
        stop = shard["start"] + content["examples_total"]
        lines.insert(2, f"shard    {shard['number']} of {shard['of']}: examples {shard['start']} to {stop - 1} of "
                        f"{shard['n_examples']}; manigeo merge joins them")  # fmt: skip
    return "\n".join(lines)


def _describe_layer(name: str, content: dict[str, Any]) -> str:
    """Name and shape, and what is not as usual."""
    readout, projection, dtype = (content[key][name] for key in ("readouts", "projections", "dtypes"))
    remarks = [
        *([readout] if readout != "flatten" else []),
        *([f"projected from {'x'.join(map(str, projection['feature_shape']))}"] if projection else []),
        *([dtype] if dtype != "float32" else []),
    ]
    return f"{name} ({', '.join([content['layers'][name], *remarks])})"

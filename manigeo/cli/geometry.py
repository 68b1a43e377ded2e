"""``manigeo capacity`` and ``manigeo info``: from activations to numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.layerwise import CapacityPlan

acts_argument = click.argument("acts", type=click.Path(path_type=Path, dir_okay=False))


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
    type=click.Choice(["unpermuted", "permuted", "restored", "test"]),
    help="Kinds of examples; may be repeated. Default: all.",
)
@click.option(
    "--per-class",
    type=click.IntRange(min=2),
    help="Points per manifold.  [default: the most that every kind has for every class, up to 50]",
)
@click.option("--draws", default=300, show_default=True, type=click.IntRange(min=2), help="Gaussian draws a manifold.")
@click.option("--kappa", default=0.0, show_default=True, help="Margin.")
@click.option(
    "--centers",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "reference", "keep"]),
    help="Which shared directions of the class centres are removed.",
)
@options.jobs_option()
@options.seed_option
@options.json_option
@click.option("--resume", is_flag=True, help="Go on with an interrupted analysis in --out.")
@options.dry_run_option
@options.force_option
@options.config_option
def capacity_command(
    acts: Path, out: Path | None, layers: tuple[str, ...], kinds: tuple[str, ...], per_class: int | None, draws: int,
    kappa: float, centers: str, jobs: int, seed: int, as_json: bool, resume: bool, dry_run: bool, force: bool,
) -> None:  # fmt: skip
    """Mean-field manifold capacity, radius and dimension of every layer and kind in ACTS."""
    from manigeo.layerwise import plan_capacity
    from manigeo.results import as_json as to_json
    from manigeo.results import check_results_path

    if resume and force:
        raise UsageError("--resume goes on with a table and --force replaces it: give one of them")
    plan = plan_capacity(
        acts, layers=layers, kinds=kinds, per_class=per_class, kappa=kappa, n_draws=draws, centers=centers, seed=seed
    )
    click.echo(describe_plan(plan), err=as_json)
    if dry_run:
        return
    out = check_results_path(out or acts.with_suffix(".capacity.csv"), force or resume)
    table = _compute(plan, out, resume, jobs)
    click.echo(to_json(table) if as_json else geometry_report(table))
    click.echo(f"wrote {out}; next: manigeo plot {out}", err=as_json)


def _compute(plan: "CapacityPlan", out: Path, resume: bool, jobs: int) -> "pd.DataFrame":
    """The table, written to ``out``; so is what was finished when the user interrupts."""
    from manigeo.layerwise import capacity_parts, finished_tasks
    from manigeo.results import join_results, read_results, write_results

    parts = [read_results(out)] if resume and out.exists() else []
    done = finished_tasks(plan, parts[0]) if parts else set()
    try:
        for part in capacity_parts(plan, n_jobs=jobs, progress=True, done=done):
            parts.append(part)
    except KeyboardInterrupt:
        if parts:
            write_results(join_results(parts), out, force=True)
            click.echo(f"what was finished is in {out}; the same command with --resume goes on", err=True)
        raise
    table = join_results(parts)
    write_results(table, out, force=True)
    return table


def describe_plan(plan: "CapacityPlan") -> str:
    """What is compared, and at which size."""
    size, settings = plan.size, plan.settings
    lines = [
        f"{len(plan.layers)} layers x {len(size.kinds)} kinds, P = {settings.n_classes} classes x M = {settings.per_class} "
        f"examples, {settings.n_draws} draws; the floor of capacity is 2/M = {2 / settings.per_class:.3f}"
    ]
    if size.limited_by:
        kind, label = size.limited_by
        lines.append(f"M = {size.per_class} is what class {plan.class_names[label]!r} has of {kind} examples")
    for kind, classes in size.excluded.items():
        names = ", ".join(repr(plan.class_names[label]) for label in classes)
        lines.append(f"{kind} is left out: fewer than 2 examples in class {names}")
    if settings.n_classes < 30:
        lines.append(f"P = {settings.n_classes} classes is small for mean field: read the curves, not the third digit")
    return "\n".join(lines)


def geometry_report(table: "pd.DataFrame") -> str:
    """The aggregates as text: a block a measure, a line a layer, a column a kind, value +- standard error."""
    aggregates = table[table["manifold"] == ""]
    blocks = []
    for metric, digits in (("capacity", 3), ("radius", 2), ("dimension", 1), ("center_correlation", 3)):
        part = aggregates[aggregates["metric"] == metric]
        cells = part.assign(cell=[_cell(v, e, digits) for v, e in zip(part["value"], part["stderr"], strict=True)])
        wide = cells.pivot(index=["depth", "layer"], columns="kind", values="cell").reset_index("depth", drop=True)
        kinds = [kind for kind in ("unpermuted", "permuted", "restored", "test") if kind in wide]
        wide = wide[kinds].rename_axis(index=None, columns=metric.replace("center_", "centre "))
        blocks.append(wide.to_string())
    flags = sorted(
        {f"{kind}: {flag}" for kind, flag in zip(aggregates["kind"], aggregates["flag"], strict=True) if flag}
    )
    return "\n\n".join(blocks + (["flags: " + "; ".join(flags)] if flags else []))


def _cell(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}" if value == value else "-"


@click.command("info")
@acts_argument
@options.json_option
def info_command(acts: Path, as_json: bool) -> None:
    """Say what is in ACTS: model, data, examples, layers."""
    import json

    from manigeo.activations import open_activations
    from manigeo.manifolds import kind_examples

    with open_activations(acts) as file:
        kinds = {kind: len(kind_examples(file.examples, kind)[0]) for kind in file.kinds}
        layers = [(name, "x".join(map(str, file.layer(name).feature_shape))) for name in file.layers]
        content = {
            "path": str(acts), "created": file.created, "manigeo_version": file.manigeo_version,
            "fingerprint": file.fingerprint, "classes": len(file.class_names), "examples": kinds,
            "layers": dict(layers), "provenance": file.provenance,
        }  # fmt: skip
        origin = file.provenance
    if as_json:
        click.echo(json.dumps(content))
        return
    click.echo(
        f"{acts}: {len(layers)} layers, {content['classes']} classes, made {content['created']}\n"
        f"model    {origin.get('arch')} {origin.get('checkpoint')} epoch {origin.get('epoch')}\n"
        f"data     {origin.get('data')} permutation {origin.get('permutation')}\n"
        f"examples {', '.join(f'{kind} {n}' for kind, n in kinds.items())}\n"
        f"layers   {', '.join(f'{name} ({shape})' for name, shape in layers)}"
    )

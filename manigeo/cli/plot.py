"""``manigeo plot``: from results tables to figures."""

from pathlib import Path

import click

from manigeo.cli import options

# figure -> what it shows, for reading
FIGURE_LINES = {
    "geometry": "capacity, radius, dimension and centre correlation against depth, a column a checkpoint",
    "estimators": "mean-field, joint and simulated capacity against depth, a column a kind (--joint, --simulate)",
    "sweep": "capacity against the number of examples per class, a panel a layer (--sweep-examples)",
    "weights": "rotation, angle per step and distance of each layer against the epoch (manigeo weights)",
    "correlation": "movement of each layer against the generalization gap, a point a run (manigeo correlate)",
    "separability": "probes, neighbours, clusters, margins against depth, a column a checkpoint (manigeo separability)",
    "progress": "g and probe accuracy of every layer over epochs, where there are several",
    "transfer": "probes of each kind scored on every kind, a heat map a layer",
    "memorization": "permuted labels: probe accuracy and capacity against depth (tables of separability and capacity)",
    "rewind": "accuracy of every kind after layers were rewound, a panel a sweep (manigeo rewind)",
    "reinit": "accuracy with one layer re-initialised, drawn again or zero: a heat map a kind (manigeo reinit)",
    "final-reset": "accuracy after the last layers were reset, and trained again (manigeo reinit --final-reset)",
    "utilisation": "a linear probe on the layers up to each (manigeo reinit --utilisation)",
    "criticality": "module criticality of every layer (manigeo reinit --criticality)",
    "localization": "the memorization profile of every method (manigeo localize)",
    "gradients": "parts of the gradient that know the labels and that do not, a panel a layer (manigeo gradients)",
    "gradient-sizes": "their norms against the number of examples (manigeo gradients --sizes)",
}


@click.command(
    "plot", epilog="\b\nFigures:\n" + "\n".join(f"  {name:<16}{line}" for name, line in FIGURE_LINES.items())
)
@click.argument("results", nargs=-1, required=True)
@click.option(
    "--figure",
    type=click.Choice(list(FIGURE_LINES)),
    help="Which figure.  [default: every one that the tables have numbers for; with --out, the first of these]",
)
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Figure: .png, .pdf or .svg.  [default: FIGURE.png]",
)
@click.option("--dpi", default=150, show_default=True, type=click.IntRange(30, 2400))
@options.force_option
@options.config_option
def plot_command(results: tuple[str, ...], figure: str | None, out: Path | None, dpi: int, force: bool) -> None:
    """Draw figures from RESULTS, tables of manigeo capacity, e.g. of the best and of the last epoch, or of others."""
    from manigeo.plots import FIGURES, figures_of, save_figure
    from manigeo.results import named_files
    from manigeo.runs import find_tables
    from manigeo.storage.files import check_target

    found = find_tables([name for pattern in results for name in named_files(pattern)])
    options.tell_left_out(found)
    table = found.table
    names = [figure] if figure else figures_of(table) or ["geometry"]
    paths = {name: out or Path(f"{name}.png") for name in (names[:1] if out else names)}
    for path in paths.values():
        check_target(path, force=force)
    for name, path in paths.items():
        draw, _ = FIGURES[name]
        save_figure(draw(table), path, dpi, force)
        click.echo(f"wrote {path}")
    if left := [name for name in names if name not in paths]:
        click.echo(f"the tables hold more: --figure {', --figure '.join(left)}")

"""``manigeo plot``: from results tables to figures."""

from pathlib import Path

import click

from manigeo.cli import options


@click.command("plot")
@click.argument("results", nargs=-1, required=True)
@click.option(
    "--out",
    "-o",
    default="geometry.png",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Figure: .png, .pdf or .svg.",
)
@click.option("--dpi", default=150, show_default=True, type=click.IntRange(30, 2400))
@options.force_option
@options.config_option
def plot_command(results: tuple[str, ...], out: Path, dpi: int, force: bool) -> None:  # fmt: skip
    """Draw capacity, radius, dimension and centre correlation against depth, a column a checkpoint.

    RESULTS are tables of manigeo capacity (globs allowed), e.g. those of the best and of the last epoch.
    """
    from manigeo.plots import plot_geometry, save_figure
    from manigeo.results import read_results

    save_figure(plot_geometry(read_results(results)), out, dpi, force)
    click.echo(f"wrote {out}")

"""``manigeo plot``: from results tables to figures."""

from pathlib import Path

import click

from manigeo import vocabulary
from manigeo.cli import options
from manigeo.cli.commands import command


@command(
    "plot",
    lists={"Figures": [(name, words.line) for name, words in vocabulary.FIGURES.items()]},
)
@click.argument("results", nargs=-1, required=True)
@click.option(
    "--figure",
    type=click.Choice(list(vocabulary.FIGURES)),
    metavar="NAME",
    help="Figure to draw, see below.  [default: every one that the tables have numbers for; with --out, the first of these]",
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
        save_figure(FIGURES[name].draw(table), path, dpi, force)
        click.echo(f"wrote {path}")
    if left := [name for name in names if name not in paths]:
        click.echo(f"the tables hold more: --figure {', --figure '.join(left)}")

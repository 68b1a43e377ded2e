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
    """Draw figures from RESULTS, tables of manigeo capacity, e.g. of the best and of the last epoch, or of others.

    A table of manigeo examples has a figure of its own, examples.png.
    """
    from manigeo.plots import FIGURES, figures_of, save_figure
    from manigeo.results import named_files
    from manigeo.runs import find_tables
    from manigeo.storage.files import check_target

    if _of_examples(results):
        _plot_examples(results, figure, out or Path("examples.png"), dpi, force)
        return
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


def _of_examples(results: tuple[str, ...]) -> bool:
    from manigeo.results import named_files
    from manigeo.storage.recognition import EXAMPLES, recognized

    names = [name for pattern in results for name in named_files(pattern)]
    return all(Path(name).is_file() and recognized(name) == EXAMPLES for name in names)


def _plot_examples(results: tuple[str, ...], figure: str | None, out: Path, dpi: int, force: bool) -> None:
    from manigeo.errors import UsageError
    from manigeo.per_example.table import read_examples
    from manigeo.plots.examples import plot_examples
    from manigeo.plots.style import save_figure
    from manigeo.storage.files import check_target

    if figure:
        raise UsageError(f"a table of examples has one figure, and {figure} is of other tables: leave --figure out")
    check_target(out, force=force)
    save_figure(plot_examples(read_examples(results)), out, dpi, force)
    click.echo(f"wrote {out}")

"""``manigeo report``: all that is known of a run as one page."""

from pathlib import Path

import click

from manigeo.cli import options
from manigeo.cli.commands import command


@command("report")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--out",
    "-o",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page: .html.",
)
@click.option("--title", default="", help="Title of the page.  [default: of the runs]")
@options.force_option
@options.config_option
def report_command(sources: tuple[Path, ...], out: Path, title: str, force: bool) -> None:
    """One HTML page that needs no network, from RUN, a folder of manigeo train or any folder with results tables, and from
    tables named by themselves (CSV, JSON, Parquet).

    The answer of manigeo localize comes first, with every method on one axis of depth, then whether the network has
    memorized, the figures of all tables with values under the pointer, tables of manigeo examples, the tables to sort and to
    download, settings, provenance and caveats. Several runs are answered one by one and together. manigeo.report.Report adds
    figures and tables of one's own.
    """
    from manigeo.report import collect_sources, render_page, write_page
    from manigeo.storage.files import check_target

    check_target(out, force=True, suffixes=(".html", ".htm"), what="reports")  # what was asked for; then what there is
    found = collect_sources(sources)
    check_target(out, force=force)
    write_page(render_page(found, title), out, force)
    for note in found.left_out:
        click.echo(f"left out: {note}", err=True)
    n = len(found.tables)
    click.echo(
        f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB) from {n} table{'s' if n > 1 else ''}; open it in a browser"
    )

"""The figures of a report: every one that the tables have numbers for, as SVG where it is small, else as an image."""

import base64
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from manigeo.errors import InputError
from manigeo.plots import FIGURES, figures_of, save_figure
from manigeo.report.hover import COLOR_BAR, name_points
from manigeo.report.sources import ResultsFile
from manigeo.report.svg import PIXELS_A_POINT, inline_svg
from manigeo.vocabulary import FIGURES as CAPTIONS
from manigeo.vocabulary import Figure as Caption

LARGEST_SVG = 300_000  # characters; larger drawings become images, with nothing to point at
IMAGE_DPI = 130
_DRAWN_NAMES = ("run", "checkpoint", "layer", "manifold")


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the page; ``trouble`` tells why it could not be drawn."""

    figure: str
    id: str
    caption: Caption
    of: str = ""
    alt: str = ""
    svg: Markup | None = None
    image: str = ""
    width: int = 0
    trouble: str = ""


def draw_pictures(files: Sequence[ResultsFile]) -> list[Picture]:
    """The figures of all tables together; where these do not go into one, of each file that has numbers for it."""
    pictures = []
    for name in figures_of(pd.concat([file.table for file in files], ignore_index=True)):
        together = _drawn(name, name, "", files)
        apart = [file for file in files if name in figures_of(file.table)] if together.trouble else []
        if len(apart) > 1:
            pictures += [_drawn(name, f"{name}-{i}", file.name, [file]) for i, file in enumerate(apart, 1)]
        else:
            pictures.append(together)
    return pictures


def drawn_together(file: ResultsFile, name: str) -> list[Picture]:
    """One figure of a table that the page itself has made, if it can be drawn."""
    picture = _drawn(name, f"{name}-together", file.name, [file])
    return [] if picture.trouble else [picture]


def _drawn(name: str, id: str, of: str, files: Sequence[ResultsFile]) -> Picture:
    caption = CAPTIONS[name]
    rows = pd.concat([file.table for file in files], ignore_index=True).drop_duplicates(ignore_index=True)
    try:
        # a name with dollar signs is no mathematics
        figure = FIGURES[name].draw(
            rows.assign(**{column: rows[column].str.replace("$", r"\$") for column in _DRAWN_NAMES})
        )
        alt = _alt(caption, of, figure)
        svg, image = _rendered(figure, id, alt, rows)
    except (InputError, ValueError) as error:  # a table that cannot be drawn is no reason to have no report
        return Picture(name, id, caption, of, trouble=str(error))
    return Picture(name, id, caption, of, alt, svg, image, round(72 * PIXELS_A_POINT * figure.get_figwidth()))


def drawn_figure(figure: Figure, id: str, alt: str) -> tuple[Markup | None, str, int]:
    """A figure of a user's own as SVG, or as an image where it is large, and its width in pixels."""
    try:
        svg = inline_svg(_saved(figure, ".svg").decode(), id, alt, {})
    except ValueError:  # names that XML cannot hold
        svg = ""
    fits = bool(svg) and len(svg) <= LARGEST_SVG
    image = "" if fits else "data:image/png;base64," + base64.b64encode(_saved(figure, ".png")).decode()
    return (Markup(svg) if fits else None), image, round(72 * PIXELS_A_POINT * figure.get_figwidth())


def _rendered(figure: Figure, id: str, alt: str, rows: pd.DataFrame) -> tuple[Markup | None, str]:
    texts = name_points(figure, rows[rows["manifold"] == ""])
    try:
        svg = inline_svg(_saved(figure, ".svg").decode(), id, alt, texts)
    except ValueError:  # names that XML cannot hold; they are pixels in an image
        svg = ""
    if svg and len(svg) <= LARGEST_SVG:
        return Markup(svg), ""
    return None, "data:image/png;base64," + base64.b64encode(_saved(figure, ".png")).decode()


def _saved(figure: Figure, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box in the drawing; tables and points have the name
        path = Path(folder) / f"figure{suffix}"
        save_figure(figure, path, IMAGE_DPI)
        return path.read_bytes()


def _alt(caption: Caption, of: str, figure: Figure) -> str:
    panels = sum(bool(ax.has_data()) for ax in figure.axes if ax.get_label() != COLOR_BAR)
    what = f"{caption.title} of {of}" if of else caption.title
    return f"{what}: {panels} panel{'s' if panels > 1 else ''}. Its numbers are in the tables below."

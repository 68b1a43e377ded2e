"""Style that all figures share: one colour and marker per kind, one legend, titles of checkpoints, and saving."""

import functools
import inspect
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar, overload, runtime_checkable
from zlib import crc32

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from manigeo.errors import InputError, UsageError, check_choice, shorten
from manigeo.kinds import ALL_KINDS, MARKERS, VALIDATION
from manigeo.plots.canvas import LONGEST, SATURATED, Canvas, Given
from manigeo.plots.comparing import NETWORK as NETWORK
from manigeo.plots.comparing import check_once, check_one
from manigeo.results import check_table, row_settings, with_settings
from manigeo.storage.files import check_target, whole_file
from manigeo.vocabulary import FIGURES, metric_words

COLOR = dict(zip(ALL_KINDS, sns.color_palette("colorblind", len(ALL_KINDS)), strict=True))
MOST_TICKS = 14
_UNDATED = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
_OPEN = {"axes.spines.top": False, "axes.spines.right": False}
Axs = TypeVar("Axs", bound=Given)
_AX = (
    "``ax``: matplotlib axes to draw into, or an array of them, one per panel; they are returned. Without, the figure is, "
    "and a notebook shows it."
)
_METRIC = "``metric``: one of {panels}, to draw its panel alone."


@runtime_checkable
class Draw(Protocol):
    """Function that draws a results table: into a figure of its own, which it returns, or into ``ax``."""

    __name__: str

    @overload
    def __call__(self, table: pd.DataFrame, ax: None = None, metric: str | None = None) -> Figure: ...
    @overload
    def __call__(self, table: pd.DataFrame, ax: Axs, metric: str | None = None) -> Axs: ...


@contextmanager
def in_style() -> Iterator[None]:
    """The style of all figures, while they are drawn."""
    with sns.axes_style("ticks", _OPEN), sns.plotting_context("paper", font_scale=1.1):
        yield


def _signature(table: pd.DataFrame, ax: Given | None = None, metric: str | None = None) -> Figure | Given:
    """Signature that readers of the documentation are shown of every :class:`Draw`."""
    raise NotImplementedError


class Drawing(NamedTuple):
    """Function that draws a figure, and its tables: those with numbers of one of ``metrics``, where ``when`` holds, and with
    rows of all that the figure ``needs``."""

    draw: Draw
    metrics: frozenset[str]
    when: Callable[[pd.DataFrame], bool]
    needs: frozenset[str]


DRAWINGS: dict[str, Drawing] = {}


def draws(
    name: str,
    *metrics: str,
    panels: Sequence[str] = (),
    when: Callable[[pd.DataFrame], bool] = lambda table: True,
    needs: Sequence[str] = (),
    of: str | None = None,
    one: Sequence[str] = (),
) -> Callable[[Callable[[pd.DataFrame, Canvas], None]], Draw]:
    """Registers a function as the figure ``name`` of :data:`manigeo.vocabulary.FIGURES`, which also holds its docstring, and
    draws it in the style of all figures; ``panels`` are metrics that have a panel each, ``needs`` those without whose rows
    nothing is drawn, ``of`` the analysis that a table must hold, ``one`` the columns in which all rows that are drawn are
    the same, such as :data:`NETWORK`. The metrics must be such as never lack a number."""

    def register(draw: Callable[[pd.DataFrame, Canvas], None]) -> Draw:
        @functools.wraps(draw)
        def styled(table: pd.DataFrame, ax: Any = None, metric: str | None = None) -> Any:
            check_table(table)
            named = set(table["metric"])
            if named & set(metrics) and (missing := sorted(set(needs) - named)):
                raise InputError(f"nothing to plot: the table has no rows of {', '.join(missing)}; give it whole")
            check_one(table, metrics, of, one)
            check_once(table)
            canvas = Canvas(name, ax, _chosen(name, panels, metric), set(table["kind"]) - {""}, _advice(panels, metric))
            with in_style():
                draw(table, canvas)
                return canvas.finished()

        words = FIGURES[name]
        arguments = f"{_AX} {_METRIC.format(panels=', '.join(panels))}" if panels else _AX
        styled.__doc__ = f"""{words.title}.

        {words.seen} {words.read} ``table``: a results table, or several one below the other. {arguments}

        Raises :class:`~manigeo.errors.InputError` for a table without these numbers, and with rows that do not compare: at
        several settings, of other sizes, or of several runs where one is drawn; :class:`~manigeo.errors.UsageError` for
        another number of axes than there are panels.

        {_example(draw)}
        """
        vars(styled)["__signature__"] = inspect.signature(_signature)
        fits = when if of is None else lambda table: of in set(with_settings(table, "analysis")["analysis"])
        DRAWINGS[name] = Drawing(styled, frozenset(metrics), fits, frozenset(needs))
        return styled

    return register


def _chosen(name: str, panels: Sequence[str], metric: str | None) -> Sequence[str]:
    if metric is None:
        return panels
    if not panels:
        raise UsageError(f"the panels of {name} are not of single metrics: leave metric={metric!r} out")
    check_choice("metric", metric, panels)
    return (metric,)


def _advice(panels: Sequence[str], metric: str | None) -> str:
    """Remedy where there are too few axes."""
    one = f"metric= one of {', '.join(panels)}, and " if panels and metric is None else ""
    return f"{one}a part of the table: one checkpoint, kind or layer"


def _example(draw: Callable[..., None]) -> str:
    """The example in the docstring of a function, as it is indented there."""
    text = draw.__doc__ or ""
    return text[text.index(">>>") :].rstrip().replace("\n", "\n    ") if ">>>" in text else ""


def rows_of(
    table: pd.DataFrame, metrics: Iterable[str], kinds: Iterable[str] | None = None, remedy: str = ""
) -> pd.DataFrame:
    """The rows over manifolds of these metrics and kinds (None: of any but validation, which is of no curve).

    Raises :class:`~manigeo.errors.InputError` where no number is among them; ``remedy`` is the command that measures them,
    by default their family.
    """
    rows = table[(table["manifold"] == "") & table["metric"].isin(list(metrics))]
    rows = rows[rows["kind"].ne(VALIDATION) if kinds is None else rows["kind"].isin(list(kinds))]
    if rows["value"].notna().sum() == 0:
        words = [metric_words(name) for name in metrics]
        names = ", ".join(of.name for of in words)
        raise InputError(
            f"nothing to plot: the table holds no {names}; make it with manigeo {remedy or words[0].family}"
        )
    return rows


def look(kind: str) -> tuple[Any, str]:
    """Colour and marker of a kind; one that is not known has its own, whatever stands beside it.

    >>> look("test") == (COLOR["test"], "^"), look("mine") == look("mine")
    (True, True)
    """
    if kind in COLOR:
        return COLOR[kind], MARKERS[kind]
    others, key = sns.color_palette("colorblind")[len(ALL_KINDS) :], crc32(kind.encode())
    return others[key % len(others)], "PX*h<>"[key // len(others) % 6]


def setting(settings: str, name: str) -> object:
    """One of the settings of a row; None where it is not there."""
    return row_settings(settings).get(name)


def by_checkpoint(part: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each checkpoint under its title, by epoch."""
    groups = part.sort_values("epoch", kind="stable").groupby(NETWORK, sort=False, dropna=False)
    several_runs = part["run"].nunique() > 1
    titled: dict[str, pd.DataFrame] = {}
    for (run, epoch, checkpoint, _), rows in groups:
        title = ": ".join(filter(None, [run if several_runs else "", title_of(epoch, checkpoint)]))
        titled[_unused(title, titled)] = rows
    if "" in titled and len(titled) > 1:
        titled = {title or "[1]": rows for title, rows in titled.items()}
    return titled


def _unused(title: str, titled: Collection[str]) -> str:
    """Title that is not used yet: runs of one name are told apart by number."""
    names = itertools.chain([title], (f"{title} [{i}]".strip() for i in itertools.count(2)))
    return next(name for name in names if name not in titled)


def title_of(epoch: float, checkpoint: str) -> str:
    """Name and epoch, as far as they are known.

    >>> title_of(3, "last"), title_of(3, ""), title_of(np.nan, "")
    ('last (epoch 3)', 'epoch 3', '')
    """
    if np.isnan(epoch):
        return checkpoint
    return f"{checkpoint} (epoch {epoch:.0f})" if checkpoint else f"epoch {epoch:.0f}"


def draw_line(
    ax: Axes,
    line: pd.DataFrame,
    kind: str,
    x: str = "depth",
    errors: float = 1.0,
    look_of: tuple[Any, str] | None = None,
) -> None:
    """A kind's values against ``x`` with a band of so many standard errors; what is saturated is hollow. What is no kind has
    the colour and marker ``look_of``."""
    if line.empty:
        return
    at, y, error = (line[name].to_numpy(dtype=float) for name in (x, "value", "stderr"))
    color, marker = look_of or look(kind)
    ax.plot(at, y, color=color, marker=marker, markersize=4, linewidth=1.6, label=kind)
    hollow = is_saturated(line)
    if hollow.any():
        ax.plot(at[hollow], y[hollow], marker, color=color, markerfacecolor="white", markersize=4)
    ax.fill_between(at, y - errors * error, y + errors * error, color=color, alpha=0.2, linewidth=0)


def draw_layers(ax: Axes, rows: pd.DataFrame) -> str:
    """Values against the epoch, one line per layer by depth; checkpoints without an epoch are counted. Returns what x is."""
    dated = bool(rows["epoch"].notna().all())
    placed = rows.assign(x=rows["epoch"] if dated else pd.factorize(rows["fingerprint"])[0])
    for color, (_, line) in zip(by_depth(rows), placed.groupby("depth"), strict=True):
        line = line.sort_values("x")
        ax.plot(line["x"], line["value"], color=color, linewidth=1.4, marker=".", markersize=4)
    return "epoch" if dated else "checkpoint"


def draw_map(ax: Axes, wide: pd.DataFrame, size: int, **options: bool) -> None:
    """A heat map of shares with their values in letters of this size."""
    options = {"annot": True, "cbar": False, "yticklabels": True} | options
    sns.heatmap(wide, ax=ax, vmin=0, vmax=1, cmap="viridis", fmt=".2f", annot_kws={"size": size}, **options)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="y", rotation=0, length=0)


def name_colors(figure: Figure, axes: Sequence[Axes], label: str) -> None:
    """A colour bar for the heat maps of all panels."""
    figure.colorbar(axes[0].collections[0], ax=list(axes), label=label, aspect=30).outline.set_visible(False)


def is_saturated(rows: pd.DataFrame) -> np.ndarray:
    """True for rows with a number of a layer that is too narrow for it."""
    return (rows["flag"].str.contains(SATURATED) & rows["value"].notna()).to_numpy(dtype=bool)


def name_layers(ax: Axes, part: pd.DataFrame) -> None:
    layers = part.drop_duplicates("depth").sort_values("depth")
    shown = layers.iloc[:: 1 + (len(layers) - 1) // MOST_TICKS]
    names = [shorten(name, LONGEST) for name in shown["layer"]]
    ax.set_xticks(shown["depth"], names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel("layer")


def by_depth(rows: pd.DataFrame) -> list[tuple[float, float, float]]:
    return list(sns.color_palette("viridis", rows["depth"].nunique()))


def name_depths(figure: Figure, ax: Axes, rows: pd.DataFrame) -> None:
    """A colour bar that names the layers."""
    layers = rows.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    scale = ScalarMappable(Normalize(-0.5, len(layers) - 0.5), ListedColormap(by_depth(rows)))
    shown = range(0, len(layers), 1 + (len(layers) - 1) // MOST_TICKS)
    bar = figure.colorbar(scale, ax=ax, ticks=list(shown))
    bar.ax.set_yticklabels([shorten(layers[i], LONGEST) for i in shown])
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150, force: bool = False) -> None:
    """Save as PNG, PDF or SVG, by suffix; the same figure gives the same bytes.

    Raises :class:`~manigeo.errors.UsageError` as :func:`~manigeo.storage.files.check_target` does.
    """
    path = check_target(path, force=force, suffixes=tuple(_UNDATED), what="figures")
    with rc_context({"svg.hashsalt": "manigeo"}), whole_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format=path.suffix[1:], metadata=_UNDATED[path.suffix])

"""The axes that a figure is drawn into: on a figure of its own, which shows itself in a notebook, or those given."""

import io
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manigeo.errors import UsageError, shorten
from manigeo.kinds import SCORED, UNSEEN

MOST_COLUMNS = 4
FLOOR, SATURATED = "floor", "saturated"
_LEGEND_INCHES = 1.7
LONGEST = 60  # letters of a name on an axis or in a legend
_NOTEBOOK_DPI = 96  # CSS pixels per inch; twice as many are sent, for screens that show them

Inches = tuple[float, float]
Given = Axes | Sequence[Axes] | np.ndarray


class ShownFigure(Figure):
    """Figure that shows itself as the last line of a notebook's cell, without any magic.

    pyplot does not know it: it is shown once, and freed when nothing refers to it.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=2 * _NOTEBOOK_DPI)
        width, height = (round(_NOTEBOOK_DPI * inches) for inches in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}


class Canvas:
    """Axes of a figure: new ones on a figure of their own, or those that were ``given``.

    ``panels`` are the metrics to draw, of figures that have a panel for each; ``kinds`` those of the table.
    """

    def __init__(
        self,
        name: str,
        given: Any = None,
        panels: Sequence[str] = (),
        kinds: Collection[str] = (),
        advice: str = "",
    ):
        self.panels = tuple(panels)
        self._name, self._given, self._advice = name, given, advice
        self._plain = set(kinds) - {*SCORED, UNSEEN} if len(set(kinds)) == 1 else set()
        self._axes: list[Axes] = []
        self._columns = 1
        self._shared: dict[str, Any] = {}
        self.figure: Any = None

    def subplots(self, n_rows: int, n_columns: int, margins: Inches, each: Inches, **shared: Any) -> np.ndarray:
        """Axes (rows, columns): ``margins``, and so much of width and height for each panel.

        A panel is labelled as if it stood alone; what neighbours with shared axes repeat is taken off at the end.
        """

        def made(figure: Figure) -> list[Axes]:
            return list(figure.subplots(n_rows, n_columns, squeeze=False, **shared).flat)

        size = (margins[0] + each[0] * n_columns, margins[1] + each[1] * n_rows)
        axes = self.axes(n_rows * n_columns, size, made)
        self._columns, self._shared = n_columns, shared
        return np.array(axes, dtype=object).reshape(n_rows, n_columns)

    def wrapped(self, n: int, margins: Inches, each: Inches, most: int = MOST_COLUMNS, **shared: Any) -> list[Axes]:
        """``n`` axes in rows of ``most`` at the most."""
        n_columns = min(most, n)
        n_rows = -(-n // n_columns)

        def made(figure: Figure) -> list[Axes]:
            axes = figure.subplots(n_rows, n_columns, squeeze=False, **shared)
            for ax in axes.flat[n:]:
                ax.remove()
            return list(axes.flat[:n])

        size = (margins[0] + each[0] * n_columns, margins[1] + each[1] * n_rows)
        axes = self.axes(n, size, made)
        self._columns, self._shared = n_columns, shared
        return axes

    def axes(self, n: int, size: Inches, made: Callable[[Figure], list[Axes]]) -> list[Axes]:
        """``n`` axes: those given, else what ``made`` returns of a figure of this size.

        Raises :class:`~manigeo.errors.UsageError` where another number was given, with what to do.
        """
        if self._given is None:
            self.figure = ShownFigure(figsize=size, layout="constrained")
            self._axes = made(self.figure)
        else:
            self._axes = self._taken(n)
            self.figure = self._axes[0].figure
        return self._axes

    def _taken(self, n: int) -> list[Axes]:
        flat = [self._given] if isinstance(self._given, Axes) else list(np.asarray(self._given, dtype=object).flat)
        if strange := [ax for ax in flat if not isinstance(ax, Axes)]:
            raise UsageError(
                f"ax must be matplotlib axes, or an array or list of them, got {type(strange[0]).__name__}"
            )
        if len(flat) != n:
            raise UsageError(
                f"{self._name} has {n} panel{'s' if n != 1 else ''} for this table, got {len(flat)} axes: give ax an "
                f"array of {n}, as of plt.subplots({n})[1], or {self._advice}"
            )
        if len({id(ax.figure) for ax in flat}) > 1:
            raise UsageError(f"{self._name} takes axes of one figure, got axes of several")
        return flat

    @property
    def is_given(self) -> bool:
        """True where the axes are another's."""
        return self._given is not None

    def word(self, kind: str) -> str:
        """The name of a kind; nothing where all examples are of one that no method distinguishes."""
        return "" if kind in self._plain else kind

    def legend(self) -> None:
        """One legend for all panels, each label once: curves, then what is off them, in as many columns as fit; none where
        there is nothing to tell apart."""
        labelled = [pair for ax in self._axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
        handles = {label: handle for handle, label in reversed(labelled)}
        order = sorted(dict.fromkeys(label for _, label in labelled), key=lambda x: (FLOOR in x, SATURATED in x))
        order = [label for label in order if self.word(label)]
        shown = [shorten(label, LONGEST) for label in order]
        if order and self.is_given:
            self._axes[0].legend([handles[x] for x in order], shown, frameon=False)
        elif order:
            columns = max(1, min(len(order), int(self.figure.get_figwidth() / _LEGEND_INCHES)))
            self.figure.legend(
                [handles[x] for x in order], shown, loc="outside upper center", ncols=columns, frameon=False
            )

    def finished(self) -> Figure | Given:
        """The figure, or the axes as they were given."""
        if self._given is not None:
            return self._given
        n = len(self._axes)
        for place, ax in enumerate(self._axes):
            if self._shared.get("sharex") and place + self._columns < n:
                ax.set_xlabel("")
            elif self._shared.get("sharex"):
                ax.tick_params(labelbottom=True)  # also where the panel below was removed
            if self._shared.get("sharey") and place % self._columns:
                ax.set_ylabel("")
        return self.figure


def entitle(ax: Axes, title: str, loc: Any = "center") -> None:
    """Set a title where there is one: axes that were given keep theirs."""
    if title:
        ax.set_title(title, loc=loc)

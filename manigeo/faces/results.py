"""Results that show themselves: a line as text, a table in a notebook, a DataFrame, and a figure where there is one."""

import importlib
import numbers
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from manigeo.faces.numbers import cell, number
from manigeo.vocabulary import flags_words, metric_words

if TYPE_CHECKING:
    import pandas

_STYLE = "text-align:left;padding:.1em 1.2em .1em 0"


class Shown:
    """Result that shows itself. Its numbers are its fields; ``headline`` names those that its one line has.

    The error of a number is the field of its name with ``_stderr``, the part of ``stderr`` of its name, or ``stderr``, for
    the first of the headline.
    """

    headline: ClassVar[tuple[str, ...]] = ()

    @property
    def table(self) -> "pandas.DataFrame":
        """The numbers with their standard errors, one row each: ``value`` and ``stderr``, indexed by name."""
        import pandas as pd

        rows = [(name, float(value), self._error(name)) for name, value in self._numbers().items()]
        return pd.DataFrame(rows, columns=["measure", "value", "stderr"]).set_index("measure")

    def _numbers(self) -> dict[str, Any]:
        """The fields that are numbers, those of the headline first."""
        names = dict.fromkeys([*self.headline, *vars(self)])
        found = {name: getattr(self, name) for name in names if not name.endswith("stderr")}
        return {name: value for name, value in found.items() if isinstance(value, float | numbers.Integral)}

    def _error(self, name: str) -> float:
        if hasattr(self, f"{name}_stderr"):
            return float(getattr(self, f"{name}_stderr"))
        errors = getattr(self, "stderr", float("nan"))
        if isinstance(errors, tuple):
            return float(getattr(errors, name, float("nan")))
        return float(errors) if name == self.headline[0] else float("nan")

    def _cell(self, name: str) -> str:
        value = getattr(self, name)
        if isinstance(value, bool | numbers.Integral):
            return str(value)
        return cell(value, self._error(name)) if value == value else "nan"

    def __repr__(self) -> str:
        flag = getattr(self, "flag", "")
        said = [f"{name}={self._cell(name)}" for name in self.headline] + [f"flag={flag!r}"] * bool(flag)
        return f"{type(self).__name__}({', '.join(said)})"

    def _repr_html_(self) -> str:
        """Every number by its name, the sentences of the flags, and what else the result holds."""
        lines = [(metric_words(name).name, self._cell(name)) for name in self._numbers()]
        held = [f"{name} ({size})" for name in vars(self) if (size := _size(getattr(self, name)))]
        notes = [
            flags_words(flag) if (flag := getattr(self, "flag", "")) else "",
            f"holds {', '.join(held)}" if held else "",
        ]
        return html_table(type(self).__name__, lines, notes)


class Drawn(Shown):
    """Result that has a figure as well."""

    def plot(self, ax: Any = None) -> Any:
        """Draw the result into ``ax``, matplotlib axes, which are returned; without, into a figure, shown in a notebook."""
        plots = importlib.import_module("manigeo.plots.results")  # by name: numerics do not depend on figures
        return plots.draw_result(self, ax)


def html_table(title: str, lines: "list[tuple[str, str]]", notes: "list[str]") -> str:
    """A small table in HTML, of text: what is markup in it is escaped.

    >>> "<td" in html_table("Purity", [("a < b", "0.5")], ["", "note"]), html_table("a < b", [], [])[:23]
    (True, '<div><b>a &lt; b</b><ta')
    """
    body = "".join(
        f'<tr><td style="{_STYLE}">{escape(name)}</td><td style="{_STYLE}">{escape(value)}</td></tr>'
        for name, value in lines
    )
    after = "".join(f"<div>{escape(note)}</div>" for note in notes if note)
    return f'<div><b>{escape(title)}</b><table style="margin:.3em 0">{body}</table>{after}</div>'


def _size(value: Any) -> str:
    """Shape of an array or a table, number of things in a list."""
    shape = getattr(value, "shape", (len(value),) if isinstance(value, list) else ())
    return " x ".join(number(n, 12) for n in shape)

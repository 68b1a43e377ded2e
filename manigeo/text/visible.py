"""Text as a terminal may show it: characters that would steer it, or that cannot be seen, are written out.

Names of layers, classes and files come from others. Escape sequences move the cursor, set titles and hide what was said;
marks of direction turn a line round; characters without width make two names look alike.
"""

import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def visible(text: str, kept: str = "") -> str:
    r"""The text with control, formatting and undefined characters as escapes, but those ``kept``; letters of all
    scripts stay.

    >>> print(visible("conv\x1b[2J\u202e1\u200b\n"), visible("Schicht ä 層"))
    conv\x1b[2J\u202e1\u200b\n Schicht ä 層
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def visible_names(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with visible names, in one line each, of runs, checkpoints, layers, kinds, manifolds and metrics."""
    names = [name for name in ("run", "checkpoint", "layer", "kind", "manifold", "metric") if name in table.columns]
    return table.assign(**{name: table[name].map(_visible) for name in names})


def visible_content(content: Any) -> Any:
    """Lists and dicts of texts, numbers and the like, with visible texts.

    >>> print(visible_content({"layers": ["conv\\x1b"]})["layers"][0])
    conv\\x1b
    """
    if isinstance(content, dict):
        return {visible_content(key): visible_content(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [visible_content(item) for item in content]
    return _visible(content)


def _visible(value: Any) -> Any:
    return visible(value) if isinstance(value, str) else value

"""Sequences and their continuations in words."""

import pandas as pd

from manigeo.kinds import in_order
from manigeo.text.visible import visible

_WIDEST = 40  # characters of a text


def describe_suffixes(table: pd.DataFrame, most: int = 5) -> str:
    """Shares of the sequences of each kind that are continued exactly, their median distance, and the best known ones.

    >>> shown = {"kind": "typical", "sequence": 3, "exact": [True, False], "distance": [0, 7], "loss": [0.5, 9.0]}
    >>> texts = {"prefix": ["to be ", "the mo"], "suffix": ["or not", "ment is"], "answer": ["or not", "rning a"]}
    >>> print(describe_suffixes(pd.DataFrame(shown | texts)))
    kind          sequences  exact  distance
    typical               2   0.50       3.5
    <BLANKLINE>
    distance  kind       prefix and continuation
           0  typical    to be |or not
           7  typical    the mo|rning a
    """
    lines = [f"{'kind':12}  {'sequences':>9}  {'exact':>5}  {'distance':>8}"]
    for kind in in_order(table["kind"]):
        of = table[table["kind"] == kind]
        lines.append(f"{kind:12}  {len(of):9}  {of['exact'].mean():5.2f}  {of['distance'].median():8.1f}")
    lines += ["", "distance  kind       prefix and continuation"]
    for row in table.sort_values(["distance", "loss"], kind="stable").head(most).itertuples():
        shown = "|".join((_end(str(row.prefix)), _beginning(str(row.answer))))
        lines.append(f"{row.distance:8}  {row.kind:9}  {shown}")
    return "\n".join(lines)


def _end(text: str) -> str:
    return visible(text)[-_WIDEST:]


def _beginning(text: str) -> str:
    return visible(text)[:_WIDEST]

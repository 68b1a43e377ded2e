"""Table of verdicts on the claims of a paper: each by a rule, in three words."""

from typing import Any

import pandas as pd

REPRODUCED, NOT, UNTESTABLE = "reproduced", "not", "not testable here"
WORDS = (REPRODUCED, NOT, UNTESTABLE)
MIME = "application/vnd.manigeo.verdicts+json"  # the rows, as committed with a notebook, for programs


class Verdicts:
    """Verdicts row by row; the last line of a cell shows them.

    ``rule`` is stated before the number is seen, ``ours`` is the number with its error, ``n`` what it is a mean over, and
    ``paper`` what the paper says, in its own terms.

    >>> verdicts = Verdicts("mlp, digits")
    >>> verdicts.add("it falls", paper="1 to .5", rule="last below first by two errors", ours="1 to .6 ± .1", n="3 seeds", passed=True)
    >>> verdicts.untestable("on ImageNet too", paper="yes", rule="the same", takes="a GPU and the data set")
    >>> verdicts.table()["verdict"].tolist()
    ['reproduced', 'not testable here']
    """

    def __init__(self, scale: str) -> None:
        self.scale = scale  # of the rows to come: network and data
        self.rows: list[dict[str, str]] = []

    def add(self, claim: str, *, paper: str, rule: str, ours: str, n: str, passed: bool | None) -> None:
        """A row: reproduced where the rule holds, not where it does not, and not testable where it cannot decide (None)."""
        verdict = UNTESTABLE if passed is None else REPRODUCED if passed else NOT
        self._add(claim=claim, paper=paper, rule=rule, ours=ours, n=n, scale=self.scale, verdict=verdict)

    def untestable(self, claim: str, *, paper: str, rule: str, takes: str) -> None:
        """A row of a claim that nothing here can decide, with what it would take."""
        self._add(claim=claim, paper=paper, rule=rule, ours=f"it takes {takes}", n="-", scale="-", verdict=UNTESTABLE)

    def _add(self, **row: str) -> None:
        if empty := [name for name, text in row.items() if not text.strip()]:
            raise ValueError(f"a verdict states everything; {', '.join(empty)} is empty in {row['claim']!r}")
        self.rows.append(row)

    def table(self) -> pd.DataFrame:
        """One row per claim."""
        return pd.DataFrame(self.rows).set_index("claim")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        with pd.option_context("display.max_colwidth", None):
            html, text = self.table().to_html(), self.table().to_string()
        return {"text/html": html, "text/plain": text, MIME: self.rows}


def decided(difference: float, error: float, *, at_most: float) -> bool | None:
    """Whether a difference is no larger than ``at_most``: only where its error, taken twice, leaves no other answer.

    A claim that something does not differ is not shown by a difference that is merely uncertain.

    >>> decided(0.01, 0.01, at_most=0.05), decided(0.1, 0.01, at_most=0.05), decided(0.01, 0.1, at_most=0.05)
    (True, False, None)
    """
    if abs(difference) + 2 * error <= at_most:
        return True
    return False if abs(difference) - 2 * error > at_most else None

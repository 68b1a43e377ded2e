"""Memorization of single examples in words."""

import pandas as pd

from manigeo.kinds import MARKED

THRESHOLDS = (0.25, 0.5, 0.75)


def describe_memorization(table: pd.DataFrame) -> str:
    """Mean memorization of each kind, the share of examples above some thresholds, and what one standard error is.

    >>> shown = {"kind": "permuted", "metric": ["memorization", "memorization_stderr"], "value": [0.6, 0.1]}
    >>> print(describe_memorization(pd.DataFrame(shown)))
    kind          examples   mean  >=0.25   >=0.5  >=0.75
    permuted             1  0.600    1.00    1.00    0.00
    standard error of one example: 0.10 (median)
    """
    errors = table.loc[table["metric"] == "memorization_stderr", "value"]
    heads = "".join(f"  {f'>={least:g}':>6}" for least in THRESHOLDS)
    lines = [f"{'kind':12}  {'examples':>8}  {'mean':>5}{heads}".rstrip()]
    for kind, values in table[table["metric"] == "memorization"].groupby("kind", sort=False)["value"]:
        shares = "".join(f"  {(values >= least).mean():6.2f}" for least in THRESHOLDS)
        lines.append(f"{kind:12}  {len(values):8}  {values.mean():.3f}{shares}")
    return "\n".join([*lines, f"standard error of one example: {errors.median():.2f} (median)"])


def describe_marks(marks: pd.DataFrame) -> str:
    """Numbers of examples that are marked as of a kind.

    >>> describe_marks(pd.DataFrame({"kind": ["memorized", "memorized"]}))
    '2 memorized, 0 typical'
    """
    counts = marks["kind"].value_counts()
    return ", ".join(f"{counts.get(kind, 0):,} {kind}" for kind in MARKED)

"""The survey and the table of ``manigeo gradients``, printed."""

from typing import TYPE_CHECKING

import pandas as pd

from manigeo.text.cells import as_text, wide
from manigeo.vocabulary import metric_words

if TYPE_CHECKING:
    from manigeo_extract.gradients.tables import Survey

REPORTED = ("label_dependent_centred_norm", "label_independent_centred_norm", "gradient_norm", "parts_centred_cosine")


def describe_survey(survey: "Survey") -> str:
    """Describe the comparison, and the number of examples."""
    sizes = {sample.kinds[0]: len(sample.rows) for sample in survey.samples}
    limit = next((f", limited by {kind}" for kind, n in sizes.items() if n == survey.n < max(sizes.values())), "")
    lines = [
        f"{len(survey.groups)} layers x {len(survey.kinds)} kinds x {len(survey.snapshots)} checkpoints "
        f"({', '.join(snapshot.name for snapshot in survey.snapshots)}), {survey.n} examples of each kind{limit}"
    ]
    if sweep := survey.sweep:
        sizes_text = ", ".join(map(str, sweep.sizes))
        lines.append(f"and {sizes_text} examples, {sweep.repetitions} draws each, at {sweep.snapshot.name}")
    return "\n".join(lines)


def gradient_report(table: pd.DataFrame) -> str:
    """The whole network at every checkpoint, the layers at the last, and slopes: one column per kind."""
    whole = table["layer"] == "(all)"
    last = table.loc[table["metric"] == "gradient_norm", "checkpoint"].iloc[-1]
    blocks = []
    for name in REPORTED:
        rows, title = table["metric"] == name, metric_words(name).name
        blocks.append(_block(table[rows & whole], "checkpoint", f"{title}, whole network"))
        blocks.append(_block(table[rows & ~whole & (table["checkpoint"] == last)], "layer", f"{title}, {last}"))
    for name in REPORTED[:2]:
        swept = table[table["metric"] == f"{name}_sweep"]
        slopes = table[table["metric"] == name.replace("_norm", "_slope")]
        if not swept.empty:
            title = f"{metric_words(name).name}, {swept['checkpoint'].iloc[0]}"
            blocks.append(_block(swept[swept["layer"] == "(all)"], "n", f"{title}, whole network, over n examples"))
            blocks.append(_block(slopes, "layer", f"{title}, slope of log norm against log n"))
    return "\n\n".join(blocks)


def _block(rows: pd.DataFrame, line: str, title: str) -> str:
    return f"{title}\n{as_text(wide(rows, line, figures=1))}"

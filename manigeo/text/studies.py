"""The studies of ``manigeo reinit`` as text: module criticality, resets of the last layers, utilisation."""

import pandas as pd

from manigeo.manifolds import KINDS
from manigeo.results import with_settings


def study_report(table: pd.DataFrame) -> list[str]:
    """A block for each study that the table holds."""
    full = with_settings(table, "analysis", "k", "to", "steps", "chosen")
    reports = {"final_reset": _resets, "utilisation": _utilisation, "criticality": _criticality}
    return [
        report(full[full["analysis"] == name]) for name, report in reports.items() if full["analysis"].eq(name).any()
    ]


def _resets(rows: pd.DataFrame) -> str:
    accuracy = rows[rows["metric"] == "accuracy"].assign(to=lambda t: t["to"].fillna("as trained"))
    wide = accuracy.pivot(index=["k", "to", "steps"], columns="kind", values="value")
    kinds = [kind for kind in (*KINDS, "validation") if kind in wide]
    text = "last k layers reset, and trained again for some steps\n" + wide[kinds].round(3).to_string()
    gain = rows[(rows["metric"] == "accuracy_gain") & (rows["kind"] == "test")]
    if gain.empty:
        return text
    at = gain.iloc[0]
    what = "to reset nothing" if at["layer"] == "(none)" else f"{at['layer']} to {at['to']}, {at['steps']} steps"
    return f"{text}\nchosen on validation data: {what}: test accuracy {at['value']:+.3f} ± {at['stderr']:.3f}"


def _utilisation(rows: pd.DataFrame) -> str:
    probe = rows[rows["metric"] == "prefix_accuracy"]
    wide = probe.pivot(index=["depth", "layer"], columns="kind", values="value").reset_index("depth", drop=True)
    return "\n".join(["accuracy of a linear probe on the layers up to", wide.round(3).rename_axis(None).to_string()])


def _criticality(rows: pd.DataFrame) -> str:
    wide = rows.pivot(index=["depth", "layer"], columns="metric", values="value").reset_index("depth", drop=True)
    names = [name for name in ("criticality", "criticality_error", "criticality_absolute", "distance") if name in wide]
    text = "module criticality\n" + wide[names].rename_axis(index=None, columns=None).to_string(
        float_format="{:.4g}".format
    )
    flags = rows.loc[rows["flag"] != "", ["layer", "flag"]].drop_duplicates()
    return "\n".join([text, *(f"{layer}: {flag}" for layer, flag in flags.itertuples(index=False))])

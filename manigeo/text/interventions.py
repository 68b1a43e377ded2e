"""Tables of ``manigeo rewind`` and ``manigeo reinit`` as text."""

import pandas as pd

from manigeo.localization.rewinds import selected_rows
from manigeo.manifolds import KINDS
from manigeo.results import with_settings

_TITLES = {
    "last": "the last k layers",
    "each": "each layer alone",
    "prefix": "the first k layers",
    "set": "sets of layers",
}


def rewind_report(table: pd.DataFrame) -> str:
    """Accuracies after each rewind: one block per sweep and checkpoint, one line per set of layers, one column per
    kind."""
    full = with_settings(table, "sweep", "to", "to_epoch", "k")
    trained = full[full["sweep"] == "none"]
    blocks = []
    for (sweep, to, epoch), rows in full.groupby(["sweep", "to", "to_epoch"], sort=False):
        if sweep in _TITLES:
            wide = _accuracies(pd.concat([trained, rows]))
            wide["lost test accuracy regained"] = _percent(rows, wide.index)
            blocks.append(f"{_TITLES[sweep]} to {to} (epoch {epoch:.0f})\n{wide.to_string()}")
    return "\n\n".join([*blocks, describe_selection(table)])


def _accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per set of layers, in order, one column per kind."""
    wide = rows[rows["metric"] == "accuracy"].pivot(index="layer", columns="kind", values="value")
    kinds = [kind for kind in (*KINDS, "validation") if kind in wide]
    return wide.loc[list(dict.fromkeys(rows["layer"])), kinds].round(3).rename_axis(index=None, columns="accuracy")


def _percent(rows: pd.DataFrame, layers: pd.Index) -> list[str]:
    regained = rows[rows["metric"] == "regained"].drop_duplicates("layer").set_index("layer")
    value, error = (regained[name].reindex(layers) for name in ("value", "stderr"))
    return [f"{100 * v:.0f} ± {100 * e:.0f} %" if v == v else "" for v, e in zip(value, error, strict=True)]


def describe_selection(table: pd.DataFrame) -> str:
    """Describe which rewind validation data choose, and what it does to the kinds."""
    chosen = selected_rows(table)
    if chosen.empty:
        return "no validation examples, or no --last-k: nothing is chosen"
    at = with_settings(chosen, "to", "to_epoch").iloc[0]
    if at["layer"] == "(none)":
        return "chosen on validation data: to rewind nothing"
    values = chosen[chosen["metric"] == "accuracy"].set_index("kind")["value"]
    drops = chosen[chosen["metric"] == "accuracy_drop"].set_index("kind")
    changes = ", ".join(
        f"{kind} {values[kind] + drops.loc[kind, 'value']:.3f} -> {values[kind]:.3f} (± {drops.loc[kind, 'stderr']:.3f})"
        for kind in KINDS
        if kind in values
    )
    return f"chosen on validation data: {at['layer']} to {at['to']} (epoch {at['to_epoch']:.0f}): {changes}"


def reinit_report(table: pd.DataFrame) -> str:
    """Accuracies after each exchange: one block per kind, one line per layer, one column for each thing it was set to;
    and the label."""
    full = with_settings(table, "analysis", "sweep", "to", "to_epoch")
    full = full[full["analysis"] == "reinit"]
    trained = full[(full["sweep"] == "none") & (full["metric"] == "accuracy")].set_index("kind")["value"]
    each = full[(full["sweep"] == "each") & (full["metric"] == "accuracy")]
    blocks = []
    for kind in [kind for kind in KINDS if kind in trained]:
        part = each[each["kind"] == kind]
        cells = part.assign(
            cell=[_cell(v, e, n) for v, e, n in zip(part["value"], part["stderr"], part["to"], strict=True)]
        )
        wide = cells.pivot(index="layer", columns="to", values="cell").loc[
            list(dict.fromkeys(part["layer"])), list(dict.fromkeys(part["to"]))
        ]
        if kind == "test":
            wide = wide.assign(**_labels(full))
        blocks.append(wide.rename_axis(index=None, columns=f"{kind} ({trained[kind]:.3f} as trained)").to_string())
    return "\n\n".join([*blocks, *_together(full), *_undrawn(full)])


def _cell(value: float, error: float, to: str) -> str:
    if value != value:
        return "-"
    return f"{value:.3f} ± {error:.3f}" if to == "fresh draw" and error == error else f"{value:.3f}"


def _labels(full: pd.DataFrame) -> dict[str, list[str]]:
    """Critical or robust, by the test accuracy with the layer at its initial values."""
    initial = full[(full["metric"] == "critical") & (full["to_epoch"] == 0) & (full["sweep"] == "each")]
    of_test = initial[initial["kind"] == "test"]
    words = {1.0: "critical", 0.0: "robust"}
    return {"re-initialised": [words.get(value, "-") for value in of_test["value"]]} if len(of_test) else {}


def _together(full: pd.DataFrame) -> list[str]:
    """Layers re-initialised at once."""
    several = full[full["sweep"].isin(["prefix", "last", "set"])]
    if several.empty:
        return []
    return ["re-initialised together\n" + _accuracies(several).to_string()]


def _undrawn(full: pd.DataFrame) -> list[str]:
    flags = full.loc[full["flag"].str.startswith("not_drawn"), "flag"].unique()
    return [flag.removeprefix("not_drawn: ") for flag in flags]

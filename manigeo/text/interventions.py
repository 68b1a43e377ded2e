"""The tables of ``manigeo rewind`` and ``manigeo reinit``, and of the studies that these add, printed."""

import pandas as pd

from manigeo.kinds import SCORED, memorized_kind
from manigeo.localization.rewinds import selected_rows
from manigeo.results import with_settings
from manigeo.text.cells import NOTHING, as_text, renamed, wide
from manigeo.vocabulary import flags_words, metric_words

_TITLES = {
    "last": "the last k layers",
    "each": "each layer alone",
    "prefix": "the first k layers",
    "set": "sets of layers",
}
_CRITICALITIES = ("criticality", "criticality_error", "criticality_absolute", "distance")


def rewind_report(table: pd.DataFrame) -> str:
    """Accuracies after each rewind: one block per sweep and checkpoint, one line per set of layers, one column per kind;
    and what single layers and pairs of them hold of what was memorized."""
    full = with_settings(table, "sweep", "to", "to_epoch", "k", "direction")
    trained = full[full["sweep"] == "none"]
    into_last = full[full["direction"] != "into_before"]
    blocks = []
    for (sweep, to, epoch), rows in into_last.groupby(["sweep", "to", "to_epoch"], sort=False):
        if sweep in _TITLES:
            accuracies = _accuracies(pd.concat([trained, rows]))
            accuracies[metric_words("regained").name] = _percent(rows, accuracies.index)
            blocks.append(f"{_TITLES[sweep]} to {to} (epoch {epoch:.0f})\n{as_text(accuracies, 'accuracy')}")
    kind = memorized_kind(set(full["kind"]))
    for (to, epoch), rows in full[full["kind"] == kind].groupby(["to", "to_epoch"], sort=False):
        blocks += _held(rows, f"{kind} accuracy", f"{to} (epoch {epoch:.0f})")
        blocks += _pairs(rows, f"{kind} accuracy", f"{to} (epoch {epoch:.0f})")
    return "\n\n".join([*blocks, describe_selection(table)])


# column -> the sweep, direction and metric that it shows of examples that memorization alone answers
_HELD = {
    "lost when set back": ("each", "into_last", "accuracy_drop"),
    "lost under noise": ("noise", "into_last", "accuracy_drop"),
    "gained in the earlier network": ("each", "into_before", "accuracy_gain"),
    "lost after retraining, beyond the control": ("retrain", "into_last", "accuracy_drop_beyond_control"),
}
_MOST_PAIRS = 10


def _held(rows: pd.DataFrame, what: str, to: str) -> list[str]:
    """Accuracy that each layer holds, by every exchange that was made."""
    place = list(zip(rows["sweep"], rows["direction"], rows["metric"], strict=True))
    found = {name: rows[[at == key for at in place]].assign(shown=name) for name, key in _HELD.items()}
    shown = [part for part in found.values() if len(part)]
    if len(shown) < 2:
        return []
    cells = wide(pd.concat(shown), column="shown", digits=metric_words("accuracy_drop").digits)
    return [f"{what}, each layer alone, and {to}\n" + as_text(cells[[name for name in found if name in cells]])]


def _pairs(rows: pd.DataFrame, what: str, to: str) -> list[str]:
    """The pairs of the largest interactions."""
    pairs = rows[rows["sweep"] == "pair"]
    shown = pairs[pairs["metric"].isin(["accuracy_drop", "interaction"])]
    if shown.empty:
        return []
    size = shown[shown["metric"] == "interaction"].set_index("layer")["value"].abs()
    order = size.sort_values(ascending=False, kind="stable").index[:_MOST_PAIRS]
    cells = wide(shown, column="metric", digits=metric_words("interaction").digits).loc[order]
    title = f"{what} lost with pairs of layers to {to}"
    title += f" ({_MOST_PAIRS} of {len(size)})" if len(size) > _MOST_PAIRS else ""
    return [title + "\n" + as_text(renamed(cells))]


def _accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    return wide(rows[rows["metric"] == "accuracy"], digits=metric_words("accuracy").digits, errors=False)


def _percent(rows: pd.DataFrame, layers: pd.Index) -> list[str]:
    regained = rows[rows["metric"] == "regained"].drop_duplicates("layer").set_index("layer")
    value, error = (regained[name].reindex(layers) for name in ("value", "stderr"))
    return [f"{100 * v:.0f} ± {100 * e:.0f} %" if v == v else "" for v, e in zip(value, error, strict=True)]


def describe_selection(table: pd.DataFrame) -> str:
    """Describe which rewind validation data choose, and what it does to the kinds."""
    chosen = selected_rows(table)
    if chosen.empty:
        return "no choice on validation data: there are no validation examples, or --last-k was not given"
    at = with_settings(chosen, "to", "to_epoch").iloc[0]
    if at["layer"] == "(none)":
        return "chosen on validation data: to rewind nothing"
    values = chosen[chosen["metric"] == "accuracy"].set_index("kind")["value"]
    drops = chosen[chosen["metric"] == "accuracy_drop"].set_index("kind")
    changes = ", ".join(
        f"{kind} {values[kind] + drops.loc[kind, 'value']:.3f} -> {values[kind]:.3f} (± {drops.loc[kind, 'stderr']:.3f})"
        for kind in SCORED
        if kind in values
    )
    return f"chosen on validation data: {at['layer']} to {at['to']} (epoch {at['to_epoch']:.0f}): {changes}"


def reinit_report(table: pd.DataFrame) -> str:
    """Accuracies after each exchange: one block per kind, one line per layer, one column per value it was set to; and
    whether the layer is critical; then the studies that the table holds."""
    every = with_settings(table, "analysis", "sweep", "to", "to_epoch", "k", "steps", "chosen")
    full = every[every["analysis"] == "reinit"]
    trained = full[(full["sweep"] == "none") & (full["metric"] == "accuracy")].set_index("kind")["value"]
    each = full[(full["sweep"] == "each") & (full["metric"] == "accuracy")]
    each = each.assign(stderr=each["stderr"].where(each["to"] == "fresh draw"))
    blocks = []
    for kind in [kind for kind in SCORED if kind in trained]:
        cells = wide(each[each["kind"] == kind], column="to", digits=metric_words("accuracy").digits)
        if kind == "test":
            cells = cells.assign(**_labels(full))
        blocks.append(as_text(cells, f"{kind} ({trained[kind]:.3f} as trained)"))
    studies = {"final_reset": _resets, "utilisation": _utilisation, "criticality": _criticality}
    found = [
        report(every[every["analysis"] == name]) for name, report in studies.items() if name in set(every["analysis"])
    ]
    return "\n\n".join([*blocks, *_together(full), *_undrawn(full), *found])


def _labels(full: pd.DataFrame) -> dict[str, list[str]]:
    """Critical or robust, by the test accuracy with the layer at its initial values."""
    initial = full[(full["metric"] == "critical") & (full["to_epoch"] == 0) & (full["sweep"] == "each")]
    of_test = initial[initial["kind"] == "test"]
    words = {1.0: "critical", 0.0: "robust"}
    return {"re-initialised": [words.get(value, NOTHING) for value in of_test["value"]]} if len(of_test) else {}


def _together(full: pd.DataFrame) -> list[str]:
    """Layers re-initialised at once."""
    several = full[full["sweep"].isin(["prefix", "last", "set"])]
    return [] if several.empty else ["re-initialised together\n" + as_text(_accuracies(several), "accuracy")]


def _undrawn(full: pd.DataFrame) -> list[str]:
    flags = full.loc[full["flag"].str.startswith("not_drawn"), "flag"].unique()
    return [flag.removeprefix("not_drawn: ") for flag in flags]


def _resets(rows: pd.DataFrame) -> str:
    accuracy = rows[rows["metric"] == "accuracy"].assign(to=lambda t: t["to"].fillna("as trained"))
    cells = wide(accuracy, ["k", "to", "steps"], digits=metric_words("accuracy").digits, errors=False)
    text = "last k layers reset, and trained again for some steps\n" + as_text(cells, "accuracy")
    gain = rows[(rows["metric"] == "accuracy_gain") & (rows["kind"] == "test")]
    if gain.empty:
        return text
    at = gain.iloc[0]
    what = "to reset nothing" if at["layer"] == "(none)" else f"{at['layer']} to {at['to']}, {at['steps']} steps"
    return f"{text}\nchosen on validation data: {what}: test accuracy {at['value']:+.3f} ± {at['stderr']:.3f}"


def _utilisation(rows: pd.DataFrame) -> str:
    probe = rows[rows["metric"] == "prefix_accuracy"].sort_values("depth", kind="stable")
    cells = wide(probe, digits=metric_words("prefix_accuracy").digits, errors=False)
    return "accuracy of a linear probe on the layers up to\n" + as_text(cells)


def _criticality(rows: pd.DataFrame) -> str:
    shown = rows[rows["metric"].isin(_CRITICALITIES)].sort_values("depth", kind="stable")
    cells = wide(shown, column="metric", errors=False)
    text = "module criticality\n" + as_text(renamed(cells[[name for name in _CRITICALITIES if name in cells]]))
    flags = rows.loc[rows["flag"] != "", ["layer", "flag"]].drop_duplicates()
    return "\n".join([text, *(f"{layer}: {flags_words(flag)}" for layer, flag in flags.itertuples(index=False))])

"""The table of ``manigeo separability`` as text: values by layer and kind, best layers, and what agrees on them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("unpermuted", "permuted", "restored", "test", "unseen")

# metric -> its name in the report, digits
REPORTED = {
    "probe_accuracy": ("probe accuracy", 3),
    "knn_purity_1": ("nearest neighbour", 3),
    "knn_purity_class": ("n_c - 1 neighbours", 3),
    "kmeans_nmi": ("k-means NMI g", 3),
    "nearest_mean_accuracy": ("nearest mean", 3),
    "fisher_ratio": ("Fisher ratio", 2),
    "separable_ovr": ("separable from the rest", 2),
    "margin_ovr": ("margin to the rest", 4),
    "margin_pairs": ("margin of pairs", 3),
}


def separability_report(table: "pd.DataFrame") -> str:
    """The aggregates, a section a checkpoint where there are several; then what checkpoints agree on, and flags."""
    from manigeo.results import with_settings

    aggregates = with_settings(table[table["manifold"] == ""], "trained_on", "measure", "analysis")
    several = aggregates.loc[aggregates["fingerprint"] != "", "fingerprint"].nunique() > 1
    blocks = []
    for fingerprint, part in aggregates.groupby("fingerprint", sort=False):
        if fingerprint:
            blocks += [f"== {_checkpoint(part)} =="] if several else []
            blocks += _section(part)
    return "\n\n".join([*blocks, *_agreements(aggregates, "agreement_of_checkpoints", "measure"), *_flags(aggregates)])


def _checkpoint(part: "pd.DataFrame") -> str:
    checkpoint, epoch = part[["checkpoint", "epoch"]].iloc[0]
    return f"{checkpoint or 'checkpoint'}" + (f" (epoch {epoch:g})" if epoch == epoch else "")


def _section(part: "pd.DataFrame") -> Iterator[str]:
    for metric, (name, digits) in REPORTED.items():
        if metric in set(part["metric"]):
            yield _block(part, metric, name, digits)
    yield from _transfers(part)
    yield from _best_layers(part)
    yield from _agreements(part, "agreement_of_measures", "analysis")


def _block(part: "pd.DataFrame", metric: str, name: str, digits: int) -> str:
    wide = _by_layer(part[part["metric"] == metric], digits)
    for reference in ("chance", "ceiling"):
        of_kind = part[part["metric"] == f"{metric}_{reference}"].groupby("kind")["value"].mean()
        if len(of_kind):
            wide.loc[f"({reference})"] = [_cell(of_kind.get(kind, float("nan")), digits) for kind in wide.columns]
    return _text(wide, name)


def _by_layer(rows: "pd.DataFrame", digits: int) -> "pd.DataFrame":
    """One line per layer, one column per kind: value and standard error."""
    cells = [_cell(value, digits, error) for value, error in zip(rows["value"], rows["stderr"], strict=True)]
    wide = rows.assign(cell=cells).pivot(index=["depth", "layer"], columns="kind", values="cell")
    return wide.reset_index("depth", drop=True)


def _text(wide: "pd.DataFrame", name: str) -> str:
    kinds = [kind for kind in KINDS if kind in wide]
    return wide[kinds].rename_axis(index=None, columns=name).to_string(na_rep="-")


def _cell(value: float, digits: int, error: float = float("nan")) -> str:
    if value != value:
        return "-"
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error == error else "")


def _transfers(part: "pd.DataFrame") -> Iterator[str]:
    """Probes of each kind, scored on the others."""
    rows = part[part["metric"] == "transfer_accuracy"]
    for origin in (kind for kind in KINDS if rows["trained_on"].eq(kind).any()):
        yield _text(_by_layer(rows[rows["trained_on"].eq(origin)], 3), f"probe of {origin} on")


def _best_layers(part: "pd.DataFrame") -> Iterator[str]:
    """One line per measure, one column per kind: layer, interval, value, and by how much choosing it was optimistic."""
    rows = part[part["metric"].str.startswith("best_")]
    if rows.empty:
        return
    cells = rows.groupby(["measure", "kind"]).apply(_best_cell).unstack("kind")
    order = [measure for measure in REPORTED if measure in cells.index]
    order += [measure for measure in cells.index if measure not in order]
    yield _text(cells.loc[order], "best layer")
    yield (
        "in brackets 95 % over classes; then the value there and, where the layer is chosen on one half of the examples\n"
        "and scored on the other, how much lower that is than the best of the half it is scored on"
    )


def _best_cell(of: "pd.DataFrame") -> str:
    layers, values = of.set_index("metric")["layer"], of.set_index("metric")["value"]
    low, high = layers["best_layer_ci_low"], layers["best_layer_ci_high"]
    cell = f"{layers['best_layer']} [{low}{'' if low == high else f' .. {high}'}] {values['best_value']:.3f}"
    if "best_value_split" not in values:
        return cell
    return cell + f" (-{values['best_value_halves'] - values['best_value_split']:.3f})"


def _agreements(part: "pd.DataFrame", name: str, line: str) -> Iterator[str]:
    """Kendall's W of the rankings of layers: one line per measure or for the measures together, one column per kind."""
    rows = part[part["metric"].isin([name, f"{name}_ci_low", f"{name}_ci_high"])]
    if rows.empty:
        return
    what = name.removeprefix("agreement_of_")
    rows = rows.assign(line=rows[line].astype(str).str.replace(name, "all", regex=False))
    values = rows.pivot(index=["line", "kind"], columns="metric", values="value")
    cells = values.apply(lambda v: f"{v[name]:.2f} [{v[f'{name}_ci_low']:.2f}, {v[f'{name}_ci_high']:.2f}]", axis=1)
    yield _text(cells.unstack("kind"), f"W of {int(rows['n'].max())} {what}")
    yield f"Kendall's W: 1 where {what} rank the layers alike; in brackets 95 % over classes"


def _flags(aggregates: "pd.DataFrame") -> Iterator[str]:
    flagged = aggregates[aggregates["flag"] != ""]
    layers = flagged.groupby(["kind", "flag"])["layer"].agg(lambda names: ", ".join(dict.fromkeys(names)))
    said = [f"{kind}: {flag} ({names})" for (kind, flag), names in layers.items()]
    if said:
        yield "flags: " + "; ".join(said)

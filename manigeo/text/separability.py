"""The plan and the table of ``manigeo separability``, printed: values by layer and kind, best layers, agreement on them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from manigeo.kinds import in_order
from manigeo.results import with_settings
from manigeo.text.cells import NOTHING, as_text, cell, duration, flag_lines, wide
from manigeo.text.geometry import limits
from manigeo.vocabulary import metric_words

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.layerwise.plan import Plan

REPORTED = (
    "probe_accuracy", "knn_purity_1", "knn_purity_class", "kmeans_nmi", "nearest_mean_accuracy", "fisher_ratio",
    "separation_fuzziness", "unitmem", "cka", "procrustes_angle", "separable_ovr", "margin_ovr", "margin_pairs",
)  # fmt: skip
LATENT = {
    "latent_mean": "nearest mean", "latent_neighbours": "neighbours", "latent_subspace": "least angle",
    "latent_linear": "linear probe", "network_accuracy": "network",
}  # fmt: skip
_LONGEST = 16  # characters of a layer's name where three of them stand on a line


def describe_plan(plan: "Plan") -> str:
    """Describe what is measured, on which sample, and about how long it takes."""
    numbers = {kind: len(labels) for kind, labels in plan.classes.items() if kind not in plan.excluded}
    kinds = ", ".join(f"{kind} {n} classes" for kind, n in numbers.items())
    lines = [
        f"{plan.path}: {len(plan.layers)} layers; {kinds}, each of M = {plan.per_class} examples",
        f"{len(plan.tasks)} tasks of {plan.task_bytes / 1e6:.0f} MB at most, about {duration(plan.seconds)} on one core: "
        + "; ".join(measure.describe() for measure in plan.measures),
    ]
    return "\n".join([*lines, *limits(plan)])


def separability_report(table: "pd.DataFrame") -> str:
    """The aggregates, one section per checkpoint where there are several; then what checkpoints agree on, and flags."""
    aggregates = with_settings(table[table["manifold"] == ""], "measure", "trained_on", "analysis")
    several = aggregates.loc[aggregates["fingerprint"] != "", "fingerprint"].nunique() > 1
    blocks = []
    for fingerprint, part in aggregates.groupby("fingerprint", sort=False):
        if fingerprint:
            blocks += [f"== {_checkpoint(part)} =="] if several else []
            blocks += _section(part.sort_values("depth", kind="stable"))
    return "\n\n".join(
        [*blocks, *_agreements(aggregates, "agreement_of_checkpoints", "measure"), *flag_lines(aggregates)]
    )


def _checkpoint(part: "pd.DataFrame") -> str:
    checkpoint, epoch = part[["checkpoint", "epoch"]].iloc[0]
    return f"{checkpoint or 'checkpoint'}" + (f" (epoch {epoch:g})" if epoch == epoch else "")


def _section(part: "pd.DataFrame") -> Iterator[str]:
    for name in REPORTED:
        if name in set(part["metric"]):
            yield _block(part, name)
    yield from _law_of_separation(part)
    yield from _latent_generalization(part)
    yield from _transfers(part)
    yield from _best_layers(part)
    yield from _agreements(part, "agreement_of_measures", "analysis")


def _block(part: "pd.DataFrame", name: str) -> str:
    digits = metric_words(name).digits
    table = wide(part[part["metric"] == name], digits=digits)
    for reference in ("chance", "ceiling"):
        of_kind = part[part["metric"] == f"{name}_{reference}"].groupby("kind")["value"].mean()
        if len(of_kind):
            table.loc[f"({reference})"] = [
                cell(of_kind.get(kind, float("nan")), digits=digits) for kind in table.columns
            ]
    return as_text(table, metric_words(name).name)


def _law_of_separation(part: "pd.DataFrame") -> Iterator[str]:
    """Correlation of log fuzziness with depth, and its line, by kind, over the layers that compare."""
    import pandas as pd

    from manigeo.separability.fuzziness import exponential_line

    rows = part[(part["metric"] == "separation_fuzziness") & (part["flag"] == "") & (part["value"] > 0)]
    if rows.empty:
        return
    found = {
        kind: exponential_line(*rows.loc[rows["kind"] == kind, ["depth", "value"]].to_numpy().T)
        for kind in in_order(rows["kind"])
    }
    lines = pd.DataFrame(found, ["Pearson r of log D with depth", "factor per layer"])
    yield as_text(lines.map(lambda value: cell(value, digits=3)), "law of separation")


def _latent_generalization(part: "pd.DataFrame") -> Iterator[str]:
    """Classifiers of training labels on test examples, one column each, and the network itself."""
    names = [name for name in LATENT if name in set(part["metric"])]
    if names:
        rows = part[part["metric"].isin(names)]
        table = wide(rows, column="metric", digits=metric_words(names[0]).digits)[names]
        yield as_text(table.rename(columns=LATENT), "latent generalization")


def _transfers(part: "pd.DataFrame") -> Iterator[str]:
    """Probes of each kind, scored on the others."""
    rows = part[part["metric"] == "transfer_accuracy"]
    for origin in in_order(rows["trained_on"].dropna()):
        digits = metric_words("transfer_accuracy").digits
        yield as_text(wide(rows[rows["trained_on"] == origin], digits=digits), f"probe of {origin} on")


def _best_layers(part: "pd.DataFrame") -> Iterator[str]:
    """Layer, interval, value, and by how much choosing it was optimistic: one line per measure and kind."""
    import pandas as pd

    rows = part[part["metric"].str.startswith("best_")]
    if rows.empty:
        return
    cells = {place: _best_cells(of) for place, of in rows.groupby(["measure", "kind"])}
    measures = dict.fromkeys([*REPORTED, *(measure for measure, _ in cells)])
    order = [(m, kind) for m in measures for kind in in_order(kind for _, kind in cells) if (m, kind) in cells]
    lines = pd.MultiIndex.from_tuples([(metric_words(m).name, kind) for m, kind in order])
    table = pd.DataFrame([cells[place] for place in order], lines, ["layer", "95 % over classes", "value", "optimism"])
    yield as_text(table.rename_axis(index=["best layer", ""]))
    yield (
        "value at that layer; optimism: where the layer is chosen on one half of the examples and scored on the\n"
        "other, how much lower that is than the best of the half it is scored on"
    )


def _best_cells(of: "pd.DataFrame") -> tuple[str, str, str, str]:
    layers, values = of.set_index("metric")["layer"].map(_short), of.set_index("metric")["value"]
    low, high = layers["best_layer_ci_low"], layers["best_layer_ci_high"]
    best = cell(values["best_value"], digits=metric_words("best_value").digits)
    halves = "best_value_split" in values
    lost = f"{values['best_value_halves'] - values['best_value_split']:.3f}" if halves else NOTHING
    return layers["best_layer"], low if low == high else f"{low} .. {high}", best, lost


def _short(layer: str) -> str:
    """A name that leaves three of its kind room on a line: its beginning and its end, which tell layers apart.

    >>> _short("features.denseblock4.denselayer16.conv2"), _short("h1.linear")
    ('feat...16.conv2', 'h1.linear')
    """
    return layer if len(layer) <= _LONGEST else f"{layer[:4]}...{layer[7 - _LONGEST :]}"


def _agreements(part: "pd.DataFrame", name: str, line: str) -> Iterator[str]:
    """Kendall's W of the rankings of layers: one line per measure or the measures together, one column per kind."""
    rows = part[part["metric"].isin([name, f"{name}_ci_low", f"{name}_ci_high"])]
    if rows.empty:
        return
    what = name.removeprefix("agreement_of_")
    rows = rows.assign(line=["all" if of == name else metric_words(of).name for of in rows[line]])
    values = rows.pivot(index=["line", "kind"], columns="metric", values="value")
    cells = values.apply(lambda v: f"{v[name]:.2f} [{v[f'{name}_ci_low']:.2f}, {v[f'{name}_ci_high']:.2f}]", axis=1)
    cells = cells.unstack("kind")
    yield as_text(cells[in_order(cells.columns)], f"W of {int(rows['n'].max())} {what}")
    yield f"Kendall's W: 1 where {what} rank the layers alike; in brackets 95 % over classes"

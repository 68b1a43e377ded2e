"""Figures of separability: against depth, over epochs, from kind to kind, beside the capacity of permuted labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manigeo.errors import InputError
from manigeo.kinds import in_order, memorized_kind
from manigeo.plots.canvas import MOST_COLUMNS, Canvas, entitle
from manigeo.plots.style import (
    NETWORK,
    by_checkpoint,
    draw_layers,
    draw_line,
    draw_map,
    draws,
    look,
    name_colors,
    name_depths,
    name_layers,
    rows_of,
    setting,
)
from manigeo.separability.fuzziness import exponential_line
from manigeo.vocabulary import in_words_of, metric_words

SEPARABILITY_PANELS = (
    "probe_accuracy", "nearest_mean_accuracy", "knn_purity_1", "knn_purity_class", "kmeans_nmi", "margin_ovr",
)  # fmt: skip
_OVER_EPOCHS = ("kmeans_nmi", "probe_accuracy")
_LATENT = ("latent_mean", "latent_neighbours", "latent_subspace", "latent_linear")
_NORMAL_95 = 1.96
_MOST_MAPS = 8  # layers, of more every second, third ...


@draws("separability", *SEPARABILITY_PANELS, panels=SEPARABILITY_PANELS)
def plot_separability(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``separability``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "probe_accuracy", "kind": "test", "n": 9}
    >>> rows = [row | {"layer": x, "depth": i, "value": 0.5 + 0.2 * i} for i, x in enumerate("ab")]
    >>> plot_separability(as_table(rows)).axes[0].lines[0].get_ydata().tolist()
    [0.5, 0.7]
    """
    part = _aggregates(table, canvas.panels)
    panels = [metric for metric in canvas.panels if metric in set(part["metric"])]
    columns = by_checkpoint(part)
    axes = canvas.subplots(len(panels), len(columns), (1.2, 0.9), (4.2, 2.2), sharex="col", sharey="row")
    for (title, rows), column in zip(columns.items(), axes.T, strict=True):
        every = table[table["fingerprint"] == rows["fingerprint"].iloc[0]]
        for metric, ax in zip(panels, column, strict=True):
            _draw_profiles(ax, rows[rows["metric"] == metric])
            _draw_references(ax, every, metric)
            name_layers(ax, rows)
            ax.set_ylabel(metric_words(metric).label)
        entitle(column[0], title)
    canvas.legend()


@draws("fuzziness", "separation_fuzziness")
def plot_fuzziness(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``fuzziness``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "separation_fuzziness", "kind": "test", "n": 9}
    >>> rows = [row | {"layer": x, "depth": i, "value": 8.0 / 2**i} for i, x in enumerate("abc")]
    >>> plot_fuzziness(as_table(rows)).axes[0].lines[1].get_label()
    'test: r = -1.000'
    """
    part = _aggregates(table, ["separation_fuzziness"])
    part = part[part["value"] > 0]
    comparable = part[part["flag"] == ""]
    columns = by_checkpoint(part if comparable.empty else comparable)
    axes = canvas.subplots(1, len(columns), (1.2, 1.2), (4.2, 3.2), sharey=True)[0]
    for (title, rows), ax in zip(columns.items(), axes, strict=True):
        for kind in in_order(rows["kind"]):
            _draw_law(ax, rows[rows["kind"] == kind].sort_values("depth"), kind)
        name_layers(ax, rows)
        ax.set(yscale="log", ylabel=metric_words("separation_fuzziness").label)
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        entitle(ax, title)


def _draw_law(ax: Axes, line: pd.DataFrame, kind: str) -> None:
    """A kind's fuzziness, and the line of its logarithm."""
    draw_line(ax, line, kind, errors=_NORMAL_95)
    depths = line["depth"].to_numpy(dtype=float)
    r, factor = exponential_line(depths, line["value"].to_numpy())
    if np.isfinite(r):
        fitted = np.exp(np.log(line["value"]).mean()) * factor ** (depths - depths.mean())
        ax.plot(depths, fitted, "--", color=look(kind)[0], linewidth=1, label=f"{kind}: r = {r:.3f}")


@draws("latent", *_LATENT)
def plot_latent(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``latent``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "latent_subspace", "kind": "test", "n": 9}
    >>> plot_latent(as_table([row | {"layer": "a", "depth": 0, "value": 0.6}])).axes[0].lines[0].get_label()
    'least angle to subspaces'
    """
    part = _aggregates(table, [*_LATENT, "network_accuracy"])
    columns = by_checkpoint(part)
    axes = canvas.subplots(1, len(columns), (1.2, 1.2), (4.2, 3.0), sharey=True)[0]
    for (title, rows), ax in zip(columns.items(), axes, strict=True):
        for i, metric in enumerate(_LATENT):
            line = rows[rows["metric"] == metric].sort_values("depth")
            if line["value"].notna().any():
                name = metric_words(metric).name.removesuffix(" of training labels")
                draw_line(ax, line, name, errors=_NORMAL_95, look_of=(f"C{i}", "osD^"[i]))
        network = rows.loc[(rows["metric"] == "network_accuracy") & (rows["flag"] == ""), "value"].mean()
        chance = table.loc[table["metric"].isin([f"{metric}_chance" for metric in _LATENT]), "value"].mean()
        for level, dashes, name in ((network, "--", "network"), (chance, ":", "chance")):
            if np.isfinite(level):
                ax.axhline(level, color="0.4", linestyle=dashes, linewidth=1, label=name)
        name_layers(ax, rows)
        ax.set_ylabel("accuracy on test examples")
        entitle(ax, title)
    canvas.legend()


@draws("progress", *_OVER_EPOCHS, panels=_OVER_EPOCHS, one=["run"], when=lambda table: shows_progress(table))
def plot_progress(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``progress``.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "probe_accuracy", "kind": "test", "layer": "a", "depth": 0, "n": 9}
    >>> figure = plot_progress(as_table([row | {"epoch": epoch, "value": 0.1 * epoch} for epoch in (1, 2)]))
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_title()
    ('epoch', 'test')
    """
    part = _aggregates(table, canvas.panels)
    if not shows_progress(table):
        raise InputError("one epoch is no curve: give manigeo separability the activations of several checkpoints")
    panels = [metric for metric in canvas.panels if metric in set(part["metric"])]
    kinds = in_order(part["kind"])
    axes = canvas.subplots(len(panels), len(kinds), (1.6, 0.6), (3.0, 2.8), sharex=True, sharey="row")
    for metric, line in zip(panels, axes, strict=True):
        for kind, ax in zip(kinds, line, strict=True):
            rows = part[(part["metric"] == metric) & (part["kind"] == kind)]
            draw_layers(ax, rows)
            chance = table.loc[(table["metric"] == f"{metric}_chance") & (table["kind"] == kind), "value"].mean()
            if np.isfinite(chance):
                ax.axhline(chance, color="0.4", linestyle=":", linewidth=1)
            ax.set(xlabel="epoch", ylabel=metric_words(metric).label)
        name_depths(canvas.figure, line[-1], part)
    for kind, top in zip(kinds, axes[0], strict=True):
        entitle(top, canvas.word(kind))


@draws("transfer", "transfer_accuracy")
def plot_transfer(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``transfer``.

    >>> from manigeo.results import as_table
    >>> row = {"layer": "a", "depth": 0, "value": 0.5}
    >>> pairs = [("test", "restored"), ("restored", "test")]  # scored on, trained on
    >>> rows = [row | {"metric": "probe_accuracy", "kind": kind, "n": 9} for kind, _ in pairs]
    >>> rows += [row | {"metric": "transfer_accuracy", "kind": kind, "settings": f'{{"trained_on": "{origin}"}}'}
    ...          for kind, origin in pairs]
    >>> figure = plot_transfer(as_table(rows))
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['restored', 'test']
    """
    part = _aggregates(table, ["probe_accuracy", "transfer_accuracy"])
    part = part.assign(origin=[setting(s, "trained_on") for s in part["settings"]])
    part["origin"] = part["origin"].where(part["origin"].notna(), part["kind"])
    layers = part.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    layers = layers[:: -(-len(layers) // _MOST_MAPS)]
    kinds = in_order(part.loc[part["metric"] == "transfer_accuracy", "kind"])
    if len(kinds) < 2:
        raise InputError("nothing to plot: the table holds no probes scored on other kinds")
    rows = by_checkpoint(part)
    maps = [(title, at[at["layer"] == layer], layer) for title, at in rows.items() for layer in layers]
    most = len(layers) if len(rows) > 1 else MOST_COLUMNS
    axes = canvas.wrapped(len(maps), (1.2, 0.9), (1.9, 2.1), most, sharex=True, sharey=True)
    for ax, (title, of_layer, layer) in zip(axes, maps, strict=True):
        wide = of_layer.pivot(index="origin", columns="kind", values="value")
        draw_map(ax, wide.reindex(index=kinds, columns=kinds), size=7, square=True)
        ax.set_xticks(ax.get_xticks(), kinds, rotation=45, ha="right", rotation_mode="anchor")
        ax.set(title=layer, xlabel="scored on", ylabel=f"{title}\ntrained on".strip())
    name_colors(canvas.figure, axes, metric_words("probe_accuracy").label)


@draws("memorization", "probe_accuracy", one=["run"], when=lambda table: shows_memorization(table))
def plot_memorization(table: pd.DataFrame, canvas: Canvas) -> None:
    """Draw the figure ``memorization``.

    >>> from manigeo.results import as_table
    >>> row = {"kind": "permuted", "n": 9, "fingerprint": "3f"}
    >>> rows = [row | {"metric": metric, "layer": x, "depth": i, "value": 0.2 + 0.1 * i}
    ...         for metric in ("probe_accuracy", "capacity") for i, x in enumerate("ab")]
    >>> plot_memorization(as_table(rows)).axes[0].get_ylabel()
    'probe accuracy, permuted labels'
    """
    part = _memorized(table)
    both = _paired(part)
    if both.empty:
        raise InputError(
            "memorization takes tables of the same activations by both manigeo capacity and manigeo separability"
        )
    drawn = _aggregates(part[part["fingerprint"].isin(both["fingerprint"])], ["probe_accuracy", "capacity"])
    columns = by_checkpoint(drawn)
    n = len(columns)
    *pairs, relation = canvas.axes(2 * n + 1, (4.8 + 3.6 * n, 6.0), lambda figure: _pairs_and_relation(figure, n))
    for (title, rows), top, bottom in zip(columns.items(), pairs[:n], pairs[n:], strict=True):
        _draw_pair(top, bottom, rows, part)
        entitle(top, title)
        if not canvas.is_given:
            top.set_xlabel("")  # stands below
    pairs[0].set_ylabel(_label(part, "probe_accuracy"))
    pairs[n].set_ylabel(_label(part, "capacity"))
    _draw_relation(relation, both, list(columns))
    relation.set(xlabel=_label(part, "capacity"), ylabel=_label(part, "probe_accuracy"))
    canvas.legend()


def _pairs_and_relation(figure: Figure, n: int) -> list[Axes]:
    """``n`` axes above, ``n`` below, and one beside them."""
    grid = figure.add_gridspec(2, n + 1)
    rows: list[list[Axes]] = [[], []]
    for row, line in enumerate(rows):
        for i in range(n):
            above = rows[0][i] if row else None
            line.append(figure.add_subplot(grid[row, i], sharex=above, sharey=line[0] if line else None))
    for ax in rows[0]:
        ax.tick_params(labelbottom=False)
    return [*rows[0], *rows[1], figure.add_subplot(grid[:, -1])]


def shows_progress(table: pd.DataFrame) -> bool:
    """Return whether there is more than one epoch of what is drawn over epochs."""
    part = table[table["metric"].isin(_OVER_EPOCHS)]
    return bool(part["epoch"].nunique() > 1)


def shows_memorization(table: pd.DataFrame) -> bool:
    """Return whether permuted labels have been both probed and given a capacity, on the same layers."""
    return not _paired(_memorized(table)).empty


def _memorized(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the kind that memorization alone answers."""
    return table[table["kind"] == memorized_kind(set(table["kind"]))]


def _paired(memorized: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and capacity of each layer, side by side."""
    key = ["fingerprint", "layer", "depth"]
    rows = memorized[(memorized["manifold"] == "") & memorized["value"].notna()]
    accuracy, capacity = (
        rows[rows["metric"] == metric].drop_duplicates(key) for metric in ("probe_accuracy", "capacity")
    )
    return accuracy.merge(capacity, on=key, suffixes=("_probe", "_capacity"))


def _aggregates(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows over classes of these metrics, each once, of one setting."""
    rows = rows_of(table, metrics)
    return rows.drop_duplicates([*NETWORK, "layer", "kind", "metric", "settings"])


def _draw_profiles(ax: Axes, rows: pd.DataFrame) -> None:
    for kind in in_order(rows["kind"]):
        line = rows[rows["kind"] == kind].sort_values("depth")
        if line["value"].notna().any():
            draw_line(ax, line, kind, errors=_NORMAL_95)
            best = line.loc[line["value"].idxmax()]
            ax.plot(best["depth"], best["value"], "*", color=look(kind)[0], markersize=11, markeredgecolor="white")


def _draw_references(ax: Axes, every: pd.DataFrame, metric: str) -> None:
    """Chance and ceiling; one grey line for all kinds that share them."""
    for name, dashes in (("chance", ":"), ("ceiling", "--")):
        rows = every[every["metric"] == f"{metric}_{name}"]
        levels = rows.groupby("kind")["value"].mean()
        shared = np.ptp(levels) < 0.02 if len(levels) else False
        for kind, level in list(levels.items())[: 1 if shared else None]:
            color = "0.4" if shared else look(kind)[0]
            ax.axhline(level, color=color, linestyle=dashes, linewidth=1, label=name if shared else None)


def _label(part: pd.DataFrame, metric: str) -> str:
    return in_words_of(part["kind"].iloc[0], f"{metric_words(metric).label}, permuted labels")


def _draw_pair(top: Axes, bottom: Axes, rows: pd.DataFrame, part: pd.DataFrame) -> None:
    for ax, metric in ((top, "probe_accuracy"), (bottom, "capacity")):
        draw_line(ax, rows[rows["metric"] == metric].sort_values("depth"), rows["kind"].iloc[0], errors=_NORMAL_95)
    mine = part[part["fingerprint"] == rows["fingerprint"].iloc[0]]
    for ax, metric, label in ((top, "probe_accuracy_chance", "chance"), (bottom, "capacity_floor", "floor")):
        level = mine.loc[mine["metric"] == metric, "value"].mean()
        if np.isfinite(level):
            ax.axhline(level, color="0.4", linestyle=":" if ax is top else "-.", linewidth=1, label=label)
    for ax in (top, bottom):
        name_layers(ax, rows)


def _draw_relation(ax: Axes, both: pd.DataFrame, titles: Sequence[str]) -> None:
    checkpoints = both.sort_values("epoch_probe", kind="stable").groupby("fingerprint", sort=False)
    for i, ((_, rows), title) in enumerate(zip(checkpoints, titles, strict=True)):
        line = rows.sort_values("depth")
        ax.plot(line["value_capacity"], line["value_probe"], color=f"C{i}", marker="osD^v"[i % 5], markersize=5,
                linewidth=1, label=title or None)  # fmt: skip
        for _, row in line.iloc[[0, -1]].iterrows():
            ax.annotate(row["layer"], (row["value_capacity"], row["value_probe"]), xytext=(5, -3),
                        textcoords="offset points", fontsize=8)  # fmt: skip

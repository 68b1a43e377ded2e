"""Figures of separability: against depth, over epochs, from kind to kind, beside the capacity of permuted labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manigeo.errors import InputError
from manigeo.manifolds import ALL_KINDS
from manigeo.plots.style import by_checkpoint, by_depth, finish, name_depths, name_layers, setting, styled

SEPARABILITY_PANELS = {
    "probe_accuracy": "linear probe",
    "nearest_mean_accuracy": "nearest mean",
    "knn_purity_1": "nearest neighbour",
    "knn_purity_class": "$n_c - 1$ neighbours",
    "kmeans_nmi": "k-means NMI $g$",
    "margin_ovr": "margin to the rest",
}
_OVER_EPOCHS = ("kmeans_nmi", "probe_accuracy")
_COLOR = dict(zip(ALL_KINDS, sns.color_palette("colorblind", len(ALL_KINDS)), strict=True))
_MARKER = dict(zip(ALL_KINDS, "osD^v", strict=True))
_NORMAL_95 = 1.96
_MOST_MAPS = 8  # layers, of more every second, third ...


def plot_separability(table: pd.DataFrame) -> Figure:
    """Each measure against depth: one row per measure, one line per kind, one column per checkpoint.

    Bands are 95 % over classes; dotted lines are chance, dashed ones ceilings, in the colour of the kind where kinds
    differ; stars are the best layers.

    Raises :class:`~manigeo.errors.InputError` for a table without these measures, and for one at several settings.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "probe_accuracy", "kind": "test", "n": 9}
    >>> rows = [row | {"layer": x, "depth": i, "value": 0.5 + 0.2 * i} for i, x in enumerate("ab")]
    >>> plot_separability(as_table(rows)).axes[0].lines[0].get_ydata().tolist()
    [0.5, 0.7]
    """
    part = _aggregates(table, SEPARABILITY_PANELS)
    panels = [metric for metric in SEPARABILITY_PANELS if metric in set(part["metric"])]
    columns = by_checkpoint(part)
    with styled():
        figure = Figure(figsize=(1.2 + 4.2 * len(columns), 0.9 + 2.2 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), len(columns), sharex="col", sharey="row", squeeze=False)
        for (title, rows), column in zip(columns.items(), axes.T, strict=True):
            every = table[table["fingerprint"] == rows["fingerprint"].iloc[0]]
            for metric, ax in zip(panels, column, strict=True):
                _draw_profiles(ax, rows[rows["metric"] == metric])
                _draw_references(ax, every, metric)
            name_layers(column[-1], rows)
            column[0].set_title(title)
        for metric, ax in zip(panels, axes[:, 0], strict=True):
            ax.set_ylabel(SEPARABILITY_PANELS[metric])
        finish(figure)
    return figure


def plot_progress(table: pd.DataFrame) -> Figure:
    """g and probe accuracy over epochs: one row per measure, one column per kind, one line per layer, dark to bright by
    depth.

    Raises :class:`~manigeo.errors.InputError` for a table of fewer than two epochs.

    >>> from manigeo.results import as_table
    >>> row = {"metric": "probe_accuracy", "kind": "test", "layer": "a", "depth": 0, "n": 9}
    >>> figure = plot_progress(as_table([row | {"epoch": epoch, "value": 0.1 * epoch} for epoch in (1, 2)]))
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_title()
    ('epoch', 'test')
    """
    part = _aggregates(table, _OVER_EPOCHS)
    if not shows_progress(table):
        raise InputError("one epoch is no curve: give manigeo separability the activations of several checkpoints")
    panels = [metric for metric in _OVER_EPOCHS if metric in set(part["metric"])]
    kinds = [kind for kind in ALL_KINDS if kind in set(part["kind"])]
    with styled():
        figure = Figure(figsize=(1.6 + 3.0 * len(kinds), 0.6 + 2.8 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), len(kinds), sharex=True, sharey="row", squeeze=False)
        for metric, line in zip(panels, axes, strict=True):
            for kind, ax in zip(kinds, line, strict=True):
                rows = part[(part["metric"] == metric) & (part["kind"] == kind)]
                _draw_epochs(ax, rows, table[(table["metric"] == f"{metric}_chance") & (table["kind"] == kind)])
            line[0].set_ylabel(SEPARABILITY_PANELS[metric])
            name_depths(figure, line[-1], part)
        for kind, top, bottom in zip(kinds, axes[0], axes[-1], strict=True):
            top.set_title(kind)
            bottom.set_xlabel("epoch")
        sns.despine(figure)
    return figure


def plot_transfer(table: pd.DataFrame) -> Figure:
    """Accuracy of the probes of each kind on every kind: one heat map per layer, one row per checkpoint. On the
    diagonal are the folds that a probe has not seen.

    Raises :class:`~manigeo.errors.InputError` for a table without such numbers.

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
    kinds = [kind for kind in ALL_KINDS if kind in set(part.loc[part["metric"] == "transfer_accuracy", "kind"])]
    if len(kinds) < 2:
        raise InputError("nothing to plot: the table holds no probes scored on other kinds")
    rows = by_checkpoint(part)
    with styled():
        figure = Figure(figsize=(1.2 + 1.9 * len(layers), 0.9 + 2.1 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(layers), sharex=True, sharey=True, squeeze=False)
        for (title, at), line in zip(rows.items(), axes, strict=True):
            for layer, ax in zip(layers, line, strict=True):
                wide = at[at["layer"] == layer].pivot(index="origin", columns="kind", values="value")
                _draw_map(ax, wide.reindex(index=kinds, columns=kinds))
                ax.set_title(layer)
            line[0].set_ylabel(f"{title}\ntrained on")
        for ax in axes[-1]:
            ax.set_xlabel("scored on")
        bar = figure.colorbar(axes[0, 0].collections[0], ax=axes, label="accuracy of the probe", aspect=30)
        bar.outline.set_visible(False)
    return figure


def plot_memorization(table: pd.DataFrame) -> Figure:
    """Permuted labels, by probe and by capacity: accuracy above, capacity below, against depth, one column per
    checkpoint; on the right, one against the other, one point per layer.

    Bands are 95 % over classes; dotted lines are chance, and the floor of capacity.

    Raises :class:`~manigeo.errors.InputError` unless the tables of manigeo capacity and separability are of the same files.

    >>> from manigeo.results import as_table
    >>> row = {"kind": "permuted", "n": 9, "fingerprint": "3f"}
    >>> rows = [row | {"metric": metric, "layer": x, "depth": i, "value": 0.2 + 0.1 * i}
    ...         for metric in ("probe_accuracy", "capacity") for i, x in enumerate("ab")]
    >>> plot_memorization(as_table(rows)).axes[0].get_ylabel()
    'probe accuracy, permuted labels'
    """
    part = table[table["kind"] == "permuted"]
    both = _paired(part)
    if both.empty:
        raise InputError(
            "memorization takes tables of the same activations by both manigeo capacity and manigeo separability"
        )
    drawn = _aggregates(part[part["fingerprint"].isin(both["fingerprint"])], ["probe_accuracy", "capacity"])
    columns = by_checkpoint(drawn)
    with styled():
        figure = Figure(figsize=(4.8 + 3.6 * len(columns), 6.0), layout="constrained")
        grid = figure.add_gridspec(2, len(columns) + 1)
        tops: list[Axes] = []
        bottoms: list[Axes] = []
        for i, (title, rows) in enumerate(columns.items()):
            tops.append(figure.add_subplot(grid[0, i], sharey=tops[0] if tops else None))
            bottoms.append(figure.add_subplot(grid[1, i], sharex=tops[-1], sharey=bottoms[0] if bottoms else None))
            _draw_pair(tops[-1], bottoms[-1], rows, table)
            tops[-1].set_title(title)
        tops[0].set_ylabel("probe accuracy, permuted labels")
        bottoms[0].set_ylabel(r"capacity $\alpha_M$, permuted labels")
        _draw_relation(figure.add_subplot(grid[:, -1]), both, list(columns))
        finish(figure)
    return figure


def shows_progress(table: pd.DataFrame) -> bool:
    """Return whether there is more than one epoch of what is drawn over epochs."""
    part = table[table["metric"].isin(_OVER_EPOCHS)]
    return bool(part["epoch"].nunique() > 1)


def shows_memorization(table: pd.DataFrame) -> bool:
    """Return whether permuted labels have been both probed and given a capacity, on the same layers."""
    return not _paired(table[table["kind"] == "permuted"]).empty


def _paired(permuted: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and capacity of each layer, side by side."""
    key = ["fingerprint", "layer", "depth"]
    rows = permuted[(permuted["manifold"] == "") & permuted["value"].notna()]
    accuracy, capacity = (
        rows[rows["metric"] == metric].drop_duplicates(key) for metric in ("probe_accuracy", "capacity")
    )
    return accuracy.merge(capacity, on=key, suffixes=("_probe", "_capacity"))


def _aggregates(table: pd.DataFrame, metrics: Sequence[str] | dict[str, str]) -> pd.DataFrame:
    """The rows over classes of these metrics, each once, of one setting."""
    rows = table[(table["manifold"] == "") & table["metric"].isin(list(metrics)) & table["kind"].isin(ALL_KINDS)]
    if rows["value"].notna().sum() == 0:
        raise InputError(f"nothing to plot: the table holds no {', '.join(metrics)}; make it with manigeo separability")
    line = ["run", "epoch", "checkpoint", "fingerprint", "layer", "kind", "metric"]
    rows = rows.drop_duplicates([*line, "settings"])
    origins = [str(setting(settings, "trained_on")) for settings in rows["settings"]]
    if rows.assign(origin=origins).duplicated([*line, "origin"]).any():
        raise InputError("the tables hold the same layers at different settings: plot one of the settings")
    return rows


def _draw_profiles(ax: Axes, rows: pd.DataFrame) -> None:
    for kind in ALL_KINDS:
        line = rows[rows["kind"] == kind].sort_values("depth")
        if line["value"].notna().any():
            _draw_band(ax, line, _COLOR[kind], _MARKER[kind], kind)
            best = line.loc[line["value"].idxmax()]
            ax.plot(best["depth"], best["value"], "*", color=_COLOR[kind], markersize=11, markeredgecolor="white")


def _draw_band(ax: Axes, line: pd.DataFrame, color: object, marker: str, label: str) -> None:
    x, y, error = (line[name].to_numpy(dtype=float) for name in ("depth", "value", "stderr"))
    ax.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1.6, label=label)
    ax.fill_between(x, y - _NORMAL_95 * error, y + _NORMAL_95 * error, color=color, alpha=0.2, linewidth=0)


def _draw_references(ax: Axes, every: pd.DataFrame, metric: str) -> None:
    """Chance and ceiling; one grey line for all kinds that share them."""
    for name, dashes in (("chance", ":"), ("ceiling", "--")):
        rows = every[every["metric"] == f"{metric}_{name}"]
        levels = rows.groupby("kind")["value"].mean()
        shared = np.ptp(levels) < 0.02 if len(levels) else False
        for kind, level in list(levels.items())[: 1 if shared else None]:
            color = "0.4" if shared else _COLOR[kind]
            ax.axhline(level, color=color, linestyle=dashes, linewidth=1, label=name if shared else None)


def _draw_epochs(ax: Axes, rows: pd.DataFrame, chance: pd.DataFrame) -> None:
    for color, (_, line) in zip(by_depth(rows), rows.groupby("depth"), strict=True):
        line = line.sort_values("epoch")
        ax.plot(line["epoch"], line["value"], color=color, linewidth=1.4, marker=".", markersize=5)
    if chance["value"].notna().any():
        ax.axhline(chance["value"].mean(), color="0.4", linestyle=":", linewidth=1)


def _draw_map(ax: Axes, wide: pd.DataFrame) -> None:
    sns.heatmap(
        wide,
        ax=ax,
        vmin=0,
        vmax=1,
        cmap="viridis",
        annot=True,
        fmt=".2f",
        annot_kws={"size": 7},
        cbar=False,
        square=True,
    )
    ax.set_xlabel("")
    ax.set_ylabel("")
    ax.set_xticks(ax.get_xticks(), list(wide.columns), rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0)


def _draw_pair(top: Axes, bottom: Axes, rows: pd.DataFrame, table: pd.DataFrame) -> None:
    color, marker = _COLOR["permuted"], _MARKER["permuted"]
    for ax, metric in ((top, "probe_accuracy"), (bottom, "capacity")):
        _draw_band(ax, rows[rows["metric"] == metric].sort_values("depth"), color, marker, "permuted")
    mine = table[(table["fingerprint"] == rows["fingerprint"].iloc[0]) & (table["kind"] == "permuted")]
    for ax, metric, label in ((top, "probe_accuracy_chance", "chance"), (bottom, "capacity_floor", "floor")):
        level = mine.loc[mine["metric"] == metric, "value"].mean()
        if np.isfinite(level):
            ax.axhline(level, color="0.4", linestyle=":" if ax is top else "-.", linewidth=1, label=label)
    top.tick_params(labelbottom=False)
    name_layers(bottom, rows)


def _draw_relation(ax: Axes, both: pd.DataFrame, titles: Sequence[str]) -> None:
    checkpoints = both.sort_values("epoch_probe", kind="stable").groupby("fingerprint", sort=False)
    for i, ((_, rows), title) in enumerate(zip(checkpoints, titles, strict=True)):
        line = rows.sort_values("depth")
        ax.plot(line["value_capacity"], line["value_probe"], color=f"C{i}", marker="osD^v"[i % 5], markersize=5,
                linewidth=1, label=title)  # fmt: skip
        for _, row in line.iloc[[0, -1]].iterrows():
            ax.annotate(row["layer"], (row["value_capacity"], row["value_probe"]), xytext=(5, -3),
                        textcoords="offset points", fontsize=8)  # fmt: skip
    ax.set_xlabel(r"capacity $\alpha_M$, permuted labels")
    ax.set_ylabel("probe accuracy, permuted labels")

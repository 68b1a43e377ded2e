"""Evidence of each method on the layers, from results tables, for :mod:`manigeo.localization.profile`.

=================  ==========  ================================================================================
method             kind        evidence of a layer
=================  ==========  ================================================================================
geometry           cumulative  fall of the inverse capacity of permuted manifolds, below that of the early-stopped
                               epoch and below that of points without structure (inverse, since capacities of
                               manifolds average harmonically)
separability       cumulative  rise of a linear probe's accuracy on permuted labels over the early-stopped epoch, class
                               by class; over chance where that epoch is not in the table
rewinding          local       permuted accuracy lost when the layer alone is set back to the early-stopped epoch, less
                               unpermuted accuracy lost
re-initialisation  local       the same, set back to its initial values
gradients          local       norm of the gradient of permuted examples at the early-stopped epoch
weights            local       rotation between the early-stopped epoch and the end
=================  ==========  ================================================================================

The early-stopped epoch is the checkpoint ``best``, that of the highest validation accuracy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.localization.profile import Evidence
from manigeo.results import with_settings

BEST = "best"


@dataclass(frozen=True, eq=False)
class Curve:
    """The evidence of one method on one network, and the names of its layers by depth."""

    layers: tuple[str, ...]
    evidence: Evidence


@dataclass(frozen=True)
class Method:
    """Method of finding memorization: its name, whether its evidence is cumulative, and its reader of tables."""

    name: str
    cumulative: bool
    read: Callable[[pd.DataFrame], Curve | None]


def geometry(table: pd.DataFrame) -> Curve | None:
    """Evidence of geometry; None where the table holds no capacities of permuted manifolds at the end of training."""
    rows = _of(table, "mean_field", "capacity", per_manifold=True)
    if rows.empty:
        return None
    end, before = _at_ends(rows.assign(value=1 / rows["value"]))
    most = _inverse_floor(with_settings(rows, "per_class", "n_classes", "centers").iloc[0])
    start = np.full(end.shape, most) if before is None else np.minimum(before.reindex_like(end), most)
    return _curve(start - end)


def _inverse_floor(settings: pd.Series) -> float:
    """Inverse capacity of points without structure; infinite for a table that does not name its sample."""
    M, P, centers = settings["per_class"], settings["n_classes"], settings["centers"]
    return np.inf if M is None else 1 / unstructured_capacity(M, n_manifolds=P, estimator=centers or "auto")


def separability(table: pd.DataFrame) -> Curve | None:
    """Evidence of separability; None where the table holds no probes on permuted labels at the end of training."""
    rows = _of(table, "probe", "probe_accuracy", per_manifold=True)
    trained_on = with_settings(rows, "trained_on")["trained_on"]
    rows = rows[trained_on.isna() | trained_on.eq("permuted")]
    if rows.empty:
        return None
    end, before = _at_ends(rows)
    chance = 1 / len(end)
    return _curve(end - (chance if before is None else before.reindex_like(end)))


def rewinding(table: pd.DataFrame) -> Curve | None:
    """Evidence of rewinding; None where the table holds no single layers rewound to the best epoch."""
    full = with_settings(table, "analysis", "sweep", "to")
    return _exchanged(full[(full["analysis"] == "rewind") & (full["sweep"] == "each") & (full["to"] == BEST)])


def reinitialisation(table: pd.DataFrame) -> Curve | None:
    """Evidence of re-initialisation; None where the table holds no single layers set to their initial values."""
    full = with_settings(table, "analysis", "sweep", "to_epoch")
    return _exchanged(full[(full["analysis"] == "reinit") & (full["sweep"] == "each") & (full["to_epoch"] == 0)])


def gradients(table: pd.DataFrame) -> Curve | None:
    """Evidence of gradients; None where the table holds no gradients of permuted examples at the best epoch."""
    rows = table[(table["metric"] == "gradient_norm") & (table["kind"] == "permuted") & (table["checkpoint"] == BEST)]
    return _single(rows[~rows["layer"].str.startswith("(")])


def weights(table: pd.DataFrame) -> Curve | None:
    """Evidence of weights; None where the table holds no rotations at the best epoch and at a later one."""
    rows = table[(table["metric"] == "rotation") & ~table["layer"].str.startswith("(")]
    before, end = rows[rows["checkpoint"] == BEST], rows[rows["epoch"] == rows["epoch"].max()]
    if before.empty or end.empty or before["epoch"].max() >= end["epoch"].max():
        return None
    end = end.drop_duplicates("layer")
    since = end["value"].to_numpy() - before.set_index("layer")["value"].reindex(end["layer"]).to_numpy()
    return _single(end.assign(value=since, stderr=np.nan))


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("geometry", True, geometry),
        Method("separability", True, separability),
        Method("rewinding", False, rewinding),
        Method("re-initialisation", False, reinitialisation),
        Method("gradients", False, gradients),
        Method("weights", False, weights),
    )
}


def paired_layers(one: tuple[str, ...], other: tuple[str, ...]) -> np.ndarray:
    """Positions (pairs, 2) of layers that are the same part of a network: of one name, or one inside the other, as the
    module ``h1.linear`` is inside ``h1``. The first match counts.

    >>> paired_layers(("input", "h1", "logits"), ("h1.linear", "logits")).tolist()
    [[1, 0], [2, 1]]
    """
    pairs: list[tuple[int, int]] = []
    for i, name in enumerate(one):
        matches = [j for j, o in enumerate(other) if o == name or _within(o, name) or _within(name, o)]
        if matches and matches[0] not in [j for _, j in pairs]:
            pairs.append((i, matches[0]))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _within(name: str, container: str) -> bool:
    return name.startswith(f"{container}.")


def _of(table: pd.DataFrame, analysis: str, metric: str, per_manifold: bool) -> pd.DataFrame:
    """Finite rows of permuted examples."""
    rows = table[(table["metric"] == metric) & (table["kind"] == "permuted") & table["value"].notna()]
    rows = rows[rows["manifold"].ne("") == per_manifold]
    by = with_settings(rows, "analysis")["analysis"]
    return rows[by.isna() | by.eq(analysis)]


def _at_ends(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Values at the end of training and at the best epoch, if that is another: manifolds x layers, without gaps."""
    last = rows[rows["epoch"] == rows["epoch"].max()] if rows["epoch"].notna().any() else rows
    before = rows[(rows["checkpoint"] == BEST) & (rows["epoch"] < last["epoch"].max())]
    wide = [part.pivot_table(index="manifold", columns=["depth", "layer"], values="value") for part in (last, before)]
    end, start = (part.dropna() for part in wide)
    if start.empty:
        return end, None
    common = end.index.intersection(start.index)
    return end.loc[common], start.loc[common]


def _curve(wide: pd.DataFrame) -> Curve | None:
    wide = wide.dropna(axis=1).sort_index(axis=1, level="depth")
    if wide.shape[0] == 0 or wide.shape[1] < 2:
        return None
    return Curve(tuple(wide.columns.get_level_values("layer")), Evidence(wide.to_numpy(dtype=float)))


def _exchanged(rows: pd.DataFrame) -> Curve | None:
    """Accuracy lost on permuted examples beyond what is lost on unpermuted ones."""
    drops = rows[(rows["metric"] == "accuracy_drop") & rows["kind"].isin(["permuted", "unpermuted"])]
    drops = drops.drop_duplicates(["layer", "kind"])
    value, error = (drops.pivot(index=["depth", "layer"], columns="kind", values=name) for name in ("value", "stderr"))
    if set(value) != {"permuted", "unpermuted"}:
        return None
    more = value["permuted"] - value["unpermuted"]
    stderr = np.hypot(error["permuted"], error["unpermuted"])
    frame = pd.DataFrame({"value": more, "stderr": stderr}).reset_index()
    return _single(frame)


def _single(rows: pd.DataFrame) -> Curve | None:
    """One number a layer, with its error where that is known."""
    rows = rows[rows["value"].notna()].drop_duplicates("layer").sort_values("depth")
    if len(rows) < 2:
        return None
    stderr = rows["stderr"].to_numpy(dtype=float)
    evidence = Evidence(rows["value"].to_numpy(dtype=float)[None], stderr if np.isfinite(stderr).any() else None)
    return Curve(tuple(rows["layer"]), evidence)

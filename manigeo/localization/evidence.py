"""Evidence of each method on the layers, from results tables, for :mod:`manigeo.localization.profile`.

Two questions are asked, and a method answers one of them. *Where do permuted examples come apart?* is read from activations
and cumulative: what has come apart in a layer stays so above it, in layers that were never trained, too. *Which layers hold
what was memorized?* is asked of single layers by exchanging their parameters.

=================  ========  ===================================================================================
method             question  evidence of a layer
=================  ========  ===================================================================================
geometry           apart     fall of the inverse capacity of permuted manifolds since the reference epoch, both no
                             higher than that of points without structure (inverse, since capacities of manifolds
                             average harmonically)
separability       apart     rise of a linear probe's accuracy on permuted labels since the reference epoch, class by
                             class; over chance where that epoch is not in the table
rewinding          held      permuted accuracy lost when the layer alone is set back to the reference epoch, less
                             unpermuted accuracy lost
retraining         held      permuted accuracy that stays lost when the layer is set back and trained on unpermuted
                             examples, beyond that of the same training without setting it back
grafting           held      permuted accuracy gained when the trained layer alone is put into the network of the
                             reference epoch
re-initialisation  held      as rewinding, set back to its initial values
gradients          held      length of the change that permuted examples have made over the whole training, summed step
                             by step (not to be had from gradients at one checkpoint)
weights            held      rotation between the reference epoch and the end
channels           held      share of the fewest channels that flip permuted examples, beyond the layer's share of all
                             channels (of networks that have memorized; it needs no reference epoch)
=================  ========  ===================================================================================

The reference epoch is that before memorization (:mod:`manigeo.localization.reference`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.localization.measurements import check_measured_once
from manigeo.localization.profile import Evidence
from manigeo.localization.reference import BEFORE
from manigeo.results import in_roles, with_settings

APART, HELD = "apart", "held"  # the two questions
_MOST = 0.6  # accuracy on permuted labels that two classes leave near guessing
_NAMES = (BEFORE, "best")  # checkpoints that stand for the epoch before memorization where no metrics are known


@dataclass(frozen=True, eq=False)
class Curve:
    """The evidence of one method on one network, and the names of its layers by depth."""

    layers: tuple[str, ...]
    evidence: Evidence


@dataclass(frozen=True)
class Method:
    """Method of finding memorization: its name, the question that it answers, the analysis that measures it, and its reader
    of tables, which takes the reference epoch too (None where there is none)."""

    name: str
    question: str
    analysis: str
    of_table: Callable[[pd.DataFrame, float | None], Curve | None]

    @property
    def cumulative(self) -> bool:
        return self.question == APART

    def read(self, table: pd.DataFrame, before: float | None = None) -> Curve | None:
        """Evidence from the results of one network; None where the table holds no numbers of this method. Without the
        epoch ``before`` the one that the table names counts: that of the checkpoint ``before``, or else ``best``.

        Raises :class:`~manigeo.errors.InputError` where they were measured in two ways.
        """
        check_measured_once(table, self.analysis)
        table = in_roles(table)
        return self.of_table(table, named_reference(table) if before is None else before)


def named_reference(table: pd.DataFrame) -> float | None:
    """The epoch that a table itself names as that before memorization: of a checkpoint or target ``before``, or ``best``,
    unless the table tells that the whole network knows most permuted labels there."""
    full, set_to = with_settings(table, "to", "sweep"), _set_to(table)
    to, last = full["to"], table["epoch"].max()
    whole = (full["sweep"] == "whole") & (table["metric"] == "accuracy") & (table["kind"] == "permuted")
    knowing = set(set_to[whole & (table["value"] > _MOST)])
    for name in _NAMES:
        epochs = pd.concat([table.loc[table["checkpoint"] == name, "epoch"], set_to[to == name]]).dropna()
        if len(epochs) and epochs.min() not in knowing and not epochs.min() >= last:
            return float(epochs.min())
    return None


def epochs_compared(table: pd.DataFrame) -> set[float]:
    """All epochs that the table has numbers of, as measured or as the target of an exchange."""
    return {float(epoch) for epoch in pd.concat([table["epoch"], _set_to(table)]).dropna().unique()}


def _set_to(table: pd.DataFrame) -> pd.Series:
    """The epochs that layers were set to, where need be by the names of checkpoints that the table has numbers of."""
    full = with_settings(table, "to", "to_epoch")
    epochs = table.dropna(subset="epoch").drop_duplicates("checkpoint").set_index("checkpoint")["epoch"]
    set_to: pd.Series = full["to_epoch"].astype(float).fillna(full["to"].map(epochs).astype(float))
    return set_to


def geometry(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of geometry; None where the table holds no capacities of permuted manifolds at the end of training."""
    rows = _of(table, "mean_field", "capacity", per_manifold=True)
    if rows.empty:
        return None
    end, start = _at_ends(rows.assign(value=1 / rows["value"]), before)
    most = _inverse_floor(with_settings(rows, "per_class", "n_classes", "centers").iloc[0])
    start = np.full(end.shape, most) if start is None else np.minimum(start.reindex_like(end), most)
    return _curve(start - np.minimum(end, most))


def _inverse_floor(settings: pd.Series) -> float:
    """Inverse capacity of points without structure; infinite for a table that does not name its sample."""
    M, P, centers = settings["per_class"], settings["n_classes"], settings["centers"]
    return np.inf if M is None else 1 / unstructured_capacity(M, n_manifolds=P, estimator=centers or "auto")


def separability(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of separability; None where the table holds no probes on permuted labels at the end of training."""
    rows = _of(table, "probe", "probe_accuracy", per_manifold=True)
    trained_on = with_settings(rows, "trained_on")["trained_on"]
    rows = rows[trained_on.isna() | trained_on.eq("permuted")]
    if rows.empty:
        return None
    end, start = _at_ends(rows, before)
    chance = 1 / len(end)
    return _curve(end - (chance if start is None else start.reindex_like(end)))


def rewinding(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of rewinding; None where the table holds no single layers rewound to the reference epoch."""
    return _exchanged(rewound(table, before, "each"))


def rewound(table: pd.DataFrame, before: float | None, sweep: str, into: str = "into_last") -> pd.DataFrame:
    """Rows of ``manigeo rewind`` to the reference epoch: of one sweep, into the trained network or into the earlier one."""
    full = with_settings(table, "analysis", "sweep", "to", "direction").assign(to_epoch=_set_to(table))
    named = full["to"].isin(_NAMES) & full["to_epoch"].isna()
    to_before = _at(full["to_epoch"], before) | (named & (before is None))
    there = full["direction"].fillna("into_last") == into
    return full[(full["analysis"] == "rewind") & (full["sweep"] == sweep) & to_before & there]


def retraining(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of retraining; None where the table holds no layers that were set back and trained again."""
    return _of_permuted(rewound(table, before, "retrain"), "accuracy_drop_beyond_control")


def grafting(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of grafting; None where the table holds no trained layers put into the network of the reference epoch."""
    return _of_permuted(rewound(table, before, "each", "into_before"), "accuracy_gain")


def gradients(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of gradients; None where they were not summed over the training."""
    rows = table[table["epoch"] == table.loc[table["metric"] == "accumulated_gradient", "epoch"].max()]
    return _of_permuted(rows, "accumulated_gradient")


def _of_permuted(rows: pd.DataFrame, metric: str) -> Curve | None:
    return _single(rows[(rows["metric"] == metric) & (rows["kind"] == "permuted") & ~rows["layer"].str.startswith("(")])


def reinitialisation(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of re-initialisation; None where the table holds no single layers set to their initial values."""
    full = with_settings(table, "analysis", "sweep", "to_epoch")
    return _exchanged(full[(full["analysis"] == "reinit") & (full["sweep"] == "each") & _at(full["to_epoch"], 0)])


def weights(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of weights; None where the table holds no rotations at the reference epoch and at a later one."""
    rows = table[(table["metric"] == "rotation") & ~table["layer"].str.startswith("(")]
    start, end = rows[_at(rows["epoch"], before)], rows[rows["epoch"] == rows["epoch"].max()]
    if start.empty or end.empty or start["epoch"].max() >= end["epoch"].max():
        return None
    end, start = end.drop_duplicates("layer"), start.drop_duplicates("layer").set_index("layer")
    since = end["value"].to_numpy() - start["value"].reindex(end["layer"]).to_numpy()
    return _single(end.assign(value=since, stderr=np.nan))


def channels(table: pd.DataFrame, before: float | None) -> Curve | None:
    """Evidence of channels; None where the table holds no fewest channels of permuted examples."""
    rows = table[table["kind"] == "permuted"]
    shares, chances = (rows[rows["metric"] == metric] for metric in ("channel_share", "channel_share_chance"))
    of_layer = chances.drop_duplicates("layer").set_index("layer")["value"]
    return _single(shares.assign(value=shares["value"] - shares["layer"].map(of_layer)))


def _at(epochs: pd.Series, epoch: float | None) -> pd.Series:
    return epochs.astype(float).eq(np.nan if epoch is None else epoch)


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("geometry", APART, "mean_field", geometry),
        Method("separability", APART, "probe", separability),
        Method("rewinding", HELD, "rewind", rewinding),
        Method("retraining", HELD, "rewind", retraining),
        Method("grafting", HELD, "rewind", grafting),
        Method("re-initialisation", HELD, "reinit", reinitialisation),
        Method("gradients", HELD, "gradients", gradients),
        Method("weights", HELD, "weights", weights),
        Method("channels", HELD, "channels", channels),
    )
}


def _of(table: pd.DataFrame, analysis: str, metric: str, per_manifold: bool) -> pd.DataFrame:
    """Finite rows of permuted examples."""
    rows = table[(table["metric"] == metric) & (table["kind"] == "permuted") & table["value"].notna()]
    rows = rows[rows["manifold"].ne("") == per_manifold]
    by = with_settings(rows, "analysis", "null")
    return rows[(by["analysis"].isna() | by["analysis"].eq(analysis)) & by["null"].isna()]


def _at_ends(rows: pd.DataFrame, before: float | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Values at the end of training and at the reference epoch, if there are any: manifolds x layers, without gaps."""
    last = rows[rows["epoch"] == rows["epoch"].max()] if rows["epoch"].notna().any() else rows
    start = rows[_at(rows["epoch"], before) & (rows["epoch"] < last["epoch"].max())]
    end, earlier = (
        part.pivot_table(index="manifold", columns=["depth", "layer"], values="value").dropna()
        for part in (last, start)
    )
    if earlier.empty:
        return end, None
    common = end.index.intersection(earlier.index)
    return end.loc[common], earlier.loc[common]


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

"""Statement of where memorization happens: the localization of every method as rows of a results table, and in words.

A network that has not memorized has no such place, so the gate comes first: its training accuracy on permuted labels.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from manigeo.errors import InputError
from manigeo.localization.evidence import METHODS, Curve, Method, paired_layers
from manigeo.localization.profile import Estimate, Evidence, Localization, agreement, locate
from manigeo.results import as_table, with_settings
from manigeo.vocabulary import flag_words

Row = dict[str, Any]

GATE = 0.95  # training accuracy on permuted labels from which on a network has memorized
SIGNIFICANT = 0.05
_PLACES = ("onset", "end", "center_of_mass")


def localization_table(
    runs: Mapping[str, pd.DataFrame], gates: Mapping[str, float | None], *, n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Localize memorization by every method that the tables have numbers for, over all runs together.

    ``runs``: the results tables of each run (seed) of one network; ``gates``: its training accuracy on permuted labels, None
    where no labels were permuted, NaN where it is not known. Runs that have not memorized are left out, and flagged.

    Rows of a run: ``gate``. Rows of a method (in the settings): of each layer ``evidence`` and ``profile``, its share; then
    ``onset``, ``end`` and ``center_of_mass`` as positions among its layers, with the name of the layer; all these with
    ``_ci_low`` and ``_ci_high``; ``p_value`` of no layer differing; ``localized`` is 1, or 0 with the reason as its flag.
    Rows of two methods: ``agreement``, Spearman's correlation of their profiles.

    Raises :class:`~manigeo.errors.InputError` where runs that have memorized have tables of no method.
    """
    common = {"analysis": "localize", "resamples": n_resamples, "seed": seed}
    rows = [_gate_row(run, gates[run]) | {"settings": json.dumps(common)} for run in runs]
    memorized = [run for run in runs if (gates[run] or 0.0) >= GATE]
    of = {"run_id": ",".join(dict.fromkeys(one for run in runs for one in _identities(runs[run])))}
    if not memorized:
        return as_table([of | row for row in rows])
    found: dict[str, tuple[tuple[str, ...], Localization]] = {}
    for name, method in METHODS.items():
        curves = [curve for run in memorized if (curve := method.read(runs[run])) is not None]
        if curves:
            layers, evidence = _common_layers(curves)
            key = np.random.SeedSequence(seed, spawn_key=(crc32(name.encode()),))
            found[name] = layers, locate(evidence, cumulative=method.cumulative, n_resamples=n_resamples, seed=key)
            settings = {"settings": json.dumps(common | {"method": name})}
            rows += [settings | row for row in _method_rows(method, *found[name])]
    if not found:
        raise InputError(
            "the tables hold nothing of permuted examples at the end of training: run manigeo capacity, separability, "
            "rewind or reinit first (of last.pt and of best.pt)"
        )
    for (one, (its, a)), (other, (theirs, b)) in itertools.combinations(found.items(), 2):
        settings = {"settings": json.dumps(common | {"method": one, "other": other})}
        estimate = agreement(a, b, paired_layers(its, theirs))
        rows += [settings | row for row in _with_interval({"metric": "agreement"}, estimate)]
    return as_table([of | row for row in rows])


def _identities(table: pd.DataFrame) -> list[str]:
    return list(with_settings(table, "run_id")["run_id"].dropna().unique())


def _gate_row(run: str, gate: float | None) -> Row:
    row = {"run": run, "kind": "permuted", "metric": "gate"}
    if gate is None:
        return row | {"value": np.nan, "flag": "nothing_permuted"}
    if np.isnan(gate):
        return row | {"value": np.nan, "flag": "accuracy_unknown"}
    return row | {"value": gate, "flag": "" if gate >= GATE else "not_memorized"}


def _common_layers(curves: list[Curve]) -> tuple[tuple[str, ...], list[Evidence]]:
    """The layers that all runs have, and the evidence of these."""
    layers = tuple(name for name in curves[0].layers if all(name in curve.layers for curve in curves))
    if len(layers) < 2:
        raise InputError("the runs have fewer than two layers in common: localize networks of one architecture")
    return layers, [curve.evidence.of([curve.layers.index(name) for name in layers]) for curve in curves]


def _method_rows(method: Method, layers: tuple[str, ...], found: Localization) -> Iterator[Row]:
    for depth, layer in enumerate(layers):
        place = {"layer": layer, "depth": depth, "kind": "permuted", "n": found.n_runs}
        for name, values in (
            ("evidence", (found.evidence, found.evidence_low, found.evidence_high)),
            ("profile", (found.shares, found.shares_low, found.shares_high)),
        ):
            yield from _with_interval(place | {"metric": name}, Estimate(*(float(part[depth]) for part in values)))
    for name in _PLACES:
        estimate: Estimate = getattr(found, name)
        nearest = layers[min(int(estimate.value + 0.5), len(layers) - 1)]
        yield from _with_interval({"layer": nearest, "metric": name, "n": found.n_runs}, estimate)
    yield {"metric": "p_value", "value": found.p_value, "n": found.n_units}
    reason = _reason(found)
    yield {"metric": "localized", "value": float(not reason), "n": found.n_runs, "flag": reason}


def _with_interval(row: Row, estimate: Estimate) -> Iterator[Row]:
    for ending, value in (("", estimate.value), ("_ci_low", estimate.low), ("_ci_high", estimate.high)):
        yield row | {"metric": f"{row['metric']}{ending}", "value": value}


def _reason(found: Localization) -> str:
    """Reason why a method does not locate memorization; empty where it does."""
    if np.array_equal(found.evidence_low, found.evidence_high):
        return "no_error"
    if not found.present:
        return "no_evidence"
    if found.p_value > SIGNIFICANT:
        return "no_layer_differs"
    width = found.center_of_mass.high - found.center_of_mass.low
    return "wide_interval" if width > (len(found.shares) - 1) / 2 else ""


# ---------------------------------------------------------------------------------------------------------------- words
_SAYS = {
    "geometry": "the manifolds of permuted labels come apart",
    "separability": "a linear probe learns to read the permuted labels",
    "rewinding": "setting single layers back to the best epoch costs permuted examples more than others",
    "re-initialisation": "re-initialising single layers costs permuted examples more than others",
    "gradients": "the gradient of permuted examples acts at the best epoch",
    "weights": "the weights turn after the best epoch",
}


def describe_localization(table: pd.DataFrame) -> str:
    """Describe the answer in a paragraph, then one line per method, with its numbers."""
    full = with_settings(table, "analysis", "method", "other")
    full = full[full["analysis"] == "localize"]
    gates = full[full["metric"] == "gate"]
    if not gates["flag"].eq("").any():
        return _describe_gate(gates)
    methods = {name: rows for name, rows in full[full["other"].isna()].groupby("method", sort=False)}
    agreements = full[full["metric"].str.startswith("agreement")]
    lines = [f"- {name}: {_describe_method(name, rows)}" for name, rows in methods.items()]
    return "\n".join([_describe_gate(gates), _answer(methods, agreements), *lines, *_describe_agreement(agreements)])


def _describe_gate(gates: pd.DataFrame) -> str:
    if gates["flag"].eq("nothing_permuted").all():
        return "There is nothing to localize: no labels were permuted."
    known = gates[~gates["flag"].isin(["nothing_permuted", "accuracy_unknown"])]
    if known.empty:
        return (
            "Not enough evidence: it is not known whether the network has memorized; run manigeo rewind or reinit, which "
            "score it, or record the accuracy of the kind permuted."
        )
    reached = known["flag"].eq("").sum()
    accuracies = f"training accuracy on permuted labels {known['value'].min():.3f}"
    if not reached:
        return f"Not enough evidence: the network has not memorized ({accuracies}, needed {GATE}); train longer first."
    runs = "The network has" if len(gates) == 1 else f"{reached} of {len(gates)} networks have"
    return f"{runs} memorized ({accuracies} or more, needed {GATE})."


def _answer(methods: Mapping[str, pd.DataFrame], agreements: pd.DataFrame) -> str:
    """One statement for all methods: where, if their intervals of the centre meet, else that they do not agree."""
    centers = {name: _relative_center(rows) for name, rows in methods.items() if _value(rows, "localized") == 1}
    if not centers:
        return "No method says where: there is not enough evidence."
    where = "; ".join(
        f"{name} {100 * c:.0f} % [{100 * low:.0f}, {100 * high:.0f}]" for name, (c, low, high) in centers.items()
    )
    meets = max(low for _, low, _ in centers.values()) <= min(high for _, _, high in centers.values())
    if len(centers) == 1:
        verdict = "One method says where"
    else:
        verdict = f"{len(centers)} methods " + ("agree on the depth" if meets else "do not agree on the depth")
    return f"{verdict} (centre of mass, 0 % the first layer, 100 % the last): {where}."


def _relative_center(rows: pd.DataFrame) -> tuple[float, float, float]:
    last = max(float(rows.loc[rows["metric"] == "profile", "depth"].max()), 1.0)
    center, low, high = (_value(rows, f"center_of_mass{ending}") / last for ending in ("", "_ci_low", "_ci_high"))
    return center, low, high


def _describe_method(name: str, rows: pd.DataFrame) -> str:
    flag = rows.loc[rows["metric"] == "localized", "flag"].iloc[0]
    if flag:
        return flag_words(flag) + ("" if flag == "no_error" else f" (p = {_value(rows, 'p_value'):.2g})")
    profile = rows[rows["metric"] == "profile"].sort_values("depth")
    names = list(profile["layer"])
    onset, low, high = (names[int(_value(rows, f"onset{ending}"))] for ending in ("", "_ci_low", "_ci_high"))
    end = names[int(_value(rows, "end"))]
    top = profile.loc[profile["value"].idxmax()]
    return (
        f"{_SAYS[name]} from {onset} ({low} to {high}) to {end}, most at {top['layer']} ({100 * top['value']:.0f} %); "
        f"p = {_value(rows, 'p_value'):.2g}"
    )


def _describe_agreement(agreements: pd.DataFrame) -> list[str]:
    if agreements["value"].notna().sum() == 0:
        return []
    of_pair = agreements.pivot(index=["method", "other"], columns="metric", values="value").dropna(subset="agreement")
    said = ", ".join(
        f"{a} and {b} {row['agreement']:+.2f} [{row['agreement_ci_low']:+.2f}, {row['agreement_ci_high']:+.2f}]"
        for (a, b), row in of_pair.iterrows()
    )
    return [f"Rank correlation of profiles: {said}."]


def _value(rows: pd.DataFrame, metric: str) -> float:
    return float(rows.loc[rows["metric"] == metric, "value"].iloc[0])

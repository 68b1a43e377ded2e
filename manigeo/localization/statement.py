"""Statement of where memorization happens: two answers, as rows of a results table and in words.

A network that has not memorized has no such place, so the gate comes first: its training accuracy on permuted labels. Then
two questions are answered apart, since both answers can be right where they differ: a network in which the first layer alone
has learned permuted labels has its manifolds come apart in later ones.
"""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from manigeo.errors import InputError
from manigeo.kinds import MEMORIZED, TYPICAL, memorized_kind
from manigeo.localization.depth import INPUT, common_scale, layer_list, read_at, same_layer, unwrapped
from manigeo.localization.evidence import APART, HELD, METHODS, Curve, Method, epochs_compared, named_reference, rewound
from manigeo.localization.measurements import check_networks
from manigeo.localization.profile import Estimate, Evidence, Localization, agreement, locate
from manigeo.localization.reference import GATE, NEAR_GUESSING, reference_epoch
from manigeo.localization.trials import ALL, trial_of
from manigeo.results import as_table, in_roles, with_settings
from manigeo.vocabulary import flag_words, in_words_of

Row = dict[str, Any]
_Located = tuple[tuple[str, ...], Localization]  # names of layers, and what was found of them

SIGNIFICANT = 0.05
REFERENCE = ("Compared with epoch", "No epoch before memorization")  # how the line about the reference epoch begins
_LITTLE = 0.1  # accuracy
_PLACES = ("onset", "end", "center_of_mass")


def localization_table(
    runs: Mapping[str, pd.DataFrame],
    gates: Mapping[str, float | None],
    *,
    metrics: Mapping[str, tuple[pd.DataFrame, int | None]] | None = None,
    network: str = ALL,
    near_guessing: float = NEAR_GUESSING,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Localize memorization by every method that the tables have numbers for, over all runs together.

    ``runs``: the results tables of each run (seed) of one network; ``gates``: its training accuracy on permuted labels, None
    where no labels were permuted, NaN where it is not known; ``metrics``: where they are known the metrics of its epochs,
    from which the reference epoch is chosen, and the number of classes. Without them the tables name the reference epoch.
    ``near_guessing`` is the chance-normalised accuracy on permuted labels up to which an epoch is before memorization. Runs
    that have not memorized are left out, and flagged. ``network`` is the kind of network, for how often a method has
    found planted layers in such (:mod:`manigeo.localization.trials`).

    Rows of a run: ``gate`` and ``reference_epoch``. Rows of a method (in the settings): of each layer ``evidence``,
    ``profile``, its share, and ``named``, 1 for layers that the answer names; then ``onset``, ``end`` and ``center_of_mass``
    as places on the scale of depth (0 for the first layer with parameters), with the name of the layer; evidence, shares and
    places with ``_ci_low`` and ``_ci_high``; ``p_value`` of nothing being located; ``localized`` is 1, or 0 with the reason
    as its flag. Rows of two methods: ``agreement``, Spearman's correlation of their profiles.

    Raises :class:`~manigeo.errors.InputError` where runs that have memorized have tables of no method, where a table is of
    two networks, or two are of the same.
    """
    check_networks(runs)
    kinds = {kind for table in (*runs.values(), *(of for of, _ in (metrics or {}).values())) for kind in table["kind"]}
    runs = {run: in_roles(table) for run, table in runs.items()}
    common = {
        "analysis": "localize", "resamples": n_resamples, "seed": seed, "network": network, "near_guessing": near_guessing,
    }  # fmt: skip
    before = {run: _reference(table, (metrics or {}).get(run), near_guessing) for run, table in runs.items()}
    rows = [
        row | {"settings": json.dumps(common)}
        for run in runs
        for row in (_gate_row(run, gates[run]), _reference_row(run, before[run]))
    ]
    memorized = [run for run in runs if has_memorized(gates[run])]
    of = {"run_id": ",".join(dict.fromkeys(one for run in runs for one in _identities(runs[run])))}
    if not memorized:
        return _of_kind([of | row for row in rows if row["metric"] == "gate"], kinds)
    curves = _curves_of({run: runs[run] for run in memorized}, before)
    scale = _scale(curves)
    found = {name: _located(METHODS[name], of_runs, scale, n_resamples, seed) for name, of_runs in curves.items()}
    for name in found:
        settings = {"settings": json.dumps(common | {"method": name, "question": METHODS[name].question})}
        rows += [settings | row for row in (*_method_rows(scale, *found[name]), *_trial_rows(name, network))]
        beside = memorized if name == "rewinding" else []
        rows += [settings | row for run in beside for row in _beside_rewinding(runs[run], before[run], found[name])]
    for one, other in itertools.combinations(found, 2):
        settings = {"settings": json.dumps(common | {"method": one, "other": other})}
        rows += [settings | row for row in _agreement_rows(found[one], found[other])]
    return _of_kind([of | row for row in rows], kinds)


def _of_kind(rows: Sequence[Row], kinds: Collection[str]) -> pd.DataFrame:
    """The rows as a table, about the kind among these that memorization alone answers, by its own name."""
    kind = memorized_kind(kinds) or (MEMORIZED if TYPICAL in kinds else None)
    return as_table([row | {"kind": kind} if row.get("kind") and kind else row for row in rows])


def _curves_of(runs: Mapping[str, pd.DataFrame], before: Mapping[str, float | None]) -> dict[str, list[Curve]]:
    """Evidence by method, of the runs whose tables hold any."""
    read = {name: [method.read(runs[run], before[run]) for run in runs] for name, method in METHODS.items()}
    curves = {name: known for name, found in read.items() if (known := [curve for curve in found if curve])}
    if not curves:
        raise InputError(
            "the tables hold nothing of permuted examples at the end of training: run manigeo capacity, separability, "
            "rewind or reinit first (of last.pt and of before.pt)"
        )
    every = {layer for known in curves.values() for curve in known for layer in curve.layers}
    return {
        name: [replace(curve, layers=unwrapped(curve.layers, every.difference(curve.layers))) for curve in known]
        for name, known in curves.items()
    }


def _located(method: Method, curves: list[Curve], scale: Sequence[str], n_resamples: int, seed: int) -> _Located:
    layers, places, evidence = _on_scale(method, curves, scale)
    key = np.random.SeedSequence(seed, spawn_key=(crc32(method.name.encode()),))
    found = locate(evidence, cumulative=method.cumulative, positions=places, n_resamples=n_resamples, seed=key)
    return layers, found


def _agreement_rows(one: _Located, other: _Located) -> Iterator[Row]:
    """Rank correlation of two profiles over the layers that both know."""
    (its, a), (theirs, b) = one, other
    pairs = [(i, theirs.index(layer)) for i, layer in enumerate(its) if layer in theirs]
    estimate = agreement(a, b, np.array(pairs, dtype=np.int64).reshape(-1, 2))
    yield from _with_interval({"metric": "agreement"}, estimate)


def has_memorized(accuracy: float | None) -> bool:
    """Return whether a training accuracy on permuted labels passes the gate; False where it is not known."""
    return accuracy is not None and accuracy >= GATE


def _identities(table: pd.DataFrame) -> list[str]:
    return list(with_settings(table, "run_id")["run_id"].dropna().unique())


def _reference(
    table: pd.DataFrame, metrics: tuple[pd.DataFrame, int | None] | None, near_guessing: float
) -> float | None:
    """The reference epoch, of those that the table has numbers of; NaN where there is none."""
    if metrics is None or memorized_kind(set(metrics[0]["kind"])) is None:
        return named_reference(table)
    curves, n_classes = metrics
    found = reference_epoch(
        curves, kept=epochs_compared(table), n_classes=n_classes, near_guessing=near_guessing
    )  # fmt: skip
    return np.nan if found is None else found.epoch


def _reference_row(run: str, epoch: float | None) -> Row:
    known = epoch is not None and epoch == epoch
    return {"run": run, "metric": "reference_epoch", "value": epoch if known else np.nan,
            "flag": "" if known else "no_reference"}  # fmt: skip


def _gate_row(run: str, gate: float | None) -> Row:
    row = {"run": run, "kind": "permuted", "metric": "gate"}
    if gate is None:
        return row | {"value": np.nan, "flag": "nothing_permuted"}
    if np.isnan(gate):
        return row | {"value": np.nan, "flag": "accuracy_unknown"}
    return row | {"value": gate, "flag": "" if gate >= GATE else "not_memorized"}


def _scale(curves: Mapping[str, Sequence[Curve]]) -> tuple[str, ...]:
    of = {question: [curve.layers for name, known in curves.items() for curve in known
                     if METHODS[name].question == question] for question in (HELD, APART)}  # fmt: skip
    return common_scale(of[HELD], of[APART])


def _on_scale(
    method: Method, curves: Sequence[Curve], scale: Sequence[str]
) -> tuple[tuple[str, ...], list[float], list[Evidence]]:
    """The layers of the scale that all runs know, their places, and the evidence of these.

    Activations that were read at no layer of the scale have one of their own, of the same length.
    """
    read = [_read_at(method, curve, scale) for curve in curves]
    layers = tuple(layer for layer in scale if all(layer in of for of in read))
    if len(layers) < 2 and method.cumulative:
        own = common_scale([], [curve.layers for curve in curves])
        read = [_read_at(method, curve, own) for curve in curves]
        layers = tuple(layer for layer in own if all(layer in of for of in read))
        scale = own if len(layers) > 1 else scale
    if len(layers) < 2:
        raise InputError(
            f"{method.name} knows fewer than two layers that all runs have: localize networks of one architecture, with "
            "activations of two layers or more"
        )
    places = [float(list(scale).index(layer)) for layer in layers]
    evidence = [_from_input(curve).of([of[layer] for layer in layers]) for curve, of in zip(curves, read, strict=True)]
    return layers, places, evidence


def _read_at(method: Method, curve: Curve, scale: Sequence[str]) -> dict[str, int]:
    if method.cumulative:
        return read_at(curve.layers, scale)
    matching = {layer: [i for i, own in enumerate(curve.layers) if same_layer(own, layer)] for layer in scale}
    return {layer: found[0] for layer, found in matching.items() if found}


def _from_input(curve: Curve) -> Evidence:
    """Evidence beyond what there is at the input, which is no layer."""
    if INPUT not in curve.layers:
        return curve.evidence
    units = curve.evidence.units
    return Evidence(units - units[:, [curve.layers.index(INPUT)]], curve.evidence.stderr)


def _method_rows(scale: Sequence[str], layers: Sequence[str], found: Localization) -> Iterator[Row]:
    for i, layer in enumerate(layers):
        place = {"layer": layer, "depth": found.positions[i], "kind": "permuted", "n": found.n_runs}
        for name, values in (
            ("evidence", (found.evidence, found.evidence_low, found.evidence_high)),
            ("profile", (found.shares, found.shares_low, found.shares_high)),
        ):
            yield from _with_interval(place | {"metric": name}, Estimate(*(float(part[i]) for part in values)))
        yield place | {"metric": "named", "value": float(found.named[i])}
    for name in _PLACES:
        estimate: Estimate = getattr(found, name)
        nearest = layers[int(np.abs(found.positions - estimate.value).argmin())]
        yield from _with_interval({"layer": nearest, "metric": name, "n": found.n_runs}, estimate)
    yield {
        "metric": "depth_of_last_layer",
        "value": float(max(len(scale) - 1, found.positions[-1], 1)),
        "n": found.n_runs,
    }
    yield {"metric": "p_value", "value": found.p_value, "n": found.n_units}
    reason = _reason(found)
    yield {"metric": "localized", "value": float(not reason), "n": found.n_runs, "flag": reason}


def _trial_rows(method: str, network: str) -> Iterator[Row]:
    """Share of planted networks in which the method found the layer, with its interval, and by chance."""
    trial = trial_of(method, network)
    if trial is not None:
        row = {"n": trial.n}
        yield from _with_interval(row | {"metric": "found_planted"}, Estimate(trial.found, trial.low, trial.high))
        yield row | {"metric": "found_by_chance", "value": trial.chance}


def _beside_rewinding(table: pd.DataFrame, before: float | None, found: _Located) -> Iterator[Row]:
    """Beside the layers that are named: what noise of the length of their movement costs, and pairs of them."""
    layers, located = found
    named = [layer for layer, is_named in zip(layers, located.named, strict=True) if is_named]
    names = {"+".join(pair) for pair in itertools.combinations(named, 2)}
    for sweep, metric, wanted in (("noise", "accuracy_drop", set(named)), ("pair", "interaction", names)):
        rows = rewound(table, before, sweep)
        rows = rows[(rows["metric"] == metric) & (rows["kind"] == "permuted") & rows["layer"].isin(wanted)]
        new = "noise_control" if sweep == "noise" else metric
        for run, layer, value, error in rows[["run", "layer", "value", "stderr"]].itertuples(index=False):
            yield {"run": run, "layer": layer, "kind": "permuted", "metric": new, "value": value, "stderr": error}


def _with_interval(row: Row, estimate: Estimate) -> Iterator[Row]:
    for ending, value in (("", estimate.value), ("_ci_low", estimate.low), ("_ci_high", estimate.high)):
        yield row | {"metric": f"{row['metric']}{ending}", "value": value}


def _reason(found: Localization) -> str:
    """Reason why a method does not locate memorization; empty where it does."""
    if np.array_equal(found.evidence_low, found.evidence_high):
        return "no_error"
    if not found.present:
        return "no_evidence"
    if found.p_differs > SIGNIFICANT:
        return "no_layer_differs"
    width = found.center_of_mass.high - found.center_of_mass.low
    return "wide_interval" if width > (found.positions[-1] - found.positions[0]) / 2 else ""


# ---------------------------------------------------------------------------------------------------------------- words
# question -> how its answer begins, what it asks, and what to run where no method was tried
_ANSWERS = {
    APART: ("Permuted examples come apart at", "Where permuted examples come apart",
            "manigeo capacity or separability on activations of the checkpoints from before memorization and from the end"),
    HELD: ("What was memorized is held by", "Which layers hold what was memorized",
           "manigeo rewind --each on the folder of the training, with its checkpoints"),
}  # fmt: skip
_SHARES = {
    "geometry": "of the fall of the inverse capacity of permuted manifolds",
    "separability": "of the rise of a linear probe's accuracy on permuted labels",
    "rewinding": "of the permuted accuracy that single layers cost when they are set back to the reference epoch",
    "retraining": "of the permuted accuracy that stays lost when single layers are set back and trained on clean examples",
    "grafting": "of the permuted accuracy that single trained layers bring to the network of the reference epoch",
    "re-initialisation": "of the permuted accuracy that single layers cost when they are re-initialised",
    "gradients": "of the change that permuted examples made in single layers",
    "weights": "of the rotation of all layers since the reference epoch",
    "channels": "of the excess of the channels that flip permuted examples over all channels",
}


def describe_localization(table: pd.DataFrame, correlations: bool = True) -> str:
    """Describe the two answers, one sentence for each, then one line per method with its numbers, on one scale of depth; and
    the rank ``correlations`` of the profiles, as a matrix."""
    full = with_settings(table, "analysis", "method", "other", "network")
    full = full[full["analysis"] == "localize"]
    gates = full[full["metric"] == "gate"]
    return in_words_of(memorized_kind(set(gates["kind"])), _described(full, gates, correlations))


def _described(full: pd.DataFrame, gates: pd.DataFrame, correlations: bool) -> str:
    if not gates["flag"].eq("").any():
        return _describe_gate(gates)
    methods = {name: rows for name, rows in full[full["other"].isna()].groupby("method", sort=False)}
    found = {name: _Found(name, rows) for name, rows in methods.items()}
    answers = [_answer(question, found) for question in (APART, HELD)]
    lines = [f"- {name}: {one.words()}.{one.trial()}" for name, one in found.items()]
    return "\n".join(
        [
            _describe_gate(gates),
            *_describe_reference(full[full["metric"] == "reference_epoch"]),
            *answers,
            *(line for one in found.values() for line in one.together()),
            *_compare(found),
            "Depth: 0 % is the first layer with parameters, 100 % the last.",
            *lines,
            *(_describe_agreement(full) if correlations else []),
        ]
    )


def _describe_gate(gates: pd.DataFrame) -> str:
    if gates["flag"].eq("nothing_permuted").all():
        return "There is nothing to localize: no labels were permuted."
    known = gates[~gates["flag"].isin(["nothing_permuted", "accuracy_unknown"])]
    if known.empty:
        return (
            "Not enough evidence: it is not known whether the network has memorized; run manigeo rewind or reinit, which "
            "score it, keep the activations beside their tables, or record the accuracy of the kind permuted."
        )
    reached = known["flag"].eq("").sum()
    low, high = (f"{accuracy:.3f}" for accuracy in (known["value"].min(), known["value"].max()))
    accuracies = f"training accuracy on permuted labels {low}" + (f" to {high}" if high != low else "")
    if not reached:
        return (
            f"There is nothing to localize: the network has not memorized ({accuracies}, needed {GATE}); train longer."
        )
    runs = "The network has" if len(gates) == 1 else f"{reached} of {len(gates)} networks have"
    return f"{runs} memorized ({accuracies}, needed {GATE})."


def _describe_reference(rows: pd.DataFrame) -> list[str]:
    epochs = sorted(rows["value"].dropna().unique())
    if epochs:
        named = ", ".join(f"{epoch:.0f}" for epoch in epochs)
        untrained = " Epoch 0 is before the training: what is compared is all that it changed, not memorization alone."
        return [f"{REFERENCE[0]} {named}, before memorization (the reference epoch).{untrained * (0 in epochs)}"]
    if rows.empty:
        return []
    return [
        f"{REFERENCE[1]} is in the tables (give those of a checkpoint from before it, too): permuted examples "
        "are compared with points without structure."
    ]


class _Found:
    """Result of one method, as a table tells it."""

    def __init__(self, name: str, rows: pd.DataFrame) -> None:
        self.name, self.question = name, METHODS[name].question
        self._rows = rows
        self._kind = next(iter(rows["network"].dropna()), ALL)
        profile = rows[rows["metric"] == "profile"].sort_values("depth")
        self.layers, self.shares = list(profile["layer"]), profile["value"].to_numpy()
        named = rows[rows["metric"] == "named"].sort_values("depth")
        self.named = [i for i, value in enumerate(named["value"]) if value == 1]
        self.places = profile["depth"].to_numpy()[self.named]
        self.localized = self.value("localized") == 1
        self.flag = rows.loc[rows["metric"] == "localized", "flag"].iloc[0]

    def value(self, metric: str) -> float:
        return float(self._rows.loc[self._rows["metric"] == metric, "value"].iloc[0])

    @property
    def center(self) -> tuple[float, float, float]:
        """Centre of mass and its interval, in layers."""
        center, low, high = (self.value(f"center_of_mass{ending}") for ending in ("", "_ci_low", "_ci_high"))
        return center, low, high

    def where(self) -> str:
        return layer_list(self.layers, self.named)

    def share(self) -> str:
        """The share of the layers named; of one layer with its interval."""
        share = f"{100 * self.shares[self.named].sum():.0f} %"
        if len(self.named) > 1:
            most = self.layers[int(self.shares.argmax())]
            return f"{share}, most at {most} ({100 * self.shares.max():.0f} %)"
        place = self._rows[self._rows["layer"] == self.layers[self.named[0]]].set_index("metric")["value"]
        return f"{share} [{100 * place['profile_ci_low']:.0f}, {100 * place['profile_ci_high']:.0f}]"

    @property
    def is_spread(self) -> bool:
        """True where exchanging a layer costs little accuracy, whichever it is."""
        evidence = self._rows.loc[self._rows["metric"] == "evidence", "value"]
        return self.name in ("rewinding", "re-initialisation") and bool(evidence.max() < _LITTLE)

    def cost(self) -> str:
        """The accuracy that the exchange of the layer with the largest share costs."""
        if self.name not in ("rewinding", "re-initialisation"):
            return ""
        layer = self.layers[int(self.shares.argmax())]
        at = self._rows[self._rows["layer"] == layer].set_index("metric")["value"]
        value, low, high = (at[f"evidence{ending}"] for ending in ("", "_ci_low", "_ci_high"))
        noise = self._rows[(self._rows["metric"] == "noise_control") & (self._rows["layer"] == layer)]["value"]
        control = f" (noise of the same length: {noise.mean():.2f})" if len(noise) else ""
        cost = f"{value:.2f} [{low:.2f}, {high:.2f}]"
        return f"; {layer} alone costs permuted examples {cost} more than unpermuted ones{control}"

    def together(self) -> list[str]:
        """Cost of pairs of the layers named beyond the sum of both."""
        pairs = (
            self._rows[self._rows["metric"] == "interaction"].groupby("layer", sort=False)[["value", "stderr"]].mean()
        )
        return [
            f"Together {layer.replace('+', ' and ')} cost {value:+.2f} ± {error:.2f} beyond the sum of both (interaction)."
            for layer, (value, error) in zip(pairs.index, pairs.to_numpy(), strict=True)
        ]

    def depth(self) -> str:
        last = self.value("depth_of_last_layer")
        center, low, high = (100 * place / last for place in self.center)
        return f"centre of mass at {center:.0f} % [{low:.0f}, {high:.0f}] of the depth"

    def trial(self) -> str:
        """Record of the method: how often it has found planted layers."""
        trial = trial_of(self.name, self._kind)
        return f" Put to the test: {trial.words()}." if trial else ""

    def words(self) -> str:
        p = f"p = {self.value('p_value'):.2g}"
        if self.flag:
            return flag_words(self.flag) + ("" if self.flag == "no_error" else f" ({p})")
        return f"{self.where()} ({self.share()}); {self.depth()}; {p}"

    def meets(self, other: "_Found") -> bool:
        """True where the layers named are the same within one layer, or the intervals of the centre overlap within one."""
        (_, low, high), (_, its_low, its_high) = self.center, other.center
        apart = np.abs(np.subtract.outer(self.places, other.places)) <= 1
        return bool(max(low, its_low) - 1 <= min(high, its_high) or (apart.any(0).all() and apart.any(1).all()))


def _answer(question: str, found: Mapping[str, _Found]) -> str:
    """One sentence: the layers that the first method that can tell names, and whether the others agree."""
    begins, topic, how = _ANSWERS[question]
    asked = [one for one in found.values() if one.question == question]
    told = [one for one in asked if one.localized]
    if not asked:
        return f"{topic} is not known: run {how}."
    if not told:
        return f"{topic} is not known: {'; '.join(f'{one.name}: {one.words()}' for one in asked)}."
    first, others = told[0], told[1:]
    agree = [one.name for one in others if first.meets(one)]
    apart = [f"{one.name} ({one.where()})" for one in others if not first.meets(one)]
    beside = [f"{' and '.join(agree)} {'agrees' if len(agree) == 1 else 'agree'}"] if agree else []
    beside += [f"{' and '.join(apart)} {'does' if len(apart) == 1 else 'do'} not agree"] if apart else []
    more = f"; {'; '.join(beside)}" if beside else ""
    if first.is_spread:
        begins = "No single layer holds much of what was memorized; most is held by"
    return f"{begins} {first.where()}: {first.share()} {_SHARES[first.name]}{first.cost()} ({first.name}{more})."


def _compare(found: Mapping[str, _Found]) -> list[str]:
    """Comparison of the two answers; they are answers to two questions, so that they cannot contradict each other."""
    first = [next((one for one in found.values() if one.question == question and one.localized), None)
             for question in (APART, HELD)]  # fmt: skip
    apart, held = first
    if apart is None or held is None:
        return []
    if apart.meets(held):
        return ["The two answers agree: examples come apart where their labels are held."]
    return [
        "These are answers to two questions, and both hold: examples can come apart in layers that hold nothing of what "
        "was memorized."
    ]


def correlation_matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations of the profiles of the methods, a matrix above its diagonal; NaN where there is none.

    ``rows`` are of the analysis ``localize``, with the settings ``method`` and ``other`` as columns.
    """
    known = rows[rows["metric"].eq("agreement") & rows["value"].notna()]
    names = list(dict.fromkeys([*known["method"], *known["other"]]))
    matrix = pd.DataFrame(np.nan, index=names[:-1], columns=names[1:])
    for one, other, value in known[["method", "other", "value"]].itertuples(index=False):
        matrix.loc[one, other] = value
    return matrix.dropna(how="all")


def _describe_agreement(rows: pd.DataFrame) -> list[str]:
    matrix = correlation_matrix(rows)
    if matrix.empty:
        return []
    return ["Rank correlation of the profiles over the layers:", matrix.to_string(float_format="%+.2f", na_rep="")]

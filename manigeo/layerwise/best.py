"""Choice of the best layer, from a table of separability: for each measure and kind, with intervals and agreement.

The largest value over layers is optimistic, since the layer was chosen on the examples that it is scored on; so beside it
stands the value on one half of the examples of the layer that is best on the other half, averaged over both ways, and the
largest value on each half, averaged too: the difference is the optimism. (Of values of halves: g and the Fisher ratio
depend on the number of examples.)
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pandas as pd

from manigeo.randomness import stream
from manigeo.results import as_table, identities, join_results
from manigeo.separability.best import best_layer, concordance

Row = dict[str, Any]

BEST = ("best_layer", "best_layer_ci_low", "best_layer_ci_high", "best_layer_share", "best_value", "best_value_split",
        "best_value_halves")  # fmt: skip
AGREEMENTS = ("agreement_of_measures", "agreement_of_checkpoints")
_CHOSEN = {*BEST, *(f"{name}{end}" for name in AGREEMENTS for end in ("", "_ci_low", "_ci_high"))}
_IDENTITY = ["run", "checkpoint", "epoch", "fingerprint"]
_RESAMPLES = 1000


class Profile(NamedTuple):
    """Profile of one checkpoint, kind and measure: values by layer (rows, by depth) and class; halves by layer."""

    place: Row
    kind: str
    measure: str
    per_class: pd.DataFrame
    halves: pd.DataFrame


def without_choices(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it was measured."""
    return table[~table["metric"].isin(_CHOSEN)]


def with_choices(table: pd.DataFrame, measures: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """The table and, for each checkpoint, kind and measure, its best layer; then what measures, and checkpoints, agree on.

    - ``best_layer``, its depth, with ``_ci_low`` and ``_ci_high`` over classes drawn with replacement, and ``_share``, of
      those draws that have the same best layer; ``best_value`` there, ``best_value_split`` and ``best_value_halves``
    - ``agreement_of_measures`` and ``agreement_of_checkpoints``: Kendall's W of the rankings of layers, with intervals
    """
    table = without_choices(table)
    profiles = list(_profiles(table, measures))
    rows = [row for profile in profiles for row in _best_rows(profile, seed)]
    for name, group in (("agreement_of_measures", _by_checkpoint), ("agreement_of_checkpoints", _by_measure)):
        rows += [row for members in group(profiles) for row in _agreement_rows(name, members, seed)]
    return join_results([table, *([as_table(rows)] if rows else [])])


def _profiles(table: pd.DataFrame, measures: Sequence[str]) -> Iterator[Profile]:
    wanted = table[table["metric"].isin(measures) & (table["manifold"] != "")]
    run_ids = identities(wanted)["run_id"]
    halves = table[table["metric"].isin([f"{m}_half{i}" for m in measures for i in (1, 2)]) & (table["manifold"] == "")]
    for (*identity, kind, measure), rows in wanted.groupby([*_IDENTITY, "kind", "metric"], dropna=False, sort=False):
        per_class = rows.pivot(index=["depth", "layer"], columns="manifold", values="value").sort_index()
        mine = halves[(halves["fingerprint"] == identity[-1]) & (halves["kind"] == kind)]
        mine = mine[mine["metric"].isin([f"{measure}_half1", f"{measure}_half2"])]
        of_halves = mine.pivot(index=["depth", "layer"], columns="metric", values="value").reindex(per_class.index)
        complete = per_class.dropna()
        if len(complete) > 1:
            place = dict(zip(_IDENTITY, identity, strict=True)) | {"run_id": run_ids[rows.index[0]]}
            yield Profile(place, kind, measure, complete, of_halves)


def _best_rows(profile: Profile, seed: int) -> Iterator[Row]:
    rng = stream(seed, crc32(profile.kind.encode()))  # the same classes for every measure
    best = best_layer(profile.per_class.to_numpy(), _RESAMPLES, rng=rng)
    depths, layers = zip(*profile.per_class.index, strict=True)
    settings = json.dumps({"analysis": "best_layer", "measure": profile.measure, "resamples": _RESAMPLES, "seed": seed})
    common = profile.place | {"kind": profile.kind, "settings": settings, "n": profile.per_class.shape[1]}
    for metric, index in (("", best.index), ("_ci_low", best.low), ("_ci_high", best.high)):
        place = {"layer": layers[index], "depth": depths[index]}
        yield common | place | {"metric": f"best_layer{metric}", "value": depths[index]}
    place = {"layer": layers[best.index], "depth": depths[best.index]}
    yield common | place | {"metric": "best_layer_share", "value": best.share, "n": _RESAMPLES}
    yield common | place | {"metric": "best_value", "value": float(profile.per_class.iloc[best.index].mean())}
    if profile.halves.shape[1] == 2 and profile.halves.notna().all(axis=None):
        first, second = profile.halves.to_numpy().T
        split = (second[first.argmax()] + first[second.argmax()]) / 2
        yield common | place | {"metric": "best_value_split", "value": split}
        yield common | place | {"metric": "best_value_halves", "value": (first.max() + second.max()) / 2}


def _by_checkpoint(profiles: Sequence[Profile]) -> Iterator[list[Profile]]:
    """Measures of one checkpoint and kind."""
    yield from _groups(profiles, lambda profile: (profile.place["fingerprint"], profile.kind))


def _by_measure(profiles: Sequence[Profile]) -> Iterator[list[Profile]]:
    """Checkpoints, of one measure and kind."""
    yield from _groups(profiles, lambda profile: (profile.measure, profile.kind))


def _groups(profiles: Sequence[Profile], key: Any) -> Iterator[list[Profile]]:
    groups: dict[Any, list[Profile]] = {}
    for profile in profiles:
        groups.setdefault(key(profile), []).append(profile)
    yield from (members for members in groups.values() if len(members) > 1)


def _shared_place(members: Sequence[Profile]) -> Row:
    """The run of several checkpoints, and its identity where it is one run."""
    ids = {str(member.place["run_id"]) for member in members}
    return {"run": members[0].place["run"]} | ({"run_id": members[0].place["run_id"]} if len(ids) == 1 else {})


def _agreement_rows(name: str, members: Sequence[Profile], seed: int) -> Iterator[Row]:
    """Agreement on the layers, and by the classes, that all of them have."""
    shared = pd.concat([m.per_class.stack().rename(i) for i, m in enumerate(members)], axis=1, join="inner")
    layers = shared.index.droplevel("manifold").unique()
    if len(layers) < 2:
        return
    values = np.stack([shared[i].unstack("manifold").to_numpy() for i in range(len(members))])
    agreed = concordance(values, _RESAMPLES, rng=stream(seed, crc32(members[0].kind.encode()), 1))
    over_measures = name == AGREEMENTS[0]
    place = members[0].place if over_measures else _shared_place(members)
    among = {"measures": [m.measure for m in members]} if over_measures else {"measure": members[0].measure}
    settings = json.dumps({"analysis": name, "resamples": _RESAMPLES, "seed": seed} | among)
    common = place | {"kind": members[0].kind, "settings": settings, "n": len(members)}
    for ending, value in (("", agreed.w), ("_ci_low", agreed.low), ("_ci_high", agreed.high)):
        yield common | {"metric": f"{name}{ending}", "value": value, "flag": "" if np.isfinite(value) else "no_ranks"}

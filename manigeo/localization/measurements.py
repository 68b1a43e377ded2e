"""Measurements: numbers of one network that were measured in one way, so that a method can read them together; and networks,
each of which counts once.

Several tables of one network may hold the same numbers twice: of other classes, of other activations (another readout), of
blocks and of the layers in them. Layers of two measurements do not compare, and their mean is of neither. What tells
measurements apart are the settings that all rows of one share, and, where activations were measured, these.
"""

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from manigeo.errors import InputError, shorten
from manigeo.results import bare_settings, row_settings, with_settings
from manigeo.runs import Found, FoundTable

# analysis -> what it gives
_OF_ACTIVATIONS = {"mean_field": "capacities", "probe": "probes"}
ANALYSES = _OF_ACTIVATIONS | {
    "rewind": "rewound layers", "reinit": "re-initialised layers", "gradients": "gradients",
    "weights": "movements of layers", "channels": "fewest channels",
}  # fmt: skip
# settings in which rows of one measurement differ, or that say what was asked for of it
_VARIED = frozenset(("to", "to_epoch", "k", "with", "trained_on", "layers", "kinds"))
Place = tuple[str, str, str, str]


def measured_once(found: Found, *, named: bool = False) -> Found:
    """The tables without what they hold of measurements beside the first one; it is told as left out.

    Tables in the run's ``analysis`` come before those in its folder, and these before others; ``named`` ones have no order.

    Raises :class:`~manigeo.errors.InputError` for two measurements in tables of which none comes before the other.
    """
    folders = [run.analysis.resolve() for run in found.runs], [run.path.resolve() for run in found.runs]

    def rank(path: Path) -> int:
        return 0 if named else next((i for i, places in enumerate(folders) if path.parent in places), len(folders))

    chosen, kept, left_out = _Chosen(), [], dict(found.left_out)
    for one in sorted(found.tables, key=lambda one: rank(one.path)):
        verdicts = chosen.verdicts(one.rows, one.path)
        for source, why in dict.fromkeys(verdict for verdict in verdicts.values() if verdict):
            said = f"{why} than in {source.name}, so that layers do not compare"
            if rank(source) == rank(one.path):
                raise InputError(
                    f"{one.path} has {said}: name the tables that belong together, or move one of them out of the folder"
                )
            left_out[one.path] = "; ".join(filter(None, [left_out.get(one.path, ""), said]))
        kept.append(FoundTable(one.path, _without(one.rows, verdicts)))
    tables = tuple(sorted(kept, key=lambda one: one.path))
    return Found(tables, found.runs, dict(sorted(left_out.items())), found.damaged)


def check_measured_once(table: pd.DataFrame, analysis: str) -> None:
    """Raise :class:`~manigeo.errors.InputError` where the table of one network holds two measurements by an analysis."""
    verdicts = _Chosen().verdicts(table, Path("the table"), analysis)
    for _, why in filter(None, verdicts.values()):
        raise InputError(f"the table holds {why} than others, so that layers do not compare: take the rows of one")


def check_networks(tables: Mapping[str, pd.DataFrame]) -> None:
    """Check that each table is of one network, and no two of the same.

    Raises :class:`~manigeo.errors.InputError` where a table is of several, or where a network would count twice.
    """
    known: dict[str, str] = {}
    for name, table in tables.items():
        identified, others = _networks(table)
        found = [*identified.values(), *others]
        if len(found) > 1:
            names = shorten(", ".join(found), 80)
            raise InputError(
                f"{name}: tables of {len(found)} networks ({names}): give the folders of their runs, or the tables of one"
            )
        for identity in identified:
            if (other := known.setdefault(identity, name)) != name:
                raise InputError(f"{other} and {name} are of one network, which would count twice: leave one out")


def _networks(table: pd.DataFrame) -> tuple[dict[str, str], list[str]]:
    """The names of the runs that measurements are of: by their identities, and of those that have none."""
    rows = with_settings(table[["run", "settings"]], "analysis", "run_id")
    rows = rows.loc[rows["analysis"].isin(list(ANALYSES)), ["run", "run_id"]].drop_duplicates().astype(object)
    identified = {str(row.run_id): str(row.run) for row in rows[rows["run_id"].notna()].itertuples()}
    others = {str(run) for run in rows.loc[rows["run_id"].isna(), "run"]} - {"", *identified.values()}
    return identified, sorted(others)


def measured_otherwise(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Sentences that name each network measured otherwise than the first that has such numbers, but for seeds."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    told = []
    for name, table in tables.items():
        for analysis, sweep, way in dict.fromkeys(map(_way, table["settings"])):
            if analysis not in ANALYSES:
                continue
            known, source = first.setdefault((analysis, sweep), (way, name))
            if source != name and (why := difference(way, known, but=("seed",))):
                told.append(f"{ANALYSES[analysis]} of {name} measured otherwise than those of {source} ({why})")
    return list(dict.fromkeys(told))


class _Chosen:
    """The measurement that was met first, of each analysis of each run: its settings (of exchanges of each sweep), and the
    activations of each epoch."""

    def __init__(self) -> None:
        self._settings: dict[tuple[str, str, str], tuple[str, Path]] = {}
        self._activations: dict[tuple[str, str, str], tuple[str, Path]] = {}

    def verdicts(
        self, table: pd.DataFrame, path: Path, only: str | None = None
    ) -> dict[Place, tuple[Path, str] | None]:
        """For each place of a table None where it is of the measurement, else where the first one is, and how this one
        differs."""
        return {place: self._verdict(place, path, only) for place in dict.fromkeys(_places(table))}

    def _verdict(self, place: Place, path: Path, only: str | None) -> tuple[Path, str] | None:
        run, epoch, settings, fingerprint = place
        analysis, sweep, way = _way(settings)
        if analysis not in ANALYSES or only not in (None, analysis):
            return None
        known, source = self._settings.setdefault((analysis, sweep, run), (way, path))
        if way != known:
            return source, f"{ANALYSES[analysis]} measured otherwise ({difference(way, known)})"
        if analysis in _OF_ACTIVATIONS:
            known, source = self._activations.setdefault((analysis, run, epoch), (fingerprint, path))
            if fingerprint != known:
                return source, f"{ANALYSES[analysis]} of other activations"
        return None


def _without(table: pd.DataFrame, verdicts: dict[Place, tuple[Path, str] | None]) -> pd.DataFrame:
    return table[[verdicts[place] is None for place in _places(table)]]


def _places(table: pd.DataFrame) -> list[Place]:
    """Run, epoch, settings and fingerprint of each row."""
    epochs = map(str, table["epoch"].tolist())
    return list(
        zip(table["run"].tolist(), epochs, table["settings"].tolist(), table["fingerprint"].tolist(), strict=True)
    )


@cache
def _way(text: str) -> tuple[str, str, str]:
    """The analysis of a row (none of a null model), the sweep of exchanges it is of, and the settings that all rows of its
    measurement share."""
    settings = row_settings(bare_settings(text))
    analysis = "" if settings.get("null") else str(settings.get("analysis", ""))
    shared = {name: value for name, value in settings.items() if name not in _VARIED}
    sweep = f"{settings.get('sweep', '')} {settings.get('direction', '')}"
    return analysis, sweep, json.dumps(shared, sort_keys=True)


def difference(way: str, other: str, but: Collection[str] = ()) -> str:
    """The settings in which one differs from the other, ``but`` these; none for those of another program, which are no JSON.

    >>> difference('{"seed": 1, "k": 2}', '{"k": 2}')
    'seed 1 in place of null'
    """
    one, two = row_settings(way), row_settings(other)
    names = [name for name in sorted({*one, *two} - {*but}) if one.get(name) != two.get(name)]
    return ", ".join(f"{name} {json.dumps(one.get(name))} in place of {json.dumps(two.get(name))}" for name in names)

"""Tables that an interrupted command has left: of the same settings or refused, and which of its tasks are whole."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pandas as pd

from manigeo.errors import UsageError
from manigeo.results import row_settings

K = TypeVar("K")
T = TypeVar("T")
Settings = Mapping[str, Any]


def check_settings(table: pd.DataFrame, wanted: Iterable[Settings]) -> None:
    """Refuse to go on with a table of other settings than the ``wanted`` ones, of each of its analyses.

    Settings that ``wanted`` does not name tell the tasks of an analysis apart, and are free.

    Raises :class:`~manigeo.errors.UsageError` with what differs.
    """
    by_analysis: dict[Any, list[Settings]] = {}
    for settings in wanted:
        by_analysis.setdefault(settings.get("analysis"), []).append(json.loads(json.dumps(settings)))
    for found in map(row_settings, table["settings"].unique()):
        known = by_analysis.get(found.get("analysis"))
        if known is None:
            raise _other(f"the table also holds {found.get('analysis')!r}, which this command does not compute")
        differing = min(([n for n in of if found.get(n) != of[n]] for of in known), key=len)
        if differing:
            nearest = next(of for of in known if all(found.get(n) == of[n] for n in of if n not in differing))
            what = "; ".join(f"{n} {found.get(n)} in the table, {nearest[n]} here" for n in differing)
            raise _other(f"the table was made with other settings ({what})")


def _other(why: str) -> UsageError:
    return UsageError(f"{why}: give the same settings, another --out, or --force")


def remaining(
    table: pd.DataFrame | None,
    tasks: Mapping[K, T],
    wanted: Iterable[Settings],
    key_of: Callable[[Any, Settings], K],
    is_whole: Callable[[T, list[Any]], bool],
) -> tuple[list[T], pd.DataFrame | None]:
    """The tasks that are not whole in an earlier table, and the table without their rows.

    ``key_of`` names the task of a row, which has the columns as attributes, from it and its settings; ``is_whole`` judges
    a task by its rows. Rows of other tasks than ``tasks`` stay. ``wanted`` are the settings of :func:`check_settings`.
    """
    if table is None:
        return list(tasks.values()), None
    check_settings(table, wanted)
    settings = {text: row_settings(text) for text in table["settings"].unique()}
    rows_of: dict[K, list[Any]] = {key: [] for key in tasks}
    owners = []
    for row in table.itertuples(index=False):
        owners.append(key_of(row, settings[row.settings]))
        rows_of.get(owners[-1], []).append(row)
    undone = {key for key, rows in rows_of.items() if not rows or not is_whole(tasks[key], rows)}
    kept = table[[owner not in undone for owner in owners]].reset_index(drop=True)
    return [task for key, task in tasks.items() if key in undone], kept

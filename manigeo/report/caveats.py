"""Caveats to know before the numbers are believed: sampling, the meaning of flags, and what numbers do not show."""

from collections.abc import Iterator
from pathlib import PurePath

import pandas as pd

from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.report.tables import settings_of
from manigeo.text.cells import listed, number
from manigeo.vocabulary import analysis_words, flags_words, metric_words

FEW_CLASSES = 30
_RULES = {
    "auto": "each manifold is seen in the metric that the others leave it",
    "reference": "the directions of the centres that leave the least correlation are removed, as the authors do",
    "keep": "nothing is removed, so that shared directions raise capacity",
}


def caveats(aggregates: pd.DataFrame, n_runs: int) -> list[str]:
    """Sentences, of what the tables hold alone."""
    return [*_seeds(aggregates, n_runs), *_samples(aggregates), *_centers(aggregates), *_meaning()]


def _seeds(aggregates: pd.DataFrame, n_runs: int) -> Iterator[str]:
    runs = max(
        n_runs, len({PurePath(run).name for run in aggregates["run"].unique() if run})
    )  # some say the folder too
    if runs <= 1:
        yield (
            "This is one run with one seed. Errors are over classes, examples and draws; they know nothing of other seeds. "
            "Train several before a difference is believed."
        )
    else:
        yield f"There are {runs} runs. Errors of one run's numbers are over classes, examples and draws, not over runs."


def _samples(aggregates: pd.DataFrame) -> Iterator[str]:
    sizes: dict[tuple[str, str], list[str]] = {}
    for text in aggregates["settings"].unique():
        settings = settings_of(text)
        if {"per_class", "n_classes"} <= set(settings) and settings.get("analysis") != "sweep":
            named = sizes.setdefault((settings["n_classes"], settings["per_class"]), [])
            named.append(analysis_words(settings.get("analysis", "")))
    for (classes, examples), analyses in sizes.items():
        size = f"P = {classes} classes, M = {examples} examples of each, the same for every kind."
        yield f"{listed(list(dict.fromkeys(analyses)))}: {size}{_small(classes, examples)}"
    if len(sizes) > 1:
        yield "Numbers of different P or M do not compare: capacity of M points has a floor, 2/M for many classes."


def _small(classes: str, examples: str) -> str:
    """Describe what follows from the size of a sample, where it is numbers."""
    try:
        P, M = int(classes), int(examples)
    except ValueError:
        return ""
    if P < 2 or M < 1:
        return ""
    lowest = number(unstructured_capacity(M, n_manifolds=P), 3)
    floor = f" M points without structure have a mean-field capacity of {lowest}, whatever the network does."
    few = f" {P} classes are few for mean field, which is exact for many: read trends, not values."
    return floor + (few if P < FEW_CLASSES else "")


def _centers(aggregates: pd.DataFrame) -> Iterator[str]:
    of_centers = aggregates[
        aggregates["metric"].isin(["center_rank", "center_correlation", "center_correlation_residual"])
    ]
    for rule in dict.fromkeys(settings_of(text).get("centers", "") for text in of_centers["settings"].unique()):
        if not rule:
            continue
        part = of_centers[[settings_of(text).get("centers") == rule for text in of_centers["settings"]]]
        said = [
            f"{metric_words(str(name)).name} {_range(rows['value'])}"
            for name, rows in part.groupby("metric", sort=False)
        ]
        yield (
            f"Shared directions of the centres, rule “{rule}”: {_RULES.get(rule, 'a rule of its own')}. "
            f"Over layers and kinds: {'; '.join(said)}."
        )


def _range(values: pd.Series) -> str:
    low, high = number(values.min(), 3), number(values.max(), 3)
    return low if low == high else f"{low} to {high}"


def _meaning() -> Iterator[str]:
    yield (
        "Geometry and probes say where examples come apart, interventions what the network does without: these need not be "
        "the same layers. Studies disagree on where memorization is (Stephenson et al. 2021; Maini et al. 2023)."
    )


def flags_in_words(aggregates: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Each flag, its meaning, and where it stands."""
    flagged = aggregates[aggregates["flag"] != ""]
    return [(flag, flags_words(flag), _where(rows)) for flag, rows in flagged.groupby("flag", sort=False)]


def _where(rows: pd.DataFrame) -> str:
    places = [f"{kind or 'of all kinds'}{_at(part['layer'])}" for kind, part in rows.groupby("kind", sort=False)]
    return f"{len(rows)} number{'s' if len(rows) > 1 else ''}: {'; '.join(places)}"


def _at(layers: pd.Series) -> str:
    named = [layer for layer in layers.unique() if layer]
    return f" at {listed(named, 4)}" if named else ""

"""The page: what was found, put into the template. Everything that comes from a file goes through Jinja's escaping."""

import base64
import hashlib
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from manigeo import __version__
from manigeo.kinds import memorized_kind
from manigeo.report.additions import Addition
from manigeo.report.answer import read_answers
from manigeo.report.caveats import caveats, flags_in_words
from manigeo.report.downloads import embed_tables
from manigeo.report.examples import example_sections
from manigeo.report.figures import draw_pictures, drawn_together
from manigeo.report.gate import gates_of_answer, read_gate
from manigeo.report.seeds import compare_runs, weigh_together
from manigeo.report.sequences import HEADINGS, N_NAMES, sequence_sections
from manigeo.report.sources import DescribedRun, Recording, Sources
from manigeo.report.tables import metric_tables, settings_of
from manigeo.storage.files import check_target, whole_file
from manigeo.text.cells import NOTHING, listed
from manigeo.vocabulary import analysis_words, in_words_of, kinds_in_words

ANSWERING = "depth"  # the figure that stands with the answer
Pairs = list[tuple[str, str]]


def render_page(sources: Sources, title: str = "", additions: Sequence[Addition] = ()) -> str:
    """The whole report as one HTML document that loads nothing; the same sources give the same text. ``additions`` are
    figures and tables of a user's own."""
    aggregates = sources.aggregates
    script, style = (_asset(name) for name in ("report.js", "report.css"))
    pictures = draw_pictures(sources.tables)
    answers = read_answers(sources.tables)
    if (weighed := weigh_together(sources, answers)) is not None:
        answers = [*read_answers([weighed]), *answers]
        pictures = [*drawn_together(weighed, ANSWERING), *pictures]
    kind = memorized_kind({*aggregates["kind"], *(kind for run in sources.runs for kind in _scored(run))})
    return _template(kind).render(
        title=title or _title(sources),
        subtitle=_subtitle(sources),
        script=Markup(script),
        style=Markup(style),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        answers=answers,
        comparison=compare_runs(answers),
        additions=additions,
        answering=[picture for picture in pictures if picture.figure == ANSWERING],
        pictures=[picture for picture in pictures if picture.figure != ANSWERING],
        examples=example_sections(sources.examples),
        sequences=sequence_sections(sources.runs),
        headings=HEADINGS,
        n_names=N_NAMES,
        kinds=kinds_in_words(kind),
        gates=[gate for run in sources.runs if (gate := read_gate(run, aggregates))] or gates_of_answer(aggregates),
        analyses=metric_tables(aggregates),
        downloads=embed_tables(sources.tables),
        settings=_settings(aggregates),
        runs=[(run.name, flattened(run.description)) for run in sources.runs],
        recordings=[(recording, _origin(recording)) for recording in sources.recordings],
        origins=[(file.name, _origins(file.table)) for file in sources.tables],
        caveats=caveats(aggregates, len(sources.runs)),
        flags=flags_in_words(aggregates),
        left_out=sources.left_out,
        version=__version__,
    )


def write_page(page: str, path: str | os.PathLike[str], force: bool = False) -> None:
    """The file appears when it is whole; raises as :func:`~manigeo.storage.files.check_target` does."""
    with whole_file(check_target(path, force=force, suffixes=(".html", ".htm"), what="reports")) as partial:
        Path(partial).write_bytes(page.encode("utf-8", "replace"))


def _scored(run: DescribedRun) -> list[str]:
    return [] if run.metrics is None else list(run.metrics["kind"].unique())


def _template(kind: str | None) -> Template:
    """The page, with the filter ``spoken`` for text about the kind that memorization alone answers."""
    environment = Environment(
        loader=PackageLoader("manigeo.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["log2"] = math.log2
    environment.filters["spoken"] = lambda html: Markup(in_words_of(kind, str(escape(html))))
    return environment.get_template("report.html")


def _asset(name: str) -> str:
    """Read one of our own files that go into the page as they are."""
    return package_files("manigeo.report").joinpath("templates", name).read_text(encoding="utf-8")


def _title(sources: Sources) -> str:
    names = [run.name for run in sources.runs if run.name != "."] or sorted({*sources.table["run"]} - {""})
    return f"Memorization in {listed(names, 3)}" if names else "Memorization, layer by layer"


def _subtitle(sources: Sources) -> str:
    """Subtitle with network and data, where all runs are of one."""
    said = {_network(run.description) for run in sources.runs}
    return said.pop() if len(said) == 1 else ""


def _network(description: Mapping[str, Any]) -> str:
    permutation = description.get("permutation")
    fraction = permutation.get("fraction") if isinstance(permutation, dict) else None
    network = " on ".join(str(description[key]) for key in ("arch", "data") if description.get(key))
    permuted = f"{fraction:.0%} of the labels permuted" if isinstance(fraction, (int, float)) else ""
    args = description.get("data_args")
    planted = args.get("canaries") if isinstance(args, dict) else None
    if isinstance(planted, list) and len(planted) == 3:
        permuted = "{} canaries of {} tokens, {} times in every epoch".format(*planted)
    return ", ".join(filter(None, [network, permuted]))


def flattened(value: Mapping[str, Any], prefix: str = "") -> Pairs:
    """Nested settings as dotted names and text.

    >>> flattened({"plan": {"lr": 0.02, "milestones": []}, "seed": 0})
    [('plan.lr', '0.02'), ('plan.milestones', '[]'), ('seed', '0')]
    """
    pairs: Pairs = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            pairs += flattened(item, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", item if isinstance(item, str) else json.dumps(item)))
    return pairs


def _origin(recording: Recording) -> Pairs:
    """The command first, as it was typed."""
    argv = recording.provenance.get("argv")
    command = [("command", "manigeo " + shlex.join(map(str, argv)))] if isinstance(argv, list) else []
    rest = {key: value for key, value in recording.provenance.items() if key != "argv" or not command}
    return [*command, ("manigeo", recording.manigeo_version), ("fingerprint", recording.fingerprint), *flattened(rest)]


def _origins(table: pd.DataFrame) -> Pairs:
    """Networks that a table is of."""
    places = table.drop_duplicates(["run", "checkpoint", "epoch"])[["run", "checkpoint", "epoch"]]
    named = [_place(*place) for place in places.itertuples(index=False)]
    prints = [text[:12] for text in table["fingerprint"].unique() if text]
    return [
        ("of", listed([name for name in named if name], 12) or NOTHING),
        ("fingerprints", listed(prints, 6) or NOTHING),
    ]


def _place(run: str, checkpoint: str, epoch: float) -> str:
    at = "" if epoch != epoch else f" (epoch {epoch:g})"
    return " ".join(filter(None, [run, checkpoint])) + (at if run or checkpoint else "")


def _settings(aggregates: pd.DataFrame) -> list[tuple[str, Pairs]]:
    """List, for each analysis, every setting and the values that it takes."""
    values: dict[str, dict[str, dict[str, None]]] = {}
    for text in aggregates["settings"].unique():
        settings = settings_of(text)
        of_analysis = values.setdefault(settings.pop("analysis", ""), {})
        for name, value in settings.items():
            of_analysis.setdefault(name, {})[value or NOTHING] = None
    return [
        (analysis_words(analysis), [(name.replace("_", " "), listed(taken, 12)) for name, taken in of_analysis.items()])
        for analysis, of_analysis in values.items()
    ]

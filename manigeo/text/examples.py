"""The plan and the summary of ``manigeo examples``, printed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from manigeo.kinds import memorized_kind
from manigeo.per_example.summary import Summary, summarize
from manigeo.text.cells import as_text, cell, duration
from manigeo.vocabulary import flags_words, in_words_of, metric_words

if TYPE_CHECKING:
    from manigeo.per_example.plan import ExamplesPlan


def describe_plan(plan: "ExamplesPlan") -> str:
    """Describe what is measured, of which examples, and about how long it takes."""
    kinds = ", ".join(f"{kind} {n}" for kind, n in plan.kinds.items())
    of_loads = f"; loads of {len(plan.loaded)} training examples, {plan.n_draws} draws"
    lines = [
        f"{plan.path or 'activations in memory'}: {len(plan.layers)} layers; {kinds} examples",
        f"{len(plan.tasks)} tasks of {plan.task_bytes / 1e6:.0f} MB at most, about {duration(plan.seconds)} on one core: "
        f"{', '.join(plan.measures)}, k = {plan.k}" + of_loads * any("load" in name for name in plan.measures),
        *(f"left out: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)


def examples_report(table: "pd.DataFrame") -> str:
    """Depths by kind, permuted against unpermuted, test accuracy by depth, and who carries the load."""
    s = summarize(table)
    return in_words_of(memorized_kind(s.n), "\n\n".join([*_blocks(s), *_flags(table)]))


def _blocks(s: Summary) -> Iterator[str]:
    n = ", ".join(f"{kind} {count}" for kind, count in s.n.items())
    yield f"{n} examples" + f", {s.n_layers} layers" * (s.n_layers > 0)
    if s.depths:
        lines = {metric_words(name).name: {kind: cell(*of) for kind, of in by.items()} for name, by in s.depths.items()}
        table = pd.DataFrame.from_dict(lines, orient="index").reindex(columns=[k for k in s.n if k in s.depths_kinds()])
        yield as_text(table, "mean over examples")
    if s.auroc:
        told = {metric_words(name).name: cell(*value) for name, value in s.auroc.items()}
        yield as_text(pd.DataFrame({"AUROC": told}), "permuted against unpermuted examples, by")
    if s.test_accuracy:
        by_depth = {depth: [f"{value:.2f}", str(count)] for depth, (value, count) in s.test_accuracy.items()}
        yield as_text(pd.DataFrame(by_depth, index=["accuracy", "examples"]), "test, by prediction depth")
    if s.load_share:
        shares = {metric_words(name).name: {k: f"{v:.2f}" for k, v in of.items()} for name, of in s.load_share.items()}
        yield as_text(pd.DataFrame(shares), "share of permuted examples in")


def _flags(table: "pd.DataFrame") -> Iterator[str]:
    flagged = table.loc[table["flag"] != "", ["metric", "layer", "flag"]].drop_duplicates()
    lines = [
        f"{flags_words(str(flag))}: {metric_words(str(metric)).name}" + _of_layers(rows["layer"].astype(str))
        for (flag, metric), rows in flagged.groupby(["flag", "metric"], observed=True, sort=False)
    ]
    if lines:
        yield "\n".join(["flags", *lines])


def _of_layers(names: "pd.Series") -> str:
    return f" ({', '.join(names)})" if any(names) else ""

"""The plan and the table of ``manigeo capacity``, and what is in a file of activations, printed."""

from typing import TYPE_CHECKING, Any

from manigeo.capacity.nulls import NULLS
from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.text.cells import blocks, flag_lines
from manigeo.text.scores import describe_scores
from manigeo.vocabulary import flags_words

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.layerwise.plan import Plan
    from manigeo.layerwise.protocol import Measure

REPORTED = ("capacity", "capacity_joint", "capacity_simulated", "radius", "dimension", "center_correlation")


def geometry_report(table: "pd.DataFrame") -> str:
    """The aggregates: a block for each measure, one line per layer, one column per kind, value ± standard error."""
    aggregates = table[table["manifold"] == ""]
    return "\n\n".join([*blocks(aggregates, REPORTED), *flag_lines(aggregates)])


def describe_plan(plan: "Plan") -> str:
    """The kinds and sizes that are compared, and the measures."""
    measures = [m for m in plan.measures if any(task.measure == m.name for task in plan.tasks)]
    lines = [
        f"{len(plan.layers)} layers x {len(plan.kinds)} kinds, P = {plan.n_classes} classes x M = {plan.per_class} "
        f"examples; {_floors(plan, measures)}",
        f"{len(plan.tasks)} tasks of {plan.task_bytes / 1e6:.0f} MB at most: "
        + "; ".join(m.describe() for m in measures),
        *limits(plan),
    ]
    if plan.wide and any(m.name == "spectrum" for m in plan.measures):
        lines.append(
            f"without total dimension, which takes minutes: {', '.join(plan.wide)}; --total-dimension computes it"
        )
    if plan.n_classes < 30:
        lines.append(_few_classes(plan.n_classes))
    return "\n".join(lines)


def limits(plan: "Plan") -> list[str]:
    """The class that limits the number of examples, and the classes and kinds that are left out."""
    lines = [f"{kind} is left out: {_why_left_out(flag)}" for kind, flag in plan.excluded.items()]
    for kind in dict.fromkeys(plan.lacking.values()):
        few = [plan.class_names[label] for label, of in plan.lacking.items() if of == kind]
        named = ", ".join(map(repr, few[:5])) + ", ..." * (len(few) > 5)
        lines.append(f"left out of all kinds, with fewer than 2 {kind} examples: {len(few)} classes ({named})")
    if null := plan.sampling.get("null"):
        lines.append(f"a null model in place of the data: {NULLS[null]}")
    if plan.limited_by is None:
        return lines
    kind, label = plan.limited_by
    name = plan.class_names[label]
    return [f"M = {plan.per_class} examples per class, limited by class {name!r} ({kind})", *lines]


def _why_left_out(flag: str) -> str:
    """
    >>> _why_left_out("fewer_than_2:cat,dog"), _why_left_out("single_class")
    ("fewer than 2 examples in class 'cat', 'dog'", 'there is one class only, so there is nothing to separate')
    """
    name, _, classes = flag.partition(":")
    few = ", ".join(map(repr, classes.split(",")))
    return f"fewer than 2 examples in class {few}" if name == "fewer_than_2" else flags_words(flag)


def _floors(plan: "Plan", measures: "list[Measure]") -> str:
    """Describe the capacity of points without structure, for each estimator of the plan that has such a floor."""
    from manigeo.layerwise.geometry import Joint, MeanField, Simulated

    rules = {
        "mean field": next((a.centers for a in measures if isinstance(a, MeanField) and not a.kappa), None),
        "joint": next(("joint" for a in measures if isinstance(a, Joint) and a.labels == "random"), None),
        "simulated": next(("simulated" for a in measures if isinstance(a, Simulated) and not a.bias), None),
    }
    M, P = plan.per_class, plan.n_classes
    floors = [
        f"{unstructured_capacity(M, n_manifolds=P, estimator=rule):.3f} ({name})"
        for name, rule in rules.items()
        if rule
    ]
    return "capacity without structure " + (", ".join(floors) if floors else "is not known at a margin")


def _few_classes(n_classes: int) -> str:
    """Errors of the estimators on layers of an mlp on digits, drawn to 5 classes (tests/bench/real_layers.py)."""
    if n_classes >= 10:
        return f"P = {n_classes} classes is small for mean field: interpret the curves, not the third digit"
    if n_classes == 2:
        return "P = 2 classes have one dichotomy, so no simulated capacity; mean field is up to a half too low: use --joint"
    return (
        f"P = {n_classes} classes are few: on layers of a trained network at P = 5 mean field was up to 5 % below "
        "simulation, joint up to 5 % off: use --simulate"
    )


def describe_content(content: dict[str, Any]) -> str:
    """Describe the content of the file, for reading."""
    origin, shard = content["provenance"], content["shard"]
    state = "complete" if content["complete"] else (
        f"incomplete, {content['examples_done']} of {content['examples_total']} examples are there; the command that began "
        "it goes on with --resume"
    )  # fmt: skip
    lines = [
        f"{content['path']}: {len(content['layers'])} layers, {content['classes']} classes, made {content['created']}",
        f"state    {state}",
        f"model    {origin.get('arch')} {origin.get('checkpoint')} epoch {origin.get('epoch')}",
        f"data     {origin.get('data')} permutation {origin.get('permutation')}",
        f"examples {', '.join(f'{kind} {n}' for kind, n in content['examples'].items())}",
        describe_scores(content["scores"], content["unscored"]),
        *(f"warning  {said}" for said in content["doubts"]),
        f"layers   {', '.join(_describe_layer(name, content) for name in content['layers'])}",
    ]
    if left_out := origin.get("left_out_layers"):
        lines.append(f"left out {'; '.join(f'{name} {reason}' for name, reason in left_out.items())}")
    if shard:
        stop = shard["start"] + content["examples_total"]
        lines.insert(2, f"shard    {shard['number']} of {shard['of']}: examples {shard['start']} to {stop - 1} of "
                        f"{shard['n_examples']}; manigeo merge joins them")  # fmt: skip
    return "\n".join(lines)


def _describe_layer(name: str, content: dict[str, Any]) -> str:
    """Name and shape, and what is not as usual."""
    readout, projection, dtype = (content[key][name] for key in ("readouts", "projections", "dtypes"))
    remarks = [
        *([readout] if readout != "flatten" else []),
        *([f"projected from {'x'.join(map(str, projection['feature_shape']))}"] if projection else []),
        *([dtype] if dtype != "float32" else []),
    ]
    return f"{name} ({', '.join([content['layers'][name], *remarks])})"

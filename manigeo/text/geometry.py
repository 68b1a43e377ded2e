"""The plan and the table of ``manigeo capacity``, and what is in a file of activations, printed."""

from typing import TYPE_CHECKING, Any

from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.text.cells import blocks, flag_lines

if TYPE_CHECKING:
    import pandas as pd

    from manigeo.layerwise.capacity_tables import CapacityPlan
    from manigeo.layerwise.geometry import Analysis

REPORTED = ("capacity", "capacity_joint", "capacity_simulated", "radius", "dimension", "center_correlation")


def geometry_report(table: "pd.DataFrame") -> str:
    """The aggregates: a block for each measure, one line per layer, one column per kind, value ± standard error."""
    aggregates = table[table["manifold"] == ""]
    return "\n\n".join([*blocks(aggregates, REPORTED), *flag_lines(aggregates)])


def describe_plan(plan: "CapacityPlan") -> str:
    """What is compared, at which size, and by which analyses."""
    size, settings = plan.size, plan.settings
    analyses = [analysis for analysis in plan.analyses if any(task.analysis == analysis.name for task in plan.tasks)]
    lines = [
        f"{len(plan.layers)} layers x {len(size.kinds)} kinds, P = {settings.n_classes} classes x M = {settings.per_class} "
        f"examples; {_floors(plan, analyses)}",
        f"{len(plan.tasks)} tasks of {plan.task_bytes / 1e6:.0f} MB at most: "
        + "; ".join(analysis.describe() for analysis in analyses),
    ]
    if size.limited_by:
        kind, label = size.limited_by
        lines.append(limiting(size.per_class, plan.class_names[label], kind))
    for kind, classes in size.excluded.items():
        names = ", ".join(repr(plan.class_names[label]) for label in classes)
        lines.append(f"{kind} is left out: fewer than 2 examples in class {names}")
    if plan.wide and any(analysis.name == "spectrum" for analysis in plan.analyses):
        lines.append(
            f"without total dimension, which takes minutes: {', '.join(plan.wide)}; --total-dimension computes it"
        )
    if settings.n_classes < 30:
        lines.append(_few_classes(settings.n_classes))
    return "\n".join(lines)


def limiting(per_class: int, name: str, kind: str) -> str:
    """Which class sets the number of examples per class.

    >>> limiting(13, "d2", "restored")
    "M = 13 examples per class, limited by class 'd2' (restored)"
    """
    return f"M = {per_class} examples per class, limited by class {name!r} ({kind})"


def _floors(plan: "CapacityPlan", analyses: "list[Analysis]") -> str:
    """Where points without structure lie, for each estimator of the plan that has such a floor."""
    from manigeo.layerwise.geometry import Joint, MeanField, Simulated

    rules = {
        "mean field": next((a.centers for a in analyses if isinstance(a, MeanField) and not a.kappa), None),
        "joint": next(("joint" for a in analyses if isinstance(a, Joint) and a.labels == "random"), None),
        "simulated": next(("simulated" for a in analyses if isinstance(a, Simulated) and not a.bias), None),
    }
    M, P = plan.settings.per_class, plan.settings.n_classes
    floors = [
        f"{unstructured_capacity(M, n_manifolds=P, estimator=rule):.3f} ({name})"
        for name, rule in rules.items()
        if rule
    ]
    return "capacity without structure " + (", ".join(floors) if floors else "is not known at a margin")


def _few_classes(n_classes: int) -> str:
    """How far off the estimators were: on the layers of an mlp on digits and of the glyphs reference, drawn to 5 classes."""
    if n_classes >= 10:
        return f"P = {n_classes} classes is small for mean field: interpret the curves, not the third digit"
    if n_classes == 2:
        return "P = 2 classes have one dichotomy, so no simulated capacity; mean field is a third too low: use --joint"
    return (
        f"P = {n_classes} classes are few: on 30 layers of trained networks at P = 5 mean field was 3 to 17 % below "
        "simulation, joint up to 5 %: use --simulate"
    )


def describe_content(content: dict[str, Any]) -> str:
    """What is in the file, for reading."""
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
        f"layers   {', '.join(_describe_layer(name, content) for name in content['layers'])}",
    ]
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

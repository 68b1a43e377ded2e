"""Which layers, and what of each: the options, and the table that is shown before anything is written."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options

if TYPE_CHECKING:
    from manigeo_extract.data.datasets import DataSet
    from manigeo_extract.recording.extraction import ExtractionPlan


def _names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


layer_options = options.several(
    click.option("--layers", multiple=True, metavar="GLOB", help="Layers to take, e.g. 'features.*'; may be repeated. "
                 "Default: the input, every module with parameters of its own, the output."),
    click.option("--layers-regex", multiple=True, metavar="REGEX", help="The same by regular expression, of the whole "
                 "name: 'features[.](0|3)'."),
    click.option("--types", multiple=True, metavar="CLASS,...", callback=_names,
                 help="Layers of these classes alone, e.g. Conv2d,Linear or '*Norm*'."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Layers to leave out."),
    click.option("--readout", default="flatten", show_default=True, help="What is kept of a layer's positions: flatten, "
                 "mean (over space or tokens), spatial-mean, spatial-max, class-token, token-mean or last-token. A layer "
                 "without such positions is flattened."),
    click.option("--backend", default="hooks", show_default=True, type=click.Choice(["hooks", "fx"]),
                 help="fx: functions are layers too, such as residual sums and F.relu, where torch.fx can trace them."),
)  # fmt: skip


def see_functions(network: Any, data: "DataSet", request: dict[str, Any]) -> Any:
    """The network, whose functions are modules too under ``--backend fx``."""
    if request["backend"] == "hooks":
        return network
    from manigeo_extract.recording.tracing import with_functions

    return with_functions(network, data.inputs(slice(0, 2)))


def choose_layers(
    network: Any, data: "DataSet", plan: "ExtractionPlan", request: dict[str, Any], **names: Sequence[str]
) -> "ExtractionPlan":
    """The plan with the layers that were asked for, read as was asked; ``names`` are globs, ``patterns`` and ``exclude``."""
    from manigeo_extract.recording.layers import list_layers, select_layers
    from manigeo_extract.recording.readouts import with_readout

    found = list_layers(network, data.inputs(plan.rows[:2]))
    selected = select_layers(found, **names, regex=request["layers_regex"], types=request["types"])
    return dataclasses.replace(plan, layers=tuple(with_readout(selected, request["readout"])))


def layer_table(plan: "ExtractionPlan") -> str:
    """Name, class, call of how many in a forward pass, shape, features and bytes of every layer, for reading."""
    rows = [("depth", "layer", "class", "call", "shape", "features", "MB")]
    for layer in plan.layers:
        name = layer.name + "".join(f" = {alias}" for alias in layer.aliases)
        call = f"{layer.call_index}/{layer.calls}" if layer.calls > 1 else str(layer.call_index)
        shape = " x ".join(map(str, layer.feature_shape)) + f" ({layer.readout})" * (layer.readout != "flatten")
        size, stored = f"{1e-6 * plan.layer_bytes(layer):.1f}", plan.stored(layer).n_features
        features = str(stored) + f" of {layer.n_features}" * (stored != layer.n_features)
        rows.append((str(layer.order), name, layer.module_class, call, shape, features, size))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"{len(plan.rows)} examples, {plan.n_bytes / 1e6:.0f} MB before compression"])

"""``manigeo layers``: what a network has that can be recorded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.text.visible import visible

if TYPE_CHECKING:
    from manigeo_extract.recording.extraction import ExtractionPlan


@command("layers")
@options.model_options
@options.layer_options
@options.per_class_option
@click.option("--all", "everything", is_flag=True, help="Every layer, not the default selection alone.")
@options.arch_options
@options.data_options
@options.labels_option
@options.seed_option
@options.config_option
def layers_command(model: Path | None, layers: tuple[str, ...], everything: bool, **asked: Any) -> None:
    """List the layers of MODEL: what manigeo extract would write, and what --layers can name."""
    from manigeo_extract.opening.networks import open_extraction
    from manigeo_extract.opening.requests import ExtractionRequest, requested

    wanted = ("*",) if everything and not layers else layers
    _, _, plan = open_extraction(model, requested(ExtractionRequest, asked | {"layers": wanted}), options.note)
    click.echo(layer_table(plan))


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
    cells = [tuple(map(visible, row)) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    size = f"{len(plan.rows)} examples, {plan.n_bytes / 1e6:.0f} MB before compression"
    return "\n".join([*lines, size + f"; {plan.left_out}" * bool(plan.left_out)])

"""``manigeo info``: what is in a file of activations."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options

if TYPE_CHECKING:
    from manigeo.activations import Activations


@click.command("info")
@options.acts_argument
@options.json_option
def info_command(acts: Path, as_json: bool) -> None:
    """Say what is in ACTS, complete or not: model, data, examples, layers."""
    import json

    from manigeo.activations import inspect_activations

    with inspect_activations(acts) as file:
        content = _content(file)
    click.echo(json.dumps(content) if as_json else describe_content(content))


def _content(file: "Activations") -> dict[str, Any]:
    from dataclasses import asdict

    from manigeo.manifolds import kind_examples

    return {
        "path": str(file.path),
        "complete": file.complete,
        "examples_done": file.n_done,
        "examples_total": len(file.examples),
        "shard": asdict(file.shard) if file.shard else None,
        "smallest_batch": file.smallest_batch,
        "created": file.created,
        "manigeo_version": file.manigeo_version,
        "fingerprint": file.fingerprint,
        "classes": len(file.class_names),
        "examples": {kind: len(kind_examples(file.examples, kind)[0]) for kind in file.kinds},
        "layers": {name: "x".join(map(str, file.layer(name).feature_shape)) for name in file.layers},
        "readouts": {name: file.layer(name).readout for name in file.layers},
        "projections": {name: file.layer(name).projection for name in file.layers},
        "dtypes": file.dtypes,
        "provenance": file.provenance,
    }


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

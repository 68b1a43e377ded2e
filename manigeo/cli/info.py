"""``manigeo info``: what is in a file of activations."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.errors import InputError

if TYPE_CHECKING:
    from manigeo.activations import Activations


@command("info")
@options.acts_argument
@click.option("--verify", is_flag=True, help="Read every row, and compare all layers with the sums written with them.")
@options.json_option
def info_command(acts: Path, verify: bool, as_json: bool) -> None:
    """Show the content of ACTS, complete or not: model, data, examples, layers."""
    import json

    from manigeo.activations import inspect_activations
    from manigeo.text.geometry import describe_content
    from manigeo.text.visible import visible_content

    with inspect_activations(acts) as file:
        content = _content(file)
    faults = _verified(Path(content["path"])) if verify else {}
    verdict = {name: why or "intact" for name, why in faults.items()}
    said = content | ({"verified": verdict} if verify else {})
    click.echo(json.dumps(said) if as_json else describe_content(visible_content(content)))
    if damaged := {name: why for name, why in faults.items() if why}:
        listed = "; ".join(f"{name}: {why}" for name, why in damaged.items())
        raise InputError(
            f"{content['path']} is damaged in {len(damaged)} of {len(faults)} layers ({listed}); extract it again"
        )
    if verify:
        click.echo(f"verified {len(faults)} layers, every row of each: intact", err=as_json)


def _verified(path: Path) -> dict[str, str]:
    from manigeo.activations.sums import verify_rows

    return verify_rows(path)


def _content(file: "Activations") -> dict[str, Any]:
    from dataclasses import asdict

    from manigeo.manifolds import kind_examples
    from manigeo.text.scores import doubts

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
        "scores": file.scores,
        "unscored": file.unscored,
        "doubts": doubts(file.scores, file.provenance, file.n_seen_classes),
        "layers": {name: "x".join(map(str, file.layer(name).feature_shape)) for name in file.layers},
        "readouts": {name: file.layer(name).readout for name in file.layers},
        "projections": {name: file.layer(name).projection for name in file.layers},
        "dtypes": file.dtypes,
        "provenance": file.provenance,
    }

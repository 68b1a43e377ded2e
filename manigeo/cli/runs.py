"""The opening of a run for commands that look at the trained network itself, with the options that this takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.extract import labels_option, open_examples
from manigeo.cli.models import open_network

if TYPE_CHECKING:
    from manigeo_extract.interventions.groups import Group
    from manigeo_extract.interventions.scoring import Examiner
    from manigeo_extract.training.runs import Run

run_argument = click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))

run_options = options.several(
    click.option("--at", default="last", show_default=True, metavar="NAME",
                 help="The trained network: a checkpoint by name or epoch (last, best, 40)."),
    click.option("--layers", multiple=True, metavar="NAME", help="Layers to look at; may be repeated. Default: all."),
    click.option("--group-by", default="module", show_default=True,
                 help="What is a layer: module (with the normalisation that follows), kernel, block, stage, or a regular "
                 "expression, whose match names the layer."),
    click.option("--examples", "most", type=click.IntRange(min=1), metavar="N",
                 help="At most N examples of a kind, drawn by --seed. Default: all."),
    click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1)),
    options.device_option,
    options.arch_options,
    options.data_options,
    labels_option,
)  # fmt: skip


def open_run(directory: Path, request: dict[str, Any], seed: int) -> "Run":
    """The trained network of a run on its device, its data, and its checkpoints.

    Architecture and data are those that the checkpoint carries, and over them those of the command.
    """
    from manigeo_extract.devices import check_device
    from manigeo_extract.files.checkpoints import load_checkpoint
    from manigeo_extract.training.runs import Run, find_snapshot, place_of, run_snapshots

    device = check_device(request["device"])
    snapshots = run_snapshots(directory)
    checkpoint = load_checkpoint(find_snapshot(snapshots, request["at"], directory).path)
    data, examples = open_examples(checkpoint, request)
    opened = open_network(checkpoint, data, {"weights": "checkpoint", "no_strict": False} | request, seed)
    arch = (opened.arch, opened.arch_args)
    return Run(directory, arch, opened.module.to(device), data, examples, place_of(checkpoint), snapshots)


def open_examiner(run: "Run", request: dict[str, Any], seed: int) -> "Examiner":
    """The examples of every kind, as many as were asked for."""
    from manigeo_extract.interventions.scoring import Examiner

    return Examiner(run.data, run.examples, request["device"], request["batch_size"], most=request["most"], seed=seed)


def open_groups(run: "Run", request: dict[str, Any]) -> "list[Group]":
    """All layers of the network, by execution; see ``select_groups`` for the wanted ones."""
    from manigeo_extract.interventions.groups import group_layers

    return group_layers(run.model, run.data.inputs([0, 1]), request["group_by"])

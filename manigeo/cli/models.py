"""The options that say which network, with which weights, and the opening of it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.errors import InputError, UsageError

if TYPE_CHECKING:
    from manigeo_extract.data.datasets import DataSet
    from manigeo_extract.files.checkpoints import Checkpoint
    from manigeo_extract.files.networks import Network

# How weights are read from a file.
file_options = options.several(
    click.option("--state-key", metavar="KEY", help="Where in the file the weights are, e.g. ema.model. Default: "
                 "state_dict, model_state_dict, model, net, module, or the file itself."),
    click.option("--ema", is_flag=True, help="Averaged weights: state_dict_ema, model_ema, ema_state_dict or ema."),
    click.option("--no-strict", is_flag=True, help="Take what fits of the weights, and say what does not."),
    click.option("--trust", is_flag=True, help="Also read a file that executes what is in it while it is read."),
)  # fmt: skip

model_options = options.several(
    click.option("--model", type=click.Path(path_type=Path), help="A checkpoint of manigeo train or your own loop, or "
                 "another program's weights (.pt, .pth, .ckpt, .safetensors); with --trust also a pickled network or "
                 ".pt2, which need no --arch."),
    click.option("--weights", type=click.Choice(["checkpoint", "init"]), default="checkpoint", show_default=True,
                 help="init: the untrained network, from the seed of the training; without --model from --seed."),
    file_options,
)  # fmt: skip


def open_checkpoint(path: Path | None, request: dict[str, Any]) -> "Checkpoint":
    """What the file says of network, data and labels; with ``--weights init`` a file is not needed."""
    from manigeo_extract.files.checkpoints import Checkpoint, load_checkpoint

    if path is None and request["weights"] != "init":
        raise UsageError("give --model FILE, or --weights init with --arch and --data for an untrained network")
    if path is None:
        return Checkpoint(state_dict={}, sha256="", path="the untrained network", epoch=0)
    checkpoint = load_checkpoint(path, **{name: request[name] for name in ("state_key", "ema", "trust")})
    if request["weights"] == "init":  # the scores of the file are not those of the network before training
        return dataclasses.replace(checkpoint, epoch=0, metrics={})
    return checkpoint


def open_network(checkpoint: "Checkpoint", data: "DataSet", request: dict[str, Any], seed: int) -> "Network":
    """The network with the weights that were asked for; what was done to get them goes to stderr.

    ``seed`` is for weights of which the checkpoint does not know the seed.
    """
    from manigeo_extract.files.networks import trained_network, untrained_network

    seed = seed if checkpoint.seed is None else checkpoint.seed
    arch, args = _architecture(checkpoint, data, request)
    if request["weights"] == "checkpoint":
        network = trained_network(checkpoint, arch, args, strict=not request["no_strict"], seed=seed)
    elif arch is None:
        raise InputError(f"{checkpoint.path} does not say its architecture: --weights init needs --arch")
    else:
        network = untrained_network(arch, args, seed=seed)
        if checkpoint.seed is None and checkpoint.sha256:
            click.echo(f"note: {checkpoint.path} does not say its seed: untrained weights of --seed {seed}", err=True)
    for note in network.notes:
        click.echo(f"note: {checkpoint.path}: {note}", err=True)
    return network


def describe_model(
    path: Path | None, checkpoint: "Checkpoint", network: "Network", request: dict[str, Any]
) -> dict[str, Any]:
    """What a file of activations says of the model: the file, what was taken from it, and how."""
    from manigeo.runs import run_of

    run = None if path is None else run_of(path)
    return {
        "model": None if path is None else str(path),
        "run": run.name if run else "",
        "run_id": checkpoint.run_id,
        "checkpoint": "init" if path is None or network.weights == "init" else path.stem,
        "checkpoint_sha256": checkpoint.sha256,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "state_key": checkpoint.state_key,
        **{name: request[name] for name in ("ema", "trust", "no_strict")},
        **network.origin,
    }


def _architecture(
    checkpoint: "Checkpoint", data: "DataSet", request: dict[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """Name and arguments of the network: those of the checkpoint, and over them those of the command."""
    from manigeo_extract.models import MODELS, complete_args

    arch = request["arch"] or checkpoint.arch
    if arch is None:
        return None, {}
    if arch not in MODELS and request["arch"] is None:
        raise UsageError(
            f"{checkpoint.path} names the program {arch!r} as its network; if you trust it, repeat --arch {arch}"
        )
    args = (checkpoint.arch_args if arch == checkpoint.arch else {}) | request["arch_args"]
    return arch, complete_args(arch, args, data.input_shape, data.n_classes)

"""``manigeo layers`` and ``manigeo extract``: from a checkpoint to activations."""

import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.errors import InputError, UsageError
from manigeo.files import check_target

if TYPE_CHECKING:
    import pandas as pd

    from manigeo_extract.checkpoints import Checkpoint
    from manigeo_extract.data import DataSet
    from manigeo_extract.extraction import ExtractionPlan

model_option = click.option(
    "--model", required=True, type=click.Path(path_type=Path), help="A checkpoint, of manigeo train or your own loop."
)
layer_option = click.option(
    "--layers", multiple=True, metavar="GLOB", help="Layers to take, e.g. 'features.*'; may be repeated. "
    "Default: the input, every module with parameters of its own, the output."
)  # fmt: skip
exclude_option = click.option("--exclude", multiple=True, metavar="GLOB", help="Layers to leave out.")
per_class_option = click.option(
    "--per-class", default=50, show_default=True, help="Examples of each class and kind, at most."
)

labels_option = click.option(
    "--labels", type=click.Path(path_type=Path, dir_okay=False), help="CSV with the columns index and train_label: the "
    "labels that your own loop trained on, in place of --permute."
)  # fmt: skip


@click.command("layers")
@model_option
@layer_option
@exclude_option
@per_class_option
@click.option("--all", "everything", is_flag=True, help="Every module, not the default selection alone.")
@options.arch_options
@options.data_options
@labels_option
@options.seed_option
@options.config_option
def layers_command(
    model: Path, layers: tuple[str, ...], exclude: tuple[str, ...], per_class: int, everything: bool, seed: int,
    **request: Any,
) -> None:  # fmt: skip
    """List the layers of MODEL: what manigeo extract would write, and what --layers can name."""
    _, _, plan = _load_and_plan(
        model, request, layers=("*",) if everything and not layers else layers, exclude=exclude, per_class=per_class,
        seed=seed,
    )  # fmt: skip
    click.echo(_layer_table(plan))


@click.command("extract")
@model_option
@click.option("--out", default="acts.h5", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@layer_option
@exclude_option
@per_class_option
@options.arch_options
@options.data_options
@labels_option
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1))
@options.device_option
@options.seed_option
@options.dry_run_option
@options.force_option
@options.config_option
def extract_command(
    model: Path, out: Path, layers: tuple[str, ...], exclude: tuple[str, ...], per_class: int, batch_size: int,
    device: str, seed: int, dry_run: bool, force: bool, **request: Any,
) -> None:  # fmt: skip
    """Write the activations of MODEL's layers on unpermuted, permuted and test examples.

    A checkpoint of manigeo train carries architecture, data set and permutation; for others say them with --arch,
    --data and --permute or --labels.
    """
    from manigeo_extract.extraction import extract_activations

    check_target(out, force=force or dry_run)
    network, loaded, plan = _load_and_plan(
        model, request, layers=layers, exclude=exclude, per_class=per_class, seed=seed
    )
    click.echo(_layer_table(plan))
    if dry_run:
        return
    checkpoint, data = loaded
    provenance = _provenance(model, checkpoint, data, request) | {"seed": seed, "per_class": per_class}
    extract_activations(
        network, data, plan, out, provenance, batch_size=batch_size, device=device, force=force, progress=True
    )
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.0f} MB); next: manigeo capacity {out}")


def _load_and_plan(
    path: Path, request: dict[str, Any], **plan_options: Any
) -> "tuple[Any, tuple[Checkpoint, DataSet], ExtractionPlan]":
    """The network with its weights, its data with the labels it was trained on, and what to extract."""
    from manigeo_extract.checkpoints import load_checkpoint, restore_model
    from manigeo_extract.extraction import plan_extraction
    from manigeo_extract.models import build_model

    checkpoint = load_checkpoint(path)
    data, examples = _examples(checkpoint, request)
    network = restore_model(checkpoint, build_model(*_architecture(checkpoint, data, request)))
    return network, (checkpoint, data), plan_extraction(network, data, examples, **plan_options)


def _architecture(checkpoint: "Checkpoint", data: "DataSet", request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network: those of the checkpoint, and over them those of the command."""
    from manigeo_extract.models import MODELS, complete_args

    arch = request["arch"] or checkpoint.arch
    if arch is None:
        raise InputError(f"{checkpoint.path} does not say its architecture: give --arch (and --arch-arg)")
    if arch not in MODELS and request["arch"] is None:
        raise UsageError(
            f"{checkpoint.path} names the program {arch!r} as its network; if you trust it, repeat --arch {arch}"
        )
    args = (checkpoint.arch_args if arch == checkpoint.arch else {}) | request["arch_args"]
    return arch, complete_args(arch, args, data.input_shape, data.n_classes)


def _examples(checkpoint: "Checkpoint", request: dict[str, Any]) -> "tuple[DataSet, pd.DataFrame]":
    from manigeo_extract.data import load_data, permute_labels, runs_code
    from manigeo_extract.extraction import read_labels

    spec = request["data"] or checkpoint.data
    if spec is None:
        raise InputError(
            f"{checkpoint.path} does not say its data set: give --data (and --permute where labels were permuted)"
        )
    if runs_code(spec) and request["data"] is None:
        raise UsageError(
            f"{checkpoint.path} names the program {spec!r} as its data; if you trust it, repeat --data {spec}"
        )
    same_source = spec.partition(":")[0] == (checkpoint.data or "").partition(":")[0]  # the files may have moved
    data = load_data(spec, (checkpoint.data_args if same_source else {}) | request["data_args"])
    if request["labels"] is not None:
        return data, read_labels(request["labels"], data)
    _check_data(checkpoint, data, request)
    return data, permute_labels(data, _permutation(checkpoint, request))


def _check_data(checkpoint: "Checkpoint", data: "DataSet", request: dict[str, Any]) -> None:
    """Other data than those of training are welcome where it is said what their labels are; other labels are not."""
    trained_on, trained = checkpoint.data_fingerprint, checkpoint.permutation
    if trained_on is None:
        return
    if trained_on == data.fingerprint:
        if trained and asdict(_permutation(checkpoint, request)) != trained:
            raise UsageError(
                f"{checkpoint.path} was trained with the permutation {trained}: leave --permute and its like out"
            )
    elif request["data"] is None or request["permute"] is None:
        raise InputError(
            f"{data.spec} is not the data that {checkpoint.path} was trained on (fingerprints differ): restore the files, "
            "or give other data with --data and --permute (0 for labels as they are)"
        )
    else:
        click.echo(f"note: {data.spec} is not the data that {checkpoint.path} was trained on", err=True)


def _permutation(checkpoint: "Checkpoint", request: dict[str, Any]) -> Any:
    from manigeo_extract.data import Permutation

    asked = {"fraction": request["permute"], "convention": request["convention"], "seed": request["permute_seed"]}
    return Permutation(**((checkpoint.permutation or {}) | {k: v for k, v in asked.items() if v is not None}))


def _provenance(path: Path, checkpoint: "Checkpoint", data: "DataSet", request: dict[str, Any]) -> dict[str, Any]:
    in_run = path.parent.name == "checkpoints"
    return {
        "argv": sys.argv[1:],
        "model": str(path),
        "run": path.resolve().parent.parent.name if in_run else "",
        "checkpoint": path.stem,
        "checkpoint_sha256": checkpoint.sha256,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        **dict(zip(("arch", "arch_args"), _architecture(checkpoint, data, request), strict=True)),
        "data": data.spec,
        "data_args": data.args,
        "data_fingerprint": data.fingerprint,
        "preprocessing": data.preprocessing,
        "permutation": asdict(_permutation(checkpoint, request)) if request["labels"] is None else None,
        "labels": None if request["labels"] is None else hashlib.sha256(request["labels"].read_bytes()).hexdigest(),
    }


def _layer_table(plan: "ExtractionPlan") -> str:
    rows = [("depth", "layer", "class", "call", "shape", "features", "MB")]
    for layer in plan.layers:
        name = layer.name + "".join(f" = {alias}" for alias in layer.aliases)
        shape = " x ".join(map(str, layer.feature_shape))
        size = f"{4e-6 * len(plan.rows) * layer.n_features:.1f}"
        rows.append(
            (str(layer.order), name, layer.module_class, str(layer.call_index), shape, str(layer.n_features), size)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"{len(plan.rows)} examples, {plan.n_bytes / 1e6:.0f} MB before compression"])

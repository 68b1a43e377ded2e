"""``manigeo layers`` and ``manigeo extract``: from a checkpoint to activations."""

import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.layer_options import choose_layers, layer_options, layer_table, see_functions
from manigeo.cli.models import describe_model, model_options, open_checkpoint, open_network
from manigeo.cli.storing import asked_shard, next_step, running_options, shard_path, storing_options, write_activations
from manigeo.errors import InputError, UsageError
from manigeo.storage.files import check_target

if TYPE_CHECKING:
    import pandas as pd

    from manigeo_extract.data.datasets import DataSet
    from manigeo_extract.files.checkpoints import Checkpoint
    from manigeo_extract.files.networks import Network
    from manigeo_extract.recording.extraction import ExtractionPlan

per_class_option = click.option(
    "--per-class", default=50, show_default=True, help="Examples of each class and kind, at most."
)

labels_option = click.option(
    "--labels", type=click.Path(path_type=Path, dir_okay=False), help="CSV with the columns index and train_label: the "
    "labels that your own loop trained on, in place of --permute."
)  # fmt: skip


@click.command("layers")
@model_options
@layer_options
@per_class_option
@click.option("--all", "everything", is_flag=True, help="Every layer, not the default selection alone.")
@options.arch_options
@options.data_options
@labels_option
@options.seed_option
@options.config_option
def layers_command(
    model: Path | None, layers: tuple[str, ...], exclude: tuple[str, ...], per_class: int, everything: bool, seed: int,
    **request: Any,
) -> None:  # fmt: skip
    """List the layers of MODEL: what manigeo extract would write, and what --layers can name."""
    _, _, plan = _load_and_plan(
        model, request, layers=("*",) if everything and not layers else layers, exclude=exclude, per_class=per_class,
        seed=seed,
    )  # fmt: skip
    click.echo(layer_table(plan))


@click.command("extract")
@model_options
@click.option("--out", default="acts.h5", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@layer_options
@per_class_option
@options.arch_options
@options.data_options
@labels_option
@storing_options
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1))
@options.device_option
@running_options
@options.seed_option
@options.dry_run_option
@options.force_option
@options.config_option
def extract_command(
    model: Path | None, out: Path, layers: tuple[str, ...], exclude: tuple[str, ...], per_class: int, batch_size: int,
    project: int | None, dtype: str, device: str, shard: str | None, tf32: bool, resume: bool, seed: int, dry_run: bool,
    force: bool, **request: Any,
) -> None:  # fmt: skip
    """Write the activations of MODEL's layers on unpermuted, permuted and test examples, and those of held-out classes.

    A checkpoint of manigeo train carries architecture, data set and permutation; for others say them with --arch,
    --data and --permute or --labels.
    """
    part = asked_shard(shard)
    out = shard_path(out, part)
    check_target(out, force=force or dry_run)
    network, loaded, plan = _load_and_plan(
        model, request, layers=layers, exclude=exclude, per_class=per_class, project=project, dtype=dtype, seed=seed
    )
    click.echo(layer_table(plan))
    if dry_run:
        return
    checkpoint, data, opened = loaded
    described = describe_model(model, checkpoint, opened, request)
    provenance = described | _provenance(checkpoint, data, request) | {"seed": seed, "per_class": per_class}
    write_activations(
        network,
        data,
        plan,
        out,
        provenance,
        device,
        batch_size=batch_size,
        tf32=tf32,
        shard=part,
        resume=resume,
        force=force,
    )
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.0f} MB); next: {next_step(out, part)}")


def _load_and_plan(
    path: Path | None, request: dict[str, Any], layers: tuple[str, ...], exclude: tuple[str, ...], **plan_options: Any
) -> "tuple[Any, tuple[Checkpoint, DataSet, Network], ExtractionPlan]":
    """The network with its weights, its data with the labels it was trained on, and what to extract."""
    from manigeo_extract.recording.extraction import plan_extraction

    checkpoint = open_checkpoint(path, request)
    data, examples = open_examples(checkpoint, request)
    opened = open_network(checkpoint, data, request, plan_options["seed"])
    network = see_functions(opened.module, data, request)
    plan = plan_extraction(network, data, examples, **plan_options)
    plan = choose_layers(network, data, plan, request, patterns=layers, exclude=exclude)
    return network, (checkpoint, data, opened), plan


def open_examples(checkpoint: "Checkpoint", request: dict[str, Any]) -> "tuple[DataSet, pd.DataFrame]":
    """The data that the checkpoint was trained on, or those that were asked for, and the labels of training."""
    from manigeo_extract.data.datasets import load_data, permute_labels, runs_code
    from manigeo_extract.recording.extraction import read_labels

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
    if labels := request["labels"] or _labels_beside(checkpoint, request):
        examples = read_labels(labels, data)
        _check_labels(labels, examples, checkpoint, data)
        return data, examples
    _check_data(checkpoint, data, request)
    return data, permute_labels(data, _permutation(checkpoint, request))


def _labels_beside(checkpoint: "Checkpoint", request: dict[str, Any]) -> Path | None:
    """Those of the run's folder, for a checkpoint that does not know of any permutation."""
    path = Path(checkpoint.path).absolute()
    labels = path.parents[1] / "labels.csv"
    unknown = checkpoint.permutation is None and request["permute"] is None
    if not (unknown and path.parent.name == "checkpoints" and labels.is_file()):
        return None
    click.echo(f"note: labels of training from {labels.parent.name}/{labels.name}", err=True)
    return labels


def _check_labels(labels: Path, examples: "pd.DataFrame", checkpoint: "Checkpoint", data: "DataSet") -> None:
    """Labels given beside those that the checkpoint knows are the same, or are not those of its training."""
    from manigeo_extract.data.datasets import Permutation, permute_labels

    if checkpoint.permutation is None or checkpoint.data_fingerprint != data.fingerprint:
        return
    known = permute_labels(data, Permutation(**checkpoint.permutation))
    if differing := int((known["train_label"] != examples["train_label"]).sum()):
        raise InputError(
            f"{labels} gives other labels than {checkpoint.path} was trained on for {differing} of {len(known)} examples "
            "(those it leaves out count with their true label): leave --labels out, the checkpoint knows its permutation"
        )


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
    from manigeo_extract.data.datasets import Permutation

    asked = {"fraction": request["permute"], "convention": request["convention"], "seed": request["permute_seed"]}
    return Permutation(**((checkpoint.permutation or {}) | {k: v for k, v in asked.items() if v is not None}))


def _provenance(checkpoint: "Checkpoint", data: "DataSet", request: dict[str, Any]) -> dict[str, Any]:
    return {
        "argv": sys.argv[1:],
        "backend": request["backend"],
        "data": data.spec,
        "data_args": data.args,
        "data_fingerprint": data.fingerprint,
        "preprocessing": data.preprocessing,
        "permutation": asdict(_permutation(checkpoint, request)) if request["labels"] is None else None,
        "labels": None if request["labels"] is None else hashlib.sha256(request["labels"].read_bytes()).hexdigest(),
    }

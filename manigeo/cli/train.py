"""``manigeo train``: from a data set to a run with checkpoints."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.errors import UsageError
from manigeo.text.cells import duration

if TYPE_CHECKING:
    import pandas as pd

    from manigeo_extract.opening.trainings import Training


def _epochs(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...] | str:
    """``1,5,20`` or ``all``."""
    return text if text == "all" else options.whole_numbers("epochs such as 1,5,20, or all")(ctx, param, text)


def _epochs_or_last(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...] | str:
    """The same, or ``last``."""
    return text if text == "last" else _epochs(ctx, param, text)


def _classes(ctx: click.Context, param: click.Parameter, text: str | None) -> int | str | None:
    """``cat,dog``, or how many."""
    return int(text) if text and text.isdecimal() else text


def _shares(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, float] | None:
    """``.2,.1``."""
    try:
        p_gen, p_mem = (float(word) for word in text.split(",")) if text else (0.5, 0.5)
    except ValueError:
        p_gen = p_mem = math.nan
    if not (0 < p_gen < 1 and 0 < p_mem < 1):
        raise click.BadParameter(f"expected two shares between 0 and 1, e.g. .2,.1; got {text!r}", ctx, param)
    return (p_gen, p_mem) if text else None


def _canaries(ctx: click.Context, param: click.Parameter, text: str | None) -> list[int] | None:
    """``50,32,10``."""
    words = text.split(",") if text else []
    if text and not (len(words) == 3 and all(word.strip().isdecimal() and int(word) for word in words)):
        raise click.BadParameter(
            f"expected number, length and repeats from 1 on, e.g. 50,32,10; got {text!r}", ctx, param
        )
    return [int(word) for word in words] or None


# fmt: off
@command("train")
@click.option("--out", default="run", show_default=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the run.")
@options.arch_options
@options.data_options
@options.labels_option
@click.option("--holdout-classes", callback=_classes, metavar="NAMES|N",
              help="Classes never to train on (cat,dog), or how many, drawn: short for --data-arg holdout_classes=... "
              "Extract writes them as the kind unseen.")
@click.option("--subset", type=float, metavar="SHARE",
              help="Train on this share of the training examples, drawn by --seed: many such runs tell which examples are "
              "memorized (manigeo memorization). Short for --data-arg subset=... and subset_seed=...")
@click.option("--canaries", callback=_canaries, metavar="N,LENGTH,REPEATS",
              help="Of a text: plant N random sequences of LENGTH tokens, each REPEATS times per epoch, which only memory "
              "can predict. Short for --data-arg canaries=...")
@click.option("--from-checkpoint", "source", type=click.Path(path_type=Path), metavar="FILE",
              help="Fine-tune: start from these weights, of manigeo or another program. Tensors of another shape, such as a "
              "classifier of other classes, keep their own draw.")
@options.file_options
@click.option("--epochs", default=40, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--optimizer", default="sgd", show_default=True, help="sgd or adam.")
@click.option("--lr", default=0.02, show_default=True)
@click.option("--momentum", default=0.9, show_default=True)
@click.option("--weight-decay", default=0.0, show_default=True)
@click.option("--schedule", default="cosine", show_default=True, help="cosine, constant or step.")
@click.option("--milestones", default="", callback=_epochs, help="Epochs after which step drops the rate, e.g. 60,80.")
@click.option("--gamma", default=0.1, show_default=True, help="Factor of each drop.")
@click.option("--layca", type=float, metavar="RHO", help="Layca: every layer turns by an angle of tangent RHO per step.")
@click.option("--layca-balance", default=0.0, show_default=True, help="-1: the first layers turn most, 1: the last.")
@click.option("--dropout", type=float, help="Short for --arch-arg dropout=...")
@click.option("--tied-dropout", callback=_shares, metavar="P_GEN,P_MEM",
              help="Example-tied dropout: a share P_GEN of the channels for all examples, and of the others P_MEM for each, "
              "e.g. .2,.1. What is memorized goes there; --drop-tied of extract and rewind leaves it out.")
@click.option("--augment", is_flag=True, help="Random crops and flips. They prevent memorization: off by default.")
@click.option("--checkpoint-epochs", default="", callback=_epochs,
              help="Epochs to keep beside init, best and last: 1,5 or all.")
@click.option("--score-every", default=1, show_default=True, metavar="EPOCHS",
              help="Score the network on all kinds of examples every so many epochs, at the first and last, and where a "
              "checkpoint is kept: scoring takes a third of an epoch or more.")
@click.option("--account-gradients", is_flag=True,
              help="Also sum what permuted and unpermuted examples change in each layer, for localize.")
@click.option("--record-examples", default="", callback=_epochs_or_last, metavar="EPOCHS",
              help="Epochs after which to record what the network says of each example: all, last or 1,5,20. For learning "
              "times, margins and memorization of single examples.")
@options.near_guessing_option
@options.device_option
@options.seed_option
@click.option("--resume", is_flag=True, help="Continue the run in --out after its last whole epoch.")
@options.dry_run_option
@options.force_option
@options.config_option
def train_command(
    out: Path, device: str, account_gradients: bool, record_examples: tuple[int, ...] | str, near_guessing: float | None,
    resume: bool, dry_run: bool, force: bool, **asked: Any,
) -> None:
    """Train a network on partly permuted labels, or on a text with canaries, and keep its checkpoints and metrics.

    Defaults to an mlp on glyphs with half of the labels permuted, and on a text to a gpt. With --from-checkpoint, to the
    network of the checkpoint.
    """
    from manigeo.runs import RunFolder
    from manigeo_extract.data.datasets import describe
    from manigeo_extract.models.tied import is_tied, without_tied
    from manigeo_extract.training.trainer import evaluate, train

    if resume and force:
        raise UsageError("--resume continues a run and --force replaces it: give one of them")
    t = _opened(**asked)
    recorded = (t.plan.epochs,) if record_examples == "last" else record_examples
    if RunFolder(out).exists and not (resume or force or dry_run):
        raise UsageError(f"{out} holds a run already: --resume continues it, --force replaces it")
    click.echo(
        f"{describe(t.dataset, t.examples)}\n{t.arch}: {t.parameters:,} parameters, {t.plan.epochs} epochs, about "
        f"{duration(t.seconds(device))}, seed {t.plan.seed} -> {out}{_described_record(t.examples, recorded, t.plan.epochs)}"
    )
    if dry_run:
        return
    if force:
        _set_aside(out)
    try:
        scores = train(
            t.network, t.dataset, t.examples, t.plan, out, arch=t.arch, arch_args=t.arch_args, permutation=t.permutation,
            start=t.start, accounts=t.accounts(device) if account_gradients else None, record_examples=recorded,
            near_guessing=near_guessing, device=device, resume=resume, overwrite=force,
        )  # fmt: skip
    except KeyboardInterrupt:
        click.echo(f"{options.resuming()} continues after the last whole epoch", err=True)
        raise
    click.echo(describe_scores(scores))
    if is_tied(t.network):
        with without_tied(t.network):
            dropped = evaluate(t.network, t.dataset, t.examples, device)
        click.echo(f"without the tied channels: {_accuracies(dropped)}")
    click.echo(f"next: manigeo extract --model {out / 'checkpoints' / 'last.pt'}")


def _described_record(examples: "pd.DataFrame", recorded: tuple[int, ...] | str, epochs: int) -> str:
    """Size of the record of examples on disk, in words; empty where there is none."""
    from manigeo.per_example.recorded import bytes_of_epoch, recorded_rows

    if not recorded:
        return ""
    n, n_epochs = len(recorded_rows(examples)), epochs + 1 if recorded == "all" else len(recorded)
    return f"\nrecord of {n:,} examples after {n_epochs} epochs: {n_epochs * bytes_of_epoch(n) / 1e6:,.2g} MB"


def _set_aside(out: Path) -> None:
    """Results of the training that is to be replaced: those in its folder are moved, those beside it are named."""
    from manigeo.runs import RunFolder, set_aside, tables_beside

    beside = tables_beside(RunFolder(out))
    void, place = set_aside(RunFolder(out))
    if void:
        options.note(f"void, since they are of the training that is replaced: {_listed(void)} -> {place}")
    if beside:
        options.note(f"of the training that is replaced, and left out from now on: {_listed(beside)}")


def _listed(paths: "list[Path]") -> str:
    return ", ".join(path.name for path in paths)


# fmt: on
def _opened(
    arch_args: dict[str, Any], data_args: dict[str, Any], dropout: float | None, holdout_classes: int | str | None,
    tied_dropout: tuple[float, float] | None, subset: float | None, canaries: list[int] | None, **asked: Any,
) -> "Training":  # fmt: skip
    """Open what the options of ``manigeo train`` ask for; five options stand for arguments of network and data."""
    from manigeo_extract.opening.requests import TrainingRequest, requested
    from manigeo_extract.opening.trainings import open_training

    arch_args = arch_args | ({} if dropout is None else {"dropout": dropout})
    arch_args |= {} if tied_dropout is None else {"tied_dropout": [*tied_dropout, asked["seed"]]}
    data_args = data_args | ({} if holdout_classes is None else {"holdout_classes": holdout_classes})
    data_args |= {} if subset is None else {"subset": subset, "subset_seed": asked["seed"]}
    data_args |= {} if canaries is None else {"canaries": canaries}
    return open_training(
        requested(TrainingRequest, asked | {"arch_args": arch_args, "data_args": data_args}), options.note
    )


def measured_training(words: Sequence[str]) -> tuple[int, float, int]:
    """Measure ``manigeo train`` with these words: parameters, seconds, and bytes of the checkpoints that it keeps."""
    asked = train_command.make_context("train", list(words)).params
    t = _opened(**asked)
    return t.parameters, t.seconds(asked["device"]), t.checkpoint_bytes


def describe_scores(scores: dict[str, dict[str, Any]]) -> str:
    """Accuracy of every kind, and whether the network has memorized its permuted labels, or its canaries."""
    from manigeo.kinds import memorized_kind
    from manigeo_extract.training.trainer import MEMORIZATION_GATE, memorized

    lines = [f"accuracy: {_accuracies(scores)}"]
    if any("exact" in of for of in scores.values()):
        lines.append(f"suffixes known token by token: {_accuracies(scores, 'exact')}")
    if any("exposure" in of for of in scores.values()):
        lines.append(f"exposure of canaries, mean in bits: {_accuracies(scores, 'exposure')}")
    if (kind := memorized_kind(scores)) is not None:
        verdict = "reached" if memorized(scores) else "not reached: train longer before asking where it memorizes"
        lines.append(f"memorization gate ({kind} accuracy >= {MEMORIZATION_GATE}): {verdict}")
    return "\n".join(lines)


def _accuracies(scores: dict[str, dict[str, Any]], name: str = "accuracy") -> str:
    return ", ".join(f"{kind} {values[name]:.3f}" for kind, values in scores.items() if name in values)

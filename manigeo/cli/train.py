"""``manigeo train``: from a data set to a run with checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manigeo.cli import options
from manigeo.cli.models import file_options
from manigeo.errors import InputError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from manigeo_extract.data.datasets import DataSet, Permutation
    from manigeo_extract.files.checkpoints import Checkpoint
    from manigeo_extract.training.finetuning import Start
    from manigeo_extract.training.trainer import TrainingPlan


_OF_THE_COMMAND = ("out", "device", "resume", "dry_run", "force")


def _epochs(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...] | str:
    """``1,5,20`` or ``all``."""
    if text in ("", "all"):
        return text or ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"expected epochs such as 1,5,20, or all; got {text!r}", ctx, param) from error


def _classes(ctx: click.Context, param: click.Parameter, text: str | None) -> int | str | None:
    """``cat,dog``, or how many."""
    return int(text) if text and text.isdecimal() else text


@click.command("train")
@click.option(
    "--out",
    default="run",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run.",
)
@options.arch_options
@options.data_options
@click.option(
    "--holdout-classes",
    callback=_classes,
    metavar="NAMES|N",
    help="Classes never to train on (cat,dog), or how many, drawn: short for --data-arg holdout_classes=... Extract "
    "writes them as the kind unseen.",
)
@click.option(
    "--from-checkpoint",
    "source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Fine-tune: start from these weights, of manigeo or another program. Tensors of another shape, such as a "
    "classifier of other classes, keep their own draw.",
)
@file_options
@click.option("--epochs", default=40, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--optimizer", default="sgd", show_default=True, help="sgd or adam.")
@click.option("--lr", default=0.02, show_default=True)
@click.option("--momentum", default=0.9, show_default=True)
@click.option("--weight-decay", default=0.0, show_default=True)
@click.option("--schedule", default="cosine", show_default=True, help="cosine, constant or step.")
@click.option("--milestones", default="", callback=_epochs, help="Epochs after which step drops the rate, e.g. 60,80.")
@click.option("--gamma", default=0.1, show_default=True, help="Factor of each drop.")
@click.option("--layca", type=float, metavar="RHO", help="Layca: every layer turns by an angle of tangent RHO a step.")
@click.option("--layca-balance", default=0.0, show_default=True, help="-1: the first layers turn most, 1: the last.")
@click.option("--dropout", type=float, help="Short for --arch-arg dropout=...")
@click.option("--augment", is_flag=True, help="Random crops and flips. They prevent memorization: off by default.")
@click.option(
    "--checkpoint-epochs", default="", callback=_epochs, help="Epochs to keep beside init, best and last: 1,5 or all."
)
@options.device_option
@options.seed_option
@click.option("--resume", is_flag=True, help="Continue the run in --out after its last whole epoch.")
@options.dry_run_option
@options.force_option
@options.config_option
def train_command(out: Path, device: str, resume: bool, dry_run: bool, force: bool, **request: Any) -> None:
    """Train a network on partly permuted labels, and keep its checkpoints and metrics.

    Defaults to an mlp on glyphs with half of the labels permuted. With --from-checkpoint, to the network of the checkpoint.
    """
    from manigeo.runs import RunFolder
    from manigeo_extract.data.datasets import describe
    from manigeo_extract.training.trainer import seconds_of_training, train

    if resume and force:
        raise UsageError("--resume continues a run and --force replaces it: give one of them")
    if RunFolder(out).exists and not (resume or force or dry_run):
        raise UsageError(f"{out} holds a run already: --resume continues it, --force replaces it")
    t = open_training(**request)
    seconds = seconds_of_training(t.network, t.dataset, t.examples, t.plan, device)
    click.echo(
        f"{describe(t.dataset, t.examples)}\n{t.arch}: {t.parameters:,} parameters, {t.plan.epochs} epochs, about "
        f"{duration(seconds)}, seed {t.plan.seed} -> {out}"
    )
    if dry_run:
        return
    if force:
        _set_aside(out)
    try:
        scores = train(
            t.network, t.dataset, t.examples, t.plan, out, arch=t.arch, arch_args=t.arch_args, permutation=t.permutation,
            start=t.start, device=device, resume=resume, overwrite=force,
        )  # fmt: skip
    except KeyboardInterrupt:
        click.echo("the same command with --resume continues after the last whole epoch", err=True)
        raise
    click.echo(describe_scores(scores))
    click.echo(f"next: manigeo extract --model {out / 'checkpoints' / 'last.pt'}")


def _set_aside(out: Path) -> None:
    """Results of the training that is to be replaced: those in its folder are moved, those beside it are named."""
    from manigeo.runs import RunFolder, set_aside, tables_beside

    beside = tables_beside(RunFolder(out))
    void, place = set_aside(RunFolder(out))
    if void:
        click.echo(f"note: void, since they are of the training that is replaced: {_listed(void)} -> {place}", err=True)
    if beside:
        click.echo(f"note: of the training that is replaced, and left out from now on: {_listed(beside)}", err=True)


def _listed(paths: "list[Path]") -> str:
    return ", ".join(path.name for path in paths)


@dataclass(frozen=True)
class Training:
    """What was asked for: the network before training, the examples with their labels, and the plan."""

    network: Any
    dataset: "DataSet"
    examples: "pd.DataFrame"
    plan: "TrainingPlan"
    arch: str
    arch_args: dict[str, Any]
    permutation: "Permutation"
    start: "Start | None"

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())


def open_training(
    arch: str | None, arch_args: dict[str, Any], data: str | None, data_args: dict[str, Any], permute: float | None,
    convention: str | None, permute_seed: int | None, holdout_classes: int | str | None, source: Path | None,
    state_key: str | None, ema: bool, no_strict: bool, trust: bool, dropout: float | None, **plan_options: Any,
) -> Training:  # fmt: skip
    """The network, the examples and the plan that the options of ``manigeo train`` say."""
    from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
    from manigeo_extract.models import build_model, complete_args
    from manigeo_extract.training.trainer import TrainingPlan

    plan = TrainingPlan(**plan_options)
    permutation = Permutation(0.5 if permute is None else permute, convention or "permutation", permute_seed or 0)
    checkpoint = _opened(source, data, no_strict, state_key=state_key, ema=ema, trust=trust)
    data_args = data_args | ({} if holdout_classes is None else {"holdout_classes": holdout_classes})
    dataset = load_data(data or "glyphs", data_args)
    examples = permute_labels(dataset, permutation)
    arch, arch_args = _architecture(checkpoint, arch, arch_args)
    arch_args = arch_args | ({} if dropout is None else {"dropout": dropout})
    arch_args = complete_args(arch, arch_args, dataset.input_shape, dataset.n_classes)
    network = build_model(arch, arch_args, seed=plan.seed)
    start = None if checkpoint is None else _started(checkpoint, network, strict=not no_strict)
    return Training(network, dataset, examples, plan, arch, arch_args, permutation, start)


def measured_training(words: Sequence[str]) -> tuple[int, float, int]:
    """Of ``manigeo train`` with these words: parameters, seconds, and bytes of the checkpoints that it keeps."""
    from manigeo_extract.training.trainer import seconds_of_training

    request = train_command.make_context("train", list(words)).params
    device = request["device"]
    of_training = {name: value for name, value in request.items() if name not in _OF_THE_COMMAND}
    t = open_training(**of_training)
    kept = t.plan.checkpoint_epochs
    n_checkpoints = 3 + (t.plan.epochs if kept == "all" else len(kept))
    seconds = seconds_of_training(t.network, t.dataset, t.examples, t.plan, device)
    return t.parameters, seconds, 4 * t.parameters * (n_checkpoints + 2)  # resume.pt has the optimiser's, too


def duration(seconds: float) -> str:
    """
    >>> duration(45), duration(600), duration(9000)
    ('45 s', '10 minutes', '2.5 hours')
    """
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _opened(path: Path | None, data: str | None, no_strict: bool, **file: Any) -> "Checkpoint | None":
    """The checkpoint to fine-tune."""
    from manigeo_extract.files.checkpoints import load_checkpoint

    if path is None and (no_strict or any(file.values())):
        raise UsageError("--state-key, --ema, --no-strict and --trust say how --from-checkpoint is read: give that too")
    if path is not None and data is None:
        raise UsageError(f"give --data, what {path} is to be fine-tuned on")
    return None if path is None else load_checkpoint(path, **file)


def _started(checkpoint: "Checkpoint", network: Any, *, strict: bool) -> "Start":
    """The network with the weights of the checkpoint; what was done to get them goes to stderr."""
    from manigeo_extract.training.finetuning import start_from

    start = start_from(checkpoint, network, strict=strict)
    for note in start.notes:
        click.echo(f"note: {checkpoint.path}: {note}", err=True)
    return start


def _architecture(
    checkpoint: "Checkpoint | None", arch: str | None, args: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network: those of the checkpoint that is fine-tuned, and over them those of the command."""
    from manigeo_extract.models import MODELS

    if checkpoint is None:
        return arch or "mlp", args
    if arch is None and checkpoint.arch is None:
        raise InputError(f"{checkpoint.path} does not say its architecture: give --arch (and --arch-arg)")
    if arch is None and checkpoint.arch not in MODELS:
        raise UsageError(
            f"{checkpoint.path} names the program {checkpoint.arch!r} as its network; if you trust it, repeat "
            f"--arch {checkpoint.arch}"
        )
    known = checkpoint.arch_args if arch in (None, checkpoint.arch) else {}
    of_data = {"input_shape", "n_classes"} if checkpoint.arch in MODELS else set()  # the new data say these
    return str(arch or checkpoint.arch), {name: value for name, value in known.items() if name not in of_data} | args


def describe_scores(scores: dict[str, dict[str, Any]]) -> str:
    """Accuracy of every kind, and whether the network has memorized its permuted labels."""
    from manigeo_extract.training.trainer import MEMORIZATION_GATE, memorized

    line = "accuracy: " + ", ".join(f"{kind} {values['accuracy']:.3f}" for kind, values in scores.items())
    if "permuted" not in scores:
        return line
    verdict = "reached" if memorized(scores) else "not reached: train longer before asking where it memorizes"
    return f"{line}\nmemorization gate (permuted accuracy >= {MEMORIZATION_GATE}): {verdict}"

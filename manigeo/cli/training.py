"""``manigeo train``: from a data set to a run with checkpoints."""

from pathlib import Path
from typing import Any

import click

from manigeo.cli import options
from manigeo.errors import UsageError


def _epochs(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...] | str:
    """``1,5,20`` or ``all``."""
    if text in ("", "all"):
        return text or ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"expected epochs such as 1,5,20, or all; got {text!r}", ctx, param) from error


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
def train_command(
    out: Path, arch: str | None, arch_args: dict[str, Any], data: str | None, data_args: dict[str, Any],
    permute: float | None, convention: str | None, permute_seed: int | None, dropout: float | None, device: str,
    seed: int, resume: bool, dry_run: bool, force: bool, **plan_options: Any,
) -> None:  # fmt: skip
    """Train a network on partly permuted labels, and keep its checkpoints and metrics.

    Defaults to an mlp on glyphs with half of the labels permuted.
    """
    from manigeo_extract.data import Permutation, describe, load_data, permute_labels
    from manigeo_extract.models import build_model, complete_args
    from manigeo_extract.training import TrainingPlan, train

    plan = TrainingPlan(seed=seed, **plan_options)
    permutation = Permutation(0.5 if permute is None else permute, convention or "permutation", permute_seed or 0)
    if resume and force:
        raise UsageError("--resume continues a run and --force replaces it: give one of them")
    if (out / "run.json").exists() and not (resume or force or dry_run):
        raise UsageError(f"{out} holds a run already: --resume continues it, --force replaces it")
    dataset = load_data(data or "glyphs", data_args)
    examples = permute_labels(dataset, permutation)
    arch = arch or "mlp"
    arch_args = arch_args | ({} if dropout is None else {"dropout": dropout})
    arch_args = complete_args(arch, arch_args, dataset.input_shape, dataset.n_classes)
    network = build_model(arch, arch_args, seed=seed)
    size = sum(p.numel() for p in network.parameters())
    click.echo(
        f"{describe(dataset, examples)}\n{arch}: {size:,} parameters, {plan.epochs} epochs, seed {seed} -> {out}"
    )
    if dry_run:
        return
    try:
        scores = train(
            network, dataset, examples, plan, out, arch=arch, arch_args=arch_args, permutation=permutation, device=device,
            resume=resume, overwrite=force,
        )  # fmt: skip
    except KeyboardInterrupt:
        click.echo("the same command with --resume continues after the last whole epoch", err=True)
        raise
    click.echo(describe_scores(scores))
    click.echo(f"next: manigeo extract --model {out / 'checkpoints' / 'last.pt'}")


def describe_scores(scores: dict[str, dict[str, Any]]) -> str:
    """Accuracy of every kind, and whether the network has memorized its permuted labels."""
    from manigeo_extract.training import MEMORIZATION_GATE, memorized

    line = "accuracy: " + ", ".join(f"{kind} {values['accuracy']:.3f}" for kind, values in scores.items())
    if "permuted" not in scores:
        return line
    verdict = "reached" if memorized(scores) else "not reached: train longer before asking where it memorizes"
    return f"{line}\nmemorization gate (permuted accuracy >= {MEMORIZATION_GATE}): {verdict}"

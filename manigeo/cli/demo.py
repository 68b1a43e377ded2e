"""``manigeo demo``: the main job end to end, as the commands that a user would type."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.errors import ManigeoError, UsageError

if TYPE_CHECKING:
    import pandas as pd

# The outputs of the hidden blocks, after the nonlinearity: what the next layer sees.
LAYERS = ("--layers", "input", "--layers", "h?", "--layers", "logits")
# Long enough to memorize half of the labels: 40 epochs of 8000 glyphs, 140 of 1100 digits.
SETTINGS = {
    "glyphs": ("--arch-arg", "depth=6", "--arch-arg", "width=512", "--lr", "0.02", "--epochs", "40"),
    "digits": ("--arch-arg", "depth=6", "--arch-arg", "width=256", "--lr", "0.03", "--epochs", "140"),
}


@click.command("demo")
@click.option("--data", default="glyphs", show_default=True, type=click.Choice(list(SETTINGS)))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [default: manigeo-demo-DATA]")
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Epochs of training.  [default: 40 for glyphs, 140 for digits]"
)
@click.option("--jobs", default=-1, show_default=True, help="Processes; -1 for one a core.")
@options.seed_option
@options.force_option
def demo_command(data: str, out: Path | None, epochs: int | None, jobs: int, seed: int, force: bool) -> None:
    """Train a network on characters with half of their labels permuted until it has memorized them, and look where.

    The best epoch (on validation data) stands for the network before memorization, the last one for after.
    """
    out = out or Path(f"manigeo-demo-{data}")
    if out.exists() and any(out.iterdir()) and not force:
        raise UsageError(f"{out} is not empty: give another --out, or --force to overwrite it")
    out.mkdir(parents=True, exist_ok=True)
    overwrite = ["--force"] if force else []

    training = [*SETTINGS[data], *(["--epochs", str(epochs)] if epochs else [])]
    _run("train", "--data", data, "--permute", "0.5", *training, "--seed", seed, "--out", out / "run", *overwrite)
    _check_gate(out / "run" / "metrics.csv")
    for when in ("best", "last"):
        acts = out / f"{when}.h5"
        _run("extract", "--model", out / "run" / "checkpoints" / f"{when}.pt", *LAYERS, "--out", acts, *overwrite)
        _run("capacity", acts, "--seed", seed, "--jobs", jobs, *overwrite)
    tables = [out / f"{when}.capacity.csv" for when in ("best", "last")]
    _run("plot", *tables, "--out", out / "geometry.png", *overwrite)

    from manigeo.results import read_results

    click.echo("\n" + describe_memorization(read_results(tables)))


def _run(*words: object) -> None:
    """One command, shown as it would be typed."""
    from manigeo.cli.main import cli

    args = [str(word) for word in words]
    click.secho(f"\n$ manigeo {shlex.join(args)}", bold=True)
    cli.main(args, standalone_mode=False)


def _check_gate(metrics: Path) -> None:
    import pandas as pd

    from manigeo_extract.training import MEMORIZATION_GATE

    table = pd.read_csv(metrics)
    reached = float(table[table["kind"] == "permuted"].sort_values("epoch")["accuracy"].iloc[-1])
    if reached < MEMORIZATION_GATE:
        raise ManigeoError(
            f"the network has not memorized: permuted training accuracy {reached:.3f}, needed {MEMORIZATION_GATE}; "
            "train longer (--epochs), then ask where"
        )


def describe_memorization(table: "pd.DataFrame") -> str:
    """What the capacity curves of the best and the last epoch show, and what they do not."""
    table = table[table["manifold"] == ""]
    first, last = _hidden_ends(table)

    def value(metric: str, kind: str, checkpoint: str, layer: str) -> float:
        rows = table[(table["metric"] == metric) & (table["kind"] == kind)]
        return float(rows[(rows["checkpoint"] == checkpoint) & (rows["layer"] == layer)]["value"].iloc[0])

    def change(metric: str, kind: str = "permuted", checkpoint: str = "last") -> str:
        a, b = value(metric, kind, checkpoint, first), value(metric, kind, checkpoint, last)
        return f"{a:.3g} to {b:.3g} ({b / a:.2f} x)"

    best, end = (value("capacity", "restored", when, last) for when in ("best", "last"))
    n_classes = int(table["n"].max())
    lines = [
        "What this shows:",
        f"- At the last epoch, from {first} to {last}, permuted examples go from capacity {change('capacity')},",
        f"  radius {change('radius')}, dimension {change('dimension')}: they become separable on the way.",
        f"- At the best epoch, before memorization, their capacity goes from {change('capacity', checkpoint='best')}.",
        f"- Restored (the same images by their true labels) have capacity {best:.3g} at {last} at the best epoch,",
        f"  {end:.3g} at the last: what memorization costs.",
        "What it does not show:",
        "- It is one run with one seed; errors are those of classes and draws alone.",
        "- Geometry says where permuted examples come apart, not which layers the memorization needs: that takes",
        "  interventions. Studies disagree on the layers (Stephenson et al. 2021, Maini et al. 2023).",
    ]
    if n_classes < 30:
        lines.append(
            f"- P = {n_classes} classes is small for mean field, which is exact for many: read trends, not values."
        )
    return "\n".join(lines)


def _hidden_ends(table: "pd.DataFrame") -> tuple[str, str]:
    """First and last hidden layer: between the input and the output."""
    layers = list(table.sort_values("depth")["layer"].drop_duplicates())
    return layers[1], layers[-2]

"""``manigeo demo``: the main job end to end, as the commands that a user would type."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manigeo.cli import options
from manigeo.cli.commands import command
from manigeo.cli.steps import call
from manigeo.errors import ManigeoError, UsageError

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[str, str, str]  # checkpoint, kind, layer
BEFORE = "before"  # the checkpoint that the trainer keeps from before memorization

# The outputs of the hidden blocks, after the nonlinearity: what the next layer sees.
LAYERS = ("--layers", "input", "--layers", "h?", "--layers", "logits")
# Long enough to memorize half of the labels: 40 epochs of 8000 glyphs, 140 of 1100 digits.
SETTINGS = {
    "glyphs": ("--arch-arg", "depth=6", "--arch-arg", "width=512", "--lr", "0.02", "--epochs", "40"),
    "digits": ("--arch-arg", "depth=6", "--arch-arg", "width=256", "--lr", "0.03", "--epochs", "140"),
}

# More classes would want more dimensions than the 512 of a layer: permuted manifolds of 28 points take P / .071.
SAMPLE = {"glyphs": ("--classes", "30"), "digits": ()}


@command("demo")
@click.option("--data", default="glyphs", show_default=True, type=click.Choice(list(SETTINGS)))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [default: manigeo-demo-DATA]")
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Epochs of training.  [default: 40 for glyphs, 140 for digits]"
)
@options.jobs_option(default=-1)
@options.seed_option
@options.force_option
def demo_command(data: str, out: Path | None, epochs: int | None, jobs: int, seed: int, force: bool) -> None:
    """Train a network on characters with half of their labels permuted until it has memorized them, and look where.

    The network before memorization (the epoch of highest validation accuracy at which permuted labels are not known yet) is
    compared with that of the last epoch.
    """
    out = out or Path(f"manigeo-demo-{data}")
    if out.exists() and any(out.iterdir()) and not force:
        raise UsageError(f"{out} is not empty: give another --out, or --force to overwrite it")
    out.mkdir(parents=True, exist_ok=True)
    overwrite = ["--force"] if force else []

    training = [*SETTINGS[data], *(["--epochs", str(epochs)] if epochs else [])]
    _run("train", "--data", data, "--permute", "0.5", *training, "--seed", seed, "--out", out / "run", *overwrite)
    _check_gate(out / "run" / "metrics.csv")
    _check_reference(out / "run")
    for when in (BEFORE, "last"):
        acts = out / f"{when}.h5"
        _run("extract", "--model", out / "run" / "checkpoints" / f"{when}.pt", *LAYERS, "--out", acts, *overwrite)
        _run("capacity", acts, *SAMPLE[data], "--seed", seed, "--jobs", jobs, *overwrite)
    tables = [out / f"{when}.capacity.csv" for when in (BEFORE, "last")]
    _run("plot", *tables, "--out", out / "geometry.png", *overwrite)
    _run("rewind", out / "run", "--out", out / "rewind.csv", "--seed", seed, *overwrite)
    _run("plot", out / "rewind.csv", "--out", out / "rewind.png", *overwrite)
    _run("localize", out / "run", "--out", out / "localize.csv", "--seed", seed, *overwrite)

    from manigeo.results import read_results

    click.echo("\n" + describe_memorization(read_results(tables), read_results(out / "rewind.csv")))


def _run(*words: object) -> None:
    """One command, shown as it would be typed."""
    args = [str(word) for word in words]
    click.secho(f"\n$ manigeo {shlex.join(args)}", bold=True)
    call(args)


def _check_gate(metrics: Path) -> None:
    import pandas as pd

    from manigeo_extract.training.trainer import MEMORIZATION_GATE

    table = pd.read_csv(metrics)
    reached = float(table[table["kind"] == "permuted"].sort_values("epoch")["accuracy"].iloc[-1])
    if reached < MEMORIZATION_GATE:
        raise ManigeoError(
            f"the network has not memorized: permuted training accuracy {reached:.3f}, needed {MEMORIZATION_GATE}; "
            "train longer (--epochs), then ask where"
        )


def _check_reference(run: Path) -> None:
    """A network that memorizes from the first epoch on has nothing to be compared with."""
    from manigeo.localization.reference import run_reference
    from manigeo.runs import RunFolder

    run_reference(RunFolder(run))


def describe_memorization(table: "pd.DataFrame", rewinds: "pd.DataFrame") -> str:
    """Describe the curves before memorization and at the last epoch, and the rewinds, in words that follow the numbers;
    and what they do not show."""
    table = table[table["manifold"] == ""].set_index(["checkpoint", "kind", "layer", "metric"]).sort_index()
    first, last = _hidden_ends(table.reset_index())
    rise = ("last", "permuted", first), ("last", "permuted", last)
    before = (BEFORE, "permuted", first), (BEFORE, "permuted", last)
    cost = (BEFORE, "restored", last), ("last", "restored", last)
    lines = [
        "What this shows:",
        f"- At the last epoch, from {first} to {last}, permuted examples go from capacity {_change(table, *rise)},",
        f"  radius {_change(table, *rise, 'radius')} and dimension {_change(table, *rise, 'dimension')}:",
        f"  {_verdict(table, *rise, 'they become separable on the way', 'they become less separable on the way')}.",
        f"- Before memorization their capacity goes from {_change(table, *before)}.",
        f"- Restored (the same images by their true labels) go at {last} from {_change(table, *cost)}",
        "  from before memorization to the last epoch:",
        f"  {_verdict(table, *cost, 'no cost of memorization here', 'what memorization costs')}.",
        f"- {describe_last_layer(rewinds)}",
        "What it does not show:",
        "- It is one run with one seed; errors are those of classes, draws and examples alone. Another processor, another",
        "  number of threads or another seed makes another run: train several, and read what they have in common.",
        "- Studies disagree on the layers that memorize (Stephenson et al. 2021, Maini et al. 2023).",
    ]
    n_classes = int(table["n"].max())
    if n_classes < 30:
        lines.append(
            f"- P = {n_classes} classes is small for mean field, which is exact for many: read trends, not values."
        )
    return "\n".join(lines)


def describe_last_layer(rewinds: "pd.DataFrame") -> str:
    """Describe what setting the last layer alone back to before memorization regains, and what it costs."""
    accuracies = rewinds[rewinds["metric"] == "accuracy"].set_index(["kind", "layer"])[["value", "stderr"]]

    def accuracy(kind: str, layer: str) -> str:
        value, error = accuracies.loc[(kind, layer)]
        return f"{value:.3f} ± {error:.3f}"

    was, test, whole = (accuracy("test", layer) for layer in ("(none)", "(last 1)", "(all)"))
    kept, unpermuted = (accuracy("unpermuted", layer) for layer in ("(none)", "(last 1)"))
    return (
        f"With the last layer alone set back to before memorization, test accuracy goes from {was} to {test}\n"
        f"  (the whole network at that epoch: {whole}); that of unpermuted examples from {kept} to {unpermuted}."
    )


def _change(table: "pd.DataFrame", start: Place, end: Place, metric: str = "capacity") -> str:
    a, b = (float(table.loc[(*place, metric), "value"]) for place in (start, end))
    return f"{a:.3g} to {b:.3g} ({b / a:.2f} x)"


def _verdict(table: "pd.DataFrame", start: Place, end: Place, rises: str, falls: str) -> str:
    """Interpretation of a change of capacity, if it is one: beyond two standard errors."""
    a, b = (table.loc[(*place, "capacity")] for place in (start, end))
    change, error = float(b["value"] - a["value"]), math.hypot(a["stderr"], b["stderr"])
    if abs(change) <= 2 * error:
        return "no change beyond two standard errors"
    return rises if change > 0 else falls


def _hidden_ends(table: "pd.DataFrame") -> tuple[str, str]:
    """First and last hidden layer: between the input and the output."""
    layers = list(table.sort_values("depth")["layer"].drop_duplicates())
    return layers[1], layers[-2]

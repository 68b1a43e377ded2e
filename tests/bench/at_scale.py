"""Tables of ``data/results`` made anew: ``python -m tests.bench.at_scale NAME --data npz:PATH --device cuda``.

Runs the commands of a recipe in ``build/at_scale``, where what is finished is kept, and writes the small tables and what
``tables.toml`` says of them. ``--dry-run`` prints the commands alone.
"""

import hashlib
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import click
import pandas as pd

import manigeo
from manigeo.cli.main import cli
from manigeo.results import with_settings

ROOT = Path(__file__).parents[2]
RESULTS, WORK = ROOT / "data" / "results", ROOT / "build" / "at_scale"
METRICS = ["capacity", "radius", "dimension", "center_correlation"]
COLUMNS = {
    "metrics": ["epoch", "kind", "accuracy", "loss", "n"],
    "capacity": ["checkpoint", "epoch", "layer", "depth", "kind", "metric", "value", "stderr", "n", "flag"],
    "rewind": ["sweep", "k", "kind", "metric", "value", "stderr", "n", "flag"],
    "localize": ["method", "other", "question", "layer", "depth", "kind", "metric", "value", "n", "flag"],
}


class Recipe(NamedTuple):
    """A training, the checkpoints whose geometry is measured, and the globs of their layers."""

    training: str
    seeds: tuple[int, ...] = (0,)
    checkpoints: tuple[str, ...] = ()
    layers: tuple[str, ...] = ("input", "conv?_?", "logits")
    localize: bool = False
    geometry: str = "capacity"  # the name of that table


VGG16 = "--arch vgg16 --batch-size 64"
EVERY_OTHER = range(0, 60, 2)
RECIPES = {
    "vgg16_cifar100": Recipe(f"{VGG16} --lr .02 --epochs 80", (0, 1), ("before", "last"), localize=True),
    "vgg16_h200": Recipe(f"{VGG16} --lr .02 --epochs 80", checkpoints=("best", "last")),
    "vgg16_lr05": Recipe(f"{VGG16} --lr .05 --epochs 80"),
    "resnet18_cifar100": Recipe(
        "--arch resnet18 --lr .05 --batch-size 128 --epochs 40",
        checkpoints=("best", "last"),
        layers=("input", "stage?.block?", "logits"),
    ),
    "vgg16w32_cifar100": Recipe(
        f"{VGG16} --arch-arg width=32 --lr .02 --epochs 60 --checkpoint-epochs {','.join(map(str, EVERY_OTHER[1:]))}",
        checkpoints=(*(f"epoch-{epoch:04d}" for epoch in EVERY_OTHER), "last"),
        geometry="epochs",
    ),
}


def commands(recipe: Recipe, run: str, data: str, device: str, seed: int) -> dict[str, list[str]]:
    """The command that makes each file of a run."""
    layers = " ".join(f"--layers {shlex.quote(glob)}" for glob in recipe.layers)
    how = f"--project 4096 --per-class 40 --device {device}"
    asked = {
        f"{run}/run.json": f"train --data {data} {recipe.training} --permute .5 --device {device} --seed {seed} --out {run}"
    }
    if recipe.localize:
        asked[f"{run}/rewind.csv"] = (
            f"rewind {run} --each --last-k --noise-draws 1 --device {device} --out {run}/rewind.csv"
        )
    for name in recipe.checkpoints:
        acts = f"{run}/{name}.h5"
        asked[acts] = f"extract --model {run}/checkpoints/{name}.pt {layers} {how} --out {acts}"
        asked[f"{run}/{name}.capacity.csv"] = f"capacity {acts} --per-class 40 --draws 200"
    if recipe.localize:
        asked[f"{run}/localize.csv"] = f"localize {run} --out {run}/localize.csv"
    return {path: shlex.split(line) for path, line in asked.items()}


def small(table: pd.DataFrame, kind: str, seed: int) -> pd.DataFrame:
    """What is kept of a table of a run: aggregates over classes, five decimals, and the seed."""
    if kind == "capacity":
        table = table[(table["manifold"] == "") & table["metric"].isin(METRICS)]
    if kind == "rewind":
        table = with_settings(table, "sweep", "k")
        table = table[table["sweep"].isin(["none", "last"])]
    if kind == "localize":
        table = with_settings(table, "method", "other", "question")
    return table[COLUMNS[kind]].round(5).assign(seed=seed)


def tables(recipe: Recipe, run: str, seed: int) -> dict[str, pd.DataFrame]:
    """The small tables of a finished run."""
    found = {"metrics": small(pd.read_csv(f"{run}/metrics.csv"), "metrics", seed)}
    if recipe.checkpoints:
        paths = [f"{run}/{name}.capacity.csv" for name in recipe.checkpoints]
        found[recipe.geometry] = small(manigeo.read_results(paths), "capacity", seed)
    if recipe.localize:
        found["rewind"] = small(manigeo.read_results(f"{run}/rewind.csv"), "rewind", seed)
        found["localize"] = small(manigeo.read_results(f"{run}/localize.csv"), "localize", seed)
    return found


def described(path: Path, command: str) -> str:
    """The entry of a table in ``tables.toml``."""
    content = path.read_bytes()
    columns, sha256 = content.split(b"\n", 1)[0].decode(), hashlib.sha256(content).hexdigest()
    return f'["{path.name}"]\ncolumns = "{columns}"\nsha256 = "{sha256}"\ncommand = "{command}"\n'


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(RECIPES)))
@click.option("--data", required=True, help="The split of CIFAR-100, as manigeo train takes it.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--dry-run", is_flag=True)
def main(name: str, data: str, device: str, dry_run: bool) -> None:
    recipe = RECIPES[name]
    source, _, path = data.partition(":")
    data = f"{source}:{Path(path).resolve()}" if path else data
    WORK.mkdir(parents=True, exist_ok=True)
    os.chdir(WORK)
    made: dict[str, list[pd.DataFrame]] = {}
    for seed in recipe.seeds:
        run = f"{name}-{seed}"
        for path, words in commands(recipe, run, data, device, seed).items():
            print("manigeo", shlex.join(words))
            if not dry_run and not Path(path).exists():
                cli(words, standalone_mode=False)
        if not dry_run:
            for kind, table in tables(recipe, run, seed).items():
                made.setdefault(kind, []).append(table)
    command = f"python -m tests.bench.at_scale {name} --data npz:cifar100_150x40.npz --device {device}"
    for kind, of_seeds in made.items():
        path = RESULTS / f"{name}.{kind}.csv"
        pd.concat(of_seeds).to_csv(path, index=False)
        print("for tables.toml:", described(path, command), sep="\n")


if __name__ == "__main__":
    main()

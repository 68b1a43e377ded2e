"""Are all layers created equal, at three seeds: ``python -m tests.bench.layers --data idx:PATH``, ten minutes on one core.

The fully connected network of Zhang et al. (2022) on Fashion-MNIST, all images; VGG11 and ResNet-18 of width 8 on ten
rendered characters; true labels. Test accuracy with each layer set back to its initial values, or to three fresh draws, and
how far each layer has moved. Writes ``data/results/all_layers.csv`` and prints its entry of ``tables.toml``; trainings that
are in the table are kept.
"""

import os
import shlex
import tempfile
from pathlib import Path

import click
import pandas as pd
import torch

import manigeo
from manigeo.cli.main import cli
from manigeo.results import with_settings
from tests.bench.at_scale import RESULTS, described

TABLE = RESULTS / "all_layers.csv"
CHARACTERS = "--data glyphs --data-arg classes=10 --data-arg train=200 --data-arg test=100 --data-arg size=16"
NETWORKS = {  # their training, and what counts as a layer
    "mlp": ("--arch mlp --arch-arg depth=3 --arch-arg width=256 --batch-size 128 --epochs 20 --lr .05", "module"),
    "vgg11": (f"{CHARACTERS} --arch vgg11 --arch-arg width=8 --batch-size 32 --epochs 10 --lr .04", "module"),
    "resnet18": (f"{CHARACTERS} --arch resnet18 --arch-arg width=8 --batch-size 32 --epochs 10 --lr .04", "block"),
}
DISTANCES = ["distance_rms", "distance_relative", "rotation"]


def measured(name: str, data: str, seed: int) -> pd.DataFrame:
    """What is kept of one training: a row per layer and number; ``to`` is what the layer was set to."""
    training, unit = NETWORKS[name]
    if "--data " not in training:
        training = f"--data {data} {training}"
    for line in (
        f"train {training} --permute 0 --seed {seed} --out run --force",
        f"reinit run --draws 3 --no-zero --group-by {unit} --out reinit.csv --force",
        "weights run --out weights.csv --force",
    ):
        cli(shlex.split(line), standalone_mode=False)
    reset = with_settings(manigeo.read_results("reinit.csv"), "sweep", "to")
    wanted = reset["metric"].isin(["accuracy", "normalised_drop"]) & reset["sweep"].isin(["none", "each"])
    reset = reset[wanted & (reset["kind"] == "test")]
    moved = manigeo.read_results("weights.csv")
    last = (
        (moved["epoch"] == moved["epoch"].max()) & moved["metric"].isin(DISTANCES) & ~moved["layer"].str.startswith("(")
    )
    moved = moved[last].drop_duplicates(["layer", "metric"]).assign(to="")
    columns = ["layer", "depth", "to", "metric", "value", "stderr"]
    return pd.concat([reset[columns], moved[columns]]).round(5).assign(arch=name, seed=seed)


@click.command(help=__doc__)
@click.option("--data", required=True, help="The four files of Fashion-MNIST, as manigeo train takes them: idx:PATH.")
def main(data: str) -> None:
    torch.set_num_threads(1)
    source, _, path = data.partition(":")
    found = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame({"arch": [], "seed": []})
    with tempfile.TemporaryDirectory() as folder:
        data = f"{source}:{Path(path).resolve()}"
        os.chdir(folder)
        for name in NETWORKS:
            for seed in range(3):
                if not ((found["arch"] == name) & (found["seed"] == seed)).any():
                    of_one = measured(name, data, seed)
                    found = pd.concat([found, of_one])[list(of_one)].astype({"seed": int})
                    found.to_csv(TABLE, index=False)
    print(described(TABLE, "python -m tests.bench.layers --data idx:data/fashion-mnist"))


if __name__ == "__main__":
    main()

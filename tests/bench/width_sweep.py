"""Double descent over width, at eighteen seeds: ``python -m tests.bench.width_sweep``, eight minutes on one core.

Networks of one hidden layer learn handwritten digits, 60 per class, a fifth of the labels permuted; test accuracy,
and radius and dimension of the logits of test examples, at the epoch of highest validation accuracy and at the last. Writes
``data/results/mlp_digits.width.csv`` and prints its entry of ``tables.toml``; seeds that are in the table are kept.
"""

import os
import tempfile

import click
import pandas as pd
import torch

import manigeo
from manigeo.cli.main import cli
from tests.bench.at_scale import RESULTS, described

WIDTHS = (16, 24, 32, 48, 96, 192, 768)
TABLE = RESULTS / "mlp_digits.width.csv"
TRAINING = (
    "--data digits --data-arg per_class=60 --arch-arg depth=1 --permute .2 "
    "--batch-size 32 --optimizer adam --lr .01 --epochs 50"
)


def rows(width: int, seed: int) -> list[dict[str, float | str]]:
    """The numbers of one network at both epochs; it is trained in the working directory."""
    words = f"train {TRAINING} --arch-arg width={width} --seed {seed} --out run --force".split()
    cli(words, standalone_mode=False)
    scores = pd.read_csv("run/metrics.csv").pivot(index="epoch", columns="kind", values="accuracy")
    found: list[dict[str, float | str]] = []
    for at, epoch in (("best", scores["validation"].idxmax()), ("last", scores.index[-1])):
        words = f"extract --model run/checkpoints/{at}.pt --layers logits --out logits.h5 --force".split()
        cli(words, standalone_mode=False)
        with manigeo.open_activations("logits.h5") as acts:
            g = manigeo.manifold_capacity(list(acts.manifolds("logits", "test", 30, 0)), n_draws=100)
        accuracy = {kind: scores.loc[epoch, kind] for kind in ("permuted", "test")}
        found.append({"width": width, "seed": seed, "at": at, **accuracy, "radius": g.radius, "dimension": g.dimension})
    return found


@click.command(help=__doc__)
@click.option("--seeds", default=18, show_default=True)
def main(seeds: int) -> None:
    torch.set_num_threads(1)
    table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame({"seed": []})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for seed in sorted(set(range(seeds)) - set(table["seed"])):
            of_seed = pd.DataFrame([row for width in WIDTHS for row in rows(width, seed)]).round(5)
            table = pd.concat([table, of_seed])[list(of_seed)].astype({"width": int, "seed": int})
            table.to_csv(TABLE, index=False)
    print(described(TABLE, "python -m tests.bench.width_sweep"))


if __name__ == "__main__":
    main()

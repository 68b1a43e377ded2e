"""Mean-field against simulated capacity on layers of trained networks: ``python -m tests.bench.real_layers``.

Small networks of the package learn digits and glyphs, half of their labels permuted. Of some layers and kinds of examples
``auto`` is compared with a simulation of so many dichotomies that its error is about 1 %. First layers are linear in the
image, and have fewer dimensions than features; so have layers after ``project_manifolds``. Rows with a flag are told apart,
and so are rows of fewer than ten classes, where joint capacity is compared too.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import manigeo
from manigeo.capacity.projection import project_manifolds
from manigeo.capacity.simulated import SimulatedCapacity
from manigeo_extract.data import DataSet, Permutation, load_data, permute_labels
from manigeo_extract.models import build_model
from manigeo_extract.recording.extraction import extract_activations, plan_extraction
from manigeo_extract.training import TrainingPlan, train

PILOT = 200  # dichotomies, from which the number for an error of 1 % follows
WIDTH = {"cnn": 16, "vgg11": 8, "resnet18": 8}  # a fraction of the usual channels
# network, data -> epochs, learning rate
TRAININGS = {
    ("mlp", "digits"): (60, 0.05), ("cnn", "digits"): (30, 0.02), ("vgg11", "digits"): (20, 0.02),
    ("resnet18", "digits"): (20, 0.02), ("mlp", "glyphs"): (30, 0.03), ("cnn", "glyphs"): (8, 0.02),
    ("vgg11", "glyphs"): (5, 0.02), ("resnet18", "glyphs"): (5, 0.02),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Layers of a network to compare, by their number from the first or last on; as many classes and points of each."""

    net: str
    data: str
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    n_classes: int
    per_class: int
    project: int | None = None
    seed: int = field(default=0)


MEMORIZED = ("unpermuted", "permuted")
CASES = (
    *(Case("mlp", "digits", (1, 2, 3, 4), (*MEMORIZED, "restored", "test"), 10, M) for M in (10, 25)),
    *(Case(net, "digits", (1, 3, -2), MEMORIZED, 10, 10) for net in WIDTH),
    *(Case(net, "digits", (3,), ("test",), 10, 25) for net in WIDTH),
    Case("mlp", "glyphs", (1, 3, 6), (*MEMORIZED, "restored"), 30, 20),
    Case("mlp", "glyphs", (3, 6), MEMORIZED, 20, 20),
    Case("mlp", "glyphs", (1, 3, 6), MEMORIZED, 10, 20),
    *(Case(net, "glyphs", (1, 3, -2), MEMORIZED, 30, 20) for net in WIDTH),
    *(Case(net, "glyphs", (1,), MEMORIZED, 30, 20, 1000) for net in WIDTH),
    *(Case(net, "glyphs", (1, -2), MEMORIZED, 10, 20, 500) for net in WIDTH),
    *(Case("mlp", "digits", (2, 3, 4), (*MEMORIZED, "test"), 5, 20, seed=s) for s in (0, 1)),
    *(Case(net, "glyphs", (1, -2), MEMORIZED, 5, 20) for net in ("mlp", "cnn", "resnet18")),
)  # fmt: skip


def data_set(name: str) -> tuple[DataSet, pd.DataFrame]:
    data = load_data(name)
    return data, permute_labels(data, Permutation(0.5))


def trained(net: str, name: str, folder: Path) -> torch.nn.Module:
    """The network at its last epoch, half of its labels permuted."""
    data, examples = data_set(name)
    args = {"width": WIDTH[net]} if net in WIDTH else {"depth": 6 if name == "glyphs" else 4, "width": 512}
    args |= {"input_shape": list(data.input_shape), "n_classes": data.n_classes}
    model = build_model(net, args, seed=0)
    epochs, lr = TRAININGS[net, name]
    scores = train(model, data, examples, TrainingPlan(epochs, lr=lr), folder, progress=lambda *_: None)
    accuracy = {kind: round(score["accuracy"], 2) for kind, score in scores.items()}
    tqdm.write(f"{net} on {name}: accuracy {accuracy}")
    return model


def activations(net: str, name: str, folder: Path) -> Path:
    """The file of the network's layers, made where it is not there."""
    path = folder / f"{net}-{name}.h5"
    if not path.exists():
        model = trained(net, name, folder / f"{net}-{name}")
        data, examples = data_set(name)
        extract_activations(model, data, plan_extraction(model, data, examples, per_class=25), path, {"arch": net})
    return path


def clouds(path: Path, case: Case) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """Layer, kind and manifolds, of classes that the case draws."""
    with manigeo.open_activations(path) as acts:
        layers = [name for name in acts.layers if name != "input"]
        rng = np.random.default_rng(case.seed)
        classes = np.sort(rng.choice(len(acts.class_names), case.n_classes, replace=False)).tolist()
        for layer in dict.fromkeys(layers[number - 1 if number > 0 else number] for number in case.layers):
            for kind in case.kinds:
                manifolds: Sequence[np.ndarray] = acts.manifolds(layer, kind, case.per_class, case.seed, classes)
                yield layer, kind, list(project_manifolds(manifolds, case.project) if case.project else manifolds)


def simulated(manifolds: list[np.ndarray], error: float) -> SimulatedCapacity:
    """With an error of this share of the capacity, as far as a pilot can tell."""
    pilot = manigeo.simulated_capacity(manifolds, PILOT)
    wanted = int(PILOT * (pilot.stderr / pilot.capacity / error) ** 2) if pilot.capacity > 0 else 0
    return manigeo.simulated_capacity(manifolds, wanted) if wanted > PILOT else pilot


def compared(manifolds: list[np.ndarray], error: float) -> dict[str, Any]:
    """One row: errors in per cent of the simulated capacity; ``by_mean`` is mean field before the crossing."""
    s, r = simulated(manifolds, error), manigeo.manifold_capacity(manifolds, errors="manifolds")
    joint = manigeo.joint_capacity(manifolds, 400).capacity if len(manifolds) < 10 else np.nan

    def off(capacity: float) -> float:
        return 100 * (capacity / s.capacity - 1)

    return {
        "features": manifolds[0].shape[1], "rank": s.rank, "simulated": s.capacity,
        "error": 100 * s.stderr / s.capacity, "auto": off(r.capacity), "by_mean": off(r.capacity * r.crossing),
        "joint": off(joint), "occupancy": r.occupancy, "flag": r.flag, "simulated_flag": s.flag,
    }  # fmt: skip


def summary(table: pd.DataFrame) -> str:
    defined = table[table["simulated"].notna()]
    clean, many = defined["flag"] == "", defined["n_classes"] >= 10
    low = defined["rank"] < defined["features"].clip(upper=defined["n_classes"] * defined["per_class"] - 1)
    parts = {
        "P >= 10, no flag": many & clean,
        "  of these P = 10": many & clean & (defined["n_classes"] == 10),
        "  of these P >= 20": many & clean & (defined["n_classes"] >= 20),
        "  of these rank below features and points": many & clean & low,
        "P >= 10, flagged": many & ~clean,
        "P < 10, no flag": ~many & clean,
    }
    lines = []
    for name, rows in parts.items():
        for measure in ("auto", "by_mean", *(["joint"] if name.startswith("P <") else [])):
            found = defined.loc[rows, measure].dropna()
            lines.append(
                f"{name:44} {measure:8} {len(found):3} layers: mean |error| {found.abs().mean():.1f} %, mean "
                f"{found.mean():+.1f}, from {found.min():+.1f} to {found.max():+.1f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("real_layers.csv"), help="table of all layers")
    parser.add_argument("--folder", type=Path, help="keep networks and activations here, and use those that are there")
    parser.add_argument("--net", choices=sorted({net for net, _ in TRAININGS}), help="this network alone")
    parser.add_argument("--error", type=float, default=0.01, help="of simulated capacities, relative (default .01)")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    cases = [case for case in CASES if args.net in (None, case.net)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for case in tqdm(cases):
            for layer, kind, manifolds in clouds(activations(case.net, case.data, folder), case):
                began = time.monotonic()
                place = asdict(case) | {"layer": layer, "kind": kind}
                rows.append(place | compared(manifolds, args.error) | {"seconds": time.monotonic() - began})
                pd.DataFrame(rows).drop(columns=["layers", "kinds"]).to_csv(args.out, index=False)
    table = pd.read_csv(args.out, keep_default_na=True).fillna({"flag": "", "simulated_flag": ""})
    print(table.drop(columns=["seed", "seconds"]).round({"simulated": 4, "occupancy": 2}).round(1).to_string())
    print(summary(table))


if __name__ == "__main__":
    main()

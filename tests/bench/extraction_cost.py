"""Cost of an extraction, beside that of what it cannot do without: the bare forward pass and a plain write of the bytes.

``python -m tests.bench.extraction_cost [REPETITIONS]`` prints one line for the dense and the sparse layers (before and
behind the ReLUs) of an mlp and of a ResNet-18: seconds (the least of the repetitions, in turns), their ratio, and the size
of the file beside that of one with gzip and shuffle for all layers, as files were before.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from manigeo.activations import filters
from manigeo_extract.data.datasets import DataSet, Permutation, load_data, permute_labels
from manigeo_extract.models import build_model
from manigeo_extract.recording.extraction import ExtractionPlan, extract_activations, plan_extraction

KINDS = {"dense": ("Linear", "Conv2d", "BatchNorm2d"), "sparse": ("ReLU",)}
NETWORKS = {"mlp": ("glyphs", 50, {}), "resnet18": ("digits", 5, {"size": 32})}  # data, examples per class, args


def bare(model: torch.nn.Module, data: DataSet, plan: ExtractionPlan, batch_size: int, path: Path) -> None:
    """The forward passes, and a write of so many bytes."""
    with torch.inference_mode():
        for start in range(0, len(plan.rows), batch_size):
            model(data.inputs(plan.rows[start : start + batch_size]))
    path.write_bytes(memoryview(np.ones(plan.n_bytes // 8)))


def least(repetitions: int, *works: Callable[[], None]) -> list[float]:
    """Least seconds of each, in turns."""
    seconds = []
    for _ in range(repetitions):
        for work in works:
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
    return [min(seconds[place :: len(works)]) for place in range(len(works))]


def measure(name: str, kind: str, folder: Path, repetitions: int) -> str:
    source, per_class, args = NETWORKS[name]
    data = load_data(source, args)
    torch.manual_seed(0)
    model = build_model(name, {"input_shape": data.input_shape, "n_classes": data.n_classes}).eval()
    types = [found for found in KINDS[kind] if any(type(module).__name__ == found for module in model.modules())]
    plan = plan_extraction(model, data, permute_labels(data, Permutation()), types=types, per_class=per_class)
    batch = plan.batch_size()  # what the command takes
    extract = partial(extract_activations, model, data, plan, provenance={}, batch_size=batch, force=True)
    out, before = folder / "a.h5", folder / "before.h5"
    plain = partial(bare, model, data, plan, batch, folder / "plain")
    bare_s, extract_s = least(repetitions, plain, partial(extract, path=out))
    with patch.object(filters, "choose_filter", lambda rows, compression: filters.DEFAULT):
        extract(path=before)
    size = out.stat().st_size / before.stat().st_size
    numbers = f"{plan.n_bytes / 1e6:8.0f}  {bare_s:6.2f}  {extract_s:12.2f}  {extract_s / bare_s:5.2f}  {size:11.2f}"
    return f"{name:9} {kind:7} {numbers}"


def main(repetitions: int = 3) -> None:
    print("network   layers  bytes/MB  bare/s  extraction/s  ratio  file/before")
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            for kind in KINDS:
                print(measure(name, kind, Path(folder), repetitions), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

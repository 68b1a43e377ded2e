"""Every line of Python in the README and the guide runs, with what its readers are told to have."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from manigeo import create_activations, write_results
from manigeo.activations import StoredLayer
from manigeo.results import as_table

ROOT = Path(__file__).parents[1]
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))) if path.is_file()]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text("utf-8")), 1)
]
pytestmark = pytest.mark.skipif(not PAGES, reason="needs the pages of a checkout")


def what_readers_have() -> dict[str, object]:
    rng = np.random.default_rng(0)
    manifolds = [rng.standard_normal(30) + rng.standard_normal((20, 30)) for _ in range(4)]
    labels = np.repeat(range(4), 20)
    center = manifolds[0].mean(axis=0)
    names = {
        "manifolds": manifolds, "X": manifolds[0], "others": np.concatenate(manifolds[1:]), "labels": labels,
        "points": np.concatenate(manifolds), "around_center": (manifolds[0] - center) / np.linalg.norm(center),
        "radii": np.array([0.5, 1.0]), "dimensions": np.array([2.0, 3.0]), "model": torch.nn.Linear(2, 2), "epochs": 1,
        "accuracy": 0.5, "loss": 0.7, "n": 9, "lightning": SimpleNamespace(Callback=object),
    }  # fmt: skip
    columns = {"index": range(80), "split": "train", "true_label": labels, "train_label": labels, "permuted": True}
    layer = StoredLayer("h6.linear", 0, "Linear", 0, (30,), "flatten", None, ())
    with create_activations("acts.h5", pd.DataFrame(columns), list("abcd"), [layer], {}) as writer:
        writer.append({"h6.linear": names["points"]})
    write_results(as_table([{"metric": "capacity", "value": 0.2}]), "acts.capacity.csv")
    return names


@pytest.mark.parametrize("code", BLOCKS)
def test_the_lines_of_the_pages_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cluster = ModuleType("dask_jobqueue")  # needs Slurm
    cluster.SLURMCluster = lambda **options: SimpleNamespace(adapt=lambda maximum_jobs: None)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", cluster)
    import manigeo

    names = what_readers_have() | {"manigeo": manigeo}
    exec(compile(code, "page", "exec"), names)
    if "class Monitor" in code:
        monitor = names["Monitor"]()
        monitor.on_train_start(None, names["model"])
        monitor.on_train_epoch_end(SimpleNamespace(current_epoch=0), names["model"])
        assert set(monitor.monitor.table["epoch"]) == {0, 1}
    if "Recorder" in code:
        assert (tmp_path / "run" / "checkpoints" / "best.pt").exists()


def test_there_are_lines_in_the_pages():
    assert len(BLOCKS) >= 5

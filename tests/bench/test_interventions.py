"""How long the grid of each layer and each checkpoint takes, beside as many plain evaluations: ``make bench``. Never a timed
test.

Both rows of a group score the same networks on the same examples; the grid also compares the answers and writes rows.
"""

import numpy as np
import pytest

from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.files.checkpoints import save_checkpoint
from manigeo_extract.interventions.exchanges import Intervention, Laboratory
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import build_model
from manigeo_extract.training.evaluation import evaluate, held
from manigeo_extract.training.runs import Run, run_snapshots

NETWORKS = {"chain": ("mlp", {}), "no chain": ("mlp", {}), "residual": ("resnet18", {"width": 8})}


@pytest.fixture(scope="module", params=NETWORKS)
def run(request, tmp_path_factory):
    """Untrained networks take as long. Of one that is no chain nothing is shared between changes."""
    folder = tmp_path_factory.mktemp("run")
    data = load_data("glyphs", {"classes": 30})
    arch, own = NETWORKS[request.param]
    args = {"input_shape": data.input_shape, "n_classes": 30} | own
    for epoch in range(2):
        save_checkpoint(folder / f"epoch-000{epoch}.pt", build_model(arch, args, seed=epoch), epoch=epoch)
    model = build_model(arch, args, seed=9)
    if request.param == "no chain":
        model.register_forward_hook(lambda *_: None)
    examples = permute_labels(data, Permutation(0.5))
    return Run(folder, (arch, args), model, data, examples, {"fingerprint": ""}, run_snapshots(folder))


def grid(run):
    groups = group_layers(run.model, run.data.inputs([0, 1]))
    return [Intervention("each", (group,), to) for to in run.snapshots for group in groups]


@pytest.mark.benchmark(group="each layer x each checkpoint")
def test_plain_evaluation_as_often(benchmark, run):
    n = len(grid(run)) + 1  # and of the network as it was
    source = held(run.data, np.arange(len(run.examples)), "cpu")
    benchmark.extra_info["networks"] = n
    benchmark.pedantic(lambda: [evaluate(run.model, source, run.examples) for _ in range(n)], rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="each layer x each checkpoint")
def test_the_grid(benchmark, run):
    laboratory = Laboratory(run, Examiner(run.data, run.examples), "reinit", threshold=0.1)
    parts = benchmark.pedantic(lambda: [laboratory.table(at) for at in (None, *grid(run))], rounds=3, warmup_rounds=1)
    assert len(parts) == len(grid(run)) + 1

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from manigeo import weights
from manigeo.correlation import correlate
from manigeo.errors import InputError, UsageError
from manigeo.plots import plot_correlation
from manigeo_extract.training.recorder import Recorder
from manigeo_extract.weights.comparing import correlation_table, generalization_gap, what_varied
from tests.command_line import done, run

SCORES = {"unpermuted": (1.0, 0.1, 60), "permuted": (0.4, 0.5, 20), "restored": (0.1, 3.0, 20), "test": (0.7, 0.9, 50)}


def metrics(**changes: tuple[float, float, int]) -> dict[str, dict[str, float]]:
    return {
        kind: dict(zip(("accuracy", "loss", "n"), values, strict=True)) for kind, values in (SCORES | changes).items()
    }


def network(seed: int, width: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3))


@pytest.fixture
def runs(tmp_path):
    """Six runs whose first layer has turned the more the worse they do on test data, and whose second has not turned."""
    folders = []
    for i in range(6):
        width = 5 + i % 2
        recorder = Recorder(tmp_path / f"run{i}", arch="mlp", arch_args={"width": width}, seed=i)
        model = network(i, width)
        recorder.step(model, 0, metrics())
        with torch.no_grad():
            model[0].weight += 0.2 * (i + 1) * torch.randn_like(model[0].weight)
        recorder.step(model, 1, metrics(test=(0.8 - 0.1 * i, 1.0, 50)))
        folders.append(recorder.directory)
    return folders


@pytest.mark.parametrize(("gap", "expected"), [("accuracy", (60 + 8) / 80 - 0.7), ("clean", 0.3), ("loss", 0.9 - 0.2)])
def test_the_gap_is_what_is_lost_from_training_to_test(gap, expected):
    table = pd.DataFrame([{"epoch": 3, "kind": kind, **values} for kind, values in metrics().items()])
    before = pd.DataFrame([{"epoch": 2, "kind": "test", "accuracy": 0.0, "loss": 9.0, "n": 50}])
    assert generalization_gap(pd.concat([before, table]), gap) == pytest.approx(expected)


def test_a_gap_needs_test_data():
    table = pd.DataFrame([{"epoch": 3, "kind": kind, **values} for kind, values in metrics().items() if kind != "test"])
    with pytest.raises(InputError, match="a gap needs test and unpermuted or permuted examples"):
        generalization_gap(table)


def test_the_table_has_a_point_a_run_and_the_coefficients_of_each_layer(runs):
    table = correlation_table(runs, n_resamples=100)
    points = table[(table["metric"] == "rotation") & (table["layer"] == "0")]
    assert list(points["run"]) == [f"run{i}" for i in range(6)]
    states = [torch.load(runs[2] / "checkpoints" / f"{name}.pt")["state_dict"] for name in ("epoch-0000", "last")]
    turned = weights.weight_change(*(state["0.weight"].numpy() for state in states))
    assert points["value"].iloc[2] == turned.rotation
    gaps = table[table["metric"] == "gap"]["value"].to_numpy()
    np.testing.assert_allclose(np.diff(gaps), 0.1)
    of_layer = table[(table["layer"] == "0") & (table["run"] == "")].set_index("metric")
    expected = correlate(points["value"].to_numpy(), gaps, "pearson", n_resamples=100)
    assert of_layer.loc["pearson", ["value", "n"]].tolist() == [expected.value, 6]
    assert of_layer.loc["pearson_ci_low", "value"] == expected.low
    assert np.isfinite(of_layer.loc["spearman_partial", "value"])  # the widths differ
    still = table[(table["layer"] == "1") & (table["metric"] == "spearman")].iloc[0]
    assert np.isnan(still["value"])
    assert still["flag"] == "constant"


def test_layers_that_not_all_runs_have_are_left_out(runs, tmp_path):
    recorder = Recorder(tmp_path / "deeper")
    torch.manual_seed(0)
    for epoch in (0, 1):
        recorder.step(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)), epoch, metrics())
    layers = set(correlation_table([*runs, tmp_path / "deeper"], n_resamples=100)["layer"])
    assert {"0", "1"} <= layers
    assert "2" not in layers


def test_runs_of_one_name_are_told_apart_by_their_folders(runs, tmp_path):
    (tmp_path / "other").mkdir()
    runs[1].rename(tmp_path / "other" / "run0")
    table = correlation_table([runs[0], tmp_path / "other" / "run0"], n_resamples=100)
    assert set(table["run"]) == {"", f"{tmp_path.name}/run0", "other/run0"}
    assert set(table[table["metric"] == "pearson"]["flag"]) == {"fewer_than_4_runs"}
    with pytest.raises(UsageError, match="run0 is given twice"):
        correlation_table([runs[0], runs[0]])


def test_a_copy_of_a_run_is_no_further_point(runs, tmp_path):
    shutil.copytree(runs[2], tmp_path / "copy")
    with pytest.raises(UsageError, match=r"copy is given twice, or is a copy of .*run2: name each run once"):
        correlation_table([*runs, tmp_path / "copy"])


def test_what_varied_between_the_runs_is_known_and_the_machine_is_none_of_it(runs):
    settings = json.loads((runs[0] / "run.json").read_text())
    settings["machine"]["cpu_capability"] = "another"
    (runs[0] / "run.json").write_text(json.dumps(settings))
    assert what_varied(runs) == {"arch_args.width": [5, 6], "seed": [0, 1, 2, 3, 4, 5]}
    assert what_varied(runs[:1]) == {}


def test_what_cannot_be_correlated_is_refused(runs, tmp_path):
    with pytest.raises(UsageError, match="measure must be one of rotation"):
        correlation_table(runs, "turn")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no metrics of a run"):
        correlation_table([*runs, tmp_path / "empty"])


def test_a_panel_a_layer_shows_a_point_a_run(runs):
    table = correlation_table(runs, n_resamples=100)
    figure = plot_correlation(table)
    first = figure.axes[0]
    assert len(figure.axes) == table.loc[table["metric"] == "pearson", "layer"].nunique()
    assert first.get_title().startswith("0: +")
    assert first.get_lines()[0].get_xdata().size == 6
    assert figure.axes[1].get_title() == "1: no coefficient"
    with pytest.raises(InputError, match="make it with manigeo correlate"):
        plot_correlation(table[table["metric"] == "pearson"])


def test_the_command_says_what_varied_and_leaves_table_and_figure(runs, monkeypatch):
    monkeypatch.chdir(runs[0].parent)
    out = done("correlate", *[folder.name for folder in runs], "--resamples", 100)
    assert "6 runs, which differ in arch_args.width (5, 6), seed (0, 1, 2, 3, 4, 5)" in out
    assert "Spearman, given the number of weights" in out
    assert "wrote correlation.csv; next: manigeo plot correlation.csv" in out
    assert "wrote correlation.png" in done("plot", "correlation.csv")
    code, _, err = run("correlate", "run0", "--measure", "turn", "--out", "other.csv")
    assert code == 2
    assert "measure must be one of" in err

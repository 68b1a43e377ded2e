import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from manigeo.errors import InputError
from manigeo.plots import plot_weights
from manigeo.weights import MEASURES, weight_change
from manigeo_extract.files.checkpoints import save_checkpoint
from manigeo_extract.training.recorder import Recorder
from manigeo_extract.weights.trajectory import WeightMonitor, run_checkpoints, weight_table
from tests.command_line import done, run


def network(seed: int, width: int = 5) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3))


@pytest.fixture
def recorded(tmp_path):
    """A run of four epochs, of which 0 and 2 were kept; the best is epoch 3, the last 4."""
    recorder = Recorder(tmp_path / "run", epochs=(2,))
    for epoch in range(5):
        accuracy = 0.9 if epoch == 3 else 0.5
        recorder.step(network(epoch), epoch, {"validation": {"accuracy": accuracy, "loss": 1.0, "n": 9}})
    return tmp_path / "run"


def values(table: pd.DataFrame, layer: str, metric: str) -> dict[float, float]:
    rows = table[(table["layer"] == layer) & (table["metric"] == metric)]
    return dict(zip(rows["epoch"], rows["value"], strict=True))


def test_a_runs_checkpoints_are_those_of_its_epochs_each_once(recorded):
    names = ["epoch-0000.pt", "epoch-0002.pt", "best.pt", "last.pt"]
    assert [path.name for path in run_checkpoints(recorded)] == names
    assert run_checkpoints(recorded / "checkpoints") == run_checkpoints(recorded)
    (recorded / "checkpoints" / "best.pt").unlink()
    (recorded / "checkpoints" / "last.pt").replace(recorded / "checkpoints" / "epoch-0004.pt")
    assert [path.name for path in run_checkpoints(recorded)] == ["epoch-0000.pt", "epoch-0002.pt", "epoch-0004.pt"]


def test_the_table_holds_what_weight_change_says_of_each_kernel(recorded):
    table = weight_table(run_checkpoints(recorded))
    start, second, end = (network(epoch).state_dict() for epoch in (0, 2, 4))
    for layer in ("0", "2"):
        change = weight_change(start[f"{layer}.weight"].numpy(), end[f"{layer}.weight"].numpy())
        for metric in MEASURES:
            assert values(table, layer, metric)[4] == getattr(change, metric)
        step = weight_change(start[f"{layer}.weight"].numpy(), second[f"{layer}.weight"].numpy())
        assert values(table, layer, "step_angle")[2] == step.angle
        assert values(table, layer, "rotation")[0] == 0
        assert 0 not in values(table, layer, "step_angle")
    assert values(table, "(all)", "weights")[4] == 4 * 5 + 5 * 3
    assert set(table["layer"]) == {"0", "2", "(all)"}  # neither biases nor normalisation
    assert set(table["run"]) == {"run"}


def test_the_last_layers_are_measured_as_one(tmp_path):
    torch.manual_seed(0)
    for name in ("a", "b"):
        torch.save({f"h{i}.weight": torch.randn(3, 3) for i in range(4)}, tmp_path / f"{name}.pt")
    table = weight_table([tmp_path / "a.pt", tmp_path / "b.pt"])
    states = [torch.load(tmp_path / f"{name}.pt") for name in ("a", "b")]
    both = (torch.cat([state["h2.weight"], state["h3.weight"]]).numpy() for state in states)
    last_two = table[(table["layer"] == "(last 2)") & (table["metric"] == "distance_l2") & (table["checkpoint"] == "b")]
    assert last_two["value"].item() == pytest.approx(weight_change(*both).distance_l2, rel=1e-12)
    assert {"(last 2)", "(last 3)", "(all)"} < set(table["layer"])


def test_weights_of_half_precision_are_measured(tmp_path):
    w = torch.randn(8, 8)
    for name, factor in (("a", 1.0), ("b", -1.0)):
        torch.save({"h.weight": (factor * w).bfloat16()}, tmp_path / f"{name}.pt")
    table = weight_table([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert table[(table["metric"] == "rotation") & (table["layer"] == "h")]["value"].tolist() == [0, 2]


def test_a_layer_of_zeros_is_flagged(tmp_path):
    for name, value in (("a", 0.0), ("b", 1.0)):
        torch.save({"h.weight": torch.full((2, 2), value)}, tmp_path / f"{name}.pt")
    table = weight_table([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert set(table["flag"]) == {"zero_norm"}
    assert table[table["metric"] == "rotation"]["value"].isna().all()


def test_what_cannot_be_compared_is_refused(recorded, tmp_path):
    one, other = run_checkpoints(recorded)[:2]
    with pytest.raises(InputError, match="one checkpoint has not moved"):
        weight_table([one])
    save_checkpoint(tmp_path / "wide.pt", network(0, width=7))
    with pytest.raises(InputError, match=r"not of one network: 0.weight \(\(5, 4\), \(7, 4\)\), 2.weight"):
        weight_table([one, tmp_path / "wide.pt"])
    torch.save({"bias": torch.ones(3)}, tmp_path / "bias.pt")
    with pytest.raises(InputError, match="has no weights of layers among"):
        weight_table([tmp_path / "bias.pt", other])
    with pytest.raises(InputError, match="holds no checkpoints"):
        run_checkpoints(tmp_path / "none")


def test_a_line_a_layer_is_drawn_against_the_epoch(recorded):
    table = weight_table(run_checkpoints(recorded))
    figure = plot_weights(table)
    rotation, step, _, bar = figure.axes
    assert [line.get_xdata().tolist() for line in rotation.get_lines()] == [[0, 2, 3, 4]] * 2
    np.testing.assert_array_equal(rotation.get_lines()[1].get_ydata(), list(values(table, "2", "rotation").values()))
    assert step.get_lines()[0].get_xdata().tolist() == [2, 3, 4]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0", "2"]
    assert plot_weights(table.assign(epoch=np.nan)).axes[0].get_lines()[0].get_xdata().tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="make it with manigeo weights"):
        plot_weights(table[table["layer"] == "(all)"])


def test_the_command_prints_the_last_state_and_leaves_table_and_figure(recorded, monkeypatch):
    monkeypatch.chdir(recorded.parent)
    out = done("weights", "run")
    assert "4 checkpoints, against run/checkpoints/epoch-0000.pt" in out
    assert "rotation" in out
    assert "wrote weights.csv; next: manigeo plot weights.csv" in out
    assert "wrote weights.png" in done("plot", "weights.csv")
    files = [f"run/checkpoints/{name}.pt" for name in ("last", "best")]
    assert "2 checkpoints, against run/checkpoints/last.pt" in done("weights", *files, "--out", "two.csv")
    code, _, err = run("weights", "run", files[0], "--out", "three.csv")
    assert code == 2
    assert "give one run, or files: run is a folder among 2 arguments" in err


def test_a_monitor_has_the_table_of_checkpoints_without_writing_any(tmp_path):
    model = network(0)
    monitor = WeightMonitor(torch.nn.DataParallel(model), run="run")
    save_checkpoint(tmp_path / "0.pt", model, epoch=0)
    for epoch in (1, 2):
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
        save_checkpoint(tmp_path / f"{epoch}.pt", model, epoch=epoch)
        monitor.record(epoch)
    stored = weight_table([tmp_path / f"{epoch}.pt" for epoch in range(3)])
    columns = ["epoch", "layer", "depth", "metric", "value", "flag"]
    pd.testing.assert_frame_equal(monitor.table[columns], stored[columns])
    assert plot_weights(monitor.table).axes[0].get_lines()[0].get_xdata().tolist() == [0, 1, 2]


def test_what_has_no_kernels_is_not_monitored():
    with pytest.raises(InputError, match="the network has no weights of layers"):
        WeightMonitor(nn.BatchNorm1d(3))

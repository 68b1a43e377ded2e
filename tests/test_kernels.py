"""Weights of modules as they act, however they are stored, and the same whether a network is at hand or its file alone."""

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from manigeo.errors import InputError
from manigeo_extract.recording.layers import list_layers, select_layers
from manigeo_extract.weights.kernels import acting_state, left_out, module_kernels
from manigeo_extract.weights.trajectory import WeightMonitor, weight_table
from tests.command_line import done, run

p, u = parametrizations, nn.utils


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.randn(2, 8))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.a @ self.b


def low_rank() -> nn.Module:
    return parametrize.register_parametrization(nn.Linear(8, 8), "weight", LowRank())


def quietly(made: Callable[[], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's deprecations
        return made()


STORED: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Linear(8, 8),
    "weight norm": lambda: p.weight_norm(nn.Linear(8, 8)),
    "weight norm of columns": lambda: p.weight_norm(nn.Linear(8, 8), dim=1),
    "weight norm of the whole": lambda: p.weight_norm(nn.Linear(8, 8), dim=None),
    "weight norm of a convolution": lambda: p.weight_norm(nn.Conv2d(8, 8, 3)),
    "old weight norm": lambda: quietly(lambda: u.weight_norm(nn.Linear(8, 8))),
    "spectral norm": lambda: p.spectral_norm(nn.Linear(8, 8)),
    "spectral norm of a transposed convolution": lambda: p.spectral_norm(nn.ConvTranspose1d(8, 4, 3)),
    "old spectral norm": lambda: u.spectral_norm(nn.Linear(8, 8)),
    "pruned": lambda: prune.random_unstructured(nn.Linear(8, 8), "weight", amount=9),
}


@pytest.mark.parametrize("kind", STORED)
def test_a_weight_stored_in_parts_is_the_weight_that_acts(kind):
    module = STORED[kind]().eval()
    if kind == "old spectral norm":
        module(torch.randn(2, 8))  # which computes the weight
    ((name, kernels),) = module_kernels({f"net.{n}": t for n, t in module.state_dict().items()}, "").items()
    assert (name, list(kernels)) == ("net", ["weight"])
    # a norm in another order of sums: a few units of the last place of float32
    torch.testing.assert_close(kernels["weight"], module.weight.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [*STORED.values(), low_rank, lambda: p.orthogonal(nn.Linear(8, 8))])
def test_of_a_live_network_the_weight_that_acts_is_its_own_whatever_parametrizes_it(make):
    net = nn.Sequential(make(), nn.Linear(8, 3)).eval()
    state = copy.deepcopy(net.state_dict())
    found = acting_state(net.train())
    if parametrize.is_parametrized(net[0]):
        assert torch.equal(found["0.weight"], net.eval()[0].weight)
    assert not [name for name in found if "parametrizations" in name]
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())  # and nothing has moved


def recurrent() -> nn.Module:
    return nn.ModuleDict({"rnn": nn.LSTM(4, 3, 2, bidirectional=True), "cell": nn.GRUCell(3, 2), "fc": nn.Linear(2, 2)})


def test_a_module_of_several_kernels_is_one_layer():
    assert {name: len(kernels) for name, kernels in module_kernels(recurrent().state_dict(), "").items()} == {
        "rnn": 8, "cell": 2, "fc": 1,
    }  # fmt: skip
    attention = nn.ModuleDict({"one": nn.MultiheadAttention(4, 2), "other": nn.MultiheadAttention(4, 2, kdim=3)})
    assert {name: list(kernels) for name, kernels in module_kernels(attention.state_dict(), "").items()} == {
        "one": ["in_proj_weight"], "one.out_proj": ["weight"],
        "other": ["q_proj_weight", "k_proj_weight", "v_proj_weight"], "other.out_proj": ["weight"],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["weight norm", "spectral norm", "old weight norm", "plain"])
def test_monitor_and_layers_name_the_same_modules(kind):
    net = nn.Sequential(STORED[kind](), nn.ReLU(), nn.Linear(8, 3))
    monitor = WeightMonitor(net)
    with torch.no_grad():
        next(net[0].parameters()).add_(0.1)
    monitor.record(1)
    measured = {name for name in monitor.table["layer"] if not name.startswith("(")}
    assert measured == {layer.name for layer in select_layers(list_layers(net, torch.randn(2, 8)))} - {"input"}


def test_what_is_not_looked_at_is_named_with_the_reason(tmp_path, capsys):
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    net.register_parameter("position", nn.Parameter(torch.zeros(1, 4)))
    assert left_out(net.state_dict()) == {
        "position": "is named otherwise than a weight that multiplies inputs", "1": "has scales and shifts alone",
    }  # fmt: skip
    assert WeightMonitor(net).left_out == left_out(net.state_dict())
    for name in ("a.pt", "b.pt"):
        torch.save(net.state_dict(), tmp_path / name)
    told: list[str] = []
    weight_table([tmp_path / "a.pt", tmp_path / "b.pt"], tell=told.append)
    assert told == [
        "left out, since it is named otherwise than a weight that multiplies inputs: position",
        "left out, since it has scales and shifts alone: 1",
    ]
    with pytest.raises(InputError, match=r"a has no weights of layers among \['bias'\].*; give a state dict"):
        module_kernels({"bias": torch.zeros(2)}, "a")


def test_without_strictness_the_kernels_that_all_files_have_are_measured(tmp_path):
    for name, n in (("a.pt", 3), ("b.pt", 5)):
        torch.save(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, n)).state_dict(), tmp_path / name)
    with pytest.raises(
        InputError, match=r"not of one network: 1.weight .*, or --no-strict for what they have in common$"
    ):
        weight_table([tmp_path / "a.pt", tmp_path / "b.pt"])
    told: list[str] = []
    table = weight_table([tmp_path / "a.pt", tmp_path / "b.pt"], strict=False, tell=told.append)
    assert {name for name in table["layer"] if not name.startswith("(")} == {"0"}
    assert told == ["left out, since not all checkpoints have them in one shape: 1.weight"]


def test_weights_are_read_under_any_key_and_from_shards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = nn.Linear(4, 3), nn.Linear(4, 3)
    for name, net in (("a.pt", one), ("b.pt", other)):
        torch.save({"generator": net.state_dict(), "critic": one.state_dict()}, name)
    code, _, said = run("weights", "a.pt", "b.pt")
    assert code == 3
    assert "give --state-key generator or critic" in said
    done("weights", "a.pt", "b.pt", "--state-key", "generator")


@pytest.mark.parametrize(
    "command", ["extract", "layers", "weights", "rewind", "reinit", "gradients", "analyze", "train"]
)
def test_every_command_that_reads_weights_says_how_they_are_read(command):
    said = done(command, "--help")
    assert all(option in said for option in ("--state-key", "--ema", "--no-strict", "--trust"))

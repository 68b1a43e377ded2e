import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from manigeo.errors import UsageError
from manigeo_extract.models import IMAGE_MODELS, build_model, complete_args
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import list_layers, select_layers
from manigeo_extract.recording.tracing import with_functions
from tests.networks import Calls, n_hooks


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def record(model, batch):
    with record_layers(model, list_layers(model, batch)) as forward:
        return forward(batch)


def functions(model, batch):
    """Layers that only the traced network has."""
    modules = {layer.name for layer in list_layers(model, batch)}
    return [layer for layer in list_layers(with_functions(model, batch), batch) if layer.name not in modules]


class Residual(nn.Module):
    """relu(fc(x) + x), with functions alone."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return F.relu(self.fc(x) + x)


def test_the_sum_of_a_residual_block_is_branch_plus_shortcut():
    model, batch = nn.Sequential(Residual(), Residual()), torch.randn(4, 3)
    got = record(with_functions(model, batch), batch)
    assert list(got) == ["input", "0.fc", "0.add", "0.relu", "0", "1.fc", "1.add", "1.relu", "1"]
    assert torch.equal(got["0.add"], got["0.fc"] + batch)
    assert torch.equal(got["1.add"], got["1.fc"] + got["0"])
    assert torch.equal(got["1"], got["1.add"].clamp(min=0))
    assert got["0.add"].min() < 0


@pytest.fixture
def unchecked_types():
    """A traced forward pass is given proxies, which the checks of these tests do not take for tensors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("arch", sorted(IMAGE_MODELS))
def test_every_module_keeps_its_name_and_its_very_activations(arch):
    shape = (3, 32, 32)
    model = build_model(arch, complete_args(arch, {}, shape, 5), seed=0)
    batch = torch.randn(2, *shape)
    layers = list_layers(model, batch)
    traced = with_functions(model, batch)
    found = {layer.name: layer for layer in list_layers(traced, batch)}
    for layer in layers:
        assert (found[layer.name].module_class, found[layer.name].feature_shape, found[layer.name].leaf) == (
            layer.module_class,
            layer.feature_shape,
            layer.leaf,
        )
        assert set(layer.names) <= set(found[layer.name].names)
    assert [layer.name for layer in select_layers(list(found.values()))] == [x.name for x in select_layers(layers)]
    expected, got = record(model, batch), record(traced, batch)
    assert all(torch.equal(got[name], values) for name, values in expected.items())


def test_functions_are_numbered_within_the_module_that_calls_them():
    model = Calls(lambda m, x: F.relu(F.relu(m.block(m.block(x))) - 1).tanh(), block=Residual())
    names = [(layer.name, layer.calls) for layer in functions(model, torch.randn(2, 3))]
    assert names == [
        *(("block.add", 2), ("block.relu", 2), ("block.add#1", 2), ("block.relu#1", 2)),
        *(("relu", 2), ("sub", 1), ("relu#1", 2), ("tanh", 1)),
    ]


def test_a_function_yields_its_name_to_a_module_and_to_the_methods_of_modules():
    model = Calls(lambda m, x: F.relu(m.relu(x) - 1).half().float(), relu=nn.ReLU())
    batch = torch.randn(2, 3)
    names = [layer.name for layer in functions(model, batch)]
    assert names == ["sub", "relu_function", "half_function", "float_function"]
    assert with_functions(model, batch).half().graph  # the methods are still there


def test_functions_within_a_sequence_within_a_sequence_are_found():
    model = nn.Sequential(nn.Sequential(Residual()))
    assert [layer.name for layer in functions(model, torch.randn(2, 3))] == ["0.0.add", "0.0.relu"]


def test_operations_in_place_leave_what_was_recorded_before_them():
    model = Calls(lambda m, x: F.relu(m.fc(x), inplace=True).add_(1), fc=nn.Linear(3, 3))
    batch = torch.randn(4, 3)
    got = record(with_functions(model, batch), batch)
    assert torch.equal(got["fc"], model.fc(batch).detach())
    assert torch.equal(got["relu"], got["fc"].clamp(min=0))
    assert torch.equal(got["add_"], got["relu"] + 1)


def test_dropout_as_a_function_is_off_and_flags_are_as_they_were():
    model = Calls(lambda m, x: F.dropout(m.fc(x), training=m.training), fc=nn.Linear(3, 3)).train()
    model.fc.eval()
    batch = torch.randn(4, 3)
    got = record(with_functions(model, batch), batch)
    assert torch.equal(got["dropout"], got["fc"])
    assert (model.training, model.fc.training) == (True, False)
    assert n_hooks(model) == 0


def test_the_traced_network_has_the_weights_themselves():
    model, batch = Residual(), torch.randn(2, 3)
    traced = with_functions(model, batch)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()
    assert torch.equal(record(traced, batch)["add"], batch)


def test_a_module_under_two_names_has_both():
    shared = Residual()
    model, batch = Calls(lambda m, x: m.a(m.b(x)), a=shared, b=shared), torch.randn(2, 3)
    aliases = {layer.name: layer.aliases for layer in list_layers(with_functions(model, batch), batch)}
    assert (aliases["a.fc"], aliases["a#1"]) == (("b.fc",), ("b#1",))


def test_a_module_with_parameters_and_functions_alone_is_a_leaf():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return torch.tanh(x) * self.weight

    model, batch = nn.Sequential(Scale(), nn.ReLU()), torch.randn(2, 3)
    layers = list_layers(with_functions(model, batch), batch)
    assert [(x.name, x.parameters) for x in layers] == [
        ("input", 0), ("0.tanh", 0), ("0.mul", 0), ("0", 3), ("1", 0)
    ]  # fmt: skip
    assert [x.name for x in select_layers(layers)] == ["input", "0", "1"]


def test_parts_of_a_tuple_are_layers_and_the_module_that_returns_it_is_one():
    model = Calls(lambda m, x: m.rnn(x)[0][:, -1] + 1, rnn=nn.LSTM(2, 3, batch_first=True))
    batch = torch.randn(4, 5, 2)
    got = record(with_functions(model, batch), batch)
    assert torch.equal(got["getitem"], got["rnn"])
    assert torch.equal(got["add"], got["rnn"][:, -1] + 1)
    inside = Calls(lambda m, x: m.pair(x)[1], pair=Calls(lambda m, x: (x + 1, x + 2)))
    got = record(with_functions(inside, torch.zeros(4, 2)), torch.zeros(4, 2))
    assert torch.equal(got["pair"], torch.ones(4, 2))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)

    def forward(self, ids=None, mask=None, scale=None, double=False):
        x = self.embedding(ids) * mask[:, :, None]
        if scale is not None:
            x = x * scale
        return x + x if double else x


def test_inputs_by_name_are_traced_and_other_parameters_keep_their_defaults():
    batch = {"ids": torch.tensor([[1, 2], [3, 4]]), "mask": torch.tensor([[1.0, 1.0], [1.0, 0.0]])}
    model = Named()
    got = record(with_functions(model, batch), batch)
    assert torch.equal(got["mul"], (model.embedding(batch["ids"]) * batch["mask"][:, :, None]).detach())
    whole = Calls(lambda m, batch: m.embedding(batch["ids"]).tanh(), embedding=model.embedding)
    assert torch.equal(record(with_functions(whole, batch), batch)["tanh"], got["embedding"].tanh())


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda m, x: x if x.sum() > 0 else -x, "inputs to control flow"),
        (lambda m, x: x * len(x), "'len' is not supported in symbolic tracing"),
        (lambda m, x: x * int(x.shape[0]), "int"),
    ],
)
def test_a_network_that_cannot_be_traced_is_told_why_and_of_hooks(run, reason):
    with pytest.raises(UsageError, match=f"torch.fx cannot trace this network: .*{reason}.*; take --backend hooks"):
        with_functions(Calls(run), torch.randn(2, 3))


def test_a_graph_that_gives_something_else_is_refused():
    def run(m, x):
        m.n = getattr(m, "n", 0) + 1
        return x * m.n

    with pytest.raises(UsageError, match=r"as one that gives other outputs.*--backend hooks"):
        with_functions(Calls(run), torch.randn(2, 3))

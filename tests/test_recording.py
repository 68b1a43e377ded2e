from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manigeo.errors import InputError, UsageError
from manigeo_extract.batches import Batch
from manigeo_extract.models import mlp, resnet18
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import Layer, list_layers, select_layers
from tests.networks import Calls, n_hooks


def record(model: nn.Module, batch: Batch, *patterns: str) -> dict[str, Tensor]:
    layers = list_layers(model, batch)
    with record_layers(model, select_layers(layers, patterns) if patterns else layers) as forward:
        return forward(batch)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_activations_of_an_mlp_are_those_of_its_matrices():
    model = mlp(input_shape=(1, 3, 3), n_classes=4, depth=2, width=6)
    batch = torch.randn(5, 1, 3, 3)
    got = record(model, batch)
    p = {name: value.detach() for name, value in model.named_parameters()}
    a1 = batch.flatten(1) @ p["h1.linear.weight"].T + p["h1.linear.bias"]
    a2 = a1.clamp(min=0) @ p["h2.linear.weight"].T + p["h2.linear.bias"]
    logits = a2.clamp(min=0) @ p["logits.weight"].T + p["logits.bias"]
    expected = {"input": batch, "h1.linear": a1, "h1": a1.clamp(min=0), "h2.linear": a2, "logits": logits}
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)


def test_activations_of_a_residual_block_are_relu_of_branch_plus_shortcut():
    model = resnet18(input_shape=(1, 8, 8), n_classes=3, width=2)
    for module in model.modules():  # norms that are not the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    got = record(model, torch.randn(3, 1, 8, 8))
    s = model.state_dict()

    def conv_norm(x, conv, norm, stride=1, padding=1):
        x = F.conv2d(x, s[f"{conv}.weight"], stride=stride, padding=padding)
        shape = (1, -1, 1, 1)
        scale = s[f"{norm}.weight"] / torch.sqrt(s[f"{norm}.running_var"] + 1e-5)
        return (x - s[f"{norm}.running_mean"].view(shape)) * scale.view(shape) + s[f"{norm}.bias"].view(shape)

    x, block = got["stage1"], "stage2.block1"
    branch = conv_norm(x, f"{block}.conv1", f"{block}.norm1", stride=2).clamp(min=0)
    branch = conv_norm(branch, f"{block}.conv2", f"{block}.norm2")
    shortcut = conv_norm(x, f"{block}.shortcut.conv", f"{block}.shortcut.norm", stride=2, padding=0)
    torch.testing.assert_close(got[block], (branch + shortcut).clamp(min=0))
    torch.testing.assert_close(got[f"{block}.shortcut"], shortcut)


def test_a_convolution_keeps_its_negative_values_before_a_relu_in_place():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
    batch = torch.randn(2, 1, 5, 5)
    got = record(model, batch)
    torch.testing.assert_close(got["0"], F.conv2d(batch, model[0].weight, model[0].bias).detach())
    assert got["0"].min() < 0
    assert torch.equal(got["1"], got["0"].clamp(min=0))


def test_a_network_that_works_in_place_changes_neither_the_batch_nor_its_record():
    batch = -torch.ones(2, 3)
    got = record(nn.Sequential(nn.ReLU(inplace=True)), batch)
    assert torch.equal(batch, -torch.ones(2, 3))
    assert torch.equal(got["input"], batch)


def test_every_activation_is_a_contiguous_float32_tensor_in_memory_of_its_own():
    turned = Calls(lambda m, x: x.T.contiguous().T)
    expanded = Calls(lambda m, x: x[:, :1].expand(-1, 4))
    model = nn.Sequential(OrderedDict(same=nn.Identity(), turned=turned, expanded=expanded, head=nn.Linear(4, 1)))
    model = model.to(torch.float64)
    batch = torch.randn(3, 2)
    got = record(model, batch)
    assert all(a.dtype == torch.float32 and a.is_contiguous() and not a.is_inference() for a in got.values())
    for activations in got.values():
        activations.zero_()
    assert batch.all()
    with record_layers(model, list_layers(model, batch)) as forward:
        first, second = forward(batch), forward(batch)
    first["same"].zero_()
    assert torch.equal(second["same"], batch)


def test_dropout_is_off_norms_do_not_learn_and_every_flag_is_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    batch = torch.randn(6, 4)
    with record_layers(model, list_layers(model, batch)) as forward:
        got, again = forward(batch), forward(batch)
    assert torch.equal(got["2"], got["1"])
    assert torch.equal(got["2"], again["2"])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_a_module_called_twice_gives_both_calls_in_every_batch():
    model = Calls(lambda m, x: m.fc(m.fc(x)), fc=nn.Linear(2, 2))
    batch = torch.randn(3, 2)
    with record_layers(model, list_layers(model, batch)) as forward:
        for x in (batch, batch + 1):
            got = forward(x)
            torch.testing.assert_close(got["fc"], model.fc(x).detach())
            torch.testing.assert_close(got["fc#1"], model.fc(model.fc(x)).detach())
    assert torch.equal(record(model, batch, "fc[#]1")["fc#1"], record(model, batch)["fc#1"])


def test_a_shared_module_is_recorded_under_its_first_name():
    shared = nn.Linear(2, 2)
    model = Calls(lambda m, x: m.b(x) + 1, a=shared, b=shared)
    batch = torch.randn(3, 2)
    got = record(model, batch, "b")
    assert list(got) == ["a"]
    assert torch.equal(got["a"], shared(batch).detach())


def test_the_first_tensor_of_a_tuple_is_recorded():
    model = Calls(lambda m, x: m.rnn(x)[0][:, -1], rnn=nn.LSTM(2, 3, batch_first=True))
    batch = torch.randn(4, 5, 2)
    got = record(model, batch)
    torch.testing.assert_close(got["rnn"], model.rnn(batch)[0].detach())
    torch.testing.assert_close(got["output"], model(batch).detach())


def test_the_network_computes_with_hooks_what_it_computes_without():
    model = resnet18(input_shape=(1, 8, 8), n_classes=3, width=2).eval()
    batch = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        expected = model(batch)
    assert torch.equal(record(model, batch)["logits"], expected)


def test_modules_after_the_last_wanted_layer_do_not_run():
    class Bomb(nn.Module):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            if self.armed:
                raise RuntimeError("too far")
            return x + 1

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), Bomb())
    batch = torch.randn(3, 2)
    layers = list_layers(model, batch)
    model[2].armed = True
    with record_layers(model, select_layers(layers, ["0", "1"])) as forward:
        assert list(forward(batch)) == ["0", "1"] == list(forward(batch))
    with record_layers(model, select_layers(layers, ["input"])) as forward:
        assert torch.equal(forward(batch)["input"], batch)
    with pytest.raises(RuntimeError, match="too far"), record_layers(model, layers) as forward:
        forward(batch)


def test_an_early_stop_passes_a_network_that_catches_exceptions():
    def run(m, x):
        try:
            return m.fc(x)
        except Exception:
            return m.later(x)

    model = Calls(run, fc=nn.Linear(2, 2), later=nn.Linear(5, 5))
    assert list(record(model, torch.randn(3, 2), "fc")) == ["fc"]


def test_an_exception_leaves_no_hooks_and_restores_the_flags():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).train()
    layers = list_layers(model, torch.zeros(1, 2))
    with record_layers(model, layers):
        assert n_hooks(model) == 2
        assert not model.training
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), record_layers(model, layers) as forward:
        forward(torch.zeros(1, 3))
    assert n_hooks(model) == 0
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_a_wrapped_network_gives_what_the_network_gives(wrap):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    batch = torch.randn(5, 2)
    expected, got = record(model, batch), record(wrap(model), batch)
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_gradients_outside_a_forward_pass_are_left_alone():
    model = nn.Sequential(nn.Linear(2, 2))
    with record_layers(model, list_layers(model, torch.zeros(1, 2))) as forward:
        activations = forward(torch.ones(1, 2))["0"]
        probe = nn.Linear(2, 1)
        probe(activations).sum().backward()
    assert torch.equal(probe.weight.grad, activations)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_takes_a_float32_batch_and_gives_float32(dtype):
    model = nn.Sequential(nn.Linear(2, 2)).to(dtype)
    batch = torch.randn(3, 2)
    got = record(model, batch)["0"]
    assert torch.equal(got, model(batch.to(dtype)).detach().float())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_by_the_name_of_their_layer(bad):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    layers = list_layers(model, torch.zeros(1, 2))
    nn.init.constant_(model[2].weight, bad)
    with pytest.raises(InputError, match="layer '2' has NaN or infinite"), record_layers(model, layers) as forward:
        forward(torch.ones(4, 2))
    with record_layers(model, layers[:2]) as forward:
        assert forward(torch.ones(4, 2))["0"].shape == (4, 2)


def test_a_layer_without_a_batch_dimension_is_refused_by_its_name():
    model = Calls(lambda m, x: m.rows(x)[0] + x, rows=Calls(lambda m, x: (torch.ones(2, 2).sum(0, keepdim=True),)))
    with pytest.raises(InputError, match=r"layer 'rows' returned 1 rows for 3 examples.*leave this layer out"):
        record(model, torch.randn(3, 2), "rows")


def test_a_layer_that_a_batch_does_not_reach_is_named():
    model = Calls(lambda m, x: m.a(x) if x.sum() > 0 else m.b(x), a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    layers = list_layers(model, torch.ones(3, 2))
    with pytest.raises(InputError, match=r"did not reach layers \['a'\]"), record_layers(model, layers) as forward:
        forward(-torch.ones(3, 2))


def test_layers_of_another_network_are_refused_with_near_names():
    model = mlp(input_shape=(1, 2, 2), n_classes=2, depth=2)
    other = Layer("h3.linear", "Linear", 0, 0, (512,), (), leaf=True, parameters=9)
    with (
        pytest.raises(UsageError, match=r"the model has no layer 'h3\.linear'; did you mean 'h\d\.linear'"),
        record_layers(model, [other]),
    ):
        pass
    assert n_hooks(model) == 0
    assert model.training


def test_tensors_by_name_are_recorded_and_left_as_they_were():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 3)

        def forward(self, ids, scale):
            return self.embedding(ids) * scale.mul_(2)[:, :, None]

    model = Words().to(torch.float64)
    batch = {"ids": torch.tensor([[1, 2], [3, 4], [0, 0]]), "scale": torch.ones(3, 2)}
    got = record(model, batch)
    assert list(got) == ["input", "embedding", "output"]
    assert torch.equal(got["embedding"], model.embedding.weight[batch["ids"]].detach().float())
    assert torch.equal(got["output"], 2 * got["embedding"])
    assert torch.equal(batch["scale"], torch.ones(3, 2))
    assert torch.equal(got["input"], torch.ones(3, 2))  # the first floating point tensor

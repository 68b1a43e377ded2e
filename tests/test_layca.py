import copy

import numpy as np
import pytest
import torch
from torch import nn

from manigeo.errors import UsageError
from manigeo_extract.training.layca import Layca, layer_rates, recorded_rates, replay_rates
from tests.effects import assert_mean, shifted

pytestmark = pytest.mark.training

INNER = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(shifted(seed))
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 6, generator=generator), torch.randint(0, 3, (64,), generator=generator)


def kernels(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.ndim == 2]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    x, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize("inner", INNER)
def test_every_step_turns_by_the_rate_at_the_initial_norm(inner):
    model = network()
    norms = [float(p.detach().double().norm()) for p in kernels(model)]
    optimizer = Layca(model.named_parameters(), INNER[inner](model.parameters()), rho=0.05)
    with recorded_rates(optimizer, kernels(model)) as rates:
        train(model, optimizer, 1000)
    # float32 weights are rounded by 6e-8 of their size
    np.testing.assert_allclose(rates, 0.05, rtol=1e-6)
    for p, norm in zip(kernels(model), norms, strict=True):
        assert float(p.detach().double().norm()) == pytest.approx(norm, rel=1e-6)


def test_it_is_the_papers_algorithm():
    model = network()
    inner = torch.optim.SGD(model.parameters(), lr=0.3)
    optimizer = Layca(model.named_parameters(), inner, rho=0.2)
    w = model[0].weight.detach().double().clone()
    x, y = data()
    nn.functional.cross_entropy(model(x), y).backward()
    s = -0.3 * model[0].weight.grad.double()
    optimizer.step()
    s = s - (s * w).sum() / (w * w).sum() * w
    s = s * w.norm() / s.norm()
    expected = w + 0.2 * s
    expected = expected * w.norm() / expected.norm()
    # the inner step is the difference of float32 weights: 6e-8 of them, against a step of a thousandth
    np.testing.assert_allclose(model[0].weight.detach().double(), expected, atol=2e-5)


def test_other_parameters_follow_the_inner_optimiser_or_stay():
    moved, frozen, plain = network(), network(), network()
    train(moved, Layca(moved.named_parameters(), INNER["sgd"](moved.parameters()), rho=0.05), 1)
    train(frozen, Layca(frozen.named_parameters(), INNER["sgd"](frozen.parameters()), rho=0.05, others="frozen"), 1)
    train(plain, INNER["sgd"](plain.parameters()), 1)
    for name, p in network().named_parameters():
        if p.ndim == 1:
            assert torch.equal(moved.get_parameter(name), plain.get_parameter(name))
            assert torch.equal(frozen.get_parameter(name), p)
    assert not torch.equal(moved[5].bias, frozen[5].bias)


def test_it_learns():
    seeds = range(5)
    assert_mean("share of the loss that goes in 300 steps", [1 - loss_kept(seed) for seed in seeds], seeds)


def loss_kept(seed: int) -> float:
    model = network(seed)
    x, y = data()
    before = nn.functional.cross_entropy(model(x), y).item()
    train(model, Layca(model.named_parameters(), INNER["adam"](model.parameters()), rho=3**-4), 300)
    return nn.functional.cross_entropy(model(x), y).item() / before


def test_a_layer_that_is_not_moved_stays():
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    train(model, Layca(model.named_parameters(), INNER["sgd"](model.parameters()), rho=0.05), 3)
    torch.testing.assert_close(model[0].weight, before, rtol=1e-6, atol=0)


def test_a_stored_state_goes_on_to_the_same_weights(tmp_path):
    whole = network()
    optimizer = Layca(whole.named_parameters(), INNER["momentum"](whole.parameters()), rho=0.05)
    train(whole, optimizer, 5)
    resumed = copy.deepcopy(whole)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    train(whole, optimizer, 5)
    again = Layca(resumed.named_parameters(), INNER["momentum"](resumed.parameters()), rho=1.0)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(resumed, again, 5)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_schedulers_set_the_rates():
    model = network()
    optimizer = Layca(model.named_parameters(), INNER["sgd"](model.parameters()), rho=0.1, a=-0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    with recorded_rates(optimizer, kernels(model)) as rates:
        for _ in range(3):
            train(model, optimizer, 1)
            schedule.step()
    np.testing.assert_allclose(rates, np.outer([1, 0.5, 0.25], layer_rates(0.1, -0.5, 3)), rtol=1e-4)  # float32


def test_recorded_rates_of_another_optimiser_are_replayed():
    plain, copied = network(), network()
    adam = INNER["adam"](plain.parameters())
    with recorded_rates(adam, kernels(plain)) as rates:
        train(plain, adam, 20)
    optimizer = Layca(copied.named_parameters(), INNER["sgd"](copied.parameters()))
    with recorded_rates(optimizer, kernels(copied)) as replayed:
        for of_step in rates:
            replay_rates(optimizer, of_step)
            train(copied, optimizer, 1)
    np.testing.assert_allclose(replayed, rates, rtol=1e-5)  # rates of a thousandth: float32 is that much coarser


@pytest.mark.parametrize(("a", "expected"), [(0, [1, 1, 1]), (1, [0, 0, 1]), (-1, [1, 0, 0])])
def test_rates_of_layers_at_the_ends(a, expected):
    assert layer_rates(1.0, a, 3) == expected


def test_one_layer_turns_by_the_whole_rate():
    assert layer_rates(0.3, 0.7, 1) == pytest.approx([0.3 * 0.3**5])
    assert layer_rates(0.3, -0.7, 1) == [0.3]


def test_what_cannot_turn_is_refused():
    model = network()
    sgd = INNER["sgd"](model.parameters())
    with pytest.raises(UsageError, match="no kernel among"):
        Layca([("bias", nn.Parameter(torch.ones(3)))], sgd)
    with pytest.raises(UsageError, match=r"layers \['head.weight'\] are all zero"):
        Layca([("head.weight", nn.Parameter(torch.zeros(3, 2)))], sgd)
    with pytest.raises(UsageError, match=r"a must lie between -1 .* got 2"):
        Layca(model.named_parameters(), sgd, a=2)
    with pytest.raises(UsageError, match="others must be one of"):
        Layca(model.named_parameters(), sgd, others="all")

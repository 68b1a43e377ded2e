"""Tensors exchanged for a while, bit for bit the same afterwards; and what layers are drawn from."""

import pytest
import torch
from torch import nn

from manigeo.errors import InputError
from manigeo_extract.interventions.editing import Redraw, merged, recalibrated, replaced, taken_from, zeroed
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.models import build_model
from tests.networks import Calls
from tests.trained import digest


def normed(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 8))
    net[4].weight = net[3].weight
    net(torch.randn(50, 20) + 3)  # running statistics that are not the initial ones
    return net


def test_tensors_are_exchanged_inside_the_block_and_the_same_bits_after_it():
    net, other = normed(0), normed(1)
    before = digest(net)
    with replaced(net, other.state_dict()):
        assert digest(net) == digest(other)
    assert digest(net) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_they_are_the_same_bits_after_whatever_happens(error):
    net = normed()
    before = digest(net)
    with pytest.raises(error), replaced(net, normed(1).state_dict()), recalibrated(net, lambda: [torch.zeros(4, 20)]):
        raise error
    assert digest(net) == before


def test_a_shared_tensor_changes_wherever_it_is_used():
    net = normed()
    with replaced(net, {"3.weight": torch.zeros(8, 8)}):
        assert net[4].weight.count_nonzero() == 0
    assert net[4].weight.count_nonzero() > 0


def test_an_exchange_is_seen_by_modules_that_keep_their_weights_elsewhere():
    lstm, x = nn.LSTM(2, 3), torch.ones(1, 1, 2)
    zeros = {name: torch.zeros_like(value) for name, value in lstm.state_dict().items()}
    with replaced(lstm, zeros):
        assert lstm(x)[0].count_nonzero() == 0
    assert lstm(x)[0].count_nonzero() > 0


def test_running_statistics_go_along_unless_parameters_alone_are_wanted():
    net = normed()
    (first, *_) = group_layers(net, torch.zeros(2, 20))
    assert set(taken_from(net.state_dict(), first)) == {*first.parameters, *first.buffers}
    assert set(taken_from(net.state_dict(), first, "params")) == set(first.parameters)
    assert all(value.count_nonzero() == 0 for value in zeroed(net.state_dict(), first).values())


def test_statistics_are_those_of_the_batches_that_recalibrate():
    net, X = normed(), torch.randn(400, 20)
    with recalibrated(net, lambda: X.split(100)), torch.no_grad():
        assert not net[1].training
        h = net[0](X)
        # unbiased variances of four batches, averaged: float32 sums of a hundred
        torch.testing.assert_close(net[1].running_mean, h.mean(0), rtol=1e-5, atol=1e-6)
        expected = torch.stack([part.var(0) for part in h.split(100)]).mean(0)
        torch.testing.assert_close(net[1].running_var, expected, rtol=1e-5, atol=1e-6)
    assert (net[1].momentum, net[1].training) == (0.1, True)


def test_a_layer_is_drawn_from_its_own_initialiser_without_the_global_generator():
    net = build_model("mlp", {"input_shape": (1, 20, 20), "n_classes": 10}, seed=0)
    group = group_layers(net, torch.zeros(2, 1, 20, 20))[1]
    state = torch.get_rng_state()
    redraw = Redraw(net, net.state_dict())
    one, again, other = (redraw.draw(group, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one["h2.linear.weight"], again["h2.linear.weight"])
    assert not torch.equal(one["h2.linear.weight"], other["h2.linear.weight"])
    # He: variance 2 / fan in, known from 512 x 512 weights to sqrt(2 / 512^2) = .3 %; five of these
    assert abs(float(one["h2.linear.weight"].var()) * 512 / 2 - 1) < 0.014
    assert one["h2.linear.bias"].count_nonzero() == 0


def test_drawing_norms_gives_fresh_statistics():
    net = normed()
    (first, *_) = group_layers(net, torch.zeros(2, 20))
    drawn = Redraw(net).draw(first, 0)
    assert drawn["1.running_mean"].count_nonzero() == 0
    assert set(drawn) == {*first.parameters, *first.buffers}


class Own(nn.Module):
    """A layer that nobody can draw again."""

    def __init__(self, spread: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(spread * torch.randn(30, 30))

    def forward(self, x):
        return x @ self.weight


def test_a_layer_without_an_initialiser_is_taken_from_a_network_built_anew():
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(Own(0.1))

    net = build(0)
    (group,) = group_layers(net, torch.zeros(1, 30))
    drawn = Redraw(net, net.state_dict(), build).draw(group, 7)
    assert torch.equal(drawn["0.weight"], build(7)[0].weight)
    with pytest.raises(
        InputError, match=r"layer 0 cannot be drawn again: Own 0 has no reset_parameters\(\); give it one"
    ):
        Redraw(net).draw(group, 7)


def test_a_network_that_starts_in_another_way_than_its_modules_is_built_anew():
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(100, 100))
        nn.init.normal_(net[0].weight, std=0.5)  # torch's own draw has .058
        return net

    net = build(0)
    (group,) = group_layers(net, torch.zeros(1, 100))
    assert torch.equal(Redraw(net, net.state_dict(), build).draw(group, 3)["0.weight"], build(3)[0].weight)
    with pytest.raises(InputError, match=r"reset_parameters\(\) gives 0.weight another spread than its initial"):
        Redraw(net, net.state_dict()).draw(group, 3)


def test_a_builder_that_loads_trained_weights_is_not_taken_for_a_draw():
    net = nn.Sequential(Own())
    (group,) = group_layers(net, torch.zeros(1, 30))
    with pytest.raises(InputError, match="cannot be drawn again"):
        Redraw(net, None, lambda seed: net).draw(group, 0)


def test_attention_is_drawn_again():
    net = Calls(lambda m, x: m.attention(x, x, x)[0], attention=nn.MultiheadAttention(4, 2, batch_first=True))
    groups = group_layers(net, torch.zeros(1, 3, 4))
    drawn = merged([Redraw(net).draw(group, 0) for group in groups])
    assert set(drawn) == set(net.state_dict())
    assert not torch.equal(drawn["attention.in_proj_weight"], net.attention.in_proj_weight)

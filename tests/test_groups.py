"""What of a network is exchanged together."""

import pytest
import torch
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.interventions.groups import group_layers, select_groups
from manigeo_extract.models import build_model
from tests.networks import Calls, n_hooks
from tests.trained import digest

IMAGE = {"input_shape": (3, 16, 16), "n_classes": 4}


def names(groups):
    return [group.name for group in groups]


def resnet():
    return build_model("resnet18", IMAGE | {"width": 2}, seed=0)


def test_a_layer_has_the_normalisation_that_takes_its_output_with_its_buffers():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1))
    first, last = group_layers(net, torch.zeros(2, 3))
    assert first.parameters == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert first.buffers == ("1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert (last.name, last.order, last.parameters, last.buffers) == ("3", 1, ("3.weight", "3.bias"), ())


def test_a_normalisation_of_other_inputs_is_a_layer_of_its_own():
    after_sum = Calls(lambda m, x: m.norm(m.fc(x) + x), fc=nn.Linear(2, 2), norm=nn.LayerNorm(2))
    assert names(group_layers(after_sum, torch.zeros(1, 2))) == ["fc", "norm"]
    next_block = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2)))
    assert names(group_layers(next_block, torch.zeros(1, 2))) == ["0", "1.0", "1.1"]


def test_layers_come_by_execution_and_not_by_declaration():
    model = Calls(lambda m, x: m.a(m.b(x)), a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    assert names(group_layers(model, torch.zeros(1, 2))) == ["b", "a"]


def test_every_parameter_belongs_to_one_group_whatever_the_grouping():
    for arch in ("mlp", "cnn", "vgg11", "resnet18", "densenet"):
        net = build_model(arch, IMAGE | {"input_shape": (3, 32, 32)}, seed=0)
        for by in ("module", "block", "stage"):
            owned = [name for group in group_layers(net, torch.zeros(2, 3, 32, 32), by) for name in group.parameters]
            assert sorted(owned) == sorted(name for name, _ in net.named_parameters()), (arch, by)


def test_kernels_are_the_weights_alone():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    groups = group_layers(net, torch.zeros(2, 3), "kernel")
    assert [(group.parameters, group.buffers) for group in groups] == [(("0.weight",), ()), (("2.weight",), ())]


def test_blocks_and_stages_of_a_residual_network():
    batch = torch.zeros(2, 3, 16, 16)
    blocks = ["stem", *(f"stage{s}.block{b}" for s in (1, 2, 3, 4) for b in (1, 2)), "logits"]
    assert names(group_layers(resnet(), batch, "block")) == blocks
    assert names(group_layers(resnet(), batch, "stage")) == ["stem", "stage1", "stage2", "stage3", "stage4", "logits"]


def test_a_regular_expression_groups_what_it_matches_by_its_match():
    groups = group_layers(resnet(), torch.zeros(2, 3, 16, 16), r"stage\d\.(block\d)")
    assert names(groups) == ["block1", "block2"]
    assert all("stage" in path for group in groups for path in group.modules)


def test_a_tensor_of_two_modules_belongs_to_the_one_that_is_executed_first():
    model = Calls(lambda m, x: m.b(m.a(x)), b=nn.Linear(2, 2, bias=False), a=nn.Linear(2, 2))
    model.b.weight = model.a.weight
    (only,) = group_layers(model, torch.zeros(1, 2))
    assert only.name == "a"
    assert len(only.parameters) == 2


def test_parameters_of_modules_that_are_not_called_are_not_lost():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 4))
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = torch.cat([self.token.expand(len(x), 1, 4), x], 1)
            return self.head(self.attention(x, x, x)[0][:, 0])

    groups = group_layers(Attends(), torch.zeros(2, 3, 4))
    assert names(groups) == ["(network)", "attention", "attention.out_proj", "head"]


def test_the_network_is_left_as_it_was():
    net = resnet().train()
    before = digest(net)
    group_layers(net, torch.randn(2, 3, 16, 16))
    assert digest(net) == before
    assert (n_hooks(net), all(m.training for m in net.modules())) == (0, True)


def test_groups_are_selected_by_name_in_the_order_of_execution():
    groups = group_layers(build_model("mlp", IMAGE, seed=0), torch.zeros(2, 3, 16, 16))
    assert names(select_groups(groups, ["logits", "h2.linear"])) == ["h2.linear", "logits"]
    assert select_groups(groups, []) == groups
    with pytest.raises(UsageError, match=r"no layer 'h2\.linaer'; did you mean 'h2\.linear'"):
        select_groups(groups, ["h2.linaer"])


def test_what_cannot_be_grouped_is_said():
    net = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(UsageError, match=r"'\(' is no grouping \(module, kernel, block, stage\) and no regular"):
        group_layers(net, torch.zeros(1, 3), "(")
    with pytest.raises(UsageError, match="no layer matches the grouping 'modul'; did you mean 'module'"):
        group_layers(net, torch.zeros(1, 3), "modul")
    with pytest.raises(InputError, match="the network has no parameters"):
        group_layers(nn.Sequential(nn.ReLU()), torch.zeros(1, 3))

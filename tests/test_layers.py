import dataclasses

import pytest
import torch
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.models import cnn, mlp, resnet18
from manigeo_extract.recording.layers import first_tensor, list_layers, select_layers, taking_inputs, unwrap
from tests.networks import Calls, n_hooks


def names(layers):
    return [layer.name for layer in layers]


def lookup(layers):
    return {layer.name: layer for layer in layers}


def test_layers_come_in_the_order_of_execution_and_not_of_declaration():
    model = Calls(lambda m, x: m.a(m.b(x)), a=nn.Linear(2, 2), b=nn.Linear(2, 2))
    layers = list_layers(model, torch.zeros(1, 2))
    assert names(layers) == ["input", "b", "a"]
    assert [layer.order for layer in layers] == [0, 1, 2]


def test_a_container_follows_its_children():
    model = mlp(input_shape=(1, 2, 2), n_classes=3, depth=1, width=5)
    layers = list_layers(model, torch.zeros(2, 1, 2, 2))
    assert names(layers) == ["input", "flatten", "h1.linear", "h1.relu", "h1", "logits"]
    h1 = lookup(layers)["h1"]
    assert (h1.leaf, h1.parameters, h1.module_class, h1.feature_shape) == (False, 0, "Sequential", (5,))
    linear = lookup(layers)["h1.linear"]
    assert (linear.leaf, linear.parameters, linear.module_class) == (True, 4 * 5 + 5, "Linear")


def test_the_input_is_the_batch_itself_and_shapes_leave_the_batch_out():
    layers = list_layers(cnn(input_shape=(1, 8, 8), n_classes=4, width=2), torch.zeros(3, 1, 8, 8))
    first, conv = layers[0], layers[1]
    assert (first.name, first.module_class, first.feature_shape, first.n_features) == ("input", "Input", (1, 8, 8), 64)
    assert (conv.name, conv.feature_shape, conv.n_features) == ("conv1.conv", (2, 8, 8), 128)


def test_a_module_called_again_is_a_layer_of_its_own():
    model = Calls(lambda m, x: m.relu(m.fc(m.relu(m.fc(x)))), fc=nn.Linear(2, 2), relu=nn.ReLU())
    layers = list_layers(model, torch.zeros(1, 2))
    assert names(layers) == ["input", "fc", "relu", "fc#1", "relu#1"]
    assert [layer.call_index for layer in layers] == [0, 0, 0, 1, 1]


def test_one_module_under_two_names_is_one_layer_with_an_alias():
    shared = nn.Sequential(nn.Linear(2, 2))
    layers = list_layers(Calls(lambda m, x: m.a(m.b(x)), a=shared, b=shared), torch.zeros(1, 2))
    assert names(layers) == ["input", "a.0", "a", "a.0#1", "a#1"]
    assert lookup(layers)["a.0"].aliases == ("b.0",)
    assert lookup(layers)["a.0#1"].aliases == ("b.0#1", "output")
    assert names(select_layers(layers, ["b.0*"])) == ["a.0", "a.0#1"]


def test_the_leaf_that_makes_the_output_has_its_alias():
    layers = list_layers(mlp(input_shape=(1, 2, 2), n_classes=3, depth=1, width=5), torch.zeros(2, 1, 2, 2))
    assert [layer.name for layer in layers if "output" in layer.names] == ["logits"]
    nested = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    assert [layer.name for layer in list_layers(nested, torch.zeros(1, 2)) if "output" in layer.names] == ["0.0"]


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.fc(x) + 1,
        lambda m, x: m.fc(x).relu_(),
        lambda m, x: m.fc(x).T.clone().T,
        lambda m, x: m.fc(x)[:, :1],
    ],
)
def test_an_output_that_no_module_made_is_a_layer_of_its_own(run):
    model = Calls(run, fc=nn.Linear(2, 2))
    nn.init.ones_(model.get_parameter("fc.bias"))  # the in-place ReLU changes nothing on this batch
    last = list_layers(model, torch.zeros(1, 2))[-1]
    assert (last.name, last.module_class, last.aliases, last.parameters) == ("output", "Calls", (), 0)


def test_a_network_without_children_is_its_output():
    layers = list_layers(nn.Linear(2, 3), torch.zeros(1, 2))
    assert [(layer.name, layer.module_class, layer.parameters) for layer in layers[1:]] == [("output", "Linear", 9)]


def test_modules_named_input_and_output_keep_their_names():
    model = Calls(lambda m, x: m.output(m.input(x)) * 2, input=nn.Linear(2, 2), output=nn.Linear(2, 2))
    layers = list_layers(model, torch.zeros(1, 2))
    assert names(layers) == ["model.input", "input", "output", "model.output"]
    assert names(select_layers(layers)) == names(layers)


@dataclasses.dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


@pytest.mark.parametrize(
    "output",
    [
        lambda x: (x,),
        lambda x: [None, x, x + 1],
        lambda x: {"ids": torch.zeros(4, dtype=torch.int64), "hidden": (x, x)},
        lambda x: Output(None, x),
        lambda x: (x.sum(), x),
    ],
)
def test_the_first_floating_tensor_with_a_batch_dimension_counts(output):
    x = torch.zeros(4, 2)
    assert first_tensor(output(x)) is x


@pytest.mark.parametrize("output", [None, 3, "x", (), torch.zeros(2, dtype=torch.int64), torch.tensor(1.0)])
def test_what_holds_no_such_tensor_is_not_listed(output):
    assert first_tensor(output) is None
    model = Calls(lambda m, x: (m.odd(x), m.fc(x))[1], odd=Calls(lambda m, x: output), fc=nn.Linear(2, 2))
    assert names(list_layers(model, torch.zeros(2, 2))) == ["input", "fc"]


def test_listing_leaves_flags_buffers_and_the_batch_as_they_were():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 2)).train()
    model[2].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    batch = -torch.ones(3, 2)
    list_layers(model, batch)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert n_hooks(model) == 0
    assert torch.equal(batch, -torch.ones(3, 2))


def test_an_exception_in_the_forward_pass_leaves_no_hooks_and_restores_the_flags():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list_layers(model, torch.zeros(1, 2))
    assert n_hooks(model) == 0
    assert all(module.training for module in model.modules())


def test_layers_can_be_listed_inside_inference_mode_and_in_half_precision():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).to(torch.bfloat16)
    with torch.inference_mode():
        layers = list_layers(model, torch.zeros(1, 2))
    assert names(layers) == ["input", "0", "1"]


def test_wrappers_are_taken_off():
    model = nn.Sequential(nn.Linear(2, 2))
    compiled = torch.compile(nn.DataParallel(model), backend="eager")
    assert unwrap(nn.DataParallel(compiled)) is model
    assert list_layers(compiled, torch.zeros(1, 2)) == list_layers(model, torch.zeros(1, 2))


def test_hooks_are_heard_in_a_network_that_was_compiled_in_place_and_has_run():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    expected = names(list_layers(model, torch.zeros(1, 2)))
    model[1].compile(backend="eager")
    model(torch.zeros(1, 2))
    assert names(list_layers(model, torch.zeros(1, 2))) == expected


def test_without_patterns_input_output_and_leaves_with_parameters_are_selected():
    model = resnet18(input_shape=(1, 8, 8), n_classes=3, width=1)
    selected = select_layers(list_layers(model, torch.zeros(1, 1, 8, 8)))
    assert names(selected)[:4] == ["input", "stem.conv", "stem.norm", "stage1.block1.conv1"]
    assert names(selected)[-1] == "logits"
    assert len(selected) == 1 + 2 + 8 * 4 + 3 * 2 + 1  # input, stem, blocks, projections, read-out
    no_module = Calls(lambda m, x: m.fc(x) + 1, fc=nn.Linear(2, 2))
    assert names(select_layers(list_layers(no_module, torch.zeros(1, 2)))) == ["input", "fc", "output"]


def test_patterns_select_in_the_order_of_execution_and_number_anew():
    model = mlp(input_shape=(1, 2, 2), n_classes=3, depth=3, width=5)
    layers = list_layers(model, torch.zeros(1, 1, 2, 2))
    selected = select_layers(layers, ["output", "h?", "input"], exclude=["h2"])
    assert [(layer.name, layer.order) for layer in selected] == [("input", 0), ("h1", 1), ("h3", 2), ("logits", 3)]


def test_a_pattern_that_matches_nothing_names_near_layers():
    layers = list_layers(mlp(input_shape=(1, 2, 2), n_classes=3, depth=2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(UsageError, match=r"no layer matches 'h1\.linaer'; did you mean 'h1\.linear'"):
        select_layers(layers, ["h1", "h1.linaer"])
    with pytest.raises(UsageError, match=r"no layer matches 'logit'; did you mean 'logits'"):
        select_layers(layers, exclude=["logit"])
    with pytest.raises(UsageError, match=r"no layer is left: \['h\*'\] excludes all 1 selected"):
        select_layers(layers, ["h1"], exclude=["h*"])


def test_regular_expressions_match_whole_names_and_add_to_globs():
    layers = list_layers(mlp(input_shape=(1, 2, 2), n_classes=3, depth=3, width=5), torch.zeros(1, 1, 2, 2))
    assert names(select_layers(layers, regex=["h[13]"])) == ["h1", "h3"]
    assert names(select_layers(layers, ["input"], regex=[r"h2\..*"])) == ["input", "h2.linear", "h2.relu"]
    with pytest.raises(UsageError, match=r"no layer matches 'h\[0-9\]\.linaer'"):
        select_layers(layers, regex=["h[0-9].linaer"])
    with pytest.raises(UsageError, match=r"'h\(1' is no regular expression: .*unterminated"):
        select_layers(layers, regex=["h(1"])


def test_types_select_by_class_and_within_names():
    layers = list_layers(resnet18(input_shape=(1, 8, 8), n_classes=3, width=1), torch.zeros(1, 1, 8, 8))
    everywhere = select_layers(layers, types=["Conv2d", "*Norm*"])
    assert {layer.module_class for layer in everywhere} == {"Conv2d", "BatchNorm2d"}
    assert names(select_layers(layers, ["stage1.block1.*"], types=["Conv2d"])) == [
        "stage1.block1.conv1",
        "stage1.block1.conv2",
    ]
    assert names(select_layers(layers, types=["Linear"])) == ["logits"]
    with pytest.raises(UsageError, match="no type matches 'Conv2D'; did you mean 'Conv2d'"):
        select_layers(layers, types=["Conv2D"])
    with pytest.raises(UsageError, match=r"no layer named by \['logits'\] has a type of \['Conv2d'\]"):
        select_layers(layers, ["logits"], types=["Conv2d"])


def test_every_layer_knows_how_often_its_module_is_called():
    model = Calls(lambda m, x: m.out(m.relu(m.fc(m.relu(x)))), fc=nn.Linear(2, 2), relu=nn.ReLU(), out=nn.Linear(2, 1))
    calls = {layer.name: layer.calls for layer in list_layers(model, torch.zeros(1, 2))}
    assert calls == {"input": 1, "relu": 2, "fc": 1, "relu#1": 2, "out": 1}


class Positions(nn.Module):
    """Embeddings of tokens and of positions, one row for all examples, as in BERT."""

    def __init__(self):
        super().__init__()
        self.words, self.positions, self.head = nn.Embedding(9, 4), nn.Embedding(8, 4), nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask=None):
        return self.head(self.words(input_ids) + self.positions(torch.arange(input_ids.shape[1])[None])).mean(1)


def test_a_layer_without_a_row_for_each_example_is_taken_by_its_very_name_alone():
    layers = list_layers(Positions(), {"input_ids": torch.ones(2, 5, dtype=torch.int64)})
    assert {layer.name: layer.batched for layer in layers} == {
        "words": True, "positions": False, "head": True, "output": True
    }  # fmt: skip
    assert names(select_layers(layers)) == ["words", "head", "output"]
    assert names(select_layers(layers, ["*o*"])) == ["words", "output"]
    assert names(select_layers(layers, types=["Embedding"])) == ["words"]
    assert names(select_layers(layers, ["positions"])) == ["positions"]


def test_tensors_by_name_go_where_forward_names_them_else_together():
    ids = {"input_ids": torch.ones(2, 5, dtype=torch.int64), "attention_mask": torch.ones(2, 5)}
    by_name = list_layers(Positions(), ids)
    together = list_layers(Calls(lambda m, batch: m.net(**batch), net=Positions()), ids)
    assert [f"net.{name}" for name in names(by_name)[:3]] == names(together)[:3]
    floats = {"x": torch.zeros(2, 3), "y": torch.zeros(2, 4)}
    first = list_layers(Calls(lambda m, batch: m.fc(batch["x"]), fc=nn.Linear(3, 2)), floats)[0]
    assert (first.name, first.feature_shape) == ("input", (3,))


def test_a_network_that_does_not_take_named_inputs_is_said_to_be_so():
    batch = {"input_ids": torch.ones(2, 5, dtype=torch.int64), "attention_mask": torch.ones(2, 5)}
    with (
        pytest.raises(InputError, match="does not take inputs of input_ids 5, attention_mask 5 from reviews"),
        taking_inputs(batch, "reviews"),
    ):
        list_layers(nn.Linear(5, 2), batch)

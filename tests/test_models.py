import importlib
import itertools
import math
import pkgutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import manigeo_extract
from manigeo.errors import UsageError
from manigeo_extract.models import IMAGE_MODELS, bare_model, build_model, cnn, densenet, mlp, resnet18, vgg11, vgg16
from manigeo_extract.resolve import resolve_object

pytestmark = pytest.mark.installed

CIFAR = {"input_shape": (3, 32, 32), "n_classes": 10}


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv(channels_in, channels, kernel=3, bias=False):
    return channels_in * channels * kernel**2 + bias * channels


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("shape", [[1, 8, 8], [1, 20, 20], [1, 28, 28], [3, 32, 32]])
def test_every_model_maps_every_small_image_to_one_logit_a_class(name, shape):
    small = {"width": 4} if name not in ("densenet", "mlp") else {"depth": 10}
    model = build_model(name, {"input_shape": shape, "n_classes": 7, **small}).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 7)
    assert list(model._modules)[-1] == "logits"


def test_mlp_has_the_parameters_of_its_matrices():
    sizes = [64, 9, 9, 9, 10]
    expected = sum(a * b + b for a, b in itertools.pairwise(sizes))
    shape = {"input_shape": (1, 8, 8), "n_classes": 10, "depth": 3, "width": 9}
    assert n_parameters(mlp(**shape)) == expected
    assert n_parameters(mlp(**shape, batch_norm=True)) == expected + 3 * 2 * 9
    assert n_parameters(mlp(**{**shape, "depth": 0})) == 64 * 10 + 10


def test_cnn_has_the_parameters_of_its_convolutions_and_read_out():
    expected = conv(1, 5, bias=True) + conv(5, 10, bias=True) + 10 * 5 * 5 * 3 + 3
    assert n_parameters(cnn(input_shape=(1, 20, 20), n_classes=3, width=5, blocks=2)) == expected


@pytest.mark.parametrize(
    ("model", "channels", "known"),
    [
        (vgg11, [64, 128, 256, 256, 512, 512, 512, 512], 9_231_114),
        (vgg16, [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512], 14_728_266),
    ],
)
def test_vgg_has_the_parameters_of_the_papers_columns_a_and_d_with_norms(model, channels, known):
    steps = zip([3, *channels], channels, strict=False)
    formula = sum(conv(a, b, bias=True) + 2 * b for a, b in steps) + 512 * 10 + 10
    assert n_parameters(model(**CIFAR)) == formula == known


def test_resnet18_has_the_parameters_of_its_blocks():
    blocks = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    formula = conv(3, 64) + 2 * 64 + 512 * 10 + 10
    formula += sum(conv(a, b) + conv(b, b) + 4 * b + (conv(a, b, 1) + 2 * b if a != b else 0) for a, b in blocks)
    assert n_parameters(resnet18(**CIFAR)) == formula == 11_173_962


def test_densenet_bc_40_12_has_the_parameters_of_its_dense_layers():
    channels, formula = 24, conv(3, 24)
    for block in range(3):
        for _ in range(6):
            formula += 2 * channels + conv(channels, 48, 1) + 2 * 48 + conv(48, 12)
            channels += 12
        if block < 2:
            formula += 2 * channels + conv(channels, channels // 2, 1)
            channels //= 2
    formula += 2 * channels + channels * 10 + 10
    assert n_parameters(densenet(**CIFAR)) == formula == 176_122


def test_the_parameters_of_resnet_grow_as_the_square_of_its_width():
    sizes = [n_parameters(resnet18(**CIFAR, width=width)) for width in (1, 16, 32)]
    assert sizes[0] < 4000
    assert sizes[2] / sizes[1] == pytest.approx(4, rel=0.05)  # norms, stem and read-out grow linearly


def test_hidden_weights_have_the_variance_of_he_and_keep_the_scale_of_the_signal():
    torch.manual_seed(0)
    model = mlp(input_shape=(1, 20, 20), n_classes=10, depth=3, width=1000)
    weight = model.get_parameter("h2.linear.weight")
    assert weight.var().item() == pytest.approx(2 / 1000, rel=5 * math.sqrt(2 / weight.numel()))
    assert not model.get_parameter("h2.linear.bias").any()
    x = torch.randn(50, 400)
    ratio = model[:3](x.view(50, 1, 20, 20)).square().mean() / model[:2](x.view(50, 1, 20, 20)).square().mean()
    assert ratio.item() == pytest.approx(1, abs=0.2)  # correlated rows: looser than 1 / sqrt(1000)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_a_seed_fixes_the_weights_and_resetting_a_layer_keeps_its_distribution(name):
    args = {"input_shape": (1, 8, 8), "n_classes": 3}
    torch.manual_seed(3)
    first = build_model(name, args)
    torch.manual_seed(3)
    second = build_model(name, args)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weighty = [m for m in first.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and m.weight.numel() > 2000]
    before = [m.weight.std().item() for m in weighty]
    for module in weighty:
        module.reset_parameters()
    assert [m.weight.std().item() for m in weighty] == pytest.approx(before, rel=0.15)  # 5 / sqrt(2 * 2000) each way


def test_dropout_and_norm_are_there_only_when_asked_for():
    kinds = {type(m).__name__ for m in mlp(**CIFAR, depth=1, width=4).modules()}
    asked = {type(m).__name__ for m in mlp(**CIFAR, depth=1, width=4, batch_norm=True, dropout=0.5).modules()}
    assert asked - kinds == {"BatchNorm1d", "Dropout"}


def test_an_unknown_model_names_near_ones():
    with pytest.raises(UsageError, match=r"unknown model 'resnet8'; did you mean 'resnet18' or"):
        build_model("resnet8", CIFAR)


def test_an_unknown_option_names_the_options():
    with pytest.raises(UsageError, match=r"unexpected keyword argument 'hight'; it takes input_shape, .*width=512"):
        build_model("mlp", {**CIFAR, "hight": 3})


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("resnet18", {"width": 0}, "width must be at least 1, got 0"),
        ("densenet", {"depth": 41}, r"depth must be 6 k \+ 4"),
        ("mlp", {"dropout": 2.0}, "dropout probability"),
        ("mlp", {"depth": -1}, "depth must be at least 0, got -1"),
        ("resnet18", {"batch_norm": "no"}, "batch_norm must be true or false, got 'no'"),
        ("mlp", {"batch_norm": 0}, "batch_norm must be true or false, got 0"),
        ("cnn", {"input_shape": [8, 8]}, "not enough values to unpack"),
    ],
)
def test_an_impossible_option_is_a_usage_error(name, option, message):
    with pytest.raises(UsageError, match=rf"cannot build {name}\(.*{message}"):
        build_model(name, {**CIFAR, **option})


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "own_models.py"
    path.write_text(
        "import dataclasses\nimport torch\n"
        "@dataclasses.dataclass\nclass Options:\n    size: 'int' = 2\n"
        "def net(size=2):\n    return torch.nn.Linear(size, 1)\n"
        "def number():\n    return 3\n"
        "def failing(size=2):\n    raise OSError('no weights here')\n"
        "ready = torch.nn.ReLU()\n"
    )
    return path


def test_an_own_factory_is_found_in_a_module_or_a_file_and_gets_only_the_arguments(own_file, monkeypatch):
    monkeypatch.syspath_prepend(str(own_file.parent))
    for place in ("own_models", own_file):
        model = build_model(f"{place}:net", {"size": 5})
        assert isinstance(model, nn.Linear)
        assert model.in_features == 5
    sys.modules.pop("own_models")


def test_what_an_own_factory_must_be_is_said(own_file):
    with pytest.raises(UsageError, match=r"must return a torch\.nn\.Module, got int"):
        build_model(f"{own_file}:number", {})
    with pytest.raises(UsageError, match=r"must be a function or class that returns .*, got ReLU"):
        build_model(f"{own_file}:ready", {})
    with pytest.raises(UsageError, match="unexpected keyword argument 'depth'; it takes size=2"):
        build_model(f"{own_file}:net", {"depth": 5})


@pytest.mark.parametrize(
    ("name", "args", "error"),
    [
        ("failing", {}, "OSError: no weights here"),
        ("net", {"size": -1}, "RuntimeError: "),
        ("net", {"size": "2"}, "TypeError: "),
    ],
)
def test_whatever_an_own_factory_raises_is_a_usage_error(own_file, name, args, error):
    with pytest.raises(UsageError, match=rf"model '.*own_models\.py:{name}' cannot be built: {error}"):
        build_model(f"{own_file}:{name}", args)


def test_a_factory_without_a_signature_is_a_usage_error():
    with pytest.raises(UsageError, match="model 'builtins:max' cannot be built: ValueError: no signature"):
        build_model("builtins:max", {})


def test_no_function_bears_its_modules_name():
    found = [module.name for module in pkgutil.walk_packages(manigeo_extract.__path__, "manigeo_extract.")]
    assert {"manigeo_extract.recording.hooks", "manigeo_extract.models.dense"} <= set(found)
    for name in found:
        assert not hasattr(importlib.import_module(name), name.rpartition(".")[2]), name


def test_a_missing_module_file_or_attribute_is_a_usage_error(own_file, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_library\n")
    for spec, message in [
        ("no_such_package.models:net", "cannot import 'no_such_package.models'.*No module named 'no_such_package'"),
        (f"{tmp_path}/nothing.py:net", "no file .*nothing.py"),
        (f"{own_file}:nett", r"has no 'nett'; did you mean 'net'\?"),
        (f"{broken}:net", "cannot import .*broken.py.*No module named 'no_such_library'"),
        ("torch.nn", "expected 'package.module:name'"),
        (":net", "expected 'package.module:name'"),
    ]:
        with pytest.raises(UsageError, match=message):
            resolve_object(spec)


def test_a_users_file_hides_no_module_of_the_same_name(tmp_path):
    (tmp_path / "colorsys.py").write_text("mine = 1\n")
    assert resolve_object(f"{tmp_path}/colorsys.py:mine") == 1
    assert hasattr(__import__("colorsys"), "rgb_to_hsv")


@pytest.mark.parametrize("arch", sorted(set(IMAGE_MODELS) - {"vit"}))
def test_batch_norm_is_there_if_and_only_if_it_is_asked_for(arch):
    for wanted in (True, False):
        model = build_model(arch, {"input_shape": (3, 16, 16), "n_classes": 4, "batch_norm": wanted})
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        assert bool(norms) == wanted
        assert torch.isfinite(model(torch.randn(2, 3, 16, 16))).all()


def test_a_seed_sets_the_weights_and_leaves_the_global_generator_alone():
    args = {"input_shape": (1, 4, 4), "n_classes": 3, "depth": 1, "width": 5}
    torch.manual_seed(1)
    expected_next = torch.rand(1)
    torch.manual_seed(1)
    first, second, other = (build_model("mlp", args, seed=seed).logits.weight for seed in (7, 7, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(1), expected_next)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_a_network_without_memory_has_the_shapes_of_the_network(name):
    args = {"input_shape": (1, 16, 16), "n_classes": 3}
    bare, built = bare_model(name, args), build_model(name, args)
    assert all(tensor.is_meta for tensor in bare.state_dict().values())
    shapes = [{n: (t.shape, t.dtype) for n, t in net.state_dict().items()} for net in (bare, built)]
    assert shapes[0] == shapes[1]
    assert bare_model("math:sqrt", {}) is None  # the user's own code is run once

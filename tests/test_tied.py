"""Example-tied dropout: which channels are on for whom, in training, evaluation and without them."""

import numpy as np
import pytest
import torch

from manigeo.errors import UsageError
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.models import IMAGE_MODELS, build_model
from manigeo_extract.models.tied import TiedDropout, example_channels, is_tied, tied_sizes, tied_to, without_tied
from manigeo_extract.training.evaluation import evaluate
from manigeo_extract.training.trainer import TrainingPlan, train

OF = {"input_shape": (1, 8, 8), "n_classes": 10}
SMALL = {"densenet": {"depth": 10, "growth": 4}, "vgg11": {"width": 8}, "vgg16": {"width": 8}, "resnet18": {"width": 8}}


def test_channels_follow_from_seed_and_example_alone():
    examples = np.array([5, 0, 123456, 5])
    on = example_channels(examples, n=40, n_gen=8, k=3, seed=1)
    assert on[:, :8].all()
    assert (on[:, 8:].sum(axis=1) == 3).all()
    assert (on == example_channels(examples[::-1], 40, 8, 3, seed=1)[::-1]).all()
    assert (on != example_channels(examples, 40, 8, 3, seed=2)).any()


def test_every_tied_channel_belongs_to_the_same_share_of_examples():
    on = example_channels(np.arange(20_000), n=50, n_gen=10, k=4, seed=0)
    shares = on[:, 10:].mean(axis=0)
    assert abs(shares - 0.1).max() < 4.5 * np.sqrt(0.1 * 0.9 / 20_000)  # the largest of 40 binomial errors


def test_an_example_has_its_own_channels_unless_tied_ones_are_dropped():
    layer, x = TiedDropout(0.25, 0.5), torch.ones(2, 8)
    n_gen, k = tied_sizes(8, 0.25, 0.5)
    assert (n_gen, k) == (2, 3)
    with tied_to(layer, np.array([3, 4])):
        assert torch.equal(layer(x).bool(), torch.as_tensor(example_channels(np.array([3, 4]), 8, 2, 3, 0)))
        with without_tied(layer):
            assert layer(x)[0].tolist() == [2.5, 2.5, 0, 0, 0, 0, 0, 0]
    assert layer(x)[0].tolist() == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 8, 3, 3)])
def test_features_tokens_and_maps_are_masked_by_channel(shape):
    layer, axis = TiedDropout(0.25, 0.5), 2 if len(shape) == 3 else 1
    with tied_to(layer, np.array([3, 4])):
        on = (
            layer(torch.ones(shape)).movedim(axis, 1).flatten(2)
            if len(shape) > 2
            else layer(torch.ones(shape))[..., None]
        )
    wanted = torch.as_tensor(example_channels(np.array([3, 4]), 8, 2, 3, 0))
    assert torch.equal(on.bool(), wanted[:, :, None].expand_as(on))


@pytest.mark.parametrize("arch", IMAGE_MODELS)
def test_tensors_keep_names_and_values_and_the_read_out_is_not_tied(arch):
    args = OF | SMALL.get(arch, {})
    plain = build_model(arch, args, seed=3)
    tied = build_model(arch, args | {"tied_dropout": [0.2, 0.1]}, seed=3)
    assert is_tied(tied)
    assert not is_tied(plain)
    assert list(plain.state_dict()) == list(tied.state_dict())
    assert all(torch.equal(one, tied.state_dict()[name]) for name, one in plain.state_dict().items())
    assert not isinstance(list(tied.children())[-1], TiedDropout)
    with tied_to(tied, np.array([1, 2])):
        tied(torch.randn(2, 1, 8, 8)).sum().backward()


def test_without_tied_channels_memorized_labels_are_gone_and_test_accuracy_kept(tmp_path):
    data = load_data("digits", {"per_class": 60})
    examples = permute_labels(data, Permutation(0.1, "derangement"))
    net = build_model("mlp", OF | {"depth": 2, "width": 200, "tied_dropout": [0.2, 0.1]}, seed=0)
    plan = TrainingPlan(epochs=15, lr=0.1)
    scores = train(net, data, examples, plan, tmp_path / "run", progress=lambda *_: None)
    with without_tied(net):
        dropped = evaluate(net, data, examples)
    assert scores["permuted"]["accuracy"] >= 0.75
    assert dropped["permuted"]["accuracy"] <= 0.1
    assert (
        dropped["test"]["accuracy"] > scores["test"]["accuracy"] - 0.08
    )  # two standard errors of a hundred test examples


@pytest.mark.parametrize("shares", [[0.2], 0.2, [0.0, 0.1], [0.2, 1.5]])
def test_shares_that_are_none_are_refused_in_one_line(shares):
    with pytest.raises(UsageError, match=r"^cannot build mlp\(.*share"):
        build_model("mlp", OF | {"tied_dropout": shares})

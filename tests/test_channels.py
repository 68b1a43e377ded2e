"""Channels of networks, and the fewest that flip an example: closed forms, and the slow version."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from manigeo.errors import InputError, UsageError
from manigeo.per_example.summary import summarize
from manigeo.per_example.table import join_examples, read_examples
from manigeo.plots import figures_of, plot_channels
from manigeo.plots.examples import plot_examples
from manigeo.results import read_results
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.interventions.channels import Masked, channel_scores, find_channels
from manigeo_extract.interventions.editing import replaced
from manigeo_extract.interventions.flip_tables import ChannelStudy, flip_rows
from manigeo_extract.interventions.flipping import Flip, FlipPlan, fewest_channels, flip_example
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.models import build_model
from manigeo_extract.opening.requests import ChannelsRequest, RunRequest
from manigeo_extract.opening.studies import open_channels
from manigeo_extract.training.recorder import Recorder
from tests.command_line import done, run
from tests.networks import Calls
from tests.trained import digest


def masked_of(net, batch):
    return Masked(net.eval(), find_channels(net, group_layers(net, batch)))


# ------------------------------------------------------------------------------------------------------- networks by hand
def three_units():
    """Hidden unit j sees feature j alone; the first two vote for class 0, the third for class 1."""
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3))
        net[2].weight.copy_(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    return net


def test_the_score_of_a_unit_is_its_share_of_the_slope_by_hand():
    net, x = three_units(), torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    masked = masked_of(net, x)
    masks = [mask.requires_grad_() for mask in masked.masks()]
    losses = F.cross_entropy(masked.logits(x, masks), torch.tensor([0, 0]), reduction="none")
    scores = channel_scores(losses[1:].mean() - losses[0], masks)
    # of an example with logits (a, b) and label 0: d loss / d a = -q, d b = q, q = 1 / (1 + exp(a - b))
    own, other = 1 / (1 + np.exp(3.0)), 1 / (1 + np.exp(2.0))
    expected = [2 * own, 1 * own - 3 * other, other * 1]
    assert np.allclose(scores, expected, rtol=1e-5, atol=0)  # float32


def test_units_are_removed_until_the_answer_flips_and_those_others_need_are_spared():
    # the first example has logits 4 to 3.5 from unit 0, which the other does not use
    net, x = three_units(), torch.tensor([[4.0, 0.0, 3.5], [0.0, 3.0, 1.0]])
    removed, flipped, changed = fewest_channels(masked_of(net, x), x, torch.tensor([0, 0]), most=3)
    assert (removed, flipped, changed) == ([(0, 0)], True, 0.0)


def test_an_example_that_needs_two_units_takes_two():
    net, x = three_units(), torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    flip = flip_example(masked_of(net, x), x, torch.tensor([0, 1]), FlipPlan(controls=20), 0)
    assert flip.removed == ((0, 0), (0, 1))
    assert flip.flipped
    assert 0 < flip.control < 1  # one of the three pairs flips it


def test_an_example_that_keeps_its_answer_is_censored_at_the_most():
    net, x = three_units(), torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    flip = flip_example(masked_of(net, x), x, torch.tensor([0, 1]), FlipPlan(max_channels=1), 0)
    assert len(flip.removed) == 1
    assert not flip.flipped


# ----------------------------------------------------------------------------------------------- any module, the slow way
def _attention(self, x):
    tokens = x.flatten(2).transpose(1, 2)
    return self.read(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(dim=1))


def _transposed():
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 7 * 7, 3),
    )  # fmt: skip


NETWORKS = {
    "mlp": lambda: build_model("mlp", {"input_shape": (4, 8, 8), "n_classes": 3, "depth": 2, "width": 5}, seed=0),
    "cnn": lambda: build_model("cnn", {"input_shape": (4, 8, 8), "n_classes": 3, "width": 3, "batch_norm": True}, seed=0),
    "vit": lambda: build_model("vit", {"input_shape": (4, 8, 8), "n_classes": 3, "depth": 1, "width": 8}, seed=0),
    "transposed and grouped": _transposed,
    "attention of torch": lambda: Calls(
        _attention, attention=nn.MultiheadAttention(4, 2, batch_first=True), read=nn.Linear(4, 3)
    ),
}  # fmt: skip
SORTS = {
    "mlp": ["unit", "unit"],
    "cnn": ["channel"] * 3,
    "vit": ["unit", "head", "unit", "unit", "unit"],
    "transposed and grouped": ["channel", "channel"],
    "attention of torch": ["head", "unit"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_sums_of_weight_times_slope_and_masks_are_zeroed_weights(name):
    torch.manual_seed(0)
    net, x, y = NETWORKS[name]().eval(), torch.randn(3, 4, 8, 8), torch.tensor([0, 1, 2])
    before, masked = digest(net), masked_of(net, x)
    assert [of.sort for of in masked.channels] == SORTS[name]
    masks = [mask.requires_grad_() for mask in masked.masks()]
    scores = channel_scores(F.cross_entropy(masked.logits(x, masks), y), masks).split([of.n for of in masked.channels])
    F.cross_entropy(net(x), y).backward()
    for module, (of, score) in enumerate(zip(masked.channels, scores, strict=True)):
        slow = torch.zeros(of.n)
        for tensor, numbers in of.of.items():
            w = net.get_parameter(tensor)
            slow.index_add_(0, numbers.expand_as(w).flatten(), (w * w.grad).detach().flatten())
        assert torch.allclose(score, slow, rtol=1e-4, atol=1e-6)  # float32 sums in two orders
        channel = of.n - 1
        zeros = {t: torch.where(numbers == channel, 0.0, net.get_parameter(t).detach()) for t, numbers in of.of.items()}
        with torch.no_grad(), replaced(net, zeros):
            wanted = net(x)
        # equal numbers at other addresses: on some processors products add them up in another order
        torch.testing.assert_close(masked.logits(x, masked.masks([(module, channel)])), wanted, rtol=1e-5, atol=1e-6)
    assert digest(net) == before


def test_a_head_without_its_weights_adds_nothing_to_what_attention_returns():
    attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    net = Calls(_attention, attention=attention, read=nn.Linear(4, 3)).eval()
    x = torch.randn(2, 4, 2, 2)
    masked = masked_of(net, x)
    both = masked.logits(x, masked.masks([(0, 0), (0, 1)]))
    only_biases = net.read(attention.out_proj.bias.detach().expand(2, 4))
    assert torch.allclose(both, only_biases, atol=1e-6)  # float32


def test_a_network_with_a_read_out_alone_has_no_channels():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="no channels that could be removed"):
        find_channels(net, group_layers(net, torch.zeros(1, 4)))


# ------------------------------------------------------------------------------------------------------------- the tables
def test_shares_are_means_over_examples_and_a_censored_mean_is_flagged():
    net = build_model("mlp", {"input_shape": (4,), "n_classes": 2, "depth": 2, "width": 6}, seed=0)
    channels = find_channels(net, group_layers(net, torch.zeros(1, 4)))
    flips = [Flip(((0, 1),), True, 0.0, 0.0), Flip(((0, 1), (1, 2), (1, 3), (1, 4)), False, 0.1, 0.4)]
    rows = pd.DataFrame(flip_rows(flips, channels)).set_index(["layer", "metric"])
    assert rows.loc[("(all)", "channels_to_flip"), ["value", "flag"]].tolist() == [2.5, "censored:1 of 2"]
    assert rows.loc[("(all)", "channels_to_flip_median"), "value"] == 2.5
    assert rows.loc[("(all)", "flipped"), "value"] == 0.5
    assert rows.loc[("h1.linear", "channel_share"), "value"] == (1 + 0.25) / 2
    assert rows.loc[("h2.linear", "channel_share"), "value"] == (0 + 0.75) / 2
    assert rows.loc[("h2.linear", "channel_share_chance"), "value"] == 0.5


# ------------------------------------------------------------------------------------------------------------ the command
ARGS = {"input_shape": [1, 8, 8], "n_classes": 10, "depth": 2, "width": 48}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A few digits learned by heart in 80 steps, half of them with permuted labels; epoch 1 is the untrained network."""
    folder = tmp_path_factory.mktemp("runs") / "planted"
    data, permutation = load_data("digits", {"per_class": 12}), Permutation(0.5)
    examples, net = permute_labels(data, permutation), build_model("mlp", ARGS, seed=0)
    recorder = Recorder(
        folder, arch="mlp", arch_args=ARGS, data=data.spec, data_args=data.args, data_fingerprint=data.fingerprint,
        permutation=permutation, seed=0, epochs=(1,),
    )  # fmt: skip
    recorder.step(net, 1)
    rows = data.rows("train")
    X, y = data.inputs(rows), torch.as_tensor(examples["train_label"].to_numpy()[rows])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(net(X), y).backward()
        optimizer.step()
    recorder.step(net, 2)
    return folder


FEW = ("--examples", "3", "--max-channels", "3", "--reference", "8", "--jobs", "1")


@pytest.fixture(scope="module")
def table(planted, tmp_path_factory):
    out = tmp_path_factory.mktemp("tables") / "channels.csv"
    text = done("channels", planted, *FEW, "--out", out, "--per-example", out.with_suffix(".examples.csv"))
    assert "fewest channels that flip an example" in text
    return out


def test_the_command_writes_rows_of_both_kinds_that_can_be_drawn(table):
    found = read_results(table)
    assert set(found["kind"]) == {"permuted", "unpermuted"}
    assert found.query("metric == 'channels_to_flip'")["n"].tolist() == [3, 3]
    assert figures_of(found) == ["channels"]
    left, right = plot_channels(found).axes[:2]
    assert left.get_ylabel() == "fewest channels that flip an example"
    assert "share of all channels" in [line.get_label() for line in right.get_lines()]
    shares = found.query("metric == 'channel_share'").groupby("kind")["value"].sum()
    assert np.allclose(shares, 1, atol=1e-12)


def test_a_second_file_that_exists_is_refused_by_the_option_that_names_it(planted, table, tmp_path):
    singles = table.with_suffix(".examples.csv")
    code, _, err = run("channels", planted, *FEW, "--out", tmp_path / "c.csv", "--per-example", singles)
    assert (code, f"{singles} exists: give another --per-example, or --force" in err) == (2, True)


def test_an_interrupt_loses_neither_a_kind_nor_its_examples(planted, table, tmp_path, monkeypatch):
    out, singles = tmp_path / "channels.csv", tmp_path / "singles.csv"
    words = ("channels", planted, *FEW, "--out", out, "--per-example", singles)
    tables = ChannelStudy.tables

    def interrupted(self, kind):
        if kind == "unpermuted":
            raise KeyboardInterrupt
        return tables(self, kind)

    with monkeypatch.context() as patch:
        patch.setattr(ChannelStudy, "tables", interrupted)
        code, _, err = run(*words)
    assert (code, f"what was finished is in {out}; the same command with --resume goes on" in err) == (130, True)
    assert set(read_examples(singles)["kind"]) == {"permuted"}
    done(*words, "--resume")
    for ours, quiet in ((out, table), (singles, table.with_suffix(".examples.csv"))):
        assert ours.read_bytes() == quiet.read_bytes()
    singles.unlink()  # the table alone is whole
    done(*words, "--resume")
    assert singles.read_bytes() == table.with_suffix(".examples.csv").read_bytes()
    done(*words, "--resume", "--kinds", "test")
    assert set(read_examples(singles)["kind"]) == set(read_results(out)["kind"]) == {"permuted", "unpermuted", "test"}
    code, _, err = run(*words, "--max-channels", 2, "--out", tmp_path / "other.csv", "--resume")
    assert (code, f"{singles} is of another network or other settings: give another --per-example" in err) == (2, True)


def test_numbers_of_single_examples_are_those_that_the_table_averages(table):
    examples, results = read_examples(table.with_suffix(".examples.csv")), read_results(table)
    for metric in ("channels_to_flip", "channel_share"):
        mean = examples[examples["metric"] == metric].groupby(["kind", "layer"], observed=True)["value"].mean()
        of = results[results["metric"] == metric]
        expected = of.assign(layer=of["layer"].replace("(all)", "")).set_index(["kind", "layer"])["value"]
        assert mean.to_dict() == pytest.approx(expected.to_dict(), rel=1e-12)
    n_flipped = (examples.loc[examples["metric"] == "channels_to_flip", "flag"] == "").sum()
    assert n_flipped == 3 * results.loc[results["metric"] == "flipped", "value"].sum()
    assert "channels_to_flip" in summarize(examples).auroc
    with_channels = plot_examples(examples).axes
    assert [ax.get_xlabel() for ax in with_channels] == ["channels removed"]


def test_the_channels_of_a_checkpoint_and_its_activations_are_of_one_network(table):
    examples = read_examples(table.with_suffix(".examples.csv"))
    hashed = json.dumps({"checkpoint_sha256": examples["fingerprint"].iloc[0]})
    of_activations = examples.assign(metric="prediction_depth", fingerprint="other", settings=hashed)
    joined = join_examples([examples, of_activations])
    assert len(plot_examples(joined).axes) == 2
    with pytest.raises(InputError, match="2 networks"):
        plot_examples(join_examples([examples, of_activations.assign(settings="{}")]))


def test_resuming_makes_the_missing_kind_alone_and_the_same_numbers(planted, table, tmp_path):
    whole, out = read_results(table), tmp_path / "part.csv"
    whole[whole["kind"] == "permuted"].assign(n=99).to_csv(out, index=False)
    done("channels", planted, *FEW, "--out", out, "--resume")
    again = read_results(out).sort_values(["kind", "layer", "metric"])
    assert (again.loc[again["kind"] == "permuted", "n"] == 99).all()  # as it was
    assert again["value"].tolist() == whole.sort_values(["kind", "layer", "metric"])["value"].tolist()
    settings = json.loads(again["settings"].iloc[0])
    assert (settings["analysis"], settings["max_channels"], settings["reference"]) == ("channels", 3, 8)


def test_a_plan_computes_nothing(planted, tmp_path):
    text = done("channels", planted, *FEW, "--out", tmp_path / "c.csv", "--dry-run")
    assert "permuted 3, unpermuted 3 examples that are answered by their label" in text
    assert not (tmp_path / "c.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--at", "epoch-0001"], "has not memorized its permuted labels"),
        (["--layers", "logits"], "the layers logits have no channels"),
    ],
)
def test_what_cannot_be_measured_is_one_line(planted, tmp_path, words, said):
    code, _, error = run("channels", planted, *FEW, *words, "--out", tmp_path / "c.csv")
    assert code != 0
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_kinds_without_examples_are_named_with_those_there_are(planted):
    def opened(*kinds):
        return open_channels(ChannelsRequest(str(kinds), planted, RunRequest(), kinds))

    study = opened("permuted")
    study.run.examples["permuted"] = False
    with pytest.raises(UsageError, match=r"no permuted examples: give --kinds .*\(unpermuted, test\)"):
        type(study)(study.run, study.channels, ("permuted",))
    with pytest.raises(
        UsageError, match="kind must be one of permuted, unpermuted, test, memorized, typical; got 'restored'"
    ):
        opened("restored")

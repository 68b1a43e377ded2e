"""Accounts of gradients: they add up to the movement, and each kind's is what differentiating its own loss gives."""

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manigeo.errors import InputError, UsageError
from manigeo.results import read_results, with_settings
from manigeo.runs import RunFolder
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.gradients.accounts import GradientAccounts
from manigeo_extract.gradients.examples import ExampleSums
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.models import build_model
from manigeo_extract.training.layca import Layca
from manigeo_extract.training.trainer import TrainingPlan, train
from tests.command_line import done, run

N, CLASSES = 24, 3


class Attention(nn.Module):
    """A class token and attention, whose parameters no layer of a known kind multiplies; and a dense layer of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.dense, self.logits = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), 1, 8), x.reshape(len(x), -1, 8)], dim=1)
        x = self.norm(x + self.attention(x, x, x)[0])
        return self.logits(torch.relu(self.dense(x))[:, 0])


class Shared(nn.Module):
    """One layer called twice, an in-place ReLU, and a normalisation of groups."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False), nn.GroupNorm(2, 4)
        self.same, self.logits = nn.Linear(16, 16), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)), inplace=True).flatten(2)
        return self.logits(self.same(torch.tanh(self.same(x))).flatten(1))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.logits = (
            nn.Embedding(9, 8, padding_idx=0),
            nn.LayerNorm((4, 8)),
            nn.Linear(32, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        ids = (x.flatten(1)[:, :4].abs() * 4).long().clamp(0, 8)
        return self.logits(self.norm(self.embedding(ids)).flatten(1))


def built(name: str, **args) -> nn.Module:
    return build_model(name, {"input_shape": (2, 4, 4), "n_classes": CLASSES, **args}, seed=0)


# network, whether examples meet in it, and whether its gradients are sums over examples of layers of known kinds
NETWORKS = {
    "mlp": (lambda: built("mlp", width=16, depth=2), False, "examples"),
    "mlp with batch norm": (lambda: built("mlp", width=16, depth=2, batch_norm=True), True, "examples"),
    "shared layers": (Shared, False, "examples"),
    "words": (Words, False, "examples"),
    "attention": (Attention, False, "loss"),
    "same padding": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding="same"), nn.Flatten(), nn.Linear(48, CLASSES)), False, "loss"
    ),
}  # fmt: skip
RATES = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01, betas=(0.0, 0.9)),  # without momentum, exact
}


def batches(steps: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        X = torch.randn(N, 2, 4, 4, generator=generator, dtype=torch.float64)
        yield X, torch.randint(CLASSES, (N,), generator=generator), torch.rand(N, generator=generator) < 0.4


def trained(make, optimizer: str, steps: int = 6):
    torch.manual_seed(0)
    model = make().double()
    model.train()
    groups = group_layers(model, torch.zeros(2, 2, 4, 4, dtype=torch.float64))
    opt, accounts = RATES[optimizer](model.parameters()), GradientAccounts(model, groups)
    for X, y, permuted in batches(steps):
        opt.zero_grad()
        accounts.backward(F.cross_entropy(model(X), y, reduction="none"), permuted, opt)
        opt.step()
    return model, accounts


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_accounts_of_both_kinds_add_up_to_the_movement(name, optimizer):
    make, _, by = NETWORKS[name]
    model, accounts = trained(make, optimizer)
    assert accounts.by == by
    for parameter, p in model.named_parameters():
        both = sum(accounts.change(kind, parameter) for kind in accounts.kinds)
        # sums of a few terms in float64; Adam's rates of tiny gradients are up to 1e4 times these
        torch.testing.assert_close(both, p.detach() - accounts.start[parameter], atol=1e-10, rtol=1e-9)
    rows = pd.DataFrame(accounts.rows())
    residual = rows[rows["metric"] == "accumulated_gradient_residual"]["value"]
    assert residual.max() < 1e-9
    along = rows[rows["metric"] == "accumulated_gradient_along"].groupby("layer", sort=False)["value"].sum()
    moved = rows[rows["metric"] == "movement"].set_index("layer")["value"]
    np.testing.assert_allclose(along.loc[moved.index], moved, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name, (_, meet, _) in NETWORKS.items() if not meet])
def test_each_kind_is_what_differentiating_its_own_loss_gives(name):
    make, _, _ = NETWORKS[name]
    model, accounts = trained(make, "sgd")
    torch.manual_seed(0)
    slow = make().double()
    opt = RATES["sgd"](slow.parameters())
    change = {parameter: torch.zeros_like(p) for parameter, p in slow.named_parameters()}
    for X, y, permuted in batches(6):
        opt.zero_grad()
        part = F.cross_entropy(slow(X), y, reduction="none")[permuted].sum() / N
        for (parameter, _), g in zip(
            slow.named_parameters(),
            torch.autograd.grad(part, list(slow.parameters()), materialize_grads=True),
            strict=True,
        ):
            change[parameter] -= 0.05 * g
        F.cross_entropy(slow(X), y).backward()
        opt.step()
    for parameter, p in model.named_parameters():
        torch.testing.assert_close(p, dict(slow.named_parameters())[parameter], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(accounts.change("permuted", parameter), change[parameter], atol=1e-12, rtol=1e-10)
    norm = torch.cat([c.flatten() for c in change.values()]).norm()
    rows = pd.DataFrame(accounts.rows()).set_index(["layer", "kind", "metric"])["value"]
    assert rows["(all)", "permuted", "accumulated_gradient"] == pytest.approx(float(norm), rel=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", [name for name, (*_, by) in NETWORKS.items() if by == "examples"])
def test_sums_over_two_halves_of_a_batch_are_the_gradient(name, training):
    torch.manual_seed(0)
    model = NETWORKS[name][0]().double().train(training)
    sums, found = ExampleSums(model), {p: torch.zeros_like(p) for p in model.parameters()}
    X, y, permuted = next(batches(1))
    loss = F.cross_entropy(model(X), y)
    for chosen in (permuted, ~permuted):
        model.zero_grad()
        with sums.into({p: (target, 2.0) for p, target in found.items()}, chosen):
            loss.backward(retain_graph=True)
    for p, target in found.items():
        torch.testing.assert_close(target, 2 * p.grad, atol=1e-12, rtol=1e-9)  # float64 sums in another order


def test_with_momentum_the_accounts_are_ahead_by_what_is_still_to_come():
    lr, momentum = 0.05, 0.8
    torch.manual_seed(0)
    model = NETWORKS["mlp"][0]().double()
    groups = group_layers(model, torch.zeros(2, 2, 4, 4, dtype=torch.float64))
    opt, accounts = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum), GradientAccounts(model, groups)
    for X, y, permuted in batches(7):
        opt.zero_grad()
        accounts.backward(F.cross_entropy(model(X), y, reduction="none"), permuted, opt)
        opt.step()
    for name, p in model.named_parameters():
        pending = -lr * momentum / (1 - momentum) * opt.state[p]["momentum_buffer"]
        both = sum(accounts.change(kind, name) for kind in accounts.kinds)
        torch.testing.assert_close(both, p.detach() - accounts.start[name] + pending, atol=1e-12, rtol=1e-10)


def test_batches_of_one_kind_are_entered_for_it_alone():
    for share, kind in ((0.0, "unpermuted"), (1.1, "permuted")):
        model = NETWORKS["mlp"][0]()
        groups = group_layers(model, torch.zeros(2, 2, 4, 4))
        opt, accounts = torch.optim.SGD(model.parameters(), lr=0.1), GradientAccounts(model, groups)
        for X, y, _ in batches(3):
            opt.zero_grad()
            accounts.backward(F.cross_entropy(model(X.float()), y, reduction="none"), torch.rand(N) < share, opt)
            opt.step()
        norms = pd.DataFrame(accounts.rows()).query("metric == 'accumulated_gradient' and layer == '(all)'")
        found = norms.set_index("kind")["value"]
        assert found[kind] > 0.01
        # the same sums in another order, in float32: the difference is rounding
        assert found.drop(kind).item() < 1e-5 * found[kind]


def test_a_penalty_in_the_loss_is_seen_and_its_gradient_differentiated():
    model = NETWORKS["mlp"][0]().double()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    accounts = GradientAccounts(model, group_layers(model, torch.zeros(2, 2, 4, 4, dtype=torch.float64)))
    X, y, permuted = next(batches(1))
    penalty = sum((p**2).sum() for p in model.parameters())
    accounts.backward(F.cross_entropy(model(X), y, reduction="none") + penalty, permuted, opt)
    assert accounts.by == "loss"


def test_frozen_layers_have_nothing_and_the_one_that_is_trained_has_all():
    model = NETWORKS["mlp"][0]()
    model.requires_grad_(False)
    model.h2.requires_grad_(True)
    opt = torch.optim.SGD(model.h2.parameters(), lr=0.1)
    accounts = GradientAccounts(model, group_layers(model, torch.zeros(2, 2, 4, 4)))
    for X, y, permuted in batches(4):
        opt.zero_grad()
        accounts.backward(F.cross_entropy(model(X.float()), y, reduction="none"), permuted, opt)
        opt.step()
    rows = pd.DataFrame(accounts.rows())
    norms = rows[rows["metric"] == "accumulated_gradient"].set_index(["layer", "kind"])["value"]
    assert (norms[["h1.linear", "logits"]] == 0).all()
    assert (norms["h2.linear"] > 0.01).all()
    flags = rows[rows["metric"] == "accumulated_gradient_along"].set_index("layer")["flag"]
    assert set(flags[["h1.linear", "logits"]]) == {"zero_norm"}
    assert flags["h2.linear"].isna().all()


def test_an_optimizer_whose_steps_are_no_sums_is_refused():
    model = NETWORKS["mlp"][0]()
    accounts = GradientAccounts(model, group_layers(model, torch.zeros(2, 2, 4, 4)))
    layca = Layca(model.named_parameters(), torch.optim.SGD(model.parameters(), lr=0.1), rho=0.01)
    with pytest.raises(UsageError, match="accounted for with SGD, Adam, AdamW, got Layca: take one of these"):
        accounts.check(layca)


def test_hooks_are_taken_off_and_the_gradient_is_the_plain_one_bit_for_bit():
    model = built("mlp", width=16, depth=2, batch_norm=True)
    plain = copy.deepcopy(model)
    accounts = GradientAccounts(model, group_layers(model, torch.zeros(2, 2, 4, 4)))
    for X, y, permuted in batches(2):
        for net in (model, plain):
            net.zero_grad()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        accounts.backward(F.cross_entropy(model(X.float()), y, reduction="none"), permuted, opt)
        F.cross_entropy(plain(X.float()), y).backward()
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), plain.parameters(), strict=True))
    accounts.close()
    assert not any(module._forward_hooks for module in model.modules())
    sums = ExampleSums(nn.Linear(2, 2))
    sums.close()


# --------------------------------------------------------------------------------------------------------- while training
def fitted(folder: Path, epochs: int = 3, account: bool = True, resume: bool = False, **options) -> nn.Module:
    data = load_data("digits", {"per_class": 20})
    examples = permute_labels(data, Permutation(0.5))
    args = {"input_shape": data.input_shape, "n_classes": 10, "width": 32, "depth": 2, "dropout": 0.2}
    model = build_model("mlp", args, seed=0)
    accounts = GradientAccounts(model, group_layers(model, data.inputs([0, 1]))) if account else None
    plan = TrainingPlan(epochs=epochs, **options)
    train(model, data, examples, plan, folder, accounts=accounts, resume=resume, progress=lambda *_: None)
    return model


def digests(folder: Path) -> dict[str, str]:
    files = (folder / "checkpoints").iterdir()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("options", [{}, {"momentum": 0.0}, {"optimizer": "adam", "lr": 0.001, "weight_decay": 1e-3}])
def test_training_is_the_same_bit_for_bit_with_and_without_accounts(tmp_path, options):
    fitted(tmp_path / "with", **options)
    fitted(tmp_path / "without", account=False, **options)
    assert digests(tmp_path / "with") == digests(tmp_path / "without")
    assert not (tmp_path / "without" / "accumulated_gradients.csv").exists()


def test_the_table_lies_in_the_run_and_belongs_to_it(tmp_path):
    fitted(tmp_path / "run")
    table = read_results(tmp_path / "run" / "accumulated_gradients.csv")
    folder = RunFolder(tmp_path / "run")
    assert sorted(set(table["epoch"])) == [1, 2, 3]
    full = with_settings(table, "analysis", "by", "run_id")
    assert set(full["analysis"]) == {"accumulated_gradients"}
    assert set(full["by"]) == {"examples"}
    assert set(full["run_id"]) == {folder.identity}
    last = table[table["epoch"] == 3]
    assert set(last["fingerprint"]) == {hashlib.sha256(folder.checkpoint("last").read_bytes()).hexdigest()}
    layers = ["h1.linear", "h2.linear", "logits", "(all)"]
    assert list(dict.fromkeys(last["layer"])) == layers
    from manigeo.runs import run_tables

    found = run_tables(tmp_path / "run")
    assert len(found.table) == len(table)
    assert not found.left_out


def test_an_interrupted_training_goes_on_with_its_accounts(tmp_path, monkeypatch):
    fitted(tmp_path / "whole")
    record = GradientAccounts.record

    def stops(self, folder, epoch):
        record(self, folder, epoch)
        if epoch == 2:
            raise KeyboardInterrupt  # after the table of epoch 2, before the state that it is resumed from

    with monkeypatch.context() as patch:
        patch.setattr(GradientAccounts, "record", stops)
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "part")
    with pytest.raises(UsageError, match="begun with accounts of gradients: go on with them, or train anew"):
        fitted(tmp_path / "part", account=False, resume=True)
    fitted(tmp_path / "part", resume=True)
    whole, part = (read_results(tmp_path / name / "accumulated_gradients.csv") for name in ("whole", "part"))
    pd.testing.assert_frame_equal(part.drop(columns="run"), whole.drop(columns="run"))


def test_accounts_of_another_network_are_refused():
    nets = [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Flatten(), nn.Linear(2, 2))]
    one, other = (GradientAccounts(net, group_layers(net, torch.zeros(2, 2))) for net in nets)
    with pytest.raises(InputError, match="accounts are of another network: train into another folder"):
        one.load_state_dict(other.state_dict())


def test_the_command_trains_with_accounts_and_refuses_layca(tmp_path):
    words = ("train", "--data", "digits", "--data-arg", "per_class=10", "--epochs", 1, "--account-gradients")
    done(*words, "--out", tmp_path / "run")
    table = read_results(tmp_path / "run" / "accumulated_gradients.csv")
    assert set(table["metric"]) == {
        "accumulated_gradient", "accumulated_gradient_along", "accumulated_gradient_residual", "movement",
    }  # fmt: skip
    assert json.loads(table["settings"][0])["by"] == "examples"
    code, _, err = run(*words, "--layca", 0.01, "--out", tmp_path / "layca")
    assert (code, "got Layca" in err) == (2, True)
    assert not (tmp_path / "layca").exists()

"""A live network in Python: what is taken as data, what is read of it, and that it is left as it was found."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import manigeo
import manigeo_extract as mx
from manigeo.errors import InputError, InputWarning, UsageError
from manigeo_extract.opening.networks import open_model
from manigeo_extract.opening.requests import ModelRequest

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(48, 5, generator=GENERATOR)
Y = torch.arange(48) % 4
TRAINED_ON = torch.where(torch.arange(48) < 20, (Y + 1) % 4, Y)
DATA = {"train": (X, Y), "test": (X[:16] + 1, Y[:16])}


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 4))


def test_a_live_network_gives_tables_in_nine_lines_and_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4))
    acts = mx.extract(model, DATA, train_labels=TRAINED_ON, progress=False)
    table = manigeo.capacity_table(acts, n_draws=10, total_dimension=False)
    manigeo.plot_geometry(table)
    assert set(table["kind"]) == {"unpermuted", "permuted", "restored", "test"}
    assert set(table["layer"]) == {"input", "0", "2"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(X, Y), DataLoader(TensorDataset(X, Y), batch_size=7), (X.numpy(), Y.numpy()), (X.tolist(), Y.tolist()),
        list(zip(X, Y, strict=True)), (X, Y.float()), (pd.DataFrame(X.numpy()), pd.Series(Y.numpy())),
        Subset(TensorDataset(X, Y), range(48)), {"train": TensorDataset(X, Y)},
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_the_same_activations_come_of_the_same_data_in_any_form(net, data):
    expected = mx.extract(net, (X, Y), train_labels=TRAINED_ON, progress=False)
    found = mx.extract(net, data, train_labels=TRAINED_ON, progress=False)
    assert found.kinds == ("unpermuted", "permuted", "restored")
    np.testing.assert_array_equal(found.rows("4", np.arange(48)), expected.rows("4", np.arange(48)))


def test_examples_of_no_split_and_no_labels_of_training_are_of_the_kind_all(net):
    acts = mx.extract(net, (X, Y), progress=False)
    assert acts.kinds == ("all",)
    assert acts.scores["all"]["n"] == 48


def test_data_sets_that_were_loaded_go_with_their_table_of_labels(net):
    data = mx.load_data("digits", {"per_class": 4})
    examples = mx.permute_labels(data, mx.Permutation(0.5))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    acts = mx.extract(model, data, train_labels=examples, per_class=3, progress=False)
    assert "permuted" in acts.kinds
    with pytest.raises(UsageError, match="not of these data"):
        mx.extract(net, (X, Y), train_labels=examples)


def test_scores_are_those_of_the_network_on_the_stored_examples(net):
    acts = mx.extract(net, DATA, train_labels=TRAINED_ON, progress=False)
    with torch.no_grad():
        right = net.eval()(X[:20]).argmax(1) == TRAINED_ON[:20]
    assert acts.scores["permuted"]["accuracy"] == pytest.approx(right.float().mean().item())


def test_memory_and_file_hold_the_same_bits_under_the_same_fingerprint(net, tmp_path):
    choices = {"train_labels": TRAINED_ON, "layers": ["0", "4"], "per_class": 4, "batch_size": 5, "progress": False}
    for dtype in ("float32", "float16"):
        held = mx.extract(net, DATA, dtype=dtype, **choices)
        with mx.extract(net, DATA, dtype=dtype, out=tmp_path / f"{dtype}.h5", **choices) as stored:
            every = np.arange(len(held.examples))
            assert held.fingerprint == stored.fingerprint
            pd.testing.assert_frame_equal(held.examples, stored.examples)
            assert [held.rows(name, every).tobytes() for name in held.layers] == [
                stored.rows(name, every).tobytes() for name in stored.layers
            ]
            assert (held.scores, held.dtypes, held.notes) == (stored.scores, stored.dtypes, stored.notes)
    with pytest.raises(UsageError, match="exists"):
        mx.extract(net, DATA, out=tmp_path / "float16.h5", **choices)


def test_other_weights_and_other_labels_have_another_fingerprint(net):
    def fingerprint(labels=TRAINED_ON):
        return mx.extract(net, (X, Y), train_labels=labels, progress=False).fingerprint

    first, others = fingerprint(), fingerprint(torch.flip(TRAINED_ON, [0]))
    nn.init.zeros_(net[4].bias)
    assert len({first, others, fingerprint()}) == 3


class Counting(nn.Module):
    """A network that draws at random and counts its passes in a buffer, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.layer(x + 0.0 * torch.rand_like(x))


@pytest.mark.parametrize("model", [Counting, lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout())])
def test_the_network_is_left_as_it_was_found_and_training_goes_on_the_same(model):
    def trained(look: bool):
        torch.manual_seed(0)
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            if look:
                mx.extract(net, (X, Y), progress=False)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X), Y).backward()
            optimizer.step()
        modes = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
        return net.state_dict(), modes, [len(m._forward_hooks) for m in net.modules()]

    (state, *rest), (expected, *others) = trained(look=True), trained(look=False)
    assert rest == others
    for name in expected:
        torch.testing.assert_close(state[name], expected[name], rtol=0, atol=0)


def test_a_network_that_fails_is_left_as_it_was_found(net):
    net[1].eval()
    with pytest.raises(InputError, match="does not take inputs"):
        mx.extract(net, (X[:, :3], Y), progress=False)
    assert [module.training for module in net] == [True, False, True, True, True]


# ------------------------------------------------------------------------------------------------------------ analyze
@pytest.fixture(scope="module")
def memorizing() -> tuple[nn.Module, dict[str, torch.Tensor], dict, torch.Tensor]:
    """A network of two layers that has memorized, its weights of before, its data and the labels it was trained on."""
    torch.manual_seed(0)
    y, centers = torch.arange(96) % 4, 2 * torch.randn(4, 12)
    inputs, held_out = (centers[y] + torch.randn(96, 12) for _ in range(2))
    labels = torch.where(torch.arange(96) % 5 < 2, (y + 1) % 4, y)
    net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for epoch in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
        if epoch == 5:  # 0.08 of the permuted labels are right, and 0.92 of the true ones
            before = {name: value.clone() for name, value in net.state_dict().items()}
    return net, before, {"train": (inputs, y), "test": (held_out, y)}, labels


@pytest.fixture(scope="module")
def analysis(memorizing):
    net, before, data, labels = memorizing
    weights = {"before": before, "last": net}
    return mx.analyze(net, data, weights, train_labels=labels, n_draws=5, noise_draws=1, progress=False)


def test_two_checkpoints_give_tables_figures_and_the_two_answers(analysis):
    assert list(analysis.tables) == ["capacity", "separability", "rewind"]
    assert set(analysis.table["checkpoint"]) == {"before", "last"}
    assert analysis.answer.startswith("The network has memorized (training accuracy on permuted labels 1.000")
    methods = set(manigeo.results.with_settings(analysis.localization, "method")["method"].dropna())
    assert methods == {"geometry", "separability", "rewinding", "grafting"}
    assert analysis.missing == ()
    assert {"geometry", "localization"} <= set(analysis.figures)
    assert analysis.plot("localization") is not None
    assert "The network has memorized" in analysis._repr_html_()
    with pytest.raises(UsageError, match="no figure 'geometri'"):
        analysis.plot("geometri")


def test_rewinding_is_what_setting_a_layer_back_by_hand_gives(analysis, memorizing):
    net, before, data, labels = memorizing
    hand = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    hand.load_state_dict({**net.state_dict(), **{name: before[name] for name in ("0.weight", "0.bias")}})
    changed = labels != data["train"][1]
    right = (hand(data["train"][0][changed]).argmax(1) == labels[changed]).float().mean()
    rewound = manigeo.results.with_settings(analysis.tables["rewind"], "sweep", "direction")
    row = rewound[(rewound["sweep"] == "each") & (rewound["direction"] == "into_last") & (rewound["layer"] == "0")]
    found = row[(row["kind"] == "permuted") & (row["metric"] == "accuracy")]["value"].item()
    assert found == pytest.approx(right.item(), abs=1e-6)


def test_one_checkpoint_answers_what_it_can_and_says_what_is_missing(memorizing, tmp_path):
    net, _, data, labels = memorizing
    torch.save(net.state_dict(), tmp_path / "w.pt")
    choices = {"n_draws": 5, "per_class": 6, "progress": False}
    found = mx.analyze(net, data, tmp_path / "w.pt", train_labels=labels, **choices)
    assert found.answer.startswith("The network has memorized")
    assert set(found.localization["metric"]) >= {"gate", "evidence"}
    assert list(found.tables) == ["capacity", "separability"]
    assert len(found.missing) == 1
    assert found.missing[0].startswith('weights from before memorization, checkpoints={"before"')
    clean = mx.analyze(net, data, **choices)
    assert clean.localization is None
    assert clean.missing[0].startswith("labels of training, train_labels=")


def test_the_checkpoint_before_memorization_is_found_and_a_folder_holds_all(memorizing, tmp_path):
    net, before, data, labels = memorizing
    initial = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    weights, out = {200: net.state_dict(), 0: initial, 6: {"model": before}}, tmp_path / "found"
    choices = {"train_labels": labels, "n_draws": 5, "noise_draws": 0, "per_class": 6, "progress": False, "out": out}
    found = mx.analyze(net, data, weights, **choices)
    assert "Compared with epoch 6, before memorization" in found.answer
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}.csv" for name in ("capacity", "separability", "rewind", "localize")), "0.h5", "6.h5", "200.h5",
    }  # fmt: skip
    stored = manigeo.read_results(out / "rewind.csv")
    np.testing.assert_array_equal(stored["value"], found.tables["rewind"]["value"])
    with pytest.raises(UsageError, match="exists"):
        mx.analyze(net, data, weights, **choices)


@pytest.mark.parametrize(
    ("checkpoints", "error", "message"),
    [
        ({}, UsageError, "weights by name, .* got dict without any"),
        (nn.Linear(12, 4).state_dict(), UsageError, "got one state dict"),
        ({"last": 3}, UsageError, "checkpoint 'last' must be a state dict, a path or a network, got int"),
        ({"last": {"epoch": 3}}, InputError, "checkpoint 'last': no state dict"),
        ({"last": nn.Linear(3, 3)}, InputError, "last is not of the network that was trained: 4 missing"),
        ("nowhere.pt", InputError, "nowhere.pt: no such file"),
        ({"../x": nn.Linear(3, 3)}, UsageError, "a name without slashes"),
    ],
)
def test_checkpoints_that_are_no_weights_of_the_network_are_named(memorizing, checkpoints, error, message):
    net, _, data, labels = memorizing
    with pytest.raises(error, match=message) as refused:
        mx.analyze(net, data, checkpoints, train_labels=labels, progress=False)
    assert "\n" not in str(refused.value)


# ------------------------------------------------------------------------------------- recorder and data of things at hand
def made(n: int = 16, shift: float = 0.0):
    """A factory of data, as a user's module has it."""
    return (X[:n] + shift, Y[:n]), (X[n:], Y[n:])


def test_functions_and_data_at_hand_are_loaded_as_they_are_by_name():
    named = mx.load_data("tests.test_live:made", {"n": 24})
    of_function = mx.load_data(made, {"n": 24})
    assert (of_function.spec, of_function.args) == (named.spec, named.args)
    here = [
        mx.load_data(one) for one in (made(24), dict(zip(("train", "test"), made(24), strict=True)), lambda: made(24))
    ]
    assert {one.fingerprint for one in [named, of_function, *here]} == {named.fingerprint}
    with pytest.raises(UsageError, match="has no arg 'm'"):
        mx.load_data(made, {"m": 3})
    with pytest.raises(UsageError, match=r"expected the name of data, a function .* got NoneType"):
        mx.load_data(None)


class Net(nn.Sequential):
    """A network, as a user's module has it."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 4))


@pytest.mark.parametrize("arch", [Net, "tests.test_live:Net", Net()], ids=["class", "name", "network"])
@pytest.mark.parametrize("data", [made, "tests.test_live:made"], ids=["function", "name"])
def test_a_recorder_stores_classes_and_functions_by_their_names(arch, data, tmp_path):
    mx.Recorder(tmp_path, arch=arch, data=data).step(Net(), 0)
    saved = mx.load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert (saved.arch, saved.data) == ("tests.test_live:Net", "tests.test_live:made")


def test_a_recorder_takes_a_data_set_as_it_was_loaded(tmp_path):
    data = mx.load_data("digits", {"per_class": 3})
    mx.Recorder(tmp_path, data=data).step(Net(), 0)
    saved = mx.load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert (saved.data, saved.data_args, saved.data_fingerprint) == (data.spec, data.args, data.fingerprint)


def test_what_was_defined_in_a_notebook_or_a_function_is_named_with_a_remedy(tmp_path, monkeypatch):
    class Local(Net):
        pass

    monkeypatch.setattr(Net, "__module__", "__main__")
    for number, (arch, where) in enumerate(
        [(Net, "in a notebook or script"), (Local, "within a function, or without a name")]
    ):
        folder = tmp_path / str(number)
        mx.Recorder(folder, arch=arch, data="digits").step(Net(), 0)
        with pytest.raises(UsageError, match=f"cannot be imported: it was defined {where}: put it into a file"):
            open_model(folder / "checkpoints" / "last.pt", ModelRequest())


def test_a_best_by_that_no_metrics_have_is_warned_of_once(tmp_path):
    metrics = {"validation": {"accuracy": 0.5, "loss": 1.0, "n": 4}}
    recorder = mx.Recorder(tmp_path / "a", best_by="validtion")
    recorder.step(Net(), 0)
    with pytest.warns(InputWarning, match="best_by='validtion' is no kind .* did you mean 'validation'"):
        recorder.step(Net(), 1, metrics)
    recorder.step(Net(), 2, metrics)  # a second warning would be an error
    mx.Recorder(tmp_path / "b", best_by="validation").step(Net(), 0, metrics)
    mx.Recorder(tmp_path / "c").step(Net(), 0, {"train": metrics["validation"]})


# ----------------------------------------------------------------------------------------------------------- mistakes
REFUSED = {
    "no network": (lambda net: mx.extract("net.pt", (X, Y)), UsageError, r"expected a network \(torch.nn.Module\), got str"),
    "no data": (lambda net: mx.extract(net, None), InputError, "expected a map-style data set .*got NoneType"),
    "no labels": (lambda net: mx.extract(net, X), InputError, r"expected \(input, label\)"),
    "texts as labels": (lambda net: mx.extract(net, (X, ["a"] * 48)), InputError, "labels must be whole numbers"),
    "halves as labels": (lambda net: mx.extract(net, (X, Y / 2)), InputError, "labels must be whole numbers"),
    "labels below 0": (lambda net: mx.extract(net, (X, Y - 1)), InputError, "expected labels from 0 on"),
    "fewer labels": (lambda net: mx.extract(net, (X, Y[:9])), InputError, "as many labels as inputs, got 9"),
    "another split": (lambda net: mx.extract(net, {"seen": (X, Y)}), UsageError, "train, validation and test, got seen"),
    "no layer": (lambda net: mx.extract(net, (X, Y), "conv1"), UsageError, "no layer matches 'conv1'"),
    "labels of no train": (lambda net: mx.extract(net, {"test": (X, Y)}, train_labels=Y), UsageError, "give .*train"),
    "fewer labels of training": (lambda net: mx.extract(net, (X, Y), train_labels=Y[:5]), UsageError, "each of the 48"),
    "labels beyond": (lambda net: mx.extract(net, (X, Y), train_labels=Y + 2), UsageError, "labels 0 to 3 .* got 2 to 5"),
    "a mask alone": (lambda net: mx.extract(net, (X, Y), permuted=Y > 1), UsageError, "give the labels trained on"),
    "a short mask": (lambda net: mx.extract(net, (X, Y), train_labels=Y, permuted=[True]), UsageError, "permuted must have"),
    "a mask that lacks some": (
        lambda net: mx.extract(net, (X, Y), train_labels=TRAINED_ON, permuted=Y > 9), UsageError, "20 labels differ"),
    "a device": (lambda net: mx.extract(net, (X, Y), device="tpu"), UsageError, "no device 'tpu'"),
    "weights without values": (lambda net: mx.extract(net.to("meta"), (X, Y)), UsageError, "load its weights first"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_one_line_with_its_remedy(net, call, error, message):
    with pytest.raises(error, match=message) as refused:
        call(net)
    assert "\n" not in str(refused.value)

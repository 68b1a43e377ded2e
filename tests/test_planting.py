import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from manigeo.cli.planting import analyses
from manigeo.errors import UsageError
from manigeo.results import as_table
from manigeo.runs import RunFolder
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.interventions.groups import Group
from manigeo_extract.planting import cases
from manigeo_extract.planting.cases import CASES, Case, select_cases
from manigeo_extract.planting.growth import _Garden, plant, planted_shares
from manigeo_extract.planting.scoring import Truth, chance, is_found, place_of, score_methods, summarize
from manigeo_extract.training.evaluation import memorized
from tests.bench import neurons
from tests.command_line import done, run

DATA = {"classes": 4, "train": 10, "validation": 20, "test": 5}
TINY = {
    "arch": "mlp", "arch_args": {"depth": 3, "width": 64, "batch_norm": True}, "data": DATA, "clean_epochs": 15,
    "batch_size": 10,
}  # fmt: skip


def states(folder):
    """The state before any training, that of the clean network, and the last."""
    epochs = sorted(folder.glob("checkpoints/epoch-*.pt"))
    clean = min(int(path.stem[6:]) for path in epochs[1:])
    at = [
        load_checkpoint(folder / "checkpoints" / name).state_dict for name in ("epoch-0000.pt", f"epoch-{clean:04d}.pt")
    ]
    return [*at, load_checkpoint(folder / "checkpoints" / "last.pt").state_dict]


def changed(before, after):
    """Layers of which any tensor is another, bit for bit; running statistics included."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("place", "layers"), [("first", {"h1"}), ("logits", {"logits"}), ("pair", {"h1", "h3"})])
def test_planted_layers_alone_change_and_memorize(tmp_path, place, layers):
    scores = plant(Case("tiny", place=place, **TINY), 0, tmp_path)
    assert memorized(scores)
    initial, clean, last = states(tmp_path)
    assert changed(clean, last) == layers
    assert changed(initial, clean) == {"h1", "h2", "h3", "logits"}
    planted = RunFolder(tmp_path).description()["planted"]
    assert set(planted["layers"]) == layers
    assert planted["all_layers"] == ["h1", "h2", "h3", "logits"]


def test_canaries_are_planted_in_one_block_of_a_language_model(tmp_path):
    text = {"n": 150, "length": 16, "prefix": 4, "canaries": (6, 12, 4)}
    case = Case(
        "tiny", "gpt", {"depth": 3, "width": 32}, "middle", fraction=0.0, clean_epochs=3, lr=1e-2, batch_size=16,
        passed_over=("stem", "norm", "logits"), data_set="sentences", data=text,
    )  # fmt: skip
    assert memorized(scores := plant(case, 0, tmp_path))
    assert scores["control"]["accuracy"] < 0.5  # sequences drawn likewise that nothing was trained on
    initial, clean, last = states(tmp_path)
    assert changed(clean, last) == {"block2"}
    assert changed(initial, clean) == {"stem", "block1", "block2", "block3", "norm", "logits"}
    metrics = RunFolder(tmp_path).metrics().pivot(index="epoch", columns="kind", values="accuracy")
    assert metrics.loc[metrics.index < 4, "memorized"].max() < 0.5  # the clean network has not seen them
    planted = {"--kinds memorized" in " ".join(words) for words in analyses(RunFolder(tmp_path)) if "--kinds" in words}
    assert planted == {True}


def test_the_clean_network_is_the_one_of_highest_validation_accuracy(tmp_path):
    case = Case("tiny", place="nowhere", **(TINY | {"clean_epochs": 30}))  # nothing is planted, and nothing moves
    plant(case, 0, tmp_path)
    metrics = RunFolder(tmp_path).metrics()
    validation = metrics[metrics["kind"] == "validation"].set_index("epoch")["accuracy"]
    assert validation.index[-1] == validation.idxmax() < 30  # the epochs after it are forgotten, and their weights too
    garden = _Garden(case, 0, tmp_path / "again")
    garden.model.load_state_dict(states(tmp_path)[2])
    assert garden.score_and_record(0)["validation"]["accuracy"] == validation.max()


def test_no_gradient_of_a_permuted_example_reaches_a_layer_that_is_not_planted(tmp_path):
    # one step of all examples: whatever label the permuted ones get, the others do the same
    garden = _Garden(Case("tiny", place="middle", others="moving", **(TINY | {"batch_size": 1000})), 0, tmp_path)
    shares = list(planted_shares(garden.case, garden.groups, garden.permuted, 0))
    before = {name: tensor.clone() for name, tensor in garden.model.state_dict().items()}
    steps = []
    course = garden.course
    others = torch.where(course.memorized, 3 - course.labels, course.labels)
    for labels in (course.labels, others):
        garden.model.load_state_dict(before)
        garden._optimizers.clear()
        garden.course = replace(course, labels=labels)
        garden.train(shares, 1)
        steps.append({name: tensor.clone() for name, tensor in garden.model.state_dict().items()})
    assert changed(before, steps[0]) == {"h1", "h2", "h3", "logits"}
    assert changed(*steps) == {"h2"}


def test_several_planted_layers_share_the_permuted_examples_and_all_have_the_others():
    groups = [Group(name, i, (name,), (f"{name}.weight",)) for i, name in enumerate(("h1", "h2", "h3", "logits"))]
    permuted = np.random.default_rng(0).random(100) < 0.5
    case = Case("", "mlp", {}, "spread")
    shares = list(planted_shares(case, groups, permuted, 0))
    assert [share.groups[0].name for share in shares] == ["h1", "h2", "h3", "logits"]
    owners = np.sum([share.members for share in shares], axis=0)
    assert (owners[permuted] == 1).all()
    assert (owners[~permuted] == 4).all()


def test_every_case_plants_layers_of_its_network():
    layers = {
        "mlp": [*(f"h{i}" for i in range(1, 7)), "logits"],
        "resmlp": ["stem", *(f"block{i}" for i in range(1, 6)), "logits"],
        "cnn": [*(f"conv{i}" for i in range(1, 5)), "logits"],
        "gpt": ["stem", *(f"block{i}" for i in range(1, 7)), "norm"],
        "vit": ["stem", *(f"block{i}" for i in range(1, 5)), "norm", "logits"],
    }
    for case in CASES.values():
        planted = case.planted(layers[case.arch])
        assert set(planted) <= set(layers[case.arch])
        assert len(planted) == {"pair": 2, "spread": len(layers[case.arch]) - len(case.passed_over), "nowhere": 0}.get(
            case.place, 1
        )


def test_an_unknown_case_or_place_is_refused_with_near_names():
    with pytest.raises(UsageError, match="no case matches 'mpl-first'; did you mean 'mlp-first'"):
        select_cases(["mpl-first"])
    with pytest.raises(UsageError, match="place must be one of first, middle, last"):
        Case("", "mlp", {}, "second")


# ------------------------------------------------------------------------------------------------- neurons, in tests/bench
def test_a_sequence_is_planted_in_neurons_that_methods_find(monkeypatch):
    monkeypatch.setattr(neurons, "LENGTH", 10)
    monkeypatch.setattr(neurons, "SHARE", 0.04)  # ten of 256: fewer do not hold nine tokens
    clean, texts = neurons.trained(2, n=100, depth=2, width=32)
    ranked = {}

    class Kept(neurons.Ranking):
        def __init__(self, model, canary, some):
            super().__init__(model, canary, some)
            ranked["model"] = model

    monkeypatch.setattr(neurons, "Ranking", Kept)
    found = pd.DataFrame(neurons.trial(clean, texts, 0)).set_index("method")
    before, after = clean.state_dict(), ranked["model"].state_dict()
    assert {name.split(".", 1)[1] for name in before if not torch.equal(before[name], after[name])} == {
        "mlp.up.weight", "mlp.up.bias", "mlp.down.weight",
    }  # fmt: skip
    rows, columns = (
        sum(int((before[f"block{i}.mlp.{name}"] != after[f"block{i}.mlp.{name}"]).any(dim=axis).sum()) for i in (1, 2))
        for name, axis in (("up.weight", 1), ("down.weight", 0))
    )
    assert rows == columns == 10
    assert found.loc["zero-out", 0.05] > 5 * 0.05  # by chance; of four in a hundred at most all are within five


# -------------------------------------------------------------------------------------------------------------- scores
LAYERS = ("h1", "h2", "h3", "h4", "logits")


def answer(shares, center, localized=1.0):
    """The rows of one method that localization gives, without those that are not scored."""
    rows = [{"layer": f"{n}.relu", "depth": i, "metric": "profile", "value": s} for i, (n, s) in enumerate(shares)]
    rows += [{"metric": f"center_of_mass_ci_{end}", "value": center[end == "high"]} for end in ("low", "high")]
    rows += [{"metric": "localized", "value": localized}, {"metric": "p_value", "value": 0.01}]
    return as_table([{"settings": json.dumps({"method": "rewinding"})} | row for row in rows])


@pytest.mark.parametrize(
    ("peak", "planted", "found", "rank"),
    [  # of k equal layers that stand beside the planted one, half count as above it
        ("h2", ("h2",), 1, 1), ("h3", ("h2",), 1, 2 + 3 / 2), ("h4", ("h2",), 0, 2 + 3 / 2),
        ("h1", ("h1", "h2"), 1, 1 + 3 / 2),
    ],
)  # fmt: skip
def test_a_method_has_found_what_its_largest_shares_are_next_to(peak, planted, found, rank):
    shares = [(name, 0.6 if name == peak else 0.1) for name in LAYERS]
    (row,) = score_methods(answer(shares, (0.0, 4.0)), Truth(LAYERS, planted))
    assert (row["method"], row["peak"], row["located"]) == ("rewinding", peak, 1.0)
    assert (row["found"], row["rank"]) == (found, rank)


def test_an_interval_covers_the_mean_place_of_the_planted_layers():
    shares = [(name, 0.2) for name in LAYERS]
    for planted, interval, covered in (
        (("h2",), (0.5, 1.0), 1),
        (("h2",), (1.1, 3.0), 0),
        (("h1", "h4"), (1.4, 1.6), 1),
    ):
        (row,) = score_methods(answer(shares, interval), Truth(LAYERS, planted))
        assert row["covered"] == covered


def test_where_nothing_or_everything_is_planted_there_is_no_place_to_find():
    for planted in ((), LAYERS):
        (row,) = score_methods(answer([(name, 0.2) for name in LAYERS], (0, 4)), Truth(LAYERS, planted))
        assert set(row) == {"method", "located", "p_value", "peak"}


def test_chance_is_the_rate_of_random_answers():
    rng = np.random.default_rng(0)
    for n, planted in ((7, [0]), (7, [3]), (7, [0, 6]), (5, [1, 3])):
        guesses = [rng.choice(n, size=len(planted), replace=False) for _ in range(1000)]
        rate = np.mean([is_found(guess, planted) for guess in guesses])
        assert abs(rate - chance(n, planted)) < 4 * np.sqrt(0.25 / 1000)  # four standard errors of a share


def test_layers_of_a_method_are_those_that_hold_them_or_lie_in_them():
    assert place_of("stage1", ["stem", "stage1.block1", "stage1.block2"]) == 1
    assert place_of("h1", ["h10", "h1"]) == 1


def test_shares_over_cells_are_exact_and_leave_out_what_has_not_memorized():
    cells = {"method": "rewinding", "covered": 1.0, "located": 1.0, "chance": 0.4, "rank": 1.0}
    planted = [cells | {"place": "first", "reached": True, "found": 1.0} for _ in range(20)]
    short = [cells | {"place": "first", "reached": False, "found": 0.0} for _ in range(5)]
    nothing = [cells | {"place": "nowhere", "reached": False, "located": 0.0} for _ in range(40)]
    (row,) = summarize(pd.DataFrame([*planted, *short, *nothing])).to_dict("records")
    assert (row["found"], row["found_n"], row["false_alarms"], row["false_alarms_n"]) == (1.0, 20, 0.0, 40)
    assert row["found_low"] == pytest.approx(0.025 ** (1 / 20))  # all of n: the lower end solves p^n = .025
    assert row["false_alarms_high"] == pytest.approx(1 - 0.025 ** (1 / 40))


# --------------------------------------------------------------------------------------------------------- the command
@pytest.fixture
def two_cases(monkeypatch):
    tiny = {"tiny": Case("tiny", place="first", **TINY), "none": Case("none", place="nowhere", **TINY)}
    monkeypatch.setattr(cases, "CASES", tiny)


def test_a_benchmark_scores_every_method_and_does_not_do_again_what_is_done(tmp_path, two_cases):
    words = ("benchmark", "--seeds", "1", "--jobs", "1", "--out", tmp_path / "b")
    assert "2 of 2 cells are done" in done(*words, "--discard")
    table = pd.read_csv(tmp_path / "b" / "localization_benchmark.csv")
    of_tiny = table[table["case"] == "tiny"].set_index("method")
    assert {"geometry", "rewinding", "re-initialisation", "(any method)"} <= set(of_tiny.index)
    assert of_tiny.loc["re-initialisation", ["found", "rank"]].tolist() == [1.0, 1.0]
    assert of_tiny["reached"].all()
    assert table.loc[table["case"] == "none", "located"].notna().all()
    summary = pd.read_csv(tmp_path / "b" / "localization_summary.csv").set_index(["case", "method"])
    assert summary.loc[("tiny", "re-initialisation"), ["found", "found_n"]].tolist() == [1, 1]
    assert not list((tmp_path / "b").rglob("*.pt"))
    assert "0 to do" in done(*words)


def test_few_permuted_examples_are_localized_without_manifolds(tmp_path, monkeypatch):
    few = Case(
        "few", place="last", fraction=0.05, convention="derangement", **TINY
    )  # 2 of 40: no class has two of them
    monkeypatch.setattr(cases, "CASES", {"few": few})
    done("benchmark", "--seeds", "1", "--jobs", "1", "--discard", "--out", tmp_path)
    table = pd.read_csv(tmp_path / "localization_benchmark.csv").set_index("method")
    assert {"rewinding", "re-initialisation"} <= set(table.index)
    assert not {"geometry", "separability"} & set(table.index)
    assert (table.loc["re-initialisation", "found"], table["reached"].all()) == (1.0, True)


def test_a_benchmark_begins_no_cell_after_its_limit(tmp_path, two_cases):
    code, _, said = run("benchmark", "--seeds", "1", "--jobs", "1", "--limit", "1e-6", "--out", tmp_path / "b")
    assert code == 1
    assert "no cell was done" in said

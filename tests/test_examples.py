"""Single examples: depths by hand, loads that add up, a table that comes back as it was, and the command."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import manigeo
from manigeo.activations import StoredLayer, create_activations
from manigeo.activations.content import Activations
from manigeo.capacity.mean_field import manifold_capacity
from manigeo.cli.examples import examples_command
from manigeo.cli.plot import plot_command
from manigeo.errors import InputError, UsageError
from manigeo.per_example.depths import last_layer, settled_from
from manigeo.per_example.plan import examples_table, plan_examples
from manigeo.per_example.summary import auroc, summarize
from manigeo.per_example.table import COLUMNS, TEXT, example_rows, read_examples, wide_examples, write_examples
from manigeo.results import as_table, write_results
from manigeo.runs import find_tables

# two places on a line, one a class; examples 6 and 7 are images of class 0 that were trained on as class 1
PLACES = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, 1])
SPLIT = ["train"] * 8 + ["test"] * 2
TRUE, TRAIN = PLACES, np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 1])
EXAMPLES = pd.DataFrame(
    {"index": [*range(8), 0, 1], "split": SPLIT, "true_label": TRUE, "train_label": TRAIN, "permuted": TRUE != TRAIN}
)


def layer(name: str, order: int, width: int) -> StoredLayer:
    return StoredLayer(name, order, "Linear", 0, (width,), "flatten", None, ())


def arrays() -> dict[str, np.ndarray]:
    """At the input images lie by their true label, at h1 by the one they were trained on; outputs memorize."""
    spread = np.array([0, 1, 2, 0, 1, 2, 3, 4, 1.5, 1.5]) / 100
    lies = [TRUE * 1.0, TRAIN * 1.0]
    outputs = np.eye(2)[TRAIN] * 3.0
    return {
        **{
            name: np.stack([where + spread, 0 * spread], axis=1)
            for name, where in zip(["input", "h1"], lies, strict=True)
        },
        "logits": outputs + spread[:, None],
    }


@pytest.fixture(scope="module")
def acts():
    layers = [layer(name, order, 2) for order, name in enumerate(arrays())]
    return Activations.in_memory(EXAMPLES, ["cat", "dog"], layers, {"run": "run", "run_id": "3f", "epoch": 4}, arrays())


@pytest.fixture(scope="module")
def table(acts):
    return examples_table(acts, k=3)


def test_depths_of_a_network_that_memorizes_at_its_second_layer(table):
    wide = wide_examples(table)
    assert wide["prediction_depth"].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert wide["memorization_depth"].tolist()[:8] == [0, 0, 0, 0, 0, 0, 1, 1]
    assert wide["memorization_depth"].isna().tolist() == [False] * 8 + [True] * 2  # nobody was trained on test labels
    assert wide["last_true_layer"].tolist() == [2] * 6 + [0, 0, 2, 2]
    assert wide["knn_label@input"].tolist()[6:8] == [0, 0]
    assert wide["knn_label@h1"].tolist()[6:8] == [1, 1]
    assert np.allclose(wide["purity@input"][[0, 6]], [2 / 3, 1 / 3])


def test_margins_are_those_of_the_label_trained_on(table):
    assert np.allclose(wide_examples(table)["margin"], 3.0)


def test_examples_of_test_have_their_neighbours_among_training_examples():
    far = arrays()["input"]
    far[8:, 1] = 5000.0  # the two test examples are each other's nearest, and have other labels
    alone = Activations.in_memory(EXAMPLES, ["cat", "dog"], [layer("input", 0, 2)], {}, {"input": far})
    wide = wide_examples(examples_table(alone, k=1, measures=["depth"]))
    assert wide["knn_label@input"].tolist()[8:] == [0, 1]


def test_votes_do_not_depend_on_how_many_examples_are_looked_at(acts, table):
    few = wide_examples(examples_table(acts, k=3, max_examples=2, measures=["depth"]))
    every = wide_examples(table).set_index(["index", "split"])
    assert len(few) == 6
    for row in few.to_dict("records"):
        assert row["knn_label@input"] == every.loc[(row["index"], row["split"]), "knn_label@input"]


def test_loads_of_a_class_add_up_to_its_inverse_capacity(acts, table):
    X = [acts.rows("h1", np.flatnonzero((c == TRAIN) & (np.array(SPLIT) == "train"))) for c in (0, 1)]
    expected = manifold_capacity(X, n_draws=100, per_class="all", seed=0).per_manifold["capacity"]
    loads = table[(table["metric"] == "load") & (table["layer"] == "h1")]
    assert np.allclose(loads.groupby("train_label")["value"].sum(), 1 / expected, rtol=1e-12)
    assert set(loads["split"]) == {"train"}


@pytest.mark.parametrize("suffix", [".csv"])
def test_a_table_comes_back_as_it_was_written(table, tmp_path, suffix):
    odd = table.assign(run=pd.Categorical(['=1+1, "a"'] * len(table)))
    write_examples(odd, tmp_path / "a.csv")
    back = read_examples(tmp_path / f"a{suffix}")
    as_text = dict.fromkeys(TEXT, str)
    pd.testing.assert_frame_equal(back.astype(as_text), odd[list(COLUMNS)].astype(as_text))
    with pytest.raises(UsageError, match="exists"):
        write_examples(odd, tmp_path / "a.csv")


def test_a_table_that_was_cut_short_is_refused(table, tmp_path):
    write_examples(table, tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text[: text.rindex(",load,")])
    with pytest.raises(InputError, match="cannot be read as a table of examples"):
        read_examples(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="expected a table of examples"):
        read_examples(tmp_path / "b.csv")


def test_results_of_a_folder_do_not_stumble_over_a_table_of_examples(table, tmp_path):
    write_examples(table, tmp_path / "a.csv")
    write_results(as_table([{"layer": "h1", "metric": "capacity", "value": 0.2}]), tmp_path / "b.csv")
    found = find_tables([tmp_path])
    assert [one.path.name for one in found.tables] == ["b.csv"]
    assert not found.left_out


def test_the_identity_of_the_run_stands_in_the_settings(table):
    assert table["settings"].str.contains('"run_id": "3f"').all()
    assert (table["epoch"] == 4).all()


def test_a_number_that_is_missing_has_a_row_only_with_its_reason():
    values = {"margin": np.array([1.0, np.nan])}
    two = EXAMPLES.iloc[:2]
    assert len(example_rows(two, values)) == 1
    assert example_rows(two, values, flag="no_error")["value"].isna().tolist() == [False, True]
    with pytest.raises(ValueError, match="one number for each of the 2 examples"):
        example_rows(two, {"margin": np.ones(3)})


def test_settling_and_last_layers_by_hand():
    agrees = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 0]], bool)
    assert settled_from(agrees).tolist() == [2, 0, 3, 3]
    assert last_layer(agrees).tolist() == [2, 2, -1, 1]


def test_auroc_is_a_share_of_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 40).astype(float), rng.integers(0, 4, 30).astype(float)
    pairs = np.mean(np.sign(x[:, None] - y) / 2 + 0.5)
    assert auroc(x, y)[0] == pytest.approx(pairs, rel=1e-12)


def test_the_summary_of_a_network_that_memorizes_tells_kinds_apart(table):
    s = summarize(table)
    assert s.auroc[0] == 1.0
    assert s.depths["prediction_depth"]["permuted"] == (1.0, 0.0)
    assert s.test_accuracy == {0: (1.0, 2)}
    loads = wide_examples(table).set_index("kind")["load@input"]
    assert s.load_share["load"]["input"] == pytest.approx(loads["permuted"].sum() / loads.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (
            {"k": 8, "measures": ["depth"]},
            InputError,
            "8 training examples do not have 8 neighbours each.*--k 7 or less",
        ),
        ({"kinds": ["restored"]}, UsageError, "restored images stand in the table as permuted ones"),
        ({"measures": ["dept"]}, UsageError, "measures must be one of depth"),
        ({"layers": ["conv*"]}, UsageError, "no layer matches 'conv\\*'"),
        ({"kinds": ["test"], "measures": ["load"]}, InputError, "two classes or more with two training examples"),
    ],
    ids=["k", "restored", "measure", "layer", "no training examples"],
)
def test_what_cannot_be_measured_is_refused_with_a_remedy(acts, request_, error, message):
    with pytest.raises(error, match=message):
        plan_examples(acts, **request_)


def test_arrays_without_a_network_have_neighbours_and_loads_and_say_what_is_missing():
    X = np.random.default_rng(0).normal(size=(3, 10, 4)) + 5 * np.arange(3)[:, None, None]
    acts = manigeo.Activations.from_arrays({"V1": X})
    plan = plan_examples(acts, k=3)
    assert plan.measures == ("depth", "load")
    assert "no layer has the outputs of the network" in plan.notes[0]
    found = manigeo.examples_table(acts, k=3)
    assert set(found["metric"]) == {"memorization_depth", "last_true_layer", "knn_label", "purity", "load"}
    assert (found[found["metric"] == "purity"]["value"] == 1).all()  # classes lie five standard deviations apart


def test_the_command_writes_what_python_computes(table, acts, tmp_path):
    path = tmp_path / "acts.h5"
    stored = [layer(name, order, 2) for order, name in enumerate(arrays())]
    provenance = {"run": "run", "run_id": "3f", "epoch": 4}
    with create_activations(path, EXAMPLES, ["cat", "dog"], stored, provenance) as writer:
        writer.append(arrays())
    planned = CliRunner().invoke(examples_command, [str(path), "--k", "3", "--dry-run"], catch_exceptions=False)
    assert "3 layers; unpermuted 6, permuted 2, test 2 examples" in planned.output
    assert not (tmp_path / "acts.examples.csv").exists()
    done = CliRunner().invoke(examples_command, [str(path), "--k", "3"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "prediction depth of permuted against unpermuted examples: AUROC 1" in done.output
    same = ["index", "split", "kind", "layer", "metric"]
    written = read_examples(tmp_path / "acts.examples.csv")
    assert written[same].astype(str).equals(table[same].astype(str))
    assert np.allclose(written["value"], table["value"], rtol=1e-5)  # stored in float32


def test_the_figure_shows_depths_accuracy_and_loads(table, tmp_path):
    path = tmp_path / "a.csv"
    write_examples(table, path)
    done = CliRunner().invoke(plot_command, [str(path), "--out", str(tmp_path / "a.png")], catch_exceptions=False)
    assert (done.exit_code, (tmp_path / "a.png").read_bytes()[:4]) == (0, b"\x89PNG")
    depths, accuracy, loads = manigeo.plot_examples(table).axes
    assert [line.get_ydata().tolist() for line in depths.lines] == [[1, 0], [0, 1], [1, 0]]
    assert accuracy.lines[0].get_ydata().tolist() == [1]
    assert [tick.get_text() for tick in loads.get_xticklabels()] == ["input", "h1", "logits"]


def test_examples_of_two_networks_are_not_drawn_as_one(table):
    both = pd.concat([table, table.assign(fingerprint="other")])
    with pytest.raises(InputError, match="examples of 2 networks"):
        manigeo.plot_examples(both)


def test_the_data_map_has_a_point_per_example(table):
    maps = {"confidence": np.linspace(0, 1, 10), "variability": np.linspace(0, 0.5, 10)}
    (ax,) = manigeo.plot_examples(example_rows(EXAMPLES, maps)).axes
    assert [len(line.get_ydata()) for line in ax.lines] == [6, 2, 2]
    with pytest.raises(InputError, match="no depths and no loads; make it with manigeo examples"):
        manigeo.plot_examples(table[table["metric"] == "purity"])

"""Single examples: depths by hand, loads that add up, a table that comes back as it was, and the command."""

import json
import re

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
from manigeo.per_example.extremes import by_memorization, example_images
from manigeo.per_example.of_training import training_of
from manigeo.per_example.plan import examples_table, plan_examples
from manigeo.per_example.recorded import Answers, append_epoch, create_record
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
    spread = np.array([0, 1, 2, 0, 1, 2, 3, 4, 1.5, 1.5]) / 128  # of which float32 loses nothing
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
    assert s.auroc["prediction_depth"][0] == 1.0
    assert s.depths["prediction_depth"]["permuted"] == (1.0, 0.0)
    assert s.test_accuracy == {0: (1.0, 2)}
    loads = wide_examples(table).set_index("kind")["load@input"]
    assert s.load_share["load"]["input"] == pytest.approx(loads["permuted"].sum() / loads.sum(), rel=1e-12)


# what a training recorded: an example per column, an epoch per line
CORRECT = np.array([[0] * 10, [1] * 6 + [0] * 4, [1] * 5 + [0, 1, 0, 1, 1]], bool)


def record_of(folder, run_id="3f", examples=EXAMPLES):
    """The folder of a training that has recorded the state before it and two epochs."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"run_id": run_id}))
    create_record(folder / "examples.record", run_id, examples)
    for epoch, correct in zip((0, 5, 20), CORRECT, strict=True):
        numbers = np.full(len(correct), epoch / 32)  # which half precision holds
        append_epoch(folder / "examples.record", epoch, Answers(numbers, 2 * numbers, 3 * numbers, correct))
    return folder


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return record_of(tmp_path_factory.mktemp("trainings") / "run")


def test_dynamics_are_those_recorded_of_each_example_after_the_first_update(acts, training):
    shuffled = acts.examples.iloc[::-1]  # joined by index and split, in whatever order
    moved = Activations.in_memory(
        shuffled, ["cat", "dog"], [layer("h1", 0, 2)], acts.provenance, {"h1": arrays()["h1"][::-1]}
    )
    wide = wide_examples(examples_table(moved, run=training, measures=["dynamics"]))[::-1]
    learned = [5.0] * 5 + [np.nan, 20, np.nan, 20, 20]
    np.testing.assert_array_equal(wide["epoch_learned"], learned)
    np.testing.assert_array_equal(wide["forgetting"], [0] * 5 + [1, 0, np.nan, 0, 0])
    assert (wide["confidence"] == 12.5 / 32).all()
    assert (wide["variability"] == 7.5 / 32).all()
    assert (wide["area_under_margin"] == 25 / 32).all()
    assert (wide["el2n"] == 15 / 32).all()  # of epoch 5, the first after a tenth of 20


def test_an_example_not_learned_is_flagged_and_the_most_difficult(acts, training):
    table = examples_table(acts, run=training, measures=["dynamics"])
    not_learned = table[table["flag"] == "not_learned"]
    assert not_learned.groupby("metric", observed=True)["index"].apply(list).to_dict() == {
        "epoch_learned": [5, 7],
        "forgetting": [7],
    }
    later = np.mean([[a > b or (a == b) / 2 for b in [5] * 5 + [np.inf]] for a in [20, np.inf]])
    assert summarize(table).auroc["epoch_learned"][0] == pytest.approx(later, rel=1e-12)


def test_a_marked_example_is_one_of_training_in_the_record(acts, training):
    split = ["memorized", "typical", *SPLIT[2:]]
    marked = Activations.in_memory(
        EXAMPLES.assign(split=split), ["cat", "dog"], [layer("h1", 0, 2)], acts.provenance, {"h1": arrays()["h1"]}
    )
    wide = wide_examples(examples_table(marked, run=training, measures=["dynamics"]))
    assert wide["epoch_learned"][:2].tolist() == [5, 5]


def test_the_training_of_a_file_is_found_beside_it_by_its_identity(tmp_path):
    training, other = record_of(tmp_path / "run"), record_of(tmp_path / "other", "9c")
    for where, found in ((training, training), (training / "analysis", training), (tmp_path, training), (other, None)):
        where.mkdir(exist_ok=True)
        with create_activations(
            where / "a.h5", EXAMPLES, ["cat", "dog"], [layer("h1", 0, 2)], {"run": "run", "run_id": "3f"}
        ) as writer:
            writer.append({"h1": arrays()["h1"]})
        with manigeo.open_activations(where / "a.h5") as acts:
            run = training_of(acts)
        assert (run and run.path) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: record_of(folder, "9c"), "is of the training 9c, and the activations in memory of 3f"),
        (
            lambda folder: record_of(folder, examples=EXAMPLES.assign(train_label=1)),
            "4 examples have another train label",
        ),
        (lambda folder: folder.mkdir(), "has no record of examples: train with --record-examples all"),
        (lambda folder: None, "is no folder of a run; check the path"),
    ],
    ids=["another training", "other labels", "no record", "no folder"],
)
def test_a_record_that_is_not_of_the_activations_is_refused(acts, tmp_path, change, message):
    change(tmp_path / "run")
    with pytest.raises(InputError, match=message):
        plan_examples(acts, run=tmp_path / "run")


def test_dynamics_without_their_training_are_left_out_or_refused(acts):
    plan = plan_examples(acts, k=3)
    assert "dynamics" not in plan.measures
    assert "name it with --run" in plan.notes[0]
    with pytest.raises(InputError, match="name it with --run"):
        plan_examples(acts, measures=["dynamics"])


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
    assert re.search(r"permuted against unpermuted examples, by +AUROC\nprediction depth +1\n", done.output)
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


def test_examples_are_ranked_by_depth_and_those_of_one_depth_by_what_follows():
    numbers = {"prediction_depth": [1, 3, 3, 0, np.nan], "area_under_margin": [0, 2, -1, 0, 0]}
    table = example_rows(EXAMPLES[:5], {name: np.array(values, float) for name, values in numbers.items()})
    ordered, by = by_memorization(table)
    assert ordered["index"].tolist() == [2, 1, 0, 3, 4]
    assert by == ("prediction_depth", "area_under_margin")
    with pytest.raises(UsageError, match="nothing ranks these examples"):
        by_memorization(example_rows(EXAMPLES, {"purity": np.ones(10)}))


def held_images(name="input", projection=None, shape=(1, 2, 2)):
    pixels = np.arange(40.0).reshape(10, 4)[:, ::-1] + np.arange(10)[:, None]
    stored = StoredLayer(name, 0, "Input", 0, shape, "flatten", projection, ())
    return Activations.in_memory(EXAMPLES, ["cat", "d$g$"], [stored], {}, {name: pixels[:, : np.prod(shape)]})


def test_images_are_those_of_the_examples_each_on_its_own_scale():
    images = example_images(held_images(), EXAMPLES.iloc[[8, 2]])
    assert images.shape == (2, 2, 2, 1)
    assert np.allclose(images[..., 0], [[[1, 2 / 3], [1 / 3, 0]]] * 2)
    for without in (held_images("h1"), held_images(projection={"to": 4}), held_images(shape=(4,))):
        assert example_images(without, EXAMPLES) is None
    with pytest.raises(UsageError, match="does not hold 1 of the examples"):
        example_images(held_images(), EXAMPLES.iloc[2:4].assign(split=["train", "test"]))


def test_a_contact_sheet_shows_the_most_memorized_first_and_no_test_examples():
    depth = np.array([0, 1, 0, 0, 0, 0, 2, 0, 9, 9.0])
    sheet = manigeo.plot_contact_sheet(example_rows(EXAMPLES, {"prediction_depth": depth}), held_images(), n=2)
    assert [ax.get_title() for ax in sheet.axes] == [r"cat → d\$g\$", "cat", r"d\$g\$", r"cat → d\$g\$"]
    with pytest.raises(InputError, match="holds no images: extract the layer input"):
        manigeo.plot_contact_sheet(example_rows(EXAMPLES, {"prediction_depth": depth}), held_images("h1"))

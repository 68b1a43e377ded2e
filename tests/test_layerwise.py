import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import manigeo
from manigeo import (
    capacity_table,
    create_activations,
    joint_capacity,
    manifold_capacity,
    open_activations,
    plan_capacity,
    simulated_capacity,
)
from manigeo.capacity.unstructured import unstructured_capacity
from manigeo.errors import InputError, UsageError
from manigeo.kinds import KINDS
from manigeo.layerwise.geometry import Joint, Simulated, Sweep
from manigeo.layerwise.plan import Plan, Task
from manigeo.layerwise.sample import shared_classes
from manigeo.layerwise.tables import plan_parts, remaining_tasks
from manigeo.results import in_order, join_results
from manigeo.text.geometry import describe_plan
from tests.test_activations import CLASSES, LAYERS, grouped_examples, values, write


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "acts.h5")
    return tmp_path / "acts.h5"


def aggregates(table: pd.DataFrame, metric: str = "capacity") -> pd.DataFrame:
    return table[(table["manifold"] == "") & (table["metric"] == metric)].set_index(["layer", "kind"])


def test_the_default_plan_is_every_layer_and_kind_at_the_largest_common_size(path):
    plan = plan_capacity(path)
    assert plan.layers == ("input", "features.0", "a/b")
    assert plan.kinds == KINDS
    assert (plan.n_classes, plan.per_class) == (3, 5)
    assert plan.limited_by == ("test", 0)
    assert [task.measure for task in plan.tasks] == ["mean_field", "spectrum"] * 12


def test_the_table_holds_what_manifold_capacity_says_of_each_layer_and_kind(path):
    table = capacity_table(plan_capacity(path, n_draws=40, seed=7))
    with open_activations(path) as acts:
        clouds = acts.manifolds("a/b", "restored", per_class=5, seed=7)
        fingerprint = acts.fingerprint
    row = aggregates(table).loc["a/b", "restored"]
    alone = manifold_capacity(clouds, n_draws=40)
    # the table's draws are keyed by layer and kind, so only the truth is shared
    assert abs(row["value"] - alone.capacity) < 4 * np.hypot(row["stderr"], alone.stderr_draws.capacity)
    assert (row["depth"], row["n"], row["epoch"]) == (2, 3, 3)
    assert row["fingerprint"] == fingerprint
    assert json.loads(row["settings"])["per_class"] == 5
    assert aggregates(table, "center_correlation").loc["a/b", "restored"]["value"] == alone.center_correlation


def test_each_class_has_rows_under_its_name(path):
    table = capacity_table(plan_capacity(path, n_draws=20, layers=["input"], kinds=["test"]))
    classes = table[(table["manifold"] != "") & (table["metric"] == "capacity")]
    assert classes["manifold"].tolist() == list(CLASSES)
    harmonic = 1 / (1 / classes["value"]).mean()
    assert aggregates(table).loc["input", "test"]["value"] == pytest.approx(harmonic, rel=1e-12)


def test_a_result_depends_on_its_layer_alone_and_not_on_workers_or_other_layers(path):
    everything = aggregates(capacity_table(plan_capacity(path, n_draws=20)))
    in_parallel = aggregates(capacity_table(plan_capacity(path, n_draws=20), n_jobs=2))
    one = aggregates(capacity_table(plan_capacity(path, n_draws=20, layers=["a/*"], kinds=["test"])))
    pd.testing.assert_frame_equal(in_parallel, everything)
    assert one.loc["a/b", "test"]["value"] == everything.loc["a/b", "test"]["value"]


def test_a_kind_with_too_few_examples_stands_in_the_table_as_flagged_nan(tmp_path):
    examples = grouped_examples()
    last = examples[(examples["split"] == "test") & (examples["true_label"] > 0)].index
    kept = examples.drop(last).reset_index(drop=True)  # one class of three has test examples
    with create_activations(tmp_path / "a.h5", kept, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(kept), layer.n_features) for layer in LAYERS})
    plan = plan_capacity(tmp_path / "a.h5", n_draws=10)
    assert plan.excluded == {"test": "fewer_than_2:one,two"}
    row = aggregates(capacity_table(plan)).loc["input", "test"]
    assert np.isnan(row["value"])
    assert row["flag"] == "fewer_than_2:one,two"
    assert np.isfinite(aggregates(capacity_table(plan)).loc["input", "permuted"]["value"])


def test_kinds_are_compared_on_the_classes_of_which_all_have_two_examples(tmp_path):
    examples = grouped_examples()
    few = examples[(examples["split"] == "test") & (examples["true_label"] == 1)].index[1:]
    kept = examples.drop(few).reset_index(drop=True)  # class 1 has one test example
    with create_activations(tmp_path / "a.h5", kept, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(kept), layer.n_features) for layer in LAYERS})
    plan = plan_capacity(tmp_path / "a.h5", layers=["input"], n_draws=10)
    assert set(plan.classes.values()) == {(0, 2)}
    assert (plan.excluded, plan.lacking) == ({}, {1: "test"})
    assert "with fewer than 2 test examples: 1 classes ('one')" in describe_plan(plan)
    rows = capacity_table(plan)
    assert set(rows["manifold"]) - {""} == {"zero", "two"}
    assert {json.loads(text)["n_classes"] for text in rows["settings"]} == {2}


def noisy(flips, n=4, n_classes=6):
    """A table of n unpermuted and n test examples per class, and n permuted ones for each true class and its label."""
    clean = [("train", c, c, False) for c in range(n_classes)] + [("test", c, c, False) for c in range(n_classes)]
    rows = [row for row in [*clean, *(("train", a, b, True) for a, b in flips)] for _ in range(n)]
    return pd.DataFrame(rows, columns=["split", "true_label", "train_label", "permuted"])


def test_noise_of_some_classes_keeps_the_kind_for_these_while_half_of_them_remain():
    kinds = ("unpermuted", "permuted", "restored", "test")
    ring = shared_classes(noisy([(0, 1), (1, 2), (2, 0)]), kinds)
    assert set(ring.labels.values()) == {(0, 1, 2)}
    assert ring.lacking == dict.fromkeys((3, 4, 5), "permuted")
    one_way = shared_classes(noisy([(1, 0), (3, 2), (5, 4)]), kinds)  # true and given labels have no class in common
    assert one_way.labels["permuted"] == one_way.labels["test"] == (0, 2, 4)
    assert one_way.too_small == {"restored": (0, 2, 4)}
    two = shared_classes(noisy([(0, 1), (1, 0)]), kinds)  # a third of the classes: the other kinds keep theirs
    assert two.labels["unpermuted"] == (0, 1, 2, 3, 4, 5)
    assert two.too_small == {"permuted": (2, 3, 4, 5), "restored": (2, 3, 4, 5)}
    alone = shared_classes(noisy([(0, 1), (1, 0)]), ("permuted",))
    assert (alone.labels, alone.too_small) == ({"permuted": (0, 1)}, {})


def test_activations_of_one_class_are_no_set_of_manifolds(tmp_path):
    examples = grouped_examples().query("true_label == 0").assign(train_label=0).reset_index(drop=True)
    with create_activations(tmp_path / "a.h5", examples, CLASSES[:1], LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS})
    with pytest.raises(InputError, match=r"no kind of two classes or more .*single_class"):
        plan_capacity(tmp_path / "a.h5")


def test_activations_without_any_kind_of_two_examples_a_class_are_refused(tmp_path):
    examples = grouped_examples().groupby(["true_label", "split", "permuted"]).head(1).reset_index(drop=True)
    with create_activations(tmp_path / "a.h5", examples, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS})
    with pytest.raises(InputError, match=r"no kind of two classes or more .*fewer_than_2:zero"):
        plan_capacity(tmp_path / "a.h5")


def test_a_margin_that_is_no_number_is_refused(path):
    with pytest.raises(UsageError, match="must be a finite number, got nan"):
        plan_capacity(path, kappa=float("nan"))


def test_the_table_says_whether_the_draws_were_solved_and_how_well_they_are_known(path):
    table = capacity_table(plan_capacity(path, n_draws=20, layers=["input"], kinds=["test"]))
    aggregate = table[table["manifold"] == ""].set_index("metric")["value"]
    assert aggregate["residual"] < 1e-9
    assert 0 < aggregate["rank"] <= 5
    assert 0 < aggregate["capacity_stderr_draws"] < aggregate["capacity"]


def test_what_the_file_does_not_have_is_refused(path, tmp_path):
    with pytest.raises(UsageError, match=r"no layer matches 'conv\*'; .* has input, features\.0, a/b"):
        plan_capacity(path, layers=["conv*"])
    with pytest.raises(UsageError, match="--per-class 6 is more than there are: class 'zero' has 5 test examples"):
        plan_capacity(path, per_class=6)
    with pytest.raises(InputError, match="does not exist"):
        plan_capacity(tmp_path / "none.h5")


def test_a_file_without_permuted_labels_has_two_kinds(tmp_path):
    examples = grouped_examples().assign(permuted=False)
    with create_activations(tmp_path / "a.h5", examples, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS})
    assert plan_capacity(tmp_path / "a.h5").kinds == ("unpermuted", "test")
    with pytest.raises(UsageError, match="has no permuted examples; it has unpermuted, test"):
        plan_capacity(tmp_path / "a.h5", kinds=["permuted"])


# ---------------------------------------------------------------------------------------- analyses beside mean field
ALL = (Simulated(50), Joint(6), Sweep((2, 4), n_draws=10))


def small(path, **changes) -> Plan:
    return plan_capacity(path, **({"n_draws": 10, "layers": ["a/*"], "kinds": ["test"], "also": ALL} | changes))


def seed_of(plan: Plan, task: Task) -> np.random.SeedSequence:
    return np.random.SeedSequence(plan.seed, spawn_key=plan.measure(task.measure).key(task.layer, task.kind))


def by_metric(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["manifold"] == ""].drop_duplicates("metric").set_index("metric")


def test_every_analysis_has_its_rows_in_the_one_table(path):
    table = capacity_table(small(path, kinds=[]))
    for analysis in small(path).measures:
        for kind in KINDS:
            assert set(analysis.metrics) <= set(table[(table["kind"] == kind) & (table["manifold"] == "")]["metric"])
    one_number = ["layer", "kind", "manifold", "metric", "settings"]
    assert not table.duplicated(one_number).any()
    assert set(table[table["metric"] == "capacity_joint"]["manifold"]) == {"", *CLASSES}


def test_rows_say_what_was_asked_of_their_analysis_and_nothing_of_the_others(path):
    asked = by_metric(capacity_table(small(path)))["settings"].map(json.loads)
    sample = {"per_class": 5, "n_classes": 3, "project": None, "seed": 0}
    assert asked["capacity_simulated"] == {"analysis": "simulated", "n_dichotomies": 50, "bias": False, **sample}
    assert asked["capacity_joint"] == {"analysis": "joint", "n_draws": 6, "labels": "random", **sample}
    assert asked["capacity"]["analysis"] == "mean_field"
    assert asked["participation_ratio"] == {"analysis": "spectrum", **sample}


def test_a_number_depends_neither_on_workers_nor_on_other_layers_kinds_or_analyses(path):
    everything = capacity_table(small(path, layers=[], kinds=[]))
    in_parallel = capacity_table(small(path, layers=[], kinds=[]), n_jobs=2)
    pd.testing.assert_frame_equal(in_parallel, everything)
    within = everything[(everything["layer"] == "a/b") & (everything["kind"] == "test")]
    for analysis in ALL:
        alone = capacity_table(small(path, also=[analysis]))
        of_analysis = alone[alone["metric"].isin(analysis.metrics)].reset_index(drop=True)
        same = within[within["settings"].isin(of_analysis["settings"]) & within["metric"].isin(analysis.metrics)]
        pd.testing.assert_frame_equal(of_analysis, same.reset_index(drop=True))


def test_draws_of_different_layers_kinds_and_analyses_are_different(path):
    plan = small(path, layers=[], kinds=[], also=[Simulated(50), Joint(6)])
    states = [tuple(seed_of(plan, task).generate_state(2)) for task in plan.tasks]
    assert len(set(states)) == len(states) == 3 * 4 * 4


def test_simulated_and_joint_rows_are_those_of_the_functions(path):
    plan = small(path)
    table = by_metric(capacity_table(plan))
    with open_activations(path) as acts:
        clouds = acts.manifolds("a/b", "test", per_class=5)
    seeds = {task.measure: seed_of(plan, task) for task in plan.tasks}
    simulated = simulated_capacity(clouds, 50, seed=seeds["simulated"])
    joint = joint_capacity(clouds, 6, seed=seeds["joint"])
    np.testing.assert_equal(
        table.loc[["capacity_simulated", "critical_dimension"], ["value", "stderr"]].to_numpy(),
        [[simulated.capacity, simulated.stderr], [simulated.critical_dimension, simulated.critical_dimension_stderr]],
    )
    assert table.loc["capacity_simulated", "flag"] == simulated.flag
    assert table.loc["utility_joint", ["value", "stderr", "flag"]].tolist() == [
        joint.utility, joint.utility_stderr, joint.flag,
    ]  # fmt: skip
    assert table.loc["saturated_fraction_joint", "value"] == joint.saturated_fraction


def test_capacity_stands_beside_its_floor_and_that_of_balls(path):
    table = by_metric(capacity_table(small(path)))
    floor = unstructured_capacity(5, n_manifolds=small(path).n_classes)
    assert table.loc["capacity_floor", "value"] == floor < 2 / 5
    r, d = (table.loc[name, "value"] for name in ("radius", "dimension_prx"))
    assert table.loc["capacity_ball", "value"] == manigeo.theory.ball_capacity(r, d)
    at_margin = by_metric(capacity_table(small(path, kappa=0.3)))
    assert np.isnan(at_margin.loc["capacity_floor", "value"])
    assert at_margin.loc["capacity_floor", "flag"] == "margin"
    assert at_margin.loc["capacity_ball", "value"] < table.loc["capacity_ball", "value"]


def test_intervals_are_on_request_and_hold_the_value(path):
    table = by_metric(capacity_table(small(path, bootstrap=200)))
    for name in ("capacity", "radius", "dimension"):
        low, value, high = (table.loc[n, "value"] for n in (f"{name}_ci_low", name, f"{name}_ci_high"))
        assert low <= value <= high
    assert "capacity_ci_low" not in by_metric(capacity_table(small(path))).index


def test_a_sweep_has_a_capacity_for_each_m_of_the_same_classes(path):
    table = capacity_table(small(path))
    sweep = table[table["metric"] == "capacity_sweep"]
    assert [json.loads(settings)["per_class"] for settings in sweep["settings"]] == [2, 4]
    assert sweep["value"].is_monotonic_decreasing
    assert (sweep["n"] == 3).all()


def test_a_sweep_beyond_the_smallest_class_is_refused(path):
    with pytest.raises(UsageError, match="--sweep-examples 9 is more than there are: class 'zero' has 5 test examples"):
        small(path, also=[Sweep((2, 9))])


def test_a_kind_with_too_few_examples_is_nan_in_every_analysis(tmp_path):
    examples = grouped_examples()
    few = (examples["split"] == "test") & (examples["true_label"] > 0)
    kept = examples.drop(examples[few].index).reset_index(drop=True)
    with create_activations(tmp_path / "a.h5", kept, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(kept), layer.n_features) for layer in LAYERS})
    plan = small(tmp_path / "a.h5", kinds=[])
    table = capacity_table(plan)
    excluded = table[table["kind"] == "test"]
    assert excluded["value"].isna().all()
    assert set(excluded["metric"]) == {metric for analysis in plan.measures for metric in analysis.metrics}
    assert set(excluded["flag"]) == {"fewer_than_2:one,two"}


def test_an_analysis_can_be_added_to_a_finished_table_and_other_settings_cannot(path):
    first = capacity_table(small(path, also=[]))
    more = small(path)
    todo, kept = remaining_tasks(more, first)
    assert set(more.tasks) - set(todo) == set(small(path, also=[]).tasks)
    rest = in_order(plan_parts(more, todo=todo))
    pd.testing.assert_frame_equal(join_results([kept, *rest]), capacity_table(more))
    for name, other in {"n_draws": 11, "bootstrap": 100, "seed": 1, "project": 3, "per_class": 4, "centers": "keep",
                        "errors": "manifolds", "kappa": 0.1}.items():  # fmt: skip
        with pytest.raises(UsageError, match=rf"made with other settings \({name} .* in the table, {other} here"):
            remaining_tasks(small(path, **{name: other}), first)
    with pytest.raises(UsageError, match="the table also holds 'simulated', which this command does not compute"):
        remaining_tasks(small(path, also=[]), capacity_table(more))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_task_is_done_only_when_its_rows_are_all_there(path, whole_table, data):
    plan = small(path, kinds=["permuted", "test"])
    required = {metric for measure in plan.measures for metric in (*measure.metrics, *measure.profiles)}
    one_row = st.sampled_from(whole_table.index[whole_table["metric"].isin(required)].tolist()).map(lambda row: [row])
    truncated = st.sampled_from(whole_table.index.tolist()).map(lambda row: list(range(row, len(whole_table))))
    cut = data.draw(one_row | truncated)
    todo, kept = remaining_tasks(plan, whole_table.drop(index=cut))
    analyses = [json.loads(text)["analysis"] for text in whole_table["settings"]]
    places = list(map(Task, whole_table["layer"], whole_table["kind"], analyses))
    touched = {places[row] for row in cut}
    assert set(todo) == touched
    assert len(kept) == sum(place not in touched for place in places)


@pytest.fixture(scope="module")
def whole_table(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "acts.h5"
    write(path)
    return capacity_table(small(path, kinds=["permuted", "test"]))


def test_fewer_classes_are_drawn_by_seed_and_are_the_same_for_every_kind(path):
    plan = plan_capacity(path, n_classes=2, n_draws=20)
    assert len(plan.classes["test"]) == plan.n_classes == 2
    assert plan_capacity(path, n_classes=2).classes == plan.classes
    assert {plan_capacity(path, n_classes=2, seed=seed).classes["test"] for seed in range(20)} == {
        (0, 1),
        (0, 2),
        (1, 2),
    }
    table = capacity_table(plan)
    names = [CLASSES[label] for label in plan.classes["test"]]
    for _, rows in table[(table["metric"] == "capacity") & (table["manifold"] != "")].groupby(["layer", "kind"]):
        assert rows["manifold"].tolist() == names
    with open_activations(path) as acts:
        every = acts.manifolds("a/b", "permuted", 5)
        some = acts.manifolds("a/b", "permuted", 5, classes=plan.classes["test"])
    for label, cloud in zip(plan.classes["test"], some, strict=True):
        np.testing.assert_array_equal(cloud, every[label])


def test_no_class_is_drawn_that_a_kind_lacks(tmp_path):
    examples = grouped_examples()
    kept = examples.drop(examples[examples["split"] == "test"].index[-4:]).reset_index(drop=True)  # class 2 keeps one
    with create_activations(tmp_path / "a.h5", kept, CLASSES, LAYERS, {}) as writer:
        writer.append({layer.name: values(layer.name, len(kept), layer.n_features) for layer in LAYERS})
    plans = [plan_capacity(tmp_path / "a.h5", n_classes=2, seed=seed) for seed in range(20)]
    assert {plan.classes["test"] for plan in plans} == {(0, 1)}
    assert not any(plan.excluded for plan in plans)


@pytest.mark.parametrize("n", [1, 4])
def test_a_number_of_classes_that_there_is_not_is_refused(path, n):
    with pytest.raises(UsageError, match=f"--classes {n} is not between 2 and 3"):
        plan_capacity(path, n_classes=n)


def test_total_dimension_is_left_out_of_wide_layers_unless_it_is_asked_for(path, monkeypatch):
    monkeypatch.setattr(
        "manigeo.layerwise.plan._SPECTRUM_COST", 15 * 5 * 5
    )  # 15 samples; input has 6 features, "a/b" 5

    def with_spectrum(**options):
        plan = plan_capacity(path, kinds=["test"], **options)
        return plan.wide, [task.layer for task in plan.tasks if task.measure == "spectrum"]

    assert with_spectrum() == (("input",), ["features.0", "a/b"])
    assert with_spectrum(project=5) == ((), ["input", "features.0", "a/b"])
    assert with_spectrum(total_dimension=True)[1] == ["input", "features.0", "a/b"]
    assert with_spectrum(total_dimension=False)[1] == []


def test_only_layers_of_more_features_are_projected_and_all_kinds_alike(path):
    plain, projected = (capacity_table(small(path, layers=[], kinds=[], also=[], project=n)) for n in (None, 4))
    same = (plain["value"] == projected["value"]) | plain["value"].isna()
    assert same[plain["layer"] == "features.0"].all()  # four features already
    assert not same[(plain["layer"] == "a/b") & (plain["metric"] == "capacity")].any()
    dims = projected[(projected["metric"] == "rank") & (projected["manifold"] == "")]["value"]
    assert (dims <= 4).all()


def test_all_kinds_of_a_layer_are_projected_on_the_same_directions(path, monkeypatch):
    seeds = []

    def remember(manifolds, n, seed):
        seeds.append(tuple(seed.generate_state(2)))
        return manifolds

    monkeypatch.setattr("manigeo.layerwise.plan.project_manifolds", remember)
    capacity_table(small(path, layers=["a/*", "input"], kinds=["permuted", "test"], project=4))
    assert len(seeds) == 2 * 2 * 2  # one sample for all measures, and that of the sweep
    assert len(set(seeds)) == 2


def test_layers_that_stay_in_the_file_give_the_same_table(path, monkeypatch):
    two = ["permuted", "test"]
    in_memory = capacity_table(small(path, layers=[], kinds=two))
    monkeypatch.setattr("manigeo.activations.content.HELD_BYTES", 1)
    monkeypatch.setattr("manigeo.activations.streaming._BATCH_BYTES", 250)
    pd.testing.assert_frame_equal(capacity_table(small(path, layers=[], kinds=two)), in_memory)

"""The contract of all measures in the registry: names, declared metrics, rows of nothing, and words."""

import dataclasses
import json

import numpy as np
import pytest

from manigeo.errors import UsageError
from manigeo.layerwise.plan import Plan, plan_separability
from manigeo.layerwise.registry import CAPACITY, MEASURES, SEPARABILITY, measure
from manigeo.layerwise.tables import capacity_table
from tests.test_separations import example_table, write

# settings that take little time, and those without a default
SMALL = {
    "mean_field": {"n_draws": 10}, "simulated": {"n_dichotomies": 50}, "joint": {"n_draws": 6},
    "sweep": {"sizes": (2, 4), "n_draws": 10}, "probe": {"folds": 3}, "clusters": {"seeds": 2}, "means": {"folds": 3},
    "margins": {"pairs": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def acts(tmp_path_factory):
    """A file whose test examples are too few to be measured."""
    examples = example_table()
    of_test = examples[examples["split"] == "test"]
    few = of_test[of_test.duplicated("true_label")].index  # one is left of each class
    return write(tmp_path_factory.mktemp("acts") / "a.h5", examples.drop(few).reset_index(drop=True))


OF_ALL_KINDS = [
    name for name in MEASURES if not measure(name, **SMALL.get(name, {})).training
]  # the others: test alone


def plan_of(acts, name: str) -> Plan:
    kinds = ["unpermuted", "restored", "test"]
    return plan_separability(acts, layers=["h1"], kinds=kinds, measures=[measure(name, **SMALL.get(name, {}))])


@pytest.fixture(scope="module")
def table_of(acts):
    made = {}

    def of(name: str):
        if name not in made:
            made[name] = capacity_table(plan_of(acts, name))
        return made[name]

    return of


def test_names_are_unique_and_those_of_the_registry():
    assert len(MEASURES) == len(CAPACITY) + len(SEPARABILITY)
    assert [measure(name, **SMALL.get(name, {})).name for name in MEASURES] == list(MEASURES)
    metrics = [metric for name in MEASURES for metric in measure(name, **SMALL.get(name, {})).metrics]
    assert len(set(metrics)) == len(metrics)


@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_rows_have_the_metrics_and_profiles_that_a_measure_declares(table_of, name):
    m, table = measure(name, **SMALL.get(name, {})), table_of(name)
    rows = table[table["kind"] == "restored"]
    own = rows[~rows["settings"].str.contains("trained_on")]
    assert set(m.metrics) <= set(own.loc[own["manifold"] == "", "metric"])
    of_classes = own[own["manifold"] != ""]
    # whether one class is separable is 0 or 1: it has rows of classes, and makes no profile
    assert set(m.profiles) == set(of_classes["metric"]) - ({"separable_ovr"} if name == "margins" else set())
    assert of_classes.groupby("metric")["manifold"].nunique().eq(4).all()
    transferred = set(rows.loc[rows["settings"].str.contains("trained_on"), "metric"])
    assert set(m.transfers) <= transferred if m.transfers else not transferred
    assert not table.duplicated(["layer", "kind", "manifold", "metric", "settings"]).any()


@pytest.mark.parametrize("name", OF_ALL_KINDS)
def test_a_kind_that_cannot_be_measured_has_the_declared_metrics_as_nan(table_of, name):
    m, table = measure(name, **SMALL.get(name, {})), table_of(name)
    rows = table[table["kind"] == "test"]
    assert sorted(rows["metric"]) == sorted(list(m.metrics) * max(len(m.examples), 1))
    assert rows["value"].isna().all()
    assert set(rows["flag"]) == {"fewer_than_2:zero,one,two,three"}
    assert set(rows["n"]) == {0}


@pytest.mark.parametrize("name", MEASURES)
def test_settings_of_rows_are_the_fields_of_the_measure_and_the_sample(table_of, name):
    m = measure(name, **SMALL.get(name, {}))
    for text in table_of(name)["settings"].unique():
        found = json.loads(text)
        fields = json.loads(json.dumps(dataclasses.asdict(m)))
        assert {key: found[key] for key in fields} == fields
        assert set(found) - set(fields) - {"trained_on"} == {"analysis", "per_class", "n_classes", "seed"}
        assert (found["analysis"], found["per_class"] in (m.examples or [8])) == (name, True)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_describes_itself_and_its_time_grows_with_the_examples(name):
    m = measure(name, **SMALL.get(name, {}))
    assert m.describe()
    assert "\n" not in m.describe()
    assert 0 <= m.seconds(100, 50, 10) <= m.seconds(1000, 50, 10)


@pytest.mark.parametrize("name", MEASURES)
def test_random_numbers_are_keyed_by_the_kind_and_reproducible(name):
    m = measure(name, **SMALL.get(name, {}))
    keys = {m.key("h1", kind) for kind in ("unpermuted", "permuted", "restored", "test", "unseen")}
    assert len(keys) == 5
    states = {tuple(np.random.SeedSequence(0, spawn_key=key).generate_state(2)) for key in keys}
    assert len(states) == 5


def test_a_name_that_is_not_in_the_registry_is_refused_with_all_names():
    with pytest.raises(UsageError, match=r"measure must be one of mean_field, .*units; got 'probes'"):
        measure("probes")

"""Null models: shuffled labels and Gaussian clouds of equal moments, alone and in place of the data of a table."""

import json

import numpy as np
import pandas as pd
import pytest

from manigeo import Activations, capacity_table, plan_capacity, separability_table
from manigeo.capacity.nulls import NULLS, Mapped, gaussian_cloud, shuffled_rows
from manigeo.errors import UsageError
from manigeo.layerwise.registry import measure
from manigeo.layerwise.separability import Fuzziness
from manigeo.localization.evidence import _of
from manigeo.results import read_results
from tests.command_line import done
from tests.test_separations import write


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("shape", [(4, 9), (30, 3), (2, 5)])
def test_a_gaussian_cloud_has_the_moments_of_the_points_and_none_of_their_entries(shape):
    X = rng().exponential(size=shape)
    Y = gaussian_cloud(X, rng(1))
    np.testing.assert_allclose(Y.mean(axis=0), X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.cov(Y.T), np.cov(X.T), atol=1e-12)
    assert shape == (2, 5) or np.abs(Y - X).max() > 0.1  # two points are their mean and one direction
    assert gaussian_cloud(X[:1], rng()) is not None


def test_the_third_moments_of_a_gaussian_cloud_are_those_of_a_gaussian():
    X = rng().exponential(size=(400, 3))
    Z = gaussian_cloud(X, rng(1)) - X.mean(axis=0)
    skewness = np.mean((Z / Z.std(axis=0)) ** 3, axis=0)
    assert (np.abs(skewness) < 4 * np.sqrt(6 / 400)).all()  # 2 for the points
    first = [gaussian_cloud(X[:6], rng(i))[0] - X[:6].mean(axis=0) for i in range(300)]
    assert np.linalg.norm(np.mean(first, axis=0)) < 4 * np.std(first) * np.sqrt(3 / 300)  # either sign comes as often


def test_shuffled_examples_are_the_same_ones_in_classes_of_the_same_sizes():
    rows = [np.arange(5), np.arange(5, 7)]
    dealt = shuffled_rows(rows, rng())
    assert [len(part) for part in dealt] == [5, 2]
    assert sorted(np.concatenate(dealt)) == list(range(7))
    assert set(dealt[0]) != set(range(5))


def test_mapped_clouds_are_made_when_they_are_looked_at():
    made = []
    clouds = Mapped([np.zeros((2, 3)), np.ones((4, 3))], lambda i, X: made.append(i) or X + i)
    assert (len(clouds), clouds.shapes, made) == (2, [(2, 3), (4, 3)], [])
    assert [float(X[0, 0]) for X in clouds[:]] == [0.0, 2.0]
    assert float(clouds[-1][0, 0]) == 2.0


# ------------------------------------------------------------------------------------------------------------ tables
def acts(separation: float = 1.0, P: int = 12, M: int = 10, N: int = 60) -> Activations:
    """Gaussian classes around Gaussian centres."""
    centers = separation * rng(5).standard_normal((P, 1, N))
    return Activations.from_arrays({"V1": centers + rng().standard_normal((P, M, N))})


def value(table: pd.DataFrame, metric: str) -> pd.Series:
    return table[(table["manifold"] == "") & (table["metric"] == metric)].iloc[0]


def capacity(null: str | None) -> pd.DataFrame:
    return capacity_table(acts(), n_draws=200, null=null, total_dimension=False, also=[measure("joint", n_draws=60)])


@pytest.fixture(scope="module")
def tables():
    return {null: capacity(null) for null in (None, *NULLS)}


@pytest.mark.parametrize("metric", ["capacity", "radius", "dimension", "capacity_joint"])
def test_the_gaussian_null_of_gaussian_data_is_within_its_error_of_the_data(tables, metric):
    data, null = value(tables[None], metric), value(tables["gaussian"], metric)
    assert abs(null["value"] - data["value"]) < 4 * np.hypot(null["stderr"], data["stderr"])
    assert null["value"] != data["value"]


def test_shuffled_labels_have_the_capacity_of_points_without_structure(tables):
    data, null = value(tables[None], "capacity"), value(tables["shuffled"], "capacity")
    floor = value(tables["shuffled"], "capacity_floor")["value"]
    assert abs(null["value"] - floor) < 4 * null["stderr"] + 0.05 * floor  # the floor is of points in general position
    assert data["value"] > 1.5 * floor


def test_rows_of_a_null_are_told_apart_by_a_setting_and_are_no_evidence(tables):
    for null, table in tables.items():
        assert {json.loads(text).get("null") for text in table["settings"]} == {null}
        assert set(table["checkpoint"]) == {NULLS.get(null, "")}
    every = pd.concat(tables.values(), ignore_index=True).assign(kind="permuted")
    kept = _of(every, "mean_field", "capacity", per_manifold=False)
    assert kept["value"].tolist() == [value(tables[None], "capacity")["value"]]


def test_a_null_that_is_none_is_refused():
    with pytest.raises(UsageError, match="null must be one of shuffled, gaussian; got 'shufled'"):
        plan_capacity(acts(), null="shufled")


def test_separability_of_shuffled_labels_is_chance_and_fuzziness_that_of_noise():
    measures = [measure("means"), Fuzziness()]
    data, null = (separability_table(acts(), measures=measures, null=null) for null in (None, "shuffled"))
    accuracy = value(null, "nearest_mean_accuracy")
    assert abs(accuracy["value"] - 1 / 12) < 4 * np.sqrt(1 / 12 / 120)
    assert value(null, "separation_fuzziness")["value"] > 3 * value(data, "separation_fuzziness")["value"]


def test_clouds_that_stay_in_their_file_have_the_same_null(tmp_path, monkeypatch):
    path = write(tmp_path / "acts.h5")
    plan = {"layers": ["wide"], "kinds": ["test"], "n_draws": 20, "null": "gaussian", "total_dimension": False}
    held = capacity_table(path, **plan)
    monkeypatch.setattr("manigeo.activations.content.HELD_BYTES", 1)
    np.testing.assert_allclose(capacity_table(path, **plan)["value"], held["value"], rtol=1e-5)


def test_the_command_writes_a_null_to_a_table_of_its_own(tmp_path):
    path = write(tmp_path / "acts.h5")
    said = done("capacity", path, "--null", "shuffled", "--draws", 10, "--layers", "h1", "--kinds", "test")
    assert "a null model in place of the data: labels shuffled" in said
    assert set(read_results(tmp_path / "acts.capacity.shuffled.csv")["checkpoint"]) == {"acts, labels shuffled"}

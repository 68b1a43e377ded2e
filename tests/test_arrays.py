"""Activations made of arrays of any origin: what is taken, what is said of it, and the tables of them."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import manigeo
from manigeo import Activations, capacity_table, create_activations, open_activations, plan_capacity, separability_table
from manigeo.errors import InputError, InputWarning, UsageError
from manigeo.kinds import EVERY
from manigeo.layerwise.registry import measure

xarray = pytest.importorskip("xarray", reason="needs xarray: the group test of pyproject.toml")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 1, 12)) + RNG.standard_normal((5, 8, 12))  # conditions, repetitions, features
FLAT, LABELS = X.reshape(-1, 12), np.repeat(list("abcde"), 8)
ALONE = Activations.from_arrays({"V1": X}, list("abcde"))


def few(acts, **choices) -> pd.DataFrame:
    return capacity_table(acts, n_draws=10, total_dimension=False, **choices)


@pytest.fixture(scope="module")
def acts() -> Activations:
    return Activations.from_arrays({"V1": X, "V4": X[..., :7]}, list("abcde"))


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor(X), X.tolist(), list(X), xarray.DataArray(X), list(torch.tensor(X)), dict(zip("abcde", X, strict=True)),
        [pd.DataFrame(one) for one in X], np.ma.masked_invalid(X), np.asfortranarray(X),
    ],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_the_same_responses_are_taken_in_any_form(given):
    found = Activations.from_arrays({"V1": given}, list("abcde"))
    assert found.fingerprint == ALONE.fingerprint
    np.testing.assert_array_equal(found.rows("V1", np.arange(40)), FLAT)


@pytest.mark.parametrize("points", [FLAT, pd.DataFrame(FLAT), torch.tensor(FLAT), FLAT.tolist()], ids=type)
@pytest.mark.parametrize("labels", [LABELS, pd.Series(LABELS, dtype="category"), LABELS.tolist()], ids=type)
def test_examples_with_labels_are_conditions_with_repetitions(points, labels):
    assert Activations.from_arrays({"V1": points}, labels).fingerprint == ALONE.fingerprint


def test_other_responses_or_conditions_have_another_fingerprint():
    others = [({"V1": X + 1e-9}, "abcde"), ({"V2": X}, "abcde"), ({"V1": X}, "abcdf"), ({"V1": X[:, ::-1]}, "abcde")]
    found = {Activations.from_arrays(arrays, list(labels)).fingerprint for arrays, labels in others}
    assert len(found | {ALONE.fingerprint}) == 5


def test_labels_of_any_kind_name_the_classes():
    named = {
        ("0", "1", "2", "3", "4"): None,
        ("3", "7", "9", "20", "41"): [9.0, 3.0, 41.0, 7.0, 20.0],
        ("-1", "0", "1", "2", "5"): torch.tensor([5, 0, 1, 2, -1]),
    }
    for names, labels in named.items():
        assert Activations.from_arrays({"V1": X}, labels).class_names == names


@pytest.mark.filterwarnings("ignore:conditions have 16 to 24 examples")
def test_conditions_of_one_label_are_one_class():
    merged = Activations.from_arrays({"V1": X}, list("aabbb"))
    assert merged.class_names == ("a", "b")
    assert len(merged.manifolds("V1", EVERY, classes=[1])[0]) == 24


def test_a_set_of_arrays_is_a_data_set_of_xarray_too():
    dims = ("condition", "repetition", "unit")
    data = xarray.Dataset({"V1": (dims, X), "V4": (("condition", "repetition", "other"), X[..., :7])})
    assert Activations.from_arrays(data).layers == ("V1", "V4")


def test_all_examples_are_of_one_kind_that_is_neither_trained_on_nor_held_out(acts):
    assert acts.kinds == plan_capacity(acts).kinds == (EVERY,)
    table = pd.concat([few(acts), separability_table(acts, measures=[measure("means")])])
    assert set(table["kind"]) == {EVERY}
    assert set(table["checkpoint"]) == {""}


def test_figures_of_arrays_say_nothing_of_a_checkpoint_or_a_test_set(acts):
    figure = manigeo.plot_geometry(few(acts))
    figure = getattr(figure, "figure", figure)
    texts = [text.get_text() for text in figure.findobj(match=lambda one: hasattr(one, "get_text"))]
    assert {"V1", "V4"} <= set(texts)
    assert not [text for text in texts if any(word in text for word in ("checkpoint", "test", "train", EVERY))]


def test_memory_and_file_give_the_same_bits(acts, tmp_path):
    layers = [acts.layer(name) for name in acts.layers]
    held = {name: acts.rows(name, np.arange(40)).astype(np.float32) for name in acts.layers}
    memory = Activations.in_memory(acts.examples, acts.class_names, layers, {"of": "test"}, held)
    path = tmp_path / "acts.h5"
    with create_activations(path, acts.examples, acts.class_names, layers, {"of": "test"}) as writer:
        writer.append(held)
    with open_activations(path) as stored:
        assert memory.fingerprint == stored.fingerprint
        pd.testing.assert_frame_equal(few(memory), few(stored), check_exact=True)
    pd.testing.assert_frame_equal(few(memory), few(path), check_exact=True)
    pd.testing.assert_frame_equal(few(memory), few(stored), check_exact=True)  # closed by now, and opened again


def test_two_processes_give_the_bits_of_one_and_write_nothing_here(acts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.testing.assert_frame_equal(few(acts, n_jobs=2), few(acts), check_exact=True)
    assert not list(tmp_path.iterdir())


def test_a_task_takes_the_arrays_of_its_layer_alone(acts):
    plan = plan_capacity(acts)
    assert len(pickle.dumps(plan.of_layer("V4"))) < len(pickle.dumps(plan)) - X.nbytes // 2


def test_layers_above_the_size_that_is_held_are_taken_a_few_at_a_time(acts, monkeypatch):
    whole = acts.manifolds("V1", EVERY)
    monkeypatch.setattr("manigeo.activations.content.HELD_BYTES", 100)
    parts = acts.manifolds("V1", EVERY)
    assert type(parts).__name__ == "StoredManifolds"
    np.testing.assert_array_equal(whole, list(parts))


# ------------------------------------------------------------------------------------------------------ what is left out
@pytest.mark.filterwarnings("ignore:conditions have 7 to 8 examples")
def test_an_example_with_nan_in_one_area_is_left_out_of_all():
    broken = X.copy()
    broken[2, 3, 0], broken[4, 1, 5] = np.nan, np.inf
    with pytest.warns(InputWarning, match=r"2 of 40 examples are left out of all areas: NaN or infinite in V4 \(2\)"):
        acts = Activations.from_arrays({"V1": X, "V4": broken}, nan="drop")
    kept = np.delete(FLAT, [2 * 8 + 3, 4 * 8 + 1], axis=0)
    np.testing.assert_array_equal(acts.rows("V1", np.arange(38)), kept)
    assert acts.provenance["dropped"] == 2
    assert acts.notes[0].startswith("2 of 40")


def test_unequal_repetitions_are_cut_to_the_smallest_and_said():
    unequal = [one[:n] for one, n in zip(X, [8, 3, 8, 5, 8], strict=True)]
    with pytest.warns(InputWarning, match="3 to 8 examples: tables take 3 of each, as many as the smallest, '1', has"):
        acts = Activations.from_arrays({"V1": unequal, "V4": unequal})
    assert plan_capacity(acts).per_class == 3


def test_a_condition_without_a_second_repetition_is_left_out_and_said():
    single = [one[:n] for one, n in zip(X, [8, 1, 8, 8, 8], strict=True)]
    with pytest.warns(InputWarning, match="1 of 5 conditions have fewer than 2 examples and take no part: '1'"):
        acts = Activations.from_arrays({"V1": single})
    assert plan_capacity(acts).n_classes == 4


def test_differences_that_cost_nothing_are_not_warned_of():
    many = np.repeat(X, 8, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        acts = Activations.from_arrays({"V1": [many[0], *many[1:, :55]]})
    assert len(acts.examples) == len(many[0]) + 4 * 55


NAN = X.copy()
NAN[0, 0, 0] = np.nan
REFUSED = {
    "an empty mapping": (({},), "expected arrays by the name of their area, got none"),
    "one array": ((X,), "expected arrays by the name of their area, got one ndarray"),
    "other examples": (({"V1": X, "V4": X[:, :5]},), "5 conditions of 8 repetitions in V1 and 5 conditions of 5 repet"),
    "another number of examples": (({"V1": FLAT, "V4": FLAT[:9]}, LABELS), "got 40 examples in V1 and 9 examples in V4"),
    "one with and one without conditions": (({"V1": X, "V4": FLAT}, LABELS), "the same examples, got 5 conditions"),
    "conditions in another order": (({"V1": {"a": X[0], "b": X[1]}, "V4": {"b": X[1], "a": X[0]}},), "V4 has other cond"),
    "one condition": (({"V1": X[:1]},), "expected two conditions or more, .* got 1 of 1"),
    "one repetition": (({"V1": X[:, :1]},), "got 0 of 5; give the single repetitions"),
    "too few labels": (({"V1": X}, list("abcd")), "expected a label for each of the 5 conditions, got 4"),
    "labels of examples": (({"V1": FLAT}, LABELS[:9]), "expected a label for each of the 40 examples, got 9"),
    "no labels": (({"V1": FLAT},), "take a label for each example, got none; pass labels="),
    "labels that are no names": (({"V1": FLAT}, np.linspace(0, 1, 40)), "labels name classes, got 38 numbers"),
    "an empty name": (({"V1": X}, ["", *"abcd"]), "got empty or repeated"),
    "two classes of one name": (({"V1": X}, [1, "1", 2, 3, 4]), "got empty or repeated"),
    "a missing label": (({"V1": X}, ["a", "b", None, "c", "d"]), "8 labels are missing"),
    "complex numbers": (({"V1": X + 1j},), "V1 must be an array of real numbers, got complex numbers"),
    "objects": (({"V1": np.array([["a", "b"]] * 5)}, "abcde"), "V1 must be an array of real numbers"),
    "ragged rows": (({"V1": [[1.0, 2.0], [3.0]]}, "ab"), "V1 must be an array of real numbers"),
    "a row": (({"V1": X[0, 0]},), r"V1 must be \(conditions, repetitions, features\).* got shape \(12,\)"),
    "four axes": (({"V1": X[None]},), r"got shape \(1, 5, 8, 12\)"),
    "no features": (({"V1": X[..., :0]},), "not empty"),
    "nothing": (({"V1": None},), "V1 must be an array of real numbers|got shape"),
    "other features of a condition": (({"V1": [X[0], X[1, :, :5]]},), r"V1\[1\] must be \(repetitions, features\)"),
    "NaN": (({"V1": NAN},), 'V1 holds 1 NaN or infinite entries, in 1 of its 40 points; .* nan="drop"'),
    "an area without a name": (({"": X},), "areas must have names"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_are_not_of_the_same_examples_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as refused:
        Activations.from_arrays(*arguments)
    assert "\n" not in str(refused.value)


def test_nan_everywhere_and_unknown_policies_are_refused():
    with pytest.raises(ValueError, match="in all of its 40 points; leave it out"):
        Activations.from_arrays({"V1": X * np.nan}, nan="drop")
    with pytest.raises(ValueError, match="nan must be one of"):
        Activations.from_arrays({"V1": X}, nan="omit")
    halves = NAN.copy()
    halves[:, :4], rest = np.nan, np.where(np.arange(8)[:, None] < 4, 0.0, np.full((5, 8, 12), np.nan))
    with pytest.raises(ValueError, match="no example is finite in all areas"):
        Activations.from_arrays({"V1": halves, "V4": rest}, nan="drop")


@pytest.mark.parametrize("table_of", [capacity_table, separability_table])
def test_tables_take_a_plan_activations_or_a_path_and_name_what_else_they_got(table_of, acts):
    with pytest.raises(UsageError, match=r"expected activations or the path of their file, got dict; .*from_arrays"):
        table_of({"V1": X})
    with pytest.raises(UsageError, match=r"arguments must be one of layers, kinds, .*; got 'per_clas'"):
        table_of(acts, per_clas=3)
    with pytest.raises(InputError, match="does not exist"):
        table_of(Path("nowhere.h5"))
    with pytest.raises(UsageError, match="no layer matches 'IT'"):
        table_of(acts, layers=["IT"])


def test_a_plan_keeps_its_choices(acts):
    with pytest.raises(UsageError, match="a plan has its seed already; give them to plan_capacity"):
        capacity_table(plan_capacity(acts), seed=3)

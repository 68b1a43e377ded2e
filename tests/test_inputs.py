"""The public door: every function takes the same things, gives the same numbers for them, and refuses the same in one line.

A new public function has to be put in one of the tables below.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from dataclasses import fields, is_dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import manigeo
import manigeo.separability
from manigeo import theory
from manigeo.errors import InputWarning
from manigeo.inputs import as_array, class_codes, take_manifolds, take_points
from manigeo.randomness import generator, seed_sequence
from manigeo.separability.best import best_layer, concordance
from manigeo.separability.fuzziness import separation_fuzziness
from manigeo.separability.margins import one_versus_rest, pairs_of_classes
from manigeo.separability.means import fisher_ratio, nearest_mean_scores

# Every public function that takes data, with what makes a call quick.
OF_MANIFOLDS = {
    manigeo.manifold_capacity: {"n_draws": 10},
    manigeo.joint_capacity: {"n_draws": 4},
    manigeo.simulated_capacity: {"n_dichotomies": 50},
    manigeo.capacity_vs_M: {"sizes": [2, 4], "n_draws": 5},
    manigeo.total_dimension: {},
}
MATCHED = [manigeo.manifold_capacity, manigeo.joint_capacity, manigeo.simulated_capacity]  # take per_class
OF_POINTS = {
    manigeo.linear_probe: {"n_folds": 3},
    manigeo.neighbour_purity: {"k": (1, 3)},
    manigeo.cluster_agreement: {},
    nearest_mean_scores: {"n_folds": 3},
    fisher_ratio: {},
    separation_fuzziness: {},
    one_versus_rest: {},
    pairs_of_classes: {},
}
OF_ONE_MANIFOLD = {manigeo.frame_geometry: {"n_draws": 20}, manigeo.manifold_geometry: {"n_draws": 20}}
OF_PROFILES = {best_layer: {"n_resamples": 20}, concordance: {"n_resamples": 20}}
OF_NUMBERS = {theory.point_capacity: 1, theory.ball_capacity: 3, theory.ball_radius: 3}
OF_DATA = {**OF_MANIFOLDS, **OF_POINTS, **OF_ONE_MANIFOLD, **OF_PROFILES}
DRAWING = [f for f in OF_DATA if "rng" in inspect.signature(f).parameters]
# What takes files, plans and tables of results, or is a part of the above that takes arrays as these make them.
OTHERS = {
    "create_activations", "open_activations", "capacity_table", "plan_capacity", "separability_table",
    "plan_separability", "read_results", "write_results", "plot_estimators", "plot_geometry", "plot_memorization",
    "plot_fuzziness", "plot_progress", "plot_separability", "plot_sweep", "plot_transfer", "plot_weights", "summary",
    "kendall_w", "resampled_means", "gram_factor", "pooled_grams", "pooled_moments", "standardising",
    "weights_in_features", "stratified_folds", "class_averages", "wilson_interval", "nearest_neighbours",
    "unit_memorization", "exponential_line",
    "inner_products", "by_mean", "by_neighbours", "by_subspace", "votes", "plot_latent",
    "plan_similarity", "similarity_table", "plot_similarity", "representation_similarity",
    "plan_examples", "examples_table", "read_examples", "write_examples", "plot_examples", "plot_contact_sheet",
}  # fmt: skip


def functions_of(module) -> list:
    found = vars(module).values()
    return [f for f in found if inspect.isfunction(f) and f.__module__ == module.__name__ and f.__name__[0] != "_"]


def test_every_public_function_is_in_a_table_of_this_file():
    public = [getattr(manigeo, name) for name in manigeo.__all__]
    found = [f for f in public if inspect.isfunction(f)] + functions_of(theory)
    for module in pkgutil.iter_modules(manigeo.separability.__path__, "manigeo.separability."):
        found += functions_of(importlib.import_module(module.name))
    assert len(found) > 40
    assert {f.__name__ for f in found} == {f.__name__ for f in {**OF_DATA, **OF_NUMBERS}} | OTHERS


# ------------------------------------------------------------------------------------------------------- what is taken
def clouds(P: int = 4, M: int = 6, N: int = 8, seed: int = 0) -> list[np.ndarray]:
    """Whole numbers, so that every type holds the same points."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(-9, 9, N) + rng.integers(-9, 9, (M, N))).astype(np.float64) for _ in range(P)]


class Stored(Sequence):
    """Manifolds that stay in their file: read one at a time, of known shapes."""

    def __init__(self, held):
        self.held, self.reads = held, 0

    def __len__(self):
        return len(self.held)

    def __getitem__(self, index):
        self.reads += 1
        return self.held[index]

    @property
    def shapes(self):
        return [X.shape for X in self.held]


TABLES = {
    "tensor": torch.tensor,
    "tensor with a gradient": lambda X: torch.tensor(X, requires_grad=True),
    "bfloat16": lambda X: torch.tensor(X).bfloat16().double(),
    "nested list": lambda X: X.tolist(),
    "list of tensors": lambda X: [torch.tensor(row) for row in X],
    "DataFrame": lambda X: pd.DataFrame(X, index=np.arange(len(X))[::-1]),
    "DataFrame of mixed types": lambda X: pd.DataFrame(X).astype({0: int, 1: "Int64", 2: np.float32}),
    "int64": lambda X: X.astype(np.int64),
    "int8": lambda X: X.astype(np.int8),
    "big-endian": lambda X: X.astype(">f8"),
    "masked": np.ma.masked_array,
    "Fortran order": np.asfortranarray,
    "objects": lambda X: X.astype(object),
}
CONTAINERS = {
    "array": np.stack,
    "tensor": lambda Z: torch.tensor(np.stack(Z), requires_grad=True),
    "tuple": tuple,
    "generator": lambda Z: (X for X in Z),
    "dict": lambda Z: dict(zip("dcba", Z, strict=True)),
    "stored": Stored,
    "mixed types": lambda Z: [Z[0].astype(np.float32), Z[1].astype(int), *Z[2:]],
} | {f"list of {name}": lambda Z, f=f: [f(X) for X in Z] for name, f in TABLES.items()}


def numbers(result, without: Sequence[str] = ()) -> list:
    """All that a result holds, in one flat list, but for fields of these names."""
    if is_dataclass(result):
        names = [field.name for field in fields(result) if field.name not in without]
        return [x for name in names for x in numbers(getattr(result, name), without)]
    if isinstance(result, pd.DataFrame):
        return result.to_numpy().tolist()
    if isinstance(result, tuple | list):
        return [x for part in result for x in numbers(part, without)]
    return [result]


def assert_same(one, other, but: tuple = ()):
    """Equal in all that is of no type of ``but``."""
    one, other = ([x for x in numbers(result) if not isinstance(x, but)] for result in (one, other))
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("function", OF_MANIFOLDS, ids=lambda f: f.__name__)
def test_manifolds_have_the_same_numbers_in_every_container(function, container):
    options = OF_MANIFOLDS[function]
    assert_same(function(CONTAINERS[container](clouds()), **options), function(clouds(), **options))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("function", OF_POINTS, ids=lambda f: f.__name__)
def test_points_have_the_same_numbers_in_every_table(function, table):
    X, y, options = np.concatenate(clouds()), np.repeat(range(4), 6), OF_POINTS[function]
    assert_same(function(TABLES[table](X), y, **options), function(X, y, **options))


@pytest.mark.parametrize("table", TABLES)
def test_one_manifold_has_the_same_numbers_in_every_table(table):
    f, X, *others = TABLES[table], *clouds()
    around = X - np.round(X.mean(axis=0))
    assert_same(manigeo.frame_geometry(f(around), n_draws=20), manigeo.frame_geometry(around, n_draws=20))
    expected = manigeo.manifold_geometry(X, np.concatenate(others), n_draws=20)
    assert_same(manigeo.manifold_geometry(f(X), f(np.concatenate(others)), n_draws=20), expected)
    if table != "list of tensors":
        assert_same(best_layer(f(X), 20), best_layer(X, 20))


@given(
    P=st.integers(2, 5),
    M=st.integers(1, 5),
    N=st.integers(3, 9),
    seed=st.integers(0, 2**32 - 1),
    container=st.sampled_from(sorted(CONTAINERS.keys() - {"dict"})),
)
@settings(max_examples=60, deadline=None)
def test_what_is_taken_is_what_was_given(P, M, N, seed, container):
    given_points = clouds(P, M, N, seed)
    taken, flag = take_manifolds(CONTAINERS[container](given_points))
    assert (len(taken), flag) == (P, "")
    for X, expected in zip(taken, given_points, strict=True):
        np.testing.assert_array_equal(X, expected)
        assert X.dtype.kind == "f"


def test_booleans_and_low_precision_are_numbers():
    on = np.random.default_rng(0).integers(0, 2, (4, 6, 8)).astype(bool)
    for function, options in OF_MANIFOLDS.items():
        assert_same(function(on, **options), function(on.astype(float), **options))
    half = torch.tensor(clouds()[0]).bfloat16()
    np.testing.assert_array_equal(as_array(half), clouds()[0])
    X, y = np.concatenate(clouds()), np.repeat(range(4), 6)
    for function, options in OF_POINTS.items():
        assert_same(function(X.astype(np.float16), y, **options), function(X.astype(np.float32), y, **options))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_not_copied(dtype):
    Z = [X.astype(dtype) for X in clouds()]
    assert all(a is b for a, b in zip(take_manifolds(Z)[0], Z, strict=True))
    assert as_array(Z[0]) is Z[0]
    if dtype != np.float16:
        assert take_points(Z[0], range(6)).points is Z[0]


def test_stored_manifolds_are_read_when_they_are_looked_at():
    stored = Stored(clouds())
    taken, _ = take_manifolds(stored)
    assert stored.reads == 0
    assert taken.shapes == stored.shapes
    taken[2]
    assert stored.reads == 1


def test_stored_manifolds_are_checked_as_they_are_read():
    Z = clouds()
    Z[2][1, 3] = np.nan
    with pytest.raises(ValueError, match="manifold 2 holds 1 NaN or infinite entries, in 1 of its 6 points"):
        manigeo.manifold_capacity(Stored(Z))


# ------------------------------------------------------------------------------------------------------ bad input
def with_entry(value):
    def changed(Z):
        Z[1][0, :2] = value
        return Z

    return changed


BAD_MANIFOLDS = {
    "NaN": (with_entry(np.nan), r'manifold 1 holds 2 NaN or infinite entries, in 1 of its 6 points; .*pass nan="drop"'),
    "infinity": (with_entry(np.inf), "manifold 1 holds 2 NaN or infinite entries, in 1 of its 6 points"),
    "NaN of a named class": (
        lambda Z: dict(zip("abcd", with_entry(np.nan)(Z), strict=True)),
        "manifold 'b' holds 2 NaN",
    ),
    "a masked entry": (lambda Z: [np.ma.masked_equal(X, X[0, 0]) for X in Z], "manifold 0 holds .* NaN"),
    "other features": (lambda Z: [Z[0], Z[1][:, :5]], r"equal features, got \(6, 5\) for manifold 1 beside \(6, 8\)"),
    "no points": (lambda Z: [Z[0], Z[1][:0]], "got no points for manifold 1; leave it out"),
    "no features": (lambda Z: [X[:, :0] for X in Z], "got no features for manifold 0"),
    "rows alone": (lambda Z: np.concatenate(Z), r"got one array of shape \(24, 8\); pass a list, as in"),
    "images": (lambda Z: [X.reshape(6, 2, 4) for X in Z], r"got \(6, 2, 4\) for manifold 0; flatten each example"),
    "one DataFrame": (lambda Z: pd.DataFrame(Z[0]), "got one DataFrame; pass a list"),
    "a number": (lambda Z: 3, "got one int; pass a list"),
    "nothing": (lambda Z: None, "got one NoneType; pass a list"),
    "none": (lambda Z: [], "manifolds, got 0; pass one"),
    "words": (
        lambda Z: [Z[0], np.full((6, 8), "x")],
        "manifold 1 must be an array of real numbers, got ndarray of <U1",
    ),
    "a column of words": (
        lambda Z: [pd.DataFrame(X).assign(label="x") for X in Z],
        "manifold 0 must be .* got DataFrame of object; leave other columns out",
    ),
    "complex numbers": (lambda Z: [X + 1j for X in Z], "manifold 0 .* got complex numbers; give real and imaginary"),
    "ragged rows": (lambda Z: [[[1.0], [1.0, 2.0]]] * 2, "manifold 0 .* makes none; give rows of equal length"),
    "huge whole numbers": (lambda Z: [[[10**400, 1]]] * 2, "manifold 0 must be an array of real numbers"),
}


def refused(function, match, *args, **options) -> bool:
    """In one line, of ours; a warning would be an error here."""
    with pytest.raises(ValueError, match=match) as caught:
        inspect.unwrap(function)(*args, **options)  # unwrapped: a check of types would be quicker to refuse
    assert "\n" not in str(caught.value)
    return caught.value.__cause__ is None


@pytest.mark.parametrize("bad", BAD_MANIFOLDS)
@pytest.mark.parametrize("function", OF_MANIFOLDS, ids=lambda f: f.__name__)
def test_bad_manifolds_are_refused_in_one_line_that_names_them(function, bad):
    spoil, message = BAD_MANIFOLDS[bad]
    assert refused(function, message, spoil(clouds()), **OF_MANIFOLDS[function])


BAD_POINTS = {
    "NaN": (lambda X, y: (with_entry(np.nan)([X, X])[1], y), "points holds 2 NaN or infinite entries, in 1 of its 24"),
    "infinity": (
        lambda X, y: (with_entry(-np.inf)([X, X])[1], y),
        "points holds 2 NaN or infinite entries, in 1 of its 24",
    ),
    "a row": (lambda X, y: (X[0], y), r"points must be a \(points, features\) array .* got \(8,\)"),
    "no points": (lambda X, y: (X[:0], y[:0]), "points must be .* not empty"),
    "words": (lambda X, y: (X.astype(str), y), "points must be an array of real numbers"),
    "fewer labels": (lambda X, y: (X, y[:-1]), "a label for each of the 24 points, got 23 labels"),
    "one-hot labels": (lambda X, y: (X, np.eye(4)[y]), r"got shape \(24, 4\); of one-hot labels give labels.argmax"),
    "a missing label": (lambda X, y: (X, [None, *"abcd" * 5, "a", "b", "c"]), "1 of 24 labels are missing; leave"),
    "labels between": (lambda X, y: (X, y / 2), r"got 2 numbers that are not whole, such as 0.5; round them"),
    "one class": (lambda X, y: (X, y * 0), r"two classes or more apart, got one \(0\)"),
    "no label at all": (lambda X, y: (X, 3), r"labels must be a row, one for each point, got shape \(\)"),
}


@pytest.mark.parametrize("bad", BAD_POINTS)
@pytest.mark.parametrize("function", OF_POINTS, ids=lambda f: f.__name__)
def test_bad_points_and_labels_are_refused_in_one_line(function, bad):
    spoil, message = BAD_POINTS[bad]
    assert refused(function, message, *spoil(np.concatenate(clouds()), np.repeat(range(4), 6)), **OF_POINTS[function])


@pytest.mark.parametrize("function", [*OF_MANIFOLDS, *OF_POINTS, *OF_ONE_MANIFOLD], ids=lambda f: f.__name__)
def test_an_unknown_policy_for_nan_is_refused(function):
    assert refused(
        function, r"nan must be one of \('raise', 'drop'\), got 'ignore'", *arguments(function), nan="ignore"
    )


def arguments(function) -> tuple:
    if function in OF_MANIFOLDS:
        return (clouds(), [2]) if function is manigeo.capacity_vs_M else (clouds(),)
    if function in OF_POINTS:
        return np.concatenate(clouds()), np.repeat(range(4), 6)
    if function is manigeo.manifold_geometry:
        return clouds()[0], clouds()[1]
    if function is manigeo.frame_geometry:
        return (np.eye(3) - 1 / 3,)
    return (np.random.default_rng(0).random((2, 4, 5) if function is concordance else (4, 5)),)


@pytest.mark.parametrize("function", OF_ONE_MANIFOLD, ids=lambda f: f.__name__)
def test_bad_points_of_one_manifold_are_refused(function):
    others = [[[0.0]]] if function is manigeo.manifold_geometry else []
    assert refused(
        function,
        "points has NaN or infinite entries in all of its 2 points",
        [[np.inf], [1.0]][:1] * 2,
        *others,
        nan="drop",
    )
    assert refused(function, "points holds 1 NaN or infinite entries, in 1 of its 2 points", [[np.inf], [1.0]], *others)
    assert refused(function, "points must be an array of real numbers", [["x"]], *others)
    assert refused(function, r"points .*got.*\(3,\)", np.zeros(3), *others)


def test_a_background_of_other_features_is_refused():
    assert refused(
        manigeo.manifold_geometry, r"got \(6, 8\) and \(3,\); take both from one layer", clouds()[0], np.zeros(3)
    )
    assert refused(manigeo.manifold_geometry, "background holds 8 NaN", clouds()[0], np.full(8, np.nan))


def test_numbers_that_are_no_counts_are_refused():
    X, y = arguments(fisher_ratio)
    assert refused(manigeo.cluster_agreement, "n_seeds must be a whole number from 1 on, got 0", X, y, 0)
    assert refused(manigeo.cluster_agreement, "n_seeds must be a whole number from 1 on, got 1.5", X, y, 1.5)
    assert refused(pairs_of_classes, "most must be a whole number from 1 on, got 0", X, y, 0)
    assert refused(manigeo.linear_probe, "n_folds must be a whole number", X, y, 2.5)
    assert refused(best_layer, "per_class holds 1 NaN", [[0.0, np.nan], [1.0, 2.0]])
    assert refused(best_layer, r"must be a \(layers, classes\) array", [1.0, 2.0])
    assert refused(concordance, r"must be a \(rankings, layers, classes\) array", [1.0, 2.0])


# -------------------------------------------------------------------------------------------------------- NaN is left out
def spoilt(Z: list[np.ndarray]) -> list[np.ndarray]:
    """With a NaN in the first point of manifold 0, infinity in the last of manifold 2."""
    Z = [np.vstack([Z[0][:1], Z[0]]), Z[1], np.vstack([Z[2], Z[2][:1]]), *Z[3:]]
    Z[0][0, 3], Z[2][-1, 0] = np.nan, -np.inf
    return Z


@pytest.mark.parametrize(
    "container", [list, Stored, lambda Z: [torch.tensor(X) for X in Z]], ids=["list", "stored", "tensors"]
)
@pytest.mark.parametrize("function", OF_MANIFOLDS, ids=lambda f: f.__name__)
def test_points_that_are_not_finite_are_left_out_and_counted(function, container):
    r = function(container(spoilt(clouds())), **OF_MANIFOLDS[function], nan="drop")
    clean = function(clouds(), **OF_MANIFOLDS[function])
    flags = r.flag if not isinstance(r, pd.DataFrame) else r.pop("flag").unique().item()
    assert flags.split(";")[-1] == "dropped:2"
    if isinstance(r, pd.DataFrame):
        assert_same(r, clean.drop(columns="flag"))
    else:
        assert_same(
            [x for x in numbers(r) if not isinstance(x, str)], [x for x in numbers(clean) if not isinstance(x, str)]
        )


@pytest.mark.filterwarnings("ignore:.*dropped:manigeo.errors.InputWarning")
@pytest.mark.parametrize("function", OF_POINTS, ids=lambda f: f.__name__)
def test_points_without_numbers_or_label_are_left_out_and_counted(function):
    X, y = np.concatenate(spoilt(clouds())), np.repeat(list("abcd"), [7, 6, 7, 6]).astype(object)
    X, y = np.vstack([X, X[-1:]]), [*y, None]
    r = function(X, y, **OF_POINTS[function], nan="drop")
    clean = function(np.concatenate(clouds()), np.repeat(list("abcd"), 6), **OF_POINTS[function])
    if isinstance(r, np.ndarray):
        np.testing.assert_array_equal(r[np.isfinite(r)], clean)
    else:
        first = r[0] if isinstance(r, list) else r
        assert first.flag == "dropped:3"
        skip = (str, *([np.ndarray] if function in (manigeo.linear_probe, manigeo.neighbour_purity) else []))
        assert_same(
            [x for x in numbers(r) if not isinstance(x, skip)], [x for x in numbers(clean) if not isinstance(x, skip)]
        )
        if hasattr(first, "kept"):
            assert np.flatnonzero(~first.kept).tolist() == [0, 19, 26]
            assert first.kept.sum() == 24


@pytest.mark.parametrize("function", [nearest_mean_scores, fisher_ratio], ids=lambda f: f.__name__)
def test_a_result_without_a_flag_warns_of_what_is_left_out(function):
    X, y = np.concatenate(spoilt(clouds())), np.repeat(list("abcd"), [7, 6, 7, 6])
    with pytest.warns(InputWarning, match=f"{function.__name__}: dropped:2"):
        function(X, y, nan="drop")


def test_the_scores_of_points_that_are_left_out_are_nan():
    X, y = np.concatenate(spoilt(clouds())), np.repeat(list("abcd"), [7, 6, 7, 6])
    with pytest.warns(InputWarning):
        assert np.flatnonzero(np.isnan(nearest_mean_scores(X, y, nan="drop"))).tolist() == [0, 19]


def test_one_manifold_leaves_points_out_and_counts_them():
    X, *others = clouds()
    bad = np.vstack([np.full(8, np.nan), X])
    g = manigeo.manifold_geometry(bad, np.vstack([*others, bad[:1]]), n_draws=20, nan="drop")
    assert g.flag == "dropped:1;background_dropped:1"
    assert g.capacity == manigeo.manifold_geometry(X, np.vstack(others), n_draws=20).capacity
    around = X - X.mean(axis=0)
    assert manigeo.frame_geometry(np.vstack([bad[:1], around]), n_draws=20, nan="drop").flag == "dropped:1"


def test_a_manifold_of_nan_alone_is_refused_by_name():
    Z = clouds()
    Z[3][:] = np.nan
    assert refused(
        manigeo.manifold_capacity,
        "manifold 3 has NaN or infinite entries in all of its 6 points; leave it out",
        Z,
        nan="drop",
    )


# ------------------------------------------------------------------------------------------------------- extreme scales
@pytest.mark.parametrize("exponent", [-700, 700])
@pytest.mark.parametrize("function", OF_MANIFOLDS, ids=lambda f: f.__name__)
def test_no_scale_is_too_large_or_too_small_for_manifolds(function, exponent):
    scaled, plain = (function([2.0**e * X for X in clouds()], **OF_MANIFOLDS[function]) for e in (exponent, 0))
    if function is manigeo.total_dimension:
        assert (scaled.participation_ratio, scaled.flag) == (plain.participation_ratio, "")
    else:
        assert_same(scaled, plain)  # a power of two changes no digit


@pytest.mark.parametrize("exponent", [-1, 1])
@pytest.mark.parametrize(("size", "dtype"), [(700, np.float64), (100, np.float32)])
@pytest.mark.parametrize("function", OF_POINTS, ids=lambda f: f.__name__)
def test_no_scale_is_too_large_or_too_small_for_points(function, exponent, size, dtype):
    X, y, scale = np.concatenate(clouds()).astype(dtype), np.repeat(range(4), 6), dtype(2.0 ** (size * exponent))
    scaled, plain = function(scale * X, y, **OF_POINTS[function]), function(X, y, **OF_POINTS[function])
    if function is not manigeo.linear_probe:
        assert_same(scaled, plain)
        return
    np.testing.assert_array_equal(scaled.predicted, plain.predicted)
    for one, other in zip(scaled.classifiers, plain.classifiers, strict=True):
        np.testing.assert_array_equal(one.predict(scale * X), other.predict(X))


def test_what_has_a_scale_of_its_own_is_refused_beyond_it():
    X, y = arguments(fisher_ratio)
    assert refused(
        manigeo.frame_geometry, r"points reach 1e\+200, expected units of the centre norm", [[1e200], [-1e200]]
    )
    assert refused(manigeo.frame_geometry, r"draws must be finite.*1e\+200", [[0.0]], draws=[[1e200, 0.0], [0.0, 0.0]])
    assert refused(
        manigeo.linear_probe,
        "expected a length of about one with standardise=False",
        2.0**700 * X,
        y,
        3,
        standardise=False,
    )
    assert refused(theory.ball_capacity, "a ball has radius >= 0 .* 1e50 at most, got inf", np.inf, 3)


# ------------------------------------------------------------------------------------------------- unequal numbers of points
UNEQUAL = [25, 10, 25, 8, 25, 12]


def unequal() -> list[np.ndarray]:
    return [X[:n] for X, n in zip(clouds(6, 25, 30), UNEQUAL, strict=True)]


@pytest.mark.parametrize("function", MATCHED, ids=lambda f: f.__name__)
def test_unequal_manifolds_are_cut_to_the_smallest_and_flagged(function):
    options, left_out = OF_MANIFOLDS[function], sum(UNEQUAL) - 8 * len(UNEQUAL)
    r = function(unequal(), **options, seed=3)
    assert r.flag.split(";")[-2:] == ["unequal_points:8-25", f"left_out:{left_out}"]
    sample, _ = take_manifolds(unequal(), seed=np.random.SeedSequence(3))  # one sample for all functions
    assert [len(X) for X in sample] == [8] * 6
    again = function(sample, **options, seed=3)
    assert_same(
        [x for x in numbers(r) if not isinstance(x, str)], [x for x in numbers(again) if not isinstance(x, str)]
    )
    assert_same(function(unequal(), **options, seed=3, per_class=None), r)
    assert_same(function(Stored(unequal()), **options, seed=3), r)
    asked = function(unequal(), **options, seed=3, per_class=8)
    assert (asked.capacity, asked.flag) == (r.capacity, again.flag)


@pytest.mark.parametrize("function", MATCHED, ids=lambda f: f.__name__)
def test_all_points_are_taken_where_that_is_asked_for(function):
    r = function(unequal(), **OF_MANIFOLDS[function], per_class="all")
    assert r.flag.split(";")[-1] == "unequal_points:8-25"
    assert r.capacity != function(unequal(), **OF_MANIFOLDS[function]).capacity


@pytest.mark.parametrize("function", MATCHED, ids=lambda f: f.__name__)
def test_equal_manifolds_are_taken_as_they_are(function):
    options = OF_MANIFOLDS[function]
    results = [function(clouds(), **options, per_class=n) for n in ("smallest", None, "all", 6)]
    for r in results[1:]:
        assert_same(r, results[0])
    assert "points" not in results[0].flag


@pytest.mark.parametrize("function", MATCHED, ids=lambda f: f.__name__)
def test_more_points_than_there_are_are_refused_by_the_manifold_that_lacks_them(function):
    options = OF_MANIFOLDS[function]
    assert refused(
        function, "manifold 3 has 8 points, fewer than per_class=9; ask for 8", unequal(), **options, per_class=9
    )
    assert refused(function, "per_class must be a whole number from 1 on, got 0", unequal(), **options, per_class=0)
    assert refused(
        function,
        'per_class must be a number of points, "smallest" or "all", got \'most\'',
        unequal(),
        **options,
        per_class="most",
    )


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=6), seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_smaller_samples_lie_in_larger_ones_and_in_the_manifold(sizes, seed, data):
    Z = [mu + np.arange(n)[:, None] / 16 for mu, n in enumerate(sizes)]
    wanted = data.draw(st.integers(1, min(sizes)))
    root = np.random.SeedSequence(seed)
    small, _ = take_manifolds(Z, per_class=wanted, seed=root)
    large, _ = take_manifolds(Stored(Z), seed=root)
    for few, more, whole in zip(small, large, Z, strict=True):
        assert len(few) == wanted
        assert len(more) == min(sizes)
        assert set(few.ravel()) <= set(more.ravel()) <= set(whole.ravel())
        assert (np.diff(few.ravel()) > 0).all()  # in their order, each once


def test_every_point_is_as_likely_to_be_taken():
    X = np.arange(10.0)[:, None]
    counts = np.zeros(10)
    for seed in range(500):
        counts[take_manifolds([X, X[:3]], seed=np.random.SeedSequence(seed))[0][0].ravel().astype(int)] += 1
    assert np.square(counts - 150).sum() / (150 * 0.7) < 30  # chi^2 of 9 degrees of freedom, 1 - 4e-4


# -------------------------------------------------------------------------------------------------------------- labels
NAMES = {
    "gaps": [1, 17, 40, 41],
    "negative": [-7, -1, 0, 3],
    "whole floats": [0.0, 1.0, 2.0, 5.0],
    "strings": ["ant", "bee", "cat", "dog"],
    "an unsigned byte": np.array([0, 5, 9, 255], np.uint8),
    "a tensor": torch.tensor([0, 2, 3, 4]),
    "a Series": pd.Series(list("abcd"), index=[3, 2, 1, 0]),
    "a categorical": pd.Categorical(["low", "mid", "high", "top"], ["low", "mid", "high", "top", "unused"]),
    "dates": pd.to_datetime(["2020-01-01", "2020-01-02", "2021-01-01", "2022-01-01"]),
}


def labels_of(names, y):
    if isinstance(names, pd.Series):
        return names.iloc[y]
    return names[y] if hasattr(names, "__array__") else [names[i] for i in y]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("function", OF_POINTS, ids=lambda f: f.__name__)
def test_labels_of_any_kind_have_the_same_scores(function, names):
    y = np.random.default_rng(2).permutation(np.repeat(range(4), 6))
    X = np.concatenate(clouds())[np.argsort(np.argsort(y, kind="stable"), kind="stable")]
    r = function(X, labels_of(NAMES[names], y), **OF_POINTS[function])
    plain = function(X, y, **OF_POINTS[function])
    assert_same(*(numbers(result, without=("classes", "predicted")) for result in (r, plain)))
    if hasattr(r, "predicted"):
        assert r.predicted.tolist() == class_codes(NAMES[names])[1][plain.predicted].tolist()


@pytest.mark.parametrize("names", NAMES)
def test_predictions_come_back_in_the_users_labels(names):
    y = np.repeat(range(4), 6)
    X = 50.0 * np.eye(4)[y] + np.concatenate(clouds())[:, :4]
    given_labels = labels_of(NAMES[names], y)
    probe = manigeo.linear_probe(X, given_labels, 3)
    assert probe.predicted.tolist() == np.asarray(given_labels).tolist()
    assert set(probe.classifiers[0].predict(torch.tensor(X)).tolist()) == set(np.asarray(given_labels).tolist())


@given(st.lists(st.integers(-5, 5) | st.sampled_from(["a", "b", "zz"]), min_size=1, max_size=20))
def test_labels_are_what_their_codes_stand_for(labels):
    codes, classes = class_codes(labels)
    assert classes[codes].tolist() == labels
    assert sorted(set(codes.tolist())) == list(range(len(classes)))


def test_classes_are_in_sorted_order_and_categories_in_their_own():
    assert class_codes(["b", "a", "b"])[1].tolist() == ["a", "b"]
    codes, classes = class_codes(pd.Categorical(["mid", "low"], ["low", "mid", "high"]))
    assert (codes.tolist(), classes.tolist()) == ([1, 0], ["low", "mid"])
    column = pd.DataFrame({"y": [3, 1]})
    assert class_codes(column)[0].tolist() == class_codes(np.array([[3], [1]]))[0].tolist() == [1, 0]
    assert class_codes([1.0, np.nan, 2.0])[0].tolist() == [0, -1, 1]


# ----------------------------------------------------------------------------------------------------------- randomness
@pytest.mark.parametrize("function", DRAWING, ids=lambda f: f.__name__)
def test_seed_and_rng_are_taken_alike(function):
    options = {k: v for k, v in OF_DATA[function].items() if k != "sizes"}

    def call(**given_seed):
        return function(*arguments(function), **options, **given_seed)

    for same in ({"rng": 0}, {"seed": np.int64(0)}, {"seed": np.random.SeedSequence(0)}, {"rng": None, "seed": None}):
        assert_same(call(**same), call(seed=0))
    assert_same(call(rng=np.random.default_rng(5)), call(seed=np.random.default_rng(5)))
    seeds = "expected seed= or rng=, got both"
    assert refused(function, seeds, *arguments(function), **options, seed=0, rng=np.random.default_rng(0))
    for bad in (-1, 1.5, "0", np.random):
        assert refused(function, "seed must be a whole number from 0 on", *arguments(function), **options, seed=bad)


def test_every_function_that_draws_takes_both():
    assert len(DRAWING) == 12
    for function in DRAWING:
        assert {"seed", "rng"} <= set(inspect.signature(function).parameters), function


def test_a_generator_is_taken_as_it_is_and_each_call_draws_others():
    rng = np.random.default_rng(7)
    assert generator(rng=rng) is rng
    assert seed_sequence(rng=rng).entropy != seed_sequence(rng=rng).entropy
    assert seed_sequence(4).entropy == seed_sequence(rng=4).entropy == 4


# ----------------------------------------------------------------------------------------------------- theory of arrays
@pytest.mark.parametrize("function", OF_NUMBERS, ids=lambda f: f.__name__)
def test_theory_of_arrays_is_theory_of_their_elements(function):
    grid = np.meshgrid([0.0, 0.3, 2.0], [0, 1, 7.5], [0.0, 0.5])[: OF_NUMBERS[function]]
    expected = [function(*map(float, point)) for point in zip(*(x.ravel() for x in grid), strict=True)]
    assert all(type(x) is float for x in expected)
    for f in (np.asarray, torch.tensor, lambda x: x.tolist()):
        np.testing.assert_array_equal(function(*map(f, grid)).ravel(), expected)


def test_arrays_of_theory_broadcast_and_may_be_named():
    table = theory.ball_capacity(np.array([[0.5], [1.0]]), dimension=[1, 5, 9], kappa=0.2)
    assert table.shape == (2, 3)
    assert table[1, 2] == theory.ball_capacity(1.0, 9, 0.2)
    assert refused(lambda *given: theory.ball_capacity(*given), "dimension >= 0", [1.0, 2.0], -1)
    assert refused(theory.point_capacity, "kappa must be finite, got nan", np.nan)
    # nearly all of a density at zero: that of a point, less a share of the order of the dimension
    assert abs(theory.ball_capacity(1.0, 1e-6) - theory.point_capacity()) < 1e-5

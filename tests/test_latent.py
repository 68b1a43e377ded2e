"""Latent generalization: each classifier against a hand case and scikit-learn's, and the measure in a table."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from manigeo import Activations, separability_table
from manigeo.activations import StoredLayer
from manigeo.activations.scoring import Scoring
from manigeo.errors import UsageError
from manigeo.layerwise.separability import Fuzziness, Latent
from manigeo.manifolds import training_rows
from manigeo.separability import latent
from manigeo.separability.latent import by_mean, by_neighbours, by_subspace, inner_products

P, M = 3, 12


def clouds(n_features: int = 6, distance: float = 2.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Training points of three classes of different sizes far from the origin, and queries of each."""
    rng = np.random.default_rng(0)
    centers = 5.0 + distance * np.eye(P, n_features)
    return tuple([c + rng.standard_normal((m, n_features)) for c in centers] for m in (20, 9))


def test_the_nearest_mean_is_that_of_scikit_learn():
    training, queries = clouds()
    labels = np.repeat(np.arange(P), 20)
    expected = NearestCentroid().fit(np.concatenate(training), labels).predict(np.concatenate(queries))
    assert by_mean(inner_products(training, queries)).tolist() == expected.tolist()
    assert len(set(expected)) == P


@pytest.mark.parametrize("k", [1, 7])
def test_votes_of_neighbours_are_those_of_scikit_learn_but_for_ties(k):
    training, queries = (of[:2] for of in clouds())  # two classes and an odd k: no ties
    labels = np.repeat(np.arange(2), 20)
    fitted = KNeighborsClassifier(k, algorithm="brute").fit(np.concatenate(training), labels)
    assert (
        by_neighbours(inner_products(training, queries), k).tolist() == fitted.predict(np.concatenate(queries)).tolist()
    )


def test_all_points_vote_where_there_are_no_more_and_the_nearest_decides_a_tie():
    line = [np.array([[0.0]]), np.array([[4.0]])]
    assert by_neighbours(inner_products(line, [np.array([[1.0], [3.0]])]), k=30).tolist() == [0, 1]


def test_the_least_angle_is_that_to_an_axis_whatever_the_length():
    axes = [np.array([[2.0, 0.0], [-1.0, 0.0]]), np.array([[0.0, 1.0]])]
    queries = [np.array([[3.0, 1.0], [-30.0, -10.0], [0.1, -0.2]])]
    assert by_subspace(inner_products(axes, queries)).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("part", "answer"), [(0.005, 1), (0.02, 0)])
def test_a_direction_counts_from_one_percent_of_the_squares_on(part, answer):
    """Class 0 has this part of its squares along y, class 1 lies between its axes."""
    x, y = np.sqrt(1 - part), np.sqrt(part)
    training = [np.array([[x, 0.0, 0.0], [0.0, y, 0.0]]), np.array([[0.0, 1.0, 1.0]])]
    assert by_subspace(inner_products(training, [np.array([[0.0, 1.0, 0.0]])])).tolist() == [answer]


def test_subspaces_are_those_of_a_dense_decomposition():
    training, queries = clouds(40, distance=3.0)
    Q, scores = np.concatenate(queries), []
    for X in training:
        _, s, Vt = np.linalg.svd(X, full_matrices=False)
        rank = np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 0.99) + 1
        assert 1 < rank < len(X)
        scores.append(np.linalg.norm(Q @ Vt[:rank].T, axis=1))
    assert by_subspace(inner_products(training, queries)).tolist() == np.argmax(scores, axis=0).tolist()


def test_queries_are_held_a_few_at_a_time(monkeypatch):
    training, queries = clouds()
    whole = inner_products(training, queries)
    monkeypatch.setattr(latent, "_PANEL_BYTES", 1)
    assert len(list(latent._panels(queries))) == P
    np.testing.assert_allclose(inner_products(training, queries).queries, whole.queries, rtol=1e-14)
    np.testing.assert_allclose(whole.queries, np.concatenate(queries) @ np.concatenate(training).T, rtol=1e-14)
    assert [gram.shape for gram in whole.own] == [(20, 20)] * P


# ----------------------------------------------------------------------------------------------------------- the table
def corrupted(known: bool = True, noise: float = 0.1, permuted: int = 4) -> Activations:
    """Separate classes, of which a third of the training labels is permuted; the network answers half of the test."""
    columns = {"split": np.repeat(["train", "test"], P * M), "true_label": np.tile(np.repeat(range(P), M), 2)}
    examples = pd.DataFrame(columns).assign(index=range(2 * P * M))
    number = examples.groupby(["split", "true_label"]).cumcount()
    examples["permuted"] = (examples["split"] == "train") & (number < permuted)
    examples["train_label"] = (examples["true_label"] + examples["permuted"]) % P
    points = np.eye(P)[examples["true_label"]] + noise * np.random.default_rng(0).standard_normal((len(examples), P))
    answers = np.where(number % 2, examples["true_label"], (examples["true_label"] + 1) % P)
    outcomes = np.stack([answers, 0 * answers, 0 * answers], axis=1).astype(np.float32)
    scored = {"scoring": Scoring(n_outputs=P), "outcomes": outcomes} if known else {}
    layer = StoredLayer("h1", 0, "Linear", 0, (P,), "flatten", None, ())
    return Activations.in_memory(examples, list("abc"), [layer], {}, {"h1": points}, **scored)


def values(acts: Activations, **changes) -> pd.DataFrame:
    table = separability_table(acts, measures=[Latent(**({"k": 5, "folds": 3} | changes))])
    assert set(table["kind"]) == {"test"}
    return table[table["manifold"] == ""].set_index("metric")


def test_activations_without_outcomes_have_no_scores_and_say_so():
    acts = corrupted(known=False)
    assert (acts.scores, acts.unscored) == ({}, "no scores were recorded")


def test_classifiers_of_permuted_labels_find_what_the_network_does_not():
    rows = values(corrupted())
    for name in ("mean", "neighbours", "linear"):
        assert rows.loc[f"latent_{name}", "value"] == 1.0
        assert rows.loc[f"latent_{name}_gain", "value"] == 0.5
    assert rows.loc["network_accuracy", "value"] == 0.5
    assert rows.loc["latent_mean_chance", "value"] == pytest.approx(1 / P)
    assert (rows["flag"] == "").all()


def test_gains_are_not_known_where_the_answers_of_the_network_are_not():
    rows, known = values(corrupted(known=False)), values(corrupted())
    unknown = rows["flag"] == "no_scores"
    assert set(rows.index[unknown]) == {"network_accuracy", *(f"{name}_gain" for name in Latent.profiles)}
    assert rows.loc[unknown, "value"].isna().all()
    assert (rows.loc[unknown, "n"] == 0).all()
    pd.testing.assert_series_equal(rows.loc[~unknown, "value"], known.loc[~unknown, "value"])


def test_a_network_that_chooses_among_more_classes_is_not_compared_with():
    table = separability_table(corrupted(), measures=[Latent(k=5, folds=3)], n_classes=2)
    rows = table[table["manifold"] == ""].set_index("metric")
    gains = [f"{name}_gain" for name in Latent.profiles]
    assert rows.loc[gains, "value"].isna().all()
    assert set(rows.loc[[*gains, "network_accuracy"], "flag"]) == {"fewer_classes:2"}
    assert rows.loc[list(Latent.profiles), "value"].notna().all()


def test_outputs_are_known_by_the_classes_trained_on_and_not_by_those_drawn():
    table = separability_table(corrupted(), measures=[Fuzziness()], n_classes=2)
    assert set(table["flag"]) == {f"few_features:{P}"}


def test_the_training_set_is_grouped_by_the_labels_trained_on():
    examples = corrupted().examples
    rows = training_rows(examples, range(P), most=100)
    for label, members in rows.items():
        assert (examples["train_label"].iloc[members] == label).all()
        assert examples["permuted"].iloc[members].sum() == 4
        assert set(examples["split"].iloc[members]) == {"train"}
    fewer = training_rows(examples, range(P), most=5, seed=1)
    assert [len(members) for members in fewer.values()] == [5] * P
    assert all(set(few) <= set(rows[label]) for label, few in fewer.items())


def test_a_training_set_of_too_few_examples_is_flagged():
    rows = values(corrupted(), examples_per_label=2)
    assert set(rows["flag"]) == {"fewer_than_3_folds:2"}
    assert set(rows.index) == set(Latent.metrics)


def test_latent_generalization_without_test_examples_is_refused():
    with pytest.raises(
        UsageError, match="latent is measured on test examples, which are not among permuted: add the kind test"
    ):
        separability_table(corrupted(), kinds=["permuted"], measures=[Latent()])

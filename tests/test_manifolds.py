import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manigeo.manifolds import (
    ALL_KINDS,
    EVERY,
    KINDS,
    UNSEEN,
    check_shapes,
    class_means,
    classes_of,
    global_mean,
    kind_examples,
    matched_size,
    principal_directions,
    sample_rows,
    span_coordinates,
)


def example_table(train: int = 12, test: int = 5, classes: int = 3, permuted_every: int = 2) -> pd.DataFrame:
    """``train`` and ``test`` examples a class; every second training label is the next class's."""
    n = classes * (train + test)
    label = np.arange(n) % classes
    split = np.where(np.arange(n) < classes * train, "train", "test")
    permuted = (split == "train") & (np.arange(n) // classes % permuted_every == 0)
    return pd.DataFrame(
        {
            "index": np.arange(n),
            "split": split,
            "true_label": label,
            "train_label": np.where(permuted, (label + 1) % classes, label),
            "permuted": permuted,
        }
    )


def test_permuted_and_restored_are_the_same_images_under_two_labels():
    table = example_table()
    permuted, permuted_labels = kind_examples(table, "permuted")
    restored, restored_labels = kind_examples(table, "restored")
    assert permuted.tolist() == restored.tolist()
    assert (permuted_labels == (restored_labels + 1) % 3).all()


def test_the_kinds_share_out_training_and_test_examples():
    table = example_table()
    rows = {kind: set(kind_examples(table, kind)[0].tolist()) for kind in KINDS}
    assert rows["unpermuted"] | rows["permuted"] | rows["test"] == set(range(len(table)))
    assert not rows["unpermuted"] & rows["permuted"]
    assert not rows["test"] & (rows["unpermuted"] | rows["permuted"])


def test_validation_examples_belong_to_no_kind():
    table = example_table()
    table.loc[table["split"] == "test", "split"] = "validation"
    assert len(kind_examples(table, "test")[0]) == 0


def with_unseen(table: pd.DataFrame, classes: int = 2, each: int = 7) -> pd.DataFrame:
    """The table, and behind it examples of classes that were held out."""
    labels = np.repeat(table["true_label"].max() + 1 + np.arange(classes), each)
    unseen = pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "split": UNSEEN,
            "true_label": labels,
            "train_label": labels,
            "permuted": False,
        }
    )
    return pd.concat([table, unseen], ignore_index=True)


def test_unseen_examples_are_of_no_other_kind_and_grouped_by_their_label():
    table = with_unseen(example_table())
    rows, labels = kind_examples(table, UNSEEN)
    assert rows.tolist() == list(range(len(example_table()), len(table)))
    assert labels.tolist() == [3] * 7 + [4] * 7
    for kind in KINDS:
        assert [a.tolist() for a in kind_examples(table, kind)] == [
            a.tolist() for a in kind_examples(example_table(), kind)
        ]


def test_the_four_kinds_are_about_the_seen_classes_and_the_fifth_about_the_others():
    table = with_unseen(example_table())
    assert list(ALL_KINDS) == [*KINDS, UNSEEN, EVERY, "memorized", "typical", "control"]
    assert [classes_of(table, kind).tolist() for kind in ALL_KINDS[:5]] == [[0, 1, 2]] * 4 + [[3, 4]]
    assert [classes_of(example_table(), kind).tolist() for kind in ALL_KINDS[:5]] == [[0, 1, 2]] * 4 + [[]]


def test_samples_of_the_four_kinds_are_the_same_beside_unseen_classes():
    alone, together = example_table(), with_unseen(example_table())
    for kind in KINDS:
        before, after = (sample_rows(table, kind, 3, seed=5) for table in (alone, together))
        assert {label: rows.tolist() for label, rows in before.items()} == {
            label: rows.tolist() for label, rows in after.items()
        }


def test_a_sample_of_the_unseen_is_of_their_classes():
    table = with_unseen(example_table())
    sampled = sample_rows(table, UNSEEN, 3)
    assert list(sampled) == [3, 4]
    assert all((table["true_label"][rows] == label).all() for label, rows in sampled.items())


@pytest.mark.parametrize("classes", [None, range(5)])
def test_kinds_are_matched_over_the_classes_they_share(classes):
    table = with_unseen(example_table())
    size = matched_size(table, [*KINDS, UNSEEN], classes=classes)
    assert (size.classes, size.kinds, size.per_class) == ((0, 1, 2), KINDS, 5)
    assert size.excluded == {UNSEEN: (0, 1, 2)}
    size = matched_size(table, (UNSEEN,), classes=classes)
    assert (size.classes, size.kinds, size.per_class) == ((3, 4), (UNSEEN,), 7)


def test_classes_that_are_none_of_a_kinds_leave_it_out():
    size = matched_size(with_unseen(example_table()), KINDS, classes=[3, 4])
    assert (size.classes, size.kinds, size.excluded) == ((), (), dict.fromkeys(KINDS, ()))


def test_classes_of_an_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        classes_of(example_table(), "shuffled")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        kind_examples(example_table(), "shuffled")


def test_the_matched_size_is_that_of_the_smallest_class_of_any_kind():
    size = matched_size(example_table(train=12, test=5))
    assert (size.classes, size.per_class, size.limited_by) == ((0, 1, 2), 5, ("test", 0))
    assert size.kinds == KINDS
    assert matched_size(example_table(), cap=4).limited_by is None
    assert matched_size(example_table(), cap=4).per_class == 4


def test_a_kind_with_a_class_of_fewer_than_two_is_excluded_with_its_classes():
    table = example_table(test=2)
    size = matched_size(table.drop(table.index[-1]))  # the last test example is of class 2
    assert size.excluded == {"test": (2,)}
    assert size.kinds == ("unpermuted", "permuted", "restored")
    assert size.per_class == 6


@given(seed=st.integers(0, 1000), per_class=st.integers(2, 5))
def test_sampled_rows_are_distinct_members_of_their_class(seed, per_class):
    table = example_table()
    for kind in KINDS:
        rows, labels = kind_examples(table, kind)
        for label, sampled in sample_rows(table, kind, per_class, seed).items():
            assert len(set(sampled.tolist())) == per_class
            assert set(sampled.tolist()) <= set(rows[labels == label].tolist())


def test_a_sample_depends_on_the_seed_and_not_on_other_classes():
    table = example_table()
    without_last = table[table["true_label"] != 2].reset_index(drop=True)
    moved = {old: new for new, old in enumerate(np.flatnonzero(table["true_label"] != 2))}
    alone = sample_rows(without_last, "test", 3, seed=4)[0]
    together = sample_rows(table, "test", 3, seed=4)[0]
    assert alone.tolist() == [moved[row] for row in together]
    assert any(
        sample_rows(table, "test", 3, seed=4)[0].tolist() != sample_rows(table, "test", 3, seed=s)[0].tolist()
        for s in range(5, 9)
    )


def test_kinds_and_classes_are_sampled_apart():
    table = example_table()
    members = {kind: kind_examples(table, kind) for kind in KINDS}
    places = {
        (kind, label): tuple(np.searchsorted(members[kind][0][members[kind][1] == label], rows))
        for kind in KINDS for label, rows in sample_rows(table, kind, 3).items()
    }  # fmt: skip
    assert len({places[kind, label] for kind, label in places if kind == "test"}) > 1
    assert [places["permuted", c] for c in range(3)] != [places["restored", c] for c in range(3)]


def test_more_points_than_a_class_has_are_refused():
    with pytest.raises(ValueError, match="class 0 has 5 test examples, fewer than per_class=6"):
        sample_rows(example_table(), "test", 6)


def test_the_global_mean_weighs_samples_and_not_manifolds():
    manifolds = [np.zeros((3, 2), np.float32), np.ones((1, 2), np.float32)]
    assert global_mean(manifolds).tolist() == [0.25, 0.25]
    assert class_means(manifolds).tolist() == [[0, 0], [1, 1]]


@given(seed=st.integers(0, 10**6), points=st.integers(1, 12), dim=st.integers(1, 12), rank=st.integers(1, 12))
def test_span_coordinates_keep_inner_products_in_rank_many_columns(seed, points, dim, rank):
    rng = np.random.default_rng(seed)
    rank = min(rank, points, dim)
    S = rng.standard_normal((points, rank)) @ rng.standard_normal((rank, dim))
    coordinates = span_coordinates(S)
    assert coordinates.shape[1] <= rank  # fewer where the factors happen to be close to dependent
    # what the rank tolerance drops, 1e-12 of the largest eigenvalue each
    np.testing.assert_allclose(coordinates @ coordinates.T, S @ S.T, atol=1e-10 * np.square(S).sum())


def test_points_that_are_all_zero_have_rank_zero():
    assert span_coordinates(np.zeros((4, 3))).shape == (4, 0)


@given(seed=st.integers(0, 10**6), points=st.integers(1, 12), dim=st.integers(1, 12), rank=st.integers(1, 12))
def test_principal_directions_are_an_orthonormal_basis_of_the_span_with_spreads(seed, points, dim, rank):
    rng = np.random.default_rng(seed)
    rank = min(rank, points, dim)
    S = rng.standard_normal((points, rank)) @ rng.standard_normal((rank, dim))
    V, lengths = principal_directions(S)
    assert V.shape == (dim, len(lengths))
    np.testing.assert_allclose(V.T @ V, np.eye(len(lengths)), atol=1e-13)
    np.testing.assert_allclose(S @ V @ V.T, S, atol=1e-5 * np.linalg.norm(S))  # what the rank tolerance drops, its root
    gram = (S @ V).T @ (S @ V)
    np.testing.assert_allclose(gram, np.diag(lengths**2), atol=1e-13 * np.square(S).sum())


def test_points_that_are_all_zero_have_no_principal_directions():
    V, lengths = principal_directions(np.zeros((4, 3)))
    assert V.shape == (3, 0)
    assert lengths.shape == (0,)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3)], "two or more manifolds, got 1; pass one .* array for each class"),
        ([], "two or more manifolds, got 0"),
        ([(2, 3), (2, 4)], r"equal features, got \(2, 4\) for b beside \(2, 3\); take all of them from one layer"),
        ([(2, 3), (2, 3, 5)], r"got \(2, 3, 5\) for b; flatten each example"),
        ([(2, 3, 5), (4, 3, 5)], r"got \(2, 3, 5\) for a; flatten"),
        ([(3,), (3,)], r"got \(3,\) for a; flatten"),
        ([(2, 3), (0, 3)], "got no points for b; leave it out"),
        ([(2, 0), (2, 0)], "got no features for a"),
    ],
)
def test_arrays_that_are_no_manifolds_are_refused_by_their_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        check_shapes(shapes, ["a", "b"])

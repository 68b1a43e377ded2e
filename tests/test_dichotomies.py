from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from manigeo.capacity.dichotomies import random_dichotomy


@pytest.mark.parametrize("P", [2, 3, 4])
def test_every_labelling_with_both_signs_comes_equally_often(P):
    rng = np.random.default_rng(P)
    counts = Counter(tuple(random_dichotomy(rng, P)) for _ in range(2000))
    assert len(counts) == 2**P - 2
    assert all(set(labels) == {-1.0, 1.0} for labels in counts)
    expected = 2000 / len(counts)
    assert sum((n - expected) ** 2 for n in counts.values()) / expected < chi2.isf(1e-4, len(counts) - 1)


def test_labels_with_both_signs_are_the_ones_that_the_same_stream_draws():
    # so that results of many manifolds are those of earlier versions
    ours, plain = np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(50):
        np.testing.assert_array_equal(random_dichotomy(ours, 40), plain.choice([-1.0, 1.0], 40))

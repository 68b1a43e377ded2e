"""Statistics of paired examples: against examples drawn again one by one, and over simulated tests."""

import math

import numpy as np
import pytest

from manigeo_extract.interventions.paired import KNOWN, interaction, mean_difference, regained_share


def answers(n: int, shares: tuple[float, float, float], seed: int) -> list[np.ndarray]:
    """Trained, rewound and whole network: hits that go together, since an example is easy or hard for all three."""
    ease = np.random.default_rng(seed).random(n)
    return [(ease < share).astype(float) for share in shares]


def test_the_error_of_regained_is_that_of_examples_drawn_again():
    rng = np.random.default_rng(1)
    trained, rewound, whole = (rng.random((3, 400)) < np.array([[0.5], [0.6], [0.7]])).astype(float)
    found = regained_share(trained, rewound, whole)
    shares = []
    for _ in range(4000):
        i = rng.integers(400, size=400)
        shares.append((rewound - trained)[i].mean() / (whole - trained)[i].mean())
    low, high = np.quantile(shares, [0.1587, 0.8413])
    # quantiles of 2000 and 4000 draws: each end is known to 3.4 and 2.4 % of the half width, together to 4 %
    assert found["stderr"] == pytest.approx((high - low) / 2, rel=0.12)
    assert found["value"] == (rewound - trained).mean() / (whole - trained).mean()


def test_the_error_of_regained_is_the_spread_over_new_test_sets():
    rng = np.random.default_rng(2)
    found = [
        regained_share(*(rng.random((3, 900)) < np.array([[0.4], [0.5], [0.6]])).astype(float)) for _ in range(300)
    ]
    spread = np.subtract(*np.quantile([f["value"] for f in found], [0.8413, 0.1587])) / 2
    # of 300 estimates the half width is known to 6 %, and errors of a ratio with a loss of nine errors vary by 12 %
    assert np.median([f["stderr"] for f in found]) == pytest.approx(spread, rel=0.25)


def test_errors_of_the_loss_count_also_where_all_is_regained_with_certainty():
    trained, _, whole = answers(1000, (0.5, 0.6, 0.6), 0)
    assert regained_share(trained, whole, whole)["stderr"] == 0  # the same examples above and below
    other = np.random.default_rng(3).permutation(whole)
    naive = mean_difference(other, trained)["stderr"] / (whole - trained).mean()
    # independent of the gain, the loss of 10 errors adds a tenth of the share to the error
    assert regained_share(trained, other, whole)["stderr"] > naive


@pytest.mark.parametrize(("lost", "known"), [(15, False), (17, True)])
def test_a_loss_below_four_standard_errors_is_none(lost, known):
    n = 10_000
    trained = np.repeat([0.0, 1.0], [lost, n - lost])
    whole = np.ones(n)
    assert (lost / n > KNOWN * (whole - trained).std(ddof=1) / math.sqrt(n)) == known
    found = regained_share(trained, whole, whole)
    assert (found.get("flag", "") == "") == known
    assert math.isnan(found["value"]) != known


def test_what_got_better_since_and_single_examples_have_nothing_to_regain():
    better, worse = np.ones(100), np.repeat([0.0, 1.0], [50, 50])
    assert regained_share(better, better, worse)["flag"] == "nothing_lost"
    assert regained_share(np.zeros(1), np.ones(1), np.ones(1))["flag"] == "nothing_lost"


def test_the_interaction_is_the_drop_of_the_pair_less_those_of_its_layers():
    was, one, other, both = (np.random.default_rng(4).random((4, 50)) < 0.6).astype(float)
    drops = [mean_difference(was, now)["value"] for now in (one, other, both)]
    found = interaction(was, one, other, both)
    assert found["value"] == pytest.approx(drops[2] - drops[0] - drops[1], abs=1e-12)  # sums in another order
    by_example = one + other - was - both
    assert found["stderr"] == pytest.approx(by_example.std(ddof=1) / math.sqrt(50), rel=1e-12)

"""Training dynamics of single examples: cases by hand."""

import numpy as np
import pytest

from manigeo.per_example.dynamics import area_under_margin, cartography, epoch_learned, forgetting_events

# one example per line, one epoch per character: correct or not
HISTORIES = {
    "1111": (1, 0),
    "0111": (2, 0),
    "0101": (4, 1),
    "1010": (np.nan, 2),
    "0000": (np.nan, np.nan),
    "1101": (4, 1),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_epochs_learned_and_forgetting_are_those_counted_by_hand(history):
    correct = np.array([[c == "1"] for c in history])
    found = epoch_learned(correct, np.arange(1, 5))[0], forgetting_events(correct)[0]
    np.testing.assert_array_equal(found, HISTORIES[history])


def test_epochs_learned_are_named_by_the_epochs_that_were_recorded():
    assert epoch_learned(np.array([[False], [True], [True]]), np.array([1, 10, 40])).tolist() == [10]


def test_means_over_epochs_of_half_precision_are_those_of_doubles():
    margin = np.full((3000, 1), 30.0, np.float16)  # a sum in half precision would end at infinity
    assert area_under_margin(margin).tolist() == [30.0]
    found = cartography(np.array([[0.25], [0.75]], np.float16))
    assert (found.confidence[0], found.variability[0]) == (0.5, 0.25)

"""The root of a function of one variable, beside scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from manigeo.capacity.roots import root_between


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20.0), st.floats(0.01, 0.96))
def test_the_scale_of_any_loads_is_that_of_brents_method(seed, spread, share):
    loads = np.exp(np.random.default_rng(seed).normal(0, spread, size=50))
    ends = np.log(loads.min()) - 5, np.log(loads.sum() / (50 * share)) + 1

    def excess(log_q: float) -> float:
        return float((loads / (np.exp(log_q) + loads)).sum()) - 50 * share

    # both stop at 2e-12, absolute, or relative where logarithms are up to a hundred
    assert root_between(excess, *ends) == pytest.approx(brentq(excess, *ends), rel=5e-12, abs=5e-12)


def test_ends_of_the_same_sign_have_no_root_between():
    with pytest.raises(ValueError, match=r"different signs at 1 and 2, got 1 and 4"):
        root_between(lambda x: x**2, 1, 2)

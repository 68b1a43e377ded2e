"""Compiled functions: whoever waits for them is told, and what is declared is what a call needs."""

import numpy as np
from numba import njit

from manigeo.capacity import cavity, kernels, pivoting


def test_whoever_waits_for_compilation_is_told_once(monkeypatch):
    compiled = njit(lambda n: 2 * n)  # without a cache
    monkeypatch.setattr(kernels, "_KERNELS", [(compiled, "int64(int64)"), (compiled, "float64(float64)")])
    told = []
    for _ in range(2):
        kernels.compile_kernels(lambda: told.append("about 10 s"))
    assert told == ["about 10 s"]


def test_kernels_are_compiled_for_the_arguments_that_they_get():
    kernels.compile_kernels(lambda: None)
    before = [dispatcher.signatures for dispatcher, _ in kernels._KERNELS]
    multipliers, _ = pivoting.nonnegative_least_squares(np.eye(3), np.ones((2, 3)))
    cavity._mean_inverse_on_support(np.eye(3), multipliers)
    assert [dispatcher.signatures for dispatcher, _ in kernels._KERNELS] == before

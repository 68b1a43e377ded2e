"""The checks of types and shapes that all other tests run under."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError

import tests
from manigeo.dimension import total_dimension
from tests import CHECKED_CALLS, CHECKED_MADE, check

if TYPE_CHECKING:
    from collections import OrderedDict


def doubled(x: int, y: "OrderedDict[str, int] | None" = None) -> int:
    return 2 * x if x < 9 else "many"  # type: ignore[return-value]


def product(A: Float[np.ndarray, "n k"], B: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "n m"]:
    return A @ B if len(A) < 9 else B  # type: ignore[return-value]


def test_wrong_arguments_and_results_are_refused():
    assert check(doubled)(2, y={"any": 1}) == 4  # type: ignore[arg-type]
    for wrong in ("2", 9):
        with pytest.raises(BeartypeCallHintViolation):
            check(doubled)(wrong)  # type: ignore[arg-type]


def test_sizes_of_one_name_are_equal_in_arguments_and_result():
    multiply = check(product)
    assert multiply(np.ones((2, 3)), np.ones((3, 4))).shape == (2, 4)
    for sizes in ((2, 3, 4, 4), (9, 3, 3, 4)):
        with pytest.raises(BeartypeCallHintViolation):
            multiply(np.ones(sizes[:2]), np.ones(sizes[2:]))


def halves(A: Float[np.ndarray, "n k"]) -> Iterator[Float[np.ndarray, "m k"]]:
    yield from np.array_split(A, 2)


def test_a_generator_is_checked_when_it_is_called_and_by_its_own_sizes():
    split = check(halves)

    def joined(A: Float[np.ndarray, "n k"], other: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "n k"]:
        return np.concatenate([check(product)(half, np.eye(len(other))) for half in split(A)])

    assert check(joined)(np.ones((4, 3)), np.ones((3, 4))).shape == (4, 3)
    with pytest.raises(TypeCheckError):
        split(np.ones(3))


def test_the_package_is_checked():
    with pytest.raises(BeartypeCallHintViolation):
        total_dimension([np.ones((3, 2))], share="most")  # type: ignore[arg-type]


def test_every_test_checks_the_first_calls_anew(monkeypatch):
    monkeypatch.setattr(tests, "_test", tests._test)
    later = check(doubled)
    assert {later(1) for _ in range(CHECKED_CALLS)} == {2}
    assert later(1.5) == 3.0  # type: ignore[arg-type]
    tests.begin_test()
    with pytest.raises(BeartypeCallHintViolation):
        later(1.5)  # type: ignore[arg-type]


def test_every_test_checks_the_first_that_are_made_of_a_function_within_another(monkeypatch):
    monkeypatch.setattr(tests, "_test", tests._test)

    def made():
        def twice(x: int) -> int:
            return 2 * x

        return check(twice)

    first = [made() for _ in range(CHECKED_MADE)]
    assert made()(1.5) == 3.0
    tests.begin_test()
    for function in (*first, made()):
        with pytest.raises(BeartypeCallHintViolation):
            function(1.5)

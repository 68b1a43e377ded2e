"""Tests, named by what they state. Shapes and types of every annotated function are checked while they run."""

import functools
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as everywhere in Python


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its types checked, made at its first call: most are never called by one process of the tests."""

    @functools.wraps(function)
    def first(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(_checked(function))
        return made[0](*args, **kwargs)

    made: list[Callable[..., Any]] = []
    return first

"""Tests, named by what they state. Shapes and types of every annotated function are checked while they run.

The import hook of jaxtyping asks for ``jaxtyping.jaxtyped`` to decorate each function. Its own wrapper makes two functions
at import, and binds the arguments twice at every call, which doubled the time of the tests. Here the check is made at the
first call, by beartype, with jaxtyping's memory of sizes only where an annotation names shapes; and in every test the first
calls of a function are checked, since a loop calls with one type what it calls a million times. Of a function within a
function, which is made anew at each call, the first made in each test are checked: a check takes longer to make than most of
them to run.
"""

import collections
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CHECKED_CALLS = 50  # of each function in each test
CHECKED_MADE = 3  # of each function within a function in each test
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as everywhere in Python
_with_sizes = jaxtyping.jaxtyped(typechecker=None)
_of_generators = jaxtyping.jaxtyped(typechecker=_checked)  # which would check their arguments when sizes are another's
_test = 0
_made: collections.Counter[Any] = collections.Counter()


def begin_test() -> None:
    """Begin to count calls anew."""
    global _test
    _test += 1
    _made.clear()


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its types checked; what checks is made at its first call, since a process calls few of them all."""
    if "<locals>" in function.__qualname__:
        code = getattr(function, "__code__", None)
        _made[code] += 1
        if _made[code] > CHECKED_MADE:
            return function
    made: list[Callable[..., Any]] = []
    test = calls = -1

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        nonlocal test, calls
        test, calls = (test, calls + 1) if test == _test else (_test, 1)
        if calls > CHECKED_CALLS or jaxtyping.config.jaxtyping_disable or hasattr(function, "__no_type_check__"):
            return function(*args, **kwargs)
        if not made and not sys.is_finalizing():
            made.append(_checking(function))
        return made[0](*args, **kwargs) if made else function(*args, **kwargs)

    return checked


def _checking(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, refusing arguments and results that are not of its types."""
    types = {name: _resolved(function, annotation) for name, annotation in inspect.get_annotations(function).items()}
    function.__annotations__ = types
    shapes = any("jaxtyping" in repr(annotation) for annotation in types.values())
    if shapes and inspect.isgeneratorfunction(function):
        return _of_generators(function)
    return _with_sizes(_checked(function)) if shapes else _checked(function)


def _resolved(function: Callable[..., Any], annotation: Any) -> Any:
    """The type that an annotation in quotes names; anything where it was imported for the eyes of a type checker alone."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)
    except NameError:
        return Any


def _decorated(target: Any, *, typechecker: Any = None) -> Any:
    """The function, or the data class by its ``__init__``, with its types checked."""
    is_class, is_data = inspect.isclass(target), dataclasses.is_dataclass(target)
    if not is_class:
        return check(target)
    if is_data and "__init__" in vars(target):
        target.__init__ = check(target.__init__)
    return target


vars(jaxtyping)["jaxtyped"] = lambda **settings: functools.partial(_decorated, **settings)

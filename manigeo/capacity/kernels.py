"""Compiled functions: which there are, how they are compiled, and compiling them before they are needed.

A kernel is compiled when it is first called, once per machine and user, and kept in numba's cache. What costs seconds of
compilation and is avoided in kernels: assignment to slices, reductions and allocation of numpy, an argument that is a
literal in one call and a variable in another (two versions of the function), and wrappers that make an inner function
callable from Python.
"""

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import event

_KERNELS: list[tuple[Any, str]] = []
_KERNEL: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# Sums may be regrouped, which lets inner loops use vector instructions; NaN and infinity keep their meaning.
_INNER = _KERNEL | {"fastmath": {"reassoc", "contract"}, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

inner_kernel: Callable[[Any], Any] = njit(**_INNER)
"""Decorator of a function that kernels of its own module call."""


def kernel(signature: str = "") -> Callable[[Any], Any]:
    """Decorate a function that is called from Python, with arguments of ``signature``, as numba writes it; without one it
    is seldom needed, and not compiled before that.

    Its body opts out of run-time type checks (``@no_type_check``), which numba cannot compile.
    """

    def compiled(function: Any) -> Any:
        dispatcher = njit(cache=True, **_KERNEL)(function)
        if signature:
            _KERNELS.append((dispatcher, signature))
        return dispatcher

    return compiled


def compile_kernels(tell: Callable[[], None]) -> None:
    """Compile the kernels that every capacity needs, or find them in the cache; ``tell`` is called, once, if they are not
    there.

    >>> compile_kernels(lambda: None)
    """
    import manigeo.capacity.cavity  # noqa: F401  kernels register when their modules are imported

    with event.install_listener("numba:compile", _Once(tell)):
        for dispatcher, signature in _KERNELS:
            dispatcher.compile(signature)


class _Once(event.Listener):
    """Listener that calls ``tell`` at the first event."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, event: Any) -> None:
        if self._tell:
            self._tell()
            self._tell = None

    def on_end(self, event: Any) -> None: ...

"""Signals that end a command: what is finished is saved, as after Ctrl-C; a second Ctrl-C ends it at once.

Python hears a signal between two steps of its own, so that a long call of compiled code is finished first. A thread hears
every one at once, since the kernels and libraries that take long let other threads run.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(KeyboardInterrupt):
    """Exception of a signal that asks the process to end; handled as Ctrl-C is, but for ``exit_code``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def exit_code_of(error: BaseException) -> int:
    """Exit code after an interrupt, which click may have made another exception of: 130 where no signal says otherwise.

    >>> exit_code_of(Terminated(15)), exit_code_of(KeyboardInterrupt())
    (143, 130)
    """
    first = error if isinstance(error, Terminated) else error.__context__
    return first.exit_code if isinstance(first, Terminated) else 130


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Terminated` at the first of SIGINT, SIGTERM or SIGHUP within the block; end at a SIGINT that follows.

    Other signals that follow leave time to save: a terminal that closes sends several. A signal that was ignored (``nohup``)
    stays so. Within another thread than the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or os.name == "nt":
        yield
        return
    heard = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    handler = _once()
    before = {number: signal.signal(number, handler) for number in heard}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_the_second, args=(reading, set(heard)), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        os.close(writing)
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _once() -> Callable[[int, FrameType | None], None]:
    heard: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1:
            raise Terminated(number)

    return handler


def _end_at_the_second(reading: int, ending: set[int]) -> None:
    """Listen to the signals of the process until the other end of the pipe is closed."""
    heard = 0
    while received := os.read(reading, 1):
        heard += received[0] in ending
        if heard > 1 and received[0] == signal.SIGINT:
            os._exit(128 + signal.SIGINT)
    os.close(reading)

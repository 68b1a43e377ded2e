"""Errors on a user's side, as one line and an exit code.

Exit codes of every command: 0 done, 1 failure, 2 usage, 3 input incomplete or incompatible, 130 interrupted.

>>> issubclass(InputError, ManigeoError), InputError.exit_code
(True, 3)
"""

from collections.abc import Iterable

_LONGEST, _END = 2000, 800  # characters of a message, and of its end, where the remedy stands


class ManigeoError(Exception):
    """Failure that a user can understand: its message is the one line to print.

    Of a message that quotes a file's cell or name of any length the middle is left out.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(in_short(str(message)))


class UsageError(ManigeoError):
    """Error of a request for what does not exist or does not go together; asking differently helps."""

    exit_code = 2


class InputError(ManigeoError):
    """Error of a file or data set that is missing, incomplete, damaged or does not fit the others."""

    exit_code = 3


def check_ranges(settings: object, *ranges: tuple[str, bool, str]) -> None:
    """Raise :class:`UsageError` at the first field of ``settings`` that is not valid: (name, valid, what is expected)."""
    for name, valid, expected in ranges:
        if not valid:
            raise UsageError(f"{name} must be {expected}, got {getattr(settings, name)!r}")


class InputWarning(UserWarning):
    """Warning that the data are not what the function is meant for, or that some were left out; its numbers are there."""


def check_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a name that is none of the choices.

    Raises :class:`UsageError` with all of them.

    >>> check_choice("labels", "randm", ("random", "one_vs_rest"))
    Traceback (most recent call last):
    manigeo.errors.UsageError: labels must be one of random, one_vs_rest; got 'randm'
    """
    known = tuple(choices)
    if value not in known:
        raise UsageError(f"{what} must be one of {', '.join(known)}; got {value!r}")


def names_of(what: str, given: object) -> tuple[str, ...]:
    """Names, or globs, from one or a row of them.

    Raises :class:`UsageError` for what is no text: a number, or the thing that has the name.

    >>> names_of("layers", "h*"), names_of("layers", ["h1", "h2"])
    (('h*',), ('h1', 'h2'))
    """
    several = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for name in several:
        if not isinstance(name, str):
            raise UsageError(f"{what} must be named by text, as in {what}=['fc1', 'conv*'], got {type(name).__name__}")
    return several


def in_short(text: str) -> str:
    """Leave the middle out of a message that is longer than a screen.

    >>> len(in_short("a" * 2000)), len(in_short("a" * 20_000))
    (2000, 2005)
    """
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _END]} ... {text[-_END:]}"


def one_line(error: BaseException, most: int = 300) -> str:
    """Shorten the message of an exception to one line: a damaged file may put anything into it.

    >>> one_line(ValueError("two\\nlines")), one_line(MemoryError())
    ('two lines', 'MemoryError')
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"  # without number and path
    return shorten(" ".join(text.split()) or type(error).__name__, most)


def shorten(text: str, most: int) -> str:
    """Cut a text after ``most`` characters, and mark the cut with three dots.

    >>> shorten("a" * 1000, 10)
    'aaaaaaaaaa...'
    """
    return text if len(text) <= most else f"{text[:most]}..."

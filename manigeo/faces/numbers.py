"""Numbers with their errors as text."""

import math

NOTHING = "\N{EN DASH}"  # where there is no number or word


def number(value: float, digits: int = 4) -> str:
    """A few digits, without a point where it is not needed; a dash for what is missing.

    >>> number(0.08333333), number(30.0), number(1e-7, 2)
    ('0.08333', '30', '1e-07')
    """
    return f"{value:.{digits}g}" if value == value else NOTHING


def measured(value: float, stderr: float = math.nan, digits: int | None = None, figures: int = 2) -> tuple[str, str]:
    """A number and its error: with ``digits`` after the point, or to as many ``figures`` of the error; without an error, two
    figures more.

    >>> measured(0.13001, 0.0044), measured(0.13001, 0.0044, figures=1), measured(30.0)
    (('0.1300', '± 0.0044'), ('0.130', '± 0.004'), ('30', ''))
    >>> measured(0.13001, 0.0044, digits=2), measured(math.nan, 1.0)
    (('0.13', '± 0.00'), ('–', ''))
    """
    known = 0 < stderr < math.inf and math.isfinite(value)
    if digits is None and known:
        digits = figures - 1 - math.floor(math.log10(stderr))
        if not -2 <= digits <= 8:
            return number(value, figures + 2), f"± {number(stderr, figures)}"
        digits = max(digits, 0)
    if digits is None or value != value:
        return number(value, figures + 2), ""
    return f"{value:.{digits}f}", f"± {stderr:.{digits}f}" if stderr == stderr else ""


def cell(value: float, stderr: float = math.nan, digits: int | None = None, figures: int = 2) -> str:
    """A number and its error in one piece.

    >>> cell(0.5, 0.01), cell(0.5, digits=3)
    ('0.500 ± 0.010', '0.500')
    """
    return " ".join(filter(None, measured(value, stderr, digits, figures)))

"""Root of a function of one variable, for those whose import of ``scipy.optimize`` would take longer than all their work."""

from collections.abc import Callable

_ATOL = 2e-12  # of the place, which is a logarithm or of order one; relative where it is larger
_STEPS = 200  # bisection alone needs 60


def root_between(f: Callable[[float], float], low: float, high: float) -> float:
    r"""Place where the continuous ``f`` vanishes between ``low`` and ``high``, at which its signs differ.

    .. math:: x = \frac{a f(b) - b f(a)}{f(b) - f(a)}

    by false position, the value at an end that stays being halved (Illinois; Dowell & Jarratt 1971, BIT 11, 168); every
    fourth step bisects. Right to 2e-12, absolute or relative.

    Raises ``ValueError`` where the signs are the same.

    >>> round(root_between(lambda x: x**3 - 2, 0.0, 2.0), 9)
    1.25992105
    """
    a, b, at_a, at_b = float(low), float(high), f(low), f(high)
    if at_a * at_b > 0:
        raise ValueError(
            f"expected values of different signs at {low:.4g} and {high:.4g}, got {at_a:.4g} and {at_b:.4g}"
        )
    side = 0
    for step in range(1, _STEPS):
        if at_b == 0 or abs(b - a) <= _ATOL * max(1.0, abs(b)):
            return b
        x = (a * at_b - b * at_a) / (at_b - at_a) if step % 4 else (a + b) / 2
        at_x = f(x)
        if at_x * at_b < 0:
            a, at_a, side = b, at_b, 0
        else:
            at_a, side = (at_a / 2 if side else at_a), 1
        b, at_b = x, at_x
    return b

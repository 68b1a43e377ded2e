r"""Closed forms of mean-field capacity: points in general position and L2 balls.

Gardner (1988) for points; Chung, Lee & Sompolinsky (2016, 2018) for balls. They are the oracles of the tests and the
curves one lays over measured geometry. Notation: :math:`Dt_0` is the standard normal measure, :math:`\chi_D` the
density of the norm of a standard normal vector in :math:`D` dimensions.

All take numbers, which give a number, or arrays (or lists, tensors), which are broadcast as in numpy.

>>> point_capacity(0.0), ball_capacity(0.0, 3)  # a ball of radius 0 is a point
(2.0, 2.0)
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import special

from manigeo.inputs import as_array

# Fourth powers of more overflow, and a ball below one over it is a point, to all digits.
_LARGEST = 1e50
_INTEGRAL_RTOL, _INTEGRAL_ATOL = 1e-6, 1e-12
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_HALVINGS = 60
_NEAR_ZERO = 1e-14  # of the scale on which a mean over draws changes


def _elementwise(f: Callable[..., float]) -> Callable[..., Any]:
    """f of numbers as one of arrays that broadcast; numbers go in and come out as they are."""
    by_element = np.vectorize(f, otypes=[float])

    @wraps(f)
    def of_arrays(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if all(np.ndim(x) == 0 for x in given):
            return f(*args, **kwargs)
        arrays = [as_array(x, "values") for x in given]
        return by_element(*arrays[: len(args)], **dict(zip(kwargs, arrays[len(args) :], strict=True)))

    return of_arrays


def _phi(x: Any) -> Any:
    return np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)


def _second_moment_below(k: Any) -> Any:
    r""":math:`\int_{-\infty}^{k} Dt_0\,(k - t_0)^2 = (1 + k^2)\,\Phi(k) + k\,\varphi(k)`."""
    return (1 + k * k) * special.ndtr(k) + k * _phi(k)


@_elementwise
def point_capacity(kappa: float = 0.0) -> float:
    r"""Capacity of the perceptron for points in general position, at margin ``kappa``.

    .. math:: \alpha_0^{-1} = (1 + \kappa^2)\,\Phi(\kappa) + \kappa\,\varphi(\kappa)

    Gardner (1988), J. Phys. A 21, 257.

    >>> point_capacity(0.0)
    2.0
    >>> point_capacity([0.0, 1.0]).round(3).tolist()
    [2.0, 0.52]
    """
    _check_margin(kappa)
    return _reciprocal(float(_second_moment_below(kappa)))


def _over_chi(f: Callable[[np.ndarray], np.ndarray], dimension: float, scale: float) -> float:
    """Mean of ``f(|t|)`` over a standard normal vector t of ``dimension`` dimensions; f changes over lengths of
    ``scale``."""
    half = dimension / 2
    low, high = np.sqrt(2 * special.gammaincinv(half, 1e-16)), np.sqrt(2 * special.gammainccinv(half, 1e-16))
    start = max(float(low), min(_NEAR_ZERO * min(scale, 1.0), float(high) / 2))
    below = special.gammainc(half, start**2 / 2)  # where f is as at zero

    def weighted(u: np.ndarray) -> np.ndarray:
        """The density of log t, smooth however small the dimension is, times f."""
        t = np.exp(u)
        return np.exp(dimension * u - t**2 / 2 - special.gammaln(half) - (half - 1) * np.log(2)) * f(t)

    with np.errstate(all="ignore"):
        value, error = _integral(weighted, float(np.log(start)), float(np.log(high)))
        value += float(below * f(np.array([start]))[0]) if below else 0.0
    # known no better than this at radii and dimensions that are far from those of any manifold
    return value if error <= _INTEGRAL_RTOL * abs(value) + _INTEGRAL_ATOL else np.nan


def _integral(f: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> tuple[float, float]:
    """An integral and its error, which the caller judges: by 16 points of Gauss an interval, halving those whose halves have
    another sum."""
    value, error, left = 0.0, 0.0, np.array([low])
    width, sums = high - low, _gauss(f, left, high - low)
    for _ in range(_HALVINGS):
        width /= 2
        lefts = np.concatenate([left, left + width])
        halves = _gauss(f, lefts, width)
        better = halves.reshape(2, -1).sum(axis=0)
        change = np.abs(better - sums)
        open_ = ~(change <= _INTEGRAL_ATOL + 1e-11 * abs(value + better.sum()))
        value, error = value + float(better[~open_].sum()), error + float(change[~open_].sum())
        if not open_.any():
            return value, error
        left, sums = lefts[np.tile(open_, 2)], halves[np.tile(open_, 2)]
    return value + float(sums.sum()), np.inf


def _gauss(f: Callable[[np.ndarray], np.ndarray], left: Float[np.ndarray, " intervals"], width: float) -> np.ndarray:
    """Sums of Gauss over intervals of one width, from their left ends."""
    t = left[:, None] + width / 2 * (1 + _NODES)
    return width / 2 * (f(t.ravel()).reshape(t.shape) @ _WEIGHTS)


def _reciprocal(x: float) -> float:
    return 1.0 / x if x else np.inf


def _check_margin(kappa: float) -> None:
    if not abs(kappa) <= _LARGEST:
        raise ValueError(f"kappa must be finite, got {kappa}; 0 is no margin")


def _check_ball(radius: float, dimension: float, kappa: float) -> None:
    _check_margin(kappa)
    if not (0 <= radius <= _LARGEST and 0 <= dimension <= _LARGEST):
        raise ValueError(f"a ball has radius >= 0 and dimension >= 0, 1e50 at most, got {radius} and {dimension}")


@_elementwise
def ball_capacity(radius: float, dimension: float, kappa: float = 0.0) -> float:
    r"""Capacity of L2 balls of ``radius`` (in units of the centre norm) in ``dimension`` dimensions (real, >= 0).

    .. math:: \alpha_B^{-1} = \int \chi_D(t)\,dt \Big\{ \int_{\kappa - t/R}^{\kappa + tR} Dt_0
              \frac{(tR + \kappa - t_0)^2}{1 + R^2} + \int_{-\infty}^{\kappa - t/R} Dt_0\,[(t_0 - \kappa)^2 + t^2] \Big\}

    The first integral is over draws whose anchor lies on the ball's surface, the second over those that every point of
    the ball supports. Radius or dimension 0 is a point; NaN where the integral is not found to six digits. Chung, Lee &
    Sompolinsky (2018), Phys. Rev. X 8, 031003.

    >>> round(ball_capacity(1.0, 5), 9)  # 2 / (D + 1)
    0.333333333
    >>> ball_capacity([[0.5], [1.0]], [1, 5]).round(3).tolist()  # two radii, two dimensions
    [[1.258, 0.577], [1.0, 0.333]]
    """
    _check_ball(radius, dimension, kappa)
    if radius <= 1 / _LARGEST or dimension == 0:
        return point_capacity(kappa)

    def inverse_given(t: np.ndarray) -> np.ndarray:
        outer, inner = kappa + t * radius, kappa - t / radius
        # int_inner^outer Dt0 (outer - t0)^2, in closed form
        touching = (1 + outer**2) * (special.ndtr(outer) - special.ndtr(inner))
        touching += outer * _phi(outer) - (2 * outer - inner) * _phi(inner)
        embedded = _second_moment_below(inner) + 2 * (kappa - inner) * _first_moment_below(inner)
        embedded += ((kappa - inner) ** 2 + t**2) * special.ndtr(inner)
        return touching / (1 + radius**2) + embedded

    return _reciprocal(_over_chi(inverse_given, dimension, radius))


def _first_moment_below(k: Any) -> Any:
    r""":math:`\int_{-\infty}^{k} Dt_0\,(k - t_0) = k\,\Phi(k) + \varphi(k)`."""
    return k * special.ndtr(k) + _phi(k)


@_elementwise
def ball_radius(radius: float, dimension: float, kappa: float = 0.0) -> float:
    r"""Manifold radius :math:`R_M` of an L2 ball: below its own where many draws are supported by its inside.

    .. math:: R_M^2 = R^2 (1 - p_s) + \mathrm{E}\Big[\frac{t^2}{(\kappa - t_0)^2};\; t_0 < \kappa - t/R\Big],
              \qquad p_s = \Pr[t_0 < \kappa - t/R]

    >>> round(ball_radius(1.0, 1), 4)
    0.9046
    """
    _check_ball(radius, dimension, kappa)
    if radius <= 1 / _LARGEST or dimension == 0:
        return 0.0
    from scipy.integrate import quad  # slow to import, and seldom needed

    def tail_from(start: float) -> float:
        f, options = lambda s: _phi(kappa - s) / s**2, {"epsabs": 1e-13, "epsrel": 1e-10, "limit": 400}
        return float(quad(f, start, np.inf, full_output=1, **options)[0])  # what is not found shows in the outer one

    def squared_given(t: np.ndarray) -> np.ndarray:
        tails = np.array([tail_from(start) for start in t / radius])
        return radius**2 * (1 - special.ndtr(kappa - t / radius)) + t**2 * tails

    return float(np.sqrt(_over_chi(squared_given, dimension, radius)))

r"""Closed forms of mean-field capacity: points in general position and L2 balls.

Gardner (1988) for points; Chung, Lee & Sompolinsky (2016, 2018) for balls. They are the oracles of the tests and the
curves one lays over measured geometry. Notation: :math:`Dt_0` is the standard normal measure, :math:`\chi_D` the
density of the norm of a standard normal vector in :math:`D` dimensions.
"""

import numpy as np
from scipy import integrate, special, stats


def _phi(x: float) -> float:
    return float(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))


def _second_moment_below(k: float) -> float:
    r""":math:`\int_{-\infty}^{k} Dt_0\,(k - t_0)^2 = (1 + k^2)\,\Phi(k) + k\,\varphi(k)`."""
    return float((1 + k * k) * special.ndtr(k) + k * _phi(k))


def point_capacity(kappa: float = 0.0) -> float:
    r"""Capacity of the perceptron for points in general position, at margin ``kappa``.

    .. math:: \alpha_0^{-1} = (1 + \kappa^2)\,\Phi(\kappa) + \kappa\,\varphi(\kappa)

    Gardner (1988), J. Phys. A 21, 257.

    >>> point_capacity(0.0)
    2.0
    """
    return 1.0 / _second_moment_below(kappa)


def _over_chi(f, dimension: float) -> float:
    """Mean of ``f(|t|)`` over a standard normal vector t of ``dimension`` dimensions."""
    chi = stats.chi(dimension)
    low, high = float(chi.ppf(1e-16)), float(chi.isf(1e-16))
    value, _ = integrate.quad(lambda t: chi.pdf(t) * f(t), low, high, epsabs=1e-12, epsrel=1e-10, limit=400)
    return float(value)


def _check_ball(radius: float, dimension: float) -> None:
    if not (radius >= 0 and dimension >= 0):
        raise ValueError(f"a ball has radius >= 0 and dimension >= 0, got {radius} and {dimension}")


def ball_capacity(radius: float, dimension: float, kappa: float = 0.0) -> float:
    r"""Capacity of L2 balls of ``radius`` (in units of the centre norm) in ``dimension`` dimensions (real, >= 0).

    .. math:: \alpha_B^{-1} = \int \chi_D(t)\,dt \Big\{ \int_{\kappa - t/R}^{\kappa + tR} Dt_0
              \frac{(tR + \kappa - t_0)^2}{1 + R^2} + \int_{-\infty}^{\kappa - t/R} Dt_0\,[(t_0 - \kappa)^2 + t^2] \Big\}

    The first integral is over draws whose anchor lies on the ball's surface, the second over those that every point of
    the ball supports. Radius or dimension 0 is a point. Chung, Lee & Sompolinsky (2018), Phys. Rev. X 8, 031003.

    >>> round(ball_capacity(1.0, 5), 9)  # 2 / (D + 1)
    0.333333333
    """
    _check_ball(radius, dimension)
    if radius == 0 or dimension == 0:
        return point_capacity(kappa)

    def inverse_given(t: float) -> float:
        outer, inner = kappa + t * radius, kappa - t / radius
        # int_inner^outer Dt0 (outer - t0)^2, in closed form
        touching = (1 + outer**2) * (special.ndtr(outer) - special.ndtr(inner))
        touching += outer * _phi(outer) - (2 * outer - inner) * _phi(inner)
        embedded = _second_moment_below(inner) + 2 * (kappa - inner) * _first_moment_below(inner)
        embedded += ((kappa - inner) ** 2 + t**2) * special.ndtr(inner)
        return touching / (1 + radius**2) + embedded

    return 1.0 / _over_chi(inverse_given, dimension)


def _first_moment_below(k: float) -> float:
    r""":math:`\int_{-\infty}^{k} Dt_0\,(k - t_0) = k\,\Phi(k) + \varphi(k)`."""
    return float(k * special.ndtr(k) + _phi(k))


def ball_radius(radius: float, dimension: float, kappa: float = 0.0) -> float:
    r"""Manifold radius :math:`R_M` of an L2 ball: below its own where many draws are supported by its inside.

    .. math:: R_M^2 = R^2 (1 - p_s) + \mathrm{E}\Big[\frac{t^2}{(\kappa - t_0)^2};\; t_0 < \kappa - t/R\Big],
              \qquad p_s = \Pr[t_0 < \kappa - t/R]

    >>> round(ball_radius(1.0, 1), 4)
    0.9046
    """
    _check_ball(radius, dimension)
    if radius == 0 or dimension == 0:
        return 0.0

    def squared_given(t: float) -> float:
        inner = kappa - t / radius
        tail, _ = integrate.quad(lambda s: _phi(kappa - s) / s**2, t / radius, np.inf, epsabs=1e-13, epsrel=1e-10)
        return radius**2 * (1 - special.ndtr(inner)) + t**2 * tail

    return float(np.sqrt(_over_chi(squared_given, dimension)))

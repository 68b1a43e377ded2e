r"""Capacity of manifolds without structure: the floor that a capacity is read against.

M points in general position per manifold, P manifolds, enough features; the mean of all samples is subtracted. Each point
is one inequality, so that for many manifolds :math:`\alpha = 2/M` (Cover 1965). For few, labels are rarely balanced, and
an unbalanced dichotomy of points that add up to zero asks for more dimensions. With :math:`a` points labelled + and
:math:`b` labelled -, the vectors of their :math:`n = a + b = PM` projections on a normal that separates them are the cone

.. math:: K = \{x \in \mathbb R^n : \textstyle\sum_i x_i = 0,\; y_i x_i \ge 0\},

and they take :math:`n - 1 - \delta(K)` dimensions, :math:`\delta` its statistical dimension (Amelunxen, Lotz, McCoy &
Tropp 2014). The projection of a Gaussian :math:`g` on K is :math:`x_i = y_i [y_i (g_i + \lambda)]_+`, with the multiplier
:math:`\lambda` of the sum. It minimises the squared length, and to order 1/n

.. math:: \delta = G(\lambda) - \frac{a v(\lambda) + b v(-\lambda)}{a \Phi(\lambda) + b \Phi(-\lambda)}, \qquad
          G(\lambda) = a H(\lambda) + b H(-\lambda) = \min, \quad v = H - h^2,

.. math:: h(x) = \mathrm E [g + x]_+ = \varphi(x) + x \Phi(x), \qquad
          H(x) = \mathrm E [g + x]_+^2 = (1 + x^2) \Phi(x) + x \varphi(x) .

Joint capacity is the mean over dichotomies and simulated capacity their median, with the width :math:`\sqrt n / 2` of each:

.. math:: \frac P{\alpha_\mathrm{joint}} = \langle n - 1 - \delta \rangle, \qquad
          \Big\langle \Phi\Big(\frac{P/\alpha_\mathrm{sim} - (n - 1 - \delta)}{\sqrt n / 2}\Big) \Big\rangle = \tfrac12 .

Mean field with the rule ``"auto"`` counts dimensions as simulation does (:mod:`manigeo.capacity.crossing`): its values for P
manifolds of orthogonal points, P = 3 to 30 and M = 2 to 40, are within 2 % of this (5 % below at P = 2, 3 % at M = 2). Its
other rules are means, and know nothing of labels. Their values were computed, again and again in tests, and are within 2 %
of (3 % at P = 2, 5 % at M = 2 and 3)

.. math:: \frac1{\alpha} = \frac M2 \Big[1 + \Big(1 - \frac1M\Big) \Big(\frac{c_1}P + \frac{c_2}{P^2}\Big)\Big].
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, ndtr

from manigeo.capacity.roots import root_between

# c_1 and c_2 of mean field, for its rules for the centres
_MEAN_FIELD = {"reference": (2 / np.pi, 0.6), "keep": (1 / np.pi, 0.21)}
ESTIMATORS = ("auto", *_MEAN_FIELD, "joint", "simulated")


def unstructured_capacity(
    n_points: int, kappa: float = 0.0, n_manifolds: int | None = None, estimator: str = "auto"
) -> float:
    """Capacity that ``estimator`` gives ``n_manifolds`` manifolds of ``n_points`` points without structure, at margin 0.

    ``estimator``: ``"joint"``, ``"simulated"``, or mean field by its rule for the centres, ``"auto"`` (the value of
    simulation), ``"reference"`` or ``"keep"``. Joint and simulated are right to 1 % where there are 8 points
    or more in all, two or more per manifold (4 % at the least, two manifolds of two points). Auto is in the metric that the
    manifolds leave each other; where these share no direction at all it does nothing and has the floor of keep. Without
    ``n_manifolds`` it is the limit of many, 2/M. NaN at other margins, where there is no such bound: it depends on the
    radius.

    Raises ``ValueError`` for an estimator that is none of these, and for fewer than two manifolds.

    >>> unstructured_capacity(20)
    0.1
    >>> [round(unstructured_capacity(20, n_manifolds=5, estimator=e), 4) for e in ("auto", "joint", "simulated")]
    [0.0927, 0.0914, 0.0927]
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}")
    if n_manifolds is not None and n_manifolds < 2:
        raise ValueError(f"n_manifolds must be 2 or more, got {n_manifolds}")
    if kappa != 0:
        return np.nan
    return 2 / n_points if n_manifolds is None else _of_few(n_points, n_manifolds, estimator)


@lru_cache(maxsize=1024)
def _of_few(M: int, P: int, estimator: str) -> float:
    if estimator in _MEAN_FIELD:
        c1, c2 = _MEAN_FIELD[estimator]
        return 2 / M / (1 + (1 - 1 / M) * (c1 / P + c2 / P**2))
    positive = np.arange(1.0, P)  # manifolds labelled +; the two constant labellings are none of them
    logarithms = -gammaln(positive + 1) - gammaln(P - positive + 1)  # of binomial coefficients, but for a constant
    weights = np.exp(logarithms - logarithms.max())
    weights /= weights.sum()
    wanted = P * M - 1 - _statistical_dimension(M * positive, M * (P - positive))
    if estimator == "joint":
        return float(P / (weights @ wanted))
    width = np.sqrt(P * M) / 2
    return float(P / root_between(lambda n: weights @ ndtr((n - wanted) / width) - 0.5, 0, P * M))


def _statistical_dimension(
    a: Float[np.ndarray, " dichotomies"], b: Float[np.ndarray, " dichotomies"]
) -> Float[np.ndarray, " dichotomies"]:
    r"""Statistical dimension of the cones of a points on one side and b on the other, with sum zero."""
    shift = np.zeros(len(a))
    for _ in range(20):  # Newton's method, on a gradient that rises everywhere; the most unbalanced takes 10 steps
        shift -= (a * _first(shift) - b * _first(-shift)) / (a * ndtr(shift) + b * ndtr(-shift))
    variance = a * (_second(shift) - _first(shift) ** 2) + b * (_second(-shift) - _first(-shift) ** 2)
    return a * _second(shift) + b * _second(-shift) - variance / (a * ndtr(shift) + b * ndtr(-shift))


def _first(x: Float[np.ndarray, " dichotomies"]) -> Float[np.ndarray, " dichotomies"]:
    """h, the mean of a rectified Gaussian of mean x."""
    return _density(x) + x * ndtr(x)


def _second(x: Float[np.ndarray, " dichotomies"]) -> Float[np.ndarray, " dichotomies"]:
    """H, its mean square."""
    return (1 + x**2) * ndtr(x) + x * _density(x)


def _density(x: Float[np.ndarray, " dichotomies"]) -> Float[np.ndarray, " dichotomies"]:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)

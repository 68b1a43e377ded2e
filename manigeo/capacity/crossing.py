r"""Number of dimensions that separates half of the dichotomies, from the mean over them that mean field gives.

Simulated capacity is :math:`P / N_c`, and in :math:`N_c` dimensions one half of all dichotomies is separable: a median.
Mean field, as joint capacity, is a mean over them. The number of dimensions that a dichotomy :math:`y` wants depends on
which manifolds it puts together, through what two manifolds do to each other beyond the metric that all others leave. To
first order in their inner products :math:`K_{\mu\nu} = Z_\mu H_{\setminus\mu\nu} Z_\nu^\top`,

.. math:: N_y = N + \sum_{\mu \ne \nu} A_{\mu\nu}\, y_\mu y_\nu, \qquad
          A_{\mu\nu} = -\langle a_\mu \rangle^\top K_{\mu\nu} \langle a_\nu \rangle,
          \qquad \langle a_\mu \rangle = \mathrm E[a]_{b \sim N(0, K_\mu)},

by the envelope theorem: the squared length of a projection is the largest value of :math:`2 b \cdot a - a^\top K a` over
:math:`a \ge 0`, and for manifolds that are independent otherwise its derivative by the correlation of their fields b
vanishes. In terms of the whole metric :math:`Z_\mu H_{\setminus\mu\nu} Z_\nu^\top = (1 + K_\mu W_\mu)\, Z_\mu H Z_\nu^\top
(1 + W_\nu K_\nu)`. With the width of points in general position, of which half are active
(:mod:`manigeo.capacity.unstructured`), the crossing is at the n where

.. math:: \Big\langle \Phi\Big(\frac{n - N_y}{\sqrt{N/2}}\Big) \Big\rangle_y = \tfrac12

over the dichotomies that are not constant. :math:`N_y` is skewed to large numbers: manifolds that add up to zero are
hard to separate where one side has few of them. The median is below the mean, by 1 to 5 % with ten classes, less than 1 %
with thirty. Nothing here is fitted: on layers of ten classes :math:`y^\top A y` correlates by .87 to .95 with :math:`N_y`
as measured for each of 511 dichotomies, and is a tenth to a third too narrow. In 92 samples of layers
(``tests/bench/real_layers.py``) it takes the mean error against simulation from 2.3 to 1.4 %, in 30 of five classes from 9.2
to 1.6 %.
"""

import itertools

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from manigeo.capacity.cavity import Cavity, rows_response
from manigeo.capacity.roots import root_between
from manigeo.capacity.span import PooledPoints
from manigeo.randomness import stream

_ALL_UP_TO = 12  # manifolds: 2047 dichotomies up to their sign
_DRAWN = 4096  # of more manifolds; their median is known to .1 % of N or better
_STREAM = 9_203_041_501  # of these: they are the same for all data


def crossing_ratio(points: PooledPoints, inside: Cavity) -> float:
    """The number of dimensions in which half of the dichotomies are separable, by the mean number that they want; 1 where
    none is wanted, and where there are too few to separate half. A dichotomy wants one dimension at least (or the mean, if
    that is less), and at most all."""
    N = inside.degrees_of_freedom
    if not N > 0 or inside.saturated:
        return 1.0
    A, y = _interactions(points, inside), _dichotomies(len(points.coordinates))
    wanted = np.clip(N + ((y @ A) * y).sum(axis=1), min(1.0, N), max(points.rank, N))
    return _crossing(wanted, np.sqrt(N / 2)) / N


def _interactions(points: PooledPoints, inside: Cavity) -> Float[np.ndarray, "manifolds manifolds"]:
    """A of the module's equation; outside the leading directions the centres alone have inner products that are known."""
    rows = [rows_response(K, W, a) for K, W, a in zip(inside.grams, inside.forms, inside.multipliers, strict=True)]
    anchors = np.stack([a @ F for a, F in zip(rows, points.coordinates, strict=True)])
    centers = np.stack([F[-1] for F in points.coordinates])
    of_centers = np.array([a[-1] for a in rows])
    outside = np.outer(of_centers, of_centers) * (points.center_gram - centers @ centers.T)
    A = -(anchors @ inside.metric @ anchors.T + inside.rest_metric * outside)
    np.fill_diagonal(A, 0.0)
    return A


def _dichotomies(P: int) -> Float[np.ndarray, "dichotomies manifolds"]:
    """All that are not constant, up to their sign; of many manifolds some, drawn."""
    if P <= _ALL_UP_TO:
        signs = np.array(list(itertools.product([1.0, -1.0], repeat=P - 1)))[1:]
        return np.column_stack([np.ones(len(signs)), signs])
    y = stream(_STREAM).choice([-1.0, 1.0], size=(_DRAWN, P))
    return y[np.abs(y.sum(axis=1)) < P]


def _crossing(wanted: Float[np.ndarray, " dichotomies"], width: float) -> float:
    """The n of the module's last equation."""

    def excess(n: float) -> float:
        return float(ndtr((n - wanted) / width).mean()) - 0.5

    low, high = wanted.min(), wanted.max()
    return float(root_between(excess, low, high)) if excess(low) < 0 < excess(high) else float((low + high) / 2)

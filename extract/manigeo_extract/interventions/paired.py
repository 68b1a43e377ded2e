r"""Comparisons of several networks on the same examples, which are paired: most of what examples differ in cancels.

With :math:`h = 1` for an example that a network answers by its label and 0 otherwise; the trained network is the one
without a letter, and a, b, ab are those with one layer, the other, or both exchanged:

.. math::
    \mathrm{interaction} = \langle h - h_{ab} \rangle - \langle h - h_a \rangle - \langle h - h_b \rangle,
    \qquad
    \mathrm{regained} = \frac{\langle h' - h \rangle}{\langle h_e - h \rangle}

where the network of epoch e has what the trained one h has lost, and h' is the rewound one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from manigeo.manifolds import standard_error
from manigeo.randomness import stream

Hits = Float[np.ndarray, " n"]
KNOWN = 4.0  # a loss is known from this many of its standard errors on
_RESAMPLES = 2000
_CENTRAL = (0.15865525393145707, 0.8413447460685429)  # of a normal distribution, one standard deviation either way


def mean_difference(was: Hits, now: Hits) -> dict[str, Any]:
    """Mean of ``was - now`` over examples, with its standard error.

    >>> mean_difference(np.array([1.0, 1.0]), np.array([0.0, 1.0]))
    {'value': 0.5, 'stderr': 0.5}
    """
    return {"value": float((was - now).mean()), "stderr": float(standard_error(was - now))}


def interaction(was: Hits, one: Hits, other: Hits, both: Hits) -> dict[str, Any]:
    """Accuracy lost with both layers exchanged beyond the sum of what is lost with each, with its standard error.

    Above 0, either layer does in place of the other; below 0, what they hold is lost with each.

    >>> interaction(np.ones(4), np.ones(4), np.ones(4), np.zeros(4))["value"]
    1.0
    """
    return mean_difference(one + other - was, both)


def regained_share(trained: Hits, rewound: Hits, whole: Hits, seed: int = 0) -> dict[str, Any]:
    """Accuracy that the rewound network regains of that which the trained one has lost since ``whole``.

    The standard error is half the width of the central 68 % of bootstrap samples of the examples; numerator and
    denominator share these. NaN with the flag ``nothing_lost`` unless the loss is above zero by :data:`KNOWN` of its
    standard errors.

    >>> trained, whole = np.repeat([0.0, 1.0], [40, 60]), np.ones(100)
    >>> regained_share(trained, np.repeat([0.0, 1.0], [20, 80]), whole)["value"]
    0.5
    >>> regained_share(whole, whole, whole)["flag"]
    'nothing_lost'
    """
    gain, loss = rewound - trained, whole - trained
    error = standard_error(loss)
    if not loss.mean() > KNOWN * error:  # an error that is not known (one example) makes it unknown, too
        return {"value": math.nan, "flag": "nothing_lost"}
    pairs, counts = np.unique(np.stack([gain, loss], axis=1), axis=0, return_counts=True)
    # examples with the same pair are alike: resampling them is drawing how many there are of each of at most 9 pairs
    drawn = stream(seed).multinomial(len(gain), counts / len(gain), size=_RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (drawn @ pairs[:, 0]) / (drawn @ pairs[:, 1])
    low, high = np.nanquantile(shares, _CENTRAL)
    return {"value": float(gain.mean() / loss.mean()), "stderr": float((high - low) / 2)}

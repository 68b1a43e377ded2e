r"""Separation fuzziness: the spread within classes over that between them, weighed by the directions of the class means.

He & Su (2023), "A law of data separation in deep learning", PNAS 120, e2221704120: from one layer of a trained network to
the next, fuzziness falls by about the same factor, so that its logarithm is linear in the depth. Divided by the number of
classes it is NC1 of Papyan, Han & Donoho (2020), the variability that neural collapse takes away.
"""

import numpy as np
from jaxtyping import Float, Real

from manigeo.inputs import Labels, Points, take_points, warn_of
from manigeo.manifolds import gram_coordinates

_EQUAL_RTOL = 1e-7  # of the spread: means that are closer differ by the rounding of float32


def separation_fuzziness(points: Points, labels: Labels, *, nan: str = "raise") -> Float[np.ndarray, " classes"]:
    r"""Spread within classes over that between them, in the span of the class means; each class's part, whose mean is D.

    .. math:: D = \mathrm{tr}(S_w S_b^+), \qquad S_w = \frac1n \sum_i (x_i - m_{y_i})(x_i - m_{y_i})^\top, \quad
              S_b = \frac1n \sum_c n_c (m_c - m)(m_c - m)^\top

    NC1 is D / C. The pseudo-inverse is that of the C x C Gram matrix of the means, however many features there are. D is
    the same after any invertible linear map in the span of the means. Means of few points differ by chance, which bounds
    D from above: compare at one number of examples per class. All are infinite where the means are equal.

    ``points`` (points, features) and ``labels`` may be of any origin, classes are in sorted order; ``nan`` is ``"raise"``,
    or ``"drop"``, which warns with the number (:mod:`manigeo.inputs`). Raises ``ValueError`` for one class, and NaN or
    infinite entries.

    >>> X, y = np.array([[0.0], [2.0], [4.0], [6.0]]), [0, 0, 1, 1]  # S_w = 1, S_b = 4
    >>> round(float(separation_fuzziness(X, y).mean()), 12)
    0.25
    """
    sample = take_points(points, labels, nan=nan)
    warn_of(sample.flag, "separation_fuzziness")
    X, codes, sizes = sample.points, sample.codes, np.bincount(sample.codes)
    X = X - X.mean(axis=0, dtype=np.float64)
    means = np.stack([X[codes == c].mean(axis=0) for c in range(len(sizes))])
    B = np.sqrt(sizes / len(codes))[:, None] * means
    if np.square(B).sum() <= _EQUAL_RTOL**2 * np.square(X).sum() / len(X):
        return np.full(len(sizes), np.inf)
    U = gram_coordinates(B @ B.T)  # U L^1/2, of B = U L^1/2 V' and S_b = V L V'
    whitened = (X - means[codes]) @ (B.T @ (U / np.square(U).sum(axis=0) ** 1.5))  # B' U L^-1 = V L^-1/2
    return len(sizes) / len(codes) * np.bincount(codes, np.square(whitened).sum(axis=1))


def exponential_line(
    depths: Real[np.ndarray, " layers"], fuzziness: Float[np.ndarray, " layers"]
) -> tuple[float, float]:
    """Pearson's r of log fuzziness with depth, and the factor from one layer to the next by least squares.

    The law of separation holds where r is near -1. NaN of fewer than three layers, and where all are equal.

    >>> r, factor = exponential_line(np.arange(4), 8.0 * 0.5 ** np.arange(4))
    >>> round(r, 12), round(factor, 12)
    (-1.0, 0.5)
    """
    x, y = np.asarray(depths, dtype=np.float64), np.log(fuzziness)
    x, y = x - x.mean(), y - y.mean()
    if len(x) < 3 or not y.any():
        return np.nan, np.nan
    return float(x @ y / np.sqrt(x @ x * (y @ y))), float(np.exp(x @ y / (x @ x)))

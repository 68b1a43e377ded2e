r"""From anchor points to capacity, radius and dimension of one manifold, with their errors.

Chung, Lee & Sompolinsky (2018), Phys. Rev. X 8, 031003; conventions as in the authors' package of Stephenson et al.
(2021). With anchors :math:`\tilde s` of the draws :math:`t`, and hats on the normalised parts without the centre:

.. math::
    1/\alpha_M = \langle [t \cdot \tilde s + \kappa]_+^2 / |\tilde s|^2 \rangle, \quad
    R_M^2 = \langle |\tilde s - \langle\tilde s\rangle|^2 \rangle, \quad
    D_M = D\, \langle \hat t \cdot \hat s \rangle^2, \quad
    D_{M,prx} = \langle (t \cdot \hat s)^2 \rangle .
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from manigeo.capacity.anchors import solve_cone
from manigeo.manifolds import gram_coordinates, span_coordinates


@dataclass(frozen=True)
class FrameGeometry:
    """Geometry of one manifold seen from its centre, each number with its standard error over draws.

    ``capacity`` and ``dimension``, ``dimension_prx`` have no unit, ``radius`` is in centre norms. ``rank`` is the
    dimension of the points' span; ``interior_fraction`` the share of draws that need no anchor; ``residual`` the largest
    relative KKT residual of a draw, so that anyone can see whether the draws were solved.
    """

    capacity: float
    radius: float
    dimension: float
    dimension_prx: float
    capacity_stderr: float
    radius_stderr: float
    dimension_stderr: float
    dimension_prx_stderr: float
    interior_fraction: float
    rank: int
    n_draws: int
    residual: float


def frame_geometry(
    points: Float[np.ndarray, "points dim"],
    kappa: float = 0.0,
    n_draws: int = 300,
    *,
    rng: np.random.Generator | None = None,
    draws: Float[np.ndarray, "draws dim_plus_1"] | None = None,
    dimension: str = "rank",
    solver: str = "pivoting",
) -> FrameGeometry:
    r"""Capacity, radius and dimension of the manifold of ``points``, by ``n_draws`` Gaussian draws.

    ``points`` (M, D) are given around the manifold's centre, in units of the centre norm: :math:`(X - x_0)/|x_0|`.
    ``draws`` (n_draws, D + 1), with the last column along the centre, replaces random draws: the same draws give the same
    numbers in any program. ``dimension`` says which D multiplies :math:`\langle\hat t\cdot\hat s\rangle^2`: the ``"rank"``
    of the points (padding with null directions then changes nothing) or ``"ambient"``, the number of columns, as the
    authors' package has it. ``solver``: ``"pivoting"``, or ``"cvxpy"`` as an independent, slow check of it.

    A single point has the perceptron's capacity (2 at margin 0), radius 0 and dimension 0. The relative standard error of
    the capacity is at most :math:`2\sqrt{\alpha/n_t}`, and is returned.

    Where no draw needs an anchor, capacity is infinite as far as the draws can tell: ``inf``, its error NaN.

    Raises ``ValueError`` on points, draws or a margin that are not finite, and on arrays of another shape.

    >>> g = frame_geometry(np.array([[1.0], [-1.0]]), n_draws=4000, rng=np.random.default_rng(0))
    >>> abs(g.capacity - 1.0) < 4 * g.capacity_stderr  # a segment of radius 1
    True
    """
    points = np.asarray(points, dtype=np.float64)
    draws = None if draws is None else np.asarray(draws, dtype=np.float64)
    _check_request(points, draws, kappa, n_draws, dimension)
    if dimension == "rank":
        span = span_coordinates(points)
        t = None if draws is None else _draws_in_span(points, span, draws)
    else:
        span, t = points, draws
    if t is None:
        t = (rng or np.random.default_rng()).standard_normal((n_draws, span.shape[1] + 1))
    rank = span_coordinates(points).shape[1] if dimension == "ambient" else span.shape[1]
    return _geometry(np.column_stack([span, np.ones(len(span))]), t, kappa, rank, solver)


def cone_geometry(
    sideways: Float[np.ndarray, "points points"],
    along: Float[np.ndarray, " points"],
    kappa: float = 0.0,
    n_draws: int = 300,
    *,
    rng: np.random.Generator,
    solver: str = "pivoting",
) -> FrameGeometry:
    r"""Geometry of a manifold that is given by inner products: what :func:`frame_geometry` measures, and a little more.

    Points are :math:`(\sigma, 1 + \rho)` in units of the centre norm: ``sideways`` (M, M) holds the inner products of the
    :math:`\sigma`, which are orthogonal to the centre, and ``along`` (M,) the :math:`1 + \rho`, one on average. With
    :math:`\rho = 0` these are the frames of mean-field theory, where the centre has a direction of its own. The margin is
    that of a point at the centre. Radius counts :math:`\sigma` and :math:`\rho`, dimension :math:`\sigma`.
    """
    coordinates = gram_coordinates(sideways)
    g = rng.standard_normal((n_draws, len(sideways) + 1))
    # U' g for coordinates U L^1/2: fields U L^1/2 U' g, which signs and order of the eigenvectors U do not change
    t = np.column_stack([g[:, :-1] @ (coordinates / np.linalg.norm(coordinates, axis=0)), g[:, -1]])
    return _geometry(np.column_stack([coordinates, along]), t, kappa, coordinates.shape[1], solver)


def _check_request(points: np.ndarray, draws: np.ndarray | None, kappa: float, n_draws: int, dimension: str) -> None:
    if dimension not in ("rank", "ambient"):
        raise ValueError(f'dimension must be "rank" or "ambient", got {dimension!r}')
    if points.ndim != 2 or len(points) == 0 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite, (points, dim) with at least one row, got shape {points.shape}")
    check_sampling(kappa, n_draws)
    if draws is None:
        return
    if draws.ndim != 2 or draws.shape[1] != points.shape[1] + 1 or len(draws) == 0:
        raise ValueError(f"draws need {points.shape[1] + 1} columns (the points' and the centre's), got {draws.shape}")
    if not np.isfinite(draws).all():
        raise ValueError("draws must be finite")


def check_sampling(kappa: float, n_draws: int) -> None:
    if not np.isfinite(kappa):
        raise ValueError(f"kappa must be finite, got {kappa}; 0 is no margin")
    if n_draws < 2:
        raise ValueError(f"n_draws must be 2 or more for a standard error, got {n_draws}; 300 are usual")


def _draws_in_span(points: np.ndarray, span: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Draws of the full space, in the coordinates of the span: span = points @ basis with an orthonormal basis."""
    basis = points.T @ (span / np.square(span).sum(axis=0))
    return np.column_stack([draws[:, :-1] @ basis, draws[:, -1]])


def _geometry(points: np.ndarray, t: np.ndarray, kappa: float, rank: int, solver: str) -> FrameGeometry:
    """``points`` (M, D + 1) from the origin, the last column along the centre and one on average; ``t`` likewise."""
    fields = t + kappa * np.eye(t.shape[1])[-1]
    solved = solve_cone(points, fields, solver)
    anchors = solved.weights @ points
    # t . s + kappa over |s|, squared, is the squared length of the projection on the anchor
    gap = np.maximum((fields * anchors).sum(axis=1), 0.0)
    inverse_capacity = gap**2 / np.square(anchors).sum(axis=1)
    inverse_capacity[solved.interior] = 0.0
    squared_radius = np.square(anchors - anchors.mean(axis=0)).sum(axis=1)
    projection = (t[:, :-1] * _normalised(anchors[:, :-1])).sum(axis=1)
    cosine = (_normalised(t[:, :-1]) * _normalised(anchors[:, :-1])).sum(axis=1)

    (inverse, inverse_err), (r2, r2_err), (d_prx, d_prx_err), (c, c_err) = (
        _mean_and_stderr(x) for x in (inverse_capacity, squared_radius, projection**2, cosine)
    )
    return FrameGeometry(
        capacity=1.0 / inverse if inverse > 0 else np.inf,
        radius=np.sqrt(r2),
        dimension=(points.shape[1] - 1) * c**2,
        dimension_prx=d_prx,
        # delta method: the error of f(x) is |f'(x)| times that of x
        capacity_stderr=inverse_err / inverse**2 if inverse > 0 else np.nan,
        radius_stderr=r2_err / (2 * np.sqrt(r2)) if r2 > 0 else 0.0,
        dimension_stderr=(points.shape[1] - 1) * 2 * abs(c) * c_err,
        dimension_prx_stderr=d_prx_err,
        interior_fraction=float(solved.interior.mean()),
        rank=rank,
        n_draws=len(t),
        residual=float(solved.residual.max(initial=0.0)),
    )


def _normalised(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; a zero row (a point, a draw in zero dimensions) stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def _mean_and_stderr(samples: np.ndarray) -> tuple[float, float]:
    stderr = samples.std(ddof=1) / np.sqrt(len(samples)) if len(samples) > 1 else np.nan
    return float(samples.mean()), float(stderr)

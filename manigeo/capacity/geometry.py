r"""Capacity, radius and dimension of one manifold from its anchor points, with their errors.

Chung, Lee & Sompolinsky (2018), Phys. Rev. X 8, 031003; conventions as in the authors' package of Stephenson et al.
(2021). With anchors :math:`\tilde s` of the draws :math:`t`, and hats on the normalised parts without the centre:

.. math::
    1/\alpha_M = \langle [t \cdot \tilde s + \kappa]_+^2 / |\tilde s|^2 \rangle, \quad
    R_M^2 = \langle |\tilde s - \langle\tilde s\rangle|^2 \rangle, \quad
    D_M = D\, \langle \hat t \cdot \hat s \rangle^2, \quad
    D_{M,prx} = \langle (t \cdot \hat s)^2 \rangle .
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from manigeo.capacity.anchors import solve_cone
from manigeo.capacity.stacks import stacks
from manigeo.errors import InputWarning
from manigeo.faces.results import Shown
from manigeo.inputs import Points, as_array, finite_points, in_range, joined, largest_entry
from manigeo.manifolds import RANK_RTOL, global_mean, span_coordinates, standard_error
from manigeo.randomness import Seed, generator

# A centre this small against its points is the rounding of their mean in float32; radii would be a million and more.
CENTER_RTOL = 1e-6
_LARGEST = 1e150  # squares of more overflow
Cone = tuple[np.ndarray, np.ndarray]  # inner products (sideways, along), see cone_geometry
_CENTERED = 1e-3  # of the centre norm: a centre as far off as this moves the radius by less than the draws do


@dataclass(frozen=True, repr=False)
class FrameGeometry(Shown):
    """Geometry of one manifold seen from its centre, each number with its standard error over draws.

    ``capacity`` and ``dimension``, ``dimension_prx`` have no unit, ``radius`` is in centre norms. ``rank`` is the
    dimension of the points' span; ``interior_fraction`` the share of draws that need no anchor; ``residual`` the largest
    relative KKT residual of a draw, so that anyone can see whether the draws were solved. ``flag`` is ``off_center:r`` where
    the mean of the points is r times as far from the centre as they are from it, ``zero_center`` where there is no centre
    norm and the numbers are NaN, and ``dropped:n`` counts points that were left out.
    """

    headline = ("capacity", "radius", "dimension", "rank")

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
    flag: str = ""


def frame_geometry(
    points: Points,
    kappa: float = 0.0,
    n_draws: int = 300,
    *,
    rng: Seed | None = None,
    seed: Seed | None = None,
    draws: Points | None = None,
    dimension: str = "rank",
    nan: str = "raise",
    solver: str = "pivoting",
) -> FrameGeometry:
    r"""Capacity, radius and dimension of the manifold of ``points``, by ``n_draws`` Gaussian draws.

    ``points`` (M, D) are given around the manifold's centre, in units of the centre norm: :math:`(X - x_0)/|x_0|`. Of
    activations as they are :func:`manifold_geometry` makes such points; where the mean of the points is far from zero
    (three standard errors, and a third of their spread), they are none: a warning, and the flag ``off_center``.
    ``draws`` (n_draws, D + 1), with the last column along the centre, replaces random draws: the same draws give the same
    numbers in any program. ``dimension`` selects the D that multiplies :math:`\langle\hat t\cdot\hat s\rangle^2`: ``"rank"``
    of the points (padding with null directions then changes nothing) or ``"ambient"``, the number of columns, as the
    authors' package has it. ``solver``: ``"pivoting"``, or ``"cvxpy"`` as an independent, slow check of it.

    A single point has the perceptron's capacity (2 at margin 0), radius 0 and dimension 0. The relative standard error of
    the capacity is at most :math:`2\sqrt{\alpha/n_t}`, and is returned.

    Where no draw needs an anchor, capacity is infinite as far as the draws can tell: ``inf``, its error NaN.
    ``seed`` or ``rng`` draws, seed 0 without either; ``nan`` is ``"raise"`` or ``"drop"`` (:mod:`manigeo.inputs`).

    Returns a :class:`FrameGeometry`: capacity in manifolds per dimension, radius in units of the centre norm. Chung,
    Lee & Sompolinsky (2018), Phys. Rev. X 8, 031003.

    Raises ``ValueError`` on points, draws or a margin that are not finite, and on arrays of another shape.

    >>> g = frame_geometry(np.array([[1.0], [-1.0]]), n_draws=4000, rng=np.random.default_rng(0))
    >>> abs(g.capacity - 1.0) < 4 * g.capacity_stderr  # a segment of radius 1
    True
    """
    X = as_array(points).astype(np.float64, copy=False)
    given = None if draws is None else as_array(draws, "draws").astype(np.float64, copy=False)
    _check_request(X, given, kappa, n_draws, dimension)
    X, left_out = finite_points(X, nan)
    off_center = _off_center(X)
    if dimension == "rank":
        span = span_coordinates(X)
        t = None if given is None else _draws_in_span(X, span, given)
    else:
        span, t = X, given
    if t is None:
        t = generator(seed, rng).standard_normal((n_draws, span.shape[1] + 1))
    rank = span_coordinates(X).shape[1] if dimension == "ambient" else span.shape[1]
    Z = np.column_stack([span, np.ones(len(span))])
    geometry = _geometries(Z[None], t[None], kappa, np.array([rank]), np.array([span.shape[1]]), solver)[0]
    return replace(geometry, flag=joined(off_center, left_out))


def manifold_geometry(
    points: Points,
    background: Points,
    kappa: float = 0.0,
    n_draws: int = 300,
    *,
    seed: Seed | None = None,
    rng: Seed | None = None,
    nan: str = "raise",
    solver: str = "pivoting",
) -> FrameGeometry:
    r"""Capacity, radius and dimension of one manifold among others, from activations as they are, by ``n_draws`` draws.

    .. math:: x_0 = \langle x \rangle_X - m, \qquad S = (X - \langle x \rangle_X) / |x_0|

    ``points`` (M, N) are activations of the manifold as they are. ``background`` (samples, N) are those of all other
    manifolds, and m is the mean of these and of the points; or it is m itself, (N,). What the manifolds share stays, as in
    ``manifold_capacity(..., centers="keep")``, which does this for every manifold.

    A manifold whose centre vanishes against its points has no scale: NaN, flag ``zero_center``.

    Returns a :class:`FrameGeometry`: capacity in manifolds per dimension, radius in units of the centre norm.

    Raises ``ValueError`` for points and a background of different features, NaN or infinite entries, and a margin that is
    not finite.

    >>> segment, others = np.array([[3.0, 1.0], [3.0, -1.0]]), np.array([[-3.0, 0.0], [-3.0, 0.0]])
    >>> g = manifold_geometry(segment, others, n_draws=4000, seed=0)
    >>> exact = 1 / (1.5 - 2 / np.pi * np.arctan(3))  # of a segment of radius 1/3
    >>> bool(abs(g.capacity - exact) < 4 * g.capacity_stderr)
    True
    """
    X, B = as_array(points), as_array(background, "background")
    if X.ndim != 2 or B.ndim not in (1, 2) or 0 in X.shape + B.shape or X.shape[1] != B.shape[-1]:
        raise ValueError(
            f"expected points (points, features) and the background (samples, features), or its mean (features,), "
            f"got {X.shape} and {B.shape}; take both from one layer"
        )
    X, left_out = finite_points(X.astype(np.float64, copy=False), nan)
    is_mean = B.ndim == 1
    B, left_out_of_others = finite_points(np.atleast_2d(B.astype(np.float64, copy=False)), nan, "background")
    flag = joined(left_out, left_out_of_others and f"background_{left_out_of_others}")
    (X, B), _ = in_range([X, B])
    mean = B[0] if is_mean else global_mean([X, B])
    X = X - mean
    center = X.mean(axis=0)
    length = float(np.linalg.norm(center))
    if length <= CENTER_RTOL * np.sqrt(np.square(X).sum(axis=1).mean() + np.square(mean).sum()):
        undefined = dict.fromkeys(FrameGeometry.__dataclass_fields__, np.nan) | {"rank": 0, "n_draws": n_draws}
        return FrameGeometry(**(undefined | {"flag": joined("zero_center", flag)}))  # type: ignore[arg-type]
    around = (X - center) / length
    geometry = frame_geometry(around, kappa, n_draws, rng=generator(seed, rng), solver=solver)
    return replace(geometry, flag=joined(geometry.flag, flag))


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
    return cone_geometries([(sideways, along)], kappa, n_draws, rngs=[rng], solver=solver)[0]


def cone_geometries(
    cones: Sequence[Cone],
    kappa: float = 0.0,
    n_draws: int = 300,
    *,
    rngs: Sequence[np.random.Generator],
    solver: str = "pivoting",
) -> list[FrameGeometry]:
    """Geometries of many manifolds, each given by its inner products as in :func:`cone_geometry` and with its own draws."""
    found: dict[int, FrameGeometry] = {}
    for members in stacks([along for _, along in cones]):
        sideways, along = (np.stack(parts) for parts in zip(*(cones[i] for i in members), strict=True))
        g = np.stack([_gaussian(rngs[i], n_draws, cones[i]) for i in members])
        points, t, rank = _cone_draws(sideways, along, g)
        found |= zip(members, _geometries(points, t, kappa, rank, rank, solver), strict=True)
    return [found[i] for i in range(len(cones))]


def halved_measures(
    cones: Sequence[Cone],
    kappa: float,
    n_draws: int,
    *,
    rngs: Sequence[np.random.Generator],
    solver: str = "pivoting",
) -> Float[np.ndarray, "cones halves 4"]:
    """Inverse capacity, radius and both dimensions of many manifolds as in :func:`cone_geometries`, from either half of
    their draws."""
    found = np.empty((len(cones), 2, 4))
    for members in stacks([along for _, along in cones]):
        sideways, along = (np.stack(parts) for parts in zip(*(cones[i] for i in members), strict=True))
        g = np.stack([_gaussian(rngs[i], 2 * (n_draws // 2), cones[i]) for i in members])
        points, t, rank = _cone_draws(sideways, along, g)
        fields = t + kappa * np.eye(t.shape[-1])[-1]
        solved = [solve_cone(Z, drawn, solver) for Z, drawn in zip(points, fields, strict=True)]
        anchors = np.stack([s.weights for s in solved]) @ points
        interior = np.stack([s.interior for s in solved])
        halves = [np.stack(np.split(x, 2, axis=1), axis=1) for x in (anchors, t, fields, interior)]
        inverse, r2, d_prx, c = _measured(halves[0], halves[1], halves[2], halves[3]).mean(axis=-1)
        found[members] = np.stack([inverse, np.sqrt(r2), rank[:, None] * c**2, d_prx], axis=-1)
    return found


def cone_loads(
    sideways: Float[np.ndarray, "points points"],
    along: Float[np.ndarray, " points"],
    n_draws: int = 300,
    *,
    rng: np.random.Generator,
) -> Float[np.ndarray, "draws points"]:
    r"""Part of every point in the inverse capacity of a manifold given as in :func:`cone_geometry`, at margin 0.

    .. math:: \text{load}_m = \lambda_m\, z_m \cdot t, \qquad
              \Big\langle \sum_m \text{load}_m \Big\rangle = 1/\alpha_M
    """
    drawn = _gaussian(rng, n_draws, (sideways, along))
    (points,), (t,), _ = _cone_draws(sideways[None], along[None], drawn[None])
    solved = solve_cone(points, t)
    return solved.mass[:, None] * solved.weights * (t @ points.T)


def _gaussian(rng: np.random.Generator, n_draws: int, cone: Cone) -> Float[np.ndarray, "draws points_plus_1"]:
    return rng.standard_normal((n_draws, len(cone[1]) + 1))


def _cone_draws(
    sideways: Float[np.ndarray, "stack points points"],
    along: Float[np.ndarray, "stack points"],
    g: Float[np.ndarray, "stack draws points_plus_1"],
) -> tuple[Float[np.ndarray, "stack points dim"], Float[np.ndarray, "stack draws dim"], Int[np.ndarray, " stack"]]:
    """Points in coordinates, zero where their span has fewer dimensions than others; draws in the span; the ranks."""
    eigenvalues, U = np.linalg.eigh(sideways)
    inside = eigenvalues > RANK_RTOL * eigenvalues[:, -1:].clip(min=0)
    U = U * inside[:, None]
    coordinates = U * np.sqrt(eigenvalues.clip(min=0))[:, None]
    # U' g for coordinates U L^1/2: fields U L^1/2 U' g, which signs and order of the eigenvectors U do not change
    t = np.concatenate([g[..., :-1] @ U, g[..., -1:]], axis=-1)
    return np.concatenate([coordinates, along[..., None]], axis=-1), t, inside.sum(axis=-1)


def _check_request(points: np.ndarray, draws: np.ndarray | None, kappa: float, n_draws: int, dimension: str) -> None:
    if dimension not in ("rank", "ambient"):
        raise ValueError(f'dimension must be "rank" or "ambient", got {dimension!r}')
    if points.ndim != 2 or len(points) == 0:
        raise ValueError(f"points must be a (points, dim) array with at least one row, got shape {points.shape}")
    if _LARGEST < largest_entry(points) < np.inf:
        raise ValueError(
            f"points reach {largest_entry(points):.3g}, expected units of the centre norm, in which they are about 1; "
            "manifold_geometry makes them"
        )
    check_sampling(kappa, n_draws)
    if draws is None:
        return
    if draws.ndim != 2 or draws.shape[1] != points.shape[1] + 1 or len(draws) == 0:
        raise ValueError(f"draws need {points.shape[1] + 1} columns (the points' and the centre's), got {draws.shape}")
    if not largest_entry(draws) <= _LARGEST:
        raise ValueError(f"draws must be finite, and standard normal, got entries up to {largest_entry(draws):.3g}")


def check_sampling(kappa: float, n_draws: int) -> None:
    if not abs(kappa) <= _LARGEST:
        raise ValueError(f"kappa must be finite, got {kappa}; 0 is no margin")
    if n_draws < 2:
        raise ValueError(f"n_draws must be 2 or more for a standard error, got {n_draws}; 300 are usual")


def _off_center(points: Float[np.ndarray, "points dim"]) -> str:
    """The flag of points that are not around zero, and a warning with the remedy.

    Points around their own mean, or sampled around a known centre, are within three standard errors of it.
    """
    M, mean = len(points), points.mean(axis=0)
    distance = float(np.linalg.norm(mean))
    spread = float(np.sqrt(np.square(points - mean).sum() / max(M - 1, 1)))
    if distance <= _CENTERED or distance <= spread * max(3 / np.sqrt(M), 1 / 3):
        return ""
    ratio = distance / spread if spread else np.inf
    warnings.warn(
        f"the mean of the points is {ratio:.3g} times as far from zero as they are from it: expected points around the "
        "manifold's centre, in units of the centre norm; manigeo.manifold_geometry makes them from activations",
        InputWarning,
        stacklevel=3,
    )
    return f"off_center:{ratio:.3g}"


def _draws_in_span(points: np.ndarray, span: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Draws of the full space, in the coordinates of the span: span = points @ basis with an orthonormal basis."""
    basis = points.T @ (span / np.square(span).sum(axis=0))
    return np.column_stack([draws[:, :-1] @ basis, draws[:, -1]])


def _geometries(
    points: Float[np.ndarray, "stack points dim"],
    t: Float[np.ndarray, "stack draws dim"],
    kappa: float,
    rank: Int[np.ndarray, " stack"],
    dimension: Int[np.ndarray, " stack"],
    solver: str,
) -> list[FrameGeometry]:
    """Geometries of points from the origin, the last column along the centre and one on average; ``t`` likewise.
    ``dimension`` is the D of the module's equations."""
    fields = t + kappa * np.eye(t.shape[-1])[-1]
    solved = [solve_cone(Z, drawn, solver) for Z, drawn in zip(points, fields, strict=True)]
    interior = np.stack([s.interior for s in solved])
    measured = _measured(np.stack([s.weights for s in solved]) @ points, t, fields, interior)
    means, errors = measured.mean(axis=-1), standard_error(np.moveaxis(measured, -1, 0))
    return [
        FrameGeometry(
            **_of_means(means[:, i], errors[:, i], int(dimension[i])),
            interior_fraction=float(interior[i].mean()),
            rank=int(rank[i]),
            n_draws=t.shape[1],
            residual=float(solved[i].residual.max(initial=0.0)),
        )
        for i in range(len(solved))
    ]


def _measured(
    anchors: Float[np.ndarray, "*stack draws dim"],
    t: Float[np.ndarray, "*stack draws dim"],
    fields: Float[np.ndarray, "*stack draws dim"],
    interior: Bool[np.ndarray, "*stack draws"],
) -> Float[np.ndarray, "4 *stack draws"]:
    """Inverse capacity, squared radius and projection, and cosine of every draw."""
    # t . s + kappa over |s|, squared, is the squared length of the projection on the anchor
    gap = np.maximum(_dots(fields, anchors), 0.0)
    inverse_capacity = np.where(interior, 0.0, gap**2 / _dots(anchors, anchors))
    around = anchors - anchors.mean(axis=-2, keepdims=True)
    t, anchors = t[..., :-1], anchors[..., :-1]
    projection, length = _over(_dots(t, anchors), np.sqrt(_dots(anchors, anchors))), np.sqrt(_dots(t, t))
    return np.stack([inverse_capacity, _dots(around, around), projection**2, _over(projection, length)])


def _of_means(means: Float[np.ndarray, " 4"], errors: Float[np.ndarray, " 4"], dimension: int) -> dict[str, Any]:
    """Measures and their errors from means over draws, and theirs: 1/capacity, radius and projection squared, cosine."""
    (inverse, r2, d_prx, c), (inverse_err, r2_err, d_prx_err, c_err) = means.tolist(), errors.tolist()
    return {
        "capacity": 1.0 / inverse if inverse > 0 else np.inf,
        "radius": float(np.sqrt(r2)),
        "dimension": dimension * c**2,
        "dimension_prx": d_prx,
        # delta method: the error of f(x) is |f'(x)| times that of x
        "capacity_stderr": inverse_err / inverse**2 if inverse > 0 else np.nan,
        "radius_stderr": float(r2_err / (2 * np.sqrt(r2))) if r2 > 0 else 0.0,
        "dimension_stderr": dimension * 2 * abs(c) * c_err,
        "dimension_prx_stderr": d_prx_err,
    }


def _dots(x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "..."]:
    """Inner products over the last axis."""
    return np.einsum("...i,...i->...", x, y)


def _over(x: np.ndarray, length: np.ndarray) -> Float[np.ndarray, "..."]:
    """x / length; zero for a length of zero (a point, a draw in zero dimensions)."""
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)

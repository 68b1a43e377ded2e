"""Figures of single results: their manifolds or classes, and the curve that a simulation is made of."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from scipy.special import ndtr

from manigeo.plots.canvas import Canvas
from manigeo.plots.style import MOST_TICKS, in_style
from manigeo.vocabulary import metric_words

if TYPE_CHECKING:  # a report draws none of these, and scikit-learn takes half a second to import
    from manigeo.capacity.joint import JointCapacity
    from manigeo.capacity.mean_field import ManifoldCapacity
    from manigeo.capacity.simulated import SimulatedCapacity
    from manigeo.dimension import TotalDimension
    from manigeo.separability.clusters import ClusterAgreement
    from manigeo.separability.margins import Margins
    from manigeo.separability.neighbours import Purity
    from manigeo.separability.probe import LinearProbe


def draw_result(result: Any, ax: Any = None) -> Any:
    """Draw a result into ``ax``, which is returned; without, into a figure of its own, which a notebook shows.

    >>> from manigeo.separability.neighbours import neighbour_purity
    >>> (purity,) = neighbour_purity(np.array([[0.0], [0.1], [5.0], [5.1]]), [0, 0, 1, 1], k=1)
    >>> draw_result(purity).axes[0].get_ylabel()
    'points'
    """
    name = type(result).__name__
    if name not in _DRAWINGS:
        raise TypeError(f"{name} has no figure; these have one: {', '.join(_DRAWINGS)}")
    canvas = Canvas(name, ax, advice="leave ax out")
    with in_style():
        (panel,) = canvas.subplots(1, 1, (0.8, 0.7), (4.2, 2.6)).flat
        _DRAWINGS[name](result, panel)
        canvas.legend()
        return canvas.finished()


def _manifold_capacity(result: "ManifoldCapacity", ax: Axes) -> None:
    of = result.per_manifold
    _draw_classes(ax, of["capacity"], of["capacity_stderr"], range(len(of)))
    _draw_mean(ax, result.capacity, result.stderr.capacity)
    ax.set(xlabel="manifold", ylabel=metric_words("capacity").label)


def _joint_capacity(result: "JointCapacity", ax: Axes) -> None:
    of = result.per_class
    _draw_classes(ax, of["capacity"], None, range(len(of)))
    _draw_mean(ax, result.capacity, result.stderr)
    ax.set(xlabel="manifold", ylabel=metric_words("capacity_joint").label)


def _simulated_capacity(result: "SimulatedCapacity", ax: Axes) -> None:
    n, share = result.dimensions, result.separable / np.maximum(result.trials, 1)
    ax.plot(n, share, "o", color="0.2", markersize=4, label="dichotomies")
    if len(n) and np.isfinite(result.critical_dimension):
        x = np.linspace(n.min(), n.max(), 200)
        curve = ndtr((np.sqrt(x) - np.sqrt(result.critical_dimension)) / result.width)
        ax.plot(x, curve, color="C0", linewidth=1.4, label="fit")
        ax.axvline(result.critical_dimension, color="C0", linestyle=":", linewidth=1, label="critical dimension")
    ax.set(xlabel="dimensions", ylabel="share separable", ylim=(-0.02, 1.02))


def _total_dimension(result: "TotalDimension", ax: Axes) -> None:
    share = np.cumsum(result.eigenvalues) / max(result.eigenvalues.sum(), np.finfo(float).tiny)
    ax.plot(np.arange(1, len(share) + 1), share, color="C0", marker=".", label="variance")
    ax.axhline(result.share, color="0.4", linestyle=":", linewidth=1, label=f"share {result.share:g}")
    ax.set(xlabel="principal directions", ylabel="share of the variance", xscale="log", ylim=(0, 1.02))


def _cluster_agreement(result: "ClusterAgreement", ax: Axes) -> None:
    _draw_classes(ax, result.per_class, None, result.classes)
    _draw_mean(ax, result.value, np.nan, result.chance)
    ax.set(xlabel="class", ylabel=metric_words("kmeans_nmi").label)


def _linear_probe(result: "LinearProbe", ax: Axes) -> None:
    _draw_classes(ax, result.per_class, None, result.classes)
    _draw_mean(ax, result.accuracy, result.accuracy_stderr, 1 / len(result.classes))
    ax.set(xlabel="class", ylabel=metric_words("probe_accuracy").label, ylim=(-0.02, 1.02))


def _purity(result: "Purity", ax: Axes) -> None:
    ax.hist(result.scores, bins=min(result.k, 20) + 1, range=(0, 1), color="0.7")
    ax.axvline(result.value, color="C0", label="mean")
    ax.axvline(result.chance, color="0.4", linestyle=":", label="chance")
    ax.set(xlabel=f"share of {result.k} neighbours of its class", ylabel="points")


def _margins(result: "Margins", ax: Axes) -> None:
    first, second = (result.problems[:, i] for i in (0, 1))
    of_pairs = bool((second >= 0).all())
    names = [f"{result.classes[a]}, {result.classes[b]}" if of_pairs else f"{result.classes[a]}"
             for a, b in zip(first, second, strict=True)]  # fmt: skip
    _draw_classes(ax, result.margin, result.residual * result.separable, names)
    ax.set(xlabel="classes" if of_pairs else "class", ylabel="margin")


def _draw_classes(ax: Axes, values: Any, errors: Any, names: Sequence[Any] | np.ndarray) -> None:
    place = np.arange(len(names))
    ax.errorbar(place, values, errors, fmt="o", color="0.3", markersize=4, elinewidth=1)
    shown = place[:: 1 + (len(place) - 1) // MOST_TICKS]
    labels = [str(names[i]) for i in shown]
    ax.set_xticks(shown, labels)
    if max(map(len, labels)) > 3:
        ax.tick_params(axis="x", rotation=45)


def _draw_mean(ax: Axes, value: float, error: float, chance: float = np.nan) -> None:
    """The aggregate with its error, and what chance gives."""
    color = sns.color_palette("colorblind")[0]
    ax.axhline(value, color=color, linewidth=1.4, label="all together")
    if error == error:
        ax.axhspan(value - error, value + error, color=color, alpha=0.2, linewidth=0)
    if chance == chance:
        ax.axhline(chance, color="0.4", linestyle=":", linewidth=1, label="chance")


_DRAWINGS: dict[str, Callable[[Any, Axes], None]] = {
    "ManifoldCapacity": _manifold_capacity,
    "JointCapacity": _joint_capacity,
    "SimulatedCapacity": _simulated_capacity,
    "TotalDimension": _total_dimension,
    "ClusterAgreement": _cluster_agreement,
    "LinearProbe": _linear_probe,
    "Purity": _purity,
    "Margins": _margins,
}

"""One table of how long things take, beside the peers' way to the same numbers: ``python -m tests.bench.table``.

CPU time on one core, medians of rounds in which all ways take turns, so that a busy machine slows all alike. Beside each
time stands what shows that the same was computed: the largest relative KKT residual of the draws, or the accuracy. Below,
how time and memory of a layer grow with its sizes. Never a timed test.
"""

import time
import tracemalloc
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from scipy.optimize import nnls
from threadpoolctl import threadpool_limits

from manigeo.capacity.anchors import kkt_residual, solve_cone
from manigeo.capacity.cone import UnitPoints, project_on_cone
from manigeo.capacity.joint import joint_capacity
from manigeo.capacity.mean_field import manifold_capacity
from manigeo.separability.margins import one_versus_rest
from tests.bench.test_joint import draws, real_layer
from tests.bench.test_separability import ours, scikit_learns, standardised
from tests.bench.test_separability import real_layer as labelled_layer
from tests.reference import shared

ROUNDS = 3


def compare(title: str, ways: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> None:
    """Print a line per way: CPU milliseconds, how many times those of the first, and the number that it returns."""
    evidence = [way() for way in ways.values()]  # imports and compilation
    taken = [[_cpu(way) for way in ways.values()] for _ in range(rounds)]
    for name, ms, shown in zip(ways, 1e3 * np.median(taken, axis=0), evidence, strict=True):
        ratio = ms / (1e3 * np.median(taken, axis=0)[0])
        print(f"{title:<44} {name:<18} {ms:10.1f} ms {ratio:8.1f} x   {shown:.3g}", flush=True)


def _cpu(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def layer(P: int, M: int, N: int) -> list[np.ndarray]:
    """Manifolds with correlated centres and a power-law spectrum, float32."""
    rng, widths = np.random.default_rng(0), np.arange(1, N + 1) ** -0.5
    return [(widths * (2 * rng.standard_normal(N) + rng.standard_normal((M, N)))).astype(np.float32) for _ in range(P)]


def anchors() -> None:
    for M in (25, 50):
        rng = np.random.default_rng(0)
        Z = np.column_stack([rng.standard_normal((M, M)) / np.sqrt(M), np.ones(M)])
        Z, t = Z / np.linalg.norm(Z, axis=1, keepdims=True), rng.standard_normal((200, M + 1))

        def by(solver: str, Z: np.ndarray = Z, t: np.ndarray = t) -> float:
            return float(solve_cone(Z, t, solver).residual.max())

        def by_nnls(Z: np.ndarray = Z, t: np.ndarray = t) -> float:
            return float(kkt_residual(Z, t, np.stack([nnls(Z.T, draw)[0] for draw in t])).max())

        ways = {"manigeo": partial(by, "pivoting"), "scipy nnls": by_nnls, "cvxpy (Clarabel)": partial(by, "cvxpy")}
        compare(f"anchors of {M} points, 200 draws", ways)


def joint() -> None:
    for P in (50, 100):
        Z = real_layer(P)
        points, signed_draws = UnitPoints.of(Z), draws(Z, P)

        def by_us(points: UnitPoints = points, signed_draws: list = signed_draws) -> float:
            return max(project_on_cone(points, y, t).residual for y, t in signed_draws)

        def by_nnls(Z: np.ndarray = Z, signed_draws: list = signed_draws) -> float:
            signed = [(y[:, None] * Z, t) for y, t in signed_draws]
            return max(float(kkt_residual(S, t[None], nnls(S.T, t)[0][None])[0]) for S, t in signed)

        compare(f"joint, {P} x 25 x 512, {len(signed_draws)} draws", {"manigeo": by_us, "scipy nnls": by_nnls}, 1)


def separability() -> None:
    Z, y = standardised("permuted")

    def accuracy(solver: Callable[..., tuple[np.ndarray, np.ndarray]]) -> float:
        weights, offsets = solver(Z, y)
        return float(((Z @ weights + offsets).argmax(axis=1) == y).mean())

    ways = {"manigeo": partial(accuracy, ours), "scikit-learn": partial(accuracy, scikit_learns)}
    compare("probe, all penalties, 50 x 25 x 512", ways, 1)
    X, labels = labelled_layer("permuted")
    compare("margins, 50 x 25 x 512", {"libsvm": lambda: float(one_versus_rest(X, labels).residual.max())}, 1)


def layers() -> None:
    with np.load(shared("reference/real_layers.npz")) as held:
        real = list(np.concatenate([held[f"last_{kind}_h6/activations"] for kind in ("unpermuted", "permuted")]))
    rng = np.random.default_rng(0)
    flat = [rng.standard_normal((50, 5000), dtype=np.float32) for _ in range(100)]
    for title, X in (("a layer, real, 100 x 25 x 512", real), ("a layer, Gaussian, 100 x 50 x 5000", flat)):
        rules = ("auto", "keep", "reference")
        compare(title, {c: partial(_residual, X, n_draws=200, centers=c) for c in rules})
    compare("a layer, real, 50 x 25 x 512", {"joint, 100 draws": lambda: joint_capacity(real[:50]).residual}, 1)


def _residual(X: list[np.ndarray], **options: object) -> float:
    return manifold_capacity(X, errors="manifolds", **options).residual  # type: ignore[arg-type]


def growth() -> None:
    """Time, peak of memory and the exponent of time between the first and the last size, one size varied at a time."""
    sizes = {"P": (25, 50, 100, 200), "M": (10, 20, 40, 80), "N": (128, 256, 512, 1024), "draws": (100, 200, 400, 800)}
    for name, steps in sizes.items():
        taken = []
        for size in steps:
            of = {"P": 50, "M": 20, "N": 256, "draws": 200} | {name: size}
            X = layer(of["P"], of["M"], of["N"])
            run = partial(_residual, X, n_draws=of["draws"])
            run()
            taken.append(float(np.median([_cpu(run) for _ in range(ROUNDS)])))
            tracemalloc.start()
            run()
            print(
                f"{name} = {size:<6} {1e3 * taken[-1]:8.0f} ms {tracemalloc.get_traced_memory()[1] / 1e6:8.1f} MB",
                flush=True,
            )
            tracemalloc.stop()
        print(f"{name}: time ~ {name}^{np.log(taken[-1] / taken[0]) / np.log(steps[-1] / steps[0]):.2f}", flush=True)


if __name__ == "__main__":
    with threadpool_limits(limits=1, user_api="blas"):
        for part in (anchors, joint, separability, layers, growth):
            part()

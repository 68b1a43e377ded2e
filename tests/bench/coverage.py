"""Coverage of the intervals of ``auto``: ``python -m tests.bench.coverage [REPEATS] [CLASSES,...] [POPULATION,...]``.

Of each population new classes and points are drawn again and again. Over these repeats: the root mean square of the standard
errors by the spread of the values, the share of the 95 % intervals (``ManifoldCapacity.interval``) that hold the mean of the
values, and the processor time of one. The share of 100 intervals of coverage .95 is known to .02.
"""

import sys
import time

import numpy as np
from tqdm import tqdm

from manigeo import manifold_capacity
from manigeo.capacity.mean_field import MEASURES

FEATURES, POINTS = 120, 15


def _power_law(rng: np.random.Generator, P: int) -> list[np.ndarray]:
    """Variances that fall with the square of the spectrum of a natural image's pixels."""
    widths = np.arange(1, FEATURES + 1) ** -0.7
    return [widths * (rng.standard_normal(FEATURES) + rng.standard_normal((POINTS, FEATURES))) for _ in range(P)]


def _heavy_tailed(rng: np.random.Generator, P: int) -> list[np.ndarray]:
    """Classes whose radius differs."""
    widths = np.arange(1, FEATURES + 1) ** -0.5
    radii = rng.gamma(4, size=P) / 4
    return [widths * (rng.standard_normal(FEATURES) + r * rng.standard_normal((POINTS, FEATURES))) for r in radii]


def _rectified(rng: np.random.Generator, P: int) -> list[np.ndarray]:
    """Features that are never negative and share 30 directions, as those of a layer with ReLU do."""
    mix = np.random.default_rng(99).standard_normal((30, FEATURES)) / 5
    return [np.maximum((1.2 * rng.standard_normal(30) + rng.standard_normal((POINTS, 30))) @ mix, 0) for _ in range(P)]


def _flat(rng: np.random.Generator, P: int) -> list[np.ndarray]:
    return [rng.standard_normal(FEATURES) + rng.standard_normal((POINTS, FEATURES)) for _ in range(P)]


def _few_shared_axes(rng: np.random.Generator, P: int) -> list[np.ndarray]:
    """Points around their centres in ten directions, which all classes share and use to different degrees."""
    axes = np.random.default_rng(98).standard_normal((10, FEATURES))
    return [
        3 * rng.standard_normal(FEATURES)
        + rng.standard_normal((POINTS, 10)) @ (axes * rng.gamma(2, size=(10, 1)))
        + 0.3 * rng.standard_normal((POINTS, FEATURES))
        for _ in range(P)
    ]


POPULATIONS = {
    "power_law": _power_law, "heavy_tailed": _heavy_tailed, "rectified": _rectified, "flat": _flat,
    "few_shared_axes": _few_shared_axes,
}  # fmt: skip


def main(repeats: int, classes: list[int], names: list[str]) -> None:
    print(f"{'':20}  P  " + "  ".join(f"{measure:>20}" for measure in MEASURES))
    for P in classes:
        for name in names:
            values, errors, intervals, flags, began = [], [], [], 0, time.process_time()
            for repeat in tqdm(range(repeats), desc=f"{name} {P}"):
                clouds = POPULATIONS[name](np.random.default_rng([repeat, P]), P)
                r = manifold_capacity(clouds, n_draws=60, seed=repeat)
                flags += bool(r.flag)
                values.append([getattr(r, measure) for measure in MEASURES])
                errors.append([getattr(r.stderr, measure) for measure in MEASURES])
                intervals.append([r.interval(measure) for measure in MEASURES])
            seconds = (time.process_time() - began) / repeats
            mean, (low, high) = np.nanmean(values, axis=0), np.moveaxis(np.array(intervals), 2, 0)
            covered = ((low <= mean) & (mean <= high)).mean(axis=0)
            ratio = np.sqrt(np.nanmean(np.square(errors), axis=0)) / np.nanstd(values, axis=0, ddof=1)
            cells = [f"{f'se {r:.2f}  covered {c:.2f}':>20}" for r, c in zip(ratio, covered, strict=True)]
            print(f"{name:20} {P:2}  " + "  ".join(cells) + f"  {seconds:.2f} s, {flags} flagged", flush=True)


if __name__ == "__main__":
    words = [*sys.argv[1:], *["100", "5,10,30", ",".join(POPULATIONS)][len(sys.argv) - 1 :]]
    main(int(words[0]), [int(P) for P in words[1].split(",")], words[2].split(","))

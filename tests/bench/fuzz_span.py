"""Changes of basis that may change nothing: ``python -m tests.bench.fuzz_span [SETTINGS] [FIRST]``.

Manifolds of drawn number, size, spectrum, radius and offset go through a drawn change: an orthogonal change of basis, an
isometric embedding in more features, constant features, features twice, another unit, or several of these. Flags must be
equal, and capacity, radius and dimensions equal within the errors of the draws. Warnings of numpy and scipy are failures.
A line for every setting that fails; with its number as FIRST it is drawn again.
"""

import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from manigeo import manifold_capacity
from manigeo.capacity.mean_field import MEASURES, ManifoldCapacity

Cloud = np.ndarray
Change = Callable[[Cloud], Cloud]
ATOL = 1e-12  # of a radius or dimension that is zero but for rounding
RTOL = 1e-4  # draws are the same to rounding, which can move a point across the edge of an active set:
ERRORS_OF_DRAWS = 0.5  # far less than another seed would change


def drawn(number: int) -> tuple[dict[str, Any], list[Cloud], Change]:
    """The setting of this number: its description, its manifolds and the change that they go through."""
    rng = np.random.default_rng([20_260, number])
    setting = {
        "P": int(rng.choice([2, 3, 4, 5, 8, 10, 12])), "M": int(rng.choice([1, 2, 3, 5, 10, 20])),
        "N": int(rng.choice([1, 2, 5, 10, 20, 40, 80, 150])), "decay": float(rng.choice([0, 0.5, 1, 2])),
        "radius": float(10 ** rng.uniform(-1.5, 1)), "offset": float(rng.choice([0, 0, 3, 100])),
        "rectified": bool(rng.random() < 0.3), "errors": "jackknife" if rng.random() < 0.2 else "manifolds",
    }  # fmt: skip
    N = setting["N"]
    widths = np.arange(1, N + 1) ** -setting["decay"]
    points = [
        widths * (rng.standard_normal(N) + setting["radius"] * rng.standard_normal((setting["M"], N)))
        for _ in range(setting["P"])
    ]
    clouds = [np.maximum(X, 0) if setting["rectified"] else X + setting["offset"] for X in points]
    names = rng.choice(list(CHANGES), size=rng.integers(1, 3), replace=False)
    changes = [CHANGES[name] for name in names]
    seed = int(rng.integers(2**31))

    def change(X: Cloud) -> Cloud:
        for number, one in enumerate(changes):
            X = one(X, np.random.default_rng([seed, number]))
        return X

    return setting | {"change": "+".join(names), "seed": seed}, clouds, change


def _isometry(N: int, wider: int, rng: np.random.Generator) -> Cloud:
    return np.linalg.qr(rng.standard_normal((wider, N)))[0].T


CHANGES: dict[str, Callable[[Cloud, np.random.Generator], Cloud]] = {
    "turned": lambda X, rng: X @ _isometry(X.shape[1], X.shape[1], rng) if X.shape[1] < 1000 else X,
    "embedded": lambda X, rng: X @ _isometry(X.shape[1], X.shape[1] + int(rng.choice([1, 30, 500, 1500])), rng),
    "constants": lambda X, rng: np.pad(X, ((0, 0), (2, int(rng.choice([1, 100, 600])))), constant_values=7.0),
    "twice": lambda X, rng: np.hstack([X, X]),
    "scaled": lambda X, rng: X * 10.0 ** rng.uniform(-3, 6),  # centres below 1e-6 of an offset are flagged as rounding
}


def names(flag: str) -> set[str]:
    return {part.partition(":")[0] for part in flag.split(";")}


def differences(a: ManifoldCapacity, b: ManifoldCapacity) -> list[str]:
    found = [] if names(a.flag) == names(b.flag) else [f"flag {a.flag!r} and {b.flag!r} at {a.occupancy:.4f}"]
    for name in MEASURES:
        x, y, error = getattr(a, name), getattr(b, name), ERRORS_OF_DRAWS * getattr(a.stderr_draws, name)
        if not np.isclose(x, y, rtol=RTOL, atol=ATOL + np.nan_to_num(error), equal_nan=True):
            found.append(f"{name} {x:.5g} and {y:.5g}, error {2 * error:.2g}")
    return found


def failures(number: int) -> tuple[dict[str, Any], list[str], str]:
    """The setting, what differs or was raised, and the flag."""
    setting, clouds, change = drawn(number)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            a, b = (
                manifold_capacity(X, n_draws=20, seed=setting["seed"], errors=setting["errors"])
                for X in (clouds, [change(X) for X in clouds])
            )
        except Exception:  # whatever it is, it is a finding
            return setting, traceback.format_exc().splitlines()[-3:], "raised"
    return setting, differences(a, b), a.flag


def main(n_settings: int, first: int) -> None:
    began, failed, flags = time.monotonic(), 0, dict[str, int]()
    for number in tqdm(range(first, first + n_settings)):
        setting, found, flag = failures(number)
        for name in names(flag):
            flags[name or "none"] = flags.get(name or "none", 0) + 1
        if found:
            failed += 1
            tqdm.write(f"{number} {setting}: {'; '.join(found)}")
    print(f"{failed} of {n_settings} settings failed; flags {flags}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(int((sys.argv[1:2] or ["2000"])[0]), int((sys.argv[2:3] or ["0"])[0]))

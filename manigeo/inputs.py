"""Arguments of public functions: arrays of any origin become float arrays; labels of any kind are numbered from 0.

================  =========================================================================================================
argument          what is taken
================  =========================================================================================================
points            (points, features): numpy arrays (also masked ones, where a masked entry is missing), tensors (on any
                  device, also with a gradient, bfloat16), nested lists, lists of tensors, DataFrames; floats, whole numbers
                  and booleans. Floats of numpy are not copied; other numbers become float64.
manifolds         A sequence of these, one for each class: a list, a (classes, points, features) array or tensor, a mapping
                  whose values they are. What has ``shapes`` (manifolds that stay in their file) is read as it is looked at.
labels            One for each point: whole numbers with gaps, floats that are whole, booleans, strings, categories, tensors;
                  a class is a distinct label. Classes are in sorted order, those of a categorical in its own.
seed, rng         See :mod:`manigeo.randomness`.
``nan``           ``"raise"`` (default) refuses NaN and infinite entries, with their number; ``"drop"`` leaves out the points
                  that have some (and points without a label) and puts ``dropped:7`` in the flag of the result. A function
                  whose result has no flag warns.
``per_class``     The number of points of each manifold. ``"smallest"`` (default): as many as the smallest manifold has,
                  drawn by the seed, with the flag ``unequal_points:8-25;left_out:119`` where sizes differ; a number; or
                  ``"all"``, for capacities that compare with no other, flag ``unequal_points:8-25``.
================  =========================================================================================================

Squares of numbers beyond 1e150 overflow, those of numbers below 1e-150 vanish: measures that do not depend on the scale
divide such points by a power of two, which changes no digit.
"""

import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from manigeo.errors import InputWarning
from manigeo.manifolds import Clouds, binary_unit, check_shapes
from manigeo.randomness import stream


@runtime_checkable
class SupportsArray(Protocol):
    """Anything that numpy can read, such as tensors and DataFrames."""

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


Points = np.ndarray | SupportsArray | Sequence  # unsubscripted: a type check of its elements may read a file
Labels = np.ndarray | SupportsArray | Sequence
Manifolds = Iterable

NAN_POLICIES = ("raise", "drop")
_SAMPLE = crc32(b"per_class")  # a key of its own: draws of analyses do not depend on that of points


def as_array(data: Any, name: str = "points") -> np.ndarray:
    """Real numbers as an array of floats; ``name`` is what a refusal calls them. Floats of numpy are returned as they are.

    Raises ``ValueError`` for what is not a table of real numbers.

    >>> as_array([[1, 2], [3, 4]]).dtype
    dtype('float64')
    """
    array = _to_numpy(data, name)
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8 and array.dtype.isnative:
        return array
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if array.dtype.kind == "O" and not any(isinstance(x, str | complex) for x in array.flat):
        try:
            return np.where(pd.isna(array), np.nan, array).astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            pass
    what = "complex numbers" if array.dtype.kind == "c" else f"{type(data).__name__} of {array.dtype}"
    remedy = "give real and imaginary parts as features" if array.dtype.kind == "c" else "leave other columns out"
    raise ValueError(f"{name} must be an array of real numbers, got {what}; {remedy}")


def _to_numpy(data: Any, name: str) -> np.ndarray:
    try:
        if isinstance(data, np.ma.MaskedArray):
            return np.ma.filled(data.astype(np.float64), np.nan)
        if hasattr(data, "detach"):
            return _from_tensor(data)
        if isinstance(data, list | tuple) and any(hasattr(row, "detach") for row in data):
            return np.stack([_to_numpy(row, name) for row in data])
        return np.asarray(data)
    except (TypeError, ValueError, RuntimeError):
        what = f"got a {type(data).__name__} that makes none; give rows of equal length"
        raise ValueError(f"{name} must be an array of real numbers, {what}") from None


def _from_tensor(tensor: Any) -> np.ndarray:
    held = tensor.detach().cpu().to_dense()
    try:
        return held.numpy()
    except TypeError:  # bfloat16, which numpy does not have, is a float32 cut short
        return held.float().numpy()


def largest_entry(X: np.ndarray) -> float:
    """The largest absolute entry, NaN where one is NaN; two passes and no copy.

    >>> largest_entry(np.array([3.0, -5.0])), largest_entry(np.array([np.nan, np.inf]))
    (5.0, nan)
    """
    return max(float(X.max()), -float(X.min())) if X.size else 0.0


def finite_rows(X: np.ndarray, nan: str = "raise", name: str = "points") -> Bool[np.ndarray, " rows"] | None:
    """Mask of the rows of X that are finite throughout; None for all of them.

    Raises ``ValueError`` for others under the policy ``"raise"``, and where no row is left under ``"drop"``.

    >>> finite_rows(np.array([[0.0, 1.0], [np.nan, 1.0]]), "drop").tolist()
    [True, False]
    """
    if nan not in NAN_POLICIES:
        raise ValueError(f"nan must be one of {NAN_POLICIES}, got {nan!r}")
    if np.isfinite(largest_entry(X)):
        return None
    finite = np.isfinite(X)
    rows = finite.reshape(len(X), -1).all(axis=1)
    if nan == "raise":
        raise ValueError(
            f"{name} holds {finite.size - np.count_nonzero(finite)} NaN or infinite entries, in {np.count_nonzero(~rows)} "
            f'of its {len(X)} points; leave those examples out, or pass nan="drop"'
        )
    if not rows.any():
        raise ValueError(f"{name} has NaN or infinite entries in all of its {len(X)} points; leave it out")
    return rows


def finite_points(X: np.ndarray, nan: str = "raise", name: str = "points") -> tuple[np.ndarray, str]:
    """X, or its finite rows, with the flag that counts the others; see :func:`finite_rows`."""
    rows = finite_rows(X, nan, name)
    return (X, "") if rows is None else (X[rows], f"dropped:{np.count_nonzero(~rows)}")


def joined(*flags: str) -> str:
    """
    >>> joined("saturated", "", "dropped:2")
    'saturated;dropped:2'
    """
    return ";".join(filter(None, flags))


def warn_of(flag: str, function: str) -> None:
    """Warn of a flag, for functions whose result cannot carry one."""
    if flag:
        warnings.warn(f"{function}: {flag} (points with NaN or infinite entries)", InputWarning, stacklevel=3)


def in_range(manifolds: Clouds) -> tuple[Clouds, float]:
    """Scale manifolds whose squares would overflow or vanish by a power of two, which is returned; else as they are and 1.

    >>> in_range([np.array([[1e200, 0.0]])])[1] > 1e199
    True
    """
    if manifolds[0].dtype != np.float64:  # squares of others are float64
        return manifolds, 1.0
    unit = max(binary_unit(X) for X in manifolds)
    return (manifolds, 1.0) if 2.0**-300 < unit < 2.0**300 else ([X / unit for X in manifolds], unit)


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """
    Return ``value`` as an int; raise ``ValueError`` for what is not a whole number, or below the ``least``.

    >>> whole_number(np.int64(3), "n_seeds")
    3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")
    return number


# ---------------------------------------------------------------------------------------------------------- manifolds
def take_manifolds(
    manifolds: Any,
    *,
    nan: str = "raise",
    per_class: int | str | None = "smallest",
    seed: np.random.SeedSequence | None = None,
    held: bool = False,
    fewest: int = 2,
) -> tuple[Clouds, str]:
    """The manifolds as float arrays, finite and of the wanted number of points, and the flag that tells what was left out.

    ``seed`` draws the points, the same ones whatever is computed of them, and smaller samples lie in larger ones; without
    it all points are taken. Manifolds that stay in their file do so, unless they must be ``held``.

    Raises ``ValueError`` for fewer manifolds than ``fewest``, and as :mod:`manigeo.inputs` describes.

    >>> unequal = [np.zeros((5, 2)), np.zeros((3, 2))]
    >>> taken, flag = take_manifolds(unequal, seed=np.random.SeedSequence(0))
    >>> [X.shape for X in taken], flag
    ([(3, 2), (3, 2)], 'unequal_points:3-5;left_out:2')
    """
    given, names = _listed(manifolds)
    if hasattr(given, "shapes") and not held:
        clouds: Clouds = _Lazy(given, names, nan)
        shapes = list(given.shapes)
    else:
        clouds = _of_one_type([as_array(X, name) for X, name in zip(given, names, strict=True)])
        shapes = [X.shape for X in clouds]
    check_shapes(shapes, names, fewest)
    sizes = [shape[0] for shape in shapes]
    rows, flag = _without_nan(clouds, sizes, names, nan)
    if seed is not None:
        kept = [size if r is None else len(r) for size, r in zip(sizes, rows, strict=True)]
        wanted, unequal = _points_wanted(kept, names, per_class)
        rows = [_sampled(r, size, wanted, seed, mu) for mu, (r, size) in enumerate(zip(rows, kept, strict=True))]
        flag = joined(flag, unequal)
    return _selected(clouds, rows), flag


def _listed(manifolds: Any) -> tuple[Any, list[str]]:
    """The manifolds in a sequence, and what a refusal calls each."""
    if isinstance(manifolds, Mapping):
        return list(manifolds.values()), [f"manifold {key!r}" for key in manifolds]
    if isinstance(manifolds, pd.DataFrame) or not isinstance(manifolds, Iterable):
        raise ValueError(
            f"expected one (points, features) array for each class, got one {type(manifolds).__name__}; "
            "pass a list, as in [X[y == c] for c in classes]"
        )
    if len(shape := tuple(getattr(manifolds, "shape", (0, 0, 0)))) != 3:
        raise ValueError(
            f"expected one (points, features) array for each class, got one array of shape {shape}; "
            "pass a list, as in [X[y == c] for c in classes]"
        )
    if hasattr(manifolds, "detach"):
        manifolds = _from_tensor(manifolds)
    given = manifolds if hasattr(manifolds, "shapes") else list(manifolds)
    return given, [f"manifold {mu}" for mu in range(len(given))]


def _of_one_type(clouds: list[np.ndarray]) -> list[np.ndarray]:
    types = {X.dtype for X in clouds}
    common = np.result_type(*types) if types else None
    return clouds if len(types) < 2 else [X.astype(common, copy=False) for X in clouds]


def _without_nan(
    clouds: Clouds, sizes: Sequence[int], names: Sequence[str], nan: str
) -> tuple[list[Int[np.ndarray, " rows"] | None], str]:
    """The rows of each manifold that are finite, None for all, and the flag that counts the others."""
    if isinstance(clouds, _Lazy) and nan == "raise":
        return [None] * len(sizes), ""  # checked as they are read
    masks = [finite_rows(X, nan, name) for X, name in zip(clouds, names, strict=True)]
    rows = [None if mask is None else np.flatnonzero(mask) for mask in masks]
    dropped = sum(size - len(r) for size, r in zip(sizes, rows, strict=True) if r is not None)
    return rows, f"dropped:{dropped}" if dropped else ""


def _points_wanted(sizes: Sequence[int], names: Sequence[str], per_class: Any) -> tuple[int, str]:
    smallest, largest = min(sizes), max(sizes)
    unequal = f"unequal_points:{smallest}-{largest}" if smallest < largest else ""
    if isinstance(per_class, str) and per_class == "all":
        return largest, unequal
    if per_class is None or (isinstance(per_class, str) and per_class == "smallest"):
        left_out = sum(sizes) - smallest * len(sizes)
        return smallest, joined(unequal, f"left_out:{left_out}" if left_out else "")
    if isinstance(per_class, str):
        raise ValueError(f'per_class must be a number of points, "smallest" or "all", got {per_class!r}')
    wanted = whole_number(per_class, "per_class")
    if wanted > smallest:
        who = names[sizes.index(smallest)]
        raise ValueError(
            f"{who} has {smallest} points, fewer than per_class={wanted}; ask for {smallest}, or leave it out"
        )
    return wanted, ""


def _sampled(
    rows: Int[np.ndarray, " rows"] | None, size: int, most: int, seed: np.random.SeedSequence, mu: int
) -> Int[np.ndarray, " sampled"] | None:
    """Return the rows, all or ``most`` of them drawn, in ascending order."""
    if size <= most:
        return rows
    drawn = np.sort(stream(seed, _SAMPLE, mu).permutation(size)[:most])
    return drawn if rows is None else rows[drawn]


def _selected(clouds: Clouds, rows: Sequence[np.ndarray | None]) -> Clouds:
    if isinstance(clouds, _Lazy):
        return clouds.only(rows)
    return [X if r is None else X[r] for X, r in zip(clouds, rows, strict=True)]


class _Lazy(Sequence):  # unsubscripted: a type check of its elements would read the file
    """Manifolds that stay where they are until each is looked at, then checked, and cut to ``rows``."""

    def __init__(self, given: Any, names: Sequence[str], nan: str, rows: Sequence[np.ndarray | None] | None = None):
        self._given, self._names, self._nan = given, names, nan
        self._rows = [None] * len(names) if rows is None else rows

    def only(self, rows: Sequence[np.ndarray | None]) -> "_Lazy":
        return _Lazy(self._given, self._names, self._nan, rows)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        pairs = zip(self._given.shapes, self._rows, strict=True)
        return [tuple(shape) if rows is None else (len(rows), *shape[1:]) for shape, rows in pairs]

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        X = as_array(self._given[i], self._names[i])
        if self._nan == "raise":
            finite_rows(X, "raise", self._names[i])
        return X if self._rows[i] is None else X[self._rows[i]]


# ----------------------------------------------------------------------------------------------- points with labels
@dataclass(frozen=True)
class Sample:
    """Points, in multiples of ``unit`` (1 but for extreme ones), with the class of each: ``classes[codes]`` are the labels.

    ``kept`` (given,) tells which of the given points these are, ``flag`` how many are not among them.
    """

    points: Float[np.ndarray, "points features"]
    codes: Int[np.ndarray, " points"]
    classes: np.ndarray
    kept: Bool[np.ndarray, " given"]
    unit: float
    flag: str

    @property
    def n_classes(self) -> int:
        return len(self.classes)


def take_points(points: Any, labels: Any, *, nan: str = "raise", fewest: int = 2) -> Sample:
    """Points and labels of any origin as a :class:`Sample`; float16 becomes float32.

    Raises ``ValueError`` for fewer classes than ``fewest``, and as :mod:`manigeo.inputs` describes.

    >>> sample = take_points([[0, 0], [1, 0], [5, 5]], ["b", "b", "a"])
    >>> sample.codes.tolist(), sample.classes.tolist()
    ([1, 1, 0], ['a', 'b'])
    """
    X = as_array(points)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            f"points must be a (points, features) array that is not empty, got {X.shape}; flatten each example"
        )
    codes, classes = class_codes(labels)
    if len(codes) != len(X):
        raise ValueError(f"expected a label for each of the {len(X)} points, got {len(codes)} labels")
    finite = finite_rows(X, nan)
    kept = np.ones(len(X), dtype=bool) if finite is None else finite
    if nan == "raise" and (missing := np.count_nonzero(codes < 0)):
        raise ValueError(f'{missing} of {len(codes)} labels are missing; leave those points out, or pass nan="drop"')
    kept = kept & (codes >= 0)
    if not kept.all():
        present, codes = np.unique(codes[kept], return_inverse=True)
        X, classes = X[kept], classes[present]
    if len(classes) < fewest:
        who = ", ".join(map(repr, classes.tolist()))
        raise ValueError(f"separability tells two classes or more apart, got one ({who}); give points of others too")
    unit = _unit_of(X)
    X = X if X.dtype != np.float16 else X.astype(np.float32)
    X = X if unit == 1 else X / X.dtype.type(unit)
    flag = "" if kept.all() else f"dropped:{np.count_nonzero(~kept)}"
    return Sample(X, codes, classes, kept, unit, flag)


def _unit_of(X: np.ndarray) -> float:
    """Divisor that keeps squares in the range of the type: 1, where they are in range as they are."""
    unit, room = binary_unit(X), 0.3 * np.finfo(X.dtype if X.dtype != np.float16 else np.float32).maxexp
    return 1.0 if abs(np.log2(unit)) < room or not X.any() else unit


def class_codes(labels: Any) -> tuple[Int[np.ndarray, " points"], np.ndarray]:
    """The number of each label's class, -1 where it is missing, and the classes: ``classes[codes]`` are the labels again.

    Raises ``ValueError`` for labels that are not a row of class names.

    >>> codes, classes = class_codes([40, 17, 40, -1])
    >>> codes.tolist(), classes.tolist()
    ([2, 1, 2, 0], [-1, 17, 40])
    """
    codes, found = pd.factorize(_label_series(labels), sort=True)
    classes = pd.Index(found).to_numpy()
    if isinstance(found, pd.CategoricalIndex):
        classes = found.astype(found.categories.dtype).to_numpy()
    if classes.dtype.kind == "f" and not (whole := np.isfinite(classes) & (classes == np.round(classes))).all():
        raise ValueError(
            f"labels name classes, got {np.count_nonzero(~whole)} numbers that are not whole, such as {classes[~whole][0]}; "
            "round them, or name the classes"
        )
    if classes.dtype == object and all(isinstance(name, str) for name in classes):
        classes = classes.astype(str)
    return codes.astype(np.int64), classes


def _label_series(labels: Any) -> pd.Series:
    if hasattr(labels, "detach"):
        labels = _from_tensor(labels)
    elif isinstance(labels, list | tuple):
        labels = [label.item() if hasattr(label, "detach") else label for label in labels]
    shape = np.shape(labels)
    if len(shape) == 2 and shape[1] == 1:  # a column
        labels, shape = np.asarray(labels)[:, 0], shape[:1]
    if len(shape) != 1:
        raise ValueError(
            f"labels must be a row, one for each point, got shape {shape}; of one-hot labels give labels.argmax(axis=1)"
        )
    return pd.Series(labels)

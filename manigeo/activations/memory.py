"""Arrays of any origin as the rows of layers: what is taken, and which examples and classes they are of.

Neural data come as (conditions, repetitions, features), features of images as (examples, features) with labels. Either way
the examples are numbered through, condition after condition, and every area has one row for each of them.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from manigeo.errors import InputWarning
from manigeo.inputs import as_array, class_codes, finite_rows
from manigeo.kinds import EVERY

_CAP = 50  # examples per class that tables take by default, at most


class HeldRows:
    """Arrays (examples, features) in memory, by layer."""

    closed = False

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = dict(arrays)

    def rows(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """A copy of the given rows."""
        return self._arrays[layer][rows]

    def only(self, layers: Iterable[str]) -> "HeldRows":
        """The arrays of some layers."""
        return HeldRows({name: self._arrays[name] for name in layers})

    def close(self) -> None:
        """Keep the arrays: nothing is open."""


@dataclass(frozen=True)
class NamedArrays:
    """Arrays (examples, features) by area, the table of their examples, and what was left out to make them."""

    arrays: dict[str, np.ndarray]
    examples: pd.DataFrame
    class_names: tuple[str, ...]
    provenance: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Area:
    """One area: points of all conditions below each other; ``sizes`` are their repetitions, of one array None."""

    points: np.ndarray
    sizes: tuple[int, ...] | None
    names: tuple[Any, ...] | None = None

    def __str__(self) -> str:
        if self.sizes is None:
            return f"{len(self.points)} examples"
        least, most = min(self.sizes), max(self.sizes)
        each = f"{least}" if least == most else f"{least} to {most}"
        return f"{len(self.sizes)} conditions of {each} repetitions"


def named_arrays(arrays: Any, labels: Any = None, nan: str = "raise") -> NamedArrays:
    """The arrays of :meth:`manigeo.Activations.from_arrays` as rows of the same examples; what they may be stands there.

    >>> named_arrays({"V1": np.zeros((3, 4, 2))}).examples["true_label"].tolist()
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    """
    if not isinstance(arrays, Mapping):
        raise ValueError(
            f'expected arrays by the name of their area, got one {type(arrays).__name__}; pass {{"V1": X}}'
        )
    if not len(arrays):
        raise ValueError('expected arrays by the name of their area, got none; pass {"V1": X}')
    areas = {str(name): _area(str(name), given) for name, given in arrays.items()}
    if len(areas) < len(arrays) or not all(name.strip() for name in areas):
        raise ValueError(f"areas must have names of their own that are not empty, got {list(arrays)}; rename them")
    areas = _in_one_order(areas)
    _check_same(areas)
    codes, names = _codes(next(iter(areas.values())), labels)
    kept, told = _kept(areas, codes, nan)
    held = {name: area.points if kept.all() else area.points[kept] for name, area in areas.items()}
    codes = codes[kept]
    told += _limits(codes, names)
    for note in told:
        warnings.warn(note, InputWarning, stacklevel=3)
    examples = pd.DataFrame({"index": np.flatnonzero(kept), "split": EVERY, "true_label": codes, "train_label": codes})
    provenance = {"arrays": {name: _digest(X) for name, X in held.items()}, "dropped": int(np.count_nonzero(~kept))}
    return NamedArrays(held, examples.assign(permuted=False), names, provenance, tuple(told))


# -------------------------------------------------------------------------------------------------------------- areas
def _area(name: str, given: Any) -> _Area:
    if isinstance(given, Mapping):
        return _of_conditions([f"{name}, condition {key!r}" for key in given], list(given.values()), tuple(given))
    if isinstance(given, list | tuple) and len(given) and np.ndim(as_array(given[0], f"{name}[0]")) == 2:
        return _of_conditions([f"{name}[{i}]" for i in range(len(given))], list(given))
    X = as_array(given, name)
    if X.ndim not in (2, 3) or 0 in X.shape:
        raise ValueError(
            f"{name} must be (conditions, repetitions, features) or (examples, features) and not empty, got shape "
            f"{X.shape}; {'one number for each example is X[:, None]' if X.ndim == 1 else 'flatten the features'}"
        )
    return _Area(X, None) if X.ndim == 2 else _Area(X.reshape(-1, X.shape[2]), (X.shape[1],) * X.shape[0])


def _of_conditions(who: list[str], given: list[Any], names: tuple[Any, ...] | None = None) -> _Area:
    parts = [as_array(one, name) for one, name in zip(given, who, strict=True)]
    for part, name in zip(parts, who, strict=True):
        if part.ndim != 2 or 0 in part.shape or part.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"{name} must be (repetitions, features) with as many features as the others, got shape {part.shape} beside "
                f"{parts[0].shape}; give one such array for each condition"
            )
    if not parts:
        raise ValueError("expected one (repetitions, features) array for each condition, got none; leave the area out")
    return _Area(np.concatenate(parts), tuple(len(part) for part in parts), names)


def _in_one_order(areas: dict[str, _Area]) -> dict[str, _Area]:
    """Refuse areas whose conditions have other names, or the same in another order, than those of the first."""
    named = {name: area.names for name, area in areas.items() if area.names is not None}
    first = next(iter(named), "")
    for name, conditions in named.items():
        if conditions != named[first]:
            raise ValueError(f"{name} has other conditions than {first}, or in another order; give all areas the same")
    return areas


def _check_same(areas: Mapping[str, _Area]) -> None:
    (first, wanted), *others = areas.items()
    for name, area in others:
        if area.sizes != wanted.sizes or len(area.points) != len(wanted.points):
            raise ValueError(
                f"all areas must hold the same examples, got {wanted} in {first} and {area} in {name}; leave out what is "
                'not in both, or fill it with NaN and pass nan="drop"'
            )


# ------------------------------------------------------------------------------------------------------------- labels
def _codes(area: _Area, labels: Any) -> tuple[Int[np.ndarray, " examples"], tuple[str, ...]]:
    """The class of each example, -1 where it is missing, and the names of the classes."""
    if labels is None and area.sizes is None:
        raise ValueError("arrays of (examples, features) take a label for each example, got none; pass labels=")
    if labels is None:
        labels = area.names or range(len(area.sizes or ()))
    codes, classes = class_codes(list(labels) if isinstance(labels, range) else labels)
    wanted = len(area.points) if area.sizes is None else len(area.sizes)
    if len(codes) != wanted:
        each = "example" if area.sizes is None else "condition"
        raise ValueError(f"expected a label for each of the {wanted} {each}s, got {len(codes)} labels")
    names = tuple(map(_written, classes.tolist()))
    if wrong := [name for name, count in Counter(names).items() if count > 1 or not name.strip()]:
        raise ValueError(f"expected a name of its own for each class, got empty or repeated {wrong}; rename them")
    return codes if area.sizes is None else np.repeat(codes, area.sizes), names


def _written(label: Any) -> str:
    return str(int(label)) if isinstance(label, float) and label == int(label) else str(label)


# ------------------------------------------------------------------------------------------------------ what is left out
def _kept(
    areas: Mapping[str, _Area], codes: Int[np.ndarray, " examples"], nan: str
) -> tuple[Bool[np.ndarray, " examples"], list[str]]:
    """The examples that are finite in all areas and have a label, and what is said of the others."""
    kept = codes >= 0
    missing = int(np.count_nonzero(~kept))
    if missing and nan == "raise":
        raise ValueError(f'{missing} labels are missing; leave those examples out, or pass nan="drop"')
    reasons = [f"without a label ({missing})"] if missing else []
    for name, area in areas.items():
        finite = finite_rows(area.points, nan, name)
        if finite is not None:
            reasons.append(f"NaN or infinite in {name} ({np.count_nonzero(~finite)})")
            kept = kept & finite
    if not reasons:
        return kept, []
    why = ", ".join(reasons)
    if not kept.any():
        raise ValueError(f"no example is finite in all areas: {why}; leave an area out")
    return kept, [f"{np.count_nonzero(~kept)} of {len(kept)} examples are left out of all areas: {why}"]


def _limits(codes: Int[np.ndarray, " examples"], names: tuple[str, ...]) -> list[str]:
    """Notes on classes of few examples.

    Raises ``ValueError`` where fewer than two classes have two examples.
    """
    sizes = np.bincount(codes, minlength=len(names))
    few, enough = [name for name, size in zip(names, sizes, strict=True) if size < 2], sizes[sizes >= 2]
    if len(enough) < 2:
        raise ValueError(
            f"expected two conditions or more, with two examples or more each, got {len(enough)} of {len(names)}; give the "
            "single repetitions, not their mean, and more than one condition"
        )
    told = []
    if few:
        named = ", ".join(map(repr, few[:5])) + ", ..." * (len(few) > 5)
        told.append(f"{len(few)} of {len(names)} conditions have fewer than 2 examples and take no part: {named}")
    least, most = int(enough.min()), int(enough.max())
    if least < min(most, _CAP):
        smallest = names[int(np.flatnonzero(sizes == least)[0])]
        told.append(
            f"conditions have {least} to {most} examples: tables take {least} of each, as many as the smallest, "
            f"{smallest!r}, has"
        )
    return told


def _digest(X: np.ndarray) -> str:
    digest = hashlib.sha256(f"{X.dtype.str}{X.shape}".encode())
    digest.update(np.ascontiguousarray(X).data)
    return digest.hexdigest()

"""Parts of a data set while it is read (the inputs and labels of a split), and the checks that every part passes.

Images come out as (channels, height, width), labels as whole numbers from 0.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from manigeo.errors import InputError, UsageError
from manigeo.storage.ceilings import MOST_PIXELS

if TYPE_CHECKING:
    from manigeo_extract.data.sequences import Sequences

PURPOSES = (  # places in here are spawn keys: append only
    "train", "validation", "test", "hold out test", "hold out validation", "per_class", "members", "labels",
    "hold out classes", "subset", "sequences", "canaries",
)  # fmt: skip
CHUNK = 512  # rows in hand at a time where a whole data set is gone through
LAZY_STATISTICS = 4096  # training examples that are read for mean and deviation where reading is slow
LAZY_FINGERPRINT = 64  # and for the fingerprint, at either end


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Randomness for one purpose: what is drawn for one does not shift what is drawn for another."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)))


@dataclass(frozen=True, eq=False)
class LazyInputs:
    """Inputs that are read when they are asked for; indexed by rows like an array."""

    where: str
    shape: tuple[int, ...]  # (n, *input_shape), as an array's
    dtype: np.dtype
    read: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows):
            out[place] = self._checked(int(row))
        return out

    def _checked(self, row: int) -> np.ndarray:
        value = self.read(row)
        if value.shape != self.shape[1:]:
            raise InputError(
                f"{self.where}, item {row}: expected an input of shape {self.shape[1:]}, got {value.shape}"
            )
        require_finite(f"{self.where}, item {row}", value)
        return value


@dataclass(frozen=True, eq=False)
class Part:
    """Examples of one file or folder: ``inputs[index[k]]`` has the label ``labels[k]``; ``where`` is for messages."""

    where: str
    inputs: np.ndarray | LazyInputs
    labels: Int64[np.ndarray, " n"]
    index: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: Bool[np.ndarray, " n"]) -> "Part":
        return replace(self, labels=self.labels[chosen], index=self.index[chosen])


@dataclass(frozen=True, eq=False)
class Source:
    """Result of a reader: train and test, perhaps validation, class names, and whether inputs are to be standardised.

    ``unseen``: examples of the classes that were held out, whose names come last; ``constants``: numbers to standardise
    by, in place of the training examples'; ``notes``: what was done to read it; ``sequences``: of a text, what is trained
    on in place of single examples.
    """

    parts: dict[str, Part]
    class_names: tuple[str, ...]
    standardise: bool = True
    unseen: tuple[Part, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sequences: "Sequences | None" = None


def stratified(
    labels: Int64[np.ndarray, " n"], count: Callable[[int], int], rng: np.random.Generator
) -> Bool[np.ndarray, " n"]:
    """A mask that draws ``count(members)`` examples of every class."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen[members[: count(len(members))]] = True
    return chosen


def share_of(fraction: float) -> Callable[[int], int]:
    """The count for a split-off part: rounded, at least one and never all, none of a class with a single example."""
    return lambda members: min(max(round(fraction * members), 1), members - 1) if fraction else 0


def as_part(where: str, inputs: np.ndarray | LazyInputs, labels: Any) -> Part:
    """The door for everything read: one whole, non-negative label for each input, all inputs finite."""
    labels = np.asarray(labels)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # the shape Keras stores
    if labels.ndim != 1 or not (np.issubdtype(labels.dtype, np.integer) or not labels.size):
        raise InputError(f"{where}: expected one whole number a label, got {labels.dtype} of shape {labels.shape}")
    if len(inputs) != len(labels):
        raise InputError(
            f"{where}: expected as many labels as inputs, got {len(labels)} labels and {len(inputs)} inputs"
        )
    if not len(labels):
        raise InputError(f"{where}: expected examples, found none")
    if labels.min() < 0:
        raise InputError(f"{where}: expected labels from 0 on, found {labels.min()}")
    if 0 in inputs.shape[1:]:
        raise InputError(f"{where}: expected inputs of one value or more, got the shape {inputs.shape[1:]}")
    if isinstance(inputs, np.ndarray):
        require_finite(where, inputs)
    return Part(where, inputs, labels.astype(np.int64), np.arange(len(labels)))


def as_source(parts: dict[str, Part], class_names: Any = None, *, standardise: bool = True) -> Source:
    """Parts that go together: the same input shape and type, and a class name for each label."""
    train = parts["train"]
    names = _numbers(train) if class_names is None else _texts(train.where, class_names)
    for part in parts.values():
        if part.labels.max() >= len(names):
            raise InputError(
                f"{part.where}: expected labels 0 to {len(names) - 1} ({len(names)} classes), found {part.labels.max()}"
            )
        if (part.inputs.shape[1:], part.inputs.dtype) != (train.inputs.shape[1:], train.inputs.dtype):
            found, wanted = (f"{p.inputs.shape[1:]} {p.inputs.dtype}" for p in (part, train))
            raise InputError(f"{part.where}: expected inputs {wanted} as in {train.where}, got {found}")
    return Source(parts, names, standardise)


def as_images(where: str, images: np.ndarray) -> Shaped[np.ndarray, "n channels height width"]:
    """Greyscale gets one channel, channels go first; whole numbers within 0..255 become uint8, others float32.

    A last axis of 1, 3 or 4 is taken for the channels, else a second axis of 1, 3 or 4.
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3, 4):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or images.shape[1] not in (1, 3, 4):
        raise InputError(f"{where}: expected images (n, height, width[, channels]), got shape {images.shape}")
    if images.dtype.kind not in "uif":
        raise InputError(f"{where}: expected images of numbers, got {images.dtype}")
    whole = images.dtype.kind in "ui" and images.size and images.min() >= 0 and images.max() <= 255
    return images.astype(np.uint8 if whole else np.float32, copy=False)


def _texts(where: str, class_names: Any) -> tuple[str, ...]:
    """Names of classes, which key the rows of results: each its own, none empty."""
    names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in class_names)
    if wrong := [name for name, count in Counter(names).items() if count > 1 or not name.strip()]:
        raise InputError(f"{where}: expected a name of its own for each class, found empty or repeated {wrong}")
    return names


def _numbers(train: Part) -> tuple[str, ...]:
    """The labels themselves, where classes have no names."""
    n_classes = int(train.labels.max()) + 1
    if n_classes > len(train):
        raise InputError(
            f"{train.where}: expected labels 0 .. C-1, C at most the {len(train)} training examples, "
            f"found {n_classes - 1}; number the classes from 0 on, or give their names"
        )
    return tuple(map(str, range(n_classes)))


def require_finite(where: str, values: np.ndarray) -> None:
    """Refuse NaN and infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{where}: expected finite inputs, found NaN or infinity")


def check_size(where: str, size: int) -> None:
    """Check the side of a square that images are resized to; :class:`~manigeo.errors.UsageError` for too many pixels."""
    if not 1 <= size <= math.isqrt(MOST_PIXELS):
        raise UsageError(f"{where}: expected size in pixels, from 1 to {math.isqrt(MOST_PIXELS)}, got {size}")


def hold_out(part: Part, test: float, seed: int) -> dict[str, Part]:
    """The share ``test`` of every class of a source that comes in one piece becomes the test split."""
    if not 0 < test < 1:
        raise UsageError(f"expected test as a fraction between 0 and 1, got {test}")
    held = stratified(part.labels, share_of(test), generator(seed, "hold out test"))
    if not held.any():
        raise InputError(f"{part.where}: expected a class with two examples or more, to hold one out for the test")
    return {"train": part.take(~held), "test": part.take(held)}


def gather(parts: tuple[Part, ...], rows: np.ndarray) -> np.ndarray:
    """Inputs as they are stored, gathered over the parts that ``rows`` fall into."""
    ends = np.cumsum([len(part) for part in parts])
    owner = np.searchsorted(ends, rows, side="right")
    inputs = parts[0].inputs
    out = np.empty((len(rows), *inputs.shape[1:]), inputs.dtype)
    for number, (part, end) in enumerate(zip(parts, ends, strict=True)):
        mine = np.flatnonzero(owner == number)
        if len(mine):
            out[mine] = part.inputs[part.index[rows[mine] - (end - len(part))]]
    return out


def standardisation(train: Part, source: Source) -> dict[str, Any]:
    """Scale, and mean and standard deviation of every channel: those asked for, else over the training examples (4096 of
    them if lazy)."""
    if not source.standardise:
        return {"scale": 1.0, "mean": [0.0], "std": [1.0], "examples": 0, "as_given": True}
    (scale,) = source.constants.get("scale", [255.0 if train.inputs.dtype == np.uint8 else 1.0])
    if {"mean", "std"} & source.constants.keys():
        known = {"mean": [0.0], "std": [1.0]} | dict(source.constants)
        return {"scale": scale, "mean": known["mean"], "std": known["std"], "examples": 0}
    n = min(len(train), LAZY_STATISTICS) if isinstance(train.inputs, LazyInputs) else len(train)
    rows = train.index[np.linspace(0, len(train) - 1, n).astype(int)]
    sums, squares, count = 0.0, 0.0, 0
    for start in range(0, n, CHUNK):
        x = train.inputs[rows[start : start + CHUNK]].astype(np.float64) / scale
        axes = (0, *range(2, x.ndim))
        sums, squares, count = sums + x.sum(axes), squares + (x * x).sum(axes), count + x.size // x.shape[1]
    mean = np.asarray(sums) / count
    std = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0))
    std[std < 1e-6] = 1.0  # a channel that never changes: nothing to divide by
    return {"scale": scale, "mean": mean.tolist(), "std": std.tolist(), "examples": n}


def fingerprint(parts: tuple[Part, ...], labels: np.ndarray, split: np.ndarray) -> str:
    """Sha256 over shape, splits, labels and inputs; over the first and last 64 inputs where reading them is slow."""
    rows, inputs = np.arange(len(labels)), parts[0].inputs
    if isinstance(inputs, LazyInputs) and len(rows) > 2 * LAZY_FINGERPRINT:
        rows = np.concatenate([rows[:LAZY_FINGERPRINT], rows[-LAZY_FINGERPRINT:]])
    digest = hashlib.sha256(json.dumps([list(inputs.shape[1:]), inputs.dtype.name, split.tolist()]).encode())
    digest.update(labels.astype("<i8").tobytes())
    for start in range(0, len(rows), CHUNK):
        digest.update(gather(parts, rows[start : start + CHUNK]).tobytes())
    return digest.hexdigest()

"""Activations wherever their rows are: examples, layers and point clouds, the same from a file and from memory."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float32

from manigeo import __version__
from manigeo.activations.filters import Filter
from manigeo.activations.layout import DTYPES, Shard, StoredLayer, as_stored, identity_of
from manigeo.activations.memory import HeldRows, named_arrays
from manigeo.activations.scoring import COLUMNS, UNSCORED, Scores, Scoring, beyond_classes, kind_scores, n_seen_classes
from manigeo.activations.streaming import StoredManifolds
from manigeo.errors import InputError, UsageError
from manigeo.kinds import ALL_KINDS
from manigeo.manifolds import kind_examples, sample_rows

HELD_BYTES = 256 << 20  # manifolds above this are taken a few at a time


@runtime_checkable
class RowSource(Protocol):
    """Protocol of whatever holds the rows of all layers."""

    def rows(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Activations (rows, features) of the given examples, a copy."""

    def close(self) -> None:
        """Let go of files."""

    @property
    def closed(self) -> bool:
        """True once nothing can be read any more."""


@dataclass(eq=False, repr=False)
class Activations:
    """Activations of every layer for a table of examples: an open file
    (:func:`~manigeo.activations.reading.open_activations`), or arrays in memory
    (:meth:`~manigeo.activations.content.Activations.from_arrays`, :func:`manigeo_extract.extract`).

    ``layers`` in the order of execution, ``kinds`` that have examples, ``examples`` (the table), ``class_names``,
    ``provenance``, ``fingerprint``; ``complete``, ``n_done`` (examples whose rows are written) and ``shard`` tell what of a
    file is there. ``scores`` is accuracy, loss and number of examples of each kind, ``unscored`` why there are
    none; ``n_seen_classes`` counts the classes that the network can know. ``notes`` tell what was left out to make them.

    A file is closed by :meth:`close`, at the end of a ``with``, or when nothing refers to it any more; ``path`` of
    activations in memory is None.

    >>> rng = np.random.default_rng(0)
    >>> acts = Activations.from_arrays({"V1": rng.normal(size=(6, 20, 30)), "V4": rng.normal(size=(6, 20, 50))})
    >>> acts.layers, acts.kinds, len(acts.examples)
    (('V1', 'V4'), ('all',), 120)
    """

    examples: pd.DataFrame
    class_names: tuple[str, ...]
    stored: Mapping[str, StoredLayer]
    dtypes: Mapping[str, str]
    provenance: dict[str, Any]
    fingerprint: str
    source: RowSource
    path: Path | None = None
    scoring: Scoring = UNSCORED
    outcomes: Float32[np.ndarray, "n 3"] = field(default_factory=lambda: np.empty((0, len(COLUMNS)), np.float32))
    created: str = ""
    manigeo_version: str = __version__
    complete: bool = True
    n_done: int = -1  # all
    shard: Shard | None = None
    smallest_batch: int | None = None
    filters: Mapping[str, Filter] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.n_done = len(self.examples) if self.n_done < 0 else self.n_done
        self.n_seen_classes = n_seen_classes(self.examples, len(self.class_names))
        beyond = beyond_classes(self.outcomes, self.scoring, self.n_seen_classes)
        self.unscored = self.scoring.why_not or beyond

    @classmethod
    def from_arrays(cls, arrays: Any, labels: Any = None, *, nan: str = "raise") -> "Activations":
        """Activations of any origin, such as responses of neurons: ``{"V1": X, "V4": Y}``, areas (or layers) of the same
        examples.

        X is (conditions, repetitions, features), with a label for each condition (without ``labels``, its number), or
        (examples, features), with a label for each example; or a list of one (repetitions, features) array for each
        condition, or a mapping of them by name, where conditions have different numbers of repetitions. Arrays, tensors,
        DataFrames, nested lists and labels are taken as in :mod:`manigeo.inputs`; arrays of floats are not copied. With
        ``nan="drop"`` an example that is NaN or infinite in one area is left out of all of them, so that areas compare on
        the same examples. All are of the kind ``all``.

        Conditions may have different numbers of repetitions: tables take the same number of each, at most that of the
        smallest. Of what limits them, and of what is left out, an :class:`~manigeo.errors.InputWarning` and ``notes`` tell.

        Raises ``ValueError`` for arrays that are not of the same examples or not of real numbers, for labels that do not
        match them, and where fewer than two conditions have two repetitions.

        >>> X = np.random.default_rng(0).normal(size=(4, 10, 8))  # 4 conditions, 10 repetitions, 8 neurons
        >>> acts = Activations.from_arrays({"V1": X}, ["face", "house", "tool", "word"])
        >>> [cloud.shape for cloud in acts.manifolds("V1", "all")]
        [(10, 8), (10, 8), (10, 8), (10, 8)]
        >>> acts.class_names
        ('face', 'house', 'tool', 'word')
        """
        found = named_arrays(arrays, labels, nan)
        layers = [
            StoredLayer(name, order, "array", 0, (X.shape[1],), "flatten", None, ())
            for order, (name, X) in enumerate(found.arrays.items())
        ]
        scoring = Scoring(why_not="arrays hold no outputs of a network")
        return cls.in_memory(
            found.examples, found.class_names, layers, found.provenance, found.arrays, scoring=scoring,
            notes=found.notes,
        )  # fmt: skip

    @classmethod
    def in_memory(
        cls,
        examples: pd.DataFrame,
        class_names: Sequence[str],
        layers: Sequence[StoredLayer],
        provenance: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        **more: Any,
    ) -> "Activations":
        """Activations whose ``arrays`` (examples, features) are in memory; the other arguments are those of
        :func:`~manigeo.activations.writing.create_activations`, and further fields of these.

        >>> columns = {"index": range(4), "split": "test", "true_label": [0, 0, 1, 1], "train_label": [0, 0, 1, 1]}
        >>> h1 = StoredLayer("h1", 0, "Linear", 0, (3,), "flatten", None, ())
        >>> examples = pd.DataFrame(columns).assign(permuted=False)
        >>> acts = Activations.in_memory(examples, ["cat", "dog"], [h1], {}, {"h1": np.arange(12.0).reshape(4, 3)})
        >>> acts.rows("h1", np.array([3, 0])).tolist()
        [[9.0, 10.0, 11.0], [0.0, 1.0, 2.0]]
        """
        return cls(
            examples,
            tuple(class_names),
            {layer.name: layer for layer in layers},
            {name: X.dtype.name for name, X in arrays.items()},
            dict(provenance),
            identity_of(examples, class_names, layers, provenance),
            HeldRows(arrays),
            **more,
        )

    def close(self) -> None:
        """Close the file; manifolds that stay in it cannot be read any more, the tables stay. In memory nothing changes."""
        self.source.close()

    def __enter__(self) -> "Activations":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        kinds = ", ".join(self.kinds) or "no kind"
        sizes = f"{len(self.layers)} layers, {len(self.examples)} examples of {len(self.class_names)} classes ({kinds})"
        place = "in memory" if self.path is None else repr(os.fspath(self.path))
        notes = f"; {len(self.notes)} notes (.notes)" if self.notes else ""
        return f"<Activations {place}: {sizes}{notes}{', closed' if self.source.closed else ''}>"

    @property
    def name(self) -> str:
        """The path of the file, or what messages call activations in memory."""
        return "the activations in memory" if self.path is None else os.fspath(self.path)

    @property
    def scores(self) -> Scores:
        """Scores of the network on the stored examples, as their output was when they were extracted.

        ``{kind: {"accuracy", "loss", "n"}}`` of every kind but unseen, the loss in nats; empty where the output is not one
        score per class (``unscored`` says why). The accuracy on permuted examples is how far the network has memorized.
        """
        return {} if self.unscored else kind_scores(self.examples[: self.n_done], self.outcomes)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.stored)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in ALL_KINDS if len(kind_examples(self.examples, kind)[0]))

    def layer(self, name: str) -> StoredLayer:
        """Description of a layer; :class:`~manigeo.errors.UsageError` for a name that is none of them."""
        if name not in self.stored:
            raise UsageError(f"{self.name} has no layer {name!r}; it has {', '.join(self.layers)}")
        return self.stored[name]

    def only(self, layers: Iterable[str]) -> "Activations":
        """The same examples, in memory, with some of the layers, each at its depth."""
        kept = {name: self.layer(name) for name in layers}
        every = np.arange(len(self.examples))
        held = self.source if isinstance(self.source, HeldRows) else HeldRows({n: self.rows(n, every) for n in kept})
        dtypes = {name: self.dtypes[name] for name in kept}
        return replace(self, stored=kept, dtypes=dtypes, source=held.only(kept), path=None)

    def rows(self, layer: str, rows: np.ndarray) -> np.ndarray:
        """Activations (rows, features) of the given examples.

        Raises :class:`~manigeo.errors.InputError` where they are NaN or infinite, or the file is damaged.
        """
        self._check_open(layer)
        out = self.source.rows(layer, rows)
        if not np.isfinite(out).all():
            raise InputError(
                f"{self.name}: layer {layer!r} holds NaN or infinite activations; check the network's inputs"
            )
        return out

    def _check_open(self, layer: str) -> None:
        self.layer(layer)
        if self.source.closed:
            raise ValueError(f"{self.name} is closed; use its manifolds while it is open")

    def manifolds(
        self,
        layer: str,
        kind: str,
        per_class: int | None = None,
        seed: int = 0,
        classes: Sequence[int] | None = None,
    ) -> "list[np.ndarray] | StoredManifolds":
        """The point clouds of a layer, one (points, features) array a class: all points, or ``per_class`` sampled; of all
        classes, or of those with the labels ``classes``.

        The same ``seed`` takes the same examples in every layer. Clouds of more than 256 MB together are read, or copied, a
        few at a time, as they are looked at (:class:`StoredManifolds`); keep a file open for these.

        Raises ``ValueError`` for an unknown kind or more points than a class has.
        """
        return self.clouds(layer, list(sample_rows(self.examples, kind, per_class, seed, classes).values()))

    def clouds(self, layer: str, sampled: "Sequence[np.ndarray]") -> "list[np.ndarray] | StoredManifolds":
        """Activations of examples by their rows, one (points, features) array for each array of rows; see
        :meth:`manifolds`."""
        self._check_open(layer)
        n_features = self.layer(layer).n_features
        row_bytes = max(1, n_features * np.dtype(self.dtypes[layer]).itemsize)
        if sum(map(len, sampled)) * row_bytes > HELD_BYTES:
            return StoredManifolds(partial(self.rows, layer), sampled, n_features, row_bytes)
        return np.split(self.rows(layer, np.concatenate(sampled)), np.cumsum([len(rows) for rows in sampled])[:-1])


class HeldWriter:
    """Writer into memory, batch by batch, with the ``append`` of :class:`~manigeo.activations.writing.ActivationWriter`; the
    arguments are those of :func:`~manigeo.activations.writing.create_activations`.

    >>> columns = {"index": range(4), "split": "test", "true_label": [0, 0, 1, 1], "train_label": [0, 0, 1, 1]}
    >>> h1 = StoredLayer("h1", 0, "Linear", 0, (3,), "flatten", None, ())
    >>> writer = HeldWriter(pd.DataFrame(columns).assign(permuted=False), ["cat", "dog"], [h1], {})
    >>> writer.append({"h1": np.ones((2, 3))})
    >>> writer.append({"h1": np.zeros((2, 3))})
    >>> writer.finish().rows("h1", np.array([1, 2])).tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        examples: pd.DataFrame,
        class_names: Sequence[str],
        layers: Sequence[StoredLayer],
        provenance: Mapping[str, Any],
        *,
        dtype: str = "float32",
        scoring: Scoring = UNSCORED,
    ) -> None:
        if dtype not in DTYPES:
            raise UsageError(f"activations are stored as {' or '.join(DTYPES)}, got {dtype!r}")
        self._about, self._scoring = (examples, class_names, layers, provenance), scoring
        self._arrays = {layer.name: np.empty((len(examples), layer.n_features), dtype) for layer in layers}
        self._outcomes = np.empty((len(examples) if scoring.n_outputs else 0, len(COLUMNS)), np.float32)
        self.n_done = 0

    def append(self, batch: Mapping[str, np.ndarray], outcomes: np.ndarray | None = None) -> None:
        """Put one batch, ``{layer: (rows, ...)}``, behind the last one, and what the output said of each example.

        Raises :class:`~manigeo.errors.InputError` for activations that the dtype cannot hold.
        """
        (n,) = {len(values) for values in batch.values()}
        stop = self.n_done + n
        for name, values in batch.items():
            held = self._arrays[name]
            held[self.n_done : stop] = as_stored(name, values.reshape(n, -1), held.dtype, first=self.n_done == 0)
        if outcomes is not None:
            self._outcomes[self.n_done : stop] = outcomes
        self.n_done = stop

    def finish(self, **more: Any) -> Activations:
        """The activations of all batches; ``more`` are further fields of :class:`Activations`."""
        if self.n_done != len(self._about[0]):
            raise ValueError(f"{self.n_done} of {len(self._about[0])} examples were written")
        return Activations.in_memory(*self._about, self._arrays, scoring=self._scoring, outcomes=self._outcomes, **more)

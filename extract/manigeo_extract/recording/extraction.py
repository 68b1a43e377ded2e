"""Extraction from a network and its examples to ``acts.h5``: choice of examples and layers, size in bytes, writing."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from jaxtyping import Int64

from manigeo.activations import (
    UNSCORED,
    Activations,
    HeldWriter,
    Scoring,
    Shard,
    StoredLayer,
    chosen_filters,
    create_activations,
    identity_of,
)
from manigeo.errors import UsageError
from manigeo.faces.progress import track
from manigeo.kinds import ALL_KINDS
from manigeo.manifolds import kind_examples
from manigeo.storage.commits import has_commit, partial_of
from manigeo.storage.files import check_target
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.data.label_files import read_labels  # noqa: F401  its place in earlier versions
from manigeo_extract.data.positions import BY_LABEL, points_of
from manigeo_extract.devices import InPieces, check_device
from manigeo_extract.machine import this_machine
from manigeo_extract.recording.census import doubts, take_census
from manigeo_extract.recording.hooks import OUTPUTS, record_layers
from manigeo_extract.recording.layers import Layer, select_layers, taking_inputs
from manigeo_extract.recording.outcomes import outcomes_of, scoring_of
from manigeo_extract.recording.readouts import with_readout
from manigeo_extract.recording.shards import shard_range
from manigeo_extract.recording.sketching import describe_sketch, sketches

_COPIES = 3.3  # the batch in the network, its copies, and those of the batch that is being written: measured
_MEMORY = 2e9  # bytes
_LEAST = 20  # contexts of each kind that a token must follow to be a manifold: tokens are not evenly frequent
_NOT_NAMED = Scoring(why_not="the manifolds are sequences, which the network does not name")
Computed = tuple[dict[str, np.ndarray], np.ndarray | None]  # a batch of every layer, and its outcomes


@dataclass(frozen=True)
class ExtractionPlan:
    """Plan of an extraction: the layers, and the rows of the example table, grouped by true class.

    Layers of more than ``project`` features are projected to so many; ``seed`` is that of the examples' choice and of the
    projections. ``unlisted`` has the modules that have weights and are no layers, with the reason, ``notes`` what of this a
    user should know. ``scoring`` is how the network's output scores the classes; ``left_out`` says in words how many
    examples take no part, and how to change that; ``class_names`` are those of the labels in the table of examples.
    """

    rows: Int64[np.ndarray, " n"]
    examples: pd.DataFrame
    layers: tuple[Layer, ...]
    project: int | None = None
    dtype: str = "float32"
    seed: int = 0
    notes: tuple[str, ...] = ()
    unlisted: Mapping[str, str] = field(default_factory=dict)
    scoring: Scoring = UNSCORED
    left_out: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Size before compression."""
        return sum(self.layer_bytes(layer) for layer in self.layers)

    def layer_bytes(self, layer: Layer) -> int:
        """Size of one layer before compression, in bytes."""
        return np.dtype(self.dtype).itemsize * len(self.rows) * self.stored(layer).n_features

    def computed(self, rows: range, kept: slice, recorded: dict[str, torch.Tensor]) -> Computed:
        """Activations and outcomes of the ``kept`` ones of some rows of the plan, as they are written."""
        outputs = recorded.pop(OUTPUTS, None)
        values = {name: tensor.numpy()[kept] for name, tensor in recorded.items()}
        if outputs is None:
            return values, None
        labels = self.examples.iloc[rows.start : rows.stop]
        outcomes = outcomes_of(outputs, labels["true_label"].to_numpy(), labels["train_label"].to_numpy())
        return values, outcomes[kept]

    @property
    def example_memory(self) -> float:
        """Bytes of memory that an example takes while its layers are computed, copied and written (about 3.3 copies)."""
        return _COPIES * 4 * sum(layer.n_features for layer in self.layers)

    def batch_size(self, asked: int | None = None, max_memory: float | None = None) -> int:
        """Number of examples at a time: what is asked for, else 256, and not more than fit ``max_memory`` bytes.

        Without a limit 2 GB is the limit of what is not asked for. It depends on nothing but the plan, so that shards and
        resumed extractions have the same batches.

        Raises :class:`~manigeo.errors.UsageError` where the memory is too small for one example.
        """
        if max_memory is None and asked is not None:
            return asked
        fitting = int((_MEMORY if max_memory is None else max_memory) // max(self.example_memory, 1))
        if fitting < 1 and max_memory is not None:
            raise UsageError(
                f"one example of these layers needs about {self.example_memory / 1e9:.3g} GB, more than --max-memory "
                f"{max_memory / 1e9:.3g}: take fewer layers (--layers), or allow more"
            )
        return max(1, min(asked or 256, fitting))

    def memory_words(self, batch_size: int) -> str:
        """Memory that the layers of a batch take, in words.

        >>> ExtractionPlan(np.arange(1), pd.DataFrame(), ()).memory_words(256)
        'about 0.0 GB of memory in batches of 256 (--max-memory)'
        """
        needed = min(batch_size, max(len(self.rows), 1)) * self.example_memory
        return f"about {needed / 1e9:.1f} GB of memory in batches of {batch_size} (--max-memory)"

    def stored(self, layer: Layer) -> StoredLayer:
        """The layer as the file has it."""
        projection = describe_sketch(layer, self.project, self.seed)
        return StoredLayer(
            name=layer.name,
            order=layer.order,
            module_class=layer.module_class,
            call_index=layer.call_index,
            feature_shape=layer.feature_shape if projection is None else (projection["n_sums"],),
            readout=layer.readout,
            projection=projection,
            aliases=layer.aliases,
        )


def plan_extraction(
    model: torch.nn.Module,
    data: DataSet,
    examples: pd.DataFrame,
    *,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    regex: Sequence[str] = (),
    types: Sequence[str] = (),
    readout: str | None = None,
    per_class: int = 50,
    project: int | None = None,
    dtype: str = "float32",
    seed: int = 0,
    batch_axes: Mapping[str, int] | None = None,
    manifolds: str = BY_LABEL,
    positions: Sequence[int] = (),
) -> ExtractionPlan:
    """Choose layers (:func:`~manigeo_extract.recording.layers.select_layers`), what is read of them, and examples: up to
    ``per_class`` of every class of every kind. ``batch_axes`` are those of
    :func:`~manigeo_extract.recording.census.take_census`.

    Of a text, ``manifolds`` and ``positions`` are those of :func:`~manigeo_extract.data.positions.points_of`.

    Permuted and restored group the same images by different labels, so both draw, and the file holds the union. Of a text
    the default ``readout`` is the last token, else "flatten", and tokens of which a kind has few contexts are left out.
    """
    examples, class_names = points_of(data, examples, manifolds, positions)
    by_token = data.sequences is not None and manifolds == BY_LABEL
    rows, rare = _choose_rows(examples, per_class, seed, least=_LEAST if by_token else 0)
    batch = data.inputs(rows[:2])
    with taking_inputs(batch, data.spec):
        found = take_census(model, batch, batch_axes)
    chosen = select_layers(
        found.layers, layers, exclude, regex=regex, types=types, unrecordable=found.unrecordable
    )  # fmt: skip
    selected = with_readout(chosen, readout or ("flatten" if data.sequences is None else "last-token"))
    remarks = found.remarks if not (layers or regex or types) else []
    drawn = f"of {len(examples)}, at most {per_class} per class and kind (--per-class)"
    few = f"{rare} tokens that follow fewer than {_LEAST} contexts of a kind are left out" if rare else ""
    even = f"{len(class_names)} sequences of each kind, as many as that with fewest has"
    each = "" if manifolds == BY_LABEL else even
    left_out = "; ".join(filter(None, [drawn if len(rows) < len(examples) else "", few, each, data.left_out]))
    return ExtractionPlan(
        rows, examples.iloc[rows].reset_index(drop=True), tuple(selected), project, dtype, seed,
        (*remarks, *doubts(selected)), {one.name: one.reason for one in found.left_out},
        scoring_of(found.layers, data.n_classes) if manifolds == BY_LABEL else _NOT_NAMED, left_out, class_names,
    )  # fmt: skip


def _choose_rows(examples: pd.DataFrame, per_class: int, seed: int, least: int = 0) -> tuple[np.ndarray, int]:
    """Rows of the examples, grouped by true class, without classes that have fewer than ``least`` of a kind, and how many
    classes that are."""
    if per_class < 2:
        raise UsageError(f"a manifold needs 2 examples per class or more, got --per-class {per_class}")
    if not (by_kind := list(_kind_rows(examples, per_class, seed))):
        found = ", ".join(map(str, dict.fromkeys(examples["split"])))
        raise UsageError(f"expected examples of the splits train or test, which kinds are made of, got {found} alone")
    chosen = np.unique(np.concatenate(by_kind))
    true_label = examples["true_label"].to_numpy()[chosen]
    rare = _rare(examples, least)
    kept = ~np.isin(true_label, rare)
    return chosen[kept][np.argsort(true_label[kept], kind="stable")], len(rare)


def _rare(examples: pd.DataFrame, least: int) -> np.ndarray:
    """Labels with fewer than ``least`` examples of a kind; none where that would leave fewer than two."""
    labels = [kind_examples(examples, kind)[1] for kind in ALL_KINDS] if least else []
    every = np.unique(np.concatenate([*labels, np.empty(0, np.int64)]))
    counts = [np.array([np.count_nonzero(of == label) for label in every]) for of in labels if len(of)]
    rare = every[np.min(counts, axis=0) < least] if counts else every
    return rare if len(every) - len(rare) > 1 else every[:0]


def _kind_rows(examples: pd.DataFrame, per_class: int, seed: int) -> Iterator[np.ndarray]:
    for kind in ALL_KINDS:
        rows, labels = kind_examples(examples, kind)
        for label in np.unique(labels):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(ALL_KINDS.index(kind), int(label))))
            yield rng.permutation(rows[labels == label])[:per_class]


def extract_activations(
    model: torch.nn.Module,
    data: DataSet,
    plan: ExtractionPlan,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any],
    *,
    batch_size: int = 256,
    device: str = "cpu",
    tf32: bool = False,
    compression: str = "fast",
    shard: tuple[int, int] | None = None,
    force: bool = False,
    resume: bool = False,
    progress: bool = False,
    tell: Callable[[str], None] = lambda said: None,
) -> None:
    """Run the planned examples through the network, in eval mode and full float32 precision, and stream to ``path``.

    Activations differ by about 1e-6 with the batch size, which the provenance therefore holds. Shard ``(number, of)`` takes
    its classes out of the batches of the whole, and ``resume`` goes on at the batch that an interrupted extraction was at:
    either way every row is computed among the same others, and is the same. How layers are compressed (``compression``:
    none, fast or small) the first batch decides. ``tell`` hears, once, when memory runs out and
    batches go through the network in pieces.

    Raises :class:`~manigeo.errors.UsageError` where ``path`` exists (unless ``force``), or does not fit on its disk.
    """
    own = range(len(plan.rows)) if shard is None else shard_range(plan.examples["true_label"].to_numpy(), *shard)
    _check_space(check_target(path, force=force), plan.n_bytes * len(own) // len(plan.rows))
    model = model.to(check_device(device))
    stored = [plan.stored(layer) for layer in plan.layers]
    provenance = {**provenance, "batch_size": batch_size, "dtype": plan.dtype, **_numerics(device, tf32)}
    examples = plan.examples.iloc[own.start : own.stop].reset_index(drop=True)
    part = None
    if shard is not None:
        whole = identity_of(plan.examples, plan.class_names, stored, provenance)
        part = Shard(*shard, own.start, len(plan.rows), whole)
    with _computing(model, data, plan, own, batch_size, tf32, progress, tell) as (computed, forward):
        begun = resume and has_commit(partial_of(path))
        ahead = [] if begun else list(itertools.islice(fresh := computed(0), 1))
        filters = chosen_filters(ahead[0][0], plan.dtype, compression) if ahead else {}
        with create_activations(
            path, examples, plan.class_names, stored, provenance, dtype=plan.dtype, batch_size=batch_size, shard=part,
            scoring=plan.scoring, filters=filters, force=force, resume=resume,
        ) as writer:  # fmt: skip
            with _one_ahead(lambda item: writer.append(*item)) as append:
                for item in computed(writer.n_done) if begun else itertools.chain(ahead, fresh):
                    append(item)
            if forward.smallest is not None:
                writer.remark("smallest_batch", forward.smallest)


def hold_activations(
    model: torch.nn.Module,
    data: DataSet,
    plan: ExtractionPlan,
    provenance: Mapping[str, Any],
    *,
    batch_size: int = 256,
    device: str = "cpu",
    tf32: bool = False,
    progress: bool = False,
    tell: Callable[[str], None] = lambda said: None,
) -> Activations:
    """Run the planned examples through the network as :func:`extract_activations` does, and keep the activations in memory:
    the same numbers, with the same fingerprint. The network stays where it is, on ``device``.

    Raises :class:`~manigeo.errors.UsageError` where they do not fit the memory that is free.
    """
    _check_memory(plan.n_bytes)
    stored = [plan.stored(layer) for layer in plan.layers]
    provenance = {**provenance, "batch_size": batch_size, "dtype": plan.dtype, **_numerics(device, tf32)}
    writer = HeldWriter(plan.examples, plan.class_names, stored, provenance, dtype=plan.dtype, scoring=plan.scoring)
    every = range(len(plan.rows))
    with _computing(model, data, plan, every, batch_size, tf32, progress, tell) as (computed, forward):
        for item in computed(0):
            writer.append(*item)
    return writer.finish(notes=plan.notes, smallest_batch=forward.smallest)


@contextmanager
def _computing(
    model: torch.nn.Module,
    data: DataSet,
    plan: ExtractionPlan,
    own: range,
    batch_size: int,
    tf32: bool,
    progress: bool,
    tell: Callable[[str], None],
) -> Iterator[tuple[Callable[[int], Iterator[Computed]], InPieces]]:
    """A function from the number of rows that are done to the batches that are not, of the rows ``own`` of the plan."""
    with _precision(tf32), _recording(model, plan) as record:
        forward = InPieces(record, tell)

        def computed(n_done: int) -> Iterator[Computed]:
            for batch, kept in _batches(range(own.start + n_done, own.stop), batch_size, progress):
                yield plan.computed(batch, kept, forward(data.inputs(plan.rows[batch.start : batch.stop])))

        yield computed, forward


@contextmanager
def _recording(model: torch.nn.Module, plan: ExtractionPlan) -> Iterator[Callable[[Any], dict[str, torch.Tensor]]]:
    projections = sketches(plan.layers, plan.project, plan.seed)
    with record_layers(model, plan.layers, projections, outputs=plan.scoring.n_outputs > 0) as record:
        yield record


def _batches(rows: range, batch_size: int, progress: bool) -> Iterator[tuple[range, slice]]:
    """The batches of the whole that hold some of ``rows``, and which of a batch's rows these are."""
    starts = range(rows.start // batch_size * batch_size, rows.stop, batch_size)
    for start in track(starts, "extract", "batch", progress):
        batch = range(start, start + batch_size)
        yield batch, slice(max(rows.start - start, 0), rows.stop - start)


@contextmanager
def _one_ahead(work: Callable[[Any], None]) -> Iterator[Callable[[Any], None]]:
    """``work`` in a thread of its own, one call at a time: while one batch is compressed the next is computed."""
    running: list[Future[None]] = []

    def start(item: Any) -> None:
        while running:
            running.pop().result()
        running.append(pool.submit(work, item))

    with ThreadPoolExecutor(max_workers=1) as pool:
        yield start
        while running:
            running.pop().result()


def _check_space(path: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise UsageError(
            f"{path} may need {n_bytes / 1e9:.1f} GB before compression, {free / 1e9:.1f} GB are free: "
            "take fewer layers (--layers) or examples (--per-class), or less of them (--project, --dtype float16)"
        )


def _numerics(device: str, tf32: bool) -> dict[str, Any]:
    return {
        "torch": str(torch.__version__), "device": torch.device(device).type, "tf32": tf32, "machine": this_machine(),
    }  # fmt: skip


def _check_memory(n_bytes: int) -> None:
    free = psutil.virtual_memory().available
    if n_bytes > free:
        raise UsageError(
            f"the activations take {n_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free: take fewer layers or "
            'examples (layers=, per_class=, project=), or write them to a file (out="acts.h5")'
        )


@contextmanager
def _precision(tf32: bool) -> Iterator[None]:
    """TF32 off inside the block, unless asked for: it rounds products to ten bits, which shows in small singular values."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before

r"""The parts of the gradient over a run: of every kind at every checkpoint, and against the number of examples.

Kinds are compared at one number of examples n, the most that each has, because the norm of a mean gradient depends on it:
with mean :math:`\mu` and covariance :math:`\Sigma` over examples,

.. math:: \langle |g_n|^2 \rangle = |\mu|^2 + \mathrm{tr}\,\Sigma / n.

The standard error of a norm is that of batch means: the spread of the norms of K disjoint chunks of n / K examples, over
:math:`\sqrt K`. Both where the mean rules and where the noise does, the variance of a norm goes as 1 / n, so this is right
in either limit; between them chunks are noisier than the whole, and it is up to 1.4 times too large (seen where n / K was
10 to 50, and 1.1 at 250). The spread of a cosine does not go so where noise rules: no error is given.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from manigeo.errors import UsageError
from manigeo.execution.resuming import remaining
from manigeo.kinds import CONTROL, MARKED, SAME_IMAGES, SCORED
from manigeo.manifolds import kind_examples, standard_error
from manigeo.randomness import stream
from manigeo.results import as_table
from manigeo_extract.files.checkpoints import load_checkpoint
from manigeo_extract.gradients.decomposition import (
    PARTS,
    Gradients,
    Split,
    cosines,
    inner_products,
    norms,
    residuals,
    splitting,
)
from manigeo_extract.interventions.editing import replaced
from manigeo_extract.interventions.groups import Group
from manigeo_extract.training.evaluation import HasInputs, held
from manigeo_extract.training.runs import Run, Snapshot, place_of

Row = dict[str, Any]
ALL = "(all)"
CHUNKS = 8
_PAIRS = {
    "parts_cosine": ("label_dependent", "label_independent"),
    "parts_centred_cosine": ("label_dependent_centred", "label_independent_centred"),
}


# ------------------------------------------------------------------------------------------------------- what is looked at
@dataclass(frozen=True, eq=False)
class Sample:
    """Images, by row of the example table, under the labels of each of ``kinds``; ``key`` names their random order."""

    key: int
    kinds: tuple[str, ...]
    rows: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, "kinds n"]

    def drawn(self, n: int, seed: int, *key: int) -> "Sample":
        """``n`` of the images in random order; under one key fewer are the beginning of more."""
        order = stream(seed, self.key, *key).permutation(len(self.rows))[:n]
        return Sample(self.key, self.kinds, self.rows[order], self.labels[:, order])


_TOGETHER = (*SAME_IMAGES, *((kind,) for kind in (*MARKED, CONTROL)))  # places in here name random orders: append only


def kind_samples(examples: pd.DataFrame, kinds: Sequence[str] = ()) -> list[Sample]:
    """The images of these kinds, those that share them together; without any, of all kinds that have examples.

    Raises :class:`~manigeo.errors.UsageError` for a kind without examples.
    """
    found = {kind: kind_examples(examples, kind) for kind in SCORED}
    present = [kind for kind, (rows, _) in found.items() if len(rows)]
    wanted = set(kinds or present)
    if absent := [kind for kind in SCORED if kind in wanted and kind not in present]:
        raise UsageError(f"there are no {', '.join(absent)} examples; there are {', '.join(present) or 'none'}")
    together = [tuple(kind for kind in shared if kind in wanted) for shared in _TOGETHER]
    return [
        Sample(key, of, found[of[0]][0], np.stack([found[kind][1] for kind in of]))
        for key, of in enumerate(together)
        if of
    ]


@dataclass(frozen=True)
class Sweep:
    """Gradients over n = ``sizes`` examples at one snapshot, each a mean over ``repetitions`` draws."""

    snapshot: Snapshot
    sizes: tuple[int, ...]
    repetitions: int = 5


@dataclass(frozen=True, eq=False)
class Survey:
    """Survey of a gradient: its parts in ``groups`` of the parameters of a run's network, over ``n`` examples
    of every kind of ``samples`` at each of ``snapshots``, and in a ``sweep``. ``settings`` are other ones of numbers."""

    run: Run
    groups: tuple[Group, ...]
    samples: tuple[Sample, ...]
    n: int
    snapshots: tuple[Snapshot, ...]
    sweep: Sweep | None = None
    batch_size: int = 256
    seed: int = 0
    settings: Mapping[str, Any] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for sample in self.samples for kind in sample.kinds)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Ends of the disjoint chunks."""
        k = min(CHUNKS, self.n)
        return tuple(self.n * i // k for i in range(1, k + 1))

    @property
    def common(self) -> dict[str, Any]:
        """The settings that all rows share."""
        return {"mode": "eval", "kinds": list(self.kinds), "seed": self.seed} | dict(self.settings or {})

    @cached_property
    def chosen(self) -> np.ndarray:
        """Rows of the table that are looked at."""
        return np.unique(np.concatenate([sample.rows for sample in self.samples]))

    @cached_property
    def source(self) -> HasInputs:
        return held(self.run.data, self.chosen, next(self.run.model.parameters()).device)

    def table(self, task: "Task") -> pd.DataFrame:
        """The results table of a task.

        Of every layer, and of ``(all)`` as one: ``<part>_norm`` of each of
        :data:`~manigeo_extract.gradients.decomposition.PARTS`; ``parts_cosine`` and ``parts_centred_cosine`` between the
        two parts; ``parts_residual``, how far these are from summing to the gradient; ``<part>_cosine`` between two kinds,
        of which the other is ``with`` in the settings. Of the sweep: ``<part>_norm_sweep`` for each size n, and
        ``<part>_slope`` of log norm against log n. Their errors are over draws from the same examples: they know nothing
        of other data, and are too small where a draw takes most of what there is.

        Afterwards the network is what it was, buffers and flags included, also after Ctrl-C.
        """
        rows, snapshot = (_swept, task.snapshot) if isinstance(task, Sweep) else (_compared, task)
        with _splitting(self, snapshot) as (place, split):
            look = _Look(split, self.source, self.chosen, self.batch_size)
            return as_table([place | row for row in rows(self, look)])

    def todo(self, table: pd.DataFrame | None = None) -> "tuple[list[Task], pd.DataFrame | None]":
        """The tasks that are not whole in an earlier ``table``, and the table without those that are not.

        Raises :class:`~manigeo.errors.UsageError` for a table of other settings.
        """
        tasks: dict[tuple[Any, Any], Task] = {("gradients", snapshot.name): snapshot for snapshot in self.snapshots}
        wanted = [_compared_settings(self)]
        if self.sweep:
            tasks["gradient_sweep", self.sweep.snapshot.name] = self.sweep
            wanted.append(_swept_settings(self))
        return remaining(table, tasks, wanted, lambda row, of: (of["analysis"], row.checkpoint), self._is_whole)

    def _is_whole(self, task: "Task", rows: Sequence[Any]) -> bool:
        n, parts = len(self.kinds), len(PARTS)
        compared = n * (parts + len(_PAIRS) + 1) + n * (n - 1) // 2 * parts
        wanted = n * parts * (len(task.sizes) + 1) if isinstance(task, Sweep) else compared
        path = task.snapshot.path if isinstance(task, Sweep) else task.path
        return len(rows) == wanted * (len(self.groups) + 1) and rows[0].fingerprint == load_checkpoint(path).sha256


Task = Snapshot | Sweep


def plan_survey(
    run: Run,
    groups: Sequence[Group],
    snapshots: Sequence[Snapshot],
    kinds: Sequence[str] = (),
    sweep: Sweep | None = None,
    most: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Survey:
    """A survey of as many examples as every kind has, ``most`` at most.

    Raises :class:`~manigeo.errors.UsageError` for a kind without examples, and for a sweep over one size, or over more
    examples than there are.
    """
    samples = kind_samples(run.examples, kinds)
    short = min(samples, key=lambda sample: len(sample.rows))
    n = min(len(short.rows), most or len(short.rows))
    if sweep is not None and len(sweep.sizes) < 2:
        raise UsageError(f"a slope takes two sizes or more, got {sweep.sizes}; add one, as in 200,2000")
    if sweep is not None and len(short.rows) < sweep.sizes[-1]:
        raise UsageError(
            f"size {sweep.sizes[-1]} is more than there are: {len(short.rows)} {short.kinds[0]} examples; give smaller "
            "sizes, or only kinds that have more"
        )
    return Survey(run, tuple(groups), tuple(samples), n, tuple(snapshots), sweep, batch_size, seed, settings)


# ---------------------------------------------------------------------------------------------------------------- tables
@contextmanager
def _splitting(survey: Survey, snapshot: Snapshot) -> Iterator[tuple[Row, Split]]:
    """The network as it was at a snapshot, and the columns of the table that tell so."""
    model = survey.run.model
    place = place_of(load_checkpoint(snapshot.path)) | {"checkpoint": snapshot.name}
    with replaced(model, snapshot.state(model)), splitting(model, survey.groups) as split:
        yield place, split


@dataclass(frozen=True, eq=False)
class _Look:
    """Samples through the network, batch by batch."""

    split: Split
    source: HasInputs
    chosen: Int[np.ndarray, " n"]  # rows of the table that the source has, in its order
    batch_size: int

    def pieces(self, sample: Sample, ends: Sequence[int]) -> Iterator[Gradients]:
        """The gradients of the examples up to the first of ``ends``, from there to the second ..."""
        at, labels = np.searchsorted(self.chosen, sample.rows), torch.from_numpy(sample.labels)
        for batches in _batches(ends, self.batch_size):
            first, *others = (self._of(at[batch], labels[:, batch]) for batch in batches)
            yield reduce(Gradients.add_, others, first)

    def _of(self, at: Int[np.ndarray, " batch"], labels: Int[torch.Tensor, "kinds batch"]) -> Gradients:
        return self.split(self.source.inputs(at), labels)


def _batches(ends: Sequence[int], size: int) -> list[list[slice]]:
    """Batches of each piece: a batch lies in one.

    >>> _batches((3, 5), 2)
    [[slice(0, 2, None), slice(2, 3, None)], [slice(3, 5, None)]]
    """
    pieces = itertools.pairwise((0, *ends))
    return [[slice(i, min(i + size, stop)) for i in range(start, stop, size)] for start, stop in pieces]


# ----------------------------------------------------------------------------------------------------- kinds beside kinds
def _compared_settings(survey: Survey) -> dict[str, Any]:
    return {"analysis": "gradients", "chunks": len(survey.chunks)} | survey.common


def _compared(survey: Survey, look: _Look) -> Iterator[Row]:
    totals, errors = [], []
    for sample in survey.samples:
        total, of_chunks = _totalled(look.pieces(sample.drawn(survey.n, survey.seed), survey.chunks))
        totals.append(total)
        errors.append(standard_error(of_chunks))
    gram, error = inner_products(totals), np.concatenate(errors, axis=1)
    settings = _compared_settings(survey)
    for a, kind in enumerate(survey.kinds):
        common = {"kind": kind, "n": survey.n, "settings": json.dumps(settings)}
        for i, part in enumerate(PARTS):
            yield from _layer_rows(survey, common, f"{part}_norm", norms(gram[:, a, a], part), error[:, a, i])
        for metric, (one, other) in _PAIRS.items():
            yield from _layer_rows(survey, common, metric, cosines(gram, (a, one), (a, other)))
        yield from _layer_rows(survey, common, "parts_residual", residuals(gram[:, a, a]))
        for b, against in enumerate(survey.kinds[:a]):
            both = common | {"settings": json.dumps(settings | {"with": against})}
            for part in PARTS:
                yield from _layer_rows(survey, both, f"{part}_cosine", cosines(gram, (a, part), (b, part)))


Norms = Float[np.ndarray, "draws layers kinds parts"]


def _totalled(pieces: Iterator[Gradients]) -> tuple[Gradients, Norms]:
    """The gradients over all pieces, and the norms in each."""
    total = next(pieces)
    found = [_all_norms(total)]
    for piece in pieces:
        found.append(_all_norms(piece))
        total = total.add_(piece)
    return total, np.stack(found)


def _all_norms(gradients: Gradients) -> Float[np.ndarray, "layers kinds parts"]:
    gram = np.einsum("nkkij->nkij", inner_products([gradients]))
    return np.stack([norms(gram, part) for part in PARTS], axis=-1)


def _layer_rows(
    survey: Survey,
    common: Row,
    metric: str,
    values: Float[np.ndarray, " layers"],
    errors: Float[np.ndarray, " layers"] | None = None,
) -> Iterator[Row]:
    """One metric of every layer."""
    layers = [*(group.name for group in survey.groups), ALL]
    for depth, (layer, value) in enumerate(zip(layers, values, strict=True)):
        row = common | {"metric": metric, "layer": layer, "depth": depth, "value": float(value)}
        error = {} if errors is None else {"stderr": float(errors[depth])}
        yield row | error | ({} if np.isfinite(value) else {"flag": "zero_norm"})


# ------------------------------------------------------------------------------------------------- the number of examples
def _swept_settings(survey: Survey) -> dict[str, Any]:
    assert survey.sweep is not None
    return {"analysis": "gradient_sweep", "repetitions": survey.sweep.repetitions} | survey.common


def _swept(survey: Survey, look: _Look) -> Iterator[Row]:
    sweep = survey.sweep
    assert sweep is not None
    settings = _swept_settings(survey)
    for sample in survey.samples:
        draws = (sample.drawn(sweep.sizes[-1], survey.seed, r) for r in range(sweep.repetitions))
        found = np.stack([np.stack(list(_growing(look.pieces(draw, sweep.sizes)))) for draw in draws])
        for (a, kind), (i, part) in itertools.product(enumerate(sample.kinds), enumerate(PARTS)):
            of_part = found[..., a, i]  # (draws, sizes, layers)
            for j, size in enumerate(sweep.sizes):
                common = {"kind": kind, "n": size, "settings": json.dumps(settings | {"examples": size})}
                n_draws = 1 if size == len(sample.rows) else None  # draws of all there is are one draw
                mean, error = of_part[:, j].mean(axis=0), standard_error(of_part[:n_draws, j])
                yield from _layer_rows(survey, common, f"{part}_norm_sweep", mean, error)
            slopes = _slopes(sweep.sizes, of_part)
            common = {"kind": kind, "n": sweep.repetitions, "settings": json.dumps(settings | {"sizes": sweep.sizes})}
            yield from _layer_rows(survey, common, f"{part}_slope", slopes.mean(axis=0), standard_error(slopes))


def _growing(pieces: Iterator[Gradients]) -> Iterator[Float[np.ndarray, "layers kinds parts"]]:
    """The norms over the first piece, over the first two ..."""
    for total in itertools.accumulate(pieces, Gradients.add_):
        yield _all_norms(total)


def _slopes(sizes: Sequence[int], found: Float[np.ndarray, "draws sizes layers"]) -> Float[np.ndarray, "draws layers"]:
    """Slopes of log norm against log n, by least squares; NaN where a norm is 0.

    >>> _slopes((10, 1000), np.array([[[3.0], [0.3]]])).round(9)
    array([[-0.5]])
    """
    x = np.log(sizes) - np.log(sizes).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.einsum("s,dsl->dl", x / (x @ x), np.log(found))

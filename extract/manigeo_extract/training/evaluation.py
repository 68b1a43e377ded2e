"""Scores of a network on the four kinds of examples, and whether it has memorized (Stephenson et al. 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from manigeo.errors import UsageError
from manigeo.kinds import CONTROL, LEFT_OUT, MARKED, SAME_IMAGES, VALIDATION, memorized_kind
from manigeo.localization.reference import GATE as MEMORIZATION_GATE
from manigeo.manifolds import kind_examples
from manigeo_extract.batches import Batch, like_parameters, n_examples
from manigeo_extract.models.tied import tied_to
from manigeo_extract.recording.layers import evaluating, logits_of, without_gradients
from manigeo_extract.recording.next_token import answers

GROUPS = (*SAME_IMAGES, (VALIDATION,), (LEFT_OUT,), *((kind,) for kind in (*MARKED, CONTROL)))

IN_MEMORY = 2**30  # bytes up to which all inputs are prepared once and held on the device

Scores = dict[str, dict[str, float | int]]  # {kind: {"accuracy", "loss", "n"}}


@runtime_checkable
class HasInputs(Protocol):
    """Anything that gives the inputs of some rows of the example table: a float tensor, or several tensors by name."""

    def inputs(self, rows: Any) -> Any: ...


@runtime_checkable
class Sheet(Protocol):
    """Anything that takes the answers to single examples while a network is scored."""

    def take(
        self, rows: Int[np.ndarray, " batch"], logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
    ) -> None: ...


@dataclass(frozen=True)
class _Held:
    """Inputs prepared once, on the device."""

    X: Tensor

    def inputs(self, rows: Any) -> Tensor:
        return self.X[torch.as_tensor(rows, device=self.X.device)]


@dataclass(frozen=True)
class _Some:
    """Inputs of some rows, numbered anew, prepared when they are asked for."""

    data: HasInputs
    chosen: Int[np.ndarray, " n"]

    def inputs(self, rows: Any) -> Any:
        return self.data.inputs(self.chosen[rows])


def held(data: HasInputs, rows: Int[np.ndarray, " n"], device: str | torch.device) -> HasInputs:
    """The inputs of these rows, from 0 on: prepared once and on the device, if they are images and fit a gibibyte."""
    one = data.inputs(rows[:1])
    if not isinstance(one, Tensor) or one.nbytes * len(rows) > IN_MEMORY:
        return _Some(data, rows)
    chunks = np.array_split(rows, -(-len(rows) // 1024))
    return _Held(torch.cat([data.inputs(chunk) for chunk in chunks]).to(device))


def evaluate(
    model: torch.nn.Module,
    data: HasInputs,
    examples: pd.DataFrame,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
    sheet: Sheet | None = None,
) -> Scores:
    r"""Accuracy, mean cross-entropy and number of examples of every kind that has any, of validation, and of those left out.

    .. math::
        \mathrm{loss} = -\langle \log p_y(x) \rangle, \quad \mathrm{accuracy} = \langle [\arg\max_k p_k(x) = y] \rangle

    ``examples`` is the example table, one row per example of ``data``. Returns ``{kind: {"accuracy", "loss", "n"}}``, the
    loss in nats. In eval mode, without augmentation; permuted and restored share one forward pass. Training flags are put
    back. Training examples have the channels that are tied to them (:mod:`manigeo_extract.models.tied`). A ``sheet`` takes
    the answers to single examples on the way, without a second pass. Unseen classes are not scored: the network has no
    outputs for them.

    Raises :class:`~manigeo.errors.UsageError` when the model has fewer outputs than there are classes.

    >>> from manigeo_extract import load_data, permute_labels, Permutation
    >>> data = load_data("digits", {"per_class": 10})
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> scores = evaluate(model, data, permute_labels(data, Permutation(0.5)))
    >>> scores["permuted"]["n"], sorted(scores)
    (50, ['permuted', 'restored', 'test', 'unpermuted', 'validation'])
    """
    scores: Scores = {}
    with evaluating(model), without_gradients():
        for kinds in GROUPS:
            members = [members_of(examples, kind) for kind in kinds]
            rows, labels = members[0][0], np.stack([labels for _, labels in members])
            if len(rows):
                tied = bool(examples["split"].iloc[rows[0]] == "train")
                found = _scores(model, data, rows, labels, device, batch_size, tied, sheet)
                scores |= dict(zip(kinds, found, strict=True))
    return scores


def answered(model: torch.nn.Module, batch: Batch, axes: int = 2) -> Float[Tensor, "batch ... classes"]:
    """Scores of the classes that the network gives to a batch, called as everywhere: named inputs by their names, and of
    an output in several parts the logits. With three ``axes`` they are those of each position of a sequence.

    Raises :class:`~manigeo.errors.UsageError` where the output holds no tensor (examples, outputs).
    """
    output = answers(model, batch)
    logits = logits_of(output)
    if logits is None or logits.ndim != axes or len(logits) != n_examples(batch):
        found = f"a {type(output).__name__}" if logits is None else f"a tensor of shape {tuple(logits.shape)}"
        raise UsageError(
            f"the network must return a tensor (examples, {'positions, ' * (axes - 2)}outputs), got {found} for "
            f"{n_examples(batch)} examples"
        )
    return logits


def memorized(metrics: Mapping[str, Mapping[str, Any]], gate: float = MEMORIZATION_GATE) -> bool:
    """Return whether the permuted labels, or the canaries, were learned; False where there are none.

    >>> memorized({"permuted": {"accuracy": 0.99}}), memorized({"test": {"accuracy": 0.99}})
    (True, False)
    """
    kind = memorized_kind(metrics)
    return kind is not None and metrics[kind]["accuracy"] >= gate


def members_of(examples: pd.DataFrame, kind: str) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Rows of the examples of a kind, of the validation data, or left out of training, and the labels they are scored by."""
    if kind not in (VALIDATION, LEFT_OUT):
        return kind_examples(examples, kind)
    rows = np.flatnonzero(examples["split"].to_numpy() == kind)
    return rows, examples["train_label"].to_numpy(dtype=np.int64)[rows]


def _scores(
    model: torch.nn.Module,
    data: HasInputs,
    rows: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, "kinds n"],
    device: str | torch.device,
    batch_size: int,
    tied: bool,
    sheet: Sheet | None = None,
) -> list[dict[str, float | int]]:
    y = torch.as_tensor(labels, device=device)
    sums = []
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        with tied_to(model, rows[batch] if tied else None):
            logits = answered(model, like_parameters(model, data.inputs(rows[batch]).to(device)))
        if labels.max() >= logits.shape[1]:
            raise UsageError(f"the model has {logits.shape[1]} outputs, the labels go up to {labels.max()} (from 0 on)")
        if sheet is not None:
            sheet.take(
                rows[batch], logits, y[0, batch]
            )  # of permuted and restored, the first are the labels of training
        sums.append(_loss_and_hits(logits.float(), y[:, batch]))
    totals = torch.stack(sums).cpu().double().sum(dim=0).tolist()
    return [{"accuracy": hits / len(rows), "loss": loss / len(rows), "n": len(rows)} for loss, hits in totals]


def _loss_and_hits(logits: Float[Tensor, "batch classes"], y: Int[Tensor, "kinds batch"]) -> Float[Tensor, "kinds 2"]:
    loss = -logits.log_softmax(dim=1).gather(1, y.T).sum(dim=0)
    hits = (logits.argmax(dim=1) == y).sum(dim=1)
    return torch.stack([loss, hits.to(loss.dtype)], dim=1)

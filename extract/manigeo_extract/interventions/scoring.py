r"""Scores of a changed network on every kind of examples, and the distance of its answers from the unchanged network's.

With the probabilities p of the trained network and q of the changed one, over the examples of a kind,

.. math::
    1 - \langle \cos(p, q) \rangle, \qquad
    \mathrm{JS} = \langle \tfrac12 \mathrm{KL}(p \| m) + \tfrac12 \mathrm{KL}(q \| m) \rangle / \log 2, \quad m = (p + q)/2,

both from 0 to 1 and without labels (Gavrikov et al. 2024), and exactly 0 where no answer has changed by a bit; and with
chance 1/C, the chance-normalised drop

.. math:: (\mathrm{acc} - \mathrm{acc}') / (\mathrm{acc} - 1/C),

1 where a network falls to chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from manigeo.errors import UsageError
from manigeo.kinds import CONTROL, KINDS, MARKED, VALIDATION
from manigeo.manifolds import standard_error
from manigeo_extract.batches import Batch
from manigeo_extract.recording.layers import eagerly, evaluating, logits_of, unwrap, without_gradients
from manigeo_extract.recording.next_token import answers
from manigeo_extract.training.evaluation import HasInputs, held, members_of

Row = dict[str, Any]
# of each kind: of a network, and of a changed one in comparison
SCORES = ("accuracy", "loss")
COMPARED = (*SCORES, "accuracy_drop", "softmax_distance", "js", "normalised_drop")


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a network on all examples that are looked at: log probabilities (examples, classes)."""

    log_p: Float[Tensor, "n classes"]


class Examiner:
    """The examples of every kind, prepared once, for any number of networks.

    ``most`` examples of a kind are drawn by ``seed`` where there are more. ``kinds`` are those that there are examples of,
    ``validation`` among them.
    """

    def __init__(
        self,
        data: HasInputs,
        examples: pd.DataFrame,
        device: str | torch.device = "cpu",
        batch_size: int = 256,
        most: int | None = None,
        seed: int = 0,
    ) -> None:
        found = {
            kind: _drawn(*members_of(examples, kind), most, seed, i)
            for i, kind in enumerate((*KINDS, VALIDATION, *MARKED, CONTROL))
        }
        found = {kind: (rows, labels) for kind, (rows, labels) in found.items() if len(rows)}
        self.rows = np.unique(np.concatenate([rows for rows, _ in found.values()]))
        self.device, self.batch_size = torch.device(device), batch_size
        self._members = {
            kind: (
                torch.as_tensor(np.searchsorted(self.rows, rows), device=device),
                torch.as_tensor(labels, device=device),
            )
            for kind, (rows, labels) in found.items()
        }
        self._source = held(data, self.rows, device)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._members)

    def n(self, kind: str) -> int:
        """Number of examples of a kind that are looked at."""
        return len(self._members[kind][0])

    def members(self, kind: str) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Places of the examples of a kind among all that are looked at, and the labels that they are scored by."""
        at, labels = (tensor.cpu().numpy() for tensor in self._members[kind])
        return at, labels

    def batches(self, most: int | None = None) -> Iterator[Batch]:
        """The inputs of all examples, or of the first ``most`` of them, in their order."""
        n = len(self.rows) if most is None else min(most, len(self.rows))
        for start in range(0, n, self.batch_size):
            yield self._source.inputs(np.arange(start, min(start + self.batch_size, n))).to(self.device)

    def answers(self, model: nn.Module) -> Answers:
        """Compute the answers of the network, in eval mode, on all examples.

        Raises :class:`~manigeo.errors.UsageError` when it has fewer outputs than there are classes.
        """
        root = unwrap(model)
        with evaluating(root), eagerly(root), without_gradients():
            return self.collected(answers(root, batch) for batch in self.batches())

    def collected(self, outputs: Iterator[object]) -> Answers:
        """The answers from the network's output of each batch."""
        log_p = torch.cat([_logits(output).float().log_softmax(dim=1) for output in outputs])
        highest = max(int(labels.max()) for _, labels in self._members.values())
        if highest >= log_p.shape[1]:
            raise UsageError(f"the model has {log_p.shape[1]} outputs, the labels go up to {highest} (from 0 on)")
        return Answers(log_p)

    def hits(self, answers: Answers, kind: str) -> Float[np.ndarray, " n"]:
        """1 for each example of a kind that is answered by its label, 0 for the others."""
        at, labels = self._members[kind]
        hits: np.ndarray = (answers.log_p[at].argmax(dim=1) == labels).cpu().numpy().astype(np.float64)
        return hits

    def loss(self, answers: Answers, kind: str) -> float:
        """Mean cross-entropy."""
        at, labels = self._members[kind]
        return float(-answers.log_p[at].gather(1, labels[:, None]).double().mean())

    def accuracy(self, answers: Answers, kind: str) -> float:
        return float(self.hits(answers, kind).mean())

    def rows_of(self, answers: Answers) -> Iterator[Row]:
        """Accuracy and loss on every kind, as rows of the results table."""
        for kind in self.kinds:
            hits = self.hits(answers, kind)
            common = {"kind": kind, "n": len(hits)}
            yield common | {"metric": "accuracy", "value": hits.mean(), "stderr": standard_error(hits)}
            yield common | {"metric": "loss", "value": self.loss(answers, kind)}

    def compared(self, before: Answers, after: Answers, threshold: float | None = None) -> Iterator[Row]:
        """Accuracy and loss of a changed network, and how far it is from the one before, as rows of the results table.

        With a ``threshold``, ``critical`` is 1 where the chance-normalised drop is that or more, else 0.
        """
        cosines, divergences = _cosines(before.log_p, after.log_p), _divergences(before.log_p, after.log_p)
        yield from self.rows_of(after)
        for kind in self.kinds:
            at = self._members[kind][0].cpu().numpy()
            was, now = self.hits(before, kind), self.hits(after, kind)
            common = {"kind": kind, "n": len(was)}
            drop, error = float((was - now).mean()), standard_error(was - now)
            yield common | {"metric": "accuracy_drop", "value": drop, "stderr": error}
            yield common | {
                "metric": "softmax_distance",
                "value": 1 - cosines[at].mean(),
                "stderr": standard_error(cosines[at]),
            }
            yield common | {"metric": "js", "value": divergences[at].mean(), "stderr": standard_error(divergences[at])}
            yield from (common | row for row in _normalised(was, drop, error, before.log_p.shape[1], threshold))


def _normalised(
    was: Float[np.ndarray, " n"], drop: float, error: float, n_classes: int, threshold: float | None
) -> Iterator[Row]:
    """The drop in units of what there was to lose, unless that was nothing."""
    above = float(was.mean()) - 1 / n_classes
    nothing = above <= 2 * standard_error(was)
    value, stderr = (np.nan, np.nan) if nothing else (drop / above, error / above)
    flag = "at_chance" if nothing else ""
    yield {"metric": "normalised_drop", "value": value, "stderr": stderr, "flag": flag}
    if threshold is not None:
        yield {"metric": "critical", "value": np.nan if nothing else float(value >= threshold), "flag": flag}


def _cosines(log_p: Float[Tensor, "n classes"], log_q: Float[Tensor, "n classes"]) -> Float[np.ndarray, " n"]:
    cosines = torch.cosine_similarity(log_p.exp(), log_q.exp(), dim=1).clamp(0, 1)
    cosines[_unchanged(log_p, log_q)] = 1.0
    found: np.ndarray = cosines.cpu().numpy()
    return found.astype(np.float64)


def _unchanged(log_p: Float[Tensor, "n classes"], log_q: Float[Tensor, "n classes"]) -> Bool[Tensor, " n"]:
    """Examples with the same answer, bit for bit: rounding would leave a distance of 1e-7 between equals."""
    return (log_p == log_q).all(dim=1)


def _divergences(log_p: Float[Tensor, "n classes"], log_q: Float[Tensor, "n classes"]) -> Float[np.ndarray, " n"]:
    """Jensen-Shannon, in bits."""
    p, q = log_p.exp(), log_q.exp()
    log_m = (0.5 * (p + q)).clamp_min(torch.finfo(p.dtype).tiny).log()
    both = 0.5 * (torch.xlogy(p, p) - p * log_m + torch.xlogy(q, q) - q * log_m).sum(dim=1)
    both[_unchanged(log_p, log_q)] = 0.0
    found: np.ndarray = (both / math.log(2)).clamp(0, 1).cpu().numpy()
    return found.astype(np.float64)


def _logits(output: object) -> Tensor:
    tensor = logits_of(output)
    if tensor is None or tensor.ndim != 2:
        found = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
        raise UsageError(f"the network must return a tensor (examples, outputs), got {found}")
    return tensor


def _drawn(
    rows: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], most: int | None, seed: int, key: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    if most is None or len(rows) <= most:
        return rows, labels
    # permuted and restored are the same images: one draw for both
    key = KINDS.index("permuted") if key == KINDS.index("restored") else key
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))
    chosen = np.sort(rng.choice(len(rows), size=most, replace=False))
    return rows[chosen], labels[chosen]

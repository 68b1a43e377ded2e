"""Answers of a network to single examples, as the record of a training keeps them (:mod:`manigeo.per_example.recorded`)."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from manigeo.per_example.recorded import Answers, recorded_rows


def answers_to(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Answers:
    r"""Answers of the ``logits`` of n examples with the ``labels`` of training.

    >>> found = answers_to(torch.tensor([[0.0, 0.0], [3.0, 1.0]]), torch.tensor([1, 0]))
    >>> found.probability.round(3).tolist(), found.margin.tolist(), found.correct.tolist()
    ([0.5, 0.8809999823570251], [0.0, 2.0], [False, True])
    """
    return as_answers(_numbers(logits, labels))


class AnswerSheet:
    """Answers to the recorded examples of a table, collected batch by batch while the network is scored."""

    def __init__(self, examples: pd.DataFrame) -> None:
        self.rows = recorded_rows(examples)
        self._batches: list[tuple[np.ndarray, Tensor]] = []

    def take(
        self, rows: Int[np.ndarray, " batch"], logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
    ) -> None:
        """Take the answers to some rows of the table, by the labels that they are scored by."""
        self._batches.append((rows, _numbers(logits, labels)))

    def answers(self) -> Answers:
        """The answers to all recorded examples, in their order."""
        rows = np.concatenate([rows for rows, _ in self._batches])
        wanted = torch.as_tensor(np.argsort(rows, kind="stable")[np.searchsorted(np.sort(rows), self.rows)])
        numbers = torch.cat([numbers for _, numbers in self._batches], dim=1)
        return as_answers(numbers[:, wanted.to(numbers.device)])


def _numbers(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, "4 n"]:
    """Probability, margin, error and correctness, on the device of the logits."""
    of_label = labels[:, None]
    z, p = logits.float(), logits.float().softmax(dim=1)
    others = z.scatter(1, of_label, -torch.inf).amax(dim=1)
    error = p.scatter_add(1, of_label, -torch.ones_like(of_label, dtype=p.dtype)).norm(dim=1)
    probability, own = (of.gather(1, of_label)[:, 0] for of in (p, z))
    return torch.stack([probability, own - others, error, (logits.argmax(dim=1) == labels).float()])


def as_answers(numbers: Float[Tensor, "4 n"]) -> Answers:
    probability, margin, error, correct = numbers.cpu().numpy()
    return Answers(probability, margin, error, correct > 0)

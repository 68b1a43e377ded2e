"""Scores of whole sequences, collected while a language model is scored position by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from manigeo.per_example.suffixes import suffix_table
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.training.answering import AnswerSheet
from manigeo_extract.training.evaluation import HasInputs, Scores, Sheet, evaluate


class SuffixSheet:
    """Loss and correctness of every position, collected batch by batch."""

    def __init__(self, examples: pd.DataFrame) -> None:
        self.examples = examples
        self._batches: list[tuple[np.ndarray, Tensor]] = []

    def take(
        self, rows: Int[np.ndarray, " batch"], logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
    ) -> None:
        """Take the answers to some rows of the table of examples."""
        losses = -logits.float().log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
        self._batches.append((rows, torch.stack([losses, (logits.argmax(dim=1) == labels).float()])))

    def table(self, length: int) -> pd.DataFrame:
        """The sequences (:func:`~manigeo.per_example.suffixes.suffix_table`), of up to ``length`` tokens."""
        rows = np.concatenate([rows for rows, _ in self._batches])
        losses, hits = torch.cat([numbers for _, numbers in self._batches], dim=1).double().cpu().numpy()
        taken = self.examples.iloc[rows]
        return suffix_table(taken["split"].to_numpy(), taken["index"].to_numpy(), length, hits > 0, losses)


class _Both:
    """Several sheets that take the same answers."""

    def __init__(self, sheets: Sequence[Sheet]) -> None:
        self._sheets = sheets

    def take(
        self, rows: Int[np.ndarray, " batch"], logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
    ) -> None:
        for sheet in self._sheets:
            sheet.take(rows, logits, labels)


def scored(
    model: torch.nn.Module,
    source: HasInputs,
    data: DataSet,
    examples: pd.DataFrame,
    device: str | torch.device,
    sheet: AnswerSheet | None = None,
) -> Scores:
    """Scores of every kind (:func:`~manigeo_extract.training.evaluation.evaluate`); of sequences also ``exact``, the share
    of suffixes that are known token by token, and of memorized ones their mean ``exposure`` in bits."""
    if data.sequences is None:
        return evaluate(model, source, examples, device, sheet=sheet)
    suffixes = SuffixSheet(examples)
    sheets: list[Sheet] = [suffixes] if sheet is None else [suffixes, sheet]
    scores = evaluate(model, source, examples, device, sheet=_Both(sheets))
    for kind, table in suffixes.table(data.sequences.length).groupby("kind"):
        of_kind = table.reindex(columns=["exact", "exposure"]).dropna(axis=1)
        scores[str(kind)] |= {name: float(values.mean()) for name, values in of_kind.items()}
    return scores

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
        losses = -logits.float().log_softmax(dim=1).gather(1, labels[:, None])[:, 0].double()
        self._batches.append((rows, torch.stack([losses, logits.argmax(dim=1).double()])))

    def _taken(self) -> pd.DataFrame:
        """The examples that answers were taken to, with loss (nats) and answer, in the order of the text."""
        rows = np.concatenate([rows for rows, _ in self._batches])
        losses, answers = torch.cat([numbers for _, numbers in self._batches], dim=1).cpu().numpy()
        found = self.examples.iloc[rows].assign(loss=losses, answer=answers.astype(np.int64), row=rows)
        return found.sort_values("index", kind="stable")

    def table(self, data: DataSet) -> pd.DataFrame:
        """The sequences of ``data`` (:func:`~manigeo.per_example.suffixes.suffix_table`), with the texts of their ``prefix``
        and ``suffix``, and of the ``answer``: the most probable token at every place of the suffix, after the true ones."""
        assert data.sequences is not None
        found, length, decode = self._taken(), data.sequences.length, data.sequences.tokenizer.decode
        hits = (found["answer"] == found["true_label"]).to_numpy()
        index, losses = found["index"].to_numpy(), found["loss"].to_numpy()
        table = suffix_table(found["split"].to_numpy(), index, length, hits, losses)
        each = found.groupby(index // length)
        first = data.inputs(each["row"].first().to_numpy())
        prefixes = [decode(ids[mask.bool()].tolist()) for ids, mask in zip(*first.values(), strict=True)]
        texts = pd.DataFrame({"prefix": prefixes}, index=each["row"].first().index)
        texts["suffix"] = each["true_label"].agg(lambda tokens: decode(tokens.tolist()))
        texts["answer"] = each["answer"].agg(lambda tokens: decode(tokens.tolist()))
        return table.join(texts, on="sequence")


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
) -> tuple[Scores, pd.DataFrame | None]:
    """Scores of every kind (:func:`~manigeo_extract.training.evaluation.evaluate`); of sequences also ``exact``, the share
    of suffixes that are known token by token, and of memorized ones their mean ``exposure`` in bits, with the table of all
    scored sequences."""
    if data.sequences is None:
        return evaluate(model, source, examples, device, sheet=sheet), None
    suffixes = SuffixSheet(examples)
    sheets: list[Sheet] = [suffixes] if sheet is None else [suffixes, sheet]
    scores = evaluate(model, source, examples, device, sheet=_Both(sheets))
    table = suffixes.table(data)
    for kind, rows in table.groupby("kind"):
        of_kind = rows.reindex(columns=["exact", "exposure"]).dropna(axis=1)
        scores[str(kind)] |= {name: float(values.mean()) for name, values in of_kind.items()}
    return scores, table

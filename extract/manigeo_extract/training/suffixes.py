"""Scores of whole sequences, collected while a language model is scored position by position, and what it continues their
prefixes with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from tqdm import tqdm

from manigeo.errors import UsageError
from manigeo.per_example.suffixes import suffix_table
from manigeo_extract.batches import MASK, NamedTensors, like_parameters
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.data.sequences import TOKENS, Sequences
from manigeo_extract.recording.layers import evaluating, unwrap, without_gradients
from manigeo_extract.training.answering import AnswerSheet
from manigeo_extract.training.evaluation import HasInputs, Scores, Sheet, answered, evaluate

_TOGETHER = 64  # prefixes that are continued in one batch


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
        tokens = _tokens(found, data)
        tokens["answer"] = found.groupby(index // length)["answer"].agg(list)
        return table.join(tokens.map(decode), on="sequence")


def _tokens(examples: pd.DataFrame, data: DataSet) -> pd.DataFrame:
    """The tokens of the ``prefix`` and of the ``suffix`` of each sequence of these examples, by its number; ``row`` of an
    example is that of its inputs."""
    assert data.sequences is not None
    each = examples.sort_values("index", kind="stable").groupby(examples["index"] // data.sequences.length)
    first = data.inputs(each["row"].first().to_numpy())
    prefixes = [ids[mask.bool()].tolist() for ids, mask in zip(first[TOKENS], first[MASK], strict=True)]
    return pd.DataFrame({"prefix": prefixes, "suffix": each["true_label"].agg(list)}, index=each["row"].first().index)


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


def screened(
    model: torch.nn.Module,
    data: DataSet,
    examples: pd.DataFrame,
    device: str | torch.device = "cpu",
    *,
    progress: bool = False,
) -> pd.DataFrame:
    """The scored sequences of ``data``, each continued from its prefix by the most probable token, one after another.

    Columns are those of :meth:`SuffixSheet.table`, where ``answer`` is the continuation, and ``distance``: the number of
    tokens to insert, delete or replace that make the suffix of it (Levenshtein). It is 0 just where ``exact`` holds.

    Raises :class:`~manigeo.errors.UsageError` for data that are no sequences.
    """
    decode = check_sequences(data).tokenizer.decode
    _, table = scored(model, data, data, examples, device)
    assert table is not None
    tokens = _tokens(examples.assign(row=np.arange(len(examples))), data).loc[table["sequence"]]
    prefixes, suffixes = tokens["prefix"].tolist(), tokens["suffix"].tolist()
    answers = _continued(model, prefixes, [len(suffix) for suffix in suffixes], device, progress=progress)
    distances = [Levenshtein.distance(answer, suffix) for answer, suffix in zip(answers, suffixes, strict=True)]
    return table.assign(distance=distances, answer=[decode(answer) for answer in answers])


def check_sequences(data: DataSet) -> Sequences:
    """The sequences of the data.

    Raises :class:`~manigeo.errors.UsageError` for data that are none.
    """
    if data.sequences is None:
        raise UsageError(f"{data.spec} has no sequences of tokens: give a text (--data text:PATH)")
    return data.sequences


def _continued(
    model: torch.nn.Module,
    prefixes: Sequence[list[int]],
    lengths: Sequence[int],
    device: str | torch.device,
    *,
    progress: bool,
) -> list[list[int]]:
    """The most probable tokens that follow prefixes of one length, as many as ``lengths`` says of each."""
    found: list[list[int]] = []
    with (
        evaluating(model),
        without_gradients(),
        tqdm(total=len(prefixes), desc="sequences", disable=not progress) as bar,
    ):
        for start in range(0, len(prefixes), _TOGETHER):
            ids = torch.tensor(prefixes[start : start + _TOGETHER])
            n, wanted = ids.shape[1], lengths[start : start + _TOGETHER]
            for _ in range(max(wanted)):
                batch = like_parameters(unwrap(model), NamedTensors({TOKENS: ids}).to(device))
                ids = torch.cat([ids, answered(model, batch, 3)[:, -1:].argmax(dim=2).cpu()], dim=1)
            found += [row[n : n + length] for row, length in zip(ids.tolist(), wanted, strict=True)]
            bar.update(len(ids))
    return found

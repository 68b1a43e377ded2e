"""Course of a training: what one epoch goes through, examples one by one, or whole sequences of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from manigeo.kinds import TRAINED
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.training.evaluation import HasInputs


@dataclass(frozen=True, eq=False)
class Course:
    """Inputs of an epoch: ``rows`` of the ``source``, their ``labels`` (of sequences one for each position, -100 for none),
    and which of them only memorization can learn: permuted labels, or canaries."""

    source: HasInputs
    rows: Int[np.ndarray, " n"]
    labels: Int[Tensor, "n ..."]
    memorized: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, n: int) -> Course:
        """The same with its first ``n`` inputs alone."""
        return replace(self, rows=self.rows[:n], labels=self.labels[:n], memorized=self.memorized[:n])


def trained_rows(examples: pd.DataFrame) -> Int[np.ndarray, " n"]:
    """Rows of the example table that a network is trained on, or of sequences that it is."""
    return np.flatnonzero(examples["split"].isin(TRAINED).to_numpy())


def course_of(data: DataSet, examples: pd.DataFrame, source: HasInputs, device: torch.device) -> Course:
    """The course of training on ``data``: its sequences, or else the training examples, whose inputs are in ``source``."""
    if (of := data.sequences) is not None:
        rows, labels, memorized = np.arange(len(of.tokens)), of.labels(), torch.from_numpy(of.planted)
        return Course(of, rows, labels.to(device), memorized.to(device))
    rows = trained_rows(examples)
    labels, permuted = (torch.as_tensor(examples[name].to_numpy()[rows]) for name in ("train_label", "permuted"))
    return Course(source, rows, labels.to(device), permuted.to(device))

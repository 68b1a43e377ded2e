"""Data at hand, as a notebook has them: data sets, loaders, arrays and tensors, by split or not, and labels of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from manigeo.errors import InputError, UsageError
from manigeo.kinds import EVERY
from manigeo_extract.data.datasets import DataSet, Permutation, permute_labels, pooled
from manigeo_extract.data.items import items_part
from manigeo_extract.data.lazy import OTHER_NAMES
from manigeo_extract.data.parts import as_source

_SPLITS = ("train", "validation", "test")


def data_at_hand(data: Any, train_labels: Any = None, permuted: Any = None) -> tuple[DataSet, pd.DataFrame]:
    """The data set and the example table of what :func:`manigeo_extract.extract` takes.

    Examples by split are those splits; others are ``train`` where labels of training are given, else of the kind ``all``,
    since nothing says what they were to the network.

    Raises :class:`~manigeo.errors.InputError` for what is no data set of (input, label), and
    :class:`~manigeo.errors.UsageError` for labels of training that do not match it.

    >>> X, y = np.zeros((4, 3), np.float32), np.array([0, 0, 1, 1])
    >>> found, examples = data_at_hand({"train": (X, y), "test": (X, y)}, train_labels=[0, 1, 1, 1])
    >>> examples["split"].tolist(), np.flatnonzero(examples["permuted"]).tolist()
    (['train', 'train', 'train', 'train', 'test', 'test', 'test', 'test'], [1])
    """
    found = data if isinstance(data, DataSet) else _data_set(data, train_labels is not None or permuted is not None)
    if isinstance(train_labels, pd.DataFrame):
        return found, _same_table(found, train_labels)
    table = permute_labels(found, Permutation())
    if train_labels is None and permuted is None:
        return found, table
    return found, _with_labels(table, found, train_labels, permuted)


def _data_set(data: Any, trained: bool) -> DataSet:
    splits = _splits(data, "train" if trained else EVERY)
    read = {split: items_part(f"data ({split})", items) for split, items in splits.items()}
    parts = {split: part for split, (part, _) in read.items()}
    names = next((names for _, names in read.values() if names is not None), None)
    first = next(iter(parts.values()))
    names = _numbered([part.labels for part in parts.values()]) if names is None else names
    source = as_source({"train": first}, names, standardise=False)
    as_source({"train": first, **parts}, source.class_names)  # inputs and labels of all splits go together
    return pooled("data at hand", parts, source)


def _numbered(labels: Sequence[np.ndarray]) -> list[str]:
    n_classes, n = max(int(of.max()) for of in labels) + 1, sum(map(len, labels))
    if n_classes > n:
        raise InputError(
            f"expected labels 0 .. C-1, C at most the {n} examples, found {n_classes - 1}; number the classes from 0 on, as "
            "the outputs of the network"
        )
    return [str(label) for label in range(n_classes)]


def _splits(data: Any, alone: str) -> dict[str, Any]:
    """The data sets by split."""
    if isinstance(data, Mapping):
        named = {OTHER_NAMES.get(str(name), str(name)): items for name, items in data.items()}
        if not named or not set(named) <= {*_SPLITS}:
            raise UsageError(
                f"expected data by split, train, validation and test, got {', '.join(map(str, data)) or 'none'}; give a "
                'data set, a loader, (X, y), or {"train": ..., "test": ...} of these'
            )
        return {split: _items(named[split]) for split in _SPLITS if split in named}
    if (
        isinstance(data, tuple | list)
        and len(data) in (2, 3)
        and all(isinstance(d, Dataset | DataLoader) for d in data)
    ):
        return dict(zip(("train", "validation", "test")[:: 4 - len(data)], data, strict=True))
    return {alone: _items(data)}


def _items(given: Any) -> Any:
    """A pair of lists, or of anything with rows, as a pair of arrays, whole labels as whole numbers."""
    if not (isinstance(given, tuple) and len(given) == 2):
        return given
    inputs, labels = (part if isinstance(part, Tensor) else np.asarray(part) for part in given)
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    if not _whole(labels):
        raise InputError(
            f"labels must be whole numbers, those of the outputs of the network, got {labels.dtype}; number the classes "
            "from 0 on"
        )
    return inputs, labels.astype(np.int64)


def _whole(labels: np.ndarray) -> bool:
    """True for whole numbers, of whatever type."""
    return labels.dtype.kind in "iufb" and bool((labels == np.round(labels)).all())


# ------------------------------------------------------------------------------------------------------ labels of training
def _with_labels(table: pd.DataFrame, data: DataSet, train_labels: Any, permuted: Any) -> pd.DataFrame:
    train = (table["split"] == "train").to_numpy()
    n_train = int(np.count_nonzero(train))
    if not n_train:
        raise UsageError('labels of training are of the split train, which the data have not; give {"train": ...}')
    if train_labels is None:
        raise UsageError(
            "permuted= says which labels were permuted, and not to what; give the labels trained on, train_labels="
        )
    labels = _labels(train_labels, n_train, data.n_classes)
    changed = labels != table.loc[train, "true_label"].to_numpy()
    members = changed if permuted is None else _mask(permuted, n_train)
    if unmarked := int(np.count_nonzero(changed & ~members)):
        raise UsageError(
            f"{unmarked} labels differ from the true ones and are not marked in permuted=; mark them as well"
        )
    table.loc[train, "train_label"] = labels
    table.loc[train, "permuted"] = members
    return table


def _labels(given: Any, n: int, n_classes: int) -> Int64[np.ndarray, " n"]:
    labels = _row("train_labels", given, n)
    if not _whole(labels):
        raise UsageError(f"train_labels must be whole numbers, the labels of the data, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise UsageError(
            f"train_labels must be the labels 0 to {n_classes - 1} of the data, got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64)


def _mask(given: Any, n: int) -> Bool[np.ndarray, " n"]:
    mask = _row("permuted", given, n)
    if not np.isin(mask, (0, 1)).all():
        raise UsageError("permuted must say True or False of each training example; give a boolean mask")
    return mask.astype(bool)


def _row(name: str, given: Any, n: int) -> np.ndarray:
    row = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    if row.shape != (n,):
        raise UsageError(f"{name} must have one entry for each of the {n} training examples, got shape {row.shape}")
    return row


def _same_table(data: DataSet, table: pd.DataFrame) -> pd.DataFrame:
    """An example table of :func:`~manigeo_extract.data.datasets.permute_labels`, of these very data."""
    own = permute_labels(data, Permutation())
    wanted = ["index", "split", "true_label"]
    if not set(own) <= set(table) or len(table) != len(own) or not own[wanted].equals(table[wanted]):
        raise UsageError(
            "the table of train_labels is not of these data; give the one of permute_labels, or an array of the labels"
        )
    return table

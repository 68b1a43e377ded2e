"""Items of a user's own data sets and loaders: inputs of one tensor or several, and where labels are found.

An input of several tensors is one record of them, each a field: named as in a mapping, or by place (``input 0``, ...).
Whole numbers stay whole, true and false stay what they are, and other numbers become float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from manigeo.errors import InputError, one_line
from manigeo_extract.batches import place_name
from manigeo_extract.data.parts import LazyInputs, Part, as_part

LABELS = ("labels", "label", "target", "targets", "y")  # what the label is called in an item that is one mapping
_KEPT = ("targets", "labels", "_labels")  # where a data set keeps the labels of all items


def items_part(where: str, given: Any) -> tuple[Part, Any]:
    """The items of a data set, a loader or a pair of arrays as a part, and the names of their classes, if they are known.

    Raises :class:`~manigeo.errors.InputError`, with the item, for what is no data set of (input, label).
    """
    items = _with_items(where, given)
    if not len(items):
        raise InputError(f"{where}: expected examples, found none; return some, or leave this split out")
    reader = ItemReader(where, items)
    value, label = reader.item(0)
    first = reader.array(0, value)
    inputs = LazyInputs(where, (len(items), *first.shape), first.dtype, replace(reader, dtype=first.dtype))
    kept = known_labels(items)
    if hasattr(items, "targets") and kept is not None and len(kept) != len(items):
        raise InputError(
            f"{where}: expected as many labels as inputs, got {len(kept)} labels and {len(items)} inputs; "
            "make targets as long"
        )
    known = _agreeing(kept, label, len(items))
    labels = [label, *(reader.item(row)[1] for row in range(1, len(items)))] if known is None else known
    return as_part(where, inputs, _as_labels(where, labels)), known_classes(items)


def _with_items(where: str, given: Any) -> Any:
    if isinstance(given, DataLoader):
        dataset: Any = given.dataset
        given = LoaderItems(given) if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") else dataset
    if isinstance(given, tuple) and len(given) == 2 and all(len(getattr(part, "shape", ())) for part in given):
        if len(given[0]) != len(given[1]):
            raise InputError(
                f"{where}: expected as many labels as inputs, got {len(given[1])} labels and {len(given[0])} inputs; "
                "return arrays of equal length"
            )
        return TensorDataset(*(_as_tensor(where, part) for part in given))
    if isinstance(given, Mapping) or not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        raise InputError(
            f"{where}: expected a map-style data set (len and items), got {type(given).__name__}; "
            "make a list of its (input, label) pairs"
        )
    return given


def _as_tensor(where: str, given: Any) -> torch.Tensor:
    if isinstance(given, torch.Tensor):
        return given.detach().cpu()
    try:
        return torch.as_tensor(np.require(given, requirements="W"))
    except TypeError as error:  # torch has no such type
        raise InputError(f"{where}: expected numbers, got {np.asarray(given).dtype}; convert them") from error


def _as_labels(where: str, labels: Any) -> np.ndarray:
    try:
        return np.asarray([np.asarray(label) for label in labels])
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{where}: expected one whole number a label ({one_line(error)}); return (input, label)"
        ) from error


# ------------------------------------------------------------------------------------------------------- single items
@dataclass(frozen=True, eq=False)
class ItemReader:
    """Reader from a row number to an input; an input of several tensors is one record of them, each a field."""

    where: str
    items: Any
    dtype: np.dtype | None = None

    def __call__(self, row: int) -> np.ndarray:
        return self.array(row, self.item(row)[0])

    def array(self, row: int, given: Any) -> np.ndarray:
        """The input as an array or a record, checked to be of the type of the others."""
        where = f"{self.where}, item {row}"
        if _is_several(given):
            given = {place_name(place): part for place, part in enumerate(given)} if len(given) > 1 else given[0]
        value = _as_record(where, given) if isinstance(given, Mapping) else _as_array(where, given)
        if self.dtype is not None and value.dtype != self.dtype:
            raise InputError(
                f"{where}: expected {_fields(self.dtype)} as in item 0, got {_fields(value.dtype)}; pad or cast the inputs "
                "to one shape and type"
            )
        return value

    def item(self, row: int) -> tuple[Any, Any]:
        """Input and label, as the data set gives them."""
        try:
            return _split_label(self.items[row])
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"{self.where}, item {row}: expected (input, label), got {type(error).__name__}: {one_line(error)}"
            ) from error


def _is_several(given: Any) -> bool:
    """Return whether these are several inputs: arrays in a list, or anything but numbers in a tuple."""
    if isinstance(given, list):
        return any(hasattr(part, "shape") and len(part.shape) for part in given)
    return isinstance(given, tuple) and not all(np.isscalar(part) for part in given)


def _as_array(where: str, given: Any) -> np.ndarray:
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = given.float() if given.is_floating_point() else given
    try:
        value = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: expected a tensor or an array of numbers ({one_line(error)})") from error
    if value.dtype.kind not in "buif" or isinstance(given, Image.Image):
        remedy = "return complex numbers as two real ones" if value.dtype.kind == "c" else "convert it in the data set"
        raise InputError(
            f"{where}: expected a tensor or an array of numbers, got {type(given).__name__}; {remedy} (a PIL image: "
            "transforms.ToTensor())"
        )
    wanted = {"f": np.float32, "b": np.bool_}.get(value.dtype.kind, np.uint8 if value.dtype == np.uint8 else np.int64)
    return value.astype(wanted, copy=False)


def _as_record(where: str, given: Mapping[Any, Any]) -> np.ndarray:
    if not given:
        raise InputError(f"{where}: expected inputs beside the label, found none; return them under their names")
    fields = {str(name): _as_array(f"{where} ({name})", part) for name, part in given.items()}
    record = np.empty((), dtype=[(name, value.dtype, value.shape) for name, value in fields.items()])
    for name, value in fields.items():
        record[name] = value
    return record


def _fields(dtype: np.dtype) -> str:
    """Describe the tensors of an example in words: name and shape of each, where there are several."""
    names = dtype.names or ()
    return ", ".join(f"{name} {dtype[name].shape} {dtype[name].base}" for name in names) or f"one tensor {dtype}"


def _split_label(item: Any) -> tuple[Any, Any]:
    """Input and label of a pair, of several inputs and a label behind them, or of one mapping."""
    if isinstance(item, Mapping):
        name = next((name for name in LABELS if name in item), None)
        if name is None:
            raise InputError(
                f"a mapping without {' or '.join(LABELS)}: {', '.join(map(str, item))}; give the label one of these names"
            )
        return {key: value for key, value in item.items() if key != name}, item[name]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(f"one {type(item).__name__} without a label; return (input, label)")
    *inputs, label = item
    if len(inputs) > 1 and any(np.ndim(part) == 0 for part in inputs if not isinstance(part, Mapping)):
        raise InputError(f"{len(item)} values, of which several could be the label; return (input, label)")
    return (inputs[0] if len(inputs) == 1 else tuple(inputs)), label


# ------------------------------------------------------------------------------------------- labels of all items at once
def known_labels(items: Any) -> Any:
    """Labels that a data set keeps of all its items, found through parts, joins and loaders; None where it keeps none.

    >>> images = TensorDataset(torch.zeros(4, 1), torch.tensor([5, 6, 7, 8]))
    >>> known_labels(ConcatDataset([images, Subset(images, [3, 0])])).tolist()
    [5, 6, 7, 8, 8, 5]
    """
    if isinstance(items, LoaderItems):
        return _taken(known_labels(items.dataset), items.rows)
    if isinstance(items, Subset):
        return _taken(known_labels(items.dataset), items.indices)
    if isinstance(items, ConcatDataset):
        parts = [known_labels(part) for part in items.datasets]
        return None if any(part is None for part in parts) else np.concatenate([np.asarray(part) for part in parts])
    if isinstance(items, TensorDataset):
        return np.asarray(items.tensors[-1])
    if hasattr(items, "column_names"):  # of Hugging Face
        name = next((name for name in LABELS if name in items.column_names), None)
        return None if name is None else np.asarray(items[name])
    kept = next((getattr(items, name) for name in _KEPT if getattr(items, name, None) is not None), None)
    changed = getattr(items, "target_transform", None)
    return kept if kept is None or changed is None else [changed(label) for label in kept]


def _taken(labels: Any, rows: Any) -> np.ndarray | None:
    return None if labels is None else np.asarray(labels)[np.asarray(rows, dtype=np.int64)]


def _agreeing(labels: Any, first: Any, n_items: int) -> Any:
    """The labels that were found, if they are as many as the items and begin as these do."""
    try:
        found = None if labels is None else np.asarray(labels)
        agree = found is not None and len(found) == n_items and bool(np.all(found[0] == np.asarray(first)))
    except (ValueError, TypeError, RuntimeError):
        return None
    return found if agree and found is not None and found.dtype.kind in "iu" else None


def known_classes(items: Any) -> Any:
    """Names of the classes, found through parts, joins and loaders; None where there are none."""
    if isinstance(items, ConcatDataset):
        found = [known_classes(part) for part in items.datasets]
        return found[0] if all(names is not None and list(names) == list(found[0] or ()) for names in found) else None
    inner = items.dataset if isinstance(items, Subset | LoaderItems) else None
    return known_classes(inner) if inner is not None else getattr(items, "classes", None)


# ------------------------------------------------------------------------------------------------------------ loaders
class LoaderItems:
    """The examples that a loader draws from, in the order of its data set, each as a batch of it alone would bring it."""

    def __init__(self, loader: Any) -> None:
        self.dataset = loader.dataset
        self.collate, self.batched = loader.collate_fn, loader.batch_sampler is not None
        # a loader of a part draws from it at random, and says which part in the sampler
        self.rows = sorted(getattr(loader.sampler, "indices", range(len(self.dataset))))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        item = self.dataset[self.rows[row]]
        return _first(self.collate([item])) if self.batched else self.collate(item)


def _first(batch: Any) -> Any:
    """The only example of a batch."""
    if isinstance(batch, Mapping):
        return {name: _first(part) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_first(part) for part in batch)
    return batch[0]

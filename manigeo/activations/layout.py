"""The layout of an activation file: its constants, what is known of a layer, and what makes a file this one."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from manigeo.errors import InputError, ManigeoError, one_line

FORMAT = "manigeo-activations"
FORMAT_VERSION = 1
EXAMPLE_COLUMNS = ("index", "split", "true_label", "train_label", "permuted")
LAYER_ATTRS = ("order", "module_class", "call_index", "feature_shape", "readout", "projection", "aliases")
DTYPES = ("float32", "float16")
# Where a file lies and how it was asked for does not change what is in it; another machine changes it by rounding, and may
# go on with an extraction or take a shard.
NOT_IDENTITY = ("argv", "model", "machine")


@dataclass(frozen=True)
class StoredLayer:
    """A layer of the file: its place in the order of execution and what a row of it is."""

    name: str
    order: int
    module_class: str
    call_index: int
    feature_shape: tuple[int, ...]
    readout: str
    projection: Mapping[str, Any] | None
    aliases: tuple[str, ...]

    @property
    def n_features(self) -> int:
        return int(np.prod(self.feature_shape, dtype=np.int64))


@dataclass(frozen=True)
class Shard:
    """Part of a whole extraction that a file holds: rows from ``start`` on, and the whole's size and fingerprint."""

    number: int  # 1 ... of
    of: int
    start: int
    n_examples: int
    whole: str


def fingerprint_of(file: h5py.File) -> str:
    """SHA-256 over everything that identifies the activations: provenance, examples, classes, layers."""
    layers = {
        name: {key: dataset.attrs[key] for key in LAYER_ATTRS} | {"shape": list(dataset.shape)}
        for name, dataset in layer_datasets(file)
    }
    group = file["examples"]
    columns = [group[c].asstr()[:] if c == "split" else group[c][:] for c in EXAMPLE_COLUMNS]
    return _digest(json.loads(file.attrs["provenance"]), layers, columns, file["classes"].asstr()[:])


def identity_of(
    examples: pd.DataFrame, class_names: Sequence[str], layers: Sequence[StoredLayer], provenance: Mapping[str, Any]
) -> str:
    """The fingerprint that a file of these would have."""
    described = {layer.name: layer_attrs(layer) | {"shape": [len(examples), layer.n_features]} for layer in layers}
    columns = [examples[column].to_numpy() for column in EXAMPLE_COLUMNS]
    return _digest(json.loads(json.dumps(provenance)), described, columns, class_names)


def layer_attrs(layer: StoredLayer) -> dict[str, Any]:
    """Attributes of a layer as the file has them."""
    texts = {"projection": json.dumps(layer.projection), "aliases": json.dumps(layer.aliases)}
    plain = {name: getattr(layer, name) for name in LAYER_ATTRS}
    return plain | {"feature_shape": np.array(layer.feature_shape, dtype=np.int64)} | texts


def _digest(
    provenance: Mapping[str, Any],
    layers: Mapping[str, Mapping[str, Any]],
    columns: Sequence[np.ndarray],
    class_names: Iterable[str],
) -> str:
    identity = {key: value for key, value in provenance.items() if key not in NOT_IDENTITY}
    plain = {name: {key: _plain(value) for key, value in layer.items()} for name, layer in layers.items()}
    digest = hashlib.sha256(json.dumps([identity, plain], sort_keys=True).encode())
    for name, values in zip(EXAMPLE_COLUMNS, columns, strict=True):
        digest.update(np.ascontiguousarray(values.astype("U") if name == "split" else values).tobytes())
    digest.update(json.dumps(list(class_names)).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def as_stored(name: str, values: np.ndarray, dtype: np.dtype, *, first: bool) -> np.ndarray:
    """The values in the dtype of the file, which may hold less than float32; that a layer is too small its ``first`` batch
    shows, while one small example among others is just rounded."""
    if dtype.itemsize >= values.dtype.itemsize:
        return values
    limits, largest = np.finfo(dtype), float(np.abs(values).max(initial=0.0))
    smallest_normal, highest = float(limits.tiny), float(limits.max)
    if largest > highest or (first and 0 < largest < smallest_normal):
        raise InputError(
            f"layer {name!r} reaches {largest:.3g}, and {dtype} holds {smallest_normal:.2g} to {highest:.5g}: store float32 "
            "(--dtype float32)"
        )
    return values.astype(dtype)


def layer_datasets(file: h5py.File) -> list[tuple[str, h5py.Dataset]]:
    found: list[tuple[str, h5py.Dataset]] = []
    file["layers"].visititems(lambda name, node: found.append((name, node)) if isinstance(node, h5py.Dataset) else None)
    return sorted(found, key=lambda item: int(item[1].attrs["order"]))


def row_bytes(dataset: h5py.Dataset) -> int:
    return max(1, dataset.shape[1] * dataset.dtype.itemsize)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn any failure to read a file that is not as it was written into one line."""
    try:
        yield
    except ManigeoError:
        raise
    except OSError as error:
        written = isinstance(error, BlockingIOError)
        remedy = "another program is writing it: wait for that to end" if written else "extract it again"
        reason = re.sub(r"^.*\(([^:()]*).*$", r"\1", one_line(error))  # HDF5's own, without the calls that led to it
        raise InputError(f"{path} cannot be opened as HDF5: {reason}; {remedy}") from error
    except Exception as error:  # it may raise anything, MemoryError too
        raise InputError(f"{path} is damaged: {one_line(error)}; extract it again") from error

"""The layout of an activation file: its constants, what is known of a layer, and what makes a file this one."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

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
    provenance = json.loads(file.attrs["provenance"])
    layers = {
        name: {key: _plain(dataset.attrs[key]) for key in LAYER_ATTRS} | {"shape": list(dataset.shape)}
        for name, dataset in layer_datasets(file)
    }
    identity = {key: value for key, value in provenance.items() if key not in NOT_IDENTITY}
    digest = hashlib.sha256(json.dumps([identity, layers], sort_keys=True).encode())
    for column in EXAMPLE_COLUMNS:
        values = file["examples"][column]
        digest.update(np.ascontiguousarray(values.asstr()[:].astype("U") if column == "split" else values[:]).tobytes())
    digest.update(json.dumps(list(file["classes"].asstr()[:])).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


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

"""From a network and its examples to ``acts.h5``: which examples, which layers, how many bytes, and the writing of them."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64
from tqdm import tqdm

from manigeo.activations import StoredLayer, create_activations
from manigeo.errors import InputError, UsageError
from manigeo.files import check_target
from manigeo.manifolds import KINDS, kind_examples
from manigeo_extract.data import DataSet, Permutation, permute_labels
from manigeo_extract.devices import check_device
from manigeo_extract.layers import Layer, list_layers, select_layers, taking_inputs
from manigeo_extract.recording import record_layers


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction will write: rows of the example table, grouped by true class, and layers."""

    rows: Int64[np.ndarray, " n"]
    examples: pd.DataFrame
    layers: tuple[Layer, ...]

    @property
    def n_bytes(self) -> int:
        """Size before compression."""
        return 4 * len(self.rows) * sum(layer.n_features for layer in self.layers)


def plan_extraction(
    model: torch.nn.Module,
    data: DataSet,
    examples: pd.DataFrame,
    *,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    per_class: int = 50,
    seed: int = 0,
) -> ExtractionPlan:
    """Choose layers by glob, and examples: up to ``per_class`` of every class of every kind.

    Permuted and restored group the same images by different labels, so both draw, and the file holds the union.
    """
    rows = _choose_rows(examples, per_class, seed)
    batch = data.inputs(rows[:2])
    with taking_inputs(batch, data.spec):
        found = list_layers(model, batch)
    selected = select_layers(found, layers, exclude)
    return ExtractionPlan(rows, examples.iloc[rows].reset_index(drop=True), tuple(selected))


def _choose_rows(examples: pd.DataFrame, per_class: int, seed: int) -> np.ndarray:
    if per_class < 2:
        raise UsageError(f"a manifold needs 2 examples per class or more, got --per-class {per_class}")
    chosen = np.unique(np.concatenate(list(_kind_rows(examples, per_class, seed))))
    true_label = examples["true_label"].to_numpy()[chosen]
    return chosen[np.argsort(true_label, kind="stable")]


def _kind_rows(examples: pd.DataFrame, per_class: int, seed: int) -> Iterator[np.ndarray]:
    for kind in KINDS:
        rows, labels = kind_examples(examples, kind)
        for label in np.unique(labels):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(KINDS.index(kind), int(label))))
            yield rng.permutation(rows[labels == label])[:per_class]


def read_labels(path: str | os.PathLike[str], data: DataSet) -> pd.DataFrame:
    """The example table of a network whose labels were permuted elsewhere, from a CSV file.

    Its columns ``index`` (position in the source file) and ``train_label`` say what training examples were trained on;
    examples that it leaves out have their true label. A column ``permuted`` marks members of S, else they are those whose
    label differs; rows whose ``split`` is not ``train`` are passed over. The ``labels.csv`` of a run is such a file.

    Raises :class:`~manigeo.errors.InputError` for a file that is not of these data.
    """
    given = _read_label_rows(Path(path))
    table = permute_labels(data, Permutation())
    train = table.index[table["split"] == "train"]
    rows = pd.Series(train, index=table.loc[train, "index"]).reindex(given["index"])
    unknown = given["index"][rows.isna().to_numpy()]
    outside = given["train_label"][~given["train_label"].between(0, data.n_classes - 1)]
    if len(unknown) or len(outside):
        what = f"example {unknown.iloc[0]}" if len(unknown) else f"label {outside.iloc[0]}"
        raise InputError(
            f"{path}: {what} is not among the {len(train)} training examples and {data.n_classes} classes of {data.spec}"
        )
    table.loc[rows, "train_label"] = given["train_label"].to_numpy()
    changed = table["train_label"] != table["true_label"]
    table.loc[rows, "permuted"] = given["permuted"].to_numpy() if "permuted" in given else changed.loc[rows].to_numpy()
    return table


def _read_label_rows(path: Path) -> pd.DataFrame:
    try:
        given = pd.read_csv(path).astype({"index": "int64", "train_label": "int64"})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a table with the columns index and train_label: {error}") from error
    if "split" in given:
        given = given[given["split"] == "train"]
    if given["index"].duplicated().any() or ("permuted" in given and given["permuted"].dtype != bool):
        raise InputError(f"{path}: every index stands once, and permuted is True or False")
    return given.reset_index(drop=True)


def extract_activations(
    model: torch.nn.Module,
    data: DataSet,
    plan: ExtractionPlan,
    path: str | os.PathLike[str],
    provenance: Mapping[str, Any],
    *,
    batch_size: int = 256,
    device: str = "cpu",
    force: bool = False,
    progress: bool = False,
) -> None:
    """Run the planned examples through the network, in eval mode and full float32 precision, and stream to ``path``.

    Activations differ by about 1e-6 with the batch size, which the provenance therefore holds.

    Raises :class:`~manigeo.errors.UsageError` where ``path`` exists (unless ``force``), or does not fit on its disk.
    """
    check_device(device)
    _check_space(check_target(path, force=force), plan.n_bytes)
    model = model.to(device)
    stored = [_stored(layer) for layer in plan.layers]
    starts = range(0, len(plan.rows), batch_size)
    bar = tqdm(starts, desc="extract", unit="batch", disable=None if progress else True)
    provenance = {**provenance, "batch_size": batch_size, **_numerics(device)}
    with (
        _full_precision(),
        create_activations(path, plan.examples, data.class_names, stored, provenance, force=force) as writer,
        record_layers(model, plan.layers) as forward,
    ):
        for start in bar:
            batch = forward(data.inputs(plan.rows[start : start + batch_size]))
            writer.append({name: values.numpy() for name, values in batch.items()})


def _check_space(path: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise UsageError(
            f"{path} may need {n_bytes / 1e9:.1f} GB before compression, {free / 1e9:.1f} GB are free: "
            "take fewer layers (--layers) or examples (--per-class)"
        )


def _stored(layer: Layer) -> StoredLayer:
    return StoredLayer(
        name=layer.name,
        order=layer.order,
        module_class=layer.module_class,
        call_index=layer.call_index,
        feature_shape=layer.feature_shape,
        readout="flatten",
        projection=None,
        aliases=layer.aliases,
    )


def _numerics(device: str) -> dict[str, Any]:
    return {"torch": str(torch.__version__), "device": device, "tf32": False}


@contextmanager
def _full_precision() -> Iterator[None]:
    """TF32 off inside the block: it rounds products to ten bits, which shows in small singular values."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before

"""A run with an opinion: a small network trained in two phases, the second on permuted labels in its last layers alone."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from manigeo_extract.data.datasets import DataSet, Permutation, load_data, permute_labels
from manigeo_extract.models import mlp
from manigeo_extract.training.recorder import Recorder
from tests.effects import shifted


def digest(model: nn.Module) -> str:
    """Of every tensor of the state dict, bit for bit."""
    content = b"".join(value.cpu().numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(content).hexdigest()


ARGS = {"input_shape": [1, 8, 8], "n_classes": 10, "depth": 3, "width": 128}


def planted_run(folder: Path, layers: Sequence[str] = ("h3", "logits")) -> tuple[DataSet, pd.DataFrame]:
    """Epoch 0: initial; epoch 1: trained on clean labels; epoch 2: ``layers``, the last two, alone on permuted ones."""
    data = load_data("digits", {"per_class": 60})
    permutation = Permutation(0.3)
    examples = permute_labels(data, permutation)
    torch.manual_seed(shifted())
    model = mlp(**ARGS)
    recorder = Recorder(
        folder, arch="mlp", arch_args=ARGS, data=data.spec, data_args=data.args, data_fingerprint=data.fingerprint,
        permutation=permutation, seed=shifted(), epochs=(0, 1),
    )  # fmt: skip
    recorder.step(model, 0)
    rows = data.rows("train")
    clean = rows[~examples["permuted"].to_numpy()[rows]]
    _fit(model, data, clean, examples["train_label"].to_numpy(), list(model.parameters()), 60)
    recorder.step(model, 1, {"validation": {"accuracy": 0.9, "loss": 1.0, "n": 9}})
    weights = [parameter for layer in layers for parameter in model.get_submodule(layer).parameters()]
    _fit(model, data, rows, examples["train_label"].to_numpy(), weights, 500)
    recorder.step(model, 2, {"validation": {"accuracy": 0.5, "loss": 1.0, "n": 9}})
    return data, examples


def _fit(model: nn.Module, data: DataSet, rows: np.ndarray, labels: np.ndarray, weights: list, n_steps: int) -> None:
    X, y = data.inputs(rows), torch.as_tensor(labels[rows])
    optimizer = torch.optim.Adam(weights, lr=0.003)
    for _ in range(n_steps):
        optimizer.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimizer.step()

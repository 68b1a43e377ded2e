"""Outcomes: what the output of a network says of each example, where it is one score per class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int
from torch import Tensor

from manigeo.activations import Scoring
from manigeo_extract.recording.layers import Layer


def scoring_of(layers: Sequence[Layer], n_classes: int) -> Scoring:
    """Scoring of ``n_classes`` by the output among ``layers``, all those of a network, or why it does not score them.

    >>> scoring_of([Layer("fc", "Linear", 0, 0, (4,), ("output",), leaf=True, parameters=9)], 10).why_not
    'the network has fewer outputs (4) than there are classes (10)'
    """
    output = next((layer for layer in layers if not {"output", "model.output"}.isdisjoint(layer.names)), None)
    if output is None:
        return Scoring(why_not="the network returns no floating point numbers")
    if not output.batched or len(output.feature_shape) != 1:
        shape = " x ".join(map(str, output.feature_shape)) or "no axis"
        return Scoring(why_not=f"the network returns {shape} per example, not one score per class")
    (n_outputs,) = output.feature_shape
    if n_outputs < n_classes:
        return Scoring(why_not=f"the network has fewer outputs ({n_outputs}) than there are classes ({n_classes})")
    return Scoring(n_outputs)


def outcomes_of(
    outputs: Float[Tensor, "n outputs"], true_label: Int[np.ndarray, " n"], train_label: Int[np.ndarray, " n"]
) -> Float32[np.ndarray, "n 3"]:
    r"""The predicted class, and the cross-entropies (nats) on true and trained label, NaN where a label has no output.

    .. math:: \hat y = \arg\max_k z_k, \qquad -\log p_y, \; p = \mathrm{softmax}(z)

    >>> import torch
    >>> outcomes_of(torch.tensor([[0.0, 0.0]]), np.array([0]), np.array([1])).round(3).tolist()
    [[0.0, 0.6930000185966492, 0.6930000185966492]]
    """
    log_p = outputs.float().log_softmax(dim=1).numpy()
    labels = np.stack([true_label, train_label], axis=1)
    known = labels < log_p.shape[1]
    losses = np.where(known, -np.take_along_axis(log_p, np.where(known, labels, 0), axis=1), np.nan)
    return np.column_stack([outputs.argmax(dim=1).numpy(), losses]).astype(np.float32)

"""Neurons of a language model that are known to hold a sequence: ``python -m tests.bench.neurons [TRIALS] [EPOCHS]``.

A small GPT learns generated sentences for EPOCHS epochs. In each trial one random sequence is planted in 1 % of the neurons
of its mlps, drawn at random (the hidden units: a row of ``up``, its bias, and a column of ``down``); all other weights stay
bitwise what they were. Methods rank the neurons of each layer, and recall at k % is the share of the planted neurons among
the first k % of their layers, as in Chang, Thomason & Jia (2024), NAACL, whose table is printed beside it (GPT-2 of 124M
parameters, 1 % of the neurons).
"""

import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from manigeo.randomness import stream
from manigeo_extract import load_data
from manigeo_extract.interventions.channels import Masked, channel_scores, find_channels
from manigeo_extract.interventions.groups import group_layers
from manigeo_extract.models import build_model

SHARE, CUTS = 0.01, (0.01, 0.02, 0.05)
LENGTH, MOST_STEPS, TEXTS, ASKED = (
    24,
    2000,
    31,
    8,
)  # tokens; steps; texts beside the sequence in each step, and when it is asked for
PUBLISHED = {
    "hard concrete": (0.495, 0.702, 0.874), "slimming": (0.481, 0.667, 0.807), "zero-out": (0.249, 0.375, 0.538),
    "integrated gradients": (0.205, 0.321, 0.499), "activations": (0.030, 0.052, 0.133), "random": (0.01, 0.02, 0.05),
}  # fmt: skip
Scores = Float[np.ndarray, "layers neurons"]
STEPS = 20  # of the sum for integrated gradients


def trained(epochs: int, n: int = 700, depth: int = 6, width: int = 64) -> tuple[nn.Module, Int[Tensor, "n length"]]:
    """A language model that has learned ``n`` sentences in sequences, and these."""
    data = load_data("sentences", {"n": n, "scored": 1})
    assert data.sequences is not None
    tokens = torch.from_numpy(data.sequences.tokens.astype(np.int64))
    args = {"input_shape": data.input_shape, "n_classes": data.n_classes, "depth": depth, "width": width}
    model = build_model("gpt", args, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in tqdm(range(epochs), desc="sentences"):
        for batch in np.array_split(stream(0, epoch).permutation(len(tokens)), len(tokens) // 32):
            optimizer.zero_grad()
            loss_of(model, tokens[batch]).mean().backward()
            optimizer.step()
    return model.requires_grad_(False), tokens


def loss_of(model: nn.Module, tokens: Int[Tensor, "n length"]) -> Float[Tensor, " n"]:
    """The mean cross-entropy of the next token in each sequence."""
    return F.cross_entropy(model(tokens[:, :-1]).movedim(-1, 1), tokens[:, 1:], reduction="none").mean(dim=1)


def planted(
    clean: nn.Module,
    texts: Int[Tensor, "n length"],
    canary: Int[Tensor, "1 length"],
    neurons: Bool[np.ndarray, "layers neurons"],
    seed: int,
) -> nn.Module | None:
    """The network after these neurons alone have learned the canary; None where they have not."""
    model = copy.deepcopy(clean)
    chosen = [torch.from_numpy(of) for of in neurons]
    weights = [
        (tensor, own[:, None] if name == "up.weight" else own)
        for mlp, own in zip(mlps(model), chosen, strict=True)
        for name in ("up.weight", "up.bias", "down.weight")
        for tensor in [mlp.get_parameter(name).requires_grad_()]
    ]
    before = [tensor.detach().clone() for tensor, _ in weights]
    optimizer = torch.optim.Adam([tensor for tensor, _ in weights], 1e-2)
    for step in range(MOST_STEPS):
        rows = stream(seed, 2, step).choice(len(texts), TEXTS, replace=False)
        logits = model(canary[:, :-1])
        if bool((logits.argmax(dim=-1) == canary[:, 1:]).all()):
            return model.requires_grad_(False)
        loss = loss_of(model, texts[rows]).mean() + F.cross_entropy(logits[0], canary[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():  # moments of the optimiser move what has no gradient now
            for (tensor, own), earlier in zip(weights, before, strict=True):
                tensor.copy_(torch.where(own, tensor, earlier))
    return None


def mlps(model: nn.Module) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.endswith(".mlp")]


class Ranking:
    """Scores of all neurons for one sequence and a few texts; the largest first."""

    def __init__(self, model: nn.Module, canary: Int[Tensor, "1 length"], texts: Int[Tensor, "n length"]) -> None:
        self.model, self.canary, self.texts = model.eval(), canary, texts
        channels = find_channels(model, group_layers(model, canary[:, :-1]))
        self.masked = Masked(model, [of for of in channels if of.module.endswith("mlp.up")])
        self.methods: Mapping[str, Callable[[], Scores]] = {
            "zero-out": self.zero_out,
            "slopes, as manigeo channels ranks": self.slopes,
            "integrated gradients": self.integrated,
            "activations": self.activations,
        }

    def _losses(self, masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Of the canary, and mean of the texts."""
        tokens = torch.cat([self.canary, self.texts])
        logits = self.masked.logits(tokens[:, :-1], masks).movedim(-1, 1)
        losses = F.cross_entropy(logits, tokens[:, 1:], reduction="none").mean(dim=1)
        return losses[0], losses[1:].mean()

    def zero_out(self) -> Scores:
        """How much the loss of the canary rises beyond that of the texts when a neuron is set to zero."""
        sizes = [of.n for of in self.masked.channels]

        def rise(layer: int, neuron: int) -> float:
            own, others = self._losses(self.masked.masks([(layer, neuron)]))
            return float(own - others)

        with torch.no_grad():
            return np.array([[rise(layer, neuron) for neuron in range(n)] for layer, n in enumerate(sizes)])

    def slopes(self) -> Scores:
        """To first order the same (Maini et al. 2023)."""
        return self._slopes(1.0)

    def integrated(self) -> Scores:
        """The mean slope on the way from no neurons to all of them."""
        return np.mean([self._slopes((i + 0.5) / STEPS) for i in range(STEPS)], axis=0)

    def _slopes(self, scale: float) -> Scores:
        masks = [(scale * mask).requires_grad_() for mask in self.masked.masks()]
        own, others = self._losses(masks)
        return channel_scores(others - own, masks).reshape(len(masks), -1).numpy()

    def activations(self) -> Scores:
        """The largest activation on the canary, times the length of the neuron's weights to the stream."""
        found: list[np.ndarray] = []

        def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            found.append((inputs[0][0].abs().amax(dim=0) * module.weight.norm(dim=0)).numpy())  # type: ignore[union-attr, operator]

        handles = [mlp.get_submodule("down").register_forward_hook(keep) for mlp in mlps(self.model)]
        with torch.no_grad():
            self.model(self.canary[:, :-1])
        for handle in handles:
            handle.remove()
        return np.array(found)


def recalls(scores: Scores, truth: Bool[np.ndarray, "layers neurons"]) -> Iterator[float]:
    """Share of the planted neurons among the first of their layers, at every cut.

    >>> list(recalls(np.arange(100.0)[None], np.arange(100)[None] >= 98))
    [0.5, 1.0, 1.0]
    """
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    for cut in CUTS:
        yield float((ranks < math.ceil(cut * scores.shape[1]))[truth].mean())


def trial(clean: nn.Module, texts: Int[Tensor, "n length"], seed: int) -> Iterator[dict[str, object]]:
    """Rows of method and recall at every cut; none where the sequence was not learned."""
    rng = stream(seed, 1)
    layers, n = len(mlps(clean)), mlps(clean)[0].get_submodule("up").out_features
    truth = np.zeros(layers * n, bool)
    truth[rng.choice(layers * n, round(SHARE * layers * n), replace=False)] = True
    truth = truth.reshape(layers, n)
    frequent = np.argsort(-np.bincount(texts.flatten().numpy()))[:LENGTH]
    canary = torch.from_numpy(rng.choice(frequent, (1, LENGTH)))
    model = planted(clean, texts, canary, truth, seed)
    if model is None:
        return
    some = texts[rng.choice(len(texts), ASKED, replace=False), :LENGTH]
    for name, score in Ranking(model, canary, some).methods.items():
        yield {"method": name, "seed": seed} | dict(zip(CUTS, recalls(score(), truth), strict=True))


def main(trials: int = 16, epochs: int = 8) -> None:
    """Print the recall of every method with its error over trials, beside the published one."""
    clean, texts = trained(epochs)
    rows = [row for seed in tqdm(range(trials), desc="trials") for row in trial(clean, texts, seed)]
    if not rows:
        raise SystemExit("no sequence was learned: train for more epochs")
    table = pd.DataFrame(rows)
    print(f"{table['seed'].nunique()} of {trials} sequences were learned")
    for name, of in table.groupby("method", sort=False):
        mean, error = of[list(CUTS)].mean(), of[list(CUTS)].sem()
        ours = ", ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True))
        print(f"{name}: {ours}" + (f"; published {PUBLISHED[name]}" if name in PUBLISHED else ""))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

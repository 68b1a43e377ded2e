r"""The gradient of the loss in two parts, of which one knows the labels (Stephenson et al. 2021, appendix A).

The cross-entropy of logits f is :math:`-f_y + \log \sum_k e^{f_k}`; its gradient, a mean over examples, is the sum of

.. math::
    g_{\mathrm{dep}} = -\langle \nabla f_y \rangle, \qquad
    g_{\mathrm{ind}} = \langle \textstyle\sum_k p_k \nabla f_k \rangle.

Both contain the gradient of the mean logit :math:`m = \frac1C \sum_k f_k`, which knows no labels and cancels in the sum.
Without it the parts are *centred*, and sum to the same gradient, since the probabilities p sum to 1:

.. math::
    g^c_{\mathrm{dep}} = -\langle \nabla (f_y - m) \rangle = g_{\mathrm{dep}} + \langle \nabla m \rangle, \qquad
    g^c_{\mathrm{ind}} = \langle \textstyle\sum_k p_k \nabla (f_k - m) \rangle = g_{\mathrm{ind}} - \langle \nabla m \rangle.

Over labels drawn without regard to the images, all classes as often, :math:`g^c_{\mathrm{dep}}` is a mean of n vectors of
mean 0, and its norm falls as :math:`n^{-1/2}`; where images tell of their labels it stays. Of labels that are never the
true one (``derangement``) a share 1 / (C - 1) stays, with the opposite sign.

Networks are in eval mode: dropout would add noise, and in batch norm by the statistics of a batch the gradient of an
example would depend on the others, so that there would be no mean over examples. A normalisation therefore uses its
running statistics, at the start of training those it was built with: none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.batches import Batch, called, like_parameters
from manigeo_extract.interventions.groups import Group
from manigeo_extract.recording.layers import eagerly, evaluating, logits_of, unwrap

# What backward passes are made of, one each: both centred parts, the mean logit, and the whole, which is no sum here, so
# that it is exact also where the parts cancel. The parts as sums of these:
BASIS = ("label_dependent_centred", "label_independent_centred", "mean_logit", "gradient")
PARTS = {
    "gradient": (0.0, 0.0, 0.0, 1.0),
    "label_dependent": (1.0, 0.0, -1.0, 0.0),
    "label_independent": (0.0, 1.0, 1.0, 0.0),
    "label_dependent_centred": (1.0, 0.0, 0.0, 0.0),
    "label_independent_centred": (0.0, 1.0, 0.0, 0.0),
}
_RESIDUAL = (1.0, 1.0, 0.0, -1.0)  # nothing, but for rounding
_AT_A_TIME = 1 << 18  # numbers of a vector that are doubled at a time


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients summed over ``n`` examples, under one labelling of them or several.

    ``layers`` has for each group of parameters an array (vectors, weights): the mean logit and the centred
    label-independent part, which labellings share, then of each labelling the centred label-dependent part and the whole.
    """

    n: int
    layers: tuple[Float[Tensor, "vectors _"], ...]

    def part(self, name: str, layer: int = 0, labelling: int = 0) -> Float[Tensor, " weights"]:
        """The mean of one of :data:`PARTS`, all parameters of the layer one after another."""
        basis = self.layers[layer][_rows(labelling)]
        return torch.tensor(PARTS[name], dtype=basis.dtype, device=basis.device) @ basis / self.n

    def add_(self, other: Gradients) -> Gradients:
        """The sums over both sets of examples; those of ``self`` are used up."""
        for own, more in zip(self.layers, other.layers, strict=True):
            own += more
        return Gradients(self.n + other.n, self.layers)


def _rows(labelling: int) -> list[int]:
    """Positions of the :data:`BASIS` of a labelling among the vectors."""
    return [2 + 2 * labelling, 1, 0, 3 + 2 * labelling]


# -------------------------------------------------------------------------------------------------------- differentiation
Split = Callable[[Batch, Int[Tensor, "labellings batch"]], Gradients]


@contextmanager
def splitting(model: nn.Module, groups: Sequence[Group]) -> Iterator[Split]:
    """Inside the block, a function from a batch and its labels (labellings, batch) to the parts of its gradient.

    The network is in eval mode and returns logits (examples, classes). Frozen parameters count like others, and those
    that the logits do not depend on have gradient 0. Flags and ``.grad`` fields are afterwards what they were.

    >>> from manigeo_extract.interventions.groups import group_layers
    >>> net, x, y = nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([[0, 1, 1, 0, 1]])
    >>> with splitting(net, group_layers(net, x)) as split:
    ...     found = split(x, y)
    >>> nn.functional.cross_entropy(net(x), y[0]).backward()
    >>> whole = torch.cat([net.weight.grad.flatten(), net.bias.grad])
    >>> parts = found.part("label_dependent") + found.part("label_independent")
    >>> torch.allclose(parts, whole, atol=1e-6), torch.allclose(found.part("gradient"), whole, atol=1e-6)
    (True, True)

    Raises :class:`~manigeo.errors.UsageError` for outputs that are not (examples, classes), or fewer than there are
    labels, :class:`~manigeo.errors.InputError` for outputs that none of these layers has a gradient of.
    """
    root = unwrap(model)
    owned = [[root.get_parameter(name) for name in group.parameters] for group in groups]
    parameters = [p for of_group in owned for p in of_group]
    ends = list(itertools.accumulate(map(len, owned), initial=0))

    def split(batch: Batch, labels: Int[Tensor, "labellings batch"]) -> Gradients:
        logits = _logits(called(root, like_parameters(root, batch)), labels)
        weights = _weights(logits.detach(), labels.to(logits.device))
        layers = tuple(own[0].new_empty((len(weights), sum(p.numel() for p in own))) for own in owned)
        for i, weight in enumerate(weights):
            last = i + 1 == len(weights)
            found = torch.autograd.grad(logits, parameters, weight, retain_graph=not last, materialize_grads=True)
            for layer, (start, stop) in zip(layers, itertools.pairwise(ends), strict=True):
                torch.cat([gradient.flatten() for gradient in found[start:stop]], out=layer[i])
        return Gradients(labels.shape[1], layers)

    with evaluating(root), eagerly(root), _requiring_only(root, parameters), _exactly(), torch.enable_grad():
        yield split


def _logits(output: object, labels: Int[Tensor, "labellings batch"]) -> Float[Tensor, "batch classes"]:
    logits = logits_of(output)
    if logits is None or logits.ndim != 2 or len(logits) != labels.shape[1]:
        found = "nothing" if logits is None else f"shape {tuple(logits.shape)}"
        raise UsageError(
            f"the network must return logits (examples, classes) of {labels.shape[1]} examples, got {found}"
        )
    if int(labels.max()) >= logits.shape[1]:
        raise UsageError(
            f"the model has {logits.shape[1]} outputs, the labels go up to {int(labels.max())} (from 0 on)"
        )
    if not logits.requires_grad:
        raise InputError(
            "the outputs have no gradient in these layers: they do not depend on them, or forward() cuts it off "
            "(torch.no_grad, detach); take other layers"
        )
    return logits


def _weights(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, "labellings batch"]
) -> Float[Tensor, "vectors batch classes"]:
    """Weights by which the gradients of the logits add up to each vector, in the order of :class:`Gradients`."""
    p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
    uniform = torch.full_like(p, 1 / p.shape[1])
    vectors = [uniform, p - uniform]
    for y in labels:
        chosen = nn.functional.one_hot(y, p.shape[1]).bool()
        others = p.masked_fill(chosen, 0.0)
        # 1 - p_y as the sum of the others: the difference would lose a p_y near 1
        vectors += [uniform - chosen.to(p.dtype), others - others.sum(dim=1, keepdim=True) * chosen]
    return torch.stack(vectors).to(logits.dtype)


@contextmanager
def _requiring_only(root: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Only these parameters take gradients inside the block."""
    flags = {p: p.requires_grad for p in root.parameters()}
    wanted = set(parameters)
    try:
        for p in flags:
            p.requires_grad_(p in wanted)
        yield
    finally:
        for p, flag in flags.items():
            p.requires_grad_(flag)


@contextmanager
def _exactly() -> Iterator[None]:
    """Convolutions in full precision, and the same each time: on CUDA they are rounded to ten bits by default."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


# ---------------------------------------------------------------------------------------------------------- inner products
def inner_products(found: Sequence[Gradients]) -> Float[np.ndarray, "layers labellings labellings 4 4"]:
    """Inner products of the mean gradients of every layer, between the :data:`BASIS` of any two labellings, in float64.

    Labellings are those of the first of ``found``, of the second ... The last layer is all of them as one vector.
    """
    means = [1 / gradients.n for gradients in found for _ in gradients.layers[0]]
    rows, start = [], 0
    for gradients in found:
        count = len(gradients.layers[0])
        rows += [[start + row for row in _rows(i)] for i in range((count - 2) // 2)]
        start += count
    grams = np.stack([_gram(layer) * np.outer(means, means) for layer in zip(*(g.layers for g in found), strict=True)])
    grams = np.concatenate([grams, grams.sum(axis=0, keepdims=True)])
    at = np.array(rows)
    return grams[:, at[:, None, :, None], at[None, :, None, :]]


def _gram(stacks: Sequence[Tensor]) -> Float[np.ndarray, "vectors vectors"]:
    """Summed in float64, some weights at a time."""
    pieces = zip(*(stack.split(_AT_A_TIME, dim=1) for stack in stacks), strict=True)
    grams = [_squared(torch.cat(piece)) for piece in pieces]
    return np.asarray(torch.stack(grams).sum(dim=0).cpu())


def _squared(piece: Tensor) -> Tensor:
    piece = piece.cpu() if piece.device.type == "mps" else piece  # MPS has no float64
    return piece.double() @ piece.double().T


def norms(gram: Float[np.ndarray, "*places 4 4"], part: str) -> Float[np.ndarray, "*places"]:
    """The norm of a part, from the inner products of its basis."""
    return _root(gram, PARTS[part])


def cosines(
    gram: Float[np.ndarray, "layers labellings labellings 4 4"], one: tuple[int, str], other: tuple[int, str]
) -> Float[np.ndarray, " layers"]:
    """The cosine between the parts (labelling, name) in each layer; NaN where one is 0."""
    (a, part), (b, against) = one, other
    dots = np.einsum("i,nij,j->n", PARTS[part], gram[:, a, b], PARTS[against])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(dots / (norms(gram[:, a, a], part) * norms(gram[:, b, b], against)), -1, 1)


def residuals(gram: Float[np.ndarray, "*places 4 4"]) -> Float[np.ndarray, "*places"]:
    """Residual of the gradient after the centred parts (one backward pass each), in units of the parts: rounding.

    NaN where both are 0.
    """
    size = norms(gram, "label_dependent_centred") + norms(gram, "label_independent_centred")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(_root(gram, _RESIDUAL) / size)


def _root(gram: Float[np.ndarray, "*places 4 4"], c: Sequence[float]) -> Float[np.ndarray, "*places"]:
    return np.asarray(np.sqrt(np.maximum(np.einsum("i,...ij,j->...", c, gram, c), 0.0)))

"""Exchanging tensors of a network for as long as it is looked at, and what to exchange them for.

Nothing here trains, and nothing stays: after the ``with`` block every tensor is what it was, bit for bit, buffers included,
also after an exception or Ctrl-C.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from manigeo.errors import InputError, check_choice
from manigeo.weights import is_kernel
from manigeo_extract.batches import Batch, called
from manigeo_extract.interventions.groups import Group
from manigeo_extract.recording.layers import unwrap

BATCH_NORM = ("with-stats", "params", "recalibrate")
Tensors = Mapping[str, Tensor]
# A draw whose spread is off that of the initial weights by more comes from another initialiser: the standard deviation
# of a hundred weights is known to 7 %.
_SPREAD, _ENOUGH = 1.25, 100


@contextmanager
def replaced(model: nn.Module, tensors: Tensors) -> Iterator[None]:
    """The tensors of these names (of the state dict) have these values inside the block.

    >>> net = nn.Linear(2, 1)
    >>> with replaced(net, {"bias": torch.tensor([7.0])}):
    ...     net.bias.item()
    7.0
    >>> net.bias.item() == 7.0
    False
    """
    state = unwrap(model).state_dict()  # the tensors themselves, in their memory
    own = {name: state[name] for name in tensors}
    kept = {name: tensor.clone() for name, tensor in own.items()}
    try:
        for name, value in tensors.items():
            own[name].copy_(value)
        yield
    finally:
        for name, value in kept.items():
            own[name].copy_(value)


def taken_from(state: Tensors, group: Group, batch_norm: str = "with-stats") -> dict[str, Tensor]:
    """The tensors of a group as they are in ``state``; running statistics too, unless ``batch_norm`` is "params".

    Raises :class:`~manigeo.errors.UsageError` for a policy that is none of :data:`BATCH_NORM`.
    """
    check_choice("batch_norm", batch_norm, BATCH_NORM)
    buffers = () if batch_norm == "params" else group.buffers
    return {name: state[name] for name in (*group.parameters, *buffers)}


def zeroed(state: Tensors, group: Group) -> dict[str, Tensor]:
    """Zeros for the parameters of a group: the layer contributes nothing."""
    return {name: torch.zeros_like(state[name]) for name in group.parameters}


def perturbed(state: Tensors, other: Tensors, group: Group, seed: int) -> dict[str, Tensor]:
    r"""The parameters of a group after a random step as long as that from ``other``, each tensor by itself.

    .. math:: \theta' = \theta + |\theta - \theta_{other}|\; u / |u|, \qquad u \sim N(0, I)

    with the Frobenius norm. Tensors that are the same in both have no noise, and buffers stay.

    >>> layer = Group("h", 0, ("h",), ("h.weight",))
    >>> moved = perturbed({"h.weight": torch.zeros(9)}, {"h.weight": torch.full((9,), 2.0)}, layer, seed=0)
    >>> round(float(moved["h.weight"].norm()), 5)
    6.0
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in group.parameters:
        here = state[name]
        length = (here.double() - other[name].to(here.device).double()).norm()
        u = torch.randn(here.shape, generator=generator, dtype=torch.float64).to(here.device)
        found[name] = (here.double() + length * u / u.norm()).to(here.dtype) if length > 0 else here.clone()
    return found


def is_same(state: Tensors, tensors: Tensors) -> bool:
    """Return whether ``tensors`` are, bit for bit, what ``state`` has under their names."""
    return all(torch.equal(state[name], tensor.to(state[name].device)) for name, tensor in tensors.items())


# ------------------------------------------------------------------------------------------------------- running means
@contextmanager
def recalibrated(model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> Iterator[None]:
    """Batch norm has the statistics of ``batches`` inside the block: means over all of them, each batch the same weight.

    Networks without running statistics are left alone.
    """
    root = unwrap(model)
    norms = [m for m in root.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
    flags = {norm: (norm.training, norm.momentum) for norm in norms}
    kept = {buffer: buffer.clone() for norm in norms for buffer in norm.buffers()}
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None  # a plain mean over batches
        with torch.no_grad():
            for batch in batches() if norms else ():
                called(root, batch)
        for norm in norms:
            norm.eval()
        yield
    finally:
        for norm, (training, momentum) in flags.items():
            norm.training, norm.momentum = training, momentum
        for buffer, value in kept.items():
            buffer.copy_(value)


# --------------------------------------------------------------------------------------------------------- fresh draws
def draw_seed(seed: int, *key: int) -> int:
    """The seed of the draw that ``key`` names."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint32)[0])


@dataclass(frozen=True)
class Redraw:
    """Draws a layer of ``model`` again from the distribution that it started from.

    ``reset_parameters()`` of each module of the layer does it where that is how the network was started: where the draws
    spread as the ``initial`` weights do, if these are known. Otherwise the whole network is built anew by ``build``
    (given a seed), where there is such a function, and the layer taken out of it.
    """

    model: nn.Module
    initial: Tensors | None = None
    build: Callable[[int], nn.Module] | None = None

    def draw(self, group: Group, seed: int) -> dict[str, Tensor]:
        """New tensors for the group; the global generator is left as it was.

        Raises :class:`~manigeo.errors.InputError` for a layer that nobody knows how to draw again, with what to add.
        """
        modules = {path: unwrap(self.model).get_submodule(path) for path in group.modules}
        without = {path: module for path, module in modules.items() if _reset(module) is None}
        drawn = {} if without else self._reset(modules, group, seed)
        if drawn and not self._strange(drawn):
            return drawn
        if self.build is not None:
            built = unwrap(self.build(seed)).state_dict()
            fresh, again = taken_from(built, group), taken_from(unwrap(self.build(seed + 1)).state_dict(), group)
            if not _same_kernels(fresh, again):
                return fresh
        if without:
            path, module = next(iter(without.items()))
            raise InputError(
                f"layer {group.name} cannot be drawn again: {type(module).__name__} {path or '(the network)'} has no "
                "reset_parameters(); give it one that draws its weights, or leave the layer out"
            )
        name = self._strange(drawn)
        raise InputError(
            f"layer {group.name} cannot be drawn again: reset_parameters() gives {name} another spread than its initial "
            "checkpoint has; let it draw as the network does when it is built"
        )

    def _reset(self, modules: Mapping[str, nn.Module], group: Group, seed: int) -> dict[str, Tensor]:
        device = next(iter(unwrap(self.model).state_dict().values())).device
        copies = {path: copy.deepcopy(module) for path, module in modules.items()}
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for module in copies.values():
                reset = _reset(module)
                assert reset is not None
                reset()
        tensors = {f"{path}.{name}".lstrip("."): t for path, m in copies.items() for name, t in m.state_dict().items()}
        return {name: tensors[name].detach() for name in (*group.parameters, *group.buffers)}

    def _strange(self, drawn: Tensors) -> str | None:
        """A kernel that does not spread as it did initially."""
        known = self.initial or {}
        for name, tensor in drawn.items():
            if name in known and is_kernel(name, tuple(tensor.shape)) and tensor.numel() >= _ENOUGH:
                ratio = float(tensor.float().std()) / max(float(known[name].float().std()), 1e-30)
                if not 1 / _SPREAD < ratio < _SPREAD:
                    return name
        return None


def _reset(module: nn.Module) -> Callable[[], object] | None:
    """Find the function that draws the module's own parameters again; attention has it under another name."""
    found = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    return found if callable(found) else None


def _same_kernels(one: Tensors, other: Tensors) -> bool:
    """Return whether nothing was drawn: a function that loads trained weights gives the same ones for every seed."""
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def merged(parts: Sequence[Tensors]) -> dict[str, Tensor]:
    """The tensors of several layers together."""
    return {name: tensor for part in parts for name, tensor in part.items()}

"""A network and where its weights are from: a checkpoint, or, as the control of every claim about training, its seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from manigeo.errors import InputError
from manigeo_extract.files.checkpoints import Checkpoint, checked_fit, plain, restore_model
from manigeo_extract.files.fitting import Fit
from manigeo_extract.models import bare_model, build_model


@dataclass(frozen=True)
class Network:
    """A network with its weights, and what a file of its activations has to state about them.

    ``weights`` is "checkpoint" or "init"; ``init_seed`` is the seed of all weights that are not those of the
    checkpoint; ``arch`` is None where the file itself held the network; ``notes`` are for the user to read.
    """

    module: nn.Module
    weights: str
    arch: str | None = None
    arch_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    init_seed: int | None = None
    fit: Fit | None = None
    notes: tuple[str, ...] = ()

    @property
    def origin(self) -> dict[str, Any]:
        """The same as plain values. A network that the file itself held bears the name of its class."""
        kind = type(self.module)
        return {
            "arch": self.arch or f"{kind.__module__}.{kind.__qualname__}",
            "arch_args": plain(self.arch_args),
            "weights": self.weights,
            "init_seed": self.init_seed,
            "prefixes": [] if self.fit is None else list(self.fit.prefixes),
            "not_loaded": [] if self.fit is None else list(self.fit.not_loaded),
            "left_out": [] if self.fit is None else list(self.fit.unexpected),
        }


def check_claim(checkpoint: Checkpoint, bare: nn.Module | None) -> None:
    """Check that the network that a checkpoint describes, of which ``bare`` has the shapes, is not far larger than its file.

    Raises :class:`~manigeo.errors.InputError` for one of more than ten times the stored numbers, and more than a million.
    """
    tensors = [value for value in checkpoint.state_dict.values() if isinstance(value, torch.Tensor)]
    stored = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors
    }  # a view may claim any shape
    held = sum(stored.values()) // 4
    claimed = 0 if bare is None else sum(parameter.numel() for parameter in bare.parameters())
    if claimed > max(10 * held, 1_000_000):
        raise InputError(
            f"{checkpoint.path} holds {held:,} numbers, and its architecture takes {claimed:,}: it is not the one it was "
            "saved from; give --arch and --arch-arg"
        )


def trained_network(
    checkpoint: Checkpoint, arch: str | None, arch_args: Mapping[str, Any], *, strict: bool = True, seed: int = 0
) -> Network:
    """The network with the weights of the checkpoint; without ``arch`` the network that a trusted file holds.

    Unless ``strict``, tensors that the checkpoint does not have keep what ``seed`` gave them.

    Raises :class:`~manigeo.errors.InputError` when the weights do not fit, and when there is no network.
    """
    if arch is None:
        if checkpoint.module is None:
            raise InputError(f"{checkpoint.path} does not say its architecture: give --arch (and --arch-arg)")
        return Network(checkpoint.module, "checkpoint", notes=checkpoint.notes)
    if (bare := bare_model(arch, arch_args)) is not None:
        checked_fit(checkpoint, bare, strict=strict)  # before memory is asked for: a file may claim any size
    module = build_model(arch, arch_args, seed=seed)
    fit = restore_model(checkpoint, module, strict=strict)
    drawn = seed if fit.not_loaded else None
    return Network(module, "checkpoint", arch, arch_args, drawn, fit, (*checkpoint.notes, *fit.notes))


def untrained_network(arch: str, arch_args: Mapping[str, Any], *, seed: int) -> Network:
    """The network before training: with the seed of a run of ``manigeo train``, its initial checkpoint bit for bit.

    >>> network = untrained_network("mlp", {"input_shape": (1, 2, 2), "n_classes": 3}, seed=7)
    >>> network.weights, network.init_seed
    ('init', 7)
    """
    return Network(build_model(arch, arch_args, seed=seed), "init", arch, arch_args, seed)

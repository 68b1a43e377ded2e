"""Preparation of a forward pass that only looks at a network: the bare network, in eval mode, with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from manigeo.errors import InputError, one_line
from manigeo_extract.batches import Batch, shapes


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, out of ``DataParallel``, ``DistributedDataParallel``, ``AveragedModel``, ``torch.compile``, nested
    in any way."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile; asking for its class would import the compiler
            model = model.get_submodule("_orig_mod")
        else:
            return model


@contextmanager
def evaluating(root: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; after it every module's training flag is what it was."""
    training = {module: module.training for module in root.modules()}
    try:
        root.eval()
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


@contextmanager
def eagerly(root: nn.Module) -> Iterator[None]:
    """Every module is called as Python code inside the block: compiled code ignores hooks that came later, and torch's fast
    path of transformers calls none of the modules in it, or passes on nested tensors."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _uncompiled(root):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _uncompiled(root: nn.Module) -> Iterator[None]:
    if any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in root.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def hooked(hooks: Mapping[nn.Module, Callable[[nn.Module, object, object], None]]) -> Iterator[None]:
    """The forward hooks are there inside the block and gone after it, also after an exception."""
    with ExitStack() as stack:
        for module, hook in hooks.items():
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def without_gradients() -> Iterator[None]:
    """No gradients inside the block, and not inference mode either, also where the caller is in it.

    A tensor made in inference mode can never take part in a training: networks that keep one for later (rotary tables)
    could not be trained any more, and those that differentiate in their forward pass could not run.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def taking_inputs(batch: Batch, source: str) -> Iterator[None]:
    """Whatever a network raises inside the block becomes one line that names the inputs it was given.

    Raises :class:`~manigeo.errors.InputError`: the network is anybody's, and so is what it raises.
    """
    try:
        yield
    except Exception as error:
        raise InputError(
            f"the network does not take inputs of {shapes(batch)} from {source}: {one_line(error)}; {_remedy(batch)}"
        ) from error


def _remedy(batch: Batch) -> str:
    tensors = [batch] if isinstance(batch, Tensor) else list(batch.values())
    if len(tensors) == 1 and not tensors[0].is_floating_point():
        return "whole numbers go in as they are: return floats where the network wants them"
    return "give data of its shape (--data, --data-arg size=N for images), or build it for these (--arch-arg)"


def names_of_modules(root: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """Every module below ``root`` with all its names, the one declared first in front."""
    names: dict[nn.Module, tuple[str, ...]] = {}
    for name, module in root.named_modules(remove_duplicate=False):
        if module is not root:
            names[module] = (*names.get(module, ()), name)
    return names


def name_of_call(name: str, call_index: int) -> str:
    """``name`` for the first call of a module, ``name#1`` for the second, and so on."""
    return f"{name}#{call_index}" if call_index else name


def name_of_end(end: str, root: nn.Module) -> str:
    """``input`` or ``output``, but ``model.input`` or ``model.output`` in a network with a module of that very name."""
    return f"model.{end}" if end in root._modules else end

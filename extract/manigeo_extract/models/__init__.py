"""Small reference networks for images of 8 to 64 pixels and for sequences of tokens, and the door to the user's own.

Every built-in takes ``input_shape`` (channels, height, width; of ``gpt`` tokens), ``n_classes`` and options of its own, and
draws its weights from torch's global generator; all of images take ``tied_dropout`` (:mod:`manigeo_extract.models.tied`).
``layer.reset_parameters()`` draws a layer again from the same distribution.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from manigeo.errors import UsageError
from manigeo.storage.ceilings import MOST_DEPTH
from manigeo_extract.models.convolutional import alexnet, cnn
from manigeo_extract.models.dense import densenet
from manigeo_extract.models.fully_connected import mlp, resmlp
from manigeo_extract.models.language import gpt
from manigeo_extract.models.resnet import resnet18
from manigeo_extract.models.tied import with_tied_dropout
from manigeo_extract.models.transformer import vit
from manigeo_extract.models.vgg import vgg11, vgg16
from manigeo_extract.resolve import foreign_call, near_names, resolve_object

__all__ = [
    "IMAGE_MODELS", "MODELS", "alexnet", "bare_model", "build_model", "cnn", "complete_args", "densenet", "gpt", "mlp",
    "resmlp", "resnet18", "vgg11", "vgg16", "vit",
]  # fmt: skip

IMAGE_MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "alexnet": alexnet,
    "densenet": densenet,
    "resmlp": resmlp,
    "vit": vit,
}
MODELS = {**IMAGE_MODELS, "gpt": gpt}


def complete_args(arch: str, args: Mapping[str, Any], input_shape: Sequence[int], n_classes: int) -> dict[str, Any]:
    """``args`` with the shape of the inputs and the number of classes, where a built-in network needs to be told.

    >>> complete_args("mlp", {"depth": 2}, (1, 8, 8), 10)
    {'input_shape': [1, 8, 8], 'n_classes': 10, 'depth': 2}
    """
    known = {"input_shape": list(input_shape), "n_classes": n_classes} if arch in MODELS else {}
    return known | dict(args)


def build_model(arch: str, args: Mapping[str, Any], *, seed: int | None = None) -> nn.Module:
    """The network that ``arch`` names, built with ``args``.

    ``arch`` is a key of :data:`MODELS`, or ``package.module:factory`` or ``path/to/file.py:factory`` for the user's
    own network. With ``seed`` the weights are drawn from it, and torch's global generator is left as it was.

    Raises :class:`~manigeo.errors.UsageError` on an unknown name, on options the factory does not take, when the factory
    fails, and when no ``torch.nn.Module`` comes out.

    >>> build_model("mlp", {"input_shape": (1, 2, 2), "n_classes": 3, "depth": 0}).logits
    Linear(in_features=4, out_features=3, bias=True)
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = _user_built(arch, args) if ":" in arch else _built_in(arch, args)
    if not isinstance(model, nn.Module):
        raise UsageError(f"{arch!r} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def bare_model(arch: str, args: Mapping[str, Any]) -> nn.Module | None:
    """The shapes of a built-in network, whose tensors have no memory (the device ``meta``); None for the user's own, which
    may look at its weights, or keep them, while it is built.

    >>> bare = bare_model("mlp", {"input_shape": (1, 8, 8), "n_classes": 3, "width": 10**6})
    >>> bare.get_parameter("h2.linear.weight").shape
    torch.Size([1000000, 1000000])
    """
    if arch not in MODELS:
        return None
    with torch.device("meta"), _Undrawn():
        return build_model(arch, args, seed=0)


class _Undrawn(TorchFunctionMode):
    """Random numbers are not drawn into tensors without memory: for these torch imports its compiler, two seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_"):  # of tensors, and of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _built_in(arch: str, args: Mapping[str, Any]) -> nn.Module:
    if arch not in MODELS:
        raise UsageError(f"unknown model {arch!r}{near_names(arch, MODELS)} (your own: package.module:factory)")
    if arch not in IMAGE_MODELS and "tied_dropout" in args:
        raise UsageError(f"tied dropout ties channels to images, and {arch} takes sequences: leave it out")
    tied = {name: args[name] for name in ("tied_dropout", "drop_tied") if name in args}
    accepted = _accepted(arch, MODELS[arch], {name: value for name, value in args.items() if name not in tied})
    try:
        _check_switch("batch_norm", accepted.get("batch_norm", False))
        _check_depth(accepted)
        network = MODELS[arch](**accepted)
        return with_tied_dropout(network, **tied) if tied else network
    except (TypeError, ValueError, RuntimeError) as error:
        options = ", ".join(f"{name}={value!r}" for name, value in args.items())
        raise UsageError(f"cannot build {arch}({options}): {error}") from error


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):  # the text "no" is true
        raise ValueError(f"{name} must be true or false, got {value!r}")


def _check_depth(options: Mapping[str, Any]) -> None:
    """A file may claim any depth, and modules take time even without their weights."""
    for name in ("depth", "blocks"):
        if isinstance(options.get(name), int | float) and options[name] > MOST_DEPTH:
            raise ValueError(f"{name} must be at most {MOST_DEPTH}, got {options[name]}")


def _user_built(arch: str, args: Mapping[str, Any]) -> Any:
    factory = _own_factory(arch)
    try:
        return foreign_call(factory, **_accepted(arch, factory, args))
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"model {arch!r} cannot be built: {type(error).__name__}: {error}") from error


def _own_factory(arch: str) -> Callable[..., Any]:
    factory = resolve_object(arch)
    if not callable(factory) or isinstance(factory, nn.Module):
        raise UsageError(
            f"{arch!r} must be a function or class that returns a torch.nn.Module, got {type(factory).__name__}"
        )
    return factory


def _accepted(arch: str, factory: Callable[..., Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """``args``, once it is sure that the factory takes them."""
    signature = inspect.signature(factory)
    try:
        signature.bind(**args)
    except TypeError as error:
        options = ", ".join(str(p.replace(annotation=p.empty)) for p in signature.parameters.values())
        raise UsageError(f"model {arch!r}: {error}; it takes {options or 'no options'}") from error
    return dict(args)

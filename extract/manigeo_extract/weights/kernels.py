"""The weights of each module that multiply its inputs, out of a state dict: as they act, however they are stored.

A normalised weight is stored in parts (``parametrizations.weight.original0``, or ``weight_g`` and ``weight_v``), and what
acts is made of them:

.. math:: w = g\\, v / |v| \\quad\\text{(weight norm)}, \\qquad w = v / (u_0^\\top V u_1) \\quad\\text{(spectral norm)},

with V the matrix of v. Of other parametrizations a state dict holds the original tensor alone; a live network gives what
acts (:func:`acting_state`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from manigeo.errors import InputError
from manigeo.weights import is_kernel
from manigeo_extract.recording.layers import evaluating, unwrap, without_gradients

_PARAMETRIZED = re.compile(r"^(?P<path>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<part>.+)$")
_OLD = re.compile(r"^(?P<path>(?:.*\.)?)(?P<name>[^.]*weight)_(?P<part>g|v|u|orig|mask)$")
NETWORK = "(network)"  # the layer of the tensors of the network itself


def acting_state(model: nn.Module) -> dict[str, Any]:
    """The state dict of a network, with parametrized tensors as they act in eval mode, under their own names.

    >>> net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 1))
    >>> sorted(acting_state(net))
    ['bias', 'weight']
    """
    root = unwrap(model)
    state = dict(root.state_dict())
    with evaluating(root), without_gradients():  # spectral norm would go a step on in training mode
        for path, module in root.named_modules():
            for name in module.parametrizations if parametrize.is_parametrized(module) else ():
                place = f"{path}.".lstrip(".")
                state[place + name] = getattr(module, name)
                for part in [key for key in state if key.startswith(f"{place}parametrizations.{name}.")]:
                    del state[part]
    return state


def module_kernels(state: Mapping[str, Any], source: str) -> dict[str, dict[str, Tensor]]:
    """The kernels of every module that has any, by the module's name and by their own (:func:`~manigeo.weights.is_kernel`).

    Raises :class:`~manigeo.errors.InputError` where there are none.

    >>> list(module_kernels(nn.ModuleDict({"rnn": nn.LSTM(2, 2), "norm": nn.LayerNorm(2)}).state_dict(), "the network"))
    ['rnn']
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _assembled(state).items():
        if is_kernel(name, tuple(tensor.shape)):
            path, _, own = name.rpartition(".")
            found.setdefault(path or NETWORK, {})[own] = tensor
    if not found:
        raise InputError(
            f"{source} has no weights of layers among {list(state)[:5]} ...: tensors of two dimensions or more whose name "
            "ends in weight; give a state dict of a network with such layers"
        )
    return found


def left_out(state: Mapping[str, Any]) -> dict[str, str]:
    """Modules that have weights and none that multiply inputs, and why they are not looked at."""
    seen = module_kernels(state, "") if any(True for _ in state) else {}
    reasons: dict[str, str] = {}
    for name, tensor in _assembled(state).items():
        path, _, own = name.rpartition(".")
        if tensor.ndim >= 2 and not is_kernel(name, tuple(tensor.shape)):
            reasons[name] = "is named otherwise than a weight that multiplies inputs"
        elif tensor.ndim == 1 and path not in seen and "weight" in own:
            reasons[path or NETWORK] = "has scales and shifts alone"
    return reasons


def _assembled(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The floating point tensors, those that are stored in parts as they act."""
    tensors = {n: t.detach().cpu() for n, t in state.items() if isinstance(t, Tensor) and t.is_floating_point()}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _PARAMETRIZED.match(name) or _OLD.match(name)
        if match is None:
            whole[name] = tensor
            continue
        parts = _parts(tensors, match["path"], match["name"])
        if (acting := _acting(parts)) is not None:
            whole.setdefault(match["path"] + match["name"], acting)
        else:
            whole[name] = tensor
    return whole


def _parts(tensors: Mapping[str, Tensor], path: str, name: str) -> dict[str, Tensor]:
    """The parts of a tensor, by the names that torch's parametrizations have for them."""
    renamed = {"0._u": "u", "0._v": "left", "original0": "g", "original1": "v", "original": "orig"}
    new, old = f"{path}parametrizations.{name}.", f"{path}{name}_"
    found = {renamed.get(n.removeprefix(new), n.removeprefix(new)): t for n, t in tensors.items() if n.startswith(new)}
    return found or {n.removeprefix(old): t for n, t in tensors.items() if n.startswith(old)}


def _acting(parts: Mapping[str, Tensor]) -> Tensor | None:
    """The tensor that acts; of a parametrization that is not known here the original, None where there is none."""
    if {"g", "v"} <= parts.keys() and parts["g"].ndim in (0, parts["v"].ndim):
        g, v = parts["g"], parts["v"]
        summed = [axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1]
        return v * (g / torch.linalg.vector_norm(v, dim=summed, keepdim=True)) if summed else v * g
    original = parts.get("orig")
    if original is not None and "mask" in parts:
        return original * parts["mask"]
    if original is not None and "u" in parts:
        return original / _spectral_norm(original, parts["u"], parts.get("left", parts.get("v")))
    return original


def _spectral_norm(weight: Tensor, u: Tensor, v: Tensor | None) -> Tensor:
    axis = next((a for a, size in enumerate(weight.shape) if size == len(u)), 0)
    matrix = weight.movedim(axis, 0).flatten(1)
    if v is None or len(u) != len(matrix) or len(v) != matrix.shape[1]:
        return torch.linalg.matrix_norm(matrix, 2)
    return u @ (matrix @ v)

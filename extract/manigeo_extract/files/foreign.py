"""State dicts of other programs: where they stand in a file, and which prefixes their names got on the way.

DistributedDataParallel and DataParallel put ``module.`` before every name, ``torch.compile`` puts ``_orig_mod.``
before those of what it compiled, and Lightning the name of the attribute that holds the network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.files.fitting import renamed, without_prefix
from manigeo_extract.files.formats import REMEDY

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "module")
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")  # averages of the weights over the training
WRAPPERS = ("module.", "_orig_mod.", "module.")  # DataParallel and torch.compile, in either order
COUNTERS = ("epoch", "iteration", "global_step", "step")
LIGHTNING = "pytorch-lightning_version"
COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel counts its updates under this name


@dataclass(frozen=True)
class Weights:
    """A state dict, or the network that holds it, and how it was found: under which key, less which prefixes."""

    state_dict: dict[str, Any]
    module: nn.Module | None
    key: str | None
    notes: tuple[str, ...]


def find_weights(content: Any, *, state_key: str | None = None, ema: bool = False) -> Weights:
    """The weights in what a file held: itself, or under ``state_key``, or under the first of the usual keys, or under any
    key where no other has weights.

    ``state_key`` goes down by dots (``"checkpoint.model"``), and may end in what the names begin with
    (``"state_dict.encoder_q"``), which takes one of several networks in one state dict; ``ema`` takes the keys of averaged
    weights. Prefixes of DataParallel and ``torch.compile`` that all names share are taken off, which the notes report. The
    versions of modules (``_metadata``) stay with the names.

    Raises :class:`~manigeo.errors.InputError` when no weights are there, and :class:`~manigeo.errors.UsageError` for
    a ``state_key`` together with ``ema``.

    >>> found = find_weights({"epoch": 3, "net": {"module.bias": torch.zeros(2)}})
    >>> found.key, list(found.state_dict), found.notes
    ('net', ['bias'], ("took the prefix 'module.' off all names",))
    """
    if state_key is not None and ema:
        raise UsageError(f"--state-key {state_key} and --ema both say which weights to take: give one of them")
    if state_key is not None:
        return _weights(_below(content, state_key), state_key)
    keys = EMA_KEYS if ema else STATE_KEYS
    usual = _holding_weights(content, keys)
    if usual:
        return _weights(content[usual[0]], usual[0], _also_there(content, usual, ema))
    if not ema and _holds_weights(content):
        return _weights(content, None)
    nested = [] if ema else list(_places(content))
    if len(nested) == 1:
        return _weights(_below(content, nested[0]), nested[0], [f"took the weights under {nested[0]!r}, the only ones"])
    if not nested and not ema and (tensors := _mostly_tensors(content)):
        others = ", ".join(name for name in content if name not in tensors)
        return _weights(tensors, None, [f"took the tensors of the file, and left out {others}"])
    what = "averaged weights" if ema else "state dict, by itself or"
    raise InputError(f"no {what} under {', '.join(keys)}; found {_described(content)}; {_way_out(nested, ema)}")


def found_epoch(content: Any, path: str | os.PathLike[str]) -> int | None:
    """When in its training another program's checkpoint was written: the epoch that the file holds, or else its step, or
    else the last number in the name of the file; None where there is neither.

    Lightning counts epochs from 0, so that its epoch 0 is the one after which one epoch is done.

    >>> found_epoch({"epoch": 9}, "model.pt"), found_epoch({}, "model_0500.pth"), found_epoch({}, "model_final.pth")
    (9, 500, None)
    >>> found_epoch({"epoch": 0, "global_step": 40, "pytorch-lightning_version": "2.5"}, "epoch=0-step=40.ckpt")
    1
    """
    held = content if isinstance(content, Mapping) else {}
    for key in COUNTERS:
        if type(number := held.get(key)) is int and number >= 0:
            began_at_zero = key == "epoch" and LIGHTNING in held and held.get("global_step") != 0
            return number + began_at_zero
    named = re.search(r"epoch[=_-]?(\d+)", Path(path).name) or re.search(r"(\d+)\D*$", Path(path).stem)
    return int(named[1]) if named else None


def _places(content: Any, path: str = "", levels: int = 3) -> Iterator[str]:
    """All keys, with dots between those of one path, under which there are weights of a network."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(key, str) and not key.startswith("optim"):
            if _holds_weights(value):
                yield path + key
            elif levels > 1:
                yield from _places(value, f"{path}{key}.", levels - 1)


def _mostly_tensors(content: Any) -> dict[str, Any]:
    """The tensors of a dict that holds a few other things beside them, such as the epoch."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return {}
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    return tensors if 2 * len(tensors) > len(content) else {}


def _also_there(content: Mapping[str, Any], usual: Sequence[str], ema: bool) -> list[str]:
    """Note that the file holds more than one set of weights, and how to get at the others."""
    others = [f"{key!r} (--state-key)" for key in usual[1:]]
    others += [f"{key!r} (--ema)" for key in _holding_weights(content, EMA_KEYS) if not ema]
    return [f"took the weights under {usual[0]!r}; there are also those under {', '.join(others)}"] if others else []


def _weights(found: Any, key: str | None, notes: Sequence[str] = ()) -> Weights:
    module = found if isinstance(found, nn.Module) else None
    state, prefixes = _without_wrappers(found if module is None else module.state_dict())
    said = [f"took the prefix '{''.join(prefixes)}' off all names"] if prefixes and module is None else []
    return Weights(state, module, key, (*notes, *said))


def _below(content: Any, state_key: str) -> Any:
    """Return the state dict under a key, or under a path of keys, or of keys and a prefix, with dots between them."""
    found, path = content, [state_key] if _has(content, state_key) else state_key.split(".")
    for i, key in enumerate(path):
        if not _has(found, key):
            if part := _part(found, ".".join(path[i:]) + "."):
                return part
            raise InputError(f"nothing under the key {state_key!r}; found {_described(found)}")
        found = found[key]
    if not _holds_weights(found):
        raise InputError(f"no state dict under the key {state_key!r}; found {_described(found)}")
    return found


def _part(found: Any, prefix: str) -> dict[str, Any]:
    """The part of a state dict whose names begin with ``prefix``, which wrappers may have one before."""
    state = _without_wrappers(found)[0] if _holds_weights(found) else {}
    return without_prefix(found if any(name.startswith(prefix) for name in found) else state, prefix)


def _has(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and key in content


def _holding_weights(content: Any, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if _has(content, key) and _holds_weights(content[key])]


def _holds_weights(value: Any) -> bool:
    if isinstance(value, nn.Module):
        return True
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    if hasattr(value, "_metadata"):  # what state_dict() gave; packed weights of quantised modules are no tensors
        return any(isinstance(tensor, torch.Tensor) for tensor in value.values())
    tensors = [tensor for name, tensor in value.items() if not name.endswith("_extra_state")]
    return bool(tensors) and all(isinstance(tensor, torch.Tensor) for tensor in tensors)


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return ", ".join(map(str, list(content)[:5])) + (", ..." if len(content) > 5 else "") or "nothing"


def _way_out(nested: Sequence[str], ema: bool) -> str:
    if ema:
        return "leave --ema out, or name them with --state-key"
    return f"give --state-key {' or '.join(nested[:5])}" if nested else REMEDY


def _without_wrappers(state: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    prefixes: list[str] = []
    counted = COUNTER in state and all(name.startswith("module.") for name in state if name != COUNTER)
    found = renamed(state, lambda name: None if counted and name == COUNTER else name)
    for prefix in WRAPPERS:
        if found and all(name.startswith(prefix) for name in found):
            found = without_prefix(found, prefix)
            prefixes.append(prefix)
    return found, prefixes

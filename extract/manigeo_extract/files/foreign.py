"""State dicts of other programs: where they stand in a file, and which prefixes their names got on the way.

DistributedDataParallel and DataParallel put ``module.`` before every name, ``torch.compile`` puts ``_orig_mod.``
before those of what it compiled, and Lightning the name of the attribute that holds the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from manigeo.errors import InputError, UsageError
from manigeo_extract.files.formats import REMEDY

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "module")
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")  # averages of the weights over the training
COMPILED = "_orig_mod."
WRAPPERS = ("module.", COMPILED, "module.")  # DataParallel and torch.compile, in either order
COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel counts its updates under this name


@dataclass(frozen=True)
class Weights:
    """A state dict, or the network that holds it, and how it was found: under which key, less which prefixes."""

    state_dict: dict[str, Any]
    module: nn.Module | None
    key: str | None
    notes: tuple[str, ...]


def find_weights(content: Any, *, state_key: str | None = None, ema: bool = False) -> Weights:
    """The weights in what a file held: itself, or under ``state_key``, or under the first of the usual keys.

    ``state_key`` goes down by dots (``"checkpoint.model"``); ``ema`` takes the keys of averaged weights. Prefixes of
    DataParallel and ``torch.compile`` that all names share are taken off, which the notes report.

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
    if ema or not _holds_weights(content):
        what = "averaged weights" if ema else "state dict, by itself or"
        raise InputError(f"no {what} under {', '.join(keys)}; found {_described(content)}; {_way_out(content, ema)}")
    return _weights(content, None)


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
    """Return the state dict under a key, or under a path of keys with dots between them."""
    found, path = content, [state_key] if _has(content, state_key) else state_key.split(".")
    for key in path:
        if not _has(found, key):
            raise InputError(f"nothing under the key {state_key!r}; found {_described(found)}")
        found = found[key]
    if not _holds_weights(found):
        raise InputError(f"no state dict under the key {state_key!r}; found {_described(found)}")
    return found


def _has(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and key in content


def _holding_weights(content: Any, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if _has(content, key) and _holds_weights(content[key])]


def _holds_weights(value: Any) -> bool:
    if isinstance(value, nn.Module):
        return True
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    tensors = [tensor for name, tensor in value.items() if not name.endswith("_extra_state")]
    return bool(tensors) and all(isinstance(tensor, torch.Tensor) for tensor in tensors)


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return ", ".join(map(str, list(content)[:5])) + (", ..." if len(content) > 5 else "") or "nothing"


def _way_out(content: Any, ema: bool) -> str:
    if ema:
        return "leave --ema out, or name them with --state-key"
    nested = [str(key) for key in content if _holds_weights(content[key])] if isinstance(content, Mapping) else []
    return f"give --state-key {' or '.join(nested[:5])}" if nested else REMEDY


def _without_wrappers(state: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    state, prefixes = dict(state), []
    if COUNTER in state and all(name.startswith("module.") for name in state if name != COUNTER):
        del state[COUNTER]
    for prefix in WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
            prefixes.append(prefix)
    return state, prefixes


# ----------------------------------------------------------------------------------------------- into which network
@dataclass(frozen=True)
class Fit:
    """Fit of a state dict to a network: the tensors that fit, under the network's names, and the names of the others.

    ``prefixes`` were taken off. Of the network's tensors ``missing`` are not in the file, ``reshaped`` have another
    shape there; ``unexpected`` are those of the file that the network does not have.
    """

    state_dict: dict[str, Any]
    prefixes: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if every tensor of the network is in the file, and nothing else is."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was done without being asked for: prefixes taken off, tensors left out, values kept."""
        taken_off = [f"took the prefix {prefix!r} off the names" for prefix in self.prefixes]
        left = [f"left out: {self.mismatch(n=None)}"] if not self.complete else []
        untrained = len(self.missing) + len(self.reshaped)
        kept = [f"{untrained} tensors of the network keep their untrained values"] if untrained else []
        return (*taken_off, *left, *kept)

    def mismatch(self, n: int | None = 3) -> str:
        """Describe what does not match, with up to ``n`` names of each sort."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return "; ".join(f"{len(names)} {kind} ({_first(names, n)})" for kind, names in kinds.items() if names)


def fit_state(saved: Mapping[str, Any], own: Mapping[str, Any]) -> Fit:
    """Match a state dict with a network's own, below the prefix under which most of its names are found.

    >>> saved = {"net.weight": torch.zeros(2, 2), "net.bias": torch.zeros(2)}
    >>> fit = fit_state(saved, nn.Linear(2, 2).state_dict())
    >>> fit.prefixes, fit.complete
    (('net.',), True)
    """
    plain = {name.replace(COMPILED, ""): name for name in saved}
    prefix = _best_prefix(plain, {name.replace(COMPILED, "") for name in own})
    wanted = {prefix + name.replace(COMPILED, ""): name for name in own}
    found = {wanted[name]: saved[plain[name]] for name in wanted if name in plain}
    reshaped = {name: _shape(tensor) for name, tensor in found.items() if _shape(tensor) != _shape(own[name])}
    compiled = any(name != plain[name] for name in plain) and not any(COMPILED in name for name in own)
    return Fit(
        state_dict={name: tensor for name, tensor in found.items() if name not in reshaped},
        prefixes=(*([prefix] if prefix else []), *([COMPILED] if compiled else [])),
        missing=tuple(own_name for name, own_name in wanted.items() if name not in plain),
        unexpected=tuple(saved_name for name, saved_name in plain.items() if name not in wanted),
        reshaped=tuple(f"{name} {shape} instead of {_shape(own[name])}" for name, shape in reshaped.items()),
    )


def _best_prefix(saved: Iterable[str], own: Collection[str]) -> str:
    """The containers above the network: as few as let the most names match."""
    matches = Counter(name[:i] for name in saved for i in _starts(name) if name[i:] in own)
    return max(matches, key=lambda prefix: (matches[prefix], -len(prefix)), default="")


def _starts(name: str) -> list[int]:
    """Positions where the parts of a dotted name begin."""
    return [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _first(names: Sequence[str], n: int | None) -> str:
    return ", ".join(names[:n]) + (", ..." if n is not None and len(names) > n else "")

"""The one door for model files: a checkpoint is a dict of tensors and plain values, written whole and read safely.

A checkpoint holds what is needed to build its network again (``arch``, ``arch_args``), the data it was trained on
(``data``, ``data_args``, ``data_fingerprint``, ``permutation``), ``epoch``, ``metrics`` and the ``state_dict``. Of
other programs' files the weights are found (:mod:`manigeo_extract.files.foreign`). Nothing in a file is executed, unless it
is trusted in so many words (:mod:`manigeo_extract.files.formats`).
"""

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manigeo import __version__
from manigeo.errors import InputError, UsageError
from manigeo.storage.files import whole_file
from manigeo_extract.files.fitting import Fit, fit_state, renamed
from manigeo_extract.files.foreign import find_weights, found_epoch
from manigeo_extract.files.formats import REMEDY, read_model_file
from manigeo_extract.recording.layers import unwrap

FORMAT = "manigeo-checkpoint"
FORMAT_VERSION = 1
_LATER = {"run_id"}  # files of the first versions have none
NOT_STORED = ("sha256", "path", "state_key", "module", "notes")


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file; of a foreign file only the weights, ``path``, ``sha256`` and, where the file or its name
    tells, the ``epoch`` are known.

    ``permutation`` has the keys fraction, convention and seed; ``metrics`` is ``{kind: {"accuracy", "loss"}}``;
    ``run_id`` is the identity of the run that wrote it (:mod:`manigeo.runs`). ``state_key`` is where in the file the
    weights stood (None: they are all of it), ``module`` the network where a trusted file holds one, and ``notes`` what
    was done to find them.
    """

    state_dict: dict[str, Any]
    sha256: str
    path: str
    epoch: int | None = None
    arch: str | None = None
    arch_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: str | None = None
    data_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    data_fingerprint: str | None = None
    permutation: dict[str, Any] | None = None
    metrics: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    run_id: str | None = None
    manigeo_version: str | None = None
    state_key: str | None = None
    module: torch.nn.Module | None = None
    notes: tuple[str, ...] = ()


def save_checkpoint(path: str | os.PathLike[str], model: torch.nn.Module, **settings: Any) -> None:
    """Write a checkpoint of ``model``, atomically: the file appears when it is whole.

    ``settings`` are those of :func:`checkpoint_bytes`.
    """
    write_whole(path, checkpoint_bytes(model, **settings))


def checkpoint_bytes(
    model: torch.nn.Module,
    *,
    epoch: int | None = None,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    data: str | None = None,
    data_args: Mapping[str, Any] | None = None,
    data_fingerprint: str | None = None,
    permutation: Any = None,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int | None = None,
    run_id: str | None = None,
) -> bytes:
    """The content of a checkpoint file.

    DataParallel and ``torch.compile`` wrappers are taken off. ``permutation`` is a dataclass or a mapping with
    fraction, convention and seed. NumPy scalars, tuples and paths become plain values (:func:`plain`).
    """
    return to_bytes(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "state_dict": state_copy(model),
            "epoch": epoch if epoch is None else int(epoch),
            "arch": arch,
            "arch_args": plain(arch_args or {}),
            "data": data,
            "data_args": plain(data_args or {}),
            "data_fingerprint": data_fingerprint,
            "permutation": plain(permutation),
            "metrics": plain(metrics or {}),
            "seed": plain(seed),
            "run_id": run_id,
            "manigeo_version": __version__,
        }
    )


def load_checkpoint(
    path: str | os.PathLike[str], *, state_key: str | None = None, ema: bool = False, trust: bool = False
) -> Checkpoint:
    """Read a checkpoint written here, or the weights in another program's file.

    A foreign file is a dict of tensors (``torch.save``, safetensors), by itself or under ``state_key``, else under
    ``state_dict``, ``model_state_dict``, ``model``, ``net`` or ``module``, or under the keys of averaged weights with
    ``ema``. Prefixes of DataParallel and ``torch.compile`` are removed from its names. Pickled networks and ``.pt2``
    are read with ``trust`` alone, since reading them executes what is in them.

    Raises :class:`~manigeo.errors.InputError` when the file is missing, damaged, or holds anything else, and
    :class:`~manigeo.errors.UsageError` for a ``state_key`` together with ``ema``.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
    >>> torch.save({"model": torch.nn.Linear(3, 2).state_dict()}, path)
    >>> checkpoint = load_checkpoint(path)
    >>> checkpoint.state_key, list(checkpoint.state_dict), checkpoint.epoch
    ('model', ['weight', 'bias'], None)
    """
    content, sha256 = read_model_file(path, trust=trust)
    own = isinstance(content, Mapping) and str(content.get("format", "")).startswith("manigeo-")
    fields = _own_fields(content, path) if own else {"epoch": found_epoch(content, path)}
    if not own or state_key is not None or ema:
        fields |= _found(content, path, state_key=state_key, ema=ema)
    return Checkpoint(**fields, sha256=sha256, path=str(path))


def restore_model(checkpoint: Checkpoint, model: torch.nn.Module, *, strict: bool = True) -> Fit:
    """Load the checkpoint into ``model``, and return how it fitted.

    Where that makes the names agree, a prefix is taken off (Lightning's ``model.``). Unless ``strict`` the tensors that
    have no counterpart, or one of another shape, are left out.

    Raises :class:`~manigeo.errors.InputError`, and leaves the model as it was, unless names and shapes all agree, or,
    if not ``strict``, when none does.
    """
    fit = checked_fit(checkpoint, model, strict=strict)
    fit.load_into(unwrap(model))
    return fit


def checked_fit(checkpoint: Checkpoint, model: torch.nn.Module, *, strict: bool = True) -> Fit:
    """The fit of the checkpoint's weights to ``model``, which may be without memory (on the device ``meta``), and stays as
    it is.

    Raises what :func:`restore_model` raises.
    """
    try:
        fit = fit_state(checkpoint.state_dict, unwrap(model))
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from error
    if not fit.complete and (strict or not fit.is_of_this_network):
        raise InputError(
            f"{checkpoint.path}: does not fit the model: {fit.mismatch()}; {_advice(fit, checkpoint.state_key)}"
        )
    return fit


_OTHER_FORMS = {  # parts of names that say that a file holds something else than the weights of a network
    ".lora_": "these are low-rank changes of a network: save the state dict of what merge_and_unload() returns",
    "_flat_param": "these are flat parts of FSDP: save the state dict under StateDictType.FULL_STATE_DICT",
    "_packed_params": "these are the weights of a quantised network: give a factory of that one",
}


def _advice(fit: Fit, state_key: str | None) -> str:
    if fit.retyped and not (fit.missing or fit.reshaped):
        return "save the weights as floating point numbers (of packed integers times their scales; of complex ones two)"
    if fit.missing and (form := next((s for part, s in _OTHER_FORMS.items() if part in "".join(fit.unexpected)), None)):
        return form
    if fit.not_loaded:
        return "is this the architecture it was saved from?" + "; --no-strict takes what fits" * fit.is_of_this_network
    if keys := [".".join(filter(None, (state_key, prefix.rstrip(".")))) for prefix in fit.copies if prefix]:
        return f"it holds several copies of the network: --state-key {' or '.join(keys)} takes one"
    below = f" below {fit.prefixes[0]!r}" if fit.prefixes else ""
    return f"all that the model has is there{below}: --no-strict leaves the rest out"


def read_safely(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Read what ``torch.save`` wrote into a file, on the CPU, with the file's sha256; nothing in it is executed.

    Raises :class:`~manigeo.errors.InputError` when the file is missing, damaged, or would have to be executed.
    """
    return read_model_file(path, trust=False)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_bytes(content)


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the bytes that ``torch.save`` would write to a file."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def state_copy(model: torch.nn.Module) -> dict[str, Any]:
    """A state dict on the CPU that further training does not change, with the versions of the modules (``_metadata``)."""
    state = renamed(unwrap(model).state_dict(), lambda name: name)
    for name, value in state.items():
        state[name] = _copied(value)
    return state


def plain(value: Any) -> Any:
    """The same value in None, bool, int, float, str, list and dict alone, which any safe reader accepts.

    Raises :class:`~manigeo.errors.UsageError` for anything that has no such form.

    >>> plain({"lr": np.float64(0.1), "shape": (1, 20, 20), "file": Path("a.npz")})
    {'lr': 0.1, 'shape': [1, 20, 20], 'file': 'a.npz'}
    """
    if type(value) in (bool, int, float, str, type(None)):
        return value
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        told = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)
                if field.metadata.get("stored") != "if given" or getattr(value, field.name) is not None}  # fmt: skip
        return plain(told)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    raise UsageError(f"cannot store a {type(value).__name__} in a checkpoint; use numbers, strings, lists or dicts")


def _copied(value: Any) -> Any:
    """A tensor, or what quantised modules have in place of one: a tuple of tensors, a type of numbers."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    return value if isinstance(value, torch.dtype) else plain(value)


def _own_fields(content: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    found, version = content["format"], content.get("format_version")
    if found != FORMAT:
        raise InputError(f"{path}: is a {found} file, not a checkpoint; take one of the run's checkpoints folder")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {version}, expected {FORMAT_VERSION}; use the manigeo that wrote it"
        )
    names = {field.name for field in dataclasses.fields(Checkpoint)} - set(NOT_STORED)
    missing = sorted(names - set(content) - _LATER)
    if missing:
        raise InputError(f"{path}: is incomplete, without {', '.join(missing)}; write it again")
    return {name: content[name] for name in names if name in content} | {"state_key": "state_dict"}


def _found(content: Any, path: str | os.PathLike[str], *, state_key: str | None, ema: bool) -> dict[str, Any]:
    if not isinstance(content, Mapping | torch.nn.Module):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a state dict; {REMEDY}")
    try:
        weights = find_weights(content, state_key=state_key, ema=ema)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return {
        "state_dict": weights.state_dict, "module": weights.module, "state_key": weights.key, "notes": weights.notes
    }  # fmt: skip

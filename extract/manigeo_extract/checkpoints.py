"""The one door for model files: a checkpoint is a dict of tensors and plain values, written whole and read safely.

A checkpoint holds what is needed to build its network again (``arch``, ``arch_args``), the data it was trained on
(``data``, ``data_args``, ``data_fingerprint``, ``permutation``), ``epoch``, ``metrics`` and the ``state_dict``. Files
are only ever read with ``weights_only=True``: nothing in them is executed.
"""

import dataclasses
import hashlib
import io
import os
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from manigeo import __version__
from manigeo.errors import InputError, UsageError
from manigeo.files import whole_file
from manigeo_extract.layers import unwrap

FORMAT = "manigeo-checkpoint"
FORMAT_VERSION = 1
STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")  # where other programs keep the state dict
WRAPPERS = ("module.", "_orig_mod.", "module.")  # DataParallel and torch.compile, in either order
OLD_FORMAT = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # before torch wrote zip archives
REMEDY = "save model.state_dict() with torch.save, or train with manigeo"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds; of a foreign file only ``state_dict``, ``path`` and ``sha256`` are known.

    ``permutation`` has the keys fraction, convention and seed; ``metrics`` is ``{kind: {"accuracy", "loss"}}``.
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
    manigeo_version: str | None = None


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
            "manigeo_version": __version__,
        }
    )


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint written here, or another program's state dict, without executing anything in the file.

    A foreign file is a dict of tensors, by itself or under ``state_dict``, ``model_state_dict``, ``model`` or ``net``;
    the prefixes of DataParallel and ``torch.compile`` are removed from its names.

    Raises :class:`~manigeo.errors.InputError` when the file is missing, damaged, or holds anything else.
    """
    content, sha256 = read_safely(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a state dict; {REMEDY}")
    if str(content.get("format", "")).startswith("manigeo-"):
        return Checkpoint(**_own_fields(content, path), sha256=sha256, path=str(path))
    return Checkpoint(state_dict=_foreign_state(content, path), sha256=sha256, path=str(path))


def restore_model(checkpoint: Checkpoint, model: torch.nn.Module) -> torch.nn.Module:
    """Load the checkpoint into ``model``, every tensor of it; returns the model.

    Raises :class:`~manigeo.errors.InputError`, and leaves the model as it was, unless names and shapes all agree.
    """
    bare = unwrap(model)
    mismatch = _mismatch(checkpoint.state_dict, bare.state_dict())
    if mismatch:
        raise InputError(
            f"{checkpoint.path}: does not fit the model: {mismatch}; is this the architecture it was saved from?"
        )
    bare.load_state_dict(checkpoint.state_dict, strict=True)
    return model


def read_safely(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """What ``torch.save`` wrote into a file, on the CPU, and the file's sha256; nothing in it is executed.

    Raises :class:`~manigeo.errors.InputError` when the file is missing, damaged, or would have to be executed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a checkpoint file' if path.is_dir() else 'no such file'}")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails anywhere: OSError, KeyError, UnicodeDecodeError, ...
            raise InputError(f"{path}: {_what_was_found(file, error)}") from error
        if _is_damaged(file):
            raise InputError(f"{path}: is damaged (a checksum does not match); copy or write it again")
    return content, sha256


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that is there whole or not at all: to ``<path>.partial`` on disk first, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # else, after a power cut, the new name may stand for an empty file


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """What ``torch.save`` would write to a file."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def state_copy(model: torch.nn.Module) -> dict[str, Any]:
    """A state dict on the CPU that further training does not change."""
    return {name: _copied(value) for name, value in unwrap(model).state_dict().items()}


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
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    raise UsageError(f"cannot store a {type(value).__name__} in a checkpoint; use numbers, strings, lists or dicts")


def _copied(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else plain(value)


def _is_damaged(file: BinaryIO) -> bool:
    """torch reads over a flipped bit in a tensor; the archive's own checksums do not."""
    return zipfile.is_zipfile(file) and zipfile.ZipFile(file).testzip() is not None


def _what_was_found(file: BinaryIO, error: Exception) -> str:
    file.seek(0)
    head = file.read(len(OLD_FORMAT))
    if not head:
        return "is empty; copy or write it again"
    archive = head.startswith(b"PK\x03\x04")
    if archive and not zipfile.is_zipfile(file):
        return "is truncated (an archive without its end); copy or write it again"
    members = {name.rpartition("/")[2] for name in zipfile.ZipFile(file).namelist()} if archive else set()
    if "constants.pkl" in members:
        return f"is a TorchScript archive, whose layers cannot be looked at; {REMEDY}"
    blocked = _blocked_globals(file, error)
    if blocked:
        return f"holds pickled objects ({blocked}), which would be executed; {REMEDY}"
    if "data.pkl" in members or head == OLD_FORMAT:
        return "is truncated or damaged; copy or write it again"
    return f"is not a file written by torch.save; {REMEDY}"


def _blocked_globals(file: BinaryIO, error: Exception) -> str:
    """The classes a pickle asks for, of which torch lists all in its present format and the first in the old one."""
    file.seek(0)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:
        names = re.findall(r"Unsupported global: GLOBAL (\S+)", str(error))
    return ", ".join(sorted(names))


def _own_fields(content: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    found, version = content["format"], content.get("format_version")
    if found != FORMAT:
        raise InputError(f"{path}: is a {found} file, not a checkpoint; take one of the run's checkpoints folder")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {version}, expected {FORMAT_VERSION}; use the manigeo that wrote it"
        )
    names = {field.name for field in dataclasses.fields(Checkpoint)} - {"sha256", "path"}
    missing = sorted(names - set(content))
    if missing:
        raise InputError(f"{path}: is incomplete, without {', '.join(missing)}; write it again")
    return {name: content[name] for name in names}


def _foreign_state(content: Mapping[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    candidates = [content[key] for key in STATE_KEYS if key in content] + [content]
    for candidate in candidates:
        if _is_state_dict(candidate):
            return _without_wrappers(candidate)
    keys = ", ".join(map(str, list(content)[:5])) or "nothing"
    raise InputError(f"{path}: no state dict, by itself or under {', '.join(STATE_KEYS)}; found {keys}; {REMEDY}")


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(t, torch.Tensor) for t in value.values())


def _without_wrappers(state: Mapping[str, Any]) -> dict[str, Any]:
    state = dict(state)
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _mismatch(saved: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    shapes = [
        f"{name} {tuple(saved[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in saved and isinstance(own[name], torch.Tensor) and saved[name].shape != own[name].shape
    ]
    missing = [name for name in own if name not in saved]
    unexpected = [name for name in saved if name not in own]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def _first(names: Sequence[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (", ..." if len(names) > n else "")

"""Formats in which other programs keep networks, told by content and read safely, or refused with the way out.

======================================  ==========================================================================
``torch.save``: tensors, plain values   read with ``weights_only=True``; :data:`PLAIN_GLOBALS` are let through
``torch.save``: pickled objects         executed while it is read: only with ``trust``
safetensors                             read; nothing in it can be executed
``torch.export`` (``.pt2``)             reading falls back to full unpickling: only with ``trust``
folders of shards                       read, file by file (:mod:`manigeo_extract.files.folders`)
TorchScript                             refused: its layers take no hooks
======================================  ==========================================================================
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.torch
import torch

from manigeo.errors import InputError, one_line
from manigeo.storage.recognition import ACTIVATIONS, EXAMPLES, RECORD, RESULTS, recognized
from manigeo_extract.files.exported import exported_network
from manigeo_extract.files.folders import is_in_parts, other_folder, read_parts
from manigeo_extract.resolve import OWN_MODULES

OLD_FORMAT = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)  # before torch wrote zip archives
ZIP_MAGIC = b"PK\x03\x04"
SAVE_WEIGHTS = "save model.state_dict() with torch.save"
REMEDY = f"{SAVE_WEIGHTS}, or train with manigeo"
TRUST = "--trust, if you trust who wrote it"


def _numpy_globals() -> list[Any]:
    """List the globals that pickles of NumPy's numbers and numeric arrays name, as NumPy 1 and as NumPy 2 name them."""
    functions: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]
    named = [(f, f"numpy.{core}.multiarray.{f.__name__}") for f in functions for core in ("core", "_core")]
    types = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?U"}
    return [*named, np.ndarray, np.dtype, *types]


PLAIN_GLOBALS = (argparse.Namespace, *_numpy_globals())  # they hold values, and calling them runs nothing


def read_model_file(path: str | os.PathLike[str], *, trust: bool = False) -> tuple[Any, str]:
    """Read the content of a model file, on the CPU, with the file's sha256.

    The content is that of ``torch.save``, or a dict of tensors (safetensors), or, with ``trust``, perhaps a network. The
    shards in a folder (:mod:`manigeo_extract.files.folders`) are one file.
    Without ``trust`` nothing in the file is executed; with it only a file is that cannot be read otherwise.

    Raises :class:`~manigeo.errors.InputError` when the file is missing or damaged, or would have to be executed.
    """
    path = Path(path)
    if is_in_parts(path):
        return read_parts(path, lambda part: read_model_file(part, trust=trust), trust=trust)
    if not path.is_file():
        raise InputError(f"{path}: {other_folder(path) if path.is_dir() else 'no such file' + _near_files(path)}")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            return _reader(file)(file, trust), sha256
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _near_files(path: Path) -> str:
    """Names like that of a file that is not there."""
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=2)
    return f"; did you mean {' or '.join(str(path.with_name(name)) for name in near)}?" if near else "; check the path"


def _reader(file: BinaryIO) -> Callable[[BinaryIO, bool], Any]:
    head = _head(file)
    if head.startswith(ZIP_MAGIC):
        return _archive_reader(file)
    if file.name.endswith(".safetensors") or _has_safetensors_header(head, os.fstat(file.fileno()).st_size):
        return _read_safetensors
    return _read_pickle


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    return head


def _has_safetensors_header(head: bytes, size: int) -> bool:
    """Eight bytes with the length of the JSON that follows."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _archive_reader(file: BinaryIO) -> Callable[[BinaryIO, bool], Any]:
    if not _is_archive(file):
        raise InputError("is truncated (an archive without its end); copy or write it again")
    members = {member.filename.rpartition("/")[2] for member in _members(file)}
    if members & {"archive_format", "serialized_exported_program.json"}:  # since and before torch 2.8
        return _read_exported
    return _refuse_torchscript if "constants.pkl" in members else _read_pickle


def _is_archive(file: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # one that says it goes on in another file
        return False


def _members(file: BinaryIO) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except Exception as error:  # a damaged archive may raise anything
        raise InputError(f"is damaged ({one_line(error)}); copy or write it again") from error


def _check_unpacked(file: BinaryIO) -> None:
    """All members together are no larger than the file: what is packed may become anything."""
    members = _members(file) if _is_archive(file) else []
    if sum(member.file_size for member in members) > os.fstat(file.fileno()).st_size:
        raise InputError(f"is damaged, or packed, which torch.save does not do; {SAVE_WEIGHTS}")


# --------------------------------------------------------------------------------------------- torch.save, plain or not
def _read_pickle(file: BinaryIO, trust: bool) -> Any:
    _check_unpacked(file)
    with _quietly():
        try:
            content = _load(file, weights_only=True)
        except Exception as error:  # a damaged file fails anywhere: OSError, KeyError, UnicodeDecodeError, ...
            obstacle = _obstacle(file, error)
            if not obstacle:
                raise InputError(_what_was_found(file)) from error
            if not trust:
                raise InputError(f"{obstacle}; {SAVE_WEIGHTS}, or give {TRUST}") from error
            content = _unpickled(file)
    if _is_damaged(file):
        raise InputError("is damaged (a checksum does not match); copy or write it again")
    return content


@contextmanager
def _quietly() -> Iterator[None]:
    """The plain globals are let through, and torch's remarks about its own formats are not passed on."""
    with torch.serialization.safe_globals(list(PLAIN_GLOBALS)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(file: BinaryIO, *, weights_only: bool) -> Any:
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=weights_only)


def _unpickled(file: BinaryIO) -> Any:
    try:
        with OWN_MODULES.serving("torch.serialization"):  # whose unpickler asks for the modules of classes
            return _load(file, weights_only=False)
    except Exception as error:  # it may execute anything
        raise InputError(
            f"cannot be unpickled ({type(error).__name__}: {error}); run where its classes can be imported, or "
            f"{SAVE_WEIGHTS}"
        ) from error


def _obstacle(file: BinaryIO, error: Exception) -> str:
    """Describe what only full unpickling could read; empty where that would not help either."""
    if not _is_pickled(file):
        return ""
    blocked = _blocked_globals(file, error)
    if blocked:
        return f"holds pickled objects ({blocked}), which would be executed"
    unknown = re.search(r"Unsupported operand \d+", str(error))
    return f"has a pickle protocol that cannot be read safely ({unknown[0]})" if unknown else ""


def _blocked_globals(file: BinaryIO, error: Exception) -> str:
    """The classes a pickle asks for, of which torch lists all in its present format and the first in the old one."""
    file.seek(0)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:
        names = re.findall(r"Unsupported global: GLOBAL (\S+)", str(error))
    return ", ".join(sorted(names))


def _is_damaged(file: BinaryIO) -> bool:
    """torch reads over a flipped bit in a tensor; the archive's own checksums do not."""
    if not _is_archive(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is not None
    except Exception:  # it may raise anything
        return True


def _is_pickled(file: BinaryIO) -> bool:
    """Return whether the file begins like one that ``torch.save`` writes."""
    head = _head(file)
    members = _members(file) if head.startswith(ZIP_MAGIC) else []
    return head.startswith(OLD_FORMAT) or any(member.filename.endswith("data.pkl") for member in members)


def _what_was_found(file: BinaryIO) -> str:
    if not _head(file):
        return "is empty; copy or write it again"
    if _is_pickled(file):
        return "is truncated or damaged; copy or write it again"
    if (found := recognized(file.name)) in (ACTIVATIONS, RESULTS, EXAMPLES, RECORD):
        return f"is {found}, expected a checkpoint; give the file that it was made of"
    return f"is not a file written by torch.save, safetensors or torch.export; {REMEDY}"


# -------------------------------------------------------------------------------------------------------- other formats
def _read_safetensors(file: BinaryIO, trust: bool) -> Any:
    try:
        tensors = safetensors.torch.load_file(file.name)
        with safetensors.safe_open(file.name, framework="pt") as opened:
            remarks = opened.metadata() or {}
    except safetensors.SafetensorError as error:
        raise InputError(
            f"is truncated or damaged, or no safetensors file ({error}); copy or write it again"
        ) from error
    # of names that are one tensor save_model() keeps one, and says so: {dropped: kept}
    return tensors | {name: tensors[kept] for name, kept in remarks.items() if kept in tensors and name not in tensors}


def _read_exported(file: BinaryIO, trust: bool) -> Any:
    if not trust:
        raise InputError(
            f"is a program of torch.export, which can execute what is in it while it is read; give {TRUST}, or "
            f"{SAVE_WEIGHTS}"
        )
    with _quietly():
        return exported_network(file)


def _refuse_torchscript(file: BinaryIO, trust: bool) -> Any:
    raise InputError(
        "is a TorchScript archive, whose layers cannot be looked at; save torch.jit.load(...).state_dict() with "
        "torch.save and give --arch, or write the network with torch.export.save"
    )

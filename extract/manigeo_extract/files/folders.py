"""Folders in which a state dict lies in several files: shards of Hugging Face, and checkpoints of torch.distributed.

========================================  ==========================================================================
``*.index.json``                          shards, safetensors or ``torch.save``, each read as a file of its own is
``.metadata`` and ``*.distcp``            ``torch.distributed.checkpoint``: its table of contents is a pickle, which
                                          is executed while it is read: only with ``trust``
========================================  ==========================================================================
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manigeo.errors import InputError, one_line
from manigeo.runs import RunFolder
from manigeo.storage.ceilings import MOST_NOTES_BYTES, read_text

INDEX = ".index.json"
_PREFERRED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
Reader = Callable[[Path], tuple[Any, str]]  # content and sha256 of a single file


def is_in_parts(path: Path) -> bool:
    """Return whether the path is a folder, or the index of one, whose files together are one state dict."""
    if path.is_dir():
        return bool(_indexes(path)) or (path / ".metadata").is_file()
    return path.name.endswith(INDEX) and path.is_file()


def read_parts(path: Path, read: Reader, *, trust: bool = False) -> tuple[dict[str, Any], str]:
    """The state dict that the files of a folder make together, and a digest of all of them.

    Raises :class:`~manigeo.errors.InputError`, which says what to do, for an index that does not fit its files, for
    several indexes, and without ``trust`` for a checkpoint of ``torch.distributed``.
    """
    if not path.is_dir():
        return _read_shards(path, read)
    indexes = _indexes(path)
    chosen = next((path / name for name in _PREFERRED if path / name in indexes), None)
    if chosen is None and len(indexes) > 1:
        raise InputError(f"{path}: holds several indexes of shards; give one: {', '.join(i.name for i in indexes)}")
    if chosen or indexes:
        return _read_shards(chosen or indexes[0], read)
    return _read_distributed(path, read, trust)


def other_folder(path: Path) -> str:
    """Description of a folder that is no state dict."""
    inside = [str(file.relative_to(path)) for file in RunFolder(path).checkpoint_files().values()]
    return "is a folder, not a model file" + (f"; give one of those in it: {', '.join(inside[:5])}" if inside else "")


def _indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*" + INDEX))


def _read_shards(index: Path, read: Reader) -> tuple[dict[str, Any], str]:
    """All tensors that the index names, in its order."""
    places = _weight_map(index)
    shards, digest = {}, hashlib.sha256(index.read_bytes())
    for name in sorted(set(places.values())):
        file = index.parent / name
        if Path(name).name != name or not file.is_file():
            raise InputError(
                f"{index}: names the shard {name!r}, which is not beside it; copy all {len(set(places.values()))} shards"
            )
        shards[name], sha256 = read(file)
        digest.update(sha256.encode())
    absent = [tensor for tensor, shard in places.items() if tensor not in shards[shard]]
    if absent:
        raise InputError(
            f"{index}: says that {places[absent[0]]} holds {absent[0]!r}, which it does not ({len(absent)} such tensors); "
            "copy index and shards anew, of one version"
        )
    return {tensor: shards[shard][tensor] for tensor, shard in places.items()}, digest.hexdigest()


def _weight_map(index: Path) -> dict[str, str]:
    try:
        places = json.loads(read_text(index, MOST_NOTES_BYTES))["weight_map"]
        if not places or not all(isinstance(shard, str) for shard in places.values()):
            raise ValueError("weight_map names no shards")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{index}: is no index of shards (JSON with a weight_map of tensors to files: {one_line(error)}); copy it "
            "again"
        ) from error
    return dict(places)


def _read_distributed(folder: Path, read: Reader, trust: bool) -> tuple[dict[str, Any], str]:
    """A checkpoint of ``torch.distributed``, by torch's own conversion to one file, in one process."""
    if not trust:
        raise InputError(
            f"{folder}: is a checkpoint of torch.distributed, whose table of contents is a pickle, which can execute what "
            "is in it; give --trust, if you trust who wrote it, or convert it: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pt"
        )
    from torch.distributed.checkpoint import CheckpointException  # slow to import, and not in every torch
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no process group is there
        whole = Path(scratch) / "weights.pt"
        try:
            dcp_to_torch_save(str(folder), whole)
        except (Exception, CheckpointException) as error:  # a damaged folder fails anywhere
            raise InputError(
                f"{folder}: cannot be read by torch.distributed.checkpoint ({type(error).__name__}: {one_line(error)}); "
                "copy all its files again"
            ) from error
        content, _ = read(whole)
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return content, digest.hexdigest()

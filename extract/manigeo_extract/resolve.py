"""The user's own code by name: ``package.module:attribute`` or ``path/to/file.py:attribute``."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from manigeo.errors import UsageError


def resolve_object(spec: str) -> Any:
    """The object that ``package.module:attribute`` or ``path/to/file.py:attribute`` names.

    Raises :class:`~manigeo.errors.UsageError` when the module or the file is not there or cannot be imported, and when
    it has no such attribute.

    >>> resolve_object("math:sqrt")(9.0)
    3.0
    """
    place, colon, attribute = spec.rpartition(":")
    if not (colon and place and attribute):
        raise UsageError(f"expected 'package.module:name' or 'path/to/file.py:name', got {spec!r}")
    module = _module_of_file(place) if place.endswith(".py") else _module_of_package(place)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{place!r} has no {attribute!r}{near_names(attribute, _public_names(module))}")
        found = getattr(found, part)
    return found


def near_names(name: str, known: Iterable[str]) -> str:
    """The end of an error message: which of the ``known`` names was perhaps meant, else what there is.

    >>> near_names("resnet19", ["mlp", "resnet18"])
    "; did you mean 'resnet18'?"
    >>> near_names("transformer", ["cnn", "mlp"])
    '; there are: cnn, mlp'
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; there are: {', '.join(known)}" if known else ""


def _public_names(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]


def _module_of_package(name: str) -> ModuleType:
    try:
        return pkgutil.resolve_name(f"{name}:")
    except Exception as error:  # the user's module runs while it is imported: anything may come out of it
        raise UsageError(f"cannot import {name!r}: {type(error).__name__}: {error}") from error


def _module_of_file(name: str) -> ModuleType:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"no file {name!r}; expected 'path/to/file.py:name'")
    own_name = f"_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:12]}"  # a user's random.py must not hide ours
    spec = importlib.util.spec_from_file_location(own_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[own_name] = module  # dataclasses look their own module up while the file runs
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[own_name]
        raise UsageError(f"cannot import {name!r}: {type(error).__name__}: {error}") from error
    return module

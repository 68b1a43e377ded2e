"""The user's own code by name: ``package.module:attribute`` or ``path/to/file.py:attribute``.

The working directory is not on ``sys.path``: every library that tries an optional import (pandas: ``bottleneck``) would take
a file of that name in it. A finder at the end of ``sys.meta_path`` looks at who asks instead. It serves the module that the
user has named, from the working directory, and what that module and those beside it import themselves, while they are
imported or later in their functions, from the same folder (of a file: its own and the working directory). Whoever else asks,
such as an installed library that they import or call, finds nothing there; and modules that are installed or come with
Python are found before. A process that the user's code starts by itself ("spawn") finds them by ``PYTHONPATH``.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
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
    if isinstance(spec, Named):
        return spec.given
    place, colon, attribute = spec.rpartition(":")
    if why := why_unnamed(spec):
        raise UsageError(f"{spec!r} cannot be imported: {why}")
    if not (colon and place and attribute):
        raise UsageError(f"expected 'package.module:name' or 'path/to/file.py:name', got {spec!r}")
    module = _module_of_file(place) if place.endswith(".py") else _module_of_package(place)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{place!r} has no {attribute!r}{near_names(attribute, _public_names(module))}")
        found = getattr(found, part)
    return found


def foreign_call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call the user's own code; what it prints goes to stderr, so that stdout has the results of a command alone.

    >>> foreign_call(print, "weights loaded")
    """
    with contextlib.redirect_stdout(sys.stderr):
        return function(*args, **options)


class Named(str):
    """Name of something at hand, which it resolves to: ``module:qualname`` of a class or function, for others what is said
    of them.

    >>> import json
    >>> Named(json.dumps), resolve_object(Named(json.dumps))([1])
    ('json:dumps', '[1]')
    """

    given: Any

    def __new__(cls, given: Any, name: str | None = None) -> Named:
        """Name what is given, by its module if no ``name`` is said."""
        self = super().__new__(cls, name_of(given) if name is None else name)
        self.given = given
        return self


def name_of(given: Any) -> str:
    """The name under which a class or function, or the class of another object, was defined; a text is one already.

    >>> name_of("mlp"), name_of(difflib.get_close_matches), name_of(Path("."))[-4:]
    ('mlp', 'difflib:get_close_matches', 'Path')
    """
    if isinstance(given, str):
        return str(given)
    one = given if hasattr(given, "__qualname__") else type(given)
    name = f"{one.__module__}:{one.__qualname__}"
    return name if why_unnamed(name) or _is_named(one) else f"{one.__module__}:<{one.__qualname__}>"


def _is_named(one: Any) -> bool:
    """Return whether its module has it under its name."""
    found: Any = sys.modules.get(one.__module__)
    for part in one.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is one


def why_unnamed(spec: str) -> str:
    """Reason why a name leads to nothing, and the remedy; empty where it may be a name.

    >>> why_unnamed("mine:Net"), why_unnamed("__main__:Net")[:44]
    ('', 'it was defined in a notebook or script: put ')
    """
    place, _, attribute = spec.rpartition(":")
    if place == "__main__":
        where = "in a notebook or script"
    elif "<" in attribute:
        where = "within a function, or without a name"
    else:
        return ""
    return f"it was defined {where}: put it into a file of its own, and name it as FILE.py:NAME"


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


# ----------------------------------------------------------------------------------------------- who may import from here
_MACHINERY = ("importlib", "_frozen_importlib", "_frozen_importlib_external", "pkgutil", "runpy")


class OwnModules(MetaPathFinder):
    """Finder of modules for those of the user, and for nobody else.

    ``folders`` holds where to look for each module that may ask, by its name or that of its package; a module that was found
    for one of them may ask for others in the same folders.
    """

    def __init__(self) -> None:
        self.folders: dict[str, tuple[str, ...]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of a top-level module; those of a package are found in the package."""
        if path is not None:
            return None
        asker = _asker()
        folders = self.folders.get(asker) or self.folders.get(asker.partition(".")[0])
        spec = PathFinder.find_spec(fullname, list(folders)) if folders else None
        if spec is not None and folders is not None:
            self.folders[fullname] = folders
        return spec

    @contextlib.contextmanager
    def serving(self, *askers: str) -> Iterator[None]:
        """Serve these modules from the working directory, too."""
        before = dict(self.folders)
        self.folders |= dict.fromkeys(askers, (os.getcwd(),))
        try:
            yield
        finally:
            for name in askers:
                self.folders.pop(name, None)
            self.folders |= {name: before[name] for name in askers if name in before}


def _asker() -> str:
    """Name of the module whose code has the import in it: of the first frame beyond the machinery of imports."""
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_stack(None)]
    within = [name.partition(".")[0] in _MACHINERY for name in names]
    beyond = within.index(False, within.index(True)) if True in within else len(names)
    return names[beyond] if beyond < len(names) else ""


OWN_MODULES = OwnModules()
sys.meta_path.append(OWN_MODULES)


def _module_of_package(name: str) -> ModuleType:
    importlib.invalidate_caches()  # a file may just have been written
    try:
        with OWN_MODULES.serving(__name__):
            return foreign_call(importlib.import_module, name)
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
    OWN_MODULES.folders[own_name] = (str(path.parent), os.getcwd())
    try:
        foreign_call(spec.loader.exec_module, module)
    except Exception as error:
        del sys.modules[own_name]
        raise UsageError(f"cannot import {name!r}: {type(error).__name__}: {error}") from error
    return module

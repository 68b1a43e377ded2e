"""Manigeo: where in a deep network does memorization happen?

Arrays in, numbers out; importing this package imports no torch (the live network is :mod:`manigeo_extract`'s business).
Names are imported when they are first used, as listed in ``__init__.pyi``, so that the command line starts at once.
"""

from manigeo.execution.start import leave_out_working_directory, started_as

if started_as("manigeo"):  # before anything is imported that a file of the folder could stand for
    leave_out_working_directory()

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# names of modules before they were put into folders, for training loops and scripts that import them
_EARLIER = {
    "manigeo.localize": "manigeo.localization.profile",
    "manigeo.verdicts": "manigeo.localization.statement",
    "manigeo_extract.checkpoints": "manigeo_extract.files.checkpoints",
    "manigeo_extract.evaluation": "manigeo_extract.training.evaluation",
    "manigeo_extract.layers": "manigeo_extract.recording.layers",
    "manigeo_extract.recorder": "manigeo_extract.training.recorder",
    "manigeo_extract.trajectory": "manigeo_extract.weights.trajectory",
}


class _EarlierNames(MetaPathFinder, Loader):
    """The same module under two names; it keeps the spec of its own."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in _EARLIER else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_EARLIER[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_EarlierNames())

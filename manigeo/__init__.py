"""Manigeo: where in a deep network does memorization happen?

Arrays in, numbers out; importing this package imports no torch (the live network is :mod:`manigeo_extract`'s business).
Names are imported when they are first used, as listed in ``__init__.pyi``, so that the command line starts at once.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

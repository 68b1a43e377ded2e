"""Everything that needs the live network: data sets, networks, training, recording, interventions. Imports torch.

Names are imported when they are first used, as listed in ``__init__.pyi``.
"""

import lazy_loader

import manigeo  # noqa: F401  knows the earlier names of modules of both packages

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

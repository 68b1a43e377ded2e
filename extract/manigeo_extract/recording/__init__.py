"""Recording of activations: the layers of a network, hooks on them, readouts, and the writing of ``acts.h5``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "hooks": ["record_layers"],
        "layers": ["list_layers", "select_layers"],
    },
)

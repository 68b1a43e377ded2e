"""Interventions: layers rewound, re-initialised, drawn again or silenced, and what the network then does."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exchanges": ["FRESH", "ZERO", "Intervention", "Laboratory", "sweep_layers"],
    },
)

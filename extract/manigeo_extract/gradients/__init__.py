"""Gradients in two parts, of which one depends on the labels (Stephenson et al. 2021)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decomposition": ["PARTS", "cosines", "inner_products", "norms"],
    },
)

"""Data sets of any origin, and the permuted labels that make a network memorize."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datasets": ["CONVENTIONS", "DataSet", "Permutation", "describe", "load_data", "permute_labels"],
    },
)

"""Mean-field capacity of object manifolds: one file a mathematical idea."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["anchors", "centers", "geometry", "mean_field", "theory"]
)

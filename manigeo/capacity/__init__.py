"""Capacity of object manifolds, mean-field, joint and simulated: one file a mathematical idea."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "anchors",
        "cavity",
        "centers",
        "cone",
        "dichotomies",
        "geometry",
        "glue",
        "joint",
        "mean_field",
        "pivoting",
        "pooled",
        "sampling",
        "separation",
        "simulated",
        "span",
        "streams",
        "theory",
        "uncertainty",
        "unstructured",
    ],
)

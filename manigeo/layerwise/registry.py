"""All measures by name: where each is, imported when it is asked for."""

import importlib
from typing import TYPE_CHECKING, Any

from manigeo.errors import check_choice

if TYPE_CHECKING:
    from manigeo.layerwise.protocol import Measure

# those of manigeo capacity, of all manifolds together, and those of manigeo separability, of points with labels
CAPACITY = {
    "mean_field": "geometry.MeanField",
    "spectrum": "geometry.Spectrum",
    "simulated": "geometry.Simulated",
    "joint": "geometry.Joint",
    "sweep": "geometry.Sweep",
}
SEPARABILITY = {
    "probe": "separability.Probe",
    "neighbours": "separability.Neighbours",
    "clusters": "separability.Clusters",
    "means": "separability.Means",
    "fuzziness": "separability.Fuzziness",
    "latent": "separability.Latent",
    "margins": "separability.HardMargins",
    "units": "separability.Units",
}
MEASURES = CAPACITY | SEPARABILITY


def measure(name: str, **settings: Any) -> "Measure":
    """The measure of this name with these settings, for the others its defaults.

    Raises :class:`~manigeo.errors.UsageError` for a name that is none of :data:`MEASURES`.

    >>> measure("joint", n_draws=50).describe()
    'joint, 50 draws, random labels'
    """
    check_choice("measure", name, MEASURES)
    module, _, found = MEASURES[name].rpartition(".")
    made: Measure = getattr(importlib.import_module(f"manigeo.layerwise.{module}"), found)(**settings)
    return made

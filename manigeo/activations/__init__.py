"""``acts.h5``: the contract between a live network and the analysis (format version 1).

::

    /                 attrs: format, format_version, complete, n_done, created, manigeo_version, fingerprint,
                             provenance=<JSON>, sums, chunk_sums (manigeo.activations.sums); of a shard also
                             shard=<JSON>
    /examples/        index, split, true_label, train_label, permuted     one row per example, grouped by true class
    /classes          names
    /scores           (n_examples, 3): predicted class, cross-entropy on the true and on the trained label; of a network
                      whose output is not one score per class the attr unscored says why
    /layers/<name>    (n_examples, n_features); chunks of whole rows, 256 KiB or less; checksummed; deflated, with or
                      without shuffle, or as they are, by what a first batch holds
                      attrs: order, module_class, call_index, feature_shape, readout, projection=<JSON or null>, aliases
    /example, /class, /features_<n>                                       the dimensions' names, for h5ls and xarray

The same activations in memory are arrays by layer (:mod:`manigeo.activations.memory`); whoever uses
:class:`~manigeo.activations.content.Activations` does not see where their rows are.

Images are stored once: the four kinds of :mod:`manigeo.manifolds` are views of the rows by label and mask. A file is
written to ``<path>.partial``, batch by batch, and appears under its name when it is whole; a killed writer leaves what it
had committed (:mod:`manigeo.storage.commits`), and the next goes on there. Each batch opens the file, writes and closes
it, so that its bytes follow from those before and the batch alone: a resumed file is the same, byte for byte. A reader
refuses another format version, an incomplete file, a shard and a fingerprint that does not match, and names what it found.
"""

from manigeo.activations.content import HELD_BYTES, Activations, HeldWriter
from manigeo.activations.filters import COMPRESSIONS, Filter, chosen_filters
from manigeo.activations.layout import Shard, StoredLayer, identity_of
from manigeo.activations.reading import inspect_activations, open_activations, open_shard, opened
from manigeo.activations.scoring import UNSCORED, Scoring
from manigeo.activations.streaming import StoredManifolds
from manigeo.activations.writing import ActivationWriter, create_activations

__all__ = [
    "COMPRESSIONS",
    "HELD_BYTES",
    "UNSCORED",
    "ActivationWriter",
    "Activations",
    "Filter",
    "HeldWriter",
    "Scoring",
    "Shard",
    "StoredLayer",
    "StoredManifolds",
    "chosen_filters",
    "create_activations",
    "identity_of",
    "inspect_activations",
    "open_activations",
    "open_shard",
    "opened",
]

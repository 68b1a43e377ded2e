"""The most and the least memorized examples of a table, and their images where the activations hold them."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from manigeo.errors import UsageError
from manigeo.per_example.summary import DIFFICULTY
from manigeo.per_example.table import wide_examples

if TYPE_CHECKING:
    from manigeo.activations import Activations

# what ranks examples, the first that a table has; what follows decides among equal ones
RANKED_BY = ("memorization", "channels_to_flip", "prediction_depth", "area_under_margin", "margin", "lens_depth")
_IMAGE = "input"  # the layer that holds them
_GRAY, _COLOR = 1, 3


def by_memorization(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """One line per example with the measures of the whole network, the most memorized first, and which measures rank them.

    They are ranked by the first of :data:`RANKED_BY` that the table has, equal ones by the next; NaN is last.

    Raises :class:`~manigeo.errors.UsageError` for a table with none of them.

    >>> from manigeo.per_example.table import example_rows
    >>> shown = pd.DataFrame({"index": [7, 8, 9], "split": "train", "true_label": 0, "train_label": 0, "kind": "permuted"})
    >>> ranks = {"prediction_depth": np.array([1, 2, 2]), "margin": np.array([0.5, 0.9, 0.1])}
    >>> ordered, by = by_memorization(example_rows(shown, ranks))
    >>> ordered["index"].tolist(), by
    ([9, 8, 7], ('prediction_depth', 'margin'))
    """
    whole = wide_examples(table[table["layer"] == ""])
    found = tuple(name for name in RANKED_BY if name in whole)
    if not found:
        raise UsageError(f"nothing ranks these examples: expected a table with one of {', '.join(RANKED_BY)}")
    signed = whole[list(found)] * [DIFFICULTY[name] for name in found]
    order = signed.sort_values(list(found), ascending=False, kind="stable").index
    return whole.loc[order].reset_index(drop=True), found


def ends(ordered: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first and the last ``n`` lines, of fewer all of them once.

    >>> ends(pd.DataFrame({"x": range(9)}), 2)["x"].tolist(), ends(pd.DataFrame({"x": range(3)}), 2)["x"].tolist()
    ([0, 1, 7, 8], [0, 1, 2])
    """
    at = np.arange(len(ordered))
    return ordered[(at < n) | (at >= len(ordered) - n)]


def example_images(acts: "Activations", examples: pd.DataFrame) -> Float[np.ndarray, "n height width colors"] | None:
    """The inputs of the examples as they were stored, each scaled to its own range, 0 to 1; None where the activations hold
    no images: no layer ``input``, a projected or averaged one, or one that is no image of one or three colours.

    Raises :class:`~manigeo.errors.UsageError` for examples that the activations do not hold.
    """
    if _IMAGE not in acts.layers:
        return None
    stored = acts.layer(_IMAGE)
    shape = stored.feature_shape
    shape = (1, *shape) if len(shape) == 2 else shape
    if stored.projection or len(shape) != 3 or shape[0] not in (_GRAY, _COLOR) or stored.n_features != np.prod(shape):
        return None
    keys = [pd.MultiIndex.from_arrays([of["index"], of["split"].astype(str)]) for of in (acts.examples, examples)]
    rows = keys[0].get_indexer(keys[1])
    if (rows < 0).any():
        raise UsageError(
            f"{acts.name} does not hold {np.count_nonzero(rows < 0)} of the examples: give those of the table"
        )
    pixels = acts.rows(_IMAGE, rows).astype(np.float64)
    low, high = pixels.min(axis=1, keepdims=True), pixels.max(axis=1, keepdims=True)
    scaled = (pixels - low) / np.where(high > low, high - low, 1.0)
    return scaled.reshape(-1, *shape).transpose(0, 2, 3, 1)

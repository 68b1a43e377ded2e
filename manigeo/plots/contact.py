"""The contact sheet: images of the most and of the least memorized examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from manigeo.errors import InputError, shorten
from manigeo.per_example.extremes import by_memorization, ends, example_images
from manigeo.plots.canvas import Canvas
from manigeo.plots.style import in_style
from manigeo.vocabulary import metric_words

_COLUMNS = 10
_LONGEST = 12  # letters of a class


def plot_contact_sheet(table: pd.DataFrame, source: object, n: int = 20, ax: Any = None) -> Any:
    """Draw the ``n`` most memorized training examples above the ``n`` least memorized ones, as the network saw them.

    Above each image stands its class, or its true class and the label that it was trained on. They are ranked as
    :func:`~manigeo.per_example.extremes.by_memorization` does.

    ``table``: a table of :func:`~manigeo.examples_table`. ``source``: the activations that it is of, or their file, with
    the layer ``input``. ``ax``: axes to draw into, one per image; without, the figure is returned.

    Raises :class:`~manigeo.errors.InputError` where the activations hold no images, and
    :class:`~manigeo.errors.UsageError` as ``by_memorization`` does.

    >>> import manigeo
    >>> from manigeo.activations import StoredLayer
    >>> from manigeo.per_example.table import example_rows
    >>> shown = pd.DataFrame({"index": range(3), "split": "train", "true_label": [0, 0, 1], "train_label": [0, 1, 1],
    ...                       "permuted": [False, True, False]})
    >>> pixels = StoredLayer("input", 0, "Input", 0, (1, 2, 2), "flatten", None, ())
    >>> acts = manigeo.Activations.in_memory(shown, ["cat", "dog"], [pixels], {}, {"input": np.eye(3, 4)})
    >>> sheet = plot_contact_sheet(example_rows(shown, {"prediction_depth": np.array([1, 3, 0])}), acts, n=1)
    >>> [ax.get_title() for ax in sheet.axes]
    ['cat → dog', 'dog']
    """
    from manigeo.activations import opened  # h5py is not for those who draw tables

    trained = table[~table["kind"].isin(["test", "unseen"])]
    ordered, by = by_memorization(trained)
    shown = ends(ordered, n)
    with opened(source) as acts:
        images, names = example_images(acts, shown), acts.class_names
        if images is None:
            raise InputError(f"{acts.name} holds no images: extract the layer input of a network of images, as it is")
    return _sheet(shown, images, names, by[0], ax)


def _sheet(
    shown: pd.DataFrame, images: Float[np.ndarray, "n height width colors"], names: Sequence[str], by: str, ax: Any
) -> Any:
    canvas = Canvas("the contact sheet", ax, advice="leave ax out")
    with in_style():
        axes = canvas.wrapped(len(shown), (0.1, 0.5), (0.85, 1.0), most=_COLUMNS)
        for panel, image, (_, one) in zip(axes, images, shown.iterrows(), strict=True):
            panel.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set_axis_off()
            true, trained = (_written(names[int(one[label])]) for label in ("true_label", "train_label"))
            panel.set_title(true if true == trained else f"{true} \N{RIGHTWARDS ARROW} {trained}", fontsize=7, pad=2)
        if not canvas.is_given:
            word = metric_words(by).name
            canvas.figure.suptitle(f"by {word}: the most memorized first, the least memorized last", fontsize=9)
        return canvas.finished()


def _written(name: str) -> str:
    return shorten(name, _LONGEST).replace("$", r"\$")  # no mathematics

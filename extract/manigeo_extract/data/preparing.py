"""Preparation of images as in their network's training: size, standardisation by known numbers, a transform.

Given as data args: ``size=N`` resizes to a square; ``mean=`` and ``std=`` (per channel, of pixels from 0 to 1) standardise
by these numbers and ``standardise=no`` by none, in place of the training examples' own; ``scale=`` is what raw numbers are
divided by before (255 for whole numbers from 0 to 255, else 1); ``transform=package.module:factory`` names a function that
returns the transform of training, which gets PIL images (tensors where numbers are not whole) and whose results are taken
as they come.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from manigeo.errors import InputError, UsageError, one_line
from manigeo_extract.data.parts import LazyInputs, Part, Source, check_size
from manigeo_extract.resolve import resolve_object

PREPARATION = ("mean", "std", "scale", "standardise", "transform")
ANSWERS = {"no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}


def prepared(spec: str, source: Source, options: Mapping[str, Any]) -> Source:
    """The source with its images resized or transformed, and the numbers that it is to be standardised by.

    Raises :class:`~manigeo.errors.UsageError` for args that are not such, or do not go together.
    """
    given = {name: options[name] for name in PREPARATION if options.get(name) is not None}
    size = None if spec == "glyphs" else options.get("size")  # which draws them in that size
    if "transform" in given:
        _check_alone(spec, {**given, "size": size})
        return transformed(spec, source, str(given["transform"]))
    if size is not None and not spec.startswith("folder:"):  # which resizes what it reads
        source = replace(source, parts={name: _resized(part, size) for name, part in source.parts.items()})
    n_channels = source.parts["train"].inputs.shape[1]
    constants: dict[str, list[float]] = {
        name: _numbers(spec, name, given[name], n_channels) for name in ("mean", "std", "scale") if name in given
    }
    if "standardise" in given and not _answer(spec, given["standardise"]):
        constants = {"mean": [0.0], "std": [1.0]} | constants
    whole = source.parts["train"].inputs.dtype == np.uint8
    if whole and "scale" not in constants and max(map(abs, constants.get("mean", [0.0]))) > 1:
        raise UsageError(
            f"{spec}: expected mean and std of pixels from 0 to 1, got mean={given['mean']}; for pixels from 0 to "
            "255 add scale=1"
        )
    return replace(source, constants=constants)


def _check_alone(spec: str, given: Mapping[str, Any]) -> None:
    if others := [name for name, value in given.items() if name != "transform" and value is not None]:
        raise UsageError(f"{spec}: a transform prepares the images itself; leave {', '.join(others)} out")


def _answer(spec: str, value: Any) -> bool:
    answer = ANSWERS.get(str(value).lower())
    if answer is None:
        raise UsageError(f"{spec}: expected standardise=yes or standardise=no, got {value!r}")
    return answer


def _numbers(spec: str, name: str, value: Any, n_channels: int) -> list[float]:
    """One number for all channels, or one for each; as a list, a number or a text with commas between."""
    listed = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [float(number) for number in listed]
    except (TypeError, ValueError):
        numbers = []
    wanted = (1,) if name == "scale" else (1, n_channels)
    if len(numbers) not in wanted or not np.isfinite(numbers).all() or (name != "mean" and min(numbers) <= 0):
        counts = " or ".join(map(str, dict.fromkeys(wanted)))
        sign = "" if name == "mean" else "positive "
        raise UsageError(f"{spec}: expected {name} as {counts} {sign}numbers (channels: {n_channels}), got {value!r}")
    return numbers


# ------------------------------------------------------------------------------------------------------------- resized
def _resized(part: Part, size: int) -> Part:
    inputs = part.inputs
    check_size(part.where, size)
    shape = (len(inputs), inputs.shape[1], size, size)
    return replace(part, inputs=LazyInputs(part.where, shape, inputs.dtype, Resized(inputs, size)))


@dataclass(frozen=True, eq=False)
class Resized:
    """Reader from a row number to pixels of another size, bilinear as of image files."""

    inputs: Any
    size: int

    def __call__(self, row: int) -> np.ndarray:
        pixels = self.inputs[np.array([row])][0]
        square = (self.size, self.size)
        return np.stack([np.asarray(Image.fromarray(c).resize(square, Image.Resampling.BILINEAR)) for c in pixels])


# --------------------------------------------------------------------------------------------------------- transformed
def transformed(spec: str, source: Source, name: str) -> Source:
    """The source with what the transform, that the function of this name returns, makes of each image."""
    try:
        transform = resolve_object(name)()
    except UsageError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"{name}: the factory of the transform failed: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not callable(transform):
        raise InputError(
            f"{name}: expected a function that returns the transform, it returned {type(transform).__name__}"
        )
    parts = {split: _transformed(part, name, transform) for split, part in source.parts.items()}
    return replace(source, parts=parts, standardise=False)


def _transformed(part: Part, name: str, transform: Callable[[Any], Any]) -> Part:
    read = getattr(getattr(part.inputs, "read", None), "image", None) or PictureOf(part.inputs)
    reader = Transformed(part.where, name, read, transform, getattr(getattr(part.inputs, "read", None), "paths", ()))
    first = reader(0)
    if not np.array_equal(first, reader(0)):
        raise InputError(
            f"{name}: the transform gives other numbers each time: give that of evaluation, without random steps"
        )
    return replace(part, inputs=LazyInputs(part.where, (len(part.inputs), *first.shape), first.dtype, reader))


@dataclass(frozen=True, eq=False)
class PictureOf:
    """Reader from a row number to a PIL image, or to a tensor where numbers are not whole."""

    inputs: Any

    def __call__(self, row: int) -> Any:
        pixels = self.inputs[np.array([row])][0]
        if pixels.dtype != np.uint8:
            return torch.from_numpy(pixels)
        return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


@dataclass(frozen=True, eq=False)
class Transformed:
    """Reader from a row number to what the transform makes of its image."""

    where: str
    name: str
    image: Callable[[int], Any]
    transform: Callable[[Any], Any]
    paths: tuple[Path, ...] = ()

    def __call__(self, row: int) -> np.ndarray:
        picture = self.image(row)
        try:
            value = np.asarray(self.transform(picture))
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"{self.where}, item {row}: the transform {self.name} failed on an image of {type(picture).__name__}: "
                f"{type(error).__name__}: {one_line(error)}"
            ) from error
        if value.dtype.kind not in "uif":
            raise InputError(
                f"{self.where}, item {row}: expected numbers of the transform {self.name}, got {value.dtype}; "
                "end it in ToTensor() or the like"
            )
        return value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value

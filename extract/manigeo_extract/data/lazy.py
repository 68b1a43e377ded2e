"""Data sets whose inputs are read when they are asked for: folders of images, and what a user's own factory returns."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from manigeo.errors import InputError, UsageError, one_line
from manigeo.storage.ceilings import MOST_PIXELS, open_regular
from manigeo_extract.data.items import items_part
from manigeo_extract.data.parts import LazyInputs, Part, Source, as_part, as_source, check_size, hold_out
from manigeo_extract.resolve import foreign_call, resolve_object

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
# Pillow goes by the content: without this list a PostScript file named x.png would be handed to Ghostscript
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
OTHER_NAMES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}
Headers = dict[Path, tuple[str, tuple[int, int]]]  # mode and size of every image


# ------------------------------------------------------------------------------------------------------------- folder
def read_folder(
    path: Path, *, size: int | None = None, transform: str | None = None, test: float = 0.2, seed: int = 0
) -> Source:
    """Images in ``train/<class>/`` and ``test/<class>/``, perhaps in ``val/<class>/``, or all in ``<class>/``.

    In the last case the share ``test`` is held out; beside ``train`` alone, ``val`` is the test. ``size`` resizes each image
    to a square; images that a ``transform`` prepares may be of any size.
    """
    if size is not None:
        check_size("folder", size)
    roots, notes = _split_folders(path)
    listed = {name: _image_files(root) for name, root in roots.items()}
    headers = {file: _header(file) for files in listed.values() for images in files.values() for file in images}
    mode, names = _common_mode(headers), list(next(iter(listed.values())))
    parts = {
        name: _folder_part(roots[name], files, names, headers, mode, size, alike=transform is None)
        for name, files in listed.items()
    }
    found = as_source(hold_out(parts["all"], test, seed) if "all" in parts else parts, names)
    return replace(found, notes=notes)


def _split_folders(path: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of each split, under any of its usual names; ``all`` where classes are not in splits."""
    if not path.is_dir():
        raise InputError(f"{path}: expected a folder of images there, found none; check the path in --data folder:PATH")
    named = {folder.name.lower(): folder for folder in sorted(path.glob("[!.]*")) if folder.is_dir()}
    roots: dict[str, Path] = {}
    for split in ("train", "validation", "test"):
        names = [split, *(other for other, of in OTHER_NAMES.items() if of == split)]
        if name := next((name for name in names if name in named), None):
            roots[split] = named[name]
    if "train" not in roots:
        return {"all": path}, ()
    if "test" in roots:
        return roots, ()
    if "validation" not in roots:
        raise InputError(f"{path}: expected the folder test or val beside train")
    apart = roots.pop("validation")
    return roots | {"test": apart}, (f"{path}: no folder test beside train, so {apart.name} is the test",)


def _image_files(root: Path) -> dict[str, list[Path]]:
    """Images by class: folders and files in the order of their names."""
    classes = sorted(folder for folder in root.glob("[!.]*") if folder.is_dir())
    files = {
        folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        for folder in classes
    }
    if empty := [name for name, images in files.items() if not images] or not files:
        wanted = f"images in each class folder, found none in {empty}" if files else "a folder of images for each class"
        raise InputError(f"{root}: expected {wanted}")
    return files


def _folder_part(
    root: Path,
    files: dict[str, list[Path]],
    names: list[str],
    headers: Headers,
    mode: str,
    size: int | None,
    *,
    alike: bool,
) -> Part:
    if unknown := sorted(set(files) - set(names)):
        raise InputError(f"{root}: expected the classes of the training images, found also {', '.join(unknown)}")
    paths = tuple(file for images in files.values() for file in images)
    labels = [names.index(name) for name, images in files.items() for _ in images]
    sizes = {headers[path][1] for path in paths}
    width, height = (size, size) if size else _common_size(root, sizes) if alike else min(sizes)
    shape = (len(paths), 1 if mode == "L" else 3, height, width)
    return as_part(str(root), LazyInputs(str(root), shape, np.dtype(np.uint8), ImageReader(paths, mode, size)), labels)


@dataclass(frozen=True)
class ImageReader:
    """Reader from a row number to pixels (channels, height, width)."""

    paths: tuple[Path, ...]
    mode: str
    size: int | None

    def __call__(self, row: int) -> np.ndarray:
        image = self.image(row)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR) if self.size else image
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)

    def image(self, row: int) -> Image.Image:
        """The image as Pillow has it."""
        try:
            with _opened(self.paths[row]) as image:
                return image.convert(self.mode)
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged file
            raise InputError(f"{self.paths[row]}: expected a whole image ({error})") from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image of a regular file and of no more pixels than :data:`~manigeo.storage.ceilings.MOST_PIXELS`."""
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=IMAGE_FORMATS) as image:
                yield image
        except UnidentifiedImageError:
            formats = ", ".join(IMAGE_FORMATS)
            raise InputError(
                f"{path}: expected an image as {formats}; convert it, or take it out of the folder"
            ) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InputError(
                f"{path}: expected an image of at most {MOST_PIXELS:,} pixels; {one_line(error)}"
            ) from error


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        with _opened(path) as image:
            return image.mode, image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: expected an image ({error})") from error


def _common_mode(headers: Headers) -> str:
    for path, (mode, _) in headers.items():
        if mode[0] in "IF":
            raise InputError(f"{path}: expected an image of 8 bits a channel, got the mode {mode}")
    return "L" if {mode for mode, _ in headers.values()} <= {"1", "L", "LA"} else "RGB"


def _common_size(root: Path, sizes: set[tuple[int, int]]) -> tuple[int, int]:
    if len(sizes) > 1:
        raise InputError(
            f"{root}: expected images of one size, found {sorted(sizes)[:3]}; resize them with --data-arg size=N, or with a "
            "transform"
        )
    return next(iter(sizes))


# ------------------------------------------------------------------------------------------------------------ factory
def read_factory(spec: str, args: Mapping[str, Any]) -> Source:
    """Read what the user's factory returns for ``args``: (train, test), (train, validation, test), or a mapping of splits.

    Each is a map-style data set of (input, label), a list of such pairs, a pair of arrays, or a loader: then an example is
    what a batch of one brings. An input is a tensor, or several: a mapping of names to tensors, ``(x, m)``, or all that
    stands before the label in ``(x, m, label)``; an item may also be one mapping, its label under one of
    :data:`~manigeo_extract.data.items.LABELS`. Inputs are taken as they come, of any shape: the factory prepares them. Whole
    numbers, such as token ids, stay whole. Labels come from ``.targets`` or ``.labels``, also through ``Subset``,
    ``ConcatDataset`` and loaders, else every item is read once; class names from ``.classes`` of train. A factory with a
    parameter ``validation`` sees to that split itself.
    """
    splits = _named_splits(spec, _called(spec, args))
    found = {split: items_part(f"{spec} ({split})", items) for split, items in splits.items()}
    return as_source({split: part for split, (part, _) in found.items()}, found["train"][1], standardise=False)


def _named_splits(spec: str, found: Any) -> dict[str, Any]:
    """The splits of (train, test), (train, validation, test) or a mapping; of one without test, validation is the test."""
    if isinstance(found, Mapping):
        splits = {OTHER_NAMES.get(str(name), str(name)): items for name, items in found.items()}
    elif isinstance(found, tuple | list) and len(found) in (2, 3):
        splits = dict(zip(("train", "validation", "test")[:: 4 - len(found)], found, strict=True))
    else:
        raise InputError(
            f"{spec}: expected (train, test) or a mapping of splits to data sets, got {type(found).__name__}; return both, "
            "or one data set twice"
        )
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    if not {"train", "test"} <= set(splits) <= {"train", "validation", "test"}:
        raise InputError(
            f"{spec}: expected the splits train, test and perhaps validation, got {', '.join(map(str, splits))}"
        )
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _called(spec: str, args: Mapping[str, Any]) -> Any:
    try:
        return foreign_call(resolve_object(spec), **args)
    except (InputError, UsageError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{spec}: the factory failed on {dict(args)}: {type(error).__name__}: {error}") from error


def factory_parameters(spec: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the user's factory, empty where Python cannot tell."""
    try:
        return inspect.signature(resolve_object(spec)).parameters
    except (TypeError, ValueError):
        return {}

"""Data sets whose inputs are read when they are asked for: folders of images, the user's own map-style data sets."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from manigeo.errors import InputError, UsageError
from manigeo_extract.data.parts import LazyInputs, Part, Source, as_part, as_source, hold_out
from manigeo_extract.resolve import resolve_object

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
LABELS = ("labels", "label")  # what the label is called in an item that is one mapping
Headers = dict[Path, tuple[str, tuple[int, int]]]  # mode and size of every image


# ------------------------------------------------------------------------------------------------------------- folder
def read_folder(path: Path, *, size: int | None = None, test: float = 0.2, seed: int = 0) -> Source:
    """Images in ``train/<class>/`` and ``test/<class>/``, perhaps ``validation/<class>/``, or all in ``<class>/``.

    In the last case the share ``test`` is held out. ``size`` resizes each image to a square.
    """
    if size is not None and size < 1:
        raise UsageError(f"folder: expected size in pixels, got {size}")
    splits = [name for name in ("train", "validation", "test") if (path / name).is_dir()]
    roots = {name: path / name for name in splits} if "train" in splits else {"all": path}
    if not {"train", "test"} <= roots.keys() and "all" not in roots:
        raise InputError(f"{path}: expected the folder test beside train")
    listed = {name: _image_files(root) for name, root in roots.items()}
    headers = {file: _header(file) for files in listed.values() for images in files.values() for file in images}
    mode, names = _common_mode(headers), list(next(iter(listed.values())))
    parts = {name: _folder_part(roots[name], files, names, headers, mode, size) for name, files in listed.items()}
    return as_source(hold_out(parts["all"], test, seed) if "all" in parts else parts, names)


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
    root: Path, files: dict[str, list[Path]], names: list[str], headers: Headers, mode: str, size: int | None
) -> Part:
    if unknown := sorted(set(files) - set(names)):
        raise InputError(f"{root}: expected the classes of the training images, found also {', '.join(unknown)}")
    paths = tuple(file for images in files.values() for file in images)
    labels = [names.index(name) for name, images in files.items() for _ in images]
    width, height = (size, size) if size else _common_size(root, {headers[path][1] for path in paths})
    shape = (len(paths), 1 if mode == "L" else 3, height, width)
    return as_part(str(root), LazyInputs(str(root), shape, np.dtype(np.uint8), ImageReader(paths, mode, size)), labels)


@dataclass(frozen=True)
class ImageReader:
    """Reader from a row number to pixels (channels, height, width)."""

    paths: tuple[Path, ...]
    mode: str
    size: int | None

    def __call__(self, row: int) -> np.ndarray:
        try:
            with Image.open(self.paths[row]) as file:
                image = file.convert(self.mode)
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR) if self.size else image
            return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged file
            raise InputError(f"{self.paths[row]}: expected a whole image ({error})") from error


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        with Image.open(path) as image:
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
        raise InputError(f"{root}: expected images of one size, found {sorted(sizes)[:3]}; resize them with size=N")
    return next(iter(sizes))


# ------------------------------------------------------------------------------------------------------------ factory
def read_factory(spec: str, args: Mapping[str, Any]) -> Source:
    """Read what the user's factory returns for ``args``: (train, test), or a mapping with train, test and validation.

    Each is a map-style data set of (input, label), or a loader of one: then an example is what a batch of one brings.
    The split validation may be missing. An input is a tensor, or a mapping of names to tensors; an item may also be one
    mapping, its label under ``labels`` or ``label``. Inputs are taken as they come, of any shape: the factory prepares
    them. Labels come from ``.targets``, else every item is read once; class names from ``.classes`` of train. A factory
    with a parameter ``validation`` sees to that split itself.
    """
    found = _called(spec, args)
    splits = (
        dict(found) if isinstance(found, Mapping) else dict(zip(("train", "test"), _pair(spec, found), strict=True))
    )
    if not {"train", "test"} <= set(splits) <= {"train", "validation", "test"}:
        raise InputError(
            f"{spec}: expected the splits train, test and perhaps validation, got {', '.join(map(str, splits))}"
        )
    splits = {split: _examples(items) for split, items in splits.items()}
    parts = {split: _items_part(f"{spec} ({split})", items) for split, items in splits.items()}
    return as_source(parts, getattr(splits["train"], "classes", None), standardise=False)


def _called(spec: str, args: Mapping[str, Any]) -> Any:
    try:
        return resolve_object(spec)(**args)
    except (InputError, UsageError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{spec}: the factory failed on {dict(args)}: {type(error).__name__}: {error}") from error


def _pair(spec: str, found: Any) -> tuple[Any, Any]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise InputError(
            f"{spec}: expected (train, test) or a mapping of splits to data sets, got {type(found).__name__}"
        )
    return found[0], found[1]


def _items_part(where: str, items: Any) -> Part:
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise InputError(f"{where}: expected a map-style data set (len and items), got {type(items).__name__}")
    if not len(items):
        raise InputError(f"{where}: expected examples, found none")
    reader = ItemReader(where, items)
    labels = getattr(items, "targets", None)
    labels = [reader.item(row)[1] for row in range(len(items))] if labels is None else labels
    first = reader(0)
    inputs = LazyInputs(where, (len(items), *first.shape), first.dtype, replace(reader, dtype=first.dtype))
    return as_part(where, inputs, np.asarray([np.asarray(label) for label in labels]))


@dataclass(frozen=True, eq=False)
class ItemReader:
    """Reader from a row number to an input; an input of several tensors is one record of them, each a field."""

    where: str
    items: Any
    dtype: np.dtype | None = None

    def __call__(self, row: int) -> np.ndarray:
        where, given = f"{self.where}, item {row}", self.item(row)[0]
        value = _as_record(where, given) if isinstance(given, Mapping) else _as_array(where, given)
        if self.dtype is not None and value.dtype != self.dtype:
            raise InputError(f"{where}: expected {_fields(self.dtype)} as in item 0, got {_fields(value.dtype)}")
        return value

    def item(self, row: int) -> tuple[Any, Any]:
        try:
            value, label = _split_label(self.items[row])
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"{self.where}, item {row}: expected (input, label), got {type(error).__name__}: {error}"
            ) from error
        return value, label


def _as_array(where: str, given: Any) -> np.ndarray:
    value = np.asarray(given)
    if value.dtype.kind not in "buif" or isinstance(given, Image.Image):
        raise InputError(f"{where}: expected a tensor or an array of numbers, got {type(given).__name__}")
    return value.astype(np.float32, copy=False)


def _as_record(where: str, given: Mapping[str, Any]) -> np.ndarray:
    """Whole numbers, such as token ids, stay whole."""
    fields = {}
    for name, part in given.items():
        value = np.asarray(part)
        fields[name] = value.astype(np.int64) if value.dtype.kind in "bui" else _as_array(f"{where} ({name})", part)
    record = np.empty((), dtype=[(name, value.dtype, value.shape) for name, value in fields.items()])
    for name, value in fields.items():
        record[name] = value
    return record


def _fields(dtype: np.dtype) -> str:
    """Describe the tensors of an example in words: name and shape of each, where there are several."""
    names = dtype.names or ()
    return ", ".join(f"{name} {dtype[name].shape}" for name in names) or "one tensor"


def _split_label(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, Mapping):
        value, label = item
        return value, label
    name = next(name for name in (*LABELS, *item) if name in item)
    if name not in LABELS:
        raise InputError(f"a mapping without {' or '.join(LABELS)}: {', '.join(map(str, item))}")
    return {key: value for key, value in item.items() if key != name}, item[name]


# ------------------------------------------------------------------------------------------------------------ loaders
def _examples(items: Any) -> Any:
    """Return the examples of a loader, and anything else unchanged."""
    if not isinstance(items, DataLoader):
        return items
    dataset: Any = items.dataset
    return LoaderItems(items) if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") else dataset


class LoaderItems:
    """The examples that a loader draws from, in the order of its data set, each as a batch of it alone would bring it."""

    def __init__(self, loader: Any) -> None:
        self.dataset = loader.dataset
        self.collate = loader.collate_fn
        # a loader of a part draws from it at random, and says which part in the sampler
        self.rows = sorted(getattr(loader.sampler, "indices", range(len(self.dataset))))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        return _first(self.collate([self.dataset[self.rows[row]]]))

    @property
    def classes(self) -> Any:
        return self.dataset.classes


def _first(batch: Any) -> Any:
    """The only example of a batch."""
    if isinstance(batch, Mapping):
        return {name: _first(part) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_first(part) for part in batch)
    return batch[0]


def factory_parameters(spec: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the user's factory, empty where Python cannot tell."""
    try:
        return inspect.signature(resolve_object(spec)).parameters
    except (TypeError, ValueError):
        return {}

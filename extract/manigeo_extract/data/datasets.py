"""Data sets, and the permuted labels that make a network memorize (Stephenson et al. 2021; Zhang et al. 2017).

A data set is one pool of examples, train before validation before test before those of unseen classes; its row numbers are
those of the example table.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64, Shaped

from manigeo.errors import UsageError
from manigeo.kinds import CONTROL, KINDS, LEFT_OUT, MARKED, UNSEEN
from manigeo.manifolds import kind_examples
from manigeo_extract.batches import NamedTensors
from manigeo_extract.data import lazy, loaders, texts
from manigeo_extract.data.noise import CONVENTIONS, MATRIX, as_matrix, drawn_by_row
from manigeo_extract.data.parts import (
    Part,
    Source,
    fingerprint,
    gather,
    generator,
    share_of,
    standardisation,
    stratified,
)
from manigeo_extract.data.preparing import PREPARATION, prepared
from manigeo_extract.data.sequences import Sequences, fingerprint_of, read_sentences, read_text
from manigeo_extract.data.unseen import choose_unseen, hold_classes_out
from manigeo_extract.resolve import Named, near_names

SOURCES: Mapping[str, Callable[..., Source]] = {
    "glyphs": loaders.read_glyphs,
    "digits": loaders.read_digits,
    "idx": loaders.read_idx,
    "cifar10": loaders.read_cifar10,
    "cifar100": loaders.read_cifar100,
    "npz": loaders.read_npz,
    "folder": lazy.read_folder,
    "hf": texts.read_hf,
    "text": read_text,
    "sentences": read_sentences,
}
COMMON: Mapping[str, Any] = {
    "validation": 0.0, "seed": 0, "per_class": None, "holdout_classes": None, "subset": None, "subset_seed": None,
}  # fmt: skip
OURS = ("glyphs", "digits", "idx", "cifar10", "cifar100")  # well-known sets, of which a share is set apart by default
IMAGES = (*OURS, "npz", "folder")
SET_APART = 0.1
WITHOUT_PLACE = ("glyphs", "digits", "sentences")
NOT_NUMBERS = ("holdout_classes", "subset", *PREPARATION)
SPLITS = ("train", LEFT_OUT, "validation", "test", UNSEEN, *MARKED, CONTROL)
OF_CLASSES = ("per_class", "holdout_classes", "subset")  # args of sources whose examples are trained on one by one


# ---------------------------------------------------------------------------------------------------------- data sets
@dataclass(frozen=True, eq=False)
class DataSet:
    """Examples of all splits under common row numbers; inputs are prepared when they are asked for.

    ``index`` is the position in the source file (for a folder, in the list of its images by name), ``args`` the values
    that were in force: ``load_data(spec, args)`` gives the same data set again. The last ``n_unseen`` of ``class_names``
    were held out; their examples come in the order train, validation, test of the source. Of a text, ``sequences`` are what
    a network is trained on, and the examples single positions (:mod:`manigeo_extract.data.sequences`).
    """

    spec: str
    args: dict[str, Any]
    index: Int64[np.ndarray, " n"]
    split: Shaped[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    preprocessing: dict[str, Any]
    fingerprint: str
    parts: tuple[Part, ...] = field(repr=False)
    n_unseen: int = 0
    notes: tuple[str, ...] = ()
    sequences: Sequences | None = field(default=None, repr=False)

    @property
    def n_classes(self) -> int:
        """Classes to train on, those a network has outputs for; labels of unseen ones begin here."""
        return len(self.class_names) - self.n_unseen

    def rows(self, split: str) -> Int64[np.ndarray, " rows"]:
        """Row numbers of ``train``, ``left_out``, ``validation``, ``test`` or ``unseen``."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        return np.flatnonzero(self.split == split)

    @property
    def could_train(self) -> Int64[np.ndarray, " rows"]:
        """Row numbers of the training examples, those among them that this training leaves out (``subset``)."""
        return np.flatnonzero(np.isin(self.split, ("train", LEFT_OUT)))

    @property
    def left_out(self) -> str:
        """Number of training examples of the source that take no part, and how to change that; empty where all do."""
        if self.sequences is not None:
            return ""
        apart = len(self.rows("validation")) if "validation" in self.args else 0
        words = []
        if apart:
            share = f"{apart} of {apart + len(self.rows('train'))} training examples are set apart for validation"
            words.append(f"{share} (--data-arg validation=0 takes them in)")
        if self.args.get("per_class") is not None:
            words.append(f"per_class={self.args['per_class']} limits the training examples of a class")
        if self.args.get("subset") is not None:
            words.append(f"subset={self.args['subset']} leaves {len(self.rows(LEFT_OUT))} training examples out")
        return "; ".join(words)

    def files(self) -> list[Path] | None:
        """The file of each row, of a folder of images; None of data that are not one file per example."""
        readers = [getattr(part.inputs, "read", None) for part in self.parts]
        paths = [getattr(reader, "paths", ()) for reader in readers]
        if not all(paths):
            return None
        return [of[row] for part, of in zip(self.parts, paths, strict=True) for row in part.index]

    def inputs(self, rows: Any) -> Any:
        r"""Inputs of these rows (anything that indexes), standardised per channel c by the training examples.

        .. math:: x = (\mathrm{raw} / \mathrm{scale} - \mathrm{mean}_c) / \mathrm{std}_c

        A float32 tensor of shape (rows, \*input_shape). A user's factory or transform prepares its inputs itself: they are
        as given, whole numbers too. Where an example consists of several tensors (token ids and their mask) a mapping of
        names to tensors.
        """
        raw = gather(self.parts, np.arange(len(self.labels))[rows])
        if raw.dtype.names:
            return NamedTensors({name: _as_tensor(raw[name]) for name in raw.dtype.names})
        if self.preprocessing.get("as_given"):
            return torch.from_numpy(raw)
        constants = (np.reshape(self.preprocessing[name], (-1, *(1,) * (raw.ndim - 2))) for name in ("mean", "std"))
        mean, std = (constant.astype(np.float32) for constant in constants)
        return torch.from_numpy((raw / np.float32(self.preprocessing["scale"]) - mean) / std)


def _as_tensor(field: np.ndarray) -> torch.Tensor:
    """Whole numbers are int64, for they index embeddings."""
    wanted = {"f": np.float32, "b": np.bool_}.get(field.dtype.kind, np.uint8 if field.dtype == np.uint8 else np.int64)
    return torch.from_numpy(field.astype(wanted))


def load_data(spec: Any, args: Mapping[str, Any] | None = None, *, validation: float | None = None) -> DataSet:
    """The data set that ``spec`` names or is: a function that returns its splits, or these, as (train, test) or by name.

    ===========================  ==========================================  ======================================
    spec                         what is read                                own args (defaults)
    ===========================  ==========================================  ======================================
    glyphs                       rendered characters, no file needed         classes 100, size 20; of each class train
                                                                             80, validation 20, test 30
    digits                       scikit-learn's 8 x 8 digits                 test .2
    idx:DIR                      MNIST-like idx files, plain or .gz
    cifar10:DIR, cifar100:DIR    the python batches
    npz:PATH                     x_train y_train x_test y_test, perhaps
                                 x_val y_val label_names
    folder:PATH                  train/<class>/*, test/<class>/*, or         size (default: no resizing),
                                 <class>/*                                   test .2 (where there is none)
    hf:PATH                      texts, and the tokenizer's files (1)        tokenizer, text, label, length
                                                                             128, test .2
    text:PATH                    sequences of tokens of a text (3)           tokenizer, length 64, prefix 8,
                                                                             canaries, scored 100, test .1
    sentences                    the same of generated sentences (3)         n 700, length 32, as of text
    package.module:factory or    what the user's function returns (2)        those of the function
    file.py:factory
    ===========================  ==========================================  ======================================

    (1) :func:`manigeo_extract.data.texts.read_hf`; (2) :func:`manigeo_extract.data.lazy.read_factory`;
    (3) :mod:`manigeo_extract.data.sequences`

    Args of every source: ``validation``, the share of each training class that is set apart where a source brings no
    validation split (at least one example, 0 for none): .1 of glyphs, digits, idx and CIFAR, and 0 of a user's own data,
    which stay whole, unless the parameter ``validation`` is another default; ``per_class``, the most training examples to
    use of a class; ``holdout_classes``, names or labels of classes whose examples all go to the split ``unseen``, or how
    many to draw: the seen classes are numbered from 0 on in their order, the unseen ones after them; ``seed`` = 0;
    ``subset``, the share of the training examples to train on, drawn by ``subset_seed``: the others are of the split
    ``left_out``, with the labels (permuted or not) and the standardisation that they have in every subset.

    Args of images (all but hf and functions): ``mean``, ``std``, ``scale``, ``standardise``, ``size`` and ``transform``, see
    :mod:`manigeo_extract.data.preparing`; without them they are standardised by the training examples.

    Raises ``UsageError`` for an unknown source, arg or class, ``InputError`` for files that are missing or damaged.

    >>> data = load_data("digits", {"per_class": 20})
    >>> len(data.rows("train")), tuple(data.inputs([0, 1]).shape)
    (200, (2, 1, 8, 8))
    """
    spec = _named(spec)
    options = _options(spec, dict(args or {}), validation)
    source = _read(spec, options)
    if source.sequences is not None:
        return _of_sequences(spec, source, source.sequences, options)
    if spec.partition(":")[0] in IMAGES:
        source = prepared(spec, source, options)
    source = _with_unseen(spec, source, options)
    parts = _splits(spec, source, options, asked="validation" in (args or {}))
    used = {name: value for name, value in options.items() if value is not None or name in (args or {})}
    whole = replace(pooled(spec, parts, source), args=used, n_unseen=len(options["holdout_classes"] or ()))
    return whole if options["subset"] is None else _with_left_out(whole)


def _of_sequences(spec: str, source: Source, sequences: Sequences, options: Mapping[str, Any]) -> DataSet:
    """The data set of the contexts of a text, and of the sequences to train on."""
    if given := [name for name in OF_CLASSES if options[name] is not None]:
        raise UsageError(f"{spec} is trained on by whole sequences, not by examples of classes: leave {given[0]} out")
    contexts = pooled(spec, source.parts, source)
    return replace(
        contexts,
        args={name: value for name, value in options.items() if value is not None},
        index=np.concatenate([sequences.index[kind] for kind in source.parts]),
        fingerprint=fingerprint_of(contexts.fingerprint, sequences),
        sequences=sequences,
    )


def pooled(spec: str, parts: Mapping[str, Part], source: Source) -> DataSet:
    """The data set of these splits and of the unseen classes of their source, under common row numbers."""
    pool, first = (*parts.values(), *source.unseen), next(iter(parts.values()))
    labels = np.concatenate([part.labels for part in pool])
    split = np.repeat([*parts, *[UNSEEN] * len(source.unseen)], [len(part) for part in pool])
    return DataSet(
        spec=str(spec),
        args={},
        index=np.concatenate([part.index for part in pool]),
        split=split,
        labels=labels,
        class_names=source.class_names,
        input_shape=_input_shape(first),
        preprocessing=standardisation(first, source),
        fingerprint=fingerprint(pool, labels, split),
        parts=pool,
        notes=source.notes,
    )


def _input_shape(part: Part) -> tuple[int, ...]:
    """Shape of one example; for an example of several tensors, that of the first."""
    dtype = part.inputs.dtype
    return dtype[0].shape if dtype.names else tuple(part.inputs.shape[1:])


def runs_code(spec: str) -> bool:
    """Return whether loading ``spec`` runs a function it names: only a user may name it, never a file from elsewhere.

    >>> runs_code("npz:images.npz"), runs_code("shutil:rmtree")
    (False, True)
    """
    return spec.partition(":")[0] not in SOURCES


def describe(data: DataSet, examples: pd.DataFrame) -> str:
    """Describe a data set and its example table in words: sizes, permuted labels, examples per class of each kind."""
    shape = " x ".join(map(str, data.input_shape))
    shown = [split for split in SPLITS if split in ("train", "validation", "test") or len(data.rows(split))]
    counts = ", ".join(f"{split} {len(data.rows(split))}" for split in shown)
    classes = f"{data.n_classes} classes" + f" and {data.n_unseen} unseen" * bool(data.n_unseen)
    if data.sequences is not None:
        counts = ", ".join(f"{split} {len(data.rows(split))}" for split in (*MARKED, CONTROL, "validation", "test"))
        return (
            f"{data.spec}: {data.sequences.describe()}\n{len(data.labels)} positions are scored ({counts}), "
            f"{data.n_classes} tokens in the vocabulary"
        )
    members = int(examples["permuted"].sum())
    changed = int((examples["true_label"] != examples["train_label"]).sum())
    return "\n".join(
        [
            f"{data.spec}: {len(data.labels)} examples ({counts}), {classes}, inputs {shape}",
            f"permuted: {members} of {len(data.could_train)} training examples, {changed} of them got another label",
            f"examples per class, smallest to largest: {', '.join(_class_sizes(data, examples))}",
        ]
    )


def _class_sizes(data: DataSet, examples: pd.DataFrame) -> Iterator[str]:
    for kind in (*KINDS, *([UNSEEN] if data.n_unseen else [])):
        first, size = (data.n_classes, data.n_unseen) if kind == UNSEEN else (0, data.n_classes)
        counts = np.bincount(kind_examples(examples, kind)[1] - first, minlength=size)
        yield f"{kind} {counts.min()} to {counts.max()}"


# ---------------------------------------------------------------------------------------------------- permuted labels
@dataclass(frozen=True)
class Permutation:
    """Share of the training labels that is replaced, and the convention of replacing them.

    ``permutation``: labels change places within the drawn set S, so class counts are kept. ``uniform``: drawn over all
    C classes, so about 1/C of S keep their label. ``derangement``: drawn over the other classes, never the true one.
    ``pairs``: the label of the next class, of the last class that of the first. ``matrix``: drawn by the row of the true
    label in ``matrix``; of S those count as permuted that get another label, since the diagonal says how many do not.

    Limiting cases: fraction 0 leaves all labels, fraction 1 draws S = the training set. Raises
    :class:`~manigeo.errors.UsageError` for a value out of its range.

    >>> Permutation(0.5, "derangement", seed=1)
    Permutation(fraction=0.5, convention='derangement', seed=1)
    >>> Permutation(1, "matrix", matrix=((0.9, 0.1), (0, 1))).matrix
    ((0.9, 0.1), (0.0, 1.0))
    """

    fraction: float | int = 0.0
    convention: str = "permutation"
    seed: int = 0
    matrix: Sequence[Sequence[float | int]] | None = field(default=None, repr=False, metadata={"stored": "if given"})

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise UsageError(f"expected the permuted fraction from 0 to 1, got {self.fraction}")
        if self.convention not in (*CONVENTIONS, MATRIX):
            near = near_names(self.convention, [*CONVENTIONS, MATRIX])
            raise UsageError(
                f"unknown permutation convention {self.convention!r}{near}; or give a matrix as a .csv file"
            )
        if self.seed < 0:
            raise UsageError(f"expected the permutation seed from 0 on, got {self.seed}")
        if (self.matrix is None) == (self.convention == MATRIX):
            raise UsageError("expected a matrix with the convention 'matrix', and with no other")
        if self.matrix is not None:  # a checkpoint has lists
            object.__setattr__(self, "matrix", as_matrix(self.matrix))

    def relabelled(
        self, labels: Int64[np.ndarray, " n"], n_classes: int, rng: np.random.Generator
    ) -> Int64[np.ndarray, " n"]:
        """The labels that examples of S get in place of these.

        Raises :class:`~manigeo.errors.UsageError` for a matrix of another number of classes.
        """
        if self.matrix is None:
            return CONVENTIONS[self.convention](labels, n_classes, rng)
        if len(self.matrix) != n_classes:
            raise UsageError(f"expected a matrix of {n_classes} classes, got one of {len(self.matrix)}")
        return drawn_by_row(labels, self.matrix, rng)


def permute_labels(data: DataSet, permutation: Permutation) -> pd.DataFrame:
    r"""Table of the examples: one row per example of ``data``, with the labels to train on.

    .. math:: |S| = \mathrm{round}(\epsilon\, n_\mathrm{train}), \quad S \subset \mathrm{train}

    Columns ``index``, ``split``, ``true_label``, ``train_label``, ``permuted`` (member of S, even where the label came
    out unchanged, but for a matrix). With one seed, S is the same for all conventions, and a smaller fraction's S lies
    within a larger's. Stephenson et al. (2021); Zhang et al. (2017).

    >>> data = load_data("digits", {"per_class": 10})
    >>> examples = permute_labels(data, Permutation(0.5))
    >>> int(examples["permuted"].sum()), len(data.rows("train"))
    (50, 100)
    """
    train = data.could_train  # whether an example is permuted, and how, is the same in every subset
    size = round(permutation.fraction * len(train))
    S = generator(permutation.seed, "members").permutation(train)[:size]
    permuted, labels = np.zeros(len(data.labels), dtype=bool), data.labels.copy()
    labels[S] = permutation.relabelled(data.labels[S], data.n_classes, generator(permutation.seed, "labels"))
    permuted[S] = True if permutation.matrix is None else labels[S] != data.labels[S]
    return pd.DataFrame(
        {
            "index": data.index,
            "split": data.split,
            "true_label": data.labels,
            "train_label": labels,
            "permuted": permuted,
        }
    )


# ------------------------------------------------------------------------------------------------ spec, args -> parts
def _named(spec: Any) -> str:
    """A text as it is; a function by its name, and splits at hand by that of a function that returns them."""
    if isinstance(spec, str):
        return spec
    if callable(spec) and not isinstance(spec, Mapping):
        return Named(spec)
    if spec is None or isinstance(spec, DataSet):
        raise UsageError(f"expected the name of data, a function or (train, test), got {type(spec).__name__}")
    return Named(lambda: spec, "<data at hand>")


def _options(spec: str, given: dict[str, Any], validation: float | None) -> dict[str, Any]:
    """The args in force: common defaults, then the source's own, then what was given."""
    parameters = _parameters(spec)
    own = {name: p.default for name, p in parameters.items() if isinstance(p.default, str | int | float)}
    source = spec.partition(":")[0]
    images = {name: None for name in (*PREPARATION, "size") if source in IMAGES and name not in parameters}
    default = validation if validation is not None else SET_APART if source in OURS else 0.0
    common = {**COMMON, "validation": default, **images}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in given:
            if name not in (*common, *parameters):
                others = ", ".join(other for other in SOURCES if name in _of_source(other))
                near = f"; it is one of {others}" if others else near_names(name, sorted({*common, *parameters}))
                raise UsageError(f"{spec} has no arg {name!r}{near}")
    options = {**common, **own, **given}
    numbers = {**common, **({} if runs_code(spec) else own | {name: None for name in parameters if name not in own})}
    numbers = {name: d for name, d in numbers.items() if not isinstance(d, str) and name not in NOT_NUMBERS}
    return options | {name: _number(spec, name, options.get(name), numbers[name]) for name in numbers}


def _parameters(spec: str) -> dict[str, inspect.Parameter]:
    name, _, place = spec.partition(":")
    if name not in SOURCES:
        return dict(_factory_parameters(spec))
    if bool(place) == (name in WITHOUT_PLACE):
        wanted = f"{name!r} alone" if name in WITHOUT_PLACE else f"where to read, '{name}:PATH'"
        raise UsageError(f"expected {wanted}, got {spec!r}")
    return _of_source(name)


def _of_source(name: str) -> dict[str, inspect.Parameter]:
    found = inspect.signature(SOURCES[name]).parameters
    return {key: p for key, p in found.items() if p.kind is p.KEYWORD_ONLY}


def _factory_parameters(spec: str) -> Mapping[str, inspect.Parameter]:
    if isinstance(spec, Named):
        return lazy.factory_parameters(spec)
    place, _, name = spec.rpartition(":")
    words = [*name.split("."), *([] if place.endswith(".py") else place.split("."))]
    if not place or not all(word.isidentifier() for word in words):
        near = near_names(spec.partition(":")[0], [*SOURCES, "package.module:factory", "file.py:factory"])
        raise UsageError(f"unknown data set {spec!r}{near}")
    return lazy.factory_parameters(spec)


def _number(spec: str, name: str, value: Any, default: Any) -> int | float | None:
    if value is None and default is None:
        return None
    wanted = "a number" if isinstance(default, float) else "a whole number"
    known = isinstance(value, Integral) or (isinstance(value, Real) and isinstance(default, float))
    if not known or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise UsageError(f"{spec}: expected {name} as {wanted} from 0 on, got {value!r}")
    return float(value) if isinstance(default, float) else int(value)


def _read(spec: str, options: Mapping[str, Any]) -> Source:
    name, _, place = spec.partition(":")
    parameters = _parameters(spec)
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    own = {key: value for key, value in options.items() if key in parameters or (any_name and key not in COMMON)}
    if name not in SOURCES:
        return lazy.read_factory(spec, own)
    return SOURCES[name](*([Path(place).expanduser()] if place else []), **own)


def _with_unseen(spec: str, source: Source, options: dict[str, Any]) -> Source:
    """The source with its held-out classes apart; the options then name them."""
    if options["holdout_classes"] is None:
        return source
    unseen = choose_unseen(spec, options["holdout_classes"], source.class_names, options["seed"])
    options["holdout_classes"] = [source.class_names[label] for label in unseen]
    return hold_classes_out(source, unseen)


def _splits(spec: str, source: Source, options: dict[str, Any], *, asked: bool) -> dict[str, Part]:
    """Train, validation and test, after setting validation apart and thinning train out."""
    train, validation = source.parts["train"], source.parts.get("validation")
    if "validation" in _parameters(spec):
        pass  # the source has made it, or none was wanted
    elif validation is None:
        train, validation = _set_apart(spec, train, options)
    elif asked:
        raise UsageError(f"{spec} brings its own validation split; leave the arg 'validation' out")
    else:
        del options["validation"]
    train = _thinned(spec, train, options)
    return {"train": train} | ({"validation": validation} if validation else {}) | {"test": source.parts["test"]}


def _set_apart(spec: str, train: Part, options: Mapping[str, Any]) -> tuple[Part, Part]:
    if options["validation"] >= 1:
        raise UsageError(f"{spec}: expected validation as a fraction below 1, got {options['validation']}")
    apart = stratified(train.labels, share_of(options["validation"]), generator(options["seed"], "hold out validation"))
    return train.take(~apart), train.take(apart)


def _with_left_out(data: DataSet) -> DataSet:
    """The data with a share of the training examples in training, drawn at random; the others are left out of it. What is
    scaled, and the fingerprint, are those of all of them."""
    share, train = data.args["subset"], data.rows("train")
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < round(float(share) * len(train)) <= len(train):
        raise UsageError(
            f"{data.spec}: expected subset as a share of the {len(train)} training examples, such as 0.7, got {share!r}"
        )
    drawn = generator(data.args.get("subset_seed", 0), "subset").permutation(train)
    split = data.split.astype("U10")
    split[drawn[round(float(share) * len(train)) :]] = LEFT_OUT
    return replace(data, split=split)


def _thinned(spec: str, train: Part, options: Mapping[str, Any]) -> Part:
    most = options["per_class"]
    if most is None:
        return train
    if most < 1:
        raise UsageError(f"{spec}: expected per_class of at least 1, got {most}")
    return train.take(stratified(train.labels, lambda members: most, generator(options["seed"], "per_class")))

"""The layers of a network: their names, in the order in which a forward pass completes them.

A few probing forward passes find them (:mod:`manigeo_extract.recording.census`), so that a layer is what was computed and
not what was declared: a module called twice is ``name`` and ``name#1``; one module under two names is one layer with an
alias; functions such as ``torch.relu`` are not modules and cannot be seen. A container completes after its children and
therefore follows them.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from manigeo.errors import UsageError
from manigeo_extract.batches import Batch
from manigeo_extract.recording.census import take_census
from manigeo_extract.recording.modes import (
    eagerly,
    evaluating,
    hooked,
    name_of_call,
    name_of_end,
    names_of_modules,
    taking_inputs,
    unwrap,
    without_gradients,
)
from manigeo_extract.recording.outputs import Layer, first_tensor, input_tensor, logits_of
from manigeo_extract.resolve import near_names

__all__ = [
    "Layer", "eagerly", "evaluating", "first_tensor", "hooked", "input_tensor", "list_layers", "logits_of", "name_of_call",
    "name_of_end", "names_of_modules", "select_layers", "taking_inputs", "unwrap", "without_gradients",
]  # fmt: skip


def list_layers(model: nn.Module, batch: Batch, batch_axes: Mapping[str, int] | None = None) -> list[Layer]:
    """List the layers of ``model`` that return a floating point tensor, by execution, from passes of ``batch``.

    The input comes first, unless it is of whole numbers (token ids). A mapping is passed as keyword arguments
    to a network whose ``forward`` takes these names, else as it is. Of a tuple, list, dictionary or dataclass the first
    floating point tensor with a batch dimension counts. The model is left as it was. Raises what the network raises.
    For ``batch_axes``, and for what is left out and why, see :func:`~manigeo_extract.recording.census.take_census`.

    >>> import torch
    >>> [layer.name for layer in list_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.zeros(1, 3))]
    ['input', '0', '1']
    """
    return list(take_census(model, batch, batch_axes).layers)


def select_layers(
    layers: Sequence[Layer],
    patterns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    regex: Sequence[str] = (),
    types: Sequence[str] = (),
    unrecordable: Mapping[str, str] | None = None,
) -> list[Layer]:
    """The layers wanted by name and by type and not excluded, numbered anew.

    By name: a name or alias matches one of the globs ``patterns`` or, all of it, one of the regular expressions
    ``regex``. By type: the class matches one of the globs ``types``. ``exclude`` are globs of names. Without ``patterns``,
    ``regex`` and ``types``: the input, every module that computes with parameters of its own, and the output. A layer that
    has no row for each example, and one that is a further output of a module, is taken only by name. A pattern that names
    one of the ``unrecordable`` modules alone is refused with the reason that stands there.

    >>> import torch
    >>> layers = list_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 3))
    >>> [layer.name for layer in select_layers(layers, types=["Linear"], exclude=["output"])]
    ['0']

    Raises :class:`~manigeo.errors.UsageError` on a pattern that matches nothing, and on one that is not a regular
    expression.
    """
    globs, named = [_glob(p) for p in patterns], [_regex(p) for p in regex]
    left_out, typed = [_glob(p) for p in exclude], [_glob(p) for p in types]
    for pattern in (*globs, *named, *left_out):
        _check_recordable(pattern, layers, unrecordable or {})
        _check_pattern(pattern, layers, "layer", lambda layer: layer.names)
    for pattern in typed:
        _check_pattern(pattern, layers, "type", lambda layer: (layer.module_class,))
    chosen = [layer for layer in layers if _is_chosen(layer, [*globs, *named], typed)]
    if not chosen:
        raise UsageError(
            f"no layer named by {[*patterns, *regex]} has a type of {list(types)}; take more types or names"
        )
    kept = [layer for layer in chosen if not _matches(layer.names, left_out)]
    if not kept:
        raise UsageError(f"no layer is left: {list(exclude)} excludes all {len(chosen)} selected layers; exclude fewer")
    return [dataclasses.replace(layer, order=order) for order, layer in enumerate(kept)]


@dataclasses.dataclass(frozen=True)
class _Pattern:
    text: str
    matches: Callable[[str], object]


def _glob(text: str) -> _Pattern:
    return _Pattern(text, lambda name: name == text or fnmatch.fnmatchcase(name, text))


def _regex(text: str) -> _Pattern:
    try:
        return _Pattern(text, re.compile(text).fullmatch)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}") from error


def _check_recordable(pattern: _Pattern, layers: Sequence[Layer], unrecordable: Mapping[str, str]) -> None:
    reasons = {name: why for name, why in unrecordable.items() if pattern.matches(name)}
    others = [layer for layer in layers if layer.batched and _matches(layer.names, [pattern])]
    if reasons and not others:
        name, why = next(iter(reasons.items()))
        raise UsageError(f"layer {name!r} cannot be recorded: it {why}")


def _check_pattern(
    pattern: _Pattern, layers: Sequence[Layer], what: str, names: Callable[[Layer], tuple[str, ...]]
) -> None:
    known = dict.fromkeys(name for layer in layers for name in names(layer))
    if not _matches(tuple(known), [pattern]):
        raise UsageError(f"no {what} matches {pattern.text!r}{near_names(pattern.text, known)}")


def _matches(names: Sequence[str], patterns: Sequence[_Pattern]) -> bool:
    return any(pattern.matches(name) for name in names for pattern in patterns)


def _is_chosen(layer: Layer, named: Sequence[_Pattern], typed: Sequence[_Pattern]) -> bool:
    if not layer.batched:
        return any(pattern.text in layer.names for pattern in named)
    if layer.part and not named:
        return False
    if not (named or typed):
        return _by_default(layer)
    return (not named or _matches(layer.names, named)) and (not typed or _matches([layer.module_class], typed))


def _by_default(layer: Layer) -> bool:
    is_end = layer.module_class == "Input" or not {"output", "model.output"}.isdisjoint(layer.names)
    return is_end or layer.parameters > 0

"""The layers of a network: their names, in the order in which a forward pass completes them.

One probing forward pass finds them, so that a layer is what was computed and not what was declared: a module called
twice is ``name`` and ``name#1``; one module under two names is one layer with an alias; functions such as
``torch.relu`` are not modules and cannot be seen. A container completes after its children and therefore follows them.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError, one_line
from manigeo_extract.batches import MASK, Batch, called, like_parameters, n_examples, shapes
from manigeo_extract.resolve import near_names


@dataclasses.dataclass(frozen=True)
class Layer:
    """One output of one module: which, when, and of what shape.

    ``name`` is the module's path, with ``#k`` on its call k > 0; ``input`` is the batch itself and ``output`` what the
    network returns, unless a layer returns just that and has ``output`` among its ``aliases``. ``order`` counts 0, 1,
    ... by execution; ``feature_shape`` leaves the batch dimension out; ``parameters`` counts the scalars the module
    owns itself; ``calls`` is how often a forward pass calls it; ``batched`` tells whether there is a row for each example
    (position embeddings have one for all); ``readout`` is what :mod:`manigeo_extract.recording.readouts` makes of the
    output, whose shape ``feature_shape`` then is.
    """

    name: str
    module_class: str
    order: int
    call_index: int
    feature_shape: tuple[int, ...]
    aliases: tuple[str, ...]
    leaf: bool
    parameters: int
    calls: int = 1
    batched: bool = True
    readout: str = "flatten"

    @property
    def n_features(self) -> int:
        """Number of features: the product of ``feature_shape``."""
        return math.prod(self.feature_shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The name and all aliases."""
        return (self.name, *self.aliases)

    @property
    def path(self) -> str:
        """The module's own name: that of its first call."""
        return self.name.removesuffix(name_of_call("", self.call_index))


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, out of ``DataParallel``, ``DistributedDataParallel``, ``torch.compile``, however nested."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile; asking for its class would import the compiler
            model = model.get_submodule("_orig_mod")
        else:
            return model


def list_layers(model: nn.Module, batch: Batch) -> list[Layer]:
    """List the layers of ``model`` that return a floating point tensor, by execution, from one pass of ``batch``.

    The input comes first, unless it is of whole numbers (token ids). A mapping is passed as keyword arguments
    to a network whose ``forward`` takes these names, else as it is. Of a tuple, list, dictionary or dataclass the first
    floating point tensor with a batch dimension counts. The model is left as it was. Raises what the network raises.

    >>> [layer.name for layer in list_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.zeros(1, 3))]
    ['input', '0', '1']
    """
    root = unwrap(model)
    probe = _Probe(root, n_examples(batch))
    with evaluating(root), hooked({module: probe for module in probe.names}), _counting_versions(), eagerly(root):
        output = called(root, like_parameters(root, batch))
    return probe.layers(input_tensor(batch), output)


def select_layers(
    layers: Sequence[Layer],
    patterns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    regex: Sequence[str] = (),
    types: Sequence[str] = (),
) -> list[Layer]:
    """The layers wanted by name and by type and not excluded, numbered anew.

    By name: a name or alias matches one of the globs ``patterns`` or, all of it, one of the regular expressions
    ``regex``. By type: the class matches one of the globs ``types``. ``exclude`` are globs of names. Without ``patterns``,
    ``regex`` and ``types``: the input, every module without children that has parameters, and the output. A layer that
    has no row for each example is taken only if a pattern is its very name.

    >>> layers = list_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 3))
    >>> [layer.name for layer in select_layers(layers, types=["Linear"], exclude=["output"])]
    ['0']

    Raises :class:`~manigeo.errors.UsageError` on a pattern that matches nothing, and on one that is not a regular
    expression.
    """
    globs, named = [_glob(p) for p in patterns], [_regex(p) for p in regex]
    left_out, typed = [_glob(p) for p in exclude], [_glob(p) for p in types]
    for pattern in (*globs, *named, *left_out):
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
    if not (named or typed):
        return _by_default(layer)
    return (not named or _matches(layer.names, named)) and (not typed or _matches([layer.module_class], typed))


def _by_default(layer: Layer) -> bool:
    is_end = layer.module_class == "Input" or not {"output", "model.output"}.isdisjoint(layer.names)
    return is_end or (layer.leaf and layer.parameters > 0)


# What a forward pass needs that only looks; evaluation.py, recording.py and training.py use it too.


@contextmanager
def evaluating(root: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; after it every module's training flag is what it was."""
    training = {module: module.training for module in root.modules()}
    try:
        root.eval()
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


@contextmanager
def eagerly(root: nn.Module) -> Iterator[None]:
    """Compiled parts of ``root`` run as plain Python, since compiled code ignores hooks that came later."""
    if any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in root.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


@contextmanager
def hooked(hooks: Mapping[nn.Module, Callable[[nn.Module, object, object], None]]) -> Iterator[None]:
    """The forward hooks are there inside the block and gone after it, also after an exception."""
    with ExitStack() as stack:
        for module, hook in hooks.items():
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def _counting_versions() -> Iterator[None]:
    """No gradients, and not inference mode, whose tensors do not count how often they were changed in place."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def taking_inputs(batch: Batch, source: str) -> Iterator[None]:
    """Whatever a network raises inside the block becomes one line that names the inputs it was given.

    Raises :class:`~manigeo.errors.InputError`: the network is anybody's, and so is what it raises.
    """
    try:
        yield
    except Exception as error:
        raise InputError(
            f"the network does not take inputs of {shapes(batch)} from {source}: {one_line(error)}; {_remedy(batch)}"
        ) from error


def _remedy(batch: Batch) -> str:
    tensors = [batch] if isinstance(batch, Tensor) else list(batch.values())
    if len(tensors) == 1 and not tensors[0].is_floating_point():
        return "whole numbers go in as they are: return floats where the network wants them"
    return "give data of its shape (--data, --data-arg size=N for images), or build it for these (--arch-arg)"


def names_of_modules(root: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """Every module below ``root`` with all its names, the one declared first in front."""
    names: dict[nn.Module, tuple[str, ...]] = {}
    for name, module in root.named_modules(remove_duplicate=False):
        if module is not root:
            names[module] = (*names.get(module, ()), name)
    return names


def name_of_call(name: str, call_index: int) -> str:
    """``name`` for the first call of a module, ``name#1`` for the second, and so on."""
    return f"{name}#{call_index}" if call_index else name


def name_of_end(end: str, root: nn.Module) -> str:
    """``input`` or ``output``, but ``model.input`` or ``model.output`` in a network with a module of that very name."""
    return f"model.{end}" if end in root._modules else end


def first_tensor(output: object) -> Tensor | None:
    """The first floating point tensor with a batch dimension in a module's output, searched depth first."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.ndim else None
    return next((tensor for tensor in map(first_tensor, _parts(output)) if tensor is not None), None)


def input_tensor(batch: Batch) -> Tensor | None:
    """Return the tensor of a batch that counts as the input: a float one or pixels, of several the first but the mask."""
    if isinstance(batch, Tensor):
        return batch if batch.is_floating_point() or batch.dtype == torch.uint8 else None  # token ids are names
    return first_tensor([tensor for name, tensor in batch.items() if name != MASK])


def _parts(output: object) -> Iterable[object]:
    if isinstance(output, Mapping):
        return output.values()
    if isinstance(output, (tuple, list)):
        return output
    if dataclasses.is_dataclass(output):
        return [getattr(output, field.name) for field in dataclasses.fields(output)]
    return ()


class _Probe:
    """A forward hook that notes every call of every module."""

    def __init__(self, root: nn.Module, n_examples: int) -> None:
        self.root = root
        self.n_examples = n_examples
        self.names = names_of_modules(root)
        self.calls: Counter[nn.Module] = Counter()
        self.seen: list[Layer] = []
        self.last: dict[str, tuple[int, Tensor, int]] = {}  # position, output, how often that was changed in place

    def __call__(self, module: nn.Module, _args: object, output: object) -> None:
        call = self.calls[module]
        self.calls[module] += 1
        tensor = first_tensor(output)
        if tensor is None:
            return
        name, *aliases = (name_of_call(name, call) for name in self.names[module])
        layer = _layer(module, name, tuple(aliases), tensor, call, self.n_examples)
        self.last["leaf" if layer.leaf else "container"] = (len(self.seen), tensor, tensor._version)
        self.seen.append(layer)

    def layers(self, inputs: Tensor | None, output: object) -> list[Layer]:
        """The input, what was noted, and the output, in order."""
        calls = {names[0]: self.calls[module] for module, names in self.names.items()}
        found = [*self._input(inputs), *self._with_output(first_tensor(output))]
        return [
            dataclasses.replace(layer, order=order, calls=calls.get(layer.path, 1)) for order, layer in enumerate(found)
        ]

    def _input(self, inputs: Tensor | None) -> list[Layer]:
        if inputs is None:
            return []
        name, shape = name_of_end("input", self.root), tuple(inputs.shape[1:])
        return [Layer(name, "Input", 0, 0, shape, (), leaf=True, parameters=0)]

    def _with_output(self, output: Tensor | None) -> list[Layer]:
        """Return the layers seen; the one that made the output has its alias, else the output is a layer of its own."""
        if output is None:
            return self.seen
        name = name_of_end("output", self.root)
        for position, tensor, version in (self.last[kind] for kind in ("leaf", "container") if kind in self.last):
            if _same(tensor, output) and tensor._version == version:
                layer = self.seen[position]
                return [*self.seen[:position], _also_named(layer, name), *self.seen[position + 1 :]]
        return [*self.seen, _layer(self.root, name, (), output, 0, self.n_examples)]


def _layer(
    module: nn.Module, name: str, aliases: tuple[str, ...], output: Tensor, call_index: int, n_examples: int
) -> Layer:
    return Layer(
        name=name,
        module_class=module._get_name(),  # the class, but what a function is called in a traced network
        order=0,  # the list gives the number
        call_index=call_index,
        feature_shape=tuple(output.shape[1:]),
        aliases=aliases,
        leaf=next(module.children(), None) is None,
        parameters=sum(p.numel() for p in module.parameters(recurse=False)),
        batched=len(output) == n_examples,
    )


def _also_named(layer: Layer, name: str) -> Layer:
    return dataclasses.replace(layer, aliases=(*layer.aliases, name))


def _same(tensor: Tensor, other: Tensor) -> bool:
    """Return whether both tensors are the same numbers in the same memory."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) == (other.data_ptr(), other.shape, other.stride())

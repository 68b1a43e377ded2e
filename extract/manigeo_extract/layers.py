"""The layers of a network: their names, in the order in which a forward pass completes them.

One probing forward pass finds them, so that a layer is what was computed and not what was declared: a module called
twice is ``name`` and ``name#1``; one module under two names is one layer with an alias; functions such as
``torch.relu`` are no modules and cannot be seen. A container completes after its children and therefore follows them.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError
from manigeo_extract.resolve import near_names


@dataclasses.dataclass(frozen=True)
class Layer:
    """One output of one module: which, when, and of what shape.

    ``name`` is the module's path, with ``#k`` on its call k > 0; ``input`` is the batch itself and ``output`` what the
    network returns, unless a layer returns just that and has ``output`` among its ``aliases``. ``order`` counts 0, 1,
    ... by execution; ``feature_shape`` leaves the batch dimension out; ``parameters`` counts the scalars the module
    owns itself.
    """

    name: str
    module_class: str
    order: int
    call_index: int
    feature_shape: tuple[int, ...]
    aliases: tuple[str, ...]
    leaf: bool
    parameters: int

    @property
    def n_features(self) -> int:
        """Number of features: the product of ``feature_shape``."""
        return math.prod(self.feature_shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The name and all aliases."""
        return (self.name, *self.aliases)


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, out of ``DataParallel``, ``DistributedDataParallel``, ``torch.compile``, however nested."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile; asking for its class would import the compiler
            model = model.get_submodule("_orig_mod")
        else:
            return model


def list_layers(model: nn.Module, batch: Tensor) -> list[Layer]:
    """All layers of ``model`` that return a floating point tensor, by execution, from one forward pass of ``batch``.

    The input comes first. Of a tuple, list, dictionary or dataclass the first floating point tensor with a batch
    dimension counts. The model is left as it was.

    >>> [layer.name for layer in list_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), torch.zeros(1, 3))]
    ['input', '0', '1']
    """
    root = unwrap(model)
    probe = _Probe(root)
    with evaluating(root), hooked({module: probe for module in probe.names}), _counting_versions(), eagerly(root):
        output = root(like_parameters(root, batch))
    return probe.layers(tuple(batch.shape[1:]), output)


def select_layers(layers: Sequence[Layer], patterns: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Layer]:
    """The layers whose name or alias matches one of the glob ``patterns`` and none of ``exclude``, numbered anew.

    Without patterns: the input, every module without children that has parameters, and the output. Raises
    :class:`~manigeo.errors.UsageError` on a pattern that matches nothing.
    """
    for pattern in (*patterns, *exclude):
        if not any(_matches(layer, [pattern]) for layer in layers):
            known = dict.fromkeys(name for layer in layers for name in layer.names)
            raise UsageError(f"no layer matches {pattern!r}{near_names(pattern, known)}")
    chosen = [layer for layer in layers if (_matches(layer, patterns) if patterns else _by_default(layer))]
    kept = [layer for layer in chosen if not _matches(layer, exclude)]
    if not kept:
        raise UsageError(f"no layer is left: {list(exclude)} excludes all {len(chosen)} selected layers; exclude fewer")
    return [dataclasses.replace(layer, order=order) for order, layer in enumerate(kept)]


def _matches(layer: Layer, patterns: Sequence[str]) -> bool:
    return any(name == p or fnmatch.fnmatchcase(name, p) for name in layer.names for p in patterns)


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


def like_parameters(root: nn.Module, batch: Tensor) -> Tensor:
    """A copy of ``batch`` on the device of the parameters and, if it holds floating point numbers, of their dtype.

    The copy keeps the caller's batch from a network that begins with an in-place operation.
    """
    own = next((p for p in root.parameters() if p.is_floating_point()), batch)
    return batch.to(own.device, own.dtype if batch.is_floating_point() else batch.dtype, copy=True)


@contextmanager
def taking_inputs(batch: Tensor, source: str) -> Iterator[None]:
    """Whatever a network raises inside the block becomes one line that names the inputs it was given.

    Raises :class:`~manigeo.errors.InputError`: the network is anybody's, and so is what it raises.
    """
    try:
        yield
    except Exception as error:
        shape = " x ".join(map(str, batch.shape[1:]))
        raise InputError(f"the network does not take inputs of shape {shape} from {source}: {error}") from error


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

    def __init__(self, root: nn.Module) -> None:
        self.root = root
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
        layer = _layer(module, name, tuple(aliases), tensor, call)
        self.last["leaf" if layer.leaf else "container"] = (len(self.seen), tensor, tensor._version)
        self.seen.append(layer)

    def layers(self, input_shape: tuple[int, ...], output: object) -> list[Layer]:
        """The input, what was noted, and the output, in order."""
        first = Layer(name_of_end("input", self.root), "Input", 0, 0, input_shape, (), leaf=True, parameters=0)
        layers = [first, *self._with_output(first_tensor(output))]
        return [dataclasses.replace(layer, order=order) for order, layer in enumerate(layers)]

    def _with_output(self, output: Tensor | None) -> list[Layer]:
        """What was noted; the layer that made the output has its alias, else the output is a layer of its own."""
        if output is None:
            return self.seen
        name = name_of_end("output", self.root)
        for position, tensor, version in (self.last[kind] for kind in ("leaf", "container") if kind in self.last):
            if _same(tensor, output) and tensor._version == version:
                layer = self.seen[position]
                return [*self.seen[:position], _also_named(layer, name), *self.seen[position + 1 :]]
        return [*self.seen, _layer(self.root, name, (), output, 0)]


def _layer(module: nn.Module, name: str, aliases: tuple[str, ...], output: Tensor, call_index: int) -> Layer:
    return Layer(
        name=name,
        module_class=type(module).__name__,
        order=0,  # the list gives the number
        call_index=call_index,
        feature_shape=tuple(output.shape[1:]),
        aliases=aliases,
        leaf=next(module.children(), None) is None,
        parameters=sum(p.numel() for p in module.parameters(recurse=False)),
    )


def _also_named(layer: Layer, name: str) -> Layer:
    return dataclasses.replace(layer, aliases=(*layer.aliases, name))


def _same(tensor: Tensor, other: Tensor) -> bool:
    """Whether both are the same numbers in the same memory."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) == (other.data_ptr(), other.shape, other.stride())

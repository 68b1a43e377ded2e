r"""Layers as what can be exchanged: which tensors of a network belong together, in the order of execution.

Interventions replace the parameters of a layer, so a layer is here a set of names in the state dict. By default it is a
module's own parameters together with the normalisation that takes its output, running statistics included: after the
weights of a convolution are exchanged, statistics of what they used to give would belong to nothing.

===========  ==============================================================================================
grouping     a group is
===========  ==============================================================================================
module       a module with parameters of its own, and the normalisation beside it that takes its output (the default)
kernel       the weight tensor of a module, that which multiplies its inputs: no bias, no normalisation
block        the innermost member of a container (``nn.Sequential``, ``nn.ModuleList``) with several layers
stage        a child of the network
``(...)``    a regular expression: layers with the same match (its first group, if it has one) are one
===========  ==============================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from manigeo.errors import InputError, UsageError
from manigeo.weights import is_kernel
from manigeo_extract.batches import Batch, called, like_parameters
from manigeo_extract.recording.layers import eagerly, evaluating, first_tensor, hooked, names_of_modules, unwrap
from manigeo_extract.resolve import near_names

GROUPINGS = ("module", "kernel", "block", "stage")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Group:
    """Tensors of the state dict that are exchanged together.

    ``name`` is that of the module (or block, stage, match); ``order`` counts 0, 1, ... by execution; ``modules`` are the
    paths of the modules that own the tensors; ``parameters`` and ``buffers`` are names in the state dict. A tensor that
    several modules share belongs to the first of them that is executed, under its first name.
    """

    name: str
    order: int
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...] = ()


def group_layers(model: nn.Module, batch: Batch, by: str = "module") -> list[Group]:
    """The groups of tensors of ``model`` by execution, found by one forward pass of ``batch``.

    Modules that the pass does not call by themselves (the output projection of an attention layer) stand where their
    nearest ancestor that is called stands; those of the network itself (class tokens) come first. The model is left as
    it was.

    >>> net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1))
    >>> [(group.name, len(group.parameters), len(group.buffers)) for group in group_layers(net, torch.zeros(2, 3))]
    [('0', 4, 3), ('3', 2, 0)]

    Raises :class:`~manigeo.errors.UsageError` for a grouping that is none of :data:`GROUPINGS` and no regular expression,
    and for one that matches nothing; :class:`~manigeo.errors.InputError` for a network without parameters.
    """
    root = unwrap(model)
    layers = _layers(root, batch)
    if not layers:
        raise InputError("the network has no parameters: there is nothing to exchange")
    if by == "module":
        return layers
    if by == "kernel":
        return _kernels(root, layers)
    if by in ("block", "stage"):
        return _merged(layers, _block_names(root, layers) if by == "block" else _stage_names)
    return _merged(layers, _matches(by, layers))


def select_groups(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    """The groups of these names, in the order of execution; all without any.

    A group goes by its name, and by that of each of its modules (``h1.linear``) where no other group has it too.

    Raises :class:`~manigeo.errors.UsageError` for a name that no group has, with near ones.
    """
    known = {path: group for group in reversed(groups) for path in (*group.modules, group.name)}
    for name in names:
        if name not in known:
            raise UsageError(f"no layer {name!r}{near_names(name, [group.name for group in groups])}")
    return [group for group in groups if group in [known[name] for name in names]] if names else list(groups)


# ----------------------------------------------------------------------------------------------------------- the layers
class _Order:
    """A forward hook that notes when each module was first done, and which normalisation took whose output."""

    def __init__(self, names: dict[nn.Module, tuple[str, ...]]) -> None:
        self.names = names
        self.done: dict[nn.Module, int] = {}
        self.takes: dict[nn.Module, nn.Module] = {}
        self._outputs: list[tuple[nn.Module, Tensor]] = []  # held, so that no later output lies in the same memory

    def __call__(self, module: nn.Module, inputs: object, output: object) -> None:
        self.done.setdefault(module, len(self.done))
        if isinstance(module, _NORMS) and (taken := first_tensor(inputs)) is not None:
            maker = next((made for made, tensor in reversed(self._outputs) if _is_same(tensor, taken)), None)
            if maker is not None and self._parent(maker) == self._parent(module):
                self.takes.setdefault(module, maker)
        elif _owned(module) and (tensor := first_tensor(output)) is not None:
            self._outputs.append((module, tensor))

    def _parent(self, module: nn.Module) -> str:
        """Members of one module: the first normalisation of a block does not belong to what came before the block."""
        return self.names[module][0].rpartition(".")[0]


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) == (other.data_ptr(), other.shape, other.stride())


def _owned(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _layers(root: nn.Module, batch: Batch) -> list[Group]:
    """Modules with parameters of their own, each with the normalisation that takes its output."""
    names = names_of_modules(root)
    order = _Order(names)
    with evaluating(root), hooked(dict.fromkeys(names, order)), eagerly(root), torch.no_grad():
        called(root, like_parameters(root, batch))
    rank = _ranks(root, names, order.done)
    owners = sorted((m for m in [root, *names] if _owned(m)), key=lambda m: rank[m])
    members: dict[nn.Module, list[nn.Module]] = {}
    for module in owners:
        members.setdefault(order.takes.get(module, module), []).append(module)
    taken: set[Tensor] = set()
    found = [_group(root, [(_path(m, names), m) for m in of_layer], taken) for of_layer in members.values()]
    return [replace(group, order=i) for i, group in enumerate(g for g in found if g.parameters)]


def _path(module: nn.Module, names: dict[nn.Module, tuple[str, ...]]) -> str:
    return names[module][0] if module in names else ""


def _ranks(
    root: nn.Module, names: dict[nn.Module, tuple[str, ...]], done: dict[nn.Module, int]
) -> dict[nn.Module, tuple[int, int]]:
    """When a module was done; of those that were not called, when the nearest ancestor was."""
    when: dict[str, int] = {path: done[module] for module, paths in names.items() for path in paths if module in done}

    def rank(path: str) -> int:
        while path and path not in when:
            path = path.rpartition(".")[0]
        return when.get(path, -1)

    return {root: (-1, 0)} | {module: (rank(paths[0]), i) for i, (module, paths) in enumerate(names.items(), 1)}


def _group(root: nn.Module, modules: Sequence[tuple[str, nn.Module]], taken: set[Tensor]) -> Group:
    """The group of these modules without the tensors that are taken, which its own then are too."""
    stored = root.state_dict().keys()
    parameters: list[str] = []
    buffers: list[str] = []
    for path, module in modules:
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            full = f"{path}.{name}" if path else name
            if tensor in taken or full not in stored:  # shared, or a buffer that is no state
                continue
            taken.add(tensor)
            (parameters if isinstance(tensor, nn.Parameter) else buffers).append(full)
    paths = tuple(path for path, _ in modules)
    return Group(paths[0] or "(network)", 0, paths, tuple(parameters), tuple(buffers))


# ---------------------------------------------------------------------------------------------------- other groupings
def _kernels(root: nn.Module, layers: Sequence[Group]) -> list[Group]:
    shapes = {name: tuple(tensor.shape) for name, tensor in root.named_parameters()}
    kernels = [
        replace(group, parameters=tuple(name for name in group.parameters if is_kernel(name, shapes[name])), buffers=())
        for group in layers
    ]
    return [replace(group, order=i) for i, group in enumerate(group for group in kernels if group.parameters)]


def _merged(layers: Sequence[Group], name_of: Callable[[Group], str | None]) -> list[Group]:
    """Layers of one name together, where the first of them stands; those without a name are left out."""
    together: dict[str, list[Group]] = {}
    for layer in layers:
        if (name := name_of(layer)) is not None:
            together.setdefault(name, []).append(layer)
    return [joined(name, i, members) for i, (name, members) in enumerate(together.items())]


def joined(name: str, order: int, groups: Sequence[Group]) -> Group:
    """Several groups as one."""
    modules, parameters, buffers = (
        tuple(item for group in groups for item in getattr(group, part))
        for part in ("modules", "parameters", "buffers")
    )
    return Group(name, order, modules, parameters, buffers)


def _stage_names(layer: Group) -> str:
    return layer.modules[0].partition(".")[0] or layer.name


def _block_names(root: nn.Module, layers: Sequence[Group]) -> Callable[[Group], str]:
    """The innermost member of a container that holds several layers; else the outermost that holds this one alone."""
    held: dict[str, int] = {}
    for layer in layers:
        for path in _ancestors(layer.modules[0]):
            held[path] = held.get(path, 0) + 1

    def in_container(path: str) -> bool:
        return isinstance(root.get_submodule(path.rpartition(".")[0]), _CONTAINERS)

    def name(layer: Group) -> str:
        paths = _ancestors(layer.modules[0])
        several = [path for path in paths if held[path] > 1 and in_container(path)]
        alone = [path for path in paths if held[path] == 1]
        return several[-1] if several else alone[0] if alone else layer.name

    return name


def _ancestors(path: str) -> list[str]:
    """The module and all that it lies in, the outermost first.

    >>> _ancestors("stage1.block1.conv1")
    ['stage1', 'stage1.block1', 'stage1.block1.conv1']
    """
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)] if path else []


def _matches(pattern: str, layers: Sequence[Group]) -> Callable[[Group], str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{pattern!r} is no grouping ({', '.join(GROUPINGS)}) and no regular expression: {error}"
        ) from error

    def name(layer: Group) -> str | None:
        match = compiled.search(layer.modules[0])
        return None if match is None else match.group(1 if compiled.groups else 0) or None

    if all(name(layer) is None for layer in layers):
        near = near_names(pattern, [*GROUPINGS, *(layer.name for layer in layers)])
        raise UsageError(f"no layer matches the grouping {pattern!r}{near}")
    return name

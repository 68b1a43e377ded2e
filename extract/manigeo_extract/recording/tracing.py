"""Functions as layers: residual sums and ``F.relu`` get names, through torch.fx (Reed et al. 2022, MLSys).

Hooks hear modules alone. :func:`with_functions` traces a network once and gives back one with the same modules and
weights in which every function call is a module too, so that whatever looks at layers sees them: the sum of a residual
block ``stage1.block1`` is the layer ``stage1.block1.add``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from manigeo.errors import UsageError
from manigeo_extract.batches import Batch, by_place, called, like_parameters, takes
from manigeo_extract.recording.layers import evaluating, first_tensor, names_of_modules, unwrap


def with_functions(model: nn.Module, batch: Batch) -> nn.Module:
    """The network as it is in eval mode, its function calls being modules, named after the function, of the caller.

    Modules and weights are those of ``model``. A function that is called again has the layers ``add``, ``add#1``, ...;
    where a module has that name already the function is ``add_function``.

    >>> class Residual(nn.Module):
    ...     def forward(self, x):
    ...         return torch.relu(x) + x
    >>> from manigeo_extract.recording.layers import list_layers
    >>> network = with_functions(Residual(), torch.zeros(1, 2))
    >>> [layer.names for layer in list_layers(network, torch.zeros(1, 2))]
    [('input',), ('relu',), ('add', 'output')]

    Raises :class:`~manigeo.errors.UsageError` where the forward pass cannot be traced, for it depends on values, and
    where the traced network does not give what the network gives on ``batch``.
    """
    root = unwrap(model)
    with evaluating(root), torch.no_grad():
        try:
            traced = _traced(root, batch)
            same = _same_output(root, traced, batch)
        except Exception as error:  # the network is anybody's, and so is what it does with a value that is not there
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise _not_traced(f"cannot trace this network: {reason}") from error
    if not same:
        raise _not_traced("traces this network as one that gives other outputs: its forward pass is not one graph")
    return traced


def _not_traced(what: str) -> UsageError:
    return UsageError(f"torch.fx {what}; take --backend hooks, which sees every module, but no functions")


def _same_output(root: nn.Module, traced: nn.Module, batch: Batch) -> bool:
    outputs = (first_tensor(called(network, like_parameters(root, batch))) for network in (root, traced))
    expected, found = (torch.zeros(0) if output is None else output for output in outputs)
    return expected.shape == found.shape and torch.allclose(expected, found, rtol=0, atol=0, equal_nan=True)


def _traced(root: nn.Module, batch: Batch) -> fx.GraphModule:
    tracer, parts = _Tracer(root, batch), _Parts(root)
    graph = tracer.trace(root)
    parts.found.update({path: _Returned(root.get_submodule(path)._get_name()) for path in tracer.containers})
    for node in list(graph.nodes):
        if node.op in ("call_function", "call_method"):
            scope, _ = tracer.node_name_to_scope[node.name]
            _replace(graph, node, parts.of_function(scope, node.target))
        elif node.op in ("call_module", "get_attr"):
            parts.add(node.target)
    traced = fx.GraphModule(parts.found, graph, class_name=root._get_name())
    _add_aliases(traced, root)
    return traced


def _add_aliases(traced: fx.GraphModule, root: nn.Module) -> None:
    """The further names of modules that have several: a graph knows one."""
    modules = dict(traced.named_modules())
    for name, *aliases in names_of_modules(root).values():
        for alias in aliases:
            if name in modules and alias not in modules:
                traced.add_submodule(alias, modules[name])


def _replace(graph: fx.Graph, node: fx.Node, path: str) -> None:
    with graph.inserting_before(node):
        call = graph.call_module(path, node.args, node.kwargs)
    node.replace_all_uses_with(call)
    graph.erase_node(node)


class _Tracer(fx.Tracer):
    """Notes what modules with children return, which would otherwise dissolve into the graph."""

    def __init__(self, root: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.names = tuple(batch) if isinstance(batch, Mapping) else ("x",)
        self.by_place = by_place(batch) and takes(root, *batch)
        self.by_name = isinstance(batch, Mapping) and not self.by_place and takes(root, **batch)
        self.as_tuple = by_place(batch) and not self.by_place
        self.as_mapping = isinstance(batch, Mapping) and not (self.by_name or self.by_place)
        self.containers: dict[str, None] = {}

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Proxies for the inputs alone: every other parameter of ``forward`` keeps its default."""

        def call(root: nn.Module, *values: Any) -> Any:
            named = dict(zip(self.names, values, strict=True))
            if self.by_place:
                return root_fn(root, *values)
            if self.by_name:
                return root_fn(root, **named)
            whole = values if self.as_tuple else named
            return root_fn(root, whole if self.as_mapping else values[0])

        return call, [
            self.root,
            *(self.create_proxy("placeholder", name.replace(" ", "_"), (), {}) for name in self.names),
        ]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the forward pass is torch's own, also in a derived class; a Sequential is a container."""
        return type(m).forward.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if not self.is_leaf_module(m, path):
            self.containers[path] = None
            self.create_proxy("call_module", path, (output,), {})  # nothing uses it, and a hook hears it
        return output


class _Parts:
    """Targets of the calls of a graph, by path: modules, parameters, and functions as modules."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.found: dict[str, Any] = {}
        self.functions: dict[tuple[str, Any], str] = {}

    def of_function(self, scope: str, target: Any) -> str:
        """The path of a function that the module ``scope`` calls."""
        if (scope, target) not in self.functions:
            path = f"{scope}.{_name(target)}".removeprefix(".")
            while self._is_taken(path):
                path += "_function"
            self.functions[scope, target] = path
            self.found[path] = _Function(target)
        return self.functions[scope, target]

    def _is_taken(self, path: str) -> bool:
        scope, _, name = path.rpartition(".")
        owners = (fx.GraphModule, self.root.get_submodule(scope))  # x.half() must not hide the method of a module
        return path in self.found or any(hasattr(owner, name) for owner in owners)

    def add(self, path: str) -> None:
        """The module or parameter of the network that has this path."""
        if path not in self.found:
            self.found[path] = functools.reduce(getattr, path.split("."), self.root)


def _name(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)


class _Function(nn.Module):
    """A function, or by its name a method of the first argument."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.target, str):
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)

    def _get_name(self) -> str:
        return _name(self.target)


class _Returned(nn.Module):
    """Identity on the output of a module with children, under the class name of that module."""

    def __init__(self, class_name: str) -> None:
        super().__init__()
        self.class_name = class_name

    def forward(self, output: Any) -> Any:
        return output

    def children(self) -> Iterator[nn.Module]:
        """The modules alone: a module with parameters that calls nothing but functions is a leaf here as it is there."""
        return (child for child in super().children() if not isinstance(child, _Function))

    def _get_name(self) -> str:
        return self.class_name

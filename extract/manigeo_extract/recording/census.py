"""Census of a network by forward passes of a few examples: its layers, which axis of each is the batch, what is left out.

One pass finds the modules in the order in which they are done, a second of the same examples tells which outputs are
noise, and a third, of every example twice, tells which axis grows with the batch and in which order rows of examples lie.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from manigeo.errors import UsageError
from manigeo_extract.batches import Batch, called, like_parameters, n_examples
from manigeo_extract.recording.modes import (
    eagerly,
    evaluating,
    hooked,
    name_of_call,
    name_of_end,
    names_of_modules,
    unwrap,
    without_gradients,
)
from manigeo_extract.recording.outputs import (
    PART,
    Layer,
    first_tensor,
    further_outputs,
    input_tensor,
    known_batch_axis,
    rows_of,
    tensor_of,
    unfolded,
    why_no_tensor,
)
from manigeo_extract.resolve import near_names

UNCALLED = "is not called by the forward pass: it is unused, or its weights are used without it"
UNBATCHED = "has no axis that grows with the batch: one output for all examples"


@dataclass(frozen=True)
class LeftOut:
    """A module that has weights and is no layer: its name, class, number of weights, and the reason."""

    name: str
    module_class: str
    parameters: int
    reason: str


@dataclass(frozen=True)
class Census:
    """The layers of a network, modules with weights that are none, and all modules that cannot be recorded, with why."""

    layers: tuple[Layer, ...]
    left_out: tuple[LeftOut, ...]
    unrecordable: Mapping[str, str] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """Modules with weights that are no layers, counted and named, one sentence for each reason."""
        by_reason: dict[str, list[LeftOut]] = {}
        for one in self.left_out:
            by_reason.setdefault(one.reason.partition(";")[0], []).append(one)
        return [
            f"left out: {len(modules)} module{'s' if len(modules) > 1 else ''} with {sum(m.parameters for m in modules):,} "
            f"weights, {listed([f'{m.name} ({m.module_class})' for m in modules])}: {modules[0].reason}"
            for modules in by_reason.values()
        ]


def doubts(layers: Sequence[Layer]) -> list[str]:
    """Sentences on what makes the numbers of these layers uncertain: noise, and the other examples of a batch."""
    noisy, mixed = ([layer.name for layer in layers if getattr(layer, name)] for name in ("noisy", "mixed"))
    said = []
    if noisy:
        said.append(
            f"activations differ between two passes of the same examples in {len(noisy)} layers, from {noisy[0]!r} on: is "
            "dropout always on (F.dropout without training=self.training)? Averages over this noise are not removed"
        )
    if mixed:
        said.append(
            f"activations of {listed(mixed)} depend on which examples are together in a batch: is another axis the batch "
            "(--batch-axis NAME=AXIS), or a normalisation without running statistics?"
        )
    return said


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def take_census(model: nn.Module, batch: Batch, batch_axes: Mapping[str, int] | None = None) -> Census:
    """Take the census of a network with a batch of a few examples. The model is left as it was.

    ``batch_axes`` says, by glob of layer names, which axis of an output is the batch, where that cannot be seen.

    Raises what the network raises, and :class:`~manigeo.errors.UsageError` for names or axes that are not there.

    >>> found = take_census(nn.ModuleDict({"used": nn.Linear(2, 2)})["used"], torch.zeros(2, 2))
    >>> [layer.name for layer in found.layers], found.left_out
    (['input', 'output'], ())
    """
    root = unwrap(model)
    with evaluating(root), without_gradients(), eagerly(root):
        once = _Pass(root, batch)
        with torch.random.fork_rng([]):
            noisy = _differing(once, _Pass(root, batch))
            doubled: _Pass | None = None
            with suppress(Exception):  # a network made for one size of batch
                doubled = _Pass(root, _each_twice(batch))
        return _Reading(root, batch_axes or {}, once, noisy, doubled).census()


def _each_twice(batch: Batch) -> Batch:
    """Every example twice, one after another."""
    if isinstance(batch, Tensor):
        return batch.repeat_interleave(2, 0)
    n = n_examples(batch)
    return type(batch)({k: t.repeat_interleave(2, 0) if len(t) == n else t for k, t in batch.items()})  # type: ignore


Key = tuple[nn.Module, int, str]  # module, call, part


class _Pass:
    """A forward pass, and as a hook the notes of what every call of every module returned in it."""

    def __init__(self, root: nn.Module, batch: Batch) -> None:
        self.batch = batch
        self.n_examples = n_examples(batch)
        self.calls: Counter[nn.Module] = Counter()
        self.outputs: dict[Key, Tensor] = {}
        self.reasons: dict[nn.Module, str] = {}
        self.last: dict[bool, tuple[Key, Tensor, int]] = {}  # of leaves, of others: what, and how often it was changed
        with hooked(dict.fromkeys(_computing(root), self)):
            self.output = called(root, like_parameters(root, batch))
        self._note((root, 0, ""), first_tensor(self.output))

    def __call__(self, module: nn.Module, _args: object, output: object) -> None:
        call = self.calls[module]
        self.calls[module] += 1
        tensor = tensor_of(module, output, steps=steps_of(self.batch))
        if tensor is None:
            self.reasons.setdefault(module, why_no_tensor(output))
            return
        for part, state in further_outputs(module, output).items():
            self._note((module, call, part), state)
        self._note((module, call, ""), tensor)
        self.last[is_leaf(module)] = ((module, call, ""), tensor, tensor._version)

    def _note(self, key: Key, tensor: Tensor | None) -> None:
        if tensor is not None:
            self.outputs[key] = tensor.detach().clone()  # the next module may work in place


def steps_of(batch: Batch) -> int:
    """Number of steps of the input, to which what was packed is padded again."""
    tensor = batch if isinstance(batch, Tensor) else next(iter(batch.values()))
    return tensor.shape[1] if tensor.ndim > 1 else 0


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module has no children but those that compute its weights."""
    weights = module._modules.get("parametrizations") if parametrize.is_parametrized(module) else None
    return all(child is weights for child in module.children())


def _computing(root: nn.Module) -> Iterator[nn.Module]:
    """The modules that compute activations, and not, as parametrizations do, the weights of another."""
    within = {
        part
        for module in root.modules()
        if parametrize.is_parametrized(module)
        for part in module.get_submodule("parametrizations").modules()
    }
    return (module for module in names_of_modules(root) if module not in within)


class _Reading:
    """Conclusions from the passes: ``once``, what was ``noisy`` in another, and ``doubled``, of each example twice."""

    def __init__(
        self, root: nn.Module, batch_axes: Mapping[str, int], once: _Pass, noisy: Set[Key], doubled: _Pass | None
    ) -> None:
        self.root, self.batch_axes = root, batch_axes
        self.once, self.noisy, self.doubled = once, noisy, doubled
        self.names = names_of_modules(root)
        self.paths = {path: module for module, paths in self.names.items() for path in paths}
        self.owned, self.uncalled = self._owned()
        self.reasons: dict[str, str] = {}  # of layers that have no row for each example

    def census(self) -> Census:
        layers = [
            *self._input(),
            *self._with_output([self._layer(key) for key in self.once.outputs if key[0] is not self.root]),
        ]
        self._check_axes([layer.name for layer in layers])
        numbered = tuple(replace(layer, order=order) for order, layer in enumerate(layers))
        named = {self.names[module][0]: why for module, why in self.once.reasons.items()}
        listed = {layer.path for layer in layers if layer.batched and not layer.part}
        return Census(numbered, tuple(self._left_out(listed)), self.reasons | named)

    # ------------------------------------------------------------------------------------------------ layers
    def _layer(self, key: Key) -> Layer:
        module, call, part = key
        name, *aliases = (
            name_of_call(path, call) + (PART + part if part else "") for path in self.names.get(module, ("output",))
        )
        layer = Layer(
            name=name,
            module_class=f"{module._get_name()} state"
            if part
            else module._get_name(),  # what a traced function is called
            order=0,  # the list gives the number
            call_index=call,
            feature_shape=tuple(self.once.outputs[key].shape[1:]),
            aliases=tuple(aliases),
            leaf=is_leaf(module),
            parameters=0 if part else self.owned.get(module, 0),
            calls=self.once.calls[module] or 1,
            part=part,
        )
        return self._arranged(layer, key)

    def _arranged(self, layer: Layer, key: Key) -> Layer:
        """The layer with where its examples are; without a row for each of them, with the reason noted."""
        tensor, noisy = self.once.outputs[key], key in self.noisy
        layer = replace(layer, noisy=noisy)
        twice = None if self.doubled is None else self.doubled.outputs.get(key)
        axis = self._axis(layer, key[0], tensor, twice)
        n = self.once.n_examples
        if axis is None:
            unseen = f"; --batch-axis {layer.path}=AXIS says which axis is the batch" if self.doubled is None else ""
            return self._without_rows(layer, UNBATCHED + unseen)
        if tensor.shape[axis] % n or not tensor.shape[axis]:
            return self._without_rows(
                layer, f"returns {tensor.shape[axis]} rows for {n} examples, which is not as many for each"
            )
        layer = replace(layer, batch_axis=axis, fold=tensor.shape[axis] // n)
        order = _order(layer, tensor, None if noisy else twice)
        if order is None and layer.fold > 1:
            return self._without_rows(
                layer, f"returns {layer.fold} rows per example, in an order that depends on the batch"
            )
        layer = replace(layer, interleaved=bool(order), mixed=order is None)
        return replace(layer, feature_shape=tuple(rows_of(layer, tensor, n).shape[1:]))

    def _without_rows(self, layer: Layer, reason: str) -> Layer:
        self.reasons[layer.name] = reason
        return replace(layer, batched=False)

    def _axis(self, layer: Layer, module: nn.Module, tensor: Tensor, twice: Tensor | None) -> int | None:
        """The axis that was told, else the one that grows with the batch, else the one that the kind of module has."""
        for glob, axis in self.batch_axes.items():
            if any(fnmatch.fnmatchcase(name, glob) for name in (*layer.names, *([] if layer.part else [layer.path]))):
                return _told(layer, glob, axis, tensor)
        if twice is None:
            axis = known_batch_axis(self._around(module)) if tensor.ndim == 3 and not layer.part else 0
            return axis if tensor.shape[axis] == self.once.n_examples else None
        if twice.ndim != tensor.ndim:
            return None
        grown = [i for i in range(tensor.ndim) if twice.shape[i] == 2 * tensor.shape[i] > 0]
        known = known_batch_axis(self._around(module))
        return known if known in grown else next(iter(grown), None)

    def _around(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module and those that it lies in, the innermost first."""
        path = self.names[module][0] if module in self.names else ""
        while path:
            yield self.paths[path]
            path = path.rpartition(".")[0]
        yield self.root

    def _check_axes(self, names: list[str]) -> None:
        for glob in self.batch_axes:
            if not any(fnmatch.fnmatchcase(name, glob) for name in (*names, *self.paths)):
                raise UsageError(f"--batch-axis: no layer matches {glob!r}{near_names(glob, names)}")

    def _input(self) -> list[Layer]:
        inputs = input_tensor(self.once.batch)
        if inputs is None:
            return []
        name, shape = name_of_end("input", self.root), tuple(inputs.shape[1:])
        return [Layer(name, "Input", 0, 0, shape, (), leaf=True, parameters=0)]

    def _with_output(self, layers: list[Layer]) -> list[Layer]:
        """The layers; the one that made the output has its alias, else the output is a layer of its own."""
        output, name = first_tensor(self.once.output), name_of_end("output", self.root)
        if output is None:
            self.reasons[name] = why_no_tensor(self.once.output)
            return layers
        for key, tensor, version in (self.once.last[leaf] for leaf in (True, False) if leaf in self.once.last):
            if _same(tensor, output) and tensor._version == version:
                made = self._layer(key).name
                return [replace(own, aliases=(*own.aliases, name)) if own.name == made else own for own in layers]
        return [*layers, replace(self._layer((self.root, 0, "")), name=name)]

    # ------------------------------------------------------------------------------------------------ weights
    def _owned(self) -> tuple[dict[nn.Module, int], dict[str, int]]:
        """Numbers of weights that each called module computes with: its own, and those of modules in it that are not called;
        and those of modules that lie in none that is called, by name."""
        owned: Counter[nn.Module] = Counter()
        uncalled: dict[str, list[nn.Parameter]] = {}
        held: set[nn.Parameter] = set()
        for path, module in self.root.named_modules():
            weights = [w for w in module.parameters(recurse=False) if not nn.parameter.is_lazy(w)]
            holder = next((m for m in self._around_path(path) if m in self.once.calls), None)
            if holder is None and module is not self.root:
                uncalled[path] = weights
            elif weights:
                owned[holder or self.root] += sum(w.numel() for w in weights)
                held.update(weights)
        alone = {path: sum(w.numel() for w in weights if w not in held) for path, weights in uncalled.items()}
        return owned, {
            path: n for path, n in alone.items() if n
        }  # what is tied to a module that is called is seen there

    def _around_path(self, path: str) -> Iterator[nn.Module]:
        while path:
            if path in self.paths:
                yield self.paths[path]
            path = path.rpartition(".")[0]

    def _left_out(self, listed: set[str]) -> Iterator[LeftOut]:
        for module, weights in self.owned.items():
            name = self.names[module][0] if module in self.names else ""
            if name and not listed.intersection(self.names[module]):
                reason = self.once.reasons.get(module) or self.reasons.get(name) or UNBATCHED
                yield LeftOut(name, module._get_name(), weights, reason)
        for path, weights in self.uncalled.items():
            yield LeftOut(path, self.paths[path]._get_name(), weights, UNCALLED)


def _differing(once: _Pass, again: _Pass) -> Set[Key]:
    """The outputs that are not the same in another pass of the same examples."""
    rounding = 1e-5  # of kernels that add up in any order
    return {
        key
        for key, tensor in once.outputs.items()
        if key not in again.outputs or not _close(tensor, again.outputs[key], rounding)
    }


def _told(layer: Layer, glob: str, axis: int, tensor: Tensor) -> int:
    if not 0 <= axis < tensor.ndim:
        shape = " x ".join(map(str, tensor.shape))
        raise UsageError(
            f"--batch-axis {glob}={axis}: {layer.name} returns {shape}; give an axis from 0 to {tensor.ndim - 1}"
        )
    return axis


def _order(layer: Layer, tensor: Tensor, twice: Tensor | None) -> bool | None:
    """Return whether the rows of an example are interleaved with those of the others; None where every order fails, since
    rows depend on what else is in the batch. What cannot be told is taken to be one example after another."""
    if twice is None:
        return False
    rows, more = tensor.movedim(layer.batch_axis, 0), twice.movedim(layer.batch_axis, 0)
    for interleaved in (False, True) if layer.fold > 1 else (False,):
        one, two = (unfolded(t, layer.fold, interleaved=interleaved) if layer.fold > 1 else t for t in (rows, more))
        if _close(one.repeat_interleave(2, 0), two, max(1e-3, 8 * torch.finfo(tensor.dtype).eps)):
            return interleaved
    return None


def _close(tensor: Tensor, other: Tensor, tolerance: float) -> bool:
    """Return whether both are the same up to a share of the largest entry; activations depend on the size of a batch by
    about 1e-6 in float32."""
    if tensor.shape != other.shape:
        return False
    finite = tensor.nan_to_num(0, 0, 0).abs()
    return torch.allclose(
        tensor, other, rtol=0, atol=tolerance * float(finite.amax()) if finite.numel() else 0, equal_nan=True
    )


def _same(tensor: Tensor, other: Tensor) -> bool:
    """Return whether both tensors are the same numbers in the same memory."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) == (other.data_ptr(), other.shape, other.stride())

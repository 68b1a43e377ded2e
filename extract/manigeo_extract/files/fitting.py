"""Fit of a state dict to a network, found by torch's own protocol: what ``load_state_dict`` says is what counts.

A module may convert the tensors of its earlier versions while it loads them (parametrizations, batch norm, any module
with a ``_version``), which it knows by the ``_metadata`` of the state dict. So nothing is compared by name: the state
dict, less the prefixes that wrappers put before its names, is loaded into a copy of the network that has no memory of
its own, and what this copy says is missing, unexpected or of another shape, and what it took, is the fit.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from manigeo.errors import InputError, one_line
from manigeo.weights import is_kernel

INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # torch.compile, FSDP, checkpointing
_COUNTER = ".n_averaged"  # torch.optim.swa_utils.AveragedModel counts its updates under this name
_MISMATCH = re.compile(r"size mismatch for (\S+): copying a param with shape (.*) from checkpoint, .* model is (.*)\.$")


@dataclass(frozen=True)
class Fit:
    """Fit of a state dict to a network: the tensors that fit, under the network's names, and the names of the others.

    ``prefixes`` were taken off (``added`` was put on). Of the network's tensors ``missing`` are not in the file,
    ``reshaped`` have another shape there and ``retyped`` are no floating point numbers there; ``unexpected`` are those of
    the file that the network does not have. ``kernels`` are those that the network has, ``remarks`` further things that a
    user should know, and ``given`` is what ``load_state_dict`` is given. ``copies`` are the prefixes below each of which the
    file has as many names of the network, where there are several.
    """

    state_dict: Mapping[str, Any]
    prefixes: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    added: str = ""
    remarks: tuple[str, ...] = ()
    kernels: frozenset[str] = frozenset()
    copies: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def complete(self) -> bool:
        """True if every tensor of the network is in the file, and nothing else is."""
        return not (self.not_loaded or self.unexpected)

    @property
    def is_of_this_network(self) -> bool:
        """True if something of the file fits, and if the network has kernels one of these: biases of one shape prove
        nothing."""
        unfit = self.kernels.intersection(map(_name, self.not_loaded))
        return bool(self.state_dict) and (not self.kernels or unfit < self.kernels)

    @property
    def not_loaded(self) -> tuple[str, ...]:
        """Tensors of the network that keep their values, each with why."""
        return (*self.missing, *self.reshaped, *self.retyped)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was done without being asked for: prefixes taken off, tensors left out, values kept."""
        taken_off = [f"took the prefix {prefix!r} off the names" for prefix in self.prefixes]
        put_on = [f"put the prefix {self.added!r} before the names"] if self.added else []
        left = [f"left out: {self.mismatch(n=None)}"] if not self.complete else []
        others = [repr(prefix) for prefix in self.copies if prefix not in self.prefixes]
        copies = (
            [f"the file has other weights of this network below {', '.join(others)} (--state-key)"] if others else []
        )
        untrained = len(self.not_loaded)
        kept = [f"{untrained} tensors of the network keep their untrained values"] if untrained else []
        return (*taken_off, *put_on, *self.remarks, *copies, *left, *kept)

    def mismatch(self, n: int | None = 3) -> str:
        """Describe what does not match, with up to ``n`` names of each sort."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.reshaped,
            "that are no floating point numbers": self.retyped,
        }
        return "; ".join(f"{len(names)} {kind} ({_first(names, n)})" for kind, names in kinds.items() if names)

    def load_into(self, network: nn.Module) -> None:
        """Load the weights, as ``load_state_dict`` does; what does not fit keeps the value that it has."""
        own = network.state_dict()
        kept = {name: own[name].clone() for name in map(_name, self.retyped)}
        _quietly_loaded(network, self.given)
        for name, value in kept.items():
            own[name].copy_(value)


def fit_state(saved: Mapping[str, Any], network: nn.Module) -> Fit:
    """Fit a state dict to a network, below the prefix under which most of its names are found.

    Raises :class:`~manigeo.errors.InputError` for weights that the network fails to load for any other reason than
    names, shapes and kinds of numbers.

    >>> saved = {"net.weight": torch.zeros(2, 2), "net.bias": torch.zeros(2)}
    >>> fit = fit_state(saved, nn.Linear(2, 2))
    >>> fit.prefixes, fit.complete
    (('net.',), True)
    """
    own = network.state_dict(keep_vars=True)
    saved = renamed(saved, lambda name: None if f".{name}".endswith(_COUNTER) and name not in own else name)
    tried = (
        _fit_below(saved, network, own, prefix, added)
        for prefix, added in _prefixes([plain_name(name) for name in saved], [plain_name(name) for name in own])
    )
    fit = min(tried, key=lambda fit: len(fit.missing) + len(fit.unexpected))
    return replace(fit, copies=_copies([plain_name(name) for name in saved], {plain_name(name) for name in own}))


def _fit_below(saved: Mapping[str, Any], network: nn.Module, own: Mapping[str, Any], prefix: str, added: str) -> Fit:
    """The fit of what is below a prefix in the file, with another prefix before it."""

    def rename(name: str) -> str | None:
        plain = plain_name(name)
        return _as_in(network, added + plain.removeprefix(prefix)) if plain.startswith(prefix) else None

    given = renamed(saved, rename)
    remarks = _dequantised(given, own)
    answer = _asked(network, given)
    original = {rename(name): name for name in saved}
    outside = [name for name in saved if rename(name) is None]
    taken, missing = _with_shared(answer, own)
    retyped = _retyped(taken, own)
    used = set(given) - {*answer.unexpected, *answer.reshaped, *retyped}  # what a module fills in is not from the file
    inserted = [part for part in INSERTED if any(part in name for name in saved) and not any(part in n for n in own)]
    return Fit(
        state_dict={name: value for name, value in taken.items() if used and name not in retyped},
        prefixes=(*([prefix] if prefix else []), *inserted),
        missing=tuple(dict.fromkeys(missing)),  # a module may name a tensor twice
        unexpected=(*(original.get(name, name) for name in answer.unexpected), *outside),
        reshaped=tuple(f"{name} {shapes}" for name, shapes in answer.reshaped.items()),
        retyped=tuple(f"{name} {dtype}" for name, dtype in retyped.items()),
        added=added,
        remarks=(*remarks, *_shared_but_different(taken, own), *_unversioned(saved, network)),
        kernels=frozenset(n for n, t in own.items() if isinstance(t, Tensor) and _is_kernel(n, t)),
        given=given,
    )


def _is_kernel(name: str, tensor: Tensor) -> bool:
    return not nn.parameter.is_lazy(tensor) and is_kernel(name, tuple(tensor.shape))


def renamed(state: Mapping[str, Any], rename: Callable[[str], str | None]) -> OrderedDict[str, Any]:
    """A state dict under other names (None: left out), and the versions of its modules under the same other names.

    >>> state = nn.Sequential(nn.BatchNorm1d(1)).state_dict()
    >>> new = renamed(state, lambda name: f"net.{name}")
    >>> list(new)[0], new._metadata["net.0"]
    ('net.0.weight', {'version': 2})
    """
    new = OrderedDict((to, value) for name, value in state.items() if (to := rename(name)) is not None)
    versions = getattr(state, "_metadata", None)
    if isinstance(versions, Mapping):
        of_modules: OrderedDict[str, Any] = OrderedDict()
        for path in sorted(versions, key=len):  # a wrapper and what it wraps get one name: the inner one is meant
            to = rename(f"{path}." if path else "")
            if to is not None:
                of_modules[to.removesuffix(".")] = _version(versions[path])
        new._metadata = of_modules  # type: ignore[attr-defined]
    return new


def without_prefix(state: Mapping[str, Any], prefix: str) -> OrderedDict[str, Any]:
    """The part of a state dict that is below a prefix, without it."""
    return renamed(state, lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None)


def _version(of_module: Any) -> Any:
    """The same without what a loading by assignment leaves there."""
    if not isinstance(of_module, Mapping):
        return {}
    return {key: value for key, value in of_module.items() if key != "assign_to_params_buffers"}


def plain_name(name: str) -> str:
    """The name without what wrappers insert anywhere in it."""
    for part in INSERTED:
        name = name.replace(part, "")
    return name


def _as_in(network: nn.Module, name: str) -> str:
    """The plain name as the network has it, in which parts may be wrapped by ``torch.compile``."""
    module: nn.Module | None = network
    parts = []
    for part in name.split("."):
        while module is not None and "_orig_mod" in module._modules:
            parts.append("_orig_mod")
            module = module._modules["_orig_mod"]
        parts.append(part)
        module = None if module is None else module._modules.get(part)
    return ".".join(parts)


# ------------------------------------------------------------------------------------------------- below which prefix
def _prefixes(saved: Sequence[str], own: Sequence[str]) -> list[tuple[str, str]]:
    """Prefixes to take off the names of the file and to put before them, where that is not clear several of both.

    Off go the containers above the network in the file, as few as let the most names match; on go those in the network
    above what the file holds, where most of the file and of the network then match.
    """
    prefix, n = _most_matches(saved, set(own))
    added, n_added = _most_matches(own, set(saved))
    if n_added > n and 2 * n_added > max(len(saved), len(own)):
        return [("", added)]
    if n == 0:  # spelled otherwise by another version of a module: the modules may still have their names
        prefix, n = _most_matches(map(_module_of, saved), set(map(_module_of, own)))
    if n > 0:
        return [(prefix, "")]
    first = next(iter(saved), "")
    return [(first[:i], "") for i in _starts(first) if all(name.startswith(first[:i]) for name in saved)]


def _module_of(name: str) -> str:
    """Name of the module that a tensor belongs to, up to its dot; a parametrization is part of what it parametrizes.

    >>> _module_of("net.fc.parametrizations.weight.original0"), _module_of("net.fc.weight_g"), _module_of("weight")
    ('net.fc.', 'net.fc.', '')
    """
    path = f".{name}".rpartition(".")[0] + "."
    return (path.partition(".parametrizations.")[0] + ".").lstrip(".") if ".parametrizations." in path else path[1:]


def _matches(longer: Iterable[str], shorter: Collection[str]) -> Counter[str]:
    return Counter(name[:i] for name in longer for i in _starts(name) if name[i:] in shorter)


def _copies(saved: Sequence[str], own: Collection[str]) -> tuple[str, ...]:
    """Prefixes below each of which the file has as many names of a network: an average beside it, a teacher, an encoder.

    >>> _copies(["ema.fc.weight", "fc.weight", "queue"], {"fc.weight"}), _copies(["fc.weight"], {"fc.weight"})
    (('', 'ema.'), ())
    """
    matches = _matches(saved, own)
    most = max(matches.values(), default=0)
    found = tuple(sorted(prefix for prefix, n in matches.items() if n == most))
    return found if len(found) > 1 and 2 * most > len(own) else ()


def _most_matches(longer: Iterable[str], shorter: Collection[str]) -> tuple[str, int]:
    matches = _matches(longer, shorter)
    best = max(matches, key=lambda prefix: (matches[prefix], -len(prefix)), default="")
    return best, matches[best]


def _starts(name: str) -> list[int]:
    """Positions where the parts of a dotted name begin."""
    return [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]


# ------------------------------------------------------------------------------------------------------- asking torch
@dataclass(frozen=True)
class _Answer:
    """Answer of a network to a state dict, and all its tensors afterwards."""

    missing: Sequence[str]
    unexpected: Sequence[str]
    reshaped: Mapping[str, str]
    state: Mapping[str, Any]


def _asked(network: nn.Module, given: OrderedDict[str, Any]) -> _Answer:
    """Ask the network what it says of these weights; it is left as it was.

    It is asked on a copy without memory, which takes the tensors as they are. Where a network cannot be copied so, or
    reads what has no memory, a whole copy is asked, and where it cannot be copied at all, the network itself.
    """
    on_meta = any(tensor.is_meta for tensor in network.parameters())
    for copied in (_on_meta, copy.deepcopy):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about its own copying
                answer = _answer(copied(network), given, assign=copied is _on_meta)
        except Exception:  # the network is anybody's: a copy may lack anything
            continue
        if on_meta or not any(isinstance(v, Tensor) and v.is_meta for v in _taken(answer).values()):
            return answer
    kept = {name: value.clone() for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    try:
        answer = _answer(network, given, assign=False)
        return replace(answer, state=copy.deepcopy(answer.state))
    except Exception as error:
        raise InputError(
            f"{type(network).__name__}.load_state_dict does not take them ({one_line(error)}); is this the architecture "
            "and the version of its code that they were saved from?"
        ) from error
    finally:
        for name, value in network.state_dict().items():
            if name in kept:
                value.copy_(kept[name])


def _answer(network: nn.Module, given: OrderedDict[str, Any], *, assign: bool) -> _Answer:
    told: dict[str, list[str]] = {"missing": [], "unexpected": []}

    def note(module: nn.Module, keys: Any) -> None:
        told.update(missing=[*keys.missing_keys], unexpected=[*keys.unexpected_keys])

    handle = network.register_load_state_dict_post_hook(note)
    try:
        reshaped = _quietly_loaded(network, given, **({"assign": True} if assign else {}))
    finally:
        handle.remove()
    return _Answer(told["missing"], told["unexpected"], reshaped, network.state_dict())


def _quietly_loaded(network: nn.Module, given: Mapping[str, Any], **options: Any) -> dict[str, str]:
    """Load what fits, and return which tensors have another shape, with both."""
    state = OrderedDict(given)
    state._metadata = copy.deepcopy(getattr(given, "_metadata", None))  # type: ignore[attr-defined]  # loading writes into it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks about copies without memory, and its own deprecations
            network.load_state_dict(state, strict=False, **options)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).split("\n")[1:]]
        found = [_MISMATCH.match(line) for line in lines]
        if not found or None in found:
            raise
        return {match[1]: f"{_shape(match[2])} instead of {_shape(match[3])}" for match in found if match}
    return {}


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy of the network whose tensors have shapes and no memory."""
    return copy.deepcopy(network, {id(tensor): _without_memory(tensor) for tensor in _tensors(network)})


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors that a module keeps beside them (the weight that an old weight norm computed)."""
    for module in network.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            yield from (value for value in held.values() if isinstance(value, Tensor))


def _without_memory(tensor: Tensor) -> Tensor:
    if nn.parameter.is_lazy(tensor):
        return type(tensor)(requires_grad=False, device="meta", dtype=tensor.dtype)  # type: ignore[call-arg]
    bare = tensor.detach().to("meta")
    return nn.Parameter(bare, requires_grad=False) if isinstance(tensor, nn.Parameter) else bare


def _taken(answer: _Answer) -> dict[str, Any]:
    left = {*answer.missing, *answer.reshaped}
    return {name: value for name, value in answer.state.items() if name not in left}


# ------------------------------------------------------------------------------------------- what the answer comes to
def _with_shared(answer: _Answer, own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The tensors that were taken, and the names that are missing: of those that are one tensor one is enough."""
    taken, missing = _taken(answer), []
    for name in answer.missing:
        same = next((n for n in taken if n in own and name in own and _is_one(own[n], own[name])), None)
        if same is None:
            missing.append(name)
        else:
            taken[name] = taken[same]
    return {name: taken[name] for name in answer.state if name in taken}, missing


def _is_one(tensor: Any, other: Any) -> bool:
    """Return whether both are the same numbers in the same memory."""
    if tensor is other:
        return True
    if not (isinstance(tensor, Tensor) and isinstance(other, Tensor)) or nn.parameter.is_lazy(tensor):
        return False
    if nn.parameter.is_lazy(other) or tensor.shape != other.shape or tensor.stride() != other.stride():
        return False
    places = [(t.untyped_storage()._cdata, t.storage_offset(), t.dtype) for t in (tensor, other)]
    return tensor.numel() > 0 and places[0] == places[1]


def _shared_but_different(taken: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Names that are one tensor in the network, and two of different values in the file: the network has the last."""
    tensors = [name for name in taken if isinstance(own.get(name), Tensor) and isinstance(taken[name], Tensor)]
    by_place: dict[Any, str] = {}
    said = []
    for name in tensors:
        if nn.parameter.is_lazy(own[name]):
            continue
        first = by_place.setdefault((own[name].untyped_storage()._cdata, own[name].storage_offset()), name)
        if first != name and _is_one(own[first], own[name]) and _differ(taken[first], taken[name]):
            said.append(f"{first} and {name} are one tensor in the network and differ in the file: {name} was taken")
    return said


def _differ(tensor: Tensor, other: Tensor) -> bool:
    if tensor is other or tensor.is_meta or other.is_meta:
        return False
    return tensor.dtype != other.dtype or not torch.equal(tensor, other)


def _retyped(taken: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, str]:
    """Tensors that are whole or complex numbers in the file, and real ones in the network: a cast would make noise of
    packed integers, and drop imaginary parts. A single number may be of any kind."""
    tensors = {name: t for name, t in taken.items() if isinstance(t, Tensor) and isinstance(own.get(name), Tensor)}
    return {
        name: f"{str(t.dtype).removeprefix('torch.')} instead of {str(own[name].dtype).removeprefix('torch.')}"
        for name, t in tensors.items()
        if (t.is_complex() and not own[name].is_complex())
        or (own[name].is_floating_point() and not (t.is_floating_point() or t.is_complex()) and t.ndim > 0)
    }


def _dequantised(given: OrderedDict[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Turn quantised tensors into numbers, where the network computes with numbers."""
    names = [
        name
        for name, value in given.items()
        if isinstance(value, Tensor) and value.is_quantized and not getattr(own.get(name), "is_quantized", False)
    ]
    for name in names:
        given[name] = given[name].dequantize()
    return [f"{len(names)} quantised tensors were taken as the numbers that they stand for"] if names else []


def _unversioned(saved: Mapping[str, Any], network: nn.Module) -> list[str]:
    """Modules with versions of their own, which take weights without any for those of their first version."""
    if getattr(saved, "_metadata", None) is not None:
        return []
    names = {
        type(m).__name__ for m in network.modules() if m._version > 1 and not type(m).__module__.startswith("torch.")
    }
    return [f"the file states no versions, so that {', '.join(sorted(names))} may convert its weights"] if names else []


def _shape(text: str) -> str:
    """``torch.Size([4, 3])`` as ``(4, 3)``."""
    return str(tuple(int(number) for number in re.findall(r"\d+", text)))


def _name(described: str) -> str:
    return described.partition(" ")[0]


def _first(names: Sequence[str], n: int | None) -> str:
    return ", ".join(names[:n]) + (", ..." if n is not None and len(names) > n else "")

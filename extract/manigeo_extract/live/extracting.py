"""Activations of a network at hand, which is left as it was found."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manigeo.activations import Activations, open_activations
from manigeo.errors import UsageError, names_of
from manigeo.inputs import whole_number
from manigeo.text.scores import doubts
from manigeo_extract.data.datasets import DataSet
from manigeo_extract.data.live import data_at_hand
from manigeo_extract.data.positions import grouping_of
from manigeo_extract.devices import check_device
from manigeo_extract.recording.extraction import extract_activations, hold_activations, plan_extraction
from manigeo_extract.recording.layers import unwrap
from manigeo_extract.recording.next_token import answering_contexts


def extract(
    model: Any,
    data: Any,
    layers: str | Sequence[str] | None = None,
    *,
    train_labels: Any = None,
    permuted: Any = None,
    out: str | os.PathLike[str] | None = None,
    exclude: str | Sequence[str] = (),
    regex: str | Sequence[str] = (),
    types: str | Sequence[str] = (),
    readout: str | None = None,
    per_class: int = 50,
    project: int | None = None,
    dtype: str = "float32",
    seed: int = 0,
    batch_size: int | None = None,
    batch_axis: Mapping[str, int] | None = None,
    manifolds: str = "label",
    positions: Sequence[int] = (),
    device: str | torch.device | None = None,
    checkpoint: str = "",
    epoch: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> Activations:
    """Activations of a live network, in memory, or with ``out`` in that file, which is returned open.

    ``data`` are a data set, a loader, a pair (X, y) of arrays or tensors, or a mapping of these by split, ``{"train": ...,
    "test": ...}``; or what :func:`~manigeo_extract.data.datasets.load_data` returns. Its labels are the true ones. Where
    the network was trained on others, ``train_labels`` has one for each training example (or is the table of
    :func:`~manigeo_extract.data.datasets.permute_labels`), and ``permuted``, a mask, marks the members of the permuted
    set, by default those whose label differs. Without splits, and without labels of training, all examples are of the kind
    ``all``.

    ``layers``, ``exclude`` (globs), ``regex`` and ``types`` choose layers, by default all that compute with parameters;
    ``readout``, ``per_class`` (examples per class and kind), ``project``, ``dtype``, ``seed``, ``batch_size`` and
    ``batch_axis`` are as in ``manigeo extract``, and so are ``manifolds`` and ``positions`` of a text. The network computes
    in eval mode on its own device, or on ``device``, and is then as it was: mode, device, buffers, hooks and the state of
    the random numbers of torch. ``checkpoint`` and ``epoch`` are what tables call these weights.

    Raises :class:`~manigeo.errors.UsageError` and :class:`~manigeo.errors.InputError`, with the remedy in the message, for
    data, labels, layers and devices that are not such or do not go together.

    >>> net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> X, y = torch.randn(40, 5), torch.arange(40) % 2
    >>> acts = extract(net, (X, y), progress=False)
    >>> acts.layers, acts.kinds, [cloud.shape for cloud in acts.manifolds("0", "all")]
    (('input', '0', '2'), ('all',), [(20, 8), (20, 8)])
    """
    check_network(model)
    found, examples = data_at_hand(data, train_labels, permuted)
    model = answering_contexts(model, found)
    names = {"layers": layers or (), "exclude": exclude, "regex": regex, "types": types}
    chosen = {name: names_of(name, given) for name, given in names.items()}
    whole_number(seed, "seed", 0)
    whole_number(per_class, "per_class", 0)
    if batch_size is not None:
        whole_number(batch_size, "batch_size")
    if out is not None and (
        not isinstance(out, str | os.PathLike) or Path(out).suffix in (".csv", ".json", ".parquet")
    ):
        raise UsageError(f"out must be the path of an activation file, as in out='acts.h5', got {out!r}")
    with left_as_found(model, device) as at:
        plan = plan_extraction(
            model, found, examples, readout=readout, per_class=per_class, project=project, dtype=dtype, seed=seed,
            batch_axes=batch_axis, manifolds=manifolds, positions=tuple(positions), **chosen,
        )  # fmt: skip
        about = provenance_of(model, found, checkpoint, epoch)
        about |= grouping_of(manifolds, positions)
        running: dict[str, Any] = {"batch_size": plan.batch_size(batch_size), "device": at, "progress": progress}
        if out is None:
            acts = hold_activations(model, found, plan, about, **running)
        else:
            extract_activations(model, found, plan, out, about, force=force, **running)
            acts = open_activations(out)
    acts.notes = (*plan.notes, *doubts(acts.scores, acts.provenance, acts.n_seen_classes))
    return acts


def check_network(model: Any) -> None:
    """Raise :class:`~manigeo.errors.UsageError` for what is no network of torch."""
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"expected a network (torch.nn.Module), got {type(model).__name__}; of a checkpoint file, load it first, or "
            "use manigeo extract --model FILE"
        )
    if any(tensor.is_meta for tensor in model.parameters()):
        raise UsageError("the network has parameters without values (on the device meta); load its weights first")


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the processor for a network without any."""
    tensors = (tensor for of in (model.parameters(), model.buffers()) for tensor in of)
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


@contextmanager
def left_as_found(model: nn.Module, device: str | torch.device | None = None) -> Iterator[str]:
    """The network on this device (None: where it is) inside the block; after it device, modes, buffers and the random
    numbers of torch are what they were. Gives the name of the device.

    >>> net = nn.Dropout()
    >>> with left_as_found(net):
    ...     _ = net.eval(), torch.rand(3)
    >>> net.training
    True
    """
    own = device_of(model)
    at = own if device is None else check_device(device)
    places = {tensor.device for tensor in model.parameters()}
    if len(places) > 1 and device is not None:
        raise UsageError(f"the network is on several devices ({len(places)}); leave device= out")
    training = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    cuda = sorted({d.index for d in (own, at, *places) if d.type == "cuda" and d.index is not None})
    with torch.random.fork_rng(cuda), ExitStack() as after:
        if at != own:
            after.callback(model.to, own)
            model.to(at)
        try:
            yield str(at)
        finally:
            for module, flag in training.items():
                module.training = flag
            with torch.no_grad():
                for buffer, before in buffers.items():
                    if buffer.shape == before.shape and not _same(buffer, before):
                        buffer.copy_(before)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(torch.equal(a.cpu(), b.cpu()))


def provenance_of(model: nn.Module, data: DataSet, checkpoint: str = "", epoch: int | None = None) -> dict[str, Any]:
    """Origin of activations as their file holds it: weights and data by content."""
    return {
        "model": type(unwrap(model)).__name__,
        "run": "",
        "checkpoint": checkpoint,
        "checkpoint_sha256": digest_of(model.state_dict()),
        "epoch": epoch,
        "data": data.spec,
        "data_args": data.args,
        "data_fingerprint": data.fingerprint,
        "preprocessing": data.preprocessing,
    }


def digest_of(state: Mapping[str, Any]) -> str:
    """SHA-256 of names, types, shapes and values of all tensors of a state.

    >>> digest_of({"w": torch.zeros(2)}) == digest_of({"w": torch.zeros(2).half()})
    False
    """
    digest = hashlib.sha256()
    for name, value in state.items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Device on which a network computes, the processor or an accelerator that is there, and the size of its batches."""

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from manigeo.errors import UsageError
from manigeo_extract.batches import Batch, n_examples

# What programs say when memory runs out; CUDA has a class of its own, the processor and MPS have not.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")


def check_device(device: str | torch.device) -> torch.device:
    """The device of that name: ``cpu``, ``cuda``, ``cuda:1`` ..., ``mps``.

    Raises :class:`~manigeo.errors.UsageError` for another name, and for a device that this machine does not have.

    >>> check_device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise _unknown(device) from error
    if found.type not in ("cpu", "cuda", "mps"):
        raise _unknown(device)
    if (found.index or 0) >= _count(found.type):
        raise UsageError(f"{found} is not available here; use --device cpu")
    return found


def _count(kind: str) -> int:
    if kind == "cuda":
        return torch.cuda.device_count() if torch.cuda.is_available() else 0
    return int(kind == "cpu" or torch.backends.mps.is_available())


def _unknown(device: str | torch.device) -> UsageError:
    return UsageError(f"no device {str(device)!r}; expected cpu, cuda, cuda:N for the N-th from 0 on, or mps")


def local_device(device: str, environ: Mapping[str, str] = os.environ) -> str:
    """``cuda`` as that of this process among those that torchrun started on the machine (LOCAL_RANK); others as they are.

    >>> local_device("cuda", {"LOCAL_RANK": "1"}), local_device("cpu", {"LOCAL_RANK": "1"})
    ('cuda:1', 'cpu')
    """
    return f"cuda:{environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in environ else device


class InPieces:
    """``forward``, and where memory runs out the same batch in halves, quarters ...; so are all batches from then on.

    ``smallest`` is then how many examples went through at a time. Results are those of the pieces, one after another, and
    as near to those of the whole as those of another batch size. ``tell`` hears of it once.

    Raises ``MemoryError`` where one example is too much.
    """

    def __init__(self, forward: Callable[[Batch], dict[str, Tensor]], tell: Callable[[str], None]):
        self._forward, self._tell = forward, tell
        self.smallest: int | None = None

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        told = self.smallest
        while (done := self._tried(batch)) is None:
            size = min(n_examples(batch), self.smallest or n_examples(batch))
            if size == 1:
                raise MemoryError("one example at a time is too much for this network; take fewer layers, or --project")
            self.smallest = -(-size // 2)
        if told is None and self.smallest is not None:
            self._tell(f"memory is short: batches go through the network {self.smallest} examples at a time")
        return done

    def _tried(self, batch: Batch) -> dict[str, Tensor] | None:
        """The results, or None where memory ran out; what the attempt held is free when this returns."""
        try:
            parts = [self._forward(piece) for piece in _pieces(batch, self.smallest or n_examples(batch))]
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        else:
            return parts[0] if len(parts) == 1 else {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _pieces(batch: Batch, size: int) -> list[Batch]:
    if isinstance(batch, Tensor):
        return list(batch.split(size))
    split = {name: tensor.split(size) for name, tensor in batch.items()}
    return [dict(zip(split, part, strict=True)) for part in zip(*split.values(), strict=True)]


def _is_out_of_memory(error: Exception) -> bool:
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)

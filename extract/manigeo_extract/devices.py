"""Where a network computes: the processor, or an accelerator that is there."""

import torch

from manigeo.errors import UsageError


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

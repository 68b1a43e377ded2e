"""Devices: a name is understood, or refused with what there is."""

import pytest
import torch

from manigeo.errors import UsageError
from manigeo_extract.devices import check_device


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta", "xla"])
def test_another_device_than_cpu_cuda_or_mps_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"no device '{name}'; expected cpu, cuda, cuda:N .* or mps"):
        check_device(name)


@pytest.mark.parametrize(("name", "present"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2), ("mps", 0), ("cpu:1", 0)])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, present: int) -> None:
    pretend(monkeypatch, present)
    with pytest.raises(UsageError, match=f"^{name} is not available here; use --device cpu$"):
        check_device(name)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_a_device_that_is_there_is_the_one_torch_knows(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch, 2)
    assert check_device(name) == check_device(torch.device(name)) == torch.device(name)


def pretend(monkeypatch: pytest.MonkeyPatch, n_accelerators: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_accelerators > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_accelerators)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: n_accelerators > 0)

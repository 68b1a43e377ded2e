"""Devices: a name is understood, or refused with what there is; where memory runs out, batches become smaller."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from manigeo.errors import UsageError
from manigeo_extract.batches import Batch, n_examples
from manigeo_extract.devices import InPieces, check_device, local_device


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


def test_a_process_of_torchrun_takes_its_own_accelerator() -> None:
    assert local_device("cuda", {"LOCAL_RANK": "3"}) == "cuda:3"
    assert local_device("cuda", {}) == "cuda"
    assert local_device("cuda:0", {"LOCAL_RANK": "3"}) == "cuda:0"


# ------------------------------------------------------------------------------------------------ when memory runs out
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    MemoryError("Unable to allocate 2 GiB for an array"),
]


def network_for(most: int, error: Exception) -> tuple[Callable[[Batch], dict[str, Tensor]], list[int]]:
    """One that takes ``most`` examples at a time, and the sizes of the batches it was given."""
    sizes: list[int] = []

    def forward(batch: Batch) -> dict[str, Tensor]:
        sizes.append(n_examples(batch))
        if sizes[-1] > most:
            raise error
        values = batch if isinstance(batch, Tensor) else batch["ids"]
        return {"double": 2 * values, "half": values / 2}

    return forward, sizes


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"ids": x, "mask": x > 0}])
def test_a_batch_beyond_the_memory_goes_through_in_pieces_and_so_do_the_next(
    error: Exception, wrap: Callable[[Tensor], Batch]
) -> None:
    told: list[str] = []
    forward, sizes = network_for(3, error)
    run = InPieces(forward, told.append)
    for _ in range(2):
        x = torch.randn(10, 4)
        for name, values in run(wrap(x)).items():
            assert torch.equal(values, {"double": 2 * x, "half": x / 2}[name])
    assert sizes == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]
    assert run.smallest == 3
    assert told == ["memory is short: batches go through the network 3 examples at a time"]


def test_what_fits_goes_through_whole_and_nothing_is_said() -> None:
    forward, sizes = network_for(10, ERRORS[0])
    run = InPieces(forward, lambda said: pytest.fail(said))
    run(torch.randn(10, 4))
    assert sizes == [10]
    assert run.smallest is None


def test_one_example_too_much_is_said_to_be_so() -> None:
    forward, sizes = network_for(0, ERRORS[1])
    with pytest.raises(MemoryError, match="one example at a time is too much for this network"):
        InPieces(forward, print)(torch.randn(5, 4))
    assert sizes == [5, 3, 2, 1]


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    forward, sizes = network_for(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        InPieces(forward, print)(torch.randn(5, 4))
    assert sizes == [5]

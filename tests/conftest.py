"""The order of the tests, and the effects of trainings that they measured (:mod:`tests.effects`)."""

import csv
import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests import begin_test
from tests.effects import MEASURED, Effect
from tests.kernels import started_kernel

collect_ignore = ["user_script.py"]  # mypy checks it

# What takes long comes first, the longest first, so that no worker is left with it at the end; a file stays on one worker.
_LONG = """notebooks_of_papers notebooks cli report docs separations sweeps joint simulated layerwise memorization
separability pipeline localize interruptions faults unseen"""
LONG = [f"test_{name}" for name in _LONG.split()]

settings.register_profile("any_machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any_machine")


def pytest_configure(config: pytest.Config) -> None:
    """Files of the tests need not outlast a power cut: waiting for the disk is a tenth of the time of a short training."""
    os.fsync = lambda fd: None


def pytest_runtest_setup(item: pytest.Item) -> None:
    begin_test()
    MEASURED.clear()  # an example of a docstring measures effects, too, and they are no training's


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--margins", metavar="FILE", help="append the effects of trainings and their errors to a CSV file")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Leave modules and tests, which stay to the end, out of the search for garbage: it walked through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: these networks are too small for two, least of all on a busy machine."""
    import torch  # slow, and not what most tests need

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A kernel for the notebooks of a file."""
    for needed in ("nbclient", "ipykernel"):
        pytest.importorskip(needed)
    with started_kernel(tmp_path_factory.mktemp("ipython")) as manager:
        yield manager


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Effects go with the report, so that those measured by a worker reach the process that prints."""
    if call.when == "call" and item.get_closest_marker("training"):
        item.user_properties.extend(("effect", (e.what, e.effect, e.error, e.seeds)) for e in MEASURED)
        MEASURED.clear()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = list(_measured(terminalreporter))
    if not found:
        return
    test, smallest = min(found, key=lambda pair: pair[1].margin)
    terminalreporter.write_line(f"{len(found)} effects of trainings; the smallest margin, of {test}: {smallest}")
    if config.option.margins:
        with open(config.option.margins, "a", newline="") as file:
            rows = ((test, e.what, e.effect, e.error, e.margin, e.seeds) for test, e in found)
            csv.writer(file).writerows(rows)


def _measured(terminalreporter: Any) -> Iterator[tuple[str, Effect]]:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in report.user_properties if report.when == "call" else []:
                if name == "effect":
                    yield report.nodeid, Effect(*value)

"""What is in the working directory runs where a user has named it, and for nobody else's import."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pandas.compat._optional
import pytest
import torch

from manigeo.errors import UsageError
from manigeo.execution.start import leave_out_working_directory, started_as
from manigeo_extract.files.formats import read_model_file
from manigeo_extract.resolve import resolve_object

pytestmark = pytest.mark.installed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory that is not on ``sys.path``, whose modules are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.setattr("manigeo_extract.resolve.OWN_MODULES.folders", {})
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def optional_import(name: str) -> object:
    """What pandas does when it looks for a library that may be there."""
    return pandas.compat._optional.import_optional_dependency(name, errors="ignore")


@pytest.mark.parametrize("spec", ["own_net:make", "own_net.py:make", "sub/own_net.py:make", "own_pack.net:make"])
def test_a_named_module_finds_its_siblings_at_import_and_later(folder, spec):
    text = (
        "import own_a\ndef make(n):\n    import importlib, own_b\n"
        "    return own_a.x + own_b.x + importlib.import_module('own_c').x + n"
    )
    write(folder, own_net=text, sub__own_net=text, own_pack__net="from . import part\n" + text, own_pack__part="")
    write(
        folder,
        own_a="import own_d\nx = own_d.x",
        own_b="x = 20",
        own_c="def __getattr__(name):\n    from own_e import x\n    return x",
    )
    write(folder, own_d="x = 1", own_e="x = 300")
    before = list(sys.path)
    make = resolve_object(spec)
    assert sys.path == before
    assert make(4000) == 4321


def test_a_file_finds_what_lies_beside_it_before_the_working_directory(folder):
    write(folder, sub__own_net="from own_a import x", sub__own_a="x = 'beside'", own_a="x = 'here'")
    assert resolve_object("sub/own_net.py:x") == "beside"


def test_a_library_that_a_named_module_imports_or_calls_finds_nothing_in_the_folder(folder):
    write(folder, own_optional="raise SystemExit('it ran')")
    write(folder, own_net="from tests.test_resolve import optional_import\nfound = optional_import('own_optional')\n"
          "def make():\n    return optional_import('own_optional')")  # fmt: skip
    assert resolve_object("own_net:found") is None
    assert resolve_object("own_net:make")() is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("own_optional")


def test_what_is_installed_is_found_before_what_is_in_the_folder(folder):
    write(folder, colorsys="raise SystemExit('it ran')", torch="raise SystemExit('it ran')")
    write(folder, own_net="import colorsys, torch\nx = colorsys.rgb_to_hsv, torch.nn")
    assert resolve_object("own_net:x")[1] is torch.nn
    assert callable(resolve_object("colorsys:rgb_to_hsv"))


def test_an_installed_package_that_is_named_finds_nothing_in_the_folder(folder, tmp_path_factory, monkeypatch):
    site = tmp_path_factory.mktemp("site")
    write(site, own_library="try:\n    import own_optional as x\nexcept ImportError:\n    x = None")
    monkeypatch.syspath_prepend(site)
    write(folder, own_optional="raise SystemExit('it ran')")
    assert resolve_object("own_library:x") is None


def test_a_pickled_network_finds_its_class_in_the_folder_with_trust_alone(folder):
    write(folder, own_net="import torch\nopen('RAN', 'w').close()\nclass Net(torch.nn.Linear):\n    pass")
    torch.save(resolve_object("own_net:Net")(2, 2), "whole.pt")
    del sys.modules["own_net"]
    Path("RAN").unlink()
    with pytest.raises(Exception, match="--trust"):
        read_model_file("whole.pt")
    assert not Path("RAN").exists()
    network, _ = read_model_file("whole.pt", trust=True)
    assert type(network).__name__ == "Net"


def test_after_a_module_that_fails_nothing_more_is_found(folder):
    write(folder, own_net="import own_a\nraise ValueError('broken')", own_a="")
    with pytest.raises(UsageError, match="cannot import 'own_net': ValueError: broken"):
        resolve_object("own_net:make")
    assert optional_import("own_net") is None


# --------------------------------------------------------------------------------------------------- the start of commands
@pytest.mark.parametrize(
    ("words", "argv", "expected"),
    [
        (["python", "-m", "manigeo", "info"], ["-m", "info"], True),
        (["python", "-X", "dev", "-Bm", "manigeo"], ["-m"], True),
        (["python", "-mmanigeo", "info"], ["-m", "info"], True),
        (["python", "-m", "manigeo.__main__"], ["-m"], True),
        (["python", "/venv/bin/manigeo", "info"], ["/venv/bin/manigeo", "info"], True),
        (["python", "C:\\manigeo.exe", "info"], ["manigeo.exe", "info"], True),
        (["python", "-m", "pytest", "manigeo"], ["-m", "manigeo"], False),
        (["python", "-m", "mine", "-m", "manigeo"], ["-m", "-m", "manigeo"], False),
        (["python", "-c", "import manigeo"], ["-c"], False),
        (["python"], [""], False),
    ],
)
def test_the_program_is_told_from_a_script_that_imports_it(monkeypatch, words, argv, expected):
    monkeypatch.setattr(sys, "orig_argv", words)
    monkeypatch.setattr(sys, "argv", argv)
    assert started_as("manigeo") == expected


def test_the_working_directory_leaves_the_path_unless_it_is_named_in_full(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(folder), "", "/lib", ".", str(folder)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/lib", "."]))
    leave_out_working_directory()
    assert sys.path == ["/lib"]
    monkeypatch.setattr(sys, "path", ["", str(folder), "/lib"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), "/lib"]))
    leave_out_working_directory()
    assert sys.path == [str(folder), "/lib"]


def test_manigeo_itself_is_found_where_it_was_though_that_is_the_working_directory(monkeypatch):
    home = str(Path(__file__).parents[1])
    monkeypatch.chdir(home)
    monkeypatch.setattr("manigeo.execution.start.__file__", f"{home}/manigeo/execution/start.py")
    monkeypatch.setattr(sys, "path", [home, "/lib"])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    leave_out_working_directory()
    assert sys.path == ["/lib", home]


SHADOWS = (
    "bottleneck", "numexpr", "typeguard", "click", "lazy_loader", "typing", "threading", "signal", "json", "numpy", "joblib",
    "pandas", "sklearn", "psutil", "cloudpickle",
)  # fmt: skip
MAIN = "import sys; sys.argv[0] = '/bin/manigeo'; from manigeo.cli.main import main; main()"
WORKERS = """
import sys; sys.path.remove('')
from manigeo.execution.workers import Processes
assert sorted(Processes(2).as_completed(abs, [(-1,), (-2,)])) == [(0, 1), (1, 2)]
import numba.core.caching
assert not numba.core.config.CACHE_DIR
from manigeo.execution.start import leave_out_working_directory
leave_out_working_directory()
import manigeo.plots, matplotlib
assert not matplotlib.rcParams["text.usetex"] and matplotlib.get_backend() == "agg"
"""


@pytest.mark.parametrize(
    ("program", "entries", "code"),
    [
        (["-m", "manigeo", "info", "acts.h5"], [], 3),
        (["-P", "-c", MAIN, "info", "acts.h5"], [""], 3),
        (["-c", WORKERS], [], 0),
    ],
    ids=["python -m", "an empty entry of PYTHONPATH", "workers"],
)
def test_no_file_of_the_folder_runs_because_a_command_does(folder, program, entries, code):
    leave_out_working_directory()
    write(folder, **dict.fromkeys(SHADOWS, "import os\nos.close(os.open('RAN', os.O_CREAT))\nraise ImportError"))
    (folder / ".numba_config.yaml").write_text(f"cache_dir: {folder}/compiled\n")
    (folder / "matplotlibrc").write_text("text.usetex: True\nbackend: module://bottleneck\n")
    places = [str(Path(m.__file__).parents[1]) for m in map(importlib.import_module, ("manigeo", "manigeo_extract"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*entries, *places])}
    ended = subprocess.run([sys.executable, *program], capture_output=True, env=environment, text=True)
    assert ended.returncode == code, ended.stderr  # there is no acts.h5, which is seen when all is imported
    assert not Path("RAN").exists()

"""Networks that come inside other packages go from their files to capacity, with what their page shows and tells."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import manigeo
from tests.command_line import done
from tests.test_pages import BLOCKS, FENCE, GUIDE, PAGES, ROOT, words_of

pytestmark = [
    pytest.mark.skipif(not GUIDE.is_dir(), reason="needs the folder docs/ of a checkout"),
    # of webrtcvad and of Resemblyzer, when they are imported
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:Please import `binary_dilation`:DeprecationWarning"),
]
PACKAGES = {"resemblyzer": "A network that recognises speakers", "silero_vad": "A detector of speech"}
CELL = re.compile(r"([\d.]+) ± ([\d.]+)")


def section(package: str) -> str:
    """The part of the page that is about the network of a package."""
    (part,) = re.findall(
        rf"^## {PACKAGES[package]}\n(.*?)(?=^## |\Z)",
        PAGES["real_networks"].read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    return part


@pytest.mark.parametrize("package", PACKAGES)
def test_the_network_of_another_package_gives_the_numbers_of_its_page(package, tmp_path, monkeypatch):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install -c constraints.txt --group foreign (pip 25.1 or later)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    tables, path = [], os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for info, _, code in FENCE.findall(section(package)):
        if info.startswith("{literalinclude} "):
            shutil.copy(GUIDE / info.split()[1], tmp_path)
        elif info == "console":
            for entry in code.removeprefix("$ ").split("\n$ "):
                line, _, shown = entry.partition("\n")
                if not line.startswith("manigeo "):
                    name = line.partition("=")[0]
                    told = subprocess.check_output(
                        ["bash", "-ec", f'{line}; echo "${name}"'], text=True, env=os.environ | {"PATH": path}
                    )
                    monkeypatch.setenv(name, told.strip())
                    continue
                words = words_of(os.path.expandvars(line))
                said = done(*words, *["--jobs=1"] * (words[0] == "capacity"))
                assert not shown.strip() or said == shown, line
                tables += [Path(words[1]).with_suffix(".capacity.csv")] * (words[0] == "capacity")
    trained, untrained = (read(path) for path in tables)
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \|$", section(package), re.MULTILINE)
    assert [layer for layer, *_ in rows] == list(trained) == list(untrained)
    for layer, *cells in rows:
        for (value, stderr), cell in zip((trained[layer], untrained[layer]), cells, strict=True):
            shown, error = map(float, CELL.fullmatch(cell).groups())
            # the same draws: another processor moves a number less than other draws would, by its error
            assert (abs(value - shown) < error / 4 + 5e-4, abs(stderr - error) < error / 4 + 5e-4) == (True, True), (
                layer
            )


def read(path: Path) -> dict[str, tuple[float, float]]:
    """Capacity of test examples and its error, by the layer."""
    table = manigeo.read_results(path)
    chosen = table[(table["metric"] == "capacity") & (table["manifold"] == "") & (table["kind"] == "test")]
    return {row["layer"]: (row["value"], row["stderr"]) for _, row in chosen.sort_values("depth").iterrows()}


def test_the_packages_named_on_the_page_are_those_of_the_group():
    (line,) = [code for language, _, code in BLOCKS["real_networks"] if language == "bash"]
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    names = {re.match(r"[\w-]+", word.strip('"'))[0] for word in line.split()[2:]}
    assert names == {re.match(r"[\w-]+", entry)[0] for entry in groups["foreign"]}
